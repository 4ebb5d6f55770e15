"""The same recipe on the same cell gives the same figures on every instrument, to its accuracy.

Through a node, a real socket or pty, the journal and the archive. The truth is the simulated cell's
own, without any of these. ``benchmarks/instruments.py`` does it with every recipe at its full
length.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import figures_of_recipes as of
import instruments
from laboratory import laboratory

pytestmark = pytest.mark.whole_way

FAST = of.ladder(50)
JOBS = {
    "capacity": of.capacity(),
    "gitt": of.gitt(),
    "voltammetry": of.voltammetry(),
    "impedance": of.impedance(to="1 Hz"),
    "50C": FAST,
}
RUNS = [
    ("neware", "capacity"),
    ("neware", "gitt"),
    ("neware", "voltammetry"),
    ("neware", "50C"),
    ("2450", "50C"),
    ("emstat4-hr", "50C"),
    ("nexus", "50C"),
    ("emstat4-hr", "impedance"),
]
"""Recipes whole where they are quick, and on every kind of instrument the fastest of them."""

FIGURES = {
    "capacity": ["first charge mAh/g", "capacity mAh/g", "efficiency %"],
    "gitt": ["pulses", "capacity mAh/g", "median D 1e-15 m2/s"],
    "voltammetry": ["anodic peak V", "anodic peak mA/g", "cathodic peak V", "cathodic peak mA/g"],
    "impedance": ["spectra", "R_s ohm", "R_ct ohm"],
    "50C": ["50C mAh/g"],
}
CANNOT = {
    "neware": {"impedance": "impedance, which BTS does not have"},
    "2450": {"impedance": "a SourceMeter has no analyser"},
    "emstat4-hr": {},
    "emstat4-lr": dict.fromkeys(JOBS, "-3 V to 3 V"),
    "pico": dict.fromkeys(JOBS, "-1.7 V to 2 V"),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of each run, made when it is first asked for."""
    made: dict[tuple[str, str], Any] = {}

    def outcome(instrument: str, job: str) -> Any:
        if (instrument, job) not in made:
            folder = tmp_path_factory.mktemp(instrument) / "lab"
            work = instruments.measure(instrument, JOBS[job], job, folder)
            made[instrument, job] = asyncio.run(work)
        return made[instrument, job]

    return outcome


@pytest.mark.parametrize(
    ("instrument", "job", "figure"),
    [(instrument, job, figure) for instrument, job in RUNS for figure in FIGURES[job]],
)
def test_a_figure_is_the_cells_own_within_what_the_instrument_may_be_wrong_by(
    measured: Any, instrument: str, job: str, figure: str
) -> None:
    outcome = measured(instrument, job)
    assert (outcome.state, outcome.problems) == ("completed", ())
    truth = of.true_figures(JOBS[job])[figure]
    _, accuracy = instruments.INSTRUMENTS[instrument]
    may_be = instruments.tolerance(JOBS[job], figure, truth, accuracy)
    assert outcome.figures[figure] == pytest.approx(truth, abs=may_be)


@pytest.mark.parametrize("instrument", ["neware", "2450", "emstat4-hr", "nexus"])
def test_at_50C_the_cell_itself_stays_within_10_mV_of_its_limits(
    measured: Any, instrument: str
) -> None:
    above_V, below_V = instruments.overshoot_V(measured(instrument, "50C").seen)
    assert above_V <= 0.010
    assert below_V <= 0.010


@pytest.mark.parametrize("instrument", CANNOT)
async def test_what_an_instrument_cannot_run_is_refused_when_it_is_planned(
    instrument: str, tmp_path: Path
) -> None:
    kind, _ = instruments.INSTRUMENTS[instrument]
    async with laboratory(tmp_path / "lab", kind) as lab:
        await lab.ready()
        for name, job in JOBS.items():
            refused = lab.refused(job.recipe, job.parameters)
            why = CANNOT[instrument].get(name, "")
            assert why in refused
            assert bool(why) == bool(refused)
