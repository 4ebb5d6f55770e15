"""What a Program will do, before it does it: amperes and volts, limits, about how long.

Times and numbers of readings are estimates: nobody knows the cell's capacity before it is measured.
A charge or discharge that ends by voltage is taken to pass what 1C passes in one hour, and a hold
to take :data:`HOLD_S`. The longest time is not estimated: it is the sum of the steps' own bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from labctl.model import Cell
from labctl.program import (
    INFINITY,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    EndCondition,
    Limits,
    Node,
    Program,
    Quantity,
    Rest,
    RetentionAlarm,
    Step,
)
from labctl.protocols.compiler import DEFAULT_CLASS, longest_of_step_s, most_s
from labctl.units import Kind, format_quantity

HOLD_S = 1800.0


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line: a step (``number`` from 1) or the head of a loop (``number`` 0)."""

    depth: int
    number: int
    what: str
    control: str = ""
    ends: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """``expected_s`` and ``expected_records`` are estimates; ``longest_s`` is a bound."""

    program: Program
    cell: Cell
    rows: tuple[PlanRow, ...]
    expected_s: float
    expected_records: int
    longest_s: float


def make_plan(program: Program, cell: Cell) -> Plan:
    """The plan of ``program``, compiled for ``cell``."""
    window_V = _window_V(program)
    seconds, records = _expected(program.body, cell, window_V)
    return Plan(
        program=program,
        cell=cell,
        rows=tuple(_rows(program.body, 0)),
        expected_s=seconds,
        expected_records=math.ceil(records),
        longest_s=most_s(program.body),
    )


def plan_text(program: Program, cell: Cell) -> str:
    """The plan as plain text."""
    plan = make_plan(program, cell)
    texts = [_row_text(row) for row in plan.rows]
    widths = [max(len(row[column]) for row in texts) for column in (0, 1)]
    one_c = f"{cell.one_C_mA_per_g:g} mA/g, {format_quantity(cell.active_mass_g, Kind.MASS)}"
    lines = [
        f"{program.name}, on cell '{cell.name}'",
        f"1C is {_current(cell.one_C_A)} ({one_c})",
        "",
    ]
    for what, control, ends in texts:
        lines.append(f"{what:<{widths[0]}}  {control:<{widths[1]}}  {ends}".rstrip())
    lines += ["", f"Limits: {limits_text(program.limits)}"]
    lines += [f"Alarm: {_alarm_text(alarm)}" for alarm in program.alarms]
    counts = f"Steps: {program.visit_count:,} in all, {len(program.steps):,} different"
    lines.append(f"{counts}; cycles: {program.cycle_count:,}")
    one_hour = format_quantity(cell.one_C_A, Kind.CHARGE, digits=3)
    hold = format_quantity(HOLD_S, Kind.DURATION)
    expected = f"{_about(plan.expected_s)} and {_rounded(plan.expected_records):,} readings"
    if_so = f"if each charge and discharge passes {one_hour} (1C for one hour)"
    lines.append(f"Estimated: {expected}, {if_so} and each hold takes {hold}")
    lines.append(f"At most: {_about(plan.longest_s)}, if every step took its longest")
    lines.append(f"Recipe: SHA-256 {program.recipe_sha256}")
    return "\n".join(lines) + "\n"


def limits_text(limits: Limits) -> str:
    """The limits as a person writes them."""
    said = [
        f"voltage {_voltage(limits.voltage_min_V)} .. {_voltage(limits.voltage_max_V)}",
        f"current {_current(limits.current_min_A)} .. {_current(limits.current_max_A)}",
        f"step charge {format_quantity(limits.step_charge_max_Ah, Kind.CHARGE, digits=4)}",
        f"duration {format_quantity(limits.duration_max_s, Kind.DURATION, digits=4)}",
    ]
    low, high = limits.temperature_min_degC, limits.temperature_max_degC
    if math.isfinite(low) or math.isfinite(high):
        said.append(f"temperature {low:g} degC .. {high:g} degC")
    else:
        said.append("temperature not limited")
    return "; ".join(said)


def _alarm_text(alarm: RetentionAlarm) -> str:
    reference = f"cycle {alarm.reference_first}"
    if alarm.reference_last > alarm.reference_first:
        reference = f"the median of cycles {alarm.reference_first} to {alarm.reference_last}"
    what = f"median discharge capacity of {alarm.over_cycles} cycles"
    if alarm.over_cycles == 1:
        what = "discharge capacity of a cycle"
    below = format_quantity(alarm.below, Kind.FRACTION)
    clears = format_quantity(alarm.clears_at, Kind.FRACTION)
    return f"{what} below {below} of {reference}; clears at {clears}"


