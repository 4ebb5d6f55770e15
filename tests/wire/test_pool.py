from __future__ import annotations

import asyncio

import pytest

from labctl.clock import settle
from labctl.errors import LinkError
from labctl.wire.link import Check
from labctl.wire.pool import LinkPool


class HeldLink:
    """A link whose answers come when the test lets them."""

    def __init__(self, order: list[bytes]) -> None:
        self._order = order
        self._let_go = asyncio.Semaphore(0)

    @property
    def address(self) -> str:
        return "held"

    def answer(self) -> None:
        self._let_go.release()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ask(self, request: bytes, *, command: str = "", check: Check | None = None) -> bytes:
        self._order.append(request)
        await self._let_go.acquire()
        if request == b"bad":
            raise LinkError("the wire failed", command=command)
        return b"re: " + request


async def test_the_urgent_overtake_and_the_others_keep_their_order() -> None:
    order: list[bytes] = []
    link = HeldLink(order)
    pool = LinkPool([link])
    async with asyncio.TaskGroup() as tasks:
        for request in (b"1", b"2", b"3"):
            tasks.create_task(pool.ask(request))
        await settle()
        tasks.create_task(pool.ask(b"stop", urgent=True))
        await settle()
        for _ in range(4):
            link.answer()
    assert order == [b"1", b"stop", b"2", b"3"]


async def test_as_many_requests_are_under_way_as_there_are_links() -> None:
    order: list[bytes] = []
    links = [HeldLink(order), HeldLink(order)]
    pool = LinkPool(links)
    async with asyncio.TaskGroup() as tasks:
        for request in (b"1", b"2", b"3"):
            tasks.create_task(pool.ask(request))
        await settle()
        assert order == [b"1", b"2"]
        for link in links:
            link.answer()
            link.answer()
    assert order == [b"1", b"2", b"3"]


async def test_a_waiter_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    order: list[bytes] = []
    link = HeldLink(order)
    pool = LinkPool([link])
    first = asyncio.create_task(pool.ask(b"1"))
    second = asyncio.create_task(pool.ask(b"2"))
    third = asyncio.create_task(pool.ask(b"3"))
    await settle()
    second.cancel()
    link.answer()
    link.answer()
    assert await first == b"re: 1"
    assert await third == b"re: 3"
    assert second.cancelled()
    assert order == [b"1", b"3"]


async def test_a_waiter_that_is_cancelled_as_its_turn_comes_hands_the_link_on() -> None:
    order: list[bytes] = []
    link = HeldLink(order)
    pool = LinkPool([link])

    async def ask_and_cancel_the_next() -> None:
        await pool.ask(b"1")
        second.cancel()

    first = asyncio.create_task(ask_and_cancel_the_next())
    await settle()
    second = asyncio.create_task(pool.ask(b"2"))
    third = asyncio.create_task(pool.ask(b"3"))
    await settle()
    link.answer()
    await first
    link.answer()
    async with asyncio.timeout(5):
        assert await third == b"re: 3"
    assert second.cancelled()
    assert order == [b"1", b"3"]


async def test_a_link_that_failed_is_given_to_the_next_all_the_same() -> None:
    link = HeldLink([])
    pool = LinkPool([link])
    link.answer()
    with pytest.raises(LinkError):
        await pool.ask(b"bad")
    link.answer()
    assert await pool.ask(b"good") == b"re: good"
