"""Walking through a Program: which visit comes after which, and which cycle that is. Pure.

A Program is flattened once into instructions; a Position is a small value that can be journalled.
Where the program has a choice (a branch, a loop that may be left, an end that leads elsewhere),
:class:`Facts` decide it, and :class:`Decision` says how.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from labctl.program import (
    Branch,
    Comparison,
    CycleFigure,
    CycleResult,
    EndCondition,
    EndedBy,
    Finish,
    Leave,
    Loop,
    Node,
    Program,
    Step,
    Then,
    inner_bodies,
)


class Position(msgspec.Struct, frozen=True):
    """A place in a Program; ``Position()`` is before its first visit.

    ``counters`` holds, from outermost to innermost, which pass of each open loop this is, from 1.
    ``cycle`` is the cycle's number from 1, or 0 outside any counting loop; ``cycles_begun`` never
    goes back.
    """

    instruction: int = -1
    counters: tuple[int, ...] = ()
    cycle: int = 0
    cycles_begun: int = 0


class CycleFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle came to, or has come to so far; magnitudes."""

    cycle: int
    charge_Ah: float = 0.0
    discharge_Ah: float = 0.0
    charge_Wh: float = 0.0
    discharge_Wh: float = 0.0
    interrupted: bool = False


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What choices are made by.

    end: the condition that ended the last visit, None where something else did.
    running: the cycle that the last visit was in, so far; None outside any.
    last: the cycle that ended last, None before the first.
    kept: ended cycles that the program's conditions name.
    """

    end: EndCondition | None = None
    running: CycleFigures | None = None
    last: CycleFigures | None = None
    kept: dict[int, CycleFigures] = {}


_NO_FACTS = Facts()
_MOST_AT_ONCE = 64


class Decision(msgspec.Struct, frozen=True):
    """A choice that was made: the line of the recipe, whether its condition held, and why."""

    line: int
    held: bool
    reason: str


class Onward(msgspec.Struct, frozen=True, kw_only=True):
    """Where the program goes: ``position`` is None when it is over, properly, for ``reason``."""

    position: Position | None
    decisions: tuple[Decision, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Begin:
    loop: Loop


@dataclass(frozen=True, slots=True)
class _Again:
    begin: int
    loop: Loop
    inside_cycle: bool


@dataclass(slots=True)
class _Choose:
    branch: Branch
    otherwise: int = 0


@dataclass(slots=True)
class _Jump:
    to: int = 0


@dataclass(slots=True)
class _Leave:
    again: int = -1
    """The instruction that closes the loop; -1 outside any, where it ends the program."""


@dataclass(frozen=True, slots=True)
class _Finish:
    reason: str


_Instruction = Step | _Begin | _Again | _Choose | _Jump | _Leave | _Finish


@dataclass(slots=True)
class _Track:
    """Where a walk stands between two visits, while it goes on."""

    at: int
    counters: tuple[int, ...]
    cycle: int
    begun: int
    running: CycleFigures | None
    last: CycleFigures | None
    kept: Mapping[int, CycleFigures]

    def end_cycle(self) -> None:
        if self.running is not None:
            self.last = self.running
            self.kept = {**self.kept, self.running.cycle: self.running}
            self.running = None

    def begin_cycle(self) -> None:
        self.begun += 1
        self.cycle = self.begun
        self.running = CycleFigures(cycle=self.begun)


class Walk:
    """The order of the visits of one Program."""

    def __init__(self, program: Program) -> None:
        self._instructions: list[_Instruction] = []
        self._cycle_class: list[str] = []
        self._again_of: list[int] = []
        self._flatten(program.body, "", [])
        self._visits_in_a_pass = len(program.steps)
        self._chooses = any(map(_is_choice, _nodes(program.body)))
        self.references: frozenset[int] = frozenset(
            cycle
            for condition in _conditions(program.body)
            for cycle in range(max(1, condition.of_first), condition.of_last + 1)
        )
        """Cycles whose figures conditions name."""

    def step(self, position: Position) -> Step:
        """The step at ``position``."""
        instruction = self._instructions[position.instruction]
        assert isinstance(instruction, Step), "positions are made at steps only"  # noqa: S101
        return instruction

    def cycle_class(self, position: Position) -> str:
        """What kind of cycle the step belongs to; '' outside any."""
        return self._cycle_class[position.instruction]

    def after(self, position: Position, facts: Facts = _NO_FACTS) -> Onward:
        """The visit that follows the one at ``position``, by what is known of what has been."""
        decisions: list[Decision] = []
        track = self._track(position, facts)
        if facts.end is not None and position.instruction >= 0:
            if facts.end.then is Then.END_RUN:
                return Onward(position=None, reason=f"the program ends by {facts.end}")
            if facts.end.then is Then.LEAVE_LOOP and not self._leave(position.instruction, track):
                return Onward(position=None, reason=f"the program ends by {facts.end}")
        while track.at < len(self._instructions):
            instruction = self._instructions[track.at]
            match instruction:
                case Step():
                    return Onward(position=_position(track), decisions=tuple(decisions))
                case _Finish(reason):
                    return Onward(position=None, decisions=tuple(decisions), reason=reason)
                case _Choose(branch):
                    held, reason = _judge(branch.condition, facts, track)
                    decisions.append(Decision(branch.line, held, reason))
                    track.at = track.at + 1 if held else instruction.otherwise
                case _Leave():
                    if not self._leave(track.at, track):
                        return Onward(position=None, decisions=tuple(decisions))
                case _Again(loop=loop):
                    if loop.counts_cycles:
                        track.end_cycle()
                    reasons = [
                        reason
                        for held, reason in (_judge(one, facts, track) for one in loop.until)
                        if held
                    ]
                    if reasons:
                        decisions.append(Decision(0, True, reasons[0]))
                    self._turn(instruction, track, leaves=bool(reasons))
                case _:
                    _simple(instruction, track)
        return Onward(position=None, decisions=tuple(decisions))

    def reach(self, position: Position, step: int) -> Position | None:
        """The nearest visit after ``position`` of the step with that index, whichever way choices
        go; at most one pass of a loop on.

        An instrument may pass a step without a single reading, never more than all of them.
        """
        if not self._chooses:
            for _ in range(self._visits_in_a_pass):
                following = self.after(position, _NO_FACTS).position
                if following is None or self.step(following).index == step:
                    return following
                position = following
            return None
        frontier, seen = [position], {position}
        for _ in range(self._visits_in_a_pass):
            reached: list[Position] = []
            for each in frontier:
                for following in self._possible(each):
                    if self.step(following).index == step:
                        return following
                    if following not in seen:
                        seen.add(following)
                        reached.append(following)
            frontier = reached[:_MOST_AT_ONCE]
        return None

    def _possible(self, position: Position) -> list[Position]:
        """Every visit that could follow, in the order in which a program without surprises goes."""
        found: dict[Position, None] = {}
        tracks: list[_Track] = []
        if position.instruction >= 0:
            thens = {end.then for end in self.step(position).ends} or {Then.NEXT}
            if Then.NEXT in thens or len(thens) == 0 or Then.LEAVE_LOOP not in thens:
                tracks.append(self._track(position, _NO_FACTS))
            if Then.LEAVE_LOOP in thens:
                leaving = self._track(position, _NO_FACTS)
                if self._leave(position.instruction, leaving):
                    tracks.append(leaving)
        else:
            tracks.append(self._track(position, _NO_FACTS))
        for _ in range(_MOST_AT_ONCE):
            if not tracks:
                break
            track = tracks.pop(0)
            while track.at < len(self._instructions):
                instruction = self._instructions[track.at]
                if isinstance(instruction, Step):
                    found[_position(track)] = None
                    break
                if isinstance(instruction, _Finish):
                    break
                if isinstance(instruction, _Choose):
                    tracks.append(_copy(track, instruction.otherwise))
                    track.at += 1
                elif isinstance(instruction, _Leave):
                    if not self._leave(track.at, track):
                        break
                elif isinstance(instruction, _Again):
                    if instruction.loop.until and track.counters[-1] < instruction.loop.count:
                        leaving = _copy(track, track.at)
                        self._turn(instruction, leaving, leaves=True)
                        tracks.append(leaving)
                    self._turn(instruction, track, leaves=False)
                else:
                    _simple(instruction, track)
        return list(found)

    def _track(self, position: Position, facts: Facts) -> _Track:
        return _Track(
            position.instruction + 1,
            position.counters,
            position.cycle,
            position.cycles_begun,
            facts.running,
            facts.last,
            facts.kept,
        )

    def _leave(self, instruction: int, track: _Track) -> bool:
        """Out of the innermost loop around an instruction; false if there is none."""
        again_at = self._again_of[instruction]
        if again_at < 0:
            return False
        again = self._instructions[again_at]
        assert isinstance(again, _Again)  # noqa: S101
        if again.loop.counts_cycles:
            track.end_cycle()
        track.at = again_at
        self._turn(again, track, leaves=True)
        return True

    def _turn(self, again: _Again, track: _Track, *, leaves: bool) -> None:
        """At the end of a pass: the next one, or on."""
        if track.counters[-1] < again.loop.count and not leaves:
            track.counters = (*track.counters[:-1], track.counters[-1] + 1)
            if again.loop.counts_cycles:
                track.begin_cycle()
            track.at = again.begin + 1
            return
        track.counters = track.counters[:-1]
        if not again.inside_cycle:
            track.cycle = 0
        track.at += 1

    def _flatten(self, body: tuple[Node, ...], cycle_class: str, open_loops: list[int]) -> None:
        for node in body:
            match node:
                case Step():
                    self._add(node, cycle_class, open_loops)
                case Loop():
                    begin = len(self._instructions)
                    self._add(_Begin(node), cycle_class, open_loops)
                    inner = node.cycle_class if node.counts_cycles else cycle_class
                    first_inside = len(self._instructions)
                    self._flatten(node.body, inner, [*open_loops, begin])
                    again = len(self._instructions)
                    for at in range(first_inside, again):
                        if self._again_of[at] == -2 - begin:
                            self._again_of[at] = again
                    self._add(_Again(begin, node, cycle_class != ""), cycle_class, open_loops)
                case Branch():
                    choose = _Choose(node)
                    self._add(choose, cycle_class, open_loops)
                    self._flatten(node.then, cycle_class, open_loops)
                    jump = _Jump()
                    self._add(jump, cycle_class, open_loops)
                    choose.otherwise = len(self._instructions)
                    self._flatten(node.otherwise, cycle_class, open_loops)
                    jump.to = len(self._instructions)
                case Leave():
                    self._add(_Leave(), cycle_class, open_loops)
                case Finish():
                    self._add(_Finish(node.reason), cycle_class, open_loops)

    def _add(self, instruction: _Instruction, cycle_class: str, open_loops: list[int]) -> None:
        self._instructions.append(instruction)
        self._cycle_class.append(cycle_class)
        self._again_of.append(-2 - open_loops[-1] if open_loops else -1)




def _position(track: _Track) -> Position:
    return Position(track.at, track.counters, track.cycle, track.begun)


def _copy(track: _Track, at: int) -> _Track:
    return _Track(
        at, track.counters, track.cycle, track.begun, track.running, track.last, track.kept
    )


def _simple(instruction: _Instruction, track: _Track) -> None:
    """What needs no choice: into a loop, or over the other side of a branch."""
    if isinstance(instruction, _Begin):
        track.counters = (*track.counters, 1)
        if instruction.loop.counts_cycles:
            track.begin_cycle()
        track.at += 1
    elif isinstance(instruction, _Jump):
        track.at = instruction.to


def _judge(condition: CycleResult | EndedBy, facts: Facts, track: _Track) -> tuple[bool, str]:
    """Whether a condition holds, and what it was judged by, for people."""
    if isinstance(condition, EndedBy):
        held = facts.end is not None and facts.end.quantity is condition.quantity
        how = "something else" if facts.end is None else str(facts.end)
        return held, f"the step before ended by {how}"
    cycle = track.running or track.last
    if cycle is None:
        return False, "no cycle has been"
    value = _figure(cycle, condition.figure)
    name = f"{condition.figure} of cycle {cycle.cycle}"
    if value is None or cycle.interrupted:
        why = "was interrupted" if cycle.interrupted else "is not known"
        return False, f"{name} {why}"
    limit, of = condition.value, ""
    if condition.of_first > 0:
        wanted = range(condition.of_first, max(condition.of_first, condition.of_last) + 1)
        found = [track.kept.get(number) for number in wanted]
        figures = [
            None if each is None or each.interrupted else _figure(each, condition.figure)
            for each in found
        ]
        known = [figure for figure in figures if figure is not None]
        if len(known) < len(figures):
            return False, f"{name} has nothing to be compared with"
        limit *= statistics.median(known)
        of = f" ({condition.value:g} of cycles {wanted[0]} to {wanted[-1]})"
    at_least = condition.comparison is Comparison.AT_LEAST
    held = value >= limit if at_least else value <= limit
    return held, f"{name} is {value:g}, the limit {limit:g}{of}"


def _figure(cycle: CycleFigures, figure: CycleFigure) -> float | None:
    if figure is CycleFigure.COULOMBIC_EFFICIENCY:
        return cycle.discharge_Ah / cycle.charge_Ah if cycle.charge_Ah > 0 else None
    value: float = getattr(cycle, figure.value)
    return value


def _nodes(body: tuple[Node, ...]) -> Iterator[Node]:
    for node in body:
        yield node
        yield from itertools.chain.from_iterable(map(_nodes, inner_bodies(node)))


def _is_choice(node: Node) -> bool:
    match node:
        case Step(ends=ends):
            return any(end.then is not Then.NEXT for end in ends)
        case Loop(until=until):
            return bool(until)
        case _:
            return True


def _conditions(body: tuple[Node, ...]) -> Iterator[CycleResult]:
    for node in _nodes(body):
        if isinstance(node, Loop):
            yield from node.until
        elif isinstance(node, Branch) and isinstance(node.condition, CycleResult):
            yield node.condition
