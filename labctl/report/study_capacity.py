"""Rows 1 to 7 of the study: capacity, profiles, rates and endurance of the two cathodes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from labctl.analysis.cycles import retention_over
from labctl.analysis.dqdv import Plateau
from labctl.analysis.rate import SAME_RATE, recovery
from labctl.analysis.windows import STUDY_EDGES_V, charge_by_window
from labctl.report import published as study
from labctl.report.plots import CapacityCurves
from labctl.report.published import HE_V, NVP
from labctl.report.runs_of_study import (
    StudyRun,
    StudyRuns,
    average,
    mean_of,
    missing,
    nearest_plateau,
    over,
)
from labctl.report.study import Expected, Row


def _capacity(runs: StudyRuns) -> Iterator[Row]:
    def settled_mAh_g(run: StudyRun) -> float:
        cycles = runs.cycles(run)
        return float(cycles["discharge_mAh_g"][cycles.index >= 2].median())

    for material, value in study.DISCHARGE_MAH_G.items():
        measured, names = mean_of(runs.of(study.CAPACITY, material), settled_mAh_g)
        yield Row(
            1, f"{material}: discharge capacity at 0.2C", "mAh/g", measured,
            Expected(value, study.DISCHARGE_TOLERANCE_MAH_G), names,
            "" if names else missing(study.CAPACITY, material),
        )  # fmt: skip


def _first_cycle(runs: StudyRuns) -> Iterator[Row]:
    def first(run: StudyRun, name: str) -> float:
        cycles = runs.cycles(run)
        return float(cycles[name].get(1, math.nan))

    measured, names = mean_of(
        runs.first_of_cells(study.CAPACITY, HE_V), lambda run: first(run, "charge_mAh_g")
    )
    most = Expected(study.TWO_SODIUM_MAH_G, at_least=False, text="about 117 at most (two Na)")
    remark = "" if names else missing(study.CAPACITY, HE_V)
    yield Row(2, f"{HE_V}: first charge", "mAh/g", measured, most, names, remark)
    for material in (HE_V, NVP):
        measured, names = mean_of(
            runs.first_of_cells(study.CAPACITY, material),
            lambda run: first(run, "coulombic_efficiency"),
        )
        yield Row(
            2, f"{material}: first discharge over first charge", "", measured,
            Expected(1.0, text="above 1"), names,
            "" if names else missing(study.CAPACITY, material), 2,
        )  # fmt: skip


def _profiles(runs: StudyRuns) -> Iterator[Row]:
    curves = {
        material: {
            run.run: found
            for run in runs.of(study.CAPACITY, material)
            if (found := runs.settled_curves(run)) is not None
        }
        for material in (HE_V, NVP)
    }
    remarks = {
        material: "" if curves[material] else missing(study.CAPACITY, material)
        for material in (HE_V, NVP)
    }
    both = (*curves[HE_V], *curves[NVP])
    no_both = "" if curves[HE_V] and curves[NVP] else missing(study.CAPACITY, f"{HE_V} and {NVP}")
    plateaus = {
        material: [one.plateaus() for one in found.values()] for material, found in curves.items()
    }
    for wanted_V in study.PLATEAUS_V:
        nearest = [nearest_plateau(found, wanted_V) for found in plateaus[HE_V]]
        values = [math.nan if one is None else one.voltage_V for one in nearest]
        yield Row(
            3, f"{HE_V}: plateau at {wanted_V} V", "V", average(values),
            Expected(wanted_V, study.PLATEAU_TOLERANCE_V), tuple(curves[HE_V]), remarks[HE_V], 3,
        )  # fmt: skip
    highest = [max((one.voltage_V for one in found), default=math.nan) for found in plateaus[NVP]]
    yield Row(
        3, f"{NVP}: highest plateau", "V", max(highest, default=None),
        Expected(study.TOP_OF_NVP_V, at_least=False, text="none at 4.03 V"),
        tuple(curves[NVP]), remarks[NVP], 3,
    )  # fmt: skip
    gaps_V = {material: [_gap_V(one) for one in found] for material, found in plateaus.items()}
    yield Row(
        3, f"{NVP} over {HE_V}: distance of the 3.4 V peaks", "",
        over(average(gaps_V[NVP]), average(gaps_V[HE_V])), Expected(1.0, text="wider for NVP"),
        both if not no_both else (), no_both,
    )  # fmt: skip
    yield from _windows(curves, both if not no_both else (), no_both)


def _windows(
    curves: dict[str, dict[str, CapacityCurves]], names: tuple[str, ...], remark: str
) -> Iterator[Row]:
    """Row 4, of discharges."""
    found: dict[str, np.ndarray] = {}
    for material, ones in curves.items():
        halves = [one.discharge for one in ones.values() if one.discharge is not None]
        if halves:
            found[material] = np.mean([charge_by_window(half) for half in halves], axis=0)
    low_V, high_V = STUDY_EDGES_V
    for place, window in ((1, f"from {low_V:g} to {high_V:g} V"), (2, f"above {high_V:g} V")):
        for what, of_whole in (("capacity", False), ("share of the capacity", True)):
            measured = None
            if names and len(found) == 2:
                he_v, nvp = (
                    found[material][place] / (found[material].sum() if of_whole else 1.0)
                    for material in (HE_V, NVP)
                )
                measured = over(float(he_v), float(nvp))
            yield Row(
                4, f"{HE_V} over {NVP}: {what} {window}", "", measured,
                Expected(1.0, text="more for HE-V"), names, remark, 2,
            )  # fmt: skip


def _rates(runs: StudyRuns) -> Iterator[Row]:
    blocks = {
        material: {run.run: runs.blocks(run) for run in runs.of(study.LADDER, material)}
        for material in (HE_V, NVP)
    }
    at = {material: _capacity_by_rate(list(found.values())) for material, found in blocks.items()}
    shared = [
        (rate, he_v / nvp)
        for rate, he_v in at[HE_V].items()
        for other, nvp in at[NVP].items()
        if abs(math.log(rate / other)) <= SAME_RATE
    ]
    worst = min(shared, key=lambda pair: pair[1], default=None)
    remark = missing(study.LADDER, f"{HE_V} and {NVP}")
    if worst is not None:
        fastest = max(rate for rate, _ in shared)
        remark = f"{len(shared)} rates up to {fastest:.3g}C; closest at {worst[0]:.2g}C"
    yield Row(
        5, f"{HE_V} over {NVP}: capacity, at its closest", "",
        None if worst is None else worst[1], Expected(1.0, text="HE-V above at every rate"),
        (*blocks[HE_V], *blocks[NVP]) if worst else (), remark, 3,
    )  # fmt: skip
    for material in (HE_V, NVP):
        back, names = mean_of(
            runs.of(study.LADDER, material), lambda run: 100 * recovery(runs.blocks(run))
        )
        yield Row(
            5, f"{material}: capacity when the rate comes back", "%", back,
            Expected(100 * study.RECOVERY, text="it returns (97 % or more, chosen)", chosen=True),
            names, "" if names else missing(study.LADDER, material),
        )  # fmt: skip


def _cycling(runs: StudyRuns) -> Iterator[Row]:
    lengths: list[int] = []

    def kept_percent(run: StudyRun) -> float:
        cycles = runs.cycles(run)
        given = cycles["discharge_Ah"][cycles["comparable"].astype(bool)].tolist()
        if len(given) < 10:
            return math.nan
        lengths.append(len(given))
        return 100 * retention_over(given, 1, len(given))

    measured, names = mean_of(runs.of(study.CYCLING, HE_V), kept_percent)
    remark = f"over {min(lengths)} cycles" if lengths else missing(study.CYCLING, HE_V)
    yield Row(
        6, f"{HE_V}: retention at 0.2C", "%", measured,
        Expected(100 * study.STABLE, text="stable (95 % or more, chosen)", chosen=True),
        names, remark,
    )  # fmt: skip


def _endurance(runs: StudyRuns) -> Iterator[Row]:
    given = {
        run.run: fast_cycles(runs, run)["discharge_Ah"].tolist()
        for run in runs.of(study.ENDURANCE, HE_V)
    }
    longest = max(map(len, given.values()), default=0)
    for (first, last), value in study.ENDURANCE_RETENTION.items():
        found = {
            name: 100 * retention_over(some, first, last)
            for name, some in given.items()
            if len(some) >= last
        }
        remark = ""
        if not found:
            remark = missing(study.ENDURANCE, HE_V)
            if longest:
                remark = f"{longest} of {study.ENDURANCE_CYCLES} fast cycles so far"
        yield Row(
            7, f"{HE_V}: retention at 50C, cycles {first} to {last}", "%",
            average(list(found.values())), Expected(value, study.ENDURANCE_TOLERANCE_PERCENT),
            tuple(found), remark,
        )  # fmt: skip


def fast_cycles(runs: StudyRuns, run: StudyRun) -> pd.DataFrame:
    """The comparable cycles at 50C of a run, in order; formation and check-ups are passed over."""
    cycles = runs.cycles(run)
    rate_C = cycles["current_max_A"].to_numpy(dtype=np.float64) / run.one_C_A
    with np.errstate(divide="ignore", invalid="ignore"):
        fast = np.abs(np.log(rate_C / study.FAST_RATE_C)) <= SAME_RATE
    chosen: pd.DataFrame = cycles.loc[fast & cycles["comparable"].to_numpy(dtype=bool)]
    return chosen


def _capacity_by_rate(blocks: Sequence[pd.DataFrame]) -> dict[float, float]:
    """Mean over the runs of the capacity of the first block at each rate."""
    found: dict[float, list[float]] = {}
    for one in blocks:
        seen: list[float] = []
        for rate, capacity in zip(one["rate_C"], one["discharge_mAh_g"], strict=True):
            if any(abs(math.log(rate / other)) <= SAME_RATE for other in seen):
                continue
            seen.append(rate)
            same = [key for key in found if abs(math.log(rate / key)) <= SAME_RATE]
            found.setdefault(same[0] if same else float(rate), []).append(float(capacity))
    return {rate: statistics.fmean(values) for rate, values in found.items()}


def _gap_V(plateaus: Sequence[Plateau]) -> float:
    one = nearest_plateau(plateaus, study.PLATEAUS_V[1])
    return math.nan if one is None else one.separation_V


ANSWERS = (_capacity, _first_cycle, _profiles, _rates, _cycling, _endurance)
