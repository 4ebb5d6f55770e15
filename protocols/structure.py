"""The shape of a recipe: its sections, its loops and branches, and the tree of what was written."""

from __future__ import annotations

from collections.abc import Mapping as Table
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema

from labctl.protocols.alarms import AlarmsFields
from labctl.protocols.conditions import If, Until, WrittenCondition
from labctl.protocols.limits import LimitsFields, StepLimitsFields
from labctl.protocols.parameters import Parameter
from labctl.protocols.source import Node, Text, shortened
from labctl.protocols.techniques.base import Technique
from labctl.protocols.written import Count, Fields, RecordFields, Word, Written, leaf
from labctl.units import QuantityError

MOST_STEPS = 10_000
MOST_VISITS = 1_000_000
LONGEST_NAME = 120

SECTIONS = ("recipe", "about", "parameters", "limits", "record", "alarms", "steps")

Name: TypeAlias = Annotated[
    object, WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"})
]
Steps: TypeAlias = Annotated[object, WithJsonSchema({"x-ref": "steps"})]


def _read_loop(text: str) -> str:
    if text != "loop":
        raise QuantityError(
            f"'{shortened(text)}' cannot be left",
            "write 'leave: loop'; it leaves the innermost loop around it",
        )
    return text


def _read_reason(text: str) -> str:
    if len(text) > LONGEST_NAME:
        raise QuantityError(f"the reason is longer than {LONGEST_NAME} characters")
    return text


class CycleFields(Fields):
    """Each pass is one cycle with a number of its own."""

    cycle: Count = Field(description="How many cycles.")
    class_: Word | None = Field(
        default=None,
        alias="class",
        description="What kind of cycles these are; only cycles of one class are compared.",
    )
    first: Steps | None = Field(
        default=None, description="Other steps for the first cycle, in place of those under 'do'."
    )
    first_class: Word | None = Field(
        default=None,
        alias="first class",
        description="What kind of cycle the first one is, if it is another kind than the rest.",
    )
    until: Until | None = Field(
        default=None,
        description="Leave the loop after a cycle for which this holds, or one of a list of them.",
    )
    do: Steps = Field(description="The steps of one cycle.")


class RepeatFields(Fields):
    """Steps that are done again without counting cycles."""

    repeat: Count = Field(description="How many times.")
    until: Until | None = Field(
        default=None,
        description="Leave the loop after a pass when this, or one of a list, holds for the cycle "
        "that ended last.",
    )
    do: Steps = Field(description="The steps of one pass.")


class ForFields(Fields):
    """The steps once for every value of a list; the value is used as $name."""

    for_: Name = Field(alias="for", description="The name of the value, used below as $name.")
    in_: Annotated[
        object,
        WithJsonSchema({"anyOf": [{"type": "array"}, {"type": "string", "pattern": r"^\$"}]}),
    ] = Field(alias="in", description="The values: a list, or a parameter that is one.")
    do: Steps = Field(description="The steps for one value.")


class IfFields(Fields):
    """Steps that are done only if something holds when the recipe comes to them."""

    if_: If = Field(alias="if", description="What must hold.")
    then: Steps = Field(description="The steps if it holds.")
    else_: Steps | None = Field(
        default=None, alias="else", description="The steps if it does not hold."
    )


class LeaveFields(Fields):
    """Go on after the innermost loop around it."""

    leave: Annotated[
        Written[str], PlainValidator(leaf(_read_loop, "loop")), WithJsonSchema({"enum": ["loop"]})
    ] = Field(description="Leave the innermost 'cycle', 'repeat' or 'for' around it.")


class StopFields(Fields):
    """The run ends here: a proper end, for a reason."""

    stop: Annotated[
        Written[str],
        PlainValidator(leaf(_read_reason, "capacity is down")),
        WithJsonSchema({"type": "string", "minLength": 1, "examples": ["capacity is down"]}),
    ] = Field(description="End the run properly, for this reason.")


class IncludeFields(Fields):
    """All the steps of another recipe, with its own limits and record rules."""

    recipe: Annotated[
        object, WithJsonSchema({"type": "string", "examples": ["formation.yaml"]})
    ] = Field(description="The file of the recipe, beside this one; or one that comes with labctl.")
    with_: Annotated[object, WithJsonSchema({"x-ref": "values"})] | None = Field(
        default=None, alias="with", description="Values for its parameters."
    )


