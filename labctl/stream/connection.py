"""One lasting connection to an MQTT broker: opened, named, watched, and opened again.

The session is persistent under a stable client identifier (MQTT 5: clean start off and a session
expiry; MQTT 3.1.1: clean session off), because a session first opened clean does not survive a
broker's restart. TCP_NODELAY is set, for without it an awaited publish takes 40 ms. At most
20 messages are on their way at a time: a larger window is slower.

MQTT Version 5.0, OASIS 2019: 3.1.2 (connect), 3.1.3.2 (last will), 4.9 (flow control).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from labctl.clock import Clock, RealClock
from labctl.stream.mqtt_config import MqttConfig, explain, read_secrets
from labctl.stream.topics import Presence

__all__ = [
    "IN_FLIGHT",
    "Announcement",
    "Backoff",
    "Connection",
    "ConnectionStatus",
    "MqttConfig",
    "explain",
    "stay_connected",
]

IN_FLIGHT = 20
_FAREWELL_S = 1.0
_PROBE_S = 5.0
_NO_ANSWER = "Operation timed out"

_Result = TypeVar("_Result")

log = logging.getLogger("labctl.stream")


@dataclass(frozen=True, slots=True)
class Announcement:
    """A client's presence: a retained message when it comes, another when it goes or dies.

    ``payload`` makes the message at each connect, and so a last will that tells when that was.
    ``farewell`` makes the one of a client that ends by itself, where that differs from its will.
    """

    topic: str
    payload: Callable[[Presence], bytes]
    farewell: Callable[[], bytes] | None = None


@dataclass(slots=True)
class ConnectionStatus:
    """How the connection is doing, for people: read it, do not decide by it."""

    connected: bool = False
    protocol: str = ""
    problem: str = "not connected yet"
    connections: int = 0
    failures: int = 0


class Connection:
    """One connection that is open now. Its methods raise :class:`aiomqtt.MqttError` once it broke.

    Let that error out of the function given to :func:`stay_connected`, and a new connection comes.
    """

    def __init__(
        self,
        client: aiomqtt.Client,
        protocol: str,
        announcement: Announcement | None,
        manual: bool,
    ) -> None:
        self._client = client
        self.protocol = protocol
        self._announcement = announcement
        self._announced = False
        self._manual = manual

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Subscribe, and be sure of it.

        Raises:
            aiomqtt.MqttError: broken, or the broker's rules do not allow it.
        """
        for topic_filter in filters:
            codes = await self._answer(self._client.subscribe(topic_filter, qos=qos))
            if any(getattr(code, "value", code) >= 0x80 for code in codes):
                raise aiomqtt.MqttError(
                    f"the broker refuses a subscription to {topic_filter!r}; "
                    "check its access rules for this user"
                )

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        """Publish, and return when the broker has taken it (QoS 1) or it is on its way (QoS 0)."""
        await self._answer(self._client.publish(topic, payload, qos=qos, retain=retain))

    async def messages(self) -> AsyncIterator[aiomqtt.Message]:
        """What comes in, until the connection breaks, which raises :class:`aiomqtt.MqttError`."""
        async for message in self._client.messages:
            yield message

    @property
    def waiting(self) -> int:
        """Messages that have come and were not yet taken from :meth:`messages`."""
        return len(self._client.messages)

    def acknowledge(self, message: aiomqtt.Message) -> None:
        """Tell the broker that a message has been dealt with; only for manual acknowledgement.

        Call it in the order in which the messages came. It says nothing of durability: it makes
        the broker send no more than ``receive_maximum`` ahead. (Mosquitto 2.0.11 keeps to that
        only until the first acknowledgement; what bounds the memory then is the nodes' window.)
        """
        if self._manual and message.qos:
            self._client._client.ack(message.mid, message.qos)

    async def announce(self) -> None:
        """Say that we are here. Call it when the subscriptions are in place."""
        if self._announcement is not None:
            await self.publish(
                self._announcement.topic, self._announcement.payload("online"), retain=True
            )
            self._announced = True

    async def take_leave(self) -> None:
        """Say that we go: a clean disconnect discards the last will."""
        if self._announcement is not None and self._announced:
            farewell = self._announcement.farewell
            payload = self._announcement.payload("offline") if farewell is None else farewell()
            await self.publish(self._announcement.topic, payload, retain=True)

    async def _answer(self, asked: Coroutine[Any, Any, _Result]) -> _Result:
        """What the broker answers; breaks off at once when the connection breaks.

        aiomqtt would wait for the whole timeout then. It also waits with ``asyncio.wait_for``,
        which in Python 3.11 swallows a cancellation that comes in the same moment as the result;
        here that happens to a task of its own, where it does no harm.
        """
        task = asyncio.ensure_future(asked)
        broken = self._client._disconnected
        try:
            await asyncio.wait((task, broken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
        if task.done():
            return task.result()
        raise aiomqtt.MqttError("Disconnected while waiting for an answer") from broken.exception()


class Backoff:
    """Waiting times that grow from try to try, a little different from client to client."""

    def __init__(self, first_s: float = 0.25, most_s: float = 30.0, name: str = "") -> None:
        self._first_s, self._most_s = first_s, most_s
        self._spread = 0.8 + 0.4 * (zlib.crc32(name.encode()) % 1000) / 1000 if name else 1.0
        self._next_s = first_s

    def next_s(self) -> float:
        """How long to wait before the next try."""
        wait_s = self._next_s * self._spread
        self._next_s = min(2 * self._next_s, self._most_s)
        return wait_s

    def reset(self) -> None:
        """It worked: begin anew."""
        self._next_s = self._first_s


async def stay_connected(
    config: MqttConfig,
    serve: Callable[[Connection], Coroutine[Any, Any, None]],
    *,
    client_id: str,
    clock: Clock | None = None,
    announcement: Announcement | None = None,
    receive_maximum: int | None = None,
    persistent: bool = True,
    status: ConnectionStatus | None = None,
    backoff: Backoff | None = None,
) -> None:
    """Run ``serve`` on a connection; when it breaks, connect again and run it again.

    Returns when ``serve`` returns. ``serve`` is begun anew on each connection: it subscribes,
    announces, and works until the connection breaks under it. A broker that is not there, or does
    not let us in, is waited for.

    Args:
        client_id: stable name of this client, if the configuration does not give one.
        receive_maximum: if given, messages are acknowledged by hand with
            :meth:`Connection.acknowledge`, and the broker (with MQTT 5) sends no more than so many
            ahead of that.
        persistent: whether the broker keeps our session while we are away.
        status: is kept up to date.

    Raises:
        ConfigError: the password file or the certificates cannot be read.
    """
    clock = clock or RealClock()
    status = status or ConnectionStatus()
    client_id = config.client_id or client_id
    backoff = backoff or Backoff(name=client_id)
    while True:
        opened_s: float | None = None
        broken: BaseException | None = None
        try:
            async with _open(
                config, client_id, announcement, receive_maximum, persistent
            ) as connection:
                opened_s = clock.monotonic_s()
                status.connected, status.problem = True, ""
                status.protocol = connection.protocol
                status.connections += 1
                log.info(
                    "connected to %s with MQTT %s as %s", config.url, connection.protocol, client_id
                )
                await _run_apart(serve(connection))
                return
        except* aiomqtt.MqttError as group:
            broken = _first(group)
        finally:
            status.connected = False
        assert broken is not None  # noqa: S101
        problem = explain(config, broken)
        status.failures += 1
        if opened_s is not None and clock.monotonic_s() - opened_s > 5.0:
            backoff.reset()
        wait_s = backoff.next_s()
        log.log(
            logging.DEBUG if problem == status.problem else logging.WARNING,
            "%s (trying again, next in %.1f s)",
            problem,
            wait_s,
        )
        status.problem = problem
        await clock.sleep(wait_s)


@contextlib.asynccontextmanager
async def _open(
    config: MqttConfig,
    client_id: str,
    announcement: Announcement | None,
    receive_maximum: int | None,
    persistent: bool,
) -> AsyncIterator[Connection]:
    client, version = await _connect(config, client_id, announcement, receive_maximum, persistent)
    connection = Connection(client, version, announcement, receive_maximum is not None)
    try:
        try:
            yield connection
        finally:
            if not client._disconnected.done():
                with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                    async with asyncio.timeout(_FAREWELL_S):
                        await connection.take_leave()
    finally:
        await _close(client)


async def _connect(
    config: MqttConfig,
    client_id: str,
    announcement: Announcement | None,
    receive_maximum: int | None,
    persistent: bool,
) -> tuple[aiomqtt.Client, str]:
    """A connected client and its version of MQTT: the newest that the broker speaks."""
    secret = await asyncio.to_thread(read_secrets, config)
    versions = ("5", "3.1.1") if config.protocol == "auto" else (config.protocol,)
    for version in versions:
        client = _client(
            config, client_id, version, announcement, receive_maximum, persistent, secret
        )
        if version != versions[-1]:
            client.timeout = min(_PROBE_S, config.timeout_s)
        opening = asyncio.create_task(client.__aenter__(), name=f"connect to {config.url}")
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            await _abandon(client, opening)
            raise
        except aiomqtt.MqttError as error:
            await _close(client)
            other = "protocol version" in str(error).lower() or str(error) == _NO_ANSWER
            if other and version != versions[-1]:
                continue
            raise
        client.timeout = config.timeout_s
        return client, version
    raise AssertionError("unreachable")


async def _abandon(client: aiomqtt.Client, opening: asyncio.Task[aiomqtt.Client]) -> None:
    """End an attempt to connect. Its thread is waited for, because it opens a socket."""
    connected = client._connected
    if not connected.done():
        connected.set_exception(aiomqtt.MqttError("given up"))
    await asyncio.wait([opening])
    opening.exception()
    connected.exception()
    await _close(client)


def _client(
    config: MqttConfig,
    client_id: str,
    protocol: str,
    announcement: Announcement | None,
    receive_maximum: int | None,
    persistent: bool,
    secret: tuple[str | None, ssl.SSLContext | None],
) -> aiomqtt.Client:
    password, tls_context = secret
    properties: Properties | None = None
    if protocol == "5":
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = config.session_expiry_s if persistent else 0
        if receive_maximum is not None:
            properties.ReceiveMaximum = receive_maximum
    will = None
    if announcement is not None:
        will = aiomqtt.Will(announcement.topic, announcement.payload("offline"), qos=1, retain=True)
    client = aiomqtt.Client(
        config.host,
        config.port,
        username=config.username or None,
        password=password,
        identifier=client_id,
        protocol=(aiomqtt.ProtocolVersion.V5 if protocol == "5" else aiomqtt.ProtocolVersion.V311),
        will=will,
        clean_session=None if protocol == "5" else not persistent,
        clean_start=not persistent if protocol == "5" else 3,
        timeout=config.timeout_s,
        keepalive=config.keepalive_s,
        max_inflight_messages=IN_FLIGHT,
        properties=properties,
        tls_context=tls_context,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        logger=logging.getLogger("labctl.stream.mqtt"),
    )
    client.pending_calls_threshold = 100 * IN_FLIGHT
    client._client.connect_timeout = min(5.0, config.timeout_s)
    if receive_maximum is not None:
        client._client.manual_ack_set(True)
    return client


async def _close(client: aiomqtt.Client) -> None:
    """Disconnect if that is possible, and leave no socket and no task behind."""
    client.timeout = _FAREWELL_S
    with contextlib.suppress(aiomqtt.MqttError):
        if client._lock.locked():
            await client.__aexit__(None, None, None)
    if client._client.socket() is not None:
        client._client._sock_close()
    misc = client._misc_task
    if misc is not None and not misc.done():
        misc.cancel()
        await asyncio.wait([misc])
    if client._disconnected.done() and not client._disconnected.cancelled():
        client._disconnected.exception()


async def _run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` in a task of its own, so that a cancellation of ours is never lost.

    A task group of Python 3.11 forgets a cancellation that comes together with an error of one of
    its tasks, and ``asyncio.wait_for`` one that comes together with a result.
    """
    task = asyncio.create_task(work, name="on a connection")
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1.0)
        if not task.cancelled():
            task.exception()
        raise
    task.result()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
