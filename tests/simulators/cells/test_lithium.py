"""The lithium-ion cell of Chen et al. 2020, beside what PyBaMM makes of the same parameters.

The voltages were printed by PyBaMM 26.10.1 (SPM, Chen2020, 100 points along each radius);
``make validate`` runs it again and prints how far apart the two are.
"""

from __future__ import annotations

import pytest

from labctl.simulators.cells.interface import Control, Recorder, StopReason, Until
from labctl.simulators.cells.lithium import build_lithium_cell
from labctl.simulators.cells.materials.lg_m50 import NEGATIVE, POSITIVE

PYBAMM_AT_C_OVER_2 = {600: 4.01630, 1200: 3.95026, 2400: 3.80536, 3600: 3.64557, 4800: 3.53040}


def test_the_sites_of_both_electrodes_hold_what_their_volumes_say() -> None:
    faraday, area_m2 = 96485.33212, 1.58 * 0.065
    assert NEGATIVE.capacity_Ah == pytest.approx(
        faraday * area_m2 * 85.2e-6 * 0.75 * 33133.0 / 3600
    )
    assert POSITIVE.capacity_Ah == pytest.approx(
        faraday * area_m2 * 75.6e-6 * 0.665 * 63104.0 / 3600
    )


def test_a_discharge_at_half_the_nominal_current_follows_pybamm_within_two_millivolts() -> None:
    cell = build_lithium_cell()
    trace = cell.advance(
        Control.CURRENT, -2.5, 4800.0, until=Until(), recorder=Recorder(every_s=600.0)
    )
    voltages = dict(zip(trace.time_s.round().astype(int), trace.voltage_V, strict=True))
    for time_s, expected_V in PYBAMM_AT_C_OVER_2.items():
        assert voltages[time_s] == pytest.approx(expected_V, abs=2e-3)


def test_a_charged_cell_gives_its_nominal_five_ampere_hours() -> None:
    cell = build_lithium_cell()
    trace = cell.advance(
        Control.CURRENT, -0.5, 1e6, until=Until(voltage_at_most_V=2.5), recorder=Recorder()
    )
    assert trace.reason is StopReason.VOLTAGE_LOW
    assert -trace.end_charge_Ah == pytest.approx(5.1, abs=0.1)
