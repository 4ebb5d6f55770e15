"""What a step sets in each of its phases, and what ends it there, in the order that counts.

The elements of a step's own type come first, then its conditions as they are written, then the
protections: of two ends at one value the first one counts. Chosen here, since no manual says it: a
step without a time ends after 365 days; a condition on the current looks at its magnitude; in a
sweep the narrower of the two protections of the current counts for both directions; a step that
sets no current is clipped to the full scale of its range.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from labctl.drivers.neware_bts.stepfile import (
    Condition,
    FileStep,
    Jump,
    Protection,
    StepFile,
    StepType,
)
from labctl.program import Comparison, Quantity
from labctl.simulators.cells.interface import Control
from labctl.simulators.neware_bts.instrument import CURRENT_RANGES_A
from labctl.simulators.neware_bts.protection import negative, tightest
from labctl.simulators.neware_bts.steps import (
    BOTH_PHASES,
    CHARGING,
    CURRENT_ONLY,
    DISCHARGING,
    POWER,
    VOLTAGE_ONLY,
    full_scale_A,
)

FASTEST_RECORD_S = 0.1
LONGEST_STEP_S = 365 * 86400.0
HOLD = -1
"""Where the end of a charge at constant current leads that holds its voltage then."""


class Phase(enum.IntEnum):
    """Which part of a step runs."""

    NOT_ENTERED = 0
    CURRENT = 1
    VOLTAGE = 2
    OPEN = 3
    POWER = 4
    RESISTANCE = 5
    SWEEP = 6


class Kind(enum.IntEnum):
    """What an end looks at."""

    VOLTAGE_HIGH = 0
    VOLTAGE_LOW = 1
    CURRENT_SMALL = 2
    CURRENT_LARGE = 3
    CHARGE = 4
    TIME = 5
    ENERGY = 6


_OFF = {Kind.VOLTAGE_LOW: -math.inf, Kind.CURRENT_SMALL: -1.0}
_CONTROLS = {
    Phase.CURRENT: Control.CURRENT,
    Phase.VOLTAGE: Control.VOLTAGE,
    Phase.POWER: Control.POWER,
    Phase.RESISTANCE: Control.RESISTANCE,
}


_DRIVEN = {Phase.CURRENT, Phase.POWER, Phase.RESISTANCE}
_BEYOND = 1 + 1e-9
"""A current passes its protection when it is above it, not at it."""


@dataclass(frozen=True, slots=True)
class End:
    """``leads_to`` is a Jump, the number of a step, or HOLD."""

    kind: Kind
    value: float
    leads_to: int

    def holds(self, voltage_V: float, current_A: float) -> bool:
        """Whether a step that begins at these values has come to this end at once."""
        match self.kind:
            case Kind.VOLTAGE_HIGH:
                return voltage_V >= self.value
            case Kind.VOLTAGE_LOW:
                return voltage_V <= self.value
            case Kind.CURRENT_SMALL:
                return abs(current_A) <= self.value
            case Kind.CURRENT_LARGE:
                return abs(current_A) >= self.value
            case _:
                return self.value <= 0


class Ends:
    """Some ends of a phase; ``bounds[kind]`` is the first value of that kind to be reached."""

    def __init__(self, ends: tuple[End, ...]) -> None:
        self.all = ends
        self.bounds = [_OFF.get(kind, math.inf) for kind in Kind]
        for end in ends:
            tighter = max if end.kind in _OFF else min
            self.bounds[end.kind] = tighter(self.bounds[end.kind], end.value)

    def at(self, kind: Kind) -> End:
        """The end that has come when the bound of a kind is reached."""
        bound = self.bounds[kind]
        return next(end for end in self.all if end.kind is kind and end.value == bound)


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """``guarded`` are the ends with the protections, ``unguarded`` those without."""

    control: Control
    setpoint: float
    guarded: Ends
    unguarded: Ends


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of a file; ``begins`` is the phase that it is entered in."""

    step: FileStep
    begins: Phase
    direction: int
    protection: Protection
    max_current_A: float
    every_s: float
    voltage_change_V: float
    current_change_A: float
    phases: dict[Phase, PhasePlan] = field(default_factory=dict)


def plan_of(step: FileStep, file: StepFile) -> StepPlan:
    """The plan of one step that runs; any other has no phases."""
    record = step.record or file.record
    plan = StepPlan(
        step,
        _first_phase(step),
        1 if step.type in CHARGING else -1 if step.type in DISCHARGING else 0,
        tightest(file.protection, step.protection),
        step.current_A or full_scale_A(step, file) or CURRENT_RANGES_A[-1],
        _or_never(record.time_s, at_least=FASTEST_RECORD_S),
        _or_never(record.voltage_change_V, at_least=1e-6),
        _or_never(record.current_change_A, at_least=1e-12),
    )
    for phase in _phases(plan):
        own = _own_ends(plan, phase) + tuple(_end_of(each) for each in step.conditions)
        trips = _trips(plan, phase)
        plan.phases[phase] = PhasePlan(
            _CONTROLS.get(phase, Control.REST),
            _setpoint(plan, phase),
            Ends((*own, *trips)),
            Ends(own),
        )
    return plan


