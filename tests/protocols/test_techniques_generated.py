"""Whatever is written of a technique is refused with a place, or becomes steps that end."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.program import (
    ConstantCurrent,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Impedance,
    Loop,
    Node,
    Program,
    Quantity,
    Step,
    Then,
    VoltageSweep,
    decode_program,
    encode_program,
)
from labctl.protocols.compiler import most_s
from labctl.protocols.explain import explain_text
from labctl.protocols.plan import plan_text
from labctl.protocols.recipe import Recipe, compile_recipe, read_recipe
from labctl.protocols.techniques import TECHNIQUES
from labctl.protocols.techniques.recording import FASTEST_S

CURRENTS = st.one_of(
    st.integers(1, 500).map(lambda n: f"{n / 10:g}C"),
    st.integers(1, 900).map(lambda n: f"{n} mA/g"),
    st.integers(1, 9000).map(lambda n: f"{n} uA"),
)
VOLTAGES = st.integers(1050, 4450).map(lambda n: f"{n} mV")
TIMES = st.sampled_from(["1 s", "500 ms", "10 min", "1 h 30 min", "2 d"])
CHARGES = st.sampled_from(["10 mAh/g", "0.2 mAh", "{net charge: 85 mAh/g}", "{net charge: -1 uAh}"])
ENERGIES = st.sampled_from(["0.5 mWh", "300 Wh/kg"])
WARMER = st.sampled_from(["45 degC", "310 K"])
RATES = st.integers(1, 99_999).map(lambda n: f"{n} uV/s")
WAYS = st.sampled_from(["charge", "discharge"])
RESTS = st.one_of(TIMES, TIMES.map(lambda time: f"{{for: {time}, until: 1 mV/h}}"))

BOUNDED = (ConstantPower, ConstantResistance, ConstantVoltage, VoltageSweep, Impedance)


def group(
    needed: dict[str, st.SearchStrategy[str]], **may: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    """A group of keys as it is written, with any of those that it ``may`` have."""
    return st.fixed_dictionaries(needed, optional=may).map(
        lambda keys: "{" + ", ".join(f"{key}: {value}" for key, value in keys.items()) + "}"
    )


def window(draw: st.DrawFn) -> tuple[str, str]:
    low = draw(st.integers(1050, 4000))
    high = draw(st.integers(low + 1, 4450))
    return f"{low} mV", f"{high} mV"


@st.composite
def steps(draw: st.DrawFn, word: str) -> str:
    """One step of a technique; some are wrong by chance."""
    low, high = window(draw)
    ends = st.lists(st.one_of(VOLTAGES, CHARGES, ENERGIES, WARMER, TIMES), max_size=3, min_size=1)
    until = ends.map(lambda found: f"[{', '.join(found)}]")
    record = st.sampled_from(["10 s", "{voltage_change: 5 mV}", "{charge_change: 1 mAh/g}"])
    at = st.one_of(CURRENTS, st.sampled_from(["1 mW", "0.5 W/g"]))
    voltage = st.just(f"{low} .. {high}")
    groups: dict[str, st.SearchStrategy[str]] = {
        "rest": group({"for": TIMES}, until=st.just("1 mV/h"), record=record),
        "charge": group({"at": at, "until": until}, at_most=TIMES, record=record),
        "discharge": st.one_of(
            group({"at": at, "until": until}, hold_until=st.just("1 uA"), record=record),
            group({"into": st.sampled_from(["1 kohm", "20 kohm"]), "until": until}),
        ),
        "hold": group(
            {"voltage": VOLTAGES, "direction": WAYS, "at_most": TIMES},
            until=st.one_of(st.just("1 uA"), CHARGES, ENERGIES),
            max_current=CURRENTS,
        ),
        "sweep": group(
            {"to": VOLTAGES, "at": RATES},
            **{"from": st.one_of(VOLTAGES, st.just("open circuit"))},
            direction=st.sampled_from(["up", "down"]),
            max_current=CURRENTS,
        ),
        "voltammetry": group(
            {"between": voltage, "at": RATES},
            cycles=st.integers(1, 20).map(str),
            begin=st.sampled_from(["up", "down"]),
            **{"from": st.sampled_from([low, high, "open circuit"])},
        ),
        "gitt": group(
            {
                "at": CURRENTS,
                "direction": WAYS,
                "pulse": st.one_of(TIMES, st.just("1 mAh/g")),
                "rest": RESTS,
                "until": st.one_of(VOLTAGES, CHARGES),
            },
            most=st.integers(1, 500).map(str),
            record=record,
        ),
        "pitt": group(
            {
                "from": VOLTAGES,
                "to": VOLTAGES,
                "step": st.sampled_from(["10 mV", "333 mV"]),
                "until": st.just("1 uA"),
            },
            at_most=TIMES,
            max_current=CURRENTS,
        ),
        "pulse": group(
            {"at": CURRENTS},
            **{"for": st.sampled_from(["1 s", "10 s", "30 s"])},
            rest=RESTS,
            back=st.sampled_from(["75 %", "off", "150 %"]),
            direction=WAYS,
            between=voltage,
        ),
        "impedance": group(
            {
                "from": st.sampled_from(["100 kHz", "1 MHz", "10 Hz"]),
                "to": st.sampled_from(["10 mHz", "1 Hz"]),
                "amplitude": st.one_of(st.sampled_from(["5 mV", "10 mV"]), CURRENTS),
            },
            points=st.integers(1, 50).map(lambda n: f"{n} per decade"),
            at=st.one_of(st.just("open circuit"), VOLTAGES, CURRENTS),
            max_current=CURRENTS,
        ),
        "wait": st.one_of(
            group({"for operator": st.just("do it")}, at_most=TIMES),
            group({"for signal": st.just("a")}, then=st.sampled_from(["go on", "stop"])),
            st.just("2026-01-05 09:00 UTC"),
        ),
        "signal": st.sampled_from(["a", "{marker: a, output: DO1}"]),
        "temperature": group({"to": WARMER}, within=st.just("0.1 K"), at_most=TIMES),
    }
    return f"{word}: {draw(groups[word])}"


def looped(body: tuple[Node, ...], *, inside: bool = False) -> Iterator[tuple[Step, bool]]:
    for node in body:
        if isinstance(node, Step):
            yield node, inside
        elif isinstance(node, Loop):
            yield from looped(node.body, inside=True)


def check(program: Program) -> None:
    limits = program.limits
    assert math.isfinite(limits.duration_max_s)
    assert most_s(program.body) <= limits.duration_max_s
    for step, inside in looped(program.body):
        times = [end.value for end in step.ends if end.quantity is Quantity.STEP_TIME_S]
        assert len(times) == 1
        assert 0 < times[0] < math.inf
        assert inside or all(end.then is not Then.LEAVE_LOOP for end in step.ends)
        assert step.record.every_s >= FASTEST_S
        assert step.line == 3
        for end in step.ends:
            assert math.isfinite(end.value)
            if end.quantity is Quantity.VOLTAGE_V:
                assert limits.voltage_min_V < end.value < limits.voltage_max_V
            if end.quantity is Quantity.STEP_CHARGE_AH:
                assert end.value < limits.step_charge_max_Ah
        control = step.control
        if isinstance(control, ConstantCurrent):
            assert limits.current_min_A < control.current_A < limits.current_max_A
        if isinstance(control, BOUNDED):
            assert 0 < control.max_current_A < limits.current_max_A
        if isinstance(control, VoltageSweep):
            for voltage_V in (control.from_V, control.to_V):
                assert voltage_V is None or (
                    limits.voltage_min_V < voltage_V < limits.voltage_max_V
                )


def made_of(text: str, cell: Cell) -> tuple[Recipe, Program] | RecipeError:
    try:
        recipe = read_recipe(text)
        return recipe, compile_recipe(recipe, cell)
    except RecipeError as error:
        return error


@pytest.mark.parametrize("word", TECHNIQUES)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), largest_mA=st.none() | st.floats(0.1, 20.0))
def test_whatever_is_written_of_a_technique_is_refused_or_ends(
    word: str, data: st.DataObject, largest_mA: float | None
) -> None:
    step = data.draw(steps(word))
    cell = Cell(
        name="generated", material="x", active_mass_g=0.002, one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0, safe_voltage_max_V=4.5,
        max_current_A=None if largest_mA is None else largest_mA * 1e-3,
    )  # fmt: skip
    made = made_of(f"recipe: generated\nsteps:\n  - {step}\n", cell)
    if isinstance(made, RecipeError):
        assert {problem.line for problem in made.problems} == {3}
        return
    recipe, program = made
    check(program)
    assert decode_program(encode_program(program)) == program
    assert explain_text(recipe)
    assert plan_text(program, cell)
