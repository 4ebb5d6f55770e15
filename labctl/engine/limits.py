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

from typing import Final

from labctl.drivers.base import Capabilities
from labctl.engine.placement import Placed
from labctl.program import Limits
from labctl.stream.events import StepEnded

MEASURING_ERROR: Final = 1e-3
CHARGE_ERROR: Final = 0.05
_READ_BACK_SLACK: Final = 1e-4


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


def passed(limits: Limits, placed: Placed, capabilities: Capabilities) -> str:
    """Which limit a record that was just placed lies beyond, for certain; '' if none does."""
    records = placed.records
    if not len(records):
        return ""
    voltage_V = MEASURING_ERROR * max(
        abs(capabilities.voltage_min_V), abs(capabilities.voltage_max_V)
    )
    bounds = (
        (
            "voltage",
            "V",
            records.voltage_V,
            (limits.voltage_min_V, voltage_V),
            (limits.voltage_max_V, voltage_V),
        ),
        (
            "current",
            "A",
            records.current_A,
            (limits.current_min_A, _current_error_A(limits.current_min_A, capabilities)),
            (limits.current_max_A, _current_error_A(limits.current_max_A, capabilities)),
        ),
        (
            "temperature",
            "degC",
            records.temperature_degC,
            (limits.temperature_min_degC, 0.0),
            (limits.temperature_max_degC, 0.0),
        ),
    )
    for name, unit, values, (low, low_error), (high, high_error) in bounds:
        beyond = (values < low - low_error) | (values > high + high_error)
        if beyond.any():
            first = int(beyond.argmax())
            return (
                f"{name} {values[first]:g} {unit} at record {int(records.seq[first])} is outside "
                f"its limits {low:g} .. {high:g} {unit}"
            )
    charge_Ah, visit = max(_net_charges(placed))
    if charge_Ah > limits.step_charge_max_Ah * (1.0 + CHARGE_ERROR):
        return (
            f"charge {charge_Ah:g} Ah passed in visit {visit} of a step is beyond its limit of "
            f"{limits.step_charge_max_Ah:g} Ah"
        )
    if placed.place.test_time_s > limits.duration_max_s:
        return f"the run has lasted longer than its limit of {limits.duration_max_s:g} s"
    return ""


def _net_charges(placed: Placed) -> list[tuple[float, int]]:
    """The magnitude of the charge, and the number, of each visit that ended or still goes on."""
    place = placed.place
    return [
        (abs(place.visit_charge_Ah - place.visit_discharge_Ah), place.visit),
        *(
            (abs(event.charge_Ah - event.discharge_Ah), event.visit)
            for event in placed.events
            if isinstance(event, StepEnded)
        ),
    ]


def _current_error_A(limit_A: float, capabilities: Capabilities) -> float:
    full_scales_A = sorted(current.full_scale_A for current in capabilities.current_ranges)
    holding_A = [full_A for full_A in full_scales_A if full_A >= abs(limit_A)]
    return MEASURING_ERROR * (holding_A or full_scales_A[-1:] or [0.0])[0]
