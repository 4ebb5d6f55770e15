"""The event log of a SourceMeter: numbers, texts and the form of an entry.

Source: SCPI-1999 vol. 2, ch. 21 for the numbers below 0; reference manual 2461-901-01 for those
above. An entry reads ``-109,"Missing parameter;1;2015/05/06 12:57:04.484"``: number, text, type (1
error, 2 warning, 4 information) and time.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TEXTS: Final = {
    -102: "Syntax error",
    -104: "Data type error",
    -108: "Parameter not allowed",
    -109: "Missing parameter",
    -113: "Undefined header",
    -114: "Header suffix out of range",
    -115: "Unexpected number of parameters",
    -151: "Invalid string data",
    -211: "Trigger ignored",
    -213: "Init ignored",
    -221: "Settings conflict",
    -222: "Parameter data out of range",
    -223: "Too much data",
    -224: "Illegal parameter value",
    -230: "Data corrupt or stale",
    -350: "Queue overflow",
    -363: "Input buffer overrun",
    1115: "Parameter error TRACe:MAKE cannot take an existing reading buffer name",
    1133: "Parameter 4, Syntax error, expected valid name parameters",
    2790: "Configuration list index does not exist",
    4916: "Reading buffer is 0% filled",
    4917: "Reading buffer is 100% filled",
}

NO_ERROR: Final = '0,"No error;0;0 0"'
CAPACITY: Final = 1000

ERROR: Final = 1
WARNING: Final = 2
INFORMATION: Final = 4


class ScpiError(Exception):
    """A command that is not carried out; ``code`` goes into the event log."""

    def __init__(self, code: int, detail: str = "") -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code} {TEXTS[code]}")


@dataclass(frozen=True, slots=True)
class Entry:
    code: int
    kind: int
    text: str
    unix_time_s: float

    def __str__(self) -> str:
        when = dt.datetime.fromtimestamp(self.unix_time_s, dt.UTC)
        stamp = when.strftime("%Y/%m/%d %H:%M:%S.") + f"{when.microsecond // 1000:03d}"
        return f'{self.code},"{self.text};{self.kind};{stamp}"'


class EventLog:
    """First in, first out; when it is full the last entry says so."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self.heard: Callable[[int, int], None] = lambda _code, _kind: None
        """Is told the number and the kind of every event."""

    def add(self, code: int, unix_time_s: float, *, kind: int = ERROR, detail: str = "") -> None:
        self.heard(code, kind)
        if len(self._entries) >= CAPACITY:
            self._entries.pop()
            code, detail, kind = -350, "", ERROR
        text = f"{TEXTS[code]}, {detail}" if detail else TEXTS[code]
        self._entries.append(Entry(code, kind, text.replace('"', "'"), unix_time_s))

    def take(self, kinds: int = ERROR) -> Entry | None:
        """The oldest entry of these kinds, removed; None if there is none."""
        for entry in self._entries:
            if entry.kind & kinds:
                self._entries.remove(entry)
                return entry
        return None

    def count(self, kinds: int = ERROR) -> int:
        return sum(1 for entry in self._entries if entry.kind & kinds)

    def clear(self) -> None:
        self._entries.clear()
