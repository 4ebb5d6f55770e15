"""What the three models differ in: ranges and maxima; and how well they source and measure.

Source: data sheet SPEC-2450 Rev. A (ranges, accuracy at one year, limit accuracy, overrange);
reference manual 2461-901-01 (ranges and maxima of the 2461). The accuracy of the 2460 and 2461 is
taken to be that of the 2450 in proportion to full scale, and the 2460's ranges are from memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OVERRANGE: Final = 1.05
"""A range sources and measures up to this multiple of itself."""

PROTECTIONS_V: Final = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0, 140.0, 160.0, 180.0)


@dataclass(frozen=True, slots=True)
class Model:
    """Full scales in V and A, ascending; limits that can be set; defaults after a reset."""

    name: str
    voltage_ranges_V: tuple[float, ...]
    current_ranges_A: tuple[float, ...]
    voltage_limit_min_V: float
    current_limit_min_A: float
    voltage_limit_default_V: float
    protections_V: tuple[float, ...]
    current_limit_default_A: float = 1.05e-4

    @property
    def voltage_max_V(self) -> float:
        return self.voltage_ranges_V[-1] * OVERRANGE

    @property
    def current_max_A(self) -> float:
        return self.current_ranges_A[-1] * OVERRANGE


MODELS: Final = {
    model.name: model
    for model in (
        Model(
            name="2450",
            voltage_ranges_V=(0.02, 0.2, 2.0, 20.0, 200.0),
            current_ranges_A=(1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
            voltage_limit_min_V=0.02,
            current_limit_min_A=1e-9,
            voltage_limit_default_V=21.0,
            protections_V=PROTECTIONS_V,
        ),
        Model(
            name="2460",
            voltage_ranges_V=(0.2, 2.0, 7.0, 10.0, 20.0, 100.0),
            current_ranges_A=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 4.0, 5.0, 7.0),
            voltage_limit_min_V=0.2,
            current_limit_min_A=1e-6,
            voltage_limit_default_V=7.35,
            protections_V=PROTECTIONS_V[:7],
        ),
        Model(
            name="2461",
            voltage_ranges_V=(0.2, 2.0, 7.0, 10.0, 20.0, 100.0),
            current_ranges_A=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 4.0, 5.0, 7.0),
            voltage_limit_min_V=0.2,
            current_limit_min_A=1e-6,
            voltage_limit_default_V=7.35,
            protections_V=PROTECTIONS_V[:7],
        ),
    )
}


def range_for(value: float, ranges: tuple[float, ...]) -> float | None:
    """The smallest full scale that holds ``value``; None if there is none."""
    return next((full for full in ranges if abs(value) <= full * (1 + 1e-9)), None)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One standard deviation of a gain, and of an offset and a noise as shares of full scale.

    A third of what the data sheet bounds: 20 V range, 0.015 % + 2.4 mV sourced, 0.015 % + 1 mV
    measured; 1 mA range, 0.02 % + 60 nA measured; a limit adds 0.3 % of its setting.
    """

    gain: float
    offset: float
    noise: float
    steps: int
    """How many steps of resolution a full scale has."""


VOLTAGE_SOURCED: Final = Accuracy(gain=5e-5, offset=4e-5, noise=0.0, steps=40_000)
VOLTAGE_MEASURED: Final = Accuracy(gain=5e-5, offset=1.7e-5, noise=5e-7, steps=2_000_000)
CURRENT_SOURCED: Final = Accuracy(gain=7e-5, offset=5e-5, noise=0.0, steps=20_000)
CURRENT_MEASURED: Final = Accuracy(gain=7e-5, offset=2e-5, noise=1e-6, steps=1_000_000)
LIMIT_GAIN: Final = 1e-3
