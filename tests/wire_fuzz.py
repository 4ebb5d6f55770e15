"""A peer on a socket that stands between a driver and its instrument and makes mischief.

It passes everything on, answer by answer, but for those that a plan names: those it damages, holds
back, tells twice or mixes up. What every answer truly was it remembers. Plans are drawn by
hypothesis; ``LABCTL_FUZZ=20`` in the environment draws 20 times as many.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from labctl.clock import RealClock
from labctl.errors import InstrumentError, LabctlError, LinkError, PlanError
from labctl.simulators.faults import Fault

LONGEST_CALL_S: Final = 20.0
"""Far beyond every timeout of the drivers under test: a call that takes so long hangs."""

TOKENS: Final = (
    b"nan", b"NAN", b"inf", b"-", b"--", b"", b"9.9E37", b"9.91E+37", b"-9.9e37", b"1e999",
    b"9" * 30, b"1E6", b"-1", b"0", b"1.5", b"true", b"false", b"\xff\xfe", b"\0", b"<", b'"', b"&",
    b";", b",", b"     nan", b"FFFFFFFE", b"!0032", b"e!4001", b"Z", b"*", b"P", b"0x1F",
)  # fmt: skip

_DIGIT: Final = re.compile(rb"[0-9]")
_NUMBER: Final = re.compile(rb"-?[0-9](?:[0-9.eE+-]*[0-9])?")

Value = TypeVar("Value")


class Mischief(enum.Enum):
    """What happens to one answer."""

    SWALLOWED = "it never comes"
    DROPPED = "the connection is closed in its place"
    CUT = "half of it comes, then the connection is closed"
    LATE = "it comes when nobody waits for it any more"
    DOUBLED = "it comes twice"
    SWAPPED = "an older answer comes in its place"
    FLIPPED = "a bit of it is another"
    DIGIT = "a digit of it is another"
    NUMBER = "another number stands in the place of one"
    PUT = "something else stands in a part of it"
    LOST = "some bytes of it are missing"
    GARBAGE = "bytes without sense come in its place"
    BEFORE = "bytes without sense come before it"
    AFTER = "bytes without sense come after it"


TRUE_WORDS: Final = (
    Mischief.SWALLOWED,
    Mischief.DROPPED,
    Mischief.CUT,
    Mischief.LATE,
    Mischief.DOUBLED,
    Mischief.SWAPPED,
)
"""After these, every whole answer that comes is one that the instrument once gave."""

DAMAGE: Final = tuple(each for each in Mischief if each not in TRUE_WORDS)


@dataclass(frozen=True, slots=True)
class Deed:
    """A mischief; ``place`` is where in the answer, from 0 to 1."""

    mischief: Mischief
    place: float = 0.5
    data: bytes = b""
    back: int = 1

    def __repr__(self) -> str:
        return f"Deed({self.mischief.name}, {self.place!r}, {self.data!r}, {self.back})"

    def damaged(self, answer: bytes) -> bytes:
        at = min(len(answer), int(self.place * len(answer)))
        match self.mischief:
            case Mischief.FLIPPED if answer:
                at = min(at, len(answer) - 1)
                flipped = answer[at] ^ (1 << self.back % 8)
                return answer[:at] + bytes([flipped]) + answer[at + 1 :]
            case Mischief.DIGIT if digits := list(_DIGIT.finditer(answer)):
                found = digits[int(self.place * (len(digits) - 1))]
                return answer[: found.start()] + b"%d" % self.back + answer[found.end() :]
            case Mischief.NUMBER if numbers := list(_NUMBER.finditer(answer)):
                found = numbers[int(self.place * (len(numbers) - 1))]
                return answer[: found.start()] + self.data + answer[found.end() :]
            case Mischief.PUT:
                end = at + self.back
                return answer[:at] + self.data + answer[end:]
            case Mischief.LOST:
                return answer[:at] + answer[at + self.back :]
            case Mischief.GARBAGE:
                return self.data
            case _:
                return answer


def deeds(*kinds: Mischief) -> st.SearchStrategy[Deed]:
    """Of these kinds; where damage is among them, mostly to numbers."""
    often = (Mischief.DIGIT, Mischief.DIGIT, Mischief.NUMBER)
    drawn = kinds if set(kinds) <= set(TRUE_WORDS) else (*kinds, *often)
    return st.builds(
        Deed,
        mischief=st.sampled_from(drawn),
        place=st.floats(0, 1),
        data=st.sampled_from(TOKENS) | st.binary(max_size=12),
        back=st.integers(1, 8),
    )


def plans(*kinds: Mischief, answers: int = 60, most: int = 3) -> st.SearchStrategy[dict[int, Deed]]:
    """To which answer of a conversation what happens."""
    return st.dictionaries(st.integers(0, answers), deeds(*kinds), min_size=1, max_size=most)


def babble(answers: int = 60) -> st.SearchStrategy[dict[int, Deed]]:
    """From some answer on nothing but bytes without sense, of any kind."""
    words = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=40), min_size=1, max_size=6)
    return st.builds(
        lambda first, said: {
            number: Deed(Mischief.GARBAGE, data=said[number % len(said)])
            for number in range(first, first + 500)
        },
        st.integers(0, answers),
        words,
    )


def fuzz(examples: int) -> settings:
    """So many examples, or as many times more as the environment says."""
    times = max(1, int(os.environ.get("LABCTL_FUZZ", "1")))
    return settings(
        max_examples=examples * times,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


class HastyClock(RealClock):
    """Waits as long as an instrument may need, and no longer before it connects again."""

    async def sleep(self, duration_s: float) -> None:
        await super().sleep(min(duration_s, 0.16))


class Meddler:
    """Listens in front of ``port``; ``end`` is what ends an answer.

    ``plan``: what happens to which answer, counted from :meth:`begin`. ``told``: what the
    instrument truly answered since then. A late answer is told right before the one after it, on
    the connection that it belongs to, or, where the wire outlives its connections as a serial line
    does (``one_wire``), on any.
    """

    def __init__(self, port: int, end: bytes, *, one_wire: bool = False) -> None:
        self.port = 0
        self.plan: Mapping[int, Deed] = {}
        self.told: list[bytes] = []
        self._upstream = port
        self._end = end
        self._one_wire = one_wire
        self._late: dict[object, bytes] = {}
        self._talks: set[asyncio.Task[None]] = set()

    def begin(self, plan: Mapping[int, Deed]) -> None:
        self.plan, self.told, self._late = plan, [], {}

    def calm(self) -> None:
        """No more mischief."""
        self.plan, self._late = {}, {}

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Meddler]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._talks:
                task.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)
            await server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        above: asyncio.StreamWriter | None = None
        try:
            from_above, above = await asyncio.open_connection("127.0.0.1", self._upstream)
            pumps = [
                asyncio.create_task(self._ask(reader, above)),
                asyncio.create_task(self._answer(from_above, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for each in (above, writer):
                if each is not None:
                    each.transport.abort()
                    with contextlib.suppress(OSError):
                        await each.wait_closed()

    @staticmethod
    async def _ask(reader: asyncio.StreamReader, above: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                above.write(data)
                await above.drain()

    async def _answer(self, above: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = b""
        with contextlib.suppress(OSError):
            while data := await above.read(65_536):
                *answers, left = (left + data).split(self._end)
                for answer in answers:
                    if not await self._pass_on(answer, writer):
                        return
                await writer.drain()

    async def _pass_on(self, answer: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        number = len(self.told)
        self.told.append(answer)
        deed = self.plan.get(number)
        wire = self if self._one_wire else writer
        if late := self._late.pop(wire, b""):
            writer.write(late)
            await asyncio.sleep(5e-3)
        if deed is None:
            writer.write(answer + self._end)
            return True
        match deed.mischief:
            case Mischief.SWALLOWED:
                return True
            case Mischief.DROPPED:
                return False
            case Mischief.CUT:
                writer.write(answer[: int(deed.place * len(answer))])
                await writer.drain()
                return False
            case Mischief.LATE:
                self._late[wire] = answer + self._end
                return True
            case Mischief.DOUBLED:
                writer.write((answer + self._end) * 2)
            case Mischief.SWAPPED:
                older = self.told[max(0, number - deed.back)]
                writer.write(older + self._end)
            case Mischief.BEFORE:
                writer.write(deed.data + self._end[: deed.back] + answer + self._end)
            case Mischief.AFTER:
                writer.write(answer + self._end + deed.data)
            case _:
                writer.write(deed.damaged(answer) + self._end)
        return True


async def typed(call: Awaitable[Value], instrument: str) -> Value | LabctlError:
    """What a call gives: its value, or one of the three errors that it may raise, which says
    which instrument, which command, and what was answered. Anything else is a fault."""
    try:
        async with asyncio.timeout(LONGEST_CALL_S):
            return await call
    except (LinkError, InstrumentError, PlanError) as error:
        found: LabctlError = error
    match found:
        case LinkError(address=address):
            assert address, found
            assert str(found).startswith((address, instrument)), found
        case InstrumentError(instrument=said, command=command):
            assert said == instrument, found
            assert command, found
            assert instrument in str(found), found
        case PlanError(refusals=refusals):
            assert refusals, found
            assert all(refusals), found
        case _:
            pass
    return found


async def in_the_end(call: Callable[[], Awaitable[Value]], seconds: float = 15.0) -> Value:
    """What a call gives once the wire is well again."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(LinkError):
                return await call()


async def cut_short(
    call: Callable[[], Awaitable[Value]], turns: int | None, instrument: str
) -> None:
    """Begin a call and cancel it after so many turns of the loop; None lets it come to its end."""

    async def called() -> None:
        await typed(call(), instrument)

    task = asyncio.create_task(called())
    if turns is None:
        await task
        return
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(0 if turns < 8 else 5e-4)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@dataclass(frozen=True, slots=True)
class Move:
    """One call of a driver. ``turns``: see :func:`cut_short`. ``faults`` begin before it and last
    until they have happened."""

    call: str
    turns: int | None = None
    faults: tuple[Fault, ...] = ()


def moves(calls: tuple[str, ...], faults: tuple[str, ...]) -> st.SearchStrategy[list[Move]]:
    """A person, an engine and a bad cable, each with a mind of its own."""
    some = st.builds(
        Fault,
        name=st.sampled_from(faults),
        times=st.integers(1, 2),
        seconds=st.sampled_from([None, 0.02]),
    )
    turns = st.none() | st.none() | st.integers(0, 60)
    move = st.builds(Move, st.sampled_from(calls), turns, st.lists(some, max_size=1).map(tuple))
    return st.lists(move, min_size=2, max_size=9)
