"""Waits of a run that end early when somebody asks it for something."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from labctl.clock import Clock

Answer = TypeVar("Answer")

LAST_WORD_S: Final = 1.0
"""So long an answer may still take when somebody wants something of the run."""


class Waiting:
    """``wall`` is real time, in which instruments answer or do not."""

    def __init__(self, wall: Clock) -> None:
        self._wall = wall
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """Somebody asked for something: the wait that is under way, or the next one, ends."""
        self._poked.set()

    async def until_asked(self) -> None:
        """Return when somebody asks for something."""
        await self._poked.wait()
        self._poked.clear()

    async def unless_asked(self, work: Coroutine[Any, Any, Answer]) -> Answer | None:
        """The answer; None if somebody wanted something and the answer did not come soon after."""
        asking = asyncio.create_task(work)
        try:
            await either(asking, self._poked.wait())
            if not asking.done():
                self._poked.clear()
                await either(asking, self._wall.sleep(LAST_WORD_S))
            return asking.result() if asking.done() else None
        finally:
            await let_go(asking)

    async def pause(self, clock: Clock, duration_s: float) -> None:
        """Wait by ``clock``, but no longer than until somebody asks for something."""
        sleeping = asyncio.create_task(clock.sleep(duration_s))
        try:
            await either(sleeping, self._poked.wait())
            if sleeping.done():
                sleeping.result()
        finally:
            await let_go(sleeping)
        self._poked.clear()

    async def at_most(self, task: asyncio.Task[Any], duration_s: float) -> bool:
        """Wait for a task, but no longer than ``duration_s`` of real time; whether it is done."""
        await either(task, self._wall.sleep(duration_s))
        return task.done()


async def either(task: asyncio.Task[Any], other: Coroutine[Any, Any, Any]) -> None:
    """Return when one of the two is done; ``other`` is then cancelled."""
    waiting = asyncio.create_task(other)
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await let_go(waiting)


async def let_go(task: asyncio.Task[Any]) -> None:
    """Cancel a task and see it end; what it came to is not asked."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
