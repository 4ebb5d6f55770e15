"""Fade rate: the capacity falls faster than it did when the cell was young.

Both slopes are Theil and Sen's, of as many cycles; the baseline is that of the first ones after the
reference. It is looked at every tenth comparable cycle. A single step is no fade: both halves of
the last cycles must fall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from labctl.alarms.evidence import ComparableCycle, Evaluation, Evidence, Verdict
from labctl.alarms.rules.retention import reference_cycles
from labctl.alarms.rules.slopes import Slope, falls_in_both_halves, slope_of, span
from labctl.analysis.cycles import reference_capacity_Ah
from labctl.program import FadeAlarm

NAME = "fade"
PRIORITY = "medium"
SPAN_AT_LEAST = 0.5
"""Cycles whose capacities lie within this part of the least fade over them are not looked at
further."""
CLEARS_AT = 0.8
"""It is over when the fade is below this part of what raises it."""


def cycles_needed(rule: FadeAlarm) -> tuple[int, int]:
    """How many of the first and of the last cycles :func:`evaluate` looks at."""
    return rule.reference_last + rule.over_cycles, rule.over_cycles


def evaluate(rule: FadeAlarm, evidence: Evidence, *, active: bool) -> Evaluation:
    """Whether it fades much faster than at first; every ``every_cycles``-th cycle.

    Args:
        active: whether the alarm is active now: then it holds until the fade is clearly slower.
    """
    if evidence.count % rule.every_cycles or evidence.count < rule.over_cycles:
        return Evaluation(Verdict.UNDECIDED)
    recent = evidence.last[-rule.over_cycles :]
    if not active and span(recent) < SPAN_AT_LEAST * rule.at_least * rule.over_cycles:
        return Evaluation(Verdict.DOES_NOT_HOLD)
    referred = reference_cycles(evidence, rule.reference_first, rule.reference_last)
    young = [one for one in evidence.first if one.position > rule.reference_last]
    young = young[: rule.over_cycles]
    if not referred or len(young) < rule.over_cycles:
        return Evaluation(Verdict.UNDECIDED)
    reference_Ah = reference_capacity_Ah([one.discharge_Ah for one in referred])
    if not reference_Ah > 0:
        return Evaluation(Verdict.UNDECIDED)
    baseline, now = slope_of(young), slope_of(recent)
    fade, fade_then = -now.per_cycle_Ah / reference_Ah, -baseline.per_cycle_Ah / reference_Ah
    limit = max(rule.times * fade_then, rule.at_least)
    faster = active or now.high_Ah < baseline.low_Ah
    holds = faster and fade > (CLEARS_AT * limit if active else limit)
    holds = holds and (active or falls_in_both_halves(recent, now))
    if holds == active:
        return Evaluation(Verdict.HOLDS if holds else Verdict.DOES_NOT_HOLD, value=fade)
    return Evaluation(
        Verdict.HOLDS if holds else Verdict.DOES_NOT_HOLD,
        f"the discharge capacity fades by {fade:.3%} a cycle (cycles {recent[0].cycle} to "
        f"{recent[-1].cycle}), {_at_first(fade_then)} in cycles {young[0].cycle} to "
        f"{young[-1].cycle}; the limit is {limit:.3%}{_forecast(rule, now, recent, reference_Ah)}",
        value=fade,
        limit=limit,
        unit="1/cycle",
        reference=reference_Ah,
        reference_unit="Ah",
        cycles=tuple(one.cycle for one in recent),
        reference_cycles=tuple(one.cycle for one in young),
    )


def _at_first(fade: float) -> str:
    return f"by {fade:.3%}" if fade > 0 else "not at all"


def _forecast(
    rule: FadeAlarm, now: Slope, recent: Sequence[ComparableCycle], reference_Ah: float
) -> str:
    """When the limit of retention is reached at this slope, by the numbers of cycles in the run."""
    left_Ah = now.end_Ah - rule.limit * reference_Ah
    if now.per_cycle_Ah >= 0 or left_Ah <= 0:
        return ""
    first, last = recent[0], recent[-1]
    cycles_each = (last.cycle - first.cycle) / (last.position - first.position)
    cycle = last.cycle + math.ceil(cycles_each * left_Ah / -now.per_cycle_Ah)
    return f"; at this rate {rule.limit:.0%} are left at about cycle {cycle:,}"
