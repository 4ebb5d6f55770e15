"""Recipes: read, checked, compiled.

:func:`read_recipe` finds what is wrong whatever the cell, :func:`compile_recipe` what is wrong on
one cell; both report every mistake at once, each with its place. Both are pure: the texts of
included recipes come through a function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labctl.errors import Problem, RecipeError
from labctl.model import Cell
from labctl.program import Program
from labctl.protocols.compiler import compile_structure
from labctl.protocols.files import file_loader, find_recipe, read_text, shipped_recipes
from labctl.protocols.includes import Library, Load, bundle_text, unbundle
from labctl.protocols.limits import Bounds
from labctl.protocols.parameters import (
    Parameter,
    as_text,
    is_value,
    missing,
    read_parameters,
)
from labctl.protocols.reader import read_structure
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

__all__ = [
    "Bounds",
    "Recipe",
    "bundle",
    "compile_recipe",
    "file_loader",
    "find_recipe",
    "read_recipe",
    "read_text",
    "shipped_recipes",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a person wrote, checked as far as it can be without a cell.

    ``text`` is unchanged, ``included`` has the texts of the recipes that it includes, by name.
    ``sha256`` is that of the UTF-8 bytes of :func:`bundle`: of the text alone where nothing is
    included. ``written`` has the parameters' defaults put in, and where there is none an example.
    """

    name: str
    about: str
    file: str
    text: str
    sha256: str
    source: Group
    written: WrittenRecipe
    included: dict[str, str]

    @property
    def declared(self) -> dict[str, Parameter]:
        """Each parameter with its default, its bounds and what it is for."""
        return dict(self.written.parameters)

    @property
    def parameters(self) -> dict[str, str]:
        """Each parameter that has one with its default, as :func:`compile_recipe` takes them."""
        return {
            name: as_text(one.default)
            for name, one in self.written.parameters.items()
            if one.default is not None
        }


def read_recipe(text: str, *, file: str = "", load: Load | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        text: the whole YAML text, or a bundle.
        file: what to call it in messages.
        load: gives the text of an included recipe by its name, a path from the recipe's own folder
            with '/' between its parts; raises RecipeError or LookupError where there is none. What
            a bundle holds is not asked for.

    Raises:
        RecipeError: with every mistake that was found.
    """
    main, bundled = unbundle(text)
    problems = _problems(main, file)
    library = Library(problems, load, bundled=dict(bundled))
    source = read_source(normal_text(main), problems, budget=library.budget)
    if not isinstance(source, Group):
        raise problems.stop(
            source.place, "a recipe is a group of keys", "begin with 'recipe:' and a name"
        )
    written = _structure(source, {}, problems, library)
    if written is None:
        raise problems.error()
    whole = bundle_text(main, library.texts)
    return Recipe(
        name=written.name,
        about=written.about,
        file=file,
        text=main,
        sha256=hashlib.sha256(whole.encode()).hexdigest(),
        source=source,
        written=written,
        included=dict(library.texts),
    )


def bundle(recipe: Recipe) -> str:
    """The recipe and all that it includes as one text, from which it can be read again."""
    return bundle_text(recipe.text, recipe.included)


def compile_recipe(
    recipe: Recipe,
    cell: Cell,
    parameters: Mapping[str, str] | None = None,
    *,
    bounds: Sequence[Bounds] = (),
) -> Program:
    """The Program of ``recipe`` on ``cell``: amperes, volts, seconds; finite; with its limits.

    Args:
        recipe: from :func:`read_recipe`.
        cell: says what 1C, a gram and a cm2 mean, and what is safe.
        parameters: values in place of the defaults, written as in a recipe: '4.0 V', '[1C, 2C]'.
        bounds: limits of the site and of the type of cell; the tightest of all holds.

    Raises:
        RecipeError: with every mistake that was found.
    """
    problems = _problems(recipe.text, recipe.file)
    for name, text in recipe.included.items():
        problems.included[name] = tuple(normal_text(text).split("\n"))
    written: WrittenRecipe | None = recipe.written
    given = {name: _given(name, value) for name, value in (parameters or {}).items()}
    for one in missing(recipe.written.parameters, given):
        problems.add(
            one.name.place,
            f"the parameter '{one.name.value}' has no default: it must be given",
            f"give for example {one.name.value}='{as_text(one.example)}'",
        )
    if given:
        library = Library(problems, bundled=dict(recipe.included))
        written = _structure(recipe.source, given, problems, library)
    program = None
    if written is not None and not problems.found:
        program = compile_structure(written, cell, recipe.sha256, bounds, problems)
    if program is None:
        raise problems.error()
    return program


def _problems(text: str, file: str) -> Problems:
    return Problems(file, tuple(normal_text(text).split("\n")))


def _structure(
    source: Group, given: Mapping[str, Node], problems: Problems, library: Library
) -> WrittenRecipe | None:
    parameters = read_parameters(source, problems)
    known = {name: value for name, value in given.items() if name in parameters}
    for name in given:
        if name not in parameters:
            better = nearest(name, parameters)
            has = "it has " + ", ".join(parameters) if parameters else "it has none"
            problems.add(
                Place(),
                f"the recipe has no parameter '{name}'",
                f"did you mean '{better}'?" if better else has,
            )
    return read_structure(source, parameters, known, problems, library)


def _given(name: str, value: str) -> Node:
    """A value from outside the text: it stands nowhere in it."""
    inner = _problems(value, f"the value of '{name}'")
    node = read_source(normal_text(value), inner)
    if not is_value(node):
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
