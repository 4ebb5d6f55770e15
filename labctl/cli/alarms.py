"""``labctl alarms``: what the archive warns of, and what people say to it."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labctl.cli.common import ConfigOption, complain, out
from labctl.errors import ArchiveError, LabctlError

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Engine

    from labctl.archive.alarm_store import AlarmRow

app = typer.Typer(help="Alarms: list them, acknowledge them, set them aside.", no_args_is_help=True)

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="The archive. Default: the configuration's.", show_default=False),
]
AlarmArgument = Annotated[
    int, typer.Argument(metavar="N", help="Number of the alarm, as 'list' shows it.")
]
AlarmsArgument = Annotated[
    list[int], typer.Argument(metavar="N", help="Numbers of alarms, as 'list' shows them.")
]
ActorOption = Annotated[
    str | None,
    typer.Option(help="Who. Default: the user of this PC.", show_default=False),
]
NoteOption = Annotated[str, typer.Option(help="Why, for the record.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs: JSON instead of a table.")]

_TABLE_WIDTH = 130
_COLOURS = {"high": "bold red", "medium": "yellow"}


@app.command("list")
def list_alarms(
    every: Annotated[
        bool, typer.Option("--all", help="Also those that are over and acknowledged.")
    ] = False,
    run: Annotated[
        str | None, typer.Option("--run", help="Of this run.", show_default=False)
    ] = None,
    cell: Annotated[
        str | None, typer.Option("--cell", help="Of this cell.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """The alarms that stand, the most urgent first."""
    from labctl.alarms.notify import RANKS
    from labctl.archive import open_archive

    with open_archive(_url(config, url)) as archive:
        frame = archive.alarms()
    if not every:
        frame = frame[frame["state"] != "normal"]
    if run is not None:
        frame = frame[frame["run_id"] == run]
    if cell is not None:
        frame = frame[frame["cell"] == cell]
    order = (
        frame["priority"]
        .map(lambda priority: -RANKS.get(str(priority), 1))
        .sort_values(kind="stable")
    )
    frame = frame.loc[order.index]
    if as_json:
        typer.echo(frame.reset_index().to_json(orient="records", double_precision=15, indent=2))
        return
    if frame.empty:
        out.print("there is no alarm" if every else "no alarm stands")
        return
    _show_list(frame)


@app.command()
def show(
    alarm: AlarmArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """An alarm with everything that became of it."""
    from labctl.archive import open_archive

    with open_archive(_url(config, url)) as archive:
        frame, events = archive.alarms(), archive.alarm_events()
    if alarm not in frame.index:
        raise ArchiveError(f"there is no alarm {alarm} in the archive")
    events = events[events["alarm_number"] == alarm]
    row = frame.loc[[alarm]].iloc[0]
    if as_json:
        [found] = json.loads(frame.loc[[alarm]].reset_index().to_json(orient="records"))
        found["events"] = json.loads(events.reset_index().to_json(orient="records"))
        typer.echo(json.dumps(found, indent=2))
        return
    run = "" if row["subject"] else f" in run {row['run_id']}"
    _say(f"alarm {alarm}: {row['rule']} of {_about(row)}{run}, {row['priority']}")
    _say(f"  {row['message']}")
    holds = "its condition holds" if row["active"] else "its condition is over"
    _say(f"  {_state(row)}; {holds}")
    table = Table(box=None)
    for heading in ("when", "what", "became", "who", ""):
        table.add_column(heading, no_wrap=heading != "")
    for _, event in events.iterrows():
        table.add_row(
            _when(event["committed_unix_s"]),
            str(event["trigger"]),
            str(event["to_state"]),
            escape(str(event["actor"])),
            escape(str(event["message"])),
        )
    _printed(table)


@app.command()
def ack(
    alarms: AlarmsArgument,
    note: NoteOption = "",
    actor: ActorOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Say that you know of alarms."""
    from labctl.archive.alarm_commands import acknowledge

    _to_each(
        alarms,
        _url(config, url),
        lambda engine, number: acknowledge(engine, number, actor=_who(actor), note=note),
    )


@app.command()
def shelve(
    alarm: AlarmArgument,
    for_: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="For so long, e.g. '8 h' or '3 d'.")
    ],
    note: NoteOption = "",
    actor: ActorOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Hear no more of an alarm for some time; then it comes back by itself."""
    from labctl.archive import alarm_commands
    from labctl.kinds import Kind
    from labctl.units import QuantityError, parse_quantity

    try:
        until_unix_s = time.time() + parse_quantity(for_, Kind.DURATION)
    except QuantityError as error:
        hint = f"; {error.suggestion}" if error.suggestion else ""
        raise typer.BadParameter(f"{error}{hint}", param_hint="--for") from error
    _to_each(
        [alarm],
        _url(config, url),
        lambda engine, number: alarm_commands.shelve(
            engine, number, until_unix_s=until_unix_s, actor=_who(actor), note=note
        ),
    )


@app.command()
def unshelve(
    alarm: AlarmArgument,
    note: NoteOption = "",
    actor: ActorOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Hear of a shelved alarm again before its time."""
    from labctl.archive import alarm_commands

    _to_each(
        [alarm],
        _url(config, url),
        lambda engine, number: alarm_commands.unshelve(
            engine, number, actor=_who(actor), note=note
        ),
    )


