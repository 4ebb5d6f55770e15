"""Voltammetry: the voltage goes back and forth between two vertices, each round one cycle.

Before the first cycle the voltage goes from where it begins to the first vertex; that sweep belongs
to no cycle. A cycle is then the whole way to the other vertex and back. Its class is the rate, so
that only voltammograms of one rate are compared.
"""

from __future__ import annotations

import math

from pydantic import Field

from labctl.program import Loop, Node, Step
from labctl.protocols.techniques.base import Bench, Sheet, Show, Technique
from labctl.protocols.techniques.leaves import OPEN_CIRCUIT, StartVoltage, UpOrDown, VoltageRate
from labctl.protocols.techniques.recording import of_a_sweep
from labctl.protocols.techniques.sweep import (
    check_rate,
    largest_of_sweep_A,
    said_of_max,
    sweep_steps,
)
from labctl.protocols.written import Count, Current, Fields, Record, VoltageRange

USUAL_CYCLES = 3


class VoltammetryFields(Fields):
    """Cyclic voltammetry: the voltage goes back and forth, the current is recorded."""

    between: VoltageRange = Field(description="The two vertices: '1.5 V .. 4.1 V'.")
    at: VoltageRate = Field(description="How fast the voltage moves; the class of the cycles.")
    cycles: Count | None = Field(
        default=None,
        description="How many times there and back. If not written: 3. Each is one cycle.",
    )
    begin: UpOrDown | None = Field(
        default=None, description="Which way it goes first: up (if not written) or down."
    )
    from_: StartVoltage | None = Field(
        default=None,
        alias="from",
        description="Where it begins: 'open circuit' (if not written), or a voltage between both.",
    )
    max_current: Current | None = Field(
        default=None,
        description="The current never is larger, either way. If not written: 20C, and more in "
        "proportion above 0.1 mV/s, but at most 0.9 of the current limit.",
    )
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


def cycles_of(fields: VoltammetryFields) -> int:
    """How many cycles it counts."""
    return USUAL_CYCLES if fields.cycles is None else fields.cycles.value


def _begins_V(fields: VoltammetryFields) -> float | None:
    if fields.from_ is None or fields.from_.value is None:
        return None
    return fields.from_.value.value


def _up_first(fields: VoltammetryFields) -> bool:
    return fields.begin is None or fields.begin.value


def _check(fields: VoltammetryFields, sheet: Sheet) -> None:
    lower_V, upper_V = fields.between.value.lower.value, fields.between.value.upper.value
    sheet.check_window(fields.between)
    check_rate(fields.at, upper_V - lower_V, sheet)
    if fields.max_current is not None:
        sheet.check_positive(fields.max_current, "the largest current")
    begins_V = _begins_V(fields)
    if begins_V is not None and fields.from_ is not None and not lower_V <= begins_V <= upper_V:
        sheet.note(
            fields.from_.text,
            f"it cannot begin at {fields.from_}: that is not between {fields.between}",
            f"write '{OPEN_CIRCUIT}', or a voltage between both",
        )


def _build(fields: VoltammetryFields, bench: Bench) -> tuple[Node, ...]:
    bench.check_window(fields.between)
    max_current_A = largest_of_sweep_A(fields.max_current, fields.at, bench)
    if math.isnan(max_current_A):
        return ()
    low_V, high_V = fields.between.value.lower.value, fields.between.value.upper.value
    rule = of_a_sweep(high_V - low_V, fields.at.value)

    def leg(from_V: float | None, to_V: float, *, rising: bool) -> tuple[Step, ...]:
        return sweep_steps(
            bench,
            fields.at,
            (from_V, to_V),
            rising=rising,
            max_current_A=max_current_A,
            record=(fields.record, rule),
        )

    up_first, begins_V = _up_first(fields), _begins_V(fields)
    first_V, other_V = (high_V, low_V) if up_first else (low_V, high_V)
    there = leg(first_V, other_V, rising=not up_first)
    back = leg(other_V, first_V, rising=up_first)
    loop = Loop(cycles_of(fields), there + back, counts_cycles=True, cycle_class=str(fields.at))
    if begins_V == first_V:
        return (loop,)
    return (*leg(begins_V, first_V, rising=up_first), loop)


def _tell(fields: VoltammetryFields, show: Show) -> str:
    count = cycles_of(fields)
    times = "once" if count == 1 else f"{count} times"
    begins = OPEN_CIRCUIT if fields.from_ is None else show(fields.from_)
    way = "up" if _up_first(fields) else "down"
    return (
        f"Sweep the voltage from {begins} {way}, then {times} there and back between "
        f"{show(fields.between)} at {show(fields.at)}{said_of_max(fields.max_current, show)}; each "
        "time is one cycle"
    )


VOLTAMMETRY = Technique(
    word="voltammetry",
    fields=VoltammetryFields,
    about="Move the voltage back and forth at a constant rate (cyclic voltammetry).",
    check=_check,
    build=_build,
    tell=_tell,
    example="voltammetry: {between: 1.5 V .. 4.1 V, at: 0.1 mV/s, cycles: 3}",
    cycles=cycles_of,
)
