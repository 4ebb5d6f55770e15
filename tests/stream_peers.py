"""The two ends of the stream, as simple as they can be: an outbox in memory, and an archive that
keeps payloads in a dictionary and acknowledges them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from labctl.stream import topics
from labctl.stream.batches import decode_batch
from labctl.stream.connection import Announcement, Connection, MqttConfig, stay_connected
from labctl.stream.parcels import open_parcel
from labctl.stream.topics import Ack, ArchiveState, ack_of


class MemoryOutbox:
    """A journal without a disk."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.batches: dict[int, bytes] = {}
        self.written = 0
        self.largest_read_bytes = 0
        self._more = asyncio.Condition()
        self._changed = asyncio.Condition()

    async def append(self, make: Callable[[int], bytes]) -> int:
        self.written += 1
        self.batches[self.written] = make(self.written)
        async with self._more:
            self._more.notify_all()
        return self.written

    async def pending(self, after_number: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        size = 0
        for number in sorted(number for number in self.batches if number > after_number):
            payload = self.batches[number]
            if found and size + len(payload) > limit_bytes:
                break
            found.append((number, payload))
            size += len(payload)
        self.largest_read_bytes = max(self.largest_read_bytes, size)
        return found

    async def acknowledge(self, ack: Ack) -> None:
        for number in [number for number in self.batches if ack.covers(number)]:
            del self.batches[number]
        async with self._changed:
            self._changed.notify_all()

    async def wait_for_more(self, after_number: int) -> None:
        async with self._more:
            await self._more.wait_for(lambda: self.written > after_number)

    async def wait_drained(self, left: int = 0) -> None:
        """Return when no more than ``left`` batches are unacknowledged."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.batches) <= left)


class KeepingArchive:
    """An archive that keeps everything in memory.

    ``acknowledges`` may be switched off and on; ``received`` counts arrivals, with repetitions.
    """

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.kept: dict[str, dict[int, bytes]] = {}
        self.received: Counter[tuple[str, int]] = Counter()
        self.acknowledges = True
        self.deaf_to: Callable[[int], bool] = lambda _number: False
        self._config = MqttConfig(url=url, timeout_s=5.0)
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        announcement = Announcement(
            topics.archive_state_topic(self.name),
            lambda presence: topics.encode(
                ArchiveState(archive=self.name, state=presence, unix_time_s=0, labctl_version="")
            ),
        )
        await stay_connected(
            self._config,
            self._serve,
            client_id=f"archive-{self.name}",
            announcement=announcement,
            receive_maximum=200,
        )

    async def wait_received(self, count: int) -> None:
        """Return when so many messages have come, with repetitions."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.received.total() >= count)

    async def _serve(self, connection: Connection) -> None:
        await connection.subscribe(topics.ALL_BATCHES)
        await connection.announce()
        async for message in connection.messages():
            connection.acknowledge(message)
            for batch in open_parcel(message.payload):
                await self._take(connection, str(message.topic), batch)

    async def _take(self, connection: Connection, topic: str, payload: bytes) -> None:
        batch = decode_batch(payload)
        self.received[batch.source, batch.number] += 1
        async with self._changed:
            self._changed.notify_all()
        if self.deaf_to(batch.number):
            return
        kept = self.kept.setdefault(batch.source, {})
        assert kept.setdefault(batch.number, payload) == payload
        if self.acknowledges:
            await connection.publish(
                topics.ack_topic(topics.node_of(topic)),
                topics.encode(ack_of(batch.source, list(kept))),
                retain=True,
            )


@contextlib.asynccontextmanager
async def running(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run them beside the block; an error in one of them breaks the block off."""
    try:
        async with asyncio.TaskGroup() as group:

            async def run(work: Callable[[], Awaitable[None]]) -> None:
                await work()

            tasks = [group.create_task(run(work)) for work in works]
            yield tasks
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
