"""What an 'if' and an 'until' of a loop look at: how the step before ended, and what a cycle was.

Fractions are of the median of the cycles that ``of`` names; capacities in Ah and energies in Wh are
magnitudes. Cycles count from 1, in an included recipe from its own beginning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from labctl.program import Comparison, Condition, CycleFigure, CycleResult, EndedBy, Quantity
from labctl.protocols.source import Problems, Text, shortened
from labctl.protocols.techniques.base import Bench
from labctl.protocols.written import (
    PARAMETER,
    Cycles,
    Fields,
    Written,
    in_a_list,
    leaf,
    note,
)
from labctl.units import (
    CHARGE_KINDS,
    ENERGY_KINDS,
    EXAMPLES,
    Amount,
    Kind,
    QuantityError,
    nearest,
    parse_amount,
)

END_WORDS: dict[str, Quantity] = {
    "voltage": Quantity.VOLTAGE_V,
    "current": Quantity.CURRENT_A,
    "time": Quantity.STEP_TIME_S,
    "charge": Quantity.STEP_CHARGE_AH,
    "net charge": Quantity.RUN_CHARGE_AH,
    "energy": Quantity.STEP_ENERGY_WH,
    "slope": Quantity.VOLTAGE_SLOPE_V_PER_S,
    "temperature": Quantity.TEMPERATURE_DEGC,
}
WORD_OF_QUANTITY = {quantity: word for word, quantity in END_WORDS.items()}

_SIDES = {"below": Comparison.AT_MOST, "above": Comparison.AT_LEAST}
_OTHER_SIDES = {
    "under": "below", "less than": "below", "lower than": "below", "smaller than": "below",
    "<=": "below", "<": "below", "at most": "below",
    "over": "above", "more than": "above", "higher than": "above", "greater than": "above",
    ">=": "above", ">": "above", "at least": "above",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compared:
    """'below 80 %': a side and an amount."""

    comparison: Comparison
    amount: Amount


def _compared(kinds: tuple[Kind, ...]) -> PlainValidator:
    examples = [f"below {EXAMPLES[kind]}" for kind in kinds]

    def read(text: str) -> Compared:
        side, _, amount = text.strip().partition(" ")
        if side in _SIDES:
            return Compared(_SIDES[side], parse_amount(amount, kinds))
        for other, right in _OTHER_SIDES.items():
            if text.startswith(other):
                better = f"write '{right} {text.removeprefix(other).strip()}'"
                raise QuantityError(f"'{shortened(text)}' says neither 'below' nor 'above'", better)
        better = f"write for example '{examples[0]}'"
        if re.match(r"[-+.0-9]", text):
            better = f"write 'below {text}' or 'above {text}'"
        raise QuantityError(f"'{shortened(text)}' says neither 'below' nor 'above'", better)

    return PlainValidator(leaf(read, examples[0]))


def _compared_schema(kinds: tuple[Kind, ...]) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^({PARAMETER}|(below|above) ({PARAMETER}|[-+.0-9].*))$",
            "examples": [f"below {EXAMPLES[kind]}" for kind in kinds],
        }
    )


def _read_end(text: str) -> Quantity:
    if text not in END_WORDS:
        better = nearest(text, END_WORDS)
        raise QuantityError(
            f"'{shortened(text)}' is nothing that a step ends by",
            f"did you mean '{better}'?" if better else f"write one of {', '.join(END_WORDS)}",
        )
    return END_WORDS[text]


_PART = (Kind.FRACTION,)
_CAPACITY = (Kind.FRACTION, *CHARGE_KINDS)
_ENERGY = (Kind.FRACTION, *ENERGY_KINDS)
EndWord: TypeAlias = Annotated[
    Written[Quantity],
    PlainValidator(leaf(_read_end, "voltage")),
    WithJsonSchema({"enum": list(END_WORDS)}),
]
Capacity: TypeAlias = Annotated[
    Written[Compared], _compared(_CAPACITY), _compared_schema(_CAPACITY)
]
Energy: TypeAlias = Annotated[Written[Compared], _compared(_ENERGY), _compared_schema(_ENERGY)]
Part: TypeAlias = Annotated[Written[Compared], _compared(_PART), _compared_schema(_PART)]


class ConditionFields(Fields):
    """One thing that is looked at: how the step before ended, or what a cycle was."""

    ended_by: EndWord | None = Field(
        default=None,
        alias="ended by",
        description="Which of its ends the step before reached first.",
    )
    discharge_capacity: Capacity | None = Field(
        default=None,
        alias="discharge capacity",
        description="Of the present cycle so far, or of the last one: 'below 80 %' with 'of', or "
        "'below 120 mAh/g'.",
    )
    charge_capacity: Capacity | None = Field(
        default=None,
        alias="charge capacity",
        description="Of the present cycle so far, or of the last one: 'below 80 %' with 'of', or "
        "'below 120 mAh/g'.",
    )
    discharge_energy: Energy | None = Field(
        default=None,
        alias="discharge energy",
        description="Of the present cycle so far, or of the last one: 'below 80 %' with 'of', or "
        "'below 400 Wh/kg'.",
    )
    charge_energy: Energy | None = Field(
        default=None,
        alias="charge energy",
        description="Of the present cycle so far, or of the last one: 'below 80 %' with 'of', or "
        "'below 400 Wh/kg'.",
    )
    efficiency: Part | None = Field(
        default=None,
        description="Discharge capacity by charge capacity of a cycle: 'below 99 %'.",
    )
    retention: Part | None = Field(
        default=None,
        description="Discharge capacity as a part of that of the cycles that 'of' names.",
    )
    of: Cycles | None = Field(
        default=None,
        description="The cycle or cycles whose median is 100 %: 'cycle 3' or 'cycles 3 .. 7'.",
    )


FIGURES: dict[str, CycleFigure] = {
    "discharge_capacity": CycleFigure.DISCHARGE_AH,
    "charge_capacity": CycleFigure.CHARGE_AH,
    "discharge_energy": CycleFigure.DISCHARGE_WH,
    "charge_energy": CycleFigure.CHARGE_WH,
    "efficiency": CycleFigure.COULOMBIC_EFFICIENCY,
    "retention": CycleFigure.DISCHARGE_AH,
}

Until: TypeAlias = Annotated[
    tuple[ConditionFields, ...],
    BeforeValidator(in_a_list),
    WithJsonSchema(
        {
            "anyOf": [
                {"x-ref": "condition"},
                {"type": "array", "items": {"x-ref": "condition"}, "minItems": 1, "maxItems": 8},
            ]
        }
    ),
]
If: TypeAlias = Annotated[ConditionFields, WithJsonSchema({"x-ref": "condition"})]


@dataclass(frozen=True, slots=True)
class WrittenCondition:
    """A condition that was checked. ``name`` is its field; one of the two values is set."""

    name: str
    of: Written[tuple[int, int]] | None
    ended_by: Written[Quantity] | None = None
    compared: Written[Compared] | None = None

    @property
    def text(self) -> Text:
        """Where its value stands."""
        written = self.ended_by or self.compared
        assert written is not None  # noqa: S101
        return written.text

    @property
    def words(self) -> str:
        """What it looks at, as it is written."""
        return ConditionFields.model_fields[self.name].alias or self.name


def condition_of(fields: ConditionFields, at: Text, problems: Problems) -> WrittenCondition | None:
    """The one condition of a group; None with what is wrong noted, at ``at`` if nowhere else."""
    written = {
        name: value
        for name in ConditionFields.model_fields
        if name != "of" and (value := getattr(fields, name)) is not None
    }
    if len(written) != 1:
        second = list(written.values())[1].text if written else at
        problems.add(
            second.place,
            "one condition at a time" if written else "this says nothing to look at",
            "put one 'if' inside the other"
            if written
            else "write for example 'ended by: voltage' or 'retention: below 80 %, of: cycle 3'",
        )
        return None
    ((name, value),) = written.items()
    condition = (
        WrittenCondition(name, fields.of, ended_by=value)
        if name == "ended_by"
        else WrittenCondition(name, fields.of, compared=value)
    )
    return condition if _check(condition, problems) else None


def _check(condition: WrittenCondition, problems: Problems) -> bool:
    compared, of, words = condition.compared, condition.of, condition.words
    if compared is None:
        if of is not None:
            note(problems, of.text, "how a step ended is not compared with a cycle", "delete 'of'")
        return of is None
    amount = compared.value.amount
    relative = amount.kind is Kind.FRACTION and condition.name != "efficiency"
    if amount.value <= 0:
        note(problems, compared.text, f"'{compared}' must be an amount of more than 0")
        return False
    if relative and of is None:
        note(
            problems,
            compared.text,
            f"nothing says of which cycle '{compared}' is a part",
            f"write '{words}: {compared}, of: cycle 3'",
        )
        return False
    if of is not None and not relative:
        what = "an efficiency is a part of the cycle's own charge"
        if condition.name != "efficiency":
            what = f"'{compared}' is no part of another cycle's"
        note(problems, of.text, what, "delete 'of', or write a part such as 'below 80 %'")
        return False
    return True


def build_condition(
    condition: WrittenCondition, bench: Bench, cycles_before: int
) -> Condition | None:
    """The condition on one cell; None with what is wrong noted.

    ``cycles_before`` are those that were made before the recipe that it is written in began.
    """
    if condition.ended_by is not None:
        return EndedBy(condition.ended_by.value)
    compared = condition.compared
    assert compared is not None  # noqa: S101
    amount = compared.value.amount
    value = amount.value
    if amount.kind in CHARGE_KINDS:
        value = bench.amperes(Written(amount, compared.text))
    elif amount.kind in ENERGY_KINDS:
        value = amount.watts(active_mass_g=bench.cell.active_mass_g)
    if math.isnan(value):
        return None
    first, last = condition.of.value if condition.of is not None else (-cycles_before,) * 2
    return CycleResult(
        figure=FIGURES[condition.name],
        comparison=compared.value.comparison,
        value=value,
        of_first=first + cycles_before,
        of_last=last + cycles_before,
    )


def tell_condition(condition: WrittenCondition, show: Callable[[Written[Any]], str]) -> str:
    """The condition as a person says it after 'if'."""
    if condition.ended_by is not None:
        return f"the step before ended by {show(condition.ended_by)}"
    assert condition.compared is not None  # noqa: S101
    words = "discharge capacity" if condition.name == "retention" else condition.words
    said = f"the {words} of the cycle is {show(condition.compared)}"
    return f"{said} of that of {show(condition.of)}" if condition.of is not None else said
