"""Data packages and numbers, against the examples of the MethodSCRIPT manual."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.palmsens.packages import (
    Kind,
    PackageError,
    Status,
    Variable,
    integer,
    literal,
    parse_package,
)
from labctl.simulators.palmsens.values import Value, encoded, parse_literal


def test_the_manuals_package_has_a_potential_and_an_underloaded_current() -> None:
    """MethodSCRIPT manual v1.8, chapter 5, the worked example of a data package."""
    package = parse_package("Pda8000190m;ba800000Am,14,20B")
    assert package == {
        "da": Variable("da", 0.4),
        "ba": Variable("ba", 0.01, Status.UNDERLOAD, 0x0B),
    }
    assert not package["ba"].overloaded


@pytest.mark.parametrize(
    ("text", "value"), [("800000Am", 0.01), ("7FFFFF6m", -0.01), ("8000000 ", 0.0)]
)
def test_the_manuals_values_are_read_exactly(text: str, value: float) -> None:
    """MethodSCRIPT manual v1.8, chapter 5: 0.01 is 800000Am, -0.01 is 7FFFFF6m."""
    assert parse_package(f"Pba{text}")[Kind.CURRENT].value == value


def test_an_integer_has_no_prefix_of_size() -> None:
    assert parse_package("Pee800002Ai")[Kind.COUNT].value == 42


def test_what_is_no_number_is_nan() -> None:
    assert math.isnan(parse_package("Pba     nan,12")[Kind.CURRENT].value)


def test_an_overloaded_value_says_so() -> None:
    assert parse_package("Pba8001388n,12,218")[Kind.CURRENT].overloaded
    warned = parse_package("Pba8001388n,18,218")[Kind.CURRENT]
    assert warned.status is Status.OVERLOAD_WARNING
    assert not warned.overloaded


def test_metadata_that_is_not_known_is_passed_over() -> None:
    assert parse_package("Pab8000001m,10,206,3FF,4")[Kind.POTENTIAL] == Variable(
        "ab", 0.001, Status.FINE, 6
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "P",
        "T8000190m",
        "Pda8000190",
        "Pda80001g0m",
        "Pda800019am",
        "Pda8000190x",
        "Pda8000190m;",
        "Pda8000190m;ba80000",
        "PDA8000190m",
        "Pda8000190m;da8000190m",
        "Pda8000190m ba800000Am",
    ],
)
def test_a_line_that_is_cut_or_changed_is_no_package(line: str) -> None:
    with pytest.raises(PackageError):
        parse_package(line)


@given(st.text(max_size=80))
def test_no_line_does_anything_but_be_read_or_be_refused(text: str) -> None:
    try:
        package = parse_package("P" + text)
    except PackageError:
        return
    assert all(len(kind) == 2 for kind in package)


@given(st.text(alphabet="abdmnup,;128F0 9", max_size=40))
def test_no_line_of_the_right_letters_does_either(text: str) -> None:
    try:
        parse_package("P" + text)
    except PackageError:
        return


@given(st.floats(-1e9, 1e9, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-15))
def test_what_an_instrument_writes_is_what_is_read(number: float) -> None:
    value = Value(number, "ba")
    read = parse_package("P" + encoded(value))[Kind.CURRENT].value
    assert read == pytest.approx(number, rel=4e-6)


@given(st.integers(-(2**27), 2**27 - 1))
def test_integers_come_through_exactly(number: int) -> None:
    assert parse_package("P" + encoded(Value(number, "ee")))[Kind.COUNT].value == number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (4.1, "4100m"),
        (-4e-5, "-40u"),
        (0.011, "11m"),
        (1e5, "100k"),
        (600.0, "600"),
        (5.850535, "5850535u"),
        (1e-4, "100u"),
    ],
)
def test_numbers_are_written_as_whole_numbers_with_a_prefix(value: float, text: str) -> None:
    """MethodSCRIPT manual v1.8, chapter 4: there is no decimal point."""
    assert literal(value) == text


@given(st.floats(-1e9, 1e9).filter(lambda v: v == 0 or abs(v) > 1e-11))
def test_what_is_written_is_what_the_instrument_reads(value: float) -> None:
    read = parse_literal(literal(value))
    assert read is not None
    assert not isinstance(read, int)
    assert read == pytest.approx(value, rel=1e-6)


def test_what_is_not_finite_cannot_be_written() -> None:
    for value in (math.inf, -math.inf, math.nan, 1e15):
        with pytest.raises(ValueError, match="cannot be written"):
            literal(value)
    assert integer(-3) == "-3i"
