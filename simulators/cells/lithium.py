"""A lithium-ion cell to be compared with: LG M50 after Chen et al. 2020.

The same single-particle parameters give the same voltage in other programs (``make validate``).
Nothing but diffusion and kinetics is switched on.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from labctl.simulators.cells import core
from labctl.simulators.cells.build import shells
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.materials.lg_m50 import (
    NEGATIVE,
    POSITIVE,
    NOMINAL_Ah,
    Porous,
    open_circuit_V,
)

Floats = npt.NDArray[np.float64]

DOUBLE_LAYER_S = 1e-4
"""Time constant; chosen so that it is far below any step of a comparison."""


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
