"""Samples into the table ``samples``, as fast as each database takes them.

SQLite: laid out as a database in memory, from which it copies them (:mod:`labctl.archive.pages`);
where Python's SQLite takes none, in statements of up to 128 rows. PostgreSQL: binary COPY, packed
by numpy. All on SQLAlchemy's connection and within its transaction. A temperature that is NaN
becomes NULL.

PostgreSQL 15 manual, COPY, "Binary Format".
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection

from labctl.archive.pages import FLOATS, INTEGERS, MOST_ROWS, TABLE, Rows, can_copy, lay_out
from labctl.archive.raising import as_sqlalchemy_raises
from labctl.archive.schema import samples
from labctl.model import Records


class Block(NamedTuple):
    """Records of a run, or rows that they were laid out as."""

    run_number: int
    records: Records | Rows

    @property
    def size(self) -> int:
        """How many rows."""
        records = self.records
        return len(records) if isinstance(records, Records) else records.size


INT_COLUMNS = ("run_number", *INTEGERS, "seq")
COLUMNS = (*INT_COLUMNS, *FLOATS)
_DATABASE = "labctl_rows"
ROWS_A_STATEMENT = 128


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


def _insert(connection: Connection, blocks: Sequence[Block]) -> None:
    driver: Any = connection.connection.driver_connection
    shown: object = None
    with as_sqlalchemy_raises(connection, samples.name):
        for run_number, records in _joined(_laid_out(blocks)):
            if isinstance(records, Records):
                for count, values in _statements(run_number, records):
                    driver.execute(_insert_statement(count), values)
                continue
            if records.database is not shown:
                shown = records.database
                _show(driver, records)
            last_rowid = records.first_rowid + records.size - 1
            done = driver.execute(_COPY_ROWS, (run_number, records.first_rowid, last_rowid))
            if done.rowcount != records.size:
                raise sqlite3.DatabaseError(
                    f"of {records.size} samples that were laid out SQLite found {done.rowcount}"
                )


def _laid_out(blocks: Sequence[Block]) -> Iterator[Block]:
    """All blocks as rows in databases, where Python's SQLite can read them."""
    bare = [block.records for block in blocks if isinstance(block.records, Records)]
    possible = can_copy() and 0 < sum(map(len, bare)) <= MOST_ROWS
    made: Iterator[Records | Rows] = iter(lay_out(bare) if possible else bare)
    for block in blocks:
        if isinstance(block.records, Records):
            yield block._replace(records=next(made))
        else:
            yield block


def _joined(blocks: Iterator[Block]) -> Iterator[Block]:
    """What lies one after the other and is of one run goes together."""
    before: Block | None = None
    for block in blocks:
        if before is not None:
            rows, more = before.records, block.records
            if (
                isinstance(rows, Rows)
                and isinstance(more, Rows)
                and before.run_number == block.run_number
                and rows.database is more.database
                and rows.first_rowid + rows.size == more.first_rowid
            ):
                before = before._replace(records=rows._replace(size=rows.size + more.size))
                continue
            yield before
        before = block
    if before is not None:
        yield before


def _show(driver: sqlite3.Connection, rows: Rows) -> None:
    if _DATABASE not in {row[1] for row in driver.execute("PRAGMA database_list")}:
        driver.execute(f"ATTACH ':memory:' AS {_DATABASE}")
    driver.deserialize(rows.database, name=_DATABASE)


_NAMES = ",".join(f'"{name}"' for name in COLUMNS)
_COPY_ROWS = (
    f"INSERT INTO {samples.name} ({_NAMES}) "  # noqa: S608
    f"SELECT ?,{','.join(COLUMNS[1:])} FROM {_DATABASE}.{TABLE} WHERE rowid BETWEEN ? AND ?"
)


@cache
def _insert_statement(rows: int) -> str:
    places = f"({','.join('?' * len(COLUMNS))})"
    return f"INSERT INTO {samples.name} ({_NAMES}) VALUES {','.join([places] * rows)}"  # noqa: S608


def _statements(run_number: int, records: Records) -> Iterator[tuple[int, list[Any]]]:
    """How many rows, and the values of one after the other."""
    for first in range(0, len(records), ROWS_A_STATEMENT):
        some = records[first : first + ROWS_A_STATEMENT]
        columns = [getattr(some, name).tolist() for name in COLUMNS[1:]]
        rows = zip(itertools.repeat(run_number), *columns, strict=False)
        yield len(some), list(itertools.chain.from_iterable(rows))


_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_COPY_STATEMENT = (
    f"COPY {samples.name} (" + ",".join(f'"{name}"' for name in COLUMNS) + ") "
    "FROM STDIN (FORMAT BINARY)"
)
WIDTHS = {name: ">i8" if name == "seq" else ">i4" for name in INT_COLUMNS} | dict.fromkeys(
    FLOATS, ">f8"
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
