"""``labctl archive`` and ``labctl alarms`` as a person types them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from labctl.archive.database import open_engine
from labctl.archive.ingest import Ingest
from labctl.cli import alarms, archive
from labctl.errors import ArchiveError

runner = CliRunner()


@pytest.fixture
def url(lab: Any, tmp_path: Path) -> str:
    address = f"sqlite:///{tmp_path / 'a.db'}"
    result = runner.invoke(archive.app, ["migrate", "--url", address])
    assert result.exit_code == 0, result.output
    journal = lab.Journal()
    hours = [1.0] * 7 + [0.7] * 3
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in hours])
    engine = open_engine(address)
    Ingest(engine).commit(journal.payloads)
    engine.dispose()
    return address


def test_a_run_is_exported_as_csv_with_units_in_its_head(url: str) -> None:
    result = runner.invoke(archive.app, ["export", "run-1", "--url", url])
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 100
    assert rows[0]["current_A"] == "0.0002"
    assert rows[2]["temperature_degC"] == ""


def test_a_damaged_archive_ends_verify_with_code_1(url: str) -> None:
    result = runner.invoke(archive.app, ["verify", "--url", url])
    assert result.exit_code == 0
    assert "complete and consistent" in result.stdout
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM samples WHERE seq = 5"))
    engine.dispose()
    result = runner.invoke(archive.app, ["verify", "run-1", "--url", url])
    assert result.exit_code == 1
    assert "samples 5 to 5" in result.stdout


def test_cycles_are_shown_per_gram(url: str) -> None:
    result = runner.invoke(archive.app, ["cycles", "run-1", "--last", "3", "--url", url])
    assert "70.00" in result.stdout
    assert "2 mg of active material" in result.stdout


def test_an_alarm_is_listed_and_acknowledged(url: str) -> None:
    listed = runner.invoke(alarms.app, ["list", "--url", url])
    assert "retention  cell HEV-1  run-1  unacknowledged" in listed.stdout
    assert "70.0%" in listed.stdout
    result = runner.invoke(alarms.app, ["ack", "1", "--actor", "mia", "--url", url])
    assert "alarm 1 of cell HEV-1 is acknowledged" in result.stdout
    listed = runner.invoke(alarms.app, ["list", "--url", url])
    assert "  acknowledged  " in listed.stdout


def test_a_missing_archive_is_not_made_by_asking_for_it(tmp_path: Path) -> None:
    result = runner.invoke(alarms.app, ["ack", "1", "--url", f"sqlite:///{tmp_path / 'no.db'}"])
    assert isinstance(result.exception, ArchiveError)
    assert list(tmp_path.iterdir()) == []
