"""Any recipe that can be written compiles to a Program that ends, inside its limits."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_cycler import PaperCycler

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe
from labctl.engine.fitting import refusals_of
from labctl.engine.refusing import refusals_of_host
from labctl.model import Cell
from labctl.program import (
    Branch,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    Finish,
    Leave,
    Loop,
    Node,
    Program,
    Quantity,
    Step,
    Then,
    decode_program,
    encode_program,
)
from labctl.protocols.explain import explain_text
from labctl.protocols.extent import longest_of_step_s, most_s
from labctl.protocols.plan import make_plan, plan_text
from labctl.protocols.recipe import bundle, compile_recipe, read_recipe

Written = dict[str, Any]

CURRENTS = st.one_of(
    st.integers(1, 500).map(lambda n: f"{n / 10:g}C"),
    st.integers(1, 50).map(lambda n: f"C/{n}"),
    st.integers(1, 900).map(lambda n: f"{n} mA/g"),
    st.integers(1, 90).map(lambda n: f"{n / 10:g} mA/cm2"),
    st.integers(1, 900).map(lambda n: f"{n} uA"),
)
TIMES = st.sampled_from(["1 s", "500 ms", "10 min", "1 h 30 min", "2 d"])
CHARGES = st.sampled_from(["10 mAh/g", "0.2 mAh", "100 uAh"])
CHARGE_VOLTAGES = st.integers(300, 430).map(lambda n: f"{n / 100:g} V")
DISCHARGE_VOLTAGES = st.integers(1200, 2900).map(lambda n: f"{n} mV")
RECORDS = st.sampled_from(["10 s", {"every": "1 min", "voltage_change": "5 mV"}])


@st.composite
def rests(draw: st.DrawFn) -> Written:
    if draw(st.booleans()):
        return {"rest": draw(TIMES)}
    return {"rest": {"for": draw(TIMES), "record": draw(RECORDS)}}


@st.composite
def currents(draw: st.DrawFn) -> Written:
    word = draw(st.sampled_from(["charge", "discharge"]))
    voltages = CHARGE_VOLTAGES if word == "charge" else DISCHARGE_VOLTAGES
    keys: Written = {"at": draw(CURRENTS)}
    ends = draw(st.sampled_from(["voltage", "hold", "charge", "list", "time"]))
    if ends == "time":
        keys["for"] = "1 s"
    elif ends == "charge":
        keys["until"] = draw(CHARGES)
    elif ends == "list":
        keys["until"] = draw(st.permutations([draw(voltages), draw(CHARGES), draw(TIMES)]))
    else:
        keys["until"] = draw(voltages)
        if ends == "hold":
            keys["hold_until"] = "50 nA"
        if draw(st.booleans()):
            keys["at_most"] = draw(TIMES)
    if draw(st.booleans()):
        keys["record"] = draw(RECORDS)
    return {word: keys}


@st.composite
def holds(draw: st.DrawFn) -> Written:
    keys: Written = {
        "voltage": draw(CHARGE_VOLTAGES),
        "direction": draw(st.sampled_from(["charge", "discharge"])),
        "max_current": draw(CURRENTS),
    }
    ends = draw(st.sampled_from(["current", "time", "both"]))
    if ends != "time":
        keys["until"] = "50 nA"
    if ends != "current":
        keys["at_most"] = draw(TIMES)
    return {"hold": keys}


@st.composite
def bodies(draw: st.DrawFn, depth: int, *, in_cycle: bool, in_loop: bool = False) -> list[Written]:
    choices: list[st.SearchStrategy[Written]] = [rests(), currents(), holds()]
    if depth:
        choices.append(loops(depth - 1, in_cycle=in_cycle))
    steps: list[Written] = []
    for step in draw(st.lists(st.one_of(choices), min_size=1, max_size=4)):
        steps.append(step)
        if "charge" in step and draw(st.booleans()):
            steps.append(draw(branches(depth, in_cycle=in_cycle, in_loop=in_loop)))
    if not in_cycle and draw(st.integers(0, 5)) == 0:
        steps.append({"recipe": "generated.yaml", "with": {"rate": draw(CURRENTS)}})
    return steps


@st.composite
def branches(draw: st.DrawFn, depth: int, *, in_cycle: bool, in_loop: bool) -> Written:
    conditions = [{"ended by": "time"}]
    if in_cycle:
        conditions.append({"charge capacity": "above 100 mAh/g"})
    out = [{"leave": "loop"}] if in_loop else [{"stop": "enough"}]
    then = draw(st.one_of(st.just(out), bodies(0, in_cycle=in_cycle, in_loop=in_loop)))
    branch: Written = {"if": draw(st.sampled_from(conditions)), "then": then}
    if draw(st.booleans()):
        branch["else"] = draw(bodies(max(0, depth - 1), in_cycle=in_cycle))
    return branch


@st.composite
def loops(draw: st.DrawFn, depth: int, *, in_cycle: bool) -> Written:
    kinds = ["repeat", "for"] if in_cycle else ["cycle", "repeat", "for"]
    kind = draw(st.sampled_from(kinds))
    if kind != "for":
        inner = draw(bodies(depth, in_cycle=in_cycle or kind == "cycle", in_loop=True))
        loop: Written = {kind: draw(st.integers(2, 20))}
        if kind == "cycle" and draw(st.booleans()):
            loop["until"] = {"retention": "below 80 %", "of": "cycle 1"}
        if kind == "cycle" and draw(st.booleans()):
            loop["first"] = draw(bodies(0, in_cycle=True))
            inner.append({"discharge": {"at": "0.2C", "until": "1.5 V"}})
        return {**loop, "do": inner}
    inner = draw(bodies(depth, in_cycle=in_cycle, in_loop=True))
    name = f"rate{depth}"
    step = {"charge": {"at": f"${name}", "until": "4.1 V"}}
    rates = draw(st.lists(CURRENTS, min_size=1, max_size=3))
    return {"for": name, "in": rates, "do": [step, *inner]}


def flow(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    return str(value)


def block(steps: list[Written], indent: int) -> str:
    lines = []
    for step in steps:
        start = " " * indent + "- "
        for key, value in step.items():
            if key in {"do", "first", "then", "else"}:
                lines.append(f"{start}{key}:\n{block(value, indent + 4)}")
            else:
                lines.append(f"{start}{key}: {flow(value)}\n")
            start = " " * indent + "  "
    return "".join(lines)


CELLS = st.builds(
    Cell,
    name=st.just("generated"),
    material=st.just("x"),
    active_mass_g=st.floats(0.001, 0.1),
    one_C_mA_per_g=st.floats(20.0, 400.0),
    safe_voltage_min_V=st.just(1.0),
    safe_voltage_max_V=st.just(4.5),
    area_cm2=st.floats(0.1, 20.0),
)


def has_choices(body: tuple[Node, ...]) -> bool:
    """Whether more than one way leads through a body."""
    return any(
        any(end.then is not Then.NEXT for end in node.ends)
        if isinstance(node, Step)
        else not isinstance(node, Loop) or bool(node.until) or has_choices(node.body)
        for node in body
    )


def check_bounded(program: Program) -> None:
    limits = program.limits
    assert math.isfinite(limits.duration_max_s)
    assert most_s(program.body) <= limits.duration_max_s
    assert 1 <= program.visit_count < math.inf
    for index, step in enumerate(program.steps):
        assert step.index == index
        assert step.line > 2
        times = [end.value for end in step.ends if end.quantity is Quantity.STEP_TIME_S]
        assert len(times) == 1
        assert 0 < times[0] < math.inf
        assert all(math.isfinite(end.value) for end in step.ends)
        control = step.control
        if isinstance(control, ConstantCurrent | ConstantCurrentConstantVoltage):
            assert limits.current_min_A < control.current_A < limits.current_max_A
            assert control.current_A != 0
        if isinstance(control, ConstantVoltage):
            assert 0 < control.max_current_A < limits.current_max_A
        if isinstance(control, ConstantVoltage | ConstantCurrentConstantVoltage):
            assert limits.voltage_min_V < control.voltage_V < limits.voltage_max_V
        for end in step.ends:
            if end.quantity is Quantity.VOLTAGE_V:
                assert limits.voltage_min_V < end.value < limits.voltage_max_V
            if end.quantity is Quantity.STEP_CHARGE_AH:
                assert end.value < limits.step_charge_max_Ah


class _Left(Exception):  # noqa: N818
    """The innermost loop was left."""


class _Over(Exception):  # noqa: N818
    """The program was ended."""


def walk(body: tuple[Node, ...], choose: Callable[[], bool], visited: list[Step]) -> None:
    """Go through the whole program, any way that ``choose`` says."""
    for node in body:
        match node:
            case Step():
                visited.append(node)
                for end in node.ends:
                    if end.then is not Then.NEXT and choose():
                        raise _Left if end.then is Then.LEAVE_LOOP else _Over
            case Branch():
                walk(node.then if choose() else node.otherwise, choose, visited)
            case Loop():
                with contextlib.suppress(_Left):
                    for _ in range(node.count):
                        walk(node.body, choose, visited)
                        if node.until and choose():
                            break
            case Leave():
                raise _Left
            case Finish():
                raise _Over


INCLUDED = """\
recipe: included
parameters: {rate: 0.1C}
steps:
  - cycle: 3
    do:
      - charge: {at: $rate, until: [4.1 V, 1 mAh]}
      - if: {ended by: charge}
        then: [leave: loop]
      - discharge: {at: $rate, until: 1.5 V}
