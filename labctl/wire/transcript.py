"""A recorded conversation that plays the part of a link, for tests of drivers."""

from __future__ import annotations

import asyncio
import textwrap
from dataclasses import dataclass

from labctl.errors import LinkError
from labctl.wire.link import Check, Greeting, short_text

_KINDS = {"> ": "sent", "< ": "received", "! ": "fails"}


class TranscriptError(AssertionError):
    """What was asked is not what the transcript says comes next."""


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: str
    content: bytes
    line: int


class Transcript:
    """A :class:`labctl.wire.link.Link` that answers from ``text`` and accepts nothing else.

    Lines that begin with ``> `` are sent, with ``< `` received, with ``! `` a failure of the wire
    in place of an answer, and with ``# `` a remark. Any other line continues the one before, joined
    by ``newline``. Blank lines and the indentation of the whole are left out.
    """

    def __init__(self, text: str, *, newline: str = "\n", greeting: Greeting | None = None) -> None:
        self._entries = _entries_of(text, newline)
        self._next = 0
        self._greeting = greeting
        self._greeted = False

    @property
    def address(self) -> str:
        return "transcript"

    def finished(self) -> bool:
        """Whether all of it was said."""
        return self._next == len(self._entries)

    async def open(self) -> None:
        await self._greet()

    async def ask(self, request: bytes, *, command: str = "", check: Check | None = None) -> bytes:
        """The recorded answer; greets again after one that ``check`` refused.

        Raises:
            TranscriptError: the transcript has something else here.
            LinkError: the transcript has ``! `` here.
        """
        await self._greet()
        answer = await self._answer(request, command)
        if check is not None:
            was_greeted, self._greeted = self._greeted, False
            check(answer)
            self._greeted = was_greeted
        return answer

    async def close(self) -> None:
        self._greeted = False

    async def _greet(self) -> None:
        if self._greeting is not None and not self._greeted:
            self._greeted = True
            await self._greeting(lambda request: self._answer(request, "greeting"))

    async def _answer(self, request: bytes, command: str) -> bytes:
        await asyncio.sleep(0)
        expected = self._take("sent", f"nothing more is to be sent, but {request!r} was")
        if request != expected.content:
            raise TranscriptError(
                f"line {expected.line} of the transcript:\n"
                f"  expected {expected.content!r}\n"
                f"  sent     {request!r}"
            )
        answer = self._take(
            ("received", "fails"), f"line {expected.line} of the transcript has no answer"
        )
        if answer.kind == "fails":
            self._greeted = False
            raise LinkError(
                answer.content.decode(),
                address=self.address,
                command=command or short_text(request),
            )
        return answer.content

    def _take(self, kinds: str | tuple[str, ...], complaint: str) -> _Entry:
        if self.finished():
            raise TranscriptError(f"the transcript is at its end: {complaint}")
        entry = self._entries[self._next]
        if entry.kind not in kinds:
            raise TranscriptError(f"line {entry.line} of the transcript is {entry}: {complaint}")
        self._next += 1
        return entry


def _entries_of(text: str, newline: str) -> tuple[_Entry, ...]:
    entries: list[tuple[str, int, list[str]]] = []
    for number, line in enumerate(textwrap.dedent(text).splitlines(), start=1):
        if not line.strip() or line.startswith("# "):
            continue
        kind = _KINDS.get(line[:2])
        if kind is not None:
            entries.append((kind, number, [line[2:]]))
        elif not entries:
            raise TranscriptError(f"line {number} of the transcript begins nothing: {line!r}")
        else:
            entries[-1][2].append(line)
    return tuple(
        _Entry(kind, newline.join(lines).encode(), number) for kind, number, lines in entries
    )
