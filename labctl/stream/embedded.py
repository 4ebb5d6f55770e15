"""A small MQTT 3.1.1 broker inside this process, for one PC where no broker is installed: amqtt.

It keeps nothing on disk and nothing for clients that are away; the journals cover that. amqtt 0.12
leaves a client that asks for MQTT 5 without an answer, reads packets of any size, never notices
that a client has died without a word, and gives a new client the retained messages of everybody.
All four are mended here.

MQTT Version 3.1.1, OASIS 2014: 3.1.2.2 (protocol level), 3.1.2.10 (keep alive), 3.2.2.3 (codes).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.errors import AMQTTError, BrokerError
from amqtt.session import Session

from labctl.errors import ConfigError, Problem
from labctl.stream.mosquitto import is_loopback

LARGEST_PACKET_B = 16 * 1024 * 1024
_FIRST_PACKET_S = 10.0
_CONNECT = 0x10
_LEVEL_3_1_1 = 4
_REFUSED_PROTOCOL = b"\x20\x02\x00\x01"

log = logging.getLogger("labctl.stream")


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """Where the embedded broker listens."""

    host: str
    port: int


@contextlib.asynccontextmanager
async def embedded_broker(
    host: str = "127.0.0.1", port: int = 0, *, keepalive_grace_s: int = 10
) -> AsyncIterator[EmbeddedBroker]:
    """A broker that runs as long as the block; everybody on this machine may use it.

    Args:
        port: 0 takes any free port.
        keepalive_grace_s: a client is dead when it is silent for so long beyond its keep-alive.

    Raises:
        ConfigError: the host is not loopback, or the port is taken.
    """
    if not is_loopback(host):
        raise ConfigError(
            [
                Problem(
                    f"the embedded broker has no passwords and may only listen on loopback, "
                    f"not {host}",
                    suggestion="install Mosquitto for other machines to connect",
                )
            ]
        )
    _quieten()
    literal = f"[{host}]" if ":" in host else host
    broker = _Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{literal}:{port}"}},
            "timeout_disconnect_delay": keepalive_grace_s,
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
    )
    try:
        await broker.start()
    except (BrokerError, AMQTTError, OSError) as error:
        raise ConfigError(
            [
                Problem(
                    f"the embedded broker cannot listen on {host}:{port}: {error}",
                    suggestion="is the port taken?",
                )
            ]
        ) from error
    try:
        yield EmbeddedBroker(host, broker.port_in_use())
    finally:
        await broker.close()


class _Broker(Broker):  # type: ignore[misc]
    """amqtt's broker, with a reader of ours before each connection."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._connections: set[asyncio.Task[Any]] = set()

    def port_in_use(self) -> int:
        listener = cast("asyncio.Server", self._servers["default"].instance)
        return int(listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """End every connection and stop listening."""
        self._servers["default"].instance.close()
        for task in tuple(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(tuple(self._connections))
        await self.shutdown()

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """amqtt also tries the subscriptions of all other clients; only one's own count."""
        if any(own is session for own, _ in self._subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._connections.add(task)
        try:
            async with asyncio.timeout(_FIRST_PACKET_S):
                begun = await _first_bytes(reader)
            if begun is None:
                return
            if begun[-1] != _LEVEL_3_1_1:
                writer.write(_REFUSED_PROTOCOL)
                await writer.drain()
                return
            guarded = _GuardedReader(begun, reader)
            await super().external_connected(guarded, StreamWriterAdapter(writer), listener_name)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.debug("a connection to the embedded broker ended: %r", error)
        finally:
            self._connections.discard(task)
            writer.close()


class _GuardedReader(StreamReaderAdapter):  # type: ignore[misc]
    """Gives the bytes that were read already, then the rest, and ends a connection that is bad.

    amqtt waits for a packet as long as the client's keep-alive and then merely waits again; a
    wait that was broken off therefore means that the client has been silent too long.
    """

    def __init__(self, begun: bytes, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._begun = begun
        self._ended = False

    async def read(self, n: int = -1) -> bytes:
        if self._ended or n > LARGEST_PACKET_B:
            self._ended = True
            raise asyncio.IncompleteReadError(b"", n)
        head = self._begun if n < 0 else self._begun[:n]
        if head:
            self._begun = self._begun[len(head) :]
            if n < 0 or len(head) == n:
                return head
        try:
            rest: bytes = await super().read(n if n < 0 else n - len(head))
        except asyncio.CancelledError:
            self._ended = True
            raise
        return head + rest


async def _first_bytes(reader: asyncio.StreamReader) -> bytes | None:
    """A CONNECT packet up to its protocol level; None if this is something else."""
    taken = b""
    with contextlib.suppress(asyncio.IncompleteReadError):
        taken = await reader.readexactly(2)
        if taken[0] != _CONNECT:
            return None
        while taken[-1] & 0x80:
            if len(taken) > 4:
                return None
            taken += await reader.readexactly(1)
        name_length = await reader.readexactly(2)
        taken += name_length
        if name_length != b"\x00\x04":
            return None
        return taken + await reader.readexactly(5)
    return None


def _quieten() -> None:
    """amqtt tells of every connection and packet; only its errors are of use here."""
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    logging.getLogger("transitions").setLevel(logging.WARNING)
