"""Waits of a run that end early when somebody asks it for something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from labctl.clock import Clock

Answer = TypeVar("Answer")

LAST_WORD_S: Final = 1.0
"""So long an answer may still take when somebody wants something of the run."""


class Waiting:
    """``wall`` is real time, in which instruments answer or do not.

    No task is made for a wait that nobody ends early: hundreds of channels wait ten times a second.
    """

    def __init__(self, wall: Clock) -> None:
        self._wall = wall
        self._poked = asyncio.Event()
        self._told: Callable[[], None] = self._poked.set
        """What is done when somebody asks for something."""

    def poke(self) -> None:
        """Somebody asked for something: the wait that is under way, or the next one, ends."""
        self._told()

    async def until_asked(self) -> None:
        """Return when somebody asks for something."""
        await self._poked.wait()
        self._poked.clear()

    async def unless_asked(self, work: Coroutine[Any, Any, Answer]) -> Answer | None:
        """The answer; None if somebody wanted something and the answer did not come soon after."""
        patience: asyncio.Task[None] | None = None

        async def be_patient() -> None:
            await self._wall.sleep(LAST_WORD_S)
            end_now(until)

        def poked() -> None:
            nonlocal patience
            if patience is None:
                patience = asyncio.create_task(be_patient())

        until = asyncio.timeout(None)
        try:
            async with until:
                with self._telling(poked):
                    return await work
        except TimeoutError:
            if not until.expired():
                raise
            return None
        finally:
            if patience is not None:
                await let_go(patience)

    async def pause(self, clock: Clock, duration_s: float) -> None:
        """Wait by ``clock``, but no longer than until somebody asks for something."""
        until = asyncio.timeout(None)
        try:
            async with until:
                with self._telling(lambda: end_now(until)):
                    await clock.sleep(duration_s)
        except TimeoutError:
            if not until.expired():
                raise

    @contextmanager
    def _telling(self, told: Callable[[], None]) -> Iterator[None]:
        """``told`` is called when somebody asks for something, or has asked already."""
        if self._poked.is_set():
            self._poked.clear()
            told()
        before, self._told = self._told, told
        try:
            yield
        finally:
            self._told = before

    async def at_most(self, task: asyncio.Task[Any], duration_s: float) -> bool:
        """Wait for a task, but no longer than ``duration_s`` of real time; whether it is done."""
        await either(task, self._wall.sleep(duration_s))
        return task.done()


def end_now(until: asyncio.Timeout) -> None:
    """Whoever waits inside ``until`` waits no longer."""
    if until.when() is None:
        until.reschedule(asyncio.get_running_loop().time())


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
