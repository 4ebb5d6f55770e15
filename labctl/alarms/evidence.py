"""What the rules look at: cycles that can be compared, and what a rule says about them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

LEFT_OUT_CLASSES = frozenset({"formation", "diagnostic"})
"""Cycles of these classes change what they measure, so that no rule compares them."""
DISTURBING_CLASS = "diagnostic"
"""The first cycle after one of this class is left out as well."""


class ComparableCycle(msgspec.Struct, frozen=True):
    """A complete, uninterrupted cycle.

    position: counts the cycles of the same class from 1, those that are left out included.
    efficiency: discharge over charge; None where nothing was charged.
    settled: how many comparable cycles of the same class came directly before it. The charge of a
        cycle after one of another class makes up for what the other left in the cell, so that its
        efficiency says little.
    """

    cycle: int
    position: int
    discharge_Ah: float
    efficiency: float | None = None
    settled: int = 0


class Evidence(msgspec.Struct, frozen=True):
    """The cycles of one class of one run, up to the one that has just ended: a view, not a copy.

    position: of the cycle that has just ended.
    count: how many cycles of the class could be compared.
    first, last: the first and the last of these, oldest first: at least as many as the rules have
        asked for where there are so many, and the same cycle in both where there are few.
    """

    cycle_class: str
    position: int
    count: int
    first: Sequence[ComparableCycle]
    last: Sequence[ComparableCycle]


class Verdict(enum.StrEnum):
    UNDECIDED = "undecided"
    """Not enough cycles yet."""
    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    CANNOT_TELL = "cannot tell"
    """The rule can't be evaluated, and never will be: an alarm too."""


class Evaluation(msgspec.Struct, frozen=True):
    """What a rule says.

    message: for people, with the figures; '' where nothing changes.
    value, limit, unit: what was measured, and where it raises.
    reference, reference_unit: what the value was divided by.
    cycles, reference_cycles: the numbers of the cycles that each was taken from.
    """

    verdict: Verdict
    message: str = ""
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    reference: float | None = None
    reference_unit: str = ""
    cycles: tuple[int, ...] = ()
    reference_cycles: tuple[int, ...] = ()


@dataclass(slots=True)
class ClassHistory:
    """The first and the last comparable cycles of one class: as much as the rules need."""

    keep_first: int
    keep_last: int
    position: int = 0
    count: int = 0
    first: list[ComparableCycle] = field(default_factory=list)
    last: list[ComparableCycle] = field(default_factory=list)
    _settled: int = 0

    def add(
        self,
        cycle: int,
        discharge_Ah: float,
        *,
        comparable: bool,
        efficiency: float | None = None,
        follows: bool = True,
    ) -> int:
        """Take in the next cycle of the class; gives its position.

        Args:
            follows: the cycle before it was of the same class.
        """
        self.position += 1
        settled = self._settled if follows else 0
        self._settled = settled + 1 if comparable else 0
        if comparable:
            entry = ComparableCycle(cycle, self.position, discharge_Ah, efficiency, settled)
            self.count += 1
            if self.count <= self.keep_first:
                self.first.append(entry)
            self.last.append(entry)
            if len(self.last) >= 2 * self.keep_last:
                del self.last[: -self.keep_last or None]
        return self.position

    def evidence(self, cycle_class: str) -> Evidence:
        """What a rule may look at now."""
        return Evidence(cycle_class, self.position, self.count, self.first, self.last)


def is_comparable(
    cycle_class: str, class_before: str | None, *, complete: bool, interrupted: bool
) -> bool:
    """Whether a cycle takes part in retention and alarms."""
    return (
        complete
        and not interrupted
        and cycle_class not in LEFT_OUT_CLASSES
        and class_before != DISTURBING_CLASS
    )
