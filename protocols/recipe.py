"""Recipes: read, checked, compiled.

:func:`read_recipe` finds what is wrong whatever the cell, :func:`compile_recipe` what is wrong on
one cell; both report every mistake at once, each with its place. Both are pure.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import Problem, RecipeError
from labctl.model import Cell
from labctl.program import Program
from labctl.protocols.compiler import compile_structure
from labctl.protocols.reader import is_parameter_value, parameters_of, read_structure
from labctl.protocols.source import (
    Listing,
    Node,
    Place,
    Problems,
    Text,
    normal_text,
    read_source,
)
from labctl.protocols.source import Mapping as Group
from labctl.protocols.structure import WrittenRecipe
from labctl.units import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a person wrote, checked as far as it can be without a cell.

    ``text`` is unchanged, ``sha256`` that of its UTF-8 bytes. ``written`` has the parameters'
    defaults put in.
    """

    name: str
    about: str
    file: str
    text: str
    sha256: str
    source: Group
    written: WrittenRecipe

    @property
    def parameters(self) -> dict[str, str]:
        """Each parameter with its default, as :func:`compile_recipe` takes them."""
        found = parameters_of(self.source, _problems(self.text, self.file))
        return {name: _as_text(node) for name, node in found.items()}


def read_recipe(text: str, *, file: str = "") -> Recipe:
    """Read and check a recipe.

    Args:
        text: the whole YAML text.
        file: what to call it in messages.

    Raises:
        RecipeError: with every mistake that was found.
    """
    problems = _problems(text, file)
    source = read_source(normal_text(text), problems)
    written = _structure(source, {}, problems)
    if written is None or not isinstance(source, Group):
        raise problems.error()
    return Recipe(
        name=written.name,
        about=written.about,
        file=file,
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        source=source,
        written=written,
    )


def compile_recipe(
    recipe: Recipe, cell: Cell, parameters: Mapping[str, str] | None = None
) -> Program:
    """The Program of ``recipe`` on ``cell``: amperes, volts, seconds; finite; with its limits.

    Args:
        recipe: from :func:`read_recipe`.
        cell: says what 1C, a gram and a cm2 mean, and what is safe.
        parameters: values in place of the defaults, written as in a recipe: '4.0 V', '[1C, 2C]'.

    Raises:
        RecipeError: with every mistake that was found.
    """
    problems = _problems(recipe.text, recipe.file)
    written: WrittenRecipe | None = recipe.written
    if parameters:
        written = _structure(recipe.source, parameters, problems)
    program = compile_structure(written, cell, recipe.sha256, problems) if written else None
    if program is None:
        raise problems.error()
    return program


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with labctl, by name."""
    folder = importlib.resources.files("labctl.protocols") / "recipes"
    files = [Path(str(file)) for file in folder.iterdir() if file.name.endswith(".yaml")]
    return {file.stem: file for file in sorted(files)}


def _problems(text: str, file: str) -> Problems:
    return Problems(file, tuple(normal_text(text).split("\n")))


def _structure(
    source: Node, overrides: Mapping[str, str], problems: Problems
) -> WrittenRecipe | None:
    scope: dict[str, Node] = {}
    if isinstance(source, Group):
        scope = parameters_of(source, problems)
        for name, value in overrides.items():
            if name in scope:
                scope[name] = _override(name, value)
            else:
                problems.add(Place(), *_unknown_parameter(name, scope))
    return read_structure(source, scope, problems)


def _unknown_parameter(name: str, scope: Mapping[str, Node]) -> tuple[str, str]:
    better = nearest(name, scope)
    has = "it has " + ", ".join(scope) if scope else "it has none"
    return f"the recipe has no parameter '{name}'", f"did you mean '{better}'?" if better else has


def _override(name: str, value: str) -> Node:
    """A value from outside the text: it stands nowhere in it."""
    inner = _problems(value, f"the value of '{name}'")
    node = read_source(normal_text(value), inner)
    if not is_parameter_value(node):
        raise RecipeError(
            [
                Problem(
                    f"the parameter '{name}' needs one value or a list of values, not '{value}'",
                    suggestion="write for example '4.1 V' or '[0.2C, 1C]'",
                )
            ]
        )
    return _nowhere(node)


def _nowhere(node: Node) -> Node:
    if isinstance(node, Listing):
        return Listing(tuple(_nowhere(item) for item in node.items), Place())
    if isinstance(node, Text):
        return Text(node.value, Place(), node.quoted)
    return node


def _as_text(node: Node) -> str:
    if isinstance(node, Listing):
        return "[" + ", ".join(_as_text(item) for item in node.items) + "]"
    return node.value if isinstance(node, Text) else ""
