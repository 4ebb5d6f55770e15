"""Diffusion coefficients from GITT, after W. Weppner and R. A. Huggins,
J. Electrochem. Soc. 124 (1977) 1569.

The formula takes the solid for half-infinite, so it is right only for pulses much shorter than
R^2/D. For a sphere the estimate falls below the truth as the pulse grows: with the transient
counted from 1/600 of the pulse on, it is 0.82 of it at a pulse of 0.021 R^2/D and 0.41 at
0.21 R^2/D. The bias belongs to the method and is not corrected here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from labctl.model import FloatColumn

FIRST_READING_SHARE = 1.0 / 600.0
"""The transient begins this share of the pulse after its start: the drop over the resistances is
over by then (1 s of a usual pulse of ten minutes)."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What one pulse and the rest after it say.

    steady_change_V: from the equilibrium before to the equilibrium after.
    transient_change_V: within the pulse, without the drop over the resistances.
    """

    pulse_s: float
    steady_change_V: float
    transient_change_V: float

    def diffusivity_m2_per_s(self, radius_m: float) -> float:
        """For spheres of this radius: 4 / (pi t) (R/3)^2 (dE_s / dE_t)^2."""
        ratio = self.steady_change_V / self.transient_change_V
        return 4.0 / (math.pi * self.pulse_s) * (radius_m / 3.0) ** 2 * ratio**2


def read_pulse(
    time_s: FloatColumn,
    voltage_V: FloatColumn,
    current_A: FloatColumn,
    *,
    first_reading_share: float = FIRST_READING_SHARE,
) -> Pulse:
    """The pulse in the records of a rest, a pulse of constant current and a rest, in this order.

    The equilibria are the last records of the rests; in the pulse voltages are read between
    records on the square root of time, along which a transient is straight.

    Raises:
        ValueError: there is not one pulse with at least five records between two rests.
    """
    flows = np.abs(current_A) > 0.01 * np.abs(current_A).max(initial=0.0)
    inside = np.flatnonzero(flows)
    if len(inside) < 5 or inside[0] == 0 or inside[-1] == len(flows) - 1:
        raise ValueError("a pulse needs at least five records, and a rest before and after it")
    if inside[-1] - inside[0] + 1 != len(inside):
        raise ValueError("there is more than one pulse in these records")
    start_s = float(time_s[inside[0] - 1])
    since_s = time_s[inside] - start_s
    pulse_s = float(since_s[-1])
    first_V = float(
        np.interp(math.sqrt(first_reading_share * pulse_s), np.sqrt(since_s), voltage_V[inside])
    )
    return Pulse(
        pulse_s=pulse_s,
        steady_change_V=float(voltage_V[-1] - voltage_V[inside[0] - 1]),
        transient_change_V=float(voltage_V[inside[-1]]) - first_V,
    )
