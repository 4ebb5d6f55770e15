"""What the reading buffer holds, as readings of a visit. No I/O.

The buffer is asked for four elements a row, ``SEC,FRAC,SOUR,READ``: the instrument's own time in
two numbers, what was put out as it was read back, and what was measured.
Sign: positive current flows out of HI, which charges a cell whose positive pole is at HI.
What is refused of an answer, and why, is in docs/wire.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from labctl.errors import InstrumentError
from labctl.model import FloatColumn, Readings
from labctl.wire.scpi import is_sentinel, parse_any_number, parse_integer

ELEMENTS: Final = "SEC,FRAC,SOUR,READ"
WIDTH: Final = 4

STATES: Final = frozenset(
    {"IDLE", "RUNNING", "WAITING", "EMPTY", "BUILDING", "FAILED", "ABORTING", "ABORTED"}
)
"""Of a trigger model (reference manual 2461-901-01, ch. 6, ``:TRIGger:STATe?``)."""

OVER_RANGE: Final = 1.1
"""A range measures to 105 % of its full scale; what is beyond that comes as an overflow."""

LONGEST_GAP_PERIODS: Final = 10.0
LONGEST_GAP_S: Final = 10.0
"""Two readings of a visit are no further apart than this, or than so many of its periods."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the buffer, oldest first; ``time_s`` by the instrument's clock."""

    time_s: FloatColumn
    source: FloatColumn
    reading: FloatColumn

    def __len__(self) -> int:
        return len(self.time_s)

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(self.time_s[rows], self.source[rows], self.reading[rows])


@dataclass(frozen=True, slots=True)
class Look:
    """What one question to a running instrument says.

    ``count`` readings are in the buffer, the newest in place ``end``.
    """

    output_on: bool
    errors: int
    count: int
    end: int
    protecting: bool
    state: str


@dataclass(frozen=True, slots=True)
class Counted:
    """How far a visit has come: ``count`` readings, the last at ``time_s``, counters up to there.

    ``first_s`` is when the visit began, by the instrument's clock, None before the first reading.
    """

    count: int = 0
    first_s: float | None = None
    time_s: float = 0.0
    voltage_V: float = 0.0
    current_A: float = 0.0
    charge_Ah: float = 0.0
    energy_Wh: float = 0.0


def parse_look(text: str) -> Look:
    """``output;errors;count;end;protection;state;state;block``.

    Raises:
        InstrumentError: it is not that.
    """
    parts = text.split(";")
    if len(parts) != 8:
        raise InstrumentError(f"{len(parts)} parts came instead of 8")
    on, errors, count, end, protecting = (parse_integer(part) for part in parts[:5])
    if on not in {0, 1} or protecting not in {0, 1} or min(errors, count, end) < 0 or end > count:
        raise InstrumentError("the parts are not a state of the output and of its buffer")
    if (count == 0) != (end == 0):
        raise InstrumentError(f"{count} readings are in the buffer, and the newest in place {end}")
    state = parts[5].strip().upper()
    for said in (state, parts[6].strip().upper()):
        if said not in STATES:
            raise InstrumentError(f"{said[:20]!r} is not a state of a trigger model")
    parse_integer(parts[7])
    return Look(bool(on), errors, count, end, bool(protecting), state)


def parse_rows(text: str, count: int) -> Rows:
    """``count`` rows of ``SEC,FRAC,SOUR,READ``.

    Numbers that stand for an overflow are kept: the caller decides.

    Raises:
        InstrumentError: it is not that many numbers, or a time is none.
    """
    parts = text.split(",")
    if len(parts) != WIDTH * count:
        raise InstrumentError(f"{len(parts)} numbers came instead of {WIDTH * count}")
    table = np.array([parse_any_number(part) for part in parts], dtype=np.float64)
    table = table.reshape(count, WIDTH)
    seconds, fractions = table[:, 0], table[:, 1]
    if not (np.isfinite(table[:, :2]).all() and (seconds >= 0).all() and (seconds < 1e11).all()):
        raise InstrumentError("a time is not one")
    if not ((fractions >= 0) & (fractions <= 1)).all():
        raise InstrumentError("a fraction of a second is not one")
    return Rows(seconds + fractions, table[:, 2], table[:, 3])


def check_ranges(rows: Rows, source_range: float, sense_range: float) -> None:
    """See that nothing is beyond the full scales that were set; overflows are let pass.

    Raises:
        InstrumentError: a value is one that the instrument cannot put out or measure.
    """
    for values, full in ((rows.source, source_range), (rows.reading, sense_range)):
        for value in values.tolist():
            if not (abs(value) <= OVER_RANGE * full or is_sentinel(value)):
                raise InstrumentError(f"{value:g} is beyond the range of {full:g}")


