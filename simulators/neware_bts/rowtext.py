"""The rows of a download as text, all of them at once, in machine code.

Every number is what C's ``%.15g`` makes of it, to the byte: the value times a power of ten is had
exactly as a sum of two floats (Dekker, Numer. Math. 18, 224 (1971)) and rounded half to even.
Values that this does not cover (below 1e-8, or 1e14 and more, but for 0) are left to Python.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labctl.simulators.cells.jit import compiled, inlined

Bytes = npt.NDArray[np.uint8]
IntColumn = npt.NDArray[np.int64]
FloatColumn = npt.NDArray[np.float64]

LONGEST_WORD = 8
LONGEST_ROW = 320
SMALLEST, LARGEST = 1e-8, 1e14
DIGITS = 15
_SPLIT = 134217729.0
_POWERS = np.array([float(10**power) for power in range(23)])
_LEAST, _TOO_MANY = 10**14, 10**15

_LITERALS = (
    '    <data seqid="',
    '" stepid="',
    '" cycleid="',
    '" steptype="',
    '" testtime="',
    '" atime="',
    '" volt="',
    '" curr="',
    '" cap="',
    '" eng="',
    '" />\r\n',
)
_LITERAL = np.frombuffer("".join(_LITERALS).encode(), dtype=np.uint8).copy()
_LITERAL_ENDS = np.cumsum([len(literal) for literal in _LITERALS])
_BY_PYTHON = (
    '    <data seqid="%d" stepid="%d" cycleid="%d" steptype="%s" testtime="%d" atime="%s" '
    'volt="%.15g" curr="%.15g" cap="%.15g" eng="%.15g" />\r\n'
)


@dataclass(frozen=True, slots=True)
class TextRows:
    """What stands in the rows; columns of equal length. ``word`` is an index into ``words``."""

    seq: IntColumn
    step: IntColumn
    cycle: IntColumn
    word: IntColumn
    words: tuple[str, ...]
    ms: IntColumn
    unix_s: FloatColumn
    voltage_V: FloatColumn
    current_A: FloatColumn
    capacity_Ah: FloatColumn
    energy_Wh: FloatColumn


def text_of(rows: TextRows) -> bytes:
    """One line for each row, with its end; times are labels in UTC."""
    words = np.zeros((len(rows.words), LONGEST_WORD), dtype=np.uint8)
    for place, word in enumerate(rows.words):
        words[place, : len(word)] = np.frombuffer(word.encode("ascii"), dtype=np.uint8)
    seconds = np.floor(rows.unix_s).astype(np.int64)
    out = np.empty(len(rows.seq) * LONGEST_ROW, dtype=np.uint8)
    values = np.stack((rows.voltage_V, rows.current_A, rows.capacity_Ah, rows.energy_Wh))
    length = _write(
        out, rows.seq, rows.step, rows.cycle, rows.word, words, rows.ms, seconds, values
    )
    return out[:length].tobytes() if length >= 0 else _by_python(rows, seconds)


def warm() -> None:
    """Compile, or load what was compiled before, so that no reader has to wait for it."""
    none, nothing = np.empty(0, dtype=np.int64), np.empty(0)
    text_of(
        TextRows(none, none, none, none, ("--",), none, nothing, nothing, nothing, nothing, nothing)
    )


def _by_python(rows: TextRows, seconds: IntColumn) -> bytes:
    labels = np.datetime_as_string(seconds.astype("datetime64[s]")).tolist()
    columns = zip(
        rows.seq.tolist(),
        rows.step.tolist(),
        rows.cycle.tolist(),
        [rows.words[place] for place in rows.word.tolist()],
        rows.ms.tolist(),
        [label.replace("T", " ") for label in labels],
        rows.voltage_V.tolist(),
        rows.current_A.tolist(),
        rows.capacity_Ah.tolist(),
        rows.energy_Wh.tolist(),
        strict=True,
    )
    return "".join([_BY_PYTHON % row for row in columns]).encode("ascii")


@inlined
def _put_literal(out: Bytes, at: int, which: int) -> int:
    begin = 0 if which == 0 else _LITERAL_ENDS[which - 1]
    for place in range(begin, _LITERAL_ENDS[which]):
        out[at] = _LITERAL[place]
        at += 1
    return at


@inlined
def _put_padded(out: Bytes, at: int, value: int, width: int) -> int:
    """The last ``width`` digits of a whole number of 0 or above."""
    for place in range(at + width - 1, at - 1, -1):
        out[place] = 48 + value % 10
        value //= 10
    return at + width


@inlined
def _put_whole(out: Bytes, at: int, value: int) -> int:
    width = 1
    rest = value // 10
    while rest > 0:
        rest //= 10
        width += 1
    return _put_padded(out, at, value, width)


@inlined
def _put_time(out: Bytes, at: int, seconds: int) -> int:
    """``YYYY-MM-DD HH:MM:SS``; the calendar counts days from 1 March of the year 0."""
    days, second = seconds // 86400, seconds % 86400
    shifted = days + 719468
    era = shifted // 146097
    day_of_era = shifted - era * 146097
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    year = year_of_era + era * 400
    if month < 10:
        month += 3
    else:
        month -= 9
        year += 1
    at = _put_padded(out, at, year, 4)
    out[at] = 45
    at = _put_padded(out, at + 1, month, 2)
    out[at] = 45
    at = _put_padded(out, at + 1, day, 2)
    out[at] = 32
    at = _put_padded(out, at + 1, second // 3600, 2)
    out[at] = 58
    at = _put_padded(out, at + 1, second // 60 % 60, 2)
    out[at] = 58
    return _put_padded(out, at + 1, second % 60, 2)


@inlined
def _scaled(value: float, power: int) -> int:
    """``value`` times ten to the ``power`` (0 to 22), rounded half to even."""
    ten = _POWERS[power]
    high = value * ten
    big = _SPLIT * value
    value_high = big - (big - value)
    value_low = value - value_high
    big = _SPLIT * ten
    ten_high = big - (big - ten)
    ten_low = ten - ten_high
    low = (
        (value_high * ten_high - high) + value_high * ten_low + value_low * ten_high
    ) + value_low * ten_low
    base = math.floor(high)
    whole = int(base)
    part = high - base
    if part > 0.5 or (part == 0.5 and (low > 0.0 or (low == 0.0 and whole % 2 == 1))):
        whole += 1
    return whole


@inlined
def _put_number(out: Bytes, at: int, value: float) -> int:
    """A number as ``%.15g`` writes it; ``value`` is 0 or its magnitude is in range."""
    if value < 0.0 or (value == 0.0 and math.copysign(1.0, value) < 0.0):
        out[at] = 45
        at += 1
        value = -value
    if value == 0.0:
        out[at] = 48
        return at + 1
    exponent = min(max(math.floor(math.log10(value)), -8), 13)
    digits = _scaled(value, DIGITS - 1 - exponent)
    if digits < _LEAST:
        exponent -= 1
        digits = _scaled(value, DIGITS - 1 - exponent)
    elif digits >= _TOO_MANY:
        exponent += 1
        digits = _scaled(value, DIGITS - 1 - exponent)
    count = DIGITS
    while digits % 10 == 0:
        digits //= 10
        count -= 1
    if exponent < -4:
        lead_power = 1
        for _ in range(count - 1):
            lead_power *= 10
        at = _put_padded(out, at, digits // lead_power, 1)
        if count > 1:
            out[at] = 46
            at = _put_padded(out, at + 1, digits % lead_power, count - 1)
        out[at] = 101
        out[at + 1] = 45
        return _put_padded(out, at + 2, -exponent, 2)
    if exponent < 0:
        out[at] = 48
        out[at + 1] = 46
        at += 2
        for _ in range(-exponent - 1):
            out[at] = 48
            at += 1
        return _put_padded(out, at, digits, count)
    while count < exponent + 1:
        digits *= 10
        count += 1
    behind = count - exponent - 1
    power = 1
    for _ in range(behind):
        power *= 10
    at = _put_padded(out, at, digits // power, exponent + 1)
    if behind > 0:
        out[at] = 46
        at = _put_padded(out, at + 1, digits % power, behind)
    return at


@compiled
def _write(
    out: Bytes,
    seq: IntColumn,
    step: IntColumn,
    cycle: IntColumn,
    word: IntColumn,
    words: Bytes,
    ms: IntColumn,
    seconds: IntColumn,
    values: npt.NDArray[np.float64],
) -> int:
    """Fills ``out`` and gives the number of bytes; -1 if a value is out of range."""
    at = 0
    for row in range(len(seq)):
        for column in range(4):
            size = abs(values[column, row])
            if not (size == 0.0 or (size >= SMALLEST and size < LARGEST)):
                return -1
        at = _put_literal(out, at, 0)
        at = _put_whole(out, at, seq[row])
        at = _put_literal(out, at, 1)
        at = _put_whole(out, at, step[row])
        at = _put_literal(out, at, 2)
        at = _put_whole(out, at, cycle[row])
        at = _put_literal(out, at, 3)
        for place in range(LONGEST_WORD):
            letter = words[word[row], place]
            if letter == 0:
                break
            out[at] = letter
            at += 1
        at = _put_literal(out, at, 4)
        at = _put_whole(out, at, ms[row])
        at = _put_literal(out, at, 5)
        at = _put_time(out, at, seconds[row])
        for column in range(4):
            at = _put_literal(out, at, 6 + column)
            at = _put_number(out, at, values[column, row])
        at = _put_literal(out, at, 10)
    return at
