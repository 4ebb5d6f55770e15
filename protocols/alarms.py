"""The alarms that a recipe asks for, and those that every run has unless its recipe says otherwise.

A rule that could never be raised in a recipe of so few cycles is a mistake where it was written,
and left out where it was not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from labctl.program import (
    INFINITY,
    AlarmRule,
    DropAlarm,
    EfficiencyAlarm,
    FadeAlarm,
    KneeAlarm,
    RetentionAlarm,
    TemperatureAlarm,
)
from labctl.protocols.source import Problems, Text
from labctl.protocols.written import (
    Count,
    Cycles,
    Duration,
    Fields,
    Percentage,
    Written,
    amount_of,
    mistake,
    note,
    positive,
    short_for,
    written_schema,
)
from labctl.units import Amount, Kind

CLEARS_ABOVE = 0.01
KNEE_OVER = 3
"""A knee is looked for in so many times the cycles that confirm it."""

_RETENTION = RetentionAlarm()
_DROP = DropAlarm()
_EFFICIENCY = EfficiencyAlarm()
_FADE = FadeAlarm()
_KNEE = KneeAlarm()
_TEMPERATURE = TemperatureAlarm()


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


class DropFields(Fields):
    """Raised when the discharge capacity is lost from one cycle to the next."""

    more_than: Percentage = Field(
        description="The part of the median of the 5 cycles before that has to be lost."
    )
    confirmed_by: Count | None = Field(
        default=None,
        description="How many more cycles must be as low. If not written: 2 cycles.",
    )
    steady: Count | None = Field(
        default=None,
        description="It is over after so many steady cycles. If not written: 10 cycles.",
    )


class EfficiencyFields(Fields):
    """Raised when 3 of 5 cycles have a wrong coulombic efficiency."""

    below: Percentage | None = Field(
        default=None, description="The efficiency below which a cycle is wrong."
    )
    above: Percentage | None = Field(
        default=None,
        description="The efficiency above which a cycle is wrong. If not written: 100.5 %.",
    )


class FadeFields(Fields):
    """Raised when the discharge capacity fades much faster than it did at first."""

    at_least: Percentage | None = Field(
        default=None,
        description="The part of the reference lost in a cycle that is too little to be told of. "
        "If not written: 0.02 %.",
    )
    times: Count | None = Field(
        default=None, description="How many times as fast as at first. If not written: 3 times."
    )


class KneeFields(Fields):
    """Raised, as an advice, when the discharge capacity begins to fall faster."""

    confirmed_by: Count = Field(
        description="For how many cycles it must have. Three times as many are looked at."
    )


_Warm: TypeAlias = Annotated[
    Written[Amount], amount_of((Kind.TEMPERATURE,), "45 degC"), written_schema("45 degC")
]
_Cold: TypeAlias = Annotated[
    Written[Amount], amount_of((Kind.TEMPERATURE,), "5 degC"), written_schema("5 degC")
]
_Rate: TypeAlias = Annotated[
    Written[float], positive(Kind.TEMPERATURE_RATE, "2 K/min"), written_schema("2 K/min")
]


class TemperatureFields(Fields):
    """Raised when the cell is too warm or too cold, or its temperature changes too fast."""

    above: _Warm | None = Field(
        default=None, description="The temperature above which it is raised."
    )
    below: _Cold | None = Field(
        default=None, description="The temperature below which it is raised."
    )
    rate: _Rate | None = Field(
        default=None, description="How fast the temperature may change, up or down."
    )
    for_: Duration | None = Field(
        default=None, alias="for", description="For how long. If not written: 60 s."
    )

    @model_validator(mode="after")
    def _says_which(self) -> TemperatureFields:
        if self.above is None and self.below is None and self.rate is None:
            raise mistake("nothing says at which temperature", "write for example 'above: 45 degC'")
        return self


def _off_is_none(raw: object, handler: ValidatorFunctionWrapHandler) -> object:
    return None if isinstance(raw, Text) and raw.value == "off" else handler(raw)


_OR_OFF = WrapValidator(_off_is_none)


def _schema(name: str, *examples: str, many: bool = False) -> WithJsonSchema:
    choices: list[dict[str, Any]] = [
        {"type": "string", "examples": [*examples, "off"]},
        {"x-ref": name},
    ]
    if many:
        choices.append({"type": "array", "items": {"x-ref": name}, "minItems": 1})
    return WithJsonSchema({"anyOf": choices})


_Retention: TypeAlias = Annotated[
    tuple[Annotated[RetentionFields, short_for("below")], ...],
    BeforeValidator(lambda raw: raw if isinstance(raw, list) else [raw]),
]


class AlarmsFields(Fields):
    """What raises an alarm while the recipe runs. What is not written is as in every run."""

    retention: Annotated[_Retention | None, _OR_OFF, _schema("retention", "80 %", many=True)] = (
        Field(default=None, description="Discharge capacity against a reference, or 'off'.")
    )
    drop: Annotated[
        Annotated[DropFields, short_for("more_than")] | None, _OR_OFF, _schema("drop", "5 %")
    ] = Field(default=None, description="A sudden loss of discharge capacity, or 'off'.")
    efficiency: Annotated[
        Annotated[EfficiencyFields, short_for("below")] | None,
        _OR_OFF,
        _schema("efficiency", "99.5 %"),
    ] = Field(default=None, description="Coulombic efficiency, or 'off'.")
    fade: Annotated[
        Annotated[FadeFields, short_for("at_least")] | None, _OR_OFF, _schema("fade", "0.02 %")
    ] = Field(default=None, description="A fade that has become faster, or 'off'.")
    knee: Annotated[
        Annotated[KneeFields, short_for("confirmed_by")] | None,
        _OR_OFF,
        _schema("knee", "20 cycles"),
    ] = Field(default=None, description="The beginning of a faster fade, or 'off'.")
    temperature: TemperatureFields | None = Field(
        default=None, description="The cell's temperature, reading by reading."
    )

    def by_default(self, name: str) -> bool:
        """Whether nothing is written of an alarm, not even 'off'."""
        return name not in self.model_fields_set


DEFINITIONS: dict[str, type[Fields]] = {
    "retention": RetentionFields,
    "drop": DropFields,
    "efficiency": EfficiencyFields,
    "fade": FadeFields,
    "knee": KneeFields,
}
"""Groups that the schema names, because a value can stand for them."""


def retention_alarm(fields: RetentionFields) -> RetentionAlarm:
    """The alarm with its defaults put in."""
    below = fields.below.value
    first, last = (_RETENTION.reference_first, _RETENTION.reference_last)
    if fields.reference is not None:
        first, last = fields.reference.value
    return RetentionAlarm(
        below=below,
        clears_at=fields.clears.value if fields.clears else round(below + CLEARS_ABOVE, 12),
        reference_first=first,
        reference_last=last,
        over_cycles=fields.over.value if fields.over else _RETENTION.over_cycles,
    )


def written_alarms(fields: AlarmsFields) -> tuple[AlarmRule, ...]:
    """The alarms that are written, in the order of their table, with their defaults put in."""
    alarms: list[AlarmRule] = [retention_alarm(one) for one in fields.retention or ()]
    if (drop := fields.drop) is not None:
        alarms.append(
            DropAlarm(
                more_than=drop.more_than.value,
                confirmed_by=_or(drop.confirmed_by, _DROP.confirmed_by),
                steady_cycles=_or(drop.steady, _DROP.steady_cycles),
            )
        )
    if (efficiency := fields.efficiency) is not None:
        alarms.append(
            EfficiencyAlarm(
                below=_or(efficiency.below, _EFFICIENCY.below),
                above=_or(efficiency.above, _EFFICIENCY.above),
                by_default=efficiency.below is None and efficiency.above is None,
            )
        )
    if (fade := fields.fade) is not None:
        alarms.append(_fade(fields, _or(fade.times, _FADE.times), fade.at_least))
    if (knee := fields.knee) is not None:
        cycles = knee.confirmed_by.value
        alarms.append(KneeAlarm(over_cycles=KNEE_OVER * cycles, confirmed_by=cycles))
    if (temperature := fields.temperature) is not None:
        alarms.append(
            TemperatureAlarm(
                above_degC=temperature.above.value.value if temperature.above else INFINITY,
                below_degC=temperature.below.value.value if temperature.below else -INFINITY,
                rate_K_per_s=_or(temperature.rate, INFINITY),
                for_s=_or(temperature.for_, _TEMPERATURE.for_s),
            )
        )
    return tuple(alarms)


def default_alarms(fields: AlarmsFields, cycles: int) -> tuple[AlarmRule, ...]:
    """The alarms of every run that a recipe of so many cycles says nothing of."""
    alarms: dict[str, AlarmRule] = {
        "retention": RetentionAlarm(by_default=True),
        "drop": _DROP,
        "efficiency": EfficiencyAlarm(by_default=True),
        "fade": _fade(fields, _FADE.times, None),
        "knee": _KNEE,
    }
    return tuple(
        alarm
        for name, alarm in alarms.items()
        if fields.by_default(name) and fewest_cycles(alarm) <= cycles
    )


def all_alarms(fields: AlarmsFields, cycles: int) -> tuple[AlarmRule, ...]:
    """What a run of a recipe of so many cycles is watched for: what is written comes first."""
    return (*written_alarms(fields), *default_alarms(fields, cycles))


def fewest_cycles(alarm: AlarmRule) -> int:
    """How many cycles there must be for the alarm to be raised at all."""
    match alarm:
        case RetentionAlarm():
            return max(alarm.reference_last, alarm.over_cycles)
        case DropAlarm():
            return alarm.against_cycles + 1 + alarm.confirmed_by
        case EfficiencyAlarm():
            return alarm.first_cycles + alarm.enough_cycles
        case FadeAlarm():
            return alarm.reference_last + alarm.over_cycles + alarm.every_cycles
        case KneeAlarm():
            return alarm.over_cycles
        case TemperatureAlarm():
            return 0


def _fade(fields: AlarmsFields, times: float, at_least: Written[float] | None) -> FadeAlarm:
    """Its reference, and the limit that it forecasts, are those of retention."""
    retention = retention_alarm(fields.retention[0]) if fields.retention else _RETENTION
    return FadeAlarm(
        times=float(times),
        at_least=_or(at_least, _FADE.at_least),
        reference_first=retention.reference_first,
        reference_last=retention.reference_last,
        limit=retention.below,
    )


def _or(written: Written[Any] | None, usual: Any) -> Any:  # noqa: ANN401
    return usual if written is None else written.value


def check_alarms(fields: AlarmsFields, cycles: int, problems: Problems) -> None:
    """Note alarms that could never be raised in a recipe of so many cycles."""
    has = f"the recipe has {cycles} cycle{'s' if cycles != 1 else ''}"
    for one in fields.retention or ():
        _check_retention(one, cycles, has, problems)
    for text, alarm in _on_several_cycles(fields):
        needed = fewest_cycles(alarm)
        if text is not None and needed > cycles:
            note(
                problems, text, f"it takes {needed} cycles before this can be raised, but {has}",
                "leave it out",
            )  # fmt: skip
    if (drop := fields.drop) is not None and drop.more_than.value >= 1:
        note(problems, drop.more_than.text, f"{drop.more_than} is not less than all there is")
    if (efficiency := fields.efficiency) is not None:
        below = _or(efficiency.below, _EFFICIENCY.below)
        above = _or(efficiency.above, _EFFICIENCY.above)
        text = _first(efficiency.below, efficiency.above)
        if below >= above and text is not None:
            note(
                problems, text,
                f"efficiencies below {_percent(below)} and above {_percent(above)} are wrong, so "
                "that none is right",
                "write for example 'efficiency: {below: 99 %, above: 100.5 %}'",
            )  # fmt: skip
    if (temperature := fields.temperature) is not None:
        _check_temperature(temperature, problems)


def _percent(value: float) -> str:
    return f"{100 * value:.6g} %"


def _on_several_cycles(fields: AlarmsFields) -> Iterator[tuple[Text | None, AlarmRule]]:
    """What is written of the other rules on cycles, each with its place."""
    places = {
        DropAlarm: _first(fields.drop.more_than) if fields.drop else None,
        EfficiencyAlarm: _first(fields.efficiency.below, fields.efficiency.above)
        if fields.efficiency
        else None,
        FadeAlarm: _first(fields.fade.at_least, fields.fade.times) if fields.fade else None,
        KneeAlarm: _first(fields.knee.confirmed_by) if fields.knee else None,
    }
    for alarm in written_alarms(fields):
        yield places.get(type(alarm)), alarm


def _first(*written: Written[Any] | None) -> Text | None:
    return next((one.text for one in written if one is not None), None)


def _check_retention(one: RetentionFields, cycles: int, has: str, problems: Problems) -> None:
    alarm = retention_alarm(one)
    if alarm.below >= 1:
        note(problems, one.below.text, f"{one.below} is not less than 100 % of the reference")
    if one.clears is not None and alarm.clears_at < alarm.below:
        note(problems, one.clears.text, f"{one.clears} is below the {one.below} that raises it")
    if alarm.reference_last > cycles:
        note(
            problems,
            _at(one.reference.text if one.reference else None, one),
            f"the reference is cycles {alarm.reference_first} .. {alarm.reference_last}, but {has}",
            "write for example 'reference: cycle 1'",
        )
    elif alarm.over_cycles > cycles:
        note(
            problems,
            _at(one.over.text if one.over else None, one),
            f"the median is taken over {alarm.over_cycles} cycles, but {has}",
            "write for example 'over: 1 cycle'",
        )


def _check_temperature(fields: TemperatureFields, problems: Problems) -> None:
    above, below = fields.above, fields.below
    if above is not None and below is not None and below.value.value >= above.value.value:
        note(
            problems, below.text, f"{below} is not below the {above} above which it is raised too",
            f"write '{{above: {below}, below: {above}}}'" if below.value.value > above.value.value
            else "",
        )  # fmt: skip


def _at(text: Text | None, fields: RetentionFields) -> Text:
    return text if text is not None else fields.below.text
