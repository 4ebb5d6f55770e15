"""How long a Program can last, whichever way its branches go; and the same nodes, changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from labctl.program import (
    Branch,
    Finish,
    Leave,
    Loop,
    Node,
    Quantity,
    Rest,
    Step,
    Then,
    inner_bodies,
)


def longest_of_step_s(step: Step) -> float:
    """The time end that every step has."""
    return min(end.value for end in step.ends if end.quantity is Quantity.STEP_TIME_S)


def most_s(body: tuple[Node, ...]) -> float:
    """The longest that a body can last: every visit's time end, along the longest way."""
    return most_of(body, longest_of_step_s)


def most_of(body: tuple[Node, ...], of_step: Callable[[Step], float]) -> float:
    """The most that a body can make of what each visit to a step makes."""
    total = 0.0
    for node in body:
        match node:
            case Step():
                total += of_step(node)
            case Loop():
                total += node.count * most_of(node.body, of_step)
            case Branch():
                total += max(most_of(inner, of_step) for inner in inner_bodies(node))
            case Leave() | Finish():
                return total
    return total


def least_s(body: tuple[Node, ...]) -> float:
    """What the rests of a body take whatever happens; 0 where it can be left before its end."""
    if _can_be_left(body):
        return 0.0
    total = 0.0
    for node in body:
        match node:
            case Step():
                alone = len(node.ends) == 1 and isinstance(node.control, Rest)
                total += longest_of_step_s(node) if alone else 0.0
            case Loop():
                total += (1 if node.until else node.count) * least_s(node.body)
            case Branch():
                total += min(least_s(inner) for inner in inner_bodies(node))
            case _:
                pass
    return total


def _can_be_left(body: tuple[Node, ...]) -> bool:
    """Whether a way leads out of a program's body, or out of a loop's, before its end."""
    for node in body:
        match node:
            case Leave() | Finish():
                return True
            case Step():
                if any(end.then is not Then.NEXT for end in node.ends):
                    return True
            case _:
                if any(_can_be_left(inner) for inner in inner_bodies(node)):
                    return True
    return False


def steps_of(body: tuple[Node, ...]) -> Iterator[Step]:
    """Every step once, in the order written."""
    for node in body:
        if isinstance(node, Step):
            yield node
        for inner in inner_bodies(node):
            yield from steps_of(inner)


def with_steps(body: tuple[Node, ...], change: Callable[[Step], Step]) -> tuple[Node, ...]:
    """``body`` with every step changed, in the order written."""
    changed: list[Node] = []
    for node in body:
        match node:
            case Step():
                changed.append(change(node))
            case Loop():
                inner = with_steps(node.body, change)
                changed.append(msgspec.structs.replace(node, body=inner))
            case Branch():
                then = with_steps(node.then, change)
                otherwise = with_steps(node.otherwise, change)
                changed.append(msgspec.structs.replace(node, then=then, otherwise=otherwise))
            case _:
                changed.append(node)
    return tuple(changed)
