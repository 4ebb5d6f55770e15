"""Readings out of an SQLite archive into pandas, beside other ways; and files, by their memory.

    python benchmarks/reading.py [--readings N] [--repeats N] [--files] [--archive FILE]

Two million readings by default, a cycle every 200. Every way reads the same eleven columns of the
same run from the same file, in turn, each in a process of its own: the median of the repeats
counts, by the clock on the wall and by the processor's time, which tells more on a machine that
others use. The last cycle and the last hour are asked of a process that is running already. With
``--files`` the run is exported in every format, and the most memory that took is told.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from archive import readings
from sqlalchemy import text

import labctl
from labctl.archive.bulk import Block, insert_samples
from labctl.archive.database import open_engine, upgrade
from labctl.archive.exports import FORMATS
from labctl.model import RECORD_COLUMNS

RUN = "run-bench"
AT_ONCE = 200_000
ASKED = 20


def make(path: Path, count: int) -> None:
    """An archive with one run of so many readings."""
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO runs (run_number, run_id, source, committed_seq) "
                "VALUES (1, :run, 'bench', :seqs)"
            ),
            {"run": RUN, "seqs": f"1-{count}"},
        )
    for first in range(1, count + 1, AT_ONCE):
        with engine.begin() as connection:
            records = readings(first, min(AT_ONCE, count - first + 1))
            insert_samples(connection, [Block(1, records)])
    engine.dispose()


def by_labctl(path: Path) -> int:
    with labctl.open(f"sqlite:///{path}") as lab:
        return len(lab.samples(RUN))


def by_sqlite3_and_numpy(path: Path) -> int:
    import sqlite3

    names = ", ".join(f'"{name}"' for name in RECORD_COLUMNS)
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    rows = connection.execute(f"SELECT {names} FROM samples WHERE run_number = 1").fetchall()
    table = np.array(rows, dtype=np.float64)
    connection.close()
    return len(table)


def by_pandas_read_sql(path: Path) -> int:
    import sqlite3

    import pandas as pd

    names = ", ".join(f'"{name}"' for name in RECORD_COLUMNS)
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    frame = pd.read_sql_query(f"SELECT {names} FROM samples WHERE run_number = 1", connection)
    connection.close()
    return len(frame)


WAYS: dict[str, Callable[[Path], int]] = {
    "labctl.open(...).samples(run)": by_labctl,
    "sqlite3 and numpy": by_sqlite3_and_numpy,
    "pandas.read_sql": by_pandas_read_sql,
}


def measured(work: Callable[[], Any]) -> dict[str, float]:
    wall_s, processor_s = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_s": time.perf_counter() - wall_s,
        "processor_s": time.process_time() - processor_s,
        "memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_a_process(*arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def one(arguments: argparse.Namespace) -> None:
    """What :func:`in_a_process` asks for."""
    import pandas as pd

    pd.DataFrame({"imported": [1.0]}).describe()
    path: Path = arguments.archive
    if arguments.way in WAYS:
        print(json.dumps(measured(lambda: WAYS[arguments.way](path))))
        return
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        to = Path(folder) / f"run{FORMATS[arguments.way].suffix}"
        with labctl.open(f"sqlite:///{path}") as lab:
            found = measured(lambda: lab.export(RUN, to, format=arguments.way))
        print(json.dumps(found | {"file_MB": to.stat().st_size / 1e6}))


def questions(path: Path) -> dict[str, float]:
    """Milliseconds, the median of some askings."""
    asked: dict[str, Any] = {
        "the last cycle": {"cycle": -1},
        "the last hour": {"last_s": 3600.0},
        "one cycle of the middle": {"cycle": 2500},
    }
    found = {}
    with labctl.open(f"sqlite:///{path}") as lab:
        for name, choice in asked.items():
            lab.samples(RUN, **choice)
            times = [
                measured(lambda c=choice: lab.samples(RUN, **c))["wall_s"] for _ in range(ASKED)
            ]
            found[name] = 1000 * statistics.median(times)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--archive", type=Path, help="made if it is not there; kept")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        one(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.archive or Path(folder) / "archive.db"
        if not path.exists():
            make(path, arguments.readings)
        times: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(arguments.repeats):
            for way, found in times.items():
                found.append(in_a_process("--way", way, "--archive", str(path)))
        print(f"{arguments.readings:,} readings of eleven columns; median of {arguments.repeats}\n")
        print("| into memory | wall s | processor s | most memory MB |\n|---|---|---|---|")
        for way, found in times.items():
            print(_line(way, found, ("wall_s", "processor_s", "memory_MB")))
        print("\n| question | ms |\n|---|---|")
        for name, took_ms in questions(path).items():
            print(f"| {name} | {took_ms:.1f} |")
        if arguments.files:
            print("\n| file | wall s | processor s | most memory MB | file MB |")
            print("|---|---|---|---|---|")
            for way in FORMATS:
                once = [in_a_process("--way", way, "--archive", str(path))]
                print(_line(way, once, ("wall_s", "processor_s", "memory_MB", "file_MB")))


def _line(name: str, found: list[dict[str, float]], keys: tuple[str, ...]) -> str:
    medians = [statistics.median(one[key] for one in found) for key in keys]
    shown = [f"{value:.2f}" if value < 100 else f"{value:.0f}" for value in medians]
    return f"| {name} | " + " | ".join(shown) + " |"


if __name__ == "__main__":
    main()
