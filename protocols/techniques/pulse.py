"""Pulse: a current for some seconds, a rest, and a pulse the other way (HPPC).

The hybrid pulse power characterisation of the USABC manuals: a discharge of 10 s, 40 s of rest, and
a charge of 10 s at 75 % of that current. Those are what is taken where nothing is written. The ten
percent discharges and the rests of an hour between two such pairs are steps of their own.
"""

from __future__ import annotations

import math

from pydantic import Field

from labctl.program import ConstantCurrent, Node, Rest, Step
from labctl.protocols.techniques.base import (
    Bench,
    Sheet,
    Show,
    Technique,
    time_end,
    voltage_end,
)
from labctl.protocols.techniques.ends import check_charge_of_time, check_time
from labctl.protocols.techniques.leaves import Share
from labctl.protocols.techniques.recording import of_a_pulse
from labctl.protocols.techniques.rest import RestInside, build_rest, check_rest, said_of_rest
from labctl.protocols.written import (
    Current,
    Direction,
    Duration,
    Fields,
    Record,
    VoltageRange,
)

USUAL_PULSE_S = 10.0
USUAL_REST_S = 40.0
USUAL_SHARE = 0.75
LARGEST_SHARE = 10.0


class PulseFields(Fields):
    """A pulse of current, a rest, and a pulse the other way."""

    at: Current = Field(description="The current of the first pulse; never negative.")
    for_: Duration | None = Field(
        default=None, alias="for", description="How long each pulse is. If not written: 10 s."
    )
    rest: RestInside | None = Field(
        default=None, description="The rest behind the first pulse. If not written: 40 s."
    )
    back: Share | None = Field(
        default=None,
        description="The current of the second pulse, which goes the other way, as a part of the "
        "first. If not written: 75 %. 'off' leaves it out.",
    )
    direction: Direction | None = Field(
        default=None, description="Which way the first pulse goes. If not written: discharge."
    )
    between: VoltageRange | None = Field(
        default=None, description="A pulse that reaches one of these voltages ends there."
    )
    record: Record | None = Field(
        default=None, description="When readings are kept, in pulses and rest."
    )


def _seconds(fields: PulseFields) -> float:
    return USUAL_PULSE_S if fields.for_ is None else fields.for_.value


def _share(fields: PulseFields) -> float | None:
    return USUAL_SHARE if fields.back is None else fields.back.value


def _check(fields: PulseFields, sheet: Sheet) -> None:
    sheet.check_positive(fields.at, "the current of a pulse")
    if fields.for_ is not None:
        check_time(fields.for_.text, fields.for_.value, sheet)
    if fields.rest is not None:
        check_rest(fields.rest, sheet)
    share = _share(fields)
    if fields.back is not None and share is not None and not 0 < share <= LARGEST_SHARE:
        sheet.note(
            fields.back.text,
            f"the pulse back must be more than 0 % and at most 1000 % of the first, not "
            f"{fields.back}",
            "write for example '75 %', or 'off' to leave it out",
        )
    if fields.between is not None:
        sheet.check_window(fields.between)


def _pulse(
    fields: PulseFields, bench: Bench, label: str, current_A: float, seconds: float
) -> tuple[Step, ...]:
    ends = [time_end(seconds)]
    if fields.between is not None:
        window, rising = fields.between.value, current_A > 0
        edge = window.upper if rising else window.lower
        ends.insert(0, voltage_end(edge.value, rising=rising))
    control = ConstantCurrent(current_A)
    return bench.step(label, control, ends, fields.record, of_a_pulse(seconds))


def _build(fields: PulseFields, bench: Bench) -> tuple[Node, ...]:
    magnitude_A = bench.amperes(fields.at)
    if math.isnan(magnitude_A):
        return ()
    seconds, share = _seconds(fields), _share(fields)
    charging = fields.direction is not None and fields.direction.value
    if fields.between is not None:
        bench.check_window(fields.between)
    if fields.for_ is not None:
        check_charge_of_time(fields.for_.text, seconds, fields.at, magnitude_A, bench)
    words = ("charge", "discharge") if charging else ("discharge", "charge")
    current_A = magnitude_A if charging else -magnitude_A
    bench.check_current(fields.at, current_A)
    steps = _pulse(fields, bench, f"{words[0]} pulse at {fields.at}", current_A, seconds)
    if fields.rest is not None:
        usual = of_a_pulse(fields.rest.for_.value)
        steps += build_rest(fields.rest, bench, usual_record=usual, around=fields.record)
    else:
        rest_ends = [time_end(USUAL_REST_S)]
        usual = of_a_pulse(USUAL_REST_S)
        steps += bench.step("rest 40 s", Rest(), rest_ends, fields.record, usual)
    if share is None:
        return steps
    back_A = float(f"{-share * current_A:.12g}")
    said = "75 %" if fields.back is None else str(fields.back)
    if fields.back is None:
        bench.check_current(fields.at, back_A, f" times {said}")
    else:
        bench.check_current(fields.back, back_A, f" of {fields.at}")
    label = f"{words[1]} pulse at {said} of {fields.at}"
    return steps + _pulse(fields, bench, label, back_A, seconds)


def _tell(fields: PulseFields, show: Show) -> str:
    time = "10 s" if fields.for_ is None else show(fields.for_)
    charging = fields.direction is not None and fields.direction.value
    words = ("charge", "discharge") if charging else ("discharge", "charge")
    rest = "for 40 s" if fields.rest is None else said_of_rest(fields.rest, show)
    text = f"A {words[0]} pulse at {show(fields.at)} for {time}; then rest {rest}"
    if _share(fields) is not None:
        share = "75 %" if fields.back is None else show(fields.back)
        text += f"; then a {words[1]} pulse at {share} of that current for {time}"
    if fields.between is not None:
        text += f"; a pulse ends sooner at the voltages {show(fields.between)}"
    return text


PULSE = Technique(
    word="pulse",
    fields=PulseFields,
    about="A pulse of current, a rest, and a pulse the other way (HPPC).",
    check=_check,
    build=_build,
    tell=_tell,
    example="pulse: {at: 5C, for: 10 s, rest: 40 s}",
)
