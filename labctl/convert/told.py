"""What another format says, as steps of a recipe; and the recipe's text that says it.

A converter tells steps and loops; :func:`write_recipe` writes them as a person would. Whether the
recipe is right, the recipe's own reader says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from labctl.errors import Problem, ProblemsError
from labctl.units import Kind, format_quantity

DIGITS: Final = 12
_PLAIN = re.compile(r"[A-Za-z0-9.$_+][A-Za-z0-9 .$_%/+-]*")
_READ_AS_SOMETHING_ELSE = re.compile(
    r"(true|false|yes|no|on|off|null|~|y|n)|[-+]?[0-9.][0-9_.:e+-]*", re.IGNORECASE
)
_FIRST_KEY: Final = {"rest": "for", "signal": "marker"}


class ConversionError(ProblemsError):
    """The format cannot carry something without which the measurement would be another one."""


@dataclass(frozen=True, slots=True)
class Converted:
    """``text`` in the other format, and what of the original it does not carry, a sentence each."""

    text: str
    lost: tuple[str, ...] = ()


Value: TypeAlias = "str | list[str] | dict[str, str]"


@dataclass(frozen=True, slots=True)
class Told:
    """One step: its word and keys, values as a recipe writes them."""

    word: str
    keys: dict[str, Value]


@dataclass(frozen=True, slots=True)
class ToldLoop:
    """A body that is run ``count`` times in all."""

    count: int
    body: tuple[ToldNode, ...]


ToldNode: TypeAlias = Told | ToldLoop


@dataclass(frozen=True, slots=True)
class ToldRecipe:
    """A whole recipe. ``limits`` and ``record`` are keys of those sections, without empty ones."""

    name: str
    about: str
    body: tuple[ToldNode, ...]
    limits: dict[str, Value] = field(default_factory=dict)
    record: dict[str, Value] = field(default_factory=dict)


@dataclass(slots=True)
class Unrolled:
    """Flat steps with jumps back, as cyclers have them, made into nested loops while they come.
    Steps are numbered as the format counts them.
    """

    nodes: list[tuple[int, ToldNode]] = field(default_factory=list)
    inside: set[int] = field(default_factory=set)
    """Numbers of steps that are inside a loop and do not begin it."""

    def add(self, number: int, *steps: Told) -> None:
        """The steps that one step of the format stands for."""
        self.nodes += [(number, step) for step in steps]

    def again(self, number: int, from_number: int, count: int) -> None:
        """A jump back to ``from_number`` until its body has run ``count`` times in all.

        Raises:
            ConversionError: it jumps into the middle of an earlier loop, or forward.
        """
        at = next((i for i, (own, _) in enumerate(self.nodes) if own >= from_number), None)
        if at is None or from_number in self.inside:
            raise cannot(f"step {number} goes back to step {from_number}, which no loop can say")
        body = tuple(node for _, node in self.nodes[at:])
        first = self.nodes[at][0]
        if count > 1:
            self.inside |= set(range(first + 1, number + 1))
        del self.nodes[at:]
        if count > 1:
            self.nodes.append((first, ToldLoop(count, body)))
        else:
            self.nodes += [(first, node) for node in body]

    def body(self) -> tuple[ToldNode, ...]:
        """Everything so far."""
        return tuple(node for _, node in self.nodes)


def cannot(*reasons: str) -> ConversionError:
    """The error with these reasons."""
    return ConversionError([Problem(reason) for reason in reasons])


def amount(value: float, kind: Kind) -> str:
    """A number in the kind's base unit, as a recipe writes it."""
    return format_quantity(value, kind, digits=DIGITS)


def write_recipe(recipe: ToldRecipe) -> str:
    """The YAML text."""
    lines = [f"recipe: {_scalar(recipe.name)}", f"about: {_scalar(recipe.about)}"]
    for section, keys in (("limits", recipe.limits), ("record", recipe.record)):
        if keys:
            lines.append(f"{section}:")
            lines += [f"  {key}: {_value(value)}" for key, value in keys.items()]
    lines.append("steps:")
    lines += _steps(recipe.body, "  ")
    return "\n".join(lines) + "\n"


def _steps(body: Sequence[ToldNode], indent: str, *, in_cycle: bool = False) -> list[str]:
    lines: list[str] = []
    for node in body:
        if isinstance(node, Told):
            lines.append(f"{indent}- {node.word}: {_keys(node)}")
            continue
        cycle = not in_cycle and _makes_cycles(node)
        lines.append(f"{indent}- {'cycle' if cycle else 'repeat'}: {node.count}")
        lines.append(f"{indent}  do:")
        lines += _steps(node.body, indent + "    ", in_cycle=in_cycle or cycle)
    return lines


def _makes_cycles(loop: ToldLoop) -> bool:
    """Whether a pass is what people call a cycle: a charge and a discharge, and no cycles in it."""
    words = {node.word for node in loop.body if isinstance(node, Told)}
    inner = [node for node in loop.body if isinstance(node, ToldLoop)]
    return {"charge", "discharge"} <= words and not any(map(_has_cycles, inner))


def _has_cycles(loop: ToldLoop) -> bool:
    return _makes_cycles(loop) or any(
        _has_cycles(node) for node in loop.body if isinstance(node, ToldLoop)
    )


def _keys(step: Told) -> str:
    first = _FIRST_KEY.get(step.word)
    if first is not None and list(step.keys) == [first]:
        return _value(step.keys[first])
    return "{" + ", ".join(f"{key}: {_value(value)}" for key, value in step.keys.items()) + "}"


def _value(value: Value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_scalar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return _scalar(value)


def _scalar(text: str) -> str:
    """A text that YAML reads back as the same text."""
    if _PLAIN.fullmatch(text) and text == text.strip():
        whole_number = text.isascii() and text.isdecimal()
        if whole_number or not _READ_AS_SOMETHING_ELSE.fullmatch(text):
            return text
    inside = "".join(sign if sign.isprintable() else " " for sign in text)
    return "'" + inside.replace("'", "''") + "'"