LOOPS: dict[str, type[Fields]] = {"cycle": CycleFields, "repeat": RepeatFields, "for": ForFields}
STRUCTURE: dict[str, type[Fields]] = {
    **LOOPS,
    "if": IfFields,
    "leave": LeaveFields,
    "stop": StopFields,
    "recipe": IncludeFields,
}
"""Everything that can stand in a list of steps and is not a technique."""

BODIES = ("do", "first", "then", "else")
"""The keys that take a list of steps."""


@dataclass(frozen=True, slots=True)
class WrittenStep:
    technique: Technique[Any]
    fields: Any
    key: Text
    limits: StepLimitsFields | None = None


@dataclass(frozen=True, slots=True)
class WrittenLoop:
    """``first``, if there are any, are the steps of the first pass in place of ``body``."""

    count: Written[int]
    body: tuple[WrittenNode, ...]
    key: Text
    counts_cycles: bool
    class_name: Written[str] | None = None
    first: tuple[WrittenNode, ...] = ()
    first_class: Written[str] | None = None
    until: tuple[WrittenCondition, ...] = ()
    left: bool = False
    """Whether a 'leave' in it leaves it."""


@dataclass(frozen=True, slots=True)
class WrittenFor:
    """``passes`` holds the body once for each of ``values``."""

    name: str
    values: tuple[str, ...]
    passes: tuple[tuple[WrittenNode, ...], ...]
    key: Text
    left: bool = False


@dataclass(frozen=True, slots=True)
class WrittenBranch:
    condition: WrittenCondition
    then: tuple[WrittenNode, ...]
    otherwise: tuple[WrittenNode, ...]
    key: Text


@dataclass(frozen=True, slots=True)
class WrittenLeave:
    key: Text


@dataclass(frozen=True, slots=True)
class WrittenStop:
    reason: Written[str]
    key: Text


@dataclass(frozen=True, slots=True)
class WrittenInclude:
    """``given`` are the values for its parameters."""

    recipe: WrittenRecipe
    given: Table[str, Node]
    key: Text


WrittenNode: TypeAlias = (
    WrittenStep
    | WrittenLoop
    | WrittenFor
    | WrittenBranch
    | WrittenLeave
    | WrittenStop
    | WrittenInclude
)


@dataclass(frozen=True, slots=True)
class WrittenRecipe:
    """Everything that was written, in type and in place. ``file`` is '' for the recipe itself."""

    name: str
    about: str
    limits: LimitsFields
    record: RecordFields | None
    alarms: AlarmsFields
    steps: tuple[WrittenNode, ...]
    steps_key: Text
    parameters: Table[str, Parameter]
    file: str = ""


def bodies_of(node: WrittenNode) -> tuple[tuple[WrittenNode, ...], ...]:
    """The lists of steps inside a node, in the order written."""
    match node:
        case WrittenLoop(first=first, body=body):
            return (first, body) if first else (body,)
        case WrittenFor(passes=passes):
            return passes
        case WrittenBranch(then=then, otherwise=otherwise):
            return (then, otherwise)
        case WrittenInclude(recipe=recipe):
            return (recipe.steps,)
        case _:
            return ()


@dataclass(frozen=True, slots=True)
class Span:
    """A number, at the least and at the most."""

    least: int = 0
    most: int = 0

    def __add__(self, other: Span) -> Span:
        return Span(self.least + other.least, self.most + other.most)


def cycles_of(nodes: tuple[WrittenNode, ...]) -> Span:
    """How many cycles a list of steps makes, if the run is not stopped in it."""
    total = Span()
    for node in nodes:
        total += cycles_of_node(node)
    return total


def cycles_of_node(node: WrittenNode) -> Span:
    """How many cycles one node makes."""
    inner = [cycles_of(body) for body in bodies_of(node)]
    match node:
        case WrittenLoop():
            own = int(node.counts_cycles)
            first, rest = inner[0], inner[-1]
            more = node.count.value - 1
            surely = 0 if node.until or node.left else more
            return Span(
                own + (0 if node.left else first.least) + surely * (own + rest.least),
                own + first.most + more * (own + rest.most),
            )
        case WrittenBranch():
            return Span(min(one.least for one in inner), max(one.most for one in inner))
        case WrittenFor():
            most = sum(one.most for one in inner)
            return Span(0 if node.left else sum(one.least for one in inner), most)
        case WrittenInclude():
            return inner[0]
        case WrittenStep(technique=technique, fields=fields):
            return Span(technique.cycles(fields), technique.cycles(fields))
        case _:
            return Span()
