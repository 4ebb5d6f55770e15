"""What a link is, to a driver: one request, one answer, or a LinkError.

A link never sends a request twice, and never takes the answer to one request for the answer to
another: where that could happen it drops the connection instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Exchange: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""Sends a request and returns its answer."""

Check: TypeAlias = Callable[[bytes], object]
"""Raises if the bytes cannot be the answer to what was asked; what it returns is not looked at."""

Greeting: TypeAlias = Callable[[Exchange], Awaitable[None]]
"""What is said first on every new connection, such as a login."""


class Link(Protocol):
    """A way to one instrument, for one conversation at a time."""

    @property
    def address(self) -> str: ...

    async def open(self) -> None:
        """Connect now, if not connected.

        Raises:
            LinkError: it could not be connected.
        """
        ...

    async def ask(self, request: bytes, *, command: str = "", check: Check | None = None) -> bytes:
        """The answer to ``request``, both without their terminators; connects where needed.

        ``command`` names the request in errors. Where ``check`` raises, request and answer no
        longer go together: the connection is dropped, and the exception goes on.

        Raises:
            LinkError: there is no answer; the request may have arrived unless the message says
                that it was not sent.
        """
        ...

    async def close(self) -> None:
        """Disconnect; whoever waits for an answer gets a LinkError. :meth:`open` begins again."""
        ...


@dataclass(frozen=True, slots=True)
class Framing:
    """Where a request and an answer end.

    ``padding`` are bytes that may follow an answer without meaning anything.
    """

    request_end: bytes
    reply_end: bytes
    max_reply_bytes: int = 16 * 1024 * 1024
    padding: bytes = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before connecting again, after one failure, two, three…"""

    first_s: float = 0.2
    factor: float = 2.0
    longest_s: float = 5.0

    def delay_s(self, failures: int) -> float:
        if failures < 1:
            return 0.0
        return min(self.longest_s, self.first_s * self.factor ** min(failures - 1, 64))


def short_text(data: bytes, longest: int = 80) -> str:
    """``data`` as a person reads it in an error, cut to ``longest`` characters."""
    text = data[: 4 * longest].decode("utf-8", "backslashreplace").strip()
    return text if len(text) <= longest else text[: longest - 1] + "…"
