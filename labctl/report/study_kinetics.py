"""Rows 8 to 10 and 16 of the study: diffusion, voltammetry, impedance and operando."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from labctl.analysis.gitt import diffusivity_by_voltage, sphere_length_m, titration
from labctl.analysis.impedance import Circuit, fit_circuit
from labctl.analysis.rate import SAME_RATE
from labctl.analysis.voltammetry import Couple, Leg, couples, legs, main_couple
from labctl.report import published as study
from labctl.report.published import HE_V, NVP
from labctl.report.runs_of_study import StudyRun, StudyRuns, average, mean_of, missing, over
from labctl.report.study import Expected, Row

LEAST_STEADY_CHANGE_V = 2e-3
"""Steps of a titration below this say nothing of diffusion: readings are good to a few 0.1 mV."""
WIDTH_OF_D_V = 0.2


def _titration(runs: StudyRuns) -> Iterator[Row]:
    def capacity_mAh_g(run: StudyRun) -> float:
        cycles = runs.cycles(run)
        return float(cycles["discharge_mAh_g"].iloc[-1]) if len(cycles) else math.nan

    measured, names = mean_of(runs.of(study.GITT, HE_V), capacity_mAh_g)
    yield Row(
        8, f"{HE_V}: capacity of the titration", "mAh/g", measured,
        Expected(170.0, study.GITT_TOLERANCE_MAH_G, text="about 170"), names,
        "" if names else missing(study.GITT, HE_V),
    )  # fmt: skip
    pulses = {
        material: [titration_of(runs, run) for run in runs.of(study.GITT, material)]
        for material in (HE_V, NVP)
    }
    lowest, remark = None, missing(study.GITT, f"{HE_V} and {NVP}")
    names = tuple(run.run for m in (HE_V, NVP) for run in runs.of(study.GITT, m))
    if pulses[HE_V] and pulses[NVP]:
        lowest, remark = compare_diffusion(pd.concat(pulses[HE_V]), pd.concat(pulses[NVP]))
    yield Row(
        8, f"{HE_V} over {NVP}: D of sodium, at its closest", "", lowest,
        Expected(1.0, text="above NVP over the whole range"), () if lowest is None else names,
        remark, 2,
    )  # fmt: skip


def compare_diffusion(he_v: pd.DataFrame, nvp: pd.DataFrame) -> tuple[float | None, str]:
    """The smallest ratio of D over the voltages, and what is to be known about it; the pulses are
    those of :func:`labctl.analysis.gitt.titration`.

    Where that of NVP is a lower bound nothing can be said; where that of HE-V is one, the ratio is.
    """
    a, b = (
        diffusivity_by_voltage(one, WIDTH_OF_D_V, least_change_V=LEAST_STEADY_CHANGE_V)
        for one in (he_v, nvp)
    )
    told = a.join(b[~b["lower_bound"]].add_suffix("_nvp"), how="inner")
    if not len(told):
        return None, "the pulses are too long for either: shorter, stronger ones (1 min at 1C) tell"
    ratio = told["diffusivity_m2_per_s"] / told["diffusivity_m2_per_s_nvp"]
    bound = "≥ " if bool(told["lower_bound"].any()) else ""
    return float(ratio.min()), (
        f"at {len(told)} voltages; medians {bound}{told['diffusivity_m2_per_s'].median():.1e} and "
        f"{told['diffusivity_m2_per_s_nvp'].median():.1e} m²/s "
        f"for spheres of {study.PARTICLE_RADIUS_M * 1e6:g} µm"
    )


def titration_of(runs: StudyRuns, run: StudyRun) -> pd.DataFrame:
    """The pulses of a GITT run, with D for spheres of the study's size."""
    samples = runs.archive.samples(
        run.run, columns=["visit", "cycle", "test_time_s", "voltage_V", "current_A", "charge_Ah"]
    )
    return titration(samples, sphere_length_m(study.PARTICLE_RADIUS_M), run.active_mass_g)


