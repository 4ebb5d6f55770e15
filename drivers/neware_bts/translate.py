"""A Program as a BTS step file, or the reasons why it cannot be one. No I/O.

Steps are numbered depth first in the order written; after the body of a loop comes its CYCLE step,
unless it has one pass. An end that leaves a loop leads to the step after that. The protections of
the whole file are the Program's limits, number for number; a step with limits of its own carries
them besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from labctl.drivers.base import Capabilities
from labctl.drivers.neware_bts.controls import Bounds, direction_of, file_step, protection_of
from labctl.drivers.neware_bts.refusals import (
    MAX_STEPS,
    refusals_of_choices,
    refusals_of_limits,
    refusals_of_loops,
)
from labctl.drivers.neware_bts.steps import FileStep, RecordConditions, StepFile, StepType
from labctl.errors import PlanError
from labctl.program import HOST_CONTROLS, Limits, Loop, Node, Program, Step, inner_bodies

__all__ = [
    "Translation",
    "direction_of",
    "limits_of",
    "longest_duration_s",
    "protection_of",
    "refusals",
    "step_numbers",
    "translate",
]


@dataclass(frozen=True, slots=True)
class Translation:
    """``step_of_number[n]`` is the index in ``Program.steps`` of step ``n`` of the file.

    Numbers of CYCLE and END steps are not in it.
    """

    file: StepFile
    step_of_number: dict[int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """A node that takes a step in the file; a loop stands for its CYCLE step.

    ``first`` is where a loop's body begins; ``leave_to`` the step after the innermost loop around
    the node, None without one.
    """

    number: int
    node: Step | Loop
    first: int
    leave_to: int | None


def translate(
    program: Program,
    capabilities: Capabilities,
    *,
    temperature_watched_elsewhere: bool = False,
    remark: str = "",
) -> Translation:
    """The file that runs ``program``, all of it onboard.

    Raises:
        PlanError: with every reason why BTS cannot run it.
    """
    bounds = Bounds(program.limits, capabilities, temperature_watched_elsewhere)
    refused = refusals_of_limits(program.limits, capabilities, temperature_watched_elsewhere)
    refused += refusals_of_choices(program.body)
    refused += refusals_of_loops(program.body)
    lines = list(_lines(program.body))
    steps: list[FileStep] = []
    for line in lines:
        node = line.node
        if isinstance(node, Loop):
            made = FileStep(
                line.number, StepType.CYCLE, start_step=line.first, cycle_count=node.count
            )
        elif isinstance(node.control, HOST_CONTROLS):
            made = FileStep(line.number, StepType.REST)
        else:
            made, reasons = file_step(node, line.number, bounds, line.leave_to)
            refused += [f"{_name_of(node)} {reason}" for reason in reasons]
        steps.append(made)
    if not steps:
        refused.append("the program has no steps")
    if any(step.index != place for place, step in enumerate(program.steps)):
        refused.append("the steps of the program are not numbered in their order")
    if len(steps) + 1 > MAX_STEPS:
        refused.append(
            f"the program takes {len(steps) + 1} steps of a step file, which holds {MAX_STEPS}: "
            "write repetitions as loops, or cut the recipe in two"
        )
    if refused:
        raise PlanError(refused)
    steps.append(FileStep(len(steps) + 1, StepType.END))
    file = StepFile(
        steps=tuple(steps),
        protection=protection_of(program.limits),
        record=steps[0].record or RecordConditions(),
        remark=remark,
    )
    return Translation(file, _step_of_number(lines))


def refusals(
    program: Program, capabilities: Capabilities, *, temperature_watched_elsewhere: bool = False
) -> tuple[str, ...]:
    """Why BTS cannot run a program of which the host does what no step file can do.

    A program that is the channel's alone is judged as a whole. Of another one, which the host runs
    stretch by stretch, each step and each loop that is the channel's is.
    """
    if not refusals_of_choices(program.body):
        try:
            translate(
                program, capabilities, temperature_watched_elsewhere=temperature_watched_elsewhere
            )
        except PlanError as error:
            return error.refusals
        return ()
    bounds = Bounds(program.limits, capabilities, temperature_watched_elsewhere)
    refused = refusals_of_limits(program.limits, capabilities, temperature_watched_elsewhere)
    refused += _refusals_onboard(program.body)
    for line in _lines(program.body):
        if isinstance(line.node, Step) and not isinstance(line.node.control, HOST_CONTROLS):
            _, reasons = file_step(line.node, line.number, bounds, line.leave_to)
            refused += [f"{_name_of(line.node)} {reason}" for reason in reasons]
    return tuple(refused)


def step_numbers(program: Program) -> dict[int, int]:
    """``Translation.step_of_number`` of a program that was translated before."""
    return _step_of_number(_lines(program.body))


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


def _lines(body: tuple[Node, ...], first: int = 1, leave_to: int | None = None) -> Iterator[Line]:
    """Every node that takes a step in the file, in its order; ``first`` numbers the first."""
    number = first
    for node in body:
        if isinstance(node, Step):
            yield Line(number, node, number, leave_to)
            number += 1
            continue
        begins = number
        inside = [inner for part in inner_bodies(node) for inner in part]
        number += _numbers_taken(tuple(inside))
        turns = isinstance(node, Loop) and node.count != 1
        after = number + turns if isinstance(node, Loop) else leave_to
        yield from _lines(tuple(inside), begins, after)
        if isinstance(node, Loop) and turns:
            yield Line(number, node, begins, leave_to)
            number += 1


def _numbers_taken(body: tuple[Node, ...]) -> int:
    return sum(
        isinstance(node, Step)
        + (isinstance(node, Loop) and node.count != 1)
        + sum(_numbers_taken(inner) for inner in inner_bodies(node))
        for node in body
    )


def _step_of_number(lines: Iterator[Line] | list[Line]) -> dict[int, int]:
    return {line.number: line.node.index for line in lines if isinstance(line.node, Step)}


def _refusals_onboard(body: tuple[Node, ...]) -> list[str]:
    """Of the loops that are the channel's, among others that are the host's."""
    refused: list[str] = []
    for node in body:
        if not refusals_of_choices((node,)):
            refused += refusals_of_loops((node,))
        else:
            for inner in inner_bodies(node):
                refused += _refusals_onboard(inner)
    return refused


def _name_of(step: Step) -> str:
    label = f" ({step.label})" if step.label else ""
    line = f" of line {step.line}" if step.line else ""
    return f"step {step.index + 1}{label}{line}"
