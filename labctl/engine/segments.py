"""Cutting a Program into the stretches that a sequencer runs in one go. Pure.

A stretch begins with a visit and goes on as far as the instrument can go by itself: steps and loops
that it can run, across the passes that are left of the loops around them. The host's own steps, and
every choice that the instrument cannot make, lie between stretches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from labctl.drivers.base import Capabilities
from labctl.engine.walk import Position, Walk
from labctl.model import Readings
from labctl.program import (
    HOST_CONTROLS,
    EndCondition,
    Loop,
    Node,
    Program,
    Quantity,
    Step,
    Then,
    inner_bodies,
)

LEAST_S = 0.1
LEAST_AH = 1e-12


@dataclass(frozen=True, slots=True)
class Segment:
    """A Program of its own; ``steps`` maps its steps' indexes to those of the whole Program."""

    program: Program
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Level:
    """A body on the way to a step, and where in it that way goes on; ``of`` is whose body it is."""

    body: tuple[Node, ...]
    at: int
    of: Node | None


def segment_at(
    program: Program,
    walk: Walk,
    position: Position,
    capabilities: Capabilities,
    *,
    done_s: float = 0.0,
    done_Ah: float = 0.0,
) -> Segment | None:
    """The longest stretch that begins with the visit at ``position``; None if that is the host's.

    Args:
        program, walk: the whole.
        position: of the first visit.
        capabilities: of the instrument.
        done_s, done_Ah: what that visit had come to before; its ends by time and charge are that
            much nearer.
    """
    if not _runs_alone(walk.step(position)):
        return None
    levels = _way_to(program.body, walk.step(position).index)
    passes = list(position.counters)
    level = levels.pop()
    taken, whole = _take(level.body[level.at :], capabilities)
    while whole and levels:
        around = levels.pop()
        if isinstance(level.of, Loop):
            taken, whole = _rest_of_loop(level, taken, passes.pop(), capabilities)
            if not whole:
                break
        more, whole = _take(around.body[around.at + 1 :], capabilities)
        taken += more
        level = around
    if done_s or done_Ah:
        taken = _shortened(taken, done_s, done_Ah, walk.step(position).index)
    return _numbered(program, taken)


def in_whole(segment: Segment, readings: Readings) -> Readings:
    """The readings with the whole Program's step indexes."""
    if not len(readings):
        return readings
    return replace(readings, step=np.asarray(segment.steps, dtype=np.int64)[readings.step])


def stretches(program: Program, capabilities: Capabilities) -> list[Segment]:
    """Every stretch that a run may come to, each once, as far as can be seen beforehand."""
    found: list[Segment] = []
    for body in _bodies(program.body, capabilities):
        nodes = list(body)
        while nodes:
            taken, _ = _take(tuple(nodes), capabilities)
            if taken:
                found.append(_numbered(program, taken))
            del nodes[: max(1, len(taken))]
    return found


def _bodies(body: tuple[Node, ...], capabilities: Capabilities) -> list[tuple[Node, ...]]:
    """``body`` and those inside its nodes that the instrument does not run whole."""
    found = [body]
    for node in body:
        if not _runs(node, capabilities):
            for inner in inner_bodies(node):
                found += _bodies(inner, capabilities)
    return found


def _rest_of_loop(
    level: _Level, taken: tuple[Node, ...], passed: int, capabilities: Capabilities
) -> tuple[tuple[Node, ...], bool]:
    """What is left of a loop whose present pass was taken to its end, and whether that is all."""
    loop = level.of
    assert isinstance(loop, Loop)  # noqa: S101
    left = loop.count - passed
    runs = _runs(loop, capabilities)
    if runs and len(taken) == len(level.body) and taken[0] is level.body[0]:
        return (msgspec.structs.replace(loop, count=left + 1),), True
    if not runs:
        return taken, False
    if any(_leaves(node) for node in level.body):
        # Outside its loop a step cannot leave it: this pass is a stretch of its own.
        return taken, False
    if left:
        taken = (*taken, msgspec.structs.replace(loop, count=left))
    return taken, True


