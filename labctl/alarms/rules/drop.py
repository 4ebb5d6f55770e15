"""Sudden drop: capacity that is lost from one cycle to the next, and does not come back at once.

A cell that lost a part of its electrode or a contact never gets it back, so that the alarm cannot
wait for the old capacity: it is over when the cell has been steady for a while at its new level.
Who has not acknowledged it by then still finds it, as returned-unacknowledged.

A cell that fades fast loses more than the limit in a few cycles without any of them being sudden: a
cycle is compared with where those before it were going. Cycles that are far apart in the run, as
check-ups are, say nothing about what happened from one to the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from labctl.alarms.evidence import ComparableCycle, Evaluation, Evidence, Verdict
from labctl.alarms.rules.slopes import slope_of
from labctl.program import DropAlarm

NAME = "drop"
PRIORITY = "high"
AT_MOST_APART = 10
"""The cycles of the run from the last one before to the one that dropped."""
STEADY_WITHIN = 0.5
"""Steady is what stays within this part of the drop that raises, to both sides of its median."""


def cycles_needed(rule: DropAlarm) -> tuple[int, int]:
    """How many of the first and of the last cycles :func:`evaluate` looks at."""
    return 0, max(rule.against_cycles + 1 + rule.confirmed_by, rule.steady_cycles)


def evaluate(rule: DropAlarm, evidence: Evidence, *, active: bool) -> Evaluation:
    """Whether a cycle and all that have confirmed it are below those before it."""
    return _while_active(rule, evidence) if active else _whether_dropped(rule, evidence)


def _whether_dropped(rule: DropAlarm, evidence: Evidence) -> Evaluation:
    low = evidence.last[-1 - rule.confirmed_by :]
    before = evidence.last[-len(low) - rule.against_cycles : -len(low)]
    if len(before) < rule.against_cycles:
        return Evaluation(Verdict.UNDECIDED)
    usual_Ah = statistics.median([one.discharge_Ah for one in before])
    highest_Ah = max([one.discharge_Ah for one in low])
    if not (usual_Ah > 0 and highest_Ah < (1 - rule.more_than) * usual_Ah):
        return Evaluation(Verdict.DOES_NOT_HOLD)
    if low[0].cycle - before[-1].cycle > AT_MOST_APART:
        return Evaluation(Verdict.DOES_NOT_HOLD)
    if not highest_Ah < (1 - rule.more_than) * _expected_Ah(before, low[0]):
        return Evaluation(Verdict.DOES_NOT_HOLD)
    value = 1 - low[0].discharge_Ah / usual_Ah
    after = f" and did not come back until cycle {low[-1].cycle}" if rule.confirmed_by else ""
    return Evaluation(
        Verdict.HOLDS,
        f"the discharge capacity fell by {value:.1%} in cycle {low[0].cycle}{after}: "
        f"{1e3 * low[0].discharge_Ah:.4g} mAh after {1e3 * usual_Ah:.4g} mAh; "
        f"the limit is {rule.more_than:.1%}",
        value=value,
        limit=rule.more_than,
        unit="1",
        reference=usual_Ah,
        reference_unit="Ah",
        cycles=tuple(one.cycle for one in low),
        reference_cycles=tuple(one.cycle for one in before),
    )


def _expected_Ah(before: Sequence[ComparableCycle], cycle: ComparableCycle) -> float:
    """What ``cycle`` would give if the cell had gone on as in the cycles before."""
    if len(before) < 2:
        return before[-1].discharge_Ah
    line = slope_of(before)
    return line.end_Ah + line.per_cycle_Ah * (cycle.position - before[-1].position)


def _while_active(rule: DropAlarm, evidence: Evidence) -> Evaluation:
    recent = evidence.last[-rule.steady_cycles :]
    middle_Ah = statistics.median([one.discharge_Ah for one in recent])
    if len(recent) < rule.steady_cycles or not _steady(recent, middle_Ah, rule):
        return Evaluation(Verdict.HOLDS)
    return Evaluation(
        Verdict.DOES_NOT_HOLD,
        f"the discharge capacity has been steady at {1e3 * middle_Ah:.4g} mAh since cycle "
        f"{recent[0].cycle}",
        limit=rule.more_than,
        unit="1",
        reference=middle_Ah,
        reference_unit="Ah",
        cycles=tuple(one.cycle for one in recent),
    )


def _steady(cycles: Sequence[ComparableCycle], middle_Ah: float, rule: DropAlarm) -> bool:
    within_Ah = STEADY_WITHIN * rule.more_than * middle_Ah
    return all(abs(one.discharge_Ah - middle_Ah) <= within_Ah for one in cycles)
