"""A TCP server of framed requests: what every simulated instrument on a socket stands behind.

A frame ends with a separator; frames of one connection are answered one after the other, in order.
Leaving the ``async with`` closes the listener and every connection and leaves no task behind.

:class:`Socket` is a port that can be unplugged: what was connected is cut, and who connects is
refused, until it is plugged in again at the same number.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from labctl.simulators.faults import Fault, FaultBoard

logger = logging.getLogger(__name__)


class After(enum.Enum):
    """What becomes of a connection when a frame has been answered."""

    LISTEN = "listen"
    CLOSE = "close"
    IGNORE = "ignore"
    """Stay open, read on, and never answer again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes to send, and what comes after them."""

    data: bytes = b""
    after: After = After.LISTEN


Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection until it ends."""

WATCH_S = 0.05
"""How often a port looks whether a fault pulls its plug, in real time."""


class Socket:
    """A TCP port; ``port`` is the true one when 0 was asked for. Begins unplugged."""

    def __init__(self, converse: Converse, *, host: str, port: int, limit_bytes: int) -> None:
        self.host = host
        self.port = port
        self._converse = converse
        self._limit_bytes = limit_bytes
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    @property
    def plugged(self) -> bool:
        return self._server is not None

    async def plug(self) -> None:
        """Listen. Idempotent.

        Raises:
            OSError: the address cannot be listened on.
        """
        async with self._one_at_a_time:
            if self._server is not None:
                return
            self._server = await asyncio.start_server(
                self._connected, self.host, self.port, limit=self._limit_bytes
            )
            bound = self._server.sockets[0].getsockname()
            self.host, self.port = str(bound[0]), int(bound[1])

    async def unplug(self) -> None:
        """Cut every connection, and listen no more. Idempotent."""
        async with self._one_at_a_time:
            server, self._server = self._server, None
            if server is None:
                return
            server.close()
            talks = list(self._talks)
            for task in talks:
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)
            await server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(partial(self._over, writer))

    def _over(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._talks.discard(task)
        if task.cancelled():
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._converse(reader, writer)


class Pluggable(Protocol):
    """What a simulated instrument can have done to it."""

    async def plug(self) -> None: ...

    async def unplug(self) -> None: ...

    async def power_cut(self) -> None: ...


async def follow_faults(board: FaultBoard, instrument: Pluggable) -> None:
    """Do what the faults ``unplug`` and ``power_cut`` say, until cancelled."""
    loop = asyncio.get_running_loop()
    seen: Fault | None = None
    back_s, pulled = math.inf, False
    while True:
        board.refresh()
        if board.take("power_cut", "") is not None:
            await instrument.power_cut()
        fault = board.standing("unplug")
        if fault != seen:
            seen, back_s = fault, math.inf
            if fault is not None:
                await instrument.unplug()
                pulled = True
                back_s = loop.time() + (math.inf if fault.seconds is None else fault.seconds)
        if pulled and (fault is None or loop.time() >= back_s):
            await instrument.plug()
            pulled = False
        await asyncio.sleep(WATCH_S)


@contextlib.asynccontextmanager
async def serve_frames(
    answer: Callable[[bytes], Awaitable[Answer]],
    *,
    host: str,
    port: int,
    separator: bytes,
    max_frame_bytes: int,
) -> AsyncIterator[Socket]:
    """Serve until the block is left.

    ``answer`` gets a frame without its separator. A frame longer than ``max_frame_bytes``, or an
    exception in ``answer`` (logged), closes the connection and nothing else.

    Raises:
        OSError: the address cannot be listened on.
    """

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse(reader, writer, answer, separator)

    listening = Socket(converse, host=host, port=port, limit_bytes=max_frame_bytes)
    await listening.plug()
    try:
        yield listening
    finally:
        await listening.unplug()


async def _converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Callable[[bytes], Awaitable[Answer]],
    separator: bytes,
) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        after = After.LISTEN
        while after is After.LISTEN:
            frame = await reader.readuntil(separator)
            reply = await answer(frame[: -len(separator)])
            writer.write(reply.data)
            await writer.drain()
            after = reply.after
        while after is After.IGNORE and await reader.read(65536):
            pass
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass
    except Exception:
        logger.exception("a simulated instrument failed to answer")
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