def _voltammetry(runs: StudyRuns) -> Iterator[Row]:
    found: dict[str, list[tuple[StudyRun, Couple]]] = {}
    for material in (HE_V, NVP):
        pairs = [(run, voltammogram_of(runs, run)) for run in runs.of(study.VOLTAMMETRY, material)]
        found[material] = [
            (run, main)
            for run, both in pairs
            if both is not None and (main := main_couple(couples(*both))) is not None
        ]
    enough = bool(found[HE_V] and found[NVP])
    names = tuple(run.run for m in (HE_V, NVP) for run, _ in found[m]) if enough else ()
    remark = "" if enough else missing(study.VOLTAMMETRY, f"{HE_V} and {NVP}")

    def both(figure: Callable[[StudyRun, Couple], float]) -> tuple[float | None, float | None]:
        he_v, nvp = (
            average([figure(run, couple) for run, couple in found[material]])
            for material in (HE_V, NVP)
        )
        return he_v, nvp

    def current(run: StudyRun, couple: Couple) -> float:
        return (couple.anodic.current_A - couple.cathodic.current_A) / run.active_mass_g

    def area(run: StudyRun, couple: Couple) -> float:
        return (couple.anodic.charge_Ah + couple.cathodic.charge_Ah) / run.active_mass_g

    for what, figure in (("current", current), ("area", area)):
        yield Row(
            9, f"{HE_V} over {NVP}: {what} of the main peaks per gram", "", over(*both(figure)),
            Expected(1.0, text="larger for HE-V"), names, remark, 2,
        )  # fmt: skip
    he_v_V, nvp_V = both(lambda _, couple: couple.separation_V)
    if he_v_V is not None and nvp_V is not None:
        remark = f"{1e3 * he_v_V:.0f} and {1e3 * nvp_V:.0f} mV"
    yield Row(
        9, f"{NVP} over {HE_V}: distance of the main peaks", "", over(nvp_V, he_v_V),
        Expected(1.0, text="smaller for HE-V"), names, remark, 2,
    )  # fmt: skip


def _impedance(runs: StudyRuns) -> Iterator[Row]:
    def charge_transfer_ohm(run: StudyRun) -> float:
        found = [circuit.charge_transfer_ohm for _, circuit in circuits_of(runs, run)]
        return statistics.median(found) if found else math.nan

    values: dict[str, float | None] = {}
    names: list[str] = []
    for material in (HE_V, NVP):
        values[material], some = mean_of(runs.of(study.IMPEDANCE, material), charge_transfer_ohm)
        names += some
    ratio = over(values[NVP], values[HE_V])
    remark = missing(study.IMPEDANCE, f"{HE_V} and {NVP}")
    if ratio is not None:
        remark = (
            f"medians of the spectra: {values[HE_V]:.1f} and {values[NVP]:.1f} ohm, "
            "of all interfaces"
        )
    yield Row(
        10, f"{NVP} over {HE_V}: charge-transfer resistance", "", ratio,
        Expected(1.0, text="smaller for HE-V"), tuple(names) if ratio is not None else (), remark,
        2,
    )  # fmt: skip


def circuits_of(runs: StudyRuns, run: StudyRun) -> list[tuple[pd.DataFrame, Circuit]]:
    """The spectra of a run, each with the circuit that fits it; those too short are left out."""
    found = []
    for _, spectrum in runs.archive.spectra(run.run).groupby(level="spectrum"):
        columns = ("frequency_Hz", "impedance_real_ohm", "impedance_imag_ohm")
        try:
            circuit = fit_circuit(*(spectrum[name].to_numpy(dtype=np.float64) for name in columns))
        except ValueError:
            continue
        found.append((spectrum, circuit))
    return found


def _operando(runs: StudyRuns) -> Iterator[Row]:
    counts: dict[str, tuple[int, int]] = {}

    def placed_percent(run: StudyRun) -> float:
        markers = runs.archive.markers(run.run)
        counts[run.run] = len(markers), int((markers["cycle"] > 0).sum())
        if not len(markers):
            return math.nan
        return 100 * float(markers["charge_mAh_g"].notna().mean())

    measured, names = mean_of(runs.of(study.OPERANDO, HE_V), placed_percent)
    remark = "no marker was set" if counts else missing(study.OPERANDO, HE_V)
    if names:
        total, inside = (sum(some) for some in zip(*(counts[n] for n in names), strict=True))
        remark = f"{total} markers, {inside} of them within the cycle"
    yield Row(
        16, f"{HE_V}: markers that have their place on the charge curve", "%", measured,
        Expected(100.0, text="driven in step with a diffractometer"), names, remark, 0,
    )  # fmt: skip


def voltammogram_of(runs: StudyRuns, run: StudyRun) -> tuple[Leg, Leg] | None:
    """The last anodic leg at 0.1 mV/s of a run, and the cathodic one after it; None if none."""
    steps = runs.archive.steps(run.run)
    swept = sorted(set(steps["step"][steps["technique"] == "voltage_sweep"]))
    if not swept:
        return None
    names = ["visit", "test_time_s", "voltage_V", "current_A"]
    slow = [
        leg
        for leg in legs(runs.archive.samples(run.run, columns=names, step=swept))
        if abs(math.log(leg.rate_V_per_s / study.SCAN_RATE_V_PER_S)) <= SAME_RATE
    ]
    pairs = [(up, down) for up, down in itertools.pairwise(slow) if up.anodic]
    pairs = [(up, down) for up, down in pairs if not down.anodic]
    return pairs[-1] if pairs else None


ANSWERS = (_titration, _voltammetry, _impedance, _operando)
