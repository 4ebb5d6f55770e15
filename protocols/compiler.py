"""From a checked recipe and a cell to a Program.

Every step gets a longest time, so a Program is finite by construction:

- a charge or discharge: 1.1 times what the step charge limit takes to pass at its current;
- a hold, or a charge that ends in one: the same at the current that ends it;
- a power or a resistor: the same at the smallest current that it can come to;
- a sweep: the time for its way, from open circuit the way from the far voltage limit;
- a pulse by charge: 1.1 times what it takes; a spectrum: ten periods and ten seconds a frequency;
- a rest, a hold that only ends by time, a pulse, a wait, a chamber: as written, or as
  docs/techniques.md says.

The charge limit is met before that time is over, so a cell that swallows charge trips the run.

What only a step's own end decides is written into that end, so that an instrument can do it by
itself: a step with an 'if' after it that leaves the loop, or stops, when one quantity ended it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence

import msgspec

from labctl.model import Cell
from labctl.program import (
    INFINITY,
    Branch,
    CycleResult,
    EndCondition,
    EndedBy,
    Finish,
    Leave,
    Limits,
    Loop,
    Node,
    Program,
    RecordRule,
    Step,
    Then,
)
from labctl.protocols.alarms import all_alarms
from labctl.protocols.conditions import build_condition
from labctl.protocols.extent import least_s, most_s, steps_of, with_steps
from labctl.protocols.limits import (
    Bounds,
    Fence,
    LimitsFields,
    StepLimitsFields,
    fence_of,
    narrowed,
)
from labctl.protocols.source import Place, Problems, Text
from labctl.protocols.structure import (
    MOST_STEPS,
    MOST_VISITS,
    Span,
    WrittenBranch,
    WrittenFor,
    WrittenInclude,
    WrittenLeave,
    WrittenLoop,
    WrittenNode,
    WrittenRecipe,
    WrittenStep,
    WrittenStop,
    cycles_of,
    cycles_of_node,
)
from labctl.protocols.techniques.base import Bench, record_rule
from labctl.protocols.written import note
from labctl.units import Kind, format_quantity

DEFAULT_RECORD = RecordRule(every_s=30.0)
DEFAULT_CLASS = "cycle"
DEFAULT_STEP_CHARGE_H = 5.0
"""The step charge limit, where none is written, is what 1C passes in this time."""
CURRENT_MARGIN = 1.2
"""The current limit, where nobody sets one, over the recipe's largest current."""
DURATION_MARGIN = 1.05
_NOWHERE = Text("", Place())


def compile_structure(
    written: WrittenRecipe, cell: Cell, sha256: str, bounds: Sequence[Bounds], problems: Problems
) -> Program | None:
    """The Program of ``written`` on ``cell`` within ``bounds``; None with what is wrong noted."""
    compiler = _Compiler(cell, fence_of(cell, bounds), problems)
    with compiler.narrowed(written.limits):
        fence = compiler.fence
        compiler.bench.record = record_rule(written.record, DEFAULT_RECORD, problems)
        body = compiler.build(written.steps, Span(), 0)
    if problems.found:
        return None
    limits, usual = compiler.whole_limits(fence, body)
    program = Program(
        name=written.name,
        recipe_sha256=sha256,
        cell=cell.name,
        body=_finished(body, limits, usual),
        limits=limits,
        alarms=all_alarms(written.alarms, cycles_of(written.steps).most),
    )
    if len(program.steps) > MOST_STEPS or program.visit_count > MOST_VISITS:
        problems.add(
            written.steps_key.place,
            f"the program goes through {program.visit_count} steps, {len(program.steps)} of them "
            f"different; the most are {MOST_VISITS} and {MOST_STEPS}",
        )
    _check_duration(written, fence, body, problems)
    return None if problems.found else program


def _check_duration(
    written: WrittenRecipe, fence: Fence, body: tuple[Node, ...], problems: Problems
) -> None:
    rests_s = least_s(body)
    if fence.duration is None or fence.duration.value > rests_s:
        return
    take = f"the rests alone take {format_quantity(rests_s, Kind.DURATION)}, not less than"
    if written.limits.duration is not None:
        limit = written.limits.duration
        note(problems, limit.text, f"{take} the duration limit of {limit}")
    else:
        limit_text = format_quantity(fence.duration.value, Kind.DURATION)
        where = fence.duration.seen_from(_NOWHERE)
        problems.add(written.steps_key.place, f"{take} the {limit_text} that {where} allow")


