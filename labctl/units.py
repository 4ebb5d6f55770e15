"""Quantities as people write them: text with a unit, '0.2C', '25 mA/g', '4.1 V', '1 h 30 min'.

Read into the unit of :data:`labctl.kinds.BASE_UNITS`. A bare number is never a quantity. Conversion
is decimal, by pint, so that '40 uA' is 4e-05 A exactly. What 1C, a gram and a cm2 mean is a cell's;
see :meth:`Amount.amperes` and :meth:`Amount.watts`.
"""

from __future__ import annotations

import decimal
import difflib
import functools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from labctl.kinds import (
    BASE_UNITS,
    CHARGE_KINDS,
    CURRENT_KINDS,
    ENERGY_KINDS,
    EXAMPLES,
    POWER_KINDS,
    UNITS,
    Kind,
)

if TYPE_CHECKING:
    import pint


__all__ = [
    "BASE_UNITS",
    "CHARGE_KINDS",
    "CURRENT_KINDS",
    "ENERGY_KINDS",
    "EXAMPLES",
    "POWER_KINDS",
    "UNITS",
    "Amount",
    "Kind",
    "QuantityError",
    "format_quantity",
    "nearest",
    "parse_amount",
    "parse_amounts",
    "parse_charge",
    "parse_current",
    "parse_quantity",
    "parse_range",
    "split_range",
]

