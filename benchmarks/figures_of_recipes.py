"""The figures of five shipped recipes: as an archive has them, and as they truly are.

The truth comes from the simulated cell alone: what the recipe says is done to it, step by step,
without an instrument, an engine or a journal, and evaluated in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from laboratory import MASS_G, ONE_C_A, SPEC

from labctl.analysis.gitt import sphere_length_m, titration
from labctl.analysis.impedance import fit_circuit
from labctl.analysis.voltammetry import Couple, couples, legs, main_couple
from labctl.archive.queries import Archive
from labctl.report.published import PARTICLE_RADIUS_M
from labctl.report.study_kinetics import LEAST_STEADY_CHANGE_V
from labctl.simulators.cells import build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, Trace, Until

LOW_V, HIGH_V = 1.5, 4.1
SLOW = 0.2
STEP_MAH_G = 34.0
SPECTRA = 5
SLOWEST_SWEEP_V_PER_S = 1e-4
SAME_RATE = 0.1
HIGHEST_HZ = 1e5

Figures = dict[str, float]
"""By name; units end the names."""


@dataclass(frozen=True, slots=True)
class Job:
    """A shipped recipe with values for its parameters, which the truth knows too.

    rates: of a ladder, in C. rate_C, pulse_s, pause_s: of a titration. lowest_Hz: of a spectrum.
    """

    recipe: str
    parameters: dict[str, str] = field(default_factory=dict)
    rates: tuple[float, ...] = ()
    rate_C: float = SLOW
    pulse_s: float = 60.0
    pause_s: float = 600.0
    lowest_Hz: float = 1e-2


@dataclass(frozen=True, slots=True)
class Wrong:
    """What a source is wrong by: ends lie so far outside, in V; currents are so much larger, as a
    share of what was set."""

    voltage_V: float = 0.0
    current: float = 0.0


RIGHT = Wrong()


def capacity(rate_C: float = SLOW) -> Job:
    """Three cycles, as shipped or at another rate."""
    parameters = {} if rate_C == SLOW else {"rate": f"{rate_C:g}C"}
    return Job("capacity-0.2C", parameters, rate_C=rate_C)


def ladder(*rates: float) -> Job:
    """Five cycles at each of these rates."""
    listed = ", ".join(f"{rate:g}C" for rate in rates)
    return Job("rate-ladder", {"rates": f"[{listed}]"}, rates=rates)


def gitt(rate_C: float = 1.0, pulse_s: float = 60.0, pause_s: float = 600.0) -> Job:
    """Pulses and rests, after one cycle at 0.2C."""
    parameters = {"rate": f"{rate_C:g}C", "pulse": f"{pulse_s:g} s", "pause": f"{pause_s:g} s"}
    return Job("gitt", parameters, rate_C=rate_C, pulse_s=pulse_s, pause_s=pause_s)


def voltammetry() -> Job:
    """Three cycles at 0.1 mV/s, and one rate in place of the series: at more than 0.15 mV/s this
    cell takes more than the recipe's limit of 2 mA, which a source bounds and a potentiostat
    cannot."""
    return Job("cyclic-voltammetry", {"rates": "[0.15 mV/s]"})


def impedance(to: str = "") -> Job:
    """As shipped, or down to a higher frequency, such as ``1 Hz``."""
    lowest_Hz = float(to.removesuffix(" Hz")) if to else 1e-2
    return Job("impedance", {"bottom": to} if to else {}, lowest_Hz=lowest_Hz)


# Of the archive


def read_figures(archive: Archive, run: str, job: Job) -> Figures:
    """What a run of ``job`` measured."""
    return _READERS[job.recipe](archive, run, job)


def _capacity_of(archive: Archive, run: str, job: Job) -> Figures:
    del job
    cycles = archive.cycles(run)
    return _of_cycles(cycles["charge_mAh_g"].tolist(), cycles["discharge_mAh_g"].tolist())


def _of_cycles(charges: list[float], discharges: list[float]) -> Figures:
    return {
        "first charge mAh/g": charges[0],
        "capacity mAh/g": float(np.mean(discharges[1:])),
        "efficiency %": 100 * discharges[-1] / charges[-1],
    }


def _ladder_of(archive: Archive, run: str, job: Job) -> Figures:
    return _of_ladder(archive.cycles(run)["discharge_mAh_g"].tolist(), job.rates)


def _of_ladder(discharges: list[float], rates: tuple[float, ...]) -> Figures:
    blocks = [discharges[5 * place : 5 * place + 5] for place in range(len(rates))]
    given = [float(np.median(block)) for block in blocks]
    found = {f"{rates[0]:g}C mAh/g": given[0]}
    for rate, value in zip(rates[1:], given[1:], strict=True):
        again = " again" if rate == rates[0] else ""
        found[f"{rate:g}C{again} / {rates[0]:g}C"] = value / given[0]
    return found


def _gitt_of(archive: Archive, run: str, job: Job) -> Figures:
    del job
    columns = ["visit", "cycle", "test_time_s", "voltage_V", "current_A", "charge_Ah"]
    cycles = archive.cycles(run)
    return _of_titration(
        archive.samples(run, columns=columns), float(cycles["discharge_mAh_g"].iloc[-1])
    )


def _of_titration(samples: pd.DataFrame, discharge_mAh_g: float) -> Figures:
    pulses = titration(samples, sphere_length_m(PARTICLE_RADIUS_M), MASS_G)
    moved = pulses["steady_change_V"].abs() > LEAST_STEADY_CHANGE_V
    good = pulses[moved & ~pulses["lower_bound"].astype(bool)]
    return {
        "pulses": float(len(pulses)),
        "capacity mAh/g": discharge_mAh_g,
        "median D 1e-15 m2/s": 1e15 * float(good["diffusivity_m2_per_s"].median()),
    }


def _voltammetry_of(archive: Archive, run: str, job: Job) -> Figures:
    del job
    steps = archive.steps(run)
    swept = sorted(set(steps["step"][steps["technique"] == "voltage_sweep"]))
    columns = ["step", "visit", "test_time_s", "voltage_V", "current_A"]
    samples = archive.samples(run, columns=columns)
    return _of_sweeps(samples[samples["step"].isin(swept)])


def _of_sweeps(samples: pd.DataFrame) -> Figures:
    slow = [
        leg
        for leg in legs(samples)
        if abs(math.log(leg.rate_V_per_s / SLOWEST_SWEEP_V_PER_S)) < 0.1
    ]
    last = next(place for place in range(len(slow) - 1, 0, -1) if not slow[place].anodic)
    couple = main_couple(couples(slow[last - 1], slow[last]))
    if couple is None:
        return {}
    return _of_couple(couple)


def _of_couple(couple: Couple) -> Figures:
    per_g = 1e3 / MASS_G
    return {
        "anodic peak V": couple.anodic.voltage_V,
        "anodic peak mA/g": couple.anodic.current_A * per_g,
        "cathodic peak V": couple.cathodic.voltage_V,
        "cathodic peak mA/g": couple.cathodic.current_A * per_g,
    }


def _impedance_of(archive: Archive, run: str, job: Job) -> Figures:
    del job
    spectra = [
        (
            spectrum["frequency_Hz"].to_numpy(dtype=np.float64),
            spectrum["impedance_real_ohm"].to_numpy(dtype=np.float64)
            + 1j * spectrum["impedance_imag_ohm"].to_numpy(dtype=np.float64),
        )
        for _, spectrum in archive.spectra(run).groupby(level="spectrum")
    ]
    return _of_spectra(spectra)


def _of_spectra(spectra: Iterable[tuple[np.ndarray, np.ndarray]]) -> Figures:
    circuits = [fit_circuit(f_Hz, z_ohm.real, z_ohm.imag) for f_Hz, z_ohm in spectra]
    return {
        "spectra": float(len(circuits)),
        "R_s ohm": float(np.median([each.series_ohm for each in circuits])),
        "R_ct ohm": float(np.median([each.charge_transfer_ohm for each in circuits])),
    }


_READERS: dict[str, Callable[[Archive, str, Job], Figures]] = {
    "capacity-0.2C": _capacity_of,
    "rate-ladder": _ladder_of,
    "gitt": _gitt_of,
    "cyclic-voltammetry": _voltammetry_of,
    "impedance": _impedance_of,
}


# Of the cell itself


class Bare:
    """A cell in the hand, to which a perfect source does things; ``wrong`` makes it less so."""

    def __init__(self, wrong: Wrong) -> None:
        self.cell: ModelCell = build_cell(SPEC)
        self._wrong = wrong
        self.rows: list[pd.DataFrame] = []
        self._visit = 0
        self.time_s = 0.0
        self._charge_Ah = 0.0

    def rest(self, duration_s: float, every_s: float = 60.0) -> None:
        """Open circuit."""
        recorder = Recorder(every_s=every_s)
        trace = self.cell.advance(Control.REST, 0.0, duration_s, until=Until(), recorder=recorder)
        self._take(trace)

    def flow(
        self,
        rate_C: float,
        *,
        at_most_s: float = 1e7,
        most_Ah: float = math.inf,
        every_s: float = 60.0,
    ) -> float:
        """Charge, or discharge with a rate below 0, until a limit; the magnitude of the charge
        that passed, in mAh/g."""
        shift_V = self._wrong.voltage_V
        until = Until(charge_magnitude_at_least_Ah=most_Ah, voltage_at_most_V=LOW_V - shift_V)
        if rate_C > 0:
            until = Until(charge_magnitude_at_least_Ah=most_Ah, voltage_at_least_V=HIGH_V + shift_V)
        current_A = rate_C * ONE_C_A * (1 + self._wrong.current)
        recorder = Recorder(every_s=every_s, voltage_change_V=1e-3)
        trace = self.cell.advance(
            Control.CURRENT, current_A, at_most_s, until=until, recorder=recorder
        )
        self._take(trace)
        return abs(trace.end_charge_Ah) / MASS_G * 1e3

    def cycle(self, rate_C: float) -> tuple[float, float]:
        """A charge and a discharge."""
        return self.flow(rate_C), self.flow(-rate_C)

    def sweep(self, from_V: float, to_V: float, rate_V_per_s: float) -> None:
        """A straight line of voltage."""
        shift_V = self._wrong.voltage_V
        recorder = Recorder(every_s=1e-3 / rate_V_per_s)
        trace = self.cell.sweep(from_V + shift_V, to_V + shift_V, rate_V_per_s, recorder=recorder)
        self._take(trace)

    def _take(self, trace: Trace) -> None:
        self._visit += 1
        columns = {
            "test_time_s": [*trace.time_s, trace.elapsed_s],
            "voltage_V": [*trace.voltage_V, trace.end_voltage_V],
            "current_A": [*trace.current_A, trace.end_current_A],
            "charge_Ah": [*trace.charge_Ah, trace.end_charge_Ah],
        }
        frame = pd.DataFrame(columns).drop_duplicates("test_time_s")
        frame["test_time_s"] += self.time_s
        frame["charge_Ah"] += self._charge_Ah
        frame["visit"], frame["cycle"] = self._visit, 0
        self.time_s += trace.elapsed_s
        self._charge_Ah += trace.end_charge_Ah
        self.rows.append(frame)

    @property
    def samples(self) -> pd.DataFrame:
        return pd.concat(self.rows, ignore_index=True)


def true_figures(job: Job, wrong: Wrong = RIGHT) -> Figures:
    """What ``job`` makes of the cell itself, where the source is wrong by so much."""
    known = repr((job, wrong))
    if known not in _FOUND:
        _FOUND[known] = _TRUTHS[job.recipe](Bare(wrong), job)
    return _FOUND[known]


_FOUND: dict[str, Figures] = {}


def _true_capacity(bare: Bare, job: Job) -> Figures:
    bare.rest(600.0)
    cycles = [bare.cycle(job.rate_C) for _ in range(3)]
    return _of_cycles([charge for charge, _ in cycles], [discharge for _, discharge in cycles])


def _true_ladder(bare: Bare, job: Job) -> Figures:
    bare.rest(600.0)
    return _of_ladder([bare.cycle(rate)[1] for rate in job.rates for _ in range(5)], job.rates)


def _true_titration(bare: Bare, job: Job) -> Figures:
    bare.rest(600.0)
    bare.cycle(SLOW)
    discharge_mAh_g, often_s = 0.0, job.pulse_s / 600.0
    for sign in (1, -1):
        for _ in range(100_000):
            before_s = bare.time_s
            passed_mAh_g = bare.flow(sign * job.rate_C, at_most_s=job.pulse_s, every_s=often_s)
            discharge_mAh_g += passed_mAh_g if sign < 0 else 0.0
            if bare.time_s - before_s < job.pulse_s * (1 - 1e-9):
                break
            bare.rest(job.pause_s)
    return _of_titration(bare.samples, discharge_mAh_g)


def _true_voltammetry(bare: Bare, job: Job) -> Figures:
    del job
    bare.rest(600.0)
    bare.rows.clear()
    bare.sweep(bare.cell.voltage_V(), HIGH_V, SLOWEST_SWEEP_V_PER_S)
    for _ in range(2):
        bare.sweep(HIGH_V, LOW_V, SLOWEST_SWEEP_V_PER_S)
        bare.sweep(LOW_V, HIGH_V, SLOWEST_SWEEP_V_PER_S)
    bare.sweep(HIGH_V, LOW_V, SLOWEST_SWEEP_V_PER_S)
    return _of_sweeps(bare.samples)


def _true_impedance(bare: Bare, job: Job) -> Figures:
    decades = HIGHEST_HZ / job.lowest_Hz
    frequencies_Hz = np.geomspace(HIGHEST_HZ, job.lowest_Hz, round(10 * math.log10(decades)) + 1)
    bare.rest(600.0)
    bare.cycle(SLOW)
    bare.flow(SLOW)
    spectra = []
    for place in range(SPECTRA):
        if place:
            bare.flow(-SLOW, most_Ah=STEP_MAH_G * MASS_G * 1e-3)
        bare.rest(3600.0)
        spectra.append((frequencies_Hz, bare.cell.impedance(frequencies_Hz)))
    return _of_spectra(spectra)


_TRUTHS: dict[str, Callable[[Bare, Job], Figures]] = {
    "capacity-0.2C": _true_capacity,
    "rate-ladder": _true_ladder,
    "gitt": _true_titration,
    "cyclic-voltammetry": _true_voltammetry,
    "impedance": _true_impedance,
}
