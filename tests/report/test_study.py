"""The study beside an archive: each statement answered by the runs that can, and by no others."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sqlalchemy import text
from typer.testing import CliRunner

from labctl.archive import open_archive
from labctl.archive.database import open_engine
from labctl.archive.queries import Archive
from labctl.cli import archive as command
from labctl.report.published import ENDURANCE_RETENTION
from labctl.report.study import (
    HEADINGS,
    Expected,
    Row,
    Study,
    print_study,
    read_study,
    study_lines,
    study_text,
)
from labctl.report.study_kinetics import compare_diffusion
from labctl.simulators.cells.spec import Faults

runner = CliRunner()


@pytest.fixture(scope="module")
def study(study_archive: Archive) -> Study:
    """What the archive of the whole study says."""
    return read_study(study_archive)


def row(study: Study, what: str) -> Row:
    (found,) = [one for one in study.rows if what in one.what]
    return found


def test_what_the_simulated_laboratory_measured_agrees_with_the_study(study: Study) -> None:
    assert [(one.what, one.measured) for one in study.disagreeing] == []
    assert {one.number for one in study.rows} == set(range(1, 17))
    unanswered = [one for one in study.rows if one.measured is None]
    assert {one.number for one in unanswered} == {7}
    assert study.left_out == ()


@pytest.mark.parametrize(
    ("what", "value", "within", "runs"),
    [
        ("HE-V: discharge capacity at 0.2C", 170.0, 0.5, {"capacity-he-v"}),
        ("NVP: discharge capacity at 0.2C", 155.2, 0.5, {"capacity-nvp"}),
        ("HE-V: first charge", 115.3, 1.0, {"capacity-he-v"}),
        ("HE-V: first discharge over first charge", 1.47, 0.02, {"capacity-he-v"}),
        ("HE-V: plateau at 4.03 V", 4.03, 0.01, {"capacity-he-v"}),
        ("NVP: highest plateau", 3.395, 0.02, {"capacity-nvp"}),
        (": capacity above 3.6 V", 2.0, 0.2, {"capacity-he-v", "capacity-nvp"}),
        ("capacity, at its closest", 1.095, 0.02, {"ladder-he-v", "ladder-nvp"}),
        ("HE-V: retention at 0.2C", 100.0, 0.3, {"cycling-he-v"}),
        ("capacity of the titration", 170.0, 1.0, {"gitt-he-v"}),
        ("current of the main peaks", 1.49, 0.1, {"cv-he-v", "cv-nvp"}),
        ("charge-transfer resistance", 2.3, 0.3, {"eis-he-v", "eis-nvp"}),
        ("hard carbon: reversible", 299.0, 2.0, {"carbon"}),
        ("hard carbon: sodium lost", 58.0, 3.0, {"carbon"}),
        ("built from a cycled hard carbon", 100.0, 0.0, {"full"}),
        ("full cell: capacity at 0.2C", 169.5, 1.0, {"full"}),
        ("full cell: energy at 0.2C", 484.2, 3.0, {"full"}),
        ("full cell: mean voltage", 2.856, 0.01, {"full"}),
        ("full cell: plateaus", 3.0, 0.0, {"full"}),
        ("full cell without pre-sodiation", 81.0, 3.0, {"full-as-made"}),
        ("at 5C over that at 0.2C", 92.0, 3.0, {"full"}),
        ("markers that have their place", 100.0, 0.0, {"operando-he-v"}),
    ],
)
def test_a_figure_comes_from_the_runs_that_it_names(
    study: Study, what: str, value: float, within: float, runs: set[str]
) -> None:
    found = row(study, what)
    assert found.measured == pytest.approx(value, abs=within)
    assert set(found.runs) == runs


def test_an_endurance_run_on_its_way_says_how_far_it_is(study: Study) -> None:
    rows = [one for one in study.rows if one.number == 7]
    assert [one.remark for one in rows] == ["1000 of 10000 fast cycles so far"] * 3
    assert [one.holds for one in rows] == [None] * 3


@pytest.fixture(scope="module")
def faded(builders: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An archive with 10,000 cycles that fade as published, beside others that end early."""
    url = f"sqlite:///{tmp_path_factory.mktemp('faded') / 'a.db'}"
    lab = builders.Lab(url)
    lab.register("HEV-1", "HE-V")
    lab.register("HEV-2", "HE-V")
    number = np.arange(10_000)
    kept = np.where(
        number < 5000, 1 - 0.048 * number / 4999, 0.952 * (1 - 0.067 * (number - 5000) / 4999)
    )
    builders.fading(lab, "HEV-1", "whole", 86.0 * kept)
    builders.fading(lab, "HEV-2", "half", 84.0 * kept[:6000])
    lab.close()
    return url


