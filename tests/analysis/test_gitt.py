"""GITT gives back the model's own diffusion coefficient, with the bias that the method has."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labctl.analysis.gitt import Pulse, read_pulse
from labctl.simulators.cells.interface import Control, Recorder, Until
from labctl.simulators.cells.lithium import build_lithium_cell
from labctl.simulators.cells.materials.lg_m50 import POSITIVE

DIFFUSION_TIME_s = POSITIVE.radius_m**2 / POSITIVE.diffusivity_m2_per_s
SMALL = 0.002
"""Occupancy moved by a pulse: the open-circuit curve is straight over it."""


def pulse_of(share_of_diffusion_time: float) -> Pulse:
    """A GITT pulse on the positive electrode of the LG M50 against lithium."""
    cell = build_lithium_cell(against_metal=True)
    to_the_middle_s = 0.18 * POSITIVE.capacity_Ah / 0.5 * 3600.0
    cell.advance(Control.CURRENT, -0.5, to_the_middle_s, until=Until(), recorder=Recorder())
    cell.advance(Control.REST, 0.0, 20 * DIFFUSION_TIME_s, until=Until(), recorder=Recorder())
    pulse_s = share_of_diffusion_time * DIFFUSION_TIME_s
    current_A = -SMALL * POSITIVE.capacity_Ah * 3600.0 / pulse_s
    times, voltages, currents = [0.0], [cell.voltage_V()], [0.0]
    for end_s in np.geomspace(1e-3, 1.0, 200) * pulse_s:
        trace = cell.advance(
            Control.CURRENT, current_A, end_s - times[-1], until=Until(), recorder=Recorder()
        )
        times.append(float(end_s))
        voltages.append(trace.end_voltage_V)
        currents.append(current_A)
    rest = cell.advance(
        Control.REST, 0.0, 20 * DIFFUSION_TIME_s, until=Until(), recorder=Recorder()
    )
    times.append(times[-1] + rest.elapsed_s)
    voltages.append(rest.end_voltage_V)
    currents.append(0.0)
    return read_pulse(np.array(times), np.array(voltages), np.array(currents))


@pytest.mark.parametrize(("share", "expected"), [(0.021, 0.82), (0.21, 0.41)])
def test_the_estimate_is_below_the_truth_as_the_method_makes_it(
    share: float, expected: float
) -> None:
    estimate = pulse_of(share).diffusivity_m2_per_s(POSITIVE.radius_m)
    assert estimate / POSITIVE.diffusivity_m2_per_s == pytest.approx(expected, abs=0.02)


def test_a_short_pulse_comes_close_to_the_truth() -> None:
    estimate = pulse_of(0.005).diffusivity_m2_per_s(POSITIVE.radius_m)
    assert estimate / POSITIVE.diffusivity_m2_per_s == pytest.approx(0.95, abs=0.08)


def test_the_formula_is_that_of_weppner_and_huggins() -> None:
    pulse = Pulse(pulse_s=600.0, steady_change_V=0.01, transient_change_V=0.02)
    assert pulse.diffusivity_m2_per_s(3e-6) == pytest.approx(1e-12 / (600.0 * math.pi))


@pytest.mark.parametrize(
    "current", [[0.0] * 9, [1.0] * 9, [0, 1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 1, 1, 1, 0]]
)
def test_records_without_one_pulse_between_rests_are_refused(current: list[float]) -> None:
    with pytest.raises(ValueError, match="pulse"):
        read_pulse(np.arange(9.0), np.full(9, 3.0), np.array(current, dtype=float))
