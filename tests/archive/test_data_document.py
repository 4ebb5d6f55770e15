"""What docs/data.md tells people to type works on an archive with a run in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from servers import not_installed
from sqlalchemy import Engine, text

from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found


def fill(engine: Engine, lab: Any) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in [1.0] * 7 + [0.7] * 3])
    lab.write_visits(journal)
    Ingest(engine).commit([*journal.payloads, b"noise"])


def test_every_query_of_the_document_finds_something(engine: Engine, lab: Any) -> None:
    fill(engine, lab)
    with engine.begin() as connection:
        for query in blocks("sql"):
            assert connection.execute(text(query)).all(), query


@pytest.fixture
def folder(tmp_path: Path, lab: Any) -> Path:
    """A folder with an archive.db."""
    engine = open_engine(f"sqlite:///{tmp_path / 'archive.db'}")
    upgrade(engine)
    fill(engine, lab)
    engine.dispose()
    return tmp_path


@pytest.mark.parametrize("program", blocks("python"))
def test_every_program_of_the_document_runs(folder: Path, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", program],
        cwd=folder, capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_backup_holds_everything(folder: Path) -> None:
    if shutil.which("sqlite3") is None:
        not_installed("the program sqlite3", "sqlite3")
    subprocess.run(["sqlite3", "archive.db", ".backup copy.db"], cwd=folder, check=True)
    done = subprocess.run(
        ["sqlite3", "-readonly", "copy.db", "SELECT count(*) FROM samples_named"],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "122"