def good_rows(rows: Rows) -> Rows:
    """The rows before the first that stands for an overflow or for no number.

    Raises:
        InstrumentError: that is the first one.
    """
    for place, (source, reading) in enumerate(zip(rows.source, rows.reading, strict=True)):
        if is_sentinel(float(source)) or is_sentinel(float(reading)):
            if place == 0:
                raise InstrumentError(
                    "a reading is beyond its range: the instrument does not see the cell"
                )
            return rows[:place]
    return rows


def places_after(last: int, taken: int, look: Look, size: int) -> tuple[tuple[int, int], ...]:
    """From where to where in the buffer the rows lie that were not taken yet, oldest first.

    ``last`` is the place of the row taken last, ``taken`` how many were; a full buffer begins again
    at place 1.

    Raises:
        InstrumentError: the buffer holds less than was taken from it, or more than fits, or is not
            full and yet has its newest reading elsewhere than last.
    """
    if look.count > size or (look.count < size and look.end != look.count):
        raise InstrumentError(
            f"its buffer of {size} readings holds {look.count}, the newest in place {look.end}: "
            "that cannot be"
        )
    if look.count < min(taken, size):
        raise InstrumentError(
            f"its buffer holds {look.count} readings, and {taken} were taken from it: it was "
            "cleared, or switched off and on"
        )
    if look.end == last:
        return ()
    if look.end > last:
        return ((last + 1, look.end),)
    return tuple(
        (first, end) for first, end in ((last + 1, look.count), (1, look.end)) if first <= end
    )


def counted(
    before: Counted,
    rows: Rows,
    *,
    source: str,
    step: int,
    clock_offset_s: float,
    lead_s: float,
    longest_gap_s: float = math.inf,
) -> tuple[Counted, Readings]:
    """Rows as readings, with times and counters since the visit began.

    ``clock_offset_s`` is what the clock here is ahead of the instrument's: it labels the readings.
    The visit began ``lead_s`` before its first reading; until then the current was as it is there.
    Between two readings current and power are taken to be straight lines.

    Raises:
        InstrumentError: the instrument's clock goes back, stands still, or leaps by more than
            ``longest_gap_s``.
    """
    if not len(rows):
        return before, Readings()
    first_s = float(rows.time_s[0]) - lead_s if before.first_s is None else before.first_s
    voltage_V, current_A = (
        (rows.source, rows.reading) if source == "VOLT" else (rows.reading, rows.source)
    )
    time_s = rows.time_s - first_s
    start = (
        Counted(voltage_V=float(voltage_V[0]), current_A=float(current_A[0]))
        if before.first_s is None
        else before
    )
    steps_h = np.diff(time_s, prepend=start.time_s) / 3600.0
    if not (steps_h > 0).all():
        raise InstrumentError(
            "its clock went back or stood still while the step ran: a reading came twice, or its "
            "time was set"
        )
    gaps_h = steps_h if before.first_s is not None else steps_h[1:]
    if gaps_h.size and gaps_h.max() * 3600.0 > longest_gap_s:
        raise InstrumentError(
            f"its clock leapt by {gaps_h.max() * 3600.0:.6g} s while the step ran: readings are "
            "missing, or its time was set"
        )
    power_W = voltage_V * current_A
    charge_Ah = start.charge_Ah + np.cumsum(_means(current_A, start.current_A) * steps_h)
    energy_Wh = start.energy_Wh + np.cumsum(
        _means(power_W, start.voltage_V * start.current_A) * steps_h
    )
    count = len(rows)
    readings = Readings(
        onboard_index=np.arange(before.count + 1, before.count + count + 1, dtype=np.int64),
        step=np.full(count, step, dtype=np.int64),
        pass_mark=np.zeros(count, dtype=np.int64),
        step_time_s=time_s,
        unix_time_s=rows.time_s + clock_offset_s,
        voltage_V=np.array(voltage_V),
        current_A=np.array(current_A),
        step_charge_Ah=charge_Ah,
        step_energy_Wh=energy_Wh,
        temperature_degC=np.full(count, np.nan),
    )
    after = replace(
        before,
        count=before.count + count,
        first_s=first_s,
        time_s=float(time_s[-1]),
        voltage_V=float(voltage_V[-1]),
        current_A=float(current_A[-1]),
        charge_Ah=float(charge_Ah[-1]),
        energy_Wh=float(energy_Wh[-1]),
    )
    return after, readings


def _means(values: FloatColumn, before: float) -> FloatColumn:
    """The mean of each value and the one before it."""
    return 0.5 * (values + np.concatenate(([before], values[:-1])))
