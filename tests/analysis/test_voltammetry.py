"""Peaks of a voltammogram: where, how high, how large, how far apart."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.analysis.voltammetry import Leg, couples, legs, main_couple, peaks
from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.interface import Recorder

RATE = 1e-4
MASS_G = 2e-3


def leg(anodic: bool, *gaussians: tuple[float, float, float], points: int = 900) -> Leg:
    """A leg from 2 V to 4 V or back whose current is a sum of Gauss curves (V, width V, A)."""
    voltage_V = np.linspace(2.0, 4.0, points)[:: 1 if anodic else -1]
    current_A = sum(
        height * np.exp(-0.5 * ((voltage_V - middle) / width) ** 2)
        for middle, width, height in gaussians
    )
    return Leg(anodic, RATE, voltage_V, np.asarray(current_A) * (1 if anodic else -1))


@settings(max_examples=40, deadline=None)
@given(
    middle_V=st.floats(2.4, 3.6),
    width_V=st.floats(0.02, 0.1),
    height_A=st.floats(1e-6, 1.0),
    anodic=st.booleans(),
)
def test_a_single_peak_is_found_where_it_is_with_its_height_and_its_area(
    middle_V: float, width_V: float, height_A: float, anodic: bool
) -> None:
    (found,) = peaks(leg(anodic, (middle_V, width_V, height_A)))
    assert found.voltage_V == pytest.approx(middle_V, abs=3e-3)
    assert found.current_A == pytest.approx(height_A if anodic else -height_A, rel=0.01)
    area_Ah = height_A * width_V * math.sqrt(2 * math.pi) / RATE / 3600
    assert found.charge_Ah == pytest.approx(area_Ah, rel=0.01)
    assert found.width_V == pytest.approx(2.355 * width_V, rel=0.02)


@settings(max_examples=25, deadline=None)
@given(shift_V=st.floats(0.0, 0.2), lower_A=st.floats(3e-4, 9e-4))
def test_the_separation_of_each_couple_is_the_distance_of_its_peaks(
    shift_V: float, lower_A: float
) -> None:
    up = leg(True, (2.5, 0.04, lower_A), (3.4, 0.04, 1e-3))
    down = leg(False, (2.5 - shift_V, 0.04, lower_A), (3.4 - shift_V, 0.04, 1e-3))
    found = couples(up, down)
    assert [round(one.voltage_V + shift_V / 2, 2) for one in found] == [2.5, 3.4]
    for one in found:
        assert one.separation_V == pytest.approx(shift_V, abs=6e-3)
    main = main_couple(found)
    assert main is not None
    assert main.anodic.voltage_V == pytest.approx(3.4, abs=3e-3)
    lower = found[0].anodic
    assert main.anodic.charge_Ah / lower.charge_Ah == pytest.approx(1e-3 / lower_A, rel=0.02)


def sweeps(noise_V: float = 0.0, *, visits: bool = True) -> pd.DataFrame:
    """1.5 V to 4 V and back, twice."""
    parts = []
    for number in range(4):
        voltage_V = np.linspace(1.5, 4.0, 400)[:: 1 if number % 2 == 0 else -1]
        parts.append(
            pd.DataFrame(
                {
                    "visit": number + 1 if visits else 1,
                    "voltage_V": voltage_V,
                    "current_A": (1 if number % 2 == 0 else -1) * 1e-4,
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True)
    frame["test_time_s"] = np.arange(len(frame)) * (2.5 / 399 / RATE)
    frame["voltage_V"] += np.random.default_rng(1).normal(0, noise_V, len(frame))
    return frame


@pytest.mark.parametrize("visits", [True, False])
@pytest.mark.parametrize("noise_V", [0.0, 1e-3])
def test_a_voltammogram_is_cut_where_the_voltage_turns(visits: bool, noise_V: float) -> None:
    found = legs(sweeps(noise_V, visits=visits))
    assert [one.anodic for one in found] == [True, False, True, False]
    for one in found:
        assert one.rate_V_per_s == pytest.approx(RATE, rel=0.01)
        assert one.charge_Ah == pytest.approx(1e-4 * 2.5 / RATE / 3600, rel=0.01)


def test_what_is_no_sweep_is_passed_over() -> None:
    still = sweeps().assign(voltage_V=3.0)
    assert legs(still) == []
    assert legs(sweeps().iloc[:10]) == []
    with pytest.raises(ValueError, match="current_A"):
        legs(sweeps().drop(columns="current_A"))
    flat = leg(True, (3.0, 0.1, 0.0))
    assert peaks(flat) == ()
    assert main_couple(couples(flat, leg(False, (3.0, 0.1, 1.0)))) is None
    with pytest.raises(ValueError, match="anodic leg and a cathodic"):
        couples(leg(False, (3.0, 0.1, 1.0)), flat)


def test_records_that_are_not_numbers_are_left_out() -> None:
    frame = sweeps()
    frame.loc[frame.index % 7 == 0, "current_A"] = math.nan
    assert len(legs(frame)) == 4


@pytest.fixture(scope="module")
def measured() -> dict[str, list[Leg]]:
    """Voltammograms of the simulated materials at 0.1 mV/s, the second cycle of each."""
    found = {}
    for material in ("HE-V", "NVP"):
        cell = build_cell(
            CellSpec(name=material, material=material, active_mass_g=MASS_G, scatter=0.0)
        )
        cell.sweep(3.0, 4.1, RATE, recorder=Recorder())
        cell.sweep(4.1, 1.5, RATE, recorder=Recorder())
        parts, start_s = [], 0.0
        for visit, (from_V, to_V) in enumerate([(1.5, 4.1), (4.1, 1.5)]):
            trace = cell.sweep(from_V, to_V, RATE, recorder=Recorder(every_s=30.0))
            parts.append(
                pd.DataFrame(
                    {
                        "visit": visit,
                        "test_time_s": start_s + trace.time_s,
                        "voltage_V": trace.voltage_V,
                        "current_A": trace.current_A,
                    }
                )
            )
            start_s += trace.elapsed_s
        found[material] = legs(pd.concat(parts))
    return found


def test_the_peaks_of_the_high_entropy_cathode_are_higher_larger_and_closer(
    measured: dict[str, list[Leg]],
) -> None:
    he_v, nvp = (main_couple(couples(*measured[name])) for name in ("HE-V", "NVP"))
    assert he_v is not None
    assert nvp is not None
    assert he_v.voltage_V == pytest.approx(3.43, abs=0.02)
    assert he_v.anodic.current_A > 1.2 * nvp.anodic.current_A
    assert he_v.cathodic.current_A < 1.2 * nvp.cathodic.current_A
    assert he_v.anodic.charge_Ah > nvp.anodic.charge_Ah
    assert he_v.separation_V < nvp.separation_V - 0.03


def test_the_area_of_a_leg_is_the_charge_that_passed(measured: dict[str, list[Leg]]) -> None:
    up = measured["HE-V"][0]
    assert up.charge_Ah * 1e3 / MASS_G == pytest.approx(171, abs=2)
    assert sum(peak.charge_Ah for peak in peaks(up)) == pytest.approx(up.charge_Ah, rel=0.01)
