"""An archive of an earlier program is brought up to date with everything that is in it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Engine, text

from labctl.archive import database, open_archive
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.errors import ArchiveError

OLD = json.loads(Path(__file__).with_name("archive-0001.json").read_text(encoding="utf-8"))
"""The tables of an archive with schema 0001 as its own program left them, and the journal that they
came from, of which some batches had not come yet."""
PAYLOADS = [base64.b64decode(payload) for payload in OLD["payloads"]]


@pytest.fixture
def old_engine(archive_url: str) -> Any:
    """That archive in each kind of database."""
    engine = open_engine(archive_url)
    with engine.begin() as connection:
        config = database._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for name, table in OLD["tables"].items():
            columns = ", ".join(f'"{column}"' for column in table["columns"])
            places = ", ".join(f":p{n}" for n in range(len(table["columns"])))
            for row in table["rows"]:
                connection.execute(
                    text(f"INSERT INTO {name} ({columns}) VALUES ({places})"),
                    {f"p{n}": _value(value) for n, value in enumerate(row)},
                )
        if connection.dialect.name == "postgresql":
            for table, column in (("runs", "run_number"), ("alarms", "alarm_number"),
                                  ("alarm_events", "alarm_event_number")):  # fmt: skip
                connection.execute(
                    text(f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), 1)")
                )
    yield engine
    engine.dispose()


def _value(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def _old_rows(engine: Engine, name: str) -> list[tuple[Any, ...]]:
    columns = ", ".join(f'"{column}"' for column in OLD["tables"][name]["columns"])
    with engine.begin() as connection:
        rows = connection.execute(text(f"SELECT {columns} FROM {name}")).all()
    return sorted((tuple(row) for row in rows), key=repr)


def _as_told_before(found: dict[str, Any]) -> dict[str, Any]:
    """The events as JSON of the older program, which knew no type of a cell."""
    rows = found["events"]
    return found | {"events": [(*row[:-1], row[-1].replace(',"cell_type":""', "")) for row in rows]}


def test_an_upgrade_keeps_every_row_of_the_older_archive(old_engine: Engine) -> None:
    upgrade(old_engine)
    for name, table in OLD["tables"].items():
        want = sorted((tuple(map(_value, row)) for row in table["rows"]), key=repr)
        assert _old_rows(old_engine, name) == want, name
    with old_engine.begin() as connection:
        assert connection.execute(text("SELECT cell_type FROM cells")).scalars().all() == [""]


def test_the_rest_of_the_journal_comes_in_after_the_upgrade_as_if_nothing_had_been(
    old_engine: Engine, archive_url: str, tmp_path: Path, lab: Any
) -> None:
    upgrade(old_engine)
    Ingest(old_engine).commit(PAYLOADS, ["node-old"] * len(PAYLOADS))
    fresh = open_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    upgrade(fresh)
    Ingest(fresh).commit([*PAYLOADS, b"noise"], ["node-old"] * len(PAYLOADS))
    assert _as_told_before(lab.dump(old_engine)) == _as_told_before(lab.dump(fresh))
    fresh.dispose()
    with open_archive(archive_url) as archive:
        assert [archive.verify(run).problems for run in ("run-1", "run-2")] == [(), ()]
        assert len(archive.alarms()) == 1


def test_an_older_archive_is_not_read_before_it_is_up_to_date_and_the_message_says_how(
    old_engine: Engine, archive_url: str
) -> None:
    with pytest.raises(
        ArchiveError, match=r"schema 0001, this program needs 0002; call `labctl archive migrate`"
    ):
        open_archive(archive_url)
    upgrade(old_engine)
    with open_archive(archive_url) as archive:
        assert list(archive.runs().index) == ["run-1"]
        assert len(archive.spectra("run-1")) == 0


def test_an_upgrade_that_fails_leaves_the_older_archive_as_it_was(
    old_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(connection: Any) -> None:
        connection.execute(text("SELECT nothing FROM nowhere"))

    with monkeypatch.context() as patched:
        patched.setattr(database, "create_views", broken)
        with pytest.raises(ArchiveError):
            upgrade(old_engine)
    with old_engine.begin() as connection:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    assert version == "0001"
    with pytest.raises(Exception, match="spectra"), old_engine.begin() as connection:
        connection.execute(text("SELECT count(*) FROM spectra"))
    upgrade(old_engine)
    with old_engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM spectra")).scalar_one() == 0
