"""``labctl cell``: the cells of this node."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from labctl.cli.common import ConfigOption, out, run

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
    note: Annotated[str, typer.Option(help="Anything worth knowing.")] = "",
    config: ConfigOption = None,
) -> None:
    """Register a cell, or correct its registration."""
    from labctl.control import Done, RegisterCell, ask
    from labctl.settings import load_settings
    from labctl.units import cell_from_text

    cell = cell_from_text(
        name=name,
        material=material,
        mass=mass,
        one_c=one_c,
        window=window,
        area=area,
        parents=tuple(parent or ()),
        note=note,
    )
    settings = load_settings(config)
    done = run(ask(settings.socket, RegisterCell(cell=cell), Done))
    out.print(done.message)


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
            cell.name,
            cell.material,
            f"{cell.active_mass_g * 1e3:.3f}",
            f"{cell.one_C_A * 1e3:.4f}",
            f"{cell.safe_voltage_min_V:g} .. {cell.safe_voltage_max_V:g}",
            ", ".join(cell.parents),
        )
    out.print(table)
