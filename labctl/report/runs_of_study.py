"""Which runs of an archive answer which measurement, and their data, read once."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from labctl.analysis.dqdv import HalfCycle, Plateau, half_cycles
from labctl.analysis.rate import rate_blocks
from labctl.report.plots import CapacityCurves
from labctl.report.published import CYCLING, ENDURANCE, FULL_CELL_SIGN

FADING = (CYCLING, ENDURANCE)
"""Recipes whose runs take part even with an alarm: fading is what they measure."""


class Measured(Protocol):
    """What is read of an archive: :class:`labctl.archive.queries.Archive` has it."""

    def runs(self) -> pd.DataFrame: ...
    def cells(self) -> pd.DataFrame: ...
    def alarms(self) -> pd.DataFrame: ...
    def cycles(self, run: str | None = None) -> pd.DataFrame: ...
    def steps(self, run: str) -> pd.DataFrame: ...
    def spectra(self, run: str) -> pd.DataFrame: ...
    def markers(self, run: str) -> pd.DataFrame: ...
    def samples(
        self,
        run: str,
        cycle: Iterable[int] | None = None,
        columns: Sequence[str] | None = None,
        *,
        step: Iterable[int] | None = None,
    ) -> pd.DataFrame: ...


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One run with what its figures are divided by.

    parents: the cells that its cell was built from.
    alarmed: an alarm rule on its cycles holds for it, so that it does not stand for its material.
    """

    run: str
    cell: str
    recipe: str
    material: str
    active_mass_g: float
    one_C_mA_per_g: float
    parents: tuple[str, ...] = ()
    alarmed: bool = False

    @property
    def one_C_A(self) -> float:
        """What 1C means, in A."""
        return self.one_C_mA_per_g * 1e-3 * self.active_mass_g


@dataclass
class StudyRuns:
    """The runs of an archive that take part, oldest first."""

    archive: Measured
    runs: tuple[StudyRun, ...]
    _cycles: dict[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def read(cls, archive: Measured, only: Collection[str] | None = None) -> StudyRuns:
        """The runs of the archive, or ``only`` those of these names."""
        cells, runs, alarms = archive.cells(), archive.runs(), archive.alarms()
        holding = alarms[alarms["active"].astype(bool) & (alarms["verdict"] == "holds")]
        holding = holding[holding["cycle"] > 0]
        alarmed = set(holding["run_id"])
        found = []
        for run, row in runs.iterrows():
            cell = str(row["cell"])
            named = only is None or run in only
            if not named or cell not in cells.index or not row["active_mass_g"] > 0:
                continue
            found.append(
                StudyRun(
                    run=str(run),
                    cell=cell,
                    recipe=str(row["recipe_name"]),
                    material=str(cells["material"][cell]),
                    active_mass_g=float(row["active_mass_g"]),
                    one_C_mA_per_g=float(row["one_C_mA_per_g"]),
                    parents=tuple(cells["parents"][cell]),
                    alarmed=run in alarmed,
                )
            )
        return cls(archive, tuple(found))

    @property
    def left_out(self) -> tuple[StudyRun, ...]:
        """The runs with an alarm, but for those that measure how a cell fades."""
        return tuple(run for run in self.runs if not self._stands(run))

    def of(self, recipe: str, material: str) -> list[StudyRun]:
        """The runs of a recipe on cells of a material, without those left out."""
        return [
            run
            for run in self.runs
            if run.recipe == recipe and run.material == material and self._stands(run)
        ]

    def first_of_cells(self, recipe: str, material: str) -> list[StudyRun]:
        """The same, where it was the cell's first run: it began as the cell was made."""
        began = {run.cell: run.run for run in reversed(self.runs)}
        return [run for run in self.of(recipe, material) if began[run.cell] == run.run]

    def full_cells(self, *recipes: str, presodiated: bool) -> list[StudyRun]:
        """The runs of these recipes on full cells with a parent, or without one."""
        return [
            run
            for run in self.runs
            if run.recipe in recipes
            and FULL_CELL_SIGN in run.material
            and bool(run.parents) == presodiated
            and self._stands(run)
        ]

    @staticmethod
    def _stands(run: StudyRun) -> bool:
        return not run.alarmed or run.recipe in FADING

    def cycles(self, run: StudyRun) -> pd.DataFrame:
        """The cycles of a run that are complete, reckoned and judged, by number."""
        if run.run not in self._cycles:
            frame = self.archive.cycles(run.run).droplevel("run_id")
            whole = frame["complete"].astype(bool) & ~frame["interrupted"].astype(bool)
            known = frame["discharge_Ah"].notna() & frame["comparable"].notna()
            self._cycles[run.run] = frame[whole & known]
        return self._cycles[run.run]

    def blocks(self, run: StudyRun) -> pd.DataFrame:
        """The cycles of a run by rate: see :func:`labctl.analysis.rate.rate_blocks`."""
        return rate_blocks(self.cycles(run), run.one_C_A)

    def curves(self, run: StudyRun, cycle: int) -> CapacityCurves:
        """One cycle per gram, for plateaus, windows and plots."""
        names = ["voltage_V", "current_A", "charge_Ah"]
        part = self.archive.samples(run.run, cycle=[cycle], columns=names)
        charge, discharge = half_cycles(
            part["voltage_V"].to_numpy(dtype=np.float64),
            part["current_A"].to_numpy(dtype=np.float64),
            part["charge_Ah"].to_numpy(dtype=np.float64) * 1000 / run.active_mass_g,
        )
        return CapacityCurves(run.cell, run.material, cycle, charge, discharge)

    def settled_curves(
        self, run: StudyRun, after_class: str | None = None
    ) -> CapacityCurves | None:
        """The second cycle of a run that begins where a full discharge ended, the first if there
        is no other of its class; None if there is none at all."""
        cycles = self.cycles(run)
        if after_class is not None:
            cycles = cycles[cycles["cycle_class"] == after_class]
        if not len(cycles):
            return None
        return self.curves(run, int(cycles.index[min(1, len(cycles) - 1)]))


def nearest_plateau(plateaus: Sequence[Plateau], voltage_V: float) -> Plateau | None:
    """The plateau nearest to a voltage; None if there is none."""
    return min(plateaus, key=lambda one: abs(one.voltage_V - voltage_V), default=None)


def last_charge(half: HalfCycle | None) -> float:
    """What a half cycle passed; NaN if there is none."""
    return float("nan") if half is None else float(half.charge_Ah[-1])


def mean_of(
    runs: Sequence[StudyRun], figure: Callable[[StudyRun], float]
) -> tuple[float | None, tuple[str, ...]]:
    """The mean of a figure over the runs that have it, and their names; None if none has it."""
    found = {run.run: figure(run) for run in runs}
    known = {name: value for name, value in found.items() if math.isfinite(value)}
    return (statistics.fmean(known.values()) if known else None), tuple(known)


def missing(recipe: str, materials: str = "") -> str:
    """What to do about a row that no run answers."""
    return f"run '{recipe}'" + (f" on {materials}" if materials else "")


def average(values: Sequence[float]) -> float | None:
    """None of nothing; NaN where one of them is."""
    return statistics.fmean(values) if values else None


def over(above: float | None, below: float | None) -> float | None:
    if above is None or below is None:
        return None
    return above / below if below > 0 else math.nan
