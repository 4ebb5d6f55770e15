"""Parameters: defaults, bounds, and what may be set for one run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.program import ConstantCurrent, Program
from labctl.protocols.recipe import compile_recipe, read_recipe

Compile = Callable[..., Program]
STEPS = "  - charge: {at: $rate, until: $upper}\n"
HEAD = (
    "parameters:\n"
    "  upper: {default: 4.1 V, from: 3.8 V, to: 4.3 V, about: where charges end}\n"
    "  rate: {default: 0.2C, to: 2C}\n"
)


def test_a_value_within_its_bounds_is_taken(compiled: Compile) -> None:
    assert compiled(STEPS, HEAD).steps[0].ends[0].value == 4.1
    for upper in ("3.8 V", "4.3 V", "4200 mV"):
        assert compiled(STEPS, HEAD, upper=upper).steps[0].ends[0].value == pytest.approx(
            float(upper.split()[0]) / (1000 if "mV" in upper else 1)
        )


@pytest.mark.parametrize(
    ("given", "message", "suggestion"),
    [
        ({"upper": "4.4 V"}, "'4.4 V' is above what the parameter 'upper' may be", "at most '4.3"),
        ({"upper": "3.7 V"}, "'3.7 V' is below what the parameter 'upper' may be", "at least '3.8"),
        ({"upper": "4.2C"}, "'4.2C' is a C-rate; a voltage is needed", "'4.1 V'"),
        ({"upper": "[4.0 V, 4.4 V]"}, "'4.4 V' is above", "at most"),
        ({"rate": "3C"}, "'3C' is above what the parameter 'rate' may be: at most 2C", "'2C'"),
        ({"rate": "25 mA/g"}, "cannot be compared with the bounds of 'rate'", "unit of '2C'"),
        ({"rate": "fast"}, "the parameter 'rate': 'fast' is not a current", "'0.2C'"),
    ],
)
def test_a_value_beyond_its_bounds_is_refused_where_it_is_declared(
    compiled: Compile, given: dict[str, str], message: str, suggestion: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        compiled(STEPS, HEAD, **given)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert suggestion in problem.suggestion
    assert problem.source_line.split(":")[0].strip() in given


def test_what_has_no_bounds_may_be_of_any_kind_of_current(compiled: Compile) -> None:
    head = HEAD.replace("{default: 0.2C, to: 2C}", "0.2C")
    program = compiled(STEPS, head, rate="25 mA/g")
    assert program.steps[0].control == ConstantCurrent(5e-5)


def test_a_number_of_cycles_has_bounds_too(compiled: Compile) -> None:
    head = "parameters: {n: {default: 10, from: 1, to: 100}}\n"
    steps = "  - cycle: $n\n    do:\n      - rest: 1 h\n"
    assert compiled(steps, head, n="100").cycle_count == 100
    with pytest.raises(RecipeError, match=r"'101' is above what .* may be: 1 .. 100"):
        compiled(steps, head, n="101")
    with pytest.raises(RecipeError, match="'5 V' is not a whole number"):
        compiled(steps, head, n="5 V")


def test_a_value_without_a_default_must_be_given(compiled: Compile, cell: Cell) -> None:
    for written in ("{from: 3.8 V, to: 4.3 V}", "{example: 4.0 V}"):
        recipe = read_recipe(
            f"recipe: x\nparameters:\n  upper: {written}\nsteps:\n"
            "  - charge: {at: 0.2C, until: $upper}\n"
        )
        assert recipe.parameters == {}
        assert recipe.declared["upper"].default is None
        with pytest.raises(RecipeError, match="'upper' has no default: it must be given"):
            compile_recipe(recipe, cell)
        program = compile_recipe(recipe, cell, {"upper": "4.2 V"})
        assert program.steps[0].ends[0].value == 4.2


def test_off_can_stand_for_any_value(compiled: Compile) -> None:
    head = "parameters: {every: 30 s}\nrecord: {every: $every, voltage_change: 5 mV}\n"
    steps = "  - rest: 1 h\n"
    assert compiled(steps, head, every="off").steps[0].record.every_s == float("inf")


def test_one_wrong_declaration_is_one_mistake() -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(
            "recipe: x\nparameters: {upper: {defautl: 4.1 V}}\nsteps:\n"
            "  - charge: {at: 0.2C, until: $upper}\n  - charge: {at: 0.2C, until: $upper}\n"
        )
    assert [problem.suggestion for problem in caught.value.problems] == ["did you mean 'default'?"]
