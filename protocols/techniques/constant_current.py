"""Charge and discharge: a constant current, and where asked the voltage held at its end.

With ``hold_until`` the step goes on at the voltage that it reached until the current has fallen
(constant current, constant voltage).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from pydantic import Field

from labctl.program import ConstantCurrent, ConstantCurrentConstantVoltage, Control, Node
from labctl.protocols.techniques.base import Bench, Sheet, Technique, current_end, voltage_end
from labctl.protocols.techniques.ends import bounded, check_ends, gather
from labctl.protocols.written import (
    Current,
    Duration,
    ElectricEnds,
    Fields,
    Record,
    Written,
)


class ConstantCurrentFields(Fields):
    """A constant current, until the first of its ends."""

    at: Current = Field(
        description="The current: a C-rate, per gram, per cm2, or in amperes. Never negative: "
        "the word charge or discharge says which way."
    )
    until: ElectricEnds | None = Field(
        default=None,
        description="What ends the step: a voltage, a charge or a time, or a list of them, of "
        "which the first to be reached counts.",
    )
    hold_until: Current | None = Field(
        default=None,
        description="Then hold the voltage reached until the current has fallen to this.",
    )
    for_: Duration | None = Field(default=None, alias="for", description="End after this time.")
    at_most: Duration | None = Field(default=None, description="End after this time at the latest.")
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


def _check(word: str, fields: ConstantCurrentFields, sheet: Sheet) -> None:
    at = fields.at
    if at.value.value <= 0:
        other = "discharge" if word == "charge" else "charge"
        sheet.note(
            at.text,
            f"the current of a {word} must be more than 0, not {at}",
            f"to turn the current round write '{other}'; for no current write 'rest'",
        )
    check_ends(fields.until, fields.for_, fields.at_most, sheet)
    ends = gather(fields.until, fields.for_, fields.at_most)
    if ends.voltage is not None:
        sheet.check_voltage(ends.voltage)
    if ends.current is not None:
        sheet.note(
            ends.current.text,
            f"a constant current never falls to {ends.current}",
            f"to hold the voltage until the current falls, write 'hold_until: {ends.current}'",
        )
    elif ends.voltage is None and ends.charge is None and ends.time_s is None:
        sheet.note(
            at.text, f"this {word} has no end", "write for example 'until: 4.1 V' or 'for: 2 h'"
        )
    hold = fields.hold_until
    if hold is None or not sheet.check_positive(hold, "the current at which a hold ends"):
        return
    if ends.voltage is None:
        sheet.note(hold.text, "there is no voltage to hold", "write it as 'until', such as '4.1 V'")
    if hold.value.kind is at.value.kind and hold.value.value >= at.value.value > 0:
        sheet.note(
            hold.text, f"the hold would end at once: {hold} is not below the {at} of the {word}"
        )


def _build(word: str, fields: ConstantCurrentFields, bench: Bench) -> tuple[Node, ...]:
    magnitude_A = bench.amperes(fields.at)
    if math.isnan(magnitude_A):
        return ()
    charging = word == "charge"
    current_A = magnitude_A if charging else -magnitude_A
    bench.check_current(fields.at, current_A)
    bench.last_current_A = current_A
    ends = gather(fields.until, fields.for_, fields.at_most)
    if ends.voltage is not None:
        bench.check_voltage(ends.voltage)
    label = f"{word} at {fields.at}"
    if fields.until:
        label += " until " + " or ".join(str(end) for end in fields.until)
    if fields.hold_until is None or ends.voltage is None:
        conditions = bounded(ends, fields.at, magnitude_A, bench)
        if ends.voltage is not None:
            conditions.insert(0, voltage_end(ends.voltage.value.value, rising=charging))
        control: Control = ConstantCurrent(current_A)
        return bench.step(label, control, conditions, fields.record)
    taper_A = bench.amperes(fields.hold_until)
    if math.isnan(taper_A):
        return ()
    if taper_A >= magnitude_A:
        bench.note(
            fields.hold_until.text,
            f"the hold would end at once: {fields.hold_until} is not below the {fields.at} of the "
            f"{word} on cell '{bench.cell.name}'",
        )
    conditions = bounded(ends, fields.hold_until, min(taper_A, magnitude_A), bench)
    control = ConstantCurrentConstantVoltage(current_A, ends.voltage.value.value)
    label += f", hold until {fields.hold_until}"
    return bench.step(label, control, [current_end(taper_A), *conditions], fields.record)


def _tell(word: str, fields: ConstantCurrentFields, show: Callable[[Written[Any]], str]) -> str:
    ends = gather(fields.until, fields.for_, fields.at_most)
    said = []
    if ends.voltage is not None:
        way = "has risen to" if word == "charge" else "has fallen to"
        said.append(f"the voltage {way} {show(ends.voltage)}")
    if ends.charge is not None:
        said.append(f"{show(ends.charge)} have passed")
    text = f"{word.capitalize()} at {show(fields.at)}"
    if said:
        text += " until " + ", or ".join(said)
    if fields.hold_until is not None:
        text += (
            f"; then hold that voltage until the current has fallen to {show(fields.hold_until)}"
        )
    if ends.time_text is not None:
        time = show(Written(ends.time_s, ends.time_text))
        text += f", {'in all ' if said else ''}for {'at most ' if said else ''}{time}"
    return text


def _technique(word: str, about: str) -> Technique[ConstantCurrentFields]:
    return Technique(
        word=word,
        fields=ConstantCurrentFields,
        about=about,
        check=functools.partial(_check, word),
        build=functools.partial(_build, word),
        tell=functools.partial(_tell, word),
    )


CHARGE = _technique("charge", "Charge the cell with a constant current.")
DISCHARGE = _technique("discharge", "Discharge the cell with a constant current.")
