"""Retention: the capacity that is left, compared with what the cell had when it was young.

The reference is the median discharge capacity of the recipe's reference cycles, counted within
their class; the value is the median of the last comparable cycles over the reference.
"""

from __future__ import annotations

import statistics

from labctl.alarms.evidence import ComparableCycle, Evaluation, Evidence, Verdict
from labctl.analysis.cycles import reference_capacity_Ah, retention
from labctl.program import RetentionAlarm

NAME = "retention"
PRIORITY = "medium"


def cycles_needed(rule: RetentionAlarm) -> tuple[int, int]:
    """How many of the first and of the last cycles :func:`evaluate` looks at."""
    return rule.reference_last, rule.over_cycles


def reference_cycles(
    evidence: Evidence, reference_first: int, reference_last: int
) -> list[ComparableCycle]:
    """The comparable cycles from ``reference_first`` to ``reference_last`` of the class."""
    return [
        one
        for one in evidence.first[:reference_last]
        if reference_first <= one.position <= reference_last
    ]


def evaluate(rule: RetentionAlarm, evidence: Evidence, *, active: bool) -> Evaluation:
    """Whether too little is left.

    Args:
        active: whether the alarm is active now: then it holds until ``clears_at`` is reached.
    """
    if evidence.position < rule.reference_last:
        return Evaluation(Verdict.UNDECIDED)
    referred = reference_cycles(evidence, rule.reference_first, rule.reference_last)
    if not referred:
        return _cannot_tell(rule, evidence, "and no such cycle is complete and uninterrupted")
    reference_Ah = reference_capacity_Ah([one.discharge_Ah for one in referred])
    if not reference_Ah > 0:
        return _cannot_tell(rule, evidence, f"and they discharged {reference_Ah:g} Ah")
    recent = evidence.last[-rule.over_cycles :]
    if len(recent) < rule.over_cycles:
        return Evaluation(Verdict.UNDECIDED)
    value = retention(statistics.median([one.discharge_Ah for one in recent]), reference_Ah)
    holds = value < (rule.clears_at if active else rule.below)
    message = ""
    if holds != active:
        message = (
            f"retention {value:.1%} of {1e3 * reference_Ah:.4g} mAh "
            f"({_cycles(recent[0].cycle, recent[-1].cycle)} against "
            f"{_cycles(referred[0].cycle, referred[-1].cycle)}); the limit is {rule.below:.1%}"
        )
    return Evaluation(
        Verdict.HOLDS if holds else Verdict.DOES_NOT_HOLD,
        message,
        value=value,
        limit=rule.below,
        unit="1",
        reference=reference_Ah,
        reference_unit="Ah",
        cycles=tuple([one.cycle for one in recent]),
        reference_cycles=tuple([one.cycle for one in referred]),
    )


def _cannot_tell(rule: RetentionAlarm, evidence: Evidence, why: str) -> Evaluation:
    """Nobody is told of it where nobody asked for the rule."""
    if rule.by_default:
        return Evaluation(Verdict.UNDECIDED)
    return Evaluation(
        Verdict.CANNOT_TELL,
        f"retention cannot be watched: {_cycles(rule.reference_first, rule.reference_last)} "
        f"of class {evidence.cycle_class!r} should be the reference, {why}",
    )


def _cycles(first: int, last: int) -> str:
    return f"cycle {first}" if first == last else f"the median of cycles {first} to {last}"
