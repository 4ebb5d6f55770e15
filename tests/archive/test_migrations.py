"""An archive of an earlier program is brought up to date with everything that is in it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from labctl.archive import database, open_archive
from labctl.archive.alarm_commands import shelve
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.errors import ArchiveError

VERSIONS = ("0001", "0002")
SEQUENCES = {"runs": "run_number", "alarms": "alarm_number", "alarm_events": "alarm_event_number"}


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest) -> Any:
    """The tables of an archive with an earlier schema as its own program left them, and the journal
    that they came from, of which some batches had not come yet."""
    path = Path(__file__).with_name(f"archive-{request.param}.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    found["version"] = request.param
    found["payloads"] = [base64.b64decode(payload) for payload in found["payloads"]]
    return found


@pytest.fixture
def old_engine(old: Any, archive_url: str) -> Any:
    """That archive in each kind of database."""
    engine = open_engine(archive_url)
    with engine.begin() as connection:
        config = database._config()
        config.attributes["connection"] = connection
        command.upgrade(config, old["version"])
        for name, table in old["tables"].items():
            columns = ", ".join(f'"{column}"' for column in table["columns"])
            places = ", ".join(f":p{n}" for n in range(len(table["columns"])))
            for row in table["rows"]:
                connection.execute(
                    text(f"INSERT INTO {name} ({columns}) VALUES ({places})"),
                    {f"p{n}": _value(value) for n, value in enumerate(row)},
                )
        if connection.dialect.name == "postgresql":
            for name, column in SEQUENCES.items():
                last = max((row[0] for row in old["tables"][name]["rows"]), default=1)
                connection.execute(
                    text(f"SELECT setval(pg_get_serial_sequence('{name}', '{column}'), {last})")
                )
    yield engine
    engine.dispose()


def _value(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def _rows(engine: Engine, name: str, table: Any) -> list[tuple[Any, ...]]:
    columns = ", ".join(f'"{column}"' for column in table["columns"])
    with engine.begin() as connection:
        rows = connection.execute(text(f"SELECT {columns} FROM {name}")).all()
    return sorted((tuple(row) for row in rows), key=repr)


def _as_told_before(found: dict[str, Any]) -> dict[str, Any]:
    """The events as JSON of the older program, which knew no type of a cell."""
    rows = found["events"]
    return found | {"events": [(*row[:-1], row[-1].replace(',"cell_type":""', "")) for row in rows]}


def test_an_upgrade_keeps_every_row_of_the_older_archive(old: Any, old_engine: Engine) -> None:
    upgrade(old_engine)
    assert sum(len(table["rows"]) for table in old["tables"].values()) > 50
    for name, table in old["tables"].items():
        want = sorted((tuple(map(_value, row)) for row in table["rows"]), key=repr)
        assert _rows(old_engine, name, table) == want, name
    with old_engine.begin() as connection:
        assert connection.execute(text("SELECT cell_type FROM cells")).scalars().all() == [""]
        found = connection.execute(
            text("SELECT DISTINCT subject, shelved_until_unix_s, aside_actor FROM alarms")
        )
        assert [tuple(row) for row in found] == [("", None, "")]


def test_the_rest_of_the_journal_comes_in_after_the_upgrade_as_if_nothing_had_been(
    old: Any, old_engine: Engine, archive_url: str, tmp_path: Path, lab: Any
) -> None:
    upgrade(old_engine)
    payloads = old["payloads"]
    Ingest(old_engine).commit(payloads, ["node-old"] * len(payloads))
    fresh = open_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    upgrade(fresh)
    Ingest(fresh).commit([*payloads, b"noise"], ["node-old"] * len(payloads))
    mine, wanted = _as_told_before(lab.dump(old_engine)), _as_told_before(lab.dump(fresh))
    if old["version"] == "0002":
        for name in ("alarms", "alarm_events"):
            # A limit that tripped latches now; and somebody acknowledged the retention alarm.
            mine.pop(name), wanted.pop(name)
    assert mine == wanted
    fresh.dispose()
    with open_archive(archive_url) as archive:
        runs = list(archive.runs().index)
        assert [archive.verify(run).problems for run in runs] == [()] * len(runs)
        rules = {"0001": ["retention"], "0002": ["held", "retention", "tripped"]}
        assert sorted(archive.alarms()["rule"]) == rules[old["version"]]


def test_an_alarm_of_an_older_archive_goes_on_where_it_was(
    old: Any, old_engine: Engine, archive_url: str
) -> None:
    upgrade(old_engine)
    with open_archive(archive_url) as archive:
        before = len(archive.alarm_events())
        standing = archive.alarms().query("state == 'unacknowledged' or state == 'acknowledged'")
        [number] = standing.index
    shelve(old_engine, number, until_unix_s=5e9, actor="mia", note="next week")
    with open_archive(archive_url) as archive:
        assert archive.alarms().loc[number, "state"] == "shelved"
        events = archive.alarm_events()
        assert (len(events), events["trigger"].iloc[-1]) == (before + 1, "shelve")


def test_an_alarm_about_no_run_is_there_once_in_each_kind_of_database(engine: Engine) -> None:
    columns = (
        "subject, rule, rule_number, cycle_class, priority, state, active, verdict, message, unit, "
        "reference_unit, cycles, reference_cycles, cycle"
    )
    line = text(
        f"INSERT INTO alarms ({columns}) VALUES (:subject, :rule, 1, '', 'high', "
        "'normal', false, 'holds', '', '', '', '', '', 0)"
    )
    with engine.begin() as connection:
        for subject, rule in (("node a", "disk"), ("node b", "disk"), ("node a", "behind")):
            connection.execute(line, {"subject": subject, "rule": rule})
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(line, {"subject": "node b", "rule": "disk"})


def test_an_older_archive_is_not_read_before_it_is_up_to_date_and_the_message_says_how(
    old: Any, old_engine: Engine, archive_url: str
) -> None:
    head = database._scripts().get_current_head()
    with pytest.raises(
        ArchiveError,
        match=rf"schema {old['version']}, this program needs {head}; call `labctl archive migrate`",
    ):
        open_archive(archive_url)
    upgrade(old_engine)
    with open_archive(archive_url) as archive:
        assert "run-1" in archive.runs().index
        assert len(archive.spectra("run-1")) == 0


def test_an_upgrade_that_fails_leaves_the_older_archive_as_it_was(
    old: Any, old_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(connection: Any) -> None:
        connection.execute(text("SELECT nothing FROM nowhere"))

    with monkeypatch.context() as patched:
        patched.setattr(database, "create_views", broken)
        with pytest.raises(ArchiveError):
            upgrade(old_engine)
    with old_engine.begin() as connection:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    assert version == old["version"]
    with pytest.raises(Exception, match="notices"), old_engine.begin() as connection:
        connection.execute(text("SELECT count(*) FROM notices"))
    for name, table in old["tables"].items():
        assert len(_rows(old_engine, name, table)) == len(table["rows"])
    upgrade(old_engine)
    with old_engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM notices")).scalar_one() == 0
