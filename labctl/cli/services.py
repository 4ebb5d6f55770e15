"""``labctl daemon``, ``labctl broker`` and ``labctl up``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.common import ConfigOption
from labctl.cli.service import log_to_stderr, ready, run_service
from labctl.errors import ConfigError, Problem

if TYPE_CHECKING:
    from labctl.settings import Settings
    from labctl.supervisor import Service

log = logging.getLogger("labctl.up")


def daemon(config: ConfigOption = None) -> None:
    """Own the instruments, run recipes on them, journal and publish. Ends on SIGTERM."""
    from labctl.daemon import run_daemon
    from labctl.settings import load_settings

    settings = load_settings(config)
    log_to_stderr()
    run_service(lambda: run_daemon(settings, ready))


def broker(
    config: ConfigOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: that of the configuration.")] = None,
) -> None:
    """Run an MQTT broker for this PC alone: Mosquitto where installed, else the embedded one."""
    import asyncio

    from labctl.settings import load_settings
    from labctl.stream.broker import start_broker

    settings = load_settings(config)
    log_to_stderr()
    wanted = "auto" if settings.broker.kind == "none" else settings.broker.kind

    async def serve() -> None:
        async with start_broker(
            wanted, settings.base / "broker", host=host, port=port or settings.mqtt.port
        ) as running:
            log.info("broker %s listens on %s:%d", running.kind, host, running.port)
            ready()
            await asyncio.get_running_loop().create_future()

    run_service(serve)


def up(config: ConfigOption = None) -> None:
    """Run everything that this PC needs: broker, simulators, archive and daemon."""
    import asyncio

    from labctl.settings import load_settings
    from labctl.supervisor import supervise

    settings = load_settings(config)
    log_to_stderr()

    async def serve() -> None:
        async with supervise(services_of(settings, config), settings.base / "logs"):
            log.info("up; logs are in %s; Ctrl-C ends everything", settings.base / "logs")
            ready()
            await asyncio.get_running_loop().create_future()

    run_service(serve)


def services_of(settings: Settings, config: Path | None) -> list[Service]:
    """The processes of one PC, in the order in which they are started.

    Raises:
        ConfigError: there is no simulator of a kind that the settings name.
    """
    from labctl.cli.simulate import simulated_kinds
    from labctl.supervisor import Service

    kinds = simulated_kinds()
    unknown = [
        Problem(
            f"[simulators.{name}] kind: there is no simulator {each.kind!r}",
            suggestion=f"there are {', '.join(kinds)}",
        )
        for name, each in settings.simulators.items()
        if each.kind not in kinds
    ]
    if unknown:
        raise ConfigError(unknown)

    where = ("--config", str(config)) if config else ()
    services: list[Service] = []
    if settings.broker.kind != "none":
        services.append(Service("broker", ("broker", *where)))
    services += [
        Service(name, ("simulate", each.kind, "--config", str(settings.base / each.config)))
        for name, each in settings.simulators.items()
    ]
    services.append(Service("archive", ("archive", *where)))
    services.append(Service("daemon", ("daemon", *where)))
    return services
