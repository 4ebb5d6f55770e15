"""From a checked recipe and a cell to a Program.

Every step gets a longest time, so a Program is finite by construction:

- a charge or discharge: 1.1 times what the step charge limit takes to pass at its current;
- a hold, or a charge that ends in one: the same at the current that ends it;
- a rest, and a hold that only ends by time: as written.

The charge limit is met before that time is over, so a cell that swallows charge trips the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from labctl.model import Cell
from labctl.program import (
    INFINITY,
    Limits,
    Loop,
    Node,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
)
from labctl.protocols.alarms import retention_alarm
from labctl.protocols.reader import MOST_STEPS, MOST_VISITS
from labctl.protocols.source import Problems
from labctl.protocols.structure import (
    WrittenFor,
    WrittenNode,
    WrittenRecipe,
    WrittenStep,
)
from labctl.protocols.techniques.base import Bench, record_rule
from labctl.protocols.written import Range, Written, note
from labctl.units import Amount, Kind, format_quantity

DEFAULT_RECORD = RecordRule(every_s=30.0)
DEFAULT_CLASS = "cycle"
DEFAULT_STEP_CHARGE_H = 5.0
"""The step charge limit, where none is written, is what 1C passes in this time."""
CURRENT_MARGIN = 1.2
"""The current limit, where neither recipe nor cell has one, over the recipe's largest current."""
DURATION_MARGIN = 1.05


def compile_structure(
    written: WrittenRecipe, cell: Cell, sha256: str, problems: Problems
) -> Program | None:
    """The Program of ``written`` on ``cell``, or None with what is wrong noted."""
    bench = _bench(written, cell, problems)
    body = _build(written.steps, bench)
    if problems.found:
        return None
    program = Program(
        name=written.name,
        recipe_sha256=sha256,
        cell=cell.name,
        body=_numbered(body, [0]),
        limits=_limits(written, bench, body),
        alarms=tuple(retention_alarm(one) for one in written.alarms.retention),
    )
    if len(program.steps) > MOST_STEPS or program.visit_count > MOST_VISITS:
        problems.add(
            written.steps_key.place,
            f"the program goes through {program.visit_count} steps, {len(program.steps)} of them "
            f"different; the most are {MOST_VISITS} and {MOST_STEPS}",
        )
    least_s, duration = _least_s(body), written.limits.duration
    if duration is not None and duration.value <= least_s:
        note(
            problems,
            duration.text,
            f"the rests alone take {format_quantity(least_s, Kind.DURATION)}, not less than the "
            f"duration limit of {duration}",
        )
    return None if problems.found else program


def most_s(body: tuple[Node, ...]) -> float:
    """The longest that a body can last: the sum of every visit's time end."""
    return _sum_s(body, longest_of_step_s)


def longest_of_step_s(step: Step) -> float:
    """The time end that every step has."""
    return min(end.value for end in step.ends if end.quantity is Quantity.STEP_TIME_S)


def _least_s(body: tuple[Node, ...]) -> float:
    return _sum_s(body, lambda step: longest_of_step_s(step) if _rests(step) else 0.0)


def _rests(step: Step) -> bool:
    return isinstance(step.control, Rest) and len(step.ends) == 1


def _sum_s(body: tuple[Node, ...], of_step: Callable[[Step], float]) -> float:
    return sum(
        of_step(node) if isinstance(node, Step) else node.count * _sum_s(node.body, of_step)
        for node in body
    )


