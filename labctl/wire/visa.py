"""A link over VISA: sockets, VXI-11, USBTMC, GPIB and serial, whatever the VISA library opens.

VISA calls block, so each session has a thread of its own, and a call that does not come back in
time is left behind with its session. Waiting before a new session goes through the Clock; the
time that an answer may take is real time, also where the laboratory's is virtual.

On a socket, pyvisa-py 0.8 does not see that the other side has gone before the timeout is over,
and it gives bytes that nobody asked for to the next question. Where a session has a socket, this
link looks at it before each question, waits on it for the answer, and sees both at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import pyvisa
from pyvisa import ResourceManager
from pyvisa.constants import StatusCode
from pyvisa.resources import MessageBasedResource

from labctl.clock import Clock
from labctl.errors import LinkError
from labctl.wire.link import Backoff, Check, Greeting, short_text

PURE_PYTHON: Final = "@py"
"""The VISA library that comes as the package pyvisa-py."""

_END: Final = b"\n"
_CHUNK: Final = 65_536
_PEEK: Final = 4096
"""Bytes of a socket looked at at once: as many as pyvisa-py takes from it in one go. Asked for more
it may take more than it was asked for, and keep the rest where nothing shows that it is there."""
_AFTER_TIMEOUT_S: Final = 1.0

Result = TypeVar("Result")


class VisaLink:
    """A :class:`labctl.wire.link.Link` to a VISA ``resource``; requests and answers end with LF.

    Several tasks may ask, one at a time. A timeout, a cancelled caller, an answer that is too long
    or not to the point, or bytes that nobody asked for end the session, so that a late answer
    cannot reach the next question. The next question opens a new one, after a delay that grows
    with each failure in a row; ``greeting`` is said first in each.
    """

    def __init__(
        self,
        resource: str,
        *,
        clock: Clock,
        library: str = PURE_PYTHON,
        reply_timeout_s: float = 5.0,
        connect_timeout_s: float = 5.0,
        max_reply_bytes: int = 16 * 1024 * 1024,
        greeting: Greeting | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._resource = resource
        self._library = library
        self._clock = clock
        self._reply_timeout_s = reply_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._max_reply_bytes = max_reply_bytes
        self._greeting = greeting
        self._backoff = backoff or Backoff()
        self._lock = asyncio.Lock()
        self._session: _Session | None = None
        self._closed = False
        self._failures = 0
        self._next_open_s = 0.0

    @property
    def address(self) -> str:
        return self._resource

    async def open(self) -> None:
        """See :meth:`labctl.wire.link.Link.open`."""
        async with self._lock:
            self._closed = False
            await self._opened(command="")

    async def ask(self, request: bytes, *, command: str = "", check: Check | None = None) -> bytes:
        """See :meth:`labctl.wire.link.Link.ask`."""
        command = command or short_text(request)
        async with self._lock:
            session = await self._opened(command)
            reply = await self._exchange(session, request, command)
            right = False
            try:
                if check is not None:
                    check(reply)
                right = True
            finally:
                if not right:
                    self._failed(session)
            self._failures = 0
            return reply

    async def close(self) -> None:
        """See :meth:`labctl.wire.link.Link.close`."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.leave()

    async def _opened(self, command: str) -> _Session:
        self._refuse_if_closed(command)
        if self._session is not None:
            return self._session
        await self._clock.sleep(self._next_open_s - self._clock.monotonic_s())
        session = self._session = _Session(self._max_reply_bytes)
        ready = False
        try:
            await self._in_time(
                session,
                functools.partial(
                    session.open, self._library, self._resource, self._connect_timeout_s
                ),
                self._connect_timeout_s,
                command,
                "no connection, nothing was sent",
            )
            self._refuse_if_closed(command)
            if self._greeting is not None:
                await self._greeting(lambda request: self._exchange(session, request, "greeting"))
            ready = True
        finally:
            if not ready:
                self._failed(session)
        return session

    async def _exchange(self, session: _Session, request: bytes, command: str) -> bytes:
        answered = False
        try:
            reply = await self._in_time(
                session,
                functools.partial(session.exchange, request, self._reply_timeout_s),
                self._reply_timeout_s,
                command,
                f"no answer to {command}; it may have arrived",
            )
            answered = True
        finally:
            if not answered:
                self._failed(session)
        return reply

    async def _in_time(
        self,
        session: _Session,
        work: Callable[[], Result],
        timeout_s: float,
        command: str,
        failure: str,
    ) -> Result:
        try:
            async with asyncio.timeout(timeout_s + _AFTER_TIMEOUT_S):
                return await session.run(work)
        except TimeoutError as error:
            raise self._error(f"{failure}: nothing came within {timeout_s:g} s", command) from error
        except _BrokenError as error:
            raise self._error(f"{failure}: {error}", command) from error

    def _failed(self, session: _Session) -> None:
        session.abandon()
        if self._session is session:
            self._session = None
            self._failures += 1
            self._next_open_s = self._clock.monotonic_s() + self._backoff.delay_s(self._failures)

    def _refuse_if_closed(self, command: str) -> None:
        if self._closed:
            raise self._error("the link is closed, nothing was sent", command)

    def _error(self, message: str, command: str) -> LinkError:
        return LinkError(f"{self.address}: {message}", address=self.address, command=command)


