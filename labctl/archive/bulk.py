"""Samples into the table ``samples``, as fast as each database takes them.

SQLite: statements of up to 128 rows, in which the numbers that a visit's samples share are bound
once. PostgreSQL: binary COPY, packed by numpy. Both on SQLAlchemy's connection and within its
transaction. A temperature that is NaN becomes NULL.

PostgreSQL 15 manual, COPY, "Binary Format".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection

from labctl.archive.raising import as_sqlalchemy_raises
from labctl.archive.schema import samples
from labctl.model import FloatColumn, Records


class Stretch(NamedTuple):
    """Rows ``first`` to ``end`` (exclusive) that share cycle, step and visit, and whose sequence
    numbers, from ``seq`` on, have no gap."""

    first: int
    end: int
    cycle: int
    step: int
    visit: int
    seq: int


class Rows(NamedTuple):
    """Records as SQLite takes them: the other columns, row after row, and what rows share."""

    stretches: Sequence[Stretch]
    values: FloatColumn

    @property
    def size(self) -> int:
        """How many rows."""
        return len(self.values) // len(FLOAT_COLUMNS)


class Block(NamedTuple):
    """Records of a run in order of ``seq``, which need not be without gaps."""

    run_number: int
    records: Records | Rows

    @property
    def size(self) -> int:
        """How many rows."""
        records = self.records
        return len(records) if isinstance(records, Records) else records.size


INT_COLUMNS = ("run_number", "cycle", "step", "visit", "seq")
FLOAT_COLUMNS = (
    "test_time_s",
    "unix_time_s",
    "voltage_V",
    "current_A",
    "charge_Ah",
    "energy_Wh",
    "temperature_degC",
)
COLUMNS = (*INT_COLUMNS, *FLOAT_COLUMNS)
MOST_ROWS = 128


def insert_samples(connection: Connection, blocks: Sequence[Block]) -> None:
    """Append the records of all ``blocks``.

    Raises:
        sqlalchemy.exc.DBAPIError: as SQLAlchemy itself would raise it.
    """
    filled = [block for block in blocks if block.size]
    if not filled:
        return
    if connection.dialect.name == "postgresql":
        _copy(connection, filled)
    else:
        _insert(connection, filled)


@cache
def _insert_statement(rows: int) -> str:
    own = len(FLOAT_COLUMNS)
    run, cycle, step, visit, seq = range(own * rows + 1, own * rows + 1 + len(INT_COLUMNS))
    values = ",".join(
        f"(?{run},?{cycle},?{step},?{visit},?{seq}+{row},"
        + ",".join(f"?{1 + own * row + place}" for place in range(own))
        + ")"
        for row in range(rows)
    )
    names = ",".join(f'"{name}"' for name in COLUMNS)
    return f"INSERT INTO {samples.name} ({names}) VALUES {values}"  # noqa: S608


def _insert(connection: Connection, blocks: Sequence[Block]) -> None:
    cursor: Any = connection.connection.cursor()
    with as_sqlalchemy_raises(connection, samples.name):
        for run_number, records in blocks:
            rows = spread(records) if isinstance(records, Records) else records
            for count, values in _statements(run_number, rows):
                cursor.execute(_insert_statement(count), values)
        cursor.close()


def _statements(run_number: int, rows: Rows) -> Iterator[tuple[int, list[Any]]]:
    """How many rows, and the values. Made block by block: what was just made is still near."""
    own = len(FLOAT_COLUMNS)
    values = rows.values.tolist()
    for first, end, cycle, step, visit, seq in rows.stretches:
        for row in range(first, end, MOST_ROWS):
            count = min(MOST_ROWS, end - row)
            given = values[row * own : (row + count) * own]
            given += (run_number, cycle, step, visit, seq + row - first)
            yield count, given


def spread(records: Records) -> Rows:
    """At least one record, as SQLite takes it."""
    stretches = []
    for first, end in _alike(records):
        shared = (records.cycle, records.step, records.visit, records.seq)
        stretches.append(Stretch(first, end, *(column.item(first) for column in shared)))
    return Rows(stretches, _floats(records).ravel())


def _alike(records: Records) -> Iterator[tuple[int, int]]:
    visit, step, cycle, seq = records.visit, records.step, records.cycle, records.seq
    changed = visit[1:] != visit[:-1]
    changed |= step[1:] != step[:-1]
    changed |= cycle[1:] != cycle[:-1]
    if seq.item(-1) - seq.item(0) != len(records) - 1:
        changed |= seq[1:] != seq[:-1] + 1
    edges = [0, *(changed.nonzero()[0] + 1).tolist(), len(records)]
    return itertools.pairwise(edges)


def _floats(records: Records) -> FloatColumn:
    table = np.empty((len(records), len(FLOAT_COLUMNS)))
    for place, name in enumerate(FLOAT_COLUMNS):
        table[:, place] = getattr(records, name)
    return table


_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_COPY_STATEMENT = (
    f"COPY {samples.name} (" + ",".join(f'"{name}"' for name in COLUMNS) + ") "
    "FROM STDIN (FORMAT BINARY)"
)
WIDTHS = {name: ">i8" if name == "seq" else ">i4" for name in INT_COLUMNS} | dict.fromkeys(
    FLOAT_COLUMNS, ">f8"
)
_ROW = np.dtype(
    [("fields", ">i2")]
    + [part for name, width in WIDTHS.items() for part in ((f"{name} size", ">i4"), (name, width))]
)

_EMPTY_ROW = np.zeros(1, dtype=_ROW)
_EMPTY_ROW["fields"] = len(COLUMNS)
for _name, _width in WIDTHS.items():
    _EMPTY_ROW[f"{_name} size"] = np.dtype(_width).itemsize


def pack_copy_rows(run_number: int, records: Records) -> bytes:
    """The rows of a binary COPY, without its header and trailer."""
    rows = np.repeat(_EMPTY_ROW, len(records))
    for name in COLUMNS:
        rows[name] = run_number if name == "run_number" else getattr(records, name)
    unknown = np.isnan(records.temperature_degC)
    if not unknown.any():
        return rows.tobytes()
    rows["temperature_degC size"][unknown] = -1
    kept = np.ones((len(rows), _ROW.itemsize), dtype=bool)
    kept[unknown, -8:] = False
    return rows.view(np.uint8).reshape(kept.shape)[kept].tobytes()


def _copy(connection: Connection, blocks: Sequence[Block]) -> None:
    driver: Any = connection.connection.driver_connection
    with as_sqlalchemy_raises(connection, samples.name):
        with driver.cursor() as cursor, cursor.copy(_COPY_STATEMENT) as copy:
            copy.write(_HEADER)
            # The server takes in one block while the next is packed.
            for run_number, records in blocks:
                if not isinstance(records, Records):
                    raise TypeError("records that were spread for SQLite")
                copy.write(pack_copy_rows(run_number, records))
            copy.write(_TRAILER)
