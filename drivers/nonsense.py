"""Numbers that no step can have, whatever the instrument: what a refusal says of them. No I/O.

A recipe cannot ask for them; another program that makes Programs of its own can.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import msgspec

from labctl.program import Comparison, Control, Limits, Quantity, Step

_ABOVE_ZERO: Final = frozenset(
    {
        "max_current_A",
        "resistance_ohm",
        "rate_V_per_s",
        "amplitude",
        "frequency_max_Hz",
        "frequency_min_Hz",
        "points_per_decade",
    }
)
LARGEST: Final = 5e8
"""Beyond every number that means something here, in any unit."""


def nonsense_in_step(step: Step) -> Iterator[str]:
    """What of a step is no number, or none that can be meant; one sentence each."""
    name = f"step {step.label!r}"
    for field, value in _numbers_of(step.control):
        if not abs(value) <= LARGEST:
            yield f"{name} has {field} {value:g}, which is no number that can be set"
        elif field in _ABOVE_ZERO and not value > 0:
            yield f"{name} has {field} {value:g}: it must be above 0"
    for end in step.ends:
        if not abs(end.value) <= LARGEST:
            yield f"{name} ends at {end}, which never can be told to hold"
    times_s = [
        end.value
        for end in step.ends
        if end.quantity is Quantity.STEP_TIME_S and end.comparison is Comparison.AT_LEAST
    ]
    if not any(value <= LARGEST for value in times_s):
        yield f"{name} has no end by time"
    for field, value in msgspec.structs.asdict(step.record).items():
        if not (0 < value <= LARGEST or value == math.inf):
            yield f"{name} has the record rule {field} {value:g}: it must be above 0"


def nonsense_in_limits(limits: Limits) -> Iterator[str]:
    """What of limits is no number, or leaves nothing to be done; one sentence each."""
    for field, value in msgspec.structs.asdict(limits).items():
        bounded = field != "duration_max_s"
        if math.isnan(value) or (bounded and LARGEST < abs(value) < math.inf):
            yield f"the limit {field} is {value:g}, which is no number that can be watched"
    if limits.step_charge_max_Ah <= 0:
        yield "the limit step_charge_max_Ah must be above 0"
    if limits.duration_max_s <= 0:
        yield "the limit duration_max_s must be above 0"
    if not limits.current_min_A <= 0 <= limits.current_max_A:
        yield "the current limits do not allow 0 A, so a rest would trip them"


def _numbers_of(control: Control) -> Iterator[tuple[str, float]]:
    for field, value in msgspec.structs.asdict(control).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield field, value
