"""One step of a Program as one step of a step file, or the reasons why it cannot be. No I/O.

An end that the type of a step has an element for, and that leads to the next step, is written
there; every other end is a condition of its own, with where it leads. BTS has no limit on the time
of a whole test, so every step gets one: its own end by time, else the time after which something
else must have ended it, else the longest duration of the whole run.

Constant power and constant resistance have no element for a largest current: going beyond it trips
the step's own protection. A sweep may begin with a surge, which is cut off at its ``Curr``.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import msgspec

from labctl.drivers.base import Capabilities
from labctl.drivers.neware_bts.conditions import WATCHED
from labctl.drivers.neware_bts.refusals import (
    MAX_STEP_TIME_S,
    refusals_of_current,
    refusals_of_limits,
    refusals_of_load,
    refusals_of_voltage,
)
from labctl.drivers.neware_bts.steps import (
    Condition,
    FileStep,
    Jump,
    Protection,
    RecordConditions,
    StepType,
    Sweep,
)
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Control,
    EndCondition,
    Limits,
    Quantity,
    RecordRule,
    Rest,
    Step,
    Then,
    VoltageSweep,
    technique_of,
)

TIME_MARGIN = 1.1
"""A step that something must have ended after 1 of these is ended by its time after 1.1."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a step sets, in magnitudes; ``bound_A`` is a largest current that only protects."""

    type: StepType
    current_A: float | None = None
    voltage_V: float | None = None
    power_W: float | None = None
    resistance_ohm: float | None = None
    sweep: Sweep | None = None
    bound_A: float = math.inf


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a step is judged by."""

    limits: Limits
    capabilities: Capabilities
    temperature_watched_elsewhere: bool = False


def direction_of(control: Control) -> int:
    """1 where a control charges, -1 where it discharges, 0 where it does neither or both."""
    match control:
        case ConstantCurrent(current_A) | ConstantCurrentConstantVoltage(current_A):
            return 1 if current_A > 0 else -1
        case ConstantVoltage(charging=charging):
            return 1 if charging else -1
        case ConstantPower(power_W):
            return 1 if power_W > 0 else -1
        case ConstantResistance():
            return -1
        case _:
            return 0


def setting_of(control: Control) -> Setting | None:
    """What a control sets; None for one that BTS does not have."""
    charging = direction_of(control) > 0
    match control:
        case Rest():
            return Setting(StepType.REST)
        case ConstantCurrent(current_A):
            kind = StepType.CC_CHARGE if charging else StepType.CC_DISCHARGE
            return Setting(kind, current_A=abs(current_A))
        case ConstantCurrentConstantVoltage(current_A, voltage_V):
            kind = StepType.CCCV_CHARGE if charging else StepType.CCCV_DISCHARGE
            return Setting(kind, current_A=abs(current_A), voltage_V=voltage_V)
        case ConstantVoltage(voltage_V, max_current_A):
            kind = StepType.CV_CHARGE if charging else StepType.CV_DISCHARGE
            return Setting(kind, current_A=max_current_A, voltage_V=voltage_V)
        case ConstantPower(power_W, max_current_A):
            kind = StepType.CP_CHARGE if charging else StepType.CP_DISCHARGE
            return Setting(kind, power_W=abs(power_W), bound_A=max_current_A)
        case ConstantResistance(resistance_ohm, max_current_A):
            return Setting(
                StepType.CR_DISCHARGE, resistance_ohm=resistance_ohm, bound_A=max_current_A
            )
        case VoltageSweep(from_V, to_V, rate_V_per_s, max_current_A):
            leg = Sweep(from_V, to_V, rate_V_per_s)
            return Setting(StepType.SWEEP, sweep=leg, current_A=max_current_A)
        case _:
            return None


def protection_of(limits: Limits) -> Protection:
    """The protections that ``limits`` are, of a whole file or of a step."""
    return Protection(
        voltage_upper_V=limits.voltage_max_V,
        voltage_lower_V=limits.voltage_min_V,
        current_upper_A=limits.current_max_A,
        current_lower_A=limits.current_min_A,
        capacity_upper_Ah=limits.step_charge_max_Ah,
    )


def file_step(
    step: Step, number: int, bounds: Bounds, leave_to: int | None
) -> tuple[FileStep, list[str]]:
    """The step of the file, and the ends of sentences that say why it cannot be.

    ``leave_to`` is the step that follows the innermost loop around it; None without a loop.
    """
    setting = setting_of(step.control)
    if setting is None:
        kind = technique_of(step.control).replace("_", " ")
        return FileStep(number, StepType.REST), [f"is of the kind {kind}, which BTS does not have"]
    reasons: list[str] = []
    limits = bounds.limits if step.limits is None else _tightest(bounds.limits, step.limits)
    if step.limits is not None:
        reasons += [
            f"has limits of its own that cannot be: {reason}"
            for reason in refusals_of_limits(
                limits, bounds.capabilities, bounds.temperature_watched_elsewhere
            )
        ]
    if setting.sweep is not None:
        setting = _within(setting, limits, bounds.capabilities)
    reasons += _refusals_of_setting(step, setting, limits, bounds.capabilities)
    fields, conditions, reasons_of_ends = _ends(step, setting, leave_to)
    reasons += reasons_of_ends
    for voltage_V in (end.value for end in step.ends if end.quantity is Quantity.VOLTAGE_V):
        if math.isfinite(voltage_V):
            reasons += refusals_of_voltage("ends at", voltage_V, limits, bounds.capabilities)
    time_s = fields.get("time_s")
    if time_s is None:
        time_s = _time_bound_s(setting, conditions, limits)
    if not 0 < time_s <= MAX_STEP_TIME_S:
        reasons.append(
            f"may last {time_s:g} s, and a step of a step file at most {MAX_STEP_TIME_S:g} s: give "
            "it an end by time, or the run a shorter duration"
        )
    record, reasons_of_record = _record(step.record, setting, bounds.capabilities)
    made = FileStep(
        number,
        setting.type,
        current_A=setting.current_A,
        voltage_V=setting.voltage_V,
        power_W=setting.power_W,
        resistance_ohm=setting.resistance_ohm,
        sweep=setting.sweep,
        time_s=time_s,
        stop_voltage_V=fields.get("stop_voltage_V"),
        stop_current_A=fields.get("stop_current_A"),
        stop_capacity_Ah=fields.get("stop_capacity_Ah"),
        conditions=tuple(conditions),
        record=record,
        protection=_own_protection(limits, setting, bounds.limits),
    )
    return made, reasons + reasons_of_record


def _tightest(run: Limits, own: Limits) -> Limits:
    return msgspec.structs.replace(
        own,
        voltage_min_V=max(run.voltage_min_V, own.voltage_min_V),
        voltage_max_V=min(run.voltage_max_V, own.voltage_max_V),
        current_min_A=max(run.current_min_A, own.current_min_A),
        current_max_A=min(run.current_max_A, own.current_max_A),
        step_charge_max_Ah=min(run.step_charge_max_Ah, own.step_charge_max_Ah),
        duration_max_s=min(run.duration_max_s, own.duration_max_s),
    )


def _within(setting: Setting, limits: Limits, capabilities: Capabilities) -> Setting:
    """A sweep with the least of what may flow, what the run allows and what the channel can do."""
    largest_A = max(current.full_scale_A for current in capabilities.current_ranges)
    asked_A = math.inf if setting.current_A is None else setting.current_A
    current_A = min(asked_A, largest_A, limits.current_max_A, -limits.current_min_A)
    return dataclasses.replace(setting, current_A=current_A)


def _own_protection(limits: Limits, setting: Setting, run: Limits) -> Protection | None:
    """What the step arms for itself; None where that is what the whole file arms."""
    protection = protection_of(limits)
    own = dataclasses.replace(
        protection,
        current_upper_A=min(limits.current_max_A, setting.bound_A),
        current_lower_A=max(limits.current_min_A, -setting.bound_A),
    )
    return None if own == protection_of(run) else own


def _refusals_of_setting(
    step: Step, setting: Setting, limits: Limits, capabilities: Capabilities
) -> list[str]:
    reasons: list[str] = []
    if setting.current_A is not None and (setting.sweep is None or not setting.current_A > 0):
        direction = direction_of(step.control)
        reasons += refusals_of_current(setting.current_A, direction, limits, capabilities)
    if setting.voltage_V is not None:
        reasons += refusals_of_voltage("holds", setting.voltage_V, limits, capabilities)
    if setting.power_W is not None or setting.resistance_ohm is not None:
        reasons += refusals_of_load(setting.power_W, setting.resistance_ohm, capabilities)
    if not setting.bound_A > 0:
        reasons.append(f"allows a current of {setting.bound_A:g} A: it must be above 0")
    leg = setting.sweep
    if leg is not None:
        for verb, voltage_V in (("begins at", leg.from_V), ("sweeps to", leg.to_V)):
            if voltage_V is not None:
                reasons += refusals_of_voltage(verb, voltage_V, limits, capabilities)
        if not 0 < leg.rate_V_per_s < math.inf:
            reasons.append(f"sweeps at {leg.rate_V_per_s:g} V/s: it must be above 0")
        if leg.from_V == leg.to_V:
            reasons.append(f"sweeps from {leg.to_V:g} V to the same voltage")
    return reasons


_TIME = {(Quantity.STEP_TIME_S, Comparison.AT_LEAST): "time_s"}
_CHARGE = {(Quantity.STEP_CHARGE_AH, Comparison.AT_LEAST): "stop_capacity_Ah"}
_RISING = {(Quantity.VOLTAGE_V, Comparison.AT_LEAST): "stop_voltage_V"}
_FALLING = {(Quantity.VOLTAGE_V, Comparison.AT_MOST): "stop_voltage_V"}
_TAPER = {(Quantity.CURRENT_A, Comparison.AT_MOST): "stop_current_A"}

ENDS: dict[StepType, dict[tuple[Quantity, Comparison], str]] = {
    StepType.REST: _TIME,
    StepType.CC_CHARGE: _RISING | _CHARGE | _TIME,
    StepType.CC_DISCHARGE: _FALLING | _CHARGE | _TIME,
    StepType.CV_CHARGE: _TAPER | _CHARGE | _TIME,
    StepType.CV_DISCHARGE: _TAPER | _CHARGE | _TIME,
    StepType.CCCV_CHARGE: _TAPER | _CHARGE | _TIME,
    StepType.CCCV_DISCHARGE: _TAPER | _CHARGE | _TIME,
    StepType.CP_CHARGE: _RISING | _CHARGE | _TIME,
    StepType.CP_DISCHARGE: _FALLING | _CHARGE | _TIME,
    StepType.CR_DISCHARGE: _FALLING | _CHARGE | _TIME,
    StepType.SWEEP: _TIME,
}
"""Which ends a step of each type has an element for, and the field that holds each."""

_STEADY = frozenset({StepType.REST, StepType.CC_CHARGE, StepType.CC_DISCHARGE})
_SET_CURRENT = frozenset(
    {
        StepType.CC_CHARGE,
        StepType.CC_DISCHARGE,
        StepType.CCCV_CHARGE,
        StepType.CCCV_DISCHARGE,
    }
)
_GROWING = frozenset({Quantity.STEP_TIME_S, Quantity.STEP_CHARGE_AH, Quantity.STEP_ENERGY_WH})


def _ends(
    step: Step, setting: Setting, leave_to: int | None
) -> tuple[dict[str, float], list[Condition], list[str]]:
    fields: dict[str, float] = {}
    conditions: list[Condition] = []
    reasons: list[str] = []
    leg = setting.sweep
    for end in step.ends:
        if reason := _why_not(end, setting):
            reasons.append(f"cannot end when {end}: {reason}")
            continue
        if end.then is Then.LEAVE_LOOP and leave_to is None:
            reasons.append(f"leaves a loop when {end}, and there is no loop around it")
            continue
        jump = {Then.END_RUN: Jump.FINISH, Then.LEAVE_LOOP: leave_to}.get(end.then) or Jump.NEXT
        field = ENDS[setting.type].get((end.quantity, end.comparison))
        by_itself = leg is not None and end.quantity is Quantity.VOLTAGE_V
        if jump is Jump.NEXT and by_itself and leg is not None and end.value == leg.to_V:
            continue
        if jump is Jump.NEXT and field is not None and field not in fields:
            fields[field] = end.value
        else:
            conditions.append(Condition(end.quantity, end.comparison, end.value, int(jump)))
    if not step.ends and leg is None:
        reasons.append("has no end")
    return fields, conditions, reasons


def _why_not(end: EndCondition, setting: Setting) -> str:
    """Why no step file holds an end; '' if one does."""
    if end.quantity not in WATCHED:
        return "a step file watches voltage, current, time, charge and energy of a step"
    if end.quantity in _GROWING and end.comparison is Comparison.AT_MOST:
        return "that holds from the start"
    if not math.isfinite(end.value) or (end.value <= 0 and end.quantity is not Quantity.VOLTAGE_V):
        return "the value must be finite and above 0"
    if end.quantity is Quantity.CURRENT_A and setting.type in _STEADY:
        return "its current does not change"
    if end.quantity in _GROWING - {Quantity.STEP_TIME_S} and setting.type is StepType.REST:
        return "nothing flows in a rest"
    largest_A = setting.current_A
    if end.quantity is Quantity.CURRENT_A and largest_A is not None and end.value >= largest_A:
        return f"that is not below its current of {largest_A:g} A"
    return ""


def _time_bound_s(setting: Setting, conditions: list[Condition], limits: Limits) -> float:
    bound_s = limits.duration_max_s
    times_s = [each.value for each in conditions if each.quantity is Quantity.STEP_TIME_S]
    leg = setting.sweep
    if times_s:
        bound_s = TIME_MARGIN * min(times_s)
    elif leg is not None and leg.rate_V_per_s > 0:
        across_V = limits.voltage_max_V - limits.voltage_min_V
        length_V = across_V if leg.from_V is None else abs(leg.to_V - leg.from_V)
        bound_s = TIME_MARGIN * length_V / leg.rate_V_per_s
    elif setting.type in {StepType.CC_CHARGE, StepType.CC_DISCHARGE} and setting.current_A:
        charge_time_s = 3600.0 * limits.step_charge_max_Ah / setting.current_A
        bound_s = min(bound_s, TIME_MARGIN * charge_time_s)
    return float(math.ceil(round(bound_s, 3))) if math.isfinite(bound_s) else bound_s


def _record(
    rule: RecordRule, setting: Setting, capabilities: Capabilities
) -> tuple[RecordConditions, list[str]]:
    """A change of charge is a time where the current is set, so that it becomes one there."""
    reasons = [
        f"has the record rule {name} {getattr(rule, name):g}: it must be above 0"
        for name in ("voltage_change_V", "current_change_A", "charge_change_Ah")
        if not getattr(rule, name) > 0
    ]
    every_s, asks = rule.every_s, f"asks for a record every {rule.every_s:g} s"
    if 0 < rule.charge_change_Ah < math.inf and setting.type is not StepType.REST:
        if setting.current_A and setting.type in _SET_CURRENT:
            by_charge_s = 3600.0 * rule.charge_change_Ah / setting.current_A
            if by_charge_s < every_s:
                every_s = by_charge_s
                asks = (
                    f"asks for a record every {rule.charge_change_Ah:g} Ah, which at "
                    f"{setting.current_A:g} A is every {every_s:g} s"
                )
        else:
            reasons.append(
                f"asks for a record every {rule.charge_change_Ah:g} Ah, and a step of its kind "
                "records by time, voltage and current: leave the charge out"
            )
    if not every_s >= capabilities.fastest_record_s:
        reasons.append(f"{asks}, and the channel's fastest is {capabilities.fastest_record_s:g} s")
    conditions = RecordConditions(
        _finite(every_s), _finite(rule.voltage_change_V), _finite(rule.current_change_A)
    )
    if conditions == RecordConditions() and not reasons:
        reasons.append("has a record rule by which nothing is ever recorded")
    return conditions, reasons


def _finite(value: float) -> float | None:
    return None if value == math.inf else value
