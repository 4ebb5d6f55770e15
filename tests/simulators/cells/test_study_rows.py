"""Rows of the study that take a whole measurement: titration, full-cell plateaus and rates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labctl.analysis.dqdv import dqdv, plateaus
from labctl.simulators.cells import Anode
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, StopReason, Trace, Until

MASS_G = 2e-3
ONE_C_A = 0.1 * MASS_G
SODIATED = Anode(active_mass_g=1.25 * MASS_G, sodium_mAh_per_g=200.0, film_mAh_per_g=61.0)
Make = Callable[..., ModelCell]
Run = Callable[..., Trace]


def test_a_titration_of_he_v_passes_about_170_mAh_per_g_at_its_plateaus(
    make: Make, constant_current: Run
) -> None:
    cell = make("HE-V")
    constant_current(cell, 0.2, 4.1)
    passed_Ah, rested_V = 0.0, []
    for _ in range(200):
        pulse = cell.advance(
            Control.CURRENT, -0.2 * ONE_C_A, 600.0,
            until=Until(voltage_at_most_V=1.5), recorder=Recorder(),
        )  # fmt: skip
        passed_Ah -= pulse.end_charge_Ah
        if pulse.reason is StopReason.VOLTAGE_LOW:
            break
        rest = cell.advance(Control.REST, 0.0, 7200.0, until=Until(), recorder=Recorder())
        rested_V.append(rest.end_voltage_V)
    assert passed_Ah / MASS_G * 1e3 == pytest.approx(170.0, abs=4.0)
    counts, edges = np.histogram(rested_V, bins=np.arange(1.5, 4.2, 0.04))
    for plateau_V in (1.67, 3.43, 4.03):
        here = np.searchsorted(edges, plateau_V) - 1
        assert counts[here - 1 : here + 2].sum() >= 4


def test_the_full_cell_has_three_plateaus(make: Make, constant_current: Run) -> None:
    cell = make("HE-V", anode=SODIATED)
    constant_current(cell, 0.2, 4.1)
    constant_current(cell, -0.2, 1.5)
    charge = constant_current(cell, 0.2, 4.1, voltage_change_V=1e-3, every_s=30.0)
    discharge = constant_current(cell, -0.2, 1.5, voltage_change_V=1e-3, every_s=30.0)
    curves = [dqdv(half.voltage_V, half.charge_Ah) for half in (charge, discharge)]
    found = sorted(plateau.voltage_V for plateau in plateaus(*curves))
    below_half_cell_V = np.array([1.67, 3.43, 4.03]) - np.array(
        [min(found, key=lambda v: abs(v - known)) for known in (1.55, 3.3, 3.9)]
    )
    assert len(found) >= 3
    assert np.all((below_half_cell_V > 0.0) & (below_half_cell_V < 0.4))


def test_the_full_cell_keeps_up_at_five_C_and_its_capacity_returns(
    make: Make, constant_current: Run
) -> None:
    cell = make("HE-V", anode=SODIATED)
    capacities = {}
    for rate in (0.2, 0.5, 1.0, 2.0, 5.0):
        for _ in range(2):
            constant_current(cell, rate, 4.1)
            discharge = constant_current(cell, -rate, 1.5)
        capacities[rate] = -discharge.end_charge_Ah / MASS_G * 1e3
    constant_current(cell, 0.2, 4.1)
    again = -constant_current(cell, -0.2, 1.5).end_charge_Ah / MASS_G * 1e3
    assert list(capacities.values()) == sorted(capacities.values(), reverse=True)
    assert capacities[5.0] > 0.75 * capacities[0.2]
    assert again == pytest.approx(capacities[0.2], rel=0.02)


def test_the_full_cell_is_stable_at_one_C(make: Make, constant_current: Run) -> None:
    cell = make("HE-V", anode=SODIATED)
    capacities = []
    for _ in range(100):
        constant_current(cell, 1.0, 4.1)
        capacities.append(-constant_current(cell, -1.0, 1.5).end_charge_Ah)
    assert capacities[-1] > 0.97 * capacities[2]
