"""What a Program will do, before it does it: amperes and volts, limits, about how long.

What an instrument says to it comes from outside, as plain values: this knows no drivers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from labctl.model import Cell
from labctl.program import (
    Branch,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Control,
    Finish,
    Impedance,
    Leave,
    Loop,
    Node,
    Program,
    Step,
    VoltageSweep,
    Wait,
    limits_of_step,
)
from labctl.protocols.estimate import HOLD_S, Expected, expected
from labctl.protocols.extent import most_s
from labctl.protocols.words import (
    alarm_text,
    condition_text,
    control_text,
    current_text,
    end_text,
    limits_text,
    loop_text,
)
from labctl.units import Kind, format_quantity

JOURNAL_B_PER_RECORD = 92.0
ARCHIVE_B_PER_RECORD = 98.0
"""Measured with the data of ``benchmarks/archive.py``: 300,000 readings with their events, the size
of the batches that the journal keeps, and of the archive in SQLite with its indexes."""


class CurrentRangeLike(Protocol):
    """A current range of an instrument."""

    @property
    def full_scale_A(self) -> float:
        """Both ways."""
        ...

    @property
    def resolution_A(self) -> float:
        """Of a reading."""
        ...


class CapabilitiesLike(Protocol):
    """What a plan needs to know of an instrument; a driver's Capabilities are such."""

    @property
    def current_ranges(self) -> Sequence[CurrentRangeLike]:
        """Every range."""
        ...

    @property
    def fastest_record_s(self) -> float:
        """The shortest time between two readings."""
        ...


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line: a step (``number`` from 1), or a loop, a branch, a way out (``number`` 0)."""

    depth: int
    number: int
    what: str
    control: str = ""
    ends: str = ""


@dataclass(frozen=True, slots=True)
class RangeUse:
    """Steps (numbers from 1) whose current lies within a range and within no smaller one."""

    full_scale_A: float
    resolution_A: float
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """``expected`` is an estimate; ``longest_s`` is a bound.

    ``ranges`` are the current ranges that the steps need, the largest first; empty where no
    instrument is known. ``stretches`` say which steps run onboard and which the host does;
    ``refusals`` why the instrument cannot run it.
    """

    program: Program
    cell: Cell
    rows: tuple[PlanRow, ...]
    expected: Expected
    longest_s: float
    ranges: tuple[RangeUse, ...] = ()
    fastest_record_s: float = 0.0
    stretches: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def expected_s(self) -> float:
        """How long it is expected to take."""
        return self.expected.seconds

    @property
    def expected_records(self) -> int:
        """How many readings it is expected to keep."""
        return math.ceil(self.expected.records)

    @property
    def journal_B(self) -> float:
        """What its readings take in the journal, until the archive has them."""
        return self.expected_records * JOURNAL_B_PER_RECORD

    @property
    def archive_B(self) -> float:
        """What its readings take in the archive."""
        return self.expected_records * ARCHIVE_B_PER_RECORD


def make_plan(
    program: Program,
    cell: Cell,
    capabilities: CapabilitiesLike | None = None,
    *,
    stretches: Sequence[str] = (),
    refusals: Sequence[str] = (),
) -> Plan:
    """The plan of ``program``, compiled for ``cell``, on an instrument if one is given."""
    return Plan(
        program=program,
        cell=cell,
        rows=tuple(_rows(program.body, 0)),
        expected=expected(program, cell),
        longest_s=most_s(program.body),
        ranges=() if capabilities is None else _ranges(program, capabilities),
        fastest_record_s=0.0 if capabilities is None else capabilities.fastest_record_s,
        stretches=tuple(stretches),
        refusals=tuple(refusals),
    )


def plan_text(
    program: Program,
    cell: Cell,
    capabilities: CapabilitiesLike | None = None,
    *,
    stretches: Sequence[str] = (),
    refusals: Sequence[str] = (),
) -> str:
    """The plan as plain text."""
    plan = make_plan(program, cell, capabilities, stretches=stretches, refusals=refusals)
    texts = [_row_text(row) for row in plan.rows]
    steps = [text for text in texts if text[1]]
    widths = [max((len(row[column]) for row in steps), default=0) for column in (0, 1)]
    one_c = f"{cell.one_C_mA_per_g:g} mA/g, {format_quantity(cell.active_mass_g, Kind.MASS)}"
    lines = [
        f"{program.name}, on cell '{cell.name}'",
        f"1C is {current_text(cell.one_C_A)} ({one_c})",
        "",
    ]
    for what, control, ends in texts:
        lines.append(f"{what:<{widths[0]}}  {control:<{widths[1]}}  {ends}".rstrip())
    lines += ["", f"Limits: {limits_text(program.limits)}"]
    lines += _step_limits(program)
    lines += [f"Alarm: {alarm_text(alarm)}" for alarm in program.alarms]
    counts = f"Steps: {program.visit_count:,} in all, {len(program.steps):,} different"
    lines.append(f"{counts}; cycles: {program.cycle_count:,}")
    lines += _estimates(plan)
    lines += _on_the_instrument(plan)
    lines.append(f"Recipe: SHA-256 {program.recipe_sha256}")
    return "\n".join(lines) + "\n"


def _step_limits(program: Program) -> Iterator[str]:
    """The limits of steps that have their own, those of equal limits together."""
    own: dict[str, list[int]] = {}
    whole = limits_text(program.limits).split("; ")
    for step in program.steps:
        if step.limits is not None:
            parts = limits_text(limits_of_step(program, step)).split("; ")
            said = "; ".join(part for part in parts if part not in whole)
            own.setdefault(said, []).append(step.index + 1)
    for said, numbers in own.items():
        yield f"Limits of step{'s' if len(numbers) > 1 else ''} {_numbers(numbers)}: {said}"


def _estimates(plan: Plan) -> Iterator[str]:
    program, cell = plan.program, plan.cell
    one_hour = format_quantity(cell.one_C_A, Kind.CHARGE, digits=3)
    hold = format_quantity(HOLD_S, Kind.DURATION)
    made = f"{_about(plan.expected_s)} and {_rounded(plan.expected_records):,} readings"
    if plan.expected.spectra:
        count = f"{plan.expected.spectra:,.0f}"
        made += f", {count} spectr{'um' if count == '1' else 'a'}"
    if_so = f"if each charge and discharge passes {one_hour} (1C for one hour)"
    yield f"Estimated: {made}, {if_so} and each hold takes {hold}"
    passed = [
        f"{format_quantity(charge_Ah, Kind.CHARGE, digits=2)} {way}"
        for charge_Ah, way in (
            (plan.expected.charge_Ah, "charged"),
            (plan.expected.discharge_Ah, "discharged"),
        )
        if charge_Ah > 0
    ]
    if passed:
        yield f"Charge: about {' and '.join(passed)} in all"
    if any(isinstance(step.control, Wait) for step in program.steps):
        yield "Not counted: the time for which it waits for something outside"
    yield (
        f"Disk: about {_bytes(plan.archive_B)} in the archive, and {_bytes(plan.journal_B)} in the "
        "journal until they are there"
    )
    yield f"At most: {_about(plan.longest_s)}, if every step took its longest"


def _on_the_instrument(plan: Plan) -> Iterator[str]:
    for use in plan.ranges:
        scale, resolution = current_text(use.full_scale_A), current_text(use.resolution_A)
        steps = f"step{'s' if len(use.steps) > 1 else ''} {_numbers(use.steps)}"
        yield f"Current range: {scale}, to {resolution}, for {steps}"
    too_fast = [
        step.index + 1 for step in plan.program.steps if step.record.every_s < plan.fastest_record_s
    ]
    if too_fast:
        fastest = format_quantity(plan.fastest_record_s, Kind.DURATION)
        yield f"Readings: not faster than every {fastest}, in steps {_numbers(too_fast)}"
    yield from (f"Runs: {stretch}" for stretch in plan.stretches)
    yield from (f"Refused: {refusal}" for refusal in plan.refusals)


def _ranges(program: Program, capabilities: CapabilitiesLike) -> tuple[RangeUse, ...]:
    ranges = sorted(capabilities.current_ranges, key=lambda one: one.full_scale_A)
    used: dict[int, list[int]] = {}
    for step in program.steps:
        current_A = _largest_current_A(step.control)
        place = next((n for n, one in enumerate(ranges) if one.full_scale_A >= current_A), None)
        if current_A > 0 and place is not None:
            used.setdefault(place, []).append(step.index + 1)
    return tuple(
        RangeUse(ranges[place].full_scale_A, ranges[place].resolution_A, tuple(used[place]))
        for place in sorted(used, reverse=True)
    )


def _largest_current_A(control: Control) -> float:
    match control:
        case ConstantCurrent(current_A=signed) | ConstantCurrentConstantVoltage(current_A=signed):
            return abs(signed)
        case (
            ConstantVoltage(max_current_A=most_A)
            | ConstantPower(max_current_A=most_A)
            | ConstantResistance(max_current_A=most_A)
            | VoltageSweep(max_current_A=most_A)
            | Impedance(max_current_A=most_A)
        ):
            return most_A
        case _:
            return 0.0


def _rows(body: tuple[Node, ...], depth: int) -> Iterator[PlanRow]:
    for node in body:
        match node:
            case Step():
                ends = "; ".join(end_text(end, alone=len(node.ends) == 1) for end in node.ends)
                yield PlanRow(depth, node.index + 1, node.label, control_text(node), ends)
            case Loop():
                yield PlanRow(depth, 0, loop_text(node))
                yield from _rows(node.body, depth + 1)
            case Branch():
                word = "if" if node.then else "unless"
                yield PlanRow(depth, 0, f"{word} {condition_text(node.condition)}:")
                yield from _rows(node.then, depth + 1)
                if node.then and node.otherwise:
                    yield PlanRow(depth, 0, "else:")
                yield from _rows(node.otherwise, depth + 1)
            case Leave():
                yield PlanRow(depth, 0, "leave the loop")
            case Finish():
                yield PlanRow(depth, 0, f"stop: {node.reason}")


def _row_text(row: PlanRow) -> tuple[str, str, str]:
    number = f"{row.number:>4}" if row.number else "    "
    return f"{number}  {'  ' * row.depth}{row.what}", row.control, row.ends


def _numbers(numbers: Sequence[int]) -> str:
    """'1, 3-5, 8'."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in groups)


def _about(seconds: float) -> str:
    return format_quantity(seconds, Kind.DURATION, digits=3)


def _bytes(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{float(f'{count / size:.2g}'):g} {unit}"
    return f"{count:.0f} B"


def _rounded(count: int) -> int:
    """To two digits: more would promise too much."""
    size = int(10 ** max(0, len(str(count)) - 2))
    return round(count / size) * size
