"""GITT gives back the model's own diffusion coefficient, with the bias that the method has."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from labctl.analysis.gitt import (
    FIRST_READING_SHARE,
    Pulse,
    diffusivity_by_voltage,
    read_pulse,
    sphere_length_m,
    titration,
    wetted_length_m,
)
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


LENGTH_M = 4e-7
MASS_G = 2e-3
PULSE_S = 600.0
DROP_V = 0.02


def titrated(
    diffusivities_m2_per_s: list[float], steady_V: float = 0.01, *, discharge: bool = False
) -> pd.DataFrame:
    """Rest, pulse, rest, pulse and so on, as Weppner and Huggins would draw them."""
    rows: list[tuple[int, int, float, float, float, float]] = []
    time_s, equilibrium_V, charge_Ah, visit = 0.0, 3.0, 0.0, 1
    sign = -1.0 if discharge else 1.0
    rows += [(visit, 1, 60.0 * n, equilibrium_V, 0.0, charge_Ah) for n in range(3)]
    time_s = 120.0
    for diffusivity in diffusivities_m2_per_s:
        slope = steady_V * 2 * LENGTH_M / math.sqrt(math.pi * diffusivity * PULSE_S)
        slope /= 1 - math.sqrt(FIRST_READING_SHARE)
        visit += 1
        for since_s in (1.0, *np.linspace(10.0, PULSE_S, 60)):
            moved_V = sign * (DROP_V + slope * math.sqrt(since_s / PULSE_S))
            charge = charge_Ah + sign * 2e-5 * since_s / 3600
            rows.append((visit, 1, time_s + since_s, equilibrium_V + moved_V, sign * 2e-5, charge))
        charge_Ah, time_s, equilibrium_V = charge, time_s + PULSE_S, equilibrium_V + sign * steady_V
        visit += 1
        rows += [(visit, 1, time_s + 900.0 * n, equilibrium_V, 0.0, charge_Ah) for n in (1, 2)]
        time_s += 1800.0
    return pd.DataFrame(
        rows, columns=["visit", "cycle", "test_time_s", "voltage_V", "current_A", "charge_Ah"]
    )


@pytest.mark.parametrize("discharge", [False, True])
def test_every_pulse_of_a_titration_gives_back_its_diffusion_coefficient(discharge: bool) -> None:
    wanted = [1e-14, 5e-15, 2e-14, 1e-13]
    found = titration(titrated(wanted, discharge=discharge), LENGTH_M, MASS_G)
    assert list(found["diffusivity_m2_per_s"]) == pytest.approx(wanted, rel=1e-6)
    assert list(found["charging"]) == [not discharge] * 4
    assert list(found["visit"]) == [2, 4, 6, 8]
    assert list(found["pulse_s"]) == pytest.approx([PULSE_S] * 4)
    sign = -1 if discharge else 1
    assert found["drop_V"].abs().max() == pytest.approx(DROP_V, abs=0.01)
    assert list(found["equilibrium_V"]) == pytest.approx(
        [3.0 + sign * (0.01 * n + 0.005) for n in range(4)]
    )
    assert found["charge_mAh_g"].iloc[-1] == pytest.approx(sign * 4 * 2e-5 / 6 * 1e3 / MASS_G)


def test_a_pulse_without_a_rest_after_it_is_passed_over_and_so_is_a_charge_between() -> None:
    frame = titrated([1e-14, 1e-14])
    assert len(titration(frame[frame["visit"] <= 4], LENGTH_M, MASS_G)) == 1
    between = frame[frame["visit"] == 4].assign(visit=99)
    after = pd.concat([frame[frame["visit"] <= 3], between, frame[frame["visit"] == 4]])
    assert list(titration(after, LENGTH_M, MASS_G)["visit"]) == [2]
    nothing = titration(frame[frame["visit"] == 1], LENGTH_M, MASS_G)
    assert list(nothing.columns) == list(titration(frame, LENGTH_M, MASS_G).columns)
    assert len(nothing) == 0


def test_a_titration_needs_its_columns_and_its_geometry() -> None:
    with pytest.raises(ValueError, match="charge_Ah"):
        titration(titrated([1e-14]).drop(columns="charge_Ah"), LENGTH_M, MASS_G)
    with pytest.raises(ValueError, match="above 0"):
        titration(titrated([1e-14]), 0.0, MASS_G)


def test_coefficients_are_gathered_by_voltage_and_steps_lost_in_noise_left_out() -> None:
    found = titration(titrated([1e-14, 3e-14, 2e-14, 8e-14], 0.06), LENGTH_M, MASS_G)
    by_voltage = diffusivity_by_voltage(found, 0.1)
    assert list(by_voltage.index) == pytest.approx([3.05, 3.15, 3.25])
    wanted = pytest.approx([2e-14, 2e-14, 8e-14], rel=1e-6)
    assert list(by_voltage["diffusivity_m2_per_s"]) == wanted
    assert list(by_voltage["pulses"]) == [2, 1, 1]
    assert len(diffusivity_by_voltage(found, 0.1, least_change_V=0.07)) == 0


def test_a_pulse_in_which_the_solid_keeps_pace_gives_a_lower_bound_alone() -> None:
    ceiling = 4 * LENGTH_M**2 / (math.pi * PULSE_S)
    found = titration(titrated([0.5 * ceiling, 0.99 * ceiling]), LENGTH_M, MASS_G)
    assert list(found["lower_bound"]) == [False, True]
    by_voltage = diffusivity_by_voltage(found, 10.0)
    assert list(by_voltage["lower_bound"]) == [True]


def test_the_geometry_is_volume_over_area() -> None:
    assert sphere_length_m(1.5e-6) == pytest.approx(5e-7)
    # 2 mg of 3.2 g/cm3 with 10 m2/g: 6.25e-4 cm3 over 200 cm2.
    assert wetted_length_m(2e-3, 3.2, 200.0) == pytest.approx(3.125e-8)
    pulse = Pulse(pulse_s=600.0, steady_change_V=0.01, transient_change_V=0.0)
    assert math.isnan(pulse.diffusivity_m2_per_s(1e-6))
