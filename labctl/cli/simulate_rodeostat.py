"""``labctl simulate rodeostat``: a Rodeostat with a simulated cell."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.errors import ConfigError, Problem

if TYPE_CHECKING:
    from labctl.simulators.rodeostat.config import RodeostatSimConfig


def rodeostat(
    config: Annotated[
        Path | None, typer.Option(help="TOML file that describes the instrument.")
    ] = None,
    pty: Annotated[
        Path | None, typer.Option(help="Name of its serial port, a link to a terminal.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="TCP port in place of the serial one; 0 is any free one.")
    ] = None,
    time_port: Annotated[
        int | None, typer.Option(help="TCP port that moves virtual time on; 0 is any free one.")
    ] = None,
    speed: Annotated[str | None, typer.Option(help="'virtual', or 1, 60, ...")] = None,
    state: Annotated[Path | None, typer.Option(help="Directory that outlives the process.")] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Gets its address as soon as it is there; the time port's next."),
    ] = None,
) -> None:
    """An IO Rodeo Rodeostat. Ends on SIGTERM and on Ctrl-C."""
    from labctl.simulators.rodeostat.config import (
        RodeostatSimConfig,
        changed,
        read_rodeostat_config,
    )

    described = changed(
        RodeostatSimConfig() if config is None else read_rodeostat_config(config),
        link=None if pty is None else str(pty),
        port=port,
        time_port=time_port,
        speed=speed,
        state_dir=None if state is None else str(state),
    )
    asyncio.run(_serve(described, ready_file))


async def _serve(config: RodeostatSimConfig, ready_file: Path | None) -> None:
    from labctl.simulators.rodeostat.server import serve_rodeostat

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, ended.set)
    try:
        async with serve_rodeostat(config) as simulated:
            addresses = [simulated.address]
            if simulated.time_port:
                addresses.append(f"{config.host}:{simulated.time_port}")
            if ready_file is not None:
                new = ready_file.with_name(ready_file.name + ".new")
                new.write_text("".join(f"{address}\n" for address in addresses), "utf-8")
                new.replace(ready_file)
            time_at = f", its time port at {addresses[1]}" if simulated.time_port else ""
            typer.echo(f"Rodeostat {config.variant} {config.device_id} at {addresses[0]}{time_at}")
            await ended.wait()
    except OSError as error:
        raise ConfigError([Problem(f"the instrument cannot have its port: {error}")]) from error
