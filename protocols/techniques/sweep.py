"""Sweep: the voltage moves at a constant rate (linear sweep voltammetry).

A sweep ends at its voltage, and when it has had the time for the way. From open circuit the way is
not known, so it has the time from the far voltage limit. The current is bounded: where
``max_current`` is not written by 20C, in proportion more above 0.1 mV/s, and by 0.9 of the current
limit. The peaks of NASICON half cells at 0.1 mV/s are of 4C to 6C.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from labctl.program import Node, RecordRule, Step, VoltageSweep
from labctl.protocols.techniques.base import (
    LONGEST_STEP_S,
    USUAL_LARGEST_C,
    Bench,
    Sheet,
    Show,
    Technique,
    time_end,
    voltage_end,
    whole_s,
)
from labctl.protocols.techniques.leaves import OPEN_CIRCUIT, StartVoltage, UpOrDown, VoltageRate
from labctl.protocols.techniques.recording import of_a_sweep
from labctl.protocols.written import Current, Fields, Record, RecordFields, Voltage, Written
from labctl.units import Amount, Kind, format_quantity

USUAL_RATE_V_PER_S = 1e-4


class SweepFields(Fields):
    """The voltage moves at a constant rate, the current is recorded."""

    to: Voltage = Field(description="Where the sweep ends.")
    at: VoltageRate = Field(description="How fast the voltage moves; never negative.")
    from_: StartVoltage | None = Field(
        default=None,
        alias="from",
        description="Where it begins: a voltage, or 'open circuit' (as it stands), which it is if "
        "nothing is written.",
    )
    direction: UpOrDown | None = Field(
        default=None,
        description="Which way it goes: up or down. Needed where it begins at open circuit.",
    )
    max_current: Current | None = Field(
        default=None,
        description="The current never is larger, either way. If not written: 20C, and more in "
        "proportion above 0.1 mV/s, but at most 0.9 of the current limit.",
    )
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


def check_rate(at: Written[float], way_V: float, sheet: Sheet) -> None:
    """Note a rate at which the way takes more than ten years."""
    if way_V / at.value > LONGEST_STEP_S:
        sheet.note(at.text, f"at {at} the sweep takes more than ten years")


def largest_of_sweep_A(
    max_current: Written[Amount] | None, at: Written[float], bench: Bench
) -> float:
    """The bound of the current; NaN, and noted, where the cell has none."""
    c_rate = USUAL_LARGEST_C * max(1.0, at.value / USUAL_RATE_V_PER_S)
    return bench.largest_A(max_current, at, c_rate)


def sweep_steps(
    bench: Bench,
    at: Written[float],
    way: tuple[float | None, float],
    *,
    rising: bool,
    max_current_A: float,
    record: tuple[RecordFields | None, RecordRule],
) -> tuple[Step, ...]:
    """One sweep over ``way`` (from, to), where from None is open circuit.

    ``record`` is what the step says, and the usual rule.
    """
    from_V, to_V = way
    begins_V = from_V
    if begins_V is None:
        begins_V = bench.voltage_min_V if rising else bench.voltage_max_V
    seconds = float(f"{abs(to_V - begins_V) / at.value:.9g}")
    ends = [
        voltage_end(to_V, rising=rising),
        time_end(whole_s(seconds) if from_V is None else seconds),
    ]
    label = f"sweep to {format_quantity(to_V, Kind.VOLTAGE)} at {at}"
    control = VoltageSweep(from_V, to_V, at.value, max_current_A)
    return bench.step(label, control, ends, *record)


def said_of_max(max_current: Written[Any] | None, show: Show) -> str:
    """', with at most 1 mA'; '' if it is not written."""
    return "" if max_current is None else f", with at most {show(max_current)}"


def _begins(fields: SweepFields) -> Written[Amount] | None:
    """The voltage that it begins at; None at open circuit."""
    if fields.from_ is None or fields.from_.value is None:
        return None
    return Written(fields.from_.value, fields.from_.text)


def _check(fields: SweepFields, sheet: Sheet) -> None:
    begins, to = _begins(fields), fields.to
    sheet.check_voltage(to)
    check_rate(fields.at, 10.0, sheet)
    if fields.max_current is not None:
        sheet.check_positive(fields.max_current, "the largest current")
    if begins is None:
        if fields.direction is None:
            sheet.note(
                to.text,
                f"nothing says from which side the sweep comes to {to}",
                "write 'from: 3.0 V', or 'direction: up' or 'direction: down'",
            )
        return
    sheet.check_voltage(begins)
    if begins.value.value == to.value.value:
        sheet.note(to.text, f"the sweep begins where it ends, at {to}")
    elif fields.direction is not None:
        rising = begins.value.value < to.value.value
        if fields.direction.value is not rising:
            way = "up" if rising else "down"
            sheet.note(
                fields.direction.text,
                f"from {begins} to {to} the sweep goes {way}",
                f"write '{way}', or leave 'direction' out",
            )


def _build(fields: SweepFields, bench: Bench) -> tuple[Node, ...]:
    begins, to_V = _begins(fields), fields.to.value.value
    bench.check_voltage(fields.to)
    max_current_A = largest_of_sweep_A(fields.max_current, fields.at, bench)
    if math.isnan(max_current_A):
        return ()
    from_V = None
    if begins is not None:
        bench.check_voltage(begins)
        from_V = begins.value.value
    rising = fields.direction.value if fields.direction else from_V is not None and from_V < to_V
    window_V = bench.voltage_max_V - bench.voltage_min_V if from_V is None else abs(to_V - from_V)
    return sweep_steps(
        bench,
        fields.at,
        (from_V, to_V),
        rising=rising,
        max_current_A=max_current_A,
        record=(fields.record, of_a_sweep(window_V, fields.at.value)),
    )


def _tell(fields: SweepFields, show: Show) -> str:
    begins = OPEN_CIRCUIT if fields.from_ is None else show(fields.from_)
    way = ""
    if fields.direction is not None:
        way = "up " if fields.direction.value else "down "
    return (
        f"Sweep the voltage {way}from {begins} to {show(fields.to)} at {show(fields.at)}"
        f"{said_of_max(fields.max_current, show)}"
    )


SWEEP = Technique(
    word="sweep",
    fields=SweepFields,
    about="Move the voltage at a constant rate (linear sweep voltammetry).",
    check=_check,
    build=_build,
    tell=_tell,
    example="sweep: {from: 3.0 V, to: 4.1 V, at: 0.1 mV/s}",
)
