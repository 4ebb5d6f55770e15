"""Many rows into the smaller tables in one statement, without SQLAlchemy's work for each row.

SQLite takes them through ``executemany``, PostgreSQL as one JSON text, which it parses faster than
a driver sends as many values one by one, or through COPY, which is four times as fast and passes
over nothing. Numbers survive all three exactly; NaN becomes NULL, but in a COPY.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Connection, Double, Integer, Table, Text
from sqlalchemy.types import TypeEngine

from labctl.archive.raising import as_sqlalchemy_raises

Row = dict[str, Any]
MOST_ROWS = 64
"""In one statement of SQLite that gives back what it inserted."""
_PASSING_OVER = " ON CONFLICT DO NOTHING"


def insert_many(
    connection: Connection,
    table: Table,
    rows: Sequence[Row],
    names: tuple[str, ...] = (),
    *,
    once: bool = False,
) -> None:
    """Insert rows that all have the same columns; those whose key is there are passed over.

    Args:
        names: the columns to insert, if not all that the first row has.
        once: none may be there, and no value be NaN.

    Raises:
        sqlalchemy.exc.IntegrityError: one is there, and none may be.
    """
    if rows:
        names = names or tuple(rows[0])
        if once and connection.dialect.name == "postgresql":
            _copy(connection, table, names, rows)
            return
        statement = _insert_statement(connection.dialect.name, table, names)
        if not once:
            statement += _PASSING_OVER
        _execute(connection, statement, names, rows)


_TYPES: dict[type[TypeEngine[Any]], str] = {
    BigInteger: "int8",
    Integer: "int4",
    Double: "float8",
    Text: "text",
    Boolean: "bool",
}


def _copy(
    connection: Connection, table: Table, names: tuple[str, ...], rows: Sequence[Row]
) -> None:
    driver: Any = connection.connection.driver_connection
    statement = f"COPY {table.name} ({_listed(names)}) FROM STDIN (FORMAT BINARY)"
    with as_sqlalchemy_raises(connection, table.name):
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([_TYPES[type(table.c[name].type)] for name in names])
            for values in map(itemgetter(*names), rows):
                copy.write_row(values)


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> set[tuple[Any, ...]]:
    """The same, and gives the keys of the rows that were not there before."""
    if not rows:
        return set()
    names = tuple(rows[0])
    key = _listed(tuple(column.name for column in table.primary_key))
    if connection.dialect.name == "postgresql":
        statement = _insert_statement("postgresql", table, names) + _PASSING_OVER
        chosen = (msgspec.json.encode([{n: row[n] for n in names} for row in rows]).decode(),)
        found = connection.exec_driver_sql(f"{statement} RETURNING {key}", chosen)
        return {tuple(row) for row in found}
    new: set[tuple[Any, ...]] = set()
    for first in range(0, len(rows), MOST_ROWS):
        some = rows[first : first + MOST_ROWS]
        values = tuple(itertools.chain.from_iterable(map(itemgetter(*names), some)))
        statement = _insert_rows_statement(table, names, len(some))
        found = connection.exec_driver_sql(f"{statement} RETURNING {key}", values)
        new |= {tuple(row) for row in found}
    return new


def update_many(
    connection: Connection,
    table: Table,
    key: tuple[str, ...],
    columns: tuple[str, ...],
    rows: Sequence[Row],
) -> None:
    """Set ``columns`` to what they are in ``rows``, in the rows that have their ``key``."""
    if rows:
        names = columns + key
        statement = _update_statement(connection.dialect.name, table, names, key)
        _execute(connection, statement, names, rows)


def _execute(
    connection: Connection, statement: str, names: tuple[str, ...], rows: Sequence[Row]
) -> None:
    if connection.dialect.name == "postgresql":
        chosen = [{name: row[name] for name in names} for row in rows]
        connection.exec_driver_sql(statement, (msgspec.json.encode(chosen).decode(),))
    else:
        connection.exec_driver_sql(statement, list(map(itemgetter(*names), rows)))


@cache
def _insert_statement(dialect: str, table: Table, names: tuple[str, ...]) -> str:
    into = f"INSERT INTO {table.name} ({_listed(names)})"
    if dialect == "postgresql":
        return f"{into} SELECT {_listed(names)} FROM {_rows_of_json(table)}"  # noqa: S608
    return f"{into} VALUES ({', '.join('?' * len(names))})"


@lru_cache(maxsize=1000)
def _insert_rows_statement(table: Table, names: tuple[str, ...], rows: int) -> str:
    places = ", ".join([f"({', '.join('?' * len(names))})"] * rows)
    into = f"INSERT INTO {table.name} ({_listed(names)})"
    return f"{into} VALUES {places}{_PASSING_OVER}"


@cache
def _update_statement(
    dialect: str, table: Table, names: tuple[str, ...], key: tuple[str, ...]
) -> str:
    changed = [name for name in names if name not in key]
    if dialect == "postgresql":
        sets = ", ".join(f'"{name}" = new."{name}"' for name in changed)
        same = " AND ".join(f'{table.name}."{name}" = new."{name}"' for name in key)
        return f"UPDATE {table.name} SET {sets} FROM {_rows_of_json(table)} AS new WHERE {same}"  # noqa: S608
    sets = ", ".join(f'"{name}" = ?' for name in changed)
    same = " AND ".join(f'"{name}" = ?' for name in key)
    return f"UPDATE {table.name} SET {sets} WHERE {same}"  # noqa: S608


def _rows_of_json(table: Table) -> str:
    return f"json_populate_recordset(NULL::{table.name}, %s::json)"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
