"""Walking through a Program: which visit comes after which, and which cycle that is. Pure.

A Program is flattened once into instructions; a Position is a small value that can be journalled.
Where the program has a choice (a branch, a loop that may be left, an end that leads elsewhere),
:class:`Facts` decide it and :class:`Decision` says how. Every walk is finite: loops have counts,
and one is left after a pass in which no step was visited, since nothing could change in another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from labctl.engine.facts import CycleFigures, Decision, Facts, judge_cycle, judge_end
from labctl.engine.instructions import (
    Again,
    Begin,
    Choose,
    GoOut,
    Instruction,
    Instructions,
    Jump,
    Stop,
    nodes_of,
)
from labctl.program import Branch, CycleResult, EndedBy, Loop, Node, Program, Step, Then

__all__ = ["CycleFigures", "Decision", "Facts", "Onward", "Position", "Walk"]

MOST_POSITIONS: Final = 2000
"""So many positions are looked at, at the most, to find the one that a reading is of."""


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


class Onward(msgspec.Struct, frozen=True, kw_only=True):
    """Where the program goes from a visit that is over.

    position: of the next visit; None when the program is over, which is a proper end.
    decisions: the choices that were made on the way.
    reason: of a Finish, or of an end condition that ends the run; '' where nothing is left to do.
    cycle_complete: whether the cycle of that visit, if it is over too, was run to its end.
    """

    position: Position | None
    decisions: tuple[Decision, ...] = ()
    reason: str = ""
    cycle_complete: bool = True


@dataclass(slots=True)
class _Tour:
    """On the way from one visit to the next.

    ``begun_here`` are the loops of which a pass began on this way. ``open`` says that the cycle of
    the visit before still goes on, ``complete`` that it was not left before its end.
    """

    at: int
    counters: tuple[int, ...]
    cycle: int
    cycles_begun: int
    begun_here: frozenset[int]
    open: bool
    complete: bool
    facts: Facts

    def position(self) -> Position:
        return Position(self.at, self.counters, self.cycle, self.cycles_begun)

    def copy(self, at: int) -> _Tour:
        return _Tour(
            at,
            self.counters,
            self.cycle,
            self.cycles_begun,
            self.begun_here,
            self.open,
            self.complete,
            self.facts,
        )

    def end_cycle(self, *, complete: bool) -> None:
        """Only the cycle of the visit before can end here: of another one nothing was visited."""
        if self.open:
            self.open = False
            self.complete = complete
            self.facts = _with_cycle_ended(self.facts, complete=complete)

    def begin_pass(self, begin: int, loop: Loop) -> None:
        self.begun_here |= {begin}
        self.at = begin + 1
        if loop.counts_cycles:
            self.end_cycle(complete=True)
            self.cycles_begun += 1
            self.cycle = self.cycles_begun


NO_FACTS: Final = Facts()


class Walk:
    """The order of the visits of one Program.

    program, steps: what is walked through.
    chooses: whether what comes next ever depends on facts.
    references: the cycles whose figures its conditions name.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.steps = program.steps
        flat = Instructions(program)
        self._instructions = flat.at
        self._around = flat.around
        self._again_of = flat.again_of
        nodes = list(nodes_of(program.body))
        self.chooses = any(map(_is_choice, nodes))
        self.references = frozenset(
            cycle
            for condition in _cycle_results(nodes)
            if condition.of_first > 0
            for cycle in range(condition.of_first, condition.of_last + 1)
        )

    def step(self, position: Position) -> Step:
        """The step at ``position``."""
        instruction = self._instructions[position.instruction]
        assert isinstance(instruction, Step), "positions are made at steps only"  # noqa: S101
        return instruction

    def cycle_class(self, position: Position) -> str:
        """What kind of cycle the step belongs to; '' outside any."""
        return self._around[position.instruction].cycle_class

    def after(self, position: Position, facts: Facts = NO_FACTS) -> Onward:
        """What comes after the visit at ``position``, by what is known when it is over."""
        tour = _begin_tour(position, facts)
        decisions: list[Decision] = []
        end = facts.end
        if end is not None and end.then is not Then.NEXT and position.instruction >= 0:
            at = position.instruction
            complete = self._ends_cycle(at, position.counters)
            if end.then is Then.END_RUN or not self._leave(tour, at, complete=complete):
                how = f"step {self.step(position).label!r} ended by {end}"
                return Onward(position=None, reason=end.reason or how, cycle_complete=complete)
        while tour.at < len(self._instructions):
            instruction = self._instructions[tour.at]
            if isinstance(instruction, Step):
                return Onward(
                    position=tour.position(),
                    decisions=tuple(decisions),
                    cycle_complete=tour.complete,
                )
            match instruction:
                case Again():
                    self._turn(instruction, tour, leaves=self._until(instruction, tour, decisions))
                case Choose(branch):
                    held, reason = _judge(branch, tour)
                    decisions.append(Decision(branch.line, held, reason))
                    tour.at = tour.at + 1 if held else instruction.otherwise
                case GoOut():
                    complete = self._ends_cycle(tour.at, tour.counters)
                    if not self._leave(tour, tour.at, complete=complete):
                        break
                case Stop(reason):
                    complete = not tour.open or self._ends_cycle(tour.at, tour.counters)
                    return Onward(
                        position=None,
                        decisions=tuple(decisions),
                        reason=reason,
                        cycle_complete=tour.complete and complete,
                    )
                case _:
                    _go_in(instruction, tour)
        return Onward(position=None, decisions=tuple(decisions), cycle_complete=tour.complete)

    def reach(self, position: Position, step: int) -> Position | None:
        """The nearest visit after ``position`` of the step with that index, whichever way choices
        go; None if there is none at most one visit to each step away.

        An instrument may pass a step without a single reading, never more than all of them.
        """
        nearest, seen = [position], {position}
        for _ in self.steps:
            farther: list[Position] = []
            for each in nearest:
                for following in self._possible(each):
                    if self.step(following).index == step:
                        return following
                    if following not in seen and len(seen) < MOST_POSITIONS:
                        seen.add(following)
                        farther.append(following)
            nearest = farther
        return None

    def _possible(self, position: Position) -> Iterator[Position]:
        """Every visit that may come next; first what does if no end leads elsewhere, no condition
        of a branch fails and no loop is left."""
        tours = deque([_begin_tour(position, NO_FACTS)])
        if position.instruction >= 0:
            leaving = _begin_tour(position, NO_FACTS)
            thens = {end.then for end in self.step(position).ends}
            at = position.instruction
            if Then.LEAVE_LOOP in thens and self._leave(leaving, at, complete=True):
                tours.append(leaving)
        seen: set[Position] = set()
        while tours:
            tour = tours.popleft()
            if tour.at >= len(self._instructions) or tour.position() in seen:
                continue
            seen.add(tour.position())
            if len(seen) > MOST_POSITIONS:
                return
            instruction = self._instructions[tour.at]
            match instruction:
                case Step():
                    yield tour.position()
                    continue
                case Stop():
                    continue
                case Choose():
                    tours.append(tour.copy(instruction.otherwise))
                    tour.at += 1
                case Again(loop=loop):
                    if loop.until:
                        leaving = tour.copy(tour.at)
                        self._turn(instruction, leaving, leaves=True)
                        tours.append(leaving)
                    self._turn(instruction, tour, leaves=False)
                case GoOut():
                    if not self._leave(tour, tour.at, complete=True):
                        continue
                case _:
                    _go_in(instruction, tour)
            tours.appendleft(tour)

    def _until(self, again: Again, tour: _Tour, decisions: list[Decision]) -> bool:
        """Whether a loop is left after the pass whose end the tour is at."""
        loop = again.loop
        if not loop.until or tour.counters[-1] >= loop.count or again.begin in tour.begun_here:
            return False
        facts = tour.facts
        if loop.counts_cycles and tour.open:
            facts = _with_cycle_ended(facts, complete=True)
        reasons: list[str] = []
        for condition in loop.until:
            held, reason = judge_cycle(condition, facts.last, facts.kept)
            if held:
                decisions.append(Decision(0, held, reason))
                return True
            reasons.append(reason)
        decisions.append(Decision(0, held=False, reason="; ".join(reasons)))
        return False

    def _turn(self, again: Again, tour: _Tour, *, leaves: bool) -> None:
        """At the end of a pass: on to the next one, or out of the loop."""
        empty = again.begin in tour.begun_here
        if leaves or empty or tour.counters[-1] >= again.loop.count:
            self._go_out(again, tour, complete=True)
            return
        tour.counters = (*tour.counters[:-1], tour.counters[-1] + 1)
        tour.begin_pass(again.begin, again.loop)

    def _leave(self, tour: _Tour, at: int, *, complete: bool) -> bool:
        """Out of the innermost loop around instruction ``at``; false if there is none.

        ``complete`` says whether no step would have followed in the cycle.
        """
        loops = self._around[at].loops
        if not loops:
            return False
        again = self._instructions[self._again_of[loops[-1]]]
        assert isinstance(again, Again)  # noqa: S101
        self._go_out(again, tour, complete=complete)
        return True

    def _go_out(self, again: Again, tour: _Tour, *, complete: bool) -> None:
        tour.counters = tour.counters[:-1]
        if not again.inside_cycle:
            tour.end_cycle(complete=complete)
            tour.cycle = 0
        tour.at = self._again_of[again.begin] + 1

    def _ends_cycle(self, at: int, counters: tuple[int, ...]) -> bool:
        """Whether no step follows instruction ``at`` in the cycle that it is in."""
        around = self._around[at]
        for begin, counter in zip(reversed(around.loops), reversed(counters), strict=True):
            instruction = self._instructions[begin]
            assert isinstance(instruction, Begin)  # noqa: S101
            if instruction.loop.counts_cycles:
                break
            if counter < instruction.loop.count:
                return False
        return around.last


