"""What a person writes, as typed fields: each value knows the text and the place it came from.

A group of fields is a pydantic model. Its names, units and descriptions make the checks, the error
messages and the JSON schema that editors use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from labctl.protocols.source import Problems, Text, shortened
from labctl.units import (
    CHARGE_KINDS,
    CURRENT_KINDS,
    EXAMPLES,
    Amount,
    Kind,
    QuantityError,
    parse_amount,
    parse_amounts,
)

T = TypeVar("T")
F = TypeVar("F", bound="Fields")

MOST_COUNT = 1_000_000
MOST_ENDS = 8

PARAMETER = r"\$[a-z][a-z0-9_]*"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+-]{0,39}")


@dataclass(frozen=True, slots=True)
class Written(Generic[T]):
    """A value and where it was written."""

    value: T
    text: Text

    def __str__(self) -> str:
        return self.text.value


@dataclass(frozen=True, slots=True)
class Range(Generic[T]):
    lower: T
    upper: T


class Fields(BaseModel):
    """A group of keys. Keys that it does not know are mistakes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, populate_by_name=False
    )


def mistake(message: str, suggestion: str = "") -> PydanticCustomError:
    """What a validator raises, to be told at the value or the group that it looks at."""
    return PydanticCustomError(
        "recipe", "{message}", {"message": message, "suggestion": suggestion}
    )


def leaf(read: Callable[[str], T], example: str) -> Callable[[object], Written[T]]:
    """A reader of one value for pydantic: ``read`` says what is wrong with it as QuantityError."""

    def reader(raw: object) -> Written[T]:
        if not isinstance(raw, Text):
            what = "a list" if isinstance(raw, list) else "a group of keys"
            raise mistake(f"one value is needed here, not {what}", f"write for example '{example}'")
        if raw.value == "" and not raw.quoted:
            raise mistake("the value is missing", f"write for example '{example}'")
        try:
            return Written(read(raw.value), raw)
        except QuantityError as error:
            raise mistake(shortened(str(error), 160), error.suggestion) from None

    return reader


def value_schema(*examples: str, pattern: str = r"[-+.0-9C].*[A-Za-z%0-9]") -> dict[str, Any]:
    """The JSON schema of a value that is written as ``pattern``, or as a parameter."""
    return {"type": "string", "pattern": f"^({PARAMETER}|{pattern})$", "examples": list(examples)}


def written_schema(*examples: str, pattern: str = r"[-+.0-9C].*[A-Za-z%0-9]") -> WithJsonSchema:
    """:func:`value_schema`, to be put beside a validator."""
    return WithJsonSchema(value_schema(*examples, pattern=pattern))


def examples_of(kinds: Iterable[Kind]) -> list[str]:
    """One example of each kind."""
    return [EXAMPLES[kind] for kind in kinds]


def amount_of(kinds: tuple[Kind, ...], example: str = "") -> PlainValidator:
    """Reads an amount of any of ``kinds``."""

    def read(text: str) -> Amount:
        return _with_example(example, lambda: parse_amount(text, kinds))

    return PlainValidator(leaf(read, example or EXAMPLES[kinds[0]]))


def positive(kind: Kind, example: str = "") -> PlainValidator:
    """Reads a number above 0, in the base unit of ``kind``."""
    usual = example or EXAMPLES[kind]

    def read(text: str) -> float:
        value = _with_example(example, lambda: parse_amount(text, (kind,))).value
        if value <= 0:
            raise QuantityError(f"'{text}' must be more than 0", f"write for example '{usual}'")
        return value

    return PlainValidator(leaf(read, usual))


def _with_example(example: str, read: Callable[[], Amount]) -> Amount:
    """What ``read`` returns; where it knows nothing better to write than an example, this one."""
    try:
        return read()
    except QuantityError as error:
        if not example or not error.suggestion.startswith("write for example"):
            raise
        raise QuantityError(str(error), f"write for example '{example}'") from None