def _take(
    nodes: tuple[Node, ...], capabilities: Capabilities
) -> tuple[tuple[Node, ...], bool]:
    """As many of ``nodes`` from the first on as the instrument runs, and whether that is all."""
    taken: list[Node] = []
    for node in nodes:
        if not _runs(node, capabilities):
            if isinstance(node, Step) and _runs_alone(node):
                taken.append(node)
            return tuple(taken), False
        taken.append(node)
    return tuple(taken), True


def _runs(node: Node, capabilities: Capabilities) -> bool:
    """Whether the instrument runs the node by itself, wherever it stands."""
    match node:
        case Step():
            return _runs_alone(node) and (capabilities.leaves_loops or not _leaves(node))
        case Loop(until=(), body=body):
            return all(_runs(each, capabilities) for each in body)
        case _:
            return False


def _runs_alone(step: Step) -> bool:
    return not isinstance(step.control, HOST_CONTROLS)


def _leaves(node: Node) -> bool:
    return isinstance(node, Step) and any(end.then is not Then.NEXT for end in node.ends)


def _way_to(body: tuple[Node, ...], index: int) -> list[_Level]:
    """The levels from the program's body to the step with that index."""

    def search(inside: tuple[Node, ...], of: Node | None) -> list[_Level]:
        for at, node in enumerate(inside):
            if isinstance(node, Step) and node.index == index:
                return [_Level(inside, at, of)]
            for inner in inner_bodies(node):
                if deeper := search(inner, node):
                    return [_Level(inside, at, of), *deeper]
        return []

    found = search(body, None)
    if not found:
        raise ValueError(f"the program has no step {index}")
    return found


def _shortened(
    taken: tuple[Node, ...], done_s: float, done_Ah: float, index: int
) -> tuple[Node, ...]:
    """The first visit with its ends nearer; a loop that begins with it is opened for that."""
    first = taken[0]
    if isinstance(first, Loop):
        opened = _shortened(first.body, done_s, done_Ah, index)
        again = (msgspec.structs.replace(first, count=first.count - 1),) if first.count > 1 else ()
        return (*opened, *again, *taken[1:])
    assert isinstance(first, Step)  # noqa: S101
    nearer = {
        Quantity.STEP_TIME_S: (done_s, LEAST_S),
        Quantity.STEP_CHARGE_AH: (abs(done_Ah), LEAST_AH),
    }
    ends: list[EndCondition] = []
    for end in first.ends:
        done, least = nearer.get(end.quantity, (0.0, -np.inf))
        ends.append(msgspec.structs.replace(end, value=float(max(end.value - done, least))))
    return (msgspec.structs.replace(first, ends=tuple(ends)), *taken[1:])


def _numbered(program: Program, taken: tuple[Node, ...]) -> Segment:
    steps: list[int] = []

    def renumber(body: tuple[Node, ...], *, in_loop: bool) -> tuple[Node, ...]:
        renumbered: list[Node] = []
        for node in body:
            if isinstance(node, Step):
                ends = node.ends
                if not in_loop:
                    # There is no loop to leave here: the stretch is over then, and the host goes on.
                    ends = tuple(_out_of_no_loop(end) for end in ends)
                renumbered.append(msgspec.structs.replace(node, index=len(steps), ends=ends))
                steps.append(node.index)
            elif isinstance(node, Loop):
                inner = renumber(node.body, in_loop=True)
                renumbered.append(msgspec.structs.replace(node, body=inner))
        return tuple(renumbered)

    body = renumber(taken, in_loop=False)
    last = body[-1]
    if isinstance(last, Step):
        ends = tuple(msgspec.structs.replace(end, then=Then.NEXT) for end in last.ends)
        body = (*body[:-1], msgspec.structs.replace(last, ends=ends))
    return Segment(msgspec.structs.replace(program, body=body), tuple(steps))


def _out_of_no_loop(end: EndCondition) -> EndCondition:
    if end.then is Then.LEAVE_LOOP:
        return msgspec.structs.replace(end, then=Then.END_RUN)
    return end
