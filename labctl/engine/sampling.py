"""What a source says, reading by reading: what is recorded of it, and when a visit ends. Pure.

A fold over every reading of a visit, recorded or not. Cut into blocks anywhere it gives the same to
the bit. A limit is looked for before an end, and either acts at the first reading that shows it.
Charge and energy are net, positive for charging; where the instrument does not count them they are
integrated by trapezoids over every reading, so that the records between carry exact counters.

Reading by reading in plain numbers: a look brings one or two, for which columns cost ten times as
much, and hundreds of channels are looked at ten times a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import fields, replace
from typing import Final, NamedTuple

import msgspec
import numpy as np

from labctl.drivers.base import Capabilities
from labctl.engine.ends import SlopePoints, actual, slope_window_s, slopes
from labctl.engine.limits import charge_beyond, rooms
from labctl.errors import InstrumentError
from labctl.model import Readings
from labctl.program import Comparison, EndCondition, Limits, Quantity, Step

_SLACK: Final = 1e-9
"""Sums of tenths are not whole to the last bit: no reading more is waited for because of that."""

_EARLY: Final = 0.1
"""A reading that comes by so much of the record rule's interval too early, and is nearer to its due
time than the next one can be, is recorded: readings come a little unevenly."""


class Sampled(msgspec.Struct, kw_only=True):
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


class Row(NamedTuple):
    """One reading to record: the fields of :class:`labctl.model.Readings`, with exact counters."""

    onboard_index: int
    step: int
    pass_mark: int
    step_time_s: float
    unix_time_s: float
    voltage_V: float
    current_A: float
    step_charge_Ah: float
    step_energy_Wh: float
    temperature_degC: float


class Sample(NamedTuple):
    """What some more readings of a visit came to.

    rows: the readings to record: the visit's first always among them, and its last if an end or a
        limit is met.
    end: the end condition that won, first in the step's order if several are met at once.
    limit: what was passed, '' if nothing was. What was read after either is dropped.
    """

    state: Sampled
    rows: list[Row]
    end: EndCondition | None = None
    limit: str = ""


class Sampler:
    """Judges the readings of a visit.

    Args:
        step: with the ends and the record rule.
        limits: those that hold in the step. The duration of the run is not looked at here.
    """

    def __init__(self, step: Step, limits: Limits, capabilities: Capabilities) -> None:
        self._limits = limits
        self._rooms = rooms(limits, capabilities)
        self._window_s = slope_window_s(step)
        self._ends = [(end, *_met_within(end)) for end in step.ends]
        rule, near = step.record, 1.0 - _SLACK
        self._rule = (
            rule.every_s * near,
            rule.voltage_change_V * near,
            rule.current_change_A * near,
            rule.charge_change_Ah * near,
        )

    def sample(self, state: Sampled, readings: Readings) -> Sample:
        """Judge more readings, all of them later than those before.

        Args:
            state: after the readings before.
            readings: their times and counters count from where the visit was begun, or taken up
                again.

        Raises:
            InstrumentError: the readings are out of order, or not finite numbers.
        """
        state = copy(state)
        rows: list[Row] = []
        end, limit = None, ""
        for row in _rows(readings):
            _check(row, state)
            since_s = row.step_time_s - state.time_s
            self._count(row, state)
            limit = self._limit_passed(row, state)
            end = None if limit else self._end_met(state)
            over = end is not None or limit != ""
            if over or state.samples == 1 or self._is_to_record(state, since_s):
                rows.append(
                    row._replace(step_charge_Ah=state.passed_Ah, step_energy_Wh=state.passed_Wh)
                )
                state.recorded_sample, state.recorded_s = state.samples, state.time_s
                state.recorded_V, state.recorded_A = state.voltage_V, state.current_A
                state.recorded_Ah = state.passed_Ah
            if over:
                break
        return Sample(state, rows, end, limit)

    def _count(self, row: Row, state: Sampled) -> None:
        """Take one more reading into the state."""
        if state.samples == 0:
            state.voltage_V, state.current_A = row.voltage_V, row.current_A
        hours = (row.step_time_s - state.time_s) / 3600.0
        if math.isfinite(row.step_charge_Ah):
            state.passed_Ah = row.step_charge_Ah
        else:
            state.passed_Ah += hours * (row.current_A + state.current_A) / 2.0
        if math.isfinite(row.step_energy_Wh):
            state.passed_Wh = row.step_energy_Wh
        else:
            power_W = row.voltage_V * row.current_A
            state.passed_Wh += hours * (power_W + state.voltage_V * state.current_A) / 2.0
        if self._window_s:
            state.slope_points, [state.slope_V_per_s] = slopes(
                state.slope_points, ((row.step_time_s, row.voltage_V),), self._window_s
            )
        state.samples += 1
        state.onboard_index, state.time_s = row.onboard_index, row.step_time_s
        state.voltage_V, state.current_A = row.voltage_V, row.current_A
        known = math.isfinite(row.temperature_degC)
        state.temperature_degC = row.temperature_degC if known else math.nan

    def _limit_passed(self, row: Row, state: Sampled) -> str:
        values = (row.voltage_V, row.current_A, row.temperature_degC)
        for room, value in zip(self._rooms, values, strict=True):
            if value < room.least or value > room.most:
                return room.beyond(0, value).said()
        return charge_beyond(self._limits, state.done_Ah + state.passed_Ah)

    def _end_met(self, state: Sampled) -> EndCondition | None:
        for end, least, most in self._ends:
            if least <= _of_visit(end.quantity, state) <= most:
                return end
        return None

    def _is_to_record(self, state: Sampled, since_s: float) -> bool:
        """``since_s``: the reading before was so long ago."""
        every_s, change_V, change_A, change_Ah = self._rule
        early_s = min(0.5 * since_s, _EARLY * every_s)
        return (
            state.time_s - state.recorded_s >= every_s - early_s
            or abs(state.voltage_V - state.recorded_V) >= change_V
            or abs(state.current_A - state.recorded_A) >= change_A
            or abs(state.passed_Ah - state.recorded_Ah) >= change_Ah
        )


def as_readings(rows: Sequence[Row]) -> Readings:
    """The columns of some rows."""
    if not rows:
        return Readings()
    columns = tuple(zip(*rows, strict=True))
    whole = (np.array(column, dtype=np.int64) for column in columns[:_WHOLE_NUMBERS])
    others = (np.array(column, dtype=np.float64) for column in columns[_WHOLE_NUMBERS:])
    index, step, pass_mark = whole
    return Readings(index, step, pass_mark, *others)


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


_WHOLE_NUMBERS: Final = 3
"""So many columns of readings, the first ones, are whole numbers."""

_COLUMNS: Final = tuple(field.name for field in fields(Readings))


def _rows(readings: Readings) -> list[Row]:
    columns = (getattr(readings, name).tolist() for name in _COLUMNS)
    return [Row._make(values) for values in zip(*columns, strict=True)]


def _met_within(end: EndCondition) -> tuple[float, float]:
    near = _SLACK * abs(end.value)
    if end.comparison is Comparison.AT_LEAST:
        return end.value - near, math.inf
    return -math.inf, end.value + near


def _of_visit(quantity: Quantity, state: Sampled) -> float:
    """See :func:`labctl.engine.ends.actual`; by the visit's own sums, which no cut into looks
    rounds."""
    match quantity:
        case Quantity.STEP_CHARGE_AH:
            return abs(state.done_Ah + state.passed_Ah)
        case Quantity.STEP_ENERGY_WH:
            return abs(state.done_Wh + state.passed_Wh)
        case _:
            return actual(quantity, state)


def _check(row: Row, state: Sampled) -> None:
    for name in ("step_time_s", "voltage_V", "current_A"):
        if not math.isfinite(getattr(row, name)):
            raise InstrumentError(
                f"{name} of reading {row.onboard_index} of a visit is not a finite number"
            )
    if row.onboard_index <= state.onboard_index or row.step_time_s < state.time_s:
        raise InstrumentError(
            f"reading {row.onboard_index} of a visit, at {row.step_time_s:g} s, does not come "
            "after the one before it"
        )
