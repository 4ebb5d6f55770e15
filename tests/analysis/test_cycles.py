"""What a cycle charged and discharged, by the sign of the change and not by intention."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.analysis.cycles import (
    CycleSummary,
    coulombic_efficiency,
    reference_capacity_Ah,
    retention,
    summarise_cycle,
    summarise_cycles,
)


def summary(charge_Ah: list[float], energy_Wh: list[float] | None = None) -> CycleSummary:
    count = len(charge_Ah)
    return summarise_cycle(
        np.arange(count) * 10.0,
        np.linspace(2.0, 4.0, count),
        np.linspace(-1e-3, 1e-3, count),
        np.array(charge_Ah),
        np.array(energy_Wh if energy_Wh is not None else [3.5 * q for q in charge_Ah]),
    )


def test_a_charge_and_the_discharge_after_it_are_counted_apart() -> None:
    found = summary([0.0, 1.0, 2.0, 1.5, 0.2])
    assert found.charge_Ah == pytest.approx(2.0)
    assert found.discharge_Ah == pytest.approx(1.8)
    assert found.coulombic_efficiency == pytest.approx(0.9)
    assert found.duration_s == 40.0


def test_a_small_reverse_current_within_a_charge_counts_as_discharge() -> None:
    found = summary([0.0, 1.0, 0.9, 2.0])
    assert found.charge_Ah == pytest.approx(2.1)
    assert found.discharge_Ah == pytest.approx(0.1)


def test_mean_voltages_are_energy_over_charge() -> None:
    found = summary([0.0, 1.0, 2.0, 0.5], [0.0, 3.5, 7.5, 3.0])
    assert found.mean_charge_voltage_V == pytest.approx(3.75)
    assert found.mean_discharge_voltage_V == pytest.approx(3.0)


def test_extremes_are_those_of_the_cycles_own_records() -> None:
    found = summary([0.0, 1.0, 2.0])
    assert (found.voltage_min_V, found.voltage_max_V) == (3.0, 4.0)
    assert (found.current_min_A, found.current_max_A) == (0.0, 1e-3)


def test_a_first_cycle_that_takes_up_more_than_it_gave_has_an_efficiency_above_one() -> None:
    assert coulombic_efficiency(117.0, 170.0) == pytest.approx(1.453, abs=1e-3)


def test_what_has_no_divisor_is_not_a_number() -> None:
    assert math.isnan(coulombic_efficiency(0.0, 1.0))
    assert math.isnan(retention(1.0, 0.0))
    assert math.isnan(summary([0.0, -1.0]).mean_charge_voltage_V)


def test_a_cycle_without_records_is_empty() -> None:
    found = summary([5.0])
    assert (found.charge_Ah, found.discharge_Ah, found.duration_s) == (0.0, 0.0, 0.0)
    assert math.isnan(found.voltage_max_V)
    with pytest.raises(ValueError, match="record before"):
        summary([])


def test_the_reference_is_the_median_of_its_cycles() -> None:
    assert reference_capacity_Ah([1.0, 5.0, 2.0]) == 2.0
    with pytest.raises(ValueError, match="at least one"):
        reference_capacity_Ah([])


@given(
    steps=st.lists(st.floats(-1.0, 1.0).map(lambda x: round(x, 6)), min_size=1, max_size=200),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_many_cycles_at_once_are_each_the_same_as_by_itself(
    steps: list[float], cuts: list[int]
) -> None:
    charge_Ah = np.concatenate(([0.0], np.cumsum(steps)))
    last_row = len(charge_Ah) - 1
    time_s = np.arange(len(charge_Ah), dtype=float)
    voltage_V, energy_Wh = 3.0 + np.sin(time_s), charge_Ah * 3.3
    current_A = np.cos(time_s)
    edges = sorted([0, last_row, *(cut for cut in cuts if cut <= last_row)])
    before, last = np.array(edges[:-1], dtype=np.int64), np.array(edges[1:], dtype=np.int64)
    found = summarise_cycles(time_s, voltage_V, current_A, charge_Ah, energy_Wh, before, last)
    for one, a, b in zip(found, before, last, strict=True):
        rows = slice(a, b + 1)
        alone = summarise_cycle(
            time_s[rows], voltage_V[rows], current_A[rows], charge_Ah[rows], energy_Wh[rows]
        )
        assert repr(one) == repr(alone)  # NaN is not equal to NaN
        net = charge_Ah[b] - charge_Ah[a]
        assert one.charge_Ah - one.discharge_Ah == pytest.approx(net, abs=1e-9)
        assert min(one.charge_Ah, one.discharge_Ah) >= 0
