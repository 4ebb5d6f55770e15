"""The files of packed runs: what is in them, and what becomes of one that is lost or damaged."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_shelf import RUN, SAMPLES, Shelf, more_of_it, on_sqlite
from sqlalchemy import text

import labctl
from labctl.archive import packing, packing_files
from labctl.archive.ingest import Ingest
from labctl.archive.packing_files import read_samples, sums_of, write_samples
from labctl.archive.packing_notes import FOLDER_VARIABLE, note_of
from labctl.archive.reading import Wanted, _bounds, chosen, in_order
from labctl.archive.verify import verify_run
from labctl.errors import ArchiveError
from labctl.model import RECORD_COLUMNS


@on_sqlite
def test_a_file_says_what_it_holds(shelf: Shelf) -> None:
    from pyarrow import parquet

    file = parquet.ParquetFile(shelf.pack())
    assert file.schema_arrow.metadata[b"labctl.cell"] == b"HEV-1"
    assert file.schema_arrow.field("charge_Ah").metadata == {b"unit": b"Ah"}
    assert set(file.schema_arrow.names) == {"run_number", *RECORD_COLUMNS}
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [30, 30, 30, 10]
    assert {group.column(0).compression for group in groups} == {"ZSTD"}
    assert {str(group.sorting_columns[0]) for group in groups} == {
        str(groups[0].sorting_columns[0])
    }
    with shelf.engine.begin() as connection:
        note = note_of(connection, 1)
    assert note is not None
    assert (note.state, note.rows, note.packed_by) == ("packed", SAMPLES, "mia")
    assert note.size_B == note.path.stat().st_size


@on_sqlite
def test_packing_again_makes_the_same_file(shelf: Shelf) -> None:
    first = shelf.pack().read_bytes()
    with shelf.packing() as at_work:
        at_work.unpack(RUN)
        at_work.pack(RUN)
        with pytest.raises(ArchiveError, match="packed already"):
            at_work.pack(RUN)
    assert shelf.file().read_bytes() == first


@on_sqlite
def test_the_last_cycle_is_read_without_the_rest_of_the_file(shelf: Shelf) -> None:
    with labctl.open(shelf.url) as lab:
        before = [lab.samples(RUN, cycle=-1), lab.samples(RUN, last_s=3000.0)]
    path = shelf.pack()
    whole = bytearray(path.read_bytes())
    whole[100] ^= 1
    path.write_bytes(whole)
    with labctl.open(shelf.url) as lab:
        for frame, choice in zip(before, ({"cycle": -1}, {"last_s": 3000.0}), strict=True):
            pd.testing.assert_frame_equal(lab.samples(RUN, **choice), frame, check_exact=True)
        with pytest.raises(ArchiveError, match="bytes 0 to"):
            lab.samples(RUN, cycle=1)


@on_sqlite
def test_a_file_that_is_lost_cut_or_changed_is_named_with_what_to_do(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shelf.pack()
    whole = path.read_bytes()
    broken = {
        "No such file": None,
        "bytes and was written with": whole[:-100],
        "footer": whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:],
    }
    with labctl.open(shelf.url) as lab:
        for said, content in broken.items():
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            for ask in (
                lambda: lab.samples(RUN),
                lambda: list(lab.iter_samples(RUN, cycle=2)),
                lambda: list(lab.iter_arrow(RUN)),
                lambda: lab.export(RUN, tmp_path / "x.csv"),
            ):
                with pytest.raises(ArchiveError, match=rf"{path}.*{said}.*put the file back"):
                    ask()
            [problem] = lab.verify(RUN).problems
            assert str(path) in problem
            assert lab.verify("run-3").ok
            with shelf.packing() as at_work, pytest.raises(ArchiveError, match="put the file back"):
                at_work.unpack(RUN)
            assert (shelf.state(), shelf.rows()) == ("packed", 0)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / path.name).write_bytes(whole)
        monkeypatch.setenv(FOLDER_VARIABLE, str(elsewhere))
        assert len(lab.samples(RUN)) == SAMPLES
        assert lab.verify(RUN).ok


@on_sqlite
def test_no_flipped_bit_passes(shelf: Shelf) -> None:
    path = shelf.pack()
    whole = path.read_bytes()
    chance = random.Random(11)
    with labctl.open(shelf.url) as lab:
        for place in sorted(chance.sample(range(len(whole)), 150)):
            changed = bytearray(whole)
            changed[place] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(ArchiveError, match="cannot be read"):
                lab.samples(RUN)


@on_sqlite
def test_a_file_that_came_out_wrong_is_deleted_and_the_run_stays(shelf: Shelf) -> None:
    def flip() -> None:
        path = shelf.file()
        whole = bytearray(path.read_bytes())
        for place in range(100, 400):
            whole[place] ^= 255
        path.write_bytes(whole)

    def rewrite(name: str, change: Callable[[Any], Any]) -> None:
        path = shelf.file()
        sums = sums_of(path)
        columns = list(RECORD_COLUMNS)
        parts = list(read_samples(path, sums.size_B, sums.crc32, columns, {}))
        block = {each: np.concatenate([part[each] for part in parts]) for each in columns}
        block[name] = change(block[name])
        write_samples(path, 1, [block], {})

    faults: dict[str, Callable[[], None]] = {
        "(?s)cannot be read back .*look after the disk": flip,
        "differs in temperature_degC": lambda: rewrite(
            "temperature_degC", lambda column: np.where(np.isnan(column), 25.0, column)
        ),
        "differs in charge_Ah": lambda: rewrite(
            "charge_Ah", lambda column: np.nextafter(column, 1)
        ),
    }
    for said, fault in faults.items():
        with shelf.packing(at=lambda name, f=fault: f() if name == "named" else None) as at_work:
            with pytest.raises(ArchiveError, match=said):
                at_work.pack(RUN)
        assert (shelf.state(), shelf.rows(), shelf.files()) == (None, SAMPLES, set())


@on_sqlite
def test_a_full_disk_leaves_the_run_as_it_was(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "write_samples", full)
    with shelf.packing() as at_work, pytest.raises(ArchiveError, match="No space left"):
        at_work.pack(RUN)
    assert (shelf.state(), shelf.rows(), shelf.files()) == (None, SAMPLES, set())


@on_sqlite
def test_a_noted_file_that_is_lost_before_a_row_is_deleted_is_forgotten_again(
    shelf: Shelf,
) -> None:
    class StoppedError(Exception):
        pass

    def stop(name: str, wanted: str) -> None:
        if name == wanted:
            raise StoppedError

    with pytest.raises(StoppedError), shelf.packing(at=lambda name: stop(name, "noted")) as one:
        one.pack(RUN)
    shelf.file().unlink()
    with shelf.packing() as at_work:
        assert (shelf.state(), shelf.rows(), at_work.troubles) == (None, SAMPLES, [])
    with pytest.raises(StoppedError), shelf.packing(at=lambda name: stop(name, "taken out")) as one:
        one.pack(RUN)
    whole = shelf.file().read_bytes()
    shelf.file().write_bytes(whole[:-1])
    with shelf.packing() as at_work:
        [trouble] = at_work.troubles
        assert "put the file back" in trouble
        at_work.pack("run-3")
    shelf.file().write_bytes(whole)
    with shelf.packing() as at_work:
        assert at_work.troubles == []
    assert (shelf.rows(), shelf.rows("run-3")) == (0, 0)


@on_sqlite
def test_a_late_cycle_of_a_run_whose_file_is_lost_goes_to_quarantine_and_nothing_stops(
    shelf: Shelf, lab: Any
) -> None:
    late = more_of_it(shelf)
    shelf.pack().unlink()
    other = lab.Journal(source="node-b-1")
    lab.write_run(other, [lab.CycleSpec()], run="run-b")
    done = Ingest(shelf.engine).commit([*late, *other.payloads])
    assert done.quarantined == 1
    with shelf.engine.begin() as connection:
        [reason] = connection.execute(text("SELECT reason FROM quarantine")).scalars().all()
        assert "which cannot be read" in reason
        assert verify_run(connection, "run-b").ok


COLUMNS = list(RECORD_COLUMNS)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), count=st.integers(1, 120))
def test_whatever_is_asked_of_a_file_is_what_a_search_through_all_rows_finds(
    data: st.DataObject, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    columns: dict[str, Any] = {name: rng.normal(size=count) for name in COLUMNS}
    seq = np.arange(1, count + 1)
    cycle = np.where(rng.random(count) < 0.2, 0, 1 + seq // 20)
    columns |= {"seq": seq, "test_time_s": seq * 10.0, "cycle": cycle, "step": 1 + seq // 7 % 3,
                "visit": 1 + seq // 7}  # fmt: skip
    columns["temperature_degC"][rng.random(count) < 0.5] = np.nan
    whole = {name: np.asarray(columns[name], dtype=kind) for name, kind in RECORD_COLUMNS.items()}
    path = tmp_path_factory.mktemp("file") / "run.parquet"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing_files, "ROWS_AT_LEAST", 25)
        patched.setattr(packing_files, "ROWS_AT_MOST", 60)
        write_samples(path, 7, [whole], {"run": "run-7"})
    sums = sums_of(path)
    few = st.none() | st.lists(st.integers(0, 8), max_size=3)
    limits = st.tuples(st.none() | st.floats(0, 1300), st.none() | st.floats(0, 1300))
    wanted = Wanted(
        run_number=7, cycles=data.draw(few), steps=data.draw(few), test_time_s=data.draw(limits),
        every=data.draw(st.integers(1, 4)), last_seq=data.draw(st.none() | st.integers(0, 130)),
    )  # fmt: skip
    found = in_order(
        (
            chosen(block, wanted, COLUMNS)
            for block in read_samples(path, sums.size_B, sums.crc32, COLUMNS, _bounds(wanted))
        ),
        COLUMNS,
    )
    low, high = wanted.test_time_s
    keep = [
        row
        for row in range(count)
        if (wanted.cycles is None or cycle[row] in wanted.cycles)
        and (wanted.steps is None or whole["step"][row] in wanted.steps)
        and (low is None or whole["test_time_s"][row] >= low)
        and (high is None or whole["test_time_s"][row] <= high)
        and row % wanted.every == 0
        and (wanted.last_seq is None or seq[row] <= wanted.last_seq)
    ]
    for name in COLUMNS:
        assert found[name].tobytes() == whole[name][keep].tobytes(), name
