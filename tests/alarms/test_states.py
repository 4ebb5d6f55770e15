"""An alarm's states are the table, the whole table and nothing but the table."""

from __future__ import annotations

import itertools

import pytest

from labctl.alarms.states import TRANSITIONS, AlarmState, AlarmTrigger, mermaid, next_state
from labctl.errors import CommandError


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


def test_an_alarm_that_nobody_saw_is_not_forgotten_when_its_cause_is_gone() -> None:
    raised = next_state(AlarmState.NORMAL, AlarmTrigger.RAISE)
    over = next_state(raised, AlarmTrigger.CLEAR)
    assert over is AlarmState.RETURNED_UNACKNOWLEDGED
    assert next_state(over, AlarmTrigger.ACKNOWLEDGE) is AlarmState.NORMAL


def test_an_acknowledged_alarm_that_is_over_is_over() -> None:
    assert next_state(AlarmState.ACKNOWLEDGED, AlarmTrigger.CLEAR) is AlarmState.NORMAL


def test_an_acknowledged_alarm_that_comes_again_has_to_be_acknowledged_again() -> None:
    assert next_state(AlarmState.ACKNOWLEDGED, AlarmTrigger.RAISE) is AlarmState.UNACKNOWLEDGED


def test_the_diagram_shows_every_transition() -> None:
    assert mermaid().count(" --> ") == len(TRANSITIONS) + 1
