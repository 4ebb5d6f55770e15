"""Alarms about runs themselves."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from sqlalchemy import Engine, text

from labctl.alarms.states import AlarmState
from labctl.archive.alarm_commands import acknowledge, take_out_of_service
from labctl.archive.alarm_store import read_alarms
from labctl.archive.ingest import Ingest
from labctl.stream.events import ConditionChanged, Event, RunEnded, RunStateChanged

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


@pytest.mark.parametrize(
    ("state", "says", "left"),
    [("tripped", "a limit", "latched"), ("failed", "refused", "returned-unacknowledged")],
)
def test_a_run_that_ended_badly_leaves_an_alarm_until_somebody_says_something(
    engine: Engine, lab: Any, state: str, says: str, left: str
) -> None:
    Ingest(engine).commit(journal_of(lab, (state, "4.5 V is outside 1 .. 4.4 V")).payloads)
    [(rule, now, active, message)] = alarms(engine)
    assert (rule, now, bool(active)) == (state, left, False)
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


def told(condition: str, holds: bool, at_s: float, run: str = "run-1") -> ConditionChanged:
    return ConditionChanged(
        run=run, condition=condition, holds=holds, message=f"{condition} at {at_s:g}",
        unix_time_s=2e9 + at_s, value=at_s if holds else None, limit=45.0, unit="degC",
    )  # fmt: skip


def ended(at_s: float) -> tuple[Event, Event]:
    return (
        RunStateChanged(run="run-1", state="stopped", reason="by mia", unix_time_s=2e9 + at_s),
        RunEnded(
            run="run-1", outcome="stopped", reason="by mia", last_seq=20, unix_time_s=2e9 + at_s
        ),
    )


def conditions_journal(lab: Any, *events: Event) -> Any:
    """A run of two cycles, and these events, each in its batch."""
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 2, ended=False)
    for event in events:
        journal.events(getattr(event, "run", ""), event)
    return journal


def test_a_condition_that_the_node_tells_is_an_alarm_while_it_holds(
    engine: Engine, lab: Any
) -> None:
    journal = conditions_journal(lab, told("temperature", True, 61.0))
    ingest = Ingest(engine)
    assert ingest.commit(journal.payloads).alarms_changed
    with engine.begin() as connection:
        [alarm] = read_alarms(connection, standing=True)
    assert (alarm.rule, alarm.priority, alarm.value, alarm.limit_value, alarm.unit) == (
        "temperature", "high", 61.0, 45.0, "degC",
    )  # fmt: skip
    assert (alarm.cell, alarm.message, alarm.cycle) == ("HEV-1", "temperature at 61", 0)
    assert alarm.unix_time_s == 2e9 + 61
    journal = conditions_journal(
        lab, told("temperature", True, 61.0), told("temperature", False, 70.0)
    )
    assert ingest.commit(journal.payloads).alarms_changed
    [(rule, state, active, message)] = alarms(engine)
    assert (rule, state, bool(active)) == ("temperature", "returned-unacknowledged", False)
    assert message == "temperature at 61"


WORDS: tuple[Event, ...] = (
    told("no-connection", True, 1),
    told("temperature", True, 2),
    told("no-connection", False, 3),
    told("warp", True, 4),
    told("no-connection", True, 5),
    told("disk", True, 6, run=""),
    *ended(7),
    told("frozen", True, 8),
    told("disk", False, 9, run=""),
)


@pytest.mark.parametrize("seed", range(6))
def test_conditions_in_any_order_and_twice_give_the_same_alarms(
    engine: Engine, lab: Any, seed: int
) -> None:
    payloads = conditions_journal(lab, *WORDS).payloads
    first, words = payloads[: -len(WORDS)], payloads[-len(WORDS) :]
    ingest = Ingest(engine)
    ingest.commit(first, ["lab1"] * len(first))
    for place in random.Random(seed).sample(range(len(words)), len(words)):
        ingest.commit([words[place]] * 2, ["lab1"] * 2)
    assert sorted(row[:2] for row in alarms(engine)) == [
        ("disk", "returned-unacknowledged"),
        ("no-connection", "returned-unacknowledged"),
        ("temperature", "returned-unacknowledged"),
        ("warp", "returned-unacknowledged"),
    ]
    assert [(row[0], row[2], row[3]) for row in history(engine) if "no-c" in row[2]] == [
        ("raise", "no-connection at 1", 2e9 + 1),
        ("clear", "no-connection at 1", 2e9 + 3),
        ("raise", "no-connection at 5", 2e9 + 5),
        ("clear", "no-connection at 5", 2e9 + 7),
    ]


def test_a_condition_of_a_node_is_an_alarm_about_the_node(engine: Engine, lab: Any) -> None:
    ingest = Ingest(engine)
    for source in ("lab1-7c", "lab2-7c"):
        journal = lab.Journal(source=source)
        journal.events("", told("disk", True, 1, run=""))
        ingest.commit(journal.payloads, [source[:4]])
    with engine.begin() as connection:
        found = read_alarms(connection, standing=True)
    assert [(one.subject, one.node, one.about, one.run_id) for one in found] == [
        ("node lab1", "lab1", "node lab1", ""),
        ("node lab2", "lab2", "node lab2", ""),
    ]
    assert [row[:2] for row in alarms(engine)] == [("disk", "unacknowledged")] * 2


def test_a_node_that_begins_a_new_journal_takes_back_what_its_old_one_said(
    engine: Engine, lab: Any
) -> None:
    ingest = Ingest(engine)
    for source, holds in (("lab1-7c", True), ("lab1-8d", False)):
        journal = lab.Journal(source=source)
        journal.events("", told("disk", holds, 1, run=""))
        ingest.commit(journal.payloads, ["lab1"])
    assert [row[:3] for row in alarms(engine)] == [("disk", "returned-unacknowledged", False)]


def test_the_end_of_a_run_leaves_an_alarm_of_its_cycles_as_it_is(engine: Engine, lab: Any) -> None:
    journal = lab.Journal()
    hours = [1.0] * 7 + [0.7] * 5
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in hours])
    Ingest(engine).commit(journal.payloads)
    assert [row[:2] for row in alarms(engine)] == [("retention", "unacknowledged")]


def test_what_is_set_aside_is_followed_all_the_while(engine: Engine, lab: Any) -> None:
    ingest = Ingest(engine)
    words = (told("silent", True, 1), told("silent", False, 2), told("silent", True, 3), *ended(4))
    payloads = conditions_journal(lab, *words).payloads
    ingest.commit(payloads[:-4])
    acknowledge(engine, 1, actor="mia")
    take_out_of_service(engine, 1, actor="mia", reason="no cable")
    seen = []
    for place in (-4, -3, -2):
        ingest.commit([payloads[place]])
        with engine.begin() as connection:
            [alarm] = read_alarms(connection)
        assert alarm.state is AlarmState.OUT_OF_SERVICE
        seen.append(alarm.active)
    assert seen == [False, True, False]
