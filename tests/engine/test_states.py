"""The table of run states, walked."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from labctl.engine.states import ENDED, TRANSITIONS, RunState, Trigger, mermaid, next_state
from labctl.errors import CommandError


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(RunState, Trigger)))
def test_every_pair_is_either_in_the_table_or_refused(state: RunState, trigger: Trigger) -> None:
    if (state, trigger) in TRANSITIONS:
        assert next_state(state, trigger) is TRANSITIONS[state, trigger]
    else:
        with pytest.raises(CommandError, match=str(state)):
            next_state(state, trigger)


def test_nothing_leaves_an_ended_state() -> None:
    assert not [state for state, _ in TRANSITIONS if state in ENDED]


def test_every_state_can_be_reached_and_every_open_one_can_be_stopped() -> None:
    assert {*TRANSITIONS.values(), RunState.CREATED} == set(RunState)
    for state in set(RunState) - ENDED:
        assert next_state(state, Trigger.STOP) in {RunState.STOPPING, RunState.STOPPED}


def test_a_held_run_waits_for_a_person() -> None:
    ways_out = {trigger for state, trigger in TRANSITIONS if state is RunState.HELD}
    assert ways_out == {
        Trigger.RELEASE,
        Trigger.REARM,
        Trigger.STOP,
        Trigger.ABANDON,
        Trigger.HOLD,
    }


def test_a_paused_run_waits_for_a_person() -> None:
    ways_out = {trigger for state, trigger in TRANSITIONS if state is RunState.PAUSED}
    assert ways_out == {Trigger.RESUME, Trigger.STOP, Trigger.HOLD}


def test_the_diagram_names_every_transition() -> None:
    assert mermaid().count("-->") == len(TRANSITIONS) + 1 + len(ENDED)


def test_the_diagram_in_the_documentation_is_that_of_the_table() -> None:
    architecture = Path(__file__).parents[2] / "docs" / "architecture.md"
    assert mermaid() in architecture.read_text(encoding="utf-8")
