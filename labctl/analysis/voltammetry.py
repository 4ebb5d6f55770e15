"""Cyclic voltammetry: peaks of the current, their area, and how far apart they are.

A leg is one sweep at a constant rate: upwards it is anodic, downwards cathodic. Along it the
current is the rate times dQ/dV, so that peaks are found as those of :mod:`labctl.analysis.dqdv`
are, on an even grid of voltages. Currents are positive for charging, which is anodic at the
cathode of a cell.

The separation of the anodic and the cathodic peak grows with the polarisation and the rate; for a
reversible couple in solution it is 59 mV at 25 degC, for an adsorbed one 0. A. J. Bard and
L. R. Faulkner, Electrochemical Methods, 2nd ed. (Wiley 2001), 6.2, 6.5 and 14.3.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from labctl.analysis.dqdv import DqDv, Peak, find_peaks, plateaus
from labctl.model import FloatColumn

COLUMNS = ("test_time_s", "voltage_V", "current_A")
FEWEST_RECORDS = 20
BIN_V = 2e-3


@dataclass(frozen=True, slots=True)
class Leg:
    """One sweep: columns of equal length in the order of time.

    rate_V_per_s: above 0, of the straight line through the records.
    """

    anodic: bool
    rate_V_per_s: float
    voltage_V: FloatColumn
    current_A: FloatColumn

    def curve(self, bin_V: float = BIN_V) -> DqDv:
        """|current| over rate as a dQ/dV curve in Ah/V; current of the other sign is negative."""
        sign = 1.0 if self.anodic else -1.0
        order = np.argsort(self.voltage_V, kind="stable")
        voltage, current = self.voltage_V[order], sign * self.current_A[order]
        count = max(3, math.ceil((voltage[-1] - voltage[0]) / bin_V))
        middles = voltage[0] + (np.arange(count) + 0.5) * bin_V
        height = np.interp(middles, voltage, current) / self.rate_V_per_s / 3600.0
        return DqDv(self.anodic, middles, np.asarray(height, dtype=np.float64))

    @property
    def charge_Ah(self) -> float:
        """What passed in the leg's own direction, by trapezoids over its voltages."""
        flowing = np.maximum(self.current_A if self.anodic else -self.current_A, 0.0)
        area = np.trapezoid(flowing, self.voltage_V if self.anodic else -self.voltage_V)
        return float(area) / self.rate_V_per_s / 3600.0


@dataclass(frozen=True, slots=True)
class CurrentPeak:
    """One peak. ``current_A`` has its sign; ``charge_Ah`` is the area below the current between the
    lowest points towards the neighbouring peaks (the ends of the leg where there is none), above 0;
    ``width_V`` is at half its prominence."""

    voltage_V: float
    current_A: float
    charge_Ah: float
    width_V: float


@dataclass(frozen=True, slots=True)
class Couple:
    """An anodic peak and the cathodic one of the same reaction."""

    anodic: CurrentPeak
    cathodic: CurrentPeak

    @property
    def voltage_V(self) -> float:
        """Midway between the peaks."""
        return (self.anodic.voltage_V + self.cathodic.voltage_V) / 2

    @property
    def separation_V(self) -> float:
        """Anodic minus cathodic."""
        return self.anodic.voltage_V - self.cathodic.voltage_V


def legs(samples: pd.DataFrame) -> list[Leg]:
    """The sweeps in the samples of sweep steps, in the order of time.

    Args:
        samples: columns test_time_s, voltage_V, current_A and, where there is one, visit: a leg
            lies within one visit. Where the voltage turns, another leg begins. Pieces of less than
            20 records are left out, and so is what is not finite.

    Raises:
        ValueError: a column is missing.
    """
    if missing := [name for name in COLUMNS if name not in samples]:
        raise ValueError(f"a voltammogram needs the column {', '.join(missing)}")
    time_s, voltage_V, current_A = (samples[name].to_numpy(dtype=np.float64) for name in COLUMNS)
    visit = samples["visit"].to_numpy() if "visit" in samples else np.zeros(len(samples))
    good = np.isfinite(time_s) & np.isfinite(voltage_V) & np.isfinite(current_A)
    time_s, voltage_V, current_A, visit = (
        column[good] for column in (time_s, voltage_V, current_A, visit)
    )
    found = []
    edges = [0, *(np.flatnonzero(np.diff(visit)) + 1).tolist(), len(visit)]
    for first, end in itertools.pairwise(edges):
        for a, b in _monotone(voltage_V[first:end]):
            rows = slice(first + a, first + b)
            span_V, span_s = np.ptp(voltage_V[rows]), time_s[rows][-1] - time_s[rows][0]
            if b - a >= FEWEST_RECORDS and span_V > 0 and span_s > 0:
                anodic = bool(voltage_V[rows][-1] > voltage_V[rows][0])
                rate = abs(float(np.polyfit(time_s[rows], voltage_V[rows], 1)[0]))
                found.append(Leg(anodic, rate, voltage_V[rows], current_A[rows]))
    return found


