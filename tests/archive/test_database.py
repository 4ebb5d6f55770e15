"""The schema comes from its migrations, and a newer one is not touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from labctl.archive import database, open_archive
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.schema import metadata
from labctl.archive.views import VIEWS
from labctl.errors import ArchiveError


def test_the_migrations_make_exactly_the_tables_that_the_program_declares(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": connection.dialect.name == "postgresql",
            },
        )
        assert compare_metadata(context, metadata) == []


def test_an_upgrade_of_an_archive_that_is_up_to_date_changes_nothing(
    engine: Engine, lab: Any
) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()])
    Ingest(engine).commit(journal.payloads)
    before = lab.dump(engine)
    upgrade(engine)
    assert lab.dump(engine) == before


def test_an_archive_of_a_newer_program_is_refused_and_the_message_says_so(
    engine: Engine, archive_url: str
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ArchiveError, match=r"schema 9999.*install a newer labctl"):
        upgrade(engine)
    with pytest.raises(ArchiveError, match="newer labctl"):
        open_archive(archive_url)


def test_what_is_not_an_archive_is_not_opened(archive_url: str) -> None:
    if archive_url.startswith("sqlite"):
        with pytest.raises(ArchiveError, match="cannot be opened"):
            open_archive(archive_url)
        Path(archive_url.removeprefix("sqlite:///")).touch()
    with pytest.raises(ArchiveError, match="is not an archive"):
        open_archive(archive_url)


def test_an_archive_opened_for_reading_cannot_be_written(engine: Engine, archive_url: str) -> None:
    reader = open_engine(archive_url, read_only=True)
    with pytest.raises(Exception, match=r"(?i)read-?only"), reader.begin() as connection:
        connection.execute(text("DELETE FROM samples"))
    reader.dispose()


def test_every_view_can_be_read(engine: Engine) -> None:
    with engine.connect() as connection:
        for name in VIEWS:
            assert connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() == 0


def test_a_committed_transaction_of_sqlite_is_on_the_disk(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'deep' / 'a.db'}")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    engine.dispose()


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ArchiveError):
        database.archive_url(url)
