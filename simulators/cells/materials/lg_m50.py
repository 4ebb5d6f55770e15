"""LG M50, the lithium-ion cell that everybody's software knows: NMC 811 against graphite-SiOx.

Source of every parameter: C.-H. Chen, F. Brosa Planella, K. O'Regan, D. Gastol, W. D. Widanage,
E. Kendrick, J. Electrochem. Soc. 167 (2020) 080534: tables VI and VII, equations 7 to 10. 25 degC.
The names carry the units.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from labctl.simulators.cells import core

Floats = npt.NDArray[np.float64]

AREA_M2 = 1.58 * 0.065
"""Of the electrodes."""
ELECTROLYTE_MOL_PER_M3 = 1000.0


class Porous(msgspec.Struct, frozen=True, kw_only=True):
    """An electrode of equal spheres.

    ``rate`` is the reaction rate in (A/m2) (m3/mol)^1.5, so that the exchange current density is
    rate * c_electrolyte^0.5 * c_surface^0.5 * (c_max - c_surface)^0.5.
    """

    name: str
    thickness_m: float
    active_fraction: float
    radius_m: float
    largest_mol_per_m3: float
    initial_mol_per_m3: float
    diffusivity_m2_per_s: float
    rate: float

    @property
    def capacity_Ah(self) -> float:
        """Of all the sites."""
        volume_m3 = AREA_M2 * self.thickness_m * self.active_fraction
        return core.FARADAY * volume_m3 * self.largest_mol_per_m3 / 3600.0

    @property
    def exchange_A(self) -> float:
        """Exchange current when the surface is half full."""
        surface_m2 = 3.0 * AREA_M2 * self.thickness_m * self.active_fraction / self.radius_m
        half = 0.5 * self.largest_mol_per_m3
        return surface_m2 * self.rate * math.sqrt(ELECTROLYTE_MOL_PER_M3) * half


NEGATIVE = Porous(
    name="graphite-SiOx",
    thickness_m=85.2e-6,
    active_fraction=0.75,
    radius_m=5.86e-6,
    largest_mol_per_m3=33133.0,
    initial_mol_per_m3=29866.0,
    diffusivity_m2_per_s=3.3e-14,
    rate=6.48e-7,
)
POSITIVE = Porous(
    name="NMC 811",
    thickness_m=75.6e-6,
    active_fraction=0.665,
    radius_m=5.22e-6,
    largest_mol_per_m3=63104.0,
    initial_mol_per_m3=17038.0,
    diffusivity_m2_per_s=4.0e-15,
    rate=3.42e-6,
)
NOMINAL_Ah = 5.0


def open_circuit_V(electrode: Porous, occupancy: Floats) -> Floats:
    """Potential against lithium, equations 8 (negative) and 9 (positive) of the source."""
    x = np.asarray(occupancy, dtype=np.float64)
    if electrode is NEGATIVE:
        return np.asarray(
            1.9793 * np.exp(-39.3631 * x)
            + 0.2482
            - 0.0909 * np.tanh(29.8538 * (x - 0.1234))
            - 0.04478 * np.tanh(14.9159 * (x - 0.2769))
            - 0.0205 * np.tanh(30.4444 * (x - 0.6103))
        )
    return np.asarray(
        -0.8090 * x
        + 4.4875
        - 0.0428 * np.tanh(18.5138 * (x - 0.5542))
        - 17.7326 * np.tanh(15.7890 * (x - 0.3117))
        + 17.5842 * np.tanh(15.9308 * (x - 0.3120))
    )
