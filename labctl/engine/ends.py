"""Which end condition a step has met. Pure.

An instrument that ends a step onboard decides on finer samples than it records, and does not say
which condition won: what it recorded last may lie a sample beside it, hence the tolerances. A host
that decides itself uses none.

dV/dt is taken between readings at least ``SLOPE_OVER_S`` apart, one such stretch after the other: a
change of 1 mV/h is 0.17 mV then, so the instrument's noise has to be less.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import numpy as np

from labctl.model import FloatColumn
from labctl.program import Comparison, EndCondition, Quantity, Step

VOLTAGE_TOLERANCE_V: Final = 2e-3
RELATIVE_TOLERANCE: Final = 2e-3
TIME_TOLERANCE_S: Final = 0.2
TEMPERATURE_TOLERANCE_K: Final = 0.1
SLOPE_OVER_S: Final = 600.0

Slope = tuple[float, float, float]
"""Time in the step and voltage where the present stretch began, and dV/dt over the one before."""


class Standing(Protocol):
    """Where a visit stands: what conditions look at."""

    @property
    def voltage_V(self) -> float: ...
    @property
    def current_A(self) -> float: ...
    @property
    def step_time_s(self) -> float: ...
    @property
    def charge_Ah(self) -> float: ...
    @property
    def energy_Wh(self) -> float: ...
    @property
    def visit_start_charge_Ah(self) -> float: ...
    @property
    def visit_start_energy_Wh(self) -> float: ...
    @property
    def slope_V_per_s(self) -> float: ...
    @property
    def temperature_degC(self) -> float: ...


def condition_that_ended(step: Step, standing: Standing) -> EndCondition | None:
    """The first of the step's end conditions that its last record meets, within the tolerances."""
    return next((end for end in step.ends if holds(end, standing, exactly=False)), None)


def holds(condition: EndCondition, standing: Standing, *, exactly: bool) -> bool:
    """Whether a condition is met; what is not known meets none."""
    relative = RELATIVE_TOLERANCE * abs(condition.value)
    match condition.quantity:
        case Quantity.VOLTAGE_V:
            actual, tolerance = standing.voltage_V, VOLTAGE_TOLERANCE_V
        case Quantity.CURRENT_A:
            actual, tolerance = abs(standing.current_A), relative
        case Quantity.STEP_TIME_S:
            actual, tolerance = standing.step_time_s, TIME_TOLERANCE_S
        case Quantity.STEP_CHARGE_AH:
            actual = abs(standing.charge_Ah - standing.visit_start_charge_Ah)
            tolerance = relative
        case Quantity.STEP_ENERGY_WH:
            actual = abs(standing.energy_Wh - standing.visit_start_energy_Wh)
            tolerance = relative
        case Quantity.RUN_CHARGE_AH:
            actual, tolerance = standing.charge_Ah, relative
        case Quantity.VOLTAGE_SLOPE_V_PER_S:
            actual, tolerance = abs(standing.slope_V_per_s), relative
        case _:
            actual, tolerance = standing.temperature_degC, TEMPERATURE_TOLERANCE_K
    if exactly:
        tolerance = 0.0
    if condition.comparison is Comparison.AT_LEAST:
        return actual >= condition.value - tolerance
    return actual <= condition.value + tolerance


def slope_after(slope: Slope, time_s: FloatColumn, voltage_V: FloatColumn) -> Slope:
    """dV/dt after more readings of the same visit, however they are cut into blocks."""
    since_s, from_V, change = slope
    at = 0
    if math.isnan(since_s) and len(time_s):
        since_s, from_V = float(time_s[0]), float(voltage_V[0])
    while True:
        at = int(np.searchsorted(time_s, since_s + SLOPE_OVER_S, side="left"))
        if at >= len(time_s):
            return since_s, from_V, change
        now_s, now_V = float(time_s[at]), float(voltage_V[at])
        change = (now_V - from_V) / (now_s - since_s)
        since_s, from_V = now_s, now_V
