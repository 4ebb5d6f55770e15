"""A connection to whatever is at a place, for questions that change nothing.

Fulfils :class:`labctl.drivers.probe.Conversation`. Everything blocks, for a short time: it is used
in threads.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import serial

from labctl.drivers.probe import Place, SerialLine, Wire
from labctl.errors import LinkError

LONGEST_ANSWER: Final = 1 << 20
_CHUNK: Final = 65_536
_NAP_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds.

    connect_s: for a connection. answer_s: for an answer, where a probe does not say that it needs
    longer; it gets ``longest_s`` at the most, and ``guess_s`` where nothing tells that it is the
    right one to ask. pause_s: between two questions: a chamber is to be left alone for 0.5 s after
    what it may have taken for a setting, a PalmSens instrument is deaf for 0.1 s after an error.
    """

    connect_s: float = 1.0
    answer_s: float = 0.5
    longest_s: float = 10.0
    guess_s: float = 2.0
    pause_s: float = 0.6

    def guessing(self) -> Patience:
        """The same where nothing tells who should be asked."""
        return replace(self, longest_s=self.guess_s)


class _Wire(Protocol):
    """Bytes there and back."""

    def write(self, data: bytes) -> None: ...

    def read(self, timeout_s: float) -> bytes:
        """Some of what came; nothing if nothing did in that time."""
        ...

    def close(self) -> None: ...


class Talk:
    """One connection. ``heard`` is everything that came on any connection to the place, and
    ``known`` the answers to what was asked there."""

    def __init__(
        self, wire: _Wire, place: Place, patience: Patience, known: dict[bytes, bytes]
    ) -> None:
        self.heard = b""
        self._wire = wire
        self._place = place
        self._patience = patience
        self._known = known
        self._asked = False

    def ask(self, question: bytes, *, until: bytes = b"\n", patience_s: float = 0.0) -> bytes:
        """See :class:`labctl.drivers.probe.Conversation`."""
        if question not in self._known:
            try:
                self._known[question] = self._exchange(question, until, patience_s)
            except (OSError, serial.SerialException) as error:
                raise LinkError(
                    f"{self._place}: the connection was lost ({error})", address=str(self._place)
                ) from error
        return self._known[question]

    def _exchange(self, question: bytes, until: bytes, patience_s: float) -> bytes:
        if self._asked:
            time.sleep(self._patience.pause_s)
        stray = self._wire.read(0.0)
        self._asked = True
        self._wire.write(question)
        patience = self._patience
        over_s = time.monotonic() + max(patience.answer_s, min(patience_s, patience.longest_s))
        answer = b""
        while until not in answer and len(answer) < LONGEST_ANSWER:
            left_s = over_s - time.monotonic()
            if left_s <= 0:
                break
            answer += self._wire.read(left_s)
        self.heard += stray + answer
        return answer


@contextmanager
def talk_at(
    place: Place,
    *,
    line: SerialLine | None = None,
    patience: Patience | None = None,
    known: dict[bytes, bytes] | None = None,
) -> Iterator[Talk]:
    """A connection to a place; ``line`` is how a serial port is set.

    Raises:
        LinkError: there is none.
    """
    patience = patience or Patience()
    wire = _wire(place, line, patience.connect_s)
    try:
        yield Talk(wire, place, patience, {} if known is None else known)
    finally:
        with contextlib.suppress(Exception):
            wire.close()


def _wire(place: Place, line: SerialLine | None, connect_s: float) -> _Wire:
    try:
        if place.wire is Wire.VISA:
            return _Visa(place.address, connect_s)
        if place.wire is Wire.TCP:
            return _Tcp(place.address, place.port, connect_s)
        if "://" in place.address:
            url = urlsplit(place.address)
            if url.scheme != "socket" or not url.hostname or not url.port:
                raise LinkError(
                    f"{place}: is no port that can be asked: write socket://HOST:PORT",
                    address=str(place),
                )
            return _Tcp(url.hostname, url.port, connect_s)
        return _Serial(place.address, line or SerialLine(115_200))
    except (OSError, ValueError, serial.SerialException) as error:
        raise LinkError(f"{place}: {_why(error)}", address=str(place)) from error


