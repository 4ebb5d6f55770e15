"""Rest: open circuit for a time, or until the voltage has settled.

``until`` is a magnitude of dV/dt, in V/s inside: the rest ends when the voltage changes no faster,
and after its time at the latest.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field, WithJsonSchema

from labctl.program import Comparison, EndCondition, Quantity, RecordRule, Rest, Step
from labctl.protocols.techniques.base import Bench, Sheet, Show, Technique, time_end
from labctl.protocols.techniques.ends import check_time
from labctl.protocols.techniques.leaves import VoltageRate
from labctl.protocols.techniques.recording import of_a_rest
from labctl.protocols.written import Duration, Fields, Record, RecordFields, short_for


class RestFields(Fields):
    """No current flows; the voltage is recorded."""

    for_: Duration = Field(
        alias="for", description="How long the cell rests; with 'until', at the most."
    )
    until: VoltageRate | None = Field(
        default=None,
        description="End sooner when the voltage changes no faster than this: '1 mV/h'.",
    )
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


RestInside: TypeAlias = Annotated[
    RestFields,
    short_for("for"),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "examples": ["1 h", "40 s"]}, {"x-ref": "rest_keys"}]}
    ),
]
"""A rest that is a key of another technique: '1 h', or the group that 'rest' takes."""


def check_rest(fields: RestFields, sheet: Sheet) -> None:
    """Note a time beyond reason."""
    check_time(fields.for_.text, fields.for_.value, sheet)


def build_rest(
    fields: RestFields,
    bench: Bench,
    *,
    usual_record: RecordRule | None = None,
    around: RecordFields | None = None,
) -> tuple[Step, ...]:
    """One step. ``around`` is the record of the technique that the rest is a part of."""
    ends = [time_end(fields.for_.value)]
    label = f"rest {fields.for_}"
    if fields.until is not None:
        slope = EndCondition(Quantity.VOLTAGE_SLOPE_V_PER_S, Comparison.AT_MOST, fields.until.value)
        ends.insert(0, slope)
        label += f" or until {fields.until}"
    usual = usual_record or of_a_rest(fields.for_.value)
    return bench.step(label, Rest(), ends, fields.record or around, usual)


def said_of_rest(fields: RestFields, show: Show) -> str:
    """'for 1 h', 'for at most 4 h, until …'."""
    if fields.until is None:
        return f"for {show(fields.for_)}"
    return (
        f"until the voltage changes by no more than {show(fields.until)}, "
        f"for at most {show(fields.for_)}"
    )


def _build(fields: RestFields, bench: Bench) -> tuple[Step, ...]:
    return build_rest(fields, bench)


def _tell(fields: RestFields, show: Show) -> str:
    return f"Rest without current {said_of_rest(fields, show)}"


REST = Technique(
    word="rest",
    fields=RestFields,
    about="Leave the cell at open circuit for a time.",
    check=check_rest,
    build=_build,
    tell=_tell,
    short="for",
    example="rest: 10 min",
)
