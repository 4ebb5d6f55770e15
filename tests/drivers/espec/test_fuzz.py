"""Any bytes from the wire become a value that they say, or an error that says what happened."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st

from labctl.clock import VirtualClock
from labctl.drivers.base import ChamberAlarmError
from labctl.drivers.espec.config import EspecConfig
from labctl.drivers.espec.driver import Espec
from labctl.errors import InstrumentError, LinkError
from labctl.simulators.server import After, Answer, serve_frames
from labctl.wire.link import Check

Value = TypeVar("Value")

GOOD = {
    b"ROM?": b"P3N20 VER2.05",
    b"TYPE?": b"T,T,S2,160.0",
    b"MON?": b"24.1,100,CONSTANT,0",
    b"TEMP?": b"24.1,60.0,110.0,-40.0",
    b"MODE?": b"CONSTANT",
    b"ALARM?": b"1,2",
    b"TEMP, S60.0": b"OK:TEMP, S60.0",
}


class Babble:
    """A link whose answer to ``command`` is ``reply``, and a good chamber's to anything else."""

    address = "babble"

    def __init__(self, command: bytes, reply: bytes, alarms: bool) -> None:
        self._replies = {**GOOD, command: reply}
        if alarms and command != b"MON?":
            self._replies[b"MON?"] = b"84.1,100,STANDBY,1"
        self.driver: Espec | None = None
        self._greeted = False

    async def open(self) -> None:
        if not self._greeted:
            assert self.driver is not None
            await self.driver.greet(self._exchange)
            self._greeted = True

    async def close(self) -> None: ...

    async def ask(self, request: bytes, *, command: str = "", check: Check | None = None) -> bytes:
        await self.open()
        reply = await self._exchange(request)
        if check is not None:
            check(reply)
        return reply

    async def _exchange(self, request: bytes) -> bytes:
        reply = self._replies.get(request)
        if reply is None:
            raise LinkError("no answer", command=request.decode())
        return reply


def babbling(command: bytes, reply: bytes, *, alarms: bool = False) -> Espec:
    link = Babble(command, reply, alarms)
    driver = Espec(EspecConfig(host="babble"), name="oven 1", clock=VirtualClock(), link=link)
    link.driver = driver
    return driver


def bent(reply: bytes) -> st.SearchStrategy[bytes]:
    """The reply with some bytes changed, left out or put in."""
    places = st.integers(0, len(reply))
    return st.builds(
        lambda place, cut, put: reply[:place] + put + reply[place + cut :],
        places,
        st.integers(0, 4),
        st.binary(max_size=4),
    )


REPLIES = {
    command: st.one_of(bent(reply), st.binary(max_size=40), st.sampled_from(list(GOOD.values())))
    for command, reply in GOOD.items()
}
ANY = st.sampled_from(list(GOOD)).flatmap(lambda c: st.tuples(st.just(c), REPLIES[c]))


@settings(max_examples=150, deadline=None)
@given(ANY, st.booleans())
@example((b"MON?", b"24.1,100,CONSTANT,0"), False)
@example((b"ALARM?", b"0"), True)
def test_any_answer_is_a_temperature_that_it_says_or_an_error(
    talk: tuple[bytes, bytes], alarms: bool
) -> None:
    command, reply = talk
    said = reply if command == b"MON?" else b"84.1" if alarms else GOOD[b"MON?"]
    came = outcome(babbling(command, reply, alarms=alarms).temperature())
    if isinstance(came, float):
        assert math.isfinite(came)
        assert came == _first(said)
        return
    assert isinstance(came, InstrumentError)
    assert came.instrument == "oven 1"
    if isinstance(came, ChamberAlarmError):
        assert came.temperature_degC == _first(said)
        return
    assert came.command == command.decode()
    assert came.command in str(came) or came.reply in str(came)


@settings(max_examples=150, deadline=None)
@given(ANY, st.booleans())
def test_any_answer_to_a_setting_sets_it_or_is_an_error(
    talk: tuple[bytes, bytes], alarms: bool
) -> None:
    command, reply = talk
    came = outcome(babbling(command, reply, alarms=alarms).set_temperature(60.0))
    if isinstance(came, InstrumentError):
        assert came.instrument == "oven 1"
        assert came.command
    elif came is None and command == b"TEMP?":
        assert float(reply.split(b",")[1]) == 60.0
    elif came is None and command == b"TEMP, S60.0":
        assert b"".join(reply.split()).upper() == b"OK:TEMP,S60.0"
    elif came is not None:
        # The mode was told otherwise, and so it is switched on.
        assert isinstance(came, LinkError)
        assert came.command in {"MODE, CONSTANT", "POWER,ON"}
        assert command == b"MODE?"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            bent(b"24.1,100,CONSTANT,0\r\n"),
            st.binary(max_size=30).map(lambda babble: babble + b"\r\n"),
        ),
        max_size=6,
    )
)
@example([b"24.1,100,CONSTANT,0\r\n25.1,100,CONSTANT,0\r\n"])
@example([b"24.1,100,CONS"])
def test_any_bytes_on_a_real_connection_are_a_temperature_or_an_error(replies: list[bytes]) -> None:
    for reply, came in zip(replies, asyncio.run(_asked_over_tcp(replies)), strict=True):
        if isinstance(came, float):
            assert reply.strip().count(b"\r\n") == 0
            assert came == _first(reply)
        else:
            assert came.command == "MON?"


async def _asked_over_tcp(replies: list[bytes]) -> list[float | InstrumentError | LinkError]:
    left = list(replies)

    async def answer(command: bytes) -> Answer:
        reply = left.pop(0) if command == b"MON?" else GOOD[command] + b"\r\n"
        return Answer(reply, After.LISTEN if reply.endswith(b"\r\n") else After.CLOSE)

    found: list[float | InstrumentError | LinkError] = []
    async with serve_frames(
        answer, host="127.0.0.1", port=0, separator=b"\r\n", max_frame_bytes=1000
    ) as there:
        config = EspecConfig(host=there.host, port=there.port)
        driver = Espec(config, name="oven 1", clock=VirtualClock())
        while len(found) < len(replies):
            before = len(left)
            try:
                found.append(await driver.temperature())
            except (InstrumentError, LinkError) as error:
                # That a connection was lost after an answer may be seen at the next question only.
                if len(left) < before:
                    found.append(error)
        await driver.close()
    return found


def outcome(work: Coroutine[Any, Any, Value]) -> Value | InstrumentError | LinkError:
    try:
        return asyncio.run(work)
    except (InstrumentError, LinkError) as error:
        return error


def _first(reply: bytes) -> float:
    return float(reply.split(b",")[0])
