"""The journal keeps what it said it kept, and all of an entry or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from paper_cycler import readings_of, three_cycles

from labctl.clock import ManualClock, settle
from labctl.engine.journal import Entry, Journal, open_journal
from labctl.engine.placement import Place, place_readings
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import RunState
from labctl.engine.walk import Walk
from labctl.errors import JournalError
from labctl.model import Cell
from labctl.stream.batches import EventsBatch, SamplesBatch, decode_batch
from labctl.stream.events import GapRecorded
from labctl.stream.topics import Ack

PROGRAM = three_cycles()
RECORDS = place_readings(Walk(PROGRAM), Place(run="r"), readings_of(PROGRAM)).records
EVENT = GapRecorded(run="r", after_seq=1, reason="test", unix_time_s=0.0)
CHARTER = Charter(
    run="r",
    cell="c",
    instrument="rack",
    channel="1",
    recipe_name="three cycles",
    recipe_text="recipe: three cycles",
    program=PROGRAM,
    active_mass_g=2e-3,
    one_C_mA_per_g=100.0,
    actor="anna",
    created_unix_s=0.0,
)


def cell(name: str) -> Cell:
    return Cell(
        name=name,
        material="HE-V",
        active_mass_g=2e-3,
        one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0,
        safe_voltage_max_V=4.5,
    )


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        yield journal


async def numbers(journal: Journal) -> list[int]:
    return [number for number, _ in await journal.pending(0, 10**9)]


async def test_readings_and_checkpoint_come_back_as_they_were_written(tmp_path: Path) -> None:
    place = Place(run="r", seq=50, voltage_V=3.4, current_A=1e-4)
    checkpoint = Checkpoint(state=RunState.RUNNING, place=place, next_index=51)
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        created = Checkpoint(state=RunState.CREATED, place=Place(run="r"))
        await journal.commit(Entry(run="r", charter=CHARTER, checkpoint=created))
        await journal.commit(Entry(run="r", records=RECORDS[:50], checkpoint=checkpoint))
        source = journal.source
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        assert journal.source == source
        assert await journal.runs() == [(CHARTER, checkpoint)]
        [(number, payload)] = await journal.pending(0, 10**9)
        batch = decode_batch(payload)
        assert isinstance(batch, SamplesBatch)
        assert (number, batch.number, batch.source, batch.run) == (1, 1, source, "r")
        assert batch.records().voltage_V.tobytes() == RECORDS[:50].voltage_V.tobytes()


async def test_batches_are_numbered_without_gaps_in_the_order_written(journal: Journal) -> None:
    await asyncio.gather(
        *(journal.commit(Entry(run="r", records=RECORDS[n : n + 1])) for n in range(20))
    )
    await journal.commit(Entry(run="r", records=RECORDS[20:25], events=(EVENT,)))
    batches = [decode_batch(payload) for _, payload in await journal.pending(0, 10**9)]
    assert [batch.number for batch in batches] == list(range(1, 23))
    assert isinstance(batches[-1], EventsBatch)
    assert batches[-1].events == (EVENT,)


async def test_what_the_archive_has_committed_is_forgotten(journal: Journal) -> None:
    for n in range(10):
        await journal.commit(Entry(run="r", records=RECORDS[n : n + 1]))
    await journal.acknowledge(Ack(source=journal.source, watermark=3, ranges=((6, 7),)))
    assert await numbers(journal) == [4, 5, 8, 9, 10]
    await journal.commit(Entry(run="r", events=(EVENT,)))
    assert (await numbers(journal))[-1] == 11


async def test_an_ack_for_another_journal_is_not_taken(journal: Journal) -> None:
    await journal.commit(Entry(run="r", events=(EVENT,)))
    await journal.acknowledge(Ack(source="lab-ffffff", watermark=100))
    assert await numbers(journal) == [1]


async def test_numbers_go_on_after_everything_was_forgotten(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await journal.commit(Entry(run="r", events=(EVENT,)))
        await journal.acknowledge(Ack(source=journal.source, watermark=1))
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await journal.commit(Entry(run="r", events=(EVENT,)))
        assert await numbers(journal) == [2]


async def test_pending_gives_no_more_bytes_than_asked_for_but_at_least_one(
    journal: Journal,
) -> None:
    for n in range(5):
        await journal.commit(Entry(run="r", records=RECORDS[n : n + 1]))
    assert [n for n, _ in await journal.pending(0, 1)] == [1]
    size = len((await journal.pending(0, 1))[0][1])
    assert [n for n, _ in await journal.pending(1, 3 * size)] == [2, 3, 4]


async def test_whoever_waits_for_more_is_woken_by_the_next_batch(journal: Journal) -> None:
    waiting = asyncio.create_task(journal.wait_for_more(0))
    await journal.commit(Entry(cell=cell("a")))
    assert not waiting.done()
    await journal.commit(Entry(run="r", events=(EVENT,)))
    await waiting


async def test_an_entry_that_cannot_be_written_is_not_kept_at_all(journal: Journal) -> None:
    await journal.commit(Entry(cell=cell("a"), command=("1", b"{}")))
    with pytest.raises(JournalError, match="UNIQUE"):
        await journal.commit(
            Entry(run="r", records=RECORDS[:5], cell=cell("b"), command=("1", b"{}"))
        )
    assert list(await journal.cells()) == ["a"]
    assert await numbers(journal) == []
    await journal.commit(Entry(run="r", records=RECORDS[:5]))
    assert await numbers(journal) == [1]


async def test_a_full_disk_is_an_error_for_the_writer_and_loses_nothing_that_was_kept(
    journal: Journal,
) -> None:
    await journal.commit(Entry(run="r", records=RECORDS[:5]))
    pages = journal._file.connection.execute("PRAGMA page_count").fetchone()[0]
    journal._file.connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(JournalError, match="full"):
        await journal.commit(Entry(run="r", records=RECORDS))
    journal._file.connection.execute("PRAGMA max_page_count = 100000")
    await journal.commit(Entry(run="r", records=RECORDS[5:9]))
    assert await numbers(journal) == [1, 2]


async def test_a_command_is_answered_again_and_not_done_again(journal: Journal) -> None:
    assert await journal.answer_to("x") is None
    await journal.commit(Entry(command=("x", b"done")))
    assert await journal.answer_to("x") == b"done"


async def test_two_daemons_cannot_have_one_journal(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db", "lab"):
        with pytest.raises(JournalError, match="another daemon"):
            async with open_journal(tmp_path / "journal.db", "lab"):
                pass


async def test_a_journal_keeps_the_name_of_its_node(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db", "lab"):
        pass
    with pytest.raises(JournalError, match="belongs to node 'lab'"):
        async with open_journal(tmp_path / "journal.db", "other"):
            pass


async def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"a letter to the editor " * 1000)
    with pytest.raises(JournalError, match="not a database"):
        async with open_journal(tmp_path / "journal.db", "lab"):
            pass


async def test_a_batch_that_the_disk_changed_is_noticed(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await journal.commit(Entry(run="r", records=RECORDS[:5]))
    with sqlite3.connect(tmp_path / "journal.db") as file:
        (payload,) = file.execute("SELECT payload FROM batches").fetchone()
        file.execute("UPDATE batches SET payload = ?", (payload[:-1] + b"\xff",))
    file.close()
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        with pytest.raises(JournalError, match="batch 1"):
            await journal.pending(0, 10**9)


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_journal import CHARTER, RECORDS
from labctl.engine.journal import Entry, open_journal
from labctl.engine.placement import Place
from labctl.engine.run import Checkpoint
from labctl.engine.states import RunState

async def main():
    async with open_journal(Path(sys.argv[1]), "lab") as journal:
        created = Checkpoint(state=RunState.CREATED, place=Place(run="r"))
        await journal.commit(Entry(run="r", charter=CHARTER, checkpoint=created))
        seq = 0
        while True:
            seq += 1
            here = Checkpoint(state=RunState.RUNNING, place=Place(run="r", seq=seq))
            await journal.commit(Entry(run="r", records=RECORDS[seq-1:seq], checkpoint=here))
            print(seq, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("kill_after", [1, 7, 40])
async def test_nothing_that_was_kept_is_lost_when_the_daemon_is_killed(
    tmp_path: Path, kill_after: int
) -> None:
    here = Path(__file__).parent
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WRITER,
        str(tmp_path / "journal.db"),
        str(here),
        str(here.parent),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    said = 0
    while said < kill_after:
        said = int(await process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    said = max([said, *(int(line) for line in (await process.stdout.read()).split())])
    await process.wait()
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        [(_, checkpoint)] = await journal.runs()
        batches = [decode_batch(payload) for _, payload in await journal.pending(0, 10**9)]
    kept = [batch.last_seq for batch in batches if isinstance(batch, SamplesBatch)]
    assert kept == list(range(1, checkpoint.place.seq + 1))
    assert len(kept) >= said


async def test_whoever_waits_when_the_journal_is_closed_is_told_and_does_not_hang(
    tmp_path: Path,
) -> None:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        begun = asyncio.create_task(journal.commit(Entry(cell=cell("a"))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = asyncio.create_task(journal.commit(Entry(cell=cell("b"))))
        await asyncio.sleep(0)
    async with asyncio.timeout(5.0):
        results = await asyncio.gather(begun, waiting, return_exceptions=True)
        with pytest.raises(JournalError, match="closed"):
            await journal.commit(Entry(cell=cell("c")))
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        kept = await journal.cells()
    assert ["a" in kept, "b" in kept] == [result is None for result in results]
    assert isinstance(results[1], JournalError)


async def test_what_comes_soon_after_another_shares_the_next_transaction(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_journal(tmp_path / "journal.db", "lab", spacing_s=0.02, clock=clock) as journal:
        written: list[int] = []
        write = journal._file.write

        def counted(entries: Sequence[Entry], last_number: int) -> int:
            written.append(len(entries))
            return write(entries, last_number)

        journal._file.write = counted  # type: ignore[method-assign]
        await journal.commit(Entry(cell=cell("a")))
        await settle()
        later = [asyncio.create_task(journal.commit(Entry(cell=cell(name)))) for name in "bcd"]
        await clock.advance(0.019)
        assert written == [1], "what comes alone is written at once"
        assert not any(task.done() for task in later)
        await clock.advance(0.001)
        await asyncio.gather(*later)
        assert written == [1, 3]
        assert set(await journal.cells()) == set("abcd")


async def test_a_caller_that_is_cancelled_takes_nobody_with_it(journal: Journal) -> None:
    tasks = [asyncio.create_task(journal.commit(Entry(cell=cell(name)))) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] is None
    assert results[2] is None
    assert {"a", "c"} <= set(await journal.cells())


async def test_an_entry_that_cannot_be_written_takes_no_other_with_it(journal: Journal) -> None:
    await journal.commit(Entry(command=("1", b"{}")))
    results = await asyncio.gather(
        journal.commit(Entry(run="r", records=RECORDS[:5])),
        journal.commit(Entry(command=("1", b"{}"))),
        journal.commit(Entry(run="r", records=RECORDS[5:7])),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), JournalError, type(None)]
    assert await numbers(journal) == [1, 2]


async def test_a_disk_that_is_full_while_trimming_stops_nothing_and_loses_nothing(
    journal: Journal,
) -> None:
    await journal.commit(Entry(run="r", records=RECORDS[:5]))
    connection = journal._file.connection
    connection.execute("PRAGMA query_only = ON")
    await journal.acknowledge(Ack(source=journal.source, watermark=1))
    assert "could not be trimmed" in journal.problem
    connection.execute("PRAGMA query_only = OFF")
    assert await numbers(journal) == [1]
    await journal.acknowledge(Ack(source=journal.source, watermark=1))
    assert journal.problem == ""
    assert await numbers(journal) == []


async def test_a_journal_that_was_restored_from_an_old_copy_deletes_nothing(
    tmp_path: Path,
) -> None:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await journal.commit(Entry(run="r", records=RECORDS[:5]))
        await journal.acknowledge(Ack(source=journal.source, watermark=7))
        assert "restored from an older copy" in journal.problem
        for n in range(5, 15):
            await journal.commit(Entry(run="r", records=RECORDS[n : n + 1]))
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await journal.acknowledge(Ack(source=journal.source, watermark=9))
        assert len(await numbers(journal)) == 11
        assert "up to 7 where this journal ended at 1" in journal.problem


async def test_a_checkpoint_that_the_disk_changed_does_not_hide_the_other_runs(
    tmp_path: Path,
) -> None:
    created = Checkpoint(state=RunState.CREATED, place=Place(run="r"))
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        for run in ("r1", "r2"):
            charter = msgspec.structs.replace(CHARTER, run=run)
            await journal.commit(Entry(run=run, charter=charter, checkpoint=created))
        await journal.commit(Entry(cell=cell("a")))
        await journal.commit(Entry(cell=cell("b")))
    with sqlite3.connect(tmp_path / "journal.db") as file:
        file.execute("UPDATE runs SET checkpoint = x'00' WHERE run = 'r1'")
        file.execute("UPDATE cells SET cell = x'0011223344' WHERE name = 'b'")
    file.close()
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        assert [charter.run for charter, _ in await journal.runs()] == ["r2"]
        assert list(await journal.cells()) == ["a"]
        assert set(journal.damaged) == {"r1", "cell b"}
        assert "damaged" in journal.damaged["r1"]


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(JournalError, match="data"):
        async with open_journal(tmp_path / "data" / "journal.db", "lab"):
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("a disk can only be mounted by root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Somebody else's file, as large as can be."""
    path = disk / "film"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


