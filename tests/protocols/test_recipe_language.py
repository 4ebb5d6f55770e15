"""What a recipe means: each thing that can be written, as the Program that comes of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import msgspec
import pytest

from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    DropAlarm,
    EfficiencyAlarm,
    EndCondition,
    FadeAlarm,
    KneeAlarm,
    Limits,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    RetentionAlarm,
    Step,
    TemperatureAlarm,
    decode_program,
    encode_program,
)
from labctl.protocols.recipe import compile_recipe, read_recipe

Compile = Callable[..., Program]

V, I, T, Q = (
    Quantity.VOLTAGE_V,
    Quantity.CURRENT_A,
    Quantity.STEP_TIME_S,
    Quantity.STEP_CHARGE_AH,
)


def ends_of(step: Step) -> list[tuple[Quantity, str, float]]:
    return [(end.quantity, str(end.comparison), end.value) for end in step.ends]


def test_a_charge_is_positive_and_ends_when_the_voltage_has_risen(compiled: Compile) -> None:
    (step,) = compiled("  - charge: {at: 0.2C, until: 4.1 V}\n").steps
    assert step.control == ConstantCurrent(4e-05)
    assert step.ends[0] == EndCondition(V, Comparison.AT_LEAST, 4.1)
    assert step.line == 3
    assert step.label == "charge at 0.2C until 4.1 V"


def test_a_discharge_is_negative_and_ends_when_the_voltage_has_fallen(compiled: Compile) -> None:
    (step,) = compiled("  - discharge: {at: 25 mA/g, until: 1.5 V}\n").steps
    assert step.control == ConstantCurrent(-5e-05)
    assert step.ends[0] == EndCondition(V, Comparison.AT_MOST, 1.5)


def test_a_constant_current_lasts_no_longer_than_its_charge_limit_takes(compiled: Compile) -> None:
    program = compiled("  - charge: {at: 0.2C, until: 4.1 V}\n")
    assert program.limits.step_charge_max_Ah == pytest.approx(5 * 2e-4)
    assert ends_of(program.steps[0])[1:] == [(T, ">=", 99_000.0)]

    program = compiled("  - charge: {at: 2C, until: 4.1 V}\n", "limits: {step charge: 0.4 mAh}\n")
    assert program.limits.step_charge_max_Ah == 4e-4
    assert ends_of(program.steps[0])[1:] == [(T, ">=", 3960.0)]


def test_a_swallowed_charge_trips_before_the_time_is_over(compiled: Compile) -> None:
    program = compiled("  - discharge: {at: 3C, until: 1.5 V}\n")
    (step,) = program.steps
    assert isinstance(step.control, ConstantCurrent)
    longest_s = step.ends[-1].value
    assert abs(step.control.current_A) * longest_s / 3600 > program.limits.step_charge_max_Ah


def test_every_kind_of_end_of_a_charge(compiled: Compile) -> None:
    program = compiled(
        "  - charge: {at: 0.2C, until: [4.1 V, 117 mAh/g, 2 h]}\n"
        "  - charge: {at: 0.2C, for: 30 min}\n"
        "  - charge: {at: 0.2C, until: 0.1 mAh, at_most: 4 h}\n"
        "  - discharge: {at: 0.2C, until: 1.5 V, at_most: 1 week}\n"
    )
    assert [ends_of(step) for step in program.steps] == [
        [(V, ">=", 4.1), (Q, ">=", 2.34e-4), (T, ">=", 7200.0)],
        [(T, ">=", 1800.0)],
        [(Q, ">=", 1e-4), (T, ">=", 14400.0)],
        [(V, "<=", 1.5), (T, ">=", 99_000.0)],
    ]


def test_hold_until_holds_the_voltage_that_was_reached(compiled: Compile) -> None:
    program = compiled(
        "  - charge: {at: 1C, until: 4.1 V, hold_until: 0.05C}\n"
        "  - discharge: {at: 1C, until: 1.5 V, hold_until: 10 uA, at_most: 3 h}\n"
    )
    first, second = program.steps
    assert first.control == ConstantCurrentConstantVoltage(2e-4, 4.1)
    assert ends_of(first) == [(I, "<=", 1e-5), (T, ">=", 396_000.0)]
    assert second.control == ConstantCurrentConstantVoltage(-2e-4, 1.5)
    assert ends_of(second) == [(I, "<=", 1e-5), (T, ">=", 10_800.0)]


def test_a_hold_takes_current_and_direction_from_the_charge_before_it(compiled: Compile) -> None:
    program = compiled(
        "  - charge: {at: 0.5C, until: 4.1 V}\n"
        "  - hold: {voltage: 4.1 V, until: 0.02C, at_most: 2 h}\n"
        "  - discharge: {at: 2C, until: 1.5 V}\n"
        "  - hold: {voltage: 1.5 V, for: 1 h}\n"
        "  - hold: {voltage: 2 V, until: [1 mA, 0.1 mAh], max_current: 10C, direction: charge}\n"
    )
    _, up, _, down, told = program.steps
    assert up.control == ConstantVoltage(4.1, 1e-4, charging=True)
    assert ends_of(up) == [(I, "<=", 4e-6), (T, ">=", 7200.0)]
    assert down.control == ConstantVoltage(1.5, 4e-4, charging=False)
    assert ends_of(down) == [(T, ">=", 3600.0)]
    assert told.control == ConstantVoltage(2.0, 2e-3, charging=True)
    assert ends_of(told) == [(I, "<=", 1e-3), (Q, ">=", 1e-4), (T, ">=", 3960.0)]


def test_a_hold_before_anything_else_may_draw_1C(compiled: Compile) -> None:
    (step,) = compiled("  - hold: {voltage: 3 V, for: 1 h, direction: discharge}\n").steps
    assert step.control == ConstantVoltage(3.0, 2e-4, charging=False)


def test_a_rest_is_bounded_by_its_time(compiled: Compile) -> None:
    program = compiled("  - rest: 10 min\n  - rest: {for: 1 h 30 min, record: 60 s}\n")
    assert [step.control for step in program.steps] == [Rest(), Rest()]
    assert [ends_of(step) for step in program.steps] == [[(T, ">=", 600.0)], [(T, ">=", 5400.0)]]
    assert program.steps[1].record == RecordRule(every_s=60.0)


def test_cycles_count_and_repeats_do_not(compiled: Compile) -> None:
    program = compiled(
        "  - cycle: 2\n    class: formation\n    do:\n      - rest: 1 min\n"
        "  - cycle: 3 cycles\n    do:\n"
        "      - repeat: 4 times\n        do:\n          - rest: 1 s\n"
        "  - repeat: 5\n    do:\n      - cycle: 6\n        do:\n          - rest: 1 s\n"
    )
    first, second, third = program.body
    assert isinstance(first, Loop)
    assert isinstance(second, Loop)
    assert isinstance(third, Loop)
    assert (first.count, first.counts_cycles, first.cycle_class) == (2, True, "formation")
    assert (second.count, second.counts_cycles, second.cycle_class) == (3, True, "cycle")
    inner = second.body[0]
    assert isinstance(inner, Loop)
    assert (inner.count, inner.counts_cycles) == (4, False)
    assert not third.counts_cycles
    assert program.cycle_count == 2 + 3 + 5 * 6
    assert program.visit_count == 2 + 3 * 4 + 5 * 6


def test_for_is_unrolled_with_each_value_in_turn(compiled: Compile) -> None:
    program = compiled(
        "  - for: rate\n    in: [0.2C, 1C]\n    do:\n"
        "      - for: upper\n        in: $uppers\n        do:\n"
        "          - cycle: 2\n            class: $rate\n            do:\n"
        "              - charge: {at: $rate, until: $upper}\n",
        "parameters: {uppers: [4.0 V, 4.1 V]}\n",
    )
    assert [(step.control, step.ends[0].value) for step in program.steps] == [
        (ConstantCurrent(4e-05), 4.0),
        (ConstantCurrent(4e-05), 4.1),
        (ConstantCurrent(2e-4), 4.0),
        (ConstantCurrent(2e-4), 4.1),
    ]
    assert [step.index for step in program.steps] == [0, 1, 2, 3]
    classes = [node.cycle_class for node in program.body if isinstance(node, Loop)]
    assert classes == ["0.2C", "0.2C", "1C", "1C"]


def test_a_parameter_can_be_set_for_one_run(compiled: Compile) -> None:
    head = (
        "parameters: {upper: 4.1 V, rates: [1C], n: 3, window: 1 V .. 4.4 V}\n"
        "limits: {voltage: $window}\n"
    )
    steps = (
        "  - for: rate\n    in: $rates\n    do:\n"
        "      - cycle: $n\n        do:\n          - charge: {at: $rate, until: $upper}\n"
    )
    assert compiled(steps, head).cycle_count == 3
    program = compiled(steps, head, upper="4.0 V", rates="[1C, 2C]", n="7", window="1 V .. 4.2 V")
    assert program.cycle_count == 14
    assert [step.ends[0].value for step in program.steps] == [4.0, 4.0]
    assert program.limits.voltage_max_V == 4.2


@pytest.mark.parametrize(
    ("parameters", "message", "suggestion"),
    [
        ({"uper": "4 V"}, "has no parameter 'uper'", "did you mean 'upper'?"),
        ({"x": "4 V"}, "has no parameter 'x'", "it has upper"),
        ({"upper": "4"}, "2:14: the parameter 'upper': '4' has no unit", "write '4 V'"),
        ({"upper": "4.2C"}, "'4.2C' is a C-rate; a voltage is needed", "write for example '4.1 V'"),
        ({"upper": "4.6 V"}, "4.6 V is outside the safe window of cell 'HE-V-1'", ""),
        ({"upper": "{a: b}"}, "needs one value or a list", ""),
        ({"upper": "[4 V, 3 V"}, "closing bracket is missing", ""),
        ({"upper": ""}, "is empty", ""),
        ({"upper": "!!int 4"}, "the tag", ""),
    ],
)
def test_a_wrong_value_for_a_parameter_is_refused(
    compiled: Compile, parameters: dict[str, str], message: str, suggestion: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        compiled(
            "  - charge: {at: 0.2C, until: $upper}\n",
            "parameters: {upper: 4.1 V}\n",
            **parameters,
        )
    assert message in str(caught.value)
    assert suggestion in str(caught.value)


def test_limits_that_are_not_written_come_from_the_cell(compiled: Compile, cell: Cell) -> None:
    steps = "  - rest: 10 min\n  - discharge: {at: 2C, for: 1 h}\n"
    assert compiled(steps).limits == Limits(
        voltage_min_V=1.0,
        voltage_max_V=4.5,
        current_min_A=pytest.approx(-4.8e-4),
        current_max_A=pytest.approx(4.8e-4),
        step_charge_max_Ah=pytest.approx(1e-3),
        duration_max_s=math.ceil(1.05 * 4200),
    )
    strong = msgspec.structs.replace(cell, max_current_A=0.02)
    limits = compiled(steps, on=strong).limits
    assert (limits.current_min_A, limits.current_max_A) == (-0.02, 0.02)
    limits = compiled("  - rest: 1 h\n").limits
    assert limits.current_max_A == pytest.approx(1.2 * 2e-4)


def test_limits_are_taken_as_written(compiled: Compile) -> None:
    head = (
        "limits: {voltage: 1.2 V .. 4.4 V, current: -3C .. 1 mA, temperature: 5 degC .. 60 degC,"
        " step charge: 250 mAh/g, duration: 7 d}\n"
    )
    assert compiled("  - rest: 10 min\n", head).limits == Limits(
        voltage_min_V=1.2,
        voltage_max_V=4.4,
        current_min_A=-6e-4,
        current_max_A=1e-3,
        step_charge_max_Ah=5e-4,
        duration_max_s=604_800.0,
        temperature_min_degC=5.0,
        temperature_max_degC=60.0,
    )


def test_readings_are_kept_as_the_step_says_and_else_as_the_recipe_says(compiled: Compile) -> None:
    program = compiled(
        "  - rest: 1 h\n"
        "  - rest: {for: 1 h, record: {voltage_change: 1 mV}}\n"
        "  - rest: {for: 1 h, record: {every: off, current_change: 10 uA}}\n",
        "record: {every: 60 s, voltage_change: 5 mV}\n",
    )
    assert [step.record for step in program.steps] == [
        RecordRule(60.0, 0.005),
        RecordRule(60.0, 0.001),
        RecordRule(math.inf, 0.005, 1e-5),
    ]
    assert compiled("  - rest: 1 h\n").steps[0].record == RecordRule(30.0, 0.002)


def test_a_retention_alarm_is_what_was_written_and_else_the_default(compiled: Compile) -> None:
    steps = "  - cycle: 10\n    do:\n      - rest: 1 h\n"
    others = "drop: off, efficiency: off"
    assert compiled(steps, f"alarms: {{retention: off, {others}}}\n").alarms == ()
    assert compiled(steps, f"alarms: {{retention: 80 %, {others}}}\n").alarms == (RetentionAlarm(),)
    head = (
        "alarms:\n  drop: off\n  efficiency: off\n  retention:\n"
        "    - {below: 90 %, reference: cycle 1, over: 1 cycle}\n"
        "    - {below: 70 %, clears: 75 %, reference: cycles 2 .. 4, over: 3}\n"
    )
    assert compiled(steps, head).alarms == (
        RetentionAlarm(0.9, 0.91, 1, 1, 1),
        RetentionAlarm(0.7, 0.75, 2, 4, 3),
    )


def many(cycles: int) -> str:
    return f"  - cycle: {cycles}\n    do:\n      - rest: 1 h\n"


@pytest.mark.parametrize(
    ("cycles", "names"),
    [
        (0, []),
        (4, []),
        (5, ["EfficiencyAlarm"]),
        (8, ["RetentionAlarm", "DropAlarm", "EfficiencyAlarm"]),
        (66, ["RetentionAlarm", "DropAlarm", "EfficiencyAlarm", "KneeAlarm"]),
        (67, ["RetentionAlarm", "DropAlarm", "EfficiencyAlarm", "FadeAlarm", "KneeAlarm"]),
    ],
)
def test_every_run_is_watched_for_what_it_has_cycles_enough_for(
    compiled: Compile, cycles: int, names: list[str]
) -> None:
    found = compiled(many(cycles) if cycles else "  - rest: 1 h\n").alarms
    assert [type(alarm).__name__ for alarm in found] == names


def test_what_is_written_of_an_alarm_takes_the_place_of_its_default(compiled: Compile) -> None:
    head = (
        "alarms: {retention: {below: 70 %, reference: cycle 2, over: 1}, "
        "drop: {more_than: 8 %, confirmed_by: 1, steady: 4 cycles}, "
        "efficiency: 99.5 %, fade: {times: 5, at_least: 0.05 %}, knee: 30 cycles,\n"
        "         temperature: {above: 45 degC, below: 5 degC, rate: 3 K/min, for: 2 min}}\n"
    )
    assert compiled(many(200), head).alarms == (
        RetentionAlarm(0.7, 0.71, 2, 2, 1),
        DropAlarm(more_than=0.08, confirmed_by=1, steady_cycles=4),
        EfficiencyAlarm(below=0.995),
        FadeAlarm(times=5.0, at_least=5e-4, reference_first=2, reference_last=2, limit=0.7),
        KneeAlarm(over_cycles=90, confirmed_by=30),
        TemperatureAlarm(above_degC=45.0, below_degC=5.0, rate_K_per_s=0.05, for_s=120.0),
    )
    usual = compiled(many(200), "alarms: {fade: off, efficiency: {}}\n").alarms
    assert usual == (
        EfficiencyAlarm(by_default=True),
        RetentionAlarm(by_default=True),
        DropAlarm(),
        KneeAlarm(),
    )


def test_an_alarm_can_be_switched_off_by_a_parameter(compiled: Compile) -> None:
    head = "parameters: {watched: off}\nalarms: {drop: $watched, efficiency: off}\n"
    assert [type(alarm) for alarm in compiled(many(8), head).alarms] == [RetentionAlarm]


def test_ten_thousand_cycles_at_50C_stay_a_loop(compiled: Compile) -> None:
    program = compiled(
        "  - cycle: 10000\n    do:\n"
        "      - charge: {at: 50C, until: 4.1 V}\n      - discharge: {at: 50C, until: 1.5 V}\n"
    )
    assert len(program.steps) == 2
    assert program.visit_count == 20_000
    assert decode_program(encode_program(program)) == program


def test_a_recipe_is_named_by_its_text_and_the_hash_of_its_bytes(cell: Cell) -> None:
    text = "recipe: Über 4 V\r\nabout: Prüfung\r\nsteps:\r\n  - rest: 1 h\r\n"
    recipe = read_recipe(text)
    assert (recipe.name, recipe.about) == ("Über 4 V", "Prüfung")
    assert recipe.sha256 == hashlib.sha256(text.encode()).hexdigest()
    program = compile_recipe(recipe, cell)
    assert (program.name, program.recipe_sha256, program.cell) == (
        "Über 4 V",
        recipe.sha256,
        "HE-V-1",
    )


def test_mistakes_of_every_section_are_found_together_on_a_cell(cell: Cell) -> None:
    recipe = read_recipe(
        "recipe: x\nlimits: {voltage: 0.5 V .. 4.4 V, step charge: 0.1 mAh}\nsteps:\n"
        "  - charge: {at: 0.2C, until: [4.1 V, 1 mAh]}\n"
        "  - discharge: {at: 0.2C, until: 0.9 V}\n"
    )
    with pytest.raises(RecipeError) as caught:
        compile_recipe(recipe, cell)
    assert [problem.line for problem in caught.value.problems] == [2, 4, 5]


def test_too_many_different_steps_are_refused_at_once(compiled: Compile) -> None:
    values = ", ".join(f"{n} s" for n in range(1, 121))
    steps = (
        f"  - for: a\n    in: [{values}]\n    do:\n"
        f"      - for: b\n        in: [{values}]\n        do:\n"
        "          - rest: $a\n          - rest: $b\n"
    )
    with pytest.raises(RecipeError, match="more than 10000 steps"):
        compiled(steps)
