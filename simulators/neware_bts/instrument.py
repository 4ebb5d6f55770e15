"""The electronics of one channel: ranges, resolution, accuracy and noise of what it reads.

Every figure is chosen for this simulator to be like a good coin-cell cycler; none is taken from a
data sheet. The output is exact and only the readings err. A reading depends on nothing but the
rack's seed, the channel, the test and the record's number, so it is the same however often and in
whatever pieces the records are asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatColumn = npt.NDArray[np.float64]
IntColumn = npt.NDArray[np.int64]

CURRENT_RANGES_A = (100e-6, 1e-3, 10e-3, 100e-3)
"""Full scales; a step runs in the smallest one that holds its current."""

VOLTAGE_MAX_V = 5.0
COMPLIANCE_V = 6.0
"""Where the output ends up when nothing is connected to it."""

CURRENT_STEPS = 1_000_000
"""A current reading resolves this fraction of its range: 0.1 nA in the smallest."""

VOLTAGE_RESOLUTION_V = 1e-5

GAIN_SIGMA = 5e-5
VOLTAGE_OFFSET_SIGMA_V = 1e-4
CURRENT_OFFSET_SIGMA = 1e-5
"""Of full scale."""
VOLTAGE_NOISE_SIGMA_V = 2e-5
CURRENT_NOISE_SIGMA = 5e-6
"""Of full scale."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_SIGMA_OF_FOUR = math.sqrt(4 * (65536**2 - 1) / 12)


def range_for(current_A: float) -> float | None:
    """The full scale in A of the smallest range that holds a current; None if there is none."""
    return next((full for full in CURRENT_RANGES_A if abs(current_A) <= full * (1 + 1e-9)), None)


@dataclass(frozen=True, slots=True)
class Instrument:
    """The measuring side of one channel; make it with :meth:`of`."""

    key: int
    voltage_gain: float
    voltage_offset_V: float
    current_gain: float
    current_offset: float

    @classmethod
    def of(cls, seed: int, unit: int, channel: int) -> Instrument:
        """The channel's own errors, drawn from the rack's seed."""
        key = _mix(_mix(_mix(seed & _MASK) ^ unit) ^ channel)
        draws = gaussian(_mix(key ^ 0xACC), np.arange(1, 5, dtype=np.int64), 0)
        return cls(
            key=key,
            voltage_gain=1 + GAIN_SIGMA * float(draws[0]),
            voltage_offset_V=VOLTAGE_OFFSET_SIGMA_V * float(draws[1]),
            current_gain=1 + GAIN_SIGMA * float(draws[2]),
            current_offset=CURRENT_OFFSET_SIGMA * float(draws[3]),
        )

    def voltages_V(self, test: int, seq: IntColumn, true_V: FloatColumn) -> FloatColumn:
        """What is read for true voltages at records ``seq`` of a test."""
        noise = gaussian(_mix(self.key ^ test), seq, 1)
        read = true_V * self.voltage_gain + self.voltage_offset_V + VOLTAGE_NOISE_SIGMA_V * noise
        steps = np.rint(read / VOLTAGE_RESOLUTION_V)
        return np.asarray(steps * VOLTAGE_RESOLUTION_V, dtype=np.float64)

    def currents_A(
        self, test: int, seq: IntColumn, true_A: FloatColumn, full_scale_A: FloatColumn
    ) -> FloatColumn:
        """What is read for true currents; a full scale of 0 is an open relay, which reads 0."""
        noise = gaussian(_mix(self.key ^ test), seq, 2)
        error = self.current_offset + CURRENT_NOISE_SIGMA * noise
        read = true_A * self.current_gain + error * full_scale_A
        resolution_A = full_scale_A / CURRENT_STEPS
        steps = np.rint(read / np.where(resolution_A > 0, resolution_A, 1.0))
        return np.asarray(steps * resolution_A, dtype=np.float64)


def gaussian(key: int, index: IntColumn, lane: int) -> FloatColumn:
    """Bell-shaped numbers of variance 1, bounded by 3.5, one for each index, independent by lane.

    The sum of the four 16-bit parts of a SplitMix64 hash (Steele et al., OOPSLA 2014): integer
    arithmetic throughout, so that the same index gives the same bits in a block of any length.
    """
    words = index.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(_mix(key + lane))
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    total = np.zeros(len(words), dtype=np.float64)
    for shift in (0, 16, 32, 48):
        total += (words >> np.uint64(shift)) & np.uint64(0xFFFF)
    return (total - 2 * 65535) / _SIGMA_OF_FOUR


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
