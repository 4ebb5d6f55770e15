"""The demo's bench: which cell is where, and which recipes it goes through.

Everything sits in a simulated rack but the two cells whose impedance is measured, which have a
simulated potentiostat each. The recipes are the shipped ones; a few are shortened where the study
gives no figure that needs their length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from labctl.demo.cells import FADE_OF_THE_FAULTY_CELL, Dealer, DemoCell

RACK: Final = "rack1"
POTENTIOSTATS: Final = ("emstat1", "emstat2")
DEVICE_ID: Final = 21


@dataclass(frozen=True, slots=True)
class Work:
    """A recipe to be run on a cell, after what comes before it on that cell."""

    cell: DemoCell
    recipe: str
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Study:
    """Cells and what is done with them. ``whole`` is false for the capacities alone."""

    cells: tuple[DemoCell, ...]
    works: tuple[Work, ...]
    whole: bool

    @property
    def faulty(self) -> set[str]:
        """Names of the cells that something is wrong with."""
        return {each.cell.name for each in self.cells if each.faulty}


def capacities(seed: int) -> Study:
    """Four HE-V cells, four NVP cells, and a ninth that fades, at 0.2C."""
    cells = _nine(Dealer(seed))
    return Study(tuple(cells), tuple(Work(each, "capacity-0.2C") for each in cells), whole=False)


def whole_study(seed: int) -> Study:
    """The capacities, then everything else that the study measured."""
    dealer = Dealer(seed)
    nine = _nine(dealer)
    by_name = {each.cell.name: each for each in nine}
    enduring = dealer.half_cell("HEV-6", "HE-V", RACK, _socket(9))
    carbon = dealer.half_cell("HC-1", "HC", RACK, _socket(10))
    full = dealer.full_cell("FULL-1", RACK, _socket(11), carbon)
    fresh = dealer.full_cell("FULL-2", RACK, _socket(12))
    diffracted = dealer.half_cell("HEV-7", "HE-V", RACK, _socket(13))
    arcs = [
        dealer.half_cell(name, material, instrument, "1")
        for (name, material), instrument in zip(
            (("HEV-8", "HE-V"), ("NVP-5", "NVP")), POTENTIOSTATS, strict=True
        )
    ]
    works = [Work(enduring, "endurance-50C"), Work(carbon, "hard-carbon-precycle")]
    works += [Work(each, "capacity-0.2C") for each in nine]
    for number, recipe in ((1, "rate-ladder"), (2, "gitt"), (3, "cyclic-voltammetry")):
        works += [Work(by_name[f"{kind}-{number}"], recipe) for kind in ("HEV", "NVP")]
    works += [
        Work(by_name[f"{kind}-4"], "cycling-0.2C", {"cycles": "20"}) for kind in ("HEV", "NVP")
    ]
    works += [Work(by_name[f"{kind}-4"], "hppc") for kind in ("HEV", "NVP")]
    works += [
        Work(full, "pre-sodiated-full-cell", {"long_cycles": "50"}),
        Work(fresh, "full-cell-as-made"),
        Work(diffracted, "operando-0.1C"),
        *(Work(each, "impedance") for each in arcs),
    ]
    cells = (*nine, enduring, carbon, full, fresh, diffracted, *arcs)
    return Study(cells, tuple(works), whole=True)


def _nine(dealer: Dealer) -> list[DemoCell]:
    names = [(f"HEV-{n}", "HE-V") for n in range(1, 5)] + [(f"NVP-{n}", "NVP") for n in range(1, 5)]
    made = [
        dealer.half_cell(name, material, RACK, _socket(index))
        for index, (name, material) in enumerate(names)
    ]
    faulty = dealer.half_cell(
        "HEV-5-faulty", "HE-V", RACK, _socket(len(made)), fade_per_cycle=FADE_OF_THE_FAULTY_CELL
    )
    return [*made, faulty]


def _socket(index: int) -> str:
    return f"{DEVICE_ID}-{index // 8 + 1}-{index % 8 + 1}"
