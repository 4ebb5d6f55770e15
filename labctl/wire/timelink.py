"""Virtual time that an instrument's simulator keeps, and whoever drives the instrument moves on.

A simulated instrument in virtual time listens on a *time port* beside its own: the line
``advance 12.5`` moves its time on by that many seconds and is answered ``now 1234.5``, in seconds
since an arbitrary start. :class:`SteppedClock` is the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import socket
import time
from typing import Final

from labctl.errors import LinkError

LONGEST_LINE: Final = 200

_ADVANCE: Final = "advance"
_NOW: Final = "now"


class TimeLineError(ValueError):
    """A line on a time port that means nothing."""


def advance_line(duration_s: float) -> bytes:
    """What moves time on by ``duration_s``."""
    return f"{_ADVANCE} {duration_s!r}\n".encode()


def now_line(now_s: float) -> bytes:
    """What tells the time that it is now."""
    return f"{_NOW} {now_s!r}\n".encode()


def read_advance(line: bytes) -> float:
    """The seconds of an ``advance`` line.

    Raises:
        TimeLineError: it is not one, or not a finite number of 0 or above.
    """
    return _number_after(_ADVANCE, line)


def read_now(line: bytes) -> float:
    """The seconds of a ``now`` line.

    Raises:
        TimeLineError: it is not one, or not a finite number of 0 or above.
    """
    return _number_after(_NOW, line)


class SteppedClock:
    """A :class:`labctl.clock.Clock` that a simulator keeps; to sleep is to move its time on.

    Of several sleepers the one that is to wake first moves time on, for all. After one woke, the
    others wait until somebody sleeps again, but no longer than ``grace_s`` of real time: so time
    does not run on while the one who woke still works.

    ``unix_start_s`` labels the moment when the clock was made, now if None.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        unix_start_s: float | None = None,
        connect_timeout_s: float = 10.0,
        reply_timeout_s: float = 120.0,
        grace_s: float = 1.0,
    ) -> None:
        self._host = host
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._reply_timeout_s = reply_timeout_s
        self._grace_s = grace_s
        self._unix_start_s = time.time() if unix_start_s is None else unix_start_s
        self._now_s = 0.0
        self._their_now_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._moving = False
        self._at_work_until_s = -math.inf
        self._wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    def unix_time_s(self) -> float:
        return self._unix_start_s + self._now_s

    def monotonic_s(self) -> float:
        return self._now_s

    async def sleep(self, duration_s: float) -> None:
        """See :meth:`labctl.clock.Clock.sleep`.

        Raises:
            LinkError: time could not be moved on, because the simulator does not answer.
        """
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        me = (self._now_s + duration_s, next(self._order))
        self._sleepers.append(me)
        self._at_work_until_s = -math.inf
        self._tell()
        try:
            await asyncio.sleep(0)
            while self._now_s < me[0]:
                await self._move_or_wait(me)
        finally:
            self._sleepers.remove(me)
            self._at_work_until_s = time.monotonic() + self._grace_s
            self._tell()

    async def close(self) -> None:
        """Let the connection go; the next sleep makes a new one."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire[1].close()
            with contextlib.suppress(OSError):
                await wire[1].wait_closed()

    async def _move_or_wait(self, me: tuple[float, int]) -> None:
        if self._moving or min(self._sleepers) != me:
            await self._change(None)
        elif (left_s := self._at_work_until_s - time.monotonic()) > 0:
            await self._change(left_s)
        else:
            self._moving = True
            try:
                self._now_s += await self._advance(me[0] - self._now_s)
            finally:
                self._moving = False
                self._tell()

    async def _change(self, at_most_s: float | None) -> None:
        """Return when a sleeper came or went or time moved on."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(told)
        try:
            async with asyncio.timeout(at_most_s):
                await told
        except TimeoutError:
            pass
        finally:
            self._waiting.remove(told)

    def _tell(self) -> None:
        for told in self._waiting:
            if not told.done():
                told.set_result(None)

    async def _advance(self, duration_s: float) -> float:
        """By how much time really moved on."""
        whole = False
        try:
            if self._wire is None:
                self._wire = await self._connect()
                self._their_now_s = await self._ask(0.0)
            now_s = await self._ask(duration_s)
            whole = True
        except TimeoutError as error:
            raise self._error("does not answer in time") from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise self._error(str(error) or "was lost") from error
        except TimeLineError as error:
            raise self._error(str(error)) from error
        finally:
            if not whole and self._wire is not None:
                self._wire[1].transport.abort()
                self._wire = None
        moved_s, self._their_now_s = now_s - self._their_now_s, now_s
        if moved_s < 0:
            raise self._error(f"went back by {-moved_s:g} s")
        return max(moved_s, duration_s)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(self._connect_timeout_s):
            reader, writer = await asyncio.open_connection(
                self._host, self._port, limit=LONGEST_LINE
            )
        raw: socket.socket | None = writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return reader, writer

    async def _ask(self, duration_s: float) -> float:
        if self._wire is None:
            raise ConnectionError("not connected")
        reader, writer = self._wire
        async with asyncio.timeout(self._reply_timeout_s):
            writer.write(advance_line(duration_s))
            await writer.drain()
            return read_now(await reader.readuntil(b"\n"))

    def _error(self, what: str) -> LinkError:
        return LinkError(
            f"the time port {self.address} {what}", address=self.address, command="advance"
        )


def _number_after(word: str, line: bytes) -> float:
    parts = line.decode("ascii", "replace").split()
    try:
        if len(line) > LONGEST_LINE or len(parts) != 2 or parts[0] != word:
            raise ValueError
        value = float(parts[1])
        if not (math.isfinite(value) and value >= 0):
            raise ValueError
    except ValueError:
        raise TimeLineError(f"{line[:80]!r} is not '{word}' and a number of 0 or above") from None
    return value
