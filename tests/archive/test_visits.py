"""Steps of every kind, spectra, markers and branches, from the journal to a scientist's table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine, text

from labctl.archive import open_archive
from labctl.archive.ingest import Ingest
from labctl.archive.queries import Archive
from labctl.errors import ArchiveError
from labctl.model import Cell
from labctl.stream.batches import EventsBatch, decode_batch, encode_events
from labctl.stream.events import CellRegistered, SpectrumMeasured


@pytest.fixture
def archive(engine: Engine, archive_url: str, lab: Any) -> Iterator[Archive]:
    """An archive with the run of :func:`write_visits`."""
    journal = lab.Journal()
    lab.write_visits(journal)
    Ingest(engine).commit(journal.payloads)
    with open_archive(archive_url) as opened:
        yield opened


def test_a_run_with_steps_of_every_kind_is_complete_and_consistent(archive: Archive) -> None:
    report = archive.verify("run-3")
    assert report.problems == ()
    assert (report.samples, report.cycles) == (22, 4)
    steps = archive.steps("run-3")
    assert list(steps["technique"])[:2] == ["wait", "signal"]
    assert list(steps["charge_Ah"])[:2] == [0.0, 0.0]
    assert list(steps["ended_by"])[-1] == "stop"
    assert (steps["last_seq"] - steps["first_seq"] + 1).sum() == 22


def test_a_cycle_that_passes_no_charge_is_reckoned_and_has_no_efficiency(archive: Archive) -> None:
    cycles = archive.cycles("run-3").droplevel("run_id")
    assert cycles.loc[2, "charge_Ah"] == 0
    assert cycles.loc[2, "discharge_Ah"] == 0
    assert math.isnan(cycles.loc[2, "coulombic_efficiency"])
    assert cycles.loc[2, "comparable"]


def test_a_cycle_whose_loop_was_left_early_counts_and_one_that_was_stopped_does_not(
    archive: Archive, lab: Any
) -> None:
    cycles = archive.cycles("run-3").droplevel("run_id")
    assert list(cycles["complete"]) == [True, True, True, False]
    assert list(cycles["comparable"]) == [True, True, True, False]
    assert cycles.loc[3, "charge_Ah"] == pytest.approx(3 * lab.CURRENT_A / 60)
    assert cycles.loc[3, "discharge_Ah"] == pytest.approx(2 * lab.CURRENT_A / 60)


def test_a_spectrum_is_a_row_a_frequency_with_its_working_point(archive: Archive) -> None:
    spectra = archive.spectra("run-3")
    assert list(spectra.index) == [(n, point) for n in (1, 2, 3) for point in (1, 2, 3)]
    first = spectra.loc[1]
    assert list(first["frequency_Hz"]) == [1e5, 10.0, 0.1]
    assert list(first["impedance_imag_ohm"]) == [-0.1, -5.0, -12.5]
    assert set(spectra["voltage_V"]) == {3.4}
    assert spectra["temperature_degC"].isna().all()
    assert spectra.loc[(2, 3), "impedance_real_ohm"] != spectra.loc[(2, 3), "impedance_real_ohm"]
    assert list(first["cycle"]) == [1, 1, 1]
    assert list(first["after_seq"]) == [8, 8, 8]
    assert {str(kind) for kind in spectra.dtypes} == {"int64", "float64"}


def test_a_marker_says_where_the_cell_was_when_it_was_set(archive: Archive, lab: Any) -> None:
    markers = archive.markers("run-3")
    assert list(markers["direction"]) == ["received", "sent", "sent", "sent"]
    assert list(markers["seq"]) == [1, 2, 2, 14]
    assert markers["actor"][0] == "diffractometer"
    assert list(markers["voltage_V"]) == pytest.approx([3.01, 3.02, 3.02, 3.14])
    assert list(markers["active_mass_g"]) == [lab.MASS_G] * 4


def test_a_marker_that_came_between_two_cycles_has_its_sample_too(
    archive: Archive, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE markers SET cycle = 3 WHERE seq = 14"))
    assert archive.markers("run-3")["voltage_V"].iloc[3] == pytest.approx(3.14)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM steps"))
    assert archive.markers("run-3")["voltage_V"].notna().tolist() == [True, True, True, False]


def test_a_branch_is_kept_with_its_reason_and_without_a_time(archive: Archive) -> None:
    events = archive.events("run-3").set_index("kind")
    assert events.loc["branch_taken", "detail"]["reason"] == "retention 79 %"
    assert math.isnan(events.loc["branch_taken", "unix_time_s"])
    assert events.loc["gap_recorded", "detail"]["after_seq"] == 19
    assert list(events.index) == ["branch_taken", "gap_recorded", "run_ended"]


def test_a_run_without_spectra_has_empty_tables_of_the_same_kinds(
    engine: Engine, archive_url: str, lab: Any
) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()])
    Ingest(engine).commit(journal.payloads)
    with open_archive(archive_url) as archive:
        spectra, markers = archive.spectra("run-1"), archive.markers("run-1")
        for ask in (archive.spectra, archive.markers):
            with pytest.raises(ArchiveError, match="no run 'run-x'"):
                ask("run-x")
        assert len(archive.events("nobody")) == 0
    assert (len(spectra), len(markers)) == (0, 0)
    assert spectra["frequency_Hz"].dtype == np.float64
    assert markers["seq"].dtype == np.int64


def test_steps_and_samples_are_given_per_gram_beside_the_mass(engine: Engine, lab: Any) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()])
    Ingest(engine).commit(journal.payloads)
    with engine.begin() as connection:
        step = connection.execute(
            text('SELECT "charge_mAh_g", active_mass_g FROM steps_named ORDER BY visit')
        ).first()
        sample = connection.execute(
            text('SELECT "charge_mAh_g" FROM samples_named WHERE seq = 5')
        ).scalar_one()
        energy = connection.execute(text('SELECT "discharge_Wh_kg" FROM cycles_named')).scalar_one()
    assert tuple(step or ()) == pytest.approx((100.0, lab.MASS_G))
    assert sample == pytest.approx(100.0)
    assert energy == pytest.approx(330.0)


def test_what_was_measured_between_check_ups_is_compared_with_its_own_kind(
    engine: Engine, archive_url: str, lab: Any
) -> None:
    """The shape of the endurance run: formation, then blocks at 50C with a cycle at 0.2C each."""
    journal = lab.Journal()
    specs = [lab.CycleSpec(1.7, 1.7, "formation")] * 3
    for block in range(4):
        specs += [lab.CycleSpec(1.6, 1.6 - 0.01 * block, "0.2C check")]
        fast_h = 1.0 - 0.05 * block
        specs += [lab.CycleSpec(fast_h, fast_h, "50C")] * 6
    lab.write_run(journal, specs, rows_per_batch=40)
    Ingest(engine).commit(journal.payloads)
    with open_archive(archive_url) as archive:
        cycles = archive.cycles("run-1").droplevel("run_id")
        assert len(archive.alarms()) == 0
    fast = cycles[cycles["cycle_class"] == "50C"]
    assert fast["comparable"].all()
    assert fast["retention"].iloc[0] == pytest.approx(1.0)
    assert fast["retention"].iloc[-1] == pytest.approx(0.85)
    assert set(fast["reference_cycles"]) == {"7-10 12"}
    assert cycles[cycles["cycle_class"] == "formation"]["retention"].isna().all()
    check = cycles[cycles["cycle_class"] == "0.2C check"]
    assert check["comparable"].all()
    assert check["retention"].isna().all()  # four check-ups are too few for a reference


def test_a_spectrum_whose_columns_differ_in_length_goes_to_quarantine(
    engine: Engine, lab: Any
) -> None:
    journal = lab.Journal()
    lab.write_visits(journal)
    spoilt = []
    for payload in journal.payloads:
        batch = decode_batch(payload)
        if isinstance(batch, EventsBatch):
            events = tuple(
                msgspec.structs.replace(
                    event, spectrum=msgspec.structs.replace(event.spectrum, frequency_Hz=(1.0,))
                )
                if isinstance(event, SpectrumMeasured) and event.number == 1
                else event
                for event in batch.events
            )
            payload = encode_events(batch.source, batch.number, batch.run, events)  # noqa: PLW2901
        spoilt.append(payload)
    committed = Ingest(engine).commit(spoilt)
    assert committed.quarantined == 1
    assert committed.acks["node-a-1f"].ack.watermark == len(spoilt)
    with engine.begin() as connection:
        reason = connection.execute(text("SELECT reason FROM quarantine")).scalar_one()
    assert "not of the same length" in reason


def test_the_type_of_a_cell_is_kept(engine: Engine, archive_url: str, lab: Any) -> None:
    journal = lab.Journal()
    cell = Cell(
        name="P-1", material="NMC", active_mass_g=0.1, one_C_mA_per_g=150.0,
        safe_voltage_min_V=2.5, safe_voltage_max_V=4.3, cell_type="pouch",
    )  # fmt: skip
    journal.events("", CellRegistered(cell=cell, actor="mia", unix_time_s=lab.START_UNIX_S))
    Ingest(engine).commit(journal.payloads)
    with open_archive(archive_url) as archive:
        assert archive.cells().loc["P-1", "cell_type"] == "pouch"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("UPDATE samples SET visit = 9 WHERE seq = 4", "sample 4 is of visit 9, and the steps say"),
        ("DELETE FROM steps WHERE visit = 3", "samples 3 to 6 belong to no step that ended"),
        ("DELETE FROM spectra WHERE spectrum = 2", "spectra 2 to 2 are not there"),
        ("DELETE FROM spectra WHERE point = 2", "spectrum 1 has 2 of 3 points"),
    ],
)
def test_verify_finds_steps_and_spectra_that_are_wrong(
    archive: Archive, engine: Engine, damage: str, complaint: str
) -> None:
    with engine.begin() as connection:
        connection.execute(text(damage))
    report = archive.verify("run-3")
    assert any(complaint in problem for problem in report.problems), report
