"""Columns out of SQLite a block at a time, past Python's rows.

A row that Python's sqlite3 hands over is a tuple of eleven objects, and making them takes five
times as long as finding them. So the rows are copied by SQLite itself into a table in memory whose
values are all floats, and the pages of that table are read by numpy as they lie in memory. In such
a table every record is alike: a header of one byte a column (7, an IEEE 754 float, big-endian),
then the values.

SQLite, "Database File Format", sections 1.6 (B-tree pages) and 2.1 (record format).
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

ROWS_AT_ONCE = 100_000
"""Some 10 MB."""
_NAME = "labctl_image"
_PAGE_B = 65536
_LEAF = 13
_FLOAT = 7

_numbers = itertools.count(1)

Table = np.ndarray[Any, np.dtype[np.float64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Pages = np.ndarray[Any, np.dtype[np.uint8]]
"""The bytes of each page."""


def can_read(connection: sqlite3.Connection) -> bool:
    """Whether Python's SQLite can show its pages."""
    return hasattr(connection, "serialize")


def read_image(
    connection: sqlite3.Connection,
    chosen: Sequence[str],
    run_number: int,
    spans: Sequence[tuple[int, int]],
    where: str,
) -> Iterator[Table]:
    """The samples of a run in those cycles, by cycle and then as they came, an array a column.

    Args:
        chosen: SQL expressions whose values are floats and never NULL.
        spans: first and last of the cycles, ascending.
        where: what else must hold.

    Raises:
        sqlite3.Error: as SQLite says.
    """
    image = _Image(connection, len(chosen) + 1)
    # SQLite copies rows while those before are read: it works outside Python's lock.
    with ThreadPoolExecutor(1, thread_name_prefix="image") as worker:
        before: Future[Table] | None = None
        for taken in _copied(connection, image, chosen, run_number, spans, where):
            reading = worker.submit(_read, taken, len(chosen))
            if before is not None:
                yield before.result()
            before = reading
        if before is not None:
            yield before.result()
    image.drop()


class _Taken(NamedTuple):
    """A database in memory with a table in it."""

    image: bytes
    root: int
    rows: int


def _copied(
    connection: sqlite3.Connection,
    image: _Image,
    chosen: Sequence[str],
    run_number: int,
    spans: Sequence[tuple[int, int]],
    where: str,
) -> Iterator[_Taken]:
    values = ", ".join([*chosen, "samples.rowid + 0.0"])
    copy = (
        f"INSERT INTO {image.table} SELECT {values} FROM main.samples "  # noqa: S608
        f"WHERE run_number = {run_number:d} AND {where} AND "
    )
    room = ROWS_AT_ONCE
    for first, last in spans:
        left_off: tuple[int, int] | None = None
        cycle = first
        while cycle <= last:
            if left_off is None:
                taken = connection.execute(
                    f"{copy} cycle BETWEEN ? AND ? ORDER BY cycle, samples.rowid LIMIT ?",
                    (cycle, last, room),
                ).rowcount
            else:
                taken = connection.execute(
                    f"{copy} cycle = ? AND samples.rowid > ? ORDER BY samples.rowid LIMIT ?",
                    (*left_off, room),
                ).rowcount
            if taken < room:
                # This cycle, or all that were asked for, is at its end.
                cycle = last + 1 if left_off is None else cycle + 1
                left_off = None
                room -= taken
                continue
            left_off = image.last_row()
            cycle = left_off[0]
            yield image.take()
            room = ROWS_AT_ONCE
    if room < ROWS_AT_ONCE:
        yield image.take()