class _Tcp:
    def __init__(self, host: str, port: int, connect_s: float) -> None:
        self._socket = socket.create_connection((host, port), timeout=connect_s)

    def write(self, data: bytes) -> None:
        self._socket.settimeout(1.0)
        self._socket.sendall(data)

    def read(self, timeout_s: float) -> bytes:
        self._socket.settimeout(max(timeout_s, 1e-3))
        try:
            data = self._socket.recv(_CHUNK)
        except TimeoutError:
            return b""
        if not data:
            raise ConnectionError("the other side closed it")
        return data

    def close(self) -> None:
        self._socket.close()


class _Serial:
    def __init__(self, port: str, line: SerialLine) -> None:
        if not stat.S_ISCHR(Path(port).stat().st_mode):
            raise OSError(errno.ENOTTY, "")
        self._port = serial.Serial(
            port,
            baudrate=line.baud,
            xonxoff=line.xonxoff,
            timeout=0,
            write_timeout=1.0,
            exclusive=True,
        )

    def write(self, data: bytes) -> None:
        self._port.write(data)

    def read(self, timeout_s: float) -> bytes:
        over_s = time.monotonic() + timeout_s
        while True:
            data = bytes(self._port.read(_CHUNK))
            if data or time.monotonic() >= over_s:
                return data
            time.sleep(_NAP_S)

    def close(self) -> None:
        self._port.close()


class _Visa:
    """Whole messages: a question is asked only where the one before was answered."""

    def __init__(self, resource: str, connect_s: float) -> None:
        import pyvisa
        from pyvisa.resources import MessageBasedResource

        timeout_ms = round(1000 * connect_s)
        try:
            opened = pyvisa.ResourceManager("@py").open_resource(
                resource, open_timeout=timeout_ms, timeout=timeout_ms
            )
        except Exception as error:
            # pyvisa-py raises plain exceptions, of no class of their own, where it cannot connect.
            raise OSError(str(error)) from error
        if not isinstance(opened, MessageBasedResource):
            opened.close()
            raise OSError("it takes no messages")
        self._resource = opened
        self._silent = False

    def write(self, data: bytes) -> None:
        if self._silent:
            raise OSError("it did not answer the question before")
        self._carry_out(lambda: self._resource.write_raw(data))

    def read(self, timeout_s: float) -> bytes:
        if timeout_s <= 0:
            return b""
        from pyvisa import VisaIOError
        from pyvisa.constants import StatusCode

        self._resource.timeout = max(1, round(1000 * timeout_s))
        try:
            return bytes(self._resource.read_raw()).rstrip(b"\r\n") + b"\n"
        except VisaIOError as error:
            if error.error_code == StatusCode.error_timeout:
                self._silent = True
                return b""
            raise OSError(str(error)) from error

    def close(self) -> None:
        self._resource.close()

    @staticmethod
    def _carry_out(work: Callable[[], object]) -> None:
        from pyvisa import Error

        try:
            work()
        except Error as error:
            raise OSError(str(error)) from error


_REASONS: Final[Mapping[int, str]] = {
    errno.EACCES: "this user may not open it: join the group that owns it (dialout), or use sudo",
    errno.EPERM: "this user may not open it: join the group that owns it (dialout), or use sudo",
    errno.EBUSY: "another program has it open",
    errno.EAGAIN: "another program has it open",
    errno.ENOENT: "there is no such port",
    errno.ECONNREFUSED: "nothing listens there",
    errno.EHOSTUNREACH: "the host cannot be reached",
    errno.EIO: "nothing is behind it",
    errno.ENOTTY: "it is no serial port",
}


def _why(error: Exception) -> str:
    """What a person can do something about."""
    if isinstance(error, LinkError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "nothing answers there"
    number = getattr(error, "errno", None)
    text = str(error)
    if "exclusively lock" in text:
        number = errno.EBUSY
    elif said := re.search(r"configure port: \((\d+),", text):
        number = int(said[1])
    known = _REASONS.get(number) if isinstance(number, int) else None
    return known or " ".join(text.split())
