"""Diffusion coefficients from GITT, after W. Weppner and R. A. Huggins,
J. Electrochem. Soc. 124 (1977) 1569:

    D = 4 / (pi t) (V / S)^2 (dE_s / dE_t)^2,

t the time of a pulse, dE_s the change from equilibrium to equilibrium, dE_t the change within the
pulse without the drop over the resistances. V / S is the volume of the solid over the area through
which the ions enter: R / 3 for spheres, or m / (density S) for a mass m with a known wetted area S
(their m_B V_M / (M_B S)). It goes in squared and is rarely known to better than a factor of two,
so that coefficients of two materials compare better than either holds by itself.

The formula takes the solid for half-infinite, so it is right only for pulses much shorter than
R^2/D. For a sphere the estimate falls below the truth as the pulse grows: with the transient
counted from 1/600 of the pulse on, it is 0.82 of it at a pulse of 0.021 R^2/D and 0.41 at
0.21 R^2/D. The bias belongs to the method and is not corrected here.

In a pulse that is long the surface keeps pace with the middle, and the transient is hardly larger
than the steady change: dE_t / dE_s = 1 + R^2 / (15 D t) (J. Crank, The Mathematics of Diffusion,
2nd ed. (Oxford 1975), 6.3.3, constant flux into a sphere). Then the formula gives 4 L^2 / (pi t)
whatever the material: all that is known is that D is not smaller. Shorter and stronger pulses tell
more.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from labctl.model import FloatColumn

FIRST_READING_SHARE = 1.0 / 600.0
"""The transient begins this share of the pulse after its start: the drop over the resistances is
over by then (1 s of a usual pulse of ten minutes)."""
FEWEST_RECORDS = 5
LEAST_EXCESS = 0.05
"""Of the transient over the steady change; a pulse with less gives a lower bound of D alone."""
COLUMNS = ("visit", "test_time_s", "voltage_V", "current_A", "charge_Ah")


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
        """For spheres of this radius: 4 / (pi t) (R/3)^2 (dE_s / dE_t)^2. NaN where the voltage did
        not change within the pulse."""
        return self.diffusivity_of_length_m2_per_s(sphere_length_m(radius_m))

    def diffusivity_of_length_m2_per_s(self, length_m: float) -> float:
        """The same for a solid whose volume over its area is ``length_m``."""
        if self.transient_change_V == 0:
            return math.nan
        ratio = self.steady_change_V / self.transient_change_V
        return 4.0 / (math.pi * self.pulse_s) * length_m**2 * ratio**2

    @property
    def lower_bound(self) -> bool:
        """Whether the pulse was so long that its coefficient is a lower bound."""
        return abs(self.transient_change_V) < (1 + LEAST_EXCESS) * abs(self.steady_change_V)


def sphere_length_m(radius_m: float) -> float:
    """Volume over area of spheres: a third of their radius."""
    return radius_m / 3.0


def wetted_length_m(active_mass_g: float, density_g_cm3: float, wetted_area_cm2: float) -> float:
    """Volume over area of a mass whose area in contact with the electrolyte is known (BET).

    The area of the disc of an electrode is not that area: it is smaller by the roughness, and the
    coefficient would come out larger by its square.
    """
    return active_mass_g / density_g_cm3 / wetted_area_cm2 * 1e-2


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


def titration(samples: pd.DataFrame, length_m: float, active_mass_g: float) -> pd.DataFrame:
    """Every pulse of a titration that has a rest before it and after it, in order.

    Columns: visit, cycle (0 where the samples have none), charging, current_A (its mean), pulse_s,
    charge_mAh_g (net since the run began, at the end of the pulse), equilibrium_V (the mean of
    those before and after), before_V, after_V, steady_change_V, transient_change_V, drop_V (what is
    neither: resistances, signed like the current), diffusivity_m2_per_s, lower_bound (whether the
    pulse was so long that this is all that is known).

    Args:
        samples: columns visit, test_time_s, voltage_V, current_A, charge_Ah of a run in order of
            time. A visit in which current flows is a pulse if both neighbours are rests; others are
            passed over, and so are pulses of fewer than five samples.
        length_m: volume of the solid over its area; see :func:`sphere_length_m`.

    Raises:
        ValueError: a column is missing, or the length or the mass is not above 0.
    """
    if missing := [name for name in COLUMNS if name not in samples]:
        raise ValueError(f"a titration needs the column {', '.join(missing)}")
    if not (length_m > 0 and active_mass_g > 0):
        raise ValueError(f"length {length_m} m and mass {active_mass_g} g must be above 0")
    visit, time_s, voltage_V, current_A, charge_Ah = (
        samples[name].to_numpy(dtype=np.float64) for name in COLUMNS
    )
    cycle = samples["cycle"].to_numpy() if "cycle" in samples else np.zeros(len(samples))
    found: list[dict[str, Any]] = []
    visits = _visits(visit, current_A)
    for before, pulsed, after in zip(visits, visits[1:], visits[2:], strict=False):
        count = pulsed.end - pulsed.first
        if pulsed.resting or not (before.resting and after.resting) or count < FEWEST_RECORDS:
            continue
        rows = slice(before.end - 1, after.end)
        flows = np.zeros(rows.stop - rows.start)
        flows[1 : 1 + count] = 1.0
        pulse = read_pulse(time_s[rows], voltage_V[rows], flows)
        before_V, end_V, after_V = voltage_V[[before.end - 1, pulsed.end - 1, after.end - 1]]
        mean_A = float(current_A[pulsed.first : pulsed.end].mean())
        values = (
            int(visit[pulsed.first]),
            int(cycle[pulsed.first]),
            mean_A > 0,
            mean_A,
            pulse.pulse_s,
            float(charge_Ah[pulsed.end - 1]) * 1e3 / active_mass_g,
            float(before_V + after_V) / 2,
            float(before_V),
            float(after_V),
            pulse.steady_change_V,
            pulse.transient_change_V,
            float(end_V - before_V) - pulse.transient_change_V,
            pulse.diffusivity_of_length_m2_per_s(length_m),
            pulse.lower_bound,
        )
        found.append(dict(zip(_OF_TITRATION, values, strict=True)))
    return pd.DataFrame(found, columns=list(_OF_TITRATION))


_OF_TITRATION = (
    "visit",
    "cycle",
    "charging",
    "current_A",
    "pulse_s",
    "charge_mAh_g",
    "equilibrium_V",
    "before_V",
    "after_V",
    "steady_change_V",
    "transient_change_V",
    "drop_V",
    "diffusivity_m2_per_s",
    "lower_bound",
)


def diffusivity_by_voltage(
    pulses: pd.DataFrame, width_V: float = 0.1, *, least_change_V: float = 0.0
) -> pd.DataFrame:
    """The diffusion coefficient in pieces of the voltage, by the middle of each, voltage_V.

    Columns: diffusivity_m2_per_s (the median), lower_bound (whether it is one for half of the
    pulses or more), pulses (how many).

    Args:
        pulses: of :func:`titration`.
        width_V: of a piece; pieces begin at multiples of it.
        least_change_V: pulses whose equilibria are closer than this are left out: on a plateau the
            steps are small, and noise of the same size says nothing of diffusion.
    """
    good = pulses[np.isfinite(pulses["diffusivity_m2_per_s"].to_numpy(dtype=np.float64))]
    good = good[good["steady_change_V"].abs() >= least_change_V]
    piece = np.floor(good["equilibrium_V"].to_numpy(dtype=np.float64) / width_V + 1e-9)
    gathered: pd.DataFrame = good.groupby((piece + 0.5) * width_V).agg(
        diffusivity_m2_per_s=("diffusivity_m2_per_s", "median"),
        lower_bound=("lower_bound", lambda some: bool(np.mean(some.to_numpy(dtype=bool)) >= 0.5)),
        pulses=("visit", "size"),
    )
    gathered.index.name = "voltage_V"
    return gathered


@dataclass(frozen=True, slots=True)
class _Visit:
    """Rows first to end (exclusive) of one visit, and whether no current flows in it."""

    first: int
    end: int
    resting: bool


def _visits(visit: FloatColumn, current_A: FloatColumn) -> list[_Visit]:
    if not len(visit):
        return []
    least_A = 0.01 * float(np.nanmax(np.abs(current_A)))
    edges = [0, *(np.flatnonzero(np.diff(visit)) + 1).tolist(), len(visit)]
    return [
        _Visit(first, end, bool(np.abs(current_A[first:end]).max() <= least_A))
        for first, end in itertools.pairwise(edges)
    ]
