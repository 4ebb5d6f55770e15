"""Two million readings from the journal of a node to a committed archive, over Mosquitto.

    python benchmarks/pipeline.py [--readings N] [--repeats N] [--only sqlite|postgresql]

The processes are those of a laboratory: ``labctl daemon`` on a journal that is full of batches,
Mosquitto, ``labctl archive run``. The clock starts when the daemon says that it is online and stops
when it has been told that everything is committed. Between the readings lie the ends of steps and
cycles (a cycle every 200 readings), which the archive keeps, reckons and watches.

Beside it, in the same run, the bare driver writes the same rows into the same tables with the same
indices, as they stand in the archive in the end: samples, and what there is of batches, steps and
cycles. SQLite takes samples with 100-row VALUES and the others with executemany, PostgreSQL all
with binary COPY; values and bytes are made ready before its clock starts. Printed are the ratio,
the CPU time and the peak memory of every process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import aiomqtt
from archive import (
    BATCH,
    OTHERS,
    RUN,
    bare_postgresql_s,
    bare_sqlite_s,
    created,
    ends,
    fresh,
    other_rows,
    postgresql_of_our_own,
    readings,
)
from sqlalchemy import Engine, text

from labctl.archive.database import open_engine
from labctl.engine.journal import Entry, open_journal
from labctl.stream import topics
from labctl.stream.broker import start_broker
from labctl.stream.topics import Ack

OtherRows: TypeAlias = Sequence[Sequence[tuple[str, Any]]]
NODE = "bench"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


async def fill_journal(path: Path, count: int) -> int:
    """A journal that nothing has been fetched from; gives the number of its last batch."""
    async with open_journal(path, NODE) as journal:
        await journal.commit(Entry(run=RUN, events=(created(count),)))
        entries = []
        for first in range(1, count + 1, BATCH):
            rows = readings(first, min(BATCH, count - first + 1))
            entries.append(Entry(run=RUN, records=rows, events=tuple(ends(rows))))
        for at in range(0, len(entries), 50):
            await asyncio.gather(*(journal.commit(entry) for entry in entries[at : at + 50]))
        return 1 + 2 * len(entries)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process has used: CPU time of its main thread and of the others, peak memory."""

    main_s: float
    others_s: float
    peak_MB: float

    def __sub__(self, before: Spent) -> Spent:
        return Spent(self.main_s - before.main_s, self.others_s - before.others_s, self.peak_MB)


def spent(pid: int) -> Spent:
    """Of a process that runs."""
    whole_s = _cpu_s(Path(f"/proc/{pid}/stat"))
    main_s = _cpu_s(Path(f"/proc/{pid}/task/{pid}/stat"))
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    [peak_kB] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return Spent(main_s, whole_s - main_s, int(peak_kB) / 1000)


def _cpu_s(stat: Path) -> float:
    after_name = stat.read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / TICKS_PER_S


@contextlib.asynccontextmanager
async def program(folder: Path, *words: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A ``labctl`` command that runs meanwhile."""
    with (folder / f"{words[0]}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [sys.executable, "-m", "labctl", *words, "-c", str(folder / "labctl.toml")],
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait)


async def pipeline_s(
    journal: Path, last_batch: int, count: int, url: str
) -> tuple[float, dict[str, Spent], OtherRows]:
    """Seconds from the daemon's first word to the last acknowledgement, who used what, and what is
    in the archive beside the samples."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        (folder / "data").mkdir()
        shutil.copy(journal, folder / "data" / "journal.db")
        async with start_broker("mosquitto", folder, port=0) as broker:
            (folder / "labctl.toml").write_text(
                f'[node]\nname = "{NODE}"\ndata = "data"\n[mqtt]\nurl = "{broker.url}"\n'
                f'[archive]\nurl = "{url or f"sqlite:///{folder}/archive.db"}"\nname = "bench"\n',
                encoding="utf-8",
            )
            host, _, port = broker.url.removeprefix("mqtt://").rpartition(":")
            async with aiomqtt.Client(host, int(port), identifier="watch") as watch:
                for topic in (topics.ack_topic(NODE), topics.node_state_topic(NODE)):
                    await watch.subscribe(topic)
                await watch.subscribe(topics.archive_state_topic("bench"))
                messages = aiter(watch.messages)
                async with program(folder, "archive", "run") as archive:
                    await _word_from(messages, topics.archive_state_topic("bench"))
                    async with program(folder, "daemon") as daemon:
                        await _word_from(messages, topics.node_state_topic(NODE))
                        pids = {
                            "daemon": daemon.pid,
                            "archive": archive.pid,
                            "archive's writer": child_of(archive.pid),
                            "mosquitto": mosquitto_pid(),
                        }
                        before = {name: spent(pid) for name, pid in pids.items()}
                        begun_s = time.perf_counter()
                        while True:
                            said = await _word_from(messages, topics.ack_topic(NODE))
                            if topics.decode(said, Ack).watermark >= last_batch:
                                break
                        took_s = time.perf_counter() - begun_s
                        used = {name: spent(pid) - before[name] for name, pid in pids.items()}
        others = look_into(url or f"sqlite:///{folder}/archive.db", count)
    return took_s, used, others


async def _word_from(messages: AsyncIterator[aiomqtt.Message], topic: str) -> bytes:
    async with asyncio.timeout(600.0):
        async for message in messages:
            if str(message.topic) == topic:
                return bytes(message.payload)
    raise SystemExit("the broker has gone")


def mosquitto_pid() -> int:
    """The broker that this process started."""
    for pid in _children(os.getpid()):
        if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == "mosquitto":
            return pid
    raise SystemExit("Mosquitto is not there")


def child_of(parent: int) -> int:
    """The process that the archive's one starts, and no helper of Python's."""
    for pid in _children(parent):
        if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8"):
            return pid
    raise SystemExit("the archive has no process that writes")


def _children(parent: int) -> Iterator[int]:
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        yield from map(int, children.read_text(encoding="ascii").split())


def look_into(url: str, count: int) -> OtherRows:
    """Everything is there, each reading once; gives the rows that are not readings."""
    engine = open_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*), count(DISTINCT seq) FROM samples"))
        if tuple(found.one()) != (count, count):
            raise SystemExit(f"of {count} readings the archive has {tuple(found.one())}")
    others = other_rows(engine, count)
    empty(engine)
    engine.dispose()
    return others