class _BrokenError(Exception):
    """The session cannot be used, or ended before the answer came."""


class _Session:
    """One VISA session and its thread. All but the last three methods run in that thread."""

    def __init__(self, max_reply_bytes: int) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="visa")
        self._resource: MessageBasedResource | None = None
        self._socket: socket.socket | None = None
        self._left = False

    def open(self, library: str, resource: str, timeout_s: float) -> None:
        try:
            opened = _manager(library).open_resource(
                resource, open_timeout=round(1000 * timeout_s), timeout=round(1000 * timeout_s)
            )
        except Exception as error:
            # pyvisa-py raises plain exceptions, of no class of their own, where it cannot connect.
            raise _BrokenError(f"{error}") from error
        if not isinstance(opened, MessageBasedResource):
            opened.close()
            raise _BrokenError("VISA opened something that takes no messages")
        self._resource = opened
        self._socket = _socket_of(opened)
        if self._socket is None:
            opened.read_termination = _END.decode()
            keep_others_out(opened, timeout_s)
            with contextlib.suppress(pyvisa.Error, OSError):
                opened.clear()
        else:
            refused = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if refused:
                raise _BrokenError(OSError(refused, "").strerror or f"error {refused}")
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def exchange(self, request: bytes, timeout_s: float) -> bytes:
        resource = self._resource
        if resource is None:
            raise _BrokenError("not connected")
        deadline_s = time.monotonic() + timeout_s
        try:
            if self._socket is not None:
                self._refuse_stray(self._socket)
            else:
                resource.timeout = max(1, round(1000 * timeout_s))
            resource.write_raw(request + _END)
            return self._answer(resource, deadline_s)
        except pyvisa.VisaIOError as error:
            if error.error_code == StatusCode.error_timeout:
                raise _BrokenError(f"nothing came within {timeout_s:g} s") from error
            raise _BrokenError(str(error)) from error
        except (pyvisa.Error, OSError, ValueError) as error:
            raise _BrokenError(str(error)) from error

    def _answer(self, resource: MessageBasedResource, deadline_s: float) -> bytes:
        answer = bytearray()
        while True:
            count = _CHUNK
            if self._socket is not None:
                count = self._wait(self._socket, deadline_s, len(answer))
            with resource.ignore_warning(StatusCode.success_max_count_read):
                chunk, status = resource.visalib.read(resource.session, count)
            answer += chunk
            if answer.endswith(_END):
                return bytes(answer[: -len(_END)])
            if len(answer) > self._max_reply_bytes:
                raise _BrokenError(f"the answer is longer than {self._max_reply_bytes} bytes")
            if self._socket is None and status == StatusCode.success:
                return bytes(answer)

    @staticmethod
    def _wait(wire: socket.socket, deadline_s: float, had: int) -> int:
        """How many bytes of the answer can be read without waiting."""
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([wire], [], [], left_s)[0]:
            raise _BrokenError(f"time was over when {had} bytes of the answer had come")
        came = wire.recv(_PEEK, socket.MSG_PEEK)
        if not came:
            raise _BrokenError(f"the other side closed when {had} bytes of the answer had come")
        end = came.find(_END)
        return len(came) if end < 0 else end + 1

    @staticmethod
    def _refuse_stray(wire: socket.socket) -> None:
        if select.select([wire], [], [], 0)[0]:
            stray = wire.recv(_CHUNK, socket.MSG_PEEK)
            raise _BrokenError(
                f"it sent what nobody asked for: {short_text(stray)!r}"
                if stray
                else "the other side had closed, nothing was sent"
            )

    def _close(self) -> None:
        if self._resource is not None:
            with contextlib.suppress(pyvisa.Error, OSError):
                self._resource.close()

    async def run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def abandon(self) -> None:
        """Wake the thread if it waits on a socket; it closes the session when it comes back."""
        if self._left:
            return
        self._left = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    async def leave(self) -> None:
        """:meth:`abandon`, and wait until the thread has come back."""
        self.abandon()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)


def keep_others_out(opened: MessageBasedResource, timeout_s: float) -> None:
    """Take the instrument's own lock, where it and the VISA library know one: VXI-11 does, and then
    no other PC gets through. It ends with the session.

    Raises:
        _BrokenError: somebody else has it.
    """
    try:
        opened.lock_excl(timeout=round(1000 * timeout_s))
    except pyvisa.VisaIOError as error:
        if error.error_code == StatusCode.error_resource_locked:
            raise _BrokenError(
                "another program, on this PC or on another one, holds the instrument's VISA lock"
            ) from error
    except (NotImplementedError, OSError):
        return


@functools.cache
def _manager(library: str) -> ResourceManager:
    """One manager a library, kept for good: a manager that is let go closes what it opened."""
    return ResourceManager(library)


def _socket_of(resource: MessageBasedResource) -> socket.socket | None:
    """The socket of a session of pyvisa-py; None where it has none, or with another library."""
    sessions = getattr(resource.visalib, "sessions", None)
    session = sessions.get(resource.session) if isinstance(sessions, dict) else None
    found = getattr(session, "interface", None)
    return found if isinstance(found, socket.socket) else None