def _begin_tour(position: Position, facts: Facts) -> _Tour:
    return _Tour(
        position.instruction + 1,
        position.counters,
        position.cycle,
        position.cycles_begun,
        frozenset(),
        position.cycle > 0,
        True,
        facts,
    )


def _go_in(instruction: Instruction, tour: _Tour) -> None:
    """Where nothing is to be chosen: into a loop, or over the other side of a branch."""
    if isinstance(instruction, Begin):
        tour.counters = (*tour.counters, 1)
        tour.begin_pass(tour.at, instruction.loop)
    elif isinstance(instruction, Jump):
        tour.at = instruction.to


def _judge(branch: Branch, tour: _Tour) -> tuple[bool, str]:
    if isinstance(branch.condition, EndedBy):
        return judge_end(branch.condition, tour.facts.end)
    facts = tour.facts
    cycle = facts.running if tour.cycle else facts.last
    return judge_cycle(branch.condition, cycle, facts.kept)


def _with_cycle_ended(facts: Facts, *, complete: bool) -> Facts:
    ended = facts.running
    if ended is None:
        return facts
    if not complete:
        ended = msgspec.structs.replace(ended, interrupted=True)
    kept = {**facts.kept, ended.cycle: ended}
    return msgspec.structs.replace(facts, running=None, last=ended, kept=kept)


def _is_choice(node: Node) -> bool:
    match node:
        case Step(ends=ends):
            return any(end.then is not Then.NEXT for end in ends)
        case Loop(until=until):
            return bool(until)
        case _:
            return True


def _cycle_results(nodes: list[Node]) -> Iterator[CycleResult]:
    for node in nodes:
        if isinstance(node, Loop):
            yield from node.until
        elif isinstance(node, Branch) and isinstance(node.condition, CycleResult):
            yield node.condition
