"""Who may say what, asked of a real Mosquitto with the access list that we ship."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest
from servers import free_port, not_installed

from labctl.stream import topics
from labctl.stream.access import ARCHIVE, DAEMON, INSTRUMENT, READER, acl
from labctl.stream.mosquitto import find_mosquitto

SHIPPED = Path(__file__).parents[2] / "systemd" / "labctl.acl"
SAID = {
    "batch": topics.batch_topic("lab-1"),
    "ack": topics.ack_topic("lab-1"),
    "signal": topics.signal_topic("lab-1", "ready"),
    "cycle": topics.cycle_topic("lab-1", "run-1"),
    "alarm": topics.alarm_topic("lab-1", "run-1", "retention"),
    "latest": topics.latest_topic("lab-1", "rack1.1"),
    "marker": topics.marker_topic("lab-1", "run-1", "pattern"),
}
MAY_SAY = {
    DAEMON: {"batch", "latest", "marker"},
    ARCHIVE: {"ack", "cycle", "alarm"},
    READER: set(),
    INSTRUMENT: {"signal"},
}


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[int]:
    """The port of a Mosquitto with passwords and the shipped access list."""
    program = find_mosquitto()
    if program is None:
        not_installed("MOSQUITTO", "mosquitto")
    passwords, port = tmp_path / "passwd", free_port()
    passwords.touch(mode=0o600)
    for user in MAY_SAY:
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), user, user], check=True)
    (tmp_path / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\nuser root\n"
        f"password_file {passwords}\nacl_file {SHIPPED}\n"
    )
    process = await asyncio.create_subprocess_exec(
        str(program), "-c", str(tmp_path / "mosquitto.conf"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20.0):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield port
    finally:
        process.terminate()
        await process.wait()


def test_the_shipped_access_list_is_what_the_topics_say() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == acl(), (
        "make it anew: python -m labctl.stream.access > systemd/labctl.acl"
    )


def client(port: int, user: str) -> aiomqtt.Client:
    return aiomqtt.Client(
        "127.0.0.1", port, username=user, password=user, protocol=aiomqtt.ProtocolVersion.V5
    )


async def test_each_user_says_its_own_and_nothing_else_gets_through(guarded: int) -> None:
    heard: set[tuple[str, str]] = set()
    async with client(guarded, READER) as reader:
        await reader.subscribe("labctl/v1/#")
        for user in MAY_SAY:
            async with client(guarded, user) as speaker:
                for topic in SAID.values():
                    await speaker.publish(topic, user, qos=1)
        # The last word comes from one who may say it: all that could come has come before it.
        async with client(guarded, DAEMON) as last:
            await last.publish(topics.node_state_topic("lab-1"), "end", qos=1)
        async with asyncio.timeout(20.0):
            async for message in reader.messages:
                if message.payload == b"end":
                    break
                heard.add((str(bytes(message.payload), "utf-8"), str(message.topic)))
    assert heard == {(user, SAID[name]) for user, names in MAY_SAY.items() for name in names}


async def test_nobody_gets_in_without_a_password(guarded: int) -> None:
    with pytest.raises(aiomqtt.MqttError):
        async with aiomqtt.Client("127.0.0.1", guarded):
            pass
