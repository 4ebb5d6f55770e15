"""The same recipes on every instrument, on the same simulated cell, and what each measures.

Printed are the figures of each recipe as the archive has them, beside the truth of the cell and
what the instrument may be wrong by, and which instrument refuses which recipe when it is planned.
Then how far the cell's own voltage, not the readings, went beyond its limits in steps at 50C.

    .venv/bin/python benchmarks/instruments.py [--only capacity,cv] [--on neware,2450] [--quick]

What an instrument may be wrong by follows from its accuracy: of what it measures, and, because a
capacity also hangs on where a charge really ends and at which current, of what it puts out; for
that the recipe is made on the bare cell by a source that is just as wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from figures_of_recipes import (
    Figures,
    Job,
    Wrong,
    capacity,
    gitt,
    impedance,
    ladder,
    read_figures,
    true_figures,
    voltammetry,
)
from laboratory import MASS_G, ONE_C_A, Kind, Seen, keithley, laboratory, neware, palmsens, until

FAST_A = 0.5 * 50 * ONE_C_A
LOW_V, HIGH_V = 1.5, 4.1
OVERSHOOT_V = 0.010
STEADY_CHANGE_V = 3e-3
"""By how much a pulse of the titration moves the equilibrium on a plateau."""
PEAK = 0.015
"""On stairs of 1 mV a current falls within each; a reading is up to this share above its mean."""
SWEEP_STAIR_V = 1e-3
"""Sweeps are staircases on two of the instruments: a peak is known to a stair."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Bounds. Shares of a reading, and of the full scale of the range that a current is in.

    set_current: of a current that is held. voltage_change_V: of the difference of two readings of a
    voltage, where an offset falls out: resolution and noise. interval_s: the longest between two
    readings of which the host makes a charge, with a straight line between them. late_s: how long a
    current may flow on, unmeasured, after an end by time that the host sees.
    """

    source: str
    voltage_gain: float
    voltage_offset_V: float
    current_gain: float
    current_offset: float
    set_current: float
    voltage_change_V: float
    ranges_A: tuple[float, ...]
    impedance: float = 0.0
    interval_s: float = 0.0
    late_s: float = 0.0

    def voltage_V(self, at_V: float) -> float:
        """How far a voltage may be off."""
        return self.voltage_offset_V + self.voltage_gain * abs(at_V)

    def current(self, at_A: float) -> float:
        """How far a current may be off, as a share of it."""
        return self.current_gain + self.zero(at_A)

    def zero(self, at_A: float) -> float:
        """How far a current may be off because its zero is, as a share of it."""
        full_A = min((full for full in self.ranges_A if full >= at_A), default=self.ranges_A[-1])
        return self.current_offset * full_A / at_A


NEWARE = Accuracy(
    source="data sheets of the BTS4000 family: 0.1 % of full scale, voltage and current",
    voltage_gain=0.0,
    voltage_offset_V=5e-3,
    current_gain=0.0,
    current_offset=1e-3,
    set_current=1e-3,
    voltage_change_V=1e-4,
    ranges_A=(1e-4, 1e-3, 1e-2, 1e-1),
)
KEITHLEY = Accuracy(
    source="SPEC-2450: 0.015 % + 2.4 mV sourced, 0.02 % + 60 nA in 1 mA measured; 0.3 % of a limit",
    voltage_gain=1.5e-4,
    voltage_offset_V=2.4e-3 + 3e-3,
    current_gain=2e-4,
    current_offset=6e-5,
    set_current=3e-3,
    voltage_change_V=5e-5,
    ranges_A=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    interval_s=2.0,
    late_s=0.16,
)
PALMSENS = Accuracy(
    source="chosen: 0.05 % + 0.5 mV, 0.13 % + 0.01 % of range, impedance 1 %",
    voltage_gain=5e-4,
    voltage_offset_V=5e-4,
    current_gain=1.3e-3,
    current_offset=1e-4,
    set_current=1.3e-3,
    voltage_change_V=2e-4,
    ranges_A=(1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    impedance=1e-2,
)

INSTRUMENTS: dict[str, tuple[Kind, Accuracy]] = {
    "neware": (neware(), NEWARE),
    "2450": (keithley("2450"), KEITHLEY),
    "2460": (keithley("2460"), KEITHLEY),
    "2461": (keithley("2461"), KEITHLEY),
    "emstat4-hr": (palmsens("EmStat4S HR"), PALMSENS),
    "emstat4-lr": (palmsens("EmStat4S LR"), PALMSENS),
    "nexus": (palmsens("Nexus"), PALMSENS),
    "pico": (palmsens("EmStat Pico"), PALMSENS),
}
JOBS: dict[str, Job] = {
    "capacity": capacity(),
    "ladder": ladder(1, 5, 20, 50, 1),
    "gitt": gitt(rate_C=2.0),
    "cv": voltammetry(),
    "eis": impedance(),
    "fast": ladder(50),
}
"""What is run; long waits are as short as the recipes allow. ``fast`` is for the overshoot."""

QUICK: dict[str, Job] = {
    "capacity": capacity(5.0),
    "ladder": ladder(20, 50, 20),
    "fast": ladder(50),
}
"""The same recipes at higher rates, for a look that takes a minute."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job on an instrument; either it was refused, or it ran."""

    instrument: str
    job: str
    refused: str = ""
    state: str = ""
    figures: Figures | None = None
    seen: Seen | None = None
    problems: tuple[str, ...] = ()
    took_s: float = 0.0


