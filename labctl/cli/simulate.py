"""``labctl simulate``: stand-ins for instruments, on the port where the real ones would listen."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.simulate_espec import espec
from labctl.cli.simulate_palmsens import palmsens
from labctl.cli.simulate_rodeostat import rodeostat
from labctl.errors import ConfigError, Problem

if TYPE_CHECKING:
    from labctl.simulators.keithley.config import SmuConfig
    from labctl.simulators.neware_bts.rack import RackConfig

app = typer.Typer(
    help="Stand-ins for instruments: the real protocols over the wire, with simulated cells.",
    no_args_is_help=True,
)


@app.callback()
def simulate() -> None:
    """Stand-ins for instruments: the real protocols over the wire, with simulated cells."""


app.command()(palmsens)
app.command()(espec)
app.command()(rodeostat)


def simulated_kinds() -> tuple[str, ...]:
    """The kinds of instruments that can be simulated: the words after ``labctl simulate``."""
    return tuple(
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback is not None
    )


@app.command()
def neware(
    config: Annotated[Path, typer.Option(help="TOML file that describes the rack.")],
    port: Annotated[int | None, typer.Option(help="TCP port; 0 is any free one.")] = None,
    speed: Annotated[str | None, typer.Option(help="'virtual', or 1, 60, ...")] = None,
    state: Annotated[Path | None, typer.Option(help="Directory that outlives the process.")] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Gets host:port as soon as the rack listens.")
    ] = None,
) -> None:
    """A Neware BTS 8 rack. Ends on SIGTERM and on Ctrl-C."""
    from labctl.simulators.neware_bts.rack import changed, read_rack_config

    rack = read_rack_config(config)
    state_dir = None if state is None else str(state)
    asyncio.run(_serve(changed(rack, port=port, speed=speed, state_dir=state_dir), ready_file))


async def _serve(config: RackConfig, ready_file: Path | None) -> None:
    from labctl.simulators.neware_bts.rack import serve_rack

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, ended.set)
    try:
        async with serve_rack(config) as rack:
            address = f"{rack.host}:{rack.port}"
            if ready_file is not None:
                new = ready_file.with_name(ready_file.name + ".new")
                new.write_text(address + "\n", "utf-8")
                new.replace(ready_file)
            typer.echo(f"Neware BTS 8 rack, {len(config.channel_names())} channels, at {address}")
            await ended.wait()
    except OSError as error:
        message = f"the rack cannot serve on {config.host}:{config.port}: {error}"
        raise ConfigError([Problem(message)]) from error


@app.command()
def keithley(
    config: Annotated[Path, typer.Option(help="TOML file that describes the SourceMeter.")],
    port: Annotated[int | None, typer.Option(help="TCP port; 0 is any free one.")] = None,
    time_port: Annotated[
        int | None, typer.Option(help="TCP port that moves virtual time on; 0 is any free one.")
    ] = None,
    speed: Annotated[str | None, typer.Option(help="'virtual', or 1, 60, ...")] = None,
    state: Annotated[Path | None, typer.Option(help="Directory that outlives the process.")] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Gets host:port as soon as it listens; the time port on a second line."),
    ] = None,
) -> None:
    """A Keithley 2450, 2460 or 2461 SourceMeter. Ends on SIGTERM and on Ctrl-C."""
    from labctl.simulators.keithley.config import changed, read_smu_config

    smu = changed(
        read_smu_config(config),
        port=port,
        time_port=time_port,
        speed=speed,
        state_dir=None if state is None else str(state),
    )
    asyncio.run(_serve_smu(smu, ready_file))


async def _serve_smu(config: SmuConfig, ready_file: Path | None) -> None:
    from labctl.simulators.keithley.server import serve_smu

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, ended.set)
    try:
        async with serve_smu(config) as smu:
            addresses = [f"{smu.host}:{smu.port}"]
            if smu.time_port:
                addresses.append(f"{smu.host}:{smu.time_port}")
            if ready_file is not None:
                new = ready_file.with_name(ready_file.name + ".new")
                new.write_text("".join(f"{address}\n" for address in addresses), "utf-8")
                new.replace(ready_file)
            time_at = f", its time port at {addresses[1]}" if smu.time_port else ""
            typer.echo(f"Keithley {config.model} SourceMeter at {addresses[0]}{time_at}")
            await ended.wait()
    except OSError as error:
        message = f"the SourceMeter cannot serve on {config.host}:{config.port}: {error}"
        raise ConfigError([Problem(message)]) from error
