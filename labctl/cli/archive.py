"""``labctl archive``: run the archive, look after it, and read it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labctl.cli.archive_packing import pack, tidy, unpack
from labctl.cli.common import ConfigOption, err, out

if TYPE_CHECKING:
    from rich.progress import TaskID

    from labctl.archive.exporting import Progress
    from labctl.archive.queries import Archive
    from labctl.settings import Settings
    from labctl.stream.connection import MqttConfig

app = typer.Typer(
    help="The SQL archive. Without a command: take batches from the stream and commit them.",
    invoke_without_command=True,
)

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="sqlite:///file.db or postgresql://user@host/database. Default: the configuration's.",
        show_default=False,
    ),
]
RunArgument = Annotated[str, typer.Argument(help="The run, as 'labctl status' names it.")]


@app.callback()
def archive(context: typer.Context, config: ConfigOption = None) -> None:
    """The SQL archive: what the laboratory has measured."""
    if context.invoked_subcommand is None:
        run(config=config)
    context.obj = config


@app.command()
def run(
    config: ConfigOption = None,
    url: UrlOption = None,
    mqtt: Annotated[
        str | None, typer.Option(help="mqtt://host:port. Default: the configuration's.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of this archive in topics. Default: the configuration's.")
    ] = None,
    share: Annotated[
        str, typer.Option(help="Divide the work between archives of this share (MQTT 5).")
    ] = "",
) -> None:
    """Commit what comes over the stream, watch retention, and acknowledge. Ends on SIGTERM."""
    from labctl.archive.service import ArchiveService
    from labctl.cli.service import log_to_stderr, ready, run_service

    log_to_stderr()
    address, broker, named = _where(config, url, mqtt, name)
    settings = _settings(config, everything_named=url is not None and mqtt is not None)

    async def serve() -> None:
        service = ArchiveService(
            address,
            broker,
            name=named,
            share=share,
            on_ready=ready,
            own_process=True,
            notify=settings.notify,
            gone_after_s=settings.alarms.node_gone_after_s,
        )
        await service.run()

    run_service(serve)


@app.command()
def migrate(
    context: typer.Context,
    config: ConfigOption = None,
    url: UrlOption = None,
    hypertable: Annotated[
        bool,
        typer.Option(
            "--hypertable",
            help="TimescaleDB: divide a table of samples that has rows in it; nothing can be "
            "written meanwhile.",
        ),
    ] = False,
) -> None:
    """Make the archive, or bring it up to the schema of this program."""
    from labctl.archive.database import open_engine, upgrade
    from labctl.archive.timescale import divide

    engine = open_engine(_url(config or context.obj, url))
    try:
        upgrade(engine)
        said = divide(engine, with_rows=hypertable)
    finally:
        engine.dispose()
    out.print("the archive is up to date")
    if said:
        out.print(said, highlight=False, markup=False)


@app.command()
def verify(
    context: typer.Context,
    runs: Annotated[list[str] | None, typer.Argument(help="Default: every run.")] = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Look for missing samples and for figures that do not follow from them. Exit code 1 if any."""
    with _opened(config or context.obj, url) as opened:
        reports = [opened.verify(run) for run in runs or list(opened.runs().index)]
    for report in reports:
        out.print(str(report), highlight=False, markup=False)
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


