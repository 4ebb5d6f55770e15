"""Charge and discharge: a constant current or power, or a resistor, and where asked the voltage
held at its end.

With ``hold_until`` the step goes on at the voltage that it reached until the current has fallen
(constant current, constant voltage).
"""

from __future__ import annotations

import functools
import math
from typing import Annotated, TypeAlias

from pydantic import Field, model_validator

from labctl.program import ConstantCurrent, ConstantCurrentConstantVoltage, Node
from labctl.protocols.techniques.base import Bench, Sheet, Show, Technique, current_end
from labctl.protocols.techniques.constant_power import build_power
from labctl.protocols.techniques.constant_resistance import build_resistance
from labctl.protocols.techniques.ends import (
    Ends,
    Made,
    bounded,
    check_ends,
    expected_s,
    gather,
    label_of,
    other_ends,
    said_of,
    voltage_ends,
)
from labctl.protocols.techniques.leaves import CurrentOrPower, ElectricEnds, Resistance
from labctl.protocols.techniques.recording import of_a_current
from labctl.protocols.written import Current, Duration, Fields, Record, Written, mistake
from labctl.units import CURRENT_KINDS, POWER_KINDS, Amount, Kind

_Until: TypeAlias = Annotated[
    ElectricEnds | None,
    Field(
        description="What ends the step: a voltage, a charge, an energy, a time, a temperature, "
        "or {net charge: …} of the run; or a list of them, of which the first to be reached counts."
    ),
]
_HoldUntil: TypeAlias = Annotated[
    Current | None,
    Field(description="Then hold the voltage reached until the current has fallen to this."),
]
_For: TypeAlias = Annotated[Duration | None, Field(alias="for", description="End after this time.")]
_AtMost: TypeAlias = Annotated[
    Duration | None, Field(description="End after this time at the latest.")
]
_MaxCurrent: TypeAlias = Annotated[
    Current | None,
    Field(
        description="For a power or a resistor: the current never is larger. If not written: what "
        "it comes to at the voltage limit where the current is largest."
    ),
]
_Record: TypeAlias = Annotated[
    Record | None, Field(description="When readings are kept in this step.")
]
_AT = (
    "The current: a C-rate, per gram, per cm2, or in amperes; or the power: in watts or per gram. "
    "Never negative: the word charge or discharge says which way."
)


class ChargeFields(Fields):
    """A constant current or power, until the first of its ends."""

    at: CurrentOrPower = Field(description=_AT)
    until: _Until = None
    hold_until: _HoldUntil = None
    for_: _For = None
    at_most: _AtMost = None
    max_current: _MaxCurrent = None
    record: _Record = None


class DischargeFields(Fields):
    """A constant current or power, or a resistor, until the first of its ends."""

    at: CurrentOrPower | None = Field(default=None, description=_AT)
    into: Resistance | None = Field(
        default=None, description="In place of 'at': the resistor that the cell discharges into."
    )
    until: _Until = None
    hold_until: _HoldUntil = None
    for_: _For = None
    at_most: _AtMost = None
    max_current: _MaxCurrent = None
    record: _Record = None

    @model_validator(mode="after")
    def _one_load(self) -> DischargeFields:
        if self.at is None and self.into is None:
            raise mistake("'discharge' needs 'at' or 'into'", "write for example 'at: 0.2C'")
        if self.at is not None and self.into is not None:
            raise mistake(
                f"a discharge is either at {self.at} or into {self.into}", "delete one of them"
            )
        return self


_AnyFields: TypeAlias = ChargeFields | DischargeFields


def _load(fields: _AnyFields) -> Written[Amount]:
    """What is set: a current, a power or a resistance."""
    load = fields.at if fields.at is not None else getattr(fields, "into", None)
    assert load is not None  # noqa: S101
    return load


def _gather(fields: _AnyFields) -> Ends:
    return gather(fields.until, fields.for_, fields.at_most)


def _check(word: str, fields: _AnyFields, sheet: Sheet) -> None:
    load = _load(fields)
    by_current = load.value.kind in CURRENT_KINDS
    if load.value.value <= 0:
        what = "current" if by_current else str(load.value.kind).removesuffix(" per gram")
        other = "discharge" if word == "charge" else "charge"
        sheet.note(
            load.text,
            f"the {what} of a {word} must be more than 0, not {load}",
            ""
            if load.value.kind is Kind.RESISTANCE
            else f"to turn the current round write '{other}'; for no current write 'rest'",
        )
    check_ends(fields.until, fields.for_, fields.at_most, sheet)
    ends = _gather(fields)
    if ends.voltage is not None:
        sheet.check_voltage(ends.voltage)
    if ends.current is not None:
        sheet.note(
            ends.current.text,
            f"a constant current never falls to {ends.current}"
            if by_current
            else f"a {word} does not end by a current",
            f"to hold the voltage until the current falls, write 'hold_until: {ends.current}'"
            if by_current
            else "end it by its voltage, and write a 'hold' behind it",
        )
    elif not any(ends.others) and ends.time_s is None:
        sheet.note(
            load.text, f"this {word} has no end", "write for example 'until: 4.1 V' or 'for: 2 h'"
        )
    if fields.max_current is not None:
        sheet.check_positive(fields.max_current, "the largest current")
        if by_current:
            sheet.note(
                fields.max_current.text,
                f"the current is {load} and needs no 'max_current'",
                "delete it; it belongs to a power or a resistor",
            )
    if fields.hold_until is not None:
        _check_hold(word, load, fields.hold_until, ends, sheet)


