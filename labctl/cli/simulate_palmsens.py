"""``labctl simulate palmsens``: a PalmSens potentiostat with a simulated cell."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.errors import ConfigError, Problem

if TYPE_CHECKING:
    from labctl.simulators.palmsens.config import PotentiostatConfig


def palmsens(
    config: Annotated[Path, typer.Option(help="TOML file that describes the instrument.")],
    link: Annotated[
        Path | None, typer.Option(help="Name of its serial port, a link to a terminal.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="TCP port in place of the serial one; 0 is any free one.")
    ] = None,
    speed: Annotated[str | None, typer.Option(help="'virtual', or 1, 60, ...")] = None,
    state: Annotated[Path | None, typer.Option(help="Directory that outlives the process.")] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Gets the address of the port as soon as it is there.")
    ] = None,
) -> None:
    """An EmStat4S, EmStat4X, Nexus or EmStat Pico. Ends on SIGTERM and on Ctrl-C."""
    from labctl.simulators.palmsens.config import changed, read_potentiostat_config

    potentiostat = changed(
        read_potentiostat_config(config),
        link=None if link is None else str(link),
        port=port,
        speed=speed,
        state_dir=None if state is None else str(state),
    )
    asyncio.run(_serve(potentiostat, ready_file))


async def _serve(config: PotentiostatConfig, ready_file: Path | None) -> None:
    from labctl.simulators.palmsens.server import serve_potentiostat

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, ended.set)
    try:
        async with serve_potentiostat(config) as potentiostat:
            if ready_file is not None:
                new = ready_file.with_name(ready_file.name + ".new")
                new.write_text(potentiostat.address + "\n", "utf-8")
                new.replace(ready_file)
            typer.echo(f"PalmSens {config.model} {config.serial} at {potentiostat.address}")
            await ended.wait()
    except OSError as error:
        raise ConfigError([Problem(f"the instrument cannot have its port: {error}")]) from error
