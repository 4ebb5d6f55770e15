"""Killed at random: what the archive has, beside what was measured and what another client saw.

    python benchmarks/kills.py [--kills 100] [--postgresql] [--seed 1]

The quick demo, again and again, each time with random kills (SIGKILL) of daemon, archive, its
writer, broker and simulated rack while the cells are measured, with the broker frozen (SIGSTOP) for
some seconds and the database locked (SQLite) or restarted at once (PostgreSQL) between them. An
MQTT client that is no part of labctl (paho, with a session of its own) keeps every batch that it
hears. The archive must come out as that of a demo that nothing happened to, to the bit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import logging
import os
import random
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import pandas as pd
from archive import Server, postgresql_server

from labctl.archive import open_archive
from labctl.cli.services import services_of
from labctl.control import Status
from labctl.demo.bench import Wanted, set_up_bench
from labctl.demo.conduct import Heard, conduct
from labctl.demo.study import capacities
from labctl.settings import load_settings
from labctl.stream.batches import SamplesBatch, decode_batch
from labctl.stream.parcels import open_parcel
from labctl.supervisor import Supervisor, supervise

SEED = 7
STUDY = capacities(SEED)
WRITER = "archive's writer"
COUNTED = ("daemon", "archive", "broker", WRITER)
VICTIMS = (*COUNTED, "rack1")
WHAT = (*COUNTED, *COUNTED, *COUNTED, "rack1", "broker stopped", "database stopped")
KILLS_A_ROUND = 6
STOPPED_S = 4.0
COLUMNS = ("seq", "test_time_s", "cycle", "step", "voltage_V", "current_A", "charge_Ah")


class Witness:
    """Hears every batch, by a client of another make, with QoS 1 and a session that persists."""

    def __init__(self, host: str, port: int) -> None:
        self.payloads: dict[bytes, bytes] = {}
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "witness", clean_session=False)
        self._client.max_inflight_messages_set(1000)
        self._client.on_connect = lambda client, *_: client.subscribe("labctl/v1/+/batch", 1)
        self._client.on_message = self._hear
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.connect_async(host, port)
        self._client.loop_start()

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        for batch in open_parcel(message.payload):
            self.payloads[hashlib.sha256(batch).digest()] = batch

    def readings(self) -> dict[str, dict[int, tuple[float, ...]]]:
        """By run and sequence number, from every batch that was heard."""
        self._client.loop_stop()
        found: dict[str, dict[int, tuple[float, ...]]] = {}
        for payload in self.payloads.values():
            batch = decode_batch(payload)
            if isinstance(batch, SamplesBatch):
                records = batch.records()
                columns = [getattr(records, name).tolist() for name in COLUMNS]
                rows = found.setdefault(batch.run, {})
                rows |= {int(row[0]): row for row in zip(*columns, strict=True)}
        return found


@dataclass
class Trouble:
    """What is done to the processes, and when: at random counts of records."""

    random: random.Random
    marks: list[int]
    stop_database: Callable[[], asyncio.Future[None] | None]
    done: Counter[str] = field(default_factory=Counter)
    supervisor: Supervisor | None = None
    records: int = 0
    stopped: list[asyncio.Future[None]] = field(default_factory=list)
    """What comes back by itself, and has to before anything is read back."""

    def look(self, status: Status, _heard: Heard) -> None:
        """Called several times a second while the cells are measured."""
        self.records = sum(run.seq for run in status.runs)
        while self.marks and self.records >= self.marks[0]:
            what = self.random.choice(WHAT)
            if what == "database stopped":
                coming_back = self.stop_database()
                self.stopped += [] if coming_back is None else [coming_back]
            elif what == "broker stopped":
                self.stopped.append(asyncio.create_task(self._freeze("broker")))
            else:
                try:
                    os.kill(self._pid(what), signal.SIGKILL)
                except ProcessLookupError:
                    return  # it died a moment ago and is not there again: next time
            self.marks.pop(0)
            self.done[what] += 1

    async def _freeze(self, name: str) -> None:
        pid = self._pid(name)
        # The broker's own child is what speaks; the group is frozen with it.
        pids = [pid, *_children(pid)]
        for one in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
        try:
            await asyncio.sleep(STOPPED_S)
        finally:
            for one in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGCONT)

    def _pid(self, name: str) -> int:
        assert self.supervisor is not None
        if name != WRITER:
            return self.supervisor.children[name].pid
        for pid in _children(self.supervisor.children["archive"].pid):
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        raise ProcessLookupError


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, path.read_text(encoding="ascii").split())
    return found


@dataclass
class Outcome:
    """What one demo left behind."""

    samples: dict[str, pd.DataFrame]
    cycles: pd.DataFrame
    steps: dict[str, pd.DataFrame]
    problems: list[str]
    in_archive: int = 0
    doubled: int = 0
    missing: int = 0
    journalled: int = 0
    witnessed: int = 0
    not_archived: int = 0
    took_s: float = 0.0


async def one_round(folder: Path, url: str, trouble: Trouble) -> Outcome:
    """One demo with trouble."""
    began_s = time.monotonic()
    with set_up_bench(
        folder, STUDY, Wanted(quick=True, seed=SEED, broker="mosquitto", archive=url)
    ) as bench:
        settings = load_settings(bench.config)
        host, _, port = settings.mqtt.url.removeprefix("mqtt://").rpartition(":")
        witness = Witness(host, int(port))
        async with supervise(services_of(settings, bench.config), folder / "logs") as supervisor:
            trouble.supervisor = supervisor
            async with asyncio.timeout(300.0):
                await conduct(settings, STUDY, trouble.look, look_every_s=0.02)
            await asyncio.gather(*trouble.stopped)
        outcome = await asyncio.to_thread(read_back, settings.archive_url, witness, trouble.records)
    outcome.took_s = time.monotonic() - began_s
    return outcome


def read_back(url: str, witness: Witness, journalled: int) -> Outcome:
    """What the archive has, beside what the witness heard."""
    with open_archive(url) as archive:
        runs = archive.runs()
        cell_of = {str(run): str(row["cell"]) for run, row in runs.iterrows()}
        samples = {cell: archive.samples(run) for run, cell in cell_of.items()}
        steps = {cell: archive.steps(run) for run, cell in cell_of.items()}
        cycles = archive.cycles().reset_index().set_index(["cell", "cycle"]).sort_index()
        problems = [
            f"{run}: {archive.verify(run)}" for run in cell_of if not archive.verify(run).ok
        ]
    outcome = Outcome(samples, cycles.drop(columns="run_id"), steps, problems)
    outcome.journalled = journalled
    for frame in samples.values():
        seq = frame.reset_index()["seq"].to_numpy()
        outcome.in_archive += len(seq)
        outcome.doubled += len(seq) - len(np.unique(seq))
        outcome.missing += int(seq.max(initial=0)) - len(np.unique(seq))
    for run, rows in witness.readings().items():
        frame = samples[cell_of[run]].reset_index()
        archived = {
            int(row[0]): row
            for row in zip(*(frame[name].tolist() for name in COLUMNS), strict=True)
        }
        outcome.witnessed += len(rows)
        outcome.not_archived += sum(archived.get(seq) != row for seq, row in rows.items())
    return outcome


def same(one: Outcome, other: Outcome) -> bool:
    """To the bit, but for the names of runs."""
    try:
        for cell, frame in one.samples.items():
            pd.testing.assert_frame_equal(frame, other.samples[cell], check_exact=True)
            pd.testing.assert_frame_equal(one.steps[cell], other.steps[cell], check_exact=True)
        pd.testing.assert_frame_equal(one.cycles, other.cycles, check_exact=True)
    except AssertionError as error:
        print(error)
        return False
    return one.samples.keys() == other.samples.keys()


def lock_sqlite(folder: Path) -> Callable[[], None]:
    """Somebody else writes into the file for some seconds."""

    def lock() -> None:
        loop = asyncio.get_running_loop()
        connection = sqlite3.connect(folder / "archive.db", timeout=0.05, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            connection.close()
            loop.call_later(0.05, lock)  # the archive has it at this moment
        else:
            loop.call_later(STOPPED_S, connection.close)

    return lock


def restart_postgresql(server: Server) -> Callable[[], asyncio.Future[None]]:
    """The server goes down and comes back, in a thread; twice at once is one after the other."""
    one_at_a_time = threading.Lock()

    def down_and_up() -> None:
        with one_at_a_time:
            server.stop()
            time.sleep(STOPPED_S)
            server.start()

    def restart() -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(None, down_and_up)

    return restart


def measure(kills: int, seed: int, server: Server | None) -> None:
    """All rounds, and the table."""
    source = random.Random(seed)
    done: Counter[str] = Counter()
    outcomes: list[Outcome] = []
    identical = 0
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:

        def go(number: int, marks: list[int]) -> tuple[Outcome, Trouble]:
            folder = Path(name) / str(number)
            url = "sqlite:///archive.db" if server is None else server.new_database()
            stop = lock_sqlite(folder) if server is None else restart_postgresql(server)
            trouble = Trouble(source, marks, stop)
            return asyncio.run(one_round(folder, url, trouble)), trouble

        reference, quiet = go(0, [])
        print(f"undisturbed: {reference.in_archive:,} readings in {reference.took_s:.0f} s")
        while sum(done[victim] for victim in COUNTED) < kills:
            marks = sorted(source.sample(range(1, quiet.records), KILLS_A_ROUND))
            outcome, trouble = go(len(outcomes) + 1, marks)
            done += trouble.done
            outcomes.append(outcome)
            identical += same(outcome, reference)
            print(
                f"round {len(outcomes)}: {dict(trouble.done)}, {outcome.took_s:.0f} s", flush=True
            )
    print("\nkilled:  " + ", ".join(f"{victim} {done[victim]}" for victim in VICTIMS))
    print(f"stopped for {STOPPED_S:g} s: broker {done['broker stopped']}, ", end="")
    print(f"database {done['database stopped']}")
    for title, value in (
        ("readings journalled", sum(one.journalled for one in outcomes)),
        ("readings in the archive", sum(one.in_archive for one in outcomes)),
        ("  missing sequence numbers", sum(one.missing for one in outcomes)),
        ("  doubled", sum(one.doubled for one in outcomes)),
        ("readings that the other client heard", sum(one.witnessed for one in outcomes)),
        ("  of these not in the archive as heard", sum(one.not_archived for one in outcomes)),
        ("runs that `archive verify` complains of", sum(len(one.problems) for one in outcomes)),
        (f"archives equal to the undisturbed, of {len(outcomes)}", identical),
    ):
        print(f"{title:<44} {value:>10,}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    logging.getLogger("labctl").setLevel(logging.CRITICAL)
    if not options.postgresql:
        measure(options.kills, options.seed, None)
        return
    with postgresql_server() as server:
        if server is None:
            raise SystemExit("PostgreSQL is not installed")
        measure(options.kills, options.seed, server)


if __name__ == "__main__":
    main()
