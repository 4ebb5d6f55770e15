"""What can be said of conditions without a cell: whether what they look at can ever be.

To know by what a step can end, and which way its current flows, its technique builds it once on a
nominal cell; only the kinds of its ends are looked at, and no number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from labctl.model import Cell
from labctl.program import (
    HOST_CONTROLS,
    INFINITY,
    ConstantCurrent,
    ConstantPower,
    ConstantResistance,
    Control,
    Quantity,
    RecordRule,
    Rest,
    Step,
)
from labctl.protocols.conditions import WORD_OF_QUANTITY, WrittenCondition
from labctl.protocols.extent import steps_of
from labctl.protocols.source import Problems
from labctl.protocols.structure import (
    Span,
    WrittenBranch,
    WrittenFor,
    WrittenInclude,
    WrittenLoop,
    WrittenNode,
    WrittenRecipe,
    WrittenStep,
    bodies_of,
    cycles_of,
    cycles_of_node,
)
from labctl.protocols.techniques.base import Bench
from labctl.protocols.written import note

_BOTH = frozenset({"charge", "discharge"})
_NEEDS: dict[str, frozenset[str]] = {
    "discharge_capacity": frozenset({"discharge"}),
    "discharge_energy": frozenset({"discharge"}),
    "retention": frozenset({"discharge"}),
    "charge_capacity": frozenset({"charge"}),
    "charge_energy": frozenset({"charge"}),
    "efficiency": _BOTH,
}


@dataclass(frozen=True, slots=True)
class _Before:
    """What may have been when the recipe comes to a step.

    ended_by: the quantities by which the step before can end; None if there is none.
    cycles: that have ended since the recipe began that the step is written in, and in all.
    ways: which ways current has flowed in the present cycle; None outside a cycle.
    """

    ended_by: frozenset[Quantity] | None = None
    cycles: Span = Span()  # noqa: RUF009
    in_all: Span = Span()  # noqa: RUF009
    ways: frozenset[str] | None = None
    included: str = ""


@dataclass(frozen=True, slots=True)
class _Trial:
    """What a step can be: the quantities of its ends, and the ways of its current."""

    ended_by: frozenset[Quantity]
    ways: frozenset[str]


def check_conditions(recipe: WrittenRecipe, problems: Problems) -> None:
    """Note every condition that looks at what cannot be."""
    if any(True for _ in _conditions(recipe.steps)):
        _Checker(problems).walk(recipe.steps, _Before())


def _conditions(nodes: tuple[WrittenNode, ...]) -> Iterable[WrittenCondition]:
    for node in nodes:
        if isinstance(node, WrittenBranch):
            yield node.condition
        elif isinstance(node, WrittenLoop):
            yield from node.until
        for body in bodies_of(node):
            yield from _conditions(body)


class _Checker:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._trials: dict[int, _Trial] = {}
        self._summaries: dict[int, _Trial] = {}
        self._bench = _nominal_bench()

    def walk(self, nodes: tuple[WrittenNode, ...], before: _Before) -> None:
        """Look at every condition of a list of steps."""
        for node in nodes:
            match node:
                case WrittenBranch():
                    self._check(node.condition, before)
                    self.walk(node.then, before)
                    self.walk(node.otherwise, before)
                case WrittenLoop():
                    self._loop(node, before)
                case WrittenFor():
                    inside = before
                    for one in node.passes:
                        self.walk(one, inside)
                        for each in one:
                            inside = self._after(each, inside)
                case WrittenInclude():
                    self.walk(
                        node.recipe.steps,
                        replace(before, cycles=Span(), included=node.recipe.file),
                    )
                case _:
                    pass
            before = self._after(node, before)

    def _loop(self, loop: WrittenLoop, before: _Before) -> None:
        inside = self._all_of((loop,))
        again = cycles_of(loop.body).most + int(loop.counts_cycles)
        later = Span(0, again * (loop.count.value - 1))
        ways = frozenset[str]() if loop.counts_cycles else before.ways
        if loop.first:
            self.walk(loop.first, replace(before, ways=ways))
        entered = replace(
            before,
            ended_by=before.ended_by
            if loop.count.value == 1
            else (before.ended_by or frozenset()) | inside.ended_by,
            cycles=before.cycles + later,
            in_all=before.in_all + later,
            ways=ways if loop.counts_cycles or ways is None else ways | inside.ways,
        )
        self.walk(loop.body, entered)
        made = cycles_of_node(loop)
        for condition in loop.until:
            self._check(
                condition,
                replace(
                    before, cycles=before.cycles + made, in_all=before.in_all + made, ways=None
                ),
            )

    def _after(self, node: WrittenNode, before: _Before) -> _Before:
        made = cycles_of_node(node)
        inside = self._all_of((node,))
        certain = isinstance(node, WrittenStep)
        ended_by = before.ended_by
        if self._has_step((node,)):
            ended_by = inside.ended_by if certain else (ended_by or frozenset()) | inside.ended_by
        return replace(
            before,
            ended_by=ended_by,
            cycles=before.cycles + made,
            in_all=before.in_all + made,
            ways=None if before.ways is None else before.ways | inside.ways,
        )

    def _check(self, condition: WrittenCondition, before: _Before) -> None:
        if condition.ended_by is not None:
            self._check_end(condition, before)
            return
        needs, text = _NEEDS[condition.name], condition.text
        if before.ways is None and before.in_all.most == 0:
            note(
                self._problems,
                text,
                "no cycle has been when this is looked at",
                "put it into a 'cycle', or after one",
            )
            return
        if before.ways is not None and not needs <= before.ways:
            (missing, *_) = sorted(needs - before.ways)
            note(
                self._problems,
                text,
                f"nothing has been {missing}d in the cycle when this is looked at",
                f"put it after a {missing} of the cycle, or write it as 'until' beside 'cycle'",
            )
        if condition.of is None:
            return
        last = condition.of.value[1]
        own = before.cycles
        if last > own.most:
            where = f"in {before.included} " if before.included else ""
            note(
                self._problems,
                condition.of.text,
                f"it is compared with {condition.of}, but at the most {own.most} "
                f"{'has' if own.most == 1 else 'have'} ended {where}when this is looked at",
                "write an earlier cycle, such as 'cycle 1'",
            )
        elif before.included and (before.in_all.least - own.least) != (
            before.in_all.most - own.most
        ):
            note(
                self._problems,
                condition.of.text,
                f"cycles count from the beginning of {before.included}, and how many come before "
                "it is not fixed",
                "write the condition in the recipe that includes it",
            )

    def _check_end(self, condition: WrittenCondition, before: _Before) -> None:
        written = condition.ended_by
        assert written is not None  # noqa: S101
        if before.ended_by is None:
            note(
                self._problems,
                written.text,
                "no step comes before this 'if'",
                "put it after the step that it looks at",
            )
        elif written.value not in before.ended_by:
            can = sorted(WORD_OF_QUANTITY.get(one, str(one)) for one in before.ended_by)
            note(
                self._problems,
                written.text,
                f"the step before never ends by {written}",
                f"it ends by {' or '.join(can)}" if can else "",
            )

    def _has_step(self, nodes: tuple[WrittenNode, ...]) -> bool:
        return any(
            isinstance(node, WrittenStep) or any(self._has_step(body) for body in bodies_of(node))
            for node in nodes
        )

    def _all_of(self, nodes: tuple[WrittenNode, ...]) -> _Trial:
        """Everything that the steps of ``nodes`` can be together."""
        ended_by, ways = frozenset[Quantity](), frozenset[str]()
        for node in nodes:
            trial = self._summaries.get(id(node))
            if trial is None:
                trial = self._summary(node)
                self._summaries[id(node)] = trial
            ended_by, ways = ended_by | trial.ended_by, ways | trial.ways
        return _Trial(ended_by, ways)

    def _summary(self, node: WrittenNode) -> _Trial:
        if isinstance(node, WrittenStep):
            return self._trial(node)
        inner = [self._all_of(body) for body in bodies_of(node)]
        return _Trial(
            frozenset().union(*(one.ended_by for one in inner)),
            frozenset().union(*(one.ways for one in inner)),
        )

    def _trial(self, step: WrittenStep) -> _Trial:
        built = step.technique.build(step.fields, self._bench)
        if not built:
            return _Trial(frozenset(Quantity), _BOTH)
        steps = list(steps_of(built))
        last = steps[-1:] if built and isinstance(built[-1], Step) else steps
        return _Trial(
            frozenset(end.quantity for one in last for end in one.ends),
            frozenset().union(*(_ways_of(one.control) for one in steps)),
        )


def _ways_of(control: Control) -> frozenset[str]:
    match control:
        case ConstantCurrent(current_A=signed) | ConstantPower(power_W=signed):
            return frozenset({"charge" if signed > 0 else "discharge"})
        case ConstantResistance():
            return frozenset({"discharge"})
        case Rest():
            return frozenset()
        case _ if isinstance(control, HOST_CONTROLS):
            return frozenset()
        case _:
            return _BOTH


def _nominal_bench() -> Bench:
    cell = Cell(
        name="nominal",
        material="",
        active_mass_g=1.0,
        one_C_mA_per_g=100.0,
        safe_voltage_min_V=0.1,
        safe_voltage_max_V=10.0,
        area_cm2=1.0,
    )
    return Bench(
        cell=cell,
        problems=Problems("", ()),
        record=RecordRule(),
        voltage_min_V=cell.safe_voltage_min_V,
        voltage_max_V=cell.safe_voltage_max_V,
        current_min_A=-INFINITY,
        current_max_A=INFINITY,
        step_charge_max_Ah=1.0,
    )
