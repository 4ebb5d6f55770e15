"""Charge and energy over the visits of a block of readings. Pure.

Every sum is made one addition after the other, in the order of the readings, so that the cut into
blocks leaves no trace in it. Net, positive for charging.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from labctl.model import FloatColumn


def trapezoids(
    time_s: FloatColumn,
    rate: FloatColumn,
    begins: Sequence[int],
    before: tuple[float, float] | None,
) -> FloatColumn:
    """What each reading adds to the integral of ``rate``, in units of rate x hour.

    Args:
        time_s: since the visit of each row began.
        begins: the rows with which a visit begins: from its beginning on, the rate is taken to have
            been that of its first reading.
        before: time and rate of the reading before row 0; None where row 0 begins a visit.
    """
    time_before_s, rate_before = np.empty_like(time_s), np.empty_like(rate)
    time_before_s[1:], rate_before[1:] = time_s[:-1], rate[:-1]
    rows = np.asarray(begins, dtype=np.int64)
    time_before_s[rows], rate_before[rows] = 0.0, rate[rows]
    if before is not None:
        time_before_s[0], rate_before[0] = before
    hours = (time_s - time_before_s) / 3600.0
    return np.asarray(hours * (rate + rate_before) / 2.0, dtype=np.float64)


def integrate(
    counter: FloatColumn,
    added: FloatColumn | None,
    edges: Sequence[int],
    start: float,
    before: float,
) -> FloatColumn:
    """The integral since the run began at each row: by the instrument's counter, or by trapezoids.

    Each row for itself, so that a counter that is missing here and there is bridged the same way
    however the rows are cut into blocks.

    Args:
        counter: since the visit began; NaN where the instrument has none.
        added: see :func:`trapezoids`; may be None where no counter is missing.
        edges: the first row of each visit, and the number of rows.
        start: the integral where the counter of the first visit began.
        before: the integral at the reading before row 0.
    """
    if added is None:
        if len(edges) == 2:
            return start + counter
        bounds = np.asarray(edges)
        starts = np.concatenate(([start], counter[bounds[1:-1] - 1]))
        np.add.accumulate(starts, out=starts)
        return np.asarray(starts.repeat(bounds[1:] - bounds[:-1]) + counter, dtype=np.float64)
    known = np.isfinite(counter)
    sums = np.empty(len(counter))
    for visit, (first, end) in enumerate(itertools.pairwise(edges)):
        rows = slice(first, end)
        origin = start if visit == 0 else before
        if known[rows].all():
            sums[rows] = origin + counter[rows]
        elif not known[rows].any():
            sums[rows] = running_sum(before, added[rows])
        else:
            for row in range(first, end):
                before = origin + counter[row] if known[row] else before + added[row]
                sums[row] = before
        before = float(sums[end - 1])
    return sums


def running_sum(start: float, changes: FloatColumn) -> FloatColumn:
    """``start`` and all changes up to each row."""
    return np.asarray(np.add.accumulate(np.concatenate(([start], changes)))[1:], dtype=np.float64)


def sums_by_sign(
    charge_Ah: FloatColumn,
    energy_Wh: FloatColumn,
    before: tuple[float, float],
    edges: Sequence[int],
    first_visit: tuple[float, float, float, float],
) -> list[list[float]]:
    """Charged and discharged Ah, charged and discharged Wh of each visit, all at or above 0.

    Energy goes with the sign of the change of the charge.

    Args:
        charge_Ah, energy_Wh: since the run began.
        before: both at the reading before row 0.
        edges: the first row of each visit, and the number of rows.
        first_visit: what the first visit had come to before row 0.
    """
    change_Ah, change_Wh = _changes(charge_Ah, before[0]), _changes(energy_Wh, before[1])
    charging = change_Ah > 0
    discharging = ~charging
    parts: npt.NDArray[np.float64] = np.empty((4, len(change_Ah)))
    np.multiply(change_Ah, charging, out=parts[0])
    np.multiply(-change_Ah, discharging, out=parts[1])
    np.multiply(change_Wh, charging, out=parts[2])
    np.multiply(-change_Wh, discharging, out=parts[3])
    parts[:, 0] += first_visit
    sums: list[list[float]] = []
    for first, end in itertools.pairwise(edges):
        total = np.add.accumulate(parts[:, first:end], axis=1)[:, -1]
        sums.append((total + 0.0).tolist())
    return sums


def _changes(values: FloatColumn, before: float) -> FloatColumn:
    changes = np.empty_like(values)
    changes[0] = values[0] - before
    np.subtract(values[1:], values[:-1], out=changes[1:])
    return changes
