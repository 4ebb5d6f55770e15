"""GITT: pulses of a constant current with rests between them, until a voltage is reached.

The pulse that reaches the voltage is the last; no rest follows it. Where ``most`` is not written
there are as many pulses as would pass the step charge limit together. It counts no cycles: it is
written inside a 'cycle', where one is wanted.
"""

from __future__ import annotations

import math

import msgspec
from pydantic import Field

from labctl.program import ConstantCurrent, Loop, Node, Then
from labctl.protocols.techniques.base import (
    TIME_MARGIN,
    Bench,
    Sheet,
    Show,
    Technique,
    charge_end,
    time_end,
    whole_s,
)
from labctl.protocols.techniques.ends import (
    check_charge,
    check_charge_of_time,
    check_ends,
    check_time,
    gather,
    label_of,
    other_ends,
    said_of,
    voltage_ends,
)
from labctl.protocols.techniques.leaves import PulseLength, TitrationEnds
from labctl.protocols.techniques.recording import of_a_titration
from labctl.protocols.techniques.rest import RestInside, build_rest, check_rest, said_of_rest
from labctl.protocols.written import Count, Current, Direction, Fields, Record
from labctl.units import Kind

MOST_PULSES = 50_000
"""Where ``most`` is not written."""


class GittFields(Fields):
    """Galvanostatic intermittent titration: current pulses with rests between them."""

    at: Current = Field(description="The current of a pulse; never negative.")
    direction: Direction = Field(description="Which way it flows: charge or discharge.")
    pulse: PulseLength = Field(description="How long a pulse is: a time, or a charge.")
    rest: RestInside = Field(
        description="The rest after each pulse: a time, or {for: 4 h, until: 1 mV/h}."
    )
    until: TitrationEnds | None = Field(
        default=None,
        description="The voltage at which the last pulse ends, or {net charge: …} of the run.",
    )
    most: Count | None = Field(
        default=None,
        description="The most pulses. If not written: as many as would pass the step charge limit "
        "together.",
    )
    record: Record | None = Field(
        default=None, description="When readings are kept, in pulses and rests."
    )


def _check(fields: GittFields, sheet: Sheet) -> None:
    sheet.check_positive(fields.at, "the current of a pulse")
    sheet.check_positive(fields.pulse, "a pulse")
    check_rest(fields.rest, sheet)
    if fields.pulse.value.kind is Kind.DURATION:
        check_time(fields.pulse.text, fields.pulse.value.value, sheet)
    check_ends(fields.until, None, None, sheet)
    ends = gather(fields.until)
    if ends.voltage is not None:
        sheet.check_voltage(ends.voltage)
    if not any(ends.others) and fields.most is None:
        sheet.note(
            fields.pulse.text,
            "nothing says which pulse is the last",
            "write for example 'until: 4.1 V' or 'most: 20'",
        )


def _build(fields: GittFields, bench: Bench) -> tuple[Node, ...]:
    magnitude_A = bench.amperes(fields.at)
    if math.isnan(magnitude_A):
        return ()
    charging = fields.direction.value
    current_A = magnitude_A if charging else -magnitude_A
    bench.check_current(fields.at, current_A)
    bench.last_current_A = current_A
    pulse = fields.pulse
    if pulse.value.kind is Kind.DURATION:
        seconds = pulse.value.value
        pulse_Ah = seconds / 3600.0 * magnitude_A
        check_charge_of_time(pulse.text, seconds, fields.at, magnitude_A, bench)
        own = [time_end(seconds)]
    else:
        pulse_Ah = bench.amperes(pulse)
        if math.isnan(pulse_Ah):
            return ()
        check_charge(pulse, pulse_Ah, bench)
        seconds = pulse_Ah / magnitude_A * 3600.0
        own = [charge_end(pulse_Ah), time_end(whole_s(TIME_MARGIN * seconds))]
    ends = gather(fields.until)
    last = voltage_ends(ends, bench, charging=charging)
    last += other_ends(ends, bench, charging=charging)
    conditions = [msgspec.structs.replace(end, then=Then.LEAVE_LOOP) for end in last] + own
    word = "charge" if charging else "discharge"
    label = f"{word} pulse of {pulse} at {fields.at}{label_of(fields.until)}"
    usual = of_a_titration(seconds)
    steps = bench.step(label, ConstantCurrent(current_A), conditions, fields.record, usual)
    steps += build_rest(fields.rest, bench, around=fields.record)
    return (Loop(_count(fields, pulse_Ah, bench), steps),)


def _count(fields: GittFields, pulse_Ah: float, bench: Bench) -> int:
    """How many pulses there are at the most."""
    if fields.most is not None:
        return fields.most.value
    count = max(1, math.ceil(bench.step_charge_max_Ah / pulse_Ah - 1e-9))
    if count > MOST_PULSES:
        bench.note(
            fields.pulse.text,
            f"pulses of {fields.pulse} at {fields.at} are so small that {count} of them could "
            "be needed",
            f"write longer pulses, or 'most: {MOST_PULSES}'",
        )
    return count


def _tell(fields: GittFields, show: Show) -> str:
    word = "Charge" if fields.direction.value else "Discharge"
    ends = gather(fields.until)
    said = said_of(ends, show, charging=fields.direction.value)
    text = f"{word} in pulses of {show(fields.pulse)} at {show(fields.at)}"
    text += f", and rest after each {said_of_rest(fields.rest, show)}"
    if said:
        text += ", until " + ", or ".join(said)
    if fields.most is not None:
        text += f"; {show(fields.most)} pulses at the most"
    return text


GITT = Technique(
    word="gitt",
    fields=GittFields,
    about="Pulses of a constant current with rests between them (GITT).",
    check=_check,
    build=_build,
    tell=_tell,
    example="gitt: {at: 0.1C, direction: charge, pulse: 10 min, rest: 1 h, until: 4.1 V}",
)
