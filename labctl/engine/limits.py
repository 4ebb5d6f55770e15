"""Whether a run is within its limits, as the host sees it. Pure.

An instrument with its own limits acts on its own finer samples, and first. The host's watch is for
the instrument that did not act: it judges what was measured, so it leaves room for what a good
instrument may be wrong by. Otherwise a cell that rightly ends a step at its limit would be tripped
by a millivolt of noise or offset.

``MEASURING_ERROR`` of full scale (of the widest voltage, and of the smallest current range that
holds the limit) is the accuracy that data sheets of cyclers give, 0.1 %: 5 mV on a 5 V channel. A
charge adds such errors up over a whole step, hence ``CHARGE_ERROR``. Temperatures are no set points
and a run's duration is no measurement: they have no room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from labctl.drivers.base import Capabilities
from labctl.engine.placement import Placed
from labctl.model import FloatColumn
from labctl.program import Limits, Program
from labctl.stream.events import StepEnded

MEASURING_ERROR: Final = 1e-3
CHARGE_ERROR: Final = 0.05
_READ_BACK_SLACK: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Beyond:
    """A value in row ``row`` of a block that lies beyond its limits for certain."""

    row: int
    name: str
    unit: str
    value: float
    low: float
    high: float

    def said(self, where: str = "") -> str:
        """For people; ``where`` says at which reading."""
        return (
            f"{self.name} {self.value:g} {self.unit}{where} is outside its limits "
            f"{self.low:g} .. {self.high:g} {self.unit}"
        )


@dataclass(frozen=True, slots=True)
class Room:
    """Limits, and ``least`` and ``most``: beyond them a value is beyond its limit for certain."""

    name: str
    unit: str
    low: float
    high: float
    least: float
    most: float

    def beyond(self, row: int, value: float) -> Beyond:
        """A value that is."""
        return Beyond(row, self.name, self.unit, value, self.low, self.high)


def wider(armed: Limits, asked: Limits) -> str:
    """In which way what the instrument holds is less strict than what was asked; '' if it is not.

    Duration and temperatures are the engine's to watch.
    """
    pairs = (
        ("upper voltage", armed.voltage_max_V, asked.voltage_max_V, 1.0),
        ("lower voltage", armed.voltage_min_V, asked.voltage_min_V, -1.0),
        ("charging current", armed.current_max_A, asked.current_max_A, 1.0),
        ("discharging current", armed.current_min_A, asked.current_min_A, -1.0),
        ("charge in a step", armed.step_charge_max_Ah, asked.step_charge_max_Ah, 1.0),
    )
    return "; ".join(
        f"{name} {found:g} instead of {wanted:g}"
        for name, found, wanted, sign in pairs
        if not sign * found <= sign * wanted + _READ_BACK_SLACK * abs(wanted)
    )


UNWATCHED: Final = "the temperature has limits and is not known any more: the chamber says nothing"


def watches_temperature(limits: Limits) -> bool:
    """Whether a temperature has to be known."""
    return math.isfinite(limits.temperature_min_degC) or math.isfinite(limits.temperature_max_degC)


def passed(
    limits: Limits, placed: Placed, capabilities: Capabilities, program: Program | None = None
) -> str:
    """Which limit a record that was just placed lies beyond, for certain; '' if none does.

    ``limits`` are the program's. With ``program``, its steps' own limits hold for the records and
    the charge of those that have any; the duration is always that of the whole run.
    """
    records = placed.records
    if not len(records):
        return ""
    own = _own_limits(program)
    found: list[Beyond] = []
    for step in np.unique(records.step).tolist() if own else [0]:
        rows = np.flatnonzero(records.step == step) if own else np.arange(len(records))
        beyond = first_beyond(
            own.get(step, limits),
            capabilities,
            voltage_V=records.voltage_V[rows],
            current_A=records.current_A[rows],
            temperature_degC=records.temperature_degC[rows],
        )
        if beyond is not None:
            found.append(replace(beyond, row=int(rows[beyond.row])))
    if found:
        first = min(found, key=lambda each: each.row)
        return first.said(f" at record {int(records.seq[first.row])}")
    for charge_Ah, visit, step in _net_charges(placed):
        most_Ah = own.get(step, limits).step_charge_max_Ah
        if charge_Ah > most_Ah * (1.0 + CHARGE_ERROR):
            return _too_much(charge_Ah, most_Ah, f"visit {visit} of a step")
    if placed.place.test_time_s > limits.duration_max_s:
        return f"the run has lasted longer than its limit of {limits.duration_max_s:g} s"
    return ""


def beyond(
    limits: Limits,
    capabilities: Capabilities,
    *,
    voltage_V: float,
    current_A: float,
    temperature_degC: float,
    step_charge_Ah: float,
) -> str:
    """Which limit one reading lies beyond, for certain; '' if none does.

    ``step_charge_Ah`` is net since the visit began; a temperature that is not known is NaN.
    """
    found = first_beyond(
        limits,
        capabilities,
        voltage_V=np.array([voltage_V]),
        current_A=np.array([current_A]),
        temperature_degC=np.array([temperature_degC]),
    )
    if found is not None:
        return found.said()
    return charge_beyond(limits, step_charge_Ah)


def first_beyond(
    limits: Limits,
    capabilities: Capabilities,
    *,
    voltage_V: FloatColumn,
    current_A: FloatColumn,
    temperature_degC: FloatColumn,
) -> Beyond | None:
    """The first row that lies beyond a limit for certain; NaN lies beyond none."""
    columns = (voltage_V, current_A, temperature_degC)
    first: Beyond | None = None
    for values, room in zip(columns, rooms(limits, capabilities), strict=True):
        outside = (values < room.least) | (values > room.most)
        row = int(outside.argmax()) if len(outside) else 0
        if outside.any() and (first is None or row < first.row):
            first = room.beyond(row, float(values[row]))
    return first


def rooms(limits: Limits, capabilities: Capabilities) -> tuple[Room, Room, Room]:
    """Of voltage, current and temperature, in this order."""
    widest_V = max(abs(capabilities.voltage_min_V), abs(capabilities.voltage_max_V))
    error_V = MEASURING_ERROR * widest_V
    low_V, high_V = limits.voltage_min_V, limits.voltage_max_V
    low_A, high_A = limits.current_min_A, limits.current_max_A
    low_degC, high_degC = limits.temperature_min_degC, limits.temperature_max_degC
    return (
        Room("voltage", "V", low_V, high_V, low_V - error_V, high_V + error_V),
        Room(
            "current",
            "A",
            low_A,
            high_A,
            low_A - _current_error_A(low_A, capabilities),
            high_A + _current_error_A(high_A, capabilities),
        ),
        Room("temperature", "degC", low_degC, high_degC, low_degC, high_degC),
    )


def charge_beyond(limits: Limits, step_charge_Ah: float) -> str:
    """Whether the net charge of a visit is beyond its limit, for certain; '' if not."""
    charge_Ah = abs(step_charge_Ah)
    if charge_Ah <= most_charge_Ah(limits):
        return ""
    return _too_much(charge_Ah, limits.step_charge_max_Ah, "a step")


def most_charge_Ah(limits: Limits) -> float:
    """The charge of a visit from which on it is beyond its limit for certain."""
    return limits.step_charge_max_Ah * (1.0 + CHARGE_ERROR)


def _too_much(charge_Ah: float, most_Ah: float, where: str) -> str:
    return f"charge {charge_Ah:g} Ah passed in {where} is beyond its limit of {most_Ah:g} Ah"


def _own_limits(program: Program | None) -> dict[int, Limits]:
    """Of the steps that have their own, by their number from 1."""
    steps = () if program is None else program.steps
    return {step.index + 1: step.limits for step in steps if step.limits is not None}


def _net_charges(placed: Placed) -> list[tuple[float, int, int]]:
    """Magnitude of the charge, number, and step, of each visit that ended or still goes on."""
    place = placed.place
    ended = [event for event in placed.events if isinstance(event, StepEnded)]
    return [
        *((abs(one.charge_Ah - one.discharge_Ah), one.visit, one.step) for one in ended),
        (
            abs(place.visit_charge_Ah - place.visit_discharge_Ah),
            place.visit,
            int(placed.records.step[-1]),
        ),
    ]


def _current_error_A(limit_A: float, capabilities: Capabilities) -> float:
    full_scales_A = sorted(current.full_scale_A for current in capabilities.current_ranges)
    holding_A = [full_A for full_A in full_scales_A if full_A >= abs(limit_A)]
    return MEASURING_ERROR * (holding_A or full_scales_A[-1:] or [0.0])[0]
