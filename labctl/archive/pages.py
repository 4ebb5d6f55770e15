"""Records laid out as SQLite's own pages: a database in memory that SQLite copies its rows from.

A value that Python binds to a statement is made an object first, and SQLite runs a statement for
every hundred rows. A table that lies in memory as SQLite would have written it is copied with one
statement, in two thirds of the time. numpy lays it out; every record has the same length: a header
of one byte a column, three integers of 32 bits, one of 64, then floats, all big-endian. A float
that is NaN is read as NULL.

SQLite, "Database File Format", sections 1.3 (the header), 1.6 (B-tree pages), 2.1 (record format).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from labctl.model import Records

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

TABLE: Final = "rows"
INTEGERS: Final = ("cycle", "step", "visit")
FLOATS: Final = (
    "test_time_s",
    "unix_time_s",
    "voltage_V",
    "current_A",
    "charge_Ah",
    "energy_Wh",
    "temperature_degC",
)
COLUMNS: Final = (*INTEGERS, "seq", *FLOATS)
"""Of the table."""

_PAGE_B: Final = 65536
_INTEGER_32, _INTEGER_64, _FLOAT = 4, 6, 7
_HEADER: Final = bytes(
    [1 + len(COLUMNS)]
    + [_INTEGER_32] * len(INTEGERS)
    + [_INTEGER_64]
    + [_FLOAT] * len(FLOATS)
)  # fmt: skip
_RECORD: Final = np.dtype(
    [("header", "u1", len(_HEADER))]
    + [(name, ">i4") for name in INTEGERS]
    + [("seq", ">i8")]
    + [(name, ">f8") for name in FLOATS]
)
_CELL: Final = np.dtype([("size", "u1"), ("rowid", ">u4"), ("record", _RECORD)])
_LEAF: Final = 13
_INTERIOR: Final = 5
_LEAF_HEADER_B: Final = 8
_INTERIOR_HEADER_B: Final = 12
_ROWS_A_LEAF: Final = (_PAGE_B - _LEAF_HEADER_B) // (2 + _CELL.itemsize)
_CELLS_AT: Final = _PAGE_B - _ROWS_A_LEAF * _CELL.itemsize
_PAGE: Final = np.dtype(
    {
        "names": ["type", "count", "start", "places", "cells"],
        "formats": ["u1", ">u2", ">u2", (">u2", _ROWS_A_LEAF), (_CELL, _ROWS_A_LEAF)],
        "offsets": [0, 3, 5, _LEAF_HEADER_B, _CELLS_AT],
        "itemsize": _PAGE_B,
    }
)
_CHILD: Final = np.dtype([("page", ">u4"), ("last rowid", ">u4")])
_LEAVES_AT_ONCE: Final = 16
FIRST_ROWID: Final = 1 << 21
"""From here on to 2**28 - 1 the number of a row has four bytes."""
MOST_ROWS: Final = _ROWS_A_LEAF * ((_PAGE_B - _INTERIOR_HEADER_B) // (2 + _CHILD.itemsize))
"""In one database: their leaves have one parent."""


class Rows(NamedTuple):
    """Some rows of the table in a database: ``first_rowid`` and on."""

    database: Any
    """Bytes, or what shows them."""
    first_rowid: int
    size: int


@cache
def can_copy() -> bool:
    """Whether Python's SQLite takes databases in memory, and reads in them what was laid out."""
    if not hasattr(sqlite3.Connection, "deserialize"):
        return False
    seq = np.arange(1, _ROWS_A_LEAF + 2)
    columns: dict[str, Any] = dict.fromkeys(COLUMNS, seq)
    tried = Records(**columns)
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.deserialize(lay_out([tried])[0].database.tobytes())
            names = ", ".join(COLUMNS)
            found = connection.execute(f"SELECT {names} FROM {TABLE} ORDER BY rowid").fetchall()  # noqa: S608
        except (sqlite3.Error, ValueError):
            return False
    return found == [(number,) * len(COLUMNS) for number in seq.tolist()]


