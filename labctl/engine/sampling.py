"""What a source says, sample by sample: what is recorded of it, and when a visit ends. Pure.

A fold over every reading of a visit, recorded or not. Cut into blocks anywhere it gives the same to
the bit. Limits are judged before ends. Charge is integrated by trapezoids where the instrument does
not count it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np

from labctl.drivers.base import Capabilities
from labctl.engine.ends import holds, slope_after
from labctl.engine.limits import beyond
from labctl.model import Readings
from labctl.program import EndCondition, Limits, Quantity, Step


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """Where a visit stands after its last sample, recorded or not.

    ``done_`` are what the visit had come to when it was taken up again, and ``run_charge_Ah`` is
    the net charge of the run when it was begun or taken up. The others count from there.
    """

    done_s: float = 0.0
    done_Ah: float = 0.0
    done_Wh: float = 0.0
    run_charge_Ah: float = 0.0
    samples: int = 0
    time_s: float = 0.0
    voltage_V: float = math.nan
    current_A: float = math.nan
    temperature_degC: float = math.nan
    passed_Ah: float = 0.0
    passed_Wh: float = 0.0
    recorded_s: float = -math.inf
    recorded_V: float = math.nan
    recorded_A: float = math.nan
    recorded_Ah: float = 0.0
    slope_from_s: float = math.nan
    slope_from_V: float = math.nan
    slope_V_per_s: float = math.nan

    @property
    def step_time_s(self) -> float:
        """Since the visit began, with what was before."""
        return self.done_s + self.time_s

    @property
    def charge_Ah(self) -> float:
        """Net, since the run began."""
        return self.run_charge_Ah + self.passed_Ah

    @property
    def visit_start_charge_Ah(self) -> float:
        """Net, since the run began, when the visit began."""
        return self.run_charge_Ah - self.done_Ah

    @property
    def energy_Wh(self) -> float:
        """Net, since the visit was begun or taken up."""
        return self.passed_Wh

    @property
    def visit_start_energy_Wh(self) -> float:
        """What makes :attr:`energy_Wh` count from the visit's beginning."""
        return -self.done_Wh


def sample(
    step: Step, limits: Limits, capabilities: Capabilities, state: Sampled, readings: Readings
) -> tuple[Sampled, Readings, EndCondition | None, str]:
    """One look's readings.

    Returns the new state; the readings to record, with exact counters, the first and the last of a
    visit always among them; the end condition that won (what was read after it is dropped); and the
    limit that was passed, '' if none was.
    """
    kept: list[int] = []
    charges, energies = np.empty(len(readings)), np.empty(len(readings))
    watches_slope = any(end.quantity is Quantity.VOLTAGE_SLOPE_V_PER_S for end in step.ends)
    end: EndCondition | None = None
    passed = ""
    for row in range(len(readings)):
        state = _after(state, readings, row, watches_slope=watches_slope)
        charges[row], energies[row] = state.passed_Ah, state.passed_Wh
        passed = beyond(
            limits,
            capabilities,
            voltage_V=state.voltage_V,
            current_A=state.current_A,
            temperature_degC=state.temperature_degC,
            step_charge_Ah=state.done_Ah + state.passed_Ah,
        )
        if not passed:
            end = next((one for one in step.ends if holds(one, state, exactly=True)), None)
        over = bool(passed) or end is not None
        if over or _is_due(step, state):
            kept.append(row)
            state = msgspec.structs.replace(
                state,
                recorded_s=state.time_s,
                recorded_V=state.voltage_V,
                recorded_A=state.current_A,
                recorded_Ah=state.passed_Ah,
            )
        if over:
            break
    rows = np.asarray(kept, dtype=np.int64)
    recorded = Readings(
        *(getattr(readings, name)[rows] for name in readings.__dataclass_fields__)
    )
    recorded = replace(
        recorded, step_charge_Ah=charges[rows], step_energy_Wh=energies[rows]
    )
    return state, recorded, end, passed


def last_record(state: Sampled, readings: Readings) -> Readings:
    """The last of ``readings`` with its counters, where it was not recorded yet; else none.

    For a visit that something else than its own ends brings to an end.
    """
    if not len(readings) or state.recorded_s >= state.time_s:
        return readings[:0]
    return replace(
        readings[len(readings) - 1 :],
        step_charge_Ah=np.array([state.passed_Ah]),
        step_energy_Wh=np.array([state.passed_Wh]),
    )


def _after(state: Sampled, readings: Readings, row: int, *, watches_slope: bool) -> Sampled:
    time_s = float(readings.step_time_s[row])
    voltage_V, current_A = float(readings.voltage_V[row]), float(readings.current_A[row])
    before_A = current_A if state.samples == 0 else state.current_A
    before_V = voltage_V if state.samples == 0 else state.voltage_V
    hours = (time_s - state.time_s) / 3600.0
    charge_Ah = float(readings.step_charge_Ah[row])
    if not math.isfinite(charge_Ah):
        charge_Ah = state.passed_Ah + hours * (before_A + current_A) / 2.0
    energy_Wh = float(readings.step_energy_Wh[row])
    if not math.isfinite(energy_Wh):
        power_W = (before_A * before_V + current_A * voltage_V) / 2.0
        energy_Wh = state.passed_Wh + hours * power_W
    slope = (state.slope_from_s, state.slope_from_V, state.slope_V_per_s)
    if watches_slope:
        slope = slope_after(slope, np.array([time_s]), np.array([voltage_V]))
    return msgspec.structs.replace(
        state,
        samples=state.samples + 1,
        time_s=time_s,
        voltage_V=voltage_V,
        current_A=current_A,
        temperature_degC=float(readings.temperature_degC[row]),
        passed_Ah=charge_Ah,
        passed_Wh=energy_Wh,
        slope_from_s=slope[0],
        slope_from_V=slope[1],
        slope_V_per_s=slope[2],
    )


def _is_due(step: Step, state: Sampled) -> bool:
    """Whether the record rule asks for this sample; the first is always asked for."""
    rule = step.record
    return (
        math.isnan(state.recorded_V)
        or state.time_s - state.recorded_s >= rule.every_s
        or abs(state.voltage_V - state.recorded_V) >= rule.voltage_change_V
        or abs(state.current_A - state.recorded_A) >= rule.current_change_A
        or abs(state.passed_Ah - state.recorded_Ah) >= rule.charge_change_Ah
    )
