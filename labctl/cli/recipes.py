"""What the commands for recipes share: how a recipe is named, loaded and complained about."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from labctl.errors import Problem, ProblemsError, RecipeError
from labctl.protocols.recipe import Recipe, file_loader, find_recipe, read_recipe, read_text

RecipeArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="A recipe file, or the name of a shipped recipe.")
]


def load_recipe(file: str) -> Recipe:
    """The recipe of a file, or the shipped recipe of that name, with what it includes.

    Raises:
        RecipeError: there is no such file, it cannot be read, or it holds mistakes.
    """
    path = find_recipe(file)
    return read_recipe(read_text(path, called=file), file=str(path), load=file_loader(path))


def parse_settings(settings: list[str]) -> dict[str, str]:
    """``name=value`` texts as a table.

    Raises:
        RecipeError: a text without '=', or a name twice.
    """
    table: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name.strip() and equals):
            raise RecipeError(
                [Problem(f"'{setting}' sets nothing", suggestion="write for example upper='4.0 V'")]
            )
        if name.strip() in table:
            raise RecipeError([Problem(f"'{name.strip()}' is set twice")])
        table[name.strip()] = value.strip()
    return table


def print_problems(error: ProblemsError) -> None:
    """Every problem on standard error, lines unbroken, in colour on a terminal."""
    console = Console(stderr=True)
    for problem in error.problems:
        head, *rest = str(problem).split("\n")
        text = Text(head, style="bold red")
        for line in rest:
            text.append("\n")
            text.append(line, style="cyan" if line.strip() == problem.suggestion else "")
        console.print(text, soft_wrap=True)


def say(line: str, style: str = "") -> None:
    """One line on standard output, unbroken."""
    Console().print(line, style=style, soft_wrap=True, markup=False, highlight=False)


def fail(error: ProblemsError) -> NoReturn:
    """Print what is wrong and leave with 1."""
    print_problems(error)
    raise typer.Exit(1)
