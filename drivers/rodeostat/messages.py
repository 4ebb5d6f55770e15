"""The Rodeostat's words: one JSON object a line, every command with what it takes and answers.

A command is answered by a line that says ``success`` and repeats the command's name. While a test
runs, samples come between the answers: ``{"t":ms,"v":V,"i":uA}``, and an empty object after the
last one. Voltages are in V and of the working electrode against the reference, currents in uA,
times in ms.

Source: firmware github.com/iorodeo/potentiostat, ``firmware/libraries/potentiostat`` at 86e4708,
files ``ps_system_state.cpp``, ``ps_message_sender.cpp`` and ``ps_constants.cpp``; its Python client
``iorodeo-potentiostat`` 0.0.9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from labctl.wire.link import short_text

Value_co = TypeVar("Value_co", covariant=True)

USB_PACKET: Final = 64
"""A request whose length is a multiple of this is made one byte longer, as the client does."""


class ReplyError(ValueError):
    """A line that the instrument cannot have meant."""


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sample of a test. ``n`` is the multiplexer's channel, 0 without one."""

    t: int
    v: float
    i: float
    n: int = 0
    le: bool = False


class End(msgspec.Struct, frozen=True):
    """No more samples come of this test."""


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to a command. ``message`` says why it was refused."""

    success: bool
    response: dict[str, Any] = {}
    message: str = ""


Line: TypeAlias = Sample | End | Reply


def read_line(line: bytes) -> Line:
    """What a line says.

    Raises:
        ReplyError: it is none of the three things that come.
    """
    try:
        said = msgspec.json.decode(line)
        if said == {}:
            return End()
        if isinstance(said, dict) and "success" in said:
            return msgspec.convert(said, Reply)
        return msgspec.convert(said, Sample)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReplyError(f"{short_text(line)!r} is neither an answer nor a sample") from error


@dataclass(frozen=True, slots=True)
class Command(Generic[Value_co]):
    """One command. ``takes`` and ``answers`` are keys, '' for none; ``read`` checks the answer."""

    name: str
    read: Callable[[object], Value_co]
    takes: str = ""
    answers: str = ""

    def request(self, argument: object = None, *, test: str = "") -> bytes:
        """The line to send, without its end."""
        fields: dict[str, object] = {"command": self.name}
        if test:
            fields["test"] = test
        if self.takes:
            fields[self.takes] = argument
        line = msgspec.json.encode(fields)
        return b" " + line if (len(line) + 1) % USB_PACKET == 0 else line

    def value(self, reply: Reply, *, test: str = "") -> Value_co:
        """What a successful reply to this command says.

        Raises:
            ReplyError: it answers another command, or not what was asked.
        """
        response = reply.response
        if response.get("command") != self.name:
            raise ReplyError(f"it answers {response.get('command')!r}")
        if test and response.get("test") != test:
            raise ReplyError(f"it answers for the test {response.get('test')!r}, not {test!r}")
        if self.answers and self.answers not in response:
            raise ReplyError(f"it says nothing of {self.answers!r}")
        try:
            return self.read(response.get(self.answers))
        except ValueError as error:
            raise ReplyError(f"{self.answers}: {error}") from error


def number(said: object) -> float:
    if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
        raise ValueError(f"{said!r} is not a number")
    return float(said)


def whole(said: object) -> int:
    if isinstance(said, bool) or not isinstance(said, int) or said < 0:
        raise ValueError(f"{said!r} is not a whole number of 0 or above")
    return said


def word(said: object) -> str:
    if not isinstance(said, str) or not said.isprintable() or not said.strip():
        raise ValueError(f"{said!r} is not a word")
    return said


def flag(said: object) -> bool:
    if said is True or said is False:
        return said
    raise ValueError(f"{said!r} is neither true nor false")


def numbers(said: object) -> Mapping[str, float]:
    if isinstance(said, dict):
        return {key: number(value) for key, value in said.items()}
    raise ValueError(f"{said!r} are no parameters")


def nothing(said: object) -> None:
    del said


VARIANT: Final = Command("getVariant", word, answers="variant")
VERSION: Final = Command("getVersion", word, answers="version")
HARDWARE: Final = Command("getHardwareVersion", word, answers="version")
DEVICE_ID: Final = Command("getDeviceId", whole, answers="deviceId")
MUX_ENABLED: Final = Command("getMuxEnabled", flag, answers="muxEnabled")

RUN_TEST: Final = Command("runTest", nothing)
STOP_TEST: Final = Command("stopTest", nothing)
SET_PARAM: Final = Command("setParam", numbers, takes="param", answers="param")
GET_PARAM: Final = Command("getParam", numbers, answers="param")
DONE_TIME_MS: Final = Command("getTestDoneTime", whole, answers="testDoneTime")

SET_PERIOD_MS: Final = Command("setSamplePeriod", whole, "samplePeriod", "samplePeriod")
GET_PERIOD_MS: Final = Command("getSamplePeriod", whole, answers="samplePeriod")
SET_CURRENT_RANGE: Final = Command("setCurrRange", word, "currRange", "currRange")
GET_CURRENT_RANGE: Final = Command("getCurrRange", word, answers="currRange")
SET_VOLTAGE_RANGE: Final = Command("setVoltRange", word, "voltRange", "voltRange")
SET_REFERENCE_RANGE: Final = Command("setRefElectVoltRange", word, "voltRange", "voltRange")

SET_VOLTAGE: Final = Command("setVolt", number, "v", "v")
REFERENCE_V: Final = Command("getRefVolt", number, answers="r")
CURRENT_UA: Final = Command("getCurr", number, answers="i")

CONNECT_ALL: Final = Command("setAllElectConnected", flag, "connected", "connected")
CONNECT_WORKING: Final = Command("setWrkElectConnected", flag, "connected", "connected")
CONNECT_REFERENCE: Final = Command("setRefElectConnected", flag, "connected", "connected")
WORKING_CONNECTED: Final = Command("getWrkElectConnected", flag, answers="connected")
COUNTER_CONNECTED: Final = Command("getCtrElectConnected", flag, answers="connected")
CONNECT_BY_TEST: Final = Command("setElectAutoConnect", flag, "autoConnect", "autoConnect")
"""Whether a test connects the electrodes when it begins, and disconnects them when it ends."""
