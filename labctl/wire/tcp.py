"""A link over TCP.

Waiting before a new connection goes through the Clock. The time that an answer may take does not:
it is the patience of a real socket, in real seconds, also where the laboratory's time is virtual.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from labctl.clock import Clock
from labctl.errors import LinkError
from labctl.wire.link import Backoff, Check, Framing, Greeting, short_text

KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3


class TcpLink:
    """A :class:`labctl.wire.link.Link` to ``host``:``port``; several tasks may ask, one at a time.

    A timeout, a cancelled caller, an answer that is too long, or bytes that nobody asked for drop
    the connection, so that a late answer cannot reach the next question. The next question
    connects again, after a delay that grows with each failure in a row.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        framing: Framing,
        clock: Clock,
        reply_timeout_s: float = 30.0,
        connect_timeout_s: float = 10.0,
        greeting: Greeting | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._framing = framing
        self._clock = clock
        self._reply_timeout_s = reply_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._greeting = greeting
        self._backoff = backoff or Backoff()
        self._lock = asyncio.Lock()
        self._connection: _Connection | None = None
        self._closed = False
        self._failures = 0
        self._next_connect_s = 0.0

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    async def open(self) -> None:
        """See :meth:`labctl.wire.link.Link.open`."""
        async with self._lock:
            self._closed = False
            await self._connected(command="")

    async def ask(self, request: bytes, *, command: str = "", check: Check | None = None) -> bytes:
        """See :meth:`labctl.wire.link.Link.ask`."""
        command = command or short_text(request)
        async with self._lock:
            connection = await self._connected(command)
            reply = await self._exchange(connection, request, command)
            right = False
            try:
                if check is not None:
                    check(reply)
                right = True
            finally:
                if not right:
                    self._failed(connection, "an answer was to another question")
            self._failures = 0
            return reply

    async def close(self) -> None:
        """See :meth:`labctl.wire.link.Link.close`."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop("the link was closed")
            await connection.lost.wait()

    async def _connected(self, command: str) -> _Connection:
        self._refuse_if_closed(command)
        if self._connection is not None and self._connection.broken is None:
            return self._connection
        await self._clock.sleep(self._next_connect_s - self._clock.monotonic_s())
        connection = self._connection = await self._connect(command)
        try:
            self._refuse_if_closed(command)
        except LinkError:
            self._failed(connection, "the link was closed")
            raise
        greeting = self._greeting
        if greeting is not None:
            greeted = False
            try:
                await greeting(lambda request: self._exchange(connection, request, "greeting"))
                greeted = True
            finally:
                if not greeted:
                    self._failed(connection, "its greeting failed")
        return connection

    async def _connect(self, command: str) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self._framing), self._host, self._port
                )
        except TimeoutError as error:
            self._count_failure()
            raise self._error(
                f"no connection within {self._connect_timeout_s:g} s, nothing was sent", command
            ) from error
        except OSError as error:
            self._count_failure()
            raise self._error(f"no connection, nothing was sent ({error})", command) from error
        return connection

    async def _exchange(self, connection: _Connection, request: bytes, command: str) -> bytes:
        if connection.broken is not None:
            raise self._error(f"{connection.broken}; nothing was sent", command)
        answered = False
        try:
            async with asyncio.timeout(self._reply_timeout_s):
                reply = await connection.exchange(request + self._framing.request_end)
            answered = True
        except TimeoutError as error:
            raise self._error(
                f"no answer to {command} within {self._reply_timeout_s:g} s; it may have arrived",
                command,
            ) from error
        except _BrokenError as error:
            raise self._error(
                f"no answer to {command}: {error}; it may have arrived", command
            ) from error
        else:
            return reply
        finally:
            if not answered:
                self._failed(connection, "an answer did not come")

    def _failed(self, connection: _Connection, why: str) -> None:
        connection.drop(why)
        if self._connection is connection:
            self._connection = None
            self._count_failure()

    def _refuse_if_closed(self, command: str) -> None:
        if self._closed:
            raise self._error("the link is closed, nothing was sent", command)

    def _count_failure(self) -> None:
        self._failures += 1
        self._next_connect_s = self._clock.monotonic_s() + self._backoff.delay_s(self._failures)

    def _error(self, message: str, command: str) -> LinkError:
        return LinkError(f"{self.address}: {message}", address=self.address, command=command)


class _BrokenError(Exception):
    """The connection ended before the answer did."""


class _Connection(asyncio.Protocol):
    """One TCP connection. ``broken`` says why it can no longer be used."""

    def __init__(self, framing: Framing) -> None:
        self.broken: str | None = None
        self.lost = asyncio.Event()
        self._framing = framing
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._searched = 0
        self._answer: asyncio.Future[bytes] | None = None

    async def exchange(self, framed_request: bytes) -> bytes:
        if self._transport is None or self.broken is not None:
            raise _BrokenError(self.broken or "not connected")
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(framed_request)
            return await self._answer
        finally:
            self._answer = None

    def drop(self, why: str) -> None:
        """End the connection at once, without waiting for anything to be sent."""
        if self.broken is None:
            self.broken = why
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(_BrokenError(self.broken))
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"a TCP connection is expected, not {transport!r}")
        self._transport = transport
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            _keep_alive(raw)

    def data_received(self, data: bytes) -> None:
        if self.broken is not None:
            return
        answer = self._answer
        if answer is None or answer.done():
            if data.strip(self._framing.padding):
                self.drop(f"it sent what nobody asked for: {short_text(data)!r}")
            return
        self._buffer += data
        end = self._framing.reply_end
        found = self._buffer.find(end, max(0, self._searched - len(end) + 1))
        self._searched = len(self._buffer)
        length = self._searched if found < 0 else found
        if length > self._framing.max_reply_bytes:
            self.drop(f"the answer is longer than {self._framing.max_reply_bytes} bytes")
        elif found >= 0:
            rest = bytes(self._buffer[found + len(end) :])
            reply = bytes(self._buffer[:found])
            self._buffer.clear()
            self._searched = 0
            if rest.strip(self._framing.padding):
                self.drop(f"it sent more than one answer: {short_text(rest)!r}")
            else:
                answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        received = f"{len(self._buffer)} bytes of the answer had come"
        self.drop(f"the connection was {'lost' if exc else 'closed'} by the other side, {received}")
        self._transport = None
        self.lost.set()


def _keep_alive(raw: socket.socket) -> None:
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ):
            option = getattr(socket, name, None)
            if option is not None:
                raw.setsockopt(socket.IPPROTO_TCP, option, value)
