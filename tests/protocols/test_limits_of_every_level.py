"""Site, cell type, cell, recipe and step: the tightest limit holds, and none is widened."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.program import Program, limits_of_step
from labctl.protocols.limits import Bounds
from labctl.protocols.recipe import compile_recipe, read_recipe

SITE = Bounds(
    name="the site",
    voltage_min_V=0.5,
    voltage_max_V=4.45,
    current_min_A=-2e-3,
    current_max_A=1e-3,
    step_charge_max_Ah=2e-3,
    duration_max_s=30 * 86400.0,
    temperature_min_degC=0.0,
    temperature_max_degC=60.0,
)
COIN = Bounds(name="cell type 'coin'", voltage_max_V=4.3, current_max_A=5e-4)
STEPS = "  - charge: {at: 1C, until: 4.0 V}\n"
Compile = Callable[..., Program]


def compiled_within(cell: Cell, text: str, *bounds: Bounds) -> Program:
    return compile_recipe(read_recipe(f"recipe: x\n{text}"), cell, bounds=bounds)


def test_the_tightest_of_site_cell_type_and_cell_holds(cell: Cell) -> None:
    limits = compiled_within(cell, f"steps:\n{STEPS}", SITE, COIN).limits
    assert (limits.voltage_min_V, limits.voltage_max_V) == (1.0, 4.3)
    assert (limits.current_min_A, limits.current_max_A) == (-2e-3, 5e-4)
    assert (limits.temperature_min_degC, limits.temperature_max_degC) == (0.0, 60.0)
    assert limits.step_charge_max_Ah == 2e-3
    assert limits.duration_max_s == 30 * 86400.0
    assert compiled_within(cell, f"steps:\n{STEPS}", COIN, SITE).limits == limits


def test_a_recipe_narrows_what_the_site_allows(cell: Cell) -> None:
    text = (
        "limits: {voltage: 1.2 V .. 4.2 V, current: 400 uA, step charge: 1 mAh, duration: 2 d,"
        f" temperature: 10 degC .. 40 degC}}\nsteps:\n{STEPS}"
    )
    limits = compiled_within(cell, text, SITE, COIN).limits
    assert (limits.voltage_min_V, limits.voltage_max_V) == (1.2, 4.2)
    assert (limits.current_min_A, limits.current_max_A) == (-4e-4, 4e-4)
    assert (limits.temperature_min_degC, limits.temperature_max_degC) == (10.0, 40.0)
    assert (limits.step_charge_max_Ah, limits.duration_max_s) == (1e-3, 172_800.0)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("voltage: 1.2 V .. 4.4 V", "wider than the limits of cell type 'coin', 1 V .. 4.3 V"),
        ("voltage: 0.9 V .. 4.2 V", "wider than the safe window of cell 'HE-V-1', 1 V .. 4.3 V"),
        ("current: 1 mA", "wider than the limits of cell type 'coin', -2 mA .. 0.5 mA"),
        ("current: -3 mA .. 0.1 mA", "wider than the limits of the site, -2 mA .. 500 uA"),
        ("step charge: 3 mAh", "the limit 3 mAh is wider than the limits of the site, 2 mAh"),
        ("duration: 31 d", "the limit 31 d is wider than the limits of the site, 30 d"),
        ("temperature: 5 degC .. 70 degC", "wider than the limits of the site, 0 degC .. 60 degC"),
    ],
)
def test_a_recipe_that_would_widen_them_is_told_whose_they_are(
    cell: Cell, limits: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        compiled_within(cell, f"limits: {{{limits}}}\nsteps:\n{STEPS}", SITE, COIN)
    (problem,) = caught.value.problems
    assert message.replace("0.5 mA", "500 uA") in problem.message
    assert problem.line == 2


def test_a_step_beyond_the_sites_limits_is_refused(cell: Cell) -> None:
    with pytest.raises(RecipeError, match=r"not inside the limits of cell type 'coin', 1 V .. 4.3"):
        compiled_within(cell, "steps:\n  - charge: {at: 1C, until: 4.4 V}\n", SITE, COIN)
    with pytest.raises(RecipeError, match="not below the current limit of 500 uA"):
        compiled_within(cell, "steps:\n  - charge: {at: 3C, until: 4.1 V}\n", SITE, COIN)
    with pytest.raises(RecipeError, match=r"40 d, not less than the 30 d that .* the site allow"):
        compiled_within(cell, "steps:\n  - rest: 40 d\n", SITE)


def test_a_steps_own_limits_hold_for_it_alone(compiled: Compile) -> None:
    program = compiled(
        f"{STEPS}"
        "  - charge:\n      at: 0.5C\n      until: 4.0 V\n"
        "      limits: {voltage: 1.5 V .. 4.1 V, current: 150 uA, step charge: 0.3 mAh,"
        " temperature: 20 degC .. 30 degC}\n",
        "limits: {voltage: 1.2 V .. 4.4 V, current: 1 mA, step charge: 0.5 mAh}\n",
    )
    first, second = program.steps
    assert first.limits is None
    assert limits_of_step(program, first) == program.limits
    assert second.limits == msgspec.structs.replace(
        program.limits,
        voltage_min_V=1.5,
        voltage_max_V=4.1,
        current_min_A=-1.5e-4,
        current_max_A=1.5e-4,
        step_charge_max_Ah=3e-4,
        temperature_min_degC=20.0,
        temperature_max_degC=30.0,
    )
    assert second.ends[-1].value == pytest.approx(1.1 * 3e-4 / 1e-4 * 3600), "bounded by its own"


def test_a_step_may_say_what_the_recipe_leaves_open(compiled: Compile) -> None:
    program = compiled(
        f"{STEPS}  - charge: {{at: 1C, until: 4 V, limits: {{step charge: 2 mAh, current: 5C}}}}\n"
    )
    first, second = (limits_of_step(program, step) for step in program.steps)
    assert (first.step_charge_max_Ah, second.step_charge_max_Ah) == (1e-3, 2e-3)
    assert program.limits.step_charge_max_Ah == 2e-3
    assert first.current_max_A == pytest.approx(2.4e-4)
    assert second.current_max_A == program.limits.current_max_A == pytest.approx(1e-3)


def test_every_technique_takes_limits(compiled: Compile) -> None:
    program = compiled(
        "  - rest: {for: 1 h, limits: {temperature: 10 degC .. 40 degC}}\n"
        "  - hold: {voltage: 3 V, for: 1 h, direction: charge, limits: {current: 300 uA}}\n"
    )
    rest, hold = (limits_of_step(program, step) for step in program.steps)
    assert rest.temperature_max_degC == 40.0
    assert hold.current_max_A == 3e-4
    assert program.limits.temperature_max_degC == float("inf")