def lay_out(blocks: Sequence[Records]) -> list[Rows]:
    """The rows of each block, all in one database; there is at least one row.

    Raises:
        ValueError: no rows, or more than :data:`MOST_ROWS`.
    """
    count = sum(map(len, blocks))
    if not 0 < count <= MOST_ROWS:
        raise ValueError(f"{count} rows cannot be laid out, but 1 to {MOST_ROWS}")
    leaves = -(-count // _ROWS_A_LEAF)
    database = np.empty((1 + (leaves > 1) + leaves) * _PAGE_B, dtype=np.uint8)
    pages = database.reshape(-1, _PAGE_B)
    pages[0] = _first_page()
    pages[0, 28:32] = np.array([len(pages)], ">u4").view(np.uint8)
    pages[-leaves:] = _full_leaf()
    _fill(pages[-leaves:], blocks, count)
    _shorten(pages[-1], count - (leaves - 1) * _ROWS_A_LEAF)
    if leaves > 1:
        _connect(pages[1], leaves)
    rows = []
    first = FIRST_ROWID
    for block in blocks:
        rows.append(Rows(database, first, len(block)))
        first += len(block)
    return rows


@cache
def _first_page() -> Bytes:
    """The page that says which tables there are; the one table's root is page 2."""
    connection = sqlite3.connect(":memory:")
    connection.execute(f"PRAGMA page_size = {_PAGE_B}")
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    connection.execute(f"CREATE TABLE {TABLE} ({names})")
    page = np.frombuffer(connection.serialize(), dtype=np.uint8)[:_PAGE_B]
    connection.close()
    return page


@cache
def _full_leaf() -> Bytes:
    page: np.ndarray[Any, Any] = np.zeros(1, dtype=_PAGE)
    page["type"], page["count"], page["start"] = _LEAF, _ROWS_A_LEAF, _CELLS_AT
    page["places"] = _CELLS_AT + np.arange(_ROWS_A_LEAF) * _CELL.itemsize
    page["cells"]["size"] = _RECORD.itemsize
    page["cells"]["record"]["header"] = np.frombuffer(_HEADER, dtype=np.uint8)
    return page.view(np.uint8)


def _fill(leaves: Bytes, blocks: Sequence[Records], count: int) -> None:
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for name in COLUMNS:
        column: np.ndarray[Any, Any] = np.zeros(
            len(leaves) * _ROWS_A_LEAF, dtype="f8" if name in FLOATS else "i8"
        )
        np.concatenate([getattr(block, name) for block in blocks], out=column[:count])
        columns[name] = column.reshape(-1, _ROWS_A_LEAF)
    # A few at a time: what is written column by column is still near for the next one.
    for first in range(0, len(leaves), _LEAVES_AT_ONCE):
        some = slice(first, first + _LEAVES_AT_ONCE)
        cells = leaves[some].view(_PAGE)["cells"][:, 0]
        rowids = FIRST_ROWID + first * _ROWS_A_LEAF + np.arange(cells.size, dtype=np.uint32)
        cells["rowid"] = _varints(rowids).reshape(cells.shape)
        for name, column in columns.items():
            cells["record"][name] = column[some]


def _varints(numbers: np.ndarray[Any, np.dtype[np.uint32]]) -> np.ndarray[Any, Any]:
    """Four bytes each: seven bits a byte, the highest first, and a mark on all but the last."""
    return (
        (numbers & 0x7F)
        | (numbers & 0x3F80) << 1
        | (numbers & 0x1FC000) << 2
        | (numbers & 0xFE00000) << 3
        | np.uint32(0x80808000)
    )


def _shorten(leaf: Bytes, rows: int) -> None:
    """Leave only the first rows in a page; they are moved to its end, where SQLite has them."""
    start = _PAGE_B - rows * _CELL.itemsize
    leaf[start:] = leaf[_CELLS_AT : _CELLS_AT + rows * _CELL.itemsize].copy()
    page = leaf.view(_PAGE)
    page["count"], page["start"] = rows, start
    page["places"][0, :rows] = start + np.arange(rows) * _CELL.itemsize


def _connect(root: Bytes, leaves: int) -> None:
    """Make a page the parent of the leaves, which follow it as pages 3 and on."""
    root[:] = 0
    children = np.empty(leaves - 1, dtype=_CHILD)
    number = np.arange(leaves - 1, dtype=np.uint32)
    children["page"] = 3 + number
    children["last rowid"] = _varints(FIRST_ROWID - 1 + (number + 1) * _ROWS_A_LEAF)
    start = _PAGE_B - children.nbytes
    root[start:] = children.view(np.uint8)
    root[0] = _INTERIOR
    root[3:5] = np.array([leaves - 1], ">u2").view(np.uint8)
    root[5:7] = np.array([start], ">u2").view(np.uint8)
    root[8:12] = np.array([2 + leaves], ">u4").view(np.uint8)
    places = start + number * _CHILD.itemsize
    end = _INTERIOR_HEADER_B + 2 * (leaves - 1)
    root[_INTERIOR_HEADER_B:end] = places.astype(">u2").view(np.uint8)
