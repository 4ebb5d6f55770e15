"""The slope of a capacity over its cycles, robustly, and how sure it is.

P. K. Sen, Journal of the American Statistical Association 63 (1968) 1379: the median of the slopes
of all pairs of points; the interval comes from the distribution of Kendall's tau without ties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labctl.alarms.evidence import ComparableCycle

SURE = 3.29
"""The interval's half width in standard deviations: 99.9 %. A run is looked at some thousand times,
so that 95 % would be too little."""


HALVES_AT_LEAST = 0.4
"""What the slope of each half has of the whole slope at the least, where all of it falls."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Of the discharge capacity.

    per_cycle_Ah: negative for a cell that fades.
    low_Ah, high_Ah: the ends of the slope's interval.
    end_Ah: where the line ends, at the last cycle.
    """

    per_cycle_Ah: float
    low_Ah: float
    high_Ah: float
    end_Ah: float


def slope_of(cycles: Sequence[ComparableCycle]) -> Slope:
    """The line through two or more comparable cycles of one class, over their positions in it."""
    x = np.array([one.position for one in cycles], dtype=np.float64)
    y = np.array([one.discharge_Ah for one in cycles], dtype=np.float64)
    count = len(x)
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    pairs = len(slopes)
    apart = SURE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(math.floor((pairs - apart) / 2), 0)
    middle = float((slopes[(pairs - 1) // 2] + slopes[pairs // 2]) / 2)
    return Slope(
        middle,
        float(slopes[low]),
        float(slopes[pairs - 1 - low]),
        float(np.median(y - middle * (x - x[-1]))),
    )


def span(cycles: Sequence[ComparableCycle]) -> float:
    """How far apart the highest and the lowest capacity are, as a fraction of the highest."""
    capacities_Ah = [one.discharge_Ah for one in cycles]
    highest_Ah = max(capacities_Ah)
    return (highest_Ah - min(capacities_Ah)) / highest_Ah if highest_Ah > 0 else 0.0


def falls_in_both_halves(cycles: Sequence[ComparableCycle], whole: Slope) -> bool:
    """Whether each half of four or more ``cycles`` falls, and not a single step in one of them."""
    middle = len(cycles) // 2
    return all(
        slope_of(half).per_cycle_Ah < HALVES_AT_LEAST * whole.per_cycle_Ah
        for half in (cycles[:middle], cycles[middle:])
    )
