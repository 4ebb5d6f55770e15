"""A TCP server of framed requests: what every simulated instrument on a socket stands behind.

A frame ends with a separator; frames of one connection are answered one after the other, in order.
Leaving the ``async with`` closes the listener and every connection and leaves no task behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the server listens; ``port`` is the true one when 0 was asked for."""

    host: str
    port: int


@contextlib.asynccontextmanager
async def serve_frames(
    answer: Callable[[bytes], Awaitable[Answer]],
    *,
    host: str,
    port: int,
    separator: bytes,
    max_frame_bytes: int,
) -> AsyncIterator[Listening]:
    """Serve until the block is left.

    ``answer`` gets a frame without its separator. A frame longer than ``max_frame_bytes``, or an
    exception in ``answer`` (logged), closes the connection and nothing else.

    Raises:
        OSError: the address cannot be listened on.
    """
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_converse(reader, writer, answer, separator))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, host, port, limit=max_frame_bytes)
    try:
        bound = server.sockets[0].getsockname()
        yield Listening(host=str(bound[0]), port=int(bound[1]))
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


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
