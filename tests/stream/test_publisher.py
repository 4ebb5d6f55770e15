"""Nothing in the journal is lost, whatever dies on the way to the archive."""

from __future__ import annotations

import asyncio
import random
import uuid

import aiomqtt
import msgspec
import pytest
import servers
from stream_peers import KeepingArchive, MemoryOutbox, running

from labctl.clock import ManualClock
from labctl.errors import JournalError, StreamError
from labctl.stream import topics
from labctl.stream.batches import encode_events
from labctl.stream.connection import Connection, MqttConfig, stay_connected
from labctl.stream.events import GapRecorded
from labctl.stream.publisher import Publisher
from labctl.stream.topics import ArchiveState, NodeState
from labctl.stream.window import WindowLimits

IMPATIENT = WindowLimits(silence_s=0.2, longest_silence_s=0.4)


class Lab:
    """One node with an outbox in memory, and one archive, on one broker."""

    def __init__(self, url: str, clock=None, limits: WindowLimits = IMPATIENT) -> None:
        name = uuid.uuid4().hex[:12]
        self.node = f"node-{name}"
        self.outbox = MemoryOutbox(f"journal-{name}")
        self.archive = KeepingArchive(url, name)
        self.publisher = Publisher(
            MqttConfig(url=url, timeout_s=5.0), self.node, self.outbox, clock=clock, limits=limits
        )
        self.written: dict[int, bytes] = {}

    async def write(self, count: int, size: int = 200) -> None:
        def make(number: int) -> bytes:
            gap = GapRecorded(run="r", after_seq=number, reason="x" * size, unix_time_s=0.0)
            self.written[number] = encode_events(self.outbox.source, number, "r", (gap,))
            return self.written[number]

        for _ in range(count):
            await self.outbox.append(make)

    def assert_all_arrived(self) -> None:
        assert self.archive.kept[self.outbox.source] == self.written
        assert not self.outbox.batches


async def test_every_batch_arrives(broker):
    lab = Lab(broker.url)
    await lab.write(300)
    async with running(lab.publisher.run, lab.archive.run), asyncio.timeout(20):
        await lab.outbox.wait_drained()
        await lab.write(100)
        await lab.outbox.wait_drained()
    lab.assert_all_arrived()
    assert lab.publisher.on_their_way == 0


async def test_batches_arrive_though_the_broker_comes_later_than_the_node(own_broker):
    lab = Lab(own_broker.url)
    await own_broker.kill()
    await lab.write(50)
    async with running(lab.publisher.run, lab.archive.run), asyncio.timeout(20):
        while lab.publisher.status.failures < 2:
            await asyncio.sleep(0.01)
        assert "check that the broker runs" in lab.publisher.status.problem
        assert own_broker.url in lab.publisher.status.problem
        await own_broker.start()
        await lab.outbox.wait_drained()
    lab.assert_all_arrived()


@pytest.mark.parametrize(
    ("kind", "sessions_are_lost"), [("mosquitto", False), ("mosquitto", True), ("amqtt", True)]
)
async def test_nothing_is_lost_though_the_broker_is_killed_again_and_again(
    tmp_path, kind, sessions_are_lost
):
    luck = random.Random(7)
    async with servers.server_of_kind(kind, tmp_path) as broker, asyncio.timeout(30):
        lab = Lab(broker.url)
        async with running(lab.publisher.run, lab.archive.run):
            for _ in range(3):
                before = lab.archive.received.total()
                await lab.write(80)
                await lab.archive.wait_received(before + luck.randrange(1, 40))
                await broker.kill()
                if sessions_are_lost:
                    await broker.lose_sessions()
                await lab.write(20)
                await broker.start()
            await lab.outbox.wait_drained()
    lab.assert_all_arrived()
    assert lab.publisher.status.connections >= 3


async def test_nothing_is_lost_though_the_archive_is_away(broker):
    lab = Lab(broker.url)
    await lab.write(200)
    async with running(lab.publisher.run), asyncio.timeout(20):
        while lab.publisher.on_their_way < IMPATIENT.probe_batches:
            await asyncio.sleep(0.01)
        async with running(lab.archive.run):
            await lab.archive.wait_received(30)
        await lab.write(50)
        async with running(lab.archive.run):
            await lab.outbox.wait_drained()
    lab.assert_all_arrived()


async def test_an_archive_that_comes_is_given_everything_at_once(broker):
    clock = ManualClock()
    lab = Lab(broker.url, clock=clock)
    await lab.write(40)
    async with running(lab.publisher.run), asyncio.timeout(20):
        while lab.publisher.on_their_way < 40:
            await asyncio.sleep(0.01)
        async with running(lab.archive.run):
            await lab.outbox.wait_drained()
    lab.assert_all_arrived()
    assert clock.monotonic_s() == 0.0


