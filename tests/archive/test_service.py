"""The archive on the stream: commits first, acknowledges afterwards, and outlives its database."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import aiomqtt
import pytest
from sqlalchemy import text

from labctl.alarms.notify import NotifyConfig
from labctl.archive import open_archive
from labctl.archive.alarm_commands import acknowledge
from labctl.archive.database import open_engine
from labctl.archive.inbox import GroupLimits, Inbox
from labctl.archive.service import ArchiveService
from labctl.clock import ManualClock, RealClock, settle
from labctl.stream import topics
from labctl.stream.connection import MqttConfig
from labctl.stream.events import ConditionChanged
from labctl.stream.topics import Ack, AlarmState, ArchiveState, CycleSummary, NodeState

QUICK = GroupLimits(wait_s=0.01, alarms_every_s=0.05)
PATIENCE_S = 20.0


class Listener:
    """What a node and a dashboard hear."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.heard: list[tuple[str, bytes]] = []
        self._news = asyncio.Event()

    async def listen(self) -> None:
        async for message in self.client.messages:
            self.heard.append((str(message.topic), bytes(message.payload)))
            self._news.set()

    def last(self, topic: str) -> bytes | None:
        return next((payload for at, payload in reversed(self.heard) if at == topic), None)

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not seen():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def listening(broker: Any, *filters: str) -> AsyncIterator[Listener]:
    async with aiomqtt.Client(
        broker.host, broker.port, protocol=aiomqtt.ProtocolVersion.V311
    ) as client:
        listener = Listener(client)
        for each in filters:
            await client.subscribe(each, qos=1)
        task = asyncio.create_task(listener.listen())
        try:
            yield listener
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def running(service: ArchiveService) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(service.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def names() -> tuple[str, str]:
    """A node and an archive that no other test knows."""
    mark = uuid.uuid4().hex[:6]
    return f"node-{mark}", f"archive-{mark}"


def acked(listener: Listener, node: str, number: int) -> bool:
    payload = listener.last(topics.ack_topic(node))
    return payload is not None and topics.decode(payload, Ack).watermark >= number


async def test_a_run_goes_from_the_stream_into_the_archive_and_its_news_come_back(
    broker: Any, lab: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "labctl.archive")
    node, name = names()
    journal = lab.Journal(source=f"{node}-7c")
    run = f"run-{node}"
    hours = [1.0] * 6 + [0.7] * 6
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in hours], run=run, ended=False)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    service = ArchiveService(url, MqttConfig(url=broker.url), name=name, limits=QUICK)
    state, alarm = topics.archive_state_topic(name), topics.alarm_topic(node, run, "retention")
    cycle = topics.cycle_topic(node, run)
    async with listening(broker, f"labctl/v1/{node}/#", state) as listener:
        async with running(service):
            await listener.until(lambda: listener.last(state) is not None)
            for payload in journal.payloads:
                await listener.client.publish(topics.batch_topic(node), payload, qos=1)
            await listener.until(lambda: acked(listener, node, len(journal.payloads)))
            await listener.until(lambda: listener.last(alarm) is not None)
            said = topics.decode(listener.last(alarm) or b"", AlarmState)
            assert (said.state, said.cell, said.rule) == ("unacknowledged", "HEV-1", "retention")
            assert said.value == pytest.approx(0.7)
            await listener.until(lambda: b'"cycle":12,' in (listener.last(cycle) or b""))
            told = [topics.decode(p, CycleSummary) for at, p in listener.heard if at == cycle]
            numbers = [one.cycle for one in told]
            assert numbers == sorted(set(numbers))
            assert numbers[-4:] == [9, 10, 11, 12]
            assert told[-1].retention == pytest.approx(0.7)
            assert told[-1].discharge_mAh_g == pytest.approx(70.0)

            engine = open_engine(url, create=False)
            acknowledge(engine, 1, actor="mia", note="seen")
            engine.dispose()
            await listener.until(
                lambda: b'"acknowledged"' in (listener.last(alarm) or b""),
            )
        await listener.until(
            lambda: topics.decode(listener.last(state) or b"", ArchiveState).state == "offline"
        )
    assert service.status.readings == 120
    warning = next(r.getMessage() for r in caplog.records if "retention 70.0%" in r.getMessage())
    assert "HEV-1" in warning
    with open_archive(url) as archive:
        assert archive.verify(run).ok


