"""TimescaleDB: without it nothing happens; a stand-in for it is told what the real one would be."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.timescale import divide, statement
from labctl.errors import ArchiveError

STAND_IN = """
CREATE SCHEMA timescaledb_information;
CREATE TABLE timescaledb_information.hypertables (
    hypertable_schema name, hypertable_name name, asked text);
CREATE FUNCTION by_range(name, integer) RETURNS text LANGUAGE sql
    AS $$ SELECT $1 || ' by ' || $2 $$;
CREATE FUNCTION create_hypertable(
    relation regclass, dimension text, create_default_indexes boolean, migrate_data boolean)
    RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT migrate_data AND EXISTS (SELECT 1 FROM samples) THEN
        RAISE EXCEPTION 'table "samples" is not empty';
    END IF;
    INSERT INTO timescaledb_information.hypertables VALUES (
        current_schema(), relation, dimension || create_default_indexes || migrate_data);
END $$;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    VALUES (99999, 'timescaledb', 10, 'public'::regnamespace, false, '2.17.0');
"""


@pytest.fixture
def timescale(postgresql_url: str) -> Any:
    """An archive on a PostgreSQL that has what labctl asks of TimescaleDB."""
    engine = open_engine(postgresql_url)
    upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(STAND_IN)
    yield engine
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM pg_extension WHERE extname = 'timescaledb'"))
    engine.dispose()


def asked(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        query = text("SELECT asked FROM timescaledb_information.hypertables")
        return [str(one) for one in connection.execute(query).scalars()]


def test_without_timescaledb_nothing_happens(engine: Engine) -> None:
    assert divide(engine) == ""
    assert divide(engine, with_rows=True) == ""


def test_an_empty_table_is_divided_by_runs_once(timescale: Engine) -> None:
    assert "50 runs a part" in divide(timescale)
    assert asked(timescale) == ["run_number by 50falsefalse"]
    assert divide(timescale) == ""
    assert len(asked(timescale)) == 1


def test_a_table_with_rows_is_divided_only_when_that_is_asked_for(
    timescale: Engine, lab: Any
) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()])
    Ingest(timescale).commit(journal.payloads)
    assert "--hypertable" in divide(timescale)
    assert asked(timescale) == []
    assert "50 runs a part" in divide(timescale, with_rows=True)
    assert asked(timescale) == ["run_number by 50falsetrue"]


@pytest.mark.parametrize("refuses", [False, True])
def test_a_new_archive_is_divided_when_it_is_made_and_made_all_the_same_where_that_fails(
    postgresql_url: str, refuses: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(postgresql_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(STAND_IN)
        if refuses:
            connection.execute(text("DROP FUNCTION by_range"))
    upgrade(engine)
    assert len(asked(engine)) == (0 if refuses else 1)
    assert ("does not divide" in caplog.text) == refuses
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM samples_named")).scalar() == 0
        connection.execute(text("DELETE FROM pg_extension WHERE extname = 'timescaledb'"))
    engine.dispose()


def test_what_timescaledb_refuses_is_said(timescale: Engine) -> None:
    with timescale.begin() as connection:
        connection.execute(text("DROP FUNCTION by_range"))
    with pytest.raises(ArchiveError, match="does not divide the samples"):
        divide(timescale)


def test_the_statement_names_the_number_of_the_run() -> None:
    assert statement(with_rows=False) == (
        "SELECT create_hypertable('samples', by_range('run_number', 50), "
        "create_default_indexes => false, migrate_data => false)"
    )
