"""The shape of a recipe: its sections, its loops, and the tree of what was written in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field, WithJsonSchema

from labctl.protocols.alarms import AlarmsFields
from labctl.protocols.source import (
    Text,
)
from labctl.protocols.techniques.base import Technique
from labctl.protocols.written import (
    ChargeAmount,
    Count,
    CurrentLimit,
    Duration,
    Fields,
    RecordFields,
    TemperatureRange,
    VoltageRange,
    Word,
    Written,
)

Name: TypeAlias = Annotated[
    object, WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"})
]
Steps: TypeAlias = Annotated[object, WithJsonSchema({"x-ref": "steps"})]


class LimitsFields(Fields):
    """Passing a limit ends the run safely. What is not written comes from the cell."""

    voltage: VoltageRange | None = Field(
        default=None, description="If not written: the cell's safe window. Never wider than it."
    )
    current: CurrentLimit | None = Field(
        default=None,
        description="Both ways, or from the strongest discharge (negative) to the strongest charge."
        " If not written: the cell's largest current, else 1.2 times the largest in the recipe.",
    )
    temperature: TemperatureRange | None = Field(
        default=None, description="If not written: no limit."
    )
    step_charge: ChargeAmount | None = Field(
        default=None,
        alias="step charge",
        description="The most that may pass in any one step. If not written: what 1C passes in "
        "5 hours.",
    )
    duration: Duration | None = Field(
        default=None,
        description="Of the whole run. If not written: a little more than all its steps can last.",
    )


class CycleFields(Fields):
    """Each pass is one cycle with a number of its own."""

    cycle: Count = Field(description="How many cycles.")
    class_: Word | None = Field(
        default=None,
        alias="class",
        description="What kind of cycles these are; only cycles of one class are compared.",
    )
    do: Steps = Field(description="The steps of one cycle.")


class RepeatFields(Fields):
    """Steps that are done again without counting cycles."""

    repeat: Count = Field(description="How many times.")
    do: Steps = Field(description="The steps of one pass.")


class ForFields(Fields):
    """The steps once for every value of a list; the value is used as $name."""

    for_: Name = Field(alias="for", description="The name of the value, used below as $name.")
    in_: Annotated[
        object,
        WithJsonSchema({"anyOf": [{"type": "array"}, {"type": "string", "pattern": r"^\$"}]}),
    ] = Field(alias="in", description="The values: a list, or a parameter that is one.")
    do: Steps = Field(description="The steps for one value.")


LOOPS: dict[str, type[Fields]] = {"cycle": CycleFields, "repeat": RepeatFields, "for": ForFields}


@dataclass(frozen=True, slots=True)
class WrittenStep:
    technique: Technique[Any]
    fields: Any
    key: Text


@dataclass(frozen=True, slots=True)
class WrittenLoop:
    count: Written[int]
    body: tuple[WrittenNode, ...]
    key: Text
    counts_cycles: bool
    class_name: Written[str] | None = None


@dataclass(frozen=True, slots=True)
class WrittenFor:
    """``passes`` holds the body once for each of ``values``."""

    name: str
    values: tuple[str, ...]
    passes: tuple[tuple[WrittenNode, ...], ...]
    key: Text


WrittenNode: TypeAlias = WrittenStep | WrittenLoop | WrittenFor


@dataclass(frozen=True, slots=True)
class WrittenRecipe:
    """Everything that was written, in type and in place."""

    name: str
    about: str
    limits: LimitsFields
    record: RecordFields | None
    alarms: AlarmsFields
    steps: tuple[WrittenNode, ...]
    steps_key: Text