async def test_nothing_is_acknowledged_while_the_database_is_locked(
    mosquitto: Any, lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.archive.database.BUSY_TIMEOUT_S", 0.01)
    node, name = names()
    journal = lab.Journal(source=f"{node}-7c")
    lab.write_run(journal, [lab.CycleSpec()], run=f"run-{node}")
    url = f"sqlite:///{tmp_path / 'a.db'}"
    service = ArchiveService(url, MqttConfig(url=mosquitto.url), name=name, limits=QUICK)
    state = topics.archive_state_topic(name)
    async with listening(mosquitto, f"labctl/v1/{node}/#", state) as listener, running(service):
        await listener.until(lambda: listener.last(state) is not None)
        other = open_engine(url)
        with other.begin() as connection:
            connection.execute(text("SELECT 1"))
            for payload in journal.payloads:
                await listener.client.publish(topics.batch_topic(node), payload, qos=1)
            async with asyncio.timeout(PATIENCE_S):
                while not service.status.problem:
                    await asyncio.sleep(0)
            assert "locked" in service.status.problem
            assert listener.last(topics.ack_topic(node)) is None
        other.dispose()
        await listener.until(lambda: acked(listener, node, len(journal.payloads)))
    assert service.status.problem == ""


async def test_a_restart_of_postgresql_loses_nothing_and_doubles_nothing(
    mosquitto: Any, postgresql: Any, postgresql_url: str, lab: Any
) -> None:
    node, name = names()
    journal = lab.Journal(source=f"{node}-7c")
    run = f"run-{node}"
    lab.write_run(journal, [lab.CycleSpec()] * 4, run=run)
    service = ArchiveService(postgresql_url, MqttConfig(url=mosquitto.url), name=name, limits=QUICK)
    state = topics.archive_state_topic(name)
    half = len(journal.payloads) // 2
    async with listening(mosquitto, f"labctl/v1/{node}/#", state) as listener, running(service):
        await listener.until(lambda: listener.last(state) is not None)
        for payload in journal.payloads[:half]:
            await listener.client.publish(topics.batch_topic(node), payload, qos=1)
        await listener.until(lambda: acked(listener, node, half))
        await asyncio.to_thread(postgresql.stop)
        for payload in journal.payloads[half:]:
            await listener.client.publish(topics.batch_topic(node), payload, qos=1)
        async with asyncio.timeout(PATIENCE_S):
            while not service.status.problem:
                await asyncio.sleep(0)
        await asyncio.to_thread(postgresql.start)
        await listener.until(lambda: acked(listener, node, len(journal.payloads)))
    with open_archive(postgresql_url) as archive:
        assert archive.verify(run).ok
        assert len(archive.samples(run)) == 40


async def test_an_archive_that_starts_says_again_what_it_has(
    mosquitto: Any, lab: Any, tmp_path: Path
) -> None:
    node, name = names()
    journal = lab.Journal(source=f"{node}-7c")
    run = f"run-{node}"
    lab.write_run(journal, [lab.CycleSpec()] * 2, run=run, ended=False)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    from labctl.archive.database import upgrade
    from labctl.archive.ingest import Ingest

    engine = open_engine(url)
    upgrade(engine)
    Ingest(engine).commit(journal.payloads, [node] * len(journal.payloads))
    engine.dispose()
    async with listening(mosquitto, f"labctl/v1/{node}/#") as listener:
        async with running(
            ArchiveService(url, MqttConfig(url=mosquitto.url), name=name, limits=QUICK)
        ):
            await listener.until(lambda: acked(listener, node, len(journal.payloads)))
            cycle = topics.cycle_topic(node, run)
            await listener.until(lambda: listener.last(cycle) is not None)
            assert topics.decode(listener.last(cycle) or b"", CycleSummary).cycle == 2


async def test_two_archives_share_the_batches_of_a_run_on_one_postgresql(
    mosquitto: Any, postgresql_url: str, lab: Any
) -> None:
    node, name = names()
    journal = lab.Journal(source=f"{node}-7c")
    run = f"run-{node}"
    hours = [1.0] * 6 + [0.7] * 6
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in hours], run=run)
    services = [
        ArchiveService(
            postgresql_url,
            MqttConfig(url=mosquitto.url),
            name=f"{name}-{place}",
            share=f"share-{name}",
            limits=QUICK,
        )
        for place in range(2)
    ]
    states = [topics.archive_state_topic(f"{name}-{place}") for place in range(2)]
    async with listening(mosquitto, f"labctl/v1/{node}/#", *states) as listener:
        async with running(services[0]), running(services[1]):
            await listener.until(lambda: all(listener.last(state) for state in states))
            for payload in journal.payloads:
                await listener.client.publish(topics.batch_topic(node), payload, qos=1)
            async with asyncio.timeout(PATIENCE_S):
                while sum(s.status.batches for s in services) < len(journal.payloads):
                    await asyncio.sleep(0)
    assert all(service.status.batches > 0 for service in services)
    with open_archive(postgresql_url) as archive:
        assert archive.verify(run).problems == ()
        assert list(archive.alarms()["cycle"]) == [9]
        assert archive.cycles(run)["discharge_mAh_g"].notna().all()


