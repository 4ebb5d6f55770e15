"""Fewer rows draw the same curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.analysis.thinning import rows_to_draw

VALUES = st.lists(st.floats(-5, 5) | st.just(float("nan")), max_size=300)


@given(values=VALUES, most=st.integers(4, 60))
def test_no_more_rows_than_asked_for_and_the_ends_and_extremes_among_them(
    values: list[float], most: int
) -> None:
    column = np.array(values)
    rows = rows_to_draw(column, most)
    assert len(rows) <= most
    assert list(rows) == sorted(set(rows))
    if len(values):
        assert {0, len(values) - 1} <= set(rows)
    if np.isfinite(column).any():
        assert np.nanmin(column[rows]) == np.nanmin(column)
        assert np.nanmax(column[rows]) == np.nanmax(column)


def test_each_piece_keeps_its_own_extremes() -> None:
    spikes = np.zeros(10_000)
    spikes[1_234], spikes[5_678] = 3.0, -2.0
    rows = rows_to_draw(spikes, 100)
    assert {1_234, 5_678} <= set(rows)
    assert np.diff(rows).max() <= 10_000 / 49 * 2


def test_a_short_curve_is_kept_whole_and_too_few_rows_are_refused() -> None:
    assert list(rows_to_draw(np.arange(7.0), 10)) == list(range(7))
    with pytest.raises(ValueError, match="at least 4 rows"):
        rows_to_draw(np.arange(7.0), 3)
