"""The figures of the study say what they should, and refuse to draw nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from labctl.archive import open_archive
from labctl.archive.queries import Archive
from labctl.report import study_plots
from labctl.report.plots_of_cycles import plot_endurance, plot_rate_ladder
from labctl.report.plots_of_kinetics import plot_nyquist, plot_titrations, plot_voltammograms
from labctl.report.published import ENDURANCE_RETENTION
from labctl.report.runs_of_study import StudyRuns
from labctl.report.study_kinetics import circuits_of, titration_of, voltammogram_of


@pytest.fixture(scope="module")
def runs(study_archive: Archive) -> StudyRuns:
    return StudyRuns.read(study_archive)


def chosen(runs: StudyRuns, recipe: str) -> dict[str, Any]:
    return {m: runs.of(recipe, m)[0] for m in ("HE-V", "NVP")}


def test_a_ladder_shows_every_cycle_and_the_rate_of_each_block(runs: StudyRuns) -> None:
    cells = {
        name: (runs.cycles(run), runs.blocks(run))
        for name, run in chosen(runs, "Rate ladder").items()
    }
    (axes,) = plot_rate_ladder(cells).axes
    assert [text.get_text() for text in axes.texts] == [
        "0.2C", "1C", "5C", "10C", "20C", "50C", "0.2C",
    ]  # fmt: skip
    he_v, nvp = (line.get_ydata() for line in axes.lines)
    assert len(he_v) == len(nvp) == 15
    assert (np.asarray(he_v) > np.asarray(nvp)).all()


def test_an_endurance_plot_is_of_fast_cycles_alone_with_the_published_points() -> None:
    number = np.arange(10_000)
    fast = pd.DataFrame(
        {"discharge_mAh_g": 86 * (1 - 1.2e-5 * number), "coulombic_efficiency": 0.9999},
        index=number + 5,
    )
    checks = pd.DataFrame({"discharge_mAh_g": [170.0, 165.0]}, index=[4, 10_005])
    axes, below = plot_endurance(fast, checks, published=ENDURANCE_RETENTION).axes
    curve, slow, *stars = axes.lines
    assert len(curve.get_xdata()) <= 1500
    assert curve.get_ydata()[-1] == pytest.approx(88.0, abs=0.1)
    assert list(slow.get_xdata()) == [0, 10_000]
    assert [star.get_xdata()[0] for star in stars] == [5000, 10_000]
    assert [star.get_ydata()[0] for star in stars] == [95.2, 88.8]
    told = axes.texts[0].get_text()
    assert "cycles 1 to 10,000: 88.0 % (published 88.8 %)" in told
    assert below.get_xlabel() == "fast cycle"
    short, _ = plot_endurance(fast.iloc[:100], checks.iloc[:0]).axes
    assert len(short.texts) == 0


def test_a_titration_shows_lower_bounds_apart(runs: StudyRuns) -> None:
    cells = {name: titration_of(runs, run) for name, run in chosen(runs, "GITT").items()}
    figure = plot_titrations(cells)
    left, right = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [f"{m}, {d}" for m in ("HE-V", "NVP") for d in ("charge", "discharge")]
    assert max(line.get_xdata().max() for line in left.lines) == pytest.approx(168, abs=4)
    hollow = [line for line in right.lines if line.get_markerfacecolor() == "white"]
    assert hollow
    assert right.get_yscale() == "log"


def test_a_voltammogram_names_its_main_peaks(runs: StudyRuns) -> None:
    cells = {
        name: (*(voltammogram_of(runs, run) or ()), run.active_mass_g)
        for name, run in chosen(runs, "Cyclic voltammetry").items()
    }
    (axes,) = plot_voltammograms(cells).axes
    he_v, nvp = (text.get_text() for text in axes.get_legend().get_texts())
    assert "100 mV apart" in he_v
    assert "166 mV apart" in nvp
    assert axes.get_ylabel().startswith("current at 0.1 mV")


def test_a_nyquist_plot_shows_arcs_whole_and_undistorted(runs: StudyRuns) -> None:
    cells = {name: circuits_of(runs, run) for name, run in chosen(runs, "Impedance").items()}
    assert [len(spectra) for spectra in cells.values()] == [5, 5]
    (axes,) = plot_nyquist(cells).axes
    assert axes.get_aspect() == 1
    widest = max(
        sorted(circuit.charge_transfer_ohm for _, circuit in spectra)[2]
        for spectra in cells.values()
    )
    assert axes.get_xlim()[1] > 1.1 * widest
    assert axes.get_ylim()[1] > widest / 2
    assert "± 0." in axes.get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot_rate_ladder({}),
        lambda: plot_endurance(pd.DataFrame({"discharge_mAh_g": []}), pd.DataFrame()),
        lambda: plot_titrations({"x": pd.DataFrame()}),
        lambda: plot_voltammograms({}),
        lambda: plot_nyquist({"x": []}),
    ],
)
def test_nothing_is_not_drawn(draw: Any) -> None:
    with pytest.raises(ValueError, match="to draw"):
        draw()


def test_the_whole_study_is_drawn_into_a_folder(
    study_archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_plots, "DOTS_PER_INCH", 50)
    drawn = study_plots.draw_study(study_archive, tmp_path / "deep" / "plots")
    assert list(drawn) == [
        "capacity", "rate-ladder", "endurance", "gitt", "voltammetry", "impedance", "full-cell",
    ]  # fmt: skip
    assert min(path.stat().st_size for path in drawn.values()) > 5_000
    assert {path.suffix for path in drawn.values()} == {".png"}


def test_an_archive_without_runs_draws_nothing(builders: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    builders.Lab(url).close()
    with open_archive(url) as archive:
        assert study_plots.draw_study(archive, tmp_path / "plots") == {}
