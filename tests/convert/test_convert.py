"""A recipe goes out to another format and comes back as the same measurement."""

from __future__ import annotations

import json

import msgspec
import pytest

from labctl.convert.neware import from_neware, to_neware
from labctl.convert.pybamm import from_pybamm, to_pybamm
from labctl.convert.told import ConversionError, Converted
from labctl.convert.unicycler import from_unicycler, to_unicycler
from labctl.model import Cell
from labctl.program import (
    ConstantCurrent,
    ConstantPower,
    ConstantVoltage,
    Loop,
    Node,
    Program,
    Quantity,
    Rest,
    Step,
)
from labctl.protocols.recipe import compile_recipe, read_recipe

CELL = Cell(
    name="A",
    material="HE-V",
    active_mass_g=2e-3,
    one_C_mA_per_g=100.0,
    safe_voltage_min_V=1.0,
    safe_voltage_max_V=4.5,
)
RECIPE = """
recipe: To and fro
about: A test.
limits: {voltage: 1.1 V .. 4.4 V, current: 12 mA}
record: {every: 30 s, voltage_change: 5 mV}
steps:
  - rest: 10 min
  - repeat: 2
    do:
      - charge: {at: 0.2C, until: 4.1 V, at_most: 8 h}
      - hold: {voltage: 4.1 V, until: 0.02C, at_most: 2 h}
      - cycle: 3
        do:
          - discharge: {at: 50C, until: 1.5 V, at_most: 5 min}
          - charge: {at: 10C, until: 4.1 V, at_most: 1 h}
  - rest: 1 h
"""


def program_of(text: str) -> Program:
    return compile_recipe(read_recipe(text), CELL)


