"""Fewer rows that draw the same curve: of each piece the lowest and the highest.

A line through the first, last, lowest and highest row of each pixel's width covers the same pixels
as a line through all rows: U. Jugel et al., "M4: a visualization-oriented time series data
aggregation", Proc. VLDB Endowment 7 (2014) 797. Here without the first and last of each piece,
which doubles the number of pieces for the same number of rows.
"""

from __future__ import annotations

import numpy as np

from labctl.model import FloatColumn, IntColumn

FEWEST = 4


def rows_to_draw(values: FloatColumn, most: int) -> IntColumn:
    """Rows, ascending and at most ``most`` of them, that keep the look of a curve.

    The first and the last row are among them, and of each of (most - 2) / 2 pieces of equally many
    rows the one of the lowest and the one of the highest value. Values that are not a number are
    passed over, unless a piece has nothing else.

    Raises:
        ValueError: ``most`` is below 4.
    """
    if most < FEWEST:
        raise ValueError(f"at least {FEWEST} rows are needed to draw a curve, not {most}")
    count = len(values)
    if count <= most:
        return np.arange(count, dtype=np.int64)
    pieces = (most - 2) // 2
    piece = np.arange(count, dtype=np.int64) * pieces // count
    firsts = np.flatnonzero(np.diff(piece, prepend=-1))
    lowest = np.lexsort((np.where(np.isnan(values), np.inf, values), piece))[firsts]
    highest = np.lexsort((np.where(np.isnan(values), np.inf, -values), piece))[firsts]
    return np.unique(np.concatenate([[0], lowest, highest, [count - 1]])).astype(np.int64)
