"""Scripts of visits: the simulated instrument accepts every one that was not refused."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.drivers.base import Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.models import MODELS
from labctl.drivers.palmsens.pace import end_ticks, sample_ticks, time_left_s
from labctl.drivers.palmsens.refusals import refusals_of
from labctl.drivers.palmsens.stages import mark_of
from labctl.drivers.palmsens.techniques import frequencies, script_of
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    Control,
    EndCondition,
    Impedance,
    Limits,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
    VoltageSweep,
)
from labctl.simulators.palmsens.language import parse
from labctl.simulators.palmsens.models import MODELS as SIMULATED
from labctl.simulators.palmsens.values import parse_literal

HR = PalmSensConfig(port="/dev/null", model="EmStat4S HR")
LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)
AN_HOUR = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 3600.0)


def task_of(
    control: Control,
    *ends: EndCondition,
    limits: Limits = LIMITS,
    rule: RecordRule = RecordRule(),  # noqa: B008
    **done: float,
) -> Task:
    step = Step(3, "step", control, (*ends, AN_HOUR), rule)
    return Task(step=step, limits=limits, tag="run-00001.7", **done)


def lines_of(task: Task, config: PalmSensConfig = HR) -> list[str]:
    return list(script_of(task, config).lines)


def test_every_script_declares_its_limits_first_and_ends_with_the_cell_off() -> None:
    for control in (
        Rest(),
        ConstantCurrent(1e-4),
        ConstantCurrentConstantVoltage(1e-4, 4.1),
        ConstantVoltage(4.1, 1e-3, charging=True),
        VoltageSweep(4.0, 2.0, 1e-4, 1e-3),
        Impedance(False, 0.01, 1e5, 0.1, 6, 1e-2),
        Impedance(True, 1e-4, 1e5, 0.1, 6, 1e-2),
    ):
        script = script_of(task_of(control), HR)
        assert script.lines[: len(script.declared)] == script.declared
        assert script.lines[-2:] == ("on_finished:", "cell_off")
        assert all(len(line) <= 255 and line for line in script.lines)
        on = [place for place, line in enumerate(script.lines) if line == "cell_on"]
        assert all(place > len(script.declared) for place in on)
        assert script.declared[0:2] == ("var vh", "store_var vh 4400m ia")


def test_limits_that_are_infinite_are_neither_declared_nor_looked_at() -> None:
    limits = Limits(-math.inf, 4.4, -math.inf, math.inf, math.inf, math.inf)
    lines = lines_of(task_of(ConstantCurrent(1e-4), limits=limits))
    assert "var vh" in lines
    assert "if p > vh" in lines
    for name in ("vl", "ch", "cl", "qh"):
        assert not any(re.search(rf"\b{name}\b", line) for line in lines)


def test_a_limit_is_judged_after_the_ends_and_so_wins_over_them() -> None:
    until = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1)
    lines = lines_of(task_of(ConstantCurrent(1e-4), until))
    assert lines.index("if p >= 4100m") < lines.index("if p > vh")
    assert lines.index("if p > vh") < lines.index("if k > 0i")


def test_the_first_of_two_ends_wins() -> None:
    first = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.0)
    second = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 3.9)
    lines = lines_of(task_of(ConstantCurrent(1e-4), first, second))
    assert lines.index("if p >= 3900m") < lines.index("if p >= 4")
    assert "store_var k 10i jc" in lines
    assert "store_var k 11i jc" in lines


def test_what_an_interrupted_visit_had_is_counted() -> None:
    charge = EndCondition(Quantity.STEP_CHARGE_AH, Comparison.AT_LEAST, 2e-4)
    lines = lines_of(task_of(ConstantCurrent(-1e-4), charge, done_s=600.0, done_Ah=-5e-5))
    assert "store_var a -180m ja" in lines
    assert "if n >= 300001i" in lines  # 3000 s are left, in ticks of 10 ms, and one for rounding


def test_constant_voltage_begins_at_the_largest_current_that_is_allowed() -> None:
    """A potentiostat cannot bound its current; a galvanostat keeps it."""
    lines = lines_of(task_of(ConstantVoltage(4.1, 2e-3, charging=True)))
    assert lines.index("if p < 4100m") < lines.index("set_i 2m") < lines.index("set_e 4100m")
    lines = lines_of(task_of(ConstantVoltage(1.5, 2e-3, charging=False)))
    assert "if p > 1500m" in lines
    assert "set_i -2m" in lines


def test_a_spectrum_has_every_frequency_once_and_no_piece_of_one() -> None:
    control = Impedance(False, 0.01, 1e5, 0.1, 6, 1e-2)
    count, ratio = frequencies(control)
    assert count == 37
    assert ratio**6 == pytest.approx(0.1)
    measured: list[float] = []
    for line in lines_of(task_of(control)):
        if line.startswith("meas_loop_eis"):
            words = line.split()
            high, low, size = (parse_literal(word) for word in (words[5], words[6], words[7]))
            assert isinstance(high, float)
            assert isinstance(low, float)
            assert isinstance(size, int)
            assert size > 1
            step = (low / high) ** (1 / (size - 1))
            measured += [high * step**place for place in range(size)]
    assert measured == pytest.approx([1e5 * ratio**place for place in range(37)], rel=1e-5)


def test_faster_steps_are_sampled_faster() -> None:
    def ticks(current_A: float) -> int:
        return sample_ticks(task_of(ConstantCurrent(current_A)), HR)

    assert ticks(1e-2) <= 2 < ticks(1e-3) <= 10
    slow = msgspec.structs.replace(HR, slowest_sample_s=2.0)
    day = Step(0, "day", Rest(), (msgspec.structs.replace(AN_HOUR, value=86_400.0),), RecordRule())
    assert sample_ticks(Task(step=day, limits=LIMITS, tag=""), slow) == 200


def test_a_held_current_is_sampled_more_often_where_its_voltage_is_near_its_end() -> None:
    """As fast as can be for a second, then as usual up to 0.15 V before, then 20 times finer."""
    slow = msgspec.structs.replace(HR, slowest_sample_s=5.0)
    ends = (
        EndCondition(Quantity.VOLTAGE_V, Comparison.AT_MOST, 1.2),
        EndCondition(Quantity.VOLTAGE_V, Comparison.AT_MOST, 1.5),
        EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 3.9),
    )
    lines = lines_of(task_of(ConstantCurrent(-2e-4), *ends), slow)
    loops = [line.split()[4:] for line in lines if line.startswith("meas_loop_cp")]
    intervals_s = [parse_literal(interval) for interval, _ in loops]
    assert intervals_s == pytest.approx([0.01, 0.2, 0.01])
    assert parse_literal(loops[0][1]) == pytest.approx(1.0)
    assert lines.count("if p <= 1650m") == 2, "it is left there by the first two"
    assert "if p > 1650m" in lines


@pytest.mark.parametrize(
    "task",
    [
        task_of(ConstantCurrent(-2e-4)),
        task_of(ConstantCurrent(-2e-4), EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 3.9)),
        task_of(ConstantCurrent(-1e-2), EndCondition(Quantity.VOLTAGE_V, Comparison.AT_MOST, 1.5)),
    ],
)
def test_a_held_current_that_goes_to_no_voltage_or_is_fast_has_one_loop(task: Task) -> None:
    fastest = msgspec.structs.replace(HR, slowest_sample_s=0.01)
    config = fastest if task.step.control == ConstantCurrent(-1e-2) else HR
    assert sum(line.startswith("meas_loop_cp") for line in lines_of(task, config)) == 1


@given(st.floats(0.001, 1e6), st.floats(0.0, 1e6))
def test_an_end_by_time_is_late_by_two_samples_at_the_most(value: float, done_s: float) -> None:
    end = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, value)
    ticks = end_ticks(end, task_of(Rest(), done_s=done_s), 0.01)
    assert ticks >= 1
    if value > done_s:
        assert 0.01 * ticks >= (value - done_s) * (1 - 1e-9)
        assert 0.01 * (ticks - 2) <= value - done_s


def test_another_visit_has_another_mark() -> None:
    marks = {
        mark_of(msgspec.structs.replace(task_of(Rest()), tag=f"run.{number}"))
        for number in range(200)
    }
    assert len(marks) == 200
    assert all(0 < mark < 2**27 for mark in marks)


VOLTS = st.integers(1000, 4400).map(lambda milli: milli / 1000)
AMPERES = st.sampled_from([4e-5, 2e-4, 1e-3, 1e-2])
ENDS = st.lists(
    st.builds(
        EndCondition,
        st.sampled_from(list(Quantity)),
        st.sampled_from(list(Comparison)),
        st.floats(1e-6, 5.0),
    ),
    max_size=4,
)
RULES = st.builds(
    RecordRule,
    st.floats(0.01, 1000.0),
    st.sampled_from([math.inf, 5e-3]),
    st.sampled_from([math.inf, 1e-5]),
    st.sampled_from([math.inf, 1e-6]),
)
CONTROLS = st.one_of(
    st.just(Rest()),
    st.builds(lambda a, s: ConstantCurrent(a * s), AMPERES, st.sampled_from([-1, 1])),
    st.builds(ConstantVoltage, VOLTS, AMPERES, st.booleans()),
    st.builds(
        lambda a, s, v: ConstantCurrentConstantVoltage(a * s, v),
        AMPERES,
        st.sampled_from([-1, 1]),
        VOLTS,
    ),
    st.builds(VoltageSweep, st.one_of(st.none(), VOLTS), VOLTS, st.floats(1e-5, 1.0), AMPERES),
    st.builds(
        Impedance,
        st.booleans(),
        st.sampled_from([1e-3, 5e-3, 1e-2]),
        st.floats(200.0, 2e5),
        st.floats(1e-3, 100.0),
        st.integers(1, 20),
        AMPERES,
        st.sampled_from([None, 2.0, 3.5]),
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    control=CONTROLS,
    ends=ENDS,
    rule=RULES,
    model=st.sampled_from(sorted(MODELS)),
    done=st.floats(0.0, 3000.0),
)
def test_what_is_not_refused_is_a_script_that_the_instrument_takes(
    control: Control, ends: list[EndCondition], rule: RecordRule, model: str, done: float
) -> None:
    limits = LIMITS if SIMULATED[model].widest_V > 4.4 else Limits(-0.2, 2.0, -3e-3, 3e-3, 1, 1e5)
    config = PalmSensConfig(port="x", model=model)
    task = task_of(control, *ends, limits=limits, rule=rule, done_s=done, done_Ah=1e-5)
    program = Program(name="p", recipe_sha256="", cell="c", body=(task.step,), limits=limits)
    if refusals_of(program, config):
        return
    script = script_of(task, config)
    held = bool(SIMULATED[model].held)
    missing = frozenset() if held else frozenset({"meas_loop_cp", "meas_loop_geis", "set_i"})
    for lines in (script.lines, script.declared):
        parse(lines, largest_bytes=SIMULATED[model].script_bytes, missing=missing)
    if not isinstance(control, Impedance):
        assert script.silence_s > min(rule.every_s, time_left_s(task))
