"""Runs as files, as others read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

import labctl
from labctl.archive import exporting
from labctl.archive.exports import FORMATS
from labctl.archive.exports.bdf import LABELS
from labctl.archive.exports.common import UNITS, unit_of
from labctl.archive.ingest import Ingest
from labctl.archive.queries import Archive
from labctl.cli import archive as commands
from labctl.errors import ArchiveError

runner = CliRunner()


@pytest.fixture
def measured(engine: Engine, archive_url: str, lab: Any) -> Iterator[Archive]:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 10)
    lab.write_run(journal, [lab.CycleSpec()] * 2, run="run-2", cell='odd, "cell"')
    Ingest(engine).commit(journal.payloads)
    with labctl.open(archive_url) as opened:
        yield opened


def read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def test_csv_holds_every_sample_to_the_last_digit(
    measured: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "ROWS_AT_ONCE", 30)
    told: list[tuple[str, int, int]] = []
    path = tmp_path / "run.csv"
    written = measured.export("run-1", path, progress=lambda *args: told.append(args))
    assert written == [path]
    assert told == [("run-1", done, 100) for done in (30, 60, 90, 100)]
    want = measured.samples("run-1").reset_index()
    pd.testing.assert_frame_equal(read_csv(path), want)
    lines = path.read_bytes().split(b"\r\n")
    assert lines[-1] == b""
    assert len(lines) == 102
    assert b"\n" not in b"".join(lines)
    assert lines[3].endswith(b",")
    assert lines[2].endswith(b",25.0")


def test_remarks_come_only_if_they_are_asked_for(measured: Archive, tmp_path: Path) -> None:
    plain, told = tmp_path / "plain.csv", tmp_path / "told.csv"
    measured.export("run-2", plain)
    measured.export("run-2", told, remarks=True)
    remarks = [line for line in told.read_text().splitlines() if line.startswith("#")]
    assert '# cell: odd, "cell"' in remarks
    assert "# active_mass_g: 0.002" in remarks
    assert told.read_bytes().endswith(plain.read_bytes())
    assert b"#" not in plain.read_bytes()


def test_cycles_and_steps_are_tables_too(measured: Archive, tmp_path: Path) -> None:
    measured.export(["run-1", "run-2"], tmp_path, format="csv", what=["cycles", "steps", "samples"])
    names = {path.name for path in tmp_path.iterdir() if path.suffix == ".csv"}
    assert names == {f"run-{n}{what}.csv" for n in (1, 2) for what in ("", ".cycles", ".steps")}
    cycles = read_csv(tmp_path / "run-1.cycles.csv")
    assert list(cycles["discharge_mAh_g"]) == list(measured.cycles("run-1")["discharge_mAh_g"])
    assert list(cycles["complete"]) == [True] * 10
    assert len(read_csv(tmp_path / "run-2.steps.csv")) == 4
    with (tmp_path / "run-2.cycles.csv").open(newline="") as file:
        assert {row["cell"] for row in csv.DictReader(file)} == {'odd, "cell"'}


def test_parquet_says_its_units_and_its_run(measured: Archive, tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "run.parquet"
    measured.export("run-1", path)
    pd.testing.assert_frame_equal(
        pd.read_parquet(path), measured.samples("run-1").reset_index(), check_dtype=True
    )
    file = parquet.ParquetFile(path)
    for name, unit in (("voltage_V", b"V"), ("charge_Ah", b"Ah"), ("seq", b"1")):
        assert file.schema_arrow.field(name).metadata[b"unit"] == unit
    assert file.schema_arrow.metadata[b"labctl.cell"] == b"HEV-1"
    group = file.metadata.row_group(0)
    assert group.column(0).compression == "ZSTD"
    assert group.sorting_columns[0].column_index == 0
    measured.export("run-1", tmp_path / "c.parquet", what="cycles")
    cycles = pd.read_parquet(tmp_path / "c.parquet")
    assert list(cycles["cycle_class"]) == ["cycle"] * 10


def test_bdf_is_valid_by_the_alliances_own_program(measured: Archive, tmp_path: Path) -> None:
    import bdf

    path = tmp_path / "run.bdf.csv"
    measured.export("run-1", path)
    report = bdf.validate(str(path), raise_on_error=True)
    assert report["ok"]
    assert report["extras"] == []
    assert report["legacy_labels"] == []
    assert report["n_rows"] == 100
    assert report["time_stats"]["monotonic"]
    frame = bdf.load(str(path)) if hasattr(bdf, "load") else pd.read_csv(path)
    assert list(frame["Voltage / V"]) == list(measured.samples("run-1")["voltage_V"])


def test_bdf_names_units_as_the_columns_have_them() -> None:
    for name, label in LABELS.items():
        assert label.rsplit(" / ", 1)[1] == UNITS.get(unit_of(name), "1")


def test_a_file_that_could_not_be_finished_is_not_there(
    measured: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.csv"
    path.write_text("the one before")

    def breaks(run: str, done: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured.export("run-1", path, progress=breaks)
    assert path.read_text() == "the one before"
    assert [each.name for each in tmp_path.glob("*.part")] == []
    with pytest.raises(ArchiveError, match="cannot be written"):
        measured.export("run-1", tmp_path / "run.csv" / "below.csv")


def test_an_export_of_many_runs_that_was_broken_off_goes_on(
    measured: Archive, tmp_path: Path
) -> None:
    (tmp_path / "run-1.csv").write_text("is there already")
    written = measured.export(["run-1", "run-2"], tmp_path, format="csv", replace=False)
    assert written == [tmp_path / "run-2.csv"]
    assert (tmp_path / "run-1.csv").read_text() == "is there already"


def test_what_cannot_be_written_is_refused(measured: Archive, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no format 'xls'"):
        measured.export("run-1", tmp_path / "a.xls", format="xls")
    with pytest.raises(ArchiveError, match="does not end like"):
        measured.export("run-1", tmp_path / "a.xls")
    with pytest.raises(ArchiveError, match="holds samples"):
        measured.export("run-1", tmp_path / "a.bdf.csv", what="cycles")
    (tmp_path / "file.csv").touch()
    with pytest.raises(ArchiveError, match="need a folder"):
        measured.export(["run-1", "run-2"], tmp_path / "file.csv")


def test_a_run_without_samples_is_a_file_with_a_head(
    engine: Engine, archive_url: str, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO runs (run_number, run_id, source) VALUES (1, 'run-0', 'node-x')")
        )
    with labctl.open(archive_url) as opened:
        for kind, each in FORMATS.items():
            opened.export("run-0", tmp_path / f"run-0{each.suffix}", format=kind)
    assert len(read_csv(tmp_path / "run-0.csv")) == 0
    assert len(pd.read_parquet(tmp_path / "run-0.parquet")) == 0


def test_the_command_writes_files_and_prints_csv(
    measured: Archive, archive_url: str, tmp_path: Path
) -> None:
    printed = runner.invoke(commands.app, ["export", "run-2", "--cycles", "--url", archive_url])
    assert printed.exit_code == 0
    assert len(list(csv.DictReader(io.StringIO(printed.stdout)))) == 2
    told = ["export", "run-1", "run-2", "--format", "parquet", "--out", str(tmp_path)]
    assert runner.invoke(commands.app, [*told, "--url", archive_url]).exit_code == 0
    assert len(pd.read_parquet(tmp_path / "run-2.parquet")) == 20
    done = runner.invoke(commands.app, [*told, "--go-on", "--url", archive_url])
    assert "wrote" not in done.stderr