class Watched:
    """An archive that remembers of which runs the samples were asked for."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.sampled: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._archive, name)

    def samples(self, run: str, *args: Any, **options: Any) -> Any:
        self.sampled.append(run)
        return self._archive.samples(run, *args, **options)


def test_ten_thousand_cycles_give_the_published_retention_without_their_samples(
    faded: str,
) -> None:
    with open_archive(faded) as archive:
        watched = Watched(archive)
        found = read_study(watched)
    rows = [one for one in found.rows if one.number == 7]
    assert [one.measured for one in rows] == pytest.approx(
        list(ENDURANCE_RETENTION.values()), abs=0.05
    )
    assert [one.runs for one in rows] == [("whole", "half"), ("whole",), ("whole",)]
    assert all(one.holds for one in rows)
    assert watched.sampled == []


def test_cycles_that_are_not_judged_yet_do_not_count(builders: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    lab = builders.Lab(url)
    lab.register("HEV-1", "HE-V")
    builders.fading(lab, "HEV-1", "run-1", np.full(30, 86.0))
    lab.close()
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE cycles SET comparable = NULL, judged = 0 WHERE cycle > 20"))
    engine.dispose()
    with open_archive(url) as archive:
        rows = [one for one in read_study(archive).rows if one.number == 7]
    assert {one.remark for one in rows} == {"20 of 10000 fast cycles so far"}


def test_an_archive_without_runs_says_what_is_to_be_run(builders: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    builders.Lab(url).close()
    with open_archive(url) as archive:
        found = read_study(archive)
    assert found.answered == 0
    assert all("run '" in one.remark for one in found.rows)
    assert found.summary().startswith("0 of 0 measured figures agree")
    assert "run 'Impedance' on HE-V and NVP" in study_text(found)


def test_a_run_with_an_alarm_does_not_stand_for_its_material(builders: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    lab = builders.Lab(url)
    for name in ("HEV-1", "HEV-9"):
        lab.register(name, "HE-V")
    builders.capacity(lab, "HEV-1", "HE-V", "sound")
    fading = builders.new_cell("HE-V", faults=Faults(fade_per_cycle=0.15))
    builders.capacity(lab, "HEV-9", "HE-V", "faulty", fading)
    lab.close()
    with open_archive(url) as archive:
        found = read_study(archive)
        alone = read_study(archive, runs=["faulty"])
    assert row(found, "HE-V: discharge capacity").runs == ("sound",)
    assert row(found, "HE-V: discharge capacity").holds
    assert [one.run for one in found.left_out] == ["faulty"]
    assert "Left out because of an alarm: faulty of cell HEV-9" in found.summary()
    assert alone.answered == 0


def test_only_a_cells_first_run_tells_of_its_first_charge(builders: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    lab = builders.Lab(url)
    lab.register("HEV-1", "HE-V")
    model = builders.new_cell("HE-V")
    builders.capacity(lab, "HEV-1", "HE-V", "as-made", model)
    builders.capacity(lab, "HEV-1", "HE-V", "once-more", model)
    lab.close()
    with open_archive(url) as archive:
        found = read_study(archive)
    assert row(found, "HE-V: first charge").runs == ("as-made",)
    assert row(found, "HE-V: first charge").holds
    assert row(found, "HE-V: discharge capacity").runs == ("as-made", "once-more")


def test_only_the_runs_that_are_named_take_part(study_archive: Archive) -> None:
    found = read_study(study_archive, runs=["capacity-he-v", "cv-nvp"])
    assert {run for one in found.rows for run in one.runs} == {"capacity-he-v"}
    assert row(found, "current of the main peaks").measured is None


def test_diffusion_is_compared_only_where_pulses_are_short_enough_to_tell() -> None:
    def pulses(*diffusivities: tuple[float, bool]) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "visit": 1,
                "equilibrium_V": [1.7 + 0.4 * n for n in range(len(diffusivities))],
                "steady_change_V": 0.01,
                "diffusivity_m2_per_s": [value for value, _ in diffusivities],
                "lower_bound": [bound for _, bound in diffusivities],
            }
        )

    he_v = pulses((3e-15, False), (4e-15, True), (4e-15, True))
    lowest, remark = compare_diffusion(he_v, pulses((1e-15, False), (2e-15, False), (9e-15, True)))
    assert lowest == pytest.approx(2.0)
    assert remark.startswith("at 2 voltages; medians ≥ 3.5e-15 and 1.5e-15")
    lowest, remark = compare_diffusion(he_v, pulses(*[(9e-15, True)] * 3))
    assert lowest is None
    assert "too long" in remark


def test_a_cell_whose_mass_is_wrong_does_not_agree(builders: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    lab = builders.Lab(url)
    lab.register("HEV-1", "HE-V", 1.8e-3)
    builders.capacity(lab, "HEV-1", "HE-V", "run-1", mass_g=1.8e-3)
    lab.close()
    with open_archive(url) as archive:
        found = row(read_study(archive), "HE-V: discharge capacity")
    assert found.holds is False
    assert found.difference == pytest.approx(18.9, abs=1.0)
    result = runner.invoke(command.app, ["study", "--url", url])
    assert result.exit_code == 1
    assert "NO" in result.stdout


def test_a_bound_and_a_figure_hold_as_they_say() -> None:
    near, least, most = Expected(10.0, 1.0), Expected(10.0), Expected(10.0, at_least=False)
    assert [near.holds(value) for value in (9.0, 11.0, 11.1, float("nan"))] == [
        True,
        True,
        False,
        False,
    ]
    assert (least.holds(9.9), least.holds(10.0), most.holds(10.1)) == (False, True, False)
    unknown = Row(1, "x", "V", float("nan"), near)
    assert unknown.said()[2:6] == ("unknown", "10.0 ± 1", "", "NO")
    assert Row(1, "x", "V", None, least).said()[2:6] == ("", "at least 10.0", "", "no run")


@pytest.mark.parametrize("width", [70, 80, 100, 130, 200])
def test_no_terminal_is_too_narrow_for_whole_figures(study: Study, width: int) -> None:
    drawn = study_text(study, width=width)
    assert max(map(len, drawn.splitlines())) <= width
    assert "…" not in drawn
    for figure in ("170.0 mAh/g", "484.2 Wh/kg", "3.43", "NVP over HE-V"):
        assert figure in drawn
    assert "capacity-he-v" in drawn


def test_a_pipe_gets_a_line_a_row_with_tabs(study: Study) -> None:
    out = io.StringIO()
    print_study(study, Console(file=out, width=20))
    assert out.getvalue() == study_lines(study)
    rows = list(csv.DictReader(io.StringIO(out.getvalue()), delimiter="\t"))
    assert len(rows) == len(study.rows)
    assert list(rows[0]) == list(HEADINGS)
    assert rows[0]["measured"].endswith(" mAh/g")
    terminal = io.StringIO()
    print_study(study, Console(file=terminal, width=100, force_terminal=True))
    assert "measured figures agree" in terminal.getvalue()


def test_the_command_prints_the_study_and_draws_its_figures(study_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    named = ["--run", "capacity-he-v", "--run", "cv-he-v", "--run", "cv-nvp"]
    result = runner.invoke(
        command.app, ["study", "--url", study_url, "--plots", str(folder), *named]
    )
    assert result.exit_code == 0, result.output
    assert "HE-V: discharge capacity at 0.2C\t170.0 mAh/g\t170.0 ± 2" in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["capacity.png", "voltammetry.png"]
    assert "voltammetry.png" in result.stderr
