"""Numbers, variables and data packages, as the instrument has them.

Floats are calculated in single precision; that the real ones do is assumed.

Source: MethodSCRIPT manual v1.8, chapters 4 and 5.
"""

from __future__ import annotations

import array
import math
import re
from dataclasses import dataclass
from typing import Final

from labctl.simulators.palmsens.errors import Code, RunError

OFFSET: Final = 1 << 27
INTEGER_MIN: Final = -(2**31)
INTEGER_MAX: Final = 2**31 - 1

STATUS_TIMING: Final = 1
STATUS_OVERLOAD: Final = 2
STATUS_UNDERLOAD: Final = 4

PREFIXES: Final = {
    "a": -18,
    "f": -15,
    "p": -12,
    "n": -9,
    "u": -6,
    "m": -3,
    "": 0,
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
    "P": 15,
    "E": 18,
}
_LITERAL = re.compile(
    r"(?P<sign>[+-]?)(?:0x(?P<hex>[0-9A-Fa-f]+)|0b(?P<bin>[01]+)|(?P<dec>[0-9]+))"
    r"(?P<prefix>[afpnumkMGTPEi]?)"
)
_SINGLE = array.array("f", [0.0])
_LARGEST_SINGLE: Final = 3.4028234e38


@dataclass(slots=True)
class Value:
    """A variable's value: ``int`` or ``float`` by its Python type; 0 until something is stored."""

    number: float | int = 0.0
    kind: str = "aa"
    status: int = 0
    range_index: int = -1
    full_scale: float = 0.0

    @property
    def is_integer(self) -> bool:
        return isinstance(self.number, int)

    def take(self, number: float) -> None:
        """Become a calculated number: what was said of the measurement is no longer true."""
        self.number = number
        self.forget_measurement()

    def forget_measurement(self) -> None:
        if self.range_index != -1 or self.full_scale:
            self.status, self.range_index, self.full_scale = 0, -1, 0.0


def single(number: float) -> float:
    """Rounded to single precision.

    Raises:
        RunError: it is too large, or no number.
    """
    if math.isnan(number):
        raise RunError(Code.NOT_A_NUMBER)
    if not -_LARGEST_SINGLE <= number <= _LARGEST_SINGLE:
        raise RunError(Code.OVERFLOW)
    _SINGLE[0] = number
    return _SINGLE[0]


def integer(number: int) -> int:
    """An integer that fits.

    Raises:
        RunError: it does not.
    """
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise RunError(Code.OVERFLOW)
    return number


def parse_literal(text: str) -> float | int | None:
    """A number of a script; None if it is none."""
    match = _LITERAL.fullmatch(text)
    if match is None:
        return None
    if match["hex"] is not None:
        whole = int(match["hex"], 16)
    elif match["bin"] is not None:
        whole = int(match["bin"], 2)
    else:
        whole = int(match["dec"])
    if match["sign"] == "-":
        whole = -whole
    if match["prefix"] == "i":
        return whole if INTEGER_MIN <= whole <= INTEGER_MAX else None
    exponent = PREFIXES[match["prefix"]]
    scaled = whole * 10.0**exponent if exponent >= 0 else whole / 10.0**-exponent
    return None if abs(scaled) > 3.4e38 else scaled


def encoded(value: Value) -> str:
    """A variable as it stands in a data package.

    The prefix is the finest one in which the range's full scale, or else the value, still fits.
    """
    number = value.number
    meta = ""
    if value.range_index >= 0:
        meta = f",1{value.status:X},2{value.range_index:02X}"
    elif value.status:
        meta = f",1{value.status:X}"
    if isinstance(number, int):
        held = max(-OFFSET, min(OFFSET - 1, number))
        return f"{value.kind}{held + OFFSET:07X}i{meta}"
    if math.isnan(number):
        return f"{value.kind}     nan{meta}"
    largest = max(abs(number), value.full_scale)
    for prefix, exponent in PREFIXES.items():
        if largest / 10.0**exponent < OFFSET - 1:
            scaled = round(number / 10.0**exponent if exponent >= 0 else number * 10.0**-exponent)
            return f"{value.kind}{scaled + OFFSET:07X}{prefix or ' '}{meta}"
    raise RunError(Code.OVERFLOW)
