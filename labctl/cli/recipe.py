"""``labctl recipe``: check, explain and plan recipes before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from labctl.errors import Problem, RecipeError
from labctl.model import Cell
from labctl.protocols.explain import explain_text
from labctl.protocols.plan import plan_text
from labctl.protocols.recipe import Recipe, compile_recipe, read_recipe, shipped_recipes
from labctl.protocols.schema import schema_text
from labctl.protocols.source import LARGEST_BYTES
from labctl.units import Kind, QuantityError, nearest, parse_quantity, parse_range

app = typer.Typer(help="Check, explain and plan recipes.", no_args_is_help=True)

_RecipeArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="A recipe file, or the name of a shipped recipe.")
]


@app.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Recipe files, or names of shipped recipes."),
    ],
) -> None:
    """Look for every mistake that can be found without a cell."""
    wrong = 0
    for file in files:
        try:
            recipe = load_recipe(file)
        except RecipeError as error:
            wrong += 1
            print_problems(error)
        else:
            _out().print(f"ok  {file}: {recipe.name}", style="green", soft_wrap=True, markup=False)
    if wrong:
        raise typer.Exit(1)


@app.command()
def plan(
    file: _RecipeArgument,
    cell_mass: Annotated[
        str, typer.Option("--cell-mass", help="Active mass of the cell.", metavar='"2.0 mg"')
    ],
    one_c: Annotated[
        str, typer.Option("--one-c", help="What 1C means.", metavar='"100 mA/g"')
    ] = "100 mA/g",
    window: Annotated[
        str,
        typer.Option("--window", help="Safe voltages of the cell.", metavar='"1.0 V .. 4.5 V"'),
    ] = "1.0 V .. 4.5 V",
    area: Annotated[
        str, typer.Option("--area", help="Area of the electrode.", metavar='"1.13 cm2"')
    ] = "",
    max_current: Annotated[
        str, typer.Option("--max-current", help="Largest safe current.", metavar='"20 mA"')
    ] = "",
    cell_name: Annotated[str, typer.Option("--cell-name", help="What to call it.")] = "a cell",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter: name=value.", metavar="NAME=VALUE"),
    ] = None,
) -> None:
    """Say what a recipe does to one cell: amperes, volts, limits, about how long."""
    try:
        low_V, high_V = parse_range(window, Kind.VOLTAGE)
        cell = Cell(
            name=cell_name,
            material="",
            active_mass_g=parse_quantity(cell_mass, Kind.MASS),
            one_C_mA_per_g=parse_quantity(one_c, Kind.CURRENT_PER_MASS),
            safe_voltage_min_V=low_V,
            safe_voltage_max_V=high_V,
            area_cm2=parse_quantity(area, Kind.AREA) if area else None,
            max_current_A=parse_quantity(max_current, Kind.CURRENT) if max_current else None,
        )
    except ValueError as error:
        suggestion = error.suggestion if isinstance(error, QuantityError) else ""
        _fail(RecipeError([Problem(str(error), suggestion=suggestion)]))
    try:
        program = compile_recipe(load_recipe(file), cell, parse_settings(settings or []))
    except RecipeError as error:
        _fail(error)
    typer.echo(plan_text(program, cell), nl=False)


@app.command()
def explain(file: _RecipeArgument) -> None:
    """Say in words what a recipe does."""
    try:
        recipe = load_recipe(file)
    except RecipeError as error:
        _fail(error)
    typer.echo(explain_text(recipe), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema that editors complete recipes with."""
    typer.echo(schema_text(), nl=False)


@app.command(name="list")
def list_recipes() -> None:
    """List the recipes that come with labctl."""
    shipped = shipped_recipes()
    width = max(len(name) for name in shipped)
    for name, path in shipped.items():
        recipe = read_recipe(path.read_text(encoding="utf-8"), file=str(path))
        typer.echo(f"{name:<{width}}  {recipe.about or recipe.name}")


def load_recipe(file: str) -> Recipe:
    """The recipe of a file, or the shipped recipe of that name.

    Raises:
        RecipeError: there is no such file, it cannot be read, or it holds mistakes.
    """
    path, shipped = Path(file), shipped_recipes()
    if not path.exists() and file.removesuffix(".yaml") in shipped:
        path = shipped[file.removesuffix(".yaml")]
    try:
        with path.open("rb") as stream:
            text = stream.read(LARGEST_BYTES + 1).decode("utf-8")
    except FileNotFoundError:
        better = nearest(Path(file).stem, shipped)
        hint = f"did you mean the shipped recipe '{better}'?" if better else ""
        problem = Problem("there is no such file or shipped recipe", file, suggestion=hint)
        raise RecipeError([problem]) from None
    except OSError as error:
        raise RecipeError([Problem(f"cannot be read: {error.strerror}", file)]) from None
    except UnicodeDecodeError as error:
        problem = Problem(
            f"byte {error.start + 1} is not UTF-8 text", file, suggestion="save it as UTF-8"
        )
        raise RecipeError([problem]) from None
    return read_recipe(text, file=str(path))


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


def print_problems(error: RecipeError) -> None:
    """Every problem on standard error, lines unbroken, in colour on a terminal."""
    console = Console(stderr=True)
    for problem in error.problems:
        head, *rest = str(problem).split("\n")
        text = Text(head, style="bold red")
        for line in rest:
            text.append("\n")
            text.append(line, style="cyan" if line.strip() == problem.suggestion else "")
        console.print(text, soft_wrap=True)


def _out() -> Console:
    return Console()


def _fail(error: RecipeError) -> NoReturn:
    print_problems(error)
    raise typer.Exit(1)
