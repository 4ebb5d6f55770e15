"""Limits at their levels: site, cell type, cell, recipe, included recipe, step. The tightest holds.

What a person writes at one level may narrow what holds at the level around it and never widen it.
What nobody writes has no bound at that level. Currents are positive for charging.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec
from pydantic import Field

from labctl.model import Cell
from labctl.protocols.source import Place, Text
from labctl.protocols.written import (
    ChargeAmount,
    CurrentLimit,
    Duration,
    Fields,
    Range,
    TemperatureRange,
    VoltageRange,
    Written,
)
from labctl.units import Amount, Kind, format_quantity

Note: TypeAlias = Callable[[Text, str, str], None]


class StepLimitsFields(Fields):
    """Limits of one step, within those of the recipe. Passing one ends the run safely."""

    voltage: VoltageRange | None = Field(
        default=None, description="If not written: as for the whole recipe. Never wider than it."
    )
    current: CurrentLimit | None = Field(
        default=None,
        description="Both ways, or from the strongest discharge (negative) to the strongest "
        "charge. If not written: as for the whole recipe.",
    )
    temperature: TemperatureRange | None = Field(
        default=None, description="If not written: as for the whole recipe."
    )
    step_charge: ChargeAmount | None = Field(
        default=None,
        alias="step charge",
        description="The most that may pass in the step. If not written: as for the whole recipe.",
    )


class LimitsFields(Fields):
    """Passing a limit ends the run safely. What is not written comes from the cell."""

    voltage: VoltageRange | None = Field(
        default=None, description="If not written: the cell's safe window. Never wider than it."
    )
    current: CurrentLimit | None = Field(
        default=None,
        description="Both ways, or from the strongest discharge (negative) to the strongest charge."
        " If not written: the cell's largest current, else 1.2 times the largest in the recipe.",
    )
    temperature: TemperatureRange | None = Field(
        default=None, description="If not written: no limit."
    )
    step_charge: ChargeAmount | None = Field(
        default=None,
        alias="step charge",
        description="The most that may pass in any one step. If not written: what 1C passes in "
        "5 hours.",
    )
    duration: Duration | None = Field(
        default=None,
        description="Of the whole run. If not written: a little more than all its steps can last.",
    )


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a site, or a type of cell, allows to any recipe; None is no bound.

    ``name`` is said to people as 'the limits of …': 'the site', "cell type 'coin'".
    """

    name: str
    voltage_min_V: float | None = None
    voltage_max_V: float | None = None
    current_min_A: float | None = None
    current_max_A: float | None = None
    step_charge_max_Ah: float | None = None
    duration_max_s: float | None = None
    temperature_min_degC: float | None = None
    temperature_max_degC: float | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of what is allowed, and which level says so: a phrase for a message, or a place."""

    value: float
    where: str = ""
    place: Place = Place()  # noqa: RUF009

    def seen_from(self, text: Text) -> str:
        """Which level says so, for a message at ``text``."""
        if self.where:
            return self.where
        if not self.place.line:
            return "the limits that are set"
        return f"the limits in {self.place.seen_from(text.place)}"


@dataclass(frozen=True, slots=True)
class Fence:
    """What holds at one level: the tightest of it and of every level around it."""

    voltage_min: Edge | None = None
    voltage_max: Edge | None = None
    current_min: Edge | None = None
    current_max: Edge | None = None
    step_charge: Edge | None = None
    duration: Edge | None = None
    temperature_min: Edge | None = None
    temperature_max: Edge | None = None


_LOWER = ("voltage_min", "current_min", "temperature_min")


def fence_of(cell: Cell, bounds: Sequence[Bounds]) -> Fence:
    """What ``cell`` and every one of ``bounds`` allow."""
    window, largest = f"the safe window of cell '{cell.name}'", f"of cell '{cell.name}'"
    fence = Fence(
        voltage_min=Edge(cell.safe_voltage_min_V, window),
        voltage_max=Edge(cell.safe_voltage_max_V, window),
    )
    if cell.max_current_A is not None:
        fence = replace(
            fence,
            current_min=Edge(-cell.max_current_A, f"the largest current {largest}"),
            current_max=Edge(cell.max_current_A, f"the largest current {largest}"),
        )
    for level in bounds:
        where = f"the limits of {level.name}"
        edges = {
            "voltage_min": level.voltage_min_V,
            "voltage_max": level.voltage_max_V,
            "current_min": level.current_min_A,
            "current_max": level.current_max_A,
            "step_charge": level.step_charge_max_Ah,
            "duration": level.duration_max_s,
            "temperature_min": level.temperature_min_degC,
            "temperature_max": level.temperature_max_degC,
        }
        for name, value in edges.items():
            if value is not None and _is_tighter(name, value, fence):
                fence = replace(fence, **{name: Edge(value, where)})
    return fence


def narrowed(
    fence: Fence,
    fields: LimitsFields | StepLimitsFields,
    note: Note,
    amperes: Callable[[Written[Amount]], float] | None,
) -> Fence:
    """``fence`` with what ``fields`` write, which is noted where it is wider than the fence.

    Args:
        fence: what holds at the level around.
        fields: what is written at this level.
        note: takes a mistake: where, what, what to write.
        amperes: a current in A or a charge in Ah on the cell, NaN if it has none; None where there
            is no cell yet, and then neither is looked at.
    """
    for name, written, kind in (
        ("voltage", fields.voltage, Kind.VOLTAGE),
        ("temperature", fields.temperature, Kind.TEMPERATURE),
    ):
        if written is not None:
            ends = (written.value.lower.value, written.value.upper.value)
            fence = _narrowed_pair(fence, name, written, ends, kind, note)
    if fields.current is not None and amperes is not None:
        text = fields.current.text
        lower, upper = fields.current.value.lower, fields.current.value.upper
        ends = (amperes(Written(lower, text)), amperes(Written(upper, text)))
        if not any(math.isnan(end) for end in ends):
            fence = _narrowed_pair(fence, "current", fields.current, ends, Kind.CURRENT, note)
    if fields.step_charge is not None and amperes is not None:
        charge_Ah = amperes(fields.step_charge)
        if charge_Ah <= 0:
            note(fields.step_charge.text, "the step charge limit must be more than 0", "")
        elif math.isfinite(charge_Ah):
            fence = _narrowed_one(
                fence, "step_charge", fields.step_charge, charge_Ah, Kind.CHARGE, note
            )
    duration = getattr(fields, "duration", None)
    if duration is not None:
        fence = _narrowed_one(fence, "duration", duration, duration.value, Kind.DURATION, note)
    return fence


def _narrowed_pair(
    fence: Fence,
    name: str,
    written: Written[Range[Amount]],
    ends: tuple[float, float],
    kind: Kind,
    note: Note,
) -> Fence:
    low, high = f"{name}_min", f"{name}_max"
    wider = [
        getattr(fence, side)
        for side, value in zip((low, high), ends, strict=True)
        if not _fits(side, value, fence)
    ]
    if wider:
        where = wider[0].seen_from(written.text)
        outer = " .. ".join(
            "no limit" if edge is None else format_quantity(edge.value, kind)
            for edge in (getattr(fence, low), getattr(fence, high))
        )
        if where.startswith("the largest current"):
            message = (
                f"the limit {written} is more than {where}, "
                f"{format_quantity(abs(wider[0].value), kind)}"
            )
            note(written.text, message, "")
        else:
            note(written.text, f"the limits {written} are wider than {where}, {outer}", _how(where))
        return fence
    place = written.text.place
    edges = {low: Edge(ends[0], place=place), high: Edge(ends[1], place=place)}
    return replace(fence, **edges)


def _narrowed_one(
    fence: Fence, name: str, written: Written[Any], value: float, kind: Kind, note: Note
) -> Fence:
    if not _fits(name, value, fence):
        edge = getattr(fence, name)
        where = edge.seen_from(written.text)
        most = format_quantity(edge.value, kind)
        note(written.text, f"the limit {written} is wider than {where}, {most}", _how(where))
        return fence
    return replace(fence, **{name: Edge(value, place=written.text.place)})


def _fits(name: str, value: float, fence: Fence) -> bool:
    edge: Edge | None = getattr(fence, name)
    return edge is None or value == edge.value or _is_tighter(name, value, fence)


def _is_tighter(name: str, value: float, fence: Fence) -> bool:
    edge: Edge | None = getattr(fence, name)
    if edge is None:
        return True
    return value > edge.value if name in _LOWER else value < edge.value


def _how(where: str) -> str:
    if where.startswith("the safe window"):
        return "narrow the limits, or leave them out to take the cell's"
    return "narrow it, or leave it out"
