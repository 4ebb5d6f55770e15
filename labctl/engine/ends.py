"""Which end condition a visit to a step has met. Pure.

Charge and energy of a step and the current are compared by magnitude, the run's net charge by its
sign: positive for charging. What is not known (NaN) meets no condition.

An instrument that ends a step onboard decides on finer samples than it records, and does not say
which condition won: what it recorded last may lie a sample beside it, hence the tolerances. A host
that decides by itself uses none.

dV/dt is the slope between the last reading and one at least a window before it in the same step.
The window is long enough that a slope of the end's own value changes the voltage by
``SLOPE_CHANGE_V``, and ``SLOPE_LEAST_S`` at the least: an end at 1 mV/h looks back over half an
hour. The noise of one reading, which is some 0.1 mV on a cycler, then decides nothing. Before the
window has passed the slope is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Protocol, TypeAlias

from labctl.program import Comparison, EndCondition, Quantity, Step, Then

VOLTAGE_TOLERANCE_V: Final = 2e-3
RELATIVE_TOLERANCE: Final = 2e-3
TIME_TOLERANCE_S: Final = 0.2
TEMPERATURE_TOLERANCE_K: Final = 0.1
SLOPE_TOLERANCE: Final = 0.1
"""Of the value."""

SLOPE_CHANGE_V: Final = 5e-4
SLOPE_LEAST_S: Final = 10.0
SLOPE_POINTS: Final = 16
"""So many readings a window are remembered; a slope looks back a sixteenth longer at the most,
where readings come more often."""

SlopePoints: TypeAlias = tuple[tuple[float, float], ...]
"""Readings of a step that later ones are compared with, oldest first: time in the step, voltage."""


class Standing(Protocol):
    """Where a visit stands at a reading: what conditions look at; NaN where unknown.

    Charge and energy are net since the run began, positive for charging.
    """

    @property
    def step_time_s(self) -> float: ...
    @property
    def voltage_V(self) -> float: ...
    @property
    def current_A(self) -> float: ...
    @property
    def charge_Ah(self) -> float: ...
    @property
    def energy_Wh(self) -> float: ...
    @property
    def visit_start_charge_Ah(self) -> float: ...
    @property
    def visit_start_energy_Wh(self) -> float: ...
    @property
    def temperature_degC(self) -> float: ...
    @property
    def slope_V_per_s(self) -> float: ...


def condition_that_ended(
    step: Step, standing: Standing, then: Then | None = None
) -> EndCondition | None:
    """The end condition that a visit's last record fulfils best; None if it fulfils none.

    The first that holds exactly; else the one that is missed by the smallest part of its tolerance.

    Args:
        then: only ends that lead there are asked about.
    """
    best, least = None, 1.0
    for end in step.ends:
        if then is not None and end.then is not then:
            continue
        missed = _missed_by(end, standing)
        if missed <= 0.0:
            return end
        if missed < least or (best is None and missed <= least):
            best, least = end, missed
    return best


def holds(condition: EndCondition, standing: Standing, *, exactly: bool) -> bool:
    """Whether a condition is met, ``exactly`` or within its tolerance."""
    return _missed_by(condition, standing) <= (0.0 if exactly else 1.0)


def actual(quantity: Quantity, standing: Standing) -> float:
    """What an end condition on ``quantity`` looks at."""
    match quantity:
        case Quantity.VOLTAGE_V:
            return standing.voltage_V
        case Quantity.CURRENT_A:
            return abs(standing.current_A)
        case Quantity.STEP_TIME_S:
            return standing.step_time_s
        case Quantity.STEP_CHARGE_AH:
            return abs(standing.charge_Ah - standing.visit_start_charge_Ah)
        case Quantity.STEP_ENERGY_WH:
            return abs(standing.energy_Wh - standing.visit_start_energy_Wh)
        case Quantity.RUN_CHARGE_AH:
            return standing.charge_Ah
        case Quantity.VOLTAGE_SLOPE_V_PER_S:
            return abs(standing.slope_V_per_s)
        case Quantity.TEMPERATURE_DEGC:
            return standing.temperature_degC


def slope_window_s(step: Step) -> float:
    """How far back dV/dt looks in a step: the longest window of its ends; 0 if none needs it."""
    windows_s = [
        max(SLOPE_LEAST_S, SLOPE_CHANGE_V / end.value if end.value > 0 else math.inf)
        for end in step.ends
        if end.quantity is Quantity.VOLTAGE_SLOPE_V_PER_S
    ]
    return max(windows_s, default=0.0)


def slopes(
    points: SlopePoints, readings: Iterable[tuple[float, float]], window_s: float
) -> tuple[SlopePoints, list[float]]:
    """dV/dt at each of some more readings (time in the step, voltage), cut from the rest anywhere.

    Returns what is to be remembered, and the slopes; NaN where not known.
    """
    found: list[float] = []
    for time_s, voltage_V in readings:
        points = _remember(points, time_s, voltage_V, window_s)
        since_s, from_V = points[0]
        known = time_s - since_s >= window_s
        found.append((voltage_V - from_V) / (time_s - since_s) if known else math.nan)
    return points, found


def _remember(points: SlopePoints, time_s: float, voltage_V: float, window_s: float) -> SlopePoints:
    """What later readings need of this one and of those before it."""
    while len(points) > 1 and points[1][0] <= time_s - window_s:
        points = points[1:]
    if points and time_s - points[-1][0] < window_s / SLOPE_POINTS:
        return points
    return (*points, (time_s, voltage_V))


def _missed_by(end: EndCondition, standing: Standing) -> float:
    """By how many of its tolerances an end is missed: 0 if it holds, NaN if that is not known."""
    value = actual(end.quantity, standing)
    short = end.value - value if end.comparison is Comparison.AT_LEAST else value - end.value
    if short <= 0.0:
        return 0.0
    match end.quantity:
        case Quantity.VOLTAGE_V:
            tolerance = VOLTAGE_TOLERANCE_V
        case Quantity.STEP_TIME_S:
            tolerance = TIME_TOLERANCE_S
        case Quantity.TEMPERATURE_DEGC:
            tolerance = TEMPERATURE_TOLERANCE_K
        case Quantity.VOLTAGE_SLOPE_V_PER_S:
            tolerance = SLOPE_TOLERANCE * abs(end.value)
        case Quantity.RUN_CHARGE_AH:
            passed_Ah = actual(Quantity.STEP_CHARGE_AH, standing)
            tolerance = RELATIVE_TOLERANCE * max(abs(end.value), passed_Ah)
        case _:
            tolerance = RELATIVE_TOLERANCE * abs(end.value)
    return short / tolerance if tolerance > 0.0 else math.inf
