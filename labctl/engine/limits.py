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

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from labctl.drivers.base import Capabilities
from labctl.engine.placement import Placed
from labctl.model import Records
from labctl.program import Limits, Program
from labctl.stream.events import StepEnded

MEASURING_ERROR: Final = 1e-3
CHARGE_ERROR: Final = 0.05
_READ_BACK_SLACK: Final = 1e-4

Room: TypeAlias = tuple[float, float, float, float]
"""Lower and upper limit, and how far a measurement may lie beyond each."""


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


def passed(
    limits: Limits, placed: Placed, capabilities: Capabilities, program: Program | None = None
) -> str:
    """Which limit a record that was just placed lies beyond, for certain; '' if none does.

    With ``program``, the limits of its steps count where they have their own.
    """
    records = placed.records
    if not len(records):
        return ""
    own = {} if program is None else _own_limits(program)
    if own:
        for step in np.unique(records.step).tolist():
            rows = records.step == step
            said = _outside(own.get(step, limits), records, rows, capabilities)
            if said:
                return said
    else:
        said = _outside(limits, records, None, capabilities)
        if said:
            return said
    charge_Ah, visit, step = max(_net_charges(placed))
    most_Ah = own.get(step, limits).step_charge_max_Ah
    if charge_Ah > most_Ah * (1.0 + CHARGE_ERROR):
        return (
            f"charge {charge_Ah:g} Ah passed in visit {visit} of a step is beyond its limit of "
            f"{most_Ah:g} Ah"
        )
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
    """Which limit one sample lies beyond, for certain; '' if none does."""
    for name, unit, value, low, high, low_error, high_error in (
        ("voltage", "V", voltage_V, *_voltage_room(limits, capabilities)),
        ("current", "A", current_A, *_current_room(limits, capabilities)),
        ("temperature", "degC", temperature_degC, *_temperature_room(limits)),
    ):
        if value < low - low_error or value > high + high_error:
            return f"{name} {value:g} {unit} is outside its limits {low:g} .. {high:g} {unit}"
    if abs(step_charge_Ah) > limits.step_charge_max_Ah * (1.0 + CHARGE_ERROR):
        return (
            f"charge {abs(step_charge_Ah):g} Ah passed in a step is beyond its limit of "
            f"{limits.step_charge_max_Ah:g} Ah"
        )
    return ""


def _own_limits(program: Program) -> dict[int, Limits]:
    """Of the steps that have their own, by their number from 1."""
    return {step.index + 1: step.limits for step in program.steps if step.limits is not None}


def _outside(
    limits: Limits, records: Records, rows: npt.NDArray[np.bool_] | None, capabilities: Capabilities
) -> str:
    for name, unit, values, low, high, low_error, high_error in (
        ("voltage", "V", records.voltage_V, *_voltage_room(limits, capabilities)),
        ("current", "A", records.current_A, *_current_room(limits, capabilities)),
        ("temperature", "degC", records.temperature_degC, *_temperature_room(limits)),
    ):
        beyond_it = (values < low - low_error) | (values > high + high_error)
        if rows is not None:
            beyond_it &= rows
        if beyond_it.any():
            first = int(beyond_it.argmax())
            return (
                f"{name} {values[first]:g} {unit} at record {int(records.seq[first])} is outside "
                f"its limits {low:g} .. {high:g} {unit}"
            )
    return ""


def _voltage_room(limits: Limits, capabilities: Capabilities) -> Room:
    error_V = MEASURING_ERROR * max(
        abs(capabilities.voltage_min_V), abs(capabilities.voltage_max_V)
    )
    return limits.voltage_min_V, limits.voltage_max_V, error_V, error_V


def _current_room(limits: Limits, capabilities: Capabilities) -> Room:
    low_A, high_A = limits.current_min_A, limits.current_max_A
    return (
        low_A,
        high_A,
        _current_error_A(low_A, capabilities),
        _current_error_A(high_A, capabilities),
    )


def _temperature_room(limits: Limits) -> Room:
    return limits.temperature_min_degC, limits.temperature_max_degC, 0.0, 0.0


def _net_charges(placed: Placed) -> list[tuple[float, int, int]]:
    """Magnitude of the charge, number, and step, of each visit that ended or still goes on."""
    place, step = placed.place, int(placed.records.step[-1])
    return [
        (abs(place.visit_charge_Ah - place.visit_discharge_Ah), place.visit, step),
        *(
            (abs(event.charge_Ah - event.discharge_Ah), event.visit, event.step)
            for event in placed.events
            if isinstance(event, StepEnded)
        ),
    ]


def _current_error_A(limit_A: float, capabilities: Capabilities) -> float:
    full_scales_A = sorted(current.full_scale_A for current in capabilities.current_ranges)
    holding_A = [full_A for full_A in full_scales_A if full_A >= abs(limit_A)]
    return MEASURING_ERROR * (holding_A or full_scales_A[-1:] or [0.0])[0]