def _bench(written: WrittenRecipe, cell: Cell, problems: Problems) -> Bench:
    limits = written.limits
    bench = Bench(
        cell=cell,
        problems=problems,
        record=record_rule(written.record, DEFAULT_RECORD, problems),
        voltage_min_V=cell.safe_voltage_min_V,
        voltage_max_V=cell.safe_voltage_max_V,
        current_min_A=-(cell.max_current_A or INFINITY),
        current_max_A=cell.max_current_A or INFINITY,
        step_charge_max_Ah=DEFAULT_STEP_CHARGE_H * cell.one_C_A,
    )
    if limits.voltage is not None:
        _narrow_voltage(limits.voltage, bench)
    if limits.current is not None:
        _narrow_current(limits.current, bench)
    if limits.step_charge is not None:
        charge_Ah = bench.amperes(limits.step_charge)
        if charge_Ah <= 0:
            bench.note(limits.step_charge.text, "the step charge limit must be more than 0")
        elif math.isfinite(charge_Ah):
            bench.step_charge_max_Ah = charge_Ah
    return bench


def _narrow_voltage(voltage: Written[Range[Amount]], bench: Bench) -> None:
    lower_V, upper_V = voltage.value.lower.value, voltage.value.upper.value
    cell = bench.cell
    if lower_V < cell.safe_voltage_min_V or upper_V > cell.safe_voltage_max_V:
        window = " .. ".join(
            format_quantity(edge, Kind.VOLTAGE)
            for edge in (cell.safe_voltage_min_V, cell.safe_voltage_max_V)
        )
        bench.note(
            voltage.text,
            f"the limits {voltage} are wider than the safe window of cell '{cell.name}', {window}",
            "narrow the limits, or leave them out to take the cell's",
        )
        return
    bench.voltage_min_V, bench.voltage_max_V = lower_V, upper_V


def _narrow_current(current: Written[Range[Amount]], bench: Bench) -> None:
    ends_A = [
        bench.amperes(Written(end, current.text))
        for end in (current.value.lower, current.value.upper)
    ]
    if any(math.isnan(end) for end in ends_A):
        return
    largest_A = bench.cell.max_current_A
    if largest_A is not None and max(abs(end) for end in ends_A) > largest_A:
        bench.note(
            current.text,
            f"the limit {current} is more than the largest current of cell '{bench.cell.name}', "
            f"{format_quantity(largest_A, Kind.CURRENT)}",
        )
        return
    bench.current_min_A, bench.current_max_A = ends_A


def _build(nodes: tuple[WrittenNode, ...], bench: Bench) -> tuple[Node, ...]:
    built: list[Node] = []
    for node in nodes:
        if isinstance(node, WrittenStep):
            bench.line = node.key.place.line
            built += node.technique.build(node.fields, bench)
        elif isinstance(node, WrittenFor):
            for one in node.passes:
                built += _build(one, bench)
        else:
            body = _build(node.body, bench)
            name = node.class_name.value if node.class_name else DEFAULT_CLASS
            built.append(Loop(node.count.value, body, node.counts_cycles, name))
    return tuple(built)


def _numbered(body: tuple[Node, ...], next_index: list[int]) -> tuple[Node, ...]:
    numbered: list[Node] = []
    for node in body:
        if isinstance(node, Step):
            numbered.append(msgspec.structs.replace(node, index=next_index[0]))
            next_index[0] += 1
        else:
            inner = _numbered(node.body, next_index)
            numbered.append(msgspec.structs.replace(node, body=inner))
    return tuple(numbered)


def _limits(written: WrittenRecipe, bench: Bench, body: tuple[Node, ...]) -> Limits:
    default_A = CURRENT_MARGIN * (bench.largest_current_A or bench.cell.one_C_A)
    temperature, duration = written.limits.temperature, written.limits.duration
    return Limits(
        voltage_min_V=bench.voltage_min_V,
        voltage_max_V=bench.voltage_max_V,
        current_min_A=-default_A if math.isinf(bench.current_min_A) else bench.current_min_A,
        current_max_A=default_A if math.isinf(bench.current_max_A) else bench.current_max_A,
        step_charge_max_Ah=bench.step_charge_max_Ah,
        duration_max_s=duration.value if duration else math.ceil(DURATION_MARGIN * most_s(body)),
        temperature_min_degC=temperature.value.lower.value if temperature else -INFINITY,
        temperature_max_degC=temperature.value.upper.value if temperature else INFINITY,
    )
