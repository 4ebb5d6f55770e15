"""What a chamber does with a line, and what it answers. Pure but for the chamber.

A question ends its name with ``?``; anything else is a setting. What is set is all of a line or
nothing of it.

Source: ChamberConnectLibrary @1d2deb8, p300.py and especinteract.py; espec-pr3j 0.5.0.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from labctl.simulators.espec.chamber import (
    CONSTANT,
    OFF,
    REFRIGERATION,
    RELAYS,
    STANDBY,
    Chamber,
)
from labctl.simulators.espec.program_commands import Programmer
from labctl.simulators.espec.refusals import (
    CMD,
    LOCKED,
    NO_DATA,
    NO_HUMIDITY,
    NOT_NOW,
    OFF_NOW,
    PARA,
    RANGE,
    UNSUPPORTED,
    RefusedError,
    refuse,
)

_SETTING = re.compile(r"([SHL])\s*(OFF|[+-]?\d{1,4}(?:\.\d{1,3})?)", re.IGNORECASE)
_TIME = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})")
_DATE = re.compile(r"(\d{1,2})\.(\d{1,2})/(\d{1,2})(?:\.\s*[A-Z]{3})?", re.IGNORECASE)
_MASK = re.compile(r"[01]{8}")

REFRIGERATED: Final = {"REF0": "OFF", "REF1": "20", "REF3": "50", "REF6": "100", "REF9": "AUTO"}


class Controller:
    """What a chamber's controller knows beside the chamber: its clock, its service requests.

    ``keeps_on`` makes it say that it stops, and go on. ``epoch_unix_s`` is when it was made.
    """

    def __init__(self, chamber: Chamber, *, epoch_unix_s: float) -> None:
        self.chamber = chamber
        self.rom = chamber.config.own_rom
        self.keeps_on = False
        self._clock_unix_s = epoch_unix_s
        self._mask = "00000000"
        self._state_changed = False
        programmer = Programmer(chamber, today=lambda: time.strftime("%y.%m/%d", self._now()))
        self._programmer = programmer
        self._questions: dict[str, Callable[[str], str]] = {
            "ROM?": lambda _: self.rom,
            "DATE?": lambda _: time.strftime("%y.%m/%d", self._now()),
            "TIME?": lambda _: time.strftime("%H:%M:%S", self._now()),
            "TYPE?": lambda _: self._type(),
            "MODE?": self._mode,
            "MON?": self._mon,
            "TEMP?": lambda _: self._temp(),
            "HUMI?": lambda _: self._humi(),
            "ALARM?": lambda _: _counted(self.chamber.alarms),
            "%?": lambda _: self._power(),
            "SET?": lambda _: self.chamber.settings.refrigeration,
            "REF?": lambda _: self._refrigerators(),
            "RELAY?": lambda _: _counted(sorted(self.chamber.settings.relays)),
            "SRQ?": lambda _: self._requests(),
            "MASK?": lambda _: self._mask,
            "KEYPROTECT?": lambda _: "ON" if self.chamber.settings.locked else "OFF",
            "CONSTANT SET?": self._constant,
            **programmer.questions,
            "TIMER ON?": lambda _: "0",
            "TIMER USE?": lambda _: "0",
            "TIMER LIST?": lambda _: refuse(NO_DATA),
            **dict.fromkeys(
                ("MON PTC?", "TEMP PTC?", "SET PTC?", "PTC?", "PRGM DATA PTC?"),
                lambda _: refuse(NO_HUMIDITY),
            ),
            "SYSTEM SET?": lambda _: "OFF",
        }
        self._settings: dict[str, Callable[[str], None]] = {
            "POWER": self._set_power,
            "MODE": self._set_mode,
            "TEMP": self._set_temp,
            "HUMI": self._set_humi,
            "SET": self._set_refrigeration,
            "RELAY": self._set_relay,
            "KEYPROTECT": self._lock,
            "DATE": self._set_date,
            "TIME": self._set_time,
            "MASK": self._set_mask,
            "SRQ": self._reset_requests,
            **programmer.settings,
            "TIMER": lambda _: refuse(UNSUPPORTED),
            "TIMER WRITE": lambda _: refuse(UNSUPPORTED),
            "TIMER ERASE": lambda _: refuse(UNSUPPORTED),
            "TEMP PTC": lambda _: refuse(NO_HUMIDITY),
            "PTC": lambda _: refuse(NO_HUMIDITY),
        }

    def answer(self, command: str) -> str:
        """What is answered to a command without its address."""
        name, rest = name_of(command), command.partition(",")[2].strip()
        try:
            if question := self._questions.get(name):
                return question(rest.upper())
            if setting := self._settings.get(name):
                if self.chamber.config.protected:
                    refuse(LOCKED)
                setting(rest.upper())
                self.chamber.changes += 1
                return f"OK:{command}"
        except RefusedError as refused:
            return f"NA:{refused}"
        return f"NA:{CMD}"

    def _type(self) -> str:
        kind = self.chamber.config.kind
        sensors = "T,T" if kind.humidity else "T"
        return f"{sensors},{kind.controller},{kind.range_degC[1]:.1f}"

    def _mode(self, detail: str) -> str:
        if detail and not (detail == "DETAIL" and self.chamber.config.kind.detail):
            refuse(PARA)
        running = self.chamber.running
        if not detail or running is None:
            return self.chamber.mode
        what = "RUN" if running.number else "RMT RUN"
        return f"{what} END HOLD" if running.holds else f"{what} PAUSE" if running.paused else what

    def _mon(self, detail: str) -> str:
        mode = self._mode(detail)
        temperature_degC, humidity = self.chamber.measured
        shown = str(humidity) if self.chamber.config.kind.humidity else ""
        return f"{temperature_degC:.1f},{shown},{mode},{len(self.chamber.alarms)}"

    def _temp(self) -> str:
        found, (measured_degC, _) = self.chamber.settings, self.chamber.measured
        values = (measured_degC, self.chamber.set_degC, found.high_degC, found.low_degC)
        return ",".join(f"{value:.1f}" for value in values)

    def _humi(self) -> str:
        self._needs_humidity()
        found, (_, measured) = self.chamber.settings, self.chamber.measured
        humidity = self.chamber.set_humidity
        wanted = "OFF" if humidity is None else str(humidity)
        return f"{measured},{wanted},{found.humidity_high},{found.humidity_low}"

    def _power(self) -> str:
        heater = f"{self.chamber.heater_percent:.1f}"
        if self.chamber.config.kind.humidity:
            return f"2,{heater},{self.chamber.humidifier_percent:.1f}"
        return f"1,{heater}"

    def _refrigerators(self) -> str:
        runs = self.chamber.refrigerators
        told = [f"{'ON' if on else 'OFF'}{number}" for number, on in enumerate(runs, start=1)]
        return f"{len(told)},{','.join(told)}"

    def _constant(self, what: str) -> str:
        found = self.chamber.settings
        match what:
            case "TEMP":
                return f"{found.temperature_degC:.1f},ON"
            case "HUMI":
                self._needs_humidity()
                return f"{found.humidity_kept},{'OFF' if found.humidity is None else 'ON'}"
            case "REF":
                return REFRIGERATED[found.refrigeration]
            case "RELAY":
                return _counted(sorted(found.relays))
            case "PTC":
                return refuse(NO_HUMIDITY)
            case _:
                return refuse(PARA)

    def _requests(self) -> str:
        alarm = "1" if self.chamber.alarms else "0"
        return f"0{alarm}0{'1' if self._state_changed else '0'}0000"

    def _set_power(self, what: str) -> None:
        if what not in {"ON", "OFF"}:
            refuse(PARA)
        if what == "OFF":
            self._stop(OFF)
        elif self.chamber.mode == OFF:
            self._start()

    def _set_mode(self, what: str) -> None:
        match what:
            case "OFF" | "STANDBY":
                self._stop(OFF if what == "OFF" else STANDBY)
            case "CONSTANT":
                self._start()
            case _ if found := re.fullmatch(r"RUN\s*(\d{1,2})", what):
                self._programmer.run(int(found[1]), 1)
                self._state_changed = True
            case _:
                refuse(PARA)

    def _start(self) -> None:
        if self.chamber.alarms:
            refuse(NOT_NOW)
        self.chamber.switch(CONSTANT)
        self._state_changed = True

    def _stop(self, mode: str) -> None:
        if not (self.keeps_on and self.chamber.at_work):
            self.chamber.switch(mode)
            self._state_changed = True

    def _set_temp(self, rest: str) -> None:
        given = _given(rest)
        found = self.chamber.settings
        if "OFF" in given.values():
            refuse(PARA)
        wanted = {letter: round(float(value), 1) + 0.0 for letter, value in given.items()}
        low_degC, high_degC = self.chamber.config.kind.range_degC
        high = wanted.get("H", found.high_degC)
        low = wanted.get("L", found.low_degC)
        room_K = 10.0
        if not low_degC - room_K <= low < high <= high_degC + room_K:
            refuse(RANGE)
        setpoint = wanted.get("S", found.temperature_degC)
        if "S" in wanted and not max(low, low_degC) <= setpoint <= min(high, high_degC):
            refuse(RANGE)
        found.temperature_degC, found.high_degC, found.low_degC = setpoint, high, low

    def _set_humi(self, rest: str) -> None:
        self._needs_humidity()
        given = _given(rest)
        found = self.chamber.settings
        if given.get("H") == "OFF" or given.get("L") == "OFF":
            refuse(PARA)
        high = round(float(given.get("H", found.humidity_high)))
        low = round(float(given.get("L", found.humidity_low)))
        if not 0 <= low < high <= 100:
            refuse(RANGE)
        setpoint = found.humidity
        if "S" in given:
            setpoint = None if given["S"] == "OFF" else round(float(given["S"]))
            if setpoint is not None and not low <= setpoint <= high:
                refuse(RANGE)
        found.humidity, found.humidity_high, found.humidity_low = setpoint, high, low
        found.humidity_kept = found.humidity_kept if setpoint is None else setpoint

    def _set_refrigeration(self, what: str) -> None:
        if what not in REFRIGERATION:
            refuse(PARA)
        self.chamber.settings.refrigeration = what

    def _set_relay(self, rest: str) -> None:
        what, *numbers = [field.strip() for field in rest.split(",")]
        if what not in {"ON", "OFF"} or not numbers or not all(n.isdecimal() for n in numbers):
            refuse(PARA)
        relays = {int(number) for number in numbers}
        if not all(1 <= relay <= RELAYS for relay in relays):
            refuse(RANGE)
        if what == "ON":
            self.chamber.settings.relays |= relays
        else:
            self.chamber.settings.relays -= relays

    def _lock(self, what: str) -> None:
        if what not in {"ON", "OFF"}:
            refuse(PARA)
        if self.chamber.mode == OFF:
            refuse(OFF_NOW)
        self.chamber.settings.locked = what == "ON"

    def _set_date(self, rest: str) -> None:
        found = _DATE.fullmatch(rest)
        if found is None:
            refuse(PARA)
        year, month, day = (int(part) for part in found.groups())
        self._set_clock(f"{2000 + year} {month} {day}", time.strftime("%H %M %S", self._now()))

    def _set_time(self, rest: str) -> None:
        found = _TIME.fullmatch(rest)
        if found is None:
            refuse(PARA)
        self._set_clock(time.strftime("%Y %m %d", self._now()), " ".join(found.groups()))

    def _set_clock(self, date: str, time_of_day: str) -> None:
        try:
            wanted = time.mktime(time.strptime(f"{date} {time_of_day}", "%Y %m %d %H %M %S"))
        except (ValueError, OverflowError):
            refuse(RANGE)
        self._clock_unix_s = wanted - self.chamber.now_s

    def _set_mask(self, rest: str) -> None:
        if not _MASK.fullmatch(rest):
            refuse(PARA)
        self._mask = rest

    def _reset_requests(self, what: str) -> None:
        if what != "RESET":
            refuse(PARA)
        self._state_changed = False

    def _needs_humidity(self) -> None:
        if not self.chamber.config.kind.humidity:
            refuse(NO_HUMIDITY)

    def _now(self) -> time.struct_time:
        return time.localtime(self._clock_unix_s + self.chamber.now_s)


def name_of(command: str) -> str:
    """The name of a command, with its ``?`` where it is a question."""
    return " ".join(command.partition(",")[0].upper().split())


def is_question(command: str) -> bool:
    return name_of(command).endswith("?")


def _given(rest: str) -> dict[str, str]:
    """``S25.0 H60.0 L-10.0`` as its parts; each letter once at the most."""
    left = _SETTING.sub("", rest)
    found = _SETTING.findall(rest)
    given: dict[str, str] = dict(found)
    if left.strip() or not found or len(given) != len(found):
        refuse(PARA)
    return given


def _counted(numbers: list[int]) -> str:
    return ",".join(str(number) for number in (len(numbers), *numbers))
