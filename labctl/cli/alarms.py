"""``labctl alarms``: what the archive warns of, and saying that one knows."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.common import ConfigOption, out

app = typer.Typer(help="Alarms: list them, acknowledge them.", no_args_is_help=True)

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="The archive. Default: the configuration's.", show_default=False),
]


@app.command("list")
def list_alarms(
    every: Annotated[
        bool, typer.Option("--all", help="Also those that are over and acknowledged.")
    ] = False,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """The alarms that stand."""
    from labctl.archive import open_archive

    with open_archive(_url(config, url)) as archive:
        frame = archive.alarms()
    if not every:
        frame = frame[frame["state"] != "normal"]
    if frame.empty:
        out.print("no alarm stands")
        return
    for number, row in frame.iterrows():
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["unix_time_s"]))
        out.print(
            f"alarm {number}: {row['rule']} of cell {row['cell']}, {row['state']} "
            f"since cycle {row['cycle']} of {row['run_id']} ({at})\n  {row['message']}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def ack(
    alarm: Annotated[int, typer.Argument(help="Number of the alarm, as 'list' shows it.")],
    note: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    actor: Annotated[
        str | None, typer.Option(help="Who. Default: the user of this PC.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Say that you know of an alarm."""
    from labctl.archive.alarm_store import acknowledge
    from labctl.archive.database import check, open_engine

    engine = open_engine(_url(config, url), create=False)
    try:
        check(engine)
        found = acknowledge(engine, alarm, actor=actor or getpass.getuser(), note=note)
    finally:
        engine.dispose()
    out.print(f"alarm {alarm} of cell {found.cell} is {found.state.value}", highlight=False)


def _url(config: Path | None, url: str | None) -> str:
    if url is not None:
        return url
    from labctl.settings import load_settings

    return load_settings(config).archive_url