def _check_hold(
    word: str, load: Written[Amount], hold: Written[Amount], ends: Ends, sheet: Sheet
) -> None:
    if not sheet.check_positive(hold, "the current at which a hold ends"):
        return
    if load.value.kind not in CURRENT_KINDS:
        sheet.note(
            hold.text,
            "a voltage is held within the same step only after a constant current",
            "write a step of its own: '- hold: {voltage: 4.1 V, until: 0.02C}'",
        )
    if ends.voltage is None:
        sheet.note(hold.text, "there is no voltage to hold", "write it as 'until', such as '4.1 V'")
    if hold.value.kind is load.value.kind and hold.value.value >= load.value.value > 0:
        sheet.note(
            hold.text, f"the hold would end at once: {hold} is not below the {load} of the {word}"
        )


def _build(word: str, fields: _AnyFields, bench: Bench) -> tuple[Node, ...]:
    load, ends, charging = _load(fields), _gather(fields), word == "charge"
    label = f"{word} {'into' if fields.at is None else 'at'} {load}{label_of(fields.until)}"
    if load.value.kind in POWER_KINDS:
        made = build_power(load, ends, fields.max_current, bench, charging=charging)
    elif load.value.kind is Kind.RESISTANCE:
        made = build_resistance(load, ends, fields.max_current, bench)
    else:
        made = _build_current(word, fields, load, ends, bench)
    if made is None:
        return ()
    if fields.hold_until is not None:
        label += f", hold until {fields.hold_until}"
    conditions = [*other_ends(ends, bench, charging=charging), *made.ends]
    by_voltage = voltage_ends(ends, bench, charging=charging)
    if fields.hold_until is None:
        conditions = by_voltage + conditions
    usual = of_a_current(made.expected_s)
    return bench.step(label, made.control, conditions, fields.record, usual)


def _build_current(
    word: str, fields: _AnyFields, load: Written[Amount], ends: Ends, bench: Bench
) -> Made | None:
    magnitude_A = bench.amperes(load)
    if math.isnan(magnitude_A):
        return None
    current_A = magnitude_A if word == "charge" else -magnitude_A
    bench.check_current(load, current_A)
    bench.last_current_A = current_A
    seconds = expected_s(ends, magnitude_A, bench)
    hold = fields.hold_until
    if hold is None or ends.voltage is None:
        return Made(ConstantCurrent(current_A), bounded(ends, load, magnitude_A, bench), seconds)
    taper_A = bench.amperes(hold)
    if math.isnan(taper_A):
        return None
    if taper_A >= magnitude_A:
        bench.note(
            hold.text,
            f"the hold would end at once: {hold} is not below the {load} of the {word} on cell "
            f"'{bench.cell.name}'",
        )
    conditions = bounded(ends, hold, min(taper_A, magnitude_A), bench)
    control = ConstantCurrentConstantVoltage(current_A, ends.voltage.value.value)
    return Made(control, [current_end(taper_A), *conditions], seconds)


def _tell(word: str, fields: _AnyFields, show: Show) -> str:
    ends = _gather(fields)
    said = said_of(ends, show, charging=word == "charge")
    into = getattr(fields, "into", None)
    text = f"{word.capitalize()} {'at' if into is None else 'into'} {show(_load(fields))}"
    if fields.max_current is not None:
        text += f", with at most {show(fields.max_current)},"
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


CHARGE = Technique(
    word="charge",
    fields=ChargeFields,
    about="Charge the cell with a constant current or power.",
    check=functools.partial(_check, "charge"),
    build=functools.partial(_build, "charge"),
    tell=functools.partial(_tell, "charge"),
    example="charge: {at: 0.2C, until: 4.1 V}",
)
DISCHARGE = Technique(
    word="discharge",
    fields=DischargeFields,
    about="Discharge the cell with a constant current or power, or into a resistor.",
    check=functools.partial(_check, "discharge"),
    build=functools.partial(_build, "discharge"),
    tell=functools.partial(_tell, "discharge"),
    example="discharge: {at: 0.2C, until: 1.5 V}",
)
