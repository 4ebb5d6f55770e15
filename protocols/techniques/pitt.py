"""PITT: the voltage goes up or down in steps, each held until the current has fallen.

Every voltage is a step of its own in the Program, from the first to the last; where the steps do
not divide the way, the last one is smaller. Where ``max_current`` is not written the current is
bounded by 5C and by 0.9 of the current limit: 10 mV across 20 ohm is 2.5C of a 2 mg electrode.
"""

from __future__ import annotations

import math

from pydantic import Field

from labctl.program import ConstantVoltage, Node
from labctl.protocols.techniques.base import (
    Bench,
    Sheet,
    Show,
    Technique,
    current_end,
    time_end,
)
from labctl.protocols.techniques.ends import check_time
from labctl.protocols.techniques.leaves import VoltageStep
from labctl.protocols.techniques.recording import of_a_hold
from labctl.protocols.written import Current, Duration, Fields, Record, Voltage
from labctl.units import Kind, format_quantity

USUAL_AT_MOST_S = 3600.0
USUAL_LARGEST_C = 5.0
MOST_VOLTAGES = 2000


class PittFields(Fields):
    """Potentiostatic intermittent titration: voltages in steps, each until the current is small."""

    from_: Voltage = Field(alias="from", description="The first voltage.")
    to: Voltage = Field(description="The last voltage; above the first to charge, below it not.")
    step: VoltageStep = Field(description="From one voltage to the next; never negative.")
    until: Current = Field(description="The current at which a voltage is left for the next one.")
    at_most: Duration | None = Field(
        default=None, description="The longest at one voltage. If not written: 1 h."
    )
    max_current: Current | None = Field(
        default=None,
        description="The current never is larger. If not written: 5C, but at most 0.9 of the "
        "current limit.",
    )
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


def voltages_of(fields: PittFields) -> list[float]:
    """Every voltage, from the first to the last."""
    from_V, to_V, step_V = fields.from_.value.value, fields.to.value.value, fields.step.value
    sign = 1.0 if to_V > from_V else -1.0
    count = math.ceil(abs(to_V - from_V) / step_V - 1e-9)
    return [float(f"{from_V + sign * k * step_V:.9g}") for k in range(count)] + [to_V]


def _check(fields: PittFields, sheet: Sheet) -> None:
    from_V, to_V = fields.from_.value.value, fields.to.value.value
    sheet.check_voltage(fields.from_)
    sheet.check_voltage(fields.to)
    sheet.check_positive(fields.until, "the current at which a voltage is left")
    if fields.at_most is not None:
        check_time(fields.at_most.text, fields.at_most.value, sheet)
    if fields.max_current is not None:
        sheet.check_positive(fields.max_current, "the largest current")
    if from_V == to_V:
        sheet.note(fields.to.text, f"the titration begins where it ends, at {fields.to}")
    elif abs(to_V - from_V) / fields.step.value > MOST_VOLTAGES:
        sheet.note(
            fields.step.text,
            f"from {fields.from_} to {fields.to} in steps of {fields.step} are more than "
            f"{MOST_VOLTAGES} steps",
            "write a larger step",
        )


def _build(fields: PittFields, bench: Bench) -> tuple[Node, ...]:
    bench.check_voltage(fields.from_)
    bench.check_voltage(fields.to)
    end_A = bench.amperes(fields.until)
    largest_A = bench.largest_A(fields.max_current, fields.step, USUAL_LARGEST_C)
    if math.isnan(end_A) or math.isnan(largest_A):
        return ()
    if end_A >= largest_A:
        largest = format_quantity(largest_A, Kind.CURRENT)
        bench.note(
            fields.until.text,
            f"every voltage would be left at once: {fields.until} is not below the largest "
            f"current, {largest}",
            "write a larger 'max_current'",
        )
    charging = fields.to.value.value > fields.from_.value.value
    bench.last_current_A = largest_A if charging else -largest_A
    seconds = USUAL_AT_MOST_S if fields.at_most is None else fields.at_most.value
    usual = of_a_hold(seconds, largest_A, end_A)
    steps: tuple[Node, ...] = ()
    for voltage_V in voltages_of(fields):
        steps += bench.step(
            f"hold {format_quantity(voltage_V, Kind.VOLTAGE)} until {fields.until}",
            ConstantVoltage(voltage_V, largest_A, charging),
            [current_end(end_A), time_end(seconds)],
            fields.record,
            usual,
        )
    return steps


def _tell(fields: PittFields, show: Show) -> str:
    time = "1 h" if fields.at_most is None else show(fields.at_most)
    return (
        f"Hold one voltage after the other from {show(fields.from_)} to {show(fields.to)} in steps "
        f"of {show(fields.step)}, each until the current has fallen to {show(fields.until)}, for "
        f"at most {time}"
    )


PITT = Technique(
    word="pitt",
    fields=PittFields,
    about="Voltages in steps, each held until the current has fallen (PITT).",
    check=_check,
    build=_build,
    tell=_tell,
    example="pitt: {from: 3.0 V, to: 4.1 V, step: 10 mV, until: 0.01C}",
)
