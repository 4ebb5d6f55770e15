"""A cell that is asked in small pieces lives the same life as one that is asked at once."""

from __future__ import annotations

import numpy as np
import pytest

from labctl.simulators.cells import build_cell
from labctl.simulators.cells.interface import Control, Recorder, StopReason, Until
from labctl.simulators.cells.spec import CellSpec


@pytest.mark.parametrize("max_records", [1, 7, 1000])
@pytest.mark.parametrize("seed", [1, 2, 531725347])
@pytest.mark.parametrize("material", ["HE-V", "NVP"])
def test_the_voltage_of_a_slow_discharge_never_jumps(
    material: str, seed: int, max_records: int
) -> None:
    """Found with records at 8 mV: on the flank below the plateau a piece of 1e-22 s came out 0.7 V
    above the one before it, and the next ones beyond 4.4 V."""
    mass_g = 2.106e-3
    spec = CellSpec(name="c", material=material, active_mass_g=mass_g, seed=seed)
    current_A = 20e-3 * mass_g
    cell = build_cell(spec)
    cell.advance(
        Control.CURRENT,
        current_A,
        1e6,
        until=Until(voltage_at_least_V=4.1),
        recorder=Recorder(),
    )
    recorder = Recorder(every_s=120.0, voltage_change_V=0.008)
    until = Until(voltage_at_most_V=1.5, voltage_at_least_V=4.4)
    voltages = [cell.voltage_V(-current_A)]
    reason = StopReason.RECORDS
    while reason is StopReason.RECORDS and len(voltages) < 5000:
        trace = cell.advance(
            Control.CURRENT, -current_A, 1e6, until=until, recorder=recorder,
            max_records=max_records,
        )  # fmt: skip
        voltages += trace.voltage_V.tolist()
        reason = trace.reason
    assert reason is StopReason.VOLTAGE_LOW
    assert np.abs(np.diff(voltages)).max() < 0.01
