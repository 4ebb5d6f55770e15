"""SCPI over any link: settings that the error queue vouches for, queries, and their replies.

Standard: SCPI-1999, vol. 1; numbers are what it calls NR1, NR2 and NR3. An instrument does not
answer a setting, so each is followed, on a line of its own, by a question for the error queue: a
line that the instrument cannot parse may take the rest of itself down, but not the next line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from labctl.errors import InstrumentError
from labctl.wire.link import Link, short_text

ERROR_QUERY: Final = ":SYST:ERR?"

LARGEST_NUMBER: Final = 9.8e37
"""9.9E37 stands for infinity and 9.91E37 for not a number (SCPI-1999 vol. 1, 7.2.1.4 and .5)."""

_MOST_ERRORS: Final = 50
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[Ee][+-]?\d{1,3})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_EVENT = re.compile(r'([+-]?\d{1,9})\s*,\s*"(.*)"', re.DOTALL | re.ASCII)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of an error queue; ``code`` 0 is no error."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code}, {self.text}"


@dataclass(frozen=True, slots=True)
class Identification:
    """The four parts of an answer to ``*IDN?``."""

    manufacturer: str
    model: str
    serial: str
    firmware: str


class Scpi:
    """An instrument that speaks SCPI on a link; ``name`` is what errors call it."""

    def __init__(self, link: Link, *, name: str) -> None:
        self._link = link
        self._name = name

    async def tell(self, command: str) -> None:
        """Carry out a setting, or several, and see that the error queue stays empty.

        Raises:
            LinkError: the wire failed; the setting may have arrived.
            InstrumentError: the instrument refused; carries the command and what it said.
        """
        event = await self._ask(f"{command}\n{ERROR_QUERY}", command, parse_event)
        if not event.code:
            return
        rest = await self.drain()
        raise InstrumentError(
            f"{self._name} refused {command}: " + "; ".join(str(said) for said in (event, *rest)),
            instrument=self._name,
            command=command,
            reply=str(event),
        )

    async def ask(self, query: str, parse: Callable[[str], Value]) -> Value:
        """The answer to a query, read by ``parse``, which may raise InstrumentError.

        Raises:
            LinkError: no answer, as comes also of a query that the instrument does not know.
            InstrumentError: the answer means nothing; carries the query and the answer.
        """
        return await self._ask(query, query, parse)

    async def drain(self) -> tuple[Event, ...]:
        """Every entry of the error queue, taken out of it."""
        found: list[Event] = []
        while len(found) < _MOST_ERRORS:
            event = await self._ask(ERROR_QUERY, ERROR_QUERY, parse_event)
            if not event.code:
                break
            found.append(event)
        return tuple(found)

    async def _ask(self, request: str, command: str, parse: Callable[[str], Value]) -> Value:
        values: list[Value] = []

        def check(reply: bytes) -> None:
            try:
                values.append(parse(text_of(reply)))
            except InstrumentError as error:
                raise InstrumentError(
                    f"{self._name} answered {command} with {short_text(reply)!r}: {error}",
                    instrument=self._name,
                    command=command,
                    reply=short_text(reply, 1000),
                ) from error

        await self._link.ask(request.encode("ascii"), command=command, check=check)
        return values[0]


def text_of(reply: bytes) -> str:
    """A reply as text, without blanks at its ends.

    Raises:
        InstrumentError: it holds bytes that are no printable ASCII.
    """
    text = reply.decode("ascii", "replace").strip()
    if "\ufffd" in text or not all(sign.isprintable() or sign == "\t" for sign in text):
        raise InstrumentError("it is not text")
    return text


def parse_number(text: str) -> float:
    """A number that stands for itself; see :data:`LARGEST_NUMBER`.

    Raises:
        InstrumentError: it is no number, or one that stands for an overflow or for none.
    """
    value = parse_any_number(text)
    if is_sentinel(value):
        raise InstrumentError("that number stands for an overflow, or for no number")
    return value


def parse_any_number(text: str) -> float:
    """A number, also one that stands for an overflow or for none."""
    if not _NUMBER.fullmatch(text.strip()):
        raise InstrumentError(f"{text[:40]!r} is not a number")
    return float(text)


def is_sentinel(value: float) -> bool:
    """Whether a number stands for an overflow or for none."""
    return not abs(value) < LARGEST_NUMBER


def parse_integer(text: str) -> int:
    if not _INTEGER.fullmatch(text.strip()):
        raise InstrumentError(f"{text[:40]!r} is not an integer")
    return int(text)


def parse_boolean(text: str) -> bool:
    """``1`` or ``0``."""
    if text.strip() not in {"0", "1"}:
        raise InstrumentError(f"{text[:40]!r} is neither 0 nor 1")
    return text.strip() == "1"


def parse_word(text: str) -> str:
    """A name or a quoted string, without its quotes, in capitals."""
    word = text.strip().strip("\"'").upper()
    if not word or not all(sign.isalnum() or sign in "_:" for sign in word):
        raise InstrumentError(f"{text[:40]!r} is not a name")
    return word


def parse_event(text: str) -> Event:
    """An entry of the error queue, such as ``-113,"Undefined header"``."""
    found = _EVENT.fullmatch(text.strip())
    if found is None:
        raise InstrumentError(f"{text[:40]!r} is not an entry of an error queue")
    return Event(int(found[1]), found[2])


def parse_identification(text: str) -> Identification:
    """An answer to ``*IDN?``: manufacturer, model, serial number, firmware."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 4 or not all(parts[:3]):
        raise InstrumentError(f"{text[:80]!r} names no manufacturer, model and serial number")
    return Identification(parts[0], parts[1], parts[2], ",".join(parts[3:]))


def write_number(value: float) -> str:
    """A number as a command takes it; as many digits as it needs to be read back the same."""
    return f"{value + 0.0!r}" if value else "0"
