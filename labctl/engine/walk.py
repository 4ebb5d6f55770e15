"""Walking through a Program: which step comes after which, and which cycle that is. Pure.

A Program is flattened once into instructions; a Position is a small value that can be journalled.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from labctl.program import Loop, Node, Program, Step


class Position(msgspec.Struct, frozen=True):
    """A place in a Program.

    ``counters`` holds, from outermost to innermost, which pass of each open loop this is, from 1.
    ``cycle`` is the cycle's number from 1, or 0 outside any counting loop; ``cycles_begun`` never
    goes back.
    """

    instruction: int = -1
    counters: tuple[int, ...] = ()
    cycle: int = 0
    cycles_begun: int = 0


@dataclass(frozen=True, slots=True)
class _Begin:
    loop: Loop


@dataclass(frozen=True, slots=True)
class _Again:
    begin: int
    loop: Loop
    inside_cycle: bool


class Walk:
    """The order of the visits of one Program."""

    def __init__(self, program: Program) -> None:
        self._instructions: list[Step | _Begin | _Again] = []
        self._cycle_class: list[str] = []
        self._flatten(program.body, "")
        self._visits_in_a_pass = len(program.steps)

    def step(self, position: Position) -> Step:
        """The step at ``position``."""
        instruction = self._instructions[position.instruction]
        assert isinstance(instruction, Step), "positions are made at steps only"  # noqa: S101
        return instruction

    def cycle_class(self, position: Position) -> str:
        """What kind of cycle the step belongs to; '' outside any."""
        return self._cycle_class[position.instruction]

    def after(self, position: Position) -> Position | None:
        """The next visit, or None when the program is over."""
        at = position.instruction + 1
        counters, cycle, begun = position.counters, position.cycle, position.cycles_begun
        while at < len(self._instructions):
            instruction = self._instructions[at]
            if isinstance(instruction, Step):
                return Position(at, counters, cycle, begun)
            if isinstance(instruction, _Begin):
                counters = (*counters, 1)
                if instruction.loop.counts_cycles:
                    begun += 1
                    cycle = begun
                at += 1
            elif counters[-1] < instruction.loop.count:
                counters = (*counters[:-1], counters[-1] + 1)
                if instruction.loop.counts_cycles:
                    begun += 1
                    cycle = begun
                at = instruction.begin + 1
            else:
                counters = counters[:-1]
                if not instruction.inside_cycle:
                    cycle = 0
                at += 1
        return None

    def reach(self, position: Position, step: int) -> Position | None:
        """The first visit after ``position`` of the step with that index, at most one pass on.

        An instrument may pass a step without a single reading, never more than all of them.
        """
        for _ in range(self._visits_in_a_pass):
            following = self.after(position)
            if following is None:
                return None
            if self.step(following).index == step:
                return following
            position = following
        return None

    def _flatten(self, body: tuple[Node, ...], cycle_class: str) -> None:
        for node in body:
            if isinstance(node, Step):
                self._add(node, cycle_class)
                continue
            begin = len(self._instructions)
            self._add(_Begin(node), cycle_class)
            self._flatten(node.body, node.cycle_class if node.counts_cycles else cycle_class)
            self._add(_Again(begin, node, cycle_class != ""), cycle_class)

    def _add(self, instruction: Step | _Begin | _Again, cycle_class: str) -> None:
        self._instructions.append(instruction)
        self._cycle_class.append(cycle_class)