async def test_a_node_whose_will_stands_for_a_minute_is_an_alarm_until_it_is_back(
    broker: Any, lab: Any, tmp_path: Path
) -> None:
    node, name = names()
    journal = lab.Journal(source=f"{node}-7c")
    run = f"run-{node}"
    lab.write_run(journal, [lab.CycleSpec()], run=run, ended=False)
    journal.events(
        run,
        ConditionChanged(run=run, condition="silent", holds=True, message="?", unix_time_s=2e9),
    )
    quick = GroupLimits(wait_s=10.0, alarms_every_s=20.0)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    told: list[str] = []
    news = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        told.append((await reader.readexactly(length)).decode())
        news.set()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    addressee = await asyncio.start_server(take, "127.0.0.1", 0)
    port = addressee.sockets[0].getsockname()[1]
    service = ArchiveService(
        url,
        MqttConfig(url=broker.url),
        name=name,
        limits=quick,
        clock=RealClock(1000.0),
        notify=NotifyConfig(urls=(f"json://127.0.0.1:{port}/",)),
    )
    gone = topics.node_alarm_topic(node, "node-gone")
    silent = topics.alarm_topic(node, run, "silent")

    def said(listener: Listener, topic: str) -> AlarmState | None:
        payload = listener.last(topic)
        return None if payload is None else topics.decode(payload, AlarmState)

    def stands(listener: Listener, topic: str, state: str) -> bool:
        alarm = said(listener, topic)
        return alarm is not None and alarm.state == state

    def presence(state: Literal["online", "offline"], *, orderly: bool = False) -> bytes:
        return topics.encode(
            NodeState(
                node=node, state=state, source=f"{node}-7c", unix_time_s=1.0,
                labctl_version="1", orderly=orderly,
            )
        )  # fmt: skip

    at, state = topics.node_state_topic(node), topics.archive_state_topic(name)
    async with listening(broker, f"labctl/v1/{node}/#", state) as listener, running(service):
        await listener.until(lambda: listener.last(state) is not None)
        for payload in journal.payloads:
            await listener.client.publish(topics.batch_topic(node), payload, qos=1)
        await listener.client.publish(at, presence("online"), qos=1, retain=True)
        await listener.until(lambda: stands(listener, silent, "unacknowledged"))
        await listener.client.publish(at, presence("offline"), qos=1, retain=True)
        await listener.until(lambda: stands(listener, gone, "unacknowledged"))
        await listener.until(lambda: stands(listener, silent, "suppressed"))
        found = said(listener, gone)
        assert found is not None
        assert (found.node, found.run, found.priority, found.active) == (node, "", "high", True)
        async with asyncio.timeout(PATIENCE_S):
            while not any(f"node-gone, node {node}" in said for said in told):
                news.clear()
                await news.wait()
        await listener.client.publish(at, presence("online"), qos=1, retain=True)
        await listener.until(lambda: stands(listener, gone, "returned-unacknowledged"))
        await listener.until(lambda: stands(listener, silent, "unacknowledged"))
        await listener.client.publish(at, presence("offline", orderly=True), qos=1, retain=True)
        journal.events(
            run,
            ConditionChanged(run=run, condition="silent", holds=False, message="", unix_time_s=3e9),
        )
        await listener.client.publish(topics.batch_topic(node), journal.payloads[-1], qos=1)
        await listener.until(lambda: stands(listener, silent, "returned-unacknowledged"))
        assert stands(listener, gone, "returned-unacknowledged")
        await listener.client.publish(at, b"", qos=1, retain=True)
    addressee.close()
    await addressee.wait_closed()


def a_message(size_b: int) -> aiomqtt.Message:
    topic = aiomqtt.Topic(topics.batch_topic("node-a"))
    return aiomqtt.Message(topic, bytes(size_b), qos=1, retain=False, mid=1, properties=None)


async def test_a_part_of_a_group_is_committed_at_once_while_nothing_else_is() -> None:
    inbox, idle, clock = Inbox(GroupLimits(bytes=400)), asyncio.Event(), ManualClock()
    idle.set()
    await inbox.put(a_message(100))
    assert len(await inbox.take_group(clock, idle)) == 1

    idle.clear()
    await inbox.put(a_message(100))
    taking = asyncio.create_task(inbox.take_group(clock, idle))
    await settle()
    assert not taking.done(), "more may come while another is being committed"
    await inbox.put(a_message(100))
    idle.set()
    assert len(await taking) == 2

    idle.clear()
    await inbox.put(a_message(10))
    taking = asyncio.create_task(inbox.take_group(clock, idle))
    await settle()
    assert not taking.done()
    await clock.advance(GroupLimits().wait_s)
    assert len(await taking) == 1


async def test_a_small_group_waits_for_more_until_none_comes() -> None:
    inbox, idle, clock = Inbox(GroupLimits(wait_s=0.1)), asyncio.Event(), ManualClock()
    idle.set()
    await inbox.put(a_message(10))
    taking = asyncio.create_task(inbox.take_group(clock, idle))
    await clock.advance(0.015)
    await inbox.put(a_message(10))
    await clock.advance(0.015)
    assert not taking.done(), "another came meanwhile"
    await clock.advance(0.015)
    assert len(await taking) == 2
