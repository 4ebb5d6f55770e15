"""Old runs packed into files: read as before to the bit, whatever dies on the way."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from packed_shelf import QUESTIONS, RUN, SAMPLES, SET_ASIDE, Shelf, more_of_it, on_sqlite, same
from sqlalchemy import text

import labctl
from labctl.archive.database import open_engine
from labctl.archive.ingest import Ingest
from labctl.archive.packing import Done
from labctl.archive.packing_notes import note_of
from labctl.archive.reading import Wanted, in_order, read_table
from labctl.errors import ArchiveError


def everything(shelf: Shelf, folder: Path) -> dict[str, Any]:
    """Whatever a program can ask of the samples of both runs."""
    found: dict[str, Any] = {}
    with labctl.open(shelf.url) as lab:
        for run, (name, choice) in itertools.product((RUN, "run-3"), QUESTIONS.items()):
            found[f"{run} {name}"] = lab.samples(run, **choice)
            parts = list(lab.iter_samples(run, rows=17, **choice))
            found[f"{run} {name} in parts"] = [len(part) for part in parts]
            found[f"{run} {name} joined"] = pd.concat(parts) if parts else None
        found["points"] = lab.samples(RUN, points=20)
        found["batches"] = [batch.to_pylist() for batch in lab.iter_arrow("run-3", rows=7)]
        for run in (RUN, "run-3"):
            found[f"{run} markers"] = lab.markers(run)
            found[f"{run} verify"] = str(lab.verify(run))
            for ending in ("csv", "bdf.csv", "parquet"):
                [path] = lab.export(run, folder / f"{run}.{ending}")
                found[f"{run} {ending}"] = path.read_bytes()
    return found


def test_a_packed_run_answers_every_question_as_before(shelf: Shelf, tmp_path: Path) -> None:
    before = everything(shelf, tmp_path)
    assert len(before["run-1 the last hour"]) > 0
    assert "complete and consistent" in before["run-3 verify"]
    shelf.pack()
    shelf.pack("run-3")
    assert (shelf.rows(), shelf.rows("run-3")) == (0, 0)
    same(everything(shelf, tmp_path), before)


def test_unpacking_gives_the_archive_back_as_it_was(shelf: Shelf, lab: Any) -> None:
    before = lab.dump(shelf.engine)
    shelf.pack()
    assert lab.dump(shelf.engine) != before
    with shelf.packing() as at_work:
        assert at_work.unpack(RUN) == Done(RUN, "100 samples are in the table again")
    assert lab.dump(shelf.engine) == before
    assert shelf.files() == set()
    with shelf.packing() as at_work, pytest.raises(ArchiveError, match="is not packed"):
        at_work.unpack(RUN)


def test_a_run_with_samples_in_quarantine_is_packed_and_they_stay_there(
    shelf_set_aside: Shelf, tmp_path: Path, lab: Any
) -> None:
    shelf = shelf_set_aside
    archive, before = lab.dump(shelf.engine), everything(shelf, tmp_path)
    assert "samples 1, 47, 100 are in quarantine" in before["run-1 verify"]

    left = []

    def look(name: str) -> None:
        if name == "taken out":
            left.append(shelf.rows())
            same(everything(shelf, tmp_path), before)

    with shelf.packing(at=look) as at_work:
        assert at_work.pack(RUN).what.startswith("97 samples packed into")
    assert left == ([57, 17, 0] if shelf.url.startswith("sqlite") else [0])
    same(everything(shelf, tmp_path), before)
    with shelf.packing() as at_work:
        assert at_work.unpack(RUN) == Done(RUN, "97 samples are in the table again")
    assert lab.dump(shelf.engine) == archive


@on_sqlite
def test_what_comes_late_to_a_packed_run_stands_behind_a_last_sample_in_quarantine(
    shelf_set_aside: Shelf,
) -> None:
    shelf_set_aside.pack()
    Ingest(shelf_set_aside.engine).commit(more_of_it(shelf_set_aside))
    with labctl.open(shelf_set_aside.url) as archive:
        seq = archive.samples(RUN).index.to_list()
    assert seq == [n for n in range(1, SAMPLES + 11) if n not in SET_ASIDE]


@on_sqlite
def test_an_unpacking_that_does_not_get_all_back_leaves_the_run_packed(shelf: Shelf) -> None:
    shelf.pack()

    def lose_one(name: str) -> None:
        if name == "put back":
            with shelf.engine.begin() as connection:
                connection.execute(text("DELETE FROM samples WHERE run_number = 1 AND seq = 7"))

    with shelf.packing(at=lose_one) as at_work:
        with pytest.raises(ArchiveError, match="99 of 100 samples of run run-1 came back"):
            at_work.unpack(RUN)
    with shelf.packing():
        assert (shelf.state(), shelf.rows(), len(shelf.files())) == ("packed", 0, 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from labctl.archive import packing, packing_files, packing_steps
import labctl.archive.exports.common, pyarrow.parquet
packing_files.ROWS_AT_LEAST, packing_files.ROWS_AT_MOST = 25, 60
packing.ROWS_AT_ONCE, packing_steps.SLICE_ROWS = 60, 40
for line in sys.stdin:
    what, url, folder, moment = line.split()
    child = os.fork()
    if not child:
        left = int(moment)
        def at(name):
            global left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        with packing.Packing(url, actor="mia", folder=Path(folder), pause=lambda _: None,
                             at=at) as at_work:
            getattr(at_work, what)("run-1")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killer() -> Iterator[subprocess.Popen[str]]:
    """A process whose children pack and unpack."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


