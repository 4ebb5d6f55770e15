"""Sweeps and cyclic voltammetry, as the steps that come of them on a cell of 1C = 200 uA."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.model import Cell
from labctl.program import Loop, Program, Quantity, RecordRule, Step, Then, VoltageSweep
from labctl.protocols.explain import explain_text
from labctl.protocols.recipe import compile_recipe, read_recipe

Compile = Callable[..., Program]
V, T = Quantity.VOLTAGE_V, Quantity.STEP_TIME_S


def ends_of(step: Step) -> list[tuple[Quantity, str, float]]:
    assert all(end.then is Then.NEXT for end in step.ends)
    return [(end.quantity, str(end.comparison), end.value) for end in step.ends]


def told(step: str) -> str:
    lines = explain_text(read_recipe(f"recipe: x\nsteps:\n  - {step}\n")).split("\n")
    return next(line for line in lines if line.startswith("1. "))


def test_a_sweep_ends_at_its_voltage_and_after_the_time_for_the_way(compiled: Compile) -> None:
    program = compiled(
        "  - sweep: {from: 3.0 V, to: 4.1 V, at: 0.1 mV/s}\n"
        "  - sweep: {from: 4.1 V, to: 1.5 V, at: 1 mV/s, max_current: 10C}\n"
    )
    up, down = program.steps
    assert up.control == VoltageSweep(3.0, 4.1, 1e-4, 4e-3)
    assert ends_of(up) == [(V, ">=", 4.1), (T, ">=", 11_000.0)]
    assert up.label == "sweep to 4.1 V at 0.1 mV/s"
    assert down.control == VoltageSweep(4.1, 1.5, 1e-3, 2e-3)
    assert ends_of(down) == [(V, "<=", 1.5), (T, ">=", 2600.0)]


def test_a_sweep_from_open_circuit_has_the_time_from_the_far_limit(compiled: Compile) -> None:
    program = compiled(
        "  - sweep: {to: 4.1 V, at: 1 mV/s, direction: up}\n"
        "  - sweep: {from: open circuit, to: 1.5 V, at: 1 mV/s, direction: down}\n",
        "limits: {voltage: 1.2 V .. 4.4 V}\n",
    )
    up, down = program.steps
    assert up.control == VoltageSweep(None, 4.1, 1e-3, 4e-2)
    assert ends_of(up) == [(V, ">=", 4.1), (T, ">=", 2900.0)]
    assert down.control == VoltageSweep(None, 1.5, 1e-3, 4e-2)
    assert ends_of(down) == [(V, "<=", 1.5), (T, ">=", 2900.0)]


def test_a_voltammogram_begins_with_a_sweep_that_is_in_no_cycle(compiled: Compile) -> None:
    program = compiled("  - voltammetry: {between: 1.5 V .. 4.1 V, at: 0.1 mV/s, cycles: 5}\n")
    first, loop = program.body
    assert isinstance(first, Step)
    assert isinstance(loop, Loop)
    assert first.control == VoltageSweep(None, 4.1, 1e-4, 4e-3)
    assert ends_of(first) == [(V, ">=", 4.1), (T, ">=", 31_000.0)]
    assert (loop.count, loop.counts_cycles, loop.cycle_class) == (5, True, "0.1 mV/s")
    there, back = loop.body
    assert isinstance(there, Step)
    assert isinstance(back, Step)
    assert there.control == VoltageSweep(4.1, 1.5, 1e-4, 4e-3)
    assert ends_of(there) == [(V, "<=", 1.5), (T, ">=", 26_000.0)]
    assert back.control == VoltageSweep(1.5, 4.1, 1e-4, 4e-3)
    assert ends_of(back) == [(V, ">=", 4.1), (T, ">=", 26_000.0)]
    assert program.cycle_count == 5
    assert program.visit_count == 11


def test_a_voltammogram_may_begin_downwards_and_at_a_voltage(compiled: Compile) -> None:
    program = compiled(
        "  - voltammetry: {between: 1.5 V .. 4.1 V, at: 1 mV/s, begin: down, from: 3.0 V}\n"
    )
    assert [step.control for step in program.steps] == [
        VoltageSweep(3.0, 1.5, 1e-3, 4e-2),
        VoltageSweep(1.5, 4.1, 1e-3, 4e-2),
        VoltageSweep(4.1, 1.5, 1e-3, 4e-2),
    ]
    assert program.cycle_count == 3


def test_no_sweep_leads_to_the_vertex_where_it_begins(compiled: Compile) -> None:
    (loop,) = compiled("  - voltammetry: {between: 2 V .. 4 V, at: 1 mV/s, from: 4 V}\n").body
    assert isinstance(loop, Loop)
    assert [step.control.to_V for step in loop.body] == [2.0, 4.0]  # type: ignore[union-attr]


def test_each_rate_of_a_list_is_a_class_of_its_own(compiled: Compile) -> None:
    program = compiled(
        "  - for: rate\n    in: [0.1 mV/s, 0.5 mV/s, 1 mV/s]\n    do:\n"
        "      - voltammetry: {between: 1.5 V .. 4.1 V, at: $rate, cycles: 2}\n"
    )
    loops = [node for node in program.body if isinstance(node, Loop)]
    assert [loop.cycle_class for loop in loops] == ["0.1 mV/s", "0.5 mV/s", "1 mV/s"]
    assert program.cycle_count == 6


def test_a_sweep_may_draw_20C_and_more_where_it_is_faster_but_less_than_the_limit(
    compiled: Compile, cell: Cell
) -> None:
    def largest_A(rate: str, head: str = "", **of_cell: float) -> float:
        on = msgspec.structs.replace(cell, **of_cell)
        step = f"  - sweep: {{from: 2 V, to: 4 V, at: {rate}}}\n"
        control = compiled(step, head, on=on).steps[0].control
        assert isinstance(control, VoltageSweep)
        return control.max_current_A

    assert largest_A("0.01 mV/s") == 4e-3
    assert largest_A("0.1 mV/s") == 4e-3
    assert largest_A("0.5 mV/s") == 2e-2
    assert largest_A("0.5 mV/s", max_current_A=0.01) == 9e-3
    assert largest_A("0.1 mV/s", "limits: {current: -2 mA .. 5 mA}\n") == 1.8e-3


def test_the_run_may_carry_what_its_sweeps_may_draw(compiled: Compile) -> None:
    program = compiled("  - sweep: {from: 2 V, to: 4 V, at: 0.1 mV/s}\n")
    assert program.limits.current_max_A == pytest.approx(1.2 * 4e-3)
    assert program.limits.current_min_A == pytest.approx(-1.2 * 4e-3)


def test_a_sweep_is_recorded_by_its_voltage(compiled: Compile) -> None:
    program = compiled(
        "  - sweep: {from: 2 V, to: 4 V, at: 0.1 mV/s}\n"
        "  - sweep: {from: 3.5 V, to: 4 V, at: 10 mV/s}\n"
        "  - sweep: {from: 2 V, to: 4 V, at: 1 mV/s, record: 5 s}\n"
    )
    assert [step.record for step in program.steps] == [
        RecordRule(60.0, 0.002),
        RecordRule(1.0, 0.001),
        RecordRule(5.0),
    ]


def test_an_alarm_knows_the_cycles_of_a_voltammogram(compiled: Compile) -> None:
    steps = "  - voltammetry: {between: 2 V .. 4 V, at: 1 mV/s, cycles: 10}\n"
    assert compiled(steps, "alarms: {retention: 80 %}\n").alarms


def test_a_voltammogram_may_be_repeated_but_not_counted_twice(compiled: Compile) -> None:
    steps = (
        "  - repeat: 2\n    do:\n"
        "      - rest: 1 h\n"
        "      - voltammetry: {between: 2 V .. 4 V, at: 1 mV/s}\n"
    )
    assert compiled(steps).cycle_count == 6


def test_a_sweep_and_a_voltammogram_are_told_as_a_person_would() -> None:
    assert told("sweep: {to: 1.5 V, at: 0.1 mV/s, direction: down, max_current: 1 mA}") == (
        "1. Sweep the voltage down from open circuit to 1.5 V at 0.1 mV/s, with at most 1 mA."
    )
    assert told("voltammetry: {between: 1.5 V .. 4.1 V, at: 0.1 mV/s, begin: down}") == (
        "1. Sweep the voltage from open circuit down, then 3 times there and back between "
        "1.5 V .. 4.1 V at 0.1 mV/s; each time is one cycle."
    )


@given(
    low=st.integers(1100, 2900),
    high=st.integers(3000, 4400),
    rate=st.integers(1, 100_000),
    cycles=st.integers(1, 50),
    up=st.booleans(),
    begins=st.none() | st.integers(1100, 4400),
)
def test_every_sweep_of_a_voltammogram_begins_where_the_one_before_ended(
    low: int, high: int, rate: int, cycles: int, up: bool, begins: int | None
) -> None:
    begin = "" if begins is None else f", from: {min(max(begins, low), high)} mV"
    recipe = read_recipe(
        f"recipe: x\nsteps:\n  - voltammetry: {{between: {low} mV .. {high} mV, at: {rate} uV/s, "
        f"cycles: {cycles}, begin: {'up' if up else 'down'}{begin}}}\n"
    )
    cell = Cell(
        name="c", material="x", active_mass_g=0.002, one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0, safe_voltage_max_V=4.5,
    )  # fmt: skip
    program = compile_recipe(recipe, cell)
    loop = program.body[-1]
    assert isinstance(loop, Loop)
    assert program.cycle_count == loop.count == cycles
    sweeps = [step.control for step in program.steps if isinstance(step.control, VoltageSweep)]
    assert len(sweeps) == len(program.steps)
    order = [*sweeps, *sweeps[-2:]]
    for before, after in itertools.pairwise(order):
        assert after.from_V == before.to_V
    assert sweeps[-1].to_V == (high if up else low) / 1000
    for step, sweep in zip(program.steps, sweeps, strict=True):
        seconds = step.ends[-1].value
        way_V = abs(sweep.to_V - sweep.from_V) if sweep.from_V is not None else 0.0
        assert seconds * sweep.rate_V_per_s >= way_V * (1 - 1e-8)
        if sweep.from_V is not None:
            assert seconds * sweep.rate_V_per_s <= way_V * (1 + 1e-8)
