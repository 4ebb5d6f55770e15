"""The limits that a script sends back before it switches the cell on. No I/O."""

from __future__ import annotations

import math
from typing import Final

from labctl.drivers.palmsens.packages import Package
from labctl.drivers.palmsens.stages import LIMITS
from labctl.program import Limits

_SLACK: Final = 1e-6
"""What a number in a script, in single precision and in a package may differ by."""


def limits_in(package: Package) -> Limits:
    """The limits that a package holds; infinite where it holds none."""
    values = {
        field: package[kind].value / scale if kind in package else _none_of(field)
        for _, kind, field, scale in LIMITS
    }
    return Limits(**values, duration_max_s=math.inf)


def alike(armed: Limits, asked: Limits) -> bool:
    """Whether two limits are the same, to what a package can say."""
    pairs = ((getattr(armed, field), getattr(asked, field)) for _, _, field, _ in LIMITS)
    return all(
        found == wanted or abs(found - wanted) <= _SLACK * abs(wanted) for found, wanted in pairs
    )


def _none_of(field: str) -> float:
    return -math.inf if field.endswith(("min_V", "min_A")) else math.inf
