"""Against real sockets on this machine, through pyvisa-py."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pyvisa import VisaIOError
from pyvisa.constants import StatusCode
from pyvisa.resources import MessageBasedResource

from labctl.clock import RealClock, VirtualClock
from labctl.errors import InstrumentError, LinkError
from labctl.wire import visa
from labctl.wire.link import Backoff, Exchange
from labctl.wire.visa import VisaLink


class Peer:
    """One connection, seen from the instrument."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def hear(self) -> bytes:
        return (await self._reader.readuntil(b"\n")).removesuffix(b"\n")

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0.005)

    async def until_dropped(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(1000):
                pass


Behaviour = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def instrument(*behaviours: Behaviour) -> AsyncIterator[str]:
    """A server whose first connection behaves as the first behaviour, and so on; its resource."""
    waiting = list(behaviours)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await waiting.pop(0)(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with asyncio.timeout(20):
            yield f"TCPIP::127.0.0.1::{server.sockets[0].getsockname()[1]}::SOCKET"
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def echo(peer: Peer) -> None:
    while True:
        await peer.say(b"re " + await peer.hear() + b"\n")


@contextlib.asynccontextmanager
async def linked(resource: str, **options: object) -> AsyncIterator[VisaLink]:
    settings: dict[str, object] = {"clock": VirtualClock(), "reply_timeout_s": 5.0, **options}
    link = VisaLink(resource, **settings)  # type: ignore[arg-type]
    try:
        yield link
    finally:
        await link.close()


async def test_questions_get_their_answers() -> None:
    async with instrument(echo) as resource, linked(resource) as link:
        assert await link.ask(b"*IDN?") == b"re *IDN?"
        answers = await asyncio.gather(*(link.ask(b"%d?" % n) for n in range(20)))
        assert answers == [b"re %d?" % n for n in range(20)]
        assert link.address == resource


async def test_an_answer_may_come_in_pieces_and_be_long() -> None:
    long = b"1.234567E-03," * 40_000

    async def slowly(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"1.0", b"00E+", b"00\n")
        await peer.hear()
        await peer.say(long + b"\n")
        await peer.until_dropped()

    async with instrument(slowly) as resource, linked(resource) as link:
        assert await link.ask(b":READ?") == b"1.000E+00"
        assert await link.ask(b":TRAC:DATA?") == long


async def test_pieces_of_any_length_are_all_of_the_answer() -> None:
    """A buffer comes in the pieces that the network makes of it."""
    pieces = [b"%d," % size + size * b"7" for size in (4093, 5000, 1, 9000, 4090, 6001, 8191)]

    async def in_pieces(peer: Peer) -> None:
        for _ in range(20):
            await peer.hear()
            await peer.say(*pieces, b"\n")
        await peer.until_dropped()

    async with instrument(in_pieces) as resource, linked(resource) as link:
        for _ in range(20):
            assert await link.ask(b":TRAC:DATA?") == b"".join(pieces)


async def test_a_late_answer_does_not_reach_the_next_question() -> None:
    async def late(peer: Peer) -> None:
        await peer.hear()
        await asyncio.sleep(0.4)
        await peer.say(b"late\n")
        await peer.until_dropped()

    async with instrument(late, echo) as resource, linked(resource, reply_timeout_s=0.3) as link:
        with pytest.raises(LinkError, match=r"no answer to first\?; it may have arrived") as caught:
            await link.ask(b"first?")
        assert caught.value.command == "first?"
        assert await link.ask(b"second?") == b"re second?"


async def test_an_instrument_that_hangs_up_is_noticed_before_the_timeout() -> None:
    async def hang_up(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"ha")

    async with (
        instrument(hang_up, echo) as resource,
        linked(resource, reply_timeout_s=30.0) as link,
    ):
        began_s = time.monotonic()
        with pytest.raises(LinkError, match="the other side closed when 2 bytes"):
            await link.ask(b"first?")
        assert time.monotonic() - began_s < 5.0
        assert await link.ask(b"second?") == b"re second?"


async def test_bytes_that_nobody_asked_for_are_no_answer() -> None:
    said = asyncio.Event()

    async def chatty(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"right\nstray\n")
        said.set()
        await peer.until_dropped()

    async with instrument(chatty, echo) as resource, linked(resource) as link:
        assert await link.ask(b"first?") == b"right"
        await said.wait()
        with pytest.raises(LinkError, match="nobody asked for: 'stray'"):
            await link.ask(b"second?")
        assert await link.ask(b"third?") == b"re third?"


async def test_an_answer_that_is_too_long_is_not_read_to_its_end() -> None:
    async def endless(peer: Peer) -> None:
        await peer.hear()
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.say(b"x" * 60_000)

    async with instrument(endless) as resource, linked(resource, max_reply_bytes=100_000) as link:
        with pytest.raises(LinkError, match="longer than 100000 bytes"):
            await link.ask(b"first?")


async def test_an_answer_to_another_question_ends_the_session() -> None:
    def check(reply: bytes) -> None:
        raise InstrumentError(f"not {reply!r}")

    greeted = 0

    async def greet(exchange: Exchange) -> None:
        nonlocal greeted
        greeted += 1
        assert await exchange(b"hello") == b"re hello"

    async with instrument(echo, echo) as resource, linked(resource, greeting=greet) as link:
        with pytest.raises(InstrumentError, match="not b're first"):
            await link.ask(b"first?", check=check)
        assert await link.ask(b"second?") == b"re second?"
        assert greeted == 2


async def test_a_wrong_instrument_is_refused_at_every_connection() -> None:
    async def greet(exchange: Exchange) -> None:
        raise InstrumentError("another serial number: " + (await exchange(b"*IDN?")).decode())

    async with instrument(echo, echo) as resource, linked(resource, greeting=greet) as link:
        for _ in range(2):
            with pytest.raises(InstrumentError, match="another serial number"):
                await link.ask(b":OUTP ON")


async def test_nobody_listening_is_told_as_nothing_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with linked(f"TCPIP::127.0.0.1::{port}::SOCKET") as link:
        with pytest.raises(LinkError, match="no connection, nothing was sent"):
            await link.open()


async def test_the_waits_before_a_new_connection_grow_and_end_with_success() -> None:
    clock = VirtualClock()

    async def refuse(peer: Peer) -> None:
        await peer.hear()

    backoff = Backoff(first_s=1.0, factor=2.0, longest_s=3.0)
    async with (
        instrument(refuse, refuse, refuse, echo, refuse, echo) as resource,
        linked(resource, clock=clock, backoff=backoff) as link,
    ):
        begins: list[float] = []
        for _ in range(3):
            with pytest.raises(LinkError):
                await link.ask(b"?")
            begins.append(clock.monotonic_s())
        await link.ask(b"?")
        assert [*begins, clock.monotonic_s()] == [0.0, 1.0, 3.0, 6.0]


async def test_a_caller_who_gives_up_takes_nobodys_answer() -> None:
    heard = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.hear()
        heard.set()
        await peer.until_dropped()

    async with instrument(slow, echo) as resource, linked(resource) as link:
        asking = asyncio.create_task(link.ask(b"first?"))
        await heard.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await link.ask(b"second?") == b"re second?"


async def test_to_close_wakes_whoever_waits_and_open_begins_again() -> None:
    heard = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.hear()
        heard.set()
        await peer.until_dropped()

    async with (
        instrument(silent, echo) as resource,
        linked(resource, clock=RealClock(), reply_timeout_s=30.0) as link,
    ):
        asking = asyncio.create_task(link.ask(b"first?"))
        await heard.wait()
        await link.close()
        with pytest.raises(LinkError):
            await asking
        with pytest.raises(LinkError, match="the link is closed, nothing was sent"):
            await link.ask(b"second?")
        await link.open()
        assert await link.ask(b"third?") == b"re third?"


async def test_a_question_does_not_stop_the_loop() -> None:
    async def slow(peer: Peer) -> None:
        await peer.hear()
        for _ in range(20):
            await asyncio.sleep(0)
        await peer.say(b"done\n")
        await peer.until_dropped()

    async with instrument(slow) as resource, linked(resource) as link:
        assert await link.ask(b"?") == b"done"


class LockOf(MessageBasedResource):
    """What pyvisa answers to whoever asks for an exclusive lock."""

    def __init__(self, answer: Exception | None) -> None:
        self._answer = answer
        self.waited_ms: list[object] = []

    def __del__(self) -> None:
        """It was never opened."""

    def lock_excl(self, timeout: object = "default") -> None:
        self.waited_ms.append(timeout)
        if self._answer is not None:
            raise self._answer


@pytest.mark.parametrize(
    "answer",
    [
        None,
        VisaIOError(StatusCode.error_nonsupported_operation),
        NotImplementedError(),
    ],
)
def test_an_instrument_without_a_lock_of_its_own_is_used_without(answer: Exception | None) -> None:
    opened = LockOf(answer)
    visa.keep_others_out(opened, 2.5)
    assert opened.waited_ms == [2500]


def test_an_instrument_that_another_pc_has_locked_is_not_used() -> None:
    opened = LockOf(VisaIOError(StatusCode.error_resource_locked))
    with pytest.raises(visa._BrokenError, match="on another one, holds the instrument's VISA lock"):
        visa.keep_others_out(opened, 1.0)
