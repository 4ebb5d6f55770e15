"""Samples of a run out of the database, as columns.

Both databases are read past SQLAlchemy's rows, which would cost more than the database: SQLite
through an image of its pages (a program that only reads) or its own cursor, PostgreSQL through
binary COPY, whose rows numpy reads as they stand. The samples of a packed run come out of its file
first, then those that the table has beyond it; which of the two counts is decided by one look at
``packed_runs`` in the same transaction.

PostgreSQL 15 manual, COPY, "Binary Format".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from labctl.archive.bulk import WIDTHS
from labctl.archive.image import can_read, read_image
from labctl.archive.packing_files import Block, DamagedError, read_samples
from labctl.archive.packing_notes import Note, note_of
from labctl.archive.raising import as_sqlalchemy_raises
from labctl.archive.spans import Spans
from labctl.errors import ArchiveError
from labctl.model import RECORD_COLUMNS, Records

ROWS_AT_ONCE = 50_000
MOST_PIECES = 100
"""Of cycles or steps that a query names one by one; where there are more, all between the first
and the last are read and the others dropped here."""
ALL_CYCLES = ((0, 2**31 - 1),)
_HEADER_B = 19

Range = tuple[float | None, float | None]
"""From and to, both included; None is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which samples of a run.

    cycles, steps, visits: of these alone; None for all. 0 is outside any cycle.
    every: numbers 1, 1 + every, 1 + 2 * every and so on.
    test_time_s, unix_time_s: between these.
    """

    run_number: int
    first_seq: int | None = None
    last_seq: int | None = None
    cycles: Iterable[int] | None = None
    steps: Iterable[int] | None = None
    visits: Iterable[int] | None = None
    every: int = 1
    test_time_s: Range = (None, None)
    unix_time_s: Range = (None, None)

    def conditions(self) -> list[str]:
        """In SQL, without those on cycle, step and visit."""
        found = [f"run_number = {self.run_number:d}"]
        if self.every > 1:
            found.append(f"(seq - 1) % {self.every:d} = 0")
        for name, (low, high) in self.ranges().items():
            number = int if name == "seq" else float
            found += [] if low is None else [f"{name} >= {number(low)!r}"]
            found += [] if high is None else [f"{name} <= {number(high)!r}"]
        return found

    def numbers(self) -> dict[str, Iterable[int] | None]:
        """By column: these values alone; None for all."""
        return {"cycle": self.cycles, "step": self.steps, "visit": self.visits}

    def ranges(self) -> dict[str, Range]:
        """By column: from and to."""
        return {
            "seq": (self.first_seq, self.last_seq),
            "test_time_s": self.test_time_s,
            "unix_time_s": self.unix_time_s,
        }

    def asked(self) -> list[str]:
        """The columns that the choice depends on."""
        found = [name for name, each in self.ranges().items() if each != (None, None)]
        found += [name for name, each in self.numbers().items() if each is not None]
        return list(dict.fromkeys([*found, *(["seq"] if self.every > 1 else [])]))


def read_records(
    connection: Connection,
    run_number: int,
    first_seq: int | None = None,
    last_seq: int | None = None,
    cycles: tuple[int, int] | None = None,
) -> Records:
    """Samples ``first_seq`` to ``last_seq`` of a run, or all, in order of seq.

    Args:
        cycles: first and last number of the cycles that they are expected in, which the index
            finds quickly. Where that does not give all of them, the whole run is searched.

    Raises:
        sqlalchemy.exc.IntegrityError: the run is packed and its file cannot be read: what needs its
            samples cannot be kept.
    """
    wanted = Wanted(run_number=run_number, first_seq=first_seq, last_seq=last_seq)
    if cycles is not None and first_seq is not None and last_seq is not None:
        near = Wanted(
            run_number=run_number,
            first_seq=first_seq,
            last_seq=last_seq,
            cycles=(0, *range(cycles[0], cycles[1] + 1)),
        )
        records = _records(connection, near)
        if len(records) == last_seq - first_seq + 1:
            return records
    return _records(connection, wanted)


def read_columns(
    connection: Connection,
    wanted: Wanted,
    columns: Sequence[str],
    *,
    in_bulk: bool = False,
    by_seq: bool = False,
) -> Iterator[Block]:
    """Those samples in blocks of columns, in no order; what is not known is NaN.

    Args:
        columns: names of :data:`labctl.model.RECORD_COLUMNS`, each once.
        in_bulk, by_seq: see :func:`read_table`.

    Raises:
        ArchiveError: the run is packed, and its file is not there, is damaged, or was removed by a
            policy.
    """
    if not connection.in_transaction():
        connection.begin()
    note = note_of(connection, wanted.run_number)
    if note is not None:
        yield from read_packed(note, wanted, columns)
        wanted = replace(wanted, first_seq=max(wanted.first_seq or 1, note.last_seq + 1))
    yield from read_table(connection, wanted, columns, in_bulk=in_bulk, by_seq=by_seq)


def read_packed(note: Note, wanted: Wanted, columns: Sequence[str]) -> Iterator[Block]:
    """Those samples of a packed run that are in its file, in blocks, in the order of ``seq``.

    Raises:
        ArchiveError: as :func:`read_columns`.
    """
    if note.removed:
        raise ArchiveError(f"run {note.run_id} has no samples any more: {note.removed}")
    asked = [name for name in wanted.asked() if name not in columns]
    names = [*columns, *asked]
    try:
        found = read_samples(note.path, note.size_B, note.crc32, names, _bounds(wanted))
        for block in found:
            yield chosen(block, wanted, columns)
    except (DamagedError, OSError) as error:
        raise note.unreadable(error) from error


def chosen(block: Block, wanted: Wanted, columns: Sequence[str]) -> Block:
    """Of a block with the columns that :meth:`Wanted.asked` names, the samples that are wanted."""
    keep: np.ndarray[Any, np.dtype[np.bool_]] | None = None

    def only(holds: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        nonlocal keep
        keep = holds if keep is None else keep & holds

    if wanted.every > 1:
        only((block["seq"] - 1) % wanted.every == 0)
    for name, (low, high) in wanted.ranges().items():
        if low is not None:
            only(block[name] >= low)
        if high is not None:
            only(block[name] <= high)
    for name, numbers in wanted.numbers().items():
        if (pieces := _spans(numbers)) is not None:
            only(_inside(block[name], pieces))
    return {name: block[name] if keep is None else block[name][keep] for name in columns}


def read_table(
    connection: Connection,
    wanted: Wanted,
    columns: Sequence[str],
    *,
    in_bulk: bool = False,
    by_seq: bool = False,
) -> Iterator[Block]:
    """Those samples that are in the table, in no order, whether they count or are remains.

    Args:
        columns: names of :data:`labctl.model.RECORD_COLUMNS`, each once.
        in_bulk: for very many samples, on a connection that only reads and is closed afterwards:
            an SQLite connection gets a database in memory beside its own. The cycles then come in
            their order, and within a cycle the samples as they came into the archive.
        by_seq: sorted by the database, not in bulk.
    """
    if not connection.in_transaction():
        connection.begin()
    spans = {
        name: found
        for name, each in wanted.numbers().items()
        if (found := _spans(each)) is not None
    }
    of_sqlite = connection.dialect.name == "sqlite"
    imaged = in_bulk and not by_seq and of_sqlite and can_read(_driver(connection))
    cycles = spans.pop("cycle", None) if imaged else None
    # A column that is only needed to choose rows is read besides.
    names = list(columns)
    sieves: list[tuple[str, Spans]] = []
    conditions = wanted.conditions()
    for name, pieces in spans.items():
        conditions.append(_condition(name, pieces))
        if len(list(pieces)) > MOST_PIECES:
            sieves.append((name, pieces))
            names += [] if name in names else [name]
    where = " AND ".join(conditions)
    if imaged:
        blocks = _blocks_of_image(connection, names, wanted.run_number, cycles, where)
    else:
        where += " ORDER BY seq" if by_seq else ""
        blocks = (_blocks_of_cursor if of_sqlite else _blocks_of_copy)(connection, names, where)
    for block in blocks:
        for name, pieces in sieves:
            keep = _inside(block[name], pieces)
            block = {each: column[keep] for each, column in block.items()}  # noqa: PLW2901
        yield {name: block[name] for name in columns}


def in_order(blocks: Iterable[Block], columns: Sequence[str]) -> Block:
    """One block out of many, in the order of ``seq``, which is among the columns."""
    pieces = list(blocks)
    found = {
        name: np.concatenate([piece[name] for piece in pieces])
        if pieces
        else np.empty(0, dtype=RECORD_COLUMNS[name])
        for name in columns
    }
    seq = found["seq"]
    if len(seq) > 1 and not bool((np.diff(seq) > 0).all()):
        order = np.argsort(seq, kind="stable")
        found = {name: column[order] for name, column in found.items()}
    return found


def _records(connection: Connection, wanted: Wanted) -> Records:
    names = tuple(RECORD_COLUMNS)
    try:
        return Records(**in_order(read_columns(connection, wanted, names), names))
    except ArchiveError as error:
        raise IntegrityError("samples", None, error) from error


def _driver(connection: Connection) -> Any:  # noqa: ANN401
    return connection.connection.driver_connection


def _blocks_of_image(
    connection: Connection, names: Sequence[str], run_number: int, cycles: Spans | None, where: str
) -> Iterator[Block]:
    pieces = ALL_CYCLES if cycles is None else tuple((a - 1, b - 1) for a, b in cycles)
    chosen = [
        _chosen(name) if RECORD_COLUMNS[name] == "<f8" else f'"{name}" + 0.0' for name in names
    ]
    with as_sqlalchemy_raises(connection, "samples"):
        for table in read_image(_driver(connection), chosen, run_number, pieces, where):
            yield {name: _typed(name, values) for name, values in zip(names, table, strict=True)}


def _blocks_of_cursor(connection: Connection, names: Sequence[str], where: str) -> Iterator[Block]:
    cursor: Any = connection.connection.cursor()
    chosen = ", ".join(map(_chosen, names))
    with as_sqlalchemy_raises(connection, "samples"):
        cursor.execute(f"SELECT {chosen} FROM samples WHERE {where}")  # noqa: S608
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            count = len(rows) * len(names)
            flat = np.fromiter(itertools.chain.from_iterable(rows), np.float64, count)
            table = flat.reshape(len(rows), len(names)).T
            yield {name: _typed(name, values) for name, values in zip(names, table, strict=True)}
        cursor.close()


def _chosen(name: str) -> str:
    """A temperature is never infinite, and NaN is NULL to SQLite: infinity stands for it."""
    return f'COALESCE("{name}", 9e999)' if name == "temperature_degC" else f'"{name}"'


def _typed(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if name == "temperature_degC":
        return np.where(np.isinf(values), np.nan, values)
    return values.astype(RECORD_COLUMNS[name], copy=False)


def _blocks_of_copy(connection: Connection, names: Sequence[str], where: str) -> Iterator[Block]:
    row = np.dtype(
        [("fields", ">i2")]
        + [part for name in names for part in ((f"{name} size", ">i4"), (name, WIDTHS[name]))]
    )
    chosen = ", ".join(
        f"""COALESCE("{name}", 'NaN')""" if name == "temperature_degC" else f'"{name}"'
        for name in names
    )
    statement = f"COPY (SELECT {chosen} FROM samples WHERE {where}) TO STDOUT (FORMAT BINARY)"  # noqa: S608
    with as_sqlalchemy_raises(connection, "samples"), _driver(connection).cursor() as cursor:
        with cursor.copy(statement) as copy:
            left = bytes(copy.read())[_HEADER_B:]
            pieces = [left] if left else []
            size = len(left)
            for piece in copy:
                pieces.append(piece)
                size += len(piece)
                if size >= ROWS_AT_ONCE * row.itemsize:
                    whole, left = _whole_rows(b"".join(pieces), row)
                    yield _columns_of(whole, names)
                    pieces, size = [left], len(left)
            whole, _ = _whole_rows(b"".join(pieces), row)
            yield _columns_of(whole, names)


def _whole_rows(data: bytes, row: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], bytes]:
    """The rows that are all there, and what is left: a part of a row, or the trailer."""
    count = len(data) // row.itemsize
    return np.frombuffer(data, dtype=row, count=count), data[count * row.itemsize :]


def _columns_of(rows: np.ndarray[Any, Any], names: Sequence[str]) -> Block:
    return {name: rows[name].astype(RECORD_COLUMNS[name]) for name in names}


def _spans(numbers: Iterable[int] | None) -> Spans | None:
    """The numbers, each one higher: spans hold none below 1. None for all."""
    if numbers is None:
        return None
    if isinstance(numbers, range) and numbers.step == 1:
        return Spans([(numbers.start + 1, numbers.stop)] if len(numbers) else [])
    return Spans((int(one) + 1, int(one) + 1) for one in numbers if one >= 0)


def _condition(name: str, spans: Spans) -> str:
    pieces = [(first - 1, last - 1) for first, last in spans]
    if len(pieces) > MOST_PIECES:
        pieces = [(pieces[0][0], pieces[-1][1])]
    if not pieces:
        return "1 = 0"
    return "(" + " OR ".join(f"{name} BETWEEN {a:d} AND {b:d}" for a, b in pieces) + ")"


def _bounds(wanted: Wanted) -> dict[str, list[tuple[float, float]]]:
    """By column: between which values the samples lie."""
    found: dict[str, list[tuple[float, float]]] = {
        name: [(-inf if low is None else low, inf if high is None else high)]
        for name, (low, high) in wanted.ranges().items()
        if (low, high) != (None, None)
    }
    for name, numbers in wanted.numbers().items():
        if (pieces := _spans(numbers)) is not None:
            found[name] = [(first - 1, last - 1) for first, last in pieces]
    return found


def _inside(values: np.ndarray[Any, Any], spans: Spans) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if not spans:
        return np.zeros(len(values), dtype=bool)
    firsts = np.array([first - 1 for first, _ in spans])
    lasts = np.array([last - 1 for _, last in spans])
    place = np.searchsorted(lasts, values)
    return np.asarray(firsts[np.minimum(place, len(firsts) - 1)] <= values) & (place < len(firsts))
