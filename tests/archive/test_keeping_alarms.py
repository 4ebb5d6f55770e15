"""Alarms that change without a reading: time passes, nodes go and come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from labctl.alarms.states import AlarmState
from labctl.archive.alarm_commands import acknowledge, shelve, take_out_of_service
from labctl.archive.alarm_store import AlarmRow, read_alarms
from labctl.archive.ingest import Ingest
from labctl.archive.keeping_alarms import GONE_AFTER_S, AlarmKeeper, Nodes
from labctl.clock import ManualClock
from labctl.stream import topics
from labctl.stream.events import ConditionChanged, RunStateChanged
from labctl.stream.topics import NodeState


class Keeping:
    """A keeper of alarms on one archive."""

    def __init__(self, engine: Engine, clock: ManualClock) -> None:
        self.writes = 0
        self._engine = engine
        self.keeper = AlarmKeeper(clock, self._do, self._look)

    async def _do(self, work: Callable[[Engine], Any]) -> Any:
        self.writes += 1
        return work(self._engine)

    async def _look(self, look: Callable[[Connection], Any]) -> Any:
        with self._engine.begin() as connection:
            return look(connection)

    def hear(self, node: str, state: str, *, orderly: bool = False) -> None:
        said = NodeState(
            node=node,
            state=state,  # type: ignore[arg-type]
            source=f"{node}-7c",
            unix_time_s=1.0,
            labctl_version="1",
            orderly=orderly,
        )
        assert self.keeper.nodes.hear(topics.node_state_topic(node), topics.encode(said))

    async def settled(self) -> bool:
        """A turn that changes something, and one that finds nothing more to do."""
        changed = await self.keeper.turn()
        writes = self.writes
        assert not await self.keeper.turn()
        assert self.writes == writes
        return changed


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keeping(engine: Engine, clock: ManualClock) -> Keeping:
    return Keeping(engine, clock)


def alarms(engine: Engine) -> dict[str, AlarmRow]:
    with engine.begin() as connection:
        return {one.rule: one for one in read_alarms(connection)}


def states(engine: Engine) -> dict[str, str]:
    return {name: alarm.state.value for name, alarm in alarms(engine).items()}


def condition(name: str, at_s: float, *, holds: bool = True, run: str = "run-1") -> Any:
    return ConditionChanged(
        run=run, condition=name, holds=holds, message=name, unix_time_s=2e9 + at_s
    )


def begin(engine: Engine, lab: Any, *events: Any) -> Any:
    """A run of node lab1 with these events; its journal."""
    journal = lab.Journal(source="lab1-7c")
    lab.write_run(journal, [lab.CycleSpec()] * 2, ended=False)
    for event in events:
        journal.events(event.run, event)
    Ingest(engine).commit(journal.payloads, ["lab1"] * len(journal.payloads))
    return journal


async def test_a_shelved_alarm_comes_back_by_itself_if_it_still_holds(
    engine: Engine, lab: Any, clock: ManualClock, keeping: Keeping
) -> None:
    journal = begin(engine, lab, condition("silent", 1), condition("frozen", 2))
    now_s = clock.unix_time_s()
    for number in (1, 2):
        shelve(engine, number, until_unix_s=now_s + 3600, actor="mia", now_unix_s=now_s)
    journal.events("run-1", condition("frozen", 3, holds=False))
    Ingest(engine).commit(journal.payloads[-1:], ["lab1"])
    await clock.advance(3599)
    assert not await keeping.settled()
    await clock.advance(1)
    assert await keeping.settled()
    assert states(engine) == {"silent": "unacknowledged", "frozen": "normal"}
    with engine.begin() as connection:
        found = connection.execute(
            text(
                'SELECT "trigger", to_state, message, actor FROM alarm_events '
                "WHERE alarm_number = 1 ORDER BY alarm_event_number"
            )
        )
        assert [tuple(row) for row in found][-2:] == [
            ("unshelve", "normal", "its time is over", ""),
            ("raise", "unacknowledged", "silent", ""),
        ]


async def test_a_node_that_is_gone_for_a_minute_is_one_alarm_and_what_is_below_it_is_silent(
    engine: Engine, lab: Any, clock: ManualClock, keeping: Keeping
) -> None:
    held = RunStateChanged(run="run-1", state="held", reason="x", unix_time_s=2e9)
    journal = begin(
        engine, lab, condition("silent", 1), condition("temperature", 2), held,
        condition("disk", 3, run=""),
    )  # fmt: skip
    acknowledge(engine, alarms(engine)["temperature"].alarm_number, actor="mia")
    keeping.hear("lab1", "online")
    assert not await keeping.settled()
    keeping.hear("lab1", "offline")
    await clock.advance(GONE_AFTER_S - 1)
    keeping.hear("lab1", "offline")
    assert not await keeping.settled()
    await clock.advance(1)
    assert await keeping.settled()
    gone = alarms(engine)["node-gone"]
    assert (gone.subject, gone.node, gone.run_id, gone.priority) == (
        "node lab1", "lab1", "", "high",
    )  # fmt: skip
    assert gone.unix_time_s == clock.unix_time_s() - GONE_AFTER_S
    assert states(engine) == {
        "node-gone": "unacknowledged",
        "silent": "suppressed",
        "temperature": "suppressed",
        "disk": "suppressed",
        "held": "unacknowledged",
    }
    assert alarms(engine)["silent"].aside_reason == "node lab1 is gone"
    # What the journal told late is followed, and what comes late is suppressed as well.
    journal.events("run-1", condition("temperature", 4, holds=False), condition("frozen", 5))
    Ingest(engine).commit(journal.payloads[-1:], ["lab1"])
    assert await keeping.settled()
    assert states(engine)["frozen"] == "suppressed"
    keeping.hear("lab1", "online")
    assert await keeping.settled()
    assert states(engine) == {
        "node-gone": "returned-unacknowledged",
        "silent": "unacknowledged",
        "temperature": "normal",
        "disk": "unacknowledged",
        "held": "unacknowledged",
        "frozen": "unacknowledged",
    }


async def test_a_node_that_comes_and_goes_is_one_alarm_again(
    engine: Engine, clock: ManualClock, keeping: Keeping
) -> None:
    for _ in range(2):
        keeping.hear("lab1", "offline")
        await clock.advance(GONE_AFTER_S)
        assert await keeping.settled()
        keeping.hear("lab1", "online")
        assert await keeping.settled()
    assert states(engine) == {"node-gone": "returned-unacknowledged"}


async def test_a_node_that_was_told_to_end_is_no_alarm(
    engine: Engine, lab: Any, clock: ManualClock, keeping: Keeping
) -> None:
    begin(engine, lab, condition("silent", 1))
    keeping.hear("lab1", "offline", orderly=True)
    await clock.advance(10 * GONE_AFTER_S)
    assert not await keeping.settled()
    assert states(engine) == {"silent": "unacknowledged"}


async def test_another_node_is_not_touched(
    engine: Engine, lab: Any, clock: ManualClock, keeping: Keeping
) -> None:
    begin(engine, lab, condition("silent", 1))
    keeping.hear("lab2", "offline")
    await clock.advance(GONE_AFTER_S)
    assert await keeping.settled()
    assert states(engine) == {"silent": "unacknowledged", "node-gone": "unacknowledged"}
    assert alarms(engine)["node-gone"].subject == "node lab2"


async def test_what_a_person_set_aside_stays_so_while_its_node_goes_and_comes(
    engine: Engine, lab: Any, clock: ManualClock, keeping: Keeping
) -> None:
    begin(engine, lab, condition("silent", 1), condition("frozen", 2))
    now_s = clock.unix_time_s()
    shelve(engine, 1, until_unix_s=now_s + 9e9, actor="mia", now_unix_s=now_s)
    take_out_of_service(engine, 2, actor="mia", reason="x")
    keeping.hear("lab1", "offline")
    await clock.advance(GONE_AFTER_S)
    assert await keeping.settled()
    keeping.hear("lab1", "online")
    assert await keeping.settled()
    assert states(engine) == {
        "silent": "shelved", "frozen": "out-of-service", "node-gone": "returned-unacknowledged",
    }  # fmt: skip


async def test_a_node_alarm_that_is_out_of_service_is_silent_for_ever(
    engine: Engine, clock: ManualClock, keeping: Keeping
) -> None:
    keeping.hear("old-pc", "offline")
    await clock.advance(GONE_AFTER_S)
    assert await keeping.settled()
    take_out_of_service(engine, 1, actor="mia", reason="scrapped")
    await clock.advance(GONE_AFTER_S)
    assert not await keeping.settled()
    assert alarms(engine)["node-gone"].state is AlarmState.OUT_OF_SERVICE


async def test_two_archives_make_one_alarm_of_one_node(
    engine: Engine, clock: ManualClock, keeping: Keeping
) -> None:
    other = Keeping(engine, clock)
    for one in (keeping, other):
        one.hear("lab1", "offline")
    await clock.advance(GONE_AFTER_S)
    assert await keeping.settled()
    assert not await other.settled()
    keeping.hear("lab1", "online")
    other.keeper.nodes.forget()
    assert await keeping.settled()
    assert not await other.settled()
    assert states(engine) == {"node-gone": "returned-unacknowledged"}


def test_what_is_not_the_state_of_a_node_is_left_to_others(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Nodes(clock)
    assert not nodes.hear(topics.batch_topic("lab1"), b"LCB1")
    assert not nodes.hear(topics.archive_state_topic("main"), b"{}")
    assert nodes.hear(topics.node_state_topic("lab1"), b"garbage")
    assert nodes.hear(topics.node_state_topic("lab1"), None)
    assert "cannot be understood" in caplog.text
    assert not nodes.seen().gone
    assert not nodes.seen().here
