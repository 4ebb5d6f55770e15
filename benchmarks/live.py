"""1,000 channels at 10 Hz in real time: how long from a reading to its place in the archive.

    python benchmarks/live.py [--channels 1000] [--minutes 10] [--postgresql] [--faster 2]

A node's journal and publisher, Mosquitto, and ``labctl archive run``, each in a process of its own.
Every channel is a run of its own that writes ten readings a second into the journal, once a second,
spread evenly over the second, as the engine does. The latency of a reading runs from the moment it
was read to the moment when the node hears that it is committed: waiting for the journal's next
write (half a second on average) and the way back are in it. ``--faster`` then looks for the limit:
so many times the channels, again and again, half a minute each, until p99 is above 2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from archive import RUN, created, postgresql_of_our_own
from pipeline import Spent, child_of, mosquitto_pid, program, spent

from labctl.daemon import SPACING_S
from labctl.engine.journal import Entry, Journal, open_journal
from labctl.errors import StreamError
from labctl.model import Records
from labctl.stream.broker import start_broker
from labctl.stream.connection import MqttConfig
from labctl.stream.publisher import Publisher
from labctl.stream.topics import Ack

RATE_HZ = 10
NODE = "bench"


class Seen(NamedTuple):
    """What the node saw: latencies of readings in s, and what was sent and acknowledged."""

    latencies_s: np.ndarray[Any, Any]
    readings: int
    batches: int
    waiting: int
    used: Spent


class Timed:
    """The journal as the publisher sees it, with a look at the clock at every acknowledgement."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.born_s: dict[int, float] = {}
        self.done: list[tuple[float, float]] = []
        self.watermark = 0
        self._news = asyncio.Event()

    async def all_done(self) -> None:
        """Return when everything that was written is acknowledged."""
        while self.born_s:
            self._news.clear()
            await self._news.wait()

    @property
    def source(self) -> str:
        return self.journal.source

    async def pending(self, after_number: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        return await self.journal.pending(after_number, limit_bytes)

    async def wait_for_more(self, after_number: int) -> None:
        await self.journal.wait_for_more(after_number)

    async def acknowledge(self, ack: Ack) -> None:
        now_s = time.time()
        spans = [(self.watermark + 1, ack.watermark), *ack.ranges]
        for first, last in spans:
            for number in range(first, last + 1):
                born_s = self.born_s.pop(number, None)
                if born_s is not None:
                    self.done.append((born_s, now_s))
        self.watermark = max(self.watermark, ack.watermark)
        self._news.set()
        await self.journal.acknowledge(ack)


def readings(first_seq: int, read_s: float) -> Records:
    """Ten readings of the second that ends at ``read_s``."""
    seq = np.arange(first_seq, first_seq + RATE_HZ, dtype=np.int64)
    time_s = read_s - 1.0 + np.arange(1, RATE_HZ + 1) / RATE_HZ
    one = np.ones(RATE_HZ)
    return Records(
        seq=seq, test_time_s=seq / RATE_HZ, unix_time_s=time_s, cycle=np.ones_like(seq),
        step=np.ones_like(seq), visit=np.ones_like(seq), voltage_V=3.0 + 1e-6 * seq,
        current_A=1e-3 * one, charge_Ah=1e-7 * seq, energy_Wh=3e-7 * seq,
        temperature_degC=25.0 * one,
    )  # fmt: skip


async def be_a_node(folder: Path, url: str, channels: int, seconds: float) -> Seen:
    """Write and publish for a while, then wait until all is acknowledged."""
    async with open_journal(folder / "node" / "journal.db", NODE, spacing_s=SPACING_S) as journal:
        timed = Timed(journal)
        publisher = Publisher(MqttConfig(url=url), NODE, timed)
        publishing = asyncio.create_task(publisher.run())
        numbers = iter(range(1, sys.maxsize))
        writing: set[asyncio.Task[None]] = set()
        runs = [f"{RUN}-{channel}" for channel in range(channels)]
        for run in runs:
            event = created(10, run=run)
            await_this = asyncio.create_task(journal.commit(Entry(run=run, events=(event,))))
            next(numbers)
            writing.add(await_this)
        await asyncio.gather(*writing)
        await asyncio.sleep(5.0)
        begun_s, before = time.time(), spent(os.getpid())
        for second in range(int(seconds)):
            for channel, run in enumerate(runs):
                due_s = begun_s + second + channel / channels
                if (wait_s := due_s - time.time()) > 0:
                    await asyncio.sleep(wait_s)
                timed.born_s[next(numbers)] = due_s
                entry = Entry(run=run, records=readings(second * RATE_HZ + 1, due_s))
                task = asyncio.create_task(journal.commit(entry))
                writing.add(task)
                task.add_done_callback(writing.discard)
        used = spent(os.getpid()) - before
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60.0):
                await timed.all_done()
        publishing.cancel()
        await asyncio.wait([publishing])
        done = np.array(timed.done)
        # A batch's readings were read over the second before it was written.
        ages_s = (np.arange(RATE_HZ) / RATE_HZ)[None, :]
        latencies_s = ((done[:, 1] - done[:, 0])[:, None] + ages_s).ravel()
        batches = len(timed.done)
        return Seen(latencies_s, batches * RATE_HZ, batches, len(timed.born_s), used)


