"""Reading buffers: rows with a place each, which a continuous buffer uses again when it is full.

Source: reference manual 2461-901-01, TRACe subsystem. Places count from 1. Relative time counts
from the row in place 1.
"""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from labctl.simulators.keithley.errors import ScpiError

DEFAULT_BUFFERS: Final = ("defbuffer1", "defbuffer2")
DEFAULT_SIZE: Final = 10_000
SMALLEST_SIZE: Final = 10
LARGEST_SIZE: Final = 6_875_000
MOST_ELEMENTS: Final = 14

UNITS: Final = {"VOLT": "V", "CURR": "A", "RES": "Ohm"}


@dataclass(frozen=True, slots=True)
class Row:
    """One reading. ``function`` was measured while ``source_function`` was put out."""

    unix_time_s: float
    reading: float
    source: float
    function: str
    source_function: str
    status: int
    source_status: int


class Buffer:
    """One reading buffer."""

    def __init__(self, name: str, size: int, *, continuous: bool) -> None:
        self.name = name
        self.size = size
        self.continuous = continuous
        self._rows: list[Row] = []
        self._last = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def end(self) -> int:
        """The place of the newest row; 0 if there is none."""
        return self._last

    @property
    def start(self) -> int:
        """The place of the oldest row; 0 if there is none."""
        if not self._rows:
            return 0
        return self._last % len(self._rows) + 1 if len(self._rows) == self.size else 1

    @property
    def newest(self) -> Row | None:
        return self._rows[self._last - 1] if self._rows else None

    def add(self, row: Row) -> bool:
        """Whether the row was kept and was the one that filled the buffer."""
        if len(self._rows) < self.size:
            self._rows.append(row)
            self._last = len(self._rows)
            return len(self._rows) == self.size
        if self.continuous:
            self._last = self._last % self.size + 1
            self._rows[self._last - 1] = row
        return False

    def clear(self) -> None:
        self._rows.clear()
        self._last = 0

    def rows(self, first: int, last: int) -> Sequence[Row]:
        """The rows in places ``first`` to ``last``.

        Raises:
            ScpiError: one of the places holds none.
        """
        if not 1 <= first <= last <= len(self._rows):
            raise ScpiError(-222, f"{self.name} has no rows {first} to {last}")
        return self._rows[first - 1 : last]

    def relative_s(self, row: Row) -> float:
        return row.unix_time_s - self._rows[0].unix_time_s

    def statistic(self, name: str) -> float:
        """``AVER``, ``MAX``, ``MIN``, ``STDD`` or ``PK2PK`` of all readings."""
        readings = [row.reading for row in self._rows]
        if not readings:
            raise ScpiError(-230)
        if name == "AVER":
            return statistics.fmean(readings)
        if name == "STDD":
            return statistics.pstdev(readings)
        if name == "PK2PK":
            return max(readings) - min(readings)
        return max(readings) if name == "MAX" else min(readings)


def _when(row: Row) -> dt.datetime:
    return dt.datetime.fromtimestamp(row.unix_time_s, dt.UTC)


def _fraction(row: Row) -> float:
    return row.unix_time_s - math.floor(row.unix_time_s)


NUMBERS: Final[dict[str, Callable[[Buffer, Row], float]]] = {
    "READing": lambda _, row: row.reading,
    "RELative": lambda buffer, row: buffer.relative_s(row),
    "SOURce": lambda _, row: row.source,
    "SEConds": lambda _, row: float(math.floor(row.unix_time_s)),
    "FRACtional": lambda _, row: _fraction(row),
}
TEXTS: Final[dict[str, Callable[[Row], str]]] = {
    "DATE": lambda row: _when(row).strftime("%m/%d/%Y"),
    "TIME": lambda row: _when(row).strftime("%H:%M:%S"),
    "TSTamp": lambda row: _when(row).strftime("%m/%d/%Y %H:%M:%S.%f"),
    "FORMatted": lambda row: f"{row.reading:+.6g} {UNITS[row.function]}",
    "SOURFORMatted": lambda row: f"{row.source:+.6g} {UNITS[row.source_function]}",
    "SOURSTATus": lambda row: str(row.source_status),
    "SOURUNIT": lambda row: UNITS[row.source_function],
    "STATus": lambda row: str(row.status),
    "UNIT": lambda row: UNITS[row.function],
}
ELEMENTS: Final = (*NUMBERS, *TEXTS)
BINARY_ELEMENTS: Final = frozenset({"READing", "RELative", "SOURce"})
