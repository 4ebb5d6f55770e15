"""Why a PalmSens instrument cannot run a Program, one sentence for each reason. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator

from labctl.drivers.base import Task
from labctl.drivers.nonsense import nonsense_in_limits, nonsense_in_step
from labctl.drivers.palmsens.config import GALVANOSTAT_TECHNIQUES, PalmSensConfig
from labctl.drivers.palmsens.pace import LONGEST_S
from labctl.drivers.palmsens.stages import bandwidth_Hz
from labctl.drivers.palmsens.techniques import (
    frequencies,
    script_of,
    sweep_step_V,
    sweep_window,
)
from labctl.program import (
    HOST_CONTROLS,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    Impedance,
    Limits,
    Program,
    Quantity,
    Signal,
    Step,
    VoltageSweep,
    limits_of_step,
    technique_of,
)

LARGEST_STEP_V = 0.02
"""A sweep in higher stairs is none."""
MOST_FREQUENCIES = 1000
MOST_AH = 1e3


def refusals_of(program: Program, config: PalmSensConfig) -> tuple[str, ...]:
    """Every reason, without repeating one."""
    found: dict[str, None] = {}
    for step in program.steps:
        limits = limits_of_step(program, step)
        wrong = [*_of_step(step, limits, config), *_of_limits(limits, config)]
        if not wrong and not isinstance(step.control, HOST_CONTROLS):
            wrong = list(_of_script(step, limits, config))
        found |= dict.fromkeys(wrong)
    return tuple(found)


def refusals_of_task(task: Task, config: PalmSensConfig) -> tuple[str, ...]:
    """Why the instrument cannot make one visit; the host's own steps are none."""
    step, limits = task.step, task.limits
    name = f"step {step.label!r}"
    if isinstance(step.control, HOST_CONTROLS):
        kind = technique_of(step.control).replace("_", " ")
        return (f"{name} is a {kind}, which is the host's and no visit",)
    if not (0 <= task.done_s < LONGEST_S and abs(task.done_Ah) < MOST_AH):
        return (f"{name} has been {task.done_s:g} s and {task.done_Ah:g} Ah already: too much",)
    wrong = [*_of_step(step, limits, config), *_of_limits(limits, config)]
    return tuple(dict.fromkeys(wrong or _of_script(step, limits, config)))


def _of_step(step: Step, limits: Limits, config: PalmSensConfig) -> Iterator[str]:
    name = f"step {step.label!r}"
    control = step.control
    if isinstance(control, HOST_CONTROLS):
        if isinstance(control, Signal) and control.output not in {"", *config.outputs}:
            names = ", ".join(config.outputs)
            yield f"{name}: there is no output {control.output!r}; there are {names}"
        return
    technique = technique_of(control)
    words = technique.replace("_", " ")
    if technique not in config.techniques:
        why = f"an {config.model} has no such technique"
        if technique in GALVANOSTAT_TECHNIQUES:
            why = f"an {config.model} has no galvanostat, and so cannot hold or bound a current"
        yield f"{name} is {words}: {why}"
        return
    if wrong := (*nonsense_in_step(step), *nonsense_in_limits(limits)):
        yield from wrong
        return
    if any(end.quantity is Quantity.TEMPERATURE_DEGC for end in step.ends):
        yield f"{name} ends by temperature, and the instrument measures none"
    match control:
        case ConstantCurrent(current_A=current_A):
            yield from _of_current(name, current_A, limits, config)
        case ConstantCurrentConstantVoltage(current_A=current_A, voltage_V=voltage_V):
            yield from _of_current(name, current_A, limits, config)
            yield from _of_voltage(name, voltage_V, limits, config)
        case ConstantVoltage(voltage_V=voltage_V, max_current_A=most_A, charging=charging):
            yield from _of_current(name, most_A if charging else -most_A, limits, config)
            yield from _of_voltage(name, voltage_V, limits, config)
        case VoltageSweep():
            yield from _of_sweep(name, control, limits, config)
        case Impedance():
            yield from _of_impedance(name, control, limits, config)
        case _:
            pass


def _of_sweep(
    name: str, control: VoltageSweep, limits: Limits, config: PalmSensConfig
) -> Iterator[str]:
    for voltage_V in (control.to_V,) if control.from_V is None else (control.from_V, control.to_V):
        yield from _of_voltage(name, voltage_V, limits, config)
    yield from _of_magnitude(name, control.max_current_A, config)
    step_V = sweep_step_V(control, config)
    if step_V < config.kind.potential_step_V:
        yield (
            f"{name} sweeps by {step_V:g} V, and the finest step of an {config.model} is "
            f"{config.kind.potential_step_V:g} V"
        )
        return
    if step_V > LARGEST_STEP_V:
        fastest = LARGEST_STEP_V / config.kind.fastest_sample_s
        yield (
            f"{name} sweeps at {control.rate_V_per_s:g} V/s: in stairs of "
            f"{LARGEST_STEP_V * 1e3:g} mV, each measured, {fastest:.3g} V/s is the fastest"
        )
        return
    low_V, high_V = sweep_window(control, limits, config)
    bandwidth = bandwidth_Hz(max(step_V / control.rate_V_per_s, config.kind.fastest_sample_s))
    if config.kind.mode_for(low_V, high_V, bandwidth) is None:
        yield (
            f"{name} needs potentials from {low_V:g} V to {high_V:g} V at a time, and no mode of "
            f"an {config.model} reaches that far"
        )


