"""``labctl run`` and ``labctl status``: start recipes, look at them, stop them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labctl.cli.asked import (
    find_recipe,
    included_texts,
    moment_of,
    parse_channel,
    parse_parameters,
)
from labctl.cli.common import ConfigOption, complain, out, read_text, run
from labctl.errors import LabctlError

if TYPE_CHECKING:
    from labctl.control import Request, RunStatus

app = typer.Typer(no_args_is_help=True, help="Start recipes on cells, and stop them.")

_TABLE_WIDTH = 130


class StopAt(enum.Enum):
    """When a run is stopped."""

    NOW = "now"
    STEP = "step"
    CYCLE = "cycle"


@app.command()
def start(
    recipe: Annotated[str, typer.Argument(help="A recipe's file, or the name of a shipped one.")],
    cell: Annotated[str, typer.Option(help="A registered cell.")],
    channel: Annotated[str, typer.Option(help="INSTRUMENT/CHANNEL, e.g. rack1/21-1-3.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the recipe; repeatable."),
    ] = None,
    queue: Annotated[
        bool,
        typer.Option("--queue", help="Begin when what has the channel or the cell has ended well."),
    ] = False,
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="TIME",
            help="Not before this moment: '2026-03-01 08:00' in local time, or '+90min', '+8h'.",
        ),
    ] = "",
    dry: Annotated[
        bool, typer.Option("--dry", help="Check that everything fits, and start nothing.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Run a recipe on a cell."""
    from labctl.control import Done, StartRun, ask
    from labctl.settings import load_settings

    instrument, own_channel = parse_channel(channel)
    path = find_recipe(recipe)
    text = read_text(path)
    request = StartRun(
        recipe_text=text,
        recipe_file=str(path),
        cell=cell,
        instrument=instrument,
        channel=own_channel,
        parameters=parse_parameters(set_ or []),
        included=included_texts(text, path),
        queue=queue,
        not_before_unix_s=moment_of(at) if at else 0.0,
        dry=dry,
    )
    out.print(run(ask(load_settings(config).socket, request, Done)).message, markup=False)


@app.command()
def stop(
    runs: Annotated[list[str], typer.Argument(help="Runs, as 'labctl status' names them.")],
    reason: Annotated[str, typer.Option(help="Kept with the run.")] = "stopped by hand",
    at: Annotated[
        StopAt, typer.Option(help="Now, or at the end of the present step or cycle.")
    ] = StopAt.NOW,
    config: ConfigOption = None,
) -> None:
    """Output off, and the run ended. What was measured is kept."""
    from labctl.control import StopRun

    _tell_each(runs, config, lambda name: StopRun(run=name, reason=reason, at=at.value))


@app.command()
def pause(
    runs: Annotated[list[str], typer.Argument(help="Runs, as 'labctl status' names them.")],
    reason: Annotated[str, typer.Option(help="Kept with the run.")] = "paused by hand",
    config: ConfigOption = None,
) -> None:
    """Open circuit until 'labctl run resume'. The cycle counts as interrupted."""
    from labctl.control import PauseRun

    _tell_each(runs, config, lambda name: PauseRun(run=name, reason=reason))


@app.command()
def resume(
    runs: Annotated[list[str], typer.Argument(help="Runs that are paused.")],
    reason: Annotated[str, typer.Option(help="Kept with the run.")] = "resumed by hand",
    config: ConfigOption = None,
) -> None:
    """Go on after a pause, with what is left of the step."""
    from labctl.control import ResumeRun

    _tell_each(runs, config, lambda name: ResumeRun(run=name, reason=reason))


@app.command()
def skip(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    step: Annotated[
        int, typer.Option(help="Only if it is in this step, as 'labctl status' counts; 0 is any.")
    ] = 0,
    reason: Annotated[str, typer.Option(help="Kept with the run.")] = "skipped by hand",
    config: ConfigOption = None,
) -> None:
    """Leave the present step for the next one."""
    from labctl.control import SkipStep

    _tell_each([name], config, lambda one: SkipStep(run=one, reason=reason, step=step))


@app.command()
def hold(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    reason: Annotated[str, typer.Option(help="Why somebody has to look first.")],
    config: ConfigOption = None,
) -> None:
    """Open circuit until somebody looks and releases the run with a reason."""
    from labctl.control import HoldRun

    _tell_each([name], config, lambda one: HoldRun(run=one, reason=reason))


@app.command()
def confirm(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run that asks an operator.")],
    config: ConfigOption = None,
) -> None:
    """What the recipe asked for was done: the run goes on."""
    from labctl.control import SendSignal

    _tell_each([name], config, lambda one: SendSignal(name="confirm", run=one))


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


def signal(
    name: Annotated[str, typer.Argument(help="As the recipe names it, e.g. diffractometer-ready.")],
    to: Annotated[str, typer.Option("--run", help="One run; else every run on this PC.")] = "",
    config: ConfigOption = None,
) -> None:
    """Tell the runs that something outside has happened. It is kept as a marker beside the
    readings, and whoever waits for it goes on."""
    from labctl.control import Done, SendSignal, ask
    from labctl.settings import load_settings

    request = SendSignal(name=name, run=to)
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
        why = each.link_error or each.waits_for or each.reason or each.label
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
            escape(each.link_error or each.waits_for or each.reason or each.label),
        )
    return table


def _tell_each(runs: list[str], config: Path | None, request_for: Callable[[str], Request]) -> None:
    """One command to each of the runs; what is refused for one does not keep it from the others."""
    from labctl.control import Done, ask
    from labctl.settings import load_settings

    settings = load_settings(config)
    failed = False
    for name in runs:
        try:
            done = run(ask(settings.socket, request_for(name), Done))
        except LabctlError as error:
            complain(error)
            failed = True
        else:
            out.print(done.message, markup=False)
    if failed:
        raise typer.Exit(1)
