"""A Program's parts in the words of the laboratory: amperes, volts, ends, conditions, limits."""

from __future__ import annotations

import math

from labctl.program import (
    AlarmRule,
    Comparison,
    Condition,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    CycleFigure,
    DropAlarm,
    EfficiencyAlarm,
    EndCondition,
    EndedBy,
    FadeAlarm,
    Impedance,
    KneeAlarm,
    Limits,
    Loop,
    Quantity,
    Rest,
    RetentionAlarm,
    SetTemperature,
    Signal,
    Step,
    TemperatureAlarm,
    Then,
    VoltageSweep,
    Wait,
)
from labctl.protocols.compiler import DEFAULT_CLASS
from labctl.protocols.conditions import WORD_OF_QUANTITY
from labctl.units import Kind, format_quantity


def limits_text(limits: Limits) -> str:
    """The limits as a person writes them."""
    said = [
        f"voltage {_voltage(limits.voltage_min_V)} .. {_voltage(limits.voltage_max_V)}",
        f"current {current_text(limits.current_min_A)} .. {current_text(limits.current_max_A)}",
        f"step charge {format_quantity(limits.step_charge_max_Ah, Kind.CHARGE, digits=4)}",
        f"duration {format_quantity(limits.duration_max_s, Kind.DURATION, digits=4)}",
    ]
    low, high = limits.temperature_min_degC, limits.temperature_max_degC
    if math.isfinite(low) or math.isfinite(high):
        said.append(f"temperature {low:g} degC .. {high:g} degC")
    else:
        said.append("temperature not limited")
    return "; ".join(said)


def alarm_text(alarm: AlarmRule) -> str:
    """When an alarm is raised, and when it clears where that is not when it is over."""
    match alarm:
        case RetentionAlarm():
            return _retention_text(alarm)
        case DropAlarm():
            return (
                f"discharge capacity down by more than {_part(alarm.more_than)} in one cycle and "
                f"{_cycles(alarm.confirmed_by)} more; clears after {_cycles(alarm.steady_cycles)} "
                "without change"
            )
        case EfficiencyAlarm():
            said = (
                f"efficiency below {_part(alarm.below)}, above {_part(alarm.above)} or unusually "
                f"low in {alarm.enough_cycles} of {_cycles(alarm.of_cycles)}"
            )
            return f"{said}, unless it was so at first" if alarm.by_default else said
        case FadeAlarm():
            return (
                f"discharge capacity fading by {_part(alarm.at_least)} a cycle or more, and "
                f"{alarm.times:g} times as fast as at first"
            )
        case KneeAlarm():
            return f"discharge capacity falling faster for {_cycles(alarm.confirmed_by)} or more"
        case TemperatureAlarm():
            sides = []
            if math.isfinite(alarm.above_degC):
                sides.append(f"above {alarm.above_degC:g} degC")
            if math.isfinite(alarm.below_degC):
                sides.append(f"below {alarm.below_degC:g} degC")
            if math.isfinite(alarm.rate_K_per_s):
                rate = format_quantity(alarm.rate_K_per_s, Kind.TEMPERATURE_RATE, digits=4)
                sides.append(f"changing by more than {rate}")
            time = format_quantity(alarm.for_s, Kind.DURATION, digits=4)
            return f"temperature {' or '.join(sides)} for {time}"


def _retention_text(alarm: RetentionAlarm) -> str:
    reference = f"cycle {alarm.reference_first}"
    if alarm.reference_last > alarm.reference_first:
        reference = f"the median of cycles {alarm.reference_first} to {alarm.reference_last}"
    what = f"median discharge capacity of {alarm.over_cycles} cycles"
    if alarm.over_cycles == 1:
        what = "discharge capacity of a cycle"
    clears = format_quantity(alarm.clears_at, Kind.FRACTION)
    return f"{what} below {_part(alarm.below)} of {reference}; clears at {clears}"


def _part(fraction: float) -> str:
    return format_quantity(fraction, Kind.FRACTION)


def _cycles(count: int) -> str:
    return f"{count} cycle{'' if count == 1 else 's'}"


def loop_text(loop: Loop) -> str:
    """The head of a loop: how often, of which class, and until when."""
    unit = "cycle" if loop.counts_cycles else "pass"
    many = f"{loop.count:,} {unit}{'' if loop.count == 1 else 'es' if unit == 'pass' else 's'}"
    if loop.counts_cycles and loop.cycle_class != DEFAULT_CLASS:
        many += f" of class '{loop.cycle_class}'"
    if loop.until:
        many += ", or until " + " or ".join(condition_text(one) for one in loop.until)
    return f"{many}:"


