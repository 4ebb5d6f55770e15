"""Alarms about runs themselves."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import Engine, text

from labctl.archive.ingest import Ingest
from labctl.stream.events import RunStateChanged

SAID = (
    ("running", "it runs"),
    ("held", "another instrument answers there"),
    ("running", "the right one is back"),
    ("held", "the test stopped by itself"),
)


def journal_of(lab: Any, *said: tuple[str, str]) -> Any:
    """A run of two cycles, and what it says of its state afterwards, each word in its batch."""
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 2, ended=False)
    for number, (state, reason) in enumerate(said):
        event = RunStateChanged(run="run-1", state=state, reason=reason, unix_time_s=2e9 + number)
        journal.events("run-1", event)
    return journal


def alarms(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT rule, state, active, message FROM alarms_named"))
        return [tuple(row) for row in rows]


def history(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                'SELECT "trigger", to_state, message, unix_time_s FROM alarm_events '
                "ORDER BY alarm_event_number"
            )
        )
        return [tuple(row) for row in rows]


def test_a_run_that_waits_for_a_person_is_an_alarm_until_it_goes_on(
    engine: Engine, lab: Any
) -> None:
    ingest = Ingest(engine)
    assert ingest.commit(journal_of(lab, *SAID[:2]).payloads).alarms_changed
    [(rule, state, active, message)] = alarms(engine)
    assert (rule, state, bool(active)) == ("held", "unacknowledged", True)
    assert "waits for a person: another instrument answers there" in message
    assert ingest.commit(journal_of(lab, *SAID[:3]).payloads).alarms_changed
    [(_, state, active, _)] = alarms(engine)
    assert (state, bool(active)) == ("returned-unacknowledged", False)


@pytest.mark.parametrize(("state", "says"), [("tripped", "a limit"), ("failed", "refused")])
def test_a_run_that_ended_badly_leaves_an_alarm_to_be_acknowledged(
    engine: Engine, lab: Any, state: str, says: str
) -> None:
    Ingest(engine).commit(journal_of(lab, (state, "4.5 V is outside 1 .. 4.4 V")).payloads)
    [(rule, now, active, message)] = alarms(engine)
    assert (rule, now, bool(active)) == (state, "returned-unacknowledged", False)
    assert says in message
    assert "4.5 V" in message


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_the_order_in_which_the_words_come_leaves_no_trace(
    engine: Engine, lab: Any, order: tuple[int, ...]
) -> None:
    payloads = journal_of(lab, *SAID).payloads
    first, words = payloads[:-4], payloads[-4:]
    ingest = Ingest(engine)
    ingest.commit(first)
    for place in order:
        ingest.commit([words[place], words[place]])
    assert [row[:3] for row in history(engine)] == [
        ("raise", "unacknowledged", f"the run is held and waits for a person: {SAID[1][1]}"),
        (
            "clear",
            "returned-unacknowledged",
            f"the run is held and waits for a person: {SAID[1][1]}",
        ),
        ("raise", "unacknowledged", f"the run is held and waits for a person: {SAID[3][1]}"),
    ]


def test_a_healthy_run_raises_nothing(engine: Engine, lab: Any) -> None:
    Ingest(engine).commit(journal_of(lab, ("running", ""), ("completed", "the end")).payloads)
    assert alarms(engine) == []
