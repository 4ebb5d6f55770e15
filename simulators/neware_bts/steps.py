"""What the channel's processor makes of a step file: which steps it knows, and what it refuses."""

from __future__ import annotations

from labctl.drivers.neware_bts.stepfile import FileStep, StepFile, StepType, read_step_file
from labctl.errors import InstrumentError
from labctl.simulators.neware_bts.instrument import CURRENT_RANGES_A, VOLTAGE_MAX_V, range_for

MAX_STEPS = 10_000

STEP_NAMES = {
    StepType.CC_CHARGE: "cc",
    StepType.CC_DISCHARGE: "dc",
    StepType.CV_CHARGE: "cv",
    StepType.CV_DISCHARGE: "dv",
    StepType.CCCV_CHARGE: "cccv",
    StepType.CCCV_DISCHARGE: "cccd",
    StepType.REST: "rest",
    StepType.PAUSE: "pause",
    StepType.CYCLE: "cycle",
    StepType.END: "end",
}
CHARGING = {StepType.CC_CHARGE, StepType.CV_CHARGE, StepType.CCCV_CHARGE}
DISCHARGING = {StepType.CC_DISCHARGE, StepType.CV_DISCHARGE, StepType.CCCV_DISCHARGE}
CURRENT_ONLY = {StepType.CC_CHARGE, StepType.CC_DISCHARGE}
BOTH_PHASES = {StepType.CCCV_CHARGE, StepType.CCCV_DISCHARGE}
VOLTAGE_ONLY = {StepType.CV_CHARGE, StepType.CV_DISCHARGE}


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


def full_scale_A(step: FileStep) -> float:
    """The range that a step runs in; 0 where the output is open."""
    if step.type not in CHARGING | DISCHARGING:
        return 0.0
    if step.current_A is None:
        return CURRENT_RANGES_A[-1]
    return range_for(step.current_A) or CURRENT_RANGES_A[-1]


def _unrunnable_step(step: FileStep, file: StepFile) -> str:
    if step.type is StepType.CYCLE:
        back = step.start_step or 0
        if not 1 <= back < step.number or file.steps[back - 1].type is StepType.CYCLE:
            return f"a cycle cannot go back to step {back}"
        return "" if step.cycle_count and step.cycle_count > 0 else "a cycle needs a count"
    magnitudes = (step.current_A, step.time_s, step.stop_current_A, step.stop_capacity_Ah)
    if any(value is not None and value < 0 for value in magnitudes):
        return "a current, time or capacity is negative"
    if step.type in CURRENT_ONLY | BOTH_PHASES and not step.current_A:
        return "the current is missing"
    if step.current_A is not None and range_for(step.current_A) is None:
        return f"no range holds {step.current_A} A"
    if step.type in VOLTAGE_ONLY | BOTH_PHASES and step.voltage_V is None:
        return "the voltage is missing"
    if any(
        voltage_V is not None and abs(voltage_V) > VOLTAGE_MAX_V
        for voltage_V in (step.voltage_V, step.stop_voltage_V)
    ):
        return f"a voltage is outside +-{VOLTAGE_MAX_V} V"
    ends = (step.time_s, step.stop_voltage_V, step.stop_current_A, step.stop_capacity_Ah)
    if step.type in CHARGING | DISCHARGING | {StepType.REST} and all(end is None for end in ends):
        return "nothing would end it"
    return ""
