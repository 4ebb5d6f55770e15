"""What the rules look at: cycles that can be compared, and what a rule says about them."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

LEFT_OUT_CLASSES = frozenset({"formation", "diagnostic"})
"""Cycles of these classes change what they measure, so that no rule compares them."""
DISTURBING_CLASS = "diagnostic"
"""The first cycle after one of this class is left out as well."""


@dataclass(frozen=True, slots=True)
class ComparableCycle:
    """A complete, uninterrupted cycle.

    position: counts the cycles of the same class from 1, those that are left out included.
    """

    cycle: int
    position: int
    discharge_Ah: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """The cycles of one class of one run, up to the one that has just ended.

    position: of the cycle that has just ended.
    cycles: those that can be compared, oldest first.
    """

    cycle_class: str
    position: int
    cycles: Sequence[ComparableCycle]


class Verdict(enum.StrEnum):
    UNDECIDED = "undecided"
    """Not enough cycles yet."""
    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    CANNOT_TELL = "cannot tell"
    """The rule can't be evaluated, and never will be: an alarm too."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a rule says.

    message: for people, with the figures.
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
    first: list[ComparableCycle] = field(default_factory=list)
    recent: deque[ComparableCycle] = field(default_factory=deque)

    def add(self, cycle: int, discharge_Ah: float, *, comparable: bool) -> int:
        """Take in the next cycle of the class; gives its position."""
        self.position += 1
        if comparable:
            entry = ComparableCycle(cycle, self.position, discharge_Ah)
            if self.position <= self.keep_first:
                self.first.append(entry)
            else:
                self.recent.append(entry)
                if len(self.recent) > self.keep_last:
                    self.recent.popleft()
        return self.position

    def evidence(self, cycle_class: str) -> Evidence:
        """What a rule may look at now."""
        return Evidence(cycle_class, self.position, (*self.first, *self.recent))


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
