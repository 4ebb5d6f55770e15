"""Programs on paper, and the channel that they are translated for."""

from __future__ import annotations

import pytest

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe
from labctl.drivers.neware_bts.config import TECHNIQUES
from labctl.drivers.neware_bts.stepfile import (
    RecordConditions,
)
from labctl.drivers.neware_bts.translate import (
    Translation,
    translate,
)
from labctl.errors import PlanError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    Control,
    EndCondition,
    Limits,
    Node,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
    Then,
)

CHANNEL = Capabilities(
    techniques=TECHNIQUES,
    voltage_min_V=0.0,
    voltage_max_V=5.0,
    current_ranges=(CurrentRange(1e-4, 1e-9), CurrentRange(1e-2, 1e-7)),
    fastest_record_s=0.1,
    failsafe=Failsafe.ONBOARD,
)
LIMITS = Limits(
    voltage_min_V=1.0,
    voltage_max_V=4.4,
    current_min_A=-0.011,
    current_max_A=0.011,
    step_charge_max_Ah=4e-4,
    duration_max_s=500_000.0,
)


def until(quantity: Quantity, comparison: str, value: float) -> EndCondition:
    return EndCondition(quantity, Comparison(comparison), value)


TO_4V1 = until(Quantity.VOLTAGE_V, ">=", 4.1)
TO_1V5 = until(Quantity.VOLTAGE_V, "<=", 1.5)
TEN_MINUTES = until(Quantity.STEP_TIME_S, ">=", 600.0)


def step(
    index: int,
    control: Control,
    *ends: EndCondition,
    record: RecordRule | None = None,
    line: int = 0,
    limits: Limits | None = None,
) -> Step:
    return Step(index, "", control, ends, record or RecordRule(), line, limits)


def program(*body: Node, limits: Limits = LIMITS) -> Program:
    return Program(name="p", recipe_sha256="0", cell="c", body=body, limits=limits)


def translated(*body: Node, limits: Limits = LIMITS) -> Translation:
    return translate(program(*body, limits=limits), CHANNEL)


def refusals(*body: Node, limits: Limits = LIMITS) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        translated(*body, limits=limits)
    return caught.value.refusals


CHARGE = step(1, ConstantCurrent(2e-4), TO_4V1)
DISCHARGE = step(2, ConstantCurrent(-2e-4), TO_1V5)
REST = step(0, Rest(), TEN_MINUTES)
EVERY_30_S = RecordConditions(time_s=30.0)


def leaving(quantity: Quantity, comparison: str, value: float) -> EndCondition:
    return EndCondition(quantity, Comparison(comparison), value, Then.LEAVE_LOOP)


def ending(quantity: Quantity, comparison: str, value: float) -> EndCondition:
    return EndCondition(quantity, Comparison(comparison), value, Then.END_RUN)
