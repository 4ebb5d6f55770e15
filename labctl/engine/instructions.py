"""A Program as a flat list of instructions, between which a walk jumps. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from labctl.program import Branch, Finish, Leave, Loop, Node, Program, Step, inner_bodies


@dataclass(frozen=True, slots=True)
class Begin:
    """Before the first pass of a loop."""

    loop: Loop


@dataclass(frozen=True, slots=True)
class Again:
    """The end of a pass; ``begin`` is its loop's Begin."""

    begin: int
    loop: Loop
    inside_cycle: bool


@dataclass(slots=True)
class Choose:
    """``then`` comes next, ``otherwise`` begins at that instruction."""

    branch: Branch
    otherwise: int = 0


@dataclass(slots=True)
class Jump:
    """Over the other side of a branch."""

    to: int = 0


@dataclass(frozen=True, slots=True)
class GoOut:
    """Out of the innermost loop around it."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The program is over."""

    reason: str


Instruction: TypeAlias = Step | Begin | Again | Choose | Jump | GoOut | Stop


@dataclass(frozen=True, slots=True)
class Around:
    """What is around an instruction.

    ``loops`` are the Begins of the loops that it is in, outermost first. ``last`` says that after
    it no step follows for certain in the pass of the innermost counting one.
    """

    cycle_class: str
    loops: tuple[int, ...]
    last: bool


class Instructions:
    """A Program, flattened.

    at: the instructions in the order written; around: what is around each.
    again_of: where the pass ends that begins at an instruction.
    """

    def __init__(self, program: Program) -> None:
        self.at: list[Instruction] = []
        self.around: list[Around] = []
        self.again_of: dict[int, int] = {}
        self._flatten(program.body, Around("", (), last=True))

    def _flatten(self, body: tuple[Node, ...], around: Around) -> None:
        followed = [any(map(_has_a_step, body[place + 1 :])) for place in range(len(body))]
        for node, steps_follow in zip(body, followed, strict=True):
            here = Around(around.cycle_class, around.loops, around.last and not steps_follow)
            at = len(self.at)
            match node:
                case Step():
                    self._add(node, here)
                case Loop():
                    self._add(Begin(node), here)
                    counts = node.counts_cycles
                    cycle_class = node.cycle_class if counts else here.cycle_class
                    inner = Around(cycle_class, (*here.loops, at), counts or here.last)
                    self._flatten(node.body, inner)
                    self.again_of[at] = len(self.at)
                    self._add(Again(at, node, inside_cycle=here.cycle_class != ""), here)
                case Branch():
                    choose, jump = Choose(node), Jump()
                    self._add(choose, here)
                    self._flatten(node.then, here)
                    self._add(jump, here)
                    choose.otherwise = len(self.at)
                    self._flatten(node.otherwise, here)
                    jump.to = len(self.at)
                case Leave():
                    self._add(GoOut(), here)
                case Finish(reason):
                    self._add(Stop(reason), here)

    def _add(self, instruction: Instruction, around: Around) -> None:
        self.at.append(instruction)
        self.around.append(around)


def nodes_of(body: tuple[Node, ...]) -> Iterator[Node]:
    """Every node of a body, in the order written."""
    for node in body:
        yield node
        for inner in inner_bodies(node):
            yield from nodes_of(inner)


def _has_a_step(node: Node) -> bool:
    """Whether a step is visited in it, whichever way choices go."""
    match node:
        case Step():
            return True
        case Branch(then=then, otherwise=otherwise):
            return any(map(_has_a_step, then)) and any(map(_has_a_step, otherwise))
        case Loop(body=body):
            return any(map(_has_a_step, body))
        case _:
            return False
