"""The driver's own calls, on SQLAlchemy's connection, with SQLAlchemy's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, exc


@contextlib.contextmanager
def as_sqlalchemy_raises(connection: Connection, what: str) -> Iterator[None]:
    """Turn what a driver raises into what SQLAlchemy would have raised."""
    dbapi: Any = connection.dialect.dbapi
    try:
        yield
    except dbapi.Error as error:
        for kind in (exc.DataError, exc.IntegrityError, exc.OperationalError, exc.InterfaceError):
            if isinstance(error, getattr(dbapi, kind.__name__)):
                raise kind(what, None, error) from error
        raise exc.DatabaseError(what, None, error) from error
