"""Coulombic efficiency: judged only where a cycle found the cell as its own class leaves it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from labctl.alarms.evidence import ClassHistory, Evaluation, Verdict
from labctl.alarms.rules.efficiency import cycles_needed, evaluate
from labctl.program import EfficiencyAlarm

USUAL = EfficiencyAlarm(by_default=True)
WRITTEN = EfficiencyAlarm()


def follow(
    efficiencies: Sequence[float | None],
    rule: EfficiencyAlarm = USUAL,
    *,
    breaks: frozenset[int] = frozenset(),
    left_out: frozenset[int] = frozenset(),
) -> list[tuple[int, Evaluation]]:
    """The changes of the alarm over cycles of these efficiencies, with the cycle of each.

    Args:
        breaks: cycles (from 1) before which there was one of another class.
        left_out: cycles that cannot be compared.
    """
    history = ClassHistory(*cycles_needed(rule))
    active, changes = False, []
    for cycle, efficiency in enumerate(efficiencies, start=1):
        comparable = cycle not in left_out
        history.add(
            cycle, 1.0, comparable=comparable, efficiency=efficiency, follows=cycle not in breaks
        )
        if not comparable:
            continue
        found = evaluate(rule, history.evidence("cycle"), active=active)
        if found.verdict is not Verdict.UNDECIDED and active != (found.verdict is Verdict.HOLDS):
            active = not active
            changes.append((cycle, found))
    return changes


@pytest.mark.parametrize("rule", [USUAL, WRITTEN])
def test_three_cycles_of_five_below_99_percent_raise(rule: EfficiencyAlarm) -> None:
    ((cycle, found),) = follow([0.999] * 12 + [0.98, 0.999, 0.98, 0.985], rule)
    assert cycle == 16
    assert (found.value, found.limit) == (0.985, 0.99)
    assert found.cycles == (12, 13, 14, 15, 16)
    assert "98.50% or less; the limit is 99.00%" in found.message


def test_two_cycles_of_five_do_not_raise() -> None:
    assert follow([0.999] * 12 + [0.9, 0.9] + [0.999] * 12) == []


def test_more_out_than_in_raises() -> None:
    ((_, found),) = follow([0.999] * 12 + [1.01] * 3)
    assert (found.value, found.limit) == (1.01, 1.005)
    assert "101.00% or more; the limit is 100.50%" in found.message


def test_what_is_low_for_this_cell_raises_above_the_limit_too() -> None:
    noise = 1e-4 * np.random.default_rng(1).standard_normal(60)
    ((cycle, found),) = follow([*(0.9995 + noise).tolist(), *[0.9945] * 3])
    assert cycle == 63
    assert found.reference == pytest.approx(0.9995, abs=1e-4)
    assert found.limit == pytest.approx(0.9995 - 5 * 1.4826 * 0.0005, abs=1e-4)
    assert "is usual" in found.message


def test_a_noisy_cell_is_given_more_room() -> None:
    noise = 2e-3 * np.random.default_rng(1).standard_normal(60)
    assert follow([*(1 + noise).tolist(), *[0.9945] * 3]) == []


def test_it_is_over_when_five_cycles_are_as_usual() -> None:
    low = [0.98] * 4
    changes = follow([0.999] * 20 + low + [0.999] * 10)
    assert [cycle for cycle, _ in changes] == [23, 29]
    assert changes[1][1].message == "the efficiency is 99.90% and as usual for 5 cycles"


def test_a_cell_that_is_so_from_the_beginning_is_compared_with_itself_where_nobody_asked() -> None:
    film = [0.63, 0.978, 0.985, 0.986, 0.985, 0.986, 0.985, 0.986] + [0.985] * 20
    assert follow(film) == []
    assert [cycle for cycle, _ in follow(film, WRITTEN)] == [5]
    ((cycle, found),) = follow([*film, *[0.975] * 3])
    assert cycle == len(film) + 3
    assert found.limit == pytest.approx(0.985 - 0.005)


def test_a_half_cell_that_gives_more_than_it_takes_is_compared_with_itself() -> None:
    carbon = [1.2] + [1.008] * 30
    assert follow(carbon) == []
    assert [cycle for cycle, _ in follow([*carbon, *[1.02] * 3])] == [34]


def test_the_cycles_after_one_of_another_class_are_not_judged() -> None:
    check = [1.5] * 8
    assert follow(check, WRITTEN, breaks=frozenset(range(1, 9))) == []
    blocks = ([0.4, 0.965] + [1.0] * 8) * 4
    assert follow(blocks, WRITTEN, breaks=frozenset({1, 11, 21, 31})) == []
    assert follow(blocks, EfficiencyAlarm(first_cycles=1, enough_cycles=1)) != []


def test_the_cycles_after_one_that_was_interrupted_are_not_judged() -> None:
    values = [1.0] * 20 + [0.5, 0.9, 0.9] * 3 + [1.0] * 5
    assert follow(values, WRITTEN, left_out=frozenset({21, 24, 27})) == []


def test_cycles_without_a_charge_are_not_judged() -> None:
    assert follow([None] * 30) == []
