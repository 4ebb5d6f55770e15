"""A lithium-ion cell that everybody's software knows: LG M50, after Chen et al. 2020.

It is there to be compared with: the same single-particle parameters give the same voltage in other
programs (``make validate``). Nothing but diffusion and kinetics is switched on.

Source: C.-H. Chen, F. Brosa Planella, K. O'Regan, D. Gastol, W. D. Widanage, E. Kendrick,
J. Electrochem. Soc. 167 (2020) 080534: tables VI and VII and equations 7 to 10. 25 degC.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from labctl.simulators.cells import core
from labctl.simulators.cells.build import shells
from labctl.simulators.cells.cell import ModelCell

Floats = npt.NDArray[np.float64]

AREA_M2 = 1.58 * 0.065
"""Of the electrodes."""
ELECTROLYTE_MOL_PER_M3 = 1000.0
DOUBLE_LAYER_S = 1e-4
"""Time constant; chosen so that it is far below any step of a comparison."""


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


def build_lithium_cell(*, against_metal: bool = False) -> ModelCell:
    """The cell charged, as the source begins; isothermal, without ageing and series resistance.

    against_metal: the positive electrode against lithium metal that costs no voltage.
    """
    electrodes = np.zeros((2, core.ELECTRODE_PARAMETERS))
    state = np.zeros(core.STATE)
    tables_u, tables_d = [], []
    for at, electrode in enumerate((POSITIVE, NEGATIVE)):
        row = electrodes[at]
        row[core.INSERTS] = 1.0
        row[core.CAPACITY] = electrode.capacity_Ah
        row[core.EXCHANGE] = electrode.exchange_A
        row[core.TAU] = electrode.radius_m**2 / electrode.diffusivity_m2_per_s
        row[core.DOUBLE_LAYER] = (
            DOUBLE_LAYER_S * electrode.exchange_A * core.FARADAY / (core.GAS * core.T_REF_K)
        )
        row[core.PLATE_AH] = 2e-4 * electrode.capacity_Ah
        row[core.FILM_AH] = 1.0
        start = electrode.initial_mol_per_m3 / electrode.largest_mol_per_m3
        state[at * core.WIDTH : at * core.WIDTH + core.SHELLS] = start
        state[at * core.WIDTH + core.PHI] = float(open_circuit_V(electrode, np.array(start)))
        tables_u.append(_curve(electrode))
        x = np.linspace(0.0, 1.0, core.DIFFUSION_ROWS)
        tables_d.append(np.ascontiguousarray(np.column_stack([np.ones_like(x), x])))
    if against_metal:
        electrodes[1] = 0.0
        electrodes[1, core.EXCHANGE] = 1e6 * NOMINAL_Ah
        electrodes[1, core.DOUBLE_LAYER] = electrodes[0, core.DOUBLE_LAYER]
        state[core.WIDTH : 2 * core.WIDTH] = 0.0
    cell = np.zeros(core.CELL_PARAMETERS)
    cell[core.HEAT_CAPACITY] = 1e9
    cell[core.COOLING] = 1.0
    cell[core.NOMINAL] = NOMINAL_Ah
    state[core.TEMPERATURE] = core.T_REF_K
    state[core.ACTIVE : core.ACTIVE + 2] = 1.0
    state[core.GROWTH : core.GROWTH + 2] = 1.0
    state[core.CLIP] = math.inf
    state[core.AMBIENT] = 25.0
    state[core.TURNS : core.TURNS + 2] = 2.0
    return ModelCell(state, electrodes, cell, np.stack(tables_u), np.stack(tables_d), shells())


def _curve(electrode: Porous) -> Floats:
    """U and dU/dx on the core's grid of occupancy."""
    x = np.linspace(core.TABLE_EDGE, 1.0 - core.TABLE_EDGE, core.OCV_ROWS)
    step = 1e-6
    slope = open_circuit_V(electrode, x + step) - open_circuit_V(electrode, x - step)
    return np.ascontiguousarray(
        np.column_stack([open_circuit_V(electrode, x), slope / (2.0 * step)])
    )
