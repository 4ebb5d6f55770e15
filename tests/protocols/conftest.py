"""A cell and short ways to read a recipe on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labctl.model import Cell
from labctl.program import Program
from labctl.protocols.recipe import compile_recipe, read_recipe

Compile = Callable[..., Program]


@pytest.fixture
def cell() -> Cell:
    """2 mg at 100 mA/g: 1C is 200 uA."""
    return Cell(
        name="HE-V-1",
        material="HE-V",
        active_mass_g=0.002,
        one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0,
        safe_voltage_max_V=4.5,
        area_cm2=1.0,
    )


@pytest.fixture
def compiled(cell: Cell) -> Compile:
    """Compiles steps (and more top-level text before them) on the cell."""

    def compile_steps(steps: str, head: str = "", on: Cell = cell, **parameters: str) -> Program:
        text = f"recipe: test\n{head}steps:\n{steps}"
        return compile_recipe(read_recipe(text), on, parameters)

    return compile_steps
