"""TimescaleDB, where PostgreSQL has it: the table ``samples`` divided into parts by run.

It is divided by ``run_number`` and not by time: everything that is asked of samples is asked of a
run, runs of months lie side by side in time, and a run that is packed or deleted leaves whole parts
empty. Without the extension nothing happens, and everything else is the same with it.

TimescaleDB API reference, "create_hypertable" (``by_range``, since 2.13) and the view
``timescaledb_information.hypertables``.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from labctl.errors import ArchiveError

log = logging.getLogger(__name__)

RUNS_A_PART = 50


def statement(*, with_rows: bool) -> str:
    """What makes ``samples`` a hypertable; its index of runs and cycles stays the only one."""
    return (
        f"SELECT create_hypertable('samples', by_range('run_number', {RUNS_A_PART}), "
        f"create_default_indexes => false, migrate_data => {str(with_rows).lower()})"
    )


def divide(engine: Engine, *, with_rows: bool = False) -> str:
    """Make ``samples`` a hypertable, if TimescaleDB is there and it is none yet.

    Args:
        with_rows: if it has rows already, too, which then all are written anew.

    Returns:
        What was done, or what could be, for a person; '' where there is no TimescaleDB.

    Raises:
        ArchiveError: the database refuses.
    """
    if engine.dialect.name != "postgresql":
        return ""
    try:
        with engine.begin() as connection:
            return _divide(connection, with_rows=with_rows)
    except DBAPIError as error:
        raise ArchiveError(f"TimescaleDB does not divide the samples: {error.orig}") from error


def divide_new(connection: Connection) -> None:
    """Make ``samples`` of an archive that is being made a hypertable, if TimescaleDB is there; an
    archive is not kept from starting by it."""
    if connection.dialect.name != "postgresql":
        return
    try:
        with connection.begin_nested():
            if said := _divide(connection, with_rows=False):
                log.info("%s", said)
    except DBAPIError as error:
        log.warning("TimescaleDB does not divide the samples: %s", error.orig)


def _divide(connection: Connection, *, with_rows: bool) -> str:
    if not _holds(connection, "SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'"):
        return ""
    if _holds(
        connection,
        "SELECT 1 FROM timescaledb_information.hypertables "
        "WHERE hypertable_schema = current_schema() AND hypertable_name = 'samples'",
    ):
        return ""
    if not with_rows and _holds(connection, "SELECT 1 FROM samples LIMIT 1"):
        return (
            "TimescaleDB is there and the table of samples is in one piece, for it has rows; "
            "'labctl archive migrate --hypertable' divides it"
        )
    connection.execute(text(statement(with_rows=with_rows)))
    return f"the table of samples is divided by TimescaleDB, {RUNS_A_PART} runs a part"


def _holds(connection: Connection, query: str) -> bool:
    return connection.execute(text(query)).first() is not None
