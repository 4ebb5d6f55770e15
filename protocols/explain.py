"""A recipe in the words of the laboratory, as it was written: no cell, no amperes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labctl.program import INFINITY
from labctl.protocols.alarms import retention_alarm
from labctl.protocols.recipe import Recipe
from labctl.protocols.structure import (
    LimitsFields,
    WrittenLoop,
    WrittenNode,
    WrittenStep,
)
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
    lines += _steps(written.steps, 0, frozenset())
    lines.append("")
    lines += _limits(written.limits)
    lines.append(_record(written.record, "A reading is kept", RecordFields(), "every 30 s"))
    for fields in written.alarms.retention:
        alarm = retention_alarm(fields)
        reference = f"cycle {alarm.reference_first}"
        if alarm.reference_last > alarm.reference_first:
            reference = f"the median of cycles {alarm.reference_first} to {alarm.reference_last}"
        what = "the discharge capacity of a cycle"
        if alarm.over_cycles > 1:
            what = f"the median discharge capacity of {alarm.over_cycles} cycles"
        lines.append(
            f"An alarm is raised when {what} falls below "
            f"{format_quantity(alarm.below, Kind.FRACTION)} of {reference}."
        )
    if recipe.parameters:
        values = ", ".join(f"{name} = {value}" for name, value in recipe.parameters.items())
        lines.append(f"Can be set: {values}.")
    return "\n".join(lines) + "\n"


def _steps(nodes: tuple[WrittenNode, ...], depth: int, names: frozenset[str]) -> Iterator[str]:
    def show(written: Written[Any]) -> str:
        text = written.text
        return f"that {text.name}" if text.name in names else text.value

    for number, node in enumerate(nodes, 1):
        start = f"{_INDENT * depth}{number}. "
        if isinstance(node, WrittenStep):
            line = f"{start}{node.technique.tell(node.fields, show)}"
            record = getattr(node.fields, "record", None)
            yield line + _record(record, "; a reading is kept", None, ".")
        elif isinstance(node, WrittenLoop):
            times = "once" if node.count.value == 1 else f"{show(node.count)} times"
            what = f"{times}; each time is one cycle" if node.counts_cycles else times
            if node.class_name is not None and node.class_name.text.name in names:
                what += f", in a class of its own for {show(node.class_name)}"
            elif node.class_name is not None:
                what += f", of the class '{node.class_name}'"
            yield f"{start}Do this {what}:"
            yield from _steps(node.body, depth + 1, names)
        else:
            yield f"{start}Do this for each {node.name} of {', '.join(node.values)}:"
            yield from _steps(node.passes[0], depth + 1, names | {node.name})


def _limits(limits: LimitsFields) -> Iterator[str]:
    said = [
        f"{name} {field}"
        for name, field in (
            ("voltage", limits.voltage),
            ("current", limits.current),
            ("temperature", limits.temperature),
            ("charge in a step", limits.step_charge),
            ("duration", limits.duration),
        )
        if field is not None
    ]
    if said:
        yield f"The run is ended safely outside these limits: {', '.join(said)}."
    if limits.voltage is None:
        yield "The voltage limits are the safe window of the cell."


def _record(
    fields: RecordFields | None, start: str, empty: RecordFields | None, otherwise: str
) -> str:
    fields = fields or empty
    said = []
    if fields is not None:
        if fields.every is not None and fields.every.value != INFINITY:
            said.append(f"every {fields.every}")
        said += [
            f"at each change by {change}"
            for change in (fields.voltage_change, fields.current_change)
            if change is not None and change.value != INFINITY
        ]
    if not said:
        return otherwise if fields is None else f"{start} {otherwise}."
    return f"{start} {' and '.join(said)}."
