"""``labctl demo``: the reference study on simulated cells, measured through the whole system."""

from __future__ import annotations

import asyncio
import enum
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from labctl.cli.common import out

if TYPE_CHECKING:
    from labctl.control import Status
    from labctl.demo.bench import Bench
    from labctl.demo.conduct import Heard
    from labctl.demo.findings import Findings
    from labctl.demo.study import Study
    from labctl.report.study import Study as PublishedStudy


class BrokerName(enum.Enum):
    """Which broker the demo starts."""

    AUTO = "auto"
    MOSQUITTO = "mosquitto"
    AMQTT = "amqtt"


PLOT = "capacity.png"


def demo(
    folder: Annotated[Path, typer.Option(help="Where everything lies.")] = Path("demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the capacities of nine cells, a few seconds.")
    ] = False,
    speed: Annotated[
        str, typer.Option(help="'virtual', 1 for real time (two days), or a factor such as 5000.")
    ] = "virtual",
    seed: Annotated[int, typer.Option(help="Of the cells' scatter and the noise.")] = 7,
    broker: Annotated[
        BrokerName, typer.Option(help="auto takes Mosquitto where it is installed.")
    ] = BrokerName.AUTO,
    archive: Annotated[
        str, typer.Option(help="SQLAlchemy's address of the archive; an SQLite file or PostgreSQL.")
    ] = "sqlite:///archive.db",
) -> None:
    """Measure the reference study on simulated cells, through the whole system, and show it.

    Capacity, rate ladder, 10,000 cycles at 50C, GITT, voltammetry, impedance, hard carbon,
    full cells and an operando run; with --quick the capacities alone.

    A demo that was interrupted, or whose processes were killed, goes on where it stood.
    """
    from labctl.clock import clock_from_speed
    from labctl.demo.bench import Wanted, set_up_bench
    from labctl.demo.study import capacities, whole_study

    try:
        clock_from_speed(speed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--speed") from error
    began_s = time.monotonic()
    study = capacities(seed) if quick else whole_study(seed)
    wanted = Wanted(quick=quick, seed=seed, speed=speed, broker=broker.value, archive=archive)
    with set_up_bench(folder, study, wanted) as bench:
        try:
            findings = asyncio.run(_measure(bench, study))
        except KeyboardInterrupt:
            out.print(
                "\nInterrupted; every process has ended. The same command goes on where it stood.",
                soft_wrap=True,
            )
            raise typer.Exit(130) from None
        _tell(findings, bench)
        bench.finish()
    out.print(f"\nAll of it took {time.monotonic() - began_s:.1f} s.", highlight=False)
    wrong = [figure for figure in findings.figures if not figure.holds]
    rows = () if findings.published is None else findings.published.rows
    if findings.problems or wrong or not all(row.holds for row in rows):
        raise typer.Exit(1)


async def _measure(bench: Bench, study: Study) -> Findings:
    from labctl.cli.services import services_of
    from labctl.demo.conduct import conduct
    from labctl.demo.findings import read_findings
    from labctl.settings import load_settings
    from labctl.supervisor import supervise

    settings = load_settings(bench.config)
    logs = settings.base / "logs"
    out.print(
        f"{'Going on with' if bench.resumed else 'Starting'} the demo in [bold]{bench.folder}[/]: "
        "broker, simulated Neware rack, archive and daemon, each a process of its own; "
        f"their logs are in {logs}.",
        highlight=False,
    )
    services = services_of(settings, bench.config)
    async with supervise(services, logs):
        with _Show(study) as show:
            await conduct(settings, study, show.look)
        return await asyncio.to_thread(
            read_findings, settings.archive_url, study, bench.folder / PLOT, show.runs
        )


class _Show:
    """Progress: a bar a cell on a terminal, now and then a line elsewhere."""

    def __init__(self, study: Study) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[words]}"),
            console=out,
        )
        self._tasks: dict[str, list[TaskID]] = {}
        for work in study.works:
            name = work.cell.cell.name
            bar = self._bars.add_task(f"{name} {work.recipe}", total=1.0, words="waiting")
            self._tasks.setdefault(name, []).append(bar)
        self._works = len(study.works)
        self._live = Live(self._bars, console=out, refresh_per_second=8)
        self._alarms: set[tuple[str, str]] = set()
        self._said_s = 0.0
        self.runs: set[str] = set()
        self._problem = ""
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        if out.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if out.is_terminal:
            self._live.stop()

    def look(self, status: Status, heard: Heard) -> None:
        """Show what the daemon says and what MQTT said."""
        self.runs = {run.run for run in status.runs}
        bars = {cell: iter(each) for cell, each in self._tasks.items()}
        for run in status.runs:
            words = (
                f"{run.state:<9} cycle {run.cycle}/{run.cycle_count}  "
                f"{run.test_time_s / 3600:5.1f} h  "
                + ("" if run.voltage_V is None else f"{run.voltage_V:6.3f} V  ")
                + f"{run.seq:5d} records"
            )
            done = 1.0 if run.ended else run.visit / (run.visit_count + 1)
            bar = next(bars.get(run.cell, iter(())), None)
            if bar is not None:
                self._bars.update(bar, completed=done, words=words)
        problem = status.stream_problem
        if problem and problem == self._problem and problem not in self._told:
            self._told.add(problem)
            out.print(f"[yellow]waiting:[/] {escape(problem)}", highlight=False, soft_wrap=True)
        self._problem = problem
        for key, alarm in heard.alarms.items():
            if key not in self._alarms and alarm.state != "normal":
                self._alarms.add(key)
                out.print(
                    f"[bold yellow]alarm[/] over MQTT, cell {alarm.cell}: {escape(alarm.message)}",
                    highlight=False,
                    soft_wrap=True,
                )
        if not out.is_terminal and time.monotonic() - self._said_s > 2.0:
            self._said_s = time.monotonic()
            records = sum(run.seq for run in status.runs)
            ended = sum(run.ended for run in status.runs)
            out.print(
                f"{records} records, {ended} of {self._works} runs ended, "
                f"{status.unconfirmed_batches} batches on their way to the archive",
                highlight=False,
            )


