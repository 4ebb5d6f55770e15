"""From a spec to a cell: scatter, parameters in the core's order, and the state as made."""

from __future__ import annotations

import functools
import math
import random

import numpy as np
import numpy.typing as npt

from labctl.simulators.cells import core
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.materials import MATERIALS, Material, sodium
from labctl.simulators.cells.spec import CellSpec

Floats = npt.NDArray[np.float64]

AREA_CM2 = 1.13
"""A disc of 12 mm, usual in a CR2032."""
SERIES_OHM = 6.0
"""Electrolyte and contacts; chosen so that a coin cell's high-frequency intercept is usual."""
SERIES_ACTIVATION_J_PER_MOL = 15e3
HEAT_CAPACITY_J_PER_K = 1.8
"""A CR2032 of about 3 g at 0.6 J/(g K)."""
COOLING_W_PER_K = 0.02
"""10 cm2 of surface at 20 W/(m2 K)."""
AGEING_ACTIVATION_J_PER_MOL = 50e3
YEAR_S = 365.25 * 86400.0
SCATTER = {"capacity": 0.004, "resistance": 0.05, "diffusion": 0.08}
"""Relative standard deviations; cut at 2.5 of them."""


def build_cell(spec: CellSpec) -> ModelCell:
    """The cell that ``spec`` describes, as assembled.

    Raises ValueError for an unknown material, or for an anode that holds more sodium than it can.
    """
    material = _material(spec.material)
    draw = random.Random(f"labctl cell {spec.seed}")  # noqa: S311
    capacity, resistance, diffusion = (
        1.0 + spec.scatter * width * max(-2.5, min(2.5, draw.gauss())) for width in SCATTER.values()
    )
    electrodes = np.zeros((2, core.ELECTRODE_PARAMETERS))
    electrodes[0] = _insertion(material, spec.active_mass_g, capacity, resistance, diffusion)
    electrodes[0, core.LOSS_CYCLE] += spec.faults.fade_per_cycle
    electrodes[0, core.GROWTH_CYCLE] += spec.faults.resistance_per_cycle
    state = np.zeros(core.STATE)
    _fill(state, 0, material, material.made_occupancy.value)
    tables = [_tables(material.name)] * 2
    if spec.anode is None:
        electrodes[1] = _metal(resistance)
    else:
        other = _material(spec.anode.material)
        mass_g = spec.anode.active_mass_g
        electrodes[1] = _insertion(other, mass_g, 1.0, resistance, diffusion)
        tables[1] = _tables(other.name)
        occupancy = spec.anode.sodium_mAh_per_g / other.capacity_mAh_per_g
        if occupancy >= 1.0:
            raise ValueError(
                f"the anode cannot hold {spec.anode.sodium_mAh_per_g} mAh/g: "
                f"{other.name} takes at most {other.capacity_mAh_per_g:.1f}"
            )
        _fill(state, 1, other, max(occupancy, other.made_occupancy.value))
        state[core.WIDTH + core.FILM] = spec.anode.film_mAh_per_g * 1e-3 * mass_g
    cell = np.zeros(core.CELL_PARAMETERS)
    cell[core.RS] = SERIES_OHM * resistance + spec.faults.contact_ohm
    cell[core.RS_EA] = SERIES_ACTIVATION_J_PER_MOL
    cell[core.HEAT_CAPACITY] = HEAT_CAPACITY_J_PER_K
    cell[core.COOLING] = COOLING_W_PER_K
    cell[core.SHORT] = 1.0 / spec.faults.short_ohm
    cell[core.NOMINAL] = material.capacity_mAh_per_g * 1e-3 * spec.active_mass_g
    cell[core.AGEING_EA] = AGEING_ACTIVATION_J_PER_MOL
    state[core.TEMPERATURE] = 298.15
    state[core.ACTIVE : core.ACTIVE + 2] = 1.0
    state[core.GROWTH : core.GROWTH + 2] = 1.0
    state[core.CLIP] = math.inf
    state[core.AMBIENT] = 25.0
    state[core.TURNS : core.TURNS + 2] = 2.0
    return ModelCell(
        state,
        electrodes,
        cell,
        np.stack([table[0] for table in tables]),
        np.stack([table[1] for table in tables]),
        shells(),
    )


