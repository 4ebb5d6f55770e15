"""dQ/dV: where on the voltage axis a cell takes and gives its charge, its peaks and its plateaus.

The curve is a histogram, not a quotient: the charge that passes between two records is spread
evenly over the voltages between them, and summed on an even grid. So noise and records that go
back in voltage (a flat plateau with 0.2 mV of noise) do no harm, no charge is lost or made, and
nothing is ever divided by a voltage difference of zero.

Charge may be in Ah, mAh or mAh/g; everything else follows it. Method and its use for ageing:
Bloom et al., J. Power Sources 139 (2005) 295; Dubarry et al., Electrochem. Solid-State Lett. 9
(2006) A454. Prominence as in topography: the drop to the higher of the two saddles beside a peak.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from labctl.model import FloatColumn

NARROWEST_STEP_V = 1e-5
END_HOLD_V = 2e-3


@dataclass(frozen=True, slots=True)
class HalfCycle:
    """The records of one charge or one discharge, in order.

    charge_Ah: passed since its first record, at or above 0 in the main, in either direction.
    """

    charging: bool
    voltage_V: FloatColumn
    charge_Ah: FloatColumn


@dataclass(frozen=True, slots=True)
class DqDv:
    """A dQ/dV curve on an even grid; ``dqdv_Ah_V`` is at or above 0 in the main for both halves.

    voltage_V: middles of the bins, ascending.
    """

    charging: bool
    voltage_V: FloatColumn
    dqdv_Ah_V: FloatColumn

    @property
    def bin_V(self) -> float:
        return float(self.voltage_V[1] - self.voltage_V[0])

    @property
    def charge_Ah(self) -> float:
        """The charge below the whole curve."""
        return float(self.dqdv_Ah_V.sum() * self.bin_V)


@dataclass(frozen=True, slots=True)
class Peak:
    """One peak of a dQ/dV curve.

    voltage_V: the middle of what is above 70 % of its prominence.
    width_V: at half its prominence; smoothing is part of it.
    charge_Ah: below the curve between the two saddles beside it.
    """

    voltage_V: float
    height_Ah_V: float
    prominence_Ah_V: float
    width_V: float
    charge_Ah: float


@dataclass(frozen=True, slots=True)
class Plateau:
    """A peak of the charge and the one of the discharge that belongs to it.

    voltage_V: midway between them, free of what polarises both alike.
    separation_V: charge minus discharge: twice the polarisation.
    """

    voltage_V: float
    separation_V: float
    charge: Peak
    discharge: Peak


def half_cycles(
    voltage_V: FloatColumn, current_A: FloatColumn, charge_Ah: FloatColumn
) -> tuple[HalfCycle | None, HalfCycle | None]:
    """The charge and the discharge in the records of one cycle, None where there is none.

    Of several pieces of one direction the one that passes most charge is taken. Records of equal
    length, any order of charge and discharge, rests between; ``charge_Ah`` is a net counter.

    Raises:
        ValueError: columns of different lengths.
    """
    if not len(voltage_V) == len(current_A) == len(charge_Ah):
        raise ValueError("voltage, current and charge must have the same length")
    good = np.isfinite(voltage_V) & np.isfinite(current_A) & np.isfinite(charge_Ah)
    voltage, current, charge = voltage_V[good], current_A[good], charge_Ah[good]
    if not len(voltage):
        return None, None
    threshold = 0.01 * float(np.abs(current).max())
    direction = np.where(np.abs(current) <= threshold, 0, np.sign(current)).astype(np.int64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(direction)) + 1, [len(direction)]])
    best: dict[int, tuple[float, int, int]] = {}
    for first, end in itertools.pairwise(starts):
        sign = int(direction[first])
        passed = abs(float(charge[end - 1] - charge[first]))
        if sign and end - first >= 3 and passed > best.get(sign, (0.0, 0, 0))[0]:
            best[sign] = (passed, int(first), int(end))
    halves: list[HalfCycle | None] = []
    for sign in (1, -1):
        _, first, end = best.get(sign, (0.0, 0, 0))
        halves.append(
            HalfCycle(sign > 0, voltage[first:end], sign * (charge[first:end] - charge[first]))
            if end
            else None
        )
    return halves[0], halves[1]


def dqdv(
    voltage_V: FloatColumn,
    charge_Ah: FloatColumn,
    *,
    bin_V: float = 2e-3,
    smooth_V: float = 4e-3,
    window_V: tuple[float, float] | None = None,
    keep_end_hold: bool = False,
) -> DqDv:
    """The dQ/dV curve of one charge or discharge.

    Args:
        voltage_V, charge_Ah: records in order; whether it is a charge follows from the charge.
            Records that are not finite are left out.
        bin_V: width of a bin.
        smooth_V: standard deviation of the Gauss curve that smooths; 0 for none. Peaks are
            widened by it, none is moved.
        window_V: from and to; charge outside is left out. Default: where the records are.
        keep_end_hold: whether charge at the very end of the window counts, where a constant
            voltage is held: it would make a peak that is no plateau.

    Raises:
        ValueError: fewer than 3 records, no charge, or a bin or window that is not one.
    """
    good = np.isfinite(voltage_V) & np.isfinite(charge_Ah)
    voltage, charge = voltage_V[good], charge_Ah[good]
    if len(voltage) < 3:
        raise ValueError(f"a dQ/dV curve takes at least 3 records, not {len(voltage)}")
    passed = float(charge[-1] - charge[0])
    if passed == 0:
        raise ValueError("no charge passes between the first and the last record")
    if not (bin_V > 0 and smooth_V >= 0):
        raise ValueError(f"bin_V {bin_V} must be above 0 and smooth_V {smooth_V} not below")
    charging = passed > 0
    if not keep_end_hold:
        end = _end_of_sweep(voltage, charging)
        voltage, charge = voltage[:end], charge[:end]
    low, high = window_V or (float(voltage.min()), float(voltage.max()))
    if not (low <= high and np.isfinite([low, high]).all()):
        raise ValueError(f"the window {low} V .. {high} V is not one")
    margin = 0.0 if window_V else 4 * smooth_V + bin_V
    first = np.floor((low - margin) / bin_V)
    count = max(3, int(np.ceil((high + margin) / bin_V - first)) + 1)
    edges = (first + np.arange(count + 1)) * bin_V
    steps = np.diff(charge) * (1.0 if charging else -1.0)
    curve = np.diff(charge_below(edges, voltage, steps)) / bin_V
    return DqDv(charging, edges[:-1] + bin_V / 2, _smoothed(curve, smooth_V / bin_V))


def find_peaks(
    curve: DqDv,
    *,
    least_prominence: float = 0.06,
    least_relief: float = 0.4,
    least_charge: float = 0.03,
    apart_V: float = 0.04,
) -> tuple[Peak, ...]:
    """The peaks of a curve, in order of voltage.

    Args:
        least_prominence: of the highest peak's height; smaller ones are taken for noise.
        least_relief: prominence of a peak's own height; what stands out less is a ripple.
        least_charge: of the charge below the whole curve; smaller ones are taken for noise.
        apart_V: of two peaks that are closer the lower one is part of the higher.
    """
    heights = curve.dqdv_Ah_V
    padded = np.concatenate([[-np.inf], heights, [-np.inf]])
    tops = np.flatnonzero((padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:]))
    total = curve.charge_Ah
    highest = float(heights.max())
    if highest <= 0 or total <= 0:
        return ()
    found: list[Peak] = []
    for top in tops[np.argsort(-heights[tops], kind="stable")]:
        height = float(heights[top])
        if height < least_prominence * highest:
            break
        left, right, prominence = _saddles(heights, int(top))
        charge = float(heights[left : right + 1].sum() * curve.bin_V)
        relief = max(least_prominence * highest, least_relief * height)
        if prominence < relief or charge < least_charge * total:
            continue
        low, high = _crossings(curve, int(top), height - 0.3 * prominence)
        middle = (low + high) / 2
        if any(abs(peak.voltage_V - middle) < apart_V for peak in found):
            continue
        half_low, half_high = _crossings(curve, int(top), height - 0.5 * prominence)
        found.append(Peak(middle, height, prominence, half_high - half_low, charge))
    return tuple(sorted(found, key=lambda peak: peak.voltage_V))


def plateaus(
    charge: DqDv, discharge: DqDv, *, largest_separation_V: float = 0.4, noise_V: float = 0.01
) -> tuple[Plateau, ...]:
    """Matching peaks of a charge and a discharge, the closest first matched, in order of voltage.

    A charge peak lies above the discharge peak of the same plateau, or below by no more than
    ``noise_V``. A peak without a partner is left out.
    """
    pairs = sorted(
        (
            (up.voltage_V - down.voltage_V, up, down)
            for up in find_peaks(charge)
            for down in find_peaks(discharge)
            if -noise_V <= up.voltage_V - down.voltage_V <= largest_separation_V
        ),
        key=lambda pair: abs(pair[0]),
    )
    taken: set[Peak] = set()
    found: list[Plateau] = []
    for separation, up, down in pairs:
        if up not in taken and down not in taken:
            taken |= {up, down}
            middle = (up.voltage_V + down.voltage_V) / 2
            found.append(Plateau(middle, separation, up, down))
    return tuple(sorted(found, key=lambda plateau: plateau.voltage_V))


def _end_of_sweep(voltage: FloatColumn, charging: bool) -> int:
    """How many records to take so that a hold at the end voltage is left out."""
    towards = voltage if charging else -voltage
    arrived = int(np.argmax(towards >= towards.max() - END_HOLD_V))
    return max(3, arrived + 1)


def charge_below(edges: FloatColumn, voltage: FloatColumn, steps: FloatColumn) -> FloatColumn:
    """The charge that passes below each edge, each step spread evenly over its voltages.

    Args:
        edges: voltages, ascending.
        voltage: of the records, in order.
        steps: charge between each two records, so one fewer.
    """
    low = np.minimum(voltage[:-1], voltage[1:])
    high = np.maximum(voltage[:-1], voltage[1:])
    widen = np.maximum(0.0, NARROWEST_STEP_V - (high - low)) / 2
    low, high = low - widen, high + widen
    densities = steps / (high - low)
    at = np.concatenate([low, high])
    order = np.argsort(at, kind="stable")
    at = at[order]
    density = np.cumsum(np.concatenate([densities, -densities])[order])
    below = np.concatenate([[0.0], np.cumsum(density[:-1] * np.diff(at))])
    return np.asarray(np.interp(edges, at, below), dtype=np.float64)


def _smoothed(curve: FloatColumn, sigma_bins: float) -> FloatColumn:
    if sigma_bins < 0.05:
        return curve
    reach = int(np.ceil(4 * sigma_bins))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_bins) ** 2)
    smooth = np.asarray(np.convolve(curve, kernel / kernel.sum(), mode="full"), dtype=np.float64)
    return smooth[reach : reach + len(curve)]


def _saddles(heights: FloatColumn, top: int) -> tuple[int, int, float]:
    """The lowest points towards the next higher ground on each side, and the prominence."""
    height = heights[top]
    higher = np.flatnonzero(heights[:top] > height)
    start = int(higher[-1]) if len(higher) else 0
    left = start + int(np.argmin(heights[start : top + 1]))
    higher = np.flatnonzero(heights[top + 1 :] > height)
    end = top + 1 + int(higher[0]) if len(higher) else len(heights) - 1
    right = end - int(np.argmin(heights[top : end + 1][::-1]))
    return left, right, float(height - max(heights[left], heights[right]))


def _crossings(curve: DqDv, top: int, level: float) -> tuple[float, float]:
    """Where the curve falls below ``level`` on each side of a top, between grid points."""
    voltage, heights = curve.voltage_V, curve.dqdv_Ah_V
    below = np.flatnonzero(heights[:top] < level)
    if len(below):
        left = int(below[-1])
        share = (level - heights[left]) / (heights[left + 1] - heights[left])
        low = voltage[left] + share * curve.bin_V
    else:
        low = voltage[0]
    below = np.flatnonzero(heights[top + 1 :] < level)
    if len(below):
        right = top + 1 + int(below[0])
        share = (level - heights[right]) / (heights[right - 1] - heights[right])
        high = voltage[right] - share * curve.bin_V
    else:
        high = voltage[-1]
    return float(low), float(high)