class _Compiler:
    """Builds nodes; the bench and the fence are those of the level that is being built."""

    def __init__(self, cell: Cell, fence: Fence, problems: Problems) -> None:
        self.fence = fence
        self.problems = problems
        self.bench = Bench(
            cell=cell,
            problems=problems,
            record=DEFAULT_RECORD,
            voltage_min_V=cell.safe_voltage_min_V,
            voltage_max_V=cell.safe_voltage_max_V,
            current_min_A=-INFINITY,
            current_max_A=INFINITY,
            step_charge_max_Ah=DEFAULT_STEP_CHARGE_H * cell.one_C_A,
        )
        self._set_bench()

    @contextlib.contextmanager
    def narrowed(self, fields: LimitsFields | StepLimitsFields | None) -> Iterator[None]:
        """While it lasts, what ``fields`` say holds as well."""
        around = self.fence
        if fields is not None:
            self.fence = narrowed(around, fields, self.bench.note, self.bench.amperes)
            self._set_bench()
        try:
            yield
        finally:
            self.fence = around
            self._set_bench()

    def _set_bench(self) -> None:
        bench, fence, cell = self.bench, self.fence, self.bench.cell
        lower, upper = fence.voltage_min, fence.voltage_max
        if lower is not None and upper is not None:
            bench.voltage_min_V, bench.voltage_max_V = lower.value, upper.value
            by_cell = (cell.safe_voltage_min_V, cell.safe_voltage_max_V)
            tighter = upper if lower.value == by_cell[0] else lower
            same = (lower.value, upper.value) == by_cell
            bench.voltage_limits_of = "" if same else tighter.seen_from(_NOWHERE)
        bench.current_min_A = fence.current_min.value if fence.current_min else -INFINITY
        bench.current_max_A = fence.current_max.value if fence.current_max else INFINITY
        low, high = fence.temperature_min, fence.temperature_max
        bench.temperature_min_degC = low.value if low else -INFINITY
        bench.temperature_max_degC = high.value if high else INFINITY
        low, high = fence.temperature_min, fence.temperature_max
        bench.temperature_min_degC = low.value if low else -INFINITY
        bench.temperature_max_degC = high.value if high else INFINITY
        bench.step_charge_max_Ah = (
            fence.step_charge.value if fence.step_charge else DEFAULT_STEP_CHARGE_H * cell.one_C_A
        )

    def build(
        self, nodes: tuple[WrittenNode, ...], cycles: Span, began_after: int
    ) -> tuple[Node, ...]:
        """The nodes of a list of steps.

        Args:
            nodes: the list.
            cycles: how many have ended before it.
            began_after: the cycles that had ended when the recipe began that the list is in.
        """
        built: list[Node] = []
        for node in nodes:
            built += self._node(node, built, cycles, began_after)
            cycles += cycles_of_node(node)
        return tuple(built)

    def _node(
        self, node: WrittenNode, before: list[Node], cycles: Span, began_after: int
    ) -> tuple[Node, ...]:
        match node:
            case WrittenStep():
                return self._step(node)
            case WrittenFor():
                unrolled: list[Node] = []
                for one in node.passes:
                    unrolled += self.build(one, cycles, began_after)
                    cycles += cycles_of(one)
                return (Loop(1, tuple(unrolled)),) if node.left else tuple(unrolled)
            case WrittenLoop():
                return self._loop(node, cycles, began_after)
            case WrittenBranch():
                return self._branch(node, before, cycles, began_after)
            case WrittenLeave():
                return (Leave(),)
            case WrittenStop():
                return (Finish(node.reason.value),)
            case WrittenInclude():
                return self._include(node, cycles)

    def _step(self, node: WrittenStep) -> tuple[Node, ...]:
        if not node.key.place.file:
            self.bench.line = node.key.place.line
        with self.narrowed(node.limits):
            built = node.technique.build(node.fields, self.bench)
            limits = self._limits_here()
        return with_steps(
            built, lambda step: msgspec.structs.replace(step, limits=_tighter(step.limits, limits))
        )

    def _limits_here(self) -> Limits:
        """What holds for a step, without what only the whole program decides."""
        bench = self.bench
        return Limits(
            voltage_min_V=bench.voltage_min_V,
            voltage_max_V=bench.voltage_max_V,
            current_min_A=bench.current_min_A,
            current_max_A=bench.current_max_A,
            step_charge_max_Ah=bench.step_charge_max_Ah,
            duration_max_s=INFINITY,
            temperature_min_degC=bench.temperature_min_degC,
            temperature_max_degC=bench.temperature_max_degC,
        )

    def _loop(self, node: WrittenLoop, cycles: Span, began_after: int) -> tuple[Node, ...]:
        own = Span(int(node.counts_cycles), int(node.counts_cycles))
        count, class_name = node.count.value, DEFAULT_CLASS
        if node.class_name is not None:
            class_name = node.class_name.value
        built: list[Node] = []
        if node.first:
            first = self.build(node.first, cycles, began_after)
            first_class = node.first_class.value if node.first_class else class_name
            built.append(Loop(1, first, node.counts_cycles, first_class))
            cycles += cycles_of(node.first) + own
            count -= 1
        inner = cycles_of(node.body).most + own.most
        body = self.build(node.body, cycles + Span(0, inner * (count - 1)), began_after)
        until = tuple(
            result
            for condition in node.until
            if isinstance(
                result := build_condition(condition, self.bench, began_after), CycleResult
            )
        )
        rest: tuple[Node, ...] = (Loop(count, body, node.counts_cycles, class_name, until),)
        for result in reversed(until) if built else ():
            if _can_hold(result, cycles.most):
                rest = (Branch(result, (), rest, self._line(node)),)
        return (*built, *rest)

    def _branch(
        self, node: WrittenBranch, before: list[Node], cycles: Span, began_after: int
    ) -> tuple[Node, ...]:
        condition = build_condition(node.condition, self.bench, began_after)
        then = self.build(node.then, cycles, began_after)
        otherwise = self.build(node.otherwise, cycles, began_after)
        if condition is None:
            return ()
        if isinstance(condition, EndedBy) and not otherwise and before:
            step = _decided_by_end(before[-1], condition, then)
            if step is not None:
                before[-1] = step
                return ()
        return (Branch(condition, then, otherwise, self._line(node)),)

    def _line(self, node: WrittenBranch | WrittenLoop) -> int:
        return self.bench.line if node.key.place.file else node.key.place.line

    def _include(self, node: WrittenInclude, cycles: Span) -> tuple[Node, ...]:
        bench = self.bench
        if not node.key.place.file:
            bench.line = node.key.place.line
        around = bench.record
        with self.narrowed(node.recipe.limits):
            bench.record = record_rule(node.recipe.record, around, self.problems)
            built = self.build(node.recipe.steps, cycles, cycles.least)
        bench.record = around
        return built

    def whole_limits(self, fence: Fence, body: tuple[Node, ...]) -> tuple[Limits, Limits]:
        """The limits of the program, and those of steps that say nothing else.

        A limit that the recipe leaves open is, for the program, that of its widest step.
        """
        bench = self.bench
        default_A = CURRENT_MARGIN * (bench.largest_current_A or bench.cell.one_C_A)
        default_Ah = DEFAULT_STEP_CHARGE_H * bench.cell.one_C_A
        low, high = fence.temperature_min, fence.temperature_max
        assert fence.voltage_min is not None  # noqa: S101
        assert fence.voltage_max is not None  # noqa: S101
        usual = Limits(
            voltage_min_V=fence.voltage_min.value,
            voltage_max_V=fence.voltage_max.value,
            current_min_A=fence.current_min.value if fence.current_min else -default_A,
            current_max_A=fence.current_max.value if fence.current_max else default_A,
            step_charge_max_Ah=fence.step_charge.value if fence.step_charge else default_Ah,
            duration_max_s=fence.duration.value
            if fence.duration
            else float(math.ceil(DURATION_MARGIN * most_s(body))),
            temperature_min_degC=low.value if low else -INFINITY,
            temperature_max_degC=high.value if high else INFINITY,
        )
        steps = [step.limits for step in steps_of(body) if step.limits is not None]
        mins_A = [one.current_min_A for one in steps if one.current_min_A > -INFINITY]
        maxs_A = [one.current_max_A for one in steps if one.current_max_A < INFINITY]
        whole = msgspec.structs.replace(
            usual,
            current_min_A=min(usual.current_min_A, *mins_A, math.inf),
            current_max_A=max(usual.current_max_A, *maxs_A, -math.inf),
            step_charge_max_Ah=max(
                usual.step_charge_max_Ah, *(one.step_charge_max_Ah for one in steps), 0.0
            ),
        )
        return whole, usual


