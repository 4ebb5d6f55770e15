"""``labctl recipe convert``: recipes from and to the formats of other programs."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from labctl.cli.asked import find_recipe, parse_parameters
from labctl.cli.common import err, read_text

if TYPE_CHECKING:
    from labctl.convert.told import Converted


class Format(enum.Enum):
    """What is converted from or to."""

    NEWARE = "neware"
    PYBAMM = "pybamm"
    UNICYCLER = "unicycler"


def convert(
    file: Annotated[str, typer.Argument(help="The file; with --to, a recipe or a shipped one.")],
    to: Annotated[
        Format | None, typer.Option("--to", help="Write a recipe in this format.")
    ] = None,
    from_: Annotated[
        Format | None, typer.Option("--from", help="Write a recipe out of this format.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; else standard output.")
    ] = None,
    mass: Annotated[str, typer.Option(help="With --to: the cell's active material.")] = "2 mg",
    one_c: Annotated[str, typer.Option("--one-c", help="With --to: what 1C is.")] = "100 mA/g",
    window: Annotated[
        str, typer.Option(help="With --to: the cell's safe voltages.")
    ] = "1.0 V .. 4.5 V",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="With --to: a parameter of the recipe."),
    ] = None,
) -> None:
    """Convert a recipe to, or from, Neware step XML, PyBaMM's text or unicycler's JSON.

    What the other format cannot carry is named on standard error; what would make it another
    measurement is refused.
    """
    if (to is None) == (from_ is None):
        raise typer.BadParameter("give one of --to and --from", param_hint="--to")
    if from_ is not None:
        converted = _read(Path(file), from_)
    else:
        assert to is not None  # noqa: S101
        converted = _write(file, to, (mass, one_c, window), set_ or [])
    for sentence in converted.lost:
        err.print(f"[yellow]not carried:[/] {escape(sentence)}", highlight=False)
    if output is None:
        typer.echo(converted.text, nl=False)
    else:
        output.write_text(converted.text, encoding="utf-8")


def _read(path: Path, format_: Format) -> Converted:
    from labctl.convert.neware import from_neware
    from labctl.convert.pybamm import from_pybamm
    from labctl.convert.unicycler import from_unicycler
    from labctl.errors import ConfigError, Problem

    if format_ is Format.NEWARE:
        try:
            return from_neware(path.read_bytes(), path.stem)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError([Problem(f"cannot be read: {reason}", file=str(path))]) from error
    text = read_text(path, longest_B=4 * 1024 * 1024)
    reader = from_pybamm if format_ is Format.PYBAMM else from_unicycler
    return reader(text, path.stem)


def _write(
    recipe_name: str, format_: Format, about_cell: tuple[str, str, str], pairs: list[str]
) -> Converted:
    from labctl.cli.cells import cell_of
    from labctl.convert.neware import to_neware
    from labctl.convert.pybamm import to_pybamm
    from labctl.convert.unicycler import to_unicycler
    from labctl.protocols.recipe import compile_recipe, file_loader, read_recipe

    path = find_recipe(recipe_name)
    recipe = read_recipe(read_text(path), file=str(path), load=file_loader(path))
    cell = cell_of("a cell", "", *about_cell)
    program = compile_recipe(recipe, cell, parse_parameters(pairs))
    if format_ is Format.NEWARE:
        return to_neware(program)
    return (to_pybamm if format_ is Format.PYBAMM else to_unicycler)(program, cell)
