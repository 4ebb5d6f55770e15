"""The stretches of a Program that a sequencer runs in one go. Pure.

A stretch begins with a visit and goes on as far as the instrument can go by itself: through steps
and loops, across the passes that are left of the loops around, and on. The host's own steps, and
every choice that the instrument cannot make, lie between stretches: loops with ``until``, branches,
and what leads out of a loop or ends the program otherwise than by an end condition of a step.

Where an end condition leads elsewhere, an instrument that obeys that goes there itself, inside what
it has of the loop; from a loop of which it has only a part, the end ends the stretch, and the host
goes on. For another instrument a step with such an end is the last of a stretch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeAlias

import msgspec
import numpy as np

from labctl.drivers.base import Capabilities
from labctl.engine.walk import Position, Walk
from labctl.errors import InstrumentError
from labctl.model import Readings
from labctl.program import (
    HOST_CONTROLS,
    Branch,
    EndCondition,
    Leave,
    Loop,
    Node,
    Program,
    Quantity,
    Step,
    Then,
    VoltageSweep,
    inner_bodies,
)

LEAST_S: Final = 1.0
LEAST_PART: Final = 1e-3
"""What is always left of an end by time, and of one by charge or energy as a part of it: no
instrument takes a step that is over before it begins."""

Body: TypeAlias = tuple[Node, ...]


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A Program of its own; ``steps[i]`` is the index in the whole Program of its step ``i``.

    A step of the whole may be in it several times: in what is left of a pass, and in the passes
    after that.
    """

    program: Program
    steps: tuple[int, ...]


def segment_at(
    program: Program,
    walk: Walk,
    position: Position,
    capabilities: Capabilities,
    *,
    done_s: float = 0.0,
    done_Ah: float = 0.0,
    done_Wh: float = 0.0,
) -> Segment | None:
    """The longest stretch that begins with the visit at ``position``; None if that is the host's.

    From inside a loop it is the rest of the pass, then the loop with the passes that are left, then
    what follows. It has the name, the limits and the alarms of the whole.

    Args:
        program, walk: the whole.
        capabilities: of the instrument.
        done_s, done_Ah, done_Wh: what the first visit had come to before, net; its ends by time,
            charge and energy are that much nearer, and a sweep begins where it had come to.
    """
    first = walk.step(position)
    if _is_hosts(first):
        return None
    cut = _Cut(capabilities)
    if not (done_s or done_Ah or done_Wh):
        return _stretch(program, cut, first, position.counters)
    nearer = _shortened(first, done_s, done_Ah, done_Wh)
    return _stretch(program, cut, first, position.counters, nearer)


def stretches(program: Program, capabilities: Capabilities) -> list[Segment]:
    """The stretches that a run may come to, each once, in the order written.

    They are as they are in the first and in the last pass of every loop; in the passes between,
    less is left of the loops.
    """
    cut = _Cut(capabilities)
    found: list[Segment] = []
    for step, loops in dict.fromkeys(cut.beginnings(program.body)):
        for counters in ((1,) * len(loops), loops):
            stretch = _stretch(program, cut, step, counters)
            if stretch not in found:
                found.append(stretch)
    return found


def in_whole(segment: Segment, readings: Readings) -> Readings:
    """Readings of the segment's program as readings of the whole Program.

    Pass marks are told apart where the segment has a step of the whole several times.

    Raises:
        InstrumentError: a reading is of a step that the segment does not have.
    """
    count = len(segment.steps)
    if not len(readings) or segment.steps == tuple(range(count)):
        return readings
    odd = np.flatnonzero((readings.step < 0) | (readings.step >= count))
    if len(odd):
        raise InstrumentError(
            f"reading {int(readings.onboard_index[odd[0]])} of the instrument is of step "
            f"{int(readings.step[odd[0]]) + 1} of a program that has {count}"
        )
    steps = np.asarray(segment.steps, dtype=np.int64)
    mark = readings.pass_mark * count + readings.step
    return replace(readings, step=steps[readings.step], pass_mark=mark)


