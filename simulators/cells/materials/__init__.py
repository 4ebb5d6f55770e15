"""Materials by name; one file each."""

from __future__ import annotations

from labctl.simulators.cells.materials.base import Material, Parameter, Reaction
from labctl.simulators.cells.materials.hard_carbon import HARD_CARBON
from labctl.simulators.cells.materials.hev import HE_V
from labctl.simulators.cells.materials.nvp import NVP

MATERIALS: dict[str, Material] = {material.name: material for material in (HARD_CARBON, HE_V, NVP)}

__all__ = ["MATERIALS", "Material", "Parameter", "Reaction"]
