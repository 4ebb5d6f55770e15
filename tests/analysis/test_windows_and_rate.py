"""Capacity by voltage, by rate and over ranges of cycles."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.analysis.cycles import retention_over, specific_energy_Wh_kg
from labctl.analysis.dqdv import HalfCycle
from labctl.analysis.rate import at_rate, rate_blocks, recovery
from labctl.analysis.windows import charge_by_window

ONE_C_A = 2e-4


def test_a_charge_that_is_even_over_the_voltage_is_shared_out_by_the_width_of_the_windows() -> None:
    half = HalfCycle(True, np.linspace(1.5, 4.1, 50), np.linspace(0.0, 2.6, 50))
    assert charge_by_window(half) == pytest.approx([1.5, 0.6, 0.5])
    back = HalfCycle(False, half.voltage_V[::-1], half.charge_Ah)
    assert charge_by_window(back) == pytest.approx([1.5, 0.6, 0.5])


@given(
    voltage_V=st.lists(st.floats(1.5, 4.1), min_size=2, max_size=60),
    edges_V=st.lists(st.floats(1.0, 4.5), min_size=1, max_size=4, unique=True).map(sorted),
)
def test_the_windows_add_up_to_the_whole(voltage_V: list[float], edges_V: list[float]) -> None:
    charge_Ah = np.cumsum(np.abs(np.sin(np.arange(len(voltage_V)))))
    found = charge_by_window(HalfCycle(True, np.array(voltage_V), charge_Ah), edges_V)
    assert len(found) == len(edges_V) + 1
    assert found.sum() == pytest.approx(charge_Ah[-1] - charge_Ah[0], abs=1e-9)
    assert (found >= -1e-9).all()


def test_windows_that_are_none_are_refused() -> None:
    half = HalfCycle(True, np.array([1.0, 2.0]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="do not ascend"):
        charge_by_window(half, [3.0, 2.0])
    with pytest.raises(ValueError, match="at least 2 records"):
        charge_by_window(HalfCycle(True, np.array([1.0]), np.array([0.0])))


def ladder(*blocks: tuple[float, float]) -> pd.DataFrame:
    """Five cycles at each rate, in C, that give so much, in mAh/g."""
    return pd.DataFrame(
        {
            "cycle": np.arange(1, 5 * len(blocks) + 1),
            "current_max_A": np.repeat([rate * ONE_C_A for rate, _ in blocks], 5)
            * np.tile([1.0, 1.001, 0.999, 1.0, 1.002], len(blocks)),
            "discharge_mAh_g": np.repeat([given for _, given in blocks], 5)
            + np.tile([1.0, 0.0, 0.0, -0.1, 0.1], len(blocks)),
            "complete": True,
        }
    )


def test_a_ladder_is_cut_where_the_current_changes() -> None:
    cycles = ladder((0.2, 170.0), (5.0, 140.0), (50.0, 90.0), (0.2, 168.0))
    cycles.loc[7, "complete"] = False
    cycles.loc[8, "discharge_mAh_g"] = np.nan
    blocks = rate_blocks(cycles.set_index("cycle"), ONE_C_A)
    assert list(blocks["rate_C"]) == pytest.approx([0.2, 5.0, 50.0, 0.2], rel=2e-3)
    assert list(blocks["first_cycle"]) == [1, 6, 11, 16]
    assert list(blocks["cycles"]) == [5, 3, 5, 5]
    assert list(blocks["discharge_mAh_g"]) == pytest.approx([170.0, 140.1, 90.0, 168.0], abs=0.2)
    assert at_rate(blocks, 50.0) == pytest.approx(90.0)
    assert math.isnan(at_rate(blocks, 30.0))
    assert recovery(blocks) == pytest.approx(168.0 / 170.0, rel=1e-3)


def test_a_rate_that_does_not_come_back_has_no_recovery() -> None:
    assert math.isnan(recovery(rate_blocks(ladder((0.2, 170.0), (5.0, 140.0)), ONE_C_A)))
    blocks = rate_blocks(ladder((0.2, 170.0), (1.0, 150.0), (5.0, 140.0)), ONE_C_A)
    assert math.isnan(recovery(blocks))


def test_a_ladder_needs_its_columns_and_a_meaning_of_1C() -> None:
    with pytest.raises(ValueError, match="complete"):
        rate_blocks(ladder((1.0, 1.0)).drop(columns="complete"), ONE_C_A)
    with pytest.raises(ValueError, match="1C"):
        rate_blocks(ladder((1.0, 1.0)), 0.0)
    assert len(rate_blocks(ladder((1.0, 1.0)).iloc[:0], ONE_C_A)) == 0


@given(st.floats(0.5, 0.999), st.integers(20, 300))
def test_retention_over_two_halves_multiplies_to_that_over_all(kept: float, half: int) -> None:
    given_Ah = [kept ** (n / half) for n in range(2 * half)]
    first, second, whole = (
        retention_over(given_Ah, a, b, over_cycles=1)
        for a, b in ((1, half + 1), (half + 1, 2 * half), (1, 2 * half))
    )
    assert first == pytest.approx(kept)
    assert first * second == pytest.approx(whole)


def test_one_odd_cycle_does_not_decide_about_retention() -> None:
    given_Ah = [1.0] * 100 + [0.9] * 100
    given_Ah[0], given_Ah[199] = 5.0, 0.0
    assert retention_over(given_Ah, 1, 200) == pytest.approx(0.9)
    assert math.isnan(retention_over(given_Ah, 1, 201))
    with pytest.raises(ValueError, match="too few"):
        retention_over(given_Ah, 1, 9)


def test_energy_is_per_kilogram_of_active_material() -> None:
    assert specific_energy_Wh_kg(9.718e-4, 2e-3) == pytest.approx(485.9)
    assert math.isnan(specific_energy_Wh_kg(1.0, 0.0))
