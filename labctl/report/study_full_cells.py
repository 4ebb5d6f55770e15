"""Rows 11 to 15 of the study: hard carbon, and full cells with and without pre-sodiation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

from labctl.analysis.cycles import retention_over
from labctl.analysis.rate import at_rate
from labctl.report import published as study
from labctl.report.published import CARBON
from labctl.report.runs_of_study import (
    StudyRun,
    StudyRuns,
    mean_of,
    missing,
    nearest_plateau,
    over,
)
from labctl.report.study import Expected, Row

SLOW_C = 0.2
LONG_C = 1.0


def _carbon(runs: StudyRuns) -> Iterator[Row]:
    some = runs.of(study.PRECYCLE, CARBON)

    def reversible_mAh_g(run: StudyRun) -> float:
        cycles = runs.cycles(run)
        return float(cycles["charge_mAh_g"][cycles.index >= 2].median())

    def plateau_V(run: StudyRun) -> float:
        curves = runs.settled_curves(run)
        found = (
            None if curves is None else nearest_plateau(curves.plateaus(), study.CARBON_PLATEAU_V)
        )
        return math.nan if found is None else found.voltage_V

    def lost_mAh_g(run: StudyRun) -> float:
        cycles = runs.cycles(run)
        if 1 not in cycles.index:
            return math.nan
        return float(cycles["discharge_mAh_g"][1] - cycles["charge_mAh_g"][1])

    figures: tuple[tuple[str, str, Callable[[StudyRun], float], Expected, int], ...] = (
        (
            "hard carbon: reversible capacity at 25 mA/g", "mAh/g", reversible_mAh_g,
            Expected(study.CARBON_MAH_G, study.CARBON_TOLERANCE_MAH_G, text="about 300"), 1,
        ),
        (
            "hard carbon: plateau", "V", plateau_V,
            Expected(
                study.CARBON_PLATEAU_V, study.CARBON_PLATEAU_TOLERANCE_V, text="near 0.1"
            ), 3,
        ),
        (
            "hard carbon: sodium lost in the first cycle", "mAh/g", lost_mAh_g,
            Expected(0.0, text="some, to the SEI"), 1,
        ),
    )  # fmt: skip
    for what, unit, figure, expected, digits in figures:
        measured, names = mean_of(some, figure)
        remark = "" if names else missing(study.PRECYCLE, CARBON)
        yield Row(11, what, unit, measured, expected, names, remark, digits)


def _presodiation(runs: StudyRuns) -> Iterator[Row]:
    """Rows 12 and 13, without pre-sodiation beside with it."""
    with_it = runs.full_cells(study.FULL_CELL, presodiated=True)
    without = runs.full_cells(study.WITHOUT, study.CAPACITY, presodiated=False)
    wanting = missing(study.FULL_CELL, "a full cell with a parent")
    precycled = {run.cell for run in runs.runs if run.recipe == study.PRECYCLE}
    descended = [run for run in with_it if precycled & set(run.parents)]
    yield Row(
        12, "full cells built from a cycled hard carbon", "%",
        100 * len(descended) / len(with_it) if with_it else None,
        Expected(100.0, text="taken from row 11's cell"), tuple(run.run for run in descended),
        "" if with_it else wanting, 0,
    )  # fmt: skip

    slow_mAh_g = partial(_slow, runs, "discharge_mAh_g")
    given, names = mean_of(with_it, slow_mAh_g)
    given_without, names_without = mean_of(without, slow_mAh_g)
    gain = over(given, given_without)
    yield Row(
        12, "full cell: capacity with pre-sodiation over without", "", gain,
        Expected(1.0, text="sodium is kept"), (*names, *names_without) if gain else (),
        "" if gain else missing(study.WITHOUT, "a full cell without a parent"), 2,
    )  # fmt: skip
    yield Row(
        13, "full cell: capacity at 0.2C per gram of cathode", "mAh/g", given,
        Expected(study.FULL_MAH_G, study.FULL_TOLERANCE_MAH_G), names, "" if names else wanting,
    )  # fmt: skip
    for what, unit, column, expected, digits in (
        (
            "energy at 0.2C per mass of cathode", "Wh/kg", "discharge_Wh_kg",
            Expected(study.FULL_WH_KG, study.FULL_TOLERANCE_WH_KG), 1,
        ),
        (
            "mean voltage", "V", "mean_discharge_voltage_V",
            Expected(study.FULL_MEAN_V, study.FULL_MEAN_TOLERANCE_V), 3,
        ),
    ):  # fmt: skip
        measured, some = mean_of(with_it, partial(_slow, runs, column))
        yield Row(
            13, f"full cell: {what}", unit, measured, expected, some, "" if some else wanting,
            digits,
        )  # fmt: skip
    counted, some = mean_of(with_it, lambda run: _plateaus(runs, run))
    yield Row(
        13, "full cell: plateaus", "", counted, Expected(3.0, 0.0, text="three"), some,
        "" if some else wanting, 0,
    )  # fmt: skip
    yield Row(
        13, "full cell without pre-sodiation: capacity", "mAh/g", given_without,
        Expected(study.TWO_SODIUM_MAH_G, at_least=False, text="less than 117 (two Na)"),
        names_without, "" if names_without else missing(study.WITHOUT, "a full cell"),
    )  # fmt: skip


def _rates_and_cycling(runs: StudyRuns) -> Iterator[Row]:
    some = runs.full_cells(study.FULL_CELL, presodiated=True)
    wanting = missing(study.FULL_CELL, "a full cell with a parent")

    def at_5C_percent(run: StudyRun) -> float:
        blocks = runs.blocks(run)
        slow = at_rate(blocks, SLOW_C)
        return 100 * at_rate(blocks, study.FULL_FAST_C) / slow if slow > 0 else math.nan

    measured, names = mean_of(some, at_5C_percent)
    yield Row(
        14, "full cell: capacity at 5C over that at 0.2C", "%", measured,
        Expected(100 * study.GOOD_AT_5C, text="good (70 % or more, chosen)", chosen=True), names,
        "" if names else wanting,
    )  # fmt: skip
    lengths: list[int] = []

    def kept_percent(run: StudyRun) -> float:
        blocks = runs.blocks(run)
        last = blocks.iloc[-1] if len(blocks) else None
        if last is None or abs(math.log(last["rate_C"] / LONG_C)) > 0.05 or last["cycles"] < 10:
            return math.nan
        cycles = runs.cycles(run).loc[int(last["first_cycle"]) : int(last["last_cycle"])]
        lengths.append(len(cycles))
        return 100 * retention_over(cycles["discharge_Ah"].tolist(), 1, len(cycles))

    measured, names = mean_of(some, kept_percent)
    yield Row(
        15, "full cell: retention at 1C", "%", measured,
        Expected(100 * study.STABLE, text="stable (95 % or more, chosen)", chosen=True), names,
        f"over {min(lengths)} cycles" if lengths else wanting,
    )  # fmt: skip


def _slow(runs: StudyRuns, column: str, run: StudyRun) -> float:
    """Median of a figure over the first cycles at 0.2C, the very first left out."""
    blocks = runs.blocks(run)
    if not len(blocks) or abs(math.log(float(blocks["rate_C"].iloc[0]) / SLOW_C)) > 0.05:
        return math.nan
    cycles = runs.cycles(run).loc[: int(blocks["last_cycle"].iloc[0])]
    return float(cycles[column][cycles.index >= 2].median())


def _plateaus(runs: StudyRuns, run: StudyRun) -> float:
    curves = runs.settled_curves(run)
    return math.nan if curves is None else float(len(curves.plateaus()))


ANSWERS = (_carbon, _presodiation, _rates_and_cycling)
