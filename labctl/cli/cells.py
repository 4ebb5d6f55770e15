"""``labctl cell``: the cells of this node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from labctl.cli.common import ConfigOption, out, run

if TYPE_CHECKING:
    from labctl.model import Cell

app = typer.Typer(no_args_is_help=True, help="Register cells and list them.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="How the cell is called, e.g. HEV-07.")],
    material: Annotated[str, typer.Option(help="Of the working electrode, e.g. HE-V.")],
    mass: Annotated[str, typer.Option(help="Active material, e.g. '2.05 mg'.")],
    one_c: Annotated[str, typer.Option("--one-c", help="What 1C means.")] = "100 mA/g",
    window: Annotated[str, typer.Option(help="Safe voltages.")] = "1.0 V .. 4.5 V",
    area: Annotated[str | None, typer.Option(help="Of the electrode, e.g. '1.13 cm2'.")] = None,
    parent: Annotated[
        list[str] | None, typer.Option(help="A cell that this one was built from; repeatable.")
    ] = None,
    cell_type: Annotated[
        str, typer.Option("--type", help="Whose limits hold, as in labctl.toml [cell_types.TYPE].")
    ] = "",
    note: Annotated[str, typer.Option(help="Anything worth knowing.")] = "",
    config: ConfigOption = None,
) -> None:
    """Register a cell, or correct its registration."""
    from labctl.control import Done, RegisterCell, ask
    from labctl.settings import load_settings

    cell = cell_of(name, material, mass, one_c, window, area, tuple(parent or ()), note, cell_type)
    settings = load_settings(config)
    done = run(ask(settings.socket, RegisterCell(cell=cell), Done))
    out.print(done.message, markup=False)


@app.command("list")
def list_cells(config: ConfigOption = None) -> None:
    """Every registered cell."""
    from labctl.control import Cells, GetCells, ask
    from labctl.settings import load_settings

    cells = run(ask(load_settings(config).socket, GetCells(), Cells)).cells
    table = Table(box=None)
    for heading in ("cell", "material"):
        table.add_column(heading)
    for heading in ("mass / mg", "1C / mA", "safe window / V"):
        table.add_column(heading, justify="right")
    table.add_column("built from")
    for cell in cells:
        table.add_row(
            escape(cell.name),
            escape(cell.material),
            f"{cell.active_mass_g * 1e3:.3f}",
            f"{cell.one_C_A * 1e3:.4f}",
            f"{cell.safe_voltage_min_V:g} .. {cell.safe_voltage_max_V:g}",
            escape(", ".join(cell.parents)),
        )
    out.print(table)


def cell_of(
    name: str,
    material: str,
    mass: str,
    one_c: str,
    window: str,
    area: str | None = None,
    parents: tuple[str, ...] = (),
    note: str = "",
    cell_type: str = "",
) -> Cell:
    """A cell out of what was typed."""
    from labctl.model import Cell
    from labctl.units import Kind, QuantityError, parse_quantity, parse_range

    option = "--mass"
    try:
        active_mass_g = parse_quantity(mass, Kind.MASS)
        option = "--one-c"
        one_C_mA_per_g = parse_quantity(one_c, Kind.CURRENT_PER_MASS)
        option = "--window"
        lowest_V, highest_V = parse_range(window, Kind.VOLTAGE)
        option = "--area"
        area_cm2 = None if area is None else parse_quantity(area, Kind.AREA)
    except QuantityError as error:
        hint = f"; {error.suggestion}" if error.suggestion else ""
        raise typer.BadParameter(f"{error}{hint}", param_hint=option) from error
    try:
        return Cell(
            name=name,
            material=material,
            active_mass_g=active_mass_g,
            one_C_mA_per_g=one_C_mA_per_g,
            safe_voltage_min_V=lowest_V,
            safe_voltage_max_V=highest_V,
            area_cm2=area_cm2,
            parents=parents,
            note=note,
            cell_type=cell_type,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
