"""A fade that becomes faster: its slope, its forecast, and the knee where it began."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.alarms.evidence import ClassHistory, ComparableCycle, Evaluation, Verdict
from labctl.alarms.rules import RULES, fade, knee
from labctl.alarms.rules.slopes import slope_of
from labctl.program import (
    AlarmRule,
    DropAlarm,
    EfficiencyAlarm,
    FadeAlarm,
    KneeAlarm,
    RetentionAlarm,
    TemperatureAlarm,
)

FADE, KNEE = FadeAlarm(), KneeAlarm()


def follow(
    rule: AlarmRule, capacities: Sequence[float], every: int = 1
) -> list[tuple[int, Evaluation]]:
    """The changes of the alarm, with the position of each; ``every`` spreads the cycle numbers."""
    declared = RULES[type(rule)]
    history = ClassHistory(*declared.cycles_needed(rule))
    active, changes = False, []
    for position, capacity in enumerate(capacities, start=1):
        history.add(every * position, float(capacity), comparable=True)
        found = declared.evaluate(rule, history.evidence("cycle"), active=active)
        if found.verdict is not Verdict.UNDECIDED and active != (found.verdict is Verdict.HOLDS):
            active = not active
            changes.append((position, found))
    return changes


def bent(at: int, then: float, size: int, slope: float = 1e-4, noise: float = 0.0) -> Any:
    """A capacity that fades by ``slope`` a cycle, and from ``at`` on by ``then``."""
    cycle = np.arange(size)
    true = 1 - slope * cycle - (then - slope) * np.maximum(cycle - at, 0)
    return true + noise * np.random.default_rng(at).standard_normal(size)


def test_a_fade_five_times_as_fast_is_told_with_a_forecast() -> None:
    capacities = bent(150, 1e-3, 400, noise=1e-3)
    (position, found), *_ = follow(FADE, capacities)
    assert 160 < position <= 200
    assert found.value is not None
    assert found.limit == pytest.approx(3e-4, rel=0.2)
    assert found.reference == pytest.approx(1.0, abs=0.01)
    assert len(found.cycles) == len(found.reference_cycles) == 50
    said = int(found.message.rpartition("cycle ")[2].replace(",", ""))
    crossing = 150 + (0.2 - 0.015) / 1e-3
    assert said == pytest.approx(crossing, rel=0.15)


def test_the_forecast_counts_the_cycles_of_the_run() -> None:
    found = follow(FADE, bent(150, 1e-3, 400))[0][1]
    spread = follow(FADE, bent(150, 1e-3, 400), every=3)[0][1]
    said = [int(one.message.rpartition("cycle ")[2].replace(",", "")) for one in (found, spread)]
    assert said[1] == pytest.approx(3 * said[0], abs=3)


@pytest.mark.parametrize("slope", [0.0, 1e-5, 5e-4])
def test_a_fade_that_stays_as_it_was_raises_nothing(slope: float) -> None:
    assert follow(FADE, bent(0, slope, 400, slope=slope, noise=1e-3)) == []
    assert follow(KNEE, bent(0, slope, 400, slope=slope, noise=1e-3)) == []


def test_a_fade_that_is_faster_but_hardly_any_raises_nothing() -> None:
    assert follow(FADE, bent(150, 9e-5, 400, slope=1e-6)) == []


def test_a_fade_alarm_is_over_when_it_is_slower_again() -> None:
    capacities = np.concatenate([bent(150, 1e-3, 250), 0.885 - 1e-5 * np.arange(120)])
    raised, over = follow(FADE, capacities)
    assert raised[0] < 250 < over[0]


def test_a_fade_is_told_only_at_every_tenth_cycle() -> None:
    for at in range(150, 160):
        assert follow(FADE, bent(at, 1e-3, 300))[0][0] % 10 == 0


def test_a_knee_is_told_after_twenty_cycles_and_where_it_was() -> None:
    (position, found), *_ = follow(KNEE, bent(150, 1e-3, 300, noise=5e-4))
    assert 170 <= position <= 185
    assert "bends at about cycle 1" in found.message
    assert found.cycles[0] == pytest.approx(150, abs=11)
    assert len(found.cycles) >= 20


def test_a_knee_that_is_long_past_is_over() -> None:
    raised, over = follow(KNEE, bent(150, 1e-3, 300))
    assert raised[0] < over[0] <= 220


@pytest.mark.parametrize("at", range(140, 150))
def test_a_single_step_is_no_knee(at: int) -> None:
    capacities = bent(0, 1e-4, 300, noise=5e-4)
    capacities[at:] -= 0.1
    assert follow(KNEE, capacities) == []


def test_a_fade_that_becomes_slower_is_no_knee() -> None:
    assert follow(KNEE, bent(150, 1e-4, 300, slope=1e-3)) == []


@given(
    slope=st.floats(-0.01, 0.01),
    level=st.floats(0.1, 10.0),
    outliers=st.sets(st.integers(0, 39), max_size=8),
)
def test_a_slope_is_found_whatever_a_fifth_of_the_cycles_say(
    slope: float, level: float, outliers: set[int]
) -> None:
    cycles = [ComparableCycle(n, n, 0.0 if n in outliers else level + slope * n) for n in range(40)]
    found = slope_of(cycles)
    assert found.low_Ah <= found.per_cycle_Ah <= found.high_Ah
    assert found.low_Ah - 1e-9 <= slope <= found.high_Ah + 1e-9
    assert found.end_Ah == pytest.approx(level + slope * 39, abs=1.0)


def test_the_interval_holds_the_true_slope() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        noisy = rng.standard_normal(20)
        found = slope_of([ComparableCycle(n, n, float(noisy[n])) for n in range(20)])
        held += found.low_Ah <= 0 <= found.high_Ah
    assert held >= 297


RULES_ON_CYCLES = (
    RetentionAlarm(by_default=True),
    DropAlarm(),
    EfficiencyAlarm(by_default=True),
    FadeAlarm(over_cycles=12, every_cycles=3),
    KneeAlarm(over_cycles=18, confirmed_by=6, every_cycles=3),
)


@given(data=st.data(), rule=st.sampled_from(RULES_ON_CYCLES))
def test_what_the_archive_remembers_is_enough_for_every_rule(
    data: st.DataObject, rule: AlarmRule
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    declared = RULES[type(rule)]
    needed = declared.cycles_needed(rule)
    short, whole, rebuilt = (ClassHistory(*size) for size in (needed, (999, 999), needed))
    cycles = data.draw(st.integers(1, 120))
    forgotten_at = data.draw(st.integers(0, cycles))
    told: list[dict[str, Any]] = []
    active = False
    for cycle in range(1, cycles + 1):
        told.append(
            {
                "cycle": cycle,
                "discharge_Ah": float(1 - 2e-3 * max(cycle - 60, 0) - 0.1 * (rng.random() < 0.1)),
                "comparable": rng.random() < 0.95,
                "efficiency": None if rng.random() < 0.05 else float(rng.normal(0.995, 0.01)),
                "follows": rng.random() < 0.9,
            }
        )
        for history in (short, whole, rebuilt):
            history.add(**told[-1])
        if cycle == forgotten_at:
            rebuilt = ClassHistory(*needed)
            for one in told:
                rebuilt.add(**one)
        said = [
            declared.evaluate(rule, history.evidence("cycle"), active=active)
            for history in (short, whole, rebuilt)
        ]
        assert said[0] == said[1] == said[2]
        active = said[0].verdict is Verdict.HOLDS if told[-1]["comparable"] else active
    assert len(short.first) <= needed[0]
    assert len(short.last) <= max(2 * needed[1], 1)


def test_what_a_rule_says_has_a_message_just_when_it_changes() -> None:
    for rule, capacities in (
        (FADE, bent(150, 1e-3, 300)),
        (KNEE, bent(150, 1e-3, 300)),
        (DropAlarm(), [1.0] * 20 + [0.9] * 20),
        (RetentionAlarm(), [1.0] * 20 + [0.7] * 10 + [1.0] * 10),
    ):
        changes = follow(rule, capacities)
        assert changes
        assert all(found.message for _, found in changes)
    history = ClassHistory(999, 999)
    for cycle in range(1, 301):
        history.add(cycle, 1.0, comparable=True, efficiency=1.0)
    for rule in RULES_ON_CYCLES:
        quiet = RULES[type(rule)].evaluate(rule, history.evidence("cycle"), active=False)
        assert (quiet.verdict, quiet.message) == (Verdict.DOES_NOT_HOLD, "")


def test_temperature_is_not_evaluated_on_cycles() -> None:
    assert TemperatureAlarm not in RULES
    assert {rule.name for rule in RULES.values()} == {
        "retention", "drop", "efficiency", "fade", "knee",
    }  # fmt: skip
    assert (fade.PRIORITY, knee.PRIORITY) == ("medium", "low")


def test_ten_thousand_cycles_with_nothing_to_say_cost_next_to_nothing() -> None:
    rules = [(rule, RULES[type(rule)]) for rule in (
        RetentionAlarm(), DropAlarm(), EfficiencyAlarm(), FADE, KNEE
    )]  # fmt: skip
    needed = [declared.cycles_needed(rule) for rule, declared in rules]
    history = ClassHistory(max(n for n, _ in needed), max(n for _, n in needed))
    begun = time.process_time()
    for cycle in range(1, 10_001):
        history.add(cycle, 1.0 - 1e-6 * cycle, comparable=True, efficiency=0.9999)
        evidence = history.evidence("cycle")
        for rule, declared in rules:
            declared.evaluate(rule, evidence, active=False)
    assert time.process_time() - begun < 3.0