def peaks(leg: Leg) -> tuple[CurrentPeak, ...]:
    """The peaks of a leg, in order of voltage."""
    curve = leg.curve()
    return _of_leg(leg, curve, find_peaks(curve))


def couples(anodic: Leg, cathodic: Leg, *, largest_separation_V: float = 0.5) -> tuple[Couple, ...]:
    """Anodic and cathodic peaks that belong together, in order of voltage.

    Of all pairs the closest are matched first; a peak without a partner is left out.

    Raises:
        ValueError: the legs do not run upwards and downwards.
    """
    if not anodic.anodic or cathodic.anodic:
        raise ValueError("a couple takes an anodic leg and a cathodic one")
    up, down = anodic.curve(), cathodic.curve()
    rising, falling = find_peaks(up), find_peaks(down)
    anodic_peaks = dict(zip(rising, _of_leg(anodic, up, rising), strict=True))
    cathodic_peaks = dict(zip(falling, _of_leg(cathodic, down, falling), strict=True))
    return tuple(
        Couple(anodic_peaks[one.charge], cathodic_peaks[one.discharge])
        for one in plateaus(up, down, largest_separation_V=largest_separation_V)
    )


def main_couple(found: tuple[Couple, ...]) -> Couple | None:
    """The couple whose anodic peak is the highest; None if there is none."""
    return max(found, key=lambda couple: couple.anodic.current_A, default=None)


def _of_leg(leg: Leg, curve: DqDv, found: tuple[Peak, ...]) -> tuple[CurrentPeak, ...]:
    """Peaks of a curve as peaks of the current; their areas end half way, at the lowest point."""
    if not found:
        return ()
    sign = 1.0 if leg.anodic else -1.0
    tops = [int(np.argmin(np.abs(curve.voltage_V - peak.voltage_V))) for peak in found]
    valleys = [
        left + int(np.argmin(curve.dqdv_Ah_V[left : right + 1]))
        for left, right in itertools.pairwise(tops)
    ]
    edges = [0, *valleys, len(curve.dqdv_Ah_V)]
    made = []
    for peak, (first, end) in zip(found, itertools.pairwise(edges), strict=True):
        near = np.abs(leg.voltage_V - peak.voltage_V) <= max(peak.width_V / 2, 2 * BIN_V)
        rows = np.flatnonzero(near)
        at = rows[np.argmax(sign * leg.current_A[rows])] if len(rows) else None
        made.append(
            CurrentPeak(
                voltage_V=peak.voltage_V if at is None else float(leg.voltage_V[at]),
                current_A=sign * peak.height_Ah_V * leg.rate_V_per_s * 3600.0,
                charge_Ah=float(curve.dqdv_Ah_V[first:end].sum() * curve.bin_V),
                width_V=peak.width_V,
            )
        )
    return tuple(made)


def _monotone(voltage_V: FloatColumn) -> list[tuple[int, int]]:
    """Where the voltage rises or falls throughout, as rows first to end (exclusive).

    Noise does not turn it: a turn is where it comes back by more than 1 % of the whole span.
    """
    if len(voltage_V) < 2:
        return []
    least_V = 0.01 * float(np.ptp(voltage_V))
    turns = [0]
    extreme, direction = 0, 0
    for row in range(1, len(voltage_V)):
        moved = voltage_V[row] - voltage_V[extreme]
        if direction == 0:
            if abs(moved) > least_V:
                direction, extreme = (1 if moved > 0 else -1), row
        elif moved * direction >= 0:
            extreme = row
        elif -moved * direction > least_V:
            turns.append(extreme)
            direction, extreme = -direction, row
    return [(a, b + 1) for a, b in itertools.pairwise([*turns, len(voltage_V) - 1])]
