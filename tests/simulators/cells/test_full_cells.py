"""Hard carbon and the full cell show what the study measured; one sodium inventory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labctl.simulators.cells import Anode
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, Trace, Until

MASS_G = 2e-3
RATIO = 1.25
Make = Callable[..., ModelCell]
Run = Callable[..., Trace]


def hard_carbon_cycles(cell: ModelCell, count: int) -> list[tuple[Trace, Trace]]:
    current_A = 25e-3 * MASS_G
    cycles = []
    for _ in range(count):
        taken = cell.advance(
            Control.CURRENT, -current_A, 1e6,
            until=Until(voltage_at_most_V=0.01), recorder=Recorder(voltage_change_V=1e-3),
        )  # fmt: skip
        given = cell.advance(
            Control.CURRENT, current_A, 1e6,
            until=Until(voltage_at_least_V=2.0), recorder=Recorder(voltage_change_V=1e-3),
        )  # fmt: skip
        cycles.append((taken, given))
    return cycles


def test_hard_carbon_gives_300_mAh_per_g_and_loses_some_in_the_first_cycle(make: Make) -> None:
    cell = make("HC")
    cycles = hard_carbon_cycles(cell, 5)
    given = [trace.end_charge_Ah / MASS_G * 1e3 for _, trace in cycles]
    taken = [-trace.end_charge_Ah / MASS_G * 1e3 for trace, _ in cycles]
    assert given == pytest.approx([300.0] * 5, abs=5.0)
    assert 40.0 < taken[0] - given[0] < 80.0
    assert taken[4] - given[4] < 1.0
    film = cell.inventory().positive.film_Ah / MASS_G * 1e3
    assert film == pytest.approx(sum(taken) - sum(given), abs=1.5)


def test_hard_carbon_has_its_plateau_near_a_tenth_of_a_volt(make: Make) -> None:
    cycles = hard_carbon_cycles(make("HC"), 2)
    for trace in cycles[1]:
        steep = np.abs(np.diff(trace.charge_Ah) / np.diff(trace.voltage_V))
        assert trace.voltage_V[steep.argmax()] == pytest.approx(0.1, abs=0.02)


def cycles_of_full_cell(
    make: Make, run: Run, anode: Anode, count: int = 3
) -> tuple[ModelCell, list[tuple[Trace, Trace]]]:
    cell = make("HE-V", anode=anode)
    return cell, [(run(cell, 0.2, 4.1), run(cell, -0.2, 1.5)) for _ in range(count)]


def test_a_presodiated_full_cell_gives_three_sodium(make: Make, constant_current: Run) -> None:
    anode = Anode(active_mass_g=RATIO * MASS_G, sodium_mAh_per_g=200.0, film_mAh_per_g=61.0)
    cell, cycles = cycles_of_full_cell(make, constant_current, anode)
    for _, discharge in cycles:
        assert -discharge.end_charge_Ah / MASS_G * 1e3 == pytest.approx(170.8, abs=2.0)
        assert -discharge.end_energy_Wh / MASS_G * 1e3 == pytest.approx(485.9, abs=8.0)
    assert cell.inventory().negative.potential_V < 0.2


def test_a_full_cell_without_presodiation_gives_at_most_two_sodium_less_the_film(
    make: Make, constant_current: Run
) -> None:
    cell, cycles = cycles_of_full_cell(make, constant_current, Anode(active_mass_g=RATIO * MASS_G))
    film = cell.inventory().negative.film_Ah / MASS_G * 1e3
    assert film > 30.0
    for _, discharge in cycles:
        assert 50.0 < -discharge.end_charge_Ah / MASS_G * 1e3 < 117.5 - 0.7 * film


def test_an_anode_that_is_full_at_assembly_is_plated_with_sodium(
    make: Make, constant_current: Run
) -> None:
    anode = Anode(active_mass_g=RATIO * MASS_G, sodium_mAh_per_g=300.0, film_mAh_per_g=61.0)
    cell = make("HE-V", anode=anode)
    constant_current(cell, 0.2, 4.1)
    now = cell.inventory().negative
    assert now.potential_V < 0.01
    assert now.plated_Ah / MASS_G * 1e3 > 50.0


def test_the_sodium_of_a_full_cell_stays_the_same_whatever_it_does(
    make: Make, constant_current: Run
) -> None:
    cell = make("HE-V", anode=Anode(active_mass_g=RATIO * MASS_G, sodium_mAh_per_g=150.0))

    def sodium_Ah() -> float:
        now = cell.inventory()
        both = now.positive.sodium_in_all_forms_Ah + now.negative.sodium_in_all_forms_Ah
        charged = now.positive.double_layer_Ah + now.negative.double_layer_Ah
        oxidised = now.positive.oxidised_Ah + now.negative.oxidised_Ah
        return both - charged - oxidised

    begun = sodium_Ah()
    for _ in range(20):
        constant_current(cell, 5.0, 4.1)
        constant_current(cell, -5.0, 1.5)
    assert sodium_Ah() == pytest.approx(begun, rel=1e-12)


def test_an_anode_takes_along_what_a_half_cell_left_in_it(make: Make) -> None:
    half = make("HC")
    hard_carbon_cycles(half, 5)
    half.advance(
        Control.CURRENT, -25e-3 * MASS_G, 1e6,
        until=Until(charge_magnitude_at_least_Ah=0.2 * MASS_G), recorder=Recorder(),
    )  # fmt: skip
    left = half.inventory().positive
    per_g = 1e3 / MASS_G
    anode = Anode(
        active_mass_g=RATIO * MASS_G,
        sodium_mAh_per_g=left.sodium_Ah * per_g,
        film_mAh_per_g=left.film_Ah * per_g,
    )
    assert 190.0 < anode.sodium_mAh_per_g < 210.0
    now = make("HE-V", anode=anode).inventory().negative
    assert now.occupancy == pytest.approx(left.occupancy / left.active_share, rel=1e-3)
    assert now.potential_V == pytest.approx(0.1, abs=0.05)