async def measure(instrument: str, job: Job, name: str, folder: Path) -> Outcome:
    """Run a job on an instrument."""
    kind, _ = INSTRUMENTS[instrument]
    began_s = time.monotonic()
    async with laboratory(folder, kind, fast_A=FAST_A) as lab:
        await lab.ready()
        if refused := lab.refused(job.recipe, job.parameters):
            return Outcome(instrument, name, refused=refused)
        runner = await lab.start(job.recipe, job.parameters)
        await until(lambda: runner.checkpoint.state.ended or runner.checkpoint.state == "held")
        checkpoint, run = runner.checkpoint, runner.charter.run
        state = f"{checkpoint.state}: {checkpoint.reason}"
        if checkpoint.state != "completed":
            return Outcome(instrument, name, state=state, seen=lab.stand.seen)
        with await lab.archive() as archive:
            figures = await asyncio.to_thread(read_figures, archive, run, job)
            report = await asyncio.to_thread(archive.verify, run)
        return Outcome(
            instrument,
            name,
            state=str(checkpoint.state),
            figures=figures,
            seen=lab.stand.seen,
            problems=tuple(str(problem) for problem in report.problems),
            took_s=time.monotonic() - began_s,
        )


def tolerance(job: Job, name: str, value: float, accuracy: Accuracy) -> float:
    """How far a figure of ``job`` may be from the truth ``value``, by the accuracy alone."""
    if name in {"pulses", "spectra"}:
        return 2.0 if name == "pulses" else 0.0
    if name.endswith("ohm"):
        return accuracy.impedance * abs(value)
    if name.endswith(" V"):
        return accuracy.voltage_V(value) + SWEEP_STAIR_V
    if "D" in name:
        # The square of a ratio of two differences, on plateaus of few mV.
        return abs(value) * 4 * accuracy.voltage_change_V / STEADY_CHANGE_V
    if "peak" in name:
        return abs(value) * (accuracy.current(abs(value) * MASS_G * 1e-3) + PEAK)
    first_A = ONE_C_A * (job.rates[0] if job.rates else job.rate_C)
    if name.startswith("efficiency"):
        lasts_s = 3600.0 * 170.0 / 100.0 / job.rate_C
        ends = 0.5 * accuracy.interval_s / lasts_s
        return 100 * (2 * accuracy.zero(first_A) + ends)
    measured = accuracy.current(first_A)
    if " / " in name:
        measured += accuracy.current(ONE_C_A * float(name.partition("C")[0]))
    if job.recipe == "gitt":
        measured += accuracy.late_s / job.pulse_s
    put_out = sum(
        abs(true_figures(job, wrong).get(name, value) - value) for wrong in _wrongs(accuracy)
    )
    return abs(value) * measured + put_out