def _rows(body: tuple[Node, ...], depth: int) -> Iterator[PlanRow]:
    for node in body:
        if isinstance(node, Step):
            ends = "; ".join(_end_text(end, alone=len(node.ends) == 1) for end in node.ends)
            yield PlanRow(depth, node.index + 1, node.label, _control_text(node), ends)
            continue
        unit = "cycle" if node.counts_cycles else "pass"
        many = f"{node.count:,} {unit}{'' if node.count == 1 else 'es' if unit == 'pass' else 's'}"
        named = node.counts_cycles and node.cycle_class != DEFAULT_CLASS
        of_class = f" of class '{node.cycle_class}'" if named else ""
        yield PlanRow(depth, 0, f"{many}{of_class}:")
        yield from _rows(node.body, depth + 1)


def _row_text(row: PlanRow) -> tuple[str, str, str]:
    number = f"{row.number:>4}" if row.number else "    "
    return f"{number}  {'  ' * row.depth}{row.what}", row.control, row.ends


def _control_text(step: Step) -> str:
    control = step.control
    if isinstance(control, Rest):
        return "no current"
    if isinstance(control, ConstantCurrent):
        return f"{_current(control.current_A)}"
    if isinstance(control, ConstantCurrentConstantVoltage):
        return f"{_current(control.current_A)}, then {_voltage(control.voltage_V)}"
    return f"{_voltage(control.voltage_V)}, at most {_current(control.max_current_A)}"


def _end_text(end: EndCondition, *, alone: bool) -> str:
    if end.quantity is Quantity.VOLTAGE_V:
        return f"until {end.comparison} {_voltage(end.value)}"
    if end.quantity is Quantity.CURRENT_A:
        return f"until current {end.comparison} {_current(end.value)}"
    if end.quantity is Quantity.STEP_CHARGE_AH:
        return f"until {format_quantity(end.value, Kind.CHARGE)} passed"
    return f"{'for' if alone else 'at most'} {format_quantity(end.value, Kind.DURATION, digits=4)}"


def _window_V(program: Program) -> float:
    """Between the lowest and the highest voltage that ends a step, else between the limits."""
    ends = [
        end.value
        for step in program.steps
        for end in step.ends
        if end.quantity is Quantity.VOLTAGE_V
    ]
    ends += [
        step.control.voltage_V
        for step in program.steps
        if isinstance(step.control, ConstantCurrentConstantVoltage | ConstantVoltage)
    ]
    if len(set(ends)) < 2:
        ends += [program.limits.voltage_min_V, program.limits.voltage_max_V]
    return max(ends) - min(ends)


def _expected(body: tuple[Node, ...], cell: Cell, window_V: float) -> tuple[float, float]:
    """Seconds and readings of a body."""
    seconds = records = 0.0
    for node in body:
        if isinstance(node, Step):
            one_s = _expected_step_s(node, cell)
            seconds += one_s
            records += _expected_records(node, one_s, window_V)
        else:
            inner_s, inner_records = _expected(node.body, cell, window_V)
            seconds += node.count * inner_s
            records += node.count * inner_records
    return seconds, records


def _expected_step_s(step: Step, cell: Cell) -> float:
    control, longest_s = step.control, longest_of_step_s(step)
    if isinstance(control, Rest):
        return longest_s
    if isinstance(control, ConstantVoltage):
        return min(longest_s, HOLD_S)
    by_voltage = isinstance(control, ConstantCurrentConstantVoltage) or any(
        end.quantity is Quantity.VOLTAGE_V for end in step.ends
    )
    charge_Ah = cell.one_C_A if by_voltage else INFINITY
    for end in step.ends:
        if end.quantity is Quantity.STEP_CHARGE_AH:
            charge_Ah = min(charge_Ah, end.value)
    seconds = charge_Ah / abs(control.current_A) * 3600.0
    if isinstance(control, ConstantCurrentConstantVoltage):
        seconds += HOLD_S
    return min(longest_s, seconds)


def _expected_records(step: Step, seconds: float, window_V: float) -> float:
    rule, control = step.record, step.control
    records = 2 + seconds / rule.every_s
    if isinstance(control, ConstantCurrent | ConstantCurrentConstantVoltage):
        records += window_V / rule.voltage_change_V
    if isinstance(control, ConstantCurrentConstantVoltage):
        records += abs(control.current_A) / rule.current_change_A
    if isinstance(control, ConstantVoltage):
        records += control.max_current_A / rule.current_change_A
    return records


def _voltage(value: float) -> str:
    return format_quantity(value, Kind.VOLTAGE)


def _current(value: float) -> str:
    return format_quantity(value, Kind.CURRENT, digits=4)


def _about(seconds: float) -> str:
    return format_quantity(seconds, Kind.DURATION, digits=3)


def _rounded(count: int) -> int:
    """To two digits: more would promise too much."""
    size = int(10 ** max(0, len(str(count)) - 2))
    return round(count / size) * size
