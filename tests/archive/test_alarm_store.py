"""A person says that he knows of an alarm, and that is kept."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from labctl.alarms.states import AlarmState
from labctl.archive.alarm_store import acknowledge, read_alarms
from labctl.archive.ingest import Ingest
from labctl.errors import ArchiveError, CommandError


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
