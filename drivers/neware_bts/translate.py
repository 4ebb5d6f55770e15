"""A Program as a BTS step file, or the reasons why it cannot be one. No I/O.

Steps are numbered depth first in the order written; after the body of a loop comes its CYCLE step.
The protections of the whole file are the Program's limits, number for number.

BTS has no limit on the time of a whole test, so every step gets one: its own end by time, else the
time after which the protection of the charge must have acted (constant current), else the longest
duration of the whole run. The host watches the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from labctl.drivers.base import Capabilities
from labctl.drivers.neware_bts.refusals import (
    MAX_STEP_TIME_S,
    MAX_STEPS,
    refusals_of_current,
    refusals_of_limits,
    refusals_of_loops,
    refusals_of_voltage,
)
from labctl.drivers.neware_bts.stepfile import (
    FileStep,
    Protection,
    RecordConditions,
    StepFile,
    StepType,
)
from labctl.errors import PlanError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    Limits,
    Node,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
)

CHARGE_TIME_MARGIN = 1.1
"""A constant current has passed the protection's charge after 1 of these; a step ends after 1.1."""


@dataclass(frozen=True, slots=True)
class Translation:
    """``step_of_number[n]`` is the index in ``Program.steps`` of step ``n`` of the file.

    Numbers of CYCLE and END steps are not in it.
    """

    file: StepFile
    step_of_number: dict[int, int]


def translate(
    program: Program,
    capabilities: Capabilities,
    *,
    temperature_watched_elsewhere: bool = False,
    remark: str = "",
) -> Translation:
    """The file that runs ``program``.

    Raises:
        PlanError: with every reason why BTS cannot run it.
    """
    refusals = refusals_of_limits(program.limits, capabilities, temperature_watched_elsewhere)
    refusals += refusals_of_loops(program.body)
    steps: list[FileStep] = []
    for number, node in enumerate(_in_file_order(program.body), start=1):
        if isinstance(node, Step):
            file_step, reasons = _file_step(node, number, program.limits, capabilities)
            refusals += [f"{_name_of(node)} {reason}" for reason in reasons]
        else:
            file_step = FileStep(
                number,
                StepType.CYCLE,
                start_step=number - _numbers_taken(node.body),
                cycle_count=node.count,
            )
        steps.append(file_step)
    if not steps:
        refusals.append("the program has no steps")
    if any(step.index != place for place, step in enumerate(program.steps)):
        refusals.append("the steps of the program are not numbered in their order")
    if len(steps) + 1 > MAX_STEPS:
        refusals.append(
            f"the program takes {len(steps) + 1} steps of a step file, which holds {MAX_STEPS}: "
            "write repetitions as loops, or cut the recipe in two"
        )
    if refusals:
        raise PlanError(refusals)
    steps.append(FileStep(len(steps) + 1, StepType.END))
    file = StepFile(
        steps=tuple(steps),
        protection=protection_of(program.limits),
        record=steps[0].record or RecordConditions(),
        remark=remark,
    )
    return Translation(file, step_numbers(program))


def step_numbers(program: Program) -> dict[int, int]:
    """``Translation.step_of_number`` of a program that was translated before."""
    return {
        number: node.index
        for number, node in enumerate(_in_file_order(program.body), start=1)
        if isinstance(node, Step)
    }


def protection_of(limits: Limits) -> Protection:
    """The protections of a whole file."""
    return Protection(
        voltage_upper_V=limits.voltage_max_V,
        voltage_lower_V=limits.voltage_min_V,
        current_upper_A=limits.current_max_A,
        current_lower_A=limits.current_min_A,
        capacity_upper_Ah=limits.step_charge_max_Ah,
    )


def limits_of(file: StepFile) -> Limits:
    """The limits that a file arms, however it came to be.

    A protection that is off is an infinite limit, and so are the temperatures, which the file does
    not bound. ``duration_max_s`` is the longest that the file can run: the time limit of every step
    as often as it is entered.
    """
    protection = file.protection

    def armed(value: float | None, off: float) -> float:
        return off if value is None else value

    return Limits(
        voltage_min_V=armed(protection.voltage_lower_V, -math.inf),
        voltage_max_V=armed(protection.voltage_upper_V, math.inf),
        current_min_A=armed(protection.current_lower_A, -math.inf),
        current_max_A=armed(protection.current_upper_A, math.inf),
        step_charge_max_Ah=armed(protection.capacity_upper_Ah, math.inf),
        duration_max_s=longest_duration_s(file),
    )


def longest_duration_s(file: StepFile) -> float:
    """The time limits of all steps, as often as each is entered; infinity where one has none."""
    upto = [0.0]
    for step in file.steps:
        if step.type is StepType.CYCLE:
            start = (step.start_step or 1) - 1
            passes = step.cycle_count or 0
            block_s = upto[-1] - upto[min(max(start, 0), len(upto) - 1)]
            added_s = block_s * max(0, passes - 1)
        elif step.type is StepType.END:
            added_s = 0.0
        else:
            added_s = math.inf if step.time_s is None else step.time_s
        upto.append(upto[-1] + added_s)
        if math.isinf(upto[-1]):
            return math.inf
    return upto[-1]


def direction_of(control: object) -> int:
    """1 where a control charges, -1 where it discharges, 0 at rest."""
    match control:
        case ConstantCurrent(current_A) | ConstantCurrentConstantVoltage(current_A):
            return 1 if current_A > 0 else -1
        case ConstantVoltage(charging=charging):
            return 1 if charging else -1
        case _:
            return 0