def same(ours: tuple[Node, ...], theirs: tuple[Node, ...]) -> None:
    """Whether two bodies do the same to a cell."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(mine, Loop):
            assert isinstance(other, Loop)
            assert mine.count == other.count
            assert mine.counts_cycles == other.counts_cycles
            same(mine.body, other.body)
            continue
        assert isinstance(mine, Step)
        assert isinstance(other, Step)
        assert type(mine.control) is type(other.control)
        for key, value in msgspec.structs.asdict(mine.control).items():
            assert getattr(other.control, key) == pytest.approx(value, rel=1e-9)
        found = {(end.quantity, end.comparison): end.value for end in other.ends}
        for end in mine.ends:
            assert found[end.quantity, end.comparison] == pytest.approx(end.value, rel=1e-9)


def test_a_recipe_comes_back_from_pybamm_as_the_same_steps() -> None:
    program = program_of(RECIPE)
    there = to_pybamm(program, CELL)
    assert "Discharge at 50C for 300 seconds or until 1.5 V (30 second period)" in there.text
    same(program.body, program_of(from_pybamm(there.text, "Back").text).body)
    assert any("limits" in each for each in there.lost)


def test_a_recipe_comes_back_from_unicycler_as_the_same_steps_limits_and_records() -> None:
    program = program_of(RECIPE)
    there = to_unicycler(program, CELL)
    assert json.loads(there.text)["sample"] == {"name": "A", "capacity_mAh": 0.2}
    back = program_of(from_unicycler(there.text, "Back").text)
    same(program.body, back.body)
    assert back.limits.voltage_max_V == 4.4
    assert back.limits.current_min_A == -12e-3
    assert back.steps[0].record == program.steps[0].record


def test_a_recipe_comes_back_from_a_neware_step_file_as_the_same_steps() -> None:
    program = program_of(RECIPE)
    there = to_neware(program)
    back = program_of(from_neware(there.text.encode(), "Back").text)
    same(program.body, back.body)
    assert back.name == "To and fro"
    assert back.limits.voltage_min_V == 1.1


def test_pybammas_own_sentences_are_understood() -> None:
    text = """[
        ("Discharge at C/10 for 10 hours or until 3.3 V", "Rest for 1 hour",
         "Charge at 1 A until 4.1 V", "Hold at 4.1 V until 50 mA", "Rest for 0.5 hours"),
    ] * 3 + ["Charge at 200 mW for 45 minutes (1 minute period)"]"""
    told = from_pybamm(text, "Theirs").text
    assert "until: 3.3 V" in told
    assert "at: C/10" in told
    cell = msgspec.structs.replace(CELL, active_mass_g=20.0)
    program = compile_recipe(read_recipe(told), cell)
    [loop, power] = program.body
    assert isinstance(loop, Loop)
    assert loop.count == 3
    assert [type(step.control) for step in loop.body if isinstance(step, Step)] == [
        ConstantCurrent,
        Rest,
        ConstantCurrent,
        ConstantVoltage,
        Rest,
    ]
    assert isinstance(power, Step)
    assert isinstance(power.control, ConstantPower)
    assert power.control.power_W == pytest.approx(0.2)
    assert power.record.every_s == 60.0


def test_sentences_one_a_line_are_understood_too() -> None:
    told = from_pybamm("Rest for 5 minutes\nDischarge at 2C until 1.5 V\n", "Lines").text
    assert [type(step.control) for step in program_of(told).steps] == [Rest, ConstantCurrent]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Discharge quickly", "not understood"),
        ("Discharge at 1C", "has no end"),
        ("Rest until 3 V", "a rest takes a time"),
        ("Hold at 1 A for 1 hour", "a hold takes a voltage"),
        ("[__import__('os')]", "neither a sentence"),
        ("[('Rest for 1 s',) * 3.5]", "neither a sentence"),
        ("", "no step"),
    ],
)
def test_what_is_not_understood_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ConversionError, match=complaint):
        from_pybamm(text, "Odd")


def test_everything_wrong_is_named_at_once() -> None:
    with pytest.raises(ConversionError) as told:
        from_pybamm("Sing\nRest for 1 h\nDance\n", "Odd")
    assert len(told.value.problems) == 2


def test_unicyclers_rates_may_be_fractions_and_numbers_may_be_texts() -> None:
    protocol = {
        "record": {"time_s": "10"},
        "method": [
            {"step": "tag", "tag": "here"},
            {"step": "constant_current", "rate_C": "C/5", "until_voltage_V": "4.1"},
            {"step": "constant_current", "rate_C": "D/2", "until_voltage_V": 1.5},
            {"step": "loop", "loop_to": "here", "cycle_count": 4},
        ],
    }
    program = program_of(from_unicycler(json.dumps(protocol), "Theirs").text)
    [loop] = program.body
    assert isinstance(loop, Loop)
    assert (loop.count, loop.counts_cycles) == (4, True)
    currents = [step.control.current_A for step in program.steps]  # type: ignore[union-attr]
    assert currents == pytest.approx([40e-6, -100e-6])


def test_a_loop_into_the_middle_of_another_is_refused() -> None:
    method = [
        {"step": "open_circuit_voltage", "until_time_s": 1},
        {"step": "open_circuit_voltage", "until_time_s": 2},
        {"step": "loop", "loop_to": 1, "cycle_count": 3},
        {"step": "open_circuit_voltage", "until_time_s": 3},
        {"step": "loop", "loop_to": 2, "cycle_count": 3},
    ]
    with pytest.raises(ConversionError, match="goes back to step 2"):
        from_unicycler(json.dumps({"record": {"time_s": 1}, "method": method}), "Knot")


def test_what_a_format_cannot_say_is_refused_with_the_step_that_needs_it() -> None:
    text = RECIPE + "  - discharge: {at: 0.2C, until: 10 mAh/g}\n"
    program = program_of(text)
    assert any(end.quantity is Quantity.STEP_CHARGE_AH for end in program.steps[-1].ends)
    with pytest.raises(ConversionError, match="its end by step_charge_Ah"):
        to_pybamm(program, CELL)
    with pytest.raises(ConversionError, match="its end by step_charge_Ah"):
        to_unicycler(program, CELL)


def test_an_odd_name_does_not_become_yaml() -> None:
    for name in ("a: b", "- x", "{y}", "#no", "12:30", "it's", "yes", "1e3", "'", "name\n- rest"):
        converted: Converted = from_pybamm("Rest for 1 h", name)
        assert read_recipe(converted.text).name == name.replace("\n", " ")
