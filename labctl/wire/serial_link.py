"""Lines over a serial port, or over ``socket://host:port`` where a network carries them.

What may block (opening, closing, setting the line up) is done in a thread; bytes are read and
written without blocking when the port has room for them. Waiting before a port is opened again
goes through the Clock. The time that an answer may take does not: it is the patience of a real
wire, in real seconds, also where the laboratory's time is virtual.

Flow: at most :attr:`SerialLink.max_waiting` lines wait here to be fetched; what comes beyond stays
in the operating system, whose flow control then holds the instrument back.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import termios
from collections import deque
from typing import Any, Final, Protocol

import serial

from labctl.clock import Clock
from labctl.errors import LinkError
from labctl.wire.link import Backoff, Check, Greeting, short_text

XON_XOFF: Final = b"\x11\x13"

PSEUDO_TERMINALS: Final = range(136, 144)
"""Major device numbers of pseudo-terminals (Linux, Documentation/admin-guide/devices.txt)."""

_CHUNK: Final = 4096
_CONNECT_S: Final = 10.0
_CLOSE_S: Final = 5.0


class SerialLink:
    """A :class:`labctl.wire.link.Link` of lines that end with LF; CR, XON and XOFF are dropped.

    An instrument may also speak without being asked: :meth:`send` and :meth:`next_line` are for
    those. One task at a time may wait for a line. Lines that nobody fetched before a question are
    thrown away, so that a late answer cannot be taken for the answer to the next.

    ``exclusive`` keeps other programs on this PC out, but for those of the superuser that do not
    ask the operating system for the same.
    """

    def __init__(
        self,
        port: str,
        *,
        clock: Clock,
        baud: int = 115_200,
        rtscts: bool = False,
        xonxoff: bool = False,
        exclusive: bool = True,
        reply_timeout_s: float = 5.0,
        write_timeout_s: float = 5.0,
        max_line_bytes: int = 4096,
        max_waiting: int = 64,
        greeting: Greeting | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.max_waiting = max_waiting
        self._port = port
        self._clock = clock
        self._settings: dict[str, Any] = {
            "baudrate": baud,
            "rtscts": rtscts,
            "xonxoff": xonxoff,
            "timeout": 0,
        }
        self._exclusive = exclusive and "://" not in port
        if "://" not in port:
            self._settings["exclusive"] = exclusive
        self._reply_timeout_s = reply_timeout_s
        self._write_timeout_s = write_timeout_s
        self._max_line_bytes = max_line_bytes
        self._greeting = greeting
        self._backoff = backoff or Backoff()
        self._asking = asyncio.Lock()
        self._wire: _Wire | None = None
        self._closed = False
        self._failures = 0
        self._next_open_s = 0.0

    @property
    def address(self) -> str:
        return self._port

    @property
    def connected(self) -> bool:
        return self._wire is not None and not self._wire.broken

    async def open(self) -> None:
        """See :meth:`labctl.wire.link.Link.open`; after a failure it waits first."""
        async with self._asking:
            self._closed = False
            await self._opened("")

    async def ask(self, request: bytes, *, command: str = "", check: Check | None = None) -> bytes:
        """See :meth:`labctl.wire.link.Link.ask`: one line for one line."""
        command = command or short_text(request)
        async with self._asking:
            wire = await self._opened(command)
            reply = await self._exchange(wire, request, command)
            right = False
            try:
                if check is not None:
                    check(reply)
                right = True
            finally:
                if not right:
                    await self._failed(wire)
            return reply

    async def send(self, data: bytes, *, command: str = "") -> None:
        """Write all of ``data``; never opens the port.

        Raises:
            LinkError: not connected, or the other side takes no more.
        """
        command = command or short_text(data)
        wire = self._there(command)
        await self._write(wire, data, command)

    async def next_line(self, timeout_s: float, *, command: str = "") -> bytes | None:
        """The next line without its end; None if none came in that time. Never opens the port.

        What came before the connection was lost is still given.

        Raises:
            LinkError: not connected, or lost.
        """
        wire = self._wire
        if wire is None:
            raise self._error("is not connected", command)
        try:
            return await wire.line(timeout_s)
        except _BrokenError as error:
            await self._failed(wire)
            raise self._error(str(error), command) from error

    def waiting_lines(self) -> tuple[bytes, ...]:
        """Every line that has come and was not fetched; fetches them."""
        return () if self._wire is None else self._wire.take_all()

    def discard(self) -> None:
        """Throw away everything that has come, to the last byte."""
        if self._wire is not None:
            self._wire.discard()

    async def drop(self) -> None:
        """Let the connection go as after a failure: the next one waits before it opens."""
        if self._wire is not None:
            await self._failed(self._wire)

    async def close(self) -> None:
        """See :meth:`labctl.wire.link.Link.close`."""
        self._closed = True
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.end("the link was closed")

    def went_well(self) -> None:
        """An answer made sense: the next failure counts as the first."""
        self._failures = 0

    async def _opened(self, command: str) -> _Wire:
        self._refuse_if_closed(command)
        if self._wire is not None and not self._wire.broken:
            return self._wire
        if self._wire is not None:
            await self._failed(self._wire)
        await self._clock.sleep(self._next_open_s - self._clock.monotonic_s())
        self._refuse_if_closed(command)
        try:
            async with asyncio.timeout(_CONNECT_S):
                port = await self._open_in_thread()
        except TimeoutError as error:
            self._count_failure()
            raise self._error("cannot be opened in time, nothing was sent", command) from error
        except (serial.SerialException, OSError, ValueError) as error:
            self._count_failure()
            raise self._error(f"cannot be opened, nothing was sent ({error})", command) from error
        wire = self._wire = _Wire(port, self._max_line_bytes, self.max_waiting)
        greeting = self._greeting
        if greeting is not None:
            greeted = False
            try:
                await greeting(lambda request: self._exchange(wire, request, "greeting"))
                greeted = True
            finally:
                if not greeted:
                    await self._failed(wire)
        return wire

    async def _open_in_thread(self) -> _Port:
        """The open port. Where nobody waits for it any more, it is closed as soon as it is open."""
        opening = asyncio.get_running_loop().run_in_executor(None, self._open_port)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise

    def _open_port(self) -> _Port:
        port = serial.serial_for_url(self._port, **self._settings)
        if self._exclusive:
            keep_others_out(port.fileno())
        return port

    async def _exchange(self, wire: _Wire, request: bytes, command: str) -> bytes:
        answered = False
        try:
            wire.discard()
            await self._write(wire, request + b"\n", command)
            reply = await wire.line(self._reply_timeout_s)
            if reply is None:
                raise self._error(
                    f"no answer to {command} within {self._reply_timeout_s:g} s; it may have "
                    "arrived",
                    command,
                )
            answered = True
        except _BrokenError as error:
            raise self._error(
                f"no answer to {command}: {error}; it may have arrived", command
            ) from error
        finally:
            if not answered:
                await self._failed(wire)
        self.went_well()
        return reply

    async def _write(self, wire: _Wire, data: bytes, command: str) -> None:
        written = False
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await wire.write(data)
            written = True
        except TimeoutError as error:
            raise self._error(
                f"it does not take {command} within {self._write_timeout_s:g} s; some of it may "
                "have arrived",
                command,
            ) from error
        except _BrokenError as error:
            raise self._error(f"{error}; {command} may have arrived", command) from error
        finally:
            if not written:
                await self._failed(wire)

    def _there(self, command: str) -> _Wire:
        self._refuse_if_closed(command)
        if self._wire is None or self._wire.broken:
            raise self._error("is not connected, nothing was sent", command)
        return self._wire

    async def _failed(self, wire: _Wire) -> None:
        if self._wire is wire:
            self._wire = None
            self._count_failure()
        await wire.end("the connection was given up")

    def _count_failure(self) -> None:
        self._failures += 1
        self._next_open_s = self._clock.monotonic_s() + self._backoff.delay_s(self._failures)

    def _refuse_if_closed(self, command: str) -> None:
        if self._closed:
            raise self._error("the link is closed, nothing was sent", command)

    def _error(self, message: str, command: str) -> LinkError:
        return LinkError(f"{self.address}: {message}", address=self.address, command=command)


def keep_others_out(port: int) -> None:
    """Let no other program open a serial port; the operating system lets them when it is closed.

    Not so a pseudo-terminal, which would stay shut after a crash for as long as its other side, a
    simulator, has it open.
    """
    with contextlib.suppress(OSError):
        if os.major(os.fstat(port).st_rdev) not in PSEUDO_TERMINALS:
            fcntl.ioctl(port, termios.TIOCEXCL)


class _Port(Protocol):
    """What is used of a port of pyserial once it is open."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class _BrokenError(Exception):
    """The port is gone."""