_FIGURES: dict[CycleFigure, tuple[str, Kind]] = {
    CycleFigure.CHARGE_AH: ("charge capacity", Kind.CHARGE),
    CycleFigure.DISCHARGE_AH: ("discharge capacity", Kind.CHARGE),
    CycleFigure.CHARGE_WH: ("charge energy", Kind.ENERGY),
    CycleFigure.DISCHARGE_WH: ("discharge energy", Kind.ENERGY),
    CycleFigure.COULOMBIC_EFFICIENCY: ("efficiency", Kind.FRACTION),
}


def condition_text(condition: Condition) -> str:
    """A compiled condition as a person says it."""
    if isinstance(condition, EndedBy):
        return f"the step before ended by {WORD_OF_QUANTITY[condition.quantity]}"
    what, kind = _FIGURES[condition.figure]
    side = "below" if condition.comparison is Comparison.AT_MOST else "above"
    if condition.of_first <= 0:
        return f"{what} {side} {format_quantity(condition.value, kind, digits=4)}"
    cycles = f"cycle {condition.of_first}"
    if condition.of_last > condition.of_first:
        cycles = f"cycles {condition.of_first} .. {condition.of_last}"
    part = format_quantity(condition.value, Kind.FRACTION, digits=4)
    return f"{what} {side} {part} of {cycles}"


def control_text(step: Step) -> str:
    """What a step does, in amperes and volts."""
    match step.control:
        case Rest():
            return "no current"
        case ConstantCurrent(current_A=current_A):
            return current_text(current_A)
        case ConstantCurrentConstantVoltage(current_A=current_A, voltage_V=voltage_V):
            return f"{current_text(current_A)}, then {_voltage(voltage_V)}"
        case ConstantVoltage(voltage_V=voltage_V, max_current_A=most_A):
            return f"{_voltage(voltage_V)}, at most {current_text(most_A)}"
        case ConstantPower(power_W=power_W, max_current_A=most_A):
            return f"{format_quantity(power_W, Kind.POWER)}, at most {current_text(most_A)}"
        case ConstantResistance(resistance_ohm=ohm, max_current_A=most_A):
            return f"{format_quantity(ohm, Kind.RESISTANCE)}, at most {current_text(most_A)}"
        case VoltageSweep() as sweep:
            rate = format_quantity(sweep.rate_V_per_s, Kind.VOLTAGE_RATE)
            begin = "" if sweep.from_V is None else f"{_voltage(sweep.from_V)} "
            return f"{begin}to {_voltage(sweep.to_V)} at {rate}"
        case Impedance() as spectrum:
            high = format_quantity(spectrum.frequency_max_Hz, Kind.FREQUENCY)
            low = format_quantity(spectrum.frequency_min_Hz, Kind.FREQUENCY)
            kind = Kind.CURRENT if spectrum.galvanostatic else Kind.VOLTAGE
            return f"{high} to {low}, {format_quantity(spectrum.amplitude, kind)}"
        case Wait(signal=signal, prompt=prompt):
            return f"signal '{signal}'" if signal else "operator" if prompt else "until its time"
        case Signal(marker=marker):
            return f"marker '{marker}'"
        case SetTemperature(temperature_degC=degC):
            return f"{degC:g} degC"


_GOES = {
    Then.NEXT: "",
    Then.LEAVE_LOOP: ", then leaves the loop",
    Then.END_RUN: ", then the run ends",
}


def end_text(end: EndCondition, *, alone: bool) -> str:
    """What ends a step, and where it goes then. ``alone``: nothing else ends it."""
    said: str
    match end.quantity:
        case Quantity.VOLTAGE_V:
            said = f"until {end.comparison} {_voltage(end.value)}"
        case Quantity.CURRENT_A:
            said = f"until current {end.comparison} {current_text(end.value)}"
        case Quantity.STEP_CHARGE_AH:
            said = f"until {format_quantity(end.value, Kind.CHARGE)} passed"
        case Quantity.STEP_ENERGY_WH:
            said = f"until {format_quantity(end.value, Kind.ENERGY)} passed"
        case Quantity.RUN_CHARGE_AH:
            said = f"until the run's charge {end.comparison} " + format_quantity(
                end.value, Kind.CHARGE
            )
        case Quantity.VOLTAGE_SLOPE_V_PER_S:
            rate = format_quantity(end.value, Kind.VOLTAGE_RATE)
            said = f"until dV/dt {end.comparison} {rate}"
        case Quantity.TEMPERATURE_DEGC:
            said = f"until {end.comparison} {end.value:g} degC"
        case Quantity.STEP_TIME_S:
            time = format_quantity(end.value, Kind.DURATION, digits=4)
            said = f"{'for' if alone else 'at most'} {time}"
    return said + _GOES[end.then] + (f": {end.reason}" if end.reason else "")


def _voltage(value: float) -> str:
    return format_quantity(value, Kind.VOLTAGE)


def current_text(value: float) -> str:
    """A current in A as it is shown everywhere."""
    return format_quantity(value, Kind.CURRENT, digits=4)
