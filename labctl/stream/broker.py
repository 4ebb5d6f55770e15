"""A broker for one PC: Mosquitto where it is installed, else the embedded one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labctl.errors import ConfigError, Problem
from labctl.stream.embedded import embedded_broker
from labctl.stream.mosquitto import (
    INSTALL_HINT,
    MosquittoOptions,
    find_mosquitto,
    free_port,
    running_mosquitto,
)

BrokerKind = Literal["auto", "mosquitto", "amqtt"]

log = logging.getLogger("labctl.stream")


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """Which broker runs, and where."""

    kind: Literal["mosquitto", "amqtt"]
    host: str
    port: int

    @property
    def url(self) -> str:
        """Its address for MqttConfig."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{host}:{self.port}"


@contextlib.asynccontextmanager
async def start_broker(
    kind: BrokerKind = "auto",
    directory: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 1883,
    options: MosquittoOptions | None = None,
) -> AsyncIterator[RunningBroker]:
    """A broker that runs as long as the block.

    Args:
        kind: ``auto`` takes Mosquitto if it is installed, else the embedded amqtt.
        directory: where Mosquitto keeps its state; needed for it.
        port: 0 takes any free port.
        options: of Mosquitto; ``host`` and ``port`` here win over those in it.

    Raises:
        ConfigError: the kind that was asked for is not installed, or it cannot start.
    """
    installed = find_mosquitto() is not None
    if kind == "mosquitto" and not installed:
        raise ConfigError([Problem("there is no Mosquitto here", suggestion=INSTALL_HINT)])
    if kind == "amqtt" or not installed:
        async with embedded_broker(host, port) as embedded:
            log.info("the embedded broker listens on %s:%d", embedded.host, embedded.port)
            yield RunningBroker("amqtt", embedded.host, embedded.port)
        return
    if directory is None:
        raise ConfigError([Problem("Mosquitto needs a directory for its state")])
    asked = options or MosquittoOptions()
    asked = asked.at(host, port or free_port(host))
    async with running_mosquitto(asked, directory) as mosquitto:
        log.info("Mosquitto listens on %s:%d", mosquitto.host, mosquitto.port)
        yield RunningBroker("mosquitto", mosquitto.host, mosquitto.port)
