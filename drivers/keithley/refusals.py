"""Why a SourceMeter cannot run a Program, one sentence for each reason. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from labctl.drivers.base import Task
from labctl.drivers.keithley.config import (
    DIGITAL_OUTPUTS,
    TECHNIQUES,
    KeithleyConfig,
    holding,
)
from labctl.drivers.keithley.plan import stop_voltage
from labctl.drivers.nonsense import nonsense_in_limits, nonsense_in_step
from labctl.program import (
    HOST_CONTROLS,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    Limits,
    Program,
    Quantity,
    Signal,
    Step,
    VoltageSweep,
    limits_of_step,
    technique_of,
)

WHY_NOT: Final = {
    "impedance": "a SourceMeter has no analyser of frequency responses",
    "constant_power": "a SourceMeter keeps a voltage or a current, and a host that corrects either "
    "some times a second keeps no power in between",
    "constant_resistance": "a SourceMeter keeps a voltage or a current, and a host that corrects "
    "either some times a second is no resistor in between",
}


def refusals_of(program: Program, config: KeithleyConfig) -> tuple[str, ...]:
    """Every reason, without repeating one."""
    found: dict[str, None] = {}
    for step in program.steps:
        limits = limits_of_step(program, step)
        for reason in (*_of_step(step, limits, config), *_of_limits(limits, config)):
            found[reason] = None
    return tuple(found)


def refusals_of_task(task: Task, config: KeithleyConfig) -> tuple[str, ...]:
    """Why the instrument cannot make one visit; the host's own steps are none."""
    if isinstance(task.step.control, HOST_CONTROLS):
        kind = technique_of(task.step.control).replace("_", " ")
        return (f"step {task.step.label!r} is a {kind}, which is the host's and no visit",)
    name, limits = f"step {task.step.label!r}", task.limits
    done = (task.done_s, task.done_Ah)
    found = [*_of_step(task.step, limits, config), *_of_limits(limits, config)]
    if not all(math.isfinite(value) for value in done):
        found.append(f"{name} has been {done[0]:g} s and {done[1]:g} Ah already: that cannot be")
    return tuple(dict.fromkeys(found))


def _of_step(step: Step, limits: Limits, config: KeithleyConfig) -> Iterator[str]:
    name = f"step {step.label!r}"
    control = step.control
    technique = technique_of(control)
    if isinstance(control, HOST_CONTROLS):
        if isinstance(control, Signal) and control.output not in {"", *DIGITAL_OUTPUTS}:
            names = ", ".join(DIGITAL_OUTPUTS)
            yield f"{name}: there is no output {control.output!r}; there are {names}"
        return
    if technique not in TECHNIQUES:
        reason = WHY_NOT.get(technique, "that is not known to this driver")
        yield f"{name} is {technique.replace('_', ' ')}: {reason}"
        return
    if wrong := (*nonsense_in_step(step), *nonsense_in_limits(limits)):
        yield from wrong
        return
    if any(end.quantity is Quantity.TEMPERATURE_DEGC for end in step.ends):
        yield f"{name} ends by temperature, and a SourceMeter measures none"
    match control:
        case ConstantCurrent(current_A=current_A):
            yield from _of_current(name, current_A, limits, config)
            level_V, end = stop_voltage(step, limits, charging=current_A > 0)
            yield from _of_voltage(name, end.value if end else level_V, limits, config)
        case ConstantCurrentConstantVoltage(current_A=current_A, voltage_V=voltage_V):
            yield from _of_current(name, current_A, limits, config)
            yield from _of_voltage(name, voltage_V, limits, config)
        case ConstantVoltage(voltage_V=voltage_V, max_current_A=most_A):
            yield from _of_current(name, most_A, limits, config)
            yield from _of_voltage(name, voltage_V, limits, config)
        case VoltageSweep(from_V=from_V, to_V=to_V, rate_V_per_s=rate, max_current_A=most_A):
            yield from _of_current(name, most_A, limits, config)
            for voltage_V in (to_V,) if from_V is None else (from_V, to_V):
                yield from _of_voltage(name, voltage_V, limits, config)
            fastest = config.sweep_step_V / (2 * config.reading_s)
            if rate > fastest:
                yield (
                    f"{name} sweeps at {rate * 1e3:g} mV/s: in stairs of "
                    f"{config.sweep_step_V * 1e3:g} mV, each measured, {fastest * 1e3:.3g} mV/s is "
                    "the fastest"
                )
        case _:
            pass


def _of_current(
    name: str, current_A: float, limits: Limits, config: KeithleyConfig
) -> Iterator[str]:
    kind = config.kind
    magnitude_A = abs(current_A)
    if not kind.limit_min_A <= magnitude_A or math.isinf(
        holding(magnitude_A, kind.current_ranges_A)
    ):
        yield (
            f"{name} asks for {current_A:g} A, and the instrument does {kind.limit_min_A:g} A to "
            f"{kind.current_ranges_A[-1]:g} A"
        )
    elif not limits.current_min_A <= current_A <= limits.current_max_A:
        yield (
            f"{name} asks for {current_A:g} A, beyond the limits {limits.current_min_A:g} A to "
            f"{limits.current_max_A:g} A"
        )


def _of_voltage(
    name: str, voltage_V: float, limits: Limits, config: KeithleyConfig
) -> Iterator[str]:
    if not config.voltage_min_V <= voltage_V <= config.voltage_max_V:
        yield (
            f"{name} needs a voltage of {voltage_V:g} V in the instrument, which is used from "
            f"{config.voltage_min_V:g} V to {config.voltage_max_V:g} V"
        )
    elif not limits.voltage_min_V <= voltage_V <= limits.voltage_max_V:
        yield (
            f"{name} goes to {voltage_V:g} V, outside the limits {limits.voltage_min_V:g} V to "
            f"{limits.voltage_max_V:g} V"
        )


def _of_limits(limits: Limits, config: KeithleyConfig) -> Iterator[str]:
    if not limits.voltage_min_V < limits.voltage_max_V:
        yield "the voltage limits leave no room between them"
    for value in (limits.voltage_min_V, limits.voltage_max_V):
        if math.isfinite(value) and not config.voltage_min_V <= value <= config.voltage_max_V:
            yield (
                f"the voltage limit {value:g} V is outside what the instrument is used for, "
                f"{config.voltage_min_V:g} V to {config.voltage_max_V:g} V"
            )
    temperatures = (limits.temperature_min_degC, limits.temperature_max_degC)
    if any(math.isfinite(value) for value in temperatures) and (
        not config.temperature_watched_elsewhere
    ):
        yield (
            f"the temperature limits {temperatures[0]:g} to {temperatures[1]:g} degC cannot be "
            "watched by a SourceMeter: leave them out, or set temperature_watched_elsewhere for an "
            "instrument whose cells are in a chamber with a protection of its own"
        )
