"""Capacity by windows of voltage: how much charge a cell takes or gives where.

The charge between two records is spread evenly over the voltages between them, as for dQ/dV
(:mod:`labctl.analysis.dqdv`), so that the windows add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labctl.analysis.dqdv import HalfCycle, charge_below
from labctl.model import FloatColumn

STUDY_EDGES_V = (3.0, 3.6)
"""Below 3 V, 3 to 3.6 V, above 3.6 V: one plateau of a vanadium NASICON in each."""


def charge_by_window(half: HalfCycle, edges_V: Sequence[float] = STUDY_EDGES_V) -> FloatColumn:
    """The charge of one charge or discharge below the first edge, between each two, and above.

    In the unit of ``half.charge_Ah``; one more value than edges.

    Raises:
        ValueError: the edges do not ascend, or there are fewer than 2 records.
    """
    if list(edges_V) != sorted(set(edges_V)):
        raise ValueError(f"the edges {list(edges_V)} do not ascend")
    if len(half.voltage_V) < 2:
        raise ValueError("a window of charge takes at least 2 records")
    edges = np.array([-np.inf, *edges_V, np.inf])
    low, high = half.voltage_V.min() - 1.0, half.voltage_V.max() + 1.0
    below = charge_below(np.clip(edges, low, high), half.voltage_V, np.diff(half.charge_Ah))
    return np.diff(below)