async def test_a_node_that_is_back_sends_at_once_what_is_not_acknowledged(broker):
    clock = ManualClock()
    lab = Lab(broker.url, clock=clock, limits=WindowLimits())
    await lab.write(1)

    async def take_its_place(_connection: Connection) -> None:
        return

    async with running(lab.publisher.run, lab.archive.run), asyncio.timeout(20):
        await lab.outbox.wait_drained()
        lab.archive.deaf_to = lambda _: True
        before = lab.archive.received.total()
        await lab.write(30)
        await lab.archive.wait_received(before + 30)
        lab.archive.deaf_to = lambda _: False
        config = MqttConfig(url=broker.url)
        await stay_connected(config, take_its_place, client_id=f"labctl-node-{lab.node}")
        while lab.publisher.status.connections < 2:
            await clock.advance(0.1)
            await asyncio.sleep(0.01)
        await lab.outbox.wait_drained()
        assert clock.monotonic_s() < WindowLimits().silence_s
    lab.assert_all_arrived()


async def test_batches_and_acks_that_get_lost_are_made_good(broker):
    lab = Lab(broker.url)
    luck = random.Random(3)
    lab.archive.deaf_to = lambda _: luck.random() < 0.3
    await lab.write(100)

    async def lose_acks() -> None:
        while True:
            lab.archive.acknowledges = luck.random() < 0.5
            await asyncio.sleep(0.02)

    async with running(lab.publisher.run, lab.archive.run, lose_acks), asyncio.timeout(20):
        await lab.outbox.wait_drained()
    lab.assert_all_arrived()
    assert lab.archive.received.total() > 100


async def test_an_archive_that_hangs_is_asked_with_one_batch_and_never_flooded(broker):
    clock = ManualClock()
    lab = Lab(broker.url, clock=clock, limits=WindowLimits())
    lab.archive.acknowledges = False
    await lab.write(400)
    async with running(lab.publisher.run, lab.archive.run), asyncio.timeout(20):
        await lab.archive.wait_received(100)
        for _ in range(50):
            await clock.advance(1.0)
        await lab.archive.wait_received(102)
        assert lab.publisher.archive_is_silent
        assert lab.publisher.on_their_way == 100
        assert lab.publisher.batches_sent <= 2 * 100 + 2
        assert lab.outbox.largest_read_bytes <= 1024 * 1024
        lab.archive.acknowledges = True
        for _ in range(30):
            await clock.advance(2.0)
        await lab.outbox.wait_drained()
    lab.assert_all_arrived()


async def test_large_batches_do_not_pile_up_in_memory(broker):
    lab = Lab(broker.url, clock=ManualClock(), limits=WindowLimits())
    lab.archive.acknowledges = False
    await lab.write(60, size=500_000)
    async with running(lab.publisher.run, lab.archive.run), asyncio.timeout(20):
        await lab.archive.wait_received(9)
        assert lab.publisher.on_their_way == 9
        assert lab.outbox.largest_read_bytes <= 1024 * 1024 + 1000


async def test_a_broker_that_hangs_is_left_and_found_again(own_mosquitto):
    lab = Lab(own_mosquitto.url)
    lab.publisher = Publisher(
        MqttConfig(url=own_mosquitto.url, timeout_s=0.3), lab.node, lab.outbox, limits=IMPATIENT
    )
    async with running(lab.publisher.run, lab.archive.run), asyncio.timeout(20):
        await lab.write(20)
        await lab.outbox.wait_drained()
        own_mosquitto.freeze()
        await lab.write(20)
        while lab.publisher.status.failures < 2:
            await asyncio.sleep(0.01)
        own_mosquitto.thaw()
        await lab.outbox.wait_drained()
    lab.assert_all_arrived()


async def test_acks_of_another_journal_and_nonsense_are_passed_over(broker, caplog):
    lab = Lab(broker.url)
    lab.archive.acknowledges = False
    await lab.write(5)

    async def talk(connection: Connection) -> None:
        other = topics.Ack(source="another journal", watermark=1000)
        await connection.publish(topics.ack_topic(lab.node), topics.encode(other))
        await connection.publish(topics.ack_topic(lab.node), b"\x00nonsense")
        await connection.publish(topics.archive_state_topic("liar"), b"[]")

    async with running(lab.publisher.run, lab.archive.run), asyncio.timeout(20):
        await lab.archive.wait_received(5)
        await stay_connected(MqttConfig(url=broker.url), talk, client_id=uuid.uuid4().hex)
        while caplog.text.count("is passed over") < 2:
            await asyncio.sleep(0.01)
        assert len(lab.outbox.batches) == 5
        lab.archive.acknowledges = True
        await lab.outbox.wait_drained()
    lab.assert_all_arrived()


