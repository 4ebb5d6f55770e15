"""What is really put out for what was set, and what is read for what is really there.

Every range has a gain and an offset of its own, drawn from the seed; noise comes from one stream,
so that the same commands at the same times give the same readings, to the bit.
"""

from __future__ import annotations

import functools
import math
import random
from typing import Final

from labctl.simulators.keithley.models import (
    CURRENT_MEASURED,
    CURRENT_SOURCED,
    LIMIT_GAIN,
    OVERRANGE,
    VOLTAGE_MEASURED,
    VOLTAGE_SOURCED,
)

OVERFLOW: Final = 9.9e37

SOURCED: Final = {"VOLT": VOLTAGE_SOURCED, "CURR": CURRENT_SOURCED}
MEASURED: Final = {"VOLT": VOLTAGE_MEASURED, "CURR": CURRENT_MEASURED}

_WIDEST = 2.5


class Electronics:
    """The errors of one instrument; ``scale`` 0 is a perfect one, with its resolution only."""

    def __init__(self, seed: int, scale: float) -> None:
        self._seed = seed
        self._scale = scale
        self._noise = random.Random(f"labctl source-meter noise {seed}")  # noqa: S311
        self._errors = functools.cache(self._drawn)

    def sourced(self, function: str, level: float, full_scale: float) -> float:
        """What is put out for a level that was set in a range."""
        accuracy = SOURCED[function]
        gain, offset = self._errors(f"{function} sourced", full_scale)
        step = full_scale / accuracy.steps
        return (
            round(level / step) * step * (1 + accuracy.gain * gain)
            + accuracy.offset * offset * full_scale
        )

    def limited(self, function: str, limit: float, full_scale: float) -> float:
        """The magnitude at which a limit of 0 or above really acts."""
        gain, _ = self._errors(f"{function} limited", full_scale)
        return limit * (1 + LIMIT_GAIN * gain)

    def measured(self, function: str, true: float, full_scale: float, apertures: float) -> float:
        """What is read for a true value; noise falls with the root of ``apertures`` (in PLC)."""
        accuracy = MEASURED[function]
        gain, offset = self._errors(f"{function} measured", full_scale)
        noise = self._scale * accuracy.noise * self._noise.gauss() / math.sqrt(apertures)
        read = true * (1 + accuracy.gain * gain) + (accuracy.offset * offset + noise) * full_scale
        if abs(read) > full_scale * OVERRANGE:
            return OVERFLOW
        step = full_scale / accuracy.steps
        return round(read / step) * step

    def _drawn(self, kind: str, full_scale: float) -> tuple[float, float]:
        draw = random.Random(f"labctl source-meter {self._seed} {kind} {full_scale:g}")  # noqa: S311
        gain, offset = (max(-_WIDEST, min(_WIDEST, draw.gauss())) for _ in range(2))
        return self._scale * gain, self._scale * offset
