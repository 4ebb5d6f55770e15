"""Hold: a constant voltage while the current falls.

The current is bounded by ``max_current``; where it is not written, by the current of the charge
or discharge written last before the hold, else by 1C. That step also says which way the current is
expected to flow.
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
    charge_end,
    current_end,
    time_end,
)
from labctl.protocols.techniques.ends import (
    bounded,
    check_charge,
    check_ends,
    gather,
    label_of,
    other_ends,
    said_of,
)
from labctl.protocols.techniques.leaves import HoldEnds
from labctl.protocols.techniques.recording import of_a_hold
from labctl.protocols.written import (
    Current,
    Direction,
    Duration,
    Fields,
    Record,
    Voltage,
    Written,
)

EXPECTED_S = 1800.0
"""How long a hold takes, where nothing says it."""


class ConstantVoltageFields(Fields):
    """A constant voltage, until the first of its ends."""

    voltage: Voltage = Field(description="The voltage that is held.")
    until: HoldEnds | None = Field(
        default=None,
        description="What ends the step: the current has fallen to this, a charge or an energy has "
        "passed, a time is over, the cell has warmed to a temperature, or the {net charge: …} of "
        "the run; or a list of them, of which the first to be reached counts.",
    )
    for_: Duration | None = Field(default=None, alias="for", description="End after this time.")
    at_most: Duration | None = Field(default=None, description="End after this time at the latest.")
    max_current: Current | None = Field(
        default=None,
        description="The current never is larger. If not written: that of the charge or discharge "
        "before the hold, else 1C.",
    )
    direction: Direction | None = Field(
        default=None,
        description="Which way the current is expected to flow. If not written: as in the charge "
        "or discharge before the hold.",
    )
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


def _check(fields: ConstantVoltageFields, sheet: Sheet) -> None:
    sheet.check_voltage(fields.voltage)
    check_ends(fields.until, fields.for_, fields.at_most, sheet)
    if fields.max_current is not None:
        sheet.check_positive(fields.max_current, "the largest current")
    ends = gather(fields.until, fields.for_, fields.at_most)
    if not any(ends.others) and ends.time_s is None:
        sheet.note(
            fields.voltage.text,
            "this hold has no end",
            "write for example 'until: 0.02C' or 'for: 2 h'",
        )
    if ends.current is None and ends.time_s is None:
        for end in ends.others:
            if end is not None:
                sheet.note(
                    end.text,
                    f"the current of a hold can fall to nothing before {end} have passed"
                    if end in (ends.charge, ends.energy)
                    else f"the current of a hold can fall to nothing before {end} is reached",
                    "write 'at_most' with a time too",
                )


def _build(fields: ConstantVoltageFields, bench: Bench) -> tuple[Node, ...]:
    bench.check_voltage(fields.voltage)
    charging = bench.last_current_A > 0
    if fields.direction is not None:
        charging = fields.direction.value
    elif bench.last_current_A == 0:
        bench.note(
            fields.voltage.text,
            "no charge or discharge comes before this hold, so nothing says which way the current "
            "flows",
            "write 'direction: charge' or 'direction: discharge'",
        )
    largest_A = abs(bench.last_current_A) or bench.cell.one_C_A
    if fields.max_current is not None:
        largest_A = bench.amperes(fields.max_current)
    if math.isnan(largest_A):
        return ()
    bench.check_current(fields.max_current or fields.voltage, largest_A if charging else -largest_A)
    ends = gather(fields.until, fields.for_, fields.at_most)
    conditions = other_ends(ends, bench, charging=charging)
    end_A = 0.0
    if ends.current is not None:
        end_A = bench.amperes(ends.current)
        if math.isnan(end_A):
            return ()
        if end_A >= largest_A:
            bench.note(
                ends.current.text,
                f"the hold would end at once: {ends.current} is not below its largest current",
                "write a larger 'max_current'",
            )
        conditions = [
            current_end(end_A),
            *conditions,
            *bounded(ends, ends.current, end_A, bench),
        ]
    elif ends.time_s is not None:
        if ends.charge is not None:
            charge_Ah = bench.amperes(ends.charge)
            check_charge(ends.charge, charge_Ah, bench)
            conditions.append(charge_end(charge_Ah))
        conditions.append(time_end(ends.time_s))
    control = ConstantVoltage(fields.voltage.value.value, largest_A, charging)
    seconds = min(EXPECTED_S, conditions[-1].value)
    return bench.step(
        f"hold {fields.voltage}{label_of(fields.until)}",
        control,
        conditions,
        fields.record,
        of_a_hold(seconds, largest_A, end_A),
    )


def _tell(fields: ConstantVoltageFields, show: Show) -> str:
    ends = gather(fields.until, fields.for_, fields.at_most)
    said = said_of(ends, show, charging=fields.direction.value if fields.direction else None)
    text = f"Hold {show(fields.voltage)}"
    if said:
        text += " until " + ", or ".join(said)
    if ends.time_text is not None:
        time = show(Written(ends.time_s, ends.time_text))
        text += f", for {'at most ' if said else ''}{time}"
    return text


HOLD = Technique(
    word="hold",
    fields=ConstantVoltageFields,
    about="Hold a voltage while the current falls.",
    check=_check,
    build=_build,
    tell=_tell,
    example="hold: {voltage: 4.1 V, until: 0.02C}",
)
