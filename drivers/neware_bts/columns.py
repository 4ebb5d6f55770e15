"""Cells of a table in a text, column by column instead of cell by cell.

A cell is where it begins and ends in ``data``, which has :data:`PADDING` before the first one, and
at least one byte more after the last.
What comes out is exact: a number of up to 15 digits is the float nearest to it, by one division of
two whole numbers that are floats themselves; what cannot be had that way is read by ``float``.
"""

from __future__ import annotations

import datetime as dt
import functools
import re

import numpy as np
import numpy.typing as npt

from labctl.model import FloatColumn, IntColumn

Bytes = npt.NDArray[np.uint8]

LONGEST_WHOLE = 18
LONGEST_NUMBER = 40
PADDING = b"\0" * LONGEST_NUMBER
NUMBER = re.compile(rb"[-+0-9.eE]{1,40}")

_ZERO, _DOT, _MINUS, _PLUS, _SMALL_E = (ord(character) for character in "0.-+e")
_EXPONENT = 4
"""Characters of an exponent as C writes it: ``e-05``."""
_HALF = 9
_POWERS = 10 ** np.arange(LONGEST_WHOLE + 1, dtype=np.int64)
_EXACT_POWERS = np.array([float(10**power) for power in range(23)])
MOST_DECIMALS = len(_EXACT_POWERS) - 1
_LARGEST_EXACT = 1 << 53
_WEIGHTS = np.zeros((2 * _HALF, 2))
_WEIGHTS[:_HALF, 0] = _WEIGHTS[_HALF:, 1] = 10.0 ** np.arange(_HALF - 1, -1, -1)

_TIME_MARKS = ((4, "-"), (7, "-"), (10, " "), (13, ":"), (16, ":"))
_TIME_WEIGHTS = np.zeros((19, 4))
for _column, _places in enumerate(((0, 1, 2, 3, 5, 6, 8, 9), (11, 12), (14, 15), (17, 18))):
    _TIME_WEIGHTS[list(_places), _column] = 10.0 ** np.arange(len(_places))[::-1]


def stands_before(data: bytes, begin: IntColumn, literal: bytes) -> bool:
    """Whether ``literal`` stands right before every cell that begins there."""
    found = _windows(data, len(literal))[begin - len(literal)]
    return bool(np.all(found == np.frombuffer(literal, dtype=np.uint8)))


def whole_numbers(data: bytes, begin: IntColumn, end: IntColumn) -> IntColumn | None:
    """Cells of 1 to 18 digits; None if any other is among them."""
    length = end - begin
    if length.min() < 1 or length.max() > LONGEST_WHOLE:
        return None
    digits = _digits(data, begin, end)
    return None if digits.max() > 9 else _whole(digits)


def words(data: bytes, begin: IntColumn, end: IntColumn) -> list[bytes] | None:
    """Cells of 1 to 12 bytes; None if any other is among them."""
    length = end - begin
    width = int(length.max())
    if length.min() < 1 or width > 12:
        return None
    letters = _windows(data, width)[end - width]
    letters &= _keep_right(width)[length]
    found: list[bytes] = letters.view(f"S{width}")[:, 0].tolist()
    return [word.lstrip(b"\0") for word in found] if length.min() < width else found


def numbers(data: bytes, begin: IntColumn, end: IntColumn) -> FloatColumn | None:
    """Decimal numbers, with an exponent or without; None if a cell is none.

    Raises:
        ValueError: a cell has the characters of a number in an order that means none.
    """
    length = end - begin
    if length.min() < 1 or length.max() > LONGEST_NUMBER:
        return None
    if length.max() <= 15:
        whole = whole_numbers(data, begin, end)
        if whole is not None:
            return whole.astype(np.float64)
    text = np.frombuffer(data, dtype=np.uint8)
    negative = text[begin] == _MINUS
    start = begin + negative
    power, stop = _exponents(text, start, end)
    decimals = stop - start - 2
    plain = (decimals >= 1) & (decimals <= MOST_DECIMALS)
    plain &= text[np.minimum(start + 1, len(text) - 1)] == _DOT
    decimals[~plain] = 0
    fraction = _digits(data, stop - decimals, stop)
    lead = (text[start] - np.uint8(_ZERO)).astype(np.int64)
    odd = ~(plain | (stop - start == 1)) | (lead > 9)
    if fraction.max() > 9:
        odd |= (fraction > 9).any(axis=1)
        fraction[odd] = 0
    if fraction.shape[1] > LONGEST_WHOLE:
        odd |= fraction[:, :-LONGEST_WHOLE].any(axis=1)
        fraction = fraction[:, -LONGEST_WHOLE:]
    mantissa = _whole(fraction) + lead * _POWERS[np.minimum(decimals, LONGEST_WHOLE)]
    power -= decimals
    odd |= (mantissa >= _LARGEST_EXACT) | (power > 0) | (power < -MOST_DECIMALS)
    found: FloatColumn = mantissa / _EXACT_POWERS[np.clip(-power, 0, MOST_DECIMALS)]
    found[negative] = -found[negative]
    for row in np.flatnonzero(odd).tolist():
        cell = data[begin[row] : end[row]]
        if not NUMBER.fullmatch(cell):
            return None
        found[row] = float(cell)
    return found


