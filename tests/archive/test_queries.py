"""Reading the archive as a scientist does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from labctl.analysis.cycles import reference_capacity_Ah, retention
from labctl.archive import open_archive
from labctl.archive.ingest import Ingest
from labctl.archive.queries import Archive
from labctl.errors import ArchiveError
from labctl.model import RECORD_COLUMNS


@pytest.fixture
def archive(engine: Engine, archive_url: str, lab: Any) -> Iterator[Archive]:
    journal = lab.Journal()
    hours = [1.0, 1.2, 1.0, 0.98, 1.02, 0.99, 1.0, 0.7, 0.7, 0.7]
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in hours])
    Ingest(engine).commit(journal.payloads)
    with open_archive(archive_url) as opened:
        yield opened


def test_samples_are_columns_in_the_order_of_seq(archive: Archive) -> None:
    frame = archive.samples("run-1")
    assert list(frame.index) == list(range(1, 101))
    assert list(frame.columns) == [name for name in RECORD_COLUMNS if name != "seq"]
    assert frame["temperature_degC"].isna().sum() == 33
    assert frame.dtypes["cycle"] == np.int64
    assert frame.dtypes["voltage_V"] == np.float64


def test_samples_of_some_cycles_and_some_columns(archive: Archive) -> None:
    frame = archive.samples("run-1", cycle=[2, 4], columns=["voltage_V", "cycle"])
    assert list(frame.columns) == ["voltage_V", "cycle"]
    assert set(frame["cycle"]) == {2, 4}
    assert len(archive.samples("run-1", cycle=[99])) == 0
    with pytest.raises(ArchiveError, match="voltage_mV"):
        archive.samples("run-1", columns=["voltage_mV"])


def test_samples_of_some_steps_and_every_third_of_them(archive: Archive) -> None:
    frame = archive.samples("run-1", step=[2], columns=["step", "cycle"])
    assert set(frame["step"]) == {2}
    assert len(frame) == 50
    assert list(archive.samples("run-1", every=3).index) == list(range(1, 101, 3))
    some = archive.samples("run-1", cycle=range(2, 4), step=(1,), every=2)
    assert list(some.index) == [11, 13, 15, 21, 23, 25]
    assert list(archive.samples("run-1", cycle=[], columns=["voltage_V"]).columns) == ["voltage_V"]
    with pytest.raises(ArchiveError, match="at least 1"):
        archive.samples("run-1", every=0)


def test_cycles_that_are_too_many_to_name_one_by_one_are_found_as_well(
    engine: Engine, archive_url: str, lab: Any
) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 300, samples_per_half=1, rows_per_batch=50)
    Ingest(engine).commit(journal.payloads)
    odd = range(1, 301, 2)
    with open_archive(archive_url) as archive:
        found = archive.samples("run-1", cycle=odd, columns=["voltage_V"])
        assert list(archive.samples("run-1", cycle=odd)["cycle"]) == sorted([*odd, *odd])
    assert list(found.columns) == ["voltage_V"]
    assert len(found) == 300


def test_a_run_thinned_for_a_plot_keeps_its_ends_and_its_extremes(archive: Archive) -> None:
    whole = archive.samples("run-1")
    thin = archive.samples("run-1", points=20, columns=["current_A"])
    assert list(thin.columns) == ["current_A"]
    assert len(thin) <= 20
    assert {1, 100} <= set(thin.index)
    voltage_V = whole.loc[thin.index, "voltage_V"]
    assert voltage_V.min() == whole["voltage_V"].min()
    assert voltage_V.max() == whole["voltage_V"].max()
    with pytest.raises(ArchiveError, match="at least 4"):
        archive.samples("run-1", points=3)


def test_capacities_stand_beside_what_they_were_divided_by(archive: Archive, lab: Any) -> None:
    frame = archive.cycles("run-1").droplevel("run_id")
    np.testing.assert_allclose(frame["discharge_mAh_g"], 1000 * frame["discharge_Ah"] / lab.MASS_G)
    assert (frame["active_mass_g"] == lab.MASS_G).all()
    reference_Ah = reference_capacity_Ah(list(frame["discharge_Ah"].loc[3:7]))
    assert set(frame["reference_discharge_Ah"]) == {reference_Ah}
    assert set(frame["reference_cycles"]) == {"3-7"}
    for cycle in frame.index:
        assert frame.loc[cycle, "retention"] == pytest.approx(
            retention(frame.loc[cycle, "discharge_Ah"], reference_Ah)
        )
    assert frame["mean_charge_voltage_V"].iloc[0] == pytest.approx(3.5)
    assert frame["mean_discharge_voltage_V"].iloc[0] == pytest.approx(3.3)


def test_runs_cells_steps_and_alarms(archive: Archive) -> None:
    runs = archive.runs()
    assert runs.loc["run-1", "outcome"] == "completed"
    assert runs.loc["run-1", "complete_through_seq"] == 100
    cells = archive.cells()
    assert cells.loc["HEV-1", "parents"] == ("sheet-7",)
    steps = archive.steps("run-1")
    assert len(steps) == 20
    assert steps.loc[2, "label"] == "discharge"
    alarms = archive.alarms()
    assert list(alarms["cycle"]) == [10]
    assert list(archive.alarm_events()["trigger"]) == ["raise"]
    assert len(archive.cycles()) == 10


def test_a_run_that_is_not_there_is_said_so(archive: Archive) -> None:
    for ask in (archive.samples, archive.cycles, archive.steps, archive.verify):
        with pytest.raises(ArchiveError, match="no run 'run-x'"):
            ask("run-x")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("DELETE FROM samples WHERE seq = 17", "17 to 17 were committed and are not there"),
        ("INSERT INTO samples SELECT * FROM samples WHERE seq = 3", "sample 3 is there 2 times"),
        ("DELETE FROM batches WHERE first_seq = 8", "the ledger has the samples 1-7 15-100"),
        ('UPDATE cycles SET "charge_Ah" = 1 WHERE cycle = 4', "cycle 4 does not follow"),
        ("UPDATE runs SET last_seq = 120", "ended with sample 120"),
    ],
)
def test_verify_finds_what_is_wrong(
    archive: Archive, engine: Engine, damage: str, complaint: str
) -> None:
    assert archive.verify("run-1").ok
    with engine.begin() as connection:
        connection.execute(text(damage))
    report = archive.verify("run-1")
    assert not report.ok
    assert any(complaint in problem for problem in report.problems), report


def test_the_archive_is_imported_without_pandas() -> None:
    code = "import sys, labctl.archive, labctl.archive.service; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
