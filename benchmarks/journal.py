"""What a node's journal writes to its disk: bytes and transactions a second, in real time.

    python benchmarks/journal.py [--channels 64 256 1000] [--seconds 10]

Every channel writes ten readings once a second, spread evenly over the second, as the engine does:
once with a transaction as soon as the one before is over, and once with those that the daemon
spaces apart. A solid-state disk of 500 GB is made for some 300 TB.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from archive import created
from live import readings

from labctl.daemon import SPACING_S
from labctl.engine.journal import Entry, Journal, open_journal
from labctl.engine.journal_file import JournalFile

RATE_HZ = 10
S_A_YEAR = 365 * 86400


def written_B() -> int:
    """Bytes that this process has given to disks."""
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(": ")
        if name == "write_bytes":
            return int(value)
    raise SystemExit("the system does not count what a process writes")


async def write_for(journal: Journal, channels: int, seconds: int) -> None:
    """What the daemon's runs would write."""
    runs = [f"run-{channel}" for channel in range(channels)]
    begun_s = time.monotonic()
    writing: set[asyncio.Task[None]] = set()
    for second in range(seconds):
        for channel, run in enumerate(runs):
            due_s = begun_s + second + channel / channels
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            entry = Entry(run=run, records=readings(second * RATE_HZ + 1, time.time()))
            task = asyncio.create_task(journal.commit(entry))
            writing.add(task)
            task.add_done_callback(writing.discard)
    await asyncio.gather(*writing)


async def measure(channels: int, seconds: int, spacing_s: float) -> None:
    transactions = 0
    write = JournalFile.write

    def counted(file: JournalFile, entries: list[Entry], number: int) -> int:
        nonlocal transactions
        transactions += 1
        return write(file, entries, number)

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "journal.db"
        async with open_journal(path, "bench", spacing_s=spacing_s) as journal:
            await journal.commit(Entry(run="run-0", events=(created(10),)))
            JournalFile.write = counted  # type: ignore[method-assign]
            before_B, before_s = written_B(), time.process_time()
            await write_for(journal, channels, seconds)
            rate_B = (written_B() - before_B) / seconds
            share = (time.process_time() - before_s) / seconds
            JournalFile.write = write  # type: ignore[method-assign]
    print(
        f"  {channels:8} {1000 * spacing_s:7.0f} ms {transactions / seconds:10.0f} "
        f"{rate_B / 1e6:8.2f} MB {rate_B * S_A_YEAR / 1e12:8.0f} TB {share:8.0%}"
    )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 256, 1000])
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    print("  channels    spacing  transactions  written/s  a year   of one core")
    for channels in options.channels:
        for spacing_s in (0.0, SPACING_S):
            asyncio.run(measure(channels, options.seconds, spacing_s))


if __name__ == "__main__":
    main()
