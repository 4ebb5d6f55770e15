"""The publisher: brings every batch of the journal to the archive, however often things break.

The journal is the guarantee and MQTT the transport: a broker's acknowledgement means nothing, only
the archive's :class:`~labctl.stream.topics.Ack` does. At least once on the wire; the archive drops
what it has. Live values for people go out beside the batches and may be lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import aiomqtt

import labctl
from labctl.clock import Clock, RealClock, first_of
from labctl.errors import LabctlError, StreamError
from labctl.stream import topics
from labctl.stream.connection import (
    IN_FLIGHT,
    Announcement,
    Connection,
    ConnectionStatus,
    MqttConfig,
    stay_connected,
)
from labctl.stream.outbox import Outbox
from labctl.stream.parcels import fits, pack_parcel
from labctl.stream.topics import Ack, ArchiveState, NodeState, Presence, Signal
from labctl.stream.window import Window, WindowLimits

OnSignal = Callable[[str, Signal], Awaitable[None]]
"""Takes a signal's name and what came with it; raises nothing."""

READ_B = 1024 * 1024
LIVE_INTERVAL_S = 0.25
MOST_LIVE_TOPICS = 4096

log = logging.getLogger("labctl.stream")


class Publisher:
    """Drains one outbox for as long as :meth:`run` runs.

    Args:
        node: the name of this node in topics.
        limits: how much may be on its way to the archive and when to send it again.
        on_signal: told of every signal that comes for the runs of this node.

    Raises:
        StreamError: the node's name cannot stand in a topic.
    """

    def __init__(
        self,
        config: MqttConfig,
        node: str,
        outbox: Outbox,
        *,
        clock: Clock | None = None,
        limits: WindowLimits | None = None,
        on_signal: OnSignal | None = None,
    ) -> None:
        self._on_signal = on_signal
        self.status = ConnectionStatus()
        self._config = config
        self._node = node
        self._outbox = outbox
        self._clock = clock or RealClock()
        self._window = Window(limits)
        self._wake = asyncio.Event()
        self._batch_topic = topics.batch_topic(node)
        self._ack_topic = topics.ack_topic(node)
        self._live: dict[str, tuple[bytes, bool]] = {}
        self._live_wake = asyncio.Event()
        self._batches_sent = 0
        self._batches_acknowledged = 0

    @property
    def batches_sent(self) -> int:
        """Batches given to the broker since the start, with repetitions."""
        return self._batches_sent

    @property
    def batches_acknowledged(self) -> int:
        """Batches that an archive said it has, of those sent since the start."""
        return self._batches_acknowledged

    @property
    def on_their_way(self) -> int:
        """Batches sent and not acknowledged yet."""
        return len(self._window)

    @property
    def archive_is_silent(self) -> bool:
        """Whether nothing has been acknowledged for a while though batches are on their way."""
        return self._window.silent

    async def run(self) -> None:
        """Publish until cancelled.

        Raises:
            JournalError: the outbox cannot be read.
            ConfigError: the password or the certificates cannot be read.
        """
        announcement = Announcement(
            topics.node_state_topic(self._node), self._state, self._farewell
        )
        try:
            await stay_connected(
                self._config,
                self._serve,
                client_id=f"labctl-node-{self._node}",
                clock=self._clock,
                announcement=announcement,
                status=self.status,
            )
        except BaseExceptionGroup as group:
            ours = group.subgroup(LabctlError)
            if ours is None:
                raise
            error: BaseException = ours
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from group

    def publish_live(self, topic: str, payload: bytes, retain: bool = True) -> None:
        """Say something to people, now or never: returns at once and loses it when it cannot.

        Of several messages on one topic within a quarter of a second the last one is sent.
        """
        self._live.pop(topic, None)
        if len(self._live) >= MOST_LIVE_TOPICS:
            del self._live[next(iter(self._live))]
        self._live[topic] = (payload, retain)
        self._live_wake.set()

    async def _serve(self, connection: Connection) -> None:
        await connection.subscribe(self._ack_topic, topics.ALL_ARCHIVE_STATES)
        if self._on_signal is not None:
            try:
                await connection.subscribe(topics.all_signals(self._node))
            except aiomqtt.MqttError as error:
                log.warning("no signals are taken from MQTT: %s", error)
        await connection.announce()
        self._window.rewind(self._clock.monotonic_s())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(connection), name="acks")
            tasks.create_task(self._send(connection, tasks), name="batches")
            tasks.create_task(self._watch(), name="silence")
            tasks.create_task(self._send_live(connection), name="live values")

    async def _send(self, connection: Connection, tasks: asyncio.TaskGroup) -> None:
        """Several publishes are on their way at once: awaiting each would wait for the network."""
        slots = asyncio.Semaphore(IN_FLIGHT)
        window = self._window
        while True:
            self._wake.clear()
            if not window.has_room:
                await self._wake.wait()
                continue
            epoch, after = window.epoch, window.read_after
            batches = await self._outbox.pending(after, READ_B)
            if window.epoch != epoch:
                continue
            wanted = window.wanted(batches)
            if not batches and window.read_after == after:
                await first_of(self._wake.wait(), self._outbox.wait_for_more(after))
                continue
            left = deque(wanted)
            while left:
                await slots.acquire()
                if window.epoch != epoch or not window.has_room:
                    slots.release()
                    break
                message = pack_parcel(self._next_parcel(left))
                tasks.create_task(self._publish(connection, message, slots))

    def _next_parcel(self, left: deque[tuple[int, bytes]]) -> list[bytes]:
        """Batches that go out together now; at least one."""
        parcel: list[bytes] = []
        size_b = 0
        while left and self._window.has_room and (not parcel or fits(size_b, left[0][1])):
            number, payload = left.popleft()
            self._window.sent(number, len(payload), self._clock.monotonic_s())
            parcel.append(payload)
            size_b += len(payload)
        self._batches_sent += len(parcel)
        return parcel

    async def _publish(
        self, connection: Connection, payload: bytes, slots: asyncio.Semaphore
    ) -> None:
        try:
            await connection.publish(self._batch_topic, payload)
        finally:
            slots.release()

    async def _listen(self, connection: Connection) -> None:
        async for message in connection.messages():
            topic = str(message.topic)
            payload = message.payload
            try:
                if topic == self._ack_topic:
                    await self._take_ack(topics.decode(payload, Ack))
                elif topics.is_archive_state(topic) and not message.retain:
                    self._greet(topics.decode(payload, ArchiveState))
                elif topics.is_signal(self._node, topic) and not message.retain:
                    await self._hear(topics.signal_of(topic), _bytes(payload))
            except StreamError as error:
                log.warning("a message on %s is passed over: %s", topic, error)

    async def _hear(self, name: str, payload: bytes) -> None:
        if self._on_signal is not None:
            await self._on_signal(name, topics.decode_signal(payload))

    async def _take_ack(self, ack: Ack) -> None:
        if ack.source != self._outbox.source:
            return
        await self._outbox.acknowledge(ack)
        was_silent = self._window.silent
        news = self._window.acknowledge(ack, self._clock.monotonic_s())
        self._batches_acknowledged += news
        if was_silent and not self._window.silent:
            log.info("the archive acknowledges again")
        self._wake.set()

    def _greet(self, archive: ArchiveState) -> None:
        if archive.state == "online":
            log.info("archive %s is here", archive.archive)
            self._window.rewind(self._clock.monotonic_s())
            self._wake.set()

    async def _watch(self) -> None:
        window = self._window
        while True:
            await self._clock.sleep(window.limits.silence_s / 10)
            was_silent = window.silent
            if window.tick(self._clock.monotonic_s()):
                self._wake.set()
            if window.silent and not was_silent:
                log.warning(
                    "no archive has acknowledged anything for %.0f s; %d batches are on their way; "
                    "the journal keeps everything. Check that 'labctl archive' runs with the same "
                    "broker, and that the broker's access rules let it read %s and write %s",
                    window.limits.silence_s,
                    len(window) + 1,
                    self._batch_topic,
                    self._ack_topic,
                )

    async def _send_live(self, connection: Connection) -> None:
        while True:
            await self._live_wake.wait()
            self._live_wake.clear()
            live, self._live = self._live, {}
            for topic, (payload, retain) in live.items():
                await connection.publish(topic, payload, qos=0, retain=retain)
            await self._clock.sleep(LIVE_INTERVAL_S)

    def _farewell(self) -> bytes:
        return self._state("offline", orderly=True)

    def _state(self, presence: Presence, *, orderly: bool = False) -> bytes:
        return topics.encode(
            NodeState(
                node=self._node,
                state=presence,
                source=self._outbox.source,
                unix_time_s=self._clock.unix_time_s(),
                labctl_version=labctl.__version__,
                orderly=orderly,
            )
        )


def _bytes(payload: object) -> bytes:
    return payload if isinstance(payload, bytes) else str(payload).encode()