def _material(name: str) -> Material:
    material = MATERIALS.get(name)
    if material is None:
        raise ValueError(
            f"no material is called {name!r}; there are {', '.join(sorted(MATERIALS))}"
        )
    return material


def _fill(state: Floats, electrode: int, material: Material, occupancy: float) -> None:
    at = electrode * core.WIDTH
    state[at : at + core.SHELLS] = occupancy
    state[at + core.PHI] = float(material.open_circuit_V(np.array([occupancy]))[0])


def _insertion(
    material: Material, mass_g: float, capacity: float, resistance: float, diffusion: float
) -> Floats:
    row = np.zeros(core.ELECTRODE_PARAMETERS)
    capacity_Ah = material.capacity_mAh_per_g * 1e-3 * mass_g * capacity
    row[core.INSERTS] = 1.0
    row[core.CAPACITY] = capacity_Ah
    row[core.EXCHANGE] = material.exchange_current.value * mass_g / resistance
    row[core.EXCHANGE_EA] = material.exchange_activation.value
    row[core.TAU] = material.particle_radius.value**2 / (material.diffusivity.value * diffusion)
    row[core.TAU_EA] = material.diffusion_activation.value
    row[core.DOUBLE_LAYER] = material.double_layer.value * mass_g
    row[core.HYS_V] = material.hysteresis.value
    row[core.HYS_K] = material.hysteresis_decay.value
    row[core.OX_A] = material.oxidation_current.value * mass_g
    row[core.OX_V] = material.oxidation_potential.value
    row[core.FILM_A] = material.film_current.value * mass_g
    row[core.FILM_V] = material.film_potential.value
    row[core.FILM_AH] = material.film_charge.value * 1e-3 * mass_g
    row[core.PLATE_A] = material.plating_current.value * mass_g
    row[core.PLATE_AH] = 2e-4 * capacity_Ah
    row[core.LOSS_CYCLE] = material.loss_per_cycle.value
    row[core.LOSS_S] = material.loss_per_year.value / YEAR_S
    row[core.GROWTH_CYCLE] = material.growth_per_cycle.value
    row[core.GROWTH_S] = material.growth_per_year.value / YEAR_S
    row[core.LOSS_BY_GROWTH] = material.loss_by_growth.value
    row[core.ENTROPY] = material.entropy.value
    return row


def _metal(resistance: float) -> Floats:
    row = np.zeros(core.ELECTRODE_PARAMETERS)
    row[core.EXCHANGE] = sodium.EXCHANGE_CURRENT.value * AREA_CM2 / resistance
    row[core.EXCHANGE_EA] = sodium.EXCHANGE_ACTIVATION.value
    row[core.DOUBLE_LAYER] = sodium.DOUBLE_LAYER.value * AREA_CM2
    row[core.GROWTH_CYCLE] = sodium.GROWTH_PER_CYCLE.value
    return row


@functools.cache
def _tables(material: str) -> tuple[Floats, Floats]:
    return MATERIALS[material].ocv_table(), MATERIALS[material].diffusion_table()


@functools.cache
def shells() -> Floats:
    """Volumes of the shells of a unit sphere, their inverses, and 3 r^2 / distance between them."""
    thickness = 1.25 ** np.arange(core.SHELLS - 1, -1, -1.0)
    edges = np.concatenate([[0.0], np.cumsum(thickness) / thickness.sum()])
    edges[-1] = 1.0
    centres = 0.5 * (edges[1:] + edges[:-1])
    grid = np.zeros((3, core.SHELLS))
    grid[0] = np.diff(edges**3)
    grid[1] = 1.0 / grid[0]
    grid[2, :-1] = 3.0 * edges[1:-1] ** 2 / np.diff(centres)
    return grid
