"""The alarms that a recipe asks for."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field, WithJsonSchema

from labctl.program import RetentionAlarm
from labctl.protocols.source import Problems, Text
from labctl.protocols.written import Count, Cycles, Fields, Percentage, note, short_for

_DEFAULT = RetentionAlarm()
CLEARS_ABOVE = 0.01


class RetentionFields(Fields):
    """Raised when the discharge capacity has fallen below a part of what it was."""

    below: Percentage = Field(description="The part of the reference below which it is raised.")
    clears: Percentage | None = Field(
        default=None,
        description="The part above which it clears. If not written: 1 % more than 'below'.",
    )
    reference: Cycles | None = Field(
        default=None,
        description="The cycle or cycles whose median is 100 %. If not written: cycles 3 .. 7.",
    )
    over: Count | None = Field(
        default=None,
        description="How many cycles the median is taken over. If not written: 5 cycles.",
    )


Retention: TypeAlias = Annotated[
    tuple[Annotated[RetentionFields, short_for("below")], ...],
    BeforeValidator(lambda raw: raw if isinstance(raw, list) else [raw]),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "examples": ["80 %"]},
                {"x-ref": "retention"},
                {"type": "array", "items": {"x-ref": "retention"}, "minItems": 1},
            ]
        }
    ),
]


class AlarmsFields(Fields):
    """What raises an alarm while the recipe runs."""

    retention: Retention = Field(default=(), description="Discharge capacity against a reference.")


def retention_alarm(fields: RetentionFields) -> RetentionAlarm:
    """The alarm with its defaults put in."""
    below = fields.below.value
    first, last = (_DEFAULT.reference_first, _DEFAULT.reference_last)
    if fields.reference is not None:
        first, last = fields.reference.value
    return RetentionAlarm(
        below=below,
        clears_at=fields.clears.value if fields.clears else round(below + CLEARS_ABOVE, 12),
        reference_first=first,
        reference_last=last,
        over_cycles=fields.over.value if fields.over else _DEFAULT.over_cycles,
    )


def check_alarms(fields: AlarmsFields, cycles: int, problems: Problems) -> None:
    """Note alarms that could never be raised in a recipe of so many cycles."""
    for one in fields.retention:
        alarm = retention_alarm(one)
        if alarm.below >= 1:
            note(problems, one.below.text, f"{one.below} is not less than 100 % of the reference")
        if one.clears is not None and alarm.clears_at < alarm.below:
            note(problems, one.clears.text, f"{one.clears} is below the {one.below} that raises it")
        has = f"the recipe has {cycles} cycle{'s' if cycles != 1 else ''}"
        if alarm.reference_last > cycles:
            note(
                problems,
                _at(one.reference.text if one.reference else None, one),
                f"the reference is cycles {alarm.reference_first} .. {alarm.reference_last}, but "
                f"{has}",
                "write for example 'reference: cycle 1'",
            )
        elif alarm.over_cycles > cycles:
            note(
                problems,
                _at(one.over.text if one.over else None, one),
                f"the median is taken over {alarm.over_cycles} cycles, but {has}",
                "write for example 'over: 1 cycle'",
            )


def _at(text: Text | None, fields: RetentionFields) -> Text:
    return text if text is not None else fields.below.text
