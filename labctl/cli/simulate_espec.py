"""``labctl simulate espec``: a climate chamber on a TCP port or a serial line."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.errors import ConfigError, Problem

if TYPE_CHECKING:
    from labctl.simulators.espec.config import ChamberConfig


def espec(
    config: Annotated[
        Path | None, typer.Option(help="TOML file that describes the chamber; a PR-3J if left out.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="PR-3J, P-300 or SCP-220.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 is any free one.")] = None,
    link: Annotated[
        Path | None,
        typer.Option("--pty", help="Name of a serial port in its place, a link to a terminal."),
    ] = None,
    time_port: Annotated[
        int | None, typer.Option(help="TCP port that moves virtual time on; 0 is any free one.")
    ] = None,
    speed: Annotated[str | None, typer.Option(help="'virtual', or 1, 60, ...")] = None,
    state: Annotated[Path | None, typer.Option(help="Directory that outlives the process.")] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Gets its address as soon as it is there; the time port on a second "
                     "line."),
    ] = None,
) -> None:  # fmt: skip
    """An Espec PR-3J, P-300 or SCP-220 climate chamber. Ends on SIGTERM and on Ctrl-C."""
    from labctl.simulators.espec.config import ChamberConfig, changed, read_chamber_config

    chamber = changed(
        ChamberConfig() if config is None else read_chamber_config(config),
        model=model,
        port=port,
        link=None if link is None else str(link),
        time_port=time_port,
        speed=speed,
        state_dir=None if state is None else str(state),
    )
    asyncio.run(_serve(chamber, ready_file))


async def _serve(config: ChamberConfig, ready_file: Path | None) -> None:
    from labctl.simulators.espec.server import serve_chamber

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, ended.set)
    try:
        async with serve_chamber(config) as chamber:
            addresses = [chamber.address]
            if chamber.time_port:
                addresses.append(f"{chamber.host}:{chamber.time_port}")
            if ready_file is not None:
                new = ready_file.with_name(ready_file.name + ".new")
                new.write_text("".join(f"{address}\n" for address in addresses), "utf-8")
                new.replace(ready_file)
            time_at = f", its time port at {addresses[1]}" if chamber.time_port else ""
            typer.echo(f"Espec {config.model} chamber at {addresses[0]}{time_at}")
            await ended.wait()
    except OSError as error:
        raise ConfigError([Problem(f"the chamber cannot have its place: {error}")]) from error
