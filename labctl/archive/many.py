"""Many rows into the smaller tables in one statement, without SQLAlchemy's work for each row.

SQLite takes them through ``executemany``, PostgreSQL as one array for each column.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql

Row = dict[str, Any]
_POSTGRESQL: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


def insert_many(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows that all have the same columns; those whose key is there are passed over."""
    if rows:
        names = tuple(rows[0])
        _execute(connection, _insert_statement(connection.dialect.name, table, names), names, rows)


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
    pick = itemgetter(*names)
    if connection.dialect.name == "postgresql":
        columns = zip(*map(pick, rows), strict=True)
        connection.exec_driver_sql(statement, tuple(list(column) for column in columns))
    else:
        connection.exec_driver_sql(statement, [pick(row) for row in rows])


@cache
def _insert_statement(dialect: str, table: Table, names: tuple[str, ...]) -> str:
    into = f"INSERT INTO {table.name} ({_listed(names)})"
    if dialect == "postgresql":
        arrays = _unnested(table, names)
        return f"{into} SELECT * FROM {arrays} ON CONFLICT DO NOTHING"  # noqa: S608
    return f"{into} VALUES ({', '.join('?' * len(names))}) ON CONFLICT DO NOTHING"


@cache
def _update_statement(
    dialect: str, table: Table, names: tuple[str, ...], key: tuple[str, ...]
) -> str:
    changed = [name for name in names if name not in key]
    if dialect == "postgresql":
        sets = ", ".join(f'"{name}" = new."{name}"' for name in changed)
        same = " AND ".join(f'{table.name}."{name}" = new."{name}"' for name in key)
        return (
            f"UPDATE {table.name} SET {sets} "  # noqa: S608
            f"FROM {_unnested(table, names)} AS new ({_listed(names)}) WHERE {same}"
        )
    sets = ", ".join(f'"{name}" = ?' for name in changed)
    same = " AND ".join(f'"{name}" = ?' for name in key)
    return f"UPDATE {table.name} SET {sets} WHERE {same}"  # noqa: S608


def _unnested(table: Table, names: tuple[str, ...]) -> str:
    arrays = ", ".join(f"%s::{table.c[name].type.compile(_POSTGRESQL)}[]" for name in names)
    return f"unnest({arrays})"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
