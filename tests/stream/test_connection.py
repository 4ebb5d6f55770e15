"""The connection to a broker: which version of MQTT, what it says of failures, what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import subprocess
import sys
import uuid

import aiomqtt
import pytest
from stream_peers import running

from labctl.clock import ManualClock
from labctl.errors import ConfigError
from labctl.stream import topics
from labctl.stream.broker import start_broker
from labctl.stream.connection import (
    Announcement,
    Backoff,
    Connection,
    ConnectionStatus,
    MqttConfig,
    stay_connected,
)
from labctl.stream.embedded import embedded_broker as start_embedded
from labctl.stream.mosquitto import MosquittoOptions, free_port, running_mosquitto


def unique() -> str:
    return f"n{uuid.uuid4().hex[:20]}"


async def test_a_message_goes_through_and_comes_back(broker):
    status = ConnectionStatus()
    node = unique()
    got = []

    async def serve(connection: Connection) -> None:
        await connection.subscribe(topics.batch_topic(node))
        await connection.publish(topics.batch_topic(node), b"reading")
        async for message in connection.messages():
            got.append((str(message.topic), message.payload))
            return

    await stay_connected(MqttConfig(url=broker.url), serve, client_id=node, status=status)
    assert got == [(topics.batch_topic(node), b"reading")]
    assert status.protocol == ("5" if broker.kind == "mosquitto" else "3.1.1")
    assert not status.connected


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_session_outlives_its_connection(mosquitto, protocol):
    config = MqttConfig(url=mosquitto.url, protocol=protocol)
    name = unique()
    topic = topics.batch_topic(name)
    got = []

    async def subscribe(connection: Connection) -> None:
        await connection.subscribe(topic)

    async def publish(connection: Connection) -> None:
        await connection.publish(topic, b"while you were away")

    async def receive(connection: Connection) -> None:
        async for message in connection.messages():
            got.append(message.payload)
            return

    await stay_connected(config, subscribe, client_id=name)
    await stay_connected(config, publish, client_id=unique())
    async with asyncio.timeout(10):
        await stay_connected(config, receive, client_id=name)
    assert got == [b"while you were away"]


async def test_no_more_is_sent_ahead_of_the_acknowledgements_than_was_agreed(mosquitto):
    topic = topics.batch_topic(unique())

    async def serve(connection: Connection) -> None:
        await connection.subscribe(topic)
        for number in range(50):
            await connection.publish(topic, b"%d" % number)
        got = connection.messages()
        first = [(await anext(got)) for _ in range(5)]
        assert [message.payload for message in first] == [b"0", b"1", b"2", b"3", b"4"]
        await connection.publish(topics.batch_topic(unique()), b"its answer would come after a 6th")
        assert connection.waiting == 0
        connection.acknowledge(first[0])
        assert (await anext(got)).payload == b"5"

    config = MqttConfig(url=mosquitto.url, protocol="5")
    async with asyncio.timeout(10):
        await stay_connected(config, serve, client_id=unique(), receive_maximum=5)


async def test_a_cancellation_in_the_same_moment_as_an_answer_is_not_lost(mosquitto):
    topic = topics.batch_topic(unique())

    async def serve(connection: Connection) -> None:
        while True:
            await connection.publish(topic, b"x")

    for turns in range(60):
        task = asyncio.create_task(
            stay_connected(MqttConfig(url=mosquitto.url), serve, client_id=f"c{turns}")
        )
        await asyncio.sleep(0.012 + turns * 1e-5)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=3)
        assert done, f"it went on after a cancellation at turn {turns}"


async def test_a_cancellation_in_the_same_moment_as_a_broken_connection_is_not_lost(mosquitto):
    breaks = asyncio.Event()
    connected = asyncio.Event()

    async def break_down() -> None:
        await breaks.wait()
        raise aiomqtt.MqttError("broken")

    async def serve(_connection: Connection) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(break_down())
            connected.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(
        stay_connected(MqttConfig(url=mosquitto.url), serve, client_id=unique())
    )
    await connected.wait()
    breaks.set()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=3)
    task.cancel()
    assert done
    assert task.cancelled()


async def test_a_client_that_dies_leaves_its_last_will(broker):
    name = unique()
    topic = topics.node_state_topic(name)
    seen: asyncio.Queue[bytes] = asyncio.Queue()
    came = asyncio.Event()

    async def watch(connection: Connection) -> None:
        await connection.subscribe(topic)
        async for message in connection.messages():
            await seen.put(message.payload)

    async def dying(connection: Connection) -> None:
        await connection.announce()
        await came.wait()
        connection._client._client.socket().shutdown(socket.SHUT_RDWR)
        async for _ in connection.messages():
            pass

    config = MqttConfig(url=broker.url)
    announcement = Announcement(topic, lambda presence: presence.encode())
    async with (
        asyncio.timeout(10),
        running(
            lambda: stay_connected(config, watch, client_id=unique()),
            lambda: stay_connected(
                config, dying, client_id=name, announcement=announcement, clock=ManualClock()
            ),
        ),
    ):
        assert await seen.get() == b"online"
        came.set()
        # Subscribed in the moment of the announcement: it comes as news and as what is retained.
        while (said := await seen.get()) == b"online":
            pass
        assert said == b"offline"


async def test_the_embedded_broker_notices_a_client_that_says_nothing_more():
    topic = topics.node_state_topic("silent")
    seen: asyncio.Queue[bytes] = asyncio.Queue()
    connect = bytes.fromhex("10 25 0004 4d515454 04 26 0001 0001 78") + (
        len(topic).to_bytes(2, "big") + topic.encode() + b"\x00\x04gone"
    )
    connect = connect[:1] + bytes([len(connect) - 2]) + connect[2:]

    async def watch(connection: Connection) -> None:
        await connection.subscribe(topic)
        reader, writer = await asyncio.open_connection(broker.host, broker.port)
        writer.write(connect)
        assert (await reader.readexactly(4))[3] == 0
        async for message in connection.messages():
            await seen.put(message.payload)
            writer.close()
            return

    async with asyncio.timeout(10), start_embedded(keepalive_grace_s=1) as broker:
        await stay_connected(
            MqttConfig(url=f"mqtt://127.0.0.1:{broker.port}"), watch, client_id="watcher"
        )
    assert await seen.get() == b"gone"


async def test_the_embedded_broker_survives_nonsense_and_packets_that_are_too_large():
    async with start_embedded() as broker:
        for attack in (
            b"\x00" * 20,
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x10\xff\xff\xff\xff\xff",
            bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 61 30 ff ff ff 7f 00 01 61"),
        ):
            reader, writer = await asyncio.open_connection(broker.host, broker.port)
            writer.write(attack)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(5):
                    assert len(await reader.read()) <= 4
            writer.close()
        await test_a_message_goes_through_and_comes_back(_Address(broker.port))


class _Address:
    kind = "amqtt"

    def __init__(self, port: int) -> None:
        self.url = f"mqtt://127.0.0.1:{port}"


async def test_waiting_for_a_broker_takes_longer_from_try_to_try():
    clock = ManualClock()
    status = ConnectionStatus()
    tries = []

    async def serve(connection: Connection) -> None:
        raise AssertionError("nobody listens there")

    async with (
        asyncio.timeout(20),
        running(
            lambda: stay_connected(
                MqttConfig(url=f"mqtt://127.0.0.1:{free_port()}"),
                serve,
                client_id="c",
                clock=clock,
                status=status,
                backoff=Backoff(1.0, 8.0),
            )
        ),
    ):
        for _ in range(6):
            failures = status.failures
            while status.failures == failures:
                await asyncio.sleep(0.002)
                await clock.advance(0.5)
            tries.append(clock.monotonic_s())
    waits = [round(late - early) for early, late in itertools.pairwise(tries)]
    assert waits[:3] == pytest.approx([1, 2, 4], abs=1)
    assert waits[-1] == pytest.approx(8, abs=1.5)


async def test_giving_up_while_a_server_does_not_answer_leaves_nothing_behind():
    async def serve(_connection: Connection) -> None:
        raise AssertionError("never connected")

    with socket.create_server(("127.0.0.1", 0)) as server:
        config = MqttConfig(url=f"mqtt://127.0.0.1:{server.getsockname()[1]}", timeout_s=30)
        for _ in range(5):
            task = asyncio.create_task(stay_connected(config, serve, client_id="c"))
            asked, _ = await asyncio.to_thread(server.accept)
            with asked:
                assert await asyncio.to_thread(asked.recv, 1) == b"\x10"
                task.cancel()
                async with asyncio.timeout(3):
                    with pytest.raises(asyncio.CancelledError):
                        await task


async def test_a_wrong_password_is_said_and_a_right_one_opens(tmp_path):
    users = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "lab1", "right"], check=True)
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    status = ConnectionStatus()
    done = asyncio.Event()

    async def serve(_connection: Connection) -> None:
        done.set()

    options = MosquittoOptions(port=0, password_file=users)
    async with asyncio.timeout(10), running_mosquitto(options, tmp_path / "broker") as broker:
        config = MqttConfig(
            url=f"mqtt://127.0.0.1:{broker.port}", username="lab1", password_file=str(secret)
        )
        async with running(lambda: stay_connected(config, serve, client_id="c", status=status)):
            while not status.failures:
                await asyncio.sleep(0.01)
            assert "check username, password_file" in status.problem
            secret.write_text("right\n")
            await done.wait()


async def test_a_password_file_that_is_not_there_is_the_administrators_to_mend():
    async def serve(_connection: Connection) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match="no-such-file"):
        await stay_connected(MqttConfig(password_file="/no-such-file"), serve, client_id="c")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:1883",
        "http://localhost",
        "mqtt://",
        "mqtt://host:0",
        "mqtt://host:99999",
        "mqtt://user:secret@host",
        "mqtt://host/path",
        "mqtt://host?x=1",
    ],
)
def test_an_address_that_is_not_one_is_refused(url):
    with pytest.raises(ValueError, match=r"mqtt:|password into"):
        MqttConfig(url=url)


def test_an_address_gives_host_port_and_whether_it_is_encrypted():
    config = MqttConfig(url="mqtts://broker.lab")
    assert (config.host, config.port, config.tls) == ("broker.lab", 8883, True)
    config = MqttConfig(url="mqtt://[::1]:2883")
    assert (config.host, config.port, config.tls) == ("::1", 2883, False)


@pytest.mark.parametrize("kind", ["auto", "mosquitto", "amqtt"])
async def test_one_call_starts_either_broker(tmp_path, mosquitto, kind):
    async with start_broker(kind, tmp_path, port=0) as broker:
        assert broker.kind == ("amqtt" if kind == "amqtt" else "mosquitto")
        await test_a_message_goes_through_and_comes_back(broker)


async def test_a_broker_whose_parent_was_killed_is_replaced(tmp_path, mosquitto):
    port = free_port()
    script = (
        "import asyncio, sys, pathlib\n"
        "from labctl.stream.broker import start_broker\n"
        "async def main():\n"
        "    folder = pathlib.Path(sys.argv[1])\n"
        "    async with start_broker('mosquitto', folder, port=int(sys.argv[2])):\n"
        "        print('runs', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, tmp_path, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"runs\n"
    parent.kill()
    await parent.communicate()
    async with start_broker("mosquitto", tmp_path, port=port) as broker:
        await test_a_message_goes_through_and_comes_back(broker)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
async def test_a_port_that_is_taken_is_said(tmp_path, mosquitto, kind):
    with pytest.raises(ConfigError, match=f"{mosquitto.port}"):
        async with start_broker(kind, tmp_path, port=mosquitto.port):
            raise AssertionError


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
async def test_a_broker_without_passwords_does_not_listen_to_the_network(tmp_path, mosquitto, kind):
    with pytest.raises(ConfigError, match="loopback"):
        async with start_broker(kind, tmp_path, host="0.0.0.0", port=0):
            raise AssertionError