_OTHER_SPELLINGS = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "mins": "min", "minute": "min", "minutes": "min",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "day": "d", "days": "d", "weeks": "week",
    "volt": "V", "volts": "V", "percent": "%", "celsius": "degC", "mAhr": "mAh",
    "ohms": "ohm", "hertz": "Hz", "kelvin": "K", "watt": "W", "watts": "W",
}  # fmt: skip
_CHARACTERS = str.maketrans(
    {
        "µ": "u", "μ": "u", "−": "-", "²": "2", "\u00a0": " ", "\u202f": " ",
        "\u03a9": "ohm", "\u2126": "ohm",
    }
)  # fmt: skip
_CONFUSED = {
    (Kind.DURATION, "m"): "min",
    (Kind.TEMPERATURE, "C"): "degC",
    (Kind.TEMPERATURE_DIFFERENCE, "degC"): "K",
    (Kind.TEMPERATURE_DIFFERENCE, "C"): "K",
    (Kind.RESISTANCE, "R"): "ohm",
    (Kind.RESISTANCE, "k"): "kohm",
}

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*(.*)", re.DOTALL | re.ASCII)
_COMMA = re.compile(r"([+-]?\d+),(\d+)\s*(.*)", re.ASCII)
_DURATION_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)(?:\s+|$)", re.ASCII)
_CLOCK_TIME = re.compile(r"(\d{1,4}):([0-5]?\d)(?::([0-5]?\d))?", re.ASCII)
_RECIPROCAL_C = re.compile(r"C\s*/\s*(\d+(?:\.\d+)?)", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?\.?(inf|infinity|nan)\b", re.IGNORECASE)
_LONGEST = 80


class QuantityError(ValueError):
    """A text that is not the quantity that is needed.

    ``suggestion`` says what to write instead, '' where nothing better is known.
    """

    def __init__(self, message: str, suggestion: str = "") -> None:
        self.suggestion = suggestion
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Amount:
    """A number in the base unit of its kind (:data:`BASE_UNITS`)."""

    value: float
    kind: Kind

    def amperes(
        self, *, one_C_A: float, active_mass_g: float, area_cm2: float | None = None
    ) -> float:
        """A current of any kind in A; a charge of any kind in Ah.

        Args:
            one_C_A: the current that 1C means for the cell.
            active_mass_g: of the cell.
            area_cm2: of the cell's electrode, None if nobody measured it.

        Raises:
            QuantityError: it is per cm2 and the area is not known, or it is neither a current nor
                a charge.
        """
        if self.kind is Kind.C_RATE:
            amount = self.value * one_C_A
        elif self.kind in {Kind.CURRENT, Kind.CHARGE}:
            amount = self.value
        elif self.kind in {Kind.CURRENT_PER_MASS, Kind.CHARGE_PER_MASS}:
            amount = self.value * 1e-3 * active_mass_g
        elif self.kind in {Kind.CURRENT_PER_AREA, Kind.CHARGE_PER_AREA}:
            if area_cm2 is None:
                raise QuantityError(
                    f"a {self.kind} needs the area of the cell, which is not known",
                    "register the cell's area, or write a C-rate or mA/g",
                )
            amount = self.value * 1e-3 * area_cm2
        else:
            raise QuantityError(f"a {self.kind} is neither a current nor a charge")
        return float(f"{amount:.12g}")

    def watts(self, *, active_mass_g: float) -> float:
        """A power of any kind in W; an energy of any kind in Wh.

        Raises:
            QuantityError: it is neither.
        """
        if self.kind in {Kind.POWER, Kind.ENERGY}:
            amount = self.value
        elif self.kind in {Kind.POWER_PER_MASS, Kind.ENERGY_PER_MASS}:
            amount = self.value * 1e-3 * active_mass_g
        else:
            raise QuantityError(f"a {self.kind} is neither a power nor an energy")
        return float(f"{amount:.12g}")


def parse_amount(text: str, kinds: Iterable[Kind]) -> Amount:
    """Read a quantity that may be of any of ``kinds``; the unit says which.

    Raises:
        QuantityError: no number, no unit, a unit not known or of another kind, or not finite.
    """
    wanted = tuple(kinds)
    cleaned = " ".join(text.translate(_CHARACTERS).replace("°C", "degC").split())
    if len(cleaned) > _LONGEST:
        raise QuantityError(f"'{cleaned[:20]}…' is too long to be {_a(wanted)}", _example(wanted))
    if _NOT_FINITE.match(cleaned):
        raise QuantityError(f"'{text}' is not a finite number", _example(wanted))
    if Kind.C_RATE in wanted and (parts := _RECIPROCAL_C.fullmatch(cleaned)):
        divisor = float(parts[1])
        if divisor == 0:
            raise QuantityError(f"'{text}' divides by zero", _example(wanted))
        return Amount(_finite(Decimal(1) / Decimal(parts[1]), text), Kind.C_RATE)
    if Kind.DURATION in wanted and (seconds := _several_durations(cleaned)) is not None:
        return Amount(_finite(seconds, text), Kind.DURATION)
    match = _QUANTITY.fullmatch(cleaned)
    if match is None:
        raise QuantityError(f"'{text}' is not {_a(wanted)}", _example(wanted))
    number, written_unit = match.groups()
    if not written_unit:
        raise QuantityError(f"'{text}' has no unit", _with_units(number, wanted))
    if (clock := _CLOCK_TIME.fullmatch(cleaned)) is not None:
        raise QuantityError(f"'{text}' is not {_a(wanted)}", _from_clock(clock, wanted))
    if (comma := _COMMA.fullmatch(cleaned)) is not None:
        better = _write(f"{comma[1]}.{comma[2]}", comma[3]).strip()
        raise QuantityError(f"'{text}' has a comma", f"write a point: '{better}'")
    unit = _normal(written_unit)
    kind = _kind_of_unit(unit, wanted)
    if kind is None or kind not in wanted:
        raise _wrong_unit(text, number, unit, kind, wanted)
    return Amount(_finite(_to_base(Decimal(number), unit, kind), text), kind)


def parse_quantity(text: str, kind: Kind) -> float:
    """Read a quantity of one kind, in :data:`BASE_UNITS` of it: '5 mV' is 0.005, '80 %' is 0.8.

    Raises:
        QuantityError: as :func:`parse_amount`.
    """
    return parse_amount(text, (kind,)).value


def parse_current(text: str) -> Amount:
    """Read '0.2C', 'C/5', '25 mA/g', '0.5 mA/cm2' or '40 uA'. Raises as :func:`parse_amount`."""
    return parse_amount(text, CURRENT_KINDS)


def parse_charge(text: str) -> Amount:
    """Read '0.3 mAh', '170 mAh/g' or '1 mAh/cm2'. Raises as :func:`parse_amount`."""
    return parse_amount(text, CHARGE_KINDS)


def split_range(text: str) -> tuple[str, str]:
    """The two ends of '1.0 V .. 4.4 V', as written.

    Raises:
        QuantityError: there are not two ends with '..' between them.
    """
    parts = [part.strip() for part in re.split(r"\.{2,}|…", text)]
    if len(parts) == 2 and all(parts):
        return parts[0], parts[1]
    halves = re.fullmatch(rf"({_NUMBER}[^\d]*?)\s*(?:-|–|—|to)\s*(\d.*)", text.strip())
    if halves is not None:
        unit = re.sub(rf"^{_NUMBER}\s*", "", halves[2])
        lower = halves[1] if re.search(r"[A-Za-z%]$", halves[1]) else f"{halves[1]} {unit}".strip()
        raise QuantityError(f"'{text}' is not a range", f"write '{lower} .. {halves[2]}'")
    raise QuantityError(f"'{text}' is not a range", "write both ends, such as '1.0 V .. 4.4 V'")


def parse_amounts(text: str, kinds: Iterable[Kind]) -> tuple[Amount, Amount]:
    """Read both ends of '1.0 V .. 4.4 V', lower end first.

    Raises:
        QuantityError: not a range, an end that is of none of ``kinds``, or ends in the wrong order.
    """
    wanted = tuple(kinds)
    ends = split_range(text)
    try:
        lower, upper = (parse_amount(end, wanted) for end in ends)
    except QuantityError as error:
        unit = re.sub(rf"^{_NUMBER}\s*", "", ends[1])
        if re.fullmatch(_NUMBER, ends[0]) and _kind_of_unit(_normal(unit), wanted) in wanted:
            better = f"write '{_write(ends[0], unit)} .. {ends[1]}'"
            raise QuantityError(f"'{ends[0]}' has no unit", better) from None
        raise error from None
    if lower.kind is upper.kind and not lower.value < upper.value:
        raise QuantityError(
            f"the range '{text}' is empty: its lower end must come first",
            f"write '{ends[1]} .. {ends[0]}'" if upper.value < lower.value else "",
        )
    return lower, upper


def parse_range(text: str, kind: Kind) -> tuple[float, float]:
    """Read both ends of a range of one kind, in :data:`BASE_UNITS`.

    Raises:
        QuantityError: as :func:`parse_amounts`.
    """
    lower, upper = parse_amounts(text, (kind,))
    return lower.value, upper.value


def format_quantity(value: float, kind: Kind, *, digits: int = 6) -> str:
    """As a person writes it, in the unit in which it is neither tiny nor huge; it reads back.

    ``digits`` is the number of significant digits; 17 loses nothing.
    """
    if not math.isfinite(value):
        return "no limit"
    unit = _readable_unit(value, kind)
    number = Decimal(repr(value)) / _factor(unit, kind)
    rounded = float(decimal.Context(prec=digits).create_decimal(number))
    return _write(repr(rounded).removesuffix(".0"), unit)


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of ``known`` that was probably meant by ``word``, '' if none is near."""
    candidates = list(known)
    for candidate in candidates:
        if candidate.lower() == word.lower():
            return candidate
    by_lower = {candidate.lower(): candidate for candidate in reversed(candidates)}
    close = difflib.get_close_matches(word.lower()[:_LONGEST], by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else ""


_READABLE: dict[Kind, tuple[tuple[float, str], ...]] = {
    Kind.VOLTAGE: ((0.1, "V"), (0.0, "mV")),
    Kind.CURRENT: ((1.0, "A"), (1e-3, "mA"), (1e-6, "uA"), (0.0, "nA")),
    Kind.CHARGE: ((1.0, "Ah"), (1e-4, "mAh"), (0.0, "uAh")),
    Kind.ENERGY: ((1.0, "Wh"), (1e-4, "mWh"), (0.0, "uWh")),
    Kind.POWER: ((1.0, "W"), (1e-3, "mW"), (0.0, "uW")),
    Kind.RESISTANCE: ((1e3, "kohm"), (0.1, "ohm"), (0.0, "mohm")),
    Kind.VOLTAGE_RATE: ((0.1, "V/s"), (1e-5, "mV/s"), (0.0, "mV/h")),
    Kind.TEMPERATURE_RATE: ((1.0, "K/s"), (1 / 60, "K/min"), (0.0, "K/h")),
    Kind.FREQUENCY: ((1e3, "kHz"), (1.0, "Hz"), (0.0, "mHz")),
    Kind.DURATION: ((2 * 86400.0, "d"), (3600.0, "h"), (120.0, "min"), (0.0, "s")),
    Kind.MASS: ((1.0, "g"), (0.0, "mg")),
    Kind.FRACTION: ((0.0, "%"),),
}


def _readable_unit(value: float, kind: Kind) -> str:
    if value == 0:
        return BASE_UNITS[kind] if kind is not Kind.FRACTION else "%"
    for smallest, unit in _READABLE.get(kind, ()):
        if abs(value) >= smallest * (1 - 1e-9):
            return unit
    return BASE_UNITS[kind]


def _normal(unit: str) -> str:
    unit = re.sub(r"\s*/\s*", "/", unit)
    unit = unit.replace("**2", "2").replace("^2", "2").replace("°C", "degC")
    return _OTHER_SPELLINGS.get(unit, _OTHER_SPELLINGS.get(unit.lower(), unit))


@functools.cache
def _kinds_of_units() -> dict[str, tuple[Kind, ...]]:
    units = {unit for units in UNITS.values() for unit in units}
    return {unit: tuple(kind for kind in Kind if unit in UNITS[kind]) for unit in units}


def _kind_of_unit(unit: str, wanted: tuple[Kind, ...] = ()) -> Kind | None:
    """The kind of a unit, one of ``wanted`` if it can be; None if it is not known."""
    kinds = _kinds_of_units().get(unit, ())
    return next((kind for kind in kinds if kind in wanted), next(iter(kinds), None))


@functools.cache
def _registry() -> pint.UnitRegistry[Any]:
    import pint

    numbers: Any = Decimal
    registry: pint.UnitRegistry[Any] = pint.UnitRegistry(non_int_type=numbers)
    registry.define("one_C = [c_rate]")
    return registry


def _in_pint(unit: str) -> str:
    """The unit as pint spells it: 'mAh/g' is 'mA*h/g', 'cm2' is 'cm**2'."""
    names = {"C": "one_C", "%": "percent", "1": "dimensionless"}
    return names.get(unit) or re.sub(r"(?<=[AW])h", "*h", re.sub(r"(?<=m)2", "**2", unit))


@functools.cache
def _factor(unit: str, kind: Kind) -> Decimal:
    """One ``unit`` in the base unit of its kind; not for units with an offset."""
    one = _registry().Quantity(Decimal(1), _in_pint(unit))
    factor = one.to(_in_pint(BASE_UNITS[kind])).magnitude
    return Decimal(factor).normalize()


def _to_base(number: Decimal, unit: str, kind: Kind) -> Decimal:
    if kind is Kind.TEMPERATURE:
        return Decimal(_registry().Quantity(number, unit).to("degC").magnitude)
    return number * _factor(unit, kind)


def _finite(number: Decimal, text: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise QuantityError(f"'{text}' is not a finite number")
    return value


def _several_durations(text: str) -> Decimal | None:
    """Seconds in '1 h 30 min', None if the text is not several durations, longest first."""
    total, last, at, count = Decimal(0), math.inf, 0, 0
    while at < len(text):
        part = _DURATION_PARTS.match(text, at)
        if part is None:
            return None
        unit = _normal(part[2])
        if _kind_of_unit(unit) is not Kind.DURATION or _factor(unit, Kind.DURATION) >= last:
            return None
        factor = _factor(unit, Kind.DURATION)
        total += Decimal(part[1]) * factor
        last, at, count = float(factor), part.end(), count + 1
    return total if count > 1 else None


def _wrong_unit(
    text: str, number: str, unit: str, kind: Kind | None, wanted: tuple[Kind, ...]
) -> QuantityError:
    units = [known for one in wanted for known in UNITS[one]]
    confused = next((_CONFUSED[one, unit] for one in wanted if (one, unit) in _CONFUSED), "")
    better = confused or nearest(unit, units)
    suggestion = f"did you mean '{_write(number, better)}'?" if better else _example(wanted)
    if kind is not None:
        return QuantityError(f"'{text}' is {_a((kind,))}; {_a(wanted)} is needed here", suggestion)
    return QuantityError(f"'{text}' has a unit that is not known: '{unit}'", suggestion)


def _write(number: str, unit: str) -> str:
    return f"{number}{unit}" if unit == "C" else f"{number} {unit}"


def _with_units(number: str, wanted: tuple[Kind, ...]) -> str:
    if wanted == (Kind.FRACTION,):
        return f"write '{_percent(number)}'"
    if wanted == (Kind.DURATION,):
        choices = [_write(number, unit) for unit in ("s", "min", "h")]
    else:
        choices = [_write(number, UNITS[kind][0]) for kind in wanted[:3]]
    return "write " + " or ".join(f"'{choice}'" for choice in choices)


def _percent(number: str) -> str:
    value = Decimal(number)
    return f"{(value * 100 if abs(value) <= 1 else value).normalize():f} %"


def _from_clock(clock: re.Match[str], wanted: tuple[Kind, ...]) -> str:
    if Kind.DURATION not in wanted:
        return _example(wanted)
    parts = zip((clock[1], clock[2], clock[3]), ("h", "min", "s"), strict=True)
    return "write '" + " ".join(f"{int(n)} {unit}" for n, unit in parts if n and int(n)) + "'"


def _example(wanted: tuple[Kind, ...]) -> str:
    return f"write for example '{EXAMPLES[wanted[0]]}'"


_GROUPS = (
    ("a current", CURRENT_KINDS),
    ("a charge", CHARGE_KINDS),
    ("an energy", ENERGY_KINDS),
    ("a power", POWER_KINDS),
    ("a current or a power", (*CURRENT_KINDS, *POWER_KINDS)),
    ("a voltage or a current", (Kind.VOLTAGE, *CURRENT_KINDS)),
)


def _a(kinds: tuple[Kind, ...]) -> str:
    for said, group in _GROUPS:
        if set(kinds) == set(group):
            return said
    names = [str(kind) for kind in kinds]
    if len(names) > 3:
        names = [name for name in names if " per " not in name]
    article = "an" if names[0][0] in "aeiou" else "a"
    return (
        f"{article} {', '.join(names[:-1])} or {names[-1]}"
        if names[1:]
        else f"{article} {names[0]}"
    )
