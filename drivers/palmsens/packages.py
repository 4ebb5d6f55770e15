"""What a MethodSCRIPT instrument writes: data packages, and numbers as scripts write them. No I/O.

A package is ``P`` and variables joined by ``;``. A variable is a type of two letters, seven
hexadecimal digits of the value plus 2^27, an SI prefix (``i`` for an integer), and metadata, each
after a ``,``: ``1`` and a digit of status flags, ``2`` and two digits that name a range. What is
not a number is five spaces and ``nan`` in place of digits and prefix.

Source: MethodSCRIPT manual v1.8, chapters 4 (numbers), 5 (packages) and appendix C (types).
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass
from typing import Final

OFFSET: Final = 1 << 27

EXPONENTS: Final = {
    "a": -18,
    "f": -15,
    "p": -12,
    "n": -9,
    "u": -6,
    "m": -3,
    " ": 0,
    "i": 0,
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
    "P": 15,
    "E": 18,
}
"""Power of ten of each prefix; ``i`` marks an integer."""

_LITERAL_PREFIXES: Final = ("k", "", "m", "u", "n", "p", "f", "a")
_EXACT: Final = 1e-9
_LARGEST: Final = 2**31

_META_LENGTH: Final = {"1": 2, "2": 3}
"""Characters of an item of metadata whose kind is known, its kind among them."""

_VARIABLE = re.compile(
    r"(?P<kind>[a-z]{2})(?:(?P<digits>[0-9A-F]{7})(?P<prefix>[afpnum ikMGTPE])|     nan)"
    r"(?P<meta>(?:,[0-9A-F]+)*)"
)


class Kind:
    """Types of variables that this driver reads."""

    POTENTIAL: Final = "ab"
    CURRENT: Final = "ba"
    Z_REAL: Final = "cc"
    Z_IMAGINARY: Final = "cd"
    SET_POTENTIAL: Final = "da"
    SET_CURRENT: Final = "db"
    FREQUENCY: Final = "dc"
    TIME: Final = "eb"
    COUNT: Final = "ee"
    CHARGE: Final = "ja"
    ENERGY: Final = "jb"
    WHY: Final = "jc"
    MARK: Final = "jd"
    VOLTAGE_HIGH: Final = "ia"
    VOLTAGE_LOW: Final = "ib"
    CURRENT_HIGH: Final = "ha"
    CURRENT_LOW: Final = "hb"
    CHARGE_LIMIT: Final = "hc"


class Status(enum.IntFlag):
    """What an instrument says of a measured value."""

    FINE = 0
    TIMING_ERROR = 1
    OVERLOAD = 2
    UNDERLOAD = 4
    OVERLOAD_WARNING = 8


class PackageError(ValueError):
    """A line that is not a data package."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One value of a package, in SI units; NaN where the instrument had none."""

    kind: str
    value: float
    status: Status = Status.FINE
    range_index: int | None = None

    @property
    def overloaded(self) -> bool:
        """The value is not what was there: it was beyond what the range can measure."""
        return bool(self.status & Status.OVERLOAD)


Package = dict[str, Variable]
"""The variables of a package by their types."""


def parse_package(line: str) -> Package:
    """The variables of a ``P…`` line.

    Raises:
        PackageError: it is not one, or it holds two variables of one type.
    """
    if not line.startswith("P"):
        raise PackageError(f"{line[:80]!r} is not a data package")
    package: Package = {}
    for part in line[1:].split(";"):
        variable = _variable(part, line)
        if variable.kind in package:
            raise PackageError(f"{line[:80]!r} has two variables of the type {variable.kind}")
        package[variable.kind] = variable
    return package


def literal(value: float) -> str:
    """``value`` as a script writes it: an integer and a prefix, to better than 1 part in 10^6.

    Raises:
        ValueError: it is not finite, or too large.
    """
    if not abs(value) < _LARGEST * 1e3:
        raise ValueError(f"{value} cannot be written in a script")
    best = "0"
    for prefix in _LITERAL_PREFIXES:
        scaled = _scaled(value, -EXPONENTS[prefix or " "])
        if abs(scaled) >= _LARGEST:
            break
        whole = round(scaled)
        best = f"{whole}{prefix}" if whole else "0"
        if abs(scaled - whole) <= _EXACT * abs(scaled):
            break
    return best


def integer(value: int) -> str:
    """An integer as a script writes it."""
    return f"{value}i"


def _variable(text: str, line: str) -> Variable:
    match = _VARIABLE.fullmatch(text)
    if match is None:
        raise PackageError(f"{text[:40]!r} in {line[:80]!r} is not a variable")
    value = math.nan
    if match["digits"] is not None:
        value = _scaled(int(match["digits"], 16) - OFFSET, EXPONENTS[match["prefix"]])
    status, range_index = Status.FINE, None
    for item in match["meta"].split(",")[1:]:
        if len(item) != _META_LENGTH.get(item[0], len(item)):
            raise PackageError(f"the metadata {item[:10]!r} in {line[:80]!r} are cut")
        if item[0] == "1":
            status = Status(int(item[1], 16))
        elif item[0] == "2":
            range_index = int(item[1:], 16)
    return Variable(match["kind"], value, status, range_index)


def _scaled(value: float, exponent: int) -> float:
    """``value * 10**exponent``, rounded once."""
    return value * 10.0**exponent if exponent >= 0 else value / 10.0**-exponent
