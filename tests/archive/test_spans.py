"""Spans are sets of numbers, written short."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.archive.spans import Spans

NUMBERS = st.sets(st.integers(1, 60), max_size=40)


def of(numbers: set[int]) -> Spans:
    return Spans((n, n) for n in numbers)


def as_set(spans: Spans) -> set[int]:
    return {n for first, last in spans for n in range(first, last + 1)}


@given(NUMBERS, NUMBERS)
def test_spans_are_sets_of_numbers(one: set[int], other: set[int]) -> None:
    both = of(one).with_spans(of(other))
    assert as_set(both) == one | other
    assert both == of(one | other)
    assert both.count == len(one | other)
    pieces = list(both)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(pieces))


@given(NUMBERS)
def test_spans_are_read_as_they_are_written(numbers: set[int]) -> None:
    assert Spans.parse(str(of(numbers))) == of(numbers)


@given(NUMBERS, st.integers(1, 60), st.integers(1, 60))
def test_holes_and_touching(numbers: set[int], a: int, b: int) -> None:
    first, last = min(a, b), max(a, b)
    asked = set(range(first, last + 1))
    assert of(numbers).touches(first, last) == bool(asked & numbers)
    assert as_set(of(numbers).holes(first, last)) == asked - numbers


def test_everything_up_to_the_first_hole_is_through() -> None:
    assert Spans.parse("1-5 7").through == 5
    assert Spans.parse("2-5").through == 0
    assert Spans().through == 0


@pytest.mark.parametrize("piece", [(0, 1), (3, 2)])
def test_a_span_that_is_none_is_refused(piece: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a span"):
        Spans([piece])