def _in_file_order(body: tuple[Node, ...]) -> Iterator[Node]:
    """Every node that takes a step in the file, in its order; a loop stands for its CYCLE step."""
    for node in body:
        if isinstance(node, Step):
            yield node
        else:
            yield from _in_file_order(node.body)
            if node.count > 1:
                yield node


def _numbers_taken(body: tuple[Node, ...]) -> int:
    return sum(1 for _ in _in_file_order(body))


def _name_of(step: Step) -> str:
    label = f" ({step.label})" if step.label else ""
    line = f" of line {step.line}" if step.line else ""
    return f"step {step.index + 1}{label}{line}"


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
}
"""Which end conditions a step of each type can have, and the field that holds each."""


def _file_step(
    step: Step, number: int, limits: Limits, capabilities: Capabilities
) -> tuple[FileStep, list[str]]:
    step_type, current_A, voltage_V = _setpoints(step)
    reasons: list[str] = []
    if current_A is not None:
        reasons += refusals_of_current(current_A, direction_of(step.control), limits, capabilities)
    if voltage_V is not None:
        reasons += refusals_of_voltage("holds", voltage_V, limits, capabilities)
    ends, reasons_of_ends = _ends(step, step_type)
    reasons += reasons_of_ends
    stop_voltage_V = ends.get("stop_voltage_V")
    if stop_voltage_V is not None:
        reasons += refusals_of_voltage("ends at", stop_voltage_V, limits, capabilities)
    stop_current_A = ends.get("stop_current_A")
    if stop_current_A is not None and current_A is not None and stop_current_A >= current_A:
        reasons.append(
            f"ends at {stop_current_A:g} A, which is not below its current of {current_A:g} A"
        )
    time_s = ends.get("time_s")
    if time_s is None:
        time_s = _time_bound_s(step_type, current_A, limits)
    if not 0 < time_s <= MAX_STEP_TIME_S:
        reasons.append(
            f"may last {time_s:g} s, and a step of a step file at most {MAX_STEP_TIME_S:g} s: give "
            "it an end by time, or the run a shorter duration"
        )
    record, reasons_of_record = _record(step.record, capabilities)
    return (
        FileStep(
            number,
            step_type,
            current_A=current_A,
            voltage_V=voltage_V,
            time_s=time_s,
            stop_voltage_V=stop_voltage_V,
            stop_current_A=stop_current_A,
            stop_capacity_Ah=ends.get("stop_capacity_Ah"),
            record=record,
        ),
        reasons + reasons_of_record,
    )


def _setpoints(step: Step) -> tuple[StepType, float | None, float | None]:
    """The type, the magnitude of the current in A and the voltage in V."""
    charging = direction_of(step.control) > 0
    match step.control:
        case ConstantCurrent(current_A):
            step_type = StepType.CC_CHARGE if charging else StepType.CC_DISCHARGE
            return step_type, abs(current_A), None
        case ConstantCurrentConstantVoltage(current_A, voltage_V):
            step_type = StepType.CCCV_CHARGE if charging else StepType.CCCV_DISCHARGE
            return step_type, abs(current_A), voltage_V
        case ConstantVoltage(voltage_V, max_current_A):
            step_type = StepType.CV_CHARGE if charging else StepType.CV_DISCHARGE
            return step_type, max_current_A, voltage_V
        case Rest():
            return StepType.REST, None, None


def _ends(step: Step, step_type: StepType) -> tuple[dict[str, float], list[str]]:
    possible = ENDS[step_type]
    values: dict[str, float] = {}
    reasons: list[str] = []
    for end in step.ends:
        field_name = possible.get((end.quantity, end.comparison))
        if field_name is None:
            known = ", ".join(f"{quantity} {comparison}" for quantity, comparison in possible)
            reasons.append(f"cannot end when {end}: a step of its kind ends by {known}")
        elif field_name in values:
            reasons.append(f"has two ends by {end.quantity}, a step of a step file holds one")
        elif not math.isfinite(end.value) or (
            end.value <= 0 and end.quantity is not Quantity.VOLTAGE_V
        ):
            reasons.append(f"cannot end when {end}: the value must be finite and above 0")
        else:
            values[field_name] = end.value
    if not step.ends:
        reasons.append("has no end")
    return values, reasons


def _time_bound_s(step_type: StepType, current_A: float | None, limits: Limits) -> float:
    if step_type in {StepType.CC_CHARGE, StepType.CC_DISCHARGE} and current_A:
        charge_time_s = 3600.0 * limits.step_charge_max_Ah / current_A
        bound_s = min(limits.duration_max_s, CHARGE_TIME_MARGIN * charge_time_s)
    else:
        bound_s = limits.duration_max_s
    return float(math.ceil(round(bound_s, 3))) if math.isfinite(bound_s) else bound_s


def _record(rule: RecordRule, capabilities: Capabilities) -> tuple[RecordConditions, list[str]]:
    def finite(value: float) -> float | None:
        return None if value == math.inf else value

    reasons = [
        f"has the record rule {name} {value:g}: it must be above 0"
        for name, value in (
            ("voltage_change_V", rule.voltage_change_V),
            ("current_change_A", rule.current_change_A),
        )
        if not value > 0
    ]
    if not rule.every_s >= capabilities.fastest_record_s:
        reasons.append(
            f"asks for a record every {rule.every_s:g} s, and the channel's fastest is "
            f"{capabilities.fastest_record_s:g} s"
        )
    conditions = RecordConditions(
        finite(rule.every_s), finite(rule.voltage_change_V), finite(rule.current_change_A)
    )
    if conditions == RecordConditions():
        reasons.append("has a record rule by which nothing is ever recorded")
    return conditions, reasons
