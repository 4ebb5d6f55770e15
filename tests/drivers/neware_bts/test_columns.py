"""Columns of a text are what Python makes of their cells, one by one."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labctl.drivers.neware_bts import columns

Cells = tuple[bytes, np.ndarray, np.ndarray]


def column(*cells: bytes) -> Cells:
    """The cells in quotes, behind one another, with what must stand before the first."""
    data, begin, end = columns.PADDING, [], []
    for cell in cells:
        data += b'"'
        begin.append(len(data))
        data += cell
        end.append(len(data))
        data += b'"'
    return data, np.array(begin), np.array(end)


written = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: b"%.15g" % value),
    st.floats(-10, 10).map(lambda value: b"%.15g" % value),
    st.floats(1e-9, 1e-3).map(lambda value: b"%.15g" % value),
    st.floats(-5, 5).map(lambda value: repr(value).encode()),
    st.integers(-(10**6), 10**9).map(lambda value: b"%d" % value),
    st.sampled_from(
        b"0 -0 7 0.0 1. .5 +3.5 1e5 1E-05 2.5e+10 00.5 0.000000000000000000000000012345 "
        b"123456789012345678901.5 9007199254740993 9.007199254740993 0.1234567890123456789 "
        b"1.7976931348623157e308 1.5e-0 2e-7".split()
    ),
)


@given(st.lists(written, min_size=1, max_size=8))
@example([b"3.6780698299408", b"-0.000295051460852847", b"0.00295628436449786"])
@example([b"2.77777777777778e-06", b"1e-08", b"4.5"])
def test_numbers_are_the_nearest_floats(cells: list[bytes]) -> None:
    found = columns.numbers(*column(*cells))
    assert found is not None
    expected = np.array([float(cell) for cell in cells])
    assert found.tobytes() == expected.tobytes()


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=4))
def test_any_bytes_are_numbers_as_python_has_them_or_none(cells: list[bytes]) -> None:
    try:
        found = columns.numbers(*column(*cells))
    except ValueError:
        return
    if found is not None:
        assert found.tolist() == [float(cell) for cell in cells]
        assert all(columns.NUMBER.fullmatch(cell) for cell in cells)


@pytest.mark.parametrize("cell", [b"", b"nan", b"inf", b"1_0", b" 1", b"1 ", b"0x1", b"1" * 41])
def test_a_cell_that_is_no_number_spoils_its_column(cell: bytes) -> None:
    assert columns.numbers(*column(b"1.5", cell, b"2.5")) is None


@pytest.mark.parametrize("cell", [b"1-2", b"1.2.3", b"e5", b"-", b".", b"1e-"])
def test_a_cell_of_a_numbers_characters_that_means_none_is_an_error(cell: bytes) -> None:
    with pytest.raises(ValueError, match="float"):
        columns.numbers(*column(b"1.5", cell))


@given(st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=8))
def test_whole_numbers_are_exact(values: list[int]) -> None:
    found = columns.whole_numbers(*column(*(b"%d" % value for value in values)))
    assert found is not None
    assert found.tolist() == values


@pytest.mark.parametrize("cell", [b"", b"-1", b"+1", b"1.0", b"1e3", b"x", b"1" * 19])
def test_a_cell_that_is_no_whole_number_spoils_its_column(cell: bytes) -> None:
    assert columns.whole_numbers(*column(b"12", cell)) is None


@given(st.lists(st.datetimes(timezones=st.just(dt.UTC)), min_size=1, max_size=6))
def test_times_are_seconds_since_1970(moments: list[dt.datetime]) -> None:
    moments = [moment.replace(microsecond=0) for moment in moments]
    cells = [f"{moment:%Y-%m-%d %H:%M:%S}".rjust(19, "0").encode() for moment in moments]
    found = columns.times(*column(*cells))
    assert found is not None
    begin = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert found.tolist() == [(moment - begin).total_seconds() for moment in moments]


@pytest.mark.parametrize(
    "cell", [b"2025-02-30 00:00:00", b"2025-13-01 00:00:00", b"2025-01-01 24:00:00"]
)
def test_a_moment_that_there_is_not_is_an_error(cell: bytes) -> None:
    with pytest.raises(ValueError, match=r"day|month"):
        columns.times(*column(b"2025-01-01 00:00:00", cell))


@pytest.mark.parametrize(
    "cell", [b"2025-01-01T00:00:00", b"2025/01/01 00:00:00", b"2o25-01-01 00:00:00", b"", b"now"]
)
def test_a_moment_in_another_form_spoils_its_column(cell: bytes) -> None:
    assert columns.times(*column(b"2025-01-01 00:00:00", cell)) is None


def test_words_are_what_they_are_whatever_their_lengths() -> None:
    assert columns.words(*column(b"cc", b"rest", b"dc")) == [b"cc", b"rest", b"dc"]
    assert columns.words(*column(b"rest", b"rest")) == [b"rest", b"rest"]
    assert columns.words(*column(b"cc", b"")) is None
    assert columns.words(*column(b"a" * 13)) is None


def test_what_stands_before_a_cell_is_looked_at_byte_by_byte() -> None:
    data, begin, _ = column(b"1", b"22", b"333")
    assert columns.stands_before(data, begin, b'"')
    assert columns.stands_before(data, begin[1:], b'""')
    assert not columns.stands_before(data, begin, b'""')
