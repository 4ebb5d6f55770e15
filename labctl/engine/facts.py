"""What a program's choices are made by, and how a choice is made of it. Pure.

Figures of cycles are magnitudes in Ah and Wh. A figure that is not known decides nothing: a
condition that needs it does not hold.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import msgspec

from labctl.program import (
    Comparison,
    CycleFigure,
    CycleResult,
    EndCondition,
    EndedBy,
)


class CycleFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle came to, or has come to so far: integrals of current of one sign each.

    ``interrupted``: readings are missing from it, or it was not run to its end.
    """

    cycle: int
    charge_Ah: float = 0.0
    discharge_Ah: float = 0.0
    charge_Wh: float = 0.0
    discharge_Wh: float = 0.0
    interrupted: bool = False


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when a visit is over.

    end: the condition that ended it; None where something else did.
    running: the cycle that it was in, so far; None outside any.
    last: the cycle that ended last; None before the first.
    kept: ended cycles that the program's conditions name, by their number.
    """

    end: EndCondition | None = None
    running: CycleFigures | None = None
    last: CycleFigures | None = None
    kept: dict[int, CycleFigures] = {}


class Decision(msgspec.Struct, frozen=True):
    """A choice that was made: the line of the recipe (0 if none), and what it went by."""

    line: int
    held: bool
    reason: str


def judge_end(condition: EndedBy, end: EndCondition | None) -> tuple[bool, str]:
    """Whether the step before ended by a condition on the quantity, and how it did."""
    held = end is not None and end.quantity is condition.quantity
    how = "something else than an end of its own" if end is None else str(end)
    return held, f"the step before ended by {how}"


def judge_cycle(
    condition: CycleResult, cycle: CycleFigures | None, kept: Mapping[int, CycleFigures]
) -> tuple[bool, str]:
    """Whether ``cycle`` fulfils the condition, and the figures that say so.

    ``kept`` holds the cycles that it is compared with, as far as they have been.
    """
    if cycle is None:
        return False, "there is no cycle to look at"
    figure = condition.figure
    value, doubt = _known(cycle, figure)
    if value is None:
        return False, doubt
    bound, of = condition.value, ""
    if condition.of_first > 0:
        references: list[float] = []
        for number in range(condition.of_first, condition.of_last + 1):
            reference = kept.get(number)
            if reference is None:
                return False, f"cycle {number}, which it is compared with, has not been"
            known, doubt = _known(reference, figure)
            if known is None:
                return False, doubt
            references.append(known)
        median = statistics.median(references) if references else 0.0
        if median <= 0.0:
            return False, f"{figure} of the cycles that it is compared with is nothing"
        bound *= median
        last = condition.of_last
        which = (
            f"cycle {last}" if len(references) == 1 else f"cycles {condition.of_first} to {last}"
        )
        of = f", {condition.value:g} of that of {which}"
    at_least = condition.comparison is Comparison.AT_LEAST
    held = value >= bound if at_least else value <= bound
    sign = {True: ">=", False: "<"} if at_least else {True: "<=", False: ">"}
    return held, f"{figure} of cycle {cycle.cycle} is {value:g} {sign[held]} {bound:g}{of}"


def _known(cycle: CycleFigures, figure: CycleFigure) -> tuple[float | None, str]:
    """A figure of a cycle, or None and why it is of no use."""
    if cycle.interrupted:
        return None, f"cycle {cycle.cycle} was interrupted"
    match figure:
        case CycleFigure.CHARGE_AH:
            return cycle.charge_Ah, ""
        case CycleFigure.DISCHARGE_AH:
            return cycle.discharge_Ah, ""
        case CycleFigure.CHARGE_WH:
            return cycle.charge_Wh, ""
        case CycleFigure.DISCHARGE_WH:
            return cycle.discharge_Wh, ""
        case CycleFigure.COULOMBIC_EFFICIENCY:
            if cycle.charge_Ah <= 0.0:
                return None, f"nothing was charged in cycle {cycle.cycle}"
            return cycle.discharge_Ah / cycle.charge_Ah, ""
