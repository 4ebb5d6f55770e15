"""Protections: which of two counts, and whether one has been passed.

Reaching a voltage or a capacity passes it; a current has to go beyond.
"""

from __future__ import annotations

import math

from labctl.drivers.neware_bts.stepfile import Protection


def passed(protection: Protection, voltage_V: float, current_A: float, capacity: float) -> bool:
    """Whether a moment is outside what is allowed; ``capacity`` in Ah since the step began."""
    return (
        voltage_V >= value_or(protection.voltage_upper_V, math.inf)
        or voltage_V <= value_or(protection.voltage_lower_V, -math.inf)
        or current_A > value_or(protection.current_upper_A, math.inf)
        or current_A < value_or(protection.current_lower_A, -math.inf)
        or capacity >= value_or(protection.capacity_upper_Ah, math.inf)
    )


def tightest(one: Protection, other: Protection | None) -> Protection:
    """Of two protections the narrower in each respect."""
    if other is None:
        return one
    return Protection(
        voltage_upper_V=_least(one.voltage_upper_V, other.voltage_upper_V),
        voltage_lower_V=negative(
            _least(negative(one.voltage_lower_V), negative(other.voltage_lower_V))
        ),
        current_upper_A=_least(one.current_upper_A, other.current_upper_A),
        current_lower_A=negative(
            _least(negative(one.current_lower_A), negative(other.current_lower_A))
        ),
        capacity_upper_Ah=_least(one.capacity_upper_Ah, other.capacity_upper_Ah),
        delay_s=_least(one.delay_s, other.delay_s),
    )


def _least(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value is not None), default=None)


def negative(value: float | None) -> float | None:
    return None if value is None else -value


def value_or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