def _wrongs(accuracy: Accuracy) -> Iterable[Wrong]:
    """Ends that are beyond, and currents that are too large."""
    return (
        Wrong(voltage_V=accuracy.voltage_V(HIGH_V)),
        Wrong(current=accuracy.set_current),
    )


def say_figures(outcomes: list[Outcome], jobs: dict[str, Job]) -> None:
    """The table of figures."""
    print(f"{'recipe':20}{'figure':22}{'instrument':13}{'measured':>10}{'truth':>10}"
          f"{'off by':>10}{'may be':>9}  within")  # fmt: skip
    for name, job in jobs.items():
        truth = true_figures(job)
        ran = [each for each in outcomes if each.job == name and each.figures is not None]
        for figure, value in truth.items():
            for place, each in enumerate(ran):
                found = (each.figures or {}).get(figure, math.nan)
                may_be = tolerance(job, figure, value, INSTRUMENTS[each.instrument][1])
                print(
                    f"{job.recipe if place == 0 else '':20}{figure if place == 0 else '':22}"
                    f"{each.instrument:13}{found:10.4g}{value:10.4g}{found - value:+10.2g}"
                    f"{may_be:9.2g}  {'yes' if abs(found - value) <= may_be else 'NO'}"
                )
        for each in outcomes:
            if each.job == name and each.refused:
                print(f"{job.recipe:20}{'refused by':22}{each.instrument:13}{each.refused}")
            elif each.job == name and each.figures is None:
                print(f"{job.recipe:20}{'NOT COMPLETED by':22}{each.instrument:13}{each.state}")
            for problem in each.problems if each.job == name else ():
                print(f"{job.recipe:20}{'PROBLEM in the archive':22}{each.instrument:13}{problem}")


def say_overshoot(outcomes: list[Outcome]) -> None:
    """The table of what the cell's voltage itself did at 50C."""
    print(f"\n{'50C: the true voltage beyond':36}{'4.1 V':>12}{'1.5 V':>12}  within 10 mV")
    for each in outcomes:
        if each.seen is None or not math.isfinite(each.seen.fast_highest_V):
            continue
        above_V, below_V = overshoot_V(each.seen)
        within = max(above_V, below_V) <= OVERSHOOT_V
        print(
            f"{each.instrument:14}{each.job:22}{above_V * 1e3:9.2f} mV{below_V * 1e3:9.2f} mV  "
            f"{'yes' if within else 'NO'}"
        )


def overshoot_V(seen: Seen) -> tuple[float, float]:
    """How far beyond its upper and its lower end a cell truly came at 50C; 0 at the least."""
    return max(0.0, seen.fast_highest_V - HIGH_V), max(0.0, LOW_V - seen.fast_lowest_V)


def _measured(given: tuple[str, str, Job]) -> Outcome:
    """In a process of its own."""
    instrument, name, job = given
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LABCTL_LOCK_DIR"] = str(Path(folder) / "locks")
        outcome = asyncio.run(measure(instrument, job, name, Path(folder) / "lab"))
    said = "refused" if outcome.refused else outcome.state
    print(f"{instrument} {name}: {said}, {outcome.took_s:.0f} s", file=sys.stderr, flush=True)
    return outcome


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"of {','.join(JOBS)}")
    parser.add_argument("--on", default="", help=f"of {','.join(INSTRUMENTS)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="higher rates, some minutes")
    wanted = parser.parse_args()
    jobs = QUICK if wanted.quick else JOBS
    jobs = {
        name: job for name, job in jobs.items() if not wanted.only or name in wanted.only.split(",")
    }
    names = [name for name in INSTRUMENTS if not wanted.on or name in wanted.on.split(",")]
    work = [(instrument, name, job) for name, job in jobs.items() for instrument in names]
    with ProcessPoolExecutor(wanted.jobs) as pool:
        outcomes = list(pool.map(_measured, work))
    say_figures(outcomes, {name: job for name, job in jobs.items() if name != "fast"})
    say_overshoot(outcomes)
    print()
    for name in names:
        print(f"{name}: {INSTRUMENTS[name][1].source}")


if __name__ == "__main__":
    main()