@pytest.fixture
def killed(shelf: Shelf, killer: subprocess.Popen[str]) -> Callable[[str, int], bool]:
    """Packs or unpacks in a process that is killed at so many changes on the disk; whether it
    was."""

    def tried(what: str, moment: int) -> bool:
        assert killer.stdin is not None
        assert killer.stdout is not None
        killer.stdin.write(f"{what} {shelf.url} {shelf.folder} {moment}\n")
        killer.stdin.flush()
        code = int(killer.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        return code != 0

    return tried


def test_a_packing_that_is_killed_at_any_moment_loses_nothing_and_is_finished_by_the_next(
    shelf: Shelf, killed: Callable[[str, int], bool]
) -> None:
    with labctl.open(shelf.url) as lab:
        before = lab.samples(RUN)
    left: list[tuple[str | None, int]] = []
    for moment in itertools.count(1):
        if not killed("pack", moment):
            break
        left.append((shelf.state(), shelf.rows()))
        assert_reads(shelf, before)
        with shelf.packing() as at_work:
            if shelf.state() is None:
                at_work.pack(RUN)
            assert (shelf.state(), shelf.rows(), len(shelf.files())) == ("packed", 0, 1)
            assert_reads(shelf, before)
            at_work.unpack(RUN)
        assert (shelf.state(), shelf.rows(), len(shelf.files())) == (None, SAMPLES, 0)
    states = [state for state, _ in left]
    assert {None, "moving", "packed"} == set(states)
    assert states == sorted(states, key=[None, "moving", "packed"].index)
    of_sqlite = shelf.url.startswith("sqlite")
    remains = [rows for state, rows in left if state == "moving"]
    assert remains == ([100, 60, 20, 0] if of_sqlite else [100, 0])


@on_sqlite
def test_an_unpacking_that_is_killed_at_any_moment_loses_nothing_and_can_be_called_again(
    shelf: Shelf, killed: Callable[[str, int], bool]
) -> None:
    with labctl.open(shelf.url) as lab:
        before = lab.samples(RUN)
    shelf.pack()
    moments = 0
    for moment in itertools.count(1):
        if not killed("unpack", moment):
            break
        moments += 1
        assert_reads(shelf, before)
        with shelf.packing() as at_work:
            if shelf.state() is None:
                at_work.pack(RUN)
        assert (shelf.state(), shelf.rows(), len(shelf.files())) == ("packed", 0, 1)
    assert moments == 6
    assert (shelf.state(), shelf.rows(), shelf.files()) == (None, SAMPLES, set())
    assert_reads(shelf, before)


def assert_reads(shelf: Shelf, before: pd.DataFrame) -> None:
    with labctl.open(shelf.url) as lab:
        pd.testing.assert_frame_equal(lab.samples(RUN), before, check_exact=True)
        assert lab.verify(RUN).ok


def test_what_comes_from_instruments_gets_in_while_rows_are_taken_out(
    shelf: Shelf, lab: Any
) -> None:
    journal = lab.Journal(source="node-b-1")
    lab.write_run(journal, [lab.CycleSpec()] * 2, run="run-b")
    ingest, waiting = Ingest(shelf.engine), list(journal.payloads)
    got_in: list[str] = []

    def at(name: str) -> None:
        if waiting:
            assert ingest.commit([waiting.pop(0)]).batches == 1
            got_in.append(name)

    with shelf.packing(at=at) as at_work:
        at_work.pack(RUN)
    assert {"writing", "noted", "taken out"} <= set(got_in)
    Ingest(shelf.engine).commit(journal.payloads)
    with labctl.open(shelf.url) as opened:
        assert [opened.verify(run).problems for run in (RUN, "run-b")] == [(), ()]


def test_a_reader_that_began_before_a_run_was_packed_reads_it_to_its_end(shelf: Shelf) -> None:
    reader = open_engine(shelf.url, read_only=True)
    names = ["seq", "voltage_V"]
    with reader.connect() as connection:
        assert note_of(connection, 1) is None
        shelf.pack()
        found = in_order(read_table(connection, Wanted(run_number=1), names), names)
        assert list(found["seq"]) == list(range(1, SAMPLES + 1))
    reader.dispose()


def test_batches_that_come_again_are_duplicates_of_a_packed_run_too(shelf: Shelf, lab: Any) -> None:
    shelf.pack()
    before = lab.dump(shelf.engine)
    again = Ingest(shelf.engine).commit(shelf.journal.payloads)
    assert (again.batches, again.duplicates) == (0, len(shelf.journal.payloads))
    assert lab.dump(shelf.engine) == before


@on_sqlite
def test_samples_that_come_after_the_end_of_a_packed_run_are_kept_behind_it(shelf: Shelf) -> None:
    def ask() -> dict[str, Any]:
        with labctl.open(shelf.url) as lab:
            found = {name: lab.samples(RUN, **choice) for name, choice in QUESTIONS.items()}
            parts = list(lab.iter_samples(RUN, rows=17))
            return found | {"parts": [len(part) for part in parts], "joined": pd.concat(parts)}

    late = more_of_it(shelf)

    def at(name: str) -> None:
        if name == "noted":
            [cycle] = Ingest(shelf.engine).commit(late).cycles
            assert cycle.summary.charge_mAh_g is not None

    with shelf.packing(at=at) as at_work:
        at_work.pack(RUN)
    assert shelf.rows() == 10
    packed = ask()
    assert len(packed["the last cycle"]) == 10
    assert list(packed["all"].index) == list(range(1, 111))
    with shelf.packing() as at_work:
        at_work.unpack(RUN)
    same(ask(), packed)
    with shelf.packing() as at_work, pytest.raises(ArchiveError, match="complete through 110"):
        at_work.pack(RUN)


@on_sqlite
def test_a_run_of_which_more_comes_while_its_file_is_written_is_not_packed(shelf: Shelf) -> None:
    late = more_of_it(shelf)

    def at(name: str) -> None:
        if name == "named":
            Ingest(shelf.engine).commit(late)

    with shelf.packing(at=at) as at_work, pytest.raises(ArchiveError, match="more of it came"):
        at_work.pack(RUN)
    assert (shelf.state(), shelf.rows(), shelf.files()) == (None, SAMPLES + 10, set())
