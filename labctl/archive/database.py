"""Engines for the two databases, and bringing a database up to the schema of this program.

SQLite runs in WAL mode with ``synchronous=FULL``: in a simulated power cut NORMAL lost thousands of
committed rows. Transactions begin as IMMEDIATE, for the archive is the writer.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from labctl.archive.timescale import divide_new
from labctl.archive.views import create_views, drop_views
from labctl.errors import ArchiveError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 5.0
_UPGRADE_LOCK = 7_236_181_001
"""Any number will do that nobody else uses as an advisory lock."""


def archive_url(url: str) -> URL:
    """A URL for SQLAlchemy: ``sqlite:///file.db`` or ``postgresql://user@host/database``.

    Raises:
        ArchiveError: neither of the two.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ArchiveError(
            f"{url!r} is not the address of an archive; "
            "write sqlite:///path/to/file.db or postgresql://user@host/database"
        ) from error
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise ArchiveError("an archive in SQLite needs a file: sqlite:///path/to/file.db")
        return parsed
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise ArchiveError(f"an archive lives in SQLite or PostgreSQL, not in {parsed.drivername!r}")


def open_engine(url: str, *, read_only: bool = False, create: bool = True) -> Engine:
    """An engine for the archive at ``url``. Nothing is connected yet.

    Args:
        create: make an SQLite file that is not there. A program that is not the archive leaves
            this, and the checkpoints of the file, to the archive.
        read_only: SQLite opens the file for reading alone, PostgreSQL refuses to write.

    Raises:
        ArchiveError: not an address, or the database's driver is not installed.
    """
    parsed = archive_url(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            return _sqlite_engine(parsed, "ro" if read_only else "rwc" if create else "rw")
        engine = create_engine(parsed, pool_size=2, max_overflow=4, pool_pre_ping=True)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ArchiveError(
            f"no driver for {parsed.drivername!r}; install labctl[postgresql]"
        ) from error
    if read_only:

        @event.listens_for(engine, "begin")
        def _only_read(connection: Connection) -> None:
            # What is noted of a packed run must be of the same moment as what is in its table.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    return engine


def upgrade(engine: Engine) -> None:
    """Bring the database up to the schema of this program; do nothing if it is there already.

    Raises:
        ArchiveError: the database is newer than this program, or it cannot be reached.
    """
    script = _scripts()
    head = script.get_current_head()
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")
            current = _refuse_newer(connection, script)
            if current == head:
                return
            drop_views(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            create_views(connection)
            if current is None:
                divide_new(connection)
    except DBAPIError as error:
        raise ArchiveError(f"the archive {_name(engine)} cannot be opened: {error.orig}") from error


def check(engine: Engine) -> None:
    """See that the database has the schema of this program.

    Raises:
        ArchiveError: it is newer, older, not an archive, or cannot be reached.
    """
    script = _scripts()
    try:
        with engine.connect() as connection:
            current = _refuse_newer(connection, script)
    except DBAPIError as error:
        raise ArchiveError(f"the archive {_name(engine)} cannot be opened: {error.orig}") from error
    if current is None:
        raise ArchiveError(
            f"{_name(engine)} is not an archive; start `labctl archive run` or call "
            "`labctl archive migrate` to make one"
        )
    if current != script.get_current_head():
        raise ArchiveError(
            f"the archive {_name(engine)} has schema {current}, this program needs "
            f"{script.get_current_head()}; call `labctl archive migrate`"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _refuse_newer(connection: Connection, script: ScriptDirectory) -> str | None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise ArchiveError(
            f"the archive {_name(connection.engine)} has schema {current}, this program knows "
            f"schemas up to {script.get_current_head()}; install a newer labctl"
        )
    return current


def _name(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)


def _sqlite_engine(url: URL, mode: str) -> Engine:
    path = Path(str(url.database)).resolve()

    def connect() -> sqlite3.Connection:
        if mode == "rwc":
            path.parent.mkdir(parents=True, exist_ok=True)
        return sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )

    absolute = url.set(database=str(path))
    engine = create_engine(absolute, creator=connect, poolclass=None if mode == "rwc" else NullPool)

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: object) -> None:
        pragmas = ["foreign_keys=ON", "temp_store=MEMORY"]
        if mode != "ro":
            pragmas += ["journal_mode=WAL", "synchronous=FULL"]
        if mode == "rw":
            # SQLite before 3.51.3 can corrupt a WAL that two connections checkpoint at once.
            pragmas.append("wal_autocheckpoint=0")
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if mode == "ro" else "BEGIN IMMEDIATE")

    return engine
