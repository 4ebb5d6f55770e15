"""What a technique is to the language, and what it is given to work with.

A technique checks what can be known without a cell (on a :class:`Sheet`), and builds steps for one
cell (on a :class:`Bench`). Current is positive for charging.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias

from labctl.model import Cell
from labctl.program import (
    INFINITY,
    Comparison,
    Control,
    EndCondition,
    Node,
    Quantity,
    RecordRule,
    Step,
    Then,
)
from labctl.protocols.source import Problems, Text
from labctl.protocols.techniques.recording import Recording
from labctl.protocols.written import F, Range, RecordFields, Written, note
from labctl.units import Amount, Kind, QuantityError, format_quantity

TIME_MARGIN = 1.1
"""A step's own longest time is this much more than its charge limit takes to pass, so that a cell
that swallows charge trips the limit instead of going on to the next step."""

LONGEST_STEP_S = 10 * 365.25 * 86400.0

USUAL_LARGEST_C = 20.0
"""What a potentiostatic technique may draw where nothing else is known, as a C-rate."""
SHARE_OF_LIMIT = 0.9
"""... and never more than this of the current limit, which would trip the run."""

Show: TypeAlias = Callable[[Written[Any]], str]
"""How a value is shown to a person."""


@dataclass(slots=True)
class Sheet:
    """A recipe without a cell: the voltage limits as written, if they are."""

    problems: Problems
    voltage: Written[Range[Amount]] | None = None

    def note(self, text: Text, message: str, suggestion: str = "") -> None:
        """Note a mistake at ``text``."""
        note(self.problems, text, message, suggestion)

    def check_voltage(self, voltage: Written[Amount]) -> None:
        """Note it if ``voltage`` is not strictly inside the limits that the recipe writes."""
        if self.voltage is None:
            return
        value, limits = voltage.value.value, self.voltage.value
        if limits.lower.value < value < limits.upper.value:
            return
        limit, side = (
            (limits.upper, "below") if value >= limits.upper.value else (limits.lower, "above")
        )
        self.note(
            voltage.text,
            f"{voltage} is not {side} the voltage limit of "
            f"{format_quantity(limit.value, Kind.VOLTAGE)} in "
            f"{self.voltage.text.place.seen_from(voltage.text.place)}:"
            " the run would trip first",
            "limits are checked before ends; leave a few tens of mV between them",
        )

    def check_window(self, window: Written[Range[Amount]]) -> None:
        """Note each end of ``window`` that is not strictly inside the limits."""
        for edge in edges_of(window):
            self.check_voltage(edge)

    def check_positive(self, amount: Written[Amount], what: str) -> bool:
        """Note it if ``amount`` is not above 0."""
        if amount.value.value > 0:
            return True
        self.note(amount.text, f"{what} must be more than 0, not {amount}")
        return False


@dataclass(slots=True)
class Bench:
    """A recipe on one cell, while it is compiled.

    ``current_min_A`` and ``current_max_A`` are the limits if they are known before the steps are,
    else infinite. ``last_current_A`` is that of the charge or discharge written last before this
    step, 0 if there was none; ``largest_current_A`` is the largest magnitude so far.
    """

    cell: Cell
    problems: Problems
    record: RecordRule | Recording
    voltage_min_V: float
    voltage_max_V: float
    current_min_A: float
    current_max_A: float
    step_charge_max_Ah: float
    last_current_A: float = 0.0
    largest_current_A: float = 0.0
    line: int = 0
    voltage_limits_of: str = ""
    """Which level set the voltage limits, as a phrase; '' is the cell."""
    temperature_min_degC: float = -INFINITY
    temperature_max_degC: float = INFINITY

    def note(self, text: Text, message: str, suggestion: str = "") -> None:
        """Note a mistake at ``text``."""
        note(self.problems, text, message, suggestion)

    def amperes(self, amount: Written[Amount]) -> float:
        """A current in A, or a charge in Ah, on this cell; NaN, and noted, if it has none."""
        cell = self.cell
        try:
            return amount.value.amperes(
                one_C_A=cell.one_C_A, active_mass_g=cell.active_mass_g, area_cm2=cell.area_cm2
            )
        except QuantityError as error:
            self.note(amount.text, f"{amount}: {error}", error.suggestion)
            return math.nan

    def watts(self, amount: Written[Amount]) -> float:
        """A power in W, or an energy in Wh, on this cell."""
        return amount.value.watts(active_mass_g=self.cell.active_mass_g)

    def check_current(self, written: Written[Any], current_A: float, at: str = "") -> None:
        """Note it if ``current_A`` is not strictly inside the limits; else remember it.

        ``at`` stands behind what is written: at which voltage it comes to that current.
        """
        limit_A = self.current_max_A if current_A > 0 else self.current_min_A
        if abs(current_A) >= abs(limit_A):
            self.note(
                written.text,
                f"{written}{at} is {format_quantity(abs(current_A), Kind.CURRENT)} on cell "
                f"'{self.cell.name}', not below the current limit of "
                f"{format_quantity(abs(limit_A), Kind.CURRENT)}",
            )
        self.largest_current_A = max(self.largest_current_A, abs(current_A))

    def check_both_ways(self, written: Written[Any], current_A: float, at: str = "") -> None:
        """:meth:`check_current` for a technique whose current flows either way."""
        for signed_A in (current_A, -current_A):
            self.check_current(written, signed_A, at)

    def usual_largest_A(self, c_rate: float = USUAL_LARGEST_C) -> float:
        """What a potentiostatic technique may draw that does not say it itself."""
        limit_A = SHARE_OF_LIMIT * min(abs(self.current_min_A), abs(self.current_max_A))
        return float(f"{min(c_rate * self.cell.one_C_A, limit_A):.12g}")

    def largest_A(
        self, written: Written[Amount] | None, at: Written[Any], c_rate: float = USUAL_LARGEST_C
    ) -> float:
        """``max_current`` as ``written``, else the usual; checked both ways. NaN, and noted, if the
        cell cannot say it. ``at`` is what to point to where nothing is written."""
        if written is None:
            current_A = self.usual_largest_A(c_rate)
            self.check_both_ways(at, current_A)
            return current_A
        current_A = self.amperes(written)
        if not math.isnan(current_A):
            self.check_both_ways(written, current_A)
        return current_A

    def check_window(self, window: Written[Range[Amount]]) -> None:
        """Note each end of ``window`` that is not inside the safe window and the limits."""
        for edge in edges_of(window):
            self.check_voltage(edge)

    def check_voltage(self, voltage: Written[Amount]) -> None:
        """Note it if ``voltage`` is not inside the cell's safe window and the limits."""
        value, cell = voltage.value.value, self.cell
        low_V, high_V = cell.safe_voltage_min_V, cell.safe_voltage_max_V
        window = (
            f"{format_quantity(low_V, Kind.VOLTAGE)} .. {format_quantity(high_V, Kind.VOLTAGE)}"
        )
        if not low_V <= value <= high_V:
            self.note(
                voltage.text,
                f"{voltage} is outside the safe window of cell '{cell.name}', {window}",
            )
        elif self.voltage_limits_of and not self.voltage_min_V < value < self.voltage_max_V:
            limits = " .. ".join(
                format_quantity(limit, Kind.VOLTAGE)
                for limit in (self.voltage_min_V, self.voltage_max_V)
            )
            self.note(
                voltage.text,
                f"{voltage} is not inside {self.voltage_limits_of}, {limits}: the run would trip "
                "first",
                "limits are checked before ends; leave a few tens of mV between them",
            )
        elif not self.voltage_min_V < value < self.voltage_max_V:
            self.note(
                voltage.text,
                f"{voltage} is the edge of the safe window of cell '{cell.name}', {window}, which "
                "is the voltage limit: the run would trip first",
                "limits are checked before ends; leave a few tens of mV between them",
            )

    def record_rule(
        self, fields: RecordFields | None, default: RecordRule | None = None
    ) -> RecordRule:
        """What the step's ``fields`` and the recipe say, and for the rest the technique's rule."""
        recording = record_rule(fields, self.record, self.problems)
        return recording.rule(default, self.amperes)

    def longest_s(self, current_A: float) -> float:
        """The longest that a step can last whose current never is smaller than ``current_A``."""
        if current_A == 0:
            return math.inf
        return whole_s(TIME_MARGIN * self.step_charge_max_Ah / abs(current_A) * 3600.0)

    def step(
        self,
        label: str,
        control: Control,
        ends: list[EndCondition],
        record: RecordFields | None,
        usual_record: RecordRule | None = None,
    ) -> tuple[Step, ...]:
        """One step; it gets its index when the program is whole."""
        rule = self.record_rule(record, usual_record)
        return (Step(0, label, control, tuple(ends), rule, self.line),)


