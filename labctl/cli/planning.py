"""``labctl recipe plan``: what a recipe does to one cell, on one channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.asked import parse_channel
from labctl.cli.common import ConfigOption, run
from labctl.cli.recipes import RecipeArgument, fail, load_recipe, parse_settings
from labctl.errors import (
    CommandError,
    LinkError,
    Problem,
    ProblemsError,
    RecipeError,
)
from labctl.model import Cell
from labctl.program import Program
from labctl.protocols.plan import CapabilitiesLike, plan_text
from labctl.protocols.recipe import Recipe, compile_recipe
from labctl.units import Kind, QuantityError, parse_quantity, parse_range

if TYPE_CHECKING:
    from labctl.drivers.base import Sequencer, Source
    from labctl.settings import Settings


def plan(
    file: RecipeArgument,
    cell_name: Annotated[
        str, typer.Option("--cell", help="A registered cell.", metavar="CELL")
    ] = "",
    channel: Annotated[
        str, typer.Option("--channel", help="Where it is to run.", metavar="INSTRUMENT/CHANNEL")
    ] = "",
    cell_mass: Annotated[
        str,
        typer.Option(
            "--cell-mass", help="In place of --cell: the active mass.", metavar='"2.0 mg"'
        ),
    ] = "",
    one_c: Annotated[
        str, typer.Option("--one-c", help="With --cell-mass: what 1C is.", metavar='"100 mA/g"')
    ] = "100 mA/g",
    window: Annotated[
        str,
        typer.Option(
            "--window", help="With --cell-mass: safe voltages.", metavar='"1.0 V .. 4.5 V"'
        ),
    ] = "1.0 V .. 4.5 V",
    area: Annotated[
        str, typer.Option("--area", help="With --cell-mass: the area.", metavar='"1.13 cm2"')
    ] = "",
    max_current: Annotated[
        str,
        typer.Option(
            "--max-current", help="With --cell-mass: the largest current.", metavar='"20 mA"'
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter: name=value.", metavar="NAME=VALUE"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Say what a recipe does to one cell: amperes, volts, limits, how long, how much disk.

    With --cell the daemon says what the cell is; with --channel too, whether the instrument takes
    the recipe. With --cell-mass no daemon is needed.
    """
    if bool(cell_name) == bool(cell_mass):
        raise typer.BadParameter(
            "name a registered cell, or describe one with --cell-mass", param_hint="--cell"
        )
    try:
        recipe = load_recipe(file)
        given = parse_settings(settings or [])
        site = _site(config) if cell_name or channel or config else None
        if cell_name and site is not None:
            cell = _registered(site, cell_name)
        else:
            cell = _described(cell_mass, one_c, window, area, max_current)
        bounds = site.bounds_of(cell) if site is not None else ()
        program = compile_recipe(recipe, cell, given, bounds=bounds)
        seen = _Seen()
        if channel and site is not None:
            seen = _on_channel(site, recipe, given, cell_name, channel, program)
    except ProblemsError as error:
        fail(error)
    except (CommandError, LinkError) as error:
        fail(RecipeError([Problem(str(error))]))
    typer.echo(
        plan_text(
            program,
            cell,
            seen.capabilities,
            stretches=seen.stretches,
            refusals=seen.refusals,
        ),
        nl=False,
    )
    if seen.refusals:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of the instrument."""

    capabilities: CapabilitiesLike | None = None
    stretches: Sequence[str] = field(default=())
    refusals: Sequence[str] = field(default=())


def _site(config: Path | None) -> Settings:
    from labctl.settings import load_settings

    return load_settings(config)


def _registered(site: Settings, name: str) -> Cell:
    from labctl.control import Cells, GetCells, ask

    cells = {cell.name: cell for cell in run(ask(site.socket, GetCells(), Cells)).cells}
    if name not in cells:
        known = f"there are {', '.join(cells)}" if cells else "none is"
        raise CommandError(f"no cell '{name}' is registered: {known}")
    return cells[name]


def _described(mass: str, one_c: str, window: str, area: str, max_current: str) -> Cell:
    try:
        low_V, high_V = parse_range(window, Kind.VOLTAGE)
        return Cell(
            name="a cell",
            material="",
            active_mass_g=parse_quantity(mass, Kind.MASS),
            one_C_mA_per_g=parse_quantity(one_c, Kind.CURRENT_PER_MASS),
            safe_voltage_min_V=low_V,
            safe_voltage_max_V=high_V,
            area_cm2=parse_quantity(area, Kind.AREA) if area else None,
            max_current_A=parse_quantity(max_current, Kind.CURRENT) if max_current else None,
        )
    except ValueError as error:
        suggestion = error.suggestion if isinstance(error, QuantityError) else ""
        raise RecipeError([Problem(str(error), suggestion=suggestion)]) from None


def _on_channel(
    site: Settings,
    recipe: Recipe,
    given: dict[str, str],
    cell_name: str,
    channel: str,
    program: Program,
) -> _Seen:
    """What the instrument makes of the program, from the configuration; and where the cell is
    registered, whether the daemon would take the run."""
    from labctl.control import Done, StartRun, ask
    from labctl.engine.fitting import refusals_of, stretches_told

    instrument, own_channel = parse_channel(channel)
    driver = _driver(site, instrument)
    told = stretches_told(program, driver)
    if not cell_name:
        chamber = "chamber" in site.instruments[instrument]
        return _Seen(driver.capabilities, told, refusals_of(program, driver, chamber=chamber))
    request = StartRun(
        recipe_text=recipe.text,
        recipe_file=recipe.file,
        cell=cell_name,
        instrument=instrument,
        channel=own_channel,
        parameters=given,
        included=recipe.included,
        queue=True,
        dry=True,
    )
    try:
        run(ask(site.socket, request, Done))
    except CommandError as error:
        return _Seen(driver.capabilities, told, str(error).split("\n"))
    return _Seen(driver.capabilities, told)


def _driver(site: Settings, name: str) -> Sequencer | Source:
    """The driver of a configured instrument; nothing is sent to it."""
    from labctl.clock import RealClock
    from labctl.daemon.configured import drivers_own, runs_recipes
    from labctl.drivers import build_driver

    options = site.instruments.get(name)
    if options is None:
        known = ", ".join(site.instruments) or "none"
        raise CommandError(f"no instrument '{name}' is configured: there is {known}")
    own = drivers_own(site, options)
    driver = build_driver(str(options["driver"]), own, name=name, clock=RealClock())
    if not runs_recipes(driver):
        raise CommandError(f"no recipe can be run on '{name}'")
    return driver