async def test_a_full_disk_does_not_hinder_what_runs_while_the_reserve_lasts(
    small_disk: Path,
) -> None:
    async with open_journal(small_disk / "journal.db", "lab", reserve_B=400_000) as journal:
        await journal.commit(Entry(run="r", records=RECORDS[:5]))
        assert not journal.disk_is_full
        film = fill(small_disk)
        for first in range(5, 15):
            await journal.commit(Entry(run="r", records=RECORDS[first : first + 1]))
        assert journal.disk_is_full
        await journal.acknowledge(Ack(source=journal.source, watermark=3))
        assert journal.problem == ""
        assert await numbers(journal) == list(range(4, 12))
        assert journal.disk_is_full
        film.unlink()
        await journal.acknowledge(Ack(source=journal.source, watermark=4))
        assert not journal.disk_is_full
        assert (small_disk / "journal.db.reserve").stat().st_size == 400_000


async def test_a_disk_that_stays_full_is_an_error_when_the_reserve_is_used_up(
    small_disk: Path,
) -> None:
    kept = 0
    async with open_journal(small_disk / "journal.db", "lab", reserve_B=200_000) as journal:
        fill(small_disk)
        said = ""
        while not said:
            try:
                await journal.commit(Entry(run="r", records=RECORDS))
            except JournalError as error:
                said = str(error)
            else:
                kept += 1
        assert "full" in said
    async with open_journal(small_disk / "journal.db", "lab") as journal:
        assert await numbers(journal) == list(range(1, kept + 1))
    assert kept > 0
