"""Records that are laid out as SQLite's pages are, to SQLite, a table like any other."""

from __future__ import annotations

import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError

from labctl.archive import bulk, pages
from labctl.archive.bulk import Block, insert_samples
from labctl.archive.database import open_engine
from labctl.archive.pages import COLUMNS, FIRST_ROWID, FLOATS, MOST_ROWS, lay_out
from labctl.model import RECORD_COLUMNS, Records

A_LEAF = 689
"""Rows that fill a page of 64 kB: (65,536 - 8) // (2 + 93) bytes."""


def records(count: int, first_seq: int = 1) -> Records:
    """Numbers of which no two are alike."""
    seq = np.arange(first_seq, first_seq + count)
    columns = {
        name: seq * (place + 2) if name not in FLOATS else seq / (place + 3)
        for place, name in enumerate(RECORD_COLUMNS)
    }
    return Records(**columns | {"seq": seq})


@st.composite
def any_records(draw: st.DrawFn) -> Records:
    count = draw(st.integers(0, 40))
    small = hnp.arrays(np.int64, count, elements=st.integers(0, 2**31 - 1))
    large = hnp.arrays(np.int64, count, elements=st.integers(1, 2**63 - 1))
    finite = hnp.arrays(np.float64, count, elements=st.floats(allow_nan=False))
    perhaps = hnp.arrays(np.float64, count, elements=st.floats(allow_infinity=False))
    columns = {
        name: draw(
            large
            if name == "seq"
            else finite
            if name in FLOATS and name != "temperature_degC"
            else perhaps
            if name in FLOATS
            else small
        )
        for name in RECORD_COLUMNS
    }
    return Records(**columns)


def as_rows(some: Records) -> list[tuple[Any, ...]]:
    """As SQLite gives them: there is no NaN, and no negative zero."""
    columns = [getattr(some, name).tolist() for name in COLUMNS]
    return [
        tuple(None if isinstance(one, float) and math.isnan(one) else one for one in row)
        for row in zip(*columns, strict=True)
    ]


def read(database: Any) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(database)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = connection.execute("SELECT rowid, * FROM rows ORDER BY rowid").fetchall()
    connection.close()
    return rows


@settings(deadline=None)
@given(st.lists(any_records(), min_size=1, max_size=5).filter(lambda some: any(map(len, some))))
def test_sqlite_reads_every_value_of_every_block_in_its_place(blocks: list[Records]) -> None:
    laid_out = lay_out(blocks)
    found = read(laid_out[0].database)
    assert [row[0] for row in found] == [FIRST_ROWID + place for place in range(len(found))]
    for rows, block in zip(laid_out, blocks, strict=True):
        first = rows.first_rowid - FIRST_ROWID
        assert rows.size == len(block)
        assert [row[1:] for row in found[first : first + rows.size]] == as_rows(block)


@pytest.mark.parametrize(
    "count", [1, A_LEAF - 1, A_LEAF, A_LEAF + 1, 2 * A_LEAF, 2 * A_LEAF + 1, 40 * A_LEAF - 1]
)
def test_a_table_of_any_number_of_pages_is_whole(count: int) -> None:
    [rows] = lay_out([records(count)])
    assert [row[1:] for row in read(rows.database)] == as_rows(records(count))


def test_the_largest_table_has_as_many_leaves_as_one_page_can_name() -> None:
    assert MOST_ROWS == A_LEAF * ((65536 - 12) // 10)
    with pytest.raises(ValueError, match=f"1 to {MOST_ROWS}"):
        lay_out([])


def test_rows_that_are_not_there_are_no_samples_that_were_written(
    sqlite_template: Path, tmp_path: Path
) -> None:
    shutil.copy(sqlite_template, tmp_path / "archive.db")
    engine = open_engine(f"sqlite:///{tmp_path}/archive.db")
    [rows] = lay_out([records(10)])
    with pytest.raises(DatabaseError, match="of 11 samples that were laid out SQLite found 10"):
        with engine.begin() as connection:
            insert_samples(connection, [Block(1, rows._replace(size=11))])
    engine.dispose()


def test_an_sqlite_that_reads_pages_in_another_way_is_given_no_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert pages.can_copy()
    pages.can_copy.cache_clear()
    monkeypatch.setattr(pages, "_LEAF", 10)
    pages._full_leaf.cache_clear()
    assert not pages.can_copy()
    monkeypatch.undo()
    for each in (pages.can_copy, pages._full_leaf):
        each.cache_clear()
    assert pages.can_copy()


@pytest.mark.parametrize("copies", [True, False], ids=["copied", "in statements"])
def test_every_way_into_a_database_gives_the_same_table(
    engine: Engine, copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "can_copy", lambda: copies)
    one, other, more = records(700), records(300, first_seq=701), records(3)
    unknown = records(2, first_seq=5)
    unknown.temperature_degC[:] = math.nan
    with engine.begin() as connection:
        for number in (1, 2):
            connection.exec_driver_sql(
                "INSERT INTO runs (run_number, run_id, source) "
                f"VALUES ({number}, 'run-{number}', 'journal')"
            )
        insert_samples(connection, [Block(1, one), Block(1, other), Block(2, unknown)])
        insert_samples(connection, [Block(2, records(0)), Block(2, more)])
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            f"SELECT run_number, {names} FROM samples ORDER BY run_number, seq"
        ).fetchall()
    expected = [(1, *row) for block in (one, other) for row in as_rows(block)]
    expected += [(2, *row) for block in (more, unknown) for row in as_rows(block)]
    assert [tuple(row) for row in found] == expected
