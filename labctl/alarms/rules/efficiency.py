"""Coulombic efficiency: less comes out of the cell than went in, or more than can have.

Efficiency is compared only where the cell came to the cycle as it does to the others: the first
cycles after one of another class, or after one that is left out, are not judged. A cycle at 0.2C
after one at 50C takes out what the fast one left inside, and has 150 % without any fault.

Robust z: B. Iglewicz, D. C. Hoaglin, How to Detect and Handle Outliers, 1993, page 11.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from labctl.alarms.evidence import ComparableCycle, Evaluation, Evidence, Verdict
from labctl.program import EfficiencyAlarm

NAME = "efficiency"
PRIORITY = "medium"
FEWEST_BEFORE = 10
"""Cycles that the usual efficiency and its spread are taken from at the least."""
EARLY_CYCLES = 5
EARLY_AMONG = 20
"""A class's own efficiency is the median of its first five judged cycles, which are looked for
among the first twenty comparable ones."""
OWN_ROOM = 0.5
"""How far below its own efficiency a class may go, over how far the limit is below 100 %."""
NORMAL_FROM_MAD = 1.4826
"""The standard deviation of normal values over the median of their deviations."""


def cycles_needed(rule: EfficiencyAlarm) -> tuple[int, int]:
    """How many of the first and of the last cycles :func:`evaluate` looks at."""
    return EARLY_AMONG if rule.by_default else 0, rule.of_cycles + rule.over_cycles


def evaluate(rule: EfficiencyAlarm, evidence: Evidence, *, active: bool) -> Evaluation:
    """Whether too many of the last cycles are too low or too high.

    Args:
        active: whether the alarm is active now: then it holds as long as one of them is.
    """
    if not evidence.last or not _judged(rule, evidence.last[-1:]):
        return Evaluation(Verdict.UNDECIDED)
    judged = _judged(rule, evidence.last[-rule.of_cycles - rule.over_cycles :])
    cycles, before = judged[-rule.of_cycles :], judged[: -rule.of_cycles]
    values = [value for _, value in cycles]
    enough = 1 if active else rule.enough_cycles
    if len(values) < enough:
        return Evaluation(Verdict.UNDECIDED)
    ordered = sorted(values)
    low, high = ordered[enough - 1], ordered[-enough]
    message, limit, usual = "", rule.below, None
    if low < rule.below or high > rule.above:
        message, limit = _against_limits(rule, evidence, low, high)
    if not message and len(before) >= FEWEST_BEFORE:
        message, limit, usual = _against_usual(rule, low, [value for _, value in before])
    holds = bool(message)
    if holds == active:
        return Evaluation(Verdict.HOLDS if holds else Verdict.DOES_NOT_HOLD, value=values[-1])
    if holds:
        message = f"{rule.enough_cycles} of the last {len(cycles)} cycles have {message}"
    else:
        message = f"the efficiency is {values[-1]:.2%} and as usual for {len(cycles)} cycles"
    return Evaluation(
        Verdict.HOLDS if holds else Verdict.DOES_NOT_HOLD,
        message,
        value=high if limit == rule.above else low,
        limit=limit,
        unit="1",
        reference=usual,
        reference_unit="" if usual is None else "1",
        cycles=tuple(cycle for cycle, _ in cycles),
        reference_cycles=() if usual is None else tuple(cycle for cycle, _ in before),
    )


def _judged(rule: EfficiencyAlarm, cycles: Sequence[ComparableCycle]) -> list[tuple[int, float]]:
    """The number and the efficiency of each cycle that is judged."""
    return [
        (one.cycle, one.efficiency)
        for one in cycles
        if one.efficiency is not None and one.settled >= rule.first_cycles
    ]


def _against_limits(
    rule: EfficiencyAlarm, evidence: Evidence, low: float, high: float
) -> tuple[str, float]:
    """What is beyond a limit, '' if nothing is; and the limit."""
    below, above = rule.below, rule.above
    if rule.by_default:
        early = _judged(rule, evidence.first[:EARLY_AMONG])[:EARLY_CYCLES]
        if len(early) < EARLY_CYCLES:
            return "", below
        own = statistics.median([value for _, value in early])
        below = min(below, own - OWN_ROOM * (1 - below))
        above = max(above, own + (above - 1))
    if low < below:
        return f"an efficiency of {low:.2%} or less; the limit is {below:.2%}", below
    if high > above:
        return f"an efficiency of {high:.2%} or more; the limit is {above:.2%}", above
    return "", below


def _against_usual(
    rule: EfficiencyAlarm, low: float, before: Sequence[float]
) -> tuple[str, float, float]:
    """What is unusually low, '' if nothing is; the limit; and what is usual."""
    usual = statistics.median(before)
    least_apart = -rule.robust_z * NORMAL_FROM_MAD * rule.least_spread
    if low >= usual - least_apart:
        return "", usual - least_apart, usual
    spread = statistics.median([abs(one - usual) for one in before])
    limit = usual + rule.robust_z * NORMAL_FROM_MAD * max(spread, rule.least_spread)
    if low >= limit:
        return "", limit, usual
    said = f"an efficiency of {low:.2%} or less, where {usual:.2%} is usual; the limit is "
    return f"{said}{limit:.2%}", limit, usual
