"""What looks like an alarm and is none: check-ups, fast fade, warm days, a step that was told."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest

from labctl.alarms.evidence import ClassHistory, Verdict
from labctl.alarms.rules import evaluate
from labctl.program import AlarmRule, DropAlarm, FadeAlarm, KneeAlarm

NOISE = 3e-4
ALL = 10_000


def raised(
    rule: AlarmRule, capacities: Iterable[float], numbers: Iterator[int] | None = None
) -> list[int]:
    """The numbers of the cycles after which ``rule`` raised; they count from 1 if not given."""
    history = ClassHistory(ALL, ALL)
    found: list[int] = []
    active = False
    for cycle, capacity in zip(numbers or itertools.count(1), capacities, strict=False):
        history.add(cycle, float(capacity), comparable=True, efficiency=1.0)
        verdict = evaluate(rule, history.evidence("cycle"), active=active).verdict
        if verdict is Verdict.UNDECIDED:
            continue
        if verdict is Verdict.HOLDS and not active:
            found.append(cycle)
        active = verdict is Verdict.HOLDS
    return found


def noisy(capacities: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(capacities, dtype=float)
    return values * (1 + NOISE * np.random.default_rng(5).standard_normal(len(values)))


@pytest.mark.parametrize("part", [0.01, 0.02, 0.04, 0.08])
def test_a_cell_that_fades_fast_and_evenly_has_not_dropped(part: float) -> None:
    assert raised(DropAlarm(), noisy((1 - part) ** np.arange(60))) == []


@pytest.mark.parametrize("part", [0.0, 0.005, 0.02])
def test_a_drop_is_found_in_a_cell_that_fades_as_well(part: float) -> None:
    capacities = (1 - part) ** np.arange(60)
    capacities[30:] *= 0.92
    assert raised(DropAlarm(), noisy(capacities))[0] == 33


def test_checks_that_lie_far_apart_have_not_dropped() -> None:
    evenly, late = 1 - 0.025 * np.arange(20), np.ones(20)
    late[10:] = 0.92
    assert raised(DropAlarm(), noisy(evenly), itertools.count(1, 501)) == []
    assert raised(DropAlarm(), noisy(late), itertools.count(1, 501)) == []


def test_a_check_between_two_cycles_does_not_hide_a_drop() -> None:
    numbers = iter([*range(1, 31), *range(32, 62)])
    capacities = np.ones(60)
    capacities[30:] = 0.9
    assert raised(DropAlarm(), noisy(capacities), numbers) == [34]


@pytest.mark.parametrize("rule", [FadeAlarm(), KneeAlarm()])
@pytest.mark.parametrize("at", range(95, 105))
def test_a_single_step_is_neither_a_fade_nor_a_knee(rule: AlarmRule, at: int) -> None:
    capacities = np.ones(200)
    capacities[at:] = 0.92
    assert raised(rule, noisy(capacities)) == []


@pytest.mark.parametrize("rule", [FadeAlarm(), KneeAlarm()])
@pytest.mark.parametrize("period", [12, 24, 60, 150, 400, 1500])
def test_warm_and_cold_days_are_neither_a_fade_nor_a_knee(rule: AlarmRule, period: int) -> None:
    cycle = np.arange(1500)
    room = 1 + 3e-3 * np.sin(2 * np.pi * cycle / period)
    assert raised(rule, noisy((1 - 2e-5 * cycle) * room)) == []


def test_a_cell_that_rises_first_and_then_fades_as_cells_do_has_no_knee() -> None:
    cycle = np.arange(300)
    capacities = 1 + 1e-3 * np.minimum(cycle, 150) - 2.2e-4 * np.maximum(cycle - 150, 0)
    assert raised(KneeAlarm(), noisy(capacities)) == []


def test_a_bend_that_has_cost_little_is_not_told() -> None:
    cycle = np.arange(300)
    capacities = 1 - 3e-4 * cycle - 3.3e-4 * np.maximum(cycle - 150, 0)
    assert raised(KneeAlarm(), noisy(capacities)) == []


@pytest.mark.parametrize("rule", [FadeAlarm(), KneeAlarm()])
def test_capacity_that_comes_back_and_goes_again_is_neither(rule: AlarmRule) -> None:
    cycle = np.arange(300)
    assert raised(rule, noisy(1 - 2e-3 * np.abs(((cycle + 6) % 12) - 6))) == []


@pytest.mark.parametrize("rule", [FadeAlarm(), KneeAlarm()])
def test_an_even_fade_is_no_fade_that_became_faster(rule: AlarmRule) -> None:
    assert raised(rule, noisy(1 - 1e-3 * np.arange(400))) == []


@pytest.mark.parametrize(("rule", "soon"), [(FadeAlarm(), 45), (KneeAlarm(), 40)])
def test_a_fade_that_became_faster_is_found(rule: AlarmRule, soon: int) -> None:
    cycle = np.arange(300)
    found = raised(rule, noisy(1 - 2e-5 * cycle - 8e-4 * np.maximum(cycle - 150, 0)))
    assert 160 <= found[0] <= 150 + soon