def _of_impedance(
    name: str, control: Impedance, limits: Limits, config: PalmSensConfig
) -> Iterator[str]:
    kind = config.kind
    if control.galvanostatic and not kind.galvanostat:
        yield f"{name} is galvanostatic: an {config.model} has no galvanostat"
        return
    if control.frequency_max_Hz > kind.frequency_max_Hz * (1 + 1e-9):
        yield (
            f"{name} begins at {control.frequency_max_Hz:g} Hz, and an {config.model} measures "
            f"impedance up to {kind.frequency_max_Hz:g} Hz"
        )
    if not kind.frequency_min_Hz * (1 - 1e-9) <= control.frequency_min_Hz:
        yield (
            f"{name} goes down to {control.frequency_min_Hz:g} Hz, and an {config.model} down to "
            f"{kind.frequency_min_Hz:g} Hz"
        )
    if not 0 < control.frequency_min_Hz < control.frequency_max_Hz:
        yield f"{name} needs a lowest frequency below its highest, and both above 0"
    elif frequencies(control)[0] > MOST_FREQUENCIES:
        yield f"{name} has {frequencies(control)[0]} frequencies, at most {MOST_FREQUENCIES} fit"
    if control.galvanostatic:
        largest_A = abs(control.bias or 0.0) + math.sqrt(2) * control.amplitude
        yield from _of_magnitude(name, largest_A, config)
        if not limits.current_min_A <= -largest_A <= largest_A <= limits.current_max_A:
            yield f"{name} goes to {largest_A:g} A both ways, beyond the limits of the current"
        return
    yield from _of_magnitude(name, control.max_current_A, config)
    if not 0 < control.amplitude <= kind.amplitude_max_V:
        yield (
            f"{name} has an amplitude of {control.amplitude:g} V, and an {config.model} does up "
            f"to {kind.amplitude_max_V:g} V"
        )
    if control.bias is not None:
        for swing_V in (-1, 1):
            voltage_V = control.bias + swing_V * math.sqrt(2) * control.amplitude
            yield from _of_voltage(name, voltage_V, limits, config)


def _of_current(
    name: str, current_A: float, limits: Limits, config: PalmSensConfig
) -> Iterator[str]:
    wrong = list(_of_magnitude(name, current_A, config))
    if wrong:
        yield from wrong
    elif not limits.current_min_A <= current_A <= limits.current_max_A:
        yield (
            f"{name} asks for {current_A:g} A, beyond the limits {limits.current_min_A:g} A to "
            f"{limits.current_max_A:g} A"
        )


def _of_magnitude(name: str, current_A: float, config: PalmSensConfig) -> Iterator[str]:
    kind = config.kind
    smallest_A = kind.current_ranges_A[0] * kind.current_resolution
    if not smallest_A <= abs(current_A) or kind.range_for(current_A) is None:
        yield (
            f"{name} needs {current_A:g} A, and an {config.model} does {smallest_A:.3g} A to "
            f"{kind.current_max_A:g} A"
        )


def _of_voltage(
    name: str, voltage_V: float, limits: Limits, config: PalmSensConfig
) -> Iterator[str]:
    if not config.lowest_V <= voltage_V <= config.highest_V:
        yield (
            f"{name} goes to {voltage_V:g} V, and the instrument does {config.lowest_V:g} V to "
            f"{config.highest_V:g} V"
        )
    elif not limits.voltage_min_V <= voltage_V <= limits.voltage_max_V:
        yield (
            f"{name} goes to {voltage_V:g} V, outside the limits {limits.voltage_min_V:g} V to "
            f"{limits.voltage_max_V:g} V"
        )


def _of_limits(limits: Limits, config: PalmSensConfig) -> Iterator[str]:
    if not limits.voltage_min_V < limits.voltage_max_V:
        yield "the voltage limits leave no room between them"
    for value in (limits.voltage_min_V, limits.voltage_max_V):
        if math.isfinite(value) and not config.lowest_V <= value <= config.highest_V:
            yield (
                f"the voltage limit {value:g} V is outside what the instrument sees, "
                f"{config.lowest_V:g} V to {config.highest_V:g} V"
            )
    temperatures = (limits.temperature_min_degC, limits.temperature_max_degC)
    if any(math.isfinite(value) for value in temperatures) and (
        not config.temperature_watched_elsewhere
    ):
        yield (
            f"the temperature limits {temperatures[0]:g} to {temperatures[1]:g} degC cannot be "
            "watched by a potentiostat: leave them out, or set temperature_watched_elsewhere for "
            "an instrument whose cells are in a chamber with a protection of its own"
        )


def _of_script(step: Step, limits: Limits, config: PalmSensConfig) -> Iterator[str]:
    """What only shows in the script itself."""
    name = f"step {step.label!r}"
    longest_s = min(
        [
            limits.duration_max_s,
            *(end.value for end in step.ends if end.quantity is Quantity.STEP_TIME_S),
        ]
    )
    if longest_s > LONGEST_S:
        yield f"{name} can last {longest_s:g} s, and one script is run for {LONGEST_S:g} s at most"
    size = len(script_of(Task(step=step, limits=limits, tag=""), config).text())
    if size > config.kind.script_bytes:
        yield (
            f"{name} needs a script of {size} bytes, and an {config.model} holds "
            f"{config.kind.script_bytes}"
        )
