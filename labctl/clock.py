"""All waiting goes through one Clock: real, hastened, virtual, or in the hand of a test.

``unix_time_s`` is a label; durations come from ``monotonic_s``.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Coroutine
from typing import Any, Protocol


class Clock(Protocol):
    """What the rest of the program knows of time."""

    def unix_time_s(self) -> float:
        """Wall time, seconds since 1970 UTC: a label, never subtracted."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Return after ``duration_s`` of this clock's time; always yields to other tasks."""
        ...


class RealClock:
    """Time as the wall tells it, or ``speed`` times as fast."""

    def __init__(self, speed: float = 1.0) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise ValueError(f"speed must be a finite number above 0, not {speed}")
        self.speed = speed
        self._unix_start_s = time.time()
        self._monotonic_start_s = time.monotonic()

    def unix_time_s(self) -> float:
        if self.speed == 1.0:
            return time.time()
        return self._unix_start_s + (time.monotonic() - self._monotonic_start_s) * self.speed

    def monotonic_s(self) -> float:
        return (time.monotonic() - self._monotonic_start_s) * self.speed

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(max(0.0, duration_s) / self.speed)


class VirtualClock:
    """Nothing sleeps: whoever waits moves time on to the moment he waited for."""

    def __init__(self, unix_start_s: float | None = None) -> None:
        self._unix_start_s = time.time() if unix_start_s is None else unix_start_s
        self._now_s = 0.0

    def unix_time_s(self) -> float:
        return self._unix_start_s + self._now_s

    def monotonic_s(self) -> float:
        return self._now_s

    async def sleep(self, duration_s: float) -> None:
        wake_s = self._now_s + max(0.0, duration_s)
        await asyncio.sleep(0)
        self._now_s = max(self._now_s, wake_s)


class ManualClock:
    """A clock for tests: time moves only when the test calls :meth:`advance`."""

    def __init__(self, unix_start_s: float = 1_800_000_000.0) -> None:
        self._unix_start_s = unix_start_s
        self._now_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def unix_time_s(self) -> float:
        return self._unix_start_s + self._now_s

    def monotonic_s(self) -> float:
        return self._now_s

    async def sleep(self, duration_s: float) -> None:
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + duration_s, next(self._order), woken))
        await woken

    async def advance(self, duration_s: float) -> None:
        """Move time on, waking every sleeper in order of its time, and let each one run."""
        end_s = self._now_s + duration_s
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            wake_s, _, woken = heapq.heappop(self._sleepers)
            self._now_s = max(self._now_s, wake_s)
            if not woken.done():
                woken.set_result(None)
            await settle()
        self._now_s = end_s
        await settle()


async def settle(turns: int = 20) -> None:
    """Give the other tasks ``turns`` turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


def clock_from_speed(speed: str | float) -> Clock:
    """A clock from what a person typed: ``virtual``, ``1``, ``60``, ``10x``.

    Raises:
        ValueError: the text is neither ``virtual`` nor a positive number.
    """
    if isinstance(speed, str):
        text = speed.strip().lower()
        if text == "virtual":
            return VirtualClock()
        try:
            speed = float(text.removesuffix("x"))
        except ValueError:
            raise ValueError(
                f"speed {speed!r} is neither 'virtual' nor a number such as 1, 60 or 100x"
            ) from None
    return RealClock(speed)


async def first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    """Return when one of them does, with its error if it has one; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()
