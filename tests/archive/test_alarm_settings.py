"""What the configuration says of alarms is what happens."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from labctl.alarms.evidence import Evaluation, Verdict
from labctl.alarms.notify import Grouping, NotifyConfig, Told, due
from labctl.alarms.states import AlarmState
from labctl.archive.alarm_store import read_alarms, record_evaluation, subject_of
from labctl.archive.database import open_engine, upgrade
from labctl.archive.keeping_alarms import AlarmKeeper
from labctl.archive.notices import claim, settle, write_down
from labctl.archive.notifying import HEARTBEAT_AGAIN_S, Notifier
from labctl.archive.sending import ANSWER_S, AppriseSender
from labctl.archive.service import ArchiveService
from labctl.clock import ManualClock
from labctl.errors import ConfigError
from labctl.settings import Settings, load_settings
from labctl.stream import topics
from labctl.stream.connection import MqttConfig
from labctl.stream.mosquitto import free_port
from labctl.stream.topics import NodeState

NOW_S = 1.8e9
OF_TEN_MINUTES_AGO = Told(
    alarm_number=1, about="run-1", of="cell HEV-1", rule="silent", name="silent", priority="high",
    state=AlarmState.UNACKNOWLEDGED, message="", raised=1, raised_unix_s=NOW_S - 600, told=1,
    told_unix_s=NOW_S - 600,
)  # fmt: skip


def written(folder: Path, text: str) -> Settings:
    path = folder / "labctl.toml"
    path.write_text(text)
    return load_settings(path)


def test_the_times_of_alarms_are_written_as_in_recipes(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        '[alarms]\nnode_gone_after = "3 min"\n'
        '[notifications]\ngroup_within = "0 s"\nrepeat_high = "10 min"\nrepeat_medium = ""\n',
    )
    assert settings.alarms.node_gone_after_s == 180.0
    assert settings.notify.group_s == 0.0
    assert settings.notify.repeat_s == {"high": 600.0}
    assert Settings().alarms.node_gone_after_s == 60.0
    assert Settings().notify.group_s == 10.0
    assert Settings().notify.repeat_s == {"high": 3600.0, "medium": 86400.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[alarms]\nnode_gone_after = "soon"', "node_gone_after: "),
        ('[alarms]\nnode_gone_after = "0 s"', "node_gone_after must be above 0"),
        ('[notifications]\ngroup_within = "1 h"', "group_within is at most 300 s"),
        ('[notifications]\nrepeat_high = "1 s"', "repeat_high is at least 60 s"),
        ('[notifications]\nrepeat_medium = "5 V"', "repeat_medium: "),
    ],
)
def test_a_time_that_cannot_be_meant_is_refused_with_its_name(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        written(tmp_path, text)


def test_an_alarm_is_said_again_as_often_as_asked_for() -> None:
    def again(priority: str, config: NotifyConfig) -> bool:
        alarm = replace(OF_TEN_MINUTES_AGO, priority=priority)
        return bool(due([alarm], NOW_S, "low", config.repeat_s))

    assert not again("high", NotifyConfig())
    assert again("high", NotifyConfig(repeat_high="10 min"))
    assert not again("high", NotifyConfig(repeat_high=""))
    assert again("medium", NotifyConfig(repeat_medium="5 min"))
    assert not again("low", NotifyConfig(repeat_high="5 min", repeat_medium="5 min"))


def test_alarms_are_waited_for_as_long_as_asked_for() -> None:
    grouping = Grouping(2.0)
    assert not grouping.ready([OF_TEN_MINUTES_AGO], 100.0)
    assert not grouping.ready([OF_TEN_MINUTES_AGO], 101.9)
    assert grouping.ready([OF_TEN_MINUTES_AGO], 102.0)
    assert Grouping(0.0).ready([OF_TEN_MINUTES_AGO], 100.0)


def test_what_is_written_down_follows_the_same_times(engine: Engine) -> None:
    with engine.begin() as connection:
        record_evaluation(
            connection, None, (0, "disk", 1, ""), "high", Evaluation(Verdict.HOLDS, "full"),
            cycle=0, unix_time_s=NOW_S, subject=subject_of("lab1"),
        )  # fmt: skip

    def told_after(seconds: float, **more: Any) -> bool:
        number = write_down(
            engine, chosen=frozenset({1}), targets=["a"], min_priority="low",
            now_unix_s=NOW_S + seconds, **more,
        )  # fmt: skip
        delivery = claim(engine, targets=["a"], now_unix_s=NOW_S + seconds)
        if delivery is not None:
            settle(engine, delivery=delivery, problem="", now_unix_s=NOW_S + seconds)
        return number is not None

    assert told_after(0)
    assert not told_after(600)
    assert told_after(600, repeat_s={"high": 600.0})


class Kept:
    """A keeper of alarms on one archive, and a node that its broker knows."""

    def __init__(self, engine: Engine, gone_after_s: float) -> None:
        self.clock = ManualClock()
        self._engine = engine
        self.keeper = AlarmKeeper(self.clock, self._do, self._look, gone_after_s=gone_after_s)

    async def _do(self, work: Any) -> Any:
        return work(self._engine)

    async def _look(self, look: Any) -> Any:
        with self._engine.begin() as connection:
            return look(connection)

    def hear(self, payload: bytes) -> None:
        assert self.keeper.nodes.hear(topics.node_state_topic("lab1"), payload)

    def states(self) -> list[str]:
        connection: Connection
        with self._engine.begin() as connection:
            return [one.state.value for one in read_alarms(connection)]


WILL = topics.encode(
    NodeState(
        node="lab1", state="offline", source="lab1-7c", unix_time_s=1.0, labctl_version="1"
    )
)  # fmt: skip


async def test_a_node_may_be_away_for_as_long_as_the_configuration_says(engine: Engine) -> None:
    kept = Kept(engine, gone_after_s=300.0)
    kept.hear(WILL)
    await kept.clock.advance(299)
    assert not await kept.keeper.turn()
    await kept.clock.advance(1)
    assert await kept.keeper.turn()
    assert kept.states() == ["unacknowledged"]


async def test_nobody_misses_a_node_whose_state_was_cleared_at_the_broker(engine: Engine) -> None:
    kept = Kept(engine, gone_after_s=60.0)
    kept.hear(WILL)
    await kept.clock.advance(60)
    assert await kept.keeper.turn()
    kept.hear(b"")
    assert await kept.keeper.turn()
    assert kept.states() == ["returned-unacknowledged"]
    await kept.clock.advance(600)
    assert not await kept.keeper.turn()


async def test_the_heart_tries_again_soon_where_it_could_not_beat() -> None:
    clock, asked = ManualClock(), 0

    async def is_well() -> bool:
        nonlocal asked
        asked += 1
        return False

    async def nothing(_: Any) -> None:
        raise AssertionError

    notifier = Notifier(
        {}, clock=clock, do=nothing, look=nothing, healthy=is_well,
        heartbeat_url="http://127.0.0.1:1/",
    )  # fmt: skip
    task = asyncio.create_task(notifier.run())
    async with asyncio.timeout(20.0):
        for times in (1, 2, 3):
            while asked < times or not clock._sleepers:
                await asyncio.sleep(0)
            await clock.advance(HEARTBEAT_AGAIN_S - 1)
            assert asked == times
            await clock.advance(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_address_may_take_its_time_to_answer_unless_it_says_otherwise() -> None:
    def patience_s(url: str) -> float:
        [service] = AppriseSender(url)._apprise
        return float(service.request_timeout[1])

    assert patience_s("json://localhost/") == ANSWER_S
    assert patience_s("json://localhost/?rto=7") == 7.0


async def test_the_heart_does_not_beat_while_the_archive_hears_no_broker(
    broker: Any, tmp_path: Path
) -> None:
    for url, is_well in ((broker.url, True), (f"mqtt://127.0.0.1:{free_port()}", False)):
        address = f"sqlite:///{tmp_path / f'{is_well}.db'}"
        engine = open_engine(address)
        upgrade(engine)
        engine.dispose()
        service = ArchiveService(address, MqttConfig(url=url), name=f"heart-{is_well}")
        status = service.connection_status
        task = asyncio.create_task(service.run())
        try:
            async with asyncio.timeout(20.0):
                while not (status.connected if is_well else status.failures):
                    await asyncio.sleep(0.01)
                assert await service._is_well() == is_well
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
