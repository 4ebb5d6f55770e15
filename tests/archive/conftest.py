"""Archives of every kind, empty or filled, and what fills them."""

from __future__ import annotations

import contextlib
import random
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packed_shelf import RUN, SET_ASIDE, Shelf
from paper_journals import (
    CURRENT_A,
    MASS_G,
    START_UNIX_S,
    CycleSpec,
    Journal,
    Visit,
    program,
    spoil,
    write_run,
    write_visits,
)
from sqlalchemy import Engine, text

from labctl.archive import packing, packing_files, packing_steps
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.program import Program


def dump(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in the archive, without commit stamps and with names instead of numbers."""
    run = "(SELECT run_id FROM runs WHERE runs.run_number = t.run_number)"
    alarm = "(SELECT a.rule FROM alarms AS a WHERE a.alarm_number = t.alarm_number)"
    left_out = {"run_number", "alarm_number", "alarm_event_number", "committed_unix_s",
                "received_unix_s"}  # fmt: skip
    found: dict[str, list[tuple[Any, ...]]] = {}
    with engine.begin() as connection:
        from labctl.archive.schema import TABLES

        for table in TABLES:
            names = [f't."{c.name}"' for c in table.columns if c.name not in left_out]
            if "run_number" in table.c:
                names.insert(0, run if table.name != "runs" else "t.run_id")
            if table.name == "alarm_events":
                names.insert(0, alarm)
            rows = connection.execute(text(f"SELECT {', '.join(names)} FROM {table.name} AS t"))
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found


@dataclass
class Lab:
    """What tests of the archive need, without importing this file."""

    Journal: type[Journal] = Journal
    CycleSpec: type[CycleSpec] = CycleSpec
    Visit: type[Visit] = Visit
    write_run: Callable[..., None] = write_run
    write_visits: Callable[..., None] = write_visits
    spoil: Callable[..., None] = spoil
    dump: Callable[[Engine], dict[str, list[tuple[Any, ...]]]] = dump
    program: Callable[..., Program] = program
    MASS_G: float = MASS_G
    CURRENT_A: float = CURRENT_A
    START_UNIX_S: float = START_UNIX_S


@pytest.fixture(scope="session")
def lab() -> Lab:
    """Builders of journals and a dump of the archive."""
    return Lab()


def _administer(postgresql: Any, statement: str) -> None:
    import psycopg

    address = postgresql.url("postgres").replace("+psycopg", "")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(statement)


@contextlib.contextmanager
def _database(postgresql: Any, template: str = "template1") -> Iterator[str]:
    name = f"archive_{uuid.uuid4().hex[:12]}"
    _administer(postgresql, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield name
    _administer(postgresql, f"DROP DATABASE {name} WITH (FORCE)")


def _made(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive without anything in it, to be copied."""
    path = tmp_path_factory.mktemp("template") / "archive.db"
    _made(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql: Any) -> Iterator[str]:
    """The name of a database with an archive without anything in it, to be copied."""
    with _database(postgresql) as name:
        _made(postgresql.url(name))
        yield name


@pytest.fixture
def postgresql_url(postgresql: Any) -> Iterator[str]:
    """The SQLAlchemy URL of a fresh PostgreSQL database."""
    with _database(postgresql) as name:
        yield postgresql.url(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def archive_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The SQLAlchemy URL of a database of each kind in turn: empty, or for tests that ask for
    ``engine`` with an archive in it that has nothing in it yet."""
    made = "engine" in request.fixturenames
    if request.param == "sqlite":
        path = tmp_path / "archive.sqlite"
        if made:
            shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgresql")
    template = request.getfixturevalue("postgresql_template") if made else "template1"
    with _database(server, template) as name:
        yield server.url(name)


@pytest.fixture
def engine(archive_url: str) -> Iterator[Engine]:
    """An archive of each kind without anything in it, its schema up to date."""
    made = open_engine(archive_url)
    yield made
    made.dispose()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of several row groups, and rows that go in several slices."""
    monkeypatch.setattr(packing_files, "ROWS_AT_LEAST", 25)
    monkeypatch.setattr(packing_files, "ROWS_AT_MOST", 60)
    monkeypatch.setattr(packing, "ROWS_AT_ONCE", 60)
    monkeypatch.setattr(packing_steps, "SLICE_ROWS", 40)


@pytest.fixture
def shelf(small_parts: None, engine: Engine, archive_url: str, tmp_path: Path) -> Shelf:
    """Ten cycles with an alarm, and visits of every kind; the batches came in any order."""
    return _filled(engine, archive_url, tmp_path, ())


@pytest.fixture
def shelf_set_aside(small_parts: None, engine: Engine, archive_url: str, tmp_path: Path) -> Shelf:
    """The same, with the first and the last sample of a run and one between in quarantine."""
    return _filled(engine, archive_url, tmp_path, SET_ASIDE)


def _filled(engine: Engine, archive_url: str, tmp_path: Path, set_aside: Sequence[int]) -> Shelf:
    journal = Journal()
    write_run(journal, [CycleSpec(discharge_h=h) for h in [1.0] * 7 + [0.7] * 3])
    write_visits(journal)
    spoil(journal, RUN, *set_aside)
    payloads = list(journal.payloads)
    random.Random(3).shuffle(payloads)
    Ingest(engine).commit(payloads)
    return Shelf(archive_url, engine, tmp_path / "packed", journal)
