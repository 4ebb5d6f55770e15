"""What persons say about alarms, and that it is kept."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from labctl.alarms.states import AlarmState
from labctl.archive.alarm_commands import (
    acknowledge,
    put_back_in_service,
    reset,
    shelve,
    take_out_of_service,
    unshelve,
)
from labctl.archive.alarm_store import read_alarms
from labctl.archive.ingest import Ingest
from labctl.errors import ArchiveError, CommandError
from labctl.stream.events import RunStateChanged


@pytest.fixture
def alarm_number(engine: Engine, lab: Any) -> int:
    journal = lab.Journal()
    hours = [1.0] * 7 + [0.7] * 5
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in hours])
    Ingest(engine).commit(journal.payloads, ["node-a"] * len(journal.payloads))
    with engine.begin() as connection:
        alarms = read_alarms(connection, standing=True)
    assert [(one.name, one.node, one.cell) for one in alarms] == [("retention", "node-a", "HEV-1")]
    return alarms[0].alarm_number


def test_an_acknowledgement_says_who_and_why(engine: Engine, alarm_number: int) -> None:
    found = acknowledge(engine, alarm_number, actor="mia", note="cell opened", unix_time_s=5.0)
    assert found.state is AlarmState.ACKNOWLEDGED
    with engine.begin() as connection:
        row = connection.execute(
            text(
                "SELECT actor, message, from_state, to_state, unix_time_s FROM alarm_events "
                "WHERE \"trigger\" = 'acknowledge'"
            )
        ).one()
    assert tuple(row) == ("mia", "cell opened", "unacknowledged", "acknowledged", 5.0)


def test_what_is_acknowledged_cannot_be_acknowledged_again(
    engine: Engine, alarm_number: int
) -> None:
    acknowledge(engine, alarm_number, actor="mia")
    with pytest.raises(CommandError, match="acknowledged"):
        acknowledge(engine, alarm_number, actor="tom")
    with pytest.raises(ArchiveError, match="no alarm 77"):
        acknowledge(engine, 77, actor="tom")


def test_an_acknowledged_alarm_returns_to_normal_when_the_capacity_comes_back(
    engine: Engine, lab: Any
) -> None:
    journal = lab.Journal()
    hours = [1.0] * 7 + [0.7] * 5 + [1.0] * 5
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in hours])
    ingest = Ingest(engine)
    place = 0
    while True:
        ingest.commit([journal.payloads[place]])
        place += 1
        with engine.begin() as connection:
            if alarms := read_alarms(connection):
                break
    acknowledge(engine, alarms[0].alarm_number, actor="mia")
    ingest.commit(journal.payloads[place:])
    with engine.begin() as connection:
        assert read_alarms(connection)[0].state is AlarmState.NORMAL
        assert read_alarms(connection, standing=True) == []


def history(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                'SELECT "trigger", from_state, to_state, actor, message FROM alarm_events '
                "ORDER BY alarm_event_number"
            )
        )
        return [tuple(row) for row in rows]


def test_a_shelved_alarm_says_who_why_and_until_when(engine: Engine, alarm_number: int) -> None:
    found = shelve(
        engine, alarm_number, until_unix_s=900.0, actor="mia", note="a bad cell", now_unix_s=100.0
    )
    assert (found.state, found.active) == (AlarmState.SHELVED, True)
    assert (found.shelved_until_unix_s, found.aside_actor, found.aside_reason) == (
        900.0, "mia", "a bad cell",
    )  # fmt: skip
    longer = shelve(engine, alarm_number, until_unix_s=1900.0, actor="tom", now_unix_s=100.0)
    assert (longer.shelved_until_unix_s, longer.aside_actor) == (1900.0, "tom")
    back = unshelve(engine, alarm_number, actor="tom", note="changed my mind")
    assert back.state is AlarmState.UNACKNOWLEDGED
    assert (back.shelved_until_unix_s, back.aside_actor, back.aside_reason) == (None, "", "")
    assert history(engine)[1:] == [
        ("shelve", "unacknowledged", "shelved", "mia", "a bad cell"),
        ("shelve", "shelved", "shelved", "tom", ""),
        ("unshelve", "shelved", "normal", "tom", "changed my mind"),
        ("raise", "normal", "unacknowledged", "", back.message),
    ]


@pytest.mark.parametrize("until_s", [100.0, 99.0, float("inf"), float("nan")])
def test_an_alarm_is_shelved_into_the_future_and_not_for_ever(
    engine: Engine, alarm_number: int, until_s: float
) -> None:
    with pytest.raises(CommandError, match="in the future"):
        shelve(engine, alarm_number, until_unix_s=until_s, actor="mia", now_unix_s=100.0)
    assert len(history(engine)) == 1


def test_what_is_out_of_service_stays_so_until_it_is_put_back(
    engine: Engine, alarm_number: int
) -> None:
    acknowledge(engine, alarm_number, actor="mia")
    found = take_out_of_service(engine, alarm_number, actor="mia", reason="test cell")
    assert (found.state, found.aside_reason) == (AlarmState.OUT_OF_SERVICE, "test cell")
    for refused in (
        lambda: acknowledge(engine, alarm_number, actor="tom"),
        lambda: shelve(engine, alarm_number, until_unix_s=9e9, actor="tom"),
        lambda: reset(engine, alarm_number, actor="tom", reason="x"),
        lambda: unshelve(engine, alarm_number, actor="tom"),
    ):
        with pytest.raises(CommandError, match=rf"alarm {alarm_number}: .*'put-back-in-service'"):
            refused()
    back = put_back_in_service(engine, alarm_number, actor="tom")
    assert (back.state, back.aside_reason) == (AlarmState.UNACKNOWLEDGED, "")


@pytest.mark.parametrize("reason", ["", "  "])
def test_silence_and_a_reset_want_a_reason(engine: Engine, alarm_number: int, reason: str) -> None:
    for command in (take_out_of_service, reset):
        with pytest.raises(CommandError, match="say why"):
            command(engine, alarm_number, actor="mia", reason=reason)
    assert len(history(engine)) == 1


def test_a_limit_that_tripped_is_let_go_by_a_reset_with_its_reason(
    engine: Engine, lab: Any
) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()], ended=False)
    event = RunStateChanged(run="run-1", state="tripped", reason="4.5 V", unix_time_s=2e9)
    journal.events("run-1", event)
    Ingest(engine).commit(journal.payloads)
    with pytest.raises(CommandError, match="latched cannot take 'acknowledge'"):
        acknowledge(engine, 1, actor="mia")
    with pytest.raises(CommandError, match="latched cannot take 'shelve'"):
        shelve(engine, 1, until_unix_s=9e9, actor="mia")
    assert reset(engine, 1, actor="mia", reason="clip replaced").state is AlarmState.NORMAL
    assert [row[:3] for row in history(engine)] == [
        ("raise", "normal", "unacknowledged"),
        ("latch", "unacknowledged", "latched"),
        ("reset", "latched", "normal"),
    ]
    assert history(engine)[-1][3:] == ("mia", "clip replaced")
