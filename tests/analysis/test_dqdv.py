"""Plateaus that are known are found, with the noise and the records of a real cycler."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labctl.analysis.dqdv import DqDv, dqdv, find_peaks, half_cycles, plateaus

HE_V = ((1.67, 58.0), (3.43, 75.0), (4.03, 35.0))
GRID_V = np.linspace(1.2, 4.4, 12801)


def staircase(plateaus_V, width_V=0.008, slope_mAh_g_V=4.0):
    """Charge over voltage at rest: a sigmoid for each plateau and a slope between them."""
    charge = slope_mAh_g_V * (GRID_V - GRID_V[0])
    for voltage, amount in plateaus_V:
        charge = charge + amount / (1 + np.exp(np.clip(-(GRID_V - voltage) / width_V, -500, 500)))
    return charge


def recorded(
    plateaus_V,
    *,
    charging=True,
    polarisation_V=0.015,
    noise_V=2e-4,
    every_s=45.0,
    every_V=5e-3,
    current_mA_g=20.0,
    seed=1,
    **shape,
):
    """Records of a constant-current half cycle, each ``every_s`` or ``every_V``."""
    at_rest = staircase(plateaus_V, **shape)
    shift = polarisation_V if charging else -polarisation_V
    low, high = np.searchsorted(GRID_V + shift, [1.5, 4.1])
    passed = np.linspace(at_rest[low], at_rest[high], 15_000)
    voltage = np.interp(passed, at_rest, GRID_V) + shift
    if not charging:
        voltage = voltage[::-1]
    passed = passed - passed[0]
    time_s = passed / current_mA_g * 3600
    kept = [0]
    for index in range(1, len(voltage)):
        last = kept[-1]
        if (
            time_s[index] - time_s[last] >= every_s
            or abs(voltage[index] - voltage[last]) >= every_V
        ):
            kept.append(index)
    noise = np.random.default_rng(seed).normal(0, noise_V, len(kept))
    return voltage[kept] + noise, (passed if charging else -passed)[kept]


def curves(plateaus_V, **options):
    up = dqdv(*recorded(plateaus_V, charging=True, **options))
    down = dqdv(*recorded(plateaus_V, charging=False, **options))
    return up, down


def test_the_three_plateaus_of_the_reference_study_are_found():
    up, down = curves(HE_V)
    found = plateaus(up, down)
    assert [plateau.voltage_V for plateau in found] == pytest.approx([1.67, 3.43, 4.03], abs=2e-3)
    assert [plateau.separation_V for plateau in found] == pytest.approx([0.03] * 3, abs=3e-3)


@settings(max_examples=25, deadline=None)
@given(
    voltages=st.lists(st.floats(1.6, 4.0), min_size=1, max_size=4, unique=True),
    amounts=st.lists(st.floats(20, 80), min_size=4, max_size=4),
    width_V=st.floats(0.0005, 0.015),
    polarisation_V=st.floats(0.002, 0.04),
    every_s=st.sampled_from([30.0, 45.0, 60.0]),
    every_V=st.sampled_from([5e-3, 10.0]),
    seed=st.integers(0, 1000),
)
def test_known_plateaus_are_found_within_5_mV(
    voltages, amounts, width_V, polarisation_V, every_s, every_V, seed
):
    voltages = sorted(voltages)
    assume(all(late - early > 0.15 for early, late in itertools.pairwise(voltages)))
    known = tuple(zip(voltages, amounts, strict=False))
    up, down = curves(
        known,
        width_V=width_V,
        polarisation_V=polarisation_V,
        every_s=every_s,
        every_V=every_V,
        seed=seed,
    )
    found = plateaus(up, down)
    assert [plateau.voltage_V for plateau in found] == pytest.approx(voltages, abs=5e-3)
    assert [plateau.separation_V for plateau in found] == pytest.approx(
        [2 * polarisation_V] * len(known), abs=6e-3
    )


def test_the_height_width_and_charge_of_a_peak_are_those_of_the_plateau():
    voltage, charge = recorded(
        ((3.4, 60.0),), noise_V=0, slope_mAh_g_V=0.0, every_s=5, width_V=0.02
    )
    (peak,) = find_peaks(dqdv(voltage, charge))
    assert peak.height_Ah_V == pytest.approx(60 / (4 * 0.02), rel=0.03)
    assert peak.width_V == pytest.approx(3.526 * 0.02, rel=0.05)
    assert peak.charge_Ah == pytest.approx(60, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(2.0, 3.0), st.floats(0.001, 1.0)), min_size=3, max_size=60),
    st.floats(1e-3, 2e-2),
    st.floats(0, 1e-2),
    st.booleans(),
)
def test_no_charge_is_lost_or_made_whatever_the_voltage_does(points, bin_V, smooth_V, charging):
    voltage = np.array([point[0] for point in points])
    charge = np.cumsum([point[1] for point in points]) * (1 if charging else -1)
    curve = dqdv(voltage, charge, bin_V=bin_V, smooth_V=smooth_V, keep_end_hold=True)
    assert curve.charging == charging
    assert curve.charge_Ah == pytest.approx(abs(charge[-1] - charge[0]), rel=1e-3)
    assert (curve.dqdv_Ah_V >= -1e-6 * curve.dqdv_Ah_V.max()).all()


def test_a_charge_and_a_discharge_of_the_same_path_give_the_same_curve():
    voltage, charge = recorded(HE_V, noise_V=0, every_s=5)
    up, down = dqdv(voltage, charge), dqdv(voltage[::-1], charge[::-1])
    assert not down.charging
    assert np.allclose(up.voltage_V, down.voltage_V)
    inside = (up.voltage_V > 1.55) & (up.voltage_V < 4.05)
    assert np.allclose(up.dqdv_Ah_V[inside], down.dqdv_Ah_V[inside], rtol=1e-3, atol=1e-2)


def test_a_hold_at_the_end_voltage_is_no_plateau():
    voltage, charge = recorded(((3.43, 75.0),))
    held_V = np.full(200, voltage[-1]) + np.random.default_rng(2).normal(0, 2e-4, 200)
    held = charge[-1] + 30 * (1 - np.exp(-np.arange(200) / 40))
    whole = np.concatenate([voltage, held_V]), np.concatenate([charge, held])
    (peak,) = find_peaks(dqdv(*whole))
    assert peak.voltage_V == pytest.approx(3.445, abs=3e-3)
    assert len(find_peaks(dqdv(*whole, keep_end_hold=True))) == 2


def test_noise_makes_no_peaks():
    voltage, charge = recorded((), slope_mAh_g_V=40.0, noise_V=5e-4)
    assert len(find_peaks(dqdv(voltage, charge))) <= 1
    for seed in range(20):
        voltage, charge = recorded(HE_V, noise_V=5e-4, seed=seed)
        assert len(find_peaks(dqdv(voltage, charge))) == 3


def test_a_plateau_that_only_the_discharge_has_is_left_out():
    """As in a first cycle, whose charge begins above the lowest plateau."""
    up = dqdv(*recorded(HE_V[1:]))
    down = dqdv(*recorded(HE_V, charging=False))
    assert [round(plateau.voltage_V, 2) for plateau in plateaus(up, down)] == [3.43, 4.03]


def test_the_halves_of_a_cycle_are_told_apart_by_the_current():
    up_V, up = recorded(HE_V)
    down_V, down = recorded(HE_V, charging=False)
    rest = np.full(5, 4.08)
    voltage = np.concatenate([rest, up_V, rest, down_V, rest])
    charge = 7 + np.concatenate(
        [np.zeros(5), up, np.full(5, up[-1]), up[-1] + down, np.full(5, up[-1] + down[-1])]
    )
    current = np.concatenate(
        [np.zeros(5), np.full(len(up), 2e-5), np.full(5, 1e-9), np.full(len(down), -2e-5), [0] * 5]
    )
    voltage[3] = np.nan
    first, second = half_cycles(voltage, current, charge)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.voltage_V, up_V)
    assert np.allclose(first.charge_Ah, up)
    assert np.allclose(second.charge_Ah, -down)
    assert (first.charging, second.charging) == (True, False)


def test_a_cycle_without_a_discharge_has_none():
    voltage, charge = recorded(HE_V)
    first, second = half_cycles(voltage, np.full(len(charge), 1e-3), charge)
    assert first is not None
    assert second is None
    assert half_cycles(np.empty(0), np.empty(0), np.empty(0)) == (None, None)


@pytest.mark.parametrize(
    ("voltage", "charge"), [([3.0, 3.1], [0.0, 1.0]), ([3, 3.1, 3.2], [1.0, 2.0, 1.0])]
)
def test_what_makes_no_curve_is_refused(voltage, charge):
    with pytest.raises(ValueError, match=r"records|charge"):
        dqdv(np.array(voltage), np.array(charge))


def test_a_curve_of_nothing_has_no_peaks():
    assert find_peaks(DqDv(True, np.array([1.0, 1.1, 1.2]), np.zeros(3))) == ()