@app.command()
def cycles(
    context: typer.Context,
    run: RunArgument,
    last: Annotated[int, typer.Option(help="So many of the last cycles; 0 shows all.")] = 20,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """The cycles of a run: capacity, efficiency, retention."""
    from rich.table import Table

    with _opened(config or context.obj, url) as opened:
        frame = opened.cycles(run)
    table = Table("cycle", "class", "charge\nmAh/g", "discharge\nmAh/g", "efficiency\n%",
                  "retention\n%", "mean charge\nV", "mean discharge\nV", "")  # fmt: skip
    for cycle, row in frame.droplevel("run_id").tail(last or len(frame)).iterrows():
        remarks = [name for name in ("interrupted",) if row[name]]
        remarks += [] if row["complete"] else ["incomplete"]
        table.add_row(
            str(cycle),
            str(row["cycle_class"]),
            _figure(row["charge_mAh_g"], ".2f"),
            _figure(row["discharge_mAh_g"], ".2f"),
            _figure(100 * row["coulombic_efficiency"], ".3f"),
            _figure(100 * row["retention"], ".2f"),
            _figure(row["mean_charge_voltage_V"], ".4f"),
            _figure(row["mean_discharge_voltage_V"], ".4f"),
            ", ".join(remarks),
        )
    out.print(table)
    if len(frame):
        mass_mg = 1000 * float(frame["active_mass_g"].iloc[-1])
        out.print(f"per gram of {mass_mg:.4g} mg of active material", highlight=False)


@app.command()
def study(
    context: typer.Context,
    runs: Annotated[
        list[str] | None, typer.Option("--run", help="This run alone; may be repeated.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Draw the figures of the study into this folder.")
    ] = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """The reference study beside what was measured. Exit code 1 if a figure does not agree.

    Runs are known by the names of their recipes and the materials of their cells. Into a pipe go
    lines with tabs between.
    """
    from labctl.report.study import print_study, read_study

    with _opened(config or context.obj, url) as opened:
        found = read_study(opened, runs=runs)
        drawn = {}
        if plots is not None:
            from labctl.report.study_plots import draw_study

            drawn = draw_study(opened, plots, runs=runs)
    print_study(found, out)
    for path in drawn.values():
        err.print(f"wrote {path}", highlight=False)
    if found.disagreeing:
        raise typer.Exit(1)


@app.command()
def export(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="The runs, as 'labctl status' names them.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", "--to", help="A file, or a folder for several. Default: standard output."
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="csv, parquet or bdf. Default: as the file's name ends."),
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="The readings: the default.")] = False,
    cycles: Annotated[bool, typer.Option("--cycles", help="A row a cycle.")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="A row a visit to a step.")] = False,
    remarks: Annotated[
        bool, typer.Option("--remarks", help="Begin CSV with what the run was, after a #.")
    ] = False,
    go_on: Annotated[
        bool, typer.Option("--go-on", help="Leave files as they are that are there already.")
    ] = False,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Runs as files: CSV with units in the head, Parquet, or the Battery Data Format.

    A file is whole or not there. Runs of any size are written a part at a time.
    """
    from labctl.archive.exporting import export_table, format_named
    from labctl.errors import ArchiveError

    chosen = {"samples": samples, "cycles": cycles, "steps": steps}
    what: list[Any] = [name for name, asked in chosen.items() if asked] or ["samples"]
    with _opened(config or context.obj, url) as opened:
        if to is None:
            if len(runs) * len(what) > 1 or form == "parquet":
                raise ArchiveError("name a file or a folder with --out")
            kind = format_named(form or "csv", Path())
            export_table(opened, runs[0], what[0], sys.stdout, kind, remarks=remarks)
            return
        folder = to.is_dir() or len(runs) * len(what) > 1
        form = form or ("csv" if folder else None)
        with _bar() as told:
            written = opened.export(
                runs, to, format=form, what=what, remarks=remarks, replace=not go_on, progress=told
            )
    for path in written:
        err.print(f"wrote {path}", highlight=False)


app.command()(pack)
app.command()(unpack)
app.command()(tidy)


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    """A bar for each run on standard error, where a person watches."""
    from rich import progress

    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def told(run: str, done: int, count: int) -> None:
        if run not in tasks:
            tasks[run] = bar.add_task(run, total=count)
        bar.update(tasks[run], completed=done, total=count)

    with bar:
        yield told


@contextlib.contextmanager
def _opened(config: Path | None, url: str | None) -> Iterator[Archive]:
    from labctl.archive import open_archive

    with open_archive(_url(config, url)) as opened:
        yield opened


def _url(config: Path | None, url: str | None) -> str:
    if url is not None:
        return url
    from labctl.settings import load_settings

    return load_settings(config).archive_url


def _where(
    config: Path | None, url: str | None, mqtt: str | None, name: str | None
) -> tuple[str, MqttConfig, str]:
    """Address, broker and name; the configuration is read only for what is not given."""
    from labctl.errors import ConfigError, Problem
    from labctl.stream.connection import MqttConfig

    if url is not None and mqtt is not None:
        try:
            return url, MqttConfig(url=mqtt), name or "main"
        except ValueError as error:
            raise ConfigError([Problem(str(error))]) from error
    from labctl.settings import load_settings

    settings = load_settings(config)
    broker = settings.mqtt if mqtt is None else MqttConfig(url=mqtt)
    return url or settings.archive_url, broker, name or settings.archive.name


def _settings(config: Path | None, *, everything_named: bool) -> Settings:
    """What the file says of alarms; without a configuration, nobody is told of them."""
    from labctl.settings import Settings, load_settings

    if everything_named and config is None:
        return Settings()
    return load_settings(config)


def _figure(value: float, form: str) -> str:
    return "–" if value != value else format(value, form)