@app.command()
def reset(
    alarm: AlarmArgument,
    reason: Annotated[str, typer.Option(help="What was found and done, for the record.")],
    actor: ActorOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Let go of an alarm that latched, as after a limit that tripped."""
    from labctl.archive import alarm_commands

    _to_each(
        [alarm],
        _url(config, url),
        lambda engine, number: alarm_commands.reset(
            engine, number, actor=_who(actor), reason=reason
        ),
    )


@app.command("out-of-service")
def out_of_service(
    alarm: AlarmArgument,
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    actor: ActorOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Hear no more of an alarm until it is put back."""
    from labctl.archive.alarm_commands import take_out_of_service

    _to_each(
        [alarm],
        _url(config, url),
        lambda engine, number: take_out_of_service(
            engine, number, actor=_who(actor), reason=reason
        ),
    )


@app.command("back-in-service")
def back_in_service(
    alarm: AlarmArgument,
    note: NoteOption = "",
    actor: ActorOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Hear again of an alarm that was out of service."""
    from labctl.archive.alarm_commands import put_back_in_service

    _to_each(
        [alarm],
        _url(config, url),
        lambda engine, number: put_back_in_service(engine, number, actor=_who(actor), note=note),
    )


@app.command("test")
def try_addresses(config: ConfigOption = None) -> None:
    """Send a message to every address of [notifications], and ask the heartbeat's. Exit code 1 if
    one fails."""
    from labctl.archive.sending import AppriseSender, ask_for, digest_of, guarded
    from labctl.settings import load_settings

    urls, heartbeat_url = load_settings(config).notify.read()
    if not urls and not heartbeat_url:
        out.print("no address: write some into [notifications] of labctl.toml", markup=False)
        raise typer.Exit(1)
    said = f"A test of {getpass.getuser()}: alarms will look like this one."
    found: list[tuple[str, str]] = []
    for url in urls:
        sender = AppriseSender(url)
        problem = guarded(partial(sender, title="labctl: test", body=said, priority="low"))
        found.append((f"{sender.name}:… ({digest_of(url)})", problem))
    if heartbeat_url:
        found.append(("the heartbeat", ask_for(heartbeat_url)))
    for name, problem in found:
        _say(f"{name}: {problem or 'delivered'}")
    if any(problem for _, problem in found):
        raise typer.Exit(1)


def _to_each(numbers: Sequence[int], url: str, command: Callable[[Engine, int], AlarmRow]) -> None:
    """What is refused for one alarm does not keep it from the others."""
    failed = False
    with _engine(url) as engine:
        for number in dict.fromkeys(numbers):
            try:
                found = command(engine, number)
            except LabctlError as error:
                if len(numbers) == 1:
                    raise
                complain(error)
                failed = True
            else:
                until = found.shelved_until_unix_s
                _say(
                    f"alarm {number} of {found.about} is {found.state.value}"
                    + (f" until {_when(until)}" if until else "")
                )
    if failed:
        raise typer.Exit(1)


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    from labctl.archive.database import check, open_engine

    engine = open_engine(url, create=False)
    try:
        check(engine)
        yield engine
    finally:
        engine.dispose()


def _show_list(frame: pd.DataFrame) -> None:
    if out.is_terminal and out.width < _TABLE_WIDTH:
        for number, row in frame.iterrows():
            run = "" if row["subject"] else f", run {row['run_id']}"
            _say(
                f"alarm {number}, {row['priority']}: {row['rule']} of {_about(row)}{run}, "
                f"{_state(row)} since {_when(row['unix_time_s'])}\n  {row['message']}"
            )
        return
    table = Table(box=None)
    table.add_column("alarm", justify="right")
    for heading in ("priority", "rule", "of", "run", "state", "since"):
        table.add_column(heading, no_wrap=True)
    table.add_column("message")
    for number, row in frame.iterrows():
        table.add_row(
            str(number),
            str(row["priority"]),
            escape(str(row["rule"])),
            escape(_about(row)),
            "" if row["subject"] else escape(str(row["run_id"])),
            escape(_state(row)),
            _when(row["unix_time_s"]),
            escape(str(row["message"])),
            style=_COLOURS.get(str(row["priority"])) if row["active"] else None,
        )
    _printed(table)


def _printed(table: Table) -> None:
    if out.is_terminal:
        out.print(table)
    else:
        Console(width=2 * _TABLE_WIDTH, file=out.file).print(table)


def _about(row: pd.Series[Any]) -> str:
    if row["subject"]:
        return str(row["subject"])
    return f"cell {row['cell']}" if isinstance(row["cell"], str) else f"run {row['run_id']}"


def _state(row: pd.Series[Any]) -> str:
    state, until = str(row["state"]), row["shelved_until_unix_s"]
    if state == "shelved" and until == until:
        state += f" until {_when(until)}"
    by = " ".join(
        part
        for part in (
            f"by {row['aside_actor']}" if row["aside_actor"] else "",
            f"({row['aside_reason']})" if row["aside_reason"] else "",
        )
        if part
    )
    return f"{state} {by}" if by else state


def _when(unix_time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_time_s or 0.0))


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _who(actor: str | None) -> str:
    return actor or getpass.getuser()


def _url(config: Path | None, url: str | None) -> str:
    if url is not None:
        return url
    from labctl.settings import load_settings

    return load_settings(config).archive_url
