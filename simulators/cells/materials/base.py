"""What is known of a material: parameters with unit and source, reactions, and curves from them.

Open-circuit curve: the multi-site, multi-reaction form (Verbrugge, Baker, Koch, Xiao, Gu,
J. Electrochem. Soc. 164 (2017) E3243): the occupancy is a sum of steps
x(U) = sum X_j / (1 + exp(F (U - U_j) / (w_j R T))). It gives narrow, symmetric peaks of dQ/dV.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from labctl.simulators.cells.core import DIFFUSION_ROWS, OCV_ROWS, TABLE_EDGE
from labctl.simulators.cells.formula import capacity_mAh_per_g, molar_mass_g_per_mol

FloatColumn = npt.NDArray[np.float64]

THERMAL_V = 8.314462618 * 298.15 / 96485.33212


class Parameter(msgspec.Struct, frozen=True):
    """A number, its unit, and where it comes from: a source, or "chosen so that ..."."""

    value: float
    unit: str
    source: str


class Reaction(msgspec.Struct, frozen=True):
    """One step of the open-circuit curve: ``ions`` per formula unit (or share, if the material
    has no formula) around ``potential_V`` against the metal, ``width`` in units of RT/F."""

    potential_V: float
    ions: float
    width: float
    source: str


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """An insertion material. Rates and currents are per gram of active material, at 25 degC."""

    name: str
    formula: str
    about: str
    reactions: tuple[Reaction, ...]
    theoretical_mAh_per_g: Parameter | None = None
    """Only for a material whose capacity does not follow from its formula."""
    made_occupancy: Parameter
    particle_radius: Parameter
    diffusivity: Parameter
    """In single-phase regions."""
    plateau_diffusivity_share: Parameter
    diffusion_activation: Parameter
    exchange_current: Parameter
    exchange_activation: Parameter
    double_layer: Parameter
    hysteresis: Parameter
    hysteresis_decay: Parameter
    oxidation_current: Parameter
    oxidation_potential: Parameter
    film_current: Parameter
    film_potential: Parameter
    film_charge: Parameter
    plating_current: Parameter
    loss_per_cycle: Parameter
    loss_per_year: Parameter
    growth_per_cycle: Parameter
    growth_per_year: Parameter
    loss_by_growth: Parameter
    entropy: Parameter

    @property
    def molar_mass_g_per_mol(self) -> float:
        """Computed from the formula."""
        return molar_mass_g_per_mol(self.formula)

    @property
    def capacity_mAh_per_g(self) -> float:
        """Theoretical capacity between occupancy 0 and 1, from the formula where it follows."""
        if self.theoretical_mAh_per_g is not None:
            return self.theoretical_mAh_per_g.value
        return capacity_mAh_per_g(self.formula, sum(step.ions for step in self.reactions))

    def occupancy(self, potential_V: FloatColumn) -> FloatColumn:
        """Equilibrium occupancy (0 to 1) at potentials against the metal."""
        return _occupancy(self.reactions, np.asarray(potential_V, dtype=np.float64))[0]

    def open_circuit_V(self, occupancy: FloatColumn) -> FloatColumn:
        """Equilibrium potential in V without hysteresis, by bisection of the sum of steps."""
        wanted = np.asarray(occupancy, dtype=np.float64)
        low = np.full_like(wanted, -5.0)
        high = np.full_like(wanted, 10.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            full = _occupancy(self.reactions, middle)[0] > wanted
            low = np.where(full, middle, low)
            high = np.where(full, high, middle)
        return 0.5 * (low + high)

    def ocv_table(self) -> FloatColumn:
        """U and dU/dx on an even grid of occupancy, shape (OCV_ROWS, 2).

        Slopes are at most three times those of the chords beside them, so that the cubics between
        the rows fall throughout (Fritsch and Carlson, SIAM J. Numer. Anal. 17 (1980) 238).
        """
        x = np.linspace(TABLE_EDGE, 1.0 - TABLE_EDGE, OCV_ROWS)
        u = self.open_circuit_V(x)
        chord = np.diff(u) / np.diff(x)
        flattest = np.maximum(np.append(chord[0], chord), np.append(chord, chord[-1]))
        slope = np.maximum(1.0 / _occupancy(self.reactions, u)[1], 3.0 * flattest)
        return np.ascontiguousarray(np.column_stack([u, slope]))

    def diffusion_table(self) -> FloatColumn:
        """D/D0 and its integral over occupancy on an even grid from 0 to 1."""
        x = np.linspace(0.0, 1.0, DIFFUSION_ROWS)
        inner = np.clip(x, TABLE_EDGE, 1.0 - TABLE_EDGE)
        steepness = -1.0 / _occupancy(self.reactions, self.open_circuit_V(inner))[1]
        single_phase = steepness / (steepness + STEEP_V)
        least = self.plateau_diffusivity_share.value
        d = least + (1.0 - least) * single_phase
        d[0], d[-1] = d[1], d[-2]
        integral = np.concatenate([[0.0], np.cumsum(0.5 * (d[1:] + d[:-1]) * np.diff(x))])
        return np.ascontiguousarray(np.column_stack([d, integral]))


STEEP_V = 5.0
"""Slope of U (V per unit of occupancy) at which D is half way between plateau and single phase."""


def _occupancy(
    reactions: tuple[Reaction, ...], potential_V: FloatColumn
) -> tuple[FloatColumn, FloatColumn]:
    """x(U) and dx/dU."""
    total = sum(step.ions for step in reactions)
    x = np.zeros_like(potential_V)
    slope = np.zeros_like(potential_V)
    for step in reactions:
        z = np.clip((potential_V - step.potential_V) / (THERMAL_V * step.width), -700.0, 700.0)
        filled = 1.0 / (1.0 + np.exp(z))
        x += step.ions / total * filled
        slope -= step.ions / total * filled * (1.0 - filled) / (THERMAL_V * step.width)
    return x, slope