class _Image:
    """A table in memory; the last of its columns is the rowid of the sample."""

    def __init__(self, connection: sqlite3.Connection, width: int) -> None:
        self._connection = connection
        self._width = width
        if _NAME not in {row[1] for row in connection.execute("PRAGMA database_list")}:
            connection.execute(f"ATTACH ':memory:' AS {_NAME}")
            connection.execute(f"PRAGMA {_NAME}.page_size = {_PAGE_B}")
            connection.execute(f"PRAGMA {_NAME}.journal_mode = OFF")
        self._own_name = f"rows{next(_numbers)}"
        self.table = f"{_NAME}.{self._own_name}"
        connection.execute(
            f"CREATE TABLE {self.table} ({', '.join(map('c{}'.format, range(width)))})"
        )

    def last_row(self) -> tuple[int, int]:
        """Cycle and rowid of the sample that was copied last."""
        row = self._connection.execute(
            f"SELECT samples.cycle, samples.rowid FROM main.samples WHERE samples.rowid = "  # noqa: S608
            f"(SELECT CAST(c{self._width - 1} AS INTEGER) FROM {self.table} "
            "ORDER BY rowid DESC LIMIT 1)"
        ).fetchone()
        return int(row[0]), int(row[1])

    def take(self) -> _Taken:
        """The rows; the table is empty afterwards."""
        root, rows = self._connection.execute(
            f"SELECT rootpage, (SELECT count(*) FROM {self.table}) "  # noqa: S608
            f"FROM {_NAME}.sqlite_schema WHERE name = ?",
            (self._own_name,),
        ).fetchone()
        taken = _Taken(self._connection.serialize(name=_NAME), root, rows)
        self._connection.execute(f"DELETE FROM {self.table}")  # noqa: S608
        return taken

    def drop(self) -> None:
        self._connection.execute(f"DROP TABLE {self.table}")


def _read(taken: _Taken, columns: int) -> Table:
    pages = np.frombuffer(taken.image, dtype=np.uint8).reshape(-1, _PAGE_B)
    table = _records(pages, columns + 1, taken.root, taken.rows)
    if table.shape != (columns, taken.rows):
        raise sqlite3.DatabaseError("SQLite's pages are not laid out as its manual says")
    return table


def _records(pages: Pages, width: int, root: int, rows: int) -> Table:
    """The values of every record in the leaves of the table whose root is that page."""
    if not rows:
        return np.empty((width - 1, 0))
    header = 1 + width
    record = np.dtype([("header", "u1", header), ("values", ">f8", width)])
    # Page 1 begins with the header of the file and holds the schema.
    leaves = [root - 1] if pages[root - 1, 0] == _LEAF else _leaves(pages, root - 1)
    found = np.empty((width - 1, rows))
    done = 0
    for leaf in leaves:
        cells = _cells(pages[leaf], record)
        count = len(cells)
        if (cells["header"][:, 0] != header).any() or (cells["header"][:, 1:] != _FLOAT).any():
            raise sqlite3.DatabaseError("SQLite's records are not laid out as its manual says")
        if done + count > rows:
            break
        found[:, done : done + count] = cells["values"][:, :-1].T
        done += count
    return found[:, :done]


def _cells(page: Bytes, record: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The records of a leaf. A cell is the size of its record, the number of its row, the record.

    Rows that were appended lie one before the other from the end of the page, at equal distances
    where their numbers have equally many bytes.
    """
    count = int(page[3]) << 8 | int(page[4])
    starts = page[8 : 8 + 2 * count].view(">u2").astype(np.int64)
    at = _after_varint(page, _after_varint(page, starts))
    step = int(at[0] - starts[0]) + record.itemsize
    if count == 1 or bool((np.diff(at) == -step).all()):
        return np.ndarray((count,), record, buffer=page.data, offset=int(at[0]), strides=(-step,))
    cells: np.ndarray[Any, Any] = page[at[:, np.newaxis] + np.arange(record.itemsize)]
    return cells.view(record)[:, 0]


def _leaves(pages: Pages, page: int) -> list[int]:
    """The leaves below an interior page, in the order of their rows."""
    inner = pages[page]
    count = int(inner[3]) << 8 | int(inner[4])
    starts = inner[12 : 12 + 2 * count].view(">u2").tolist()
    children = [int(inner[at : at + 4].view(">u4")[0]) - 1 for at in starts]
    children.append(int(inner[8:12].view(">u4")[0]) - 1)
    return [
        leaf
        for child in children
        for leaf in ([child] if pages[child, 0] == _LEAF else _leaves(pages, child))
    ]


def _after_varint(
    page: Bytes, at: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where each varint that begins at ``at`` is over: its last byte is below 128."""
    at = at.copy()
    going_on = page[at] >= 128
    while going_on.any():
        at += going_on
        going_on &= page[at] >= 128
    return at + 1
