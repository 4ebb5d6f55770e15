"""A recipe in the words of the laboratory, as it was written: no cell, no amperes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labctl.program import (
    AlarmRule,
    DropAlarm,
    EfficiencyAlarm,
    FadeAlarm,
    KneeAlarm,
    RetentionAlarm,
)
from labctl.protocols.alarms import default_alarms, written_alarms
from labctl.protocols.conditions import tell_condition
from labctl.protocols.limits import LimitsFields, StepLimitsFields
from labctl.protocols.parameters import OFF, as_text, texts_of
from labctl.protocols.recipe import Recipe
from labctl.protocols.structure import (
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
)
from labctl.protocols.words import alarm_text
from labctl.protocols.written import RecordFields, Written
from labctl.units import Kind, format_quantity

_INDENT = "  "


def explain_text(recipe: Recipe) -> str:
    """What the recipe does, a sentence a line."""
    written = recipe.written
    lines = [recipe.name]
    if recipe.about:
        lines.append(recipe.about)
    lines.append("")
    lines += _Steps(frozenset()).list(written.steps, 0)
    lines.append("")
    lines += _limits(written.limits)
    usual = "Readings are kept as often as suits each kind of step."
    lines.append(_record(written.record, "A reading is kept", usual))
    lines += _alarms(written)
    lines += _parameters(recipe)
    return "\n".join(lines) + "\n"


_OF_EVERY_RUN: dict[type[AlarmRule], str] = {
    RetentionAlarm: "less than 80 % of the capacity is left",
    DropAlarm: "the capacity drops suddenly",
    EfficiencyAlarm: "the efficiency is unusual",
    FadeAlarm: "the fade becomes faster",
    KneeAlarm: "the capacity bends downwards",
}


def _alarms(written: WrittenRecipe) -> Iterator[str]:
    for alarm in written_alarms(written.alarms):
        yield f"An alarm is raised {_when_raised(alarm)}."
    usual = [
        _OF_EVERY_RUN[type(alarm)]
        for alarm in default_alarms(written.alarms, cycles_of(written.steps).most)
    ]
    if usual:
        last = f"{', '.join(usual[:-1])} or {usual[-1]}" if usual[1:] else usual[0]
        yield f"As in every run, an alarm is raised when {last}."


def _when_raised(alarm: AlarmRule) -> str:
    if not isinstance(alarm, RetentionAlarm):
        return f"at: {alarm_text(alarm)}"
    reference = f"cycle {alarm.reference_first}"
    if alarm.reference_last > alarm.reference_first:
        reference = f"the median of cycles {alarm.reference_first} to {alarm.reference_last}"
    what = "the discharge capacity of a cycle"
    if alarm.over_cycles > 1:
        what = f"the median discharge capacity of {alarm.over_cycles} cycles"
    below = format_quantity(alarm.below, Kind.FRACTION)
    return f"when {what} falls below {below} of {reference}"


def _parameters(recipe: Recipe) -> Iterator[str]:
    """Short ones in one line; those with bounds or words of their own in one each."""
    declared = recipe.declared
    plain = {name: one for name, one in declared.items() if not (one.bounds or one.about)}
    said = [f"{name} = {as_text(one.default)}" for name, one in plain.items() if one.default]
    if said:
        yield f"Can be set: {', '.join(said)}."
    must = [name for name, one in plain.items() if one.default is None]
    if must:
        yield f"Must be given: {', '.join(must)}."
    for name, one in declared.items():
        if name in plain:
            continue
        head = f"Must be given: {name}"
        if one.default is not None:
            head = f"Can be set: {name} = {as_text(one.default)}"
        within = f", {one.bounds}"
        if " .. " in one.bounds:
            within = f", from {one.bounds.replace(' .. ', ' to ')}"
        about = f" ({one.about})" if one.about else ""
        yield f"{head}{about}{within if one.bounds else ''}."


class _Steps:
    """Tells a list of steps; ``names`` are loop values, said by name and not by value."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def show(self, written: Written[Any]) -> str:
        text = written.text
        return f"that {text.name}" if text.name in self._names else text.value

    def list(self, nodes: tuple[WrittenNode, ...], depth: int) -> Iterator[str]:
        for number, node in enumerate(nodes, 1):
            yield from self._node(node, f"{_INDENT * depth}{number}. ", depth)

    def _node(self, node: WrittenNode, start: str, depth: int) -> Iterator[str]:
        match node:
            case WrittenStep():
                yield start + self._step(node)
            case WrittenLoop():
                yield from self._loop(node, start, depth)
            case WrittenFor():
                yield f"{start}Do this for each {node.name} of {', '.join(node.values)}:"
                inner = _Steps(self._names | {node.name})
                yield from inner.list(node.passes[0], depth + 1)
            case WrittenBranch():
                yield f"{start}If {tell_condition(node.condition, self.show)}:"
                yield from self.list(node.then, depth + 1)
                if node.otherwise:
                    yield f"{_INDENT * depth}Otherwise:"
                    yield from self.list(node.otherwise, depth + 1)
            case WrittenLeave():
                yield f"{start}Leave the loop."
            case WrittenStop():
                yield f"{start}Stop the run: {node.reason}."
            case WrittenInclude():
                yield from self._include(node, start, depth)

    def _step(self, node: WrittenStep) -> str:
        line = node.technique.tell(node.fields, self.show)
        limits = _limits_said(node.limits)
        if limits:
            line += f"; within {limits}"
        record = getattr(node.fields, "record", None)
        return line + _record(record, "; a reading is kept", ".")

    def _loop(self, node: WrittenLoop, start: str, depth: int) -> Iterator[str]:
        times = "once" if node.count.value == 1 else f"{self.show(node.count)} times"
        what = f"{times}; each time is one cycle" if node.counts_cycles else times
        what += self._class(node.class_name)
        if node.until:
            conditions = " or ".join(tell_condition(one, self.show) for one in node.until)
            what += f"; no more when {conditions}"
        if not node.first:
            yield f"{start}Do this {what}:"
            yield from self.list(node.body, depth + 1)
            return
        yield f"{start}Do this {what}:"
        inside = _INDENT * (depth + 1)
        yield f"{inside}The first time{self._class(node.first_class)}:"
        yield from self.list(node.first, depth + 2)
        yield f"{inside}Every other time:"
        yield from self.list(node.body, depth + 2)

    def _class(self, class_name: Written[str] | None) -> str:
        if class_name is None:
            return ""
        if class_name.text.name in self._names:
            return f", in a class of its own for {self.show(class_name)}"
        return f", of the class '{class_name}'"

    def _include(self, node: WrittenInclude, start: str, depth: int) -> Iterator[str]:
        recipe = node.recipe
        said, names = [], set[str]()
        for name, value in node.given.items():
            outer = {text.name for text in texts_of(value)} & self._names
            if outer:
                names.add(name)
            said.append(f"{name} = {f'that {min(outer)}' if outer else as_text(value)}")
        given = f", with {', '.join(said)}" if said else ""
        yield f"{start}Do what '{recipe.name}' says ({recipe.file}){given}:"
        yield from _Steps(frozenset(names)).list(recipe.steps, depth + 1)
        inside = _INDENT * (depth + 1)
        limits = _limits_said(recipe.limits)
        if limits:
            yield f"{inside}In it the limits are {limits}."
        if recipe.record is not None:
            yield inside + _record(recipe.record, "In it a reading is kept", "")


def _limits(limits: LimitsFields) -> Iterator[str]:
    said = _limits_said(limits)
    if said:
        yield f"The run is ended safely outside these limits: {said}."
    if limits.voltage is None:
        yield "The voltage limits are the safe window of the cell."


def _limits_said(limits: LimitsFields | StepLimitsFields | None) -> str:
    if limits is None:
        return ""
    return ", ".join(
        f"{name} {field}"
        for name, field in (
            ("voltage", limits.voltage),
            ("current", limits.current),
            ("temperature", limits.temperature),
            ("charge in a step", limits.step_charge),
            ("duration", getattr(limits, "duration", None)),
        )
        if field is not None
    )


def _record(fields: RecordFields | None, start: str, otherwise: str) -> str:
    said = []
    if fields is not None:
        if fields.every is not None and str(fields.every) != OFF:
            said.append(f"every {fields.every}")
        said += [
            f"at each change by {change}"
            for change in (fields.voltage_change, fields.current_change, fields.charge_change)
            if change is not None and str(change) != OFF
        ]
    return f"{start} {' and '.join(said)}." if said else otherwise
