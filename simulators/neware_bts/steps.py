"""What the channel's processor makes of a step file: which steps it knows, and what it refuses.

What a reading of a sweep is called is chosen here, since nothing public says it.
"""

from __future__ import annotations

from labctl.drivers.neware_bts.stepfile import FileStep, Jump, StepFile, StepType, read_step_file
from labctl.errors import InstrumentError
from labctl.simulators.neware_bts.instrument import CURRENT_RANGES_A, VOLTAGE_MAX_V, range_for
from labctl.simulators.neware_bts.protection import tightest

MAX_STEPS = 10_000

STEP_NAMES = {
    StepType.CC_CHARGE: "cc",
    StepType.CC_DISCHARGE: "dc",
    StepType.CV_CHARGE: "cv",
    StepType.CV_DISCHARGE: "dv",
    StepType.CCCV_CHARGE: "cccv",
    StepType.CCCV_DISCHARGE: "cccd",
    StepType.CP_CHARGE: "cp",
    StepType.CP_DISCHARGE: "dp",
    StepType.CR_DISCHARGE: "dr",
    StepType.SWEEP: "lsv",
    StepType.REST: "rest",
    StepType.PAUSE: "pause",
    StepType.CYCLE: "cycle",
    StepType.END: "end",
}
CHARGING = {StepType.CC_CHARGE, StepType.CV_CHARGE, StepType.CCCV_CHARGE, StepType.CP_CHARGE}
DISCHARGING = {
    StepType.CC_DISCHARGE,
    StepType.CV_DISCHARGE,
    StepType.CCCV_DISCHARGE,
    StepType.CP_DISCHARGE,
    StepType.CR_DISCHARGE,
}
CURRENT_ONLY = {StepType.CC_CHARGE, StepType.CC_DISCHARGE}
BOTH_PHASES = {StepType.CCCV_CHARGE, StepType.CCCV_DISCHARGE}
VOLTAGE_ONLY = {StepType.CV_CHARGE, StepType.CV_DISCHARGE}
POWER = {StepType.CP_CHARGE, StepType.CP_DISCHARGE}
RUNNING = CHARGING | DISCHARGING | {StepType.SWEEP, StepType.REST}
"""Steps that take time."""


def unrunnable(file: StepFile) -> str:
    """Why the instrument would not start a file; '' if it would."""
    if not 1 <= len(file.steps) <= MAX_STEPS or file.steps[-1].type is not StepType.END:
        return f"a file has 1 to {MAX_STEPS} steps, and the last one is an end"
    for place, step in enumerate(file.steps, start=1):
        if step.number != place:
            return f"step {place} carries the number {step.number}"
        if problem := _unrunnable_step(step, file):
            return f"step {place}: {problem}"
    return ""


def read_runnable(data: bytes) -> StepFile | str:
    """A step file as the instrument would run it, or why it would not."""
    try:
        file = read_step_file(data)
    except InstrumentError as error:
        return str(error)
    return unrunnable(file) or file


def full_scale_A(step: FileStep, file: StepFile) -> float:
    """The range that a step runs in; 0 where the output is open.

    A step that sets no current runs in the smallest range that holds what its protections allow.
    """
    if step.type not in RUNNING or step.type is StepType.REST:
        return 0.0
    if step.current_A is not None:
        return range_for(step.current_A) or CURRENT_RANGES_A[-1]
    protection = tightest(file.protection, step.protection)
    bounds_A = [protection.current_upper_A, protection.current_lower_A]
    largest_A = max(CURRENT_RANGES_A[-1] if bound is None else abs(bound) for bound in bounds_A)
    return range_for(largest_A) or CURRENT_RANGES_A[-1]


def _unrunnable_step(step: FileStep, file: StepFile) -> str:
    if step.type is StepType.CYCLE:
        back = step.start_step or 0
        if not 1 <= back < step.number or file.steps[back - 1].type is StepType.CYCLE:
            return f"a cycle cannot go back to step {back}"
        return "" if step.cycle_count and step.cycle_count > 0 else "a cycle needs a count"
    problem = _unrunnable_setting(step)
    if problem:
        return problem
    if step.conditions and step.type not in RUNNING:
        return "only a step that runs has conditions"
    for condition in step.conditions:
        if condition.jump not in set(Jump) and not 1 <= condition.jump <= len(file.steps):
            return f"a condition leads to step {condition.jump}"
    ends = (step.time_s, step.stop_voltage_V, step.stop_current_A, step.stop_capacity_Ah)
    endless = all(end is None for end in ends) and not step.conditions and step.sweep is None
    return "nothing would end it" if step.type in RUNNING and endless else ""


def _unrunnable_setting(step: FileStep) -> str:
    magnitudes = (step.current_A, step.time_s, step.stop_current_A, step.stop_capacity_Ah)
    if any(value is not None and value < 0 for value in magnitudes):
        return "a current, time or capacity is negative"
    if step.type in CURRENT_ONLY | BOTH_PHASES and not step.current_A:
        return "the current is missing"
    if step.current_A is not None and range_for(step.current_A) is None:
        return f"no range holds {step.current_A} A"
    if step.type in VOLTAGE_ONLY | BOTH_PHASES and step.voltage_V is None:
        return "the voltage is missing"
    if step.type in POWER and not (step.power_W and step.power_W > 0):
        return "the power is missing"
    if step.type is StepType.CR_DISCHARGE and not (step.resistance_ohm and step.resistance_ohm > 0):
        return "the resistance is missing"
    voltages_V = [step.voltage_V, step.stop_voltage_V]
    if step.type is StepType.SWEEP:
        if step.sweep is None or not step.sweep.rate_V_per_s > 0:
            return "the sweep or its rate is missing"
        voltages_V += [step.sweep.from_V, step.sweep.to_V]
    if any(voltage_V is not None and abs(voltage_V) > VOLTAGE_MAX_V for voltage_V in voltages_V):
        return f"a voltage is outside +-{VOLTAGE_MAX_V} V"
    return ""
