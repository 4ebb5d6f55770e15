"""What a reading, a cycle and a question cost when the archive has grown.

    python benchmarks/growth.py [--millions 1 10 100] [--postgresql]

The archive is filled the way it is filled in a laboratory: batches of 1,000 readings with the ends
of steps and cycles between them (a cycle every 200 readings), run after run of a million readings,
each from a journal of its own. When it holds so many millions, the last of these runs say what a
reading costs (everything, per reading) and what a cycle costs (keeping its end, reckoning it,
judging it), in time of the archive's thread. Then 20 runs are asked for their last cycle and their
last hour, as pandas, by ``labctl.open``.

A hundred million readings take some 11 GB of disk and a quarter of an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from archive import BATCH, GROUP, PER_CYCLE, created, ends, postgresql_of_our_own, readings
from sqlalchemy import Engine

import labctl
from labctl.archive import ingest as ingest_module
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.stream.batches import encode_events, encode_samples

RUN_READINGS = 1_000_000
LAST_RUNS = 3


class Cost(NamedTuple):
    """Of one run of a million readings, in s of the archive's thread."""

    whole_s: float
    cycles_s: float


class Stopwatch:
    """Time spent in some functions of a module, by the clock of the thread."""

    def __init__(self, module: Any, names: tuple[str, ...]) -> None:  # noqa: ANN401
        self.spent_s = 0.0
        for name in names:
            setattr(module, name, self._timed(getattr(module, name)))

    def _timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:  # noqa: ANN401
            begun_s = time.thread_time()
            try:
                return work(*given, **named)
            finally:
                self.spent_s += time.thread_time() - begun_s

        return timed


def groups_of(number: int) -> Iterator[list[bytes]]:
    """The batches of one run, as the archive takes them together."""
    run, source = f"run-{number}", f"node-{number}"
    group = [encode_events(source, 1, run, (created(RUN_READINGS, run=run),))]
    batches = 1
    for first in range(1, RUN_READINGS + 1, BATCH):
        rows = readings(first, BATCH)
        happened = tuple(ends(rows, run=run))
        group.append(encode_samples(source, batches + 1, run, rows))
        group.append(encode_events(source, batches + 2, run, happened))
        batches += 2
        if len(group) >= 2 * GROUP:
            yield group
            group = []
    if group:
        yield group


def fill(engine: Engine, number: int, watch: Stopwatch) -> Cost:
    """Take in one run."""
    ingest = Ingest(engine)
    whole_s, before_s = 0.0, watch.spent_s
    for group in groups_of(number):
        begun_s = time.thread_time()
        ingest.commit(group)
        whole_s += time.thread_time() - begun_s
    return Cost(whole_s, watch.spent_s - before_s)


def asked(url: str, runs: list[str]) -> tuple[tuple[float, int], tuple[float, int]]:
    """The slowest answers about the last cycle and the last hour of all these runs, in s, and how
    many rows they had."""
    cycle, hour = (0.0, 0), (0.0, 0)
    with labctl.open(url) as archive:
        archive.samples(runs[0], cycle=1)  # pandas is imported by now
        for run in runs:
            begun_s = time.perf_counter()
            rows = len(archive.samples(run, cycle=-1))
            cycle = max(cycle, (time.perf_counter() - begun_s, rows))
            begun_s = time.perf_counter()
            rows = len(archive.samples(run, last_s=3600.0))
            hour = max(hour, (time.perf_counter() - begun_s, rows))
    return cycle, hour


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    watch = Stopwatch(ingest_module, ("apply_events", "fold"))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
        url = f"sqlite:///{folder}/archive.db"
        if options.postgresql:
            new_database = stack.enter_context(postgresql_of_our_own())
            if new_database is None:
                raise SystemExit("PostgreSQL is not installed")
            url = new_database()
        engine = open_engine(url)
        upgrade(engine)
        print(f"{engine.dialect.name}; the clock is the CPU time of the archive's thread")
        print("  millions   us a reading   us a cycle's summary    last cycle     last hour")
        costs: list[Cost] = []
        first: Cost | None = None
        for millions in sorted(options.millions):
            while len(costs) < max(millions, LAST_RUNS):
                costs.append(fill(engine, len(costs), watch))
            last = costs[millions - LAST_RUNS : millions] if millions >= LAST_RUNS else costs
            cost = Cost(*(statistics.median(column) for column in zip(*last, strict=True)))
            first = first or cost
            engine.dispose()
            runs = [f"run-{number}" for number in range(max(0, len(costs) - 20), len(costs))]
            (cycle_s, cycle_rows), (hour_s, hour_rows) = asked(url, runs)
            each, cycles = RUN_READINGS, RUN_READINGS / PER_CYCLE
            print(
                f"  {millions:8d}   {1e6 * cost.whole_s / each:6.2f} = "
                f"{cost.whole_s / first.whole_s:4.2f} x"
                f"   {1e6 * cost.cycles_s / cycles:8.0f} = {cost.cycles_s / first.cycles_s:4.2f} x"
                f"   {1e3 * cycle_s:5.1f} ms ({cycle_rows})   {1e3 * hour_s:5.1f} ms ({hour_rows})",
                flush=True,
            )
        engine.dispose()


if __name__ == "__main__":
    main()
