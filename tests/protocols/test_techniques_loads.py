"""Powers, resistors and every kind of end, as the steps that come of them (1C = 200 uA, 2 mg)."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import pytest

from labctl.model import Cell
from labctl.program import (
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Program,
    Quantity,
    Rest,
    Step,
)
from labctl.protocols.explain import explain_text
from labctl.protocols.recipe import read_recipe

Compile = Callable[..., Program]
V, I, T, Q, E = (
    Quantity.VOLTAGE_V,
    Quantity.CURRENT_A,
    Quantity.STEP_TIME_S,
    Quantity.STEP_CHARGE_AH,
    Quantity.STEP_ENERGY_WH,
)
NET, SLOPE, HEAT = (
    Quantity.RUN_CHARGE_AH,
    Quantity.VOLTAGE_SLOPE_V_PER_S,
    Quantity.TEMPERATURE_DEGC,
)


def ends_of(step: Step) -> list[tuple[Quantity, str, float]]:
    return [(end.quantity, str(end.comparison), end.value) for end in step.ends]


def told(step: str) -> str:
    lines = explain_text(read_recipe(f"recipe: x\nsteps:\n  - {step}\n")).split("\n")
    return next(line for line in lines if line.startswith("1. "))


def test_a_power_may_draw_what_it_comes_to_at_the_lower_voltage_limit(compiled: Compile) -> None:
    program = compiled(
        "  - discharge: {at: 1 mW, until: 1.5 V}\n  - charge: {at: 0.5 W/g, until: 4.1 V}\n"
    )
    down, up = program.steps
    assert down.control == ConstantPower(-1e-3, 1e-3)  # 1 mW at 1 V
    assert ends_of(down) == [(V, "<=", 1.5), (T, ">=", 17_820.0)]  # 1.1 mAh at 1 mW / 4.5 V
    assert up.control == ConstantPower(1e-3, 1e-3)  # 0.5 W/g of 2 mg
    assert ends_of(up) == [(V, ">=", 4.1), (T, ">=", 17_820.0)]
    assert program.limits.current_min_A == pytest.approx(-1.2e-3)
    assert down.label == "discharge at 1 mW until 1.5 V"


def test_a_power_may_be_bounded_by_a_current(compiled: Compile) -> None:
    (step,) = compiled("  - discharge: {at: 1 mW, until: 1.5 V, max_current: 3C}\n").steps
    assert step.control == ConstantPower(-1e-3, 6e-4)


def test_a_power_of_a_cell_that_goes_to_0_V_needs_a_current(compiled: Compile, cell: Cell) -> None:
    carbon = msgspec.structs.replace(cell, safe_voltage_min_V=0.0, safe_voltage_max_V=2.5)
    (step,) = compiled(
        "  - discharge: {at: 0.1 mW, until: 5 mV, max_current: 1C}\n", on=carbon
    ).steps
    assert step.control == ConstantPower(-1e-4, 2e-4)
    assert ends_of(step) == [(V, "<=", 0.005), (T, ">=", 99_000.0)]  # 1.1 mAh at 40 uA


def test_a_resistor_may_draw_what_it_does_at_the_upper_voltage_limit(compiled: Compile) -> None:
    program = compiled(
        "  - discharge: {into: 10 kohm, until: 1.5 V}\n"
        "  - discharge: {into: 4.7 kohm, for: 30 min, max_current: 2C}\n"
    )
    first, second = program.steps
    assert first.control == ConstantResistance(10_000.0, 4.5e-4)
    assert ends_of(first) == [(V, "<=", 1.5), (T, ">=", 26_400.0)]  # 1.1 mAh at 150 uA
    assert second.control == ConstantResistance(4700.0, 4e-4)
    assert ends_of(second) == [(T, ">=", 1800.0)]
    assert first.label == "discharge into 10 kohm until 1.5 V"


def test_a_hold_after_a_power_may_draw_what_the_power_did(compiled: Compile) -> None:
    program = compiled(
        "  - charge: {at: 1 mW, until: 4.1 V}\n  - hold: {voltage: 4.1 V, until: 0.02C}\n"
    )
    assert program.steps[1].control == ConstantVoltage(4.1, 1e-3, charging=True)


def test_a_charge_ends_by_whatever_is_written(compiled: Compile) -> None:
    (step,) = compiled(
        "  - charge:\n      at: 0.2C\n"
        "      until: [4.1 V, 85 mAh/g, 400 Wh/kg, 45 degC, {net charge: 100 mAh/g}, 4 h]\n"
    ).steps
    assert step.control == ConstantCurrent(4e-5)
    assert ends_of(step) == [
        (V, ">=", 4.1),
        (E, ">=", 8e-4),
        (NET, ">=", 2e-4),
        (HEAT, ">=", 45.0),
        (Q, ">=", 1.7e-4),
        (T, ">=", 14_400.0),
    ]


def test_the_charge_of_a_step_is_one_thing_and_the_net_charge_of_the_run_another(
    compiled: Compile,
) -> None:
    program = compiled(
        "  - charge: {at: 0.2C, until: 85 mAh/g}\n"
        "  - charge: {at: 0.2C, until: {net charge: 85 mAh/g}}\n"
        "  - discharge: {at: 0.2C, until: {net charge: 0 mAh/g}}\n"
        "  - discharge: {at: 0.2C, until: {net charge: -20 mAh/g}}\n"
    )
    assert [ends_of(step)[0] for step in program.steps] == [
        (Q, ">=", 1.7e-4),
        (NET, ">=", 1.7e-4),
        (NET, "<=", 0.0),
        (NET, "<=", -4e-5),
    ]
    assert [step.label for step in program.steps[:2]] == [
        "charge at 0.2C until 85 mAh/g",
        "charge at 0.2C until net charge 85 mAh/g",
    ]


def test_an_energy_or_a_net_charge_alone_ends_a_step_that_is_finite_all_the_same(
    compiled: Compile,
) -> None:
    program = compiled(
        "  - charge: {at: 0.2C, until: 1 mWh}\n"
        "  - discharge: {at: 1C, until: {net charge: 0 mAh}}\n"
        "  - discharge: {at: 1C, until: 45 degC}\n"
    )
    assert [ends_of(step)[-1] for step in program.steps] == [
        (T, ">=", 99_000.0),
        (T, ">=", 19_800.0),
        (T, ">=", 19_800.0),
    ]


def test_a_hold_ends_by_whatever_is_written(compiled: Compile) -> None:
    program = compiled(
        "  - charge: {at: 1C, until: 4.1 V}\n"
        "  - hold: {voltage: 4.1 V, until: [0.02C, 0.1 mWh, {net charge: 0.3 mAh}, 40 degC]}\n"
        "  - hold: {voltage: 4.1 V, until: [0.1 mAh, 0.1 mWh], at_most: 2 h}\n"
    )
    assert ends_of(program.steps[1]) == [
        (I, "<=", 4e-6),
        (E, ">=", 1e-4),
        (NET, ">=", 3e-4),
        (HEAT, ">=", 40.0),
        (T, ">=", 990_000.0),
    ]
    assert ends_of(program.steps[2]) == [(E, ">=", 1e-4), (Q, ">=", 1e-4), (T, ">=", 7200.0)]


def test_a_constant_current_with_a_hold_behind_it_ends_by_the_rest_of_the_list_too(
    compiled: Compile,
) -> None:
    (step,) = compiled(
        "  - charge: {at: 1C, until: [4.1 V, {net charge: 0.3 mAh}], hold_until: 0.05C}\n"
    ).steps
    assert step.control == ConstantCurrentConstantVoltage(2e-4, 4.1)
    assert sorted(ends_of(step)) == [
        (I, "<=", 1e-5),
        (NET, ">=", 3e-4),
        (T, ">=", 396_000.0),
    ]


def test_a_rest_ends_when_the_voltage_has_settled(compiled: Compile) -> None:
    (step,) = compiled("  - rest: {for: 4 h, until: 3.6 mV/h}\n").steps
    assert step.control == Rest()
    assert ends_of(step) == [(SLOPE, "<=", 1e-6), (T, ">=", 14_400.0)]


def test_a_parameter_stands_for_a_net_charge(compiled: Compile) -> None:
    steps = "  - charge: {at: 0.2C, until: {net charge: $q}}\n"
    program = compiled(steps, "parameters: {q: 85 mAh/g}\n", q="60 mAh/g")
    assert ends_of(program.steps[0])[0] == (NET, ">=", 1.2e-4)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("rest: {for: 4 h, until: 1 mV/h}",
         "Rest without current until the voltage changes by no more than 1 mV/h, for at most 4 h."),
        ("charge: {at: 5 mW, until: 4.1 V, max_current: 10C}",
         "Charge at 5 mW, with at most 10C, until the voltage has risen to 4.1 V."),
        ("discharge: {into: 1 kohm, until: [1.5 V, 45 degC]}",
         ("Discharge into 1 kohm until the voltage has fallen to 1.5 V, or the cell has warmed to "
         "45 degC.")),
        ("discharge: {at: 1C, until: {net charge: -1 mAh/g}}",
         "Discharge at 1C until the net charge of the run has fallen to -1 mAh/g."),
        ("charge: {at: 1C, until: 5 mWh}", "Charge at 1C until 5 mWh have passed."),
        ("hold: {voltage: 4.1 V, until: {net charge: 1 mAh}, direction: charge, for: 1 h}",
         "Hold 4.1 V until the net charge of the run has risen to 1 mAh, for at most 1 h."),
    ],
)  # fmt: skip
def test_loads_and_ends_are_told_as_a_person_would(step: str, said: str) -> None:
    assert told(step) == f"1. {said}"


def test_a_charge_per_gram_scales_with_the_cell_and_a_net_charge_too(
    compiled: Compile, cell: Cell
) -> None:
    heavy = msgspec.structs.replace(cell, active_mass_g=0.02)
    text = "  - charge: {at: 0.5 W/g, until: [{net charge: 85 mAh/g}, 400 Wh/kg]}\n"
    (step,) = compiled(text, on=heavy).steps
    assert step.control == ConstantPower(0.01, 0.01)
    assert ends_of(step)[:2] == [(E, ">=", 8e-3), (NET, ">=", 1.7e-3)]
    assert math.isfinite(step.ends[-1].value)
