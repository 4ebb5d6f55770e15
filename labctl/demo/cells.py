"""The cells of the demo: hand-made, so no two weigh the same; all of it fixed by a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from labctl.model import Cell
from labctl.simulators.cells.spec import CellSpec, Faults

MEAN_MASS_mg: Final = 2.0
MASS_SCATTER_mg: Final = 0.12
"""Standard deviation: a punched electrode and a hand-spread slurry, chosen so that masses differ
by some six per cent."""
FADE_OF_THE_FAULTY_CELL: Final = 0.15
"""Of the active material lost in every cycle: chosen so that its third cycle is well below 80 %."""


@dataclass(frozen=True, slots=True)
class DemoCell:
    """A cell as it lies on the bench (``spec``), as it is registered, and where it sits."""

    cell: Cell
    spec: CellSpec
    socket: str

    @property
    def faulty(self) -> bool:
        """Whether something is wrong with it."""
        return self.spec.faults != Faults()


def demo_cells(seed: int) -> list[DemoCell]:
    """Four HE-V cells, four NVP cells, and a ninth that fades; the same for the same seed."""
    dice = random.Random(seed)  # noqa: S311 - scatter of electrodes, not a secret
    names = [(f"HEV-{n}", "HE-V") for n in range(1, 5)] + [(f"NVP-{n}", "NVP") for n in range(1, 5)]
    made = [_make(dice, index, name, material) for index, (name, material) in enumerate(names)]
    return [*made, _make(dice, len(made), "HEV-5-faulty", "HE-V", FADE_OF_THE_FAULTY_CELL)]


def _make(
    dice: random.Random, index: int, name: str, material: str, fade_per_cycle: float = 0.0
) -> DemoCell:
    mass_g = round(dice.gauss(MEAN_MASS_mg, MASS_SCATTER_mg), 3) * 1e-3
    cell = Cell(
        name=name,
        material=material,
        active_mass_g=mass_g,
        one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0,
        safe_voltage_max_V=4.5,
        note="simulated; it fades on purpose" if fade_per_cycle else "simulated",
    )
    spec = CellSpec(
        name=name,
        material=material,
        active_mass_g=mass_g,
        seed=dice.randrange(2**31),
        faults=Faults(fade_per_cycle=fade_per_cycle),
    )
    return DemoCell(cell, spec, f"{index // 8 + 1}-{index % 8 + 1}")