def _tell(findings: Findings, bench: Bench) -> None:
    out.print("\nRead back from the SQL archive", style="bold")
    out.print(_cycle_table(findings))
    out.print("ch., disch.: mean voltages   *: incomplete\n", style="dim")
    out.print(_figure_table(findings))
    if findings.published is not None:
        out.print()
        out.print(_study_table(findings.published))
    out.print()
    if findings.alarms.empty:
        out.print("No alarm was raised.")
    for _, alarm in findings.alarms.iterrows():
        out.print(
            f"[bold yellow]alarm[/] cell {alarm['cell']} ({alarm['state']}): "
            f"{escape(alarm['message'])}",
            highlight=False,
            soft_wrap=True,
        )
    for problem in findings.problems:
        out.print(f"[bold red]archive:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if not findings.problems:
        out.print(
            f"{findings.samples} samples and {findings.every_cycle} cycles in the archive: every "
            "reading once, cycles equal to a recomputation.",
            highlight=False,
            soft_wrap=True,
        )
    where = Path(os.path.relpath(bench.folder))
    config = f"-c {where / 'labctl.toml'}"
    run = findings.cycles["run_id"].iloc[0]
    out.print(
        f"""
[bold]Where everything lies[/]
  plot      {where / PLOT}
  archive   {bench.wanted.archive.replace("sqlite:///", f"{where}/")}
  logs      {where}/logs/
  journal   {where}/data/journal.db

[bold]What to type next[/]
  . .venv/bin/activate
  labctl archive study {config}
  labctl archive cycles {run} {config}
  labctl alarms list {config}
  labctl up {config}       and, while that runs, in another terminal:
  labctl status --all {config}
  labctl run start rate-ladder --cell HEV-1 --channel rack1/21-1-1 {config}""",
        highlight=False,
        soft_wrap=True,
    )


def _study_table(published: PublishedStudy) -> Table:
    """Each row of the study; 'labctl archive study' also has the runs that it came from."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("", min_width=1, no_wrap=True)
    table.add_column("the reference study, measured")
    for heading in ("measured", "published", "off by"):
        table.add_column(heading, justify="right", no_wrap=heading != "published")
    for row in published.rows:
        _, what, measured, expected, apart, *_ = row.said()
        holds = "[green]✓[/]" if row.holds else "[bold red]✗[/]"
        table.add_row(holds, f"{row.number} {escape(what)}", measured, escape(expected), apart)
    return table


def _cycle_table(findings: Findings) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("\ncell", no_wrap=True)
    table.add_column("\ncycle", justify="right", no_wrap=True)
    for heading in (
        "charge\nmAh/g",
        "discharge\nmAh/g",
        "effic.\n%",
        "retention\n%",
        "ch.\nV",
        "disch.\nV",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for _, row in findings.cycles.iterrows():
        cell = str(row["cell"])
        table.add_row(
            "" if cell == last else cell,
            str(row["cycle"]) + ("" if row["complete"] else "*"),
            f"{row['charge_mAh_g']:.2f}",
            f"{row['discharge_mAh_g']:.2f}",
            f"{100 * row['coulombic_efficiency']:.2f}",
            "-" if math.isnan(row["retention"]) else f"{100 * row['retention']:.2f}",
            f"{row['mean_charge_voltage_V']:.3f}",
            f"{row['mean_discharge_voltage_V']:.3f}",
        )
        last = cell
    return table


def _figure_table(findings: Findings) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("", min_width=1, no_wrap=True)
    table.add_column("the sound cells", no_wrap=True)
    for heading in ("measured", "expected", "off by", "allowed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for figure in findings.figures:
        apart = (
            ""
            if figure.published is None
            else f"{figure.measured - figure.published:+.{figure.digits}f}"
        )
        table.add_row(
            "[green]✓[/]" if figure.holds else "[bold red]✗[/]",
            figure.name + (f" / {figure.unit}" if figure.unit else ""),
            f"{figure.measured:.{figure.digits}f}",
            "" if figure.published is None else f"{figure.published:g}",
            apart,
            "" if figure.tolerance is None else f"±{figure.tolerance:g}",
        )
    return table