def node_process(folder: str, url: str, channels: int, seconds: float, told: Connection) -> None:
    """The node, in a process of its own."""
    with contextlib.suppress(StreamError):
        told.send(asyncio.run(be_a_node(Path(folder), url, channels, seconds)))


async def measure(channels: int, seconds: float, url: str) -> float:
    """Run it, print what came of it, and give p99 in s."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        async with start_broker("mosquitto", folder, port=0) as broker:
            (folder / "labctl.toml").write_text(
                f'[node]\nname = "unused"\ndata = "data"\n[mqtt]\nurl = "{broker.url}"\n'
                f'[archive]\nurl = "{url or f"sqlite:///{folder}/archive.db"}"\nname = "bench"\n',
                encoding="utf-8",
            )
            async with program(folder, "archive", "run") as archive:
                await asyncio.sleep(5.0)
                ours, theirs = multiprocessing.Pipe()
                context: Any = multiprocessing.get_context("spawn")
                node = context.Process(
                    target=node_process, args=(name, broker.url, channels, seconds, theirs)
                )
                pids = {
                    "archive": archive.pid,
                    "archive's writer": child_of(archive.pid),
                    "mosquitto": mosquitto_pid(),
                }
                before = {name: spent(pid) for name, pid in pids.items()}
                node.start()
                seen: Seen = await asyncio.to_thread(ours.recv)
                used = {"node": seen.used} | {
                    name: spent(pid) - before[name] for name, pid in pids.items()
                }
                node.join()
    middle, most, worst = np.percentile(seen.latencies_s, (50, 99, 100))
    print(
        f"{channels} channels at {RATE_HZ} Hz for {seconds:.0f} s into "
        f"{'PostgreSQL' if url else 'SQLite'}: {seen.readings:,} readings in {seen.batches:,} "
        f"batches committed, {seen.waiting * RATE_HZ:,} not"
    )
    print(f"  from reading to committed: median {middle:.2f} s, p99 {most:.2f} s, {worst:.2f} s")
    for who, one in used.items():
        share = 100 * (one.main_s + one.others_s) / seconds
        print(f"  {who:<10} {share:4.0f} % of one core, {one.peak_MB:.0f} MB")
    return float(most) if not seen.waiting else float("inf")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--faster", type=float, default=0.0, help="look for the limit by this step")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        new_database = None
        if options.postgresql:
            new_database = stack.enter_context(postgresql_of_our_own())
            if new_database is None:
                raise SystemExit("PostgreSQL is not installed")

        def fresh_url() -> str:
            return new_database() if new_database is not None else ""

        channels, p99_s = options.channels, 0.0
        p99_s = asyncio.run(measure(channels, options.minutes * 60.0, fresh_url()))
        while options.faster > 1.0 and p99_s < 2.0:
            channels = round(channels * options.faster)
            p99_s = asyncio.run(measure(channels, 30.0, fresh_url()))


if __name__ == "__main__":
    main()