def times(data: bytes, begin: IntColumn, end: IntColumn) -> FloatColumn | None:
    """``YYYY-MM-DD HH:MM:SS`` in seconds since 1970; None if a cell is of another form.

    Raises:
        ValueError: there is no such day or no such time of day.
    """
    if np.any(end - begin != 19):
        return None
    digits = _windows(data, 19)[begin] - np.uint8(_ZERO)
    for place, mark in _TIME_MARKS:
        if np.any(digits[:, place] != np.uint8((ord(mark) - _ZERO) & 0xFF)):
            return None
        digits[:, place] = 0
    if digits.max() > 9:
        return None
    parts = (digits @ _TIME_WEIGHTS).astype(np.int64)
    dates, hours, minutes, seconds = (parts[:, column] for column in range(4))
    if hours.max() > 23 or minutes.max() > 59 or seconds.max() > 59:
        raise ValueError("there is no such time of day")
    if dates.min() == dates.max():
        days = np.full(len(dates), _day(int(dates[0])), dtype=np.int64)
    else:
        found, place_of = np.unique(dates, return_inverse=True)
        days = np.array([_day(date) for date in found.tolist()], dtype=np.int64)[place_of]
    whole = days * 86_400 + hours * 3600 + minutes * 60 + seconds
    return np.asarray(whole, dtype=np.float64)


def _windows(data: bytes, width: int) -> Bytes:
    """Row i is ``data[i : i + width]``; nothing is copied."""
    return np.ndarray((len(data) - width + 1, width), np.uint8, data, 0, (1, 1))


@functools.cache
def _keep_right(width: int) -> Bytes:
    """Row i is 255 in its last i columns and 0 elsewhere."""
    kept = np.arange(width)[::-1] < np.arange(width + 1)[:, None]
    return np.where(kept, 255, 0).astype(np.uint8)


def _digits(data: bytes, begin: IntColumn, end: IntColumn) -> Bytes:
    """Characters less ``0``, flush right in as many columns as are needed, 0 before a cell."""
    length = end - begin
    width = max(1, int(length.max()))
    digits = _windows(data, width)[end - width]
    digits -= np.uint8(_ZERO)
    digits &= _keep_right(width)[length]
    return digits


def _whole(digits: Bytes) -> IntColumn:
    """Up to 18 digits in a row as a number, nine by nine, as floats hold nine exactly."""
    halves = (digits @ _WEIGHTS[-digits.shape[1] :]).astype(np.int64)
    return np.asarray(halves[:, 0] * _POWERS[_HALF] + halves[:, 1], dtype=np.int64)


def _exponents(text: Bytes, start: IntColumn, end: IntColumn) -> tuple[IntColumn, IntColumn]:
    """The power of ten after an ``e``, and where what comes before it ends.

    An exponent that is not a sign and two digits is left where it is.
    """
    power, stop = np.zeros(len(end), dtype=np.int64), end.copy()
    rows = np.flatnonzero((text[end - _EXPONENT] == _SMALL_E) & (end - start > _EXPONENT))
    if len(rows):
        sign, tens, ones = (text[end[rows] - place] for place in (3, 2, 1))
        tens, ones = tens - np.uint8(_ZERO), ones - np.uint8(_ZERO)
        size = 10 * tens.astype(np.int64) + ones
        right = ((sign == _MINUS) | (sign == _PLUS)) & (tens <= 9) & (ones <= 9)
        power[rows[right]] = np.where(sign == _MINUS, -size, size)[right]
        stop[rows[right]] -= _EXPONENT
    return power, stop


def _day(date: int) -> int:
    return (dt.date(date // 10_000, date // 100 % 100, date % 100) - dt.date(1970, 1, 1)).days
