"""Why a Rodeostat cannot run a Program, one sentence for each reason. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from labctl.drivers.rodeostat.config import FASTEST_S, TECHNIQUES, RodeostatConfig, range_name
from labctl.drivers.rodeostat.waveforms import LONGEST_S
from labctl.program import (
    HOST_CONTROLS,
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

NO_GALVANOSTAT: Final = "a Rodeostat has no galvanostat: it keeps a voltage, and no current"
WHY_NOT: Final = {
    "constant_current": NO_GALVANOSTAT,
    "constant_current_constant_voltage": NO_GALVANOSTAT,
    "constant_power": NO_GALVANOSTAT,
    "constant_resistance": NO_GALVANOSTAT,
    "impedance": "a Rodeostat has no analyser of frequency responses",
}
FASTEST_SWEEP_V: Final = 0.02
"""A sweep of which each sample is further on than this from the one before is none."""


def refusals_of(program: Program, config: RodeostatConfig) -> tuple[str, ...]:
    """Every reason, without repeating one."""
    found: dict[str, None] = {}
    for step in program.steps:
        limits = limits_of_step(program, step)
        for reason in (*_of_step(step, limits, config), *_of_limits(limits, config)):
            found[reason] = None
    return tuple(found)


def _of_step(step: Step, limits: Limits, config: RodeostatConfig) -> Iterator[str]:
    name = f"step {step.label!r}"
    control = step.control
    if isinstance(control, HOST_CONTROLS):
        if isinstance(control, Signal) and control.output:
            yield f"{name} pulses output {control.output!r}, and a Rodeostat has none"
        return
    technique = technique_of(control)
    if technique not in TECHNIQUES:
        reason = WHY_NOT.get(technique, "that is not known to this driver")
        yield f"{name} is {technique.replace('_', ' ')}: {reason}"
        return
    if any(end.quantity is Quantity.TEMPERATURE_DEGC for end in step.ends):
        yield f"{name} ends by temperature, and a Rodeostat measures none"
    match control:
        case VoltageSweep(from_V=from_V, to_V=to_V, rate_V_per_s=rate, max_current_A=most_A):
            yield from _of_current(name, most_A, limits, config)
            for voltage_V in (to_V,) if from_V is None else (from_V, to_V):
                yield from _of_voltage(name, voltage_V, limits, config)
            if rate * FASTEST_S > FASTEST_SWEEP_V:
                yield (
                    f"{name} sweeps at {rate:g} V/s: {FASTEST_SWEEP_V / FASTEST_S:g} V/s is the "
                    f"fastest of which every {FASTEST_SWEEP_V * 1e3:g} mV are measured"
                )
            if abs(to_V - (to_V if from_V is None else from_V)) / rate > LONGEST_S:
                yield f"{name} lasts longer than the {LONGEST_S:g} s that a test can"
        case ConstantVoltage(voltage_V=voltage_V, max_current_A=most_A, charging=charging):
            if charging:
                yield (
                    f"{name} charges at a constant voltage, and a Rodeostat has neither a limit of "
                    "its own nor a watchdog: if this computer stopped, it would go on"
                )
            yield from _of_current(name, most_A, limits, config)
            yield from _of_voltage(name, voltage_V, limits, config)
        case _:
            pass


def _of_current(name: str, most_A: float, limits: Limits, config: RodeostatConfig) -> Iterator[str]:
    if not range_name(config.current_ranges_A, most_A):
        yield (
            f"{name} may need {most_A:g} A, and a {config.variant} reads up to "
            f"{config.largest_A:g} A: say 'max_current' in the recipe"
        )
    allowed_A = min(limits.current_max_A, -limits.current_min_A)
    bound_A = config.current_bound_A
    if bound_A <= allowed_A:
        return
    if math.isinf(bound_A):
        yield (
            f"{name} passes current, and a Rodeostat has no limit of its own for it: put a "
            "resistor into the lead of the counter electrode and say how large it is in "
            "'counter_resistor_ohm'"
        )
    else:
        ohm = config.counter_resistor_ohm * bound_A / allowed_A if allowed_A > 0 else math.inf
        yield (
            f"{name} must stay within {allowed_A:g} A, and {config.counter_resistor_ohm:g} ohm in "
            f"the counter electrode's lead let {bound_A:g} A pass: {ohm:.3g} ohm would do"
        )


def _of_voltage(
    name: str, voltage_V: float, limits: Limits, config: RodeostatConfig
) -> Iterator[str]:
    if not config.voltage_min_V <= voltage_V <= config.voltage_max_V:
        yield (
            f"{name} goes to {voltage_V:g} V, and the instrument is used from "
            f"{config.voltage_min_V:g} V to {config.voltage_max_V:g} V"
        )
    elif not limits.voltage_min_V <= voltage_V <= limits.voltage_max_V:
        yield (
            f"{name} goes to {voltage_V:g} V, outside the limits {limits.voltage_min_V:g} V to "
            f"{limits.voltage_max_V:g} V"
        )


def _of_limits(limits: Limits, config: RodeostatConfig) -> Iterator[str]:
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
            "watched by a Rodeostat: leave them out, or set temperature_watched_elsewhere for an "
            "instrument whose cells are in a chamber with a protection of its own"
        )
