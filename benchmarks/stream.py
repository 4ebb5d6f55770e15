"""How many readings a second get from a node to an archive that keeps nothing: MQTT alone.

    python benchmarks/stream.py [--readings 2000000] [--batch 1000] [--kind mosquitto|amqtt]

Two processes and the broker: a publisher with its batches in memory, and a subscriber that checks
each batch's checksum, counts it and acknowledges it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from labctl.model import RECORD_COLUMNS, Records
from labctl.stream import topics
from labctl.stream.batches import decode_batch, encode_samples
from labctl.stream.broker import BrokerKind, start_broker
from labctl.stream.connection import Announcement, Connection, MqttConfig, stay_connected
from labctl.stream.publisher import Publisher
from labctl.stream.topics import Ack, ArchiveState, ack_of

NODE = "bench"
SOURCE = "bench-journal"


class Batches:
    """An outbox of ``count`` batches, all of the same records under their own numbers."""

    source = SOURCE

    def __init__(self, count: int, size: int) -> None:
        rng = np.random.default_rng(1)
        columns = {
            name: rng.normal(size=size).astype(kind) for name, kind in RECORD_COLUMNS.items()
        }
        columns["seq"] = np.arange(1, size + 1)
        self.payloads = [
            encode_samples(SOURCE, number, "run", Records(**columns))
            for number in range(1, count + 1)
        ]
        self.left = count
        self._done: set[int] = set()
        self._watermark = 0
        self.drained = asyncio.Event()

    async def pending(self, after_number: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        size = 0
        number = max(after_number, self._watermark) + 1
        while number <= len(self.payloads) and size < limit_bytes:
            if number not in self._done:
                found.append((number, self.payloads[number - 1]))
                size += len(self.payloads[number - 1])
            number += 1
        return found

    async def acknowledge(self, ack: Ack) -> None:
        self._watermark = max(self._watermark, ack.watermark)
        for first, last in ack.ranges:
            self._done.update(range(first, last + 1))
        if self._watermark >= len(self.payloads):
            self.drained.set()

    async def wait_for_more(self, after_number: int) -> None:
        if after_number >= len(self.payloads):
            await asyncio.Event().wait()


async def subscriber(url: str) -> None:
    """Count and acknowledge for ever: one ack for what came within 50 ms."""
    numbers: list[int] = []
    watermark = 0

    async def serve(connection: Connection) -> None:
        nonlocal watermark
        await connection.subscribe(topics.ALL_BATCHES)
        await connection.announce()

        async def acknowledge() -> None:
            nonlocal watermark
            while True:
                await asyncio.sleep(0.05)
                if numbers:
                    ack = ack_of(SOURCE, numbers, watermark)
                    watermark = ack.watermark
                    numbers[:] = [number for number in numbers if number > watermark]
                    await connection.publish(
                        topics.ack_topic(NODE), topics.encode(ack), retain=True
                    )

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(acknowledge())
            async for message in connection.messages():
                connection.acknowledge(message)
                numbers.append(decode_batch(message.payload).number)

    announcement = Announcement(
        topics.archive_state_topic("bench"),
        lambda presence: topics.encode(
            ArchiveState(archive="bench", state=presence, unix_time_s=0.0, labctl_version="")
        ),
    )
    await stay_connected(
        MqttConfig(url=url),
        serve,
        client_id="bench-archive",
        announcement=announcement,
        receive_maximum=500,
    )


def run_subscriber(url: str) -> None:
    asyncio.run(subscriber(url))


async def measure(arguments: argparse.Namespace) -> None:
    count = arguments.readings // arguments.batch
    kind: BrokerKind = arguments.kind
    with tempfile.TemporaryDirectory() as folder:
        async with start_broker(kind, Path(folder), port=0) as broker:
            outbox = Batches(count, arguments.batch)
            context: Any = multiprocessing.get_context("spawn")
            other = context.Process(target=run_subscriber, args=(broker.url,), daemon=True)
            other.start()
            publisher = Publisher(MqttConfig(url=broker.url), NODE, outbox)
            await asyncio.sleep(2.0)
            begun_s = time.perf_counter()
            task = asyncio.create_task(publisher.run())
            await outbox.drained.wait()
            took_s = time.perf_counter() - begun_s
            task.cancel()
            await asyncio.wait([task])
            other.terminate()
            other.join()
    size = len(outbox.payloads[0])
    print(
        f"{broker.kind}: {count * arguments.batch:,} readings in {count:,} batches of "
        f"{arguments.batch:,} ({size / arguments.batch:.0f} bytes a reading): {took_s:.2f} s, "
        f"{count * arguments.batch / took_s:,.0f} readings/s, {count / took_s:,.0f} batches/s, "
        f"{publisher.batches_sent - count} sent twice"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=2_000_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--kind", choices=["mosquitto", "amqtt"], default="mosquitto")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
