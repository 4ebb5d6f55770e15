"""The figures of the study as files, drawn from an archive."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from labctl.report import published as study
from labctl.report.plots import COLUMNS, plot_capacity
from labctl.report.plots_of_cycles import plot_endurance, plot_rate_ladder
from labctl.report.plots_of_kinetics import plot_nyquist, plot_titrations, plot_voltammograms
from labctl.report.published import HE_V, NVP
from labctl.report.runs_of_study import Measured, StudyRun, StudyRuns
from labctl.report.study_capacity import fast_cycles
from labctl.report.study_kinetics import circuits_of, titration_of, voltammogram_of

DOTS_PER_INCH = 130
MOST_CYCLES = 6
"""Of one cell in a plot of voltage over capacity."""


def draw_study(
    archive: Measured, folder: Path, *, runs: Collection[str] | None = None
) -> dict[str, Path]:
    """Draw what the archive has runs for, into PNG files; gives them by name.

    Names: capacity, rate-ladder, endurance, gitt, voltammetry, impedance, full-cell. What no run
    was made of is left out.

    Args:
        folder: made if it is not there; files of the same name are replaced.
        runs: these alone; None for all.

    Raises:
        ArchiveError: the archive cannot be read.
        OSError: a file cannot be written.
    """
    chosen = StudyRuns.read(archive, runs)
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Path] = {}
    for name, draw in _FIGURES.items():
        figure = draw(chosen)
        if figure is not None:
            drawn[name] = folder / f"{name}.png"
            figure.savefig(drawn[name], dpi=DOTS_PER_INCH)
    return drawn


def _both(runs: StudyRuns, recipe: str) -> list[StudyRun]:
    """The newest run of a recipe on each of the cathodes."""
    return [found[-1] for material in (HE_V, NVP) if (found := runs.of(recipe, material))]


def _label(run: StudyRun) -> str:
    return f"{run.material}, {run.cell}"


def _capacity(runs: StudyRuns) -> Figure | None:
    some = [run for material in (HE_V, NVP) for run in runs.of(study.CAPACITY, material)]
    return _profiles(runs, some, "Capacity at 0.2C, 1.5 to 4.1 V")


def _full_cell(runs: StudyRuns) -> Figure | None:
    some = runs.full_cells(study.FULL_CELL, presodiated=True)[-1:]
    without = runs.full_cells(study.WITHOUT, study.CAPACITY, presodiated=False)[-1:]
    names = {run.run: "pre-sodiated" for run in some} | {run.run: "as made" for run in without}
    return _profiles(runs, [*some, *without], "Full cells at 0.2C, per gram of cathode", names)


def _profiles(
    runs: StudyRuns, some: list[StudyRun], title: str, names: dict[str, str] | None = None
) -> Figure | None:
    parts = []
    for run in some:
        cycles = list(runs.cycles(run).index[:MOST_CYCLES])
        part = runs.archive.samples(
            run.run, cycle=cycles, columns=["cycle", "voltage_V", "current_A", "charge_Ah"]
        )
        material = run.material if names is None else f"{run.material} {names[run.run]}"
        parts.append(part.assign(cell=run.cell, material=material, active_mass_g=run.active_mass_g))
    if not any(map(len, parts)):
        return None
    return plot_capacity(pd.concat(parts)[list(COLUMNS)], cycle=2, title=title)


def _ladder(runs: StudyRuns) -> Figure | None:
    cells = {_label(run): (runs.cycles(run), runs.blocks(run)) for run in _both(runs, study.LADDER)}
    cells = {name: both for name, both in cells.items() if len(both[1])}
    return plot_rate_ladder(cells) if cells else None


def _endurance(runs: StudyRuns) -> Figure | None:
    some = runs.of(study.ENDURANCE, HE_V)
    if not some:
        return None
    fast = fast_cycles(runs, some[-1])
    if not len(fast):
        return None
    cycles = runs.cycles(some[-1])
    checks = cycles[~cycles.index.isin(fast.index) & cycles["comparable"].astype(bool)]
    return plot_endurance(fast, checks, name=_label(some[-1]), published=study.ENDURANCE_RETENTION)


def _gitt(runs: StudyRuns) -> Figure | None:
    cells = {_label(run): titration_of(runs, run) for run in _both(runs, study.GITT)}
    return plot_titrations(cells) if any(map(len, cells.values())) else None


def _voltammetry(runs: StudyRuns) -> Figure | None:
    cells = {}
    for run in _both(runs, study.VOLTAMMETRY):
        both = voltammogram_of(runs, run)
        if both is not None:
            cells[_label(run)] = (*both, run.active_mass_g)
    return plot_voltammograms(cells) if cells else None


def _impedance(runs: StudyRuns) -> Figure | None:
    cells = {_label(run): circuits_of(runs, run) for run in _both(runs, study.IMPEDANCE)}
    return plot_nyquist(cells) if any(cells.values()) else None


_FIGURES: dict[str, Callable[[StudyRuns], Figure | None]] = {
    "capacity": _capacity,
    "rate-ladder": _ladder,
    "endurance": _endurance,
    "gitt": _gitt,
    "voltammetry": _voltammetry,
    "impedance": _impedance,
    "full-cell": _full_cell,
}