def or_off(kind: Kind, example: str) -> PlainValidator:
    """Reads a number above 0, in the base unit of ``kind``, or 'off', which is infinity."""

    def read(text: str) -> float:
        if text == "off":
            return math.inf
        value = parse_amount(text, (kind,)).value
        if value <= 0:
            raise QuantityError(f"'{text}' must be more than 0", f"write '{example}' or 'off'")
        return value

    return PlainValidator(leaf(read, example))


def range_of(kind: Kind, example: str) -> PlainValidator:
    """Reads both ends of a range."""
    return PlainValidator(leaf(lambda text: Range(*parse_amounts(text, (kind,))), example))


def _current_limit() -> PlainValidator:
    example = "-10 mA .. 10 mA"

    def read(text: str) -> Range[Amount]:
        if ".." not in text:
            amount = parse_amount(text, CURRENT_KINDS)
            if amount.value <= 0:
                raise QuantityError(
                    f"'{text}' must be more than 0", f"write for example '{example}'"
                )
            return Range(Amount(-amount.value, amount.kind), amount)
        lower, upper = parse_amounts(text, CURRENT_KINDS)
        if lower.value >= 0 or upper.value <= 0:
            raise QuantityError(
                f"'{text}' does not hold 0: discharge currents are negative",
                f"write for example '{example}'",
            )
        return Range(lower, upper)

    return PlainValidator(leaf(read, example))


def read_count(text: str) -> int:
    """A whole number from 1, with 'cycles', 'passes' or 'times' after it or without.

    Raises:
        QuantityError: anything else.
    """
    match = re.fullmatch(r"(\S+)(\s+(cycles?|times?|passes|pass))?", text.strip())
    if match is None or not re.fullmatch(r"[0-9]{1,12}", match[1]):
        digits = re.sub(r"[_,' ]", "", text)
        better = (
            f"write '{digits}'" if re.fullmatch(r"[0-9]{1,12}", digits) else "write for example '3'"
        )
        raise QuantityError(f"'{text}' is not a whole number", better)
    count = int(match[1])
    if not 1 <= count <= MOST_COUNT:
        raise QuantityError(f"'{text}' must be from 1 to {MOST_COUNT}")
    return count


def _read_cycles(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"cycles?\s+([0-9]{1,9})(?:\s*\.\.\s*([0-9]{1,9}))?", text.strip())
    if match is None:
        raise QuantityError(
            f"'{text}' does not say which cycles", "write 'cycle 1' or 'cycles 3 .. 7'"
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if first < 1:
        raise QuantityError("cycles count from 1", "write 'cycle 1'")
    if last < first:
        raise QuantityError(f"'{text}' ends before it begins", f"write 'cycles {last} .. {first}'")
    return first, last


def _read_word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise QuantityError(
            f"'{shortened(text)}' cannot be a name here",
            "write up to 40 letters, digits, spaces or '.', '_', '-', '/', '+'",
        )
    return text


def _read_direction(text: str) -> bool:
    if text not in {"charge", "discharge"}:
        raise QuantityError(f"'{text}' is no direction", "write 'charge' or 'discharge'")
    return text == "charge"


def _read_charge_change(text: str) -> Amount:
    if text == "off":
        return Amount(math.inf, Kind.CHARGE)
    amount = parse_amount(text, CHARGE_KINDS)
    if amount.value <= 0:
        raise QuantityError(f"'{text}' must be more than 0", "write '1 mAh/g' or 'off'")
    return amount


def in_a_list(raw: object) -> list[object]:
    """One value as a list of one; a list of a bounded number as it is."""
    items = raw if isinstance(raw, list) else [raw]
    if not 1 <= len(items) <= MOST_ENDS:
        raise mistake(f"a list of 1 to {MOST_ENDS} is needed here")
    return items


def short_for(key: str) -> BeforeValidator:
    """Lets one value stand for a whole group: it is the value of ``key``."""
    return BeforeValidator(lambda raw: {key: raw} if isinstance(raw, Text) else raw)


_COUNT_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": f"^({PARAMETER}|[0-9]+ .*)$"},
        ]
    }
)

