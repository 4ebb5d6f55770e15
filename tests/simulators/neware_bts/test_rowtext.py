"""Rows written by machine code are, byte for byte, those that Python's formatting gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labctl.simulators.neware_bts.rowtext import LARGEST, SMALLEST, TextRows, text_of, warm

ROW = (
    '    <data seqid="%d" stepid="%d" cycleid="%d" steptype="%s" testtime="%d" '
    'atime="2027-01-15 08:00:10" volt="%.15g" curr="%.15g" cap="%.15g" eng="%.15g" />\r\n'
)
WORDS = ("--", "cc", "rest", "cccv", "cycle")


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    warm()


def rows(values: list[float], unix_s: float = 1_800_000_010.0) -> TextRows:
    count = len(values)
    column = np.array(values)
    whole = np.arange(count, dtype=np.int64)
    return TextRows(
        seq=whole + 1,
        step=whole % 254 + 1,
        cycle=whole * 10**9 + 1,
        word=whole % len(WORDS),
        words=WORDS,
        ms=whole * 12_345,
        unix_s=np.full(count, unix_s),
        voltage_V=column,
        current_A=-column,
        capacity_Ah=np.abs(column),
        energy_Wh=np.abs(column) / 3,
    )


def by_python(found: TextRows) -> bytes:
    return "".join(
        ROW
        % (
            found.seq[n],
            found.step[n],
            found.cycle[n],
            WORDS[found.word[n]],
            found.ms[n],
            found.voltage_V[n],
            found.current_A[n],
            found.capacity_Ah[n],
            found.energy_Wh[n],
        )
        for n in range(len(found.seq))
    ).encode()


def near(value: float) -> list[float]:
    return [value, math.nextafter(value, 0), math.nextafter(value, math.inf)]


measured = st.one_of(
    st.floats(-5, 5),
    st.floats(0, 1e-3),
    st.floats(SMALLEST, 1e-4),
    st.floats(-LARGEST, LARGEST),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-50_000, 50_000).map(lambda steps: steps * 1e-4),
    st.integers(0, 10**9).map(lambda steps: steps * 1e-9),
)


@given(st.lists(measured, min_size=1, max_size=6))
@example([0.0, -0.0, 1.0, -1.0, 10.0, 0.1, 1e-4, 1e-5, 123456.0])
@example([value for power in range(-9, 15) for value in near(10.0**power)])
@example([value for digits in range(1, 16) for value in near(10.0 - 10.0**-digits)])
@example([0.5 + 2.0**-power for power in range(2, 53)])
@example([1e-320, 1e-300, 1e300, 1.7976931348623157e308])
def test_numbers_have_fifteen_digits_as_c_writes_them(values: list[float]) -> None:
    found = rows(values)
    assert text_of(found) == by_python(found)


@given(st.lists(st.floats(SMALLEST, 1.0), min_size=1, max_size=40))
def test_halves_are_rounded_to_even_as_c_does(values: list[float]) -> None:
    halves = [round(value, 9) + 0.5e-9 for value in values]
    exact = [math.ldexp(round(math.ldexp(value, 40)), -40) for value in values]
    for some in (halves, exact):
        assert text_of(rows(some)) == by_python(rows(some))


@pytest.mark.parametrize(
    ("unix_s", "label"),
    [
        (0.0, b"1970-01-01 00:00:00"),
        (951_782_400.9, b"2000-02-29 00:00:00"),
        (1_800_000_010.999, b"2027-01-15 08:00:10"),
        (4_102_444_799.0, b"2099-12-31 23:59:59"),
        (253_402_300_799.0, b"9999-12-31 23:59:59"),
    ],
)
def test_a_time_is_labelled_by_its_second_in_utc(unix_s: float, label: bytes) -> None:
    assert b'atime="%s"' % label in text_of(rows([1.0], unix_s))
    assert b'atime="%s"' % label in text_of(rows([1e-12], unix_s))


@given(st.integers(0, 253_402_300_799))
def test_every_second_is_on_the_calendar(second: int) -> None:
    label = str(np.datetime64(second, "s")).replace("T", " ")
    assert f'atime="{label}"'.encode() in text_of(rows([1.0], float(second)))
