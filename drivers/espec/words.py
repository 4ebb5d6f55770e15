"""What a chamber answers, read strictly: a value, or an InstrumentError. Pure.

An answer to a question is its values with commas between them; a setting is answered ``OK:`` and
the setting as it was sent; what is refused, ``NA:`` and why. Temperatures are in degC, humidities
in per cent.

Source: MIT-licensed library of the vendor, ChamberConnectLibrary @1d2deb8, p300.py and
especinteract.py; ESPEC EHS series communication manual, tables 3.3 and 3.4 and page 8.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from labctl.errors import InstrumentError

COLDEST_DEGC: Final = -100.0
HOTTEST_DEGC: Final = 350.0
"""No chamber of this make goes beyond; a sensor that is said to is broken."""
MOST_ALARMS: Final = 16
"""An answer names no more of them than so many."""

REFUSALS: Final = {
    "CMD ERR": "it does not know the command",
    "COMMAND ERR": "it does not know the command",
    "ADDR ERR": "the address on its line is another one: see 'unit' in the configuration",
    "PARA ERR": "a parameter is missing or cannot be read",
    "PARAMETER ERR": "a parameter is missing or cannot be read",
    "DATA OUT OF RANGE": "the value is outside what is allowed: look at its limits",
    "DATA NOT READY": "there is no such program",
    "PROTECT ON": "its settings are locked at its panel",
    "INVALID REQ": "this chamber has no such thing",
    "CHB NOT READY": "it cannot do that as it is now: look for an alarm at its panel",
    "CONT NOT READY-1": "it has no humidity or no product control",
    "CONT NOT READY-2": "it runs no program",
    "CONT NOT READY-3": "this controller does not know the command",
    "CONT NOT READY-4": "its keys cannot be locked while it is off",
    "CONT NOT READY-5": "that time signal is not switched on",
}

_NUMBER = re.compile(r"[+-]?\d{1,4}(?:\.\d{1,3})?", re.ASCII)
_COUNT = re.compile(r"\d{1,3}", re.ASCII)
_REFUSED = re.compile(r"NA\s*:\s*(.*)", re.DOTALL)
_TAKEN = re.compile(r"OK\s*:\s*(.*)", re.DOTALL)


class Mode(enum.StrEnum):
    """What a chamber does: answer to ``MODE?``."""

    OFF = "OFF"
    STANDBY = "STANDBY"
    CONSTANT = "CONSTANT"
    RUN = "RUN"
    """It runs a program of its own."""


@dataclass(frozen=True, slots=True)
class Monitored:
    """Answer to ``MON?``. ``humidity_percent`` is None where the chamber has none."""

    temperature_degC: float
    humidity_percent: float | None
    mode: Mode
    alarms: int


@dataclass(frozen=True, slots=True)
class Temperatures:
    """Answer to ``TEMP?``. ``set_degC`` is None where its control is off."""

    measured_degC: float
    set_degC: float | None
    high_degC: float
    low_degC: float


@dataclass(frozen=True, slots=True)
class Kind:
    """Answer to ``TYPE?``: its sensors, its controller, and how warm it can be set."""

    sensors: tuple[str, ...]
    controller: str
    hottest_degC: float


def text_of(reply: bytes) -> str:
    """An answer as text, without blanks at its ends."""
    try:
        text = reply.decode("ascii").strip()
    except UnicodeDecodeError:
        raise InstrumentError("it is not text") from None
    if not text.isprintable():
        raise InstrumentError("it is not text")
    return text


def parse_refusal(text: str) -> str | None:
    """Why a command is refused, None if it is not."""
    found = _REFUSED.fullmatch(text)
    if found is None:
        return None
    return found[1].replace("_", " ").strip() or "no reason"


def said_of_refusal(reason: str) -> str:
    """A refusal in words, '' where it is not a known one."""
    return REFUSALS.get(reason, "")


def check_taken(text: str, *settings: str) -> None:
    """See that a setting was taken, and no other; ``settings`` are the ways to say it.

    Raises:
        InstrumentError: the answer says nothing of the sort.
    """
    found = _TAKEN.fullmatch(text)
    if found is None:
        raise InstrumentError("that does not say that it was taken")
    if _squeezed(found[1]) not in {_squeezed(setting) for setting in settings}:
        raise InstrumentError("that is the answer to another setting")


def parse_monitored(text: str) -> Monitored:
    """``24.1,100,CONSTANT,0``: temperature, humidity or nothing, mode, number of alarms."""
    temperature, humidity, mode, alarms = _fields(text, 4)
    return Monitored(
        parse_temperature(temperature),
        _humidity(humidity) if humidity else None,
        parse_mode(mode),
        _count(alarms),
    )


def parse_temperatures(text: str) -> Temperatures:
    """``23.2,25.0,110.0,-40.0``: measured, set, upper and lower limit."""
    measured, wanted, high, low = _fields(text, 4)
    found = Temperatures(
        parse_temperature(measured),
        None if wanted == "OFF" else parse_temperature(wanted),
        parse_temperature(high),
        parse_temperature(low),
    )
    if not found.low_degC < found.high_degC:
        raise InstrumentError("its lower limit is not below its upper limit")
    return found


def parse_alarms(text: str) -> tuple[int, ...]:
    """``2,1,12``: how many, and their numbers."""
    count, *numbers = (_count(field) for field in text.split(","))
    if len(numbers) != min(count, MOST_ALARMS):
        raise InstrumentError(f"it says {count} alarms and names {len(numbers)}")
    return tuple(numbers)


def parse_kind(text: str) -> Kind:
    """``T,T,S2,160.0``: one sensor or two, the controller, the highest set point."""
    fields = [field.strip() for field in text.split(",")]
    if len(fields) not in {3, 4} or not all(fields):
        raise InstrumentError("it names no sensor, controller and highest temperature")
    return Kind(tuple(fields[:-2]), fields[-2], parse_temperature(fields[-1]))


def parse_rom(text: str) -> str:
    """The version of its program, any text that is no refusal and no other answer."""
    if not text or _TAKEN.fullmatch(text):
        raise InstrumentError("that is no version")
    return text


def parse_mode(text: str) -> Mode:
    try:
        return Mode(text.strip())
    except ValueError:
        raise InstrumentError(f"{text[:40]!r} is not a mode") from None


def parse_temperature(text: str) -> float:
    """A temperature that a chamber can have."""
    if not _NUMBER.fullmatch(text):
        raise InstrumentError(f"{text[:40]!r} is not a temperature")
    value = float(text)
    if not COLDEST_DEGC <= value <= HOTTEST_DEGC:
        raise InstrumentError(f"no chamber has {value:g} degC: its sensor may be broken")
    return value


def _humidity(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise InstrumentError(f"{text[:40]!r} is not a humidity")
    value = float(text)
    if not 0 <= value <= 100:
        raise InstrumentError(f"no air has a humidity of {value:g} %")
    return value


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text.strip()):
        raise InstrumentError(f"{text[:40]!r} is not a number of alarms, or of one")
    return int(text)


def _fields(text: str, count: int) -> list[str]:
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != count:
        raise InstrumentError(f"it has {len(fields)} values and not {count}")
    return fields


def _squeezed(text: str) -> str:
    return "".join(text.split()).upper()
