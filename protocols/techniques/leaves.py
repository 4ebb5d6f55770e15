"""What the keys of techniques hold: powers, rates, frequencies, moments, and the ends of a step."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

from labctl.program import Then
from labctl.protocols.source import shortened
from labctl.protocols.written import (
    MOST_ENDS,
    PARAMETER,
    Written,
    amount_of,
    examples_of,
    in_a_list,
    leaf,
    mistake,
    positive,
    value_schema,
    written_schema,
)
from labctl.units import (
    CHARGE_KINDS,
    CURRENT_KINDS,
    ENERGY_KINDS,
    EXAMPLES,
    POWER_KINDS,
    Amount,
    Kind,
    QuantityError,
    nearest,
    parse_amount,
)

OPEN_CIRCUIT = "open circuit"
NET_CHARGE = "net charge"
LONGEST_PROMPT = 200
MOST_POINTS = 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)\s*(Z|UTC|[+-]\d\d:\d\d)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class NetCharge(Amount):
    """A net charge of the run, positive for charging."""


def _at_open_circuit_or(kinds: tuple[Kind, ...]) -> PlainValidator:
    """Reads an amount of one of ``kinds``, or 'open circuit', which is None."""

    def read(text: str) -> Amount | None:
        if text == OPEN_CIRCUIT:
            return None
        try:
            return parse_amount(text, kinds)
        except QuantityError as error:
            if nearest(text, [OPEN_CIRCUIT]) or text.lower() in {"ocv", "ocp"}:
                raise QuantityError(f"'{text}' is not known", f"write '{OPEN_CIRCUIT}'") from None
            raise error from None

    return PlainValidator(leaf(read, EXAMPLES[kinds[0]]))


def _one_of(choices: dict[str, object], what: str) -> PlainValidator:
    def read(text: str) -> object:
        if text not in choices:
            said = " or ".join(f"'{choice}'" for choice in choices)
            raise QuantityError(f"'{shortened(text)}' is no {what}", f"write {said}")
        return choices[text]

    return PlainValidator(leaf(read, next(iter(choices))))


def _read_points(text: str) -> int:
    match = re.fullmatch(r"(\d{1,6})(\s*(?:/|per|a)\s*decade)?", text.strip(), re.ASCII)
    if match is None or match[2] is None:
        count = match[1] if match else "10"
        raise QuantityError(
            f"'{shortened(text)}' does not say how many points a decade",
            f"write '{count} per decade'",
        )
    if not 1 <= int(match[1]) <= MOST_POINTS:
        raise QuantityError(f"'{text}' must be from 1 to {MOST_POINTS} per decade")
    return int(match[1])


def _read_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise QuantityError(
            f"'{shortened(text)}' cannot be the name of a signal",
            "write up to 40 letters, digits or '.', '_', '-'",
        )
    return text


def _read_prompt(text: str) -> str:
    if not text.strip():
        raise QuantityError("the text for the operator is empty", "write what is to be done")
    if len(text) > LONGEST_PROMPT:
        raise QuantityError(
            f"the text for the operator has {len(text)} characters; the most is {LONGEST_PROMPT}"
        )
    return text.strip()


def _read_moment(text: str) -> float:
    match = _MOMENT.fullmatch(text.strip())
    example = "write for example '2026-01-05 09:00 +01:00'"
    if match is None:
        with contextlib.suppress(QuantityError):
            parse_amount(text, (Kind.DURATION,))
            example = f"to let the cell rest for a time write 'rest: {shortened(text)}'"
        raise QuantityError(f"'{shortened(text)}' is not a date and a time", example)
    date, time, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date} {time}")
        if zone is None:
            offset = moment.astimezone().isoformat(sep=" ")[-6:]
            raise QuantityError(
                f"'{text}' does not say of which time zone",
                f"write '{date} {time} {offset}', which is this computer's, or '{date} {time} UTC'",
            )
        if zone not in {"Z", "UTC"}:
            return datetime.fromisoformat(f"{date} {time}{zone}").timestamp()
        return moment.replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError) as error:
        if isinstance(error, QuantityError):
            raise
        raise QuantityError(f"there is no such moment as '{text}'", example) from None


def _end_of(kinds: tuple[Kind, ...], *, net: bool) -> PlainValidator:
    """Reads an end of a step: an amount of one of ``kinds``, or where ``net`` the group that says
    a net charge."""
    one = leaf(lambda text: parse_amount(text, kinds), EXAMPLES[kinds[0]])

    def read(raw: object) -> Written[Amount]:
        return _net_charge(raw) if net and isinstance(raw, dict) else one(raw)

    return PlainValidator(read)


def _net_charge(raw: dict[str, object]) -> Written[Amount]:
    for key in raw:
        if key != NET_CHARGE:
            better = f"write '{NET_CHARGE}: 85 mAh/g', or the value alone, such as '4.1 V'"
            raise mistake(f"'{shortened(key)}' is nothing that ends a step", better)
    if NET_CHARGE not in raw:
        raise mistake("the group is empty", f"write '{NET_CHARGE}: 85 mAh/g'")
    read = leaf(lambda text: parse_amount(text, CHARGE_KINDS), "85 mAh/g")
    written = read(raw[NET_CHARGE])
    return Written(NetCharge(written.value.value, written.value.kind), written.text)


def _ends_schema(*examples: str, net: bool) -> WithJsonSchema:
    one = [value_schema(*examples)]
    if net:
        charge = value_schema(*examples_of(CHARGE_KINDS))
        charge["description"] = "The net charge since the run began, positive for charging."
        one.append(
            {
                "type": "object",
                "additionalProperties": False,
                "required": [NET_CHARGE],
                "properties": {NET_CHARGE: charge},
            }
        )
    items = {"anyOf": one} if net else one[0]
    listed = {"type": "array", "items": items, "minItems": 1, "maxItems": MOST_ENDS}
    return WithJsonSchema({"anyOf": [*one, listed], "examples": list(examples)})


def _or_open_circuit(*examples: str) -> WithJsonSchema:
    return written_schema(
        *examples, OPEN_CIRCUIT, pattern=rf"{OPEN_CIRCUIT}|[-+.0-9C].*[A-Za-z0-9]"
    )


_UP_OR_DOWN: dict[str, object] = {"up": True, "down": False}
_GO_ON_OR_STOP: dict[str, object] = {"go on": Then.NEXT, "stop": Then.END_RUN}
_CURRENT_OR_POWER = (*CURRENT_KINDS, *POWER_KINDS)
_COMMON_ENDS = (Kind.DURATION, *CHARGE_KINDS, *CURRENT_KINDS, *ENERGY_KINDS, Kind.TEMPERATURE)

CurrentOrPower: TypeAlias = Annotated[
    Written[Amount],
    amount_of(_CURRENT_OR_POWER),
    written_schema(*examples_of(_CURRENT_OR_POWER)),
]
Resistance: TypeAlias = Annotated[
    Written[Amount], amount_of((Kind.RESISTANCE,)), written_schema("100 ohm", "4.7 kohm")
]
VoltageRate: TypeAlias = Annotated[
    Written[float], positive(Kind.VOLTAGE_RATE), written_schema("0.1 mV/s", "10 mV/s")
]
Frequency: TypeAlias = Annotated[
    Written[float], positive(Kind.FREQUENCY), written_schema("100 kHz", "10 mHz")
]
VoltageStep: TypeAlias = Annotated[
    Written[float], positive(Kind.VOLTAGE, "10 mV"), written_schema("10 mV")
]
Temperature: TypeAlias = Annotated[
    Written[Amount], amount_of((Kind.TEMPERATURE,)), written_schema("25 degC")
]
TemperatureDifference: TypeAlias = Annotated[
    Written[float], positive(Kind.TEMPERATURE_DIFFERENCE), written_schema("0.5 K")
]
PointsPerDecade: TypeAlias = Annotated[
    Written[int],
    PlainValidator(leaf(_read_points, "10 per decade")),
    written_schema("10 per decade", pattern=r"[0-9]+ *(/|per|a) *decade"),
]
Amplitude: TypeAlias = Annotated[
    Written[Amount],
    amount_of((Kind.VOLTAGE, *CURRENT_KINDS), "10 mV"),
    written_schema("10 mV", "50 uA", "0.05C"),
]
StartVoltage: TypeAlias = Annotated[
    Written[Amount | None],
    _at_open_circuit_or((Kind.VOLTAGE,)),
    _or_open_circuit("3.0 V"),
]
Bias: TypeAlias = Annotated[
    Written[Amount | None],
    _at_open_circuit_or((Kind.VOLTAGE, *CURRENT_KINDS)),
    _or_open_circuit("3.4 V", "-0.1C"),
]
PulseLength: TypeAlias = Annotated[
    Written[Amount],
    amount_of((Kind.DURATION, *CHARGE_KINDS)),
    written_schema("10 min", "5 mAh/g"),
]
Share: TypeAlias = Annotated[
    Written[float | None],
    PlainValidator(
        leaf(
            lambda text: None if text == "off" else parse_amount(text, (Kind.FRACTION,)).value,
            "75 %",
        )
    ),
    written_schema("75 %", "off", pattern="off|[.0-9].*%"),
]
UpOrDown: TypeAlias = Annotated[
    Written[bool], _one_of(_UP_OR_DOWN, "way to go"), WithJsonSchema({"enum": [*_UP_OR_DOWN]})
]
Afterwards: TypeAlias = Annotated[
    Written[Then],
    _one_of(_GO_ON_OR_STOP, "way to go on"),
    WithJsonSchema({"enum": [*_GO_ON_OR_STOP]}),
]
SignalName: TypeAlias = Annotated[
    Written[str],
    PlainValidator(leaf(_read_name, "pattern-1")),
    WithJsonSchema(
        {"type": "string", "pattern": f"^({PARAMETER}|{_NAME.pattern})$", "examples": ["pattern-1"]}
    ),
]
Prompt: TypeAlias = Annotated[
    Written[str],
    PlainValidator(leaf(_read_prompt, "Open the gas valve")),
    WithJsonSchema(
        {"type": "string", "maxLength": LONGEST_PROMPT, "examples": ["Open the gas valve"]}
    ),
]
Moment: TypeAlias = Annotated[
    Written[float],
    PlainValidator(leaf(_read_moment, "2026-01-05 09:00 +01:00")),
    written_schema("2026-01-05 09:00 +01:00", pattern=r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:]+.+"),
]

ElectricEnds: TypeAlias = Annotated[
    tuple[
        Annotated[Written[Amount], _end_of((Kind.VOLTAGE, *_COMMON_ENDS), net=True)],
        ...,
    ],
    BeforeValidator(in_a_list),
    _ends_schema("4.1 V", "2 h", "0.3 mAh", "170 mAh/g", "5 mWh", "45 degC", net=True),
]
HoldEnds: TypeAlias = Annotated[
    tuple[
        Annotated[
            Written[Amount],
            _end_of(
                (*CURRENT_KINDS, Kind.DURATION, *CHARGE_KINDS, *ENERGY_KINDS, Kind.TEMPERATURE),
                net=True,
            ),
        ],
        ...,
    ],
    BeforeValidator(in_a_list),
    _ends_schema("0.02C", "2 h", "0.3 mAh", net=True),
]
TitrationEnds: TypeAlias = Annotated[
    tuple[Annotated[Written[Amount], _end_of((Kind.VOLTAGE,), net=True)], ...],
    BeforeValidator(in_a_list),
    _ends_schema("4.1 V", net=True),
]
