"""The cells of the demo: hand-made, so no two weigh the same; all of it fixed by a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from labctl.model import Cell
from labctl.simulators.cells.spec import Anode, CellSpec, Faults

MEAN_MASS_mg: Final = 2.0
MASS_SCATTER_mg: Final = 0.12
"""Standard deviation: a punched electrode and a hand-spread slurry, chosen so that masses differ
by some six per cent."""
FADE_OF_THE_FAULTY_CELL: Final = 0.15
"""Of the active material lost in every cycle: chosen so that its third cycle is well below 80 %."""
CARBON_PER_CATHODE: Final = 1.25
"""Grams of hard carbon for each gram of cathode in a full cell; the study does not give it."""
FULL_CELL: Final = "HC||HE-V"


@dataclass(frozen=True, slots=True)
class DemoCell:
    """A cell as it lies on the bench (``spec``), as it is registered, and where it sits.

    instrument: a name in the demo's configuration. channel: as the instrument calls it.
    built_from: the cell whose electrode becomes this one's anode.
    """

    cell: Cell
    spec: CellSpec
    instrument: str
    channel: str
    built_from: str = ""

    @property
    def faulty(self) -> bool:
        """Whether something is wrong with it."""
        return self.spec.faults != Faults()


class Dealer:
    """Makes cells; the same seed and the same calls make the same cells."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - scatter of electrodes, not a secret

    def half_cell(
        self,
        name: str,
        material: str,
        instrument: str,
        channel: str,
        *,
        fade_per_cycle: float = 0.0,
    ) -> DemoCell:
        """Against sodium."""
        mass_g = self._mass_g()
        low_V, high_V = (-0.1, 3.0) if material == "HC" else (1.0, 4.5)
        note = "simulated; it fades on purpose" if fade_per_cycle else "simulated"
        cell = _registered(name, material, mass_g, low_V, high_V, note)
        spec = CellSpec(
            name=name,
            material=material,
            active_mass_g=mass_g,
            seed=self._dice.randrange(2**31),
            faults=Faults(fade_per_cycle=fade_per_cycle),
        )
        return DemoCell(cell, spec, instrument, channel)

    def full_cell(
        self, name: str, instrument: str, channel: str, carbon: DemoCell | None = None
    ) -> DemoCell:
        """HE-V against hard carbon: that of a half cell that was cycled, or as it was made."""
        if carbon is None:
            mass_g = self._mass_g()
            carbon_g = round(CARBON_PER_CATHODE * mass_g, 6)
        else:
            carbon_g = carbon.cell.active_mass_g
            mass_g = round(carbon_g / CARBON_PER_CATHODE, 6)
        parents = () if carbon is None else (carbon.cell.name,)
        note = f"simulated; {carbon_g * 1e3:.3f} mg of hard carbon"
        cell = _registered(name, FULL_CELL, mass_g, -0.1, 4.5, note, parents)
        spec = CellSpec(
            name=name,
            material="HE-V",
            active_mass_g=mass_g,
            seed=self._dice.randrange(2**31),
            anode=Anode(active_mass_g=carbon_g),
        )
        return DemoCell(cell, spec, instrument, channel, "" if carbon is None else carbon.cell.name)

    def _mass_g(self) -> float:
        return round(self._dice.gauss(MEAN_MASS_mg, MASS_SCATTER_mg), 3) * 1e-3


def _registered(
    name: str,
    material: str,
    mass_g: float,
    low_V: float,
    high_V: float,
    note: str,
    parents: tuple[str, ...] = (),
) -> Cell:
    return Cell(
        name=name,
        material=material,
        active_mass_g=mass_g,
        one_C_mA_per_g=100.0,
        safe_voltage_min_V=low_V,
        safe_voltage_max_V=high_V,
        parents=parents,
        note=note,
    )
