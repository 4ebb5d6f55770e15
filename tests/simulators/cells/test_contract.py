"""A cell keeps the contract that instruments are written against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import (
    Control,
    Recorder,
    SimulatedCell,
    StopReason,
    Trace,
    Until,
)

MASS_G = 2e-3
ONE_C_A = 0.1 * MASS_G
Make = Callable[..., ModelCell]
Run = Callable[..., Trace]
FOREVER = Until()


def test_a_model_cell_is_a_simulated_cell(make: Make) -> None:
    cell: SimulatedCell = make()
    assert cell.voltage_V() == pytest.approx(2.55, abs=0.1)


def test_a_charge_ends_exactly_when_the_voltage_rises_to_the_limit(
    make: Make, constant_current: Run
) -> None:
    cell = make()
    trace = constant_current(cell, 1.0, 4.1)
    assert trace.reason is StopReason.VOLTAGE_HIGH
    assert 0.0 <= trace.end_voltage_V - 4.1 < 1e-9
    trace = constant_current(cell, -1.0, 1.5)
    assert trace.reason is StopReason.VOLTAGE_LOW
    assert 0.0 <= 1.5 - trace.end_voltage_V < 1e-9


def test_a_charge_at_constant_voltage_ends_when_the_current_is_small(
    make: Make, constant_current: Run
) -> None:
    cell = make()
    constant_current(cell, 10.0, 4.1)
    trace = cell.advance(
        Control.VOLTAGE, 4.1, 1e5,
        until=Until(current_magnitude_at_most_A=0.05 * ONE_C_A), recorder=Recorder(every_s=10),
    )  # fmt: skip
    assert trace.reason is StopReason.CURRENT_SMALL
    assert 0.05 * ONE_C_A - trace.end_current_A == pytest.approx(0.0, abs=1e-9 * ONE_C_A)
    assert np.all(trace.voltage_V == pytest.approx(4.1, abs=1e-12))
    assert np.all(np.diff(trace.current_A) < 0.0)


def test_a_step_ends_exactly_at_its_charge_and_its_energy_is_voltage_times_charge(
    make: Make,
) -> None:
    trace = make().advance(
        Control.CURRENT, -5 * ONE_C_A, 1e6,
        until=Until(charge_magnitude_at_least_Ah=0.02 * MASS_G),
        recorder=Recorder(voltage_change_V=1e-4),
    )  # fmt: skip
    assert trace.reason is StopReason.CHARGE
    assert trace.end_charge_Ah == pytest.approx(-0.02 * MASS_G, rel=1e-12)
    assert trace.elapsed_s == pytest.approx(0.02 / 0.5 * 3600.0, rel=1e-12)
    by_hand = np.trapezoid(trace.voltage_V, trace.charge_Ah)
    gap = trace.charge_Ah[0] * trace.voltage_V[0]
    gap += (trace.end_charge_Ah - trace.charge_Ah[-1]) * trace.end_voltage_V
    assert trace.end_energy_Wh == pytest.approx(by_hand + gap, rel=1e-4)


def test_a_current_that_is_too_large_ends_a_step(make: Make) -> None:
    trace = make().advance(
        Control.VOLTAGE, 4.1, 100.0,
        until=Until(current_magnitude_at_least_A=ONE_C_A), recorder=Recorder(),
    )  # fmt: skip
    assert trace.reason is StopReason.CURRENT_LARGE
    assert trace.elapsed_s == 0.0


def test_records_come_at_their_times_and_exactly_at_their_changes(
    make: Make,
) -> None:
    cell = make()
    timed = cell.advance(
        Control.CURRENT, ONE_C_A, 600.0, until=FOREVER, recorder=Recorder(every_s=7.0)
    )
    assert timed.time_s == pytest.approx(np.arange(7.0, 600.0, 7.0), abs=1e-9)
    recorder = Recorder(voltage_change_V=2e-3)
    stepped = cell.advance(Control.CURRENT, -ONE_C_A, 3000.0, until=FOREVER, recorder=recorder)
    changes = np.abs(np.diff(stepped.voltage_V))
    assert len(changes) > 100
    assert changes == pytest.approx(2e-3, abs=1e-9)
    falling = cell.advance(
        Control.VOLTAGE, 3.9, 3000.0, until=FOREVER, recorder=Recorder(current_change_A=1e-4)
    )
    changes = np.abs(np.diff(falling.current_A))
    assert np.median(np.abs(changes - 1e-4)) < 1e-12
    assert changes == pytest.approx(1e-4, rel=0.01)


def test_a_step_of_voltage_since_the_last_record_is_recorded_at_once(make: Make) -> None:
    recorder = Recorder(voltage_change_V=0.01, last_voltage_V=1.0, last_current_A=0.0)
    trace = make().advance(Control.CURRENT, ONE_C_A, 1.0, until=FOREVER, recorder=recorder)
    assert trace.time_s[0] == 0.0
    assert recorder.last_voltage_V == trace.voltage_V[-1]


def test_full_buffers_stop_a_step_and_nothing_is_lost_between_calls(make: Make) -> None:
    whole = make().advance(
        Control.CURRENT, ONE_C_A, 3000.0, until=FOREVER, recorder=Recorder(every_s=1.0)
    )
    cell = make()
    recorder = Recorder(every_s=1.0)
    times: list[float] = []
    voltages: list[float] = []
    while recorder.now_s < 3000.0 - 1e-6:
        part = cell.advance(
            Control.CURRENT, ONE_C_A, 3000.0 - recorder.now_s,
            until=FOREVER, recorder=recorder, max_records=17,
        )  # fmt: skip
        assert len(part.time_s) <= 17
        assert (part.reason is StopReason.RECORDS) == (len(part.time_s) == 17)
        times += part.time_s.tolist()
        voltages += part.voltage_V.tolist()
    assert times == pytest.approx(whole.time_s.tolist(), abs=1e-9)
    assert voltages == pytest.approx(whole.voltage_V.tolist(), abs=1e-12)


PROGRAM: tuple[tuple[Control, float, float, Until], ...] = (
    (Control.CURRENT, 20 * ONE_C_A, 3000.0, Until(voltage_at_least_V=4.1)),
    (Control.VOLTAGE, 4.1, 900.0, Until(current_magnitude_at_most_A=2 * ONE_C_A)),
    (Control.REST, 0.0, 100.0, FOREVER),
    (Control.POWER, -60 * ONE_C_A, 3000.0, Until(voltage_at_most_V=2.0)),
    (Control.RESISTANCE, 500.0, 1000.0, Until(voltage_at_most_V=1.5)),
    (Control.REST, 0.0, 300.0, FOREVER),
)


def live(cell: ModelCell, piece_s: float) -> tuple[list[Trace], float, float]:
    traces, charge, energy = [], 0.0, 0.0
    for control, setpoint, duration_s, until in PROGRAM:
        recorder = Recorder(every_s=7.0, voltage_change_V=3e-3, current_change_A=1e-4)
        left_s = duration_s
        while left_s > 0.0:
            trace = cell.advance(
                control, setpoint, min(piece_s, left_s), until=until, recorder=recorder
            )
            traces.append(trace)
            charge += trace.end_charge_Ah
            energy += trace.end_energy_Wh
            left_s -= trace.elapsed_s
            if trace.reason is not StopReason.DURATION:
                break
    return traces, charge, energy


@pytest.mark.parametrize("piece_s", [0.125, 0.5, 12.5])
def test_a_life_in_pieces_is_the_same_life_to_rounding(make: Make, piece_s: float) -> None:
    whole, charge, energy = live(make(seed=1, scatter=1.0), math.inf)
    parts, charge_in_pieces, energy_in_pieces = live(make(seed=1, scatter=1.0), piece_s)
    assert charge_in_pieces == pytest.approx(charge, rel=1e-9)
    assert energy_in_pieces == pytest.approx(energy, rel=1e-9)
    for name, close in (("voltage_V", 1e-8), ("current_A", 1e-8), ("temperature_degC", 1e-6)):
        one = np.concatenate([getattr(trace, name) for trace in whole])
        two = np.concatenate([getattr(trace, name) for trace in parts])
        assert len(one) == len(two) > 1000
        assert np.abs(one - two).max() < close


def test_the_same_spec_gives_the_same_readings_to_the_bit(make: Make) -> None:
    one = np.concatenate([t.voltage_V for t in live(make(seed=5, scatter=1.0), math.inf)[0]])
    two = np.concatenate([t.voltage_V for t in live(make(seed=5, scatter=1.0), math.inf)[0]])
    other = np.concatenate([t.voltage_V for t in live(make(seed=6, scatter=1.0), math.inf)[0]])
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_a_restored_cell_goes_on_bit_for_bit(make: Make) -> None:
    cell = make(seed=3, scatter=1.0)
    cell.advance(Control.CURRENT, 3 * ONE_C_A, 123.4, until=FOREVER, recorder=Recorder())
    kept = cell.state()
    first = [t.voltage_V for t in live(cell, 50.0)[0]]
    other = make(seed=3, scatter=1.0)
    other.restore(kept)
    second = [t.voltage_V for t in live(other, 50.0)[0]]
    assert np.concatenate(first).tobytes() == np.concatenate(second).tobytes()
    assert cell.state() == other.state()


def test_bytes_that_are_no_state_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="bytes"):
        make().restore(b"abc")


def test_the_voltage_that_would_flow_is_the_voltage_that_then_flows(make: Make) -> None:
    cell = make()
    asked = cell.voltage_V(5 * ONE_C_A)
    trace = cell.advance(Control.CURRENT, 5 * ONE_C_A, 0.0, until=FOREVER, recorder=Recorder())
    assert trace.end_voltage_V == pytest.approx(asked, abs=1e-12)
    assert trace.elapsed_s == 0.0


def test_a_current_limit_clips_the_current_under_voltage_control(make: Make) -> None:
    cell = make()
    trace = cell.advance(
        Control.VOLTAGE, 4.1, 20_000.0,
        until=FOREVER, recorder=Recorder(every_s=60.0), max_current_A=ONE_C_A,
    )  # fmt: skip
    assert trace.current_A.max() == ONE_C_A
    clipped = trace.current_A == ONE_C_A
    assert np.all(trace.voltage_V[clipped] <= 4.1)
    assert trace.end_voltage_V == pytest.approx(4.1, abs=1e-12)
    assert trace.end_current_A < 0.1 * ONE_C_A


def test_constant_power_and_constant_resistance_are_kept(make: Make, constant_current: Run) -> None:
    cell = make()
    constant_current(cell, 1.0, 4.1)
    power = cell.advance(Control.POWER, -2e-3, 100.0, until=FOREVER, recorder=Recorder(every_s=1.0))
    assert power.voltage_V * power.current_A == pytest.approx(-2e-3, rel=1e-9)
    assert power.end_energy_Wh == pytest.approx(-2e-3 * 100.0 / 3600.0, rel=1e-9)
    load = cell.advance(
        Control.RESISTANCE, 1000.0, 100.0, until=FOREVER, recorder=Recorder(every_s=1.0)
    )
    assert -load.voltage_V / load.current_A == pytest.approx(1000.0, rel=1e-9)


@pytest.mark.parametrize(
    ("setpoint", "duration_s", "options"),
    [
        (math.nan, 1.0, {}),
        (math.inf, 1.0, {}),
        (1e-4, math.nan, {}),
        (1e-4, -1.0, {}),
        (1e-4, 1.0, {"max_records": 0}),
        (1e-4, 1.0, {"max_current_A": 0.0}),
        (1e-4, 1.0, {"ambient_degC": math.nan}),
    ],
)
def test_an_order_without_sense_is_refused_and_changes_nothing(
    make: Make, setpoint: float, duration_s: float, options: dict[str, Any]
) -> None:
    cell = make()
    before = cell.state()
    with pytest.raises(ValueError, match="must"):
        cell.advance(
            Control.CURRENT, setpoint, duration_s,
            until=FOREVER, recorder=Recorder(), **options,
        )  # fmt: skip
    assert cell.state() == before


def test_an_unknown_material_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no material is called 'HEV'; there are HC, HE-V, NVP"):
        build_cell(CellSpec(name="x", material="HEV", active_mass_g=1e-3))