class _Wire:
    """One opened port. ``broken`` says why it can no longer be used, '' while it can."""

    def __init__(self, port: _Port, max_line_bytes: int, max_waiting: int) -> None:
        self.broken = ""
        self._port = port
        self._fd: int = port.fileno()
        self._max_line_bytes = max_line_bytes
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._lines: deque[bytes] = deque()
        self._partial = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._reading = False
        self._ended = False
        self._listen()

    async def line(self, timeout_s: float) -> bytes | None:
        if not self._lines and not self.broken and timeout_s > 0:
            self._waiter = self._loop.create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._waiter
            except TimeoutError:
                pass
            finally:
                self._waiter = None
        if self._lines:
            line = self._lines.popleft()
            self._listen()
            return line
        if self.broken:
            raise _BrokenError(self.broken)
        return None

    def take_all(self) -> tuple[bytes, ...]:
        lines = tuple(self._lines)
        self._lines.clear()
        self._listen()
        return lines

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            while not self.broken and os.read(self._fd, _CHUNK):
                pass
        self._partial.clear()
        self.take_all()

    async def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            if self.broken:
                raise _BrokenError(self.broken)
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                await self._room()
            except OSError as error:
                self._break(f"it cannot be written to ({error})")

    async def end(self, why: str) -> None:
        """Close the port; whoever waits on it is told."""
        self._break(why)
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(TimeoutError, OSError, serial.SerialException):
            async with asyncio.timeout(_CLOSE_S):
                await self._loop.run_in_executor(None, self._port.close)

    async def _room(self) -> None:
        self._writer = self._loop.create_future()
        self._loop.add_writer(self._fd, self._wake, self._writer)
        try:
            await self._writer
        finally:
            if not self.broken:
                self._loop.remove_writer(self._fd)
            self._writer = None

    def _listen(self) -> None:
        """Read on as long as there is room for more lines."""
        wanted = not self.broken and len(self._lines) < self._max_waiting
        if wanted and not self._reading:
            self._loop.add_reader(self._fd, self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._fd)
        self._reading = wanted

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(f"it was lost ({error.strerror or error})")
            return
        if not data:
            self._break("it was lost (the other side is gone)")
            return
        *whole, rest = (self._partial + data.translate(None, XON_XOFF + b"\r")).split(b"\n")
        self._lines.extend(bytes(line) for line in whole)
        self._partial = bytearray(rest)
        if len(self._partial) > self._max_line_bytes:
            self._break(f"a line is longer than {self._max_line_bytes} bytes")
            return
        self._listen()
        if whole and self._waiter is not None:
            self._wake(self._waiter)

    def _break(self, why: str) -> None:
        if self.broken:
            return
        self.broken = why
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._reading = False
        for waiting in (self._waiter, self._writer):
            if waiting is not None:
                self._wake(waiting)

    @staticmethod
    def _wake(waiting: asyncio.Future[None]) -> None:
        if not waiting.done():
            waiting.set_result(None)


def _close_opened(opening: asyncio.Future[_Port]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.get_loop().run_in_executor(None, opening.result().close)
