"""An alarm's states are the table, the whole table and nothing but the table."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.alarms.conditions import CONDITIONS
from labctl.alarms.rules import RULES
from labctl.alarms.states import (
    SET_ASIDE,
    TRANSITIONS,
    WANTS_A_PERSON,
    AlarmState,
    AlarmTrigger,
    mermaid,
    next_state,
    path,
)
from labctl.errors import CommandError

BY_RULES = {AlarmTrigger.RAISE, AlarmTrigger.CLEAR, AlarmTrigger.LATCH}


@pytest.mark.parametrize(
    ("state", "trigger"), list(itertools.product(AlarmState, AlarmTrigger)), ids=str
)
def test_every_pair_is_either_in_the_table_or_refused(
    state: AlarmState, trigger: AlarmTrigger
) -> None:
    if (state, trigger) in TRANSITIONS:
        assert next_state(state, trigger) is TRANSITIONS[state, trigger]
    else:
        with pytest.raises(CommandError, match=state.value):
            next_state(state, trigger)


def test_what_is_refused_names_what_could_be_done_instead() -> None:
    with pytest.raises(CommandError, match=r"latched cannot take 'acknowledge'; it can take 'res"):
        next_state(AlarmState.LATCHED, AlarmTrigger.ACKNOWLEDGE)


def test_an_alarm_that_nobody_saw_is_not_forgotten_when_its_cause_is_gone() -> None:
    raised = next_state(AlarmState.NORMAL, AlarmTrigger.RAISE)
    over = next_state(raised, AlarmTrigger.CLEAR)
    assert over is AlarmState.RETURNED_UNACKNOWLEDGED
    assert next_state(over, AlarmTrigger.ACKNOWLEDGE) is AlarmState.NORMAL


def test_an_acknowledged_alarm_that_is_over_is_over() -> None:
    assert next_state(AlarmState.ACKNOWLEDGED, AlarmTrigger.CLEAR) is AlarmState.NORMAL


def test_an_acknowledged_alarm_that_comes_again_has_to_be_acknowledged_again() -> None:
    assert next_state(AlarmState.ACKNOWLEDGED, AlarmTrigger.RAISE) is AlarmState.UNACKNOWLEDGED


def test_what_latched_goes_by_a_reset_alone() -> None:
    leaving = {trigger for state, trigger in TRANSITIONS if state is AlarmState.LATCHED}
    assert leaving == {AlarmTrigger.RESET, AlarmTrigger.RAISE}
    assert next_state(AlarmState.LATCHED, AlarmTrigger.RESET) is AlarmState.NORMAL


@pytest.mark.parametrize("state", sorted(SET_ASIDE))
def test_a_rule_never_takes_an_alarm_back_that_was_set_aside(state: AlarmState) -> None:
    for trigger in BY_RULES:
        assert next_state(state, trigger) is state


@pytest.mark.parametrize(
    ("state", "trigger"),
    [
        (AlarmState.SHELVED, AlarmTrigger.UNSHELVE),
        (AlarmState.SUPPRESSED, AlarmTrigger.UNSUPPRESS),
        (AlarmState.OUT_OF_SERVICE, AlarmTrigger.PUT_BACK),
    ],
)
def test_what_comes_back_stands_if_its_condition_holds(
    state: AlarmState, trigger: AlarmTrigger
) -> None:
    assert path(state, trigger, active=False) == [(trigger, AlarmState.NORMAL)]
    assert path(state, trigger, active=True) == [
        (trigger, AlarmState.NORMAL),
        (AlarmTrigger.RAISE, AlarmState.UNACKNOWLEDGED),
    ]


@given(
    st.lists(st.sampled_from(AlarmTrigger), max_size=60),
    st.booleans(),
)
def test_whatever_happens_an_alarm_is_never_silent_by_itself(
    triggers: list[AlarmTrigger], latches: bool
) -> None:
    """The condition is followed in every state; and a condition that holds is normal in none."""
    state, active, said = AlarmState.NORMAL, False, False
    over = AlarmTrigger.LATCH if latches else AlarmTrigger.CLEAR
    for trigger in triggers:
        if trigger in BY_RULES and trigger is not AlarmTrigger.RAISE:
            if trigger is not over or not active:
                continue
        elif (state, trigger) not in TRANSITIONS:
            with pytest.raises(CommandError):
                path(state, trigger, active=active)
            continue
        if trigger in BY_RULES:
            # What a rule says is taken in every state.
            active = trigger is AlarmTrigger.RAISE
        before = state
        state = path(state, trigger, active=active)[-1][1]
        if trigger is AlarmTrigger.RAISE and before not in SET_ASIDE:
            said = False
        if trigger in (AlarmTrigger.ACKNOWLEDGE, AlarmTrigger.RESET):
            said = True
        if before in SET_ASIDE or state in SET_ASIDE:
            said = state is AlarmState.NORMAL
            continue
        if active:
            assert state in (AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED)
            assert (state is AlarmState.ACKNOWLEDGED) == said
        else:
            assert (state in WANTS_A_PERSON) == (state is not AlarmState.NORMAL)
        if (
            latches
            and not active
            and before in (AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED)
        ):
            assert state is AlarmState.LATCHED


def test_every_state_can_be_left_and_reached() -> None:
    assert {state for state, _ in TRANSITIONS} == set(AlarmState)
    assert set(TRANSITIONS.values()) == set(AlarmState)
    for state in AlarmState:
        seen, edge = {state}, {state}
        while edge:
            edge = {after for (a, _), after in TRANSITIONS.items() if a in edge} - seen
            seen |= edge
        assert AlarmState.NORMAL in seen


def test_the_diagram_shows_every_transition() -> None:
    assert mermaid().count(" --> ") == len(TRANSITIONS) + 1


def test_the_operators_book_has_the_diagram_and_a_line_for_every_alarm() -> None:
    book = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    assert mermaid() in book
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (high|medium|low) \|", book, re.MULTILINE))
    named = {each.name: each.priority for each in CONDITIONS.values()}
    named |= {each.name: each.priority for each in RULES.values()}
    assert {name: rows.get(name) for name in named} == named
