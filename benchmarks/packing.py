"""A run packed into Parquet beside the same run in SQLite: bytes a reading, and times.

    python benchmarks/packing.py [--readings N] [--repeats N]

A million readings by default, a cycle every 200. Their voltages, currents and temperatures are
noise to the last digit, as no instrument's are: real ones take less room in Parquet. SQLite is
measured with its index; the times are medians of the repeats, of files that the system has read
before.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from archive import BATCH, PER_CYCLE, RUN, SOURCE, archive_s, batches

import labctl
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.packing import Packing
from labctl.stream.batches import encode_events
from labctl.stream.events import RunEnded


def median_s(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times)


def reads(url: str, repeats: int) -> dict[str, float]:
    with labctl.open(url) as lab:
        return {
            "all, into pandas": median_s(lambda: lab.samples(RUN), repeats),
            "two columns": median_s(
                lambda: lab.samples(RUN, columns=["test_time_s", "voltage_V"]), repeats
            ),
            "the last cycle": median_s(lambda: lab.samples(RUN, cycle=-1), 5 * repeats),
            "a cycle of the middle": median_s(lambda: lab.samples(RUN, cycle=1000), 5 * repeats),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    count = given.readings - given.readings % BATCH
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder) / "archive.db", count, given.repeats)


def measure(path: Path, count: int, repeats: int) -> None:
    url = f"sqlite:///{path}"
    engine = open_engine(url)
    upgrade(engine)
    made = batches(count, events=True)
    ended = RunEnded(run=RUN, outcome="completed", reason="", last_seq=count, unix_time_s=1.76e9)
    archive_s(engine, made, count)
    Ingest(engine).commit([encode_events(SOURCE, len(made) + 1, RUN, (ended,))])
    engine.dispose()
    whole_B = path.stat().st_size
    in_sqlite = reads(url, repeats)
    moments = [("", time.perf_counter())]
    with Packing(
        url, actor="bench", at=lambda name: moments.append((name, time.perf_counter()))
    ) as at_work:
        at_work.pack(RUN)
        at_work.vacuum()
        ended_s = time.perf_counter()
    names = [name for name, _ in moments]
    times = dict(moments)
    slices = [when for name, when in moments if name in ("noted", "taken out")]
    left_B = path.stat().st_size
    [file] = Path(f"{path}.packed").glob("*.parquet")
    size_B = file.stat().st_size
    packed = reads(url, repeats)
    unpacked_s = median_s(lambda: unpack(url), 1)
    print(f"{count} readings, {count // PER_CYCLE} cycles")
    print(f"SQLite   {(whole_B - left_B) / count:6.1f} bytes a reading, {whole_B / 1e6:.1f} MB")
    print(f"packed   {size_B / count:6.1f} bytes a reading, {size_B / 1e6:.1f} MB")
    print(f"what stays in the archive     {left_B / 1e6:6.1f} MB")
    print(f"written                       {times['named'] - moments[0][1]:6.1f} s")
    print(f"read back, compared, verified {times['noted'] - times['named']:6.1f} s")
    print(f"rows deleted                  {times['packed'] - times['noted']:6.1f} s, "
          f"{names.count('taken out')} slices")  # fmt: skip
    longest_s = max(after - before for before, after in itertools.pairwise(slices))
    print(f"a slice and its pause         {longest_s:6.2f} s at most")
    print(f"vacuumed                      {ended_s - times['packed']:6.1f} s")
    print(f"unpacked                      {unpacked_s:6.1f} s")
    print(f"{'read into pandas':24}{'SQLite':>12}{'packed':>12}")
    for name, took_s in in_sqlite.items():
        print(f"{name:24}{1000 * took_s:9.1f} ms{1000 * packed[name]:9.1f} ms")


def unpack(url: str) -> None:
    with Packing(url, actor="bench") as at_work:
        at_work.unpack(RUN)


if __name__ == "__main__":
    main()