async def test_a_journal_that_cannot_be_read_ends_the_publisher(mosquitto):
    class BrokenOutbox(MemoryOutbox):
        async def pending(self, after_number, limit_bytes):
            raise JournalError("the disk is gone")

    publisher = Publisher(MqttConfig(url=mosquitto.url), uuid.uuid4().hex, BrokenOutbox("s"))
    with pytest.raises(JournalError, match="the disk is gone"):
        await publisher.run()


async def test_a_node_needs_a_name_that_fits_into_a_topic():
    with pytest.raises(StreamError):
        Publisher(MqttConfig(), "a/b", MemoryOutbox("s"))


async def test_people_see_the_node_come_and_go_and_its_latest_values(broker):
    lab = Lab(broker.url)
    latest = topics.latest_topic(lab.node, "ch1")
    seen: asyncio.Queue[aiomqtt.Message] = asyncio.Queue()

    async def watch(connection: Connection) -> None:
        await connection.subscribe(topics.node_state_topic(lab.node), latest)
        async for message in connection.messages():
            await seen.put(message)

    async def look() -> None:
        await stay_connected(
            MqttConfig(url=broker.url), watch, client_id=uuid.uuid4().hex, persistent=False
        )

    async with running(look), asyncio.timeout(20):
        async with running(lab.publisher.run):
            state = topics.decode((await seen.get()).payload, NodeState)
            assert (state.node, state.state) == (lab.node, "online")
            assert state.source == lab.outbox.source
            for number in range(100):
                lab.publisher.publish_live(latest, b"%d" % number)
            assert (await seen.get()).payload == b"99"
        farewell = topics.decode((await seen.get()).payload, NodeState)
        assert (farewell.state, farewell.orderly) == ("offline", True)
    async with running(look), asyncio.timeout(20):
        kept = [await seen.get(), await seen.get()]
    assert {message.payload for message in kept} >= {b"99"}


async def test_live_values_are_dropped_oldest_first_while_nobody_takes_them(mosquitto):
    lab = Lab(mosquitto.url)
    for number in range(10_000):
        lab.publisher.publish_live(topics.latest_topic(lab.node, f"ch{number}"), b"1")
    got: set[str] = set()

    async def watch(connection: Connection) -> None:
        await connection.subscribe(f"{topics.ROOT}/{lab.node}/channel/+/latest")
        async with running(lab.publisher.run):
            async for message in connection.messages():
                got.add(str(message.topic).split("/")[-2])
                if "ch9999" in got:
                    return

    async with asyncio.timeout(20):
        await stay_connected(MqttConfig(url=mosquitto.url), watch, client_id=uuid.uuid4().hex)
    assert got == {f"ch{number}" for number in range(10_000 - 4096, 10_000)}


def test_the_state_of_an_archive_is_plain_json():
    state = ArchiveState(archive="main", state="online", unix_time_s=1.0, labctl_version="1")
    assert msgspec.json.decode(topics.encode(state))["state"] == "online"


async def test_a_signal_reaches_the_node_and_one_that_was_left_behind_does_not(broker):
    heard: asyncio.Queue[tuple[str, topics.Signal]] = asyncio.Queue()

    async def hear(name: str, signal: topics.Signal) -> None:
        await heard.put((name, signal))

    name = uuid.uuid4().hex[:12]
    publisher = Publisher(
        MqttConfig(url=broker.url, timeout_s=5.0),
        f"node-{name}",
        MemoryOutbox(f"journal-{name}"),
        on_signal=hear,
    )
    async with (
        aiomqtt.Client(broker.host, broker.port, protocol=aiomqtt.ProtocolVersion.V311) as other,
        asyncio.timeout(20),
    ):
        stale = topics.signal_topic(f"node-{name}", "stale")
        await other.publish(stale, b"", qos=1, retain=False)
        await other.publish(stale, topics.encode(topics.Signal(run="r-1")), qos=1, retain=True)
        async with running(publisher.run):
            while heard.empty():
                ready = topics.signal_topic(f"node-{name}", "ready")
                await other.publish(ready, b"", qos=1)
                await asyncio.sleep(0.02)
            assert await heard.get() == ("ready", topics.Signal())
            await other.publish(stale, b"not a signal", qos=1)
            meant = topics.encode(topics.Signal(run="r-2", actor="diffractometer"))
            await other.publish(topics.signal_topic(f"node-{name}", "one"), meant, qos=1)
            while (said := await heard.get())[0] == "ready":
                pass
            assert said == ("one", topics.Signal(run="r-2", actor="diffractometer"))
        await other.publish(stale, b"", qos=1, retain=True)