@dataclass(frozen=True, slots=True)
class Technique(Generic[F]):
    """A kind of step.

    word: the key in a recipe. fields: its keys. short: the key whose value may stand alone.
    check: notes what is wrong whatever the cell. build: the steps for one cell; called only if
    ``check`` found nothing. tell: a sentence for a person, given how to show a value. example: the
    step as it is written. cycles: how many cycles it counts itself; such a technique cannot stand
    inside a cycle.
    """

    word: str
    fields: type[F]
    about: str
    check: Callable[[F, Sheet], None]
    build: Callable[[F, Bench], tuple[Node, ...]]
    tell: Callable[[F, Show], str]
    short: str = ""
    example: str = ""
    cycles: Callable[[F], int] = lambda _: 0


def time_end(seconds: float, then: Then = Then.NEXT) -> EndCondition:
    """Ends a step after ``seconds``."""
    return EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, seconds, then)


def voltage_end(voltage_V: float, *, rising: bool) -> EndCondition:
    """Ends a step when the voltage rises, or falls, to ``voltage_V``."""
    comparison = Comparison.AT_LEAST if rising else Comparison.AT_MOST
    return EndCondition(Quantity.VOLTAGE_V, comparison, voltage_V)


def charge_end(charge_Ah: float) -> EndCondition:
    """Ends a step when ``charge_Ah`` has passed, whichever way."""
    return EndCondition(Quantity.STEP_CHARGE_AH, Comparison.AT_LEAST, charge_Ah)


def current_end(current_A: float) -> EndCondition:
    """Ends a step when the magnitude of the current has fallen to ``current_A``."""
    return EndCondition(Quantity.CURRENT_A, Comparison.AT_MOST, current_A)


def record_rule(
    fields: RecordFields | None, base: RecordRule | Recording, problems: Problems
) -> Recording:
    """``base`` with what ``fields`` say of it changed."""
    recording = base if isinstance(base, Recording) else Recording(base)
    return recording.changed_by(fields, problems)


def edges_of(window: Written[Range[Amount]]) -> tuple[Written[Amount], Written[Amount]]:
    """Both ends of a range of voltages, each as if it were written alone."""
    lower, upper = (
        Written(edge, replace(window.text, value=format_quantity(edge.value, Kind.VOLTAGE)))
        for edge in (window.value.lower, window.value.upper)
    )
    return lower, upper


def whole_s(seconds: float) -> float:
    """Rounded up to whole seconds."""
    return math.inf if math.isinf(seconds) else float(math.ceil(seconds - 1e-6))
