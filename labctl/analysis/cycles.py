"""Cycles: what was charged and discharged, how efficiently, and what is left of it.

Charge and energy of a record are net since the run began, positive for charging. A change of the
charge between two records counts as charging where it is positive and as discharging where it is
negative, whatever the step was meant to do; the change of the energy goes with it. Everything that
is returned is at or above 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labctl.model import FloatColumn, IntColumn


@dataclass(frozen=True, slots=True)
class CycleSummary:
    """One cycle reckoned from its records.

    charge_Ah, discharge_Ah, charge_Wh, discharge_Wh: integrals of current of one sign each.
    duration_s: from the record before the cycle to its last one.
    voltage_min_V .. current_max_A: extremes over the cycle's own records, NaN if it has none.
    """

    charge_Ah: float
    discharge_Ah: float
    charge_Wh: float
    discharge_Wh: float
    duration_s: float
    voltage_min_V: float
    voltage_max_V: float
    current_min_A: float
    current_max_A: float

    @property
    def coulombic_efficiency(self) -> float:
        """See :func:`coulombic_efficiency`."""
        return coulombic_efficiency(self.charge_Ah, self.discharge_Ah)

    @property
    def mean_charge_voltage_V(self) -> float:
        """Charged energy over charged charge; NaN where nothing was charged."""
        return _ratio(self.charge_Wh, self.charge_Ah)

    @property
    def mean_discharge_voltage_V(self) -> float:
        """Discharged energy over discharged charge; NaN where nothing was discharged."""
        return _ratio(self.discharge_Wh, self.discharge_Ah)


def summarise_cycle(
    test_time_s: FloatColumn,
    voltage_V: FloatColumn,
    current_A: FloatColumn,
    charge_Ah: FloatColumn,
    energy_Wh: FloatColumn,
) -> CycleSummary:
    """The summary of one cycle.

    Args:
        test_time_s, voltage_V, current_A, charge_Ah, energy_Wh: columns of equal length n + 1: the
            record before the cycle, from which its first change is taken, and its n records.

    Raises:
        ValueError: no record at all.
    """
    if len(charge_Ah) == 0:
        raise ValueError("a cycle needs at least the record before it")
    return summarise_cycles(
        test_time_s,
        voltage_V,
        current_A,
        charge_Ah,
        energy_Wh,
        np.array([0], dtype=np.int64),
        np.array([len(charge_Ah) - 1], dtype=np.int64),
    )[0]


def summarise_cycles(
    test_time_s: FloatColumn,
    voltage_V: FloatColumn,
    current_A: FloatColumn,
    charge_Ah: FloatColumn,
    energy_Wh: FloatColumn,
    before: IntColumn,
    last: IntColumn,
) -> list[CycleSummary]:
    """The summaries of several cycles in one block of records, each the same as by itself.

    Args:
        before: row of the record before each cycle.
        last: row of the last record of each cycle, at or above ``before``.
    """
    if len(before) == 0:
        return []
    change_Ah = np.diff(charge_Ah, append=charge_Ah[-1])
    change_Wh = np.diff(energy_Wh, append=energy_Wh[-1])
    up, down = change_Ah > 0, change_Ah < 0
    edges = np.column_stack((before, last)).ravel()
    empty = before == last

    def total(values: FloatColumn) -> npt.NDArray[np.float64]:
        # A cycle without records would get one row's value from reduceat instead of nothing.
        return np.where(empty, 0.0, np.add.reduceat(values, edges)[::2])

    next_V = np.append(voltage_V[1:], np.nan)
    next_A = np.append(current_A[1:], np.nan)
    columns = (
        total(np.where(up, change_Ah, 0.0)),
        total(np.where(down, -change_Ah, 0.0)),
        np.maximum(total(np.where(up, change_Wh, 0.0)), 0.0),
        np.maximum(total(np.where(down, -change_Wh, 0.0)), 0.0),
        test_time_s[last] - test_time_s[before],
        np.where(empty, np.nan, np.minimum.reduceat(next_V, edges)[::2]),
        np.where(empty, np.nan, np.maximum.reduceat(next_V, edges)[::2]),
        np.where(empty, np.nan, np.minimum.reduceat(next_A, edges)[::2]),
        np.where(empty, np.nan, np.maximum.reduceat(next_A, edges)[::2]),
    )
    return [CycleSummary(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def coulombic_efficiency(charge_Ah: float, discharge_Ah: float) -> float:
    """Discharge over charge of one cycle, as a fraction; NaN where nothing was charged.

    A first cycle far above 1 is right for a cathode that gives two Na and takes three back.
    """
    return _ratio(discharge_Ah, charge_Ah)


def reference_capacity_Ah(discharge_Ah: Sequence[float]) -> float:
    """The median of the discharge capacities of the reference cycles.

    Raises:
        ValueError: no cycle.
    """
    if not discharge_Ah:
        raise ValueError("a reference needs at least one cycle")
    return float(statistics.median(discharge_Ah))


def retention(discharge_Ah: float, reference_Ah: float) -> float:
    """What is left of the reference capacity, as a fraction; NaN where the reference is 0."""
    return _ratio(discharge_Ah, reference_Ah)


def retention_over(
    discharge_Ah: Sequence[float], first: int, last: int, *, over_cycles: int = 5
) -> float:
    """What is left at the end of cycles ``first`` to ``last`` of what was there at their beginning.

    A fraction: the median of the last ``over_cycles`` of the range over the median of its first
    ones, so that one odd cycle does not decide. NaN where the cycles do not reach so far.

    Args:
        discharge_Ah: of comparable cycles of one class, in order; any unit. The first is number 1.

    Raises:
        ValueError: the range is empty, or shorter than two times ``over_cycles``.
    """
    if not (first >= 1 and over_cycles >= 1 and last - first + 1 >= 2 * over_cycles):
        raise ValueError(
            f"cycles {first} to {last} are too few to compare {over_cycles} with {over_cycles}"
        )
    if len(discharge_Ah) < last:
        return math.nan
    begin = statistics.median(discharge_Ah[first - 1 : first - 1 + over_cycles])
    end = statistics.median(discharge_Ah[last - over_cycles : last])
    return _ratio(end, begin)


def specific_energy_Wh_kg(energy_Wh: float, active_mass_g: float) -> float:
    """Energy per kilogram of active material; NaN where the mass is not above 0."""
    return _ratio(1000.0 * energy_Wh, active_mass_g)


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan
