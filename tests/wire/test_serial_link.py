"""The serial link over real pseudo-terminals, with a thread of plain reads at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import tty
from collections.abc import Callable, Iterator

import pytest

from labctl.clock import RealClock, VirtualClock
from labctl.errors import LinkError
from labctl.wire import serial_link
from labctl.wire.link import Backoff
from labctl.wire.serial_link import SerialLink

QUICK = Backoff(first_s=0.01, longest_s=0.02)


class Other:
    """The instrument's end of a terminal."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.port = os.ttyname(self.slave)

    def say(self, data: bytes) -> None:
        os.write(self.master, data)

    async def hear(self, count: int) -> bytes:
        """So many bytes of what was sent here."""
        heard = b""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.master, readable.set)
        try:
            async with asyncio.timeout(10):
                while len(heard) < count:
                    readable.clear()
                    try:
                        heard += os.read(self.master, count - len(heard))
                    except BlockingIOError:
                        await readable.wait()
        finally:
            loop.remove_reader(self.master)
        return heard

    def answer(self, reply: Callable[[bytes], bytes]) -> None:
        """Answer every line, as soon as the loop turns."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            for line in os.read(self.master, 4096).splitlines():
                self.say(reply(line))

        loop.add_reader(self.master, readable)

    def unplug(self) -> None:
        if self.master < 0:
            return
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)
        os.close(self.slave)
        self.master = -1


@pytest.fixture
def other() -> Iterator[Other]:
    end = Other()
    yield end
    end.unplug()


@pytest.fixture
def link(other: Other) -> SerialLink:
    return SerialLink(other.port, clock=RealClock(), reply_timeout_s=10.0, backoff=QUICK)


async def test_an_answer_is_the_line_that_follows_the_question(
    other: Other, link: SerialLink
) -> None:
    other.answer(lambda line: b"you said " + line + b"\r\n")
    assert await link.ask(b"t") == b"you said t"
    assert await link.ask(b"i") == b"you said i"
    await link.close()


async def test_flow_control_characters_are_no_part_of_a_line(
    other: Other, link: SerialLink
) -> None:
    await link.open()
    other.say(b"\x11Pda80\x1300190m\x11\n")
    assert await link.next_line(10.0) == b"Pda8000190m"
    await link.close()


async def test_a_line_that_comes_in_pieces_is_one_line(other: Other, link: SerialLink) -> None:
    await link.open()
    other.say(b"first half")
    assert await link.next_line(0.05) is None
    other.say(b", second half\nand more")
    assert await link.next_line(10.0) == b"first half, second half"
    assert link.waiting_lines() == ()
    await link.close()


async def test_a_late_answer_is_not_taken_for_the_next_one(other: Other) -> None:
    link = SerialLink(other.port, clock=RealClock(), reply_timeout_s=0.1, backoff=QUICK)
    with pytest.raises(LinkError, match=r"no answer to first.*may have arrived"):
        await link.ask(b"first")
    assert await other.hear(6) == b"first\n"
    await link.open()
    other.say(b"answer to first\nand half of one mo")
    other.answer(lambda line: b"answer to " + line + b"\n")
    assert await link.ask(b"second") == b"answer to second"
    await link.close()


async def test_a_late_answer_that_came_while_the_port_was_closed_is_forgotten(
    other: Other, link: SerialLink
) -> None:
    await link.open()
    await link.close()
    other.say(b"answer to nobody\n")
    await link.open()
    assert await link.next_line(0.1) is None
    await link.close()


async def test_an_answer_that_does_not_fit_drops_the_connection(
    other: Other, link: SerialLink
) -> None:
    other.answer(lambda line: line + b"!0003\n")

    def check(reply: bytes) -> None:
        raise ValueError(reply.decode())

    with pytest.raises(ValueError, match="x!0003"):
        await link.ask(b"x", check=check)
    assert not link.connected
    await link.close()


async def test_whoever_waits_for_a_line_is_told_when_the_plug_is_pulled(
    other: Other, link: SerialLink
) -> None:
    await link.open()
    waiting = asyncio.create_task(link.next_line(10.0))
    await asyncio.sleep(0)
    other.unplug()
    with pytest.raises(LinkError, match="lost"):
        await waiting
    assert not link.connected
    with pytest.raises(LinkError, match="not connected"):
        await link.next_line(0.0)
    await link.close()


async def test_what_came_before_the_plug_was_pulled_is_still_given(
    other: Other, link: SerialLink
) -> None:
    await link.open()
    other.say(b"one\ntwo\n")
    assert await link.next_line(10.0) == b"one"
    other.unplug()
    assert await link.next_line(10.0) == b"two"
    with pytest.raises(LinkError, match="lost"):
        await link.next_line(10.0)
    await link.close()


class RecordingClock(VirtualClock):
    """Remembers how long it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_s: list[float] = []

    async def sleep(self, duration_s: float) -> None:
        self.waits_s.append(round(max(0.0, duration_s), 6))
        await super().sleep(duration_s)