"""


CAN_DO_ALL = Capabilities(
    techniques=frozenset(),
    voltage_min_V=-10.0,
    voltage_max_V=10.0,
    current_ranges=(CurrentRange(1000.0, 1e-9),),
    fastest_record_s=0.01,
    failsafe=Failsafe.WATCHDOG,
    outputs=frozenset({"DIO1"}),
)
"""An instrument that lacks nothing: what the engine refuses on it, the recipe's check had to."""


@settings(max_examples=50, deadline=None)
@given(steps=bodies(2, in_cycle=False), cell=CELLS, seed=st.integers(0, 2**32))
def test_any_recipe_that_can_be_written_is_a_program_that_ends(
    steps: list[Written], cell: Cell, seed: int
) -> None:
    text = f"recipe: generated\nlimits: {{step charge: 2 mAh}}\nsteps:\n{block(steps, 2)}"
    recipe = read_recipe(text, load=lambda _: INCLUDED)
    program = compile_recipe(recipe, cell)
    check_bounded(program)
    if program.visit_count < 20_000:
        choice, visited = random.Random(seed), list[Step]()
        with contextlib.suppress(_Over):
            walk(program.body, lambda: choice.random() < 0.1, visited)
        assert 0 < len(visited) <= program.visit_count
        assert {step.index for step in visited} <= set(range(len(program.steps)))
        if not has_choices(program.body):
            assert len(visited) == program.visit_count
        longest_s = sum(longest_of_step_s(step) for step in visited)
        assert longest_s <= most_s(program.body) * (1 + 1e-9)
    assert refusals_of(program, PaperCycler(), chamber=True) == ()
    assert refusals_of_host(program, CAN_DO_ALL, source=True, chamber=True) == ()
    assert compile_recipe(read_recipe(bundle(recipe)), cell) == program
    assert decode_program(encode_program(program)) == program
    plan = make_plan(program, cell)
    assert plan.expected_s <= plan.longest_s * (1 + 1e-9)
    assert plan.expected_records > 0
    assert plan_text(program, cell).count("\n") >= len(program.steps)
    assert explain_text(recipe)


@settings(max_examples=40, deadline=None)
@given(
    mass_g=st.floats(1e-4, 1.0),
    rate=st.integers(1, 500),
    cycles=st.integers(1, 10_000),
)
def test_the_same_recipe_scales_with_the_mass_of_the_cell(
    mass_g: float, rate: int, cycles: int
) -> None:
    recipe = read_recipe(
        f"recipe: x\nsteps:\n  - cycle: {cycles}\n    do:\n"
        f"      - charge: {{at: {rate / 10:g}C, until: 4.1 V}}\n"
    )
    base = Cell(
        name="c", material="x", active_mass_g=1.0, one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0, safe_voltage_max_V=4.5,
    )  # fmt: skip
    program = compile_recipe(recipe, msgspec.structs.replace(base, active_mass_g=mass_g))
    check_bounded(program)
    (loop,) = program.body
    assert isinstance(loop, Loop)
    assert loop.count == cycles
    (step,) = program.steps
    assert isinstance(step.control, ConstantCurrent)
    assert math.isclose(step.control.current_A, rate / 10 * 0.1 * mass_g, rel_tol=1e-9)
    whole = compile_recipe(recipe, base).steps[0].ends[-1].value
    assert abs(step.ends[-1].value - whole) <= 1
