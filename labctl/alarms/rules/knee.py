"""Knee: the capacity has begun to fall faster, by itself and not in one step. An advice.

The last cycles are cut in two at several places; a knee is where the slope of the second part is
much steeper, by more than both slopes are unsure, and where the second part falls in both of its
halves: a single step does not. When the bend has left these cycles the alarm is over; the fade that
it led to has a rule of its own. It is looked at every tenth comparable cycle.
"""

from __future__ import annotations

from collections.abc import Sequence

from labctl.alarms.evidence import ComparableCycle, Evaluation, Evidence, Verdict
from labctl.alarms.rules.slopes import Slope, falls_in_both_halves, slope_of, span
from labctl.program import KneeAlarm

NAME = "knee"
PRIORITY = "low"
TIMES = 2.0
"""How much steeper the second part is at the least."""
AT_LEAST = 2e-4
"""And by how much of the capacity a cycle."""
CLEARS_AT = 0.5
"""It is over when the change is below this part of what raises it."""
LOSS_AT_LEAST = 0.015
"""What the bend has cost of the capacity by now at the least: more than a warmer or colder day."""


def cycles_needed(rule: KneeAlarm) -> tuple[int, int]:
    """How many of the first and of the last cycles :func:`evaluate` looks at."""
    return 0, rule.over_cycles


def evaluate(rule: KneeAlarm, evidence: Evidence, *, active: bool) -> Evaluation:
    """Whether the last cycles bend downwards; every ``every_cycles``-th cycle."""
    if evidence.count % rule.every_cycles or evidence.count < rule.over_cycles:
        return Evaluation(Verdict.UNDECIDED)
    cycles = evidence.last[-rule.over_cycles :]
    if not active and span(cycles) < LOSS_AT_LEAST:
        return Evaluation(Verdict.DOES_NOT_HOLD)
    level_Ah = slope_of(cycles[: rule.confirmed_by]).end_Ah
    if not level_Ah > 0:
        return Evaluation(Verdict.UNDECIDED)
    holds, found = False, (0, 0.0, 0.0)
    for cut in range(rule.confirmed_by, len(cycles) - rule.confirmed_by + 1, rule.every_cycles):
        before, after = slope_of(cycles[:cut]), slope_of(cycles[cut:])
        if _bends(before, after, cycles[cut:], level_Ah, active=active):
            change = before.per_cycle_Ah - after.per_cycle_Ah
            if not holds or change > found[1] - found[2]:
                found = (cut, before.per_cycle_Ah, after.per_cycle_Ah)
            holds = True
    if holds == active:
        return Evaluation(Verdict.HOLDS if holds else Verdict.DOES_NOT_HOLD)
    if not holds:
        return Evaluation(
            Verdict.DOES_NOT_HOLD,
            f"the discharge capacity does not bend any more in cycles {cycles[0].cycle} to "
            f"{cycles[-1].cycle}",
            cycles=tuple(one.cycle for one in cycles),
        )
    cut, slope_before, slope_after = found
    was = f"by {-slope_before / level_Ah:.3%}" if slope_before < 0 else "not at all"
    return Evaluation(
        Verdict.HOLDS,
        f"the discharge capacity bends at about cycle {cycles[cut].cycle}: it fades by "
        f"{-slope_after / level_Ah:.3%} a cycle since, and faded {was} before",
        value=-slope_after / level_Ah,
        limit=max(-TIMES * slope_before / level_Ah, AT_LEAST),
        unit="1/cycle",
        reference=level_Ah,
        reference_unit="Ah",
        cycles=tuple(one.cycle for one in cycles[cut:]),
        reference_cycles=tuple(one.cycle for one in cycles[:cut]),
    )


def _bends(
    before: Slope,
    after: Slope,
    second_part: Sequence[ComparableCycle],
    level_Ah: float,
    *,
    active: bool,
) -> bool:
    change_Ah = min(before.per_cycle_Ah, 0.0) - after.per_cycle_Ah
    needed_Ah = max(AT_LEAST * level_Ah, -(TIMES - 1) * before.per_cycle_Ah)
    if active:
        return change_Ah > CLEARS_AT * needed_Ah
    if not (change_Ah > needed_Ah and after.high_Ah < before.low_Ah):
        return False
    if change_Ah * len(second_part) < LOSS_AT_LEAST * level_Ah:
        return False
    return falls_in_both_halves(second_part, after)
