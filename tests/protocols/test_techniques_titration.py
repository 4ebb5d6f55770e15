"""GITT, PITT and current pulses, as the steps that come of them on a cell of 1C = 200 uA."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labctl.program import (
    ConstantCurrent,
    ConstantVoltage,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
    Then,
)
from labctl.protocols.explain import explain_text
from labctl.protocols.recipe import read_recipe

Compile = Callable[..., Program]
V, I, T, Q = (
    Quantity.VOLTAGE_V,
    Quantity.CURRENT_A,
    Quantity.STEP_TIME_S,
    Quantity.STEP_CHARGE_AH,
)
NET, SLOPE = Quantity.RUN_CHARGE_AH, Quantity.VOLTAGE_SLOPE_V_PER_S
NEXT, LEAVE = Then.NEXT, Then.LEAVE_LOOP


def ends_of(step: Step) -> list[tuple[Quantity, str, float, Then]]:
    return [(end.quantity, str(end.comparison), end.value, end.then) for end in step.ends]


def told(step: str) -> str:
    lines = explain_text(read_recipe(f"recipe: x\nsteps:\n  - {step}\n")).split("\n")
    return next(line for line in lines if line.startswith("1. "))


def test_a_titration_is_pulses_and_rests_until_a_pulse_reaches_the_voltage(
    compiled: Compile,
) -> None:
    program = compiled(
        "  - gitt: {at: 0.1C, direction: charge, pulse: 10 min, rest: 1 h, until: 4.1 V}\n"
    )
    (loop,) = program.body
    assert isinstance(loop, Loop)
    assert not loop.counts_cycles
    pulse, rest = program.steps
    assert pulse.control == ConstantCurrent(2e-5)
    assert ends_of(pulse) == [(V, ">=", 4.1, LEAVE), (T, ">=", 600.0, NEXT)]
    assert rest.control == Rest()
    assert ends_of(rest) == [(T, ">=", 3600.0, NEXT)]
    assert pulse.label == "charge pulse of 10 min at 0.1C until 4.1 V"


def test_as_many_pulses_as_would_pass_the_step_charge_limit(compiled: Compile) -> None:
    steps = "  - gitt: {at: 0.1C, direction: charge, pulse: 10 min, rest: 1 h, until: 4.1 V}\n"

    def count(head: str = "", text: str = steps) -> int:
        (loop,) = compiled(text, head).body
        assert isinstance(loop, Loop)
        return loop.count

    assert count() == 300  # 1 mAh in pulses of 20 uA for a sixth of an hour
    assert count("limits: {step charge: 250 mAh/g}\n") == 150
    assert count(text=steps.replace("until: 4.1 V", "until: 4.1 V, most: 40")) == 40


def test_a_titration_goes_down_by_charge_and_rests_until_the_voltage_has_settled(
    compiled: Compile,
) -> None:
    program = compiled(
        "  - gitt:\n      at: 0.5C\n      direction: discharge\n      pulse: 5 mAh/g\n"
        "      rest: {for: 4 h, until: 1 mV/h}\n      until: [1.5 V, {net charge: -100 mAh/g}]\n"
        "      most: 20\n"
    )
    pulse, rest = program.steps
    assert pulse.control == ConstantCurrent(-1e-4)
    assert ends_of(pulse) == [
        (V, "<=", 1.5, LEAVE),
        (NET, "<=", -2e-4, LEAVE),
        (Q, ">=", 1e-5, NEXT),
        (T, ">=", 396.0, NEXT),  # 1.1 times 360 s
    ]
    assert ends_of(rest) == [
        (SLOPE, "<=", pytest.approx(1e-3 / 3600), NEXT),
        (T, ">=", 14_400.0, NEXT),
    ]


def test_a_titration_counts_as_the_charge_before_a_hold(compiled: Compile) -> None:
    program = compiled(
        "  - gitt: {at: 0.1C, direction: discharge, pulse: 10 min, rest: 1 h, until: 1.5 V}\n"
        "  - hold: {voltage: 1.5 V, for: 1 h}\n"
    )
    assert program.steps[-1].control == ConstantVoltage(1.5, 2e-5, charging=False)


def test_a_titration_stands_inside_a_cycle(compiled: Compile) -> None:
    program = compiled(
        "  - cycle: 1\n    do:\n"
        "      - gitt: {at: C/10, direction: charge, pulse: 10 min, rest: 1 h, until: 4.1 V}\n"
        "      - gitt: {at: C/10, direction: discharge, pulse: 10 min, rest: 1 h, until: 1.5 V}\n"
    )
    assert program.cycle_count == 1
    assert program.visit_count == 4 * 300


def test_the_records_of_a_titration_are_those_of_its_pulse_and_of_its_rest(
    compiled: Compile,
) -> None:
    gitt = "  - gitt: {at: 0.1C, direction: charge, pulse: 10 min, rest: REST, until: 4.1 V MORE}\n"

    def rules(rest: str, more: str = "", head: str = "") -> list[RecordRule]:
        text = gitt.replace("REST", rest).replace(" MORE", more)
        return [step.record for step in compiled(text, head).steps]

    assert rules("1 h") == [RecordRule(5.0, 0.001), RecordRule(30.0, 0.002)]
    assert rules("1 h", ", record: 2 s") == [RecordRule(2.0), RecordRule(2.0)]
    assert rules("{for: 1 h, record: 90 s}", ", record: 2 s") == [RecordRule(2.0), RecordRule(90.0)]
    assert rules("1 h", head="record: 7 s\n") == [RecordRule(7.0), RecordRule(7.0)]


def test_a_potentiostatic_titration_is_one_step_a_voltage(compiled: Compile) -> None:
    program = compiled(
        "  - pitt: {from: 4.0 V, to: 4.05 V, step: 20 mV, until: 0.01C, at_most: 2 h}\n"
    )
    assert [step.control for step in program.steps] == [
        ConstantVoltage(voltage_V, 1e-3, charging=True) for voltage_V in (4.0, 4.02, 4.04, 4.05)
    ]
    for step in program.steps:
        assert ends_of(step) == [(I, "<=", 2e-6, NEXT), (T, ">=", 7200.0, NEXT)]
    assert program.steps[1].label == "hold 4.02 V until 0.01C"


def test_a_potentiostatic_titration_may_go_down(compiled: Compile) -> None:
    steps = compiled(
        "  - pitt: {from: 3.0 V, to: 1.5 V, step: 10 mV, until: 1 uA, max_current: 1C}\n"
    ).steps
    assert len(steps) == 151
    assert steps[0].control == ConstantVoltage(3.0, 2e-4, charging=False)
    assert steps[1].control == ConstantVoltage(2.99, 2e-4, charging=False)
    assert steps[-1].control == ConstantVoltage(1.5, 2e-4, charging=False)
    assert ends_of(steps[0]) == [(I, "<=", 1e-6, NEXT), (T, ">=", 3600.0, NEXT)]
    assert steps[0].record == RecordRule(20.0, current_change_A=2e-6)


def test_a_pulse_is_a_discharge_a_rest_and_a_charge_of_three_quarters(compiled: Compile) -> None:
    first, rest, back = compiled("  - pulse: {at: 5C}\n").steps
    assert first.control == ConstantCurrent(-1e-3)
    assert ends_of(first) == [(T, ">=", 10.0, NEXT)]
    assert rest.control == Rest()
    assert ends_of(rest) == [(T, ">=", 40.0, NEXT)]
    assert back.control == ConstantCurrent(7.5e-4)
    assert ends_of(back) == [(T, ">=", 10.0, NEXT)]
    assert [step.label for step in (first, rest, back)] == [
        "discharge pulse at 5C",
        "rest 40 s",
        "charge pulse at 75 % of 5C",
    ]


def test_a_pulse_is_what_is_written(compiled: Compile) -> None:
    first, rest, back = compiled(
        "  - pulse: {at: 2C, for: 18 s, rest: 5 min, back: 100 %, direction: charge, "
        "between: 2.0 V .. 4.2 V}\n"
    ).steps
    assert first.control == ConstantCurrent(4e-4)
    assert ends_of(first) == [(V, ">=", 4.2, NEXT), (T, ">=", 18.0, NEXT)]
    assert ends_of(rest) == [(T, ">=", 300.0, NEXT)]
    assert back.control == ConstantCurrent(-4e-4)
    assert ends_of(back) == [(V, "<=", 2.0, NEXT), (T, ">=", 18.0, NEXT)]


def test_a_pulse_alone_has_nothing_behind_its_rest(compiled: Compile) -> None:
    steps = compiled("  - pulse: {at: 1C, back: off}\n").steps
    assert [step.control for step in steps] == [ConstantCurrent(-2e-4), Rest()]


def test_a_pulse_is_recorded_ten_times_a_second_and_its_rest_nearly_so(compiled: Compile) -> None:
    steps = compiled(
        "  - pulse: {at: 5C}\n"
        "  - pulse: {at: 5C, for: 30 s, rest: 10 min}\n"
        "  - pulse: {at: 5C, record: 0.5 s}\n"
    ).steps
    assert [step.record.every_s for step in steps] == [0.1, 0.4, 0.1, 0.3, 1.0, 0.3, 0.5, 0.5, 0.5]


def test_titrations_and_pulses_are_told_as_a_person_would() -> None:
    gitt = "gitt: {at: 0.1C, direction: discharge, pulse: 10 min, rest: {for: 4 h, until: 1 mV/h}"
    assert told(f"{gitt}, until: 1.5 V, most: 99}}") == (
        "1. Discharge in pulses of 10 min at 0.1C, and rest after each until the voltage changes "
        "by no more than 1 mV/h, for at most 4 h, until the voltage has fallen to 1.5 V; 99 pulses "
        "at the most."
    )
    assert told("pitt: {from: 3.0 V, to: 4.1 V, step: 10 mV, until: 0.01C}") == (
        "1. Hold one voltage after the other from 3.0 V to 4.1 V in steps of 10 mV, each until the "
        "current has fallen to 0.01C, for at most 1 h."
    )
    assert told("pulse: {at: 5C, between: 2 V .. 4 V}") == (
        "1. A discharge pulse at 5C for 10 s; then rest for 40 s; then a charge pulse at 75 % of "
        "that current for 10 s; a pulse ends sooner at the voltages 2 V .. 4 V."
    )
