"""Two million readings from prepared batches to a committed archive, beside the bare driver.

    python benchmarks/archive.py [--readings N] [--postgresql postgresql://...] [--repeats N]

The bare driver writes the same rows into the same table with the same index, in transactions of the
same size and from values that were prepared before the clock started: SQLite with 100-row VALUES
and with executemany, PostgreSQL with binary COPY of packed bytes. The archive starts from encoded
batches and decodes, checks and ledgers them; once with batches of samples alone, and once with the
ends of steps and cycles between them (a cycle every 200 readings), which it keeps, reckons and
watches. Without ``--postgresql`` a server of its own is started if PostgreSQL is installed; it runs
without fsync, for both sides alike.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from sqlalchemy import Engine, text

from labctl.archive.bulk import _HEADER, _TRAILER, COLUMNS, pack_copy_rows
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.model import Records, join_records
from labctl.program import (
    ConstantCurrent,
    Limits,
    Loop,
    Program,
    RecordRule,
    RetentionAlarm,
    Step,
    encode_program,
)
from labctl.stream.batches import encode_events, encode_samples
from labctl.stream.events import CycleEnded, Event, RunCreated, StepEnded

BATCH = 1000
GROUP = 20
PER_CYCLE = 200
ARCHIVE = ("samples alone", "with steps, cycles, retention")
SOURCE, RUN = "node-bench", "run-bench"


def readings(first_seq: int, count: int) -> Records:
    """A cell at 50C: 200 readings a cycle, half of them charging."""
    seq = np.arange(first_seq, first_seq + count, dtype=np.int64)
    place = (seq - 1) % PER_CYCLE
    charging = place < PER_CYCLE // 2
    time_s = seq * 0.6
    through = np.where(charging, place + 1, PER_CYCLE - 1 - place) / (PER_CYCLE / 2)
    wobble = np.sin(seq * 12.9898) * 1e-3
    return Records(
        seq=seq,
        test_time_s=time_s,
        unix_time_s=1.75e9 + time_s,
        cycle=(seq - 1) // PER_CYCLE + 1,
        step=np.where(charging, 1, 2),
        visit=(seq - 1) // (PER_CYCLE // 2) + 1,
        voltage_V=1.5 + 2.6 * through + wobble,
        current_A=np.where(charging, 1e-2, -1e-2) * (1 + wobble),
        charge_Ah=2e-4 * through,
        energy_Wh=7e-4 * through + wobble * 1e-6,
        temperature_degC=25 + wobble,
    )


def created(count: int, run: str = RUN) -> RunCreated:
    """The run that readings are of."""
    steps = tuple(
        Step(n, label, ConstantCurrent(current_A), (), RecordRule())
        for n, (label, current_A) in enumerate([("charge", 1e-2), ("discharge", -1e-2)])
    )
    program = Program(
        name="endurance",
        recipe_sha256="ab" * 32,
        cell="HEV-1",
        body=(Loop(count // PER_CYCLE, steps, counts_cycles=True),),
        limits=Limits(1.0, 4.4, -0.02, 0.02, 1.0, 1e9),
        alarms=(RetentionAlarm(),),
    )
    return RunCreated(
        run=run, cell="HEV-1", instrument="neware-1", channel="1", recipe_name="endurance",
        recipe_text="", recipe_sha256="ab" * 32, program=encode_program(program),
        active_mass_g=0.002, one_C_mA_per_g=100.0, actor="bench", labctl_version="0",
        unix_time_s=1.75e9,
    )  # fmt: skip


def batches(count: int, *, events: bool) -> list[bytes]:
    """What the node would send: batches of 1,000 readings, and the events between them."""
    payloads = [encode_events(SOURCE, 1, RUN, (created(count),))]
    for first in range(1, count + 1, BATCH):
        rows = readings(first, min(BATCH, count - first + 1))
        payloads.append(encode_samples(SOURCE, len(payloads) + 1, RUN, rows))
        if events:
            payloads.append(encode_events(SOURCE, len(payloads) + 1, RUN, tuple(ends(rows))))
    return payloads


def ends(rows: Records, run: str = RUN) -> Iterator[Event]:
    """The ends of steps and cycles that fall into some readings."""
    for seq in rows.seq[rows.seq % (PER_CYCLE // 2) == 0].tolist():
        cycle = (seq - 1) // PER_CYCLE + 1
        charging = seq % PER_CYCLE != 0
        yield StepEnded(
            run=run, visit=seq // (PER_CYCLE // 2), step=1 if charging else 2, cycle=cycle,
            label="charge" if charging else "discharge", technique="constant_current",
            first_seq=seq - PER_CYCLE // 2 + 1, last_seq=seq, start_test_time_s=seq * 0.6 - 60,
            end_test_time_s=seq * 0.6, end_voltage_V=4.1, end_current_A=0.01,
            ended_by="voltage_V >= 4.1", charge_Ah=2e-4, discharge_Ah=0.0, charge_Wh=7e-4,
            discharge_Wh=0.0,
        )  # fmt: skip
        if not charging:
            yield CycleEnded(
                run=run, cycle=cycle, cycle_class="cycle", first_seq=seq - PER_CYCLE + 1,
                last_seq=seq, complete=True, interrupted=False,
            )  # fmt: skip


def archive_s(engine: Engine, payloads: list[bytes], count: int) -> float:
    """Seconds until all is committed."""
    ingest = Ingest(engine)
    size = round(GROUP * BATCH * len(payloads) / count)
    start_s = time.perf_counter()
    for first in range(0, len(payloads), size):
        ingest.commit(payloads[first : first + size])
    return time.perf_counter() - start_s


OTHERS = ("batches", "steps", "cycles")
"""Tables that grow with the samples."""


def other_rows(engine: Engine, count: int) -> list[list[tuple[str, Any]]]:
    """What an archive has beside its samples, for each transaction of the bare driver: statements
    with their rows, for PostgreSQL with the bytes of a binary COPY."""
    transactions = -(-count // (BATCH * GROUP))
    found: list[list[tuple[str, Any]]] = [[] for _ in range(transactions)]
    connection: Any = engine.raw_connection()
    with contextlib.closing(connection):
        cursor = connection.cursor()
        for table in OTHERS:
            [[rows]] = cursor.execute(f"SELECT count(*) FROM {table}").fetchall()
            size = -(-rows // transactions)
            for place, some in enumerate(found):
                part = f"SELECT * FROM {table} ORDER BY 1, 2 LIMIT {size} OFFSET {place * size}"
                if engine.dialect.name == "postgresql":
                    with cursor.copy(f"COPY ({part}) TO STDOUT (FORMAT BINARY)") as copy:
                        packed = b"".join(bytes(piece) for piece in copy)
                    some.append((f"COPY {table} FROM STDIN (FORMAT BINARY)", packed))
                elif values := cursor.execute(part).fetchall():
                    places = ", ".join("?" * len(values[0]))
                    some.append((f"INSERT INTO {table} VALUES ({places})", values))
    return found


def bare_sqlite_s(
    engine: Engine,
    count: int,
    rows_a_statement: int,
    others: Sequence[Sequence[tuple[str, Any]]] = (),
) -> float:
    """Seconds for the bare sqlite3 module; the values of each transaction are prepared before.

    Args:
        others: see :func:`other_rows`; without them the samples alone.
    """
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    one = f"({', '.join('?' * len(COLUMNS))})"
    statement = f"INSERT INTO samples ({names}) VALUES {', '.join([one] * rows_a_statement)}"
    _add_run(engine)
    connection: Any = engine.raw_connection()
    cursor = connection.cursor()
    spent_s = 0.0
    for place, rows in enumerate(_groups(count)):
        columns = [itertools.repeat(1), *(getattr(rows, name).tolist() for name in COLUMNS[1:])]
        flat = list(itertools.chain.from_iterable(zip(*columns, strict=False)))
        width = rows_a_statement * len(COLUMNS)
        values = [flat[at : at + width] for at in range(0, len(flat), width)]
        start_s = time.perf_counter()
        cursor.execute("BEGIN IMMEDIATE")
        cursor.executemany(statement, values)
        for other, more in others[place] if others else ():
            cursor.executemany(other, more)
        cursor.execute("COMMIT")
        spent_s += time.perf_counter() - start_s
    connection.close()
    return spent_s


def bare_postgresql_s(
    engine: Engine, count: int, others: Sequence[Sequence[tuple[str, Any]]] = ()
) -> float:
    """Seconds for psycopg's COPY of packed bytes."""
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    _add_run(engine)
    connection: Any = engine.raw_connection()
    spent_s = 0.0
    for place, rows in enumerate(_groups(count)):
        packed = _HEADER + pack_copy_rows(1, rows) + _TRAILER
        start_s = time.perf_counter()
        with connection.driver_connection.cursor() as cursor:
            with cursor.copy(f"COPY samples ({names}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(packed)
            for other, more in others[place] if others else ():
                with cursor.copy(other) as copy:
                    copy.write(more)
        connection.driver_connection.commit()
        spent_s += time.perf_counter() - start_s
    connection.close()
    return spent_s


def _add_run(engine: Engine) -> None:
    """What the rows refer to."""
    with engine.begin() as connection:
        row = {"number": 1, "run": RUN, "source": SOURCE}
        statement = "INSERT INTO runs (run_number, run_id, source) VALUES (:number, :run, :source)"
        connection.execute(text(statement), row)


def _groups(count: int) -> Iterator[Records]:
    for first in range(1, count + 1, BATCH * GROUP):
        last = min(first + BATCH * GROUP, count + 1)
        yield join_records(
            [readings(at, min(BATCH, last - at)) for at in range(first, last, BATCH)]
        )


@contextlib.contextmanager
def fresh(url: str) -> Iterator[Engine]:
    """An empty archive at ``url``."""
    engine = open_engine(url)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    else:
        for ending in ("", "-wal", "-shm"):
            Path(f"{engine.url.database}{ending}").unlink(missing_ok=True)
    upgrade(engine)
    try:
        yield engine
    finally:
        engine.dispose()


class Server(Protocol):
    """A PostgreSQL of our own."""

    def new_database(self) -> str:
        """The URL of an empty database."""
        ...

    def start(self) -> None: ...
    def stop(self) -> None: ...


@contextlib.contextmanager
def postgresql_server() -> Iterator[Server | None]:
    """A PostgreSQL started for this benchmark; None if not installed."""
    path = Path(__file__).parent.parent / "tests" / "servers.py"
    spec = importlib.util.spec_from_file_location("servers", path)
    assert spec is not None
    assert spec.loader is not None
    servers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(servers)
    if servers._postgresql_binaries() is None:
        yield None
        return
    with servers.temporary_folder() as folder:
        server: Server = servers.PostgresqlServer(folder)
        servers.PostgresqlServer.create(server)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def postgresql_of_our_own() -> Iterator[Callable[[], str] | None]:
    """Makes empty databases on such a server; None if not installed."""
    with postgresql_server() as server:
        yield None if server is None else server.new_database


def report(title: str, count: int, results: dict[str, list[float]]) -> None:
    print(f"\n{title}: {count:,} readings, transactions of {BATCH * GROUP:,}, median")
    medians_s = {name: statistics.median(seconds) for name, seconds in results.items()}
    bare = [name for name in medians_s if name not in ARCHIVE]
    for name in bare:
        print(f"  bare {name:36s} {count / medians_s[name]:10,.0f} readings/s")
    for name in ARCHIVE:
        ratios = ", ".join(f"{medians_s[one] / medians_s[name]:.0%} of {one}" for one in bare)
        print(f"  archive, {name:32s} {count / medians_s[name]:10,.0f} readings/s = {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--readings", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--postgresql", default="", help="URL of a database that may be emptied")
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    count = options.readings - options.readings % BATCH
    payloads = {name: batches(count, events=name != ARCHIVE[0]) for name in ARCHIVE}
    size_B = sum(map(len, payloads[ARCHIVE[0]]))
    print(f"{count:,} readings, {size_B / count:.0f} bytes each in their batches; {sys.version}")
    if options.only != "postgresql":
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            bare = {
                "100-row VALUES": lambda engine: bare_sqlite_s(engine, count, 100),
                "executemany": lambda engine: bare_sqlite_s(engine, count, 1),
            }
            url = f"sqlite:///{folder}/bench.db"
            report("SQLite", count, measure(url, payloads, count, bare, options.repeats))
    if options.only != "sqlite":
        with contextlib.ExitStack() as stack:
            own = options.postgresql
            if not own:
                new_database = stack.enter_context(postgresql_of_our_own())
                if new_database is None:
                    print("\nPostgreSQL is not installed")
                    return
                own = new_database()
            bare = {"binary COPY": lambda engine: bare_postgresql_s(engine, count)}
            report("PostgreSQL", count, measure(own, payloads, count, bare, options.repeats))


def measure(
    url: str,
    payloads: dict[str, list[bytes]],
    count: int,
    bare: dict[str, Callable[[Engine], float]],
    repeats: int,
) -> dict[str, list[float]]:
    """Seconds of every way, one after the other, ``repeats`` times."""
    seconds: dict[str, list[float]] = {name: [] for name in (*bare, *payloads)}
    for _ in range(repeats):
        for name, work in bare.items():
            with fresh(url) as engine:
                seconds[name].append(work(engine))
        for name, some in payloads.items():
            with fresh(url) as engine:
                seconds[name].append(archive_s(engine, some, count))
    return seconds


if __name__ == "__main__":
    main()