def _first_phase(step: FileStep) -> Phase:
    if step.type in CURRENT_ONLY | BOTH_PHASES:
        return Phase.CURRENT
    if step.type in VOLTAGE_ONLY:
        return Phase.VOLTAGE
    if step.type in POWER:
        return Phase.POWER
    return {
        StepType.CR_DISCHARGE: Phase.RESISTANCE,
        StepType.SWEEP: Phase.SWEEP,
    }.get(step.type, Phase.OPEN)


def _phases(plan: StepPlan) -> tuple[Phase, ...]:
    if plan.step.type in BOTH_PHASES | VOLTAGE_ONLY:
        return (plan.begins, Phase.VOLTAGE, Phase.OPEN)
    return (plan.begins,)


def _setpoint(plan: StepPlan, phase: Phase) -> float:
    step = plan.step
    match phase:
        case Phase.CURRENT:
            return (step.current_A or 0.0) * plan.direction
        case Phase.VOLTAGE:
            return step.voltage_V or 0.0
        case Phase.POWER:
            return (step.power_W or 0.0) * plan.direction
        case Phase.RESISTANCE:
            return step.resistance_ohm or 0.0
        case _:
            return 0.0


def _own_ends(plan: StepPlan, phase: Phase) -> tuple[End, ...]:
    step = plan.step
    ends: list[End] = []
    beyond = Kind.VOLTAGE_HIGH if plan.direction > 0 else Kind.VOLTAGE_LOW
    if phase is Phase.CURRENT and step.type in BOTH_PHASES and step.voltage_V is not None:
        ends.append(End(beyond, step.voltage_V, HOLD))
    elif phase in _DRIVEN and step.stop_voltage_V is not None:
        ends.append(End(beyond, step.stop_voltage_V, Jump.NEXT))
    if phase in {Phase.VOLTAGE, Phase.OPEN} and step.stop_current_A is not None:
        ends.append(End(Kind.CURRENT_SMALL, step.stop_current_A, Jump.NEXT))
    if step.stop_capacity_Ah is not None:
        ends.append(End(Kind.CHARGE, step.stop_capacity_Ah, Jump.NEXT))
    longest_s = LONGEST_STEP_S if step.time_s is None else step.time_s
    return (*ends, End(Kind.TIME, longest_s, Jump.NEXT))


def _end_of(condition: Condition) -> End:
    high = condition.comparison is Comparison.AT_LEAST
    kind = {
        Quantity.VOLTAGE_V: Kind.VOLTAGE_HIGH if high else Kind.VOLTAGE_LOW,
        Quantity.CURRENT_A: Kind.CURRENT_LARGE if high else Kind.CURRENT_SMALL,
        Quantity.STEP_TIME_S: Kind.TIME,
        Quantity.STEP_CHARGE_AH: Kind.CHARGE,
        Quantity.STEP_ENERGY_WH: Kind.ENERGY,
    }[condition.quantity]
    holds_from_the_start = kind >= Kind.CHARGE and not high
    return End(kind, 0.0 if holds_from_the_start else condition.value, condition.jump)


def _trips(plan: StepPlan, phase: Phase) -> tuple[End, ...]:
    """In a current phase the current is set: it is judged when the step is entered."""
    protection = plan.protection
    upper_A, lower_A = protection.current_upper_A, negative(protection.current_lower_A)
    if phase in {Phase.CURRENT, Phase.OPEN}:
        bound_A = None
    elif phase is Phase.SWEEP:
        bound_A = min((bound for bound in (upper_A, lower_A) if bound is not None), default=None)
    else:
        bound_A = upper_A if plan.direction > 0 else lower_A
    values = (
        (Kind.VOLTAGE_HIGH, protection.voltage_upper_V),
        (Kind.VOLTAGE_LOW, protection.voltage_lower_V),
        (Kind.CURRENT_LARGE, None if bound_A is None else bound_A * _BEYOND),
        (Kind.CHARGE, protection.capacity_upper_Ah),
    )
    return tuple(End(kind, value, Jump.PROTECT) for kind, value in values if value is not None)


def _or_never(value: float | None, *, at_least: float) -> float:
    """A record condition; absent or 0 is off."""
    return math.inf if not value else max(value, at_least)
