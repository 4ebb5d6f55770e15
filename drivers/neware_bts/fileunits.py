"""Numbers in a Neware step file, exactly: what is written and read back is the same number.

Voltage 0.1 mV, current mA, power mW, time ms, capacity mA s (mAh * 3600), sweep rate mV/s; here SI
and Ah. Head_Info/Scale multiplies currents, powers and capacities in files of the vendor's window.
"""

from __future__ import annotations

import decimal
import math
import re
from dataclasses import dataclass
from decimal import Decimal

from labctl.drivers.neware_bts.steps import RESISTANCE_PER_OHM
from labctl.drivers.neware_bts.xmltree import Element, XmlError

_EXACT = decimal.Context(prec=60, Emax=999_999, Emin=-999_999)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_LONGEST_NUMBER = 400


@dataclass(frozen=True, slots=True)
class Unit:
    """``factor`` units of the file in one of ours; ``scaled`` if Head_Info/Scale multiplies it."""

    factor: Decimal
    scaled: bool = False


VOLT = Unit(Decimal(10_000))
AMPERE = Unit(Decimal(1_000), scaled=True)
WATT = Unit(Decimal(1_000), scaled=True)
OHM = Unit(Decimal(RESISTANCE_PER_OHM))
SECOND = Unit(Decimal(1_000))
AMPERE_HOUR = Unit(Decimal(3_600_000), scaled=True)
VOLT_PER_SECOND = Unit(Decimal(1_000))
ONE = Unit(Decimal(1))
UNSCALED = Decimal(1)


def read_value(
    element: Element, unit: Unit, scale: Decimal = UNSCALED, *, attribute: str = "Value"
) -> float:
    """The number in an attribute of an element.

    Raises:
        XmlError: it is missing, no number, or too large.
    """
    text = element.attributes.get(attribute, "").strip()
    name = element.tag if attribute == "Value" else f"{element.tag} {attribute}"
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        raise XmlError(f"<{name}> is {text[:40]!r}, which is no number", element.line)
    factor = _EXACT.multiply(unit.factor, scale) if unit.scaled else unit.factor
    value = float(_EXACT.divide(Decimal(text), factor))
    if not math.isfinite(value):
        raise XmlError(f"<{name}> is {text[:40]}, which is too large", element.line)
    return value


def written(value: float, unit: Unit) -> str:
    """``value`` as it stands in a file, without a scale.

    Raises:
        ValueError: not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite and cannot stand in a step file")
    text = f"{_EXACT.multiply(Decimal(repr(float(value))), unit.factor):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