def empty(engine: Engine) -> None:
    """Leave nothing behind that a server would tidy up while another is measured."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text(f"TRUNCATE samples, {', '.join(OTHERS)}"))


def settle(url: str) -> None:
    """Let what was written before come to rest."""
    engine = open_engine(url)
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            connection.execute(text("CHECKPOINT"))
    engine.dispose()
    os.sync()


def compare(
    title: str,
    journal: Path,
    last_batch: int,
    count: int,
    repeats: int,
    urls: Iterator[str],
    bare: Callable[[Engine, int, OtherRows], float],
    bare_url: str,
) -> None:
    """All ways, one after the other, and what came of it."""
    whole_s: list[float] = []
    bare_s: list[float] = []
    used: list[dict[str, Spent]] = []
    for _ in range(repeats):
        settle(bare_url)
        took_s, by, others = asyncio.run(pipeline_s(journal, last_batch, count, next(urls)))
        whole_s.append(took_s)
        used.append(by)
        settle(bare_url)
        with fresh(bare_url) as engine:
            bare_s.append(bare(engine, count, others))
            empty(engine)
    ratios = [b / w for b, w in zip(bare_s, whole_s, strict=True)]
    middle = ratios.index(statistics.median_low(ratios))
    print(f"\n{title}: {count:,} readings, {repeats} times; figures of the median ratio")
    print(f"  bare driver, the same rows     {count / bare_s[middle]:10,.0f} readings/s")
    print(f"  from journal to archive        {count / whole_s[middle]:10,.0f} readings/s")
    print(f"  ratio                          {ratios[middle]:10.0%}   ({_spread(ratios)})")
    print(f"  {whole_s[middle]:.1f} s, in which:       CPU main thread    others    peak memory")
    for name, one in used[middle].items():
        print(f"    {name:<22} {one.main_s:14.1f} s {one.others_s:7.1f} s {one.peak_MB:10.0f} MB")
    total_MB = sum(one.peak_MB for one in used[middle].values())
    print(f"    {'all':<22} {'':14}   {'':7}   {total_MB:10.0f} MB")


def _spread(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.0%}" for ratio in ratios)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--readings", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    count = options.readings - options.readings % BATCH
    print(f"{count:,} readings, the daemon, the archive and Mosquitto, {os.cpu_count()} cores")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
        journal = folder / "journal.db"
        last_batch = asyncio.run(fill_journal(journal, count))
        if options.only != "postgresql":
            compare(
                "SQLite, beside 100-row VALUES", journal, last_batch, count, options.repeats,
                iter([""] * options.repeats),
                lambda engine, count, others: bare_sqlite_s(engine, count, 100, others),
                f"sqlite:///{folder}/bare.db",
            )  # fmt: skip
        if options.only != "sqlite":
            new_database = stack.enter_context(postgresql_of_our_own())
            if new_database is None:
                print("\nPostgreSQL is not installed")
                return
            compare(
                "PostgreSQL, beside binary COPY", journal, last_batch, count, options.repeats,
                iter([new_database() for _ in range(options.repeats)]),
                bare_postgresql_s, new_database(),
            )  # fmt: skip


if __name__ == "__main__":
    main()