class _Cut:
    """What one instrument runs by itself."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._leaves = capabilities.leaves_loops

    def prefix(self, body: Body) -> tuple[Body, bool]:
        """As much of ``body`` from its beginning on as is run in one go, and whether that is all.

        Of a loop that is not run as a whole it is the beginning of the first pass.
        """
        count = self.whole_nodes(body)
        taken = body[:count]
        if count == len(body):
            return taken, True
        match body[count]:
            case Step() as step if not _is_hosts(step):
                return (*taken, _going_to_next(step)), False
            case Loop(body=inside):
                return (*taken, *_ending(self.prefix(inside)[0])), False
            case _:
                return taken, False

    def beginnings(self, body: Body) -> list[tuple[Step, tuple[int, ...]]]:
        """The steps that a stretch may begin with, with the counts of the loops around each."""
        found: list[tuple[Step, tuple[int, ...]]] = []
        self._look_for_beginnings(body, (), found, begins=True)
        return found

    def _look_for_beginnings(
        self,
        body: Body,
        loops: tuple[int, ...],
        found: list[tuple[Step, tuple[int, ...]]],
        *,
        begins: bool,
    ) -> bool:
        """Whether a stretch begins at the end of ``body``; ``begins``: one does at its start."""
        for node in body:
            match node:
                case Step():
                    if begins and not _is_hosts(node):
                        found.append((node, loops))
                    begins = not self.runs(node)
                case Loop(count=count, body=inside):
                    inner = (*loops, count)
                    whole = self.runs(node)
                    entered = begins or (not whole and bool(node.until))
                    seam = self._look_for_beginnings(inside, inner, found, begins=entered)
                    if seam and not entered:
                        self._look_for_beginnings(inside, inner, found, begins=True)
                    begins = seam or (not whole and (bool(node.until) or _can_be_left(inside)))
                case Branch(then=then, otherwise=otherwise):
                    arms = (then, otherwise)
                    seams = [
                        self._look_for_beginnings(arm, loops, found, begins=True) for arm in arms
                    ]
                    begins = any(seams)
                case _:
                    begins = True
        return begins

    def whole_nodes(self, body: Body) -> int:
        """How many nodes at the beginning of ``body`` are run as a whole."""
        for count, node in enumerate(body):
            if not self.runs(node):
                return count
        return len(body)

    def runs(self, node: Node) -> bool:
        """Whether the instrument runs all of a node by itself, and goes on after it."""
        match node:
            case Step():
                return not _is_hosts(node) and (self._leaves or not _chooses(node))
            case Loop(until=(), body=body):
                return all(map(self.runs, body))
            case _:
                return False

    def rest_of_loop(
        self, loop: Loop, done: int, taken: Body, goes_on: bool, *, from_start: bool
    ) -> tuple[Body, bool]:
        """What is left of a loop, and whether the stretch goes on after it.

        Args:
            done: which pass this is.
            taken: of the pass, what is left of it or as much of that as is run in one go.
            goes_on: whether that is all of it.
            from_start: whether it is the whole pass.
        """
        left = loop.count - done
        if not goes_on or loop.until:
            return _ending(taken), False
        if not self.runs(loop):
            if left:
                return (*_ending(taken), *_ending(self.prefix(loop.body)[0])), False
            return _leaving(taken, ()), True
        if from_start:
            return (_with_count(loop, left + 1),), True
        return _leaving(taken, (_with_count(loop, left),) if left else ()), True


def _is_hosts(step: Step) -> bool:
    return isinstance(step.control, HOST_CONTROLS)


def _chooses(step: Step) -> bool:
    return any(end.then is not Then.NEXT for end in step.ends)


def _with_count(loop: Loop, count: int) -> Loop:
    return loop if count == loop.count else msgspec.structs.replace(loop, count=count)


def _leaving(taken: Body, again: Body) -> Body:
    """The rest of a pass and the passes after it, so that leaving the loop leaves both."""
    together = (*taken, *again)
    leaves = any(
        end.then is Then.LEAVE_LOOP for node in taken if isinstance(node, Step) for end in node.ends
    )
    return (Loop(1, together),) if leaves else together


def _ending(body: Body) -> Body:
    """``body`` where it is in no loop: what would leave one ends the stretch instead."""

    def then(end: EndCondition) -> EndCondition:
        leaves = end.then is Then.LEAVE_LOOP
        return msgspec.structs.replace(end, then=Then.END_RUN) if leaves else end

    return tuple(
        msgspec.structs.replace(node, ends=tuple(map(then, node.ends)))
        if isinstance(node, Step) and _chooses(node)
        else node
        for node in body
    )


def _going_to_next(step: Step) -> Step:
    """A step that is the last of its stretch, for an instrument that goes nowhere else."""
    return msgspec.structs.replace(
        step, ends=tuple(msgspec.structs.replace(end, then=Then.NEXT) for end in step.ends)
    )


def _way_to(body: Body, index: int) -> list[tuple[Body, int]]:
    """The bodies around a step, outermost first, each with the place where the way goes on."""
    for place, node in enumerate(body):
        if isinstance(node, Step):
            if node.index == index:
                return [(body, place)]
            continue
        for inner in inner_bodies(node):
            if farther := _way_to(inner, index):
                return [(body, place), *farther]
    return []


def _can_be_left(body: Body) -> bool:
    """Whether the host may have to go on after the loop that ``body`` is of, from inside of it."""
    for node in body:
        match node:
            case Leave():
                return True
            case Step() if _chooses(node):
                return True
            case Branch(then=then, otherwise=otherwise):
                if _can_be_left(then) or _can_be_left(otherwise):
                    return True
            case _:
                pass
    return False


def _stretch(
    program: Program,
    cut: _Cut,
    first: Step,
    counters: tuple[int, ...],
    instead: Step | None = None,
) -> Segment:
    """The stretch from a step on, in these passes of the loops around it, outermost first.

    ``instead`` takes the place of the first visit.
    """
    way = _way_to(program.body, first.index)
    inside, place = way.pop()
    rest = inside[place:] if instead is None else (instead, *inside[place + 1 :])
    taken, goes_on = cut.prefix(rest)
    from_start = place == 0 and instead is None
    passes = list(counters)
    for body, place in reversed(way):
        around = body[place]
        if isinstance(around, Loop):
            done = passes.pop()
            taken, goes_on = cut.rest_of_loop(around, done, taken, goes_on, from_start=from_start)
            from_start = from_start and done == 1
        if goes_on:
            more, goes_on = cut.prefix(body[place + 1 :])
            taken = (*taken, *more)
        from_start = from_start and place == 0
    return _numbered(program, _ending(taken))


def _shortened(step: Step, done_s: float, done_Ah: float, done_Wh: float) -> Step:
    """The step with what a visit had come to before taken off its ends."""
    done = {
        Quantity.STEP_TIME_S: done_s,
        Quantity.STEP_CHARGE_AH: abs(done_Ah),
        Quantity.STEP_ENERGY_WH: abs(done_Wh),
    }

    def nearer(end: EndCondition) -> EndCondition:
        if end.quantity not in done:
            return end
        timed = end.quantity is Quantity.STEP_TIME_S
        least = min(LEAST_S, end.value) if timed else LEAST_PART * end.value
        value = max(end.value - done[end.quantity], least)
        return msgspec.structs.replace(end, value=value)

    control = step.control
    if isinstance(control, VoltageSweep) and control.from_V is not None:
        way_V = control.to_V - control.from_V
        swept_V = min(control.rate_V_per_s * done_s, abs(way_V))
        from_V = control.from_V + (swept_V if way_V > 0 else -swept_V)
        control = msgspec.structs.replace(control, from_V=from_V)
    return msgspec.structs.replace(step, control=control, ends=tuple(map(nearer, step.ends)))


def _numbered(program: Program, body: Body) -> Segment:
    """``body`` as a Program, its steps numbered from 0 in the order written."""
    steps: list[int] = []

    def renumbered(nodes: Body) -> Body:
        found: list[Node] = []
        for node in nodes:
            if isinstance(node, Step):
                found.append(msgspec.structs.replace(node, index=len(steps)))
                steps.append(node.index)
            elif isinstance(node, Loop):
                found.append(msgspec.structs.replace(node, body=renumbered(node.body)))
        return tuple(found)

    numbered = renumbered(body)
    return Segment(program=msgspec.structs.replace(program, body=numbered), steps=tuple(steps))
