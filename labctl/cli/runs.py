"""``labctl run`` and ``labctl status``: start recipes, look at them, stop them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labctl.cli.common import ConfigOption, complain, out, read_text, run
from labctl.errors import LabctlError

if TYPE_CHECKING:
    from labctl.control import RunStatus

app = typer.Typer(no_args_is_help=True, help="Start recipes on cells, and stop them.")

_TABLE_WIDTH = 130


@app.command()
def start(
    recipe: Annotated[str, typer.Argument(help="A recipe's file, or the name of a shipped one.")],
    cell: Annotated[str, typer.Option(help="A registered cell.")],
    channel: Annotated[str, typer.Option(help="INSTRUMENT/CHANNEL, e.g. rack1/21-1-3.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the recipe; repeatable."),
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry", help="Check that everything fits, and start nothing.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Run a recipe on a cell."""
    from labctl.control import Done, StartRun, ask
    from labctl.settings import load_settings

    instrument, slash, own_channel = channel.partition("/")
    if not (slash and instrument and own_channel):
        raise typer.BadParameter(
            f"{channel!r} is not INSTRUMENT/CHANNEL; 'labctl status' lists them",
            param_hint="--channel",
        )
    path = _find_recipe(recipe)
    request = StartRun(
        recipe_text=read_text(path),
        recipe_file=str(path),
        cell=cell,
        instrument=instrument,
        channel=own_channel,
        parameters=_parameters(set_ or []),
        dry=dry,
    )
    out.print(run(ask(load_settings(config).socket, request, Done)).message, markup=False)


@app.command()
def stop(
    runs: Annotated[list[str], typer.Argument(help="Runs, as 'labctl status' names them.")],
    reason: Annotated[str, typer.Option(help="Kept with the run.")] = "stopped by hand",
    config: ConfigOption = None,
) -> None:
    """Output off, and the run ended. What was measured is kept."""
    from labctl.control import Done, StopRun, ask
    from labctl.settings import load_settings

    settings = load_settings(config)
    failed = False
    for name in runs:
        try:
            done = run(ask(settings.socket, StopRun(run=name, reason=reason), Done))
        except LabctlError as error:
            complain(error)
            failed = True
        else:
            out.print(done.message, markup=False)
    if failed:
        raise typer.Exit(1)


@app.command()
def release(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run that is held.")],
    reason: Annotated[str, typer.Option(help="What was looked at and found.")],
    config: ConfigOption = None,
) -> None:
    """Let a held run go on from where it was found."""
    from labctl.control import Done, ReleaseRun, ask
    from labctl.settings import load_settings

    request = ReleaseRun(run=name, reason=reason)
    out.print(run(ask(load_settings(config).socket, request, Done)).message, markup=False)


@app.command()
def abandon(
    name: Annotated[
        str, typer.Argument(metavar="RUN", help="A run that is held or does not come to its stop.")
    ],
    reason: Annotated[str, typer.Option(help="Why, and how you know that the output is off.")],
    config: ConfigOption = None,
) -> None:
    """End the record of a run whose instrument is gone or cannot be understood.

    Nothing is sent to the instrument: see with your own eyes that its output is off. What was
    measured is kept, and cell and channel are free again.
    """
    from labctl.control import AbandonRun, Done, ask
    from labctl.settings import load_settings

    request = AbandonRun(run=name, reason=reason)
    out.print(run(ask(load_settings(config).socket, request, Done)).message, markup=False)


def status(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Runs that have ended as well.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """What the daemon does now: instruments, runs, and what waits for the archive."""
    from labctl.control import GetStatus, Status, ask
    from labctl.settings import load_settings

    now = run(ask(load_settings(config).socket, GetStatus(), Status))
    out.print(f"node [bold]{now.node}[/], journal {now.source}, labctl {now.version}")
    for instrument in now.instruments:
        state = "[green]connected[/]"
        if not instrument.connected:
            state = f"[red]{escape(instrument.problem)}[/]"
        out.print(
            f"instrument [bold]{escape(instrument.name)}[/] ({instrument.driver}): {state}, "
            f"{len(instrument.channels)} channels",
            highlight=False,
        )
    waiting = f"{now.unconfirmed_batches} batches, {now.unconfirmed_bytes / 1e6:.1f} MB"
    problem = f" [red]{escape(now.stream_problem)}[/]" if now.stream_problem else ""
    out.print(f"waiting for the archive: {waiting}{problem}", highlight=False)
    shown = [each for each in now.runs if everything or not each.ended]
    if shown:
        show_runs(shown)
    else:
        out.print("no run" if everything else "no run is going on (--all shows those that ended)")


def show_runs(runs: list[RunStatus]) -> None:
    """As a table where there is room for it, else some lines each: no name is ever cut, because
    people copy them."""
    if not out.is_terminal:
        Console(width=2 * _TABLE_WIDTH, file=out.file).print(run_table(runs))
        return
    if out.width >= _TABLE_WIDTH:
        out.print(run_table(runs))
        return
    for each in runs:
        figures = [
            escape(each.recipe),
            f"cycle {each.cycle}/{each.cycle_count}",
            f"{each.test_time_s / 3600:.2f} h",
            "" if each.voltage_V is None else f"{each.voltage_V:.4f} V",
            "" if each.current_A is None else f"{each.current_A * 1e3:+.4f} mA",
            f"{each.seq} records",
        ]
        why = each.link_error or each.reason or each.label
        out.print(
            f"[bold]{escape(each.run)}[/] is {each.state}: {escape(each.cell)} on "
            f"{escape(each.instrument)}/{escape(each.channel)}\n"
            f"  {', '.join(figure for figure in figures if figure)}\n  {escape(why)}",
            highlight=False,
            soft_wrap=True,
        )


def run_table(runs: list[RunStatus]) -> Table:
    """A line for each run."""
    table = Table(box=None)
    for heading in ("run", "cell", "channel", "recipe", "state"):
        table.add_column(heading, no_wrap=heading != "recipe")
    for heading in ("cycle", "t / h", "U / V", "I / mA", "records"):
        table.add_column(heading, justify="right")
    table.add_column("step or reason")
    for each in runs:
        table.add_row(
            escape(each.run),
            escape(each.cell),
            escape(f"{each.instrument}/{each.channel}"),
            escape(each.recipe),
            each.state,
            f"{each.cycle}/{each.cycle_count}",
            f"{each.test_time_s / 3600:.2f}",
            "" if each.voltage_V is None else f"{each.voltage_V:.4f}",
            "" if each.current_A is None else f"{each.current_A * 1e3:+.4f}",
            str(each.seq),
            escape(each.link_error or each.reason or each.label),
        )
    return table


def _find_recipe(recipe: str) -> Path:
    from labctl.protocols.recipe import shipped_recipes

    path = Path(recipe)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if recipe in shipped:
        return shipped[recipe]
    raise typer.BadParameter(
        f"no file {recipe!r}, and no shipped recipe of that name: there are {', '.join(shipped)}",
        param_hint="RECIPE",
    )


def _parameters(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--set")
        found[name.strip()] = value.strip()
    return found
