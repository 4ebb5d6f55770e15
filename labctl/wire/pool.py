"""Several links to one host, shared by many tasks; whoever is urgent goes first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from labctl.wire.link import Check, Link


class LinkPool:
    """Asks on whichever link is free; the waiting are served in order, the urgent before others.

    Any number of links from one up; they must lead to the same instrument.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        if not links:
            raise ValueError("a pool needs at least one link")
        self._links = tuple(links)
        self._idle = list(reversed(self._links))
        self._urgent: deque[asyncio.Future[Link]] = deque()
        self._ordinary: deque[asyncio.Future[Link]] = deque()

    @property
    def address(self) -> str:
        return self._links[0].address

    async def open(self) -> None:
        """Connect every link.

        Raises:
            LinkError: one of them could not be connected.
        """
        for link in self._links:
            await link.open()

    async def close(self) -> None:
        for link in self._links:
            await link.close()

    async def ask(
        self,
        request: bytes,
        *,
        command: str = "",
        check: Check | None = None,
        urgent: bool = False,
    ) -> bytes:
        """See :meth:`labctl.wire.link.Link.ask`; ``urgent`` overtakes all that is not."""
        link = await self._take(self._urgent if urgent else self._ordinary)
        try:
            return await link.ask(request, command=command, check=check)
        finally:
            self._give_back(link)

    async def _take(self, queue: deque[asyncio.Future[Link]]) -> Link:
        if self._idle:
            return self._idle.pop()
        waiting: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        queue.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.cancelled():
                if waiting in queue:
                    queue.remove(waiting)
            else:
                self._give_back(waiting.result())
            raise

    def _give_back(self, link: Link) -> None:
        for queue in (self._urgent, self._ordinary):
            while queue:
                waiting = queue.popleft()
                if not waiting.done():
                    waiting.set_result(link)
                    return
        self._idle.append(link)
