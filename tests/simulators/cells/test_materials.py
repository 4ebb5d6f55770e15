"""Every parameter says where it comes from; open-circuit curves can be used."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from labctl.simulators.cells import core
from labctl.simulators.cells.materials import MATERIALS, Material, Parameter, sodium


def parameters(material: Material) -> list[Parameter]:
    values = (getattr(material, field.name) for field in msgspec.structs.fields(material))
    return [value for value in values if isinstance(value, Parameter)]


@pytest.mark.parametrize("material", MATERIALS.values(), ids=MATERIALS.keys())
def test_every_parameter_has_a_unit_and_a_source(material: Material) -> None:
    found = parameters(material)
    assert len(found) > 20
    for parameter in found:
        assert parameter.unit
        assert len(parameter.source) > 10
    assert all(len(reaction.source) > 10 for reaction in material.reactions)


def test_sodium_metal_says_where_its_parameters_come_from() -> None:
    found = [value for value in vars(sodium).values() if isinstance(value, Parameter)]
    assert len(found) >= 3
    assert all(parameter.unit and len(parameter.source) > 10 for parameter in found)


@pytest.mark.parametrize("material", MATERIALS.values(), ids=MATERIALS.keys())
def test_the_tabulated_potential_falls_with_occupancy_and_follows_the_reactions(
    material: Material,
) -> None:
    table = material.ocv_table()[None]
    edge = core.TABLE_EDGE
    x = np.linspace(0.5 * edge, 1.0 - 0.5 * edge, 60_001)
    u = np.array([core.open_circuit(table, 0, float(at))[0] for at in x])
    assert np.all(np.diff(u) < 0.0)
    back = material.occupancy(u)
    inside = (x > edge) & (x < 1.0 - edge)
    assert np.abs(back - x)[inside].max() < 2e-4


@pytest.mark.parametrize("material", MATERIALS.values(), ids=MATERIALS.keys())
def test_the_slope_of_the_potential_is_the_derivative_that_the_solver_uses(
    material: Material,
) -> None:
    table = material.ocv_table()[None]
    for x in (1e-5, 1e-4, 0.1003, 0.5, 0.66, 0.93, 1.0 - 1e-4):
        step = 1e-9
        up, slope = core.open_circuit(table, 0, x + step)
        down, _ = core.open_circuit(table, 0, x - step)
        assert (up - down) / (2 * step) == pytest.approx(slope, rel=1e-3)