async def test_a_port_that_is_not_there_says_so_and_is_waited_for_longer_each_time() -> None:
    clock = RecordingClock()
    link = SerialLink(
        "/dev/no-such-port", clock=clock, backoff=Backoff(first_s=1.0, factor=3.0, longest_s=9.0)
    )
    for _ in range(5):
        with pytest.raises(LinkError, match="cannot be opened, nothing was sent"):
            await link.open()
    assert clock.waits_s == [0.0, 1.0, 3.0, 9.0, 9.0]


async def test_the_port_is_found_again_when_it_comes_back(other: Other) -> None:
    link = SerialLink(other.port, clock=RealClock(), backoff=QUICK, reply_timeout_s=10.0)
    other.answer(lambda line: line + b"\n")
    assert await link.ask(b"before") == b"before"
    await link.drop()
    assert not link.connected
    assert await link.ask(b"after") == b"after"
    await link.close()


async def test_what_is_not_fetched_stays_with_the_other_side(other: Other) -> None:
    link = SerialLink(other.port, clock=RealClock(), max_waiting=8)
    await link.open()
    line = b"x" * 63 + b"\n"
    said, refused = 0, 0
    for _ in range(2000):
        try:
            other.say(line)
            said += 1
        except BlockingIOError:
            refused += 1
        await asyncio.sleep(0)
    assert refused > 1000
    got = 0
    while await link.next_line(0.1) is not None:
        got += 1
    assert got == said
    await link.close()


async def test_a_line_without_an_end_ends_the_connection(other: Other) -> None:
    link = SerialLink(other.port, clock=RealClock(), max_line_bytes=100, backoff=QUICK)
    await link.open()
    other.say(b"y" * 101)
    with pytest.raises(LinkError, match="longer than 100 bytes"):
        await link.next_line(10.0)
    await link.close()


async def test_more_than_the_port_holds_is_sent_as_it_is_taken(
    other: Other, link: SerialLink
) -> None:
    await link.open()
    script = b"".join(b"line %d\n" % number for number in range(20_000))
    sending = asyncio.create_task(link.send(script))
    assert await other.hear(len(script)) == script
    await sending
    await link.close()


async def test_an_instrument_that_takes_nothing_is_given_up(other: Other) -> None:
    link = SerialLink(other.port, clock=RealClock(), write_timeout_s=0.1, backoff=QUICK)
    await link.open()
    with pytest.raises(LinkError, match="does not take"):
        await link.send(b"z" * 1_000_000, command="a long script")
    assert not link.connected
    await link.close()


async def test_a_question_that_is_given_up_drops_the_connection(
    other: Other, link: SerialLink
) -> None:
    asking = asyncio.create_task(link.ask(b"slow"))
    await other.hear(5)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not link.connected
    await link.close()


async def test_a_greeting_is_said_first_on_every_connection(other: Other) -> None:
    heard: list[bytes] = []

    def reply(line: bytes) -> bytes:
        heard.append(line)
        return line + b"\n"

    other.answer(reply)

    async def greet(exchange: Callable[[bytes], object]) -> None:
        answer = exchange(b"hello")
        assert asyncio.iscoroutine(answer)
        await answer

    link = SerialLink(other.port, clock=RealClock(), greeting=greet, backoff=QUICK)  # type: ignore[arg-type]
    await link.ask(b"a")
    await link.drop()
    await link.ask(b"b")
    assert heard == [b"hello", b"a", b"hello", b"b"]
    await link.close()


async def test_a_second_owner_of_the_port_is_refused(other: Other, link: SerialLink) -> None:
    await link.open()
    second = SerialLink(other.port, clock=RealClock(), backoff=QUICK)
    with pytest.raises(LinkError, match="cannot be opened"):
        await second.open()
    await link.close()
    await second.open()
    await second.close()


async def test_a_closed_link_sends_nothing_until_it_is_opened(
    other: Other, link: SerialLink
) -> None:
    other.answer(lambda line: line + b"\n")
    await link.ask(b"1")
    await link.close()
    with pytest.raises(LinkError, match="closed, nothing was sent"):
        await link.ask(b"2")
    with pytest.raises(LinkError, match="closed, nothing was sent"):
        await link.send(b"2")
    await link.open()
    assert await link.ask(b"3") == b"3"
    await link.close()


async def test_a_serial_line_can_come_over_a_network() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(b"re " + line)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = SerialLink(f"socket://127.0.0.1:{port}", clock=RealClock(), backoff=QUICK)
    assert await link.ask(b"i") == b"re i"
    await link.close()
    server.close()
    await server.wait_closed()


EXCLUSIVE = 0x80045440
"""TIOCGEXCL of Linux, asm-generic/ioctls.h: whether a port lets no other program in."""


def is_exclusive(port: int) -> bool:
    return bool(struct.unpack("i", fcntl.ioctl(port, EXCLUSIVE, b"\0\0\0\0"))[0])


def test_no_other_program_opens_a_port_but_a_simulators_stays_usable_after_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    master, slave = os.openpty()
    try:
        serial_link.keep_others_out(slave)
        assert not is_exclusive(slave)
        monkeypatch.setattr(serial_link, "PSEUDO_TERMINALS", range(0))
        serial_link.keep_others_out(slave)
        assert is_exclusive(slave)
    finally:
        os.close(master)
        os.close(slave)
