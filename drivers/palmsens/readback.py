"""What single packages say: the limits that a script sends back before it switches the cell on, and
what an instrument measures just now. No I/O."""

from __future__ import annotations

import math
from typing import Final

from labctl.drivers.palmsens.models import Model
from labctl.drivers.palmsens.packages import Kind, Package, PackageError
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


def seen_in(package: Package, kind: Model) -> tuple[float, float]:
    """Potential and current in a package of any script; NaN for what it does not say, or was
    overloaded.

    Raises:
        PackageError: they are none that the model can measure.
    """
    voltage_V = current_A = math.nan
    potential, current = package.get(Kind.POTENTIAL), package.get(Kind.CURRENT)
    if potential is not None and not potential.overloaded:
        voltage_V = potential.value
    if current is not None and not current.overloaded:
        current_A = current.value
    index = None if current is None else current.range_index
    possible_V = math.isnan(voltage_V) or kind.can_measure_V(voltage_V)
    possible_A = math.isnan(current_A) or kind.can_measure_A(current_A, index)
    if not (possible_V and possible_A):
        raise PackageError(
            f"says that it measures {voltage_V:g} V and {current_A:g} A, which it cannot"
        )
    return voltage_V, current_A


def _none_of(field: str) -> float:
    return -math.inf if field.endswith(("min_V", "min_A")) else math.inf
