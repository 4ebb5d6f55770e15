"""What a source says, reading by reading: what is recorded of it, and when a visit ends. Pure.

A fold over every reading of a visit, recorded or not. Cut into blocks anywhere it gives the same to
the bit. A limit is looked for before an end, and either acts at the first reading that shows it.
Charge and energy are net, positive for charging; where the instrument does not count them they are
integrated by trapezoids over every reading, so that the records between carry exact counters.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from labctl.drivers.base import Capabilities
from labctl.engine.ends import SlopePoints, slope_window_s, slopes
from labctl.engine.integrals import integrate, trapezoids
from labctl.engine.limits import charge_beyond, first_beyond, most_charge_Ah
from labctl.errors import InstrumentError
from labctl.model import FloatColumn, Readings
from labctl.program import Comparison, EndCondition, Limits, Quantity, Step

_SLACK: Final = 1e-9
"""Sums of tenths are not whole to the last bit: no reading more is waited for because of that."""


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """Where a visit stands after its last reading, recorded or not.

    done_s, done_Ah, done_Wh: what the visit had come to when it was taken up again, net.
    run_charge_Ah: net charge of the run when the visit was begun, or taken up again.
    samples: how many readings there were; recorded_sample: which of them was recorded last.

    The times and sums without ``done_`` count from where the visit was begun, or taken up again.
    """

    done_s: float = 0.0
    done_Ah: float = 0.0
    done_Wh: float = 0.0
    run_charge_Ah: float = 0.0
    samples: int = 0
    onboard_index: int = 0
    time_s: float = 0.0
    voltage_V: float = math.nan
    current_A: float = math.nan
    temperature_degC: float = math.nan
    passed_Ah: float = 0.0
    passed_Wh: float = 0.0
    recorded_sample: int = 0
    recorded_s: float = 0.0
    recorded_V: float = math.nan
    recorded_A: float = math.nan
    recorded_Ah: float = 0.0
    slope_points: SlopePoints = ()
    slope_V_per_s: float = math.nan

    @property
    def step_time_s(self) -> float:
        """Since the visit began, with what was before a gap."""
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
        """Net, since the visit was begun or taken up again."""
        return self.passed_Wh

    @property
    def visit_start_energy_Wh(self) -> float:
        """On the same count, when the visit began."""
        return -self.done_Wh


class _Columns:
    """Every reading of a block with what ends and limits look at."""

    def __init__(self, step: Step, state: Sampled, readings: Readings) -> None:
        self.time_s = readings.step_time_s
        self.voltage_V = readings.voltage_V
        self.current_A = readings.current_A
        self.temperature_degC = readings.temperature_degC
        self.charge_Ah = _integral(
            state, self.time_s, self.current_A, state.current_A, readings.step_charge_Ah, "Ah"
        )
        self.energy_Wh = _integral(
            state,
            self.time_s,
            self.voltage_V * self.current_A,
            state.voltage_V * state.current_A,
            readings.step_energy_Wh,
            "Wh",
        )
        self.window_s = slope_window_s(step)
        self.slope_V_per_s: FloatColumn = np.full(len(readings), math.nan)
        if self.window_s:
            self.slope_V_per_s = np.array(self.slopes(state.slope_points, len(readings))[1])

    def slopes(self, points: SlopePoints, count: int) -> tuple[SlopePoints, list[float]]:
        """dV/dt at the first ``count`` readings, and what is to be remembered of them."""
        rows = zip(self.time_s[:count].tolist(), self.voltage_V[:count].tolist(), strict=True)
        return slopes(points, rows, self.window_s)

    def actual(self, quantity: Quantity, state: Sampled) -> FloatColumn:
        """See :func:`labctl.engine.ends.actual`."""
        match quantity:
            case Quantity.VOLTAGE_V:
                return self.voltage_V
            case Quantity.CURRENT_A:
                return np.abs(self.current_A)
            case Quantity.STEP_TIME_S:
                return state.done_s + self.time_s
            case Quantity.STEP_CHARGE_AH:
                return np.abs(state.done_Ah + self.charge_Ah)
            case Quantity.STEP_ENERGY_WH:
                return np.abs(state.done_Wh + self.energy_Wh)
            case Quantity.RUN_CHARGE_AH:
                return state.run_charge_Ah + self.charge_Ah
            case Quantity.VOLTAGE_SLOPE_V_PER_S:
                return np.abs(self.slope_V_per_s)
            case Quantity.TEMPERATURE_DEGC:
                return self.temperature_degC


def sample(
    step: Step, limits: Limits, capabilities: Capabilities, state: Sampled, readings: Readings
) -> tuple[Sampled, Readings, EndCondition | None, str]:
    """Judge more readings of a visit, all of them later than those before.

    Args:
        step: with the ends and the record rule.
        limits: those that hold in the step. The duration of the run is not looked at here.
        state: after the readings before.
        readings: their times and counters count from where the visit was begun, or taken up again.

    Returns:
        The new state; the readings to record, with exact counters, the visit's first always among
        them, and its last if an end or a limit is met; the end condition that won, first in the
        step's order if several are met at once; and the limit that was passed, '' if none was. What
        was read after either is dropped.

    Raises:
        InstrumentError: the readings are out of order, or not finite numbers.
    """
    if not len(readings):
        return state, readings, None, ""
    _check(state, readings)
    columns = _Columns(step, state, readings)
    limit_row, limit = _first_limit(limits, capabilities, columns, state)
    end_row, end = _first_end(step, columns, state)
    if limit_row <= end_row:
        end = None
    else:
        limit = ""
    count = min(limit_row, end_row, len(readings) - 1) + 1
    over = end is not None or limit != ""
    rows, state = _to_record(step, columns, state, count, over=over)
    last = count - 1
    temperature_degC = float(columns.temperature_degC[last])
    changes: dict[str, object] = {}
    if columns.window_s:
        points, found = columns.slopes(state.slope_points, count)
        changes = {"slope_points": points, "slope_V_per_s": found[-1]}
    state = msgspec.structs.replace(
        state,
        samples=state.samples + count,
        onboard_index=int(readings.onboard_index[last]),
        time_s=float(columns.time_s[last]),
        voltage_V=float(columns.voltage_V[last]),
        current_A=float(columns.current_A[last]),
        temperature_degC=temperature_degC if math.isfinite(temperature_degC) else math.nan,
        passed_Ah=float(columns.charge_Ah[last]),
        passed_Wh=float(columns.energy_Wh[last]),
        **changes,
    )
    return state, _counted(readings, columns, rows), end, limit


def last_record(state: Sampled, readings: Readings) -> Readings:
    """The visit's last reading, with exact counters, where it was not recorded yet; else none.

    For a visit that something else than its own ends brings to an end. ``readings`` are those that
    ``state`` was reached by.
    """
    if not len(readings) or state.recorded_sample >= state.samples:
        return readings[:0]
    return replace(
        readings[len(readings) - 1 :],
        step_charge_Ah=np.array([state.passed_Ah]),
        step_energy_Wh=np.array([state.passed_Wh]),
    )


def _check(state: Sampled, readings: Readings) -> None:
    for name in ("step_time_s", "voltage_V", "current_A"):
        odd = np.flatnonzero(~np.isfinite(getattr(readings, name)))
        if len(odd):
            raise InstrumentError(
                f"{name} of reading {int(readings.onboard_index[odd[0]])} of a visit is not a "
                "finite number"
            )
    back = (np.diff(readings.onboard_index, prepend=state.onboard_index) <= 0) | (
        np.diff(readings.step_time_s, prepend=state.time_s) < 0
    )
    if back.any():
        row = int(back.argmax())
        raise InstrumentError(
            f"reading {int(readings.onboard_index[row])} of a visit, at "
            f"{readings.step_time_s[row]:g} s, does not come after the one before it"
        )


def _integral(
    state: Sampled,
    time_s: FloatColumn,
    rate: FloatColumn,
    rate_before: float,
    counter: FloatColumn,
    unit: str,
) -> FloatColumn:
    edges = [0, len(time_s)]
    before = state.passed_Ah if unit == "Ah" else state.passed_Wh
    if np.isfinite(counter).all():
        return integrate(counter, None, edges, 0.0, before)
    since = (state.time_s, rate_before) if state.samples else (0.0, float(rate[0]))
    return integrate(counter, trapezoids(time_s, rate, [], since), edges, 0.0, before)


def _first_limit(
    limits: Limits, capabilities: Capabilities, columns: _Columns, state: Sampled
) -> tuple[int, str]:
    """The row at which a limit is passed, and which; one row too many if none is."""
    found = first_beyond(
        limits,
        capabilities,
        voltage_V=columns.voltage_V,
        current_A=columns.current_A,
        temperature_degC=columns.temperature_degC,
    )
    count = len(columns.time_s)
    row = count if found is None else found.row
    charges_Ah = state.done_Ah + columns.charge_Ah
    too_much = np.flatnonzero(np.abs(charges_Ah[:row]) > most_charge_Ah(limits))
    if len(too_much):
        return int(too_much[0]), charge_beyond(limits, float(charges_Ah[too_much[0]]))
    return (count, "") if found is None else (row, found.said())


def _first_end(step: Step, columns: _Columns, state: Sampled) -> tuple[int, EndCondition | None]:
    """The row at which an end is met, and which; one row too many if none is."""
    first, won = len(columns.time_s), None
    for end in step.ends:
        values = columns.actual(end.quantity, state)
        at_least = end.comparison is Comparison.AT_LEAST
        near = _SLACK * abs(end.value)
        met: npt.NDArray[np.bool_] = (
            values >= end.value - near if at_least else values <= end.value + near
        )
        row = int(met.argmax())
        if met[row] and row < first:
            first, won = row, end
    return first, won


def _to_record(
    step: Step, columns: _Columns, state: Sampled, count: int, *, over: bool
) -> tuple[list[int], Sampled]:
    """Which of the first ``count`` rows the record rule asks for, and the last of a visit."""
    rule = step.record
    near = 1.0 - _SLACK
    every_s = rule.every_s * near
    change_V, change_A = rule.voltage_change_V * near, rule.current_change_A * near
    change_Ah = rule.charge_change_Ah * near
    last_s, last_V = state.recorded_s, state.recorded_V
    last_A, last_Ah = state.recorded_A, state.recorded_Ah
    rows: list[int] = []
    for row, (time_s, voltage_V, current_A, charge_Ah) in enumerate(
        zip(
            columns.time_s[:count].tolist(),
            columns.voltage_V[:count].tolist(),
            columns.current_A[:count].tolist(),
            columns.charge_Ah[:count].tolist(),
            strict=True,
        )
    ):
        if (
            time_s - last_s >= every_s
            or abs(voltage_V - last_V) >= change_V
            or abs(current_A - last_A) >= change_A
            or abs(charge_Ah - last_Ah) >= change_Ah
            or (row == 0 and state.samples == 0)
            or (over and row == count - 1)
        ):
            rows.append(row)
            last_s, last_V, last_A, last_Ah = time_s, voltage_V, current_A, charge_Ah
    if not rows:
        return rows, state
    return rows, msgspec.structs.replace(
        state,
        recorded_sample=state.samples + rows[-1] + 1,
        recorded_s=last_s,
        recorded_V=last_V,
        recorded_A=last_A,
        recorded_Ah=last_Ah,
    )


def _counted(readings: Readings, columns: _Columns, rows: list[int]) -> Readings:
    if not rows:
        return readings[:0]
    at = np.asarray(rows, dtype=np.int64)
    picked = Readings(*(getattr(readings, field.name)[at] for field in fields(Readings)))
    return replace(
        picked, step_charge_Ah=columns.charge_Ah[at], step_energy_Wh=columns.energy_Wh[at]
    )
