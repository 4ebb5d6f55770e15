"""What a technique is to the language, and what it is given to work with.

A technique checks what can be known without a cell (on a :class:`Sheet`), and builds steps for one
cell (on a :class:`Bench`). Current is positive for charging.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

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
)
from labctl.protocols.source import Problems, Text
from labctl.protocols.written import F, Range, RecordFields, Written, note
from labctl.units import (
    CHARGE_KINDS,
    CURRENT_KINDS,
    Amount,
    Kind,
    QuantityError,
    format_quantity,
)

TIME_MARGIN = 1.1
"""A step's own longest time is this much more than its charge limit takes to pass, so that a cell
that swallows charge trips the limit instead of going on to the next step."""

LONGEST_STEP_S = 10 * 365.25 * 86400.0


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
            f"{format_quantity(limit.value, Kind.VOLTAGE)} in line {self.voltage.text.place.line}:"
            " the run would trip first",
            "limits are checked before ends; leave a few tens of mV between them",
        )

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
    record: RecordRule
    voltage_min_V: float
    voltage_max_V: float
    current_min_A: float
    current_max_A: float
    step_charge_max_Ah: float
    last_current_A: float = 0.0
    largest_current_A: float = 0.0
    line: int = 0

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

    def check_current(self, written: Written[Amount], current_A: float) -> None:
        """Note it if ``current_A`` is not strictly inside the limits; else remember it."""
        limit_A = self.current_max_A if current_A > 0 else self.current_min_A
        if abs(current_A) >= abs(limit_A):
            self.note(
                written.text,
                f"{written} is {format_quantity(abs(current_A), Kind.CURRENT)} on cell "
                f"'{self.cell.name}', not below the current limit of "
                f"{format_quantity(abs(limit_A), Kind.CURRENT)}",
            )
        self.largest_current_A = max(self.largest_current_A, abs(current_A))

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
        elif not self.voltage_min_V < value < self.voltage_max_V:
            self.note(
                voltage.text,
                f"{voltage} is the edge of the safe window of cell '{cell.name}', {window}, which "
                "is the voltage limit: the run would trip first",
                "limits are checked before ends; leave a few tens of mV between them",
            )

    def record_rule(self, fields: RecordFields | None) -> RecordRule:
        """The recipe's record rule with what ``fields`` says of it changed."""
        return record_rule(fields, self.record, self.problems)

    def longest_s(self, current_A: float) -> float:
        """The longest that a step can last whose current never is smaller than ``current_A``."""
        seconds = TIME_MARGIN * self.step_charge_max_Ah / abs(current_A) * 3600.0
        return math.inf if math.isinf(seconds) else float(math.ceil(seconds - 1e-6))

    def step(
        self,
        label: str,
        control: Control,
        ends: list[EndCondition],
        record: RecordFields | None,
    ) -> tuple[Node, ...]:
        """One step; it gets its index when the program is whole."""
        return (Step(0, label, control, tuple(ends), self.record_rule(record), self.line),)


@dataclass(frozen=True, slots=True)
class Technique(Generic[F]):
    """A kind of step.

    word: the key in a recipe. fields: its keys. short: the key whose value may stand alone.
    check: notes what is wrong whatever the cell. build: the steps for one cell; called only if
    ``check`` found nothing. tell: a sentence for a person, given how to show a value.
    """

    word: str
    fields: type[F]
    about: str
    check: Callable[[F, Sheet], None]
    build: Callable[[F, Bench], tuple[Node, ...]]
    tell: Callable[[F, Callable[[Written[Any]], str]], str]
    short: str = ""


def time_end(seconds: float) -> EndCondition:
    """Ends a step after ``seconds``."""
    return EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, seconds)


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


def record_rule(fields: RecordFields | None, base: RecordRule, problems: Problems) -> RecordRule:
    """``base`` with what ``fields`` says of it changed."""
    if fields is None:
        return base
    rule = RecordRule(
        base.every_s if fields.every is None else fields.every.value,
        base.voltage_change_V if fields.voltage_change is None else fields.voltage_change.value,
        base.current_change_A if fields.current_change is None else fields.current_change.value,
    )
    if min(rule.every_s, rule.voltage_change_V, rule.current_change_A) == INFINITY:
        switched_off = fields.every or fields.voltage_change or fields.current_change
        if switched_off is not None:
            note(problems, switched_off.text, "nothing would be recorded", "write 'every: 30 s'")
        return base
    return rule


def is_time(amount: Amount) -> bool:
    """Whether it is a duration."""
    return amount.kind is Kind.DURATION


def is_voltage(amount: Amount) -> bool:
    """Whether it is a voltage."""
    return amount.kind is Kind.VOLTAGE


def is_charge(amount: Amount) -> bool:
    """Whether it is a charge of any kind."""
    return amount.kind in CHARGE_KINDS


def is_current(amount: Amount) -> bool:
    """Whether it is a current of any kind."""
    return amount.kind in CURRENT_KINDS
