from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.clock import RealClock, VirtualClock
from labctl.errors import InstrumentError, LinkError
from labctl.wire.link import Backoff, Exchange, Framing
from labctl.wire.tcp import TcpLink

END = b"\n\n#\r\n"
FRAMING = Framing(request_end=END, reply_end=END, max_reply_bytes=1000)


class Peer:
    """One connection, seen from the instrument."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def hear(self) -> bytes:
        return (await self._reader.readuntil(END)).removesuffix(END)

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def until_dropped(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(1000):
                pass


Behaviour = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def instrument(*behaviours: Behaviour) -> AsyncIterator[int]:
    """A server whose first connection behaves as the first behaviour, and so on; its port.

    A test that takes longer than 20 s fails.
    """
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
            yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def echo(peer: Peer) -> None:
    while True:
        await peer.say(b"re: " + await peer.hear() + END)


@contextlib.asynccontextmanager
async def link_to(port: int, reply_timeout_s: float = 5.0) -> AsyncIterator[TcpLink]:
    link = TcpLink(
        "127.0.0.1",
        port,
        framing=FRAMING,
        clock=VirtualClock(),
        reply_timeout_s=reply_timeout_s,
    )
    try:
        yield link
    finally:
        await link.close()


async def test_an_answer_comes_without_its_terminator() -> None:
    async with instrument(echo) as port, link_to(port) as link:
        assert await link.ask(b"one") == b"re: one"
        assert await link.ask(b"two") == b"re: two"


@settings(max_examples=25, deadline=None)
@given(
    st.binary(max_size=60).filter(lambda reply: END not in reply + END[:-1]),
    st.lists(st.integers(0, 70), max_size=5),
)
def test_an_answer_may_come_in_any_pieces(reply: bytes, cuts: list[int]) -> None:
    whole = reply + END
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[a:b] for a, b in itertools.pairwise(places)]

    async def in_pieces(peer: Peer) -> None:
        await peer.hear()
        await peer.say(*pieces)
        await peer.until_dropped()

    async def scenario() -> None:
        async with instrument(in_pieces) as port, link_to(port) as link:
            assert await link.ask(b"request") == reply

    asyncio.run(scenario())


async def test_one_request_is_under_way_at_a_time() -> None:
    heard: list[bytes] = []
    first_heard = asyncio.Event()
    answer_now = asyncio.Event()

    async def careful(peer: Peer) -> None:
        heard.append(await peer.hear())
        first_heard.set()
        await answer_now.wait()
        await peer.say(b"a" + END)
        heard.append(await peer.hear())
        await peer.say(b"b" + END)
        await peer.until_dropped()

    async with instrument(careful) as port, link_to(port) as link:
        first = asyncio.create_task(link.ask(b"first"))
        second = asyncio.create_task(link.ask(b"second"))
        await first_heard.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert heard == [b"first"]
        answer_now.set()
        assert (await first, await second) == (b"a", b"b")


async def test_a_late_answer_is_never_taken_for_the_next_one() -> None:
    timed_out = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.hear()
        await timed_out.wait()
        await peer.say(b"late answer to first" + END)
        await peer.until_dropped()

    async with instrument(slow, echo) as port, link_to(port, reply_timeout_s=0.05) as link:
        with pytest.raises(LinkError, match="no answer to MEASURE within") as e:
            await link.ask(b"first", command="MEASURE")
        assert e.value.address == f"127.0.0.1:{port}"
        assert e.value.command == "MEASURE"
        timed_out.set()
        assert await link.ask(b"second") == b"re: second"


async def test_the_answer_to_a_cancelled_request_is_never_taken_for_the_next_one() -> None:
    heard = asyncio.Event()
    cancelled = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.hear()
        heard.set()
        await cancelled.wait()
        await peer.say(b"answer to first" + END)
        await peer.until_dropped()

    async with instrument(slow, echo) as port, link_to(port) as link:
        first = asyncio.create_task(link.ask(b"first"))
        await heard.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        cancelled.set()
        assert await link.ask(b"second") == b"re: second"


async def test_a_caller_cancelled_while_it_waits_its_turn_disturbs_nobody() -> None:
    heard = asyncio.Event()
    answer_now = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.hear()
        heard.set()
        await answer_now.wait()
        await peer.say(b"answer" + END)
        await echo(peer)

    async with instrument(slow) as port, link_to(port) as link:
        first = asyncio.create_task(link.ask(b"first"))
        second = asyncio.create_task(link.ask(b"second"))
        await heard.wait()
        second.cancel()
        answer_now.set()
        assert await first == b"answer"
        assert await link.ask(b"third") == b"re: third"


async def test_a_connection_that_closes_in_the_middle_of_an_answer_is_an_error() -> None:
    async def breaks_off(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"half an ans")

    async with instrument(breaks_off, echo) as port, link_to(port) as link:
        with pytest.raises(LinkError, match=r"closed by the other side, 11 bytes"):
            await link.ask(b"first")
        assert await link.ask(b"second") == b"re: second"


async def test_a_connection_that_closed_while_nothing_was_asked_is_made_again() -> None:
    async def answers_once(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"once" + END)

    async with instrument(answers_once, echo) as port, link_to(port) as link:
        assert await link.ask(b"first") == b"once"
        connection = link._connection
        assert connection is not None
        await connection.lost.wait()
        assert await link.ask(b"second") == b"re: second"


async def test_an_answer_without_end_is_cut_off_at_the_bound() -> None:
    async def floods(peer: Peer) -> None:
        await peer.hear()
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.say(b"x" * 100)

    async with instrument(floods, echo) as port, link_to(port) as link:
        with pytest.raises(LinkError, match="longer than 1000 bytes"):
            await link.ask(b"first")
        assert await link.ask(b"second") == b"re: second"


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    dropped = asyncio.Event()

    async def talks_by_itself(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"answer" + END)
        await peer.say(b"by the way" + END)
        await peer.until_dropped()
        dropped.set()

    async with instrument(talks_by_itself, echo) as port, link_to(port) as link:
        with contextlib.suppress(LinkError):  # both answers may come in one segment
            assert await link.ask(b"first") == b"answer"
        await dropped.wait()
        assert await link.ask(b"second") == b"re: second"


async def test_two_answers_at_once_are_none() -> None:
    async def stutters(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"answer" + END + b"answer" + END)
        await peer.until_dropped()

    async with instrument(stutters) as port, link_to(port) as link:
        with pytest.raises(LinkError, match="more than one answer"):
            await link.ask(b"first")


async def test_an_answer_to_another_question_ends_the_connection() -> None:
    def expect_second(reply: bytes) -> None:
        if reply != b"re: second":
            raise InstrumentError(f"{reply!r} is to another question")

    async def one_behind(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"re: something long ago" + END)
        await echo(peer)

    async with instrument(one_behind, echo) as port, link_to(port) as link:
        with pytest.raises(InstrumentError, match="another question"):
            await link.ask(b"first", check=expect_second)
        assert await link.ask(b"second", check=expect_second) == b"re: second"


async def test_line_ends_after_an_answer_mean_nothing() -> None:
    async def polite(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"answer" + END + b"\r\n")
        await echo(peer)

    async with instrument(polite) as port, link_to(port) as link:
        assert await link.ask(b"first") == b"answer"
        assert await link.ask(b"second") == b"re: second"


async def test_each_failure_in_a_row_lengthens_the_wait_and_an_answer_ends_it() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    clock = VirtualClock()
    link = TcpLink(
        "127.0.0.1",
        port,
        framing=FRAMING,
        clock=clock,
        backoff=Backoff(first_s=1.0, factor=2.0, longest_s=5.0),
    )
    tried_s = []
    for _ in range(6):
        with pytest.raises(LinkError, match="nothing was sent"):
            await link.ask(b"request")
        tried_s.append(clock.monotonic_s())
    assert tried_s == [0.0, 1.0, 3.0, 7.0, 12.0, 17.0]
    server = await asyncio.start_server(
        lambda reader, writer: echo(Peer(reader, writer)), "127.0.0.1", port
    )
    async with server:
        assert await link.ask(b"request") == b"re: request"
        assert clock.monotonic_s() == 22.0
        await link.close()
        await link.open()
        assert clock.monotonic_s() == 22.0
        await link.close()


async def test_a_greeting_is_said_on_every_new_connection() -> None:
    greeted: list[bytes] = []

    async def greeting(exchange: Exchange) -> None:
        greeted.append(await exchange(b"hello"))

    async def answers_twice(peer: Peer) -> None:
        for _ in range(2):
            await peer.say(b"re: " + await peer.hear() + END)

    async with instrument(answers_twice, echo) as port:
        link = TcpLink("127.0.0.1", port, framing=FRAMING, clock=RealClock(), greeting=greeting)
        assert await link.ask(b"first") == b"re: first"
        connection = link._connection
        assert connection is not None
        await connection.lost.wait()
        assert await link.ask(b"second") == b"re: second"
        assert greeted == [b"re: hello", b"re: hello"]
        await link.close()


async def test_a_greeting_that_is_refused_leaves_no_connection() -> None:
    dropped = asyncio.Event()

    async def greeting(exchange: Exchange) -> None:
        raise InstrumentError((await exchange(b"hello")).decode())

    async def refuses(peer: Peer) -> None:
        await peer.hear()
        await peer.say(b"go away" + END)
        await peer.until_dropped()
        dropped.set()

    async with instrument(refuses) as port:
        link = TcpLink("127.0.0.1", port, framing=FRAMING, clock=VirtualClock(), greeting=greeting)
        with pytest.raises(InstrumentError, match="go away"):
            await link.ask(b"first")
        await dropped.wait()
        await link.close()


async def test_closing_fails_whoever_waits_and_opening_begins_again() -> None:
    heard = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.hear()
        heard.set()
        await peer.until_dropped()

    async with instrument(silent, echo) as port, link_to(port) as link:
        waiting = asyncio.create_task(link.ask(b"first"))
        behind = asyncio.create_task(link.ask(b"second"))
        await heard.wait()
        await link.close()
        with pytest.raises(LinkError, match="the link was closed"):
            await waiting
        with pytest.raises(LinkError, match="closed, nothing was sent"):
            await behind
        with pytest.raises(LinkError, match="closed, nothing was sent"):
            await link.ask(b"third")
        await link.open()
        assert await link.ask(b"fourth") == b"re: fourth"


async def test_a_dead_peer_is_noticed_and_small_requests_do_not_wait() -> None:
    async with instrument(echo) as port, link_to(port) as link:
        await link.open()
        connection = link._connection
        assert connection is not None
        assert connection._transport is not None
        raw = connection._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