def _decided_by_end(node: Node, condition: EndedBy, then: tuple[Node, ...]) -> Step | None:
    """The step with where it goes written into its ends; None where that says less."""
    if not isinstance(node, Step) or len(then) != 1:
        return None
    match then[0]:
        case Leave():
            where, reason = Then.LEAVE_LOOP, ""
        case Finish(reason=reason):
            where = Then.END_RUN
        case _:
            return None

    def decided(end: EndCondition) -> EndCondition:
        if end.quantity is condition.quantity and end.then is Then.NEXT:
            return msgspec.structs.replace(end, then=where, reason=reason)
        return end

    return msgspec.structs.replace(node, ends=tuple(decided(end) for end in node.ends))


def _can_hold(result: CycleResult, cycles: int) -> bool:
    """Whether a condition can hold after so many cycles: not if it compares the last with itself,
    or with one that has not been."""
    return result.of_last < cycles or result.of_first < result.of_last == cycles


def _tighter(one: Limits | None, other: Limits) -> Limits:
    """The tightest of both."""
    if one is None:
        return other
    return Limits(
        **{
            name: (max if "_min_" in name else min)(getattr(one, name), getattr(other, name))
            for name in Limits.__struct_fields__
        }
    )


def _finished(body: tuple[Node, ...], whole: Limits, usual: Limits) -> tuple[Node, ...]:
    """``body`` with every step numbered, and its limits only where they are narrower."""
    next_index = itertools.count()

    def finish(step: Step) -> Step:
        own = step.limits or usual
        own = msgspec.structs.replace(
            own,
            current_min_A=usual.current_min_A
            if math.isinf(own.current_min_A)
            else own.current_min_A,
            current_max_A=usual.current_max_A
            if math.isinf(own.current_max_A)
            else own.current_max_A,
            duration_max_s=whole.duration_max_s,
        )
        return msgspec.structs.replace(
            step, index=next(next_index), limits=None if own == whole else own
        )

    return with_steps(body, finish)
