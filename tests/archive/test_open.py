"""``labctl.open``: what a scientist asks of the archive, and what it answers."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

import labctl
from labctl.archive import image, reading, streaming
from labctl.archive.bulk import Block, insert_samples
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.queries import Archive
from labctl.errors import ArchiveError, ConfigError
from labctl.model import RECORD_COLUMNS, Records


@pytest.fixture
def lab_of_ten(engine: Engine, archive_url: str, lab: Any) -> Iterator[Archive]:
    """Ten cycles of two hours each, ten samples a cycle."""
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 10)
    Ingest(engine).commit(journal.payloads)
    with labctl.open(archive_url) as opened:
        yield opened


def shuffled_run(
    engine: Engine, run: str = "run-9", count: int = 3000, *, shuffled: bool = True
) -> pd.DataFrame:
    """A run whose samples came in late and early pieces, many of them outside any cycle."""
    rng = np.random.default_rng(5)
    seq = np.arange(1, count + 1)
    cycle = np.where(seq % 700 < 200, 0, 1 + seq // 150)
    columns = {name: rng.normal(size=count) for name in RECORD_COLUMNS}
    columns |= {
        "seq": seq, "test_time_s": seq * 10.0, "unix_time_s": 1.75e9 + seq * 10.0, "cycle": cycle,
        "step": 1 + seq // 75 % 2, "visit": 1 + seq // 75,
        "temperature_degC": np.where(seq % 5, 25.0, math.nan), "energy_Wh": np.floor(seq / 3),
    }  # fmt: skip
    frame = pd.DataFrame(columns)[list(RECORD_COLUMNS)]
    pieces = [frame.iloc[first : first + 130] for first in range(0, count, 130)]
    with engine.begin() as connection:
        number = 1 + (connection.execute(text("SELECT max(run_number) FROM runs")).scalar() or 0)
        connection.execute(
            text(
                "INSERT INTO runs (run_number, run_id, source, committed_seq) "
                "VALUES (:number, :run, 'node-x', :seqs)"
            ),
            {"number": number, "run": run, "seqs": f"1-{count}"},
        )
        places = rng.permutation(len(pieces)) if shuffled else range(len(pieces))
        for piece in (pieces[place] for place in places):
            records = Records(
                **{name: piece[name].to_numpy(kind) for name, kind in RECORD_COLUMNS.items()}
            )
            insert_samples(connection, [Block(number, records)])
    return frame.set_index("seq")


def test_a_run_is_read_as_it_was_written_whatever_way_it_came(
    engine: Engine, archive_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "ROWS_AT_ONCE", 170)
    want = shuffled_run(engine)
    with labctl.open(archive_url) as opened:
        pd.testing.assert_frame_equal(opened.samples("run-9"), want)
        parts = list(opened.iter_samples("run-9", rows=400))
        assert [len(part) for part in parts] == [400] * 7 + [200]
        pd.testing.assert_frame_equal(pd.concat(parts), want)
        some = {"cycle": [2, 3, 5, 6, 19], "step": 2, "every": 3}
        chosen = want[want["cycle"].isin(some["cycle"]) & (want["step"] == 2)]
        chosen = chosen[(chosen.index - 1) % 3 == 0]
        pd.testing.assert_frame_equal(opened.samples("run-9", **some), chosen)
        pd.testing.assert_frame_equal(
            pd.concat(opened.iter_samples("run-9", rows=7, **some)), chosen
        )
        outside = want[want["cycle"].isin([0, 4])]
        pd.testing.assert_frame_equal(
            pd.concat(opened.iter_samples("run-9", cycle=[0, 4], rows=50)), outside
        )


def test_a_damaged_run_is_streamed_with_what_is_there(engine: Engine, archive_url: str) -> None:
    want = shuffled_run(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM samples WHERE seq IN (1, 77, 1500, 3000)"))
        connection.execute(text("INSERT INTO samples SELECT * FROM samples WHERE seq = 900"))
        connection.execute(text("UPDATE runs SET committed_seq = '1-800 1000-2000'"))
    there = sorted([*want.index.difference([1, 77, 1500, 3000]), 900])
    with labctl.open(archive_url) as opened:
        parts = list(opened.iter_samples("run-9", rows=250))
        assert list(pd.concat(parts).index) == there
        assert list(opened.samples("run-9").index) == there


def test_what_waits_for_an_earlier_sample_is_no_more_than_came_out_of_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "ROWS_AT_ONCE", 200)
    waited: list[int] = []

    def in_order(blocks: Any, columns: Any) -> Any:
        pool = reading.in_order(blocks, columns)
        waited.append(len(pool["seq"]))
        return pool

    monkeypatch.setattr(streaming, "in_order", in_order)
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    upgrade(engine)
    want = shuffled_run(engine, count=20_000, shuffled=False)
    engine.dispose()
    with labctl.open(f"sqlite:///{tmp_path / 'a.db'}") as opened:
        parts = list(opened.iter_samples("run-9", rows=100))
    pd.testing.assert_frame_equal(pd.concat(parts), want)
    assert max(waited) <= 1000


def test_a_run_is_read_without_the_pages_of_sqlite_as_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    upgrade(engine)
    want = shuffled_run(engine)
    engine.dispose()
    monkeypatch.setattr(reading, "can_read", lambda _: False)
    with labctl.open(f"sqlite:///{tmp_path / 'a.db'}") as opened:
        pd.testing.assert_frame_equal(opened.samples("run-9"), want)
        pd.testing.assert_frame_equal(pd.concat(opened.iter_samples("run-9", rows=999)), want)


def test_samples_between_two_times(engine: Engine, archive_url: str) -> None:
    want = shuffled_run(engine)
    with labctl.open(archive_url) as opened:
        ranges = [(None, 95.0), (29_990.0, None), (40_000.0, None)]
        ranges += [(low, low + 800.0) for low in np.arange(5_000.0, 20_000.0, 730.0)]
        for low, high in ranges:
            found = opened.samples("run-9", test_time_s=(low, high))
            times_s = want["test_time_s"]
            keep = times_s.between(low or -math.inf, high or math.inf)
            pd.testing.assert_frame_equal(found, want[keep])
        assert list(opened.samples("run-9", last_s=35).index) == [2997, 2998, 2999, 3000]
        moment = datetime.fromtimestamp(1.75e9 + 20_000, UTC)
        found = opened.samples("run-9", between=(moment, 1.75e9 + 20_020), columns=["time_utc"])
        assert list(found.index) == [2000, 2001, 2002]
        assert found["time_utc"].iloc[0] == pd.Timestamp(moment)
        assert len(opened.samples("run-9", cycle=[0], test_time_s=(0, 1000))) == 100
        with pytest.raises(ArchiveError, match="no zone"):
            opened.samples("run-9", between=(datetime(2025, 6, 15), None))  # noqa: DTZ001


def test_the_last_cycle_and_a_visit(lab_of_ten: Archive) -> None:
    assert set(lab_of_ten.samples("run-1", cycle=-1)["cycle"]) == {10}
    assert set(lab_of_ten.samples("run-1", cycle=[-2, 3])["cycle"]) == {9, 3}
    assert set(lab_of_ten.samples("run-1", visit=4)["visit"]) == {4}
    assert len(lab_of_ten.samples("run-1", visit=range(4, 6))) == 10
    assert len(lab_of_ten.samples("run-1", cycle=-40)) == 0
    assert len(lab_of_ten.samples("run-1", cycle=range(9, 10**12), test_time_s=(0, None))) == 20
    assert set(lab_of_ten.samples("run-1", cycle=range(-2, 0))["cycle"]) == {9, 10}


def test_last_cycle_and_last_hour_are_found_by_the_index(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    upgrade(engine)
    shuffled_run(engine)
    engine.dispose()
    asked: list[str] = []
    with labctl.open(f"sqlite:///{tmp_path / 'a.db'}") as opened:
        with opened._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.set_trace_callback(asked.append)
            for choice in ({"cycles": [20]}, {"cycles": range(3, 9)}):
                wanted = reading.Wanted(run_number=1, test_time_s=(9000, 9400), **choice)
                list(reading.read_columns(connection, wanted, ["seq"], in_bulk=True))
            driver.set_trace_callback(None)
            copies = [each for each in asked if each.startswith("INSERT") and "SELECT" in each]
            assert copies
            for each in copies:
                select = each[each.index("SELECT") :]
                plan = [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {select}")]
                assert len(plan) == 1, plan
                assert "USING INDEX samples_run_cycle (run_number=? AND cycle" in plan[0]


def test_frames_have_the_same_types_with_nothing_in_them(
    lab_of_ten: Archive, tmp_path: Path
) -> None:
    empty = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    upgrade(empty)
    with empty.begin() as connection:
        connection.execute(
            text("INSERT INTO runs (run_number, run_id, source) VALUES (1, 'run-1', 's')")
        )
    empty.dispose()
    with labctl.open(f"sqlite:///{tmp_path / 'empty.db'}") as nothing:
        for ask in (
            Archive.runs, Archive.cells, Archive.cycles, Archive.alarms, Archive.alarm_events,
            Archive.events, lambda lab: lab.cycles("run-1"), lambda lab: lab.steps("run-1"),
            lambda lab: lab.spectra("run-1"), lambda lab: lab.markers("run-1"),
            lambda lab: lab.samples("run-1"),
            lambda lab: lab.samples("run-1", columns=["time_utc"]),
        ):  # fmt: skip
            full, none = ask(lab_of_ten).reset_index(), ask(nothing).reset_index()
            assert list(full.columns) == list(none.columns)
            for name in full.columns:
                if full[name].dtype == "category":
                    assert none[name].dtype == "category", name
                else:
                    assert full[name].dtype == none[name].dtype, name


def test_times_are_of_utc_and_whole_numbers_stay_whole(lab_of_ten: Archive, lab: Any) -> None:
    runs = lab_of_ten.runs()
    assert runs.loc["run-1", "created_utc"].timestamp() == lab.START_UNIX_S - 40
    assert runs["last_seq"].dtype == "Int64"
    cycles = lab_of_ten.cycles(cell="HEV-1")
    assert cycles["cycle_class"].dtype == "category"
    assert cycles["complete"].dtype == "boolean"
    assert len(lab_of_ten.cycles(cell="nobody")) == 0
    events = lab_of_ten.events(kind="run_state_changed")
    assert set(events["kind"]) == {"run_state_changed"}
    assert str(events["time_utc"].dtype) == "datetime64[ns, UTC]"


def test_batches_of_arrow_say_their_units(lab_of_ten: Archive) -> None:
    batches = list(
        lab_of_ten.iter_arrow("run-1", rows=60, columns=["voltage_V", "temperature_degC"])
    )
    assert [batch.num_rows for batch in batches] == [60, 40]
    assert batches[0].schema.names == ["seq", "voltage_V", "temperature_degC"]
    assert batches[0].schema.field("voltage_V").metadata == {b"unit": b"V"}
    assert sum(batch.column("temperature_degC").null_count for batch in batches) == 33


def test_a_run_of_another_name_is_asked_back(lab_of_ten: Archive) -> None:
    with pytest.raises(ArchiveError, match=r"no run 'run1' in .* mean 'run-1'\?"):
        lab_of_ten.samples("run1")
    for wrong in ({"every": 0}, {"points": 3}, {"columns": ["voltage_mV"]}):
        with pytest.raises(ArchiveError):
            lab_of_ten.samples("run-1", **wrong)
    with pytest.raises(ArchiveError, match="rows"):
        next(lab_of_ten.iter_samples("run-1", rows=0))


def test_the_archive_of_a_configuration_is_opened(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'measured.db'}")
    upgrade(engine)
    engine.dispose()
    toml = tmp_path / "labctl.toml"
    toml.write_text('[archive]\nurl = "sqlite:///measured.db"\n')
    with labctl.open(toml) as opened:
        assert len(opened.runs()) == 0
    with labctl.open(str(toml)) as opened:
        assert len(opened.cycles()) == 0
    with pytest.raises(ArchiveError, match="neither the address of an archive"):
        labctl.open("measured.db")
    with pytest.raises(ConfigError, match=r"not\.toml"):
        labctl.open(tmp_path / "not.toml")
    with pytest.raises(ArchiveError, match="cannot be opened"):
        labctl.open("postgresql://nobody@127.0.0.1:1/nothing")


def test_nothing_can_be_written_through_it(lab_of_ten: Archive) -> None:
    with (
        pytest.raises(Exception, match=r"(?i)read-?only"),
        lab_of_ten._engine.begin() as connection,
    ):
        connection.execute(text("DELETE FROM samples"))


def test_importing_labctl_imports_neither_pandas_nor_sqlalchemy() -> None:
    code = "import sys, labctl; sys.exit(len({'pandas', 'sqlalchemy', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=20, deadline=None)
@example(values=[1.5] * 400, rows_at_once=300)
@given(
    values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=400),
    rows_at_once=st.integers(1, 150),
)
def test_every_float_comes_back_to_the_bit(values: list[float], rows_at_once: int) -> None:
    import sqlite3

    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE samples (run_number INTEGER, cycle INTEGER, value DOUBLE)")
    connection.execute("CREATE INDEX i ON samples (run_number, cycle)")
    connection.executemany(
        "INSERT INTO samples VALUES (1, ?, ?)", [(n // 130, v) for n, v in enumerate(values)]
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(image, "ROWS_AT_ONCE", rows_at_once)
        spans = [(0, 1), (2, 9)]
        parts = list(image.read_image(connection, ['"value"'], 1, spans, "1"))
    assert max(part.shape[1] for part in parts) <= rows_at_once
    np.testing.assert_array_equal(np.concatenate(parts, axis=1)[0], values)
    connection.close()