Voltage: TypeAlias = Annotated[Written[Amount], amount_of((Kind.VOLTAGE,)), written_schema("4.1 V")]
Current: TypeAlias = Annotated[
    Written[Amount], amount_of(CURRENT_KINDS), written_schema(*examples_of(CURRENT_KINDS))
]
ChargeAmount: TypeAlias = Annotated[
    Written[Amount], amount_of(CHARGE_KINDS), written_schema(*examples_of(CHARGE_KINDS))
]
Duration: TypeAlias = Annotated[
    Written[float], positive(Kind.DURATION), written_schema("10 min", "2 h", "1 h 30 min")
]
Percentage: TypeAlias = Annotated[Written[float], positive(Kind.FRACTION), written_schema("80 %")]
VoltageRange: TypeAlias = Annotated[
    Written[Range[Amount]],
    range_of(Kind.VOLTAGE, "1.0 V .. 4.4 V"),
    written_schema("1.0 V .. 4.4 V"),
]
TemperatureRange: TypeAlias = Annotated[
    Written[Range[Amount]],
    range_of(Kind.TEMPERATURE, "5 degC .. 60 degC"),
    written_schema("5 degC .. 60 degC"),
]
CurrentLimit: TypeAlias = Annotated[
    Written[Range[Amount]], _current_limit(), written_schema("10 mA", "-10 mA .. 5 mA", "2C")
]
Count: TypeAlias = Annotated[Written[int], PlainValidator(leaf(read_count, "3")), _COUNT_SCHEMA]
Cycles: TypeAlias = Annotated[
    Written[tuple[int, int]],
    PlainValidator(leaf(_read_cycles, "cycles 3 .. 7")),
    written_schema("cycle 1", "cycles 3 .. 7", pattern=r"cycles? .*"),
]
Word: TypeAlias = Annotated[
    Written[str], PlainValidator(leaf(_read_word, "formation")),
    WithJsonSchema({"type": "string", "examples": ["formation", "diagnostic"]}),
]  # fmt: skip
Direction: TypeAlias = Annotated[
    Written[bool], PlainValidator(leaf(_read_direction, "charge")),
    WithJsonSchema({"enum": ["charge", "discharge"], "examples": ["charge"]}),
]  # fmt: skip
Interval: TypeAlias = Annotated[
    Written[float],
    or_off(Kind.DURATION, "30 s"),
    written_schema("30 s", "off", pattern=r"off|[.0-9].*[a-z]"),
]
VoltageChange: TypeAlias = Annotated[
    Written[float],
    or_off(Kind.VOLTAGE, "5 mV"),
    written_schema("5 mV", "off", pattern=r"off|[.0-9].*V"),
]
CurrentChange: TypeAlias = Annotated[
    Written[float],
    or_off(Kind.CURRENT, "10 uA"),
    written_schema("10 uA", "off", pattern=r"off|[.0-9].*A"),
]


ChargeChange: TypeAlias = Annotated[
    Written[Amount],
    PlainValidator(leaf(_read_charge_change, "1 mAh/g")),
    written_schema("1 mAh/g", "2 uAh", "off", pattern=r"off|[.0-9].*Ah.*"),
]


class RecordFields(Fields):
    """When a reading is kept. What is not said is as it is for the whole recipe."""

    every: Interval | None = Field(
        default=None,
        description="Keep a reading when this much time has passed since the last one.",
    )
    voltage_change: VoltageChange | None = Field(
        default=None, description="Keep a reading when the voltage has changed by this much."
    )
    current_change: CurrentChange | None = Field(
        default=None, description="Keep a reading when the current has changed by this much."
    )
    charge_change: ChargeChange | None = Field(
        default=None, description="Keep a reading when this much charge has passed."
    )


Record: TypeAlias = Annotated[
    RecordFields,
    short_for("every"),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["60 s"]}, {"x-ref": "record"}]}),
]


def note(problems: Problems, text: Text, message: str, suggestion: str = "") -> None:
    """Note a mistake at ``text``, saying which parameter it came through."""
    problems.add(text.place, f"{message}{through(text)}", suggestion)


def through(text: Text) -> str:
    """The parameter that a text came through, to be put behind a message; '' if none."""
    if not text.name:
        return ""
    where = f" in {text.used.seen_from(text.place)}" if text.used.line else ""
    return f" (${text.name}{where})"
