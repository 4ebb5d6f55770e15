"""Molar masses and theoretical capacities are computed, and agree with the study."""

from __future__ import annotations

import pytest

from labctl.simulators.cells.formula import (
    capacity_mAh_per_g,
    composition,
    molar_mass_g_per_mol,
)
from labctl.simulators.cells.materials import MATERIALS

HE_V = "Na3.2V1.5Cr0.1Mn0.1Fe0.1Al0.1Mg0.1(PO4)3"


def test_the_molar_masses_are_those_of_the_study() -> None:
    assert molar_mass_g_per_mol(HE_V) == pytest.approx(456.3, abs=0.05)
    assert molar_mass_g_per_mol("Na3V2(PO4)3") == pytest.approx(455.8, abs=0.05)


def test_the_theoretical_capacities_are_those_of_the_study() -> None:
    assert capacity_mAh_per_g(HE_V, 3) == pytest.approx(176.2, abs=0.05)
    assert capacity_mAh_per_g(HE_V, 1) == pytest.approx(58.74, abs=0.01)
    assert capacity_mAh_per_g("Na3V2(PO4)3", 1) == pytest.approx(58.8, abs=0.05)


def test_brackets_multiply_what_they_hold() -> None:
    assert composition("Na(P(O2)2)3") == {"Na": 1.0, "P": 3.0, "O": 12.0}


@pytest.mark.parametrize("text", ["", "Xx2", "(PO4", "PO4)", "na2", "Na 2", "2Na", "(2Na)"])
def test_text_that_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"formula|element|bracket"):
        composition(text)


@pytest.mark.parametrize("name", ["HE-V", "NVP"])
def test_a_cathode_takes_three_sodium(name: str) -> None:
    assert sum(step.ions for step in MATERIALS[name].reactions) == pytest.approx(3.0, abs=1e-9)
