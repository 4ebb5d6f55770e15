"""The retention rule: medians, a reference, and a gap between raising and clearing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.alarms.evidence import ClassHistory, Evidence, Verdict, is_comparable
from labctl.alarms.rules import RULES, evaluate
from labctl.alarms.rules.retention import cycles_needed
from labctl.program import RetentionAlarm

RULE = RetentionAlarm()


def evidence(capacities: Sequence[float], left_out: frozenset[int] = frozenset()) -> Evidence:
    """Cycles of these capacities; those in ``left_out`` (from 1) cannot be compared."""
    history = ClassHistory(keep_first=10_000, keep_last=10_000)
    for cycle, capacity in enumerate(capacities, start=1):
        history.add(cycle, capacity, comparable=cycle not in left_out)
    return history.evidence("cycle")


def test_nothing_is_said_before_the_reference_is_over() -> None:
    assert evaluate(RULE, evidence([1.0] * 6), active=False).verdict is Verdict.UNDECIDED
    assert evaluate(RULE, evidence([1.0] * 7), active=False).verdict is Verdict.DOES_NOT_HOLD


def test_one_bad_cycle_does_not_raise() -> None:
    found = evaluate(RULE, evidence([1.0] * 10 + [0.1]), active=False)
    assert found.verdict is Verdict.DOES_NOT_HOLD
    assert found.value == 1.0


def test_three_of_five_cycles_below_the_limit_raise_and_the_message_says_it_all() -> None:
    found = evaluate(RULE, evidence([2.0] * 10 + [1.58] * 3), active=False)
    assert found.verdict is Verdict.HOLDS
    assert (found.value, found.limit, found.reference) == (pytest.approx(0.79), 0.8, 2.0)
    assert found.cycles == (9, 10, 11, 12, 13)
    assert found.reference_cycles == (3, 4, 5, 6, 7)
    assert "79.0%" in found.message
    assert "cycles 9 to 13" in found.message
    assert "cycles 3 to 7" in found.message


def test_exactly_at_the_limit_does_not_raise() -> None:
    found = evaluate(RULE, evidence([1.0] * 7 + [0.8] * 5), active=False)
    assert found.verdict is Verdict.DOES_NOT_HOLD


@pytest.mark.parametrize(("capacity", "holds"), [(0.805, True), (0.81, False), (0.9, False)])
def test_an_active_alarm_clears_only_at_its_clearing_limit(capacity: float, holds: bool) -> None:
    found = evaluate(RULE, evidence([1.0] * 7 + [capacity] * 5), active=True)
    assert (found.verdict is Verdict.HOLDS) is holds


def test_the_first_cycles_are_not_the_reference() -> None:
    found = evaluate(RULE, evidence([3.0, 2.0] + [1.0] * 8), active=False)
    assert found.reference == 1.0


def test_cycles_that_cannot_be_compared_are_left_out_of_reference_and_value() -> None:
    capacities = [1.0] * 4 + [0.1] + [1.0] * 3 + [0.1] * 2 + [1.0] * 2
    found = evaluate(RULE, evidence(capacities, frozenset({5, 9, 10})), active=False)
    assert found.value == 1.0
    assert found.reference_cycles == (3, 4, 6, 7)
    assert found.cycles == (6, 7, 8, 11, 12)


@pytest.mark.parametrize("capacity", [None, 0.0])
def test_a_rule_that_has_no_reference_says_that_it_cannot_tell(capacity: float | None) -> None:
    left_out = frozenset(range(3, 8)) if capacity is None else frozenset()
    capacities = [1.0 if capacity is None else capacity] * 9
    found = evaluate(RULE, evidence(capacities, left_out), active=False)
    assert found.verdict is Verdict.CANNOT_TELL
    assert "3 to 7" in found.message


def test_every_rule_of_a_program_has_an_evaluation() -> None:
    assert RetentionAlarm in RULES


@pytest.mark.parametrize(
    ("cycle_class", "before", "complete", "interrupted", "takes_part"),
    [
        ("cycle", None, True, False, True),
        ("cycle", "formation", True, False, True),
        ("cycle", "diagnostic", True, False, False),
        ("formation", None, True, False, False),
        ("diagnostic", "cycle", True, False, False),
        ("cycle", "cycle", False, False, False),
        ("cycle", "cycle", True, True, False),
    ],
)
def test_only_whole_and_undisturbed_cycles_are_compared(
    cycle_class: str, before: str | None, complete: bool, interrupted: bool, takes_part: bool
) -> None:
    found = is_comparable(cycle_class, before, complete=complete, interrupted=interrupted)
    assert found is takes_part


@given(
    capacities=st.lists(st.floats(0.5, 1.5), max_size=60),
    left_out=st.frozensets(st.integers(1, 60), max_size=15),
    rule=st.builds(
        RetentionAlarm,
        reference_first=st.integers(1, 4),
        reference_last=st.integers(4, 9),
        over_cycles=st.integers(1, 8),
    ),
    active=st.booleans(),
)
def test_what_the_archive_remembers_is_enough_for_the_rule(
    capacities: list[float], left_out: frozenset[int], rule: RetentionAlarm, active: bool
) -> None:
    first, last = cycles_needed(rule)
    short = ClassHistory(first, last)
    for cycle, capacity in enumerate(capacities, start=1):
        short.add(cycle, capacity, comparable=cycle not in left_out)
        known = evidence(capacities[:cycle], left_out)
        assert evaluate(rule, short.evidence("cycle"), active=active) == evaluate(
            rule, known, active=active
        )
    assert len(short.first) <= first
    assert len(short.last) < 2 * last + 1
