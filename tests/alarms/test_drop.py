"""A sudden drop: seen against the cycles before it, confirmed by those after it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from labctl.alarms.evidence import ClassHistory, Evaluation, Verdict
from labctl.alarms.rules.drop import cycles_needed, evaluate
from labctl.program import DropAlarm

RULE = DropAlarm()


def follow(capacities: Sequence[float], rule: DropAlarm = RULE) -> list[tuple[int, Evaluation]]:
    """The changes of the alarm over these cycles, with the cycle of each."""
    history = ClassHistory(*cycles_needed(rule))
    active, changes = False, []
    for cycle, capacity in enumerate(capacities, start=1):
        history.add(cycle, capacity, comparable=True)
        found = evaluate(rule, history.evidence("cycle"), active=active)
        if found.verdict is not Verdict.UNDECIDED and active != (found.verdict is Verdict.HOLDS):
            active = not active
            changes.append((cycle, found))
    return changes


def test_a_drop_is_told_two_cycles_later_with_its_figures() -> None:
    (cycle, found), *_ = follow([2e-3] * 20 + [1.8e-3] * 3)
    assert cycle == 23
    assert found.value == pytest.approx(0.1)
    assert found.cycles == (21, 22, 23)
    assert found.reference_cycles == (16, 17, 18, 19, 20)
    assert "fell by 10.0% in cycle 21" in found.message
    assert "1.8 mAh after 2 mAh" in found.message


@pytest.mark.parametrize(
    "low", [[0.9], [0.9, 0.9], [0.9, 0.9, 0.97], [0.951] * 10, [0.9, 1.0, 0.9, 1.0, 0.9, 1.0]]
)
def test_what_comes_back_or_is_within_the_limit_is_no_drop(low: list[float]) -> None:
    assert follow([1.0] * 20 + low + [1.0] * 10) == []


def test_a_slow_fade_is_no_drop() -> None:
    assert follow([1 - 0.01 * cycle for cycle in range(60)]) == []


def test_the_first_cycles_have_nothing_to_be_compared_with() -> None:
    assert follow([1.3, 1.2, 1.0, 1.0, 1.0, 1.0, 1.0]) == []


def test_it_is_over_once_ten_cycles_have_been_steady_at_the_new_level() -> None:
    raised, over = follow([1.0] * 20 + [0.9] * 20)
    assert (raised[0], over[0]) == (23, 30)
    assert "steady at 900 mAh since cycle 21" in over[1].message


def test_it_is_not_over_while_the_cell_goes_on_losing() -> None:
    falling = [0.9 - 0.02 * cycle for cycle in range(30)]
    assert len(follow([1.0] * 20 + falling)) == 1


def test_a_second_drop_is_told_anew() -> None:
    changes = follow([1.0] * 20 + [0.9] * 12 + [0.8] * 12)
    assert [cycle for cycle, _ in changes] == [23, 30, 35, 42]


def test_the_recipe_says_how_much_and_for_how_long() -> None:
    rule = DropAlarm(more_than=0.02, confirmed_by=0, steady_cycles=3)
    assert [cycle for cycle, _ in follow([1.0] * 10 + [0.97] * 10, rule)] == [11, 13]
