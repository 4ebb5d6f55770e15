"""Samples of a run out of the database, as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, and_, or_, select

from labctl.archive import schema
from labctl.model import RECORD_COLUMNS, Records

ROWS_AT_ONCE = 50_000


def read_records(
    connection: Connection,
    run_number: int,
    first_seq: int,
    last_seq: int,
    cycles: tuple[int, int] | None = None,
) -> Records:
    """Samples ``first_seq`` to ``last_seq`` of a run, in order of seq.

    Args:
        cycles: first and last number of the cycles that they are expected in, which the index
            finds quickly. Where that does not give all of them, the whole run is searched.
    """
    samples = schema.samples
    wanted = and_(
        samples.c.run_number == run_number,
        samples.c.seq >= first_seq,
        samples.c.seq <= last_seq,
    )
    if cycles is not None:
        near = or_(samples.c.cycle.between(*cycles), samples.c.cycle == 0)
        records = _read(connection, samples_query().where(wanted, near))
        if len(records) == last_seq - first_seq + 1:
            return records
    return _read(connection, samples_query().where(wanted))


def samples_query(columns: Sequence[str] = tuple(RECORD_COLUMNS)) -> Select[tuple[object, ...]]:
    """A query for these columns of ``samples``."""
    return select(*(schema.samples.c[name] for name in columns))


def read_columns(
    connection: Connection, query: Select[tuple[object, ...]], columns: Sequence[str]
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The rows of ``query`` in blocks of columns; NULL becomes NaN."""
    result = connection.execute(query.execution_options(yield_per=ROWS_AT_ONCE))
    for rows in result.partitions():
        yield {
            name: np.array(values, dtype=np.int64 if RECORD_COLUMNS[name] == "<i8" else np.float64)
            for name, values in zip(columns, zip(*rows, strict=True), strict=True)
        }


def _read(connection: Connection, query: Select[tuple[object, ...]]) -> Records:
    names = tuple(RECORD_COLUMNS)
    blocks = list(read_columns(connection, query, names))
    if not blocks:
        return Records()
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in names}
    order = np.argsort(columns["seq"], kind="stable")
    return Records(*(columns[name][order] for name in names))
