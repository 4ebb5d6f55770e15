"""What the demo measured, read back from the SQL archive, beside what the study published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from labctl.archive import open_archive
from labctl.demo.study import Study
from labctl.report.plots import CapacityCurves, capacity_curves, plot_capacity
from labctl.report.study import Study as PublishedStudy
from labctl.report.study import read_study

CAPACITY: Final = "Capacity at 0.2C"
FULL_CYCLES: Final = 2
"""From this cycle on a charge begins where a full discharge ended."""
PLATEAU_TOLERANCE_V: Final = 0.03
CAPACITY_TOLERANCE_mAh_g: Final = 2.0
TOP_OF_NVP_V: Final = 3.9


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, and what is expected of it: by the study, or else of the demo itself.

    ``published`` and ``tolerance`` are None where there is a bound alone.
    """

    name: str
    unit: str
    measured: float
    published: float | None
    tolerance: float | None
    holds: bool
    digits: int = 3


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is told at the end.

    cycles: of the capacity runs, as the archive's query gives them, with material.
    every_cycle, samples: how many of all runs are in the archive.
    published: the reference study's rows, where all of it was measured.
    figures: of the sound cells; problems: what ``verify`` found, none if all is well.
    """

    cycles: pd.DataFrame
    every_cycle: int
    figures: tuple[Figure, ...]
    alarms: pd.DataFrame
    problems: tuple[str, ...]
    samples: int
    published: PublishedStudy | None = None


def read_findings(url: str, study: Study, plot: Path, own_runs: set[str] | None = None) -> Findings:
    """Read the archive at ``url``, write the plot, and compare with the study.

    ``own_runs`` are the runs to look at, where an archive holds others as well; None for all. The
    figures are those of the capacities; the whole study's table is made by labctl.report.study.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    faulty = study.faulty
    with open_archive(url) as archive:
        cells = archive.cells()
        runs = archive.runs()
        cycles = archive.cycles().reset_index()
        cycles["material"] = cycles["cell"].map(cells["material"])
        alarms = archive.alarms()
        if own_runs is not None:
            runs = runs[runs.index.isin(own_runs)]
            cycles = cycles[cycles["run_id"].isin(own_runs)]
            alarms = alarms[alarms["run_id"].isin(own_runs)]
        reports = [archive.verify(run) for run in runs.index]
        published = read_study(archive, runs=set(runs.index)) if study.whole else None
        frames = []
        capacity = runs[runs["recipe_name"] == CAPACITY]
        whole = cycles
        cycles = cycles[cycles["run_id"].isin(capacity.index)]
        for run, row in capacity.iterrows():
            frame = archive.samples(str(run))
            frame["cell"] = row["cell"]
            frame["material"] = cells["material"][row["cell"]]
            frame["active_mass_g"] = row["active_mass_g"]
            frames.append(frame)
    records = pd.concat(frames, ignore_index=True)
    sound = cycles[~cycles["cell"].isin(faulty)]
    curves = [curve for curve in capacity_curves(records) if curve.cell not in faulty]
    figure = plot_capacity(
        records[~records["cell"].isin(faulty)], title="Capacity at 0.2C, 1.5 to 4.1 V"
    )
    figure.savefig(plot, dpi=130)
    return Findings(
        cycles=cycles,
        every_cycle=len(whole),
        figures=(*_figures(sound, curves), *_of_the_bench(runs, alarms, faulty)),
        alarms=alarms,
        problems=tuple(problem for report in reports for problem in report.problems),
        samples=int(runs["last_seq"].sum()),
        published=published,
    )


def _figures(cycles: pd.DataFrame, curves: list[CapacityCurves]) -> Iterator[Figure]:
    for material, published in (("HE-V", 170.0), ("NVP", 155.2)):
        part = cycles[(cycles["material"] == material) & (cycles["cycle"] >= FULL_CYCLES)]
        yield _near(
            f"{material} discharge capacity",
            "mAh/g",
            float(part["discharge_mAh_g"].mean()),
            published,
            CAPACITY_TOLERANCE_mAh_g,
        )
    first = cycles[cycles["cycle"] == 1]
    for material in ("HE-V", "NVP"):
        part = first[first["material"] == material]
        ratio = float((part["discharge_mAh_g"] / part["charge_mAh_g"]).min())
        yield Figure(f"{material} first discharge / first charge", "", ratio, None, None, ratio > 1)
    full = [curve for curve in curves if curve.cycle >= FULL_CYCLES]
    for published in (1.67, 3.43, 4.03):
        yield _near(
            f"HE-V plateau at {published} V",
            "V",
            _plateau_V([curve for curve in full if curve.material == "HE-V"], published),
            published,
            PLATEAU_TOLERANCE_V,
        )
    share = _share_above([curve for curve in full if curve.material == "NVP"], TOP_OF_NVP_V)
    yield Figure(f"NVP capacity above {TOP_OF_NVP_V} V", "%", 100 * share, None, None, share < 0.02)
    highest = max(
        (p.voltage_V for curve in full if curve.material == "NVP" for p in curve.plateaus()),
        default=float("nan"),
    )
    yield Figure("NVP highest plateau", "V", highest, None, None, highest < TOP_OF_NVP_V)


def _of_the_bench(runs: pd.DataFrame, alarms: pd.DataFrame, faulty: set[str]) -> Iterator[Figure]:
    completed = int((runs["outcome"] == "completed").sum())
    yield Figure("runs completed", "", completed, len(runs), 0, completed == len(runs), 0)
    raised = set(alarms.loc[alarms["cycle"] > 0, "cell"])
    right, wrong = len(raised & faulty), len(raised - faulty)
    yield Figure("faulty cells with an alarm", "", right, len(faulty), 0, right == len(faulty), 0)
    yield Figure("sound cells with an alarm", "", wrong, 0, 0, wrong == 0, 0)


def _near(name: str, unit: str, measured: float, published: float, tolerance: float) -> Figure:
    holds = abs(measured - published) <= tolerance
    return Figure(name, unit, measured, published, tolerance, holds)


def _plateau_V(curves: list[CapacityCurves], near_V: float) -> float:
    """Mean over the curves of the plateau nearest to a voltage; NaN if a curve has none."""
    nearest = [
        min((p.voltage_V for p in curve.plateaus()), key=lambda v: abs(v - near_V), default=np.nan)
        for curve in curves
    ]
    return float(np.mean(nearest)) if nearest else float("nan")


def _share_above(curves: list[CapacityCurves], voltage_V: float) -> float:
    """The largest share of a discharge that is given above a voltage."""
    shares = []
    for curve in curves:
        half = curve.discharge
        if half is None:
            continue
        below = np.flatnonzero(half.voltage_V < voltage_V)
        given = half.charge_Ah[below[0]] if len(below) else half.charge_Ah[-1]
        shares.append(float(given / half.charge_Ah[-1]))
    return max(shares, default=float("nan"))
