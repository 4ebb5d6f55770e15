"""The output of a script as readings: whatever comes, nothing wrong is a reading."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.base import Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.stages import Script
from labctl.drivers.palmsens.stream import ForeignScriptError, Stream
from labctl.drivers.palmsens.techniques import script_of
from labctl.program import (
    Comparison,
    ConstantCurrent,
    Control,
    EndCondition,
    Impedance,
    Limits,
    Quantity,
    RecordRule,
    Rest,
    Step,
)
from labctl.simulators.palmsens.values import Value, encoded

HR = PalmSensConfig(port="/dev/null", model="EmStat4S HR")
LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)
ENDS = (
    EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1),
    EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 3600.0),
)


def stream_of(control: Control, **done: float) -> tuple[Stream, Script]:
    step = Step(5, "step", control, ENDS, RecordRule())
    task = Task(step=step, limits=LIMITS, tag="run.1", **done)
    script = script_of(task, HR)
    return Stream(script, task, HR.kind, 1000.0), script


def package(script: Script, count: int, volts: float, amperes: float, **more: int) -> str:
    """A reading as the script of a galvanostatic step sends it."""
    variables = [
        Value(count, "ee"),
        Value(volts, "ab", more.get("p_status", 0), 6, 6.0),
        Value(amperes, "ba", more.get("c_status", 0), 21, 2e-3),
        Value(float(more.get("charge_mAs", 0)) * 1e-3, "ja"),
        Value(0.25, "jb"),
        Value(more.get("why", 1), "jc"),
        Value(more.get("mark", script.mark), "jd"),
    ]
    return "P" + ";".join(encoded(variable) for variable in variables)


def test_a_package_is_a_reading_with_time_charge_and_energy() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3), done_Ah=1e-6)
    for line in ("M000A", package(script, 100, 3.4, 1e-3, charge_mAs=39), "*"):
        stream.take(line)
    readings = stream.new_readings()
    assert readings.onboard_index.tolist() == [1]
    assert readings.step.tolist() == [5]
    assert readings.step_time_s.tolist() == [1.0]
    assert readings.unix_time_s.tolist() == [1001.0]
    assert readings.voltage_V.tolist() == [3.4]
    assert readings.current_A == pytest.approx([1e-3])
    assert readings.step_charge_Ah * 3600 == pytest.approx([0.039 - 0.0036])
    assert readings.step_energy_Wh * 3600 == pytest.approx([0.25])
    assert np.isnan(readings.temperature_degC).all()
    assert len(stream.new_readings()) == 0


def test_indices_count_on_from_look_to_look() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    stream.take(package(script, 100, 3.4, 1e-3))
    assert stream.new_readings().onboard_index.tolist() == [1]
    stream.take(package(script, 200, 3.4, 1e-3))
    stream.take(package(script, 300, 3.4, 1e-3))
    assert stream.new_readings().onboard_index.tolist() == [2, 3]


@pytest.mark.parametrize("overloaded", ["p_status", "c_status"])
def test_an_overloaded_value_is_no_reading(overloaded: str) -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    for count in range(1, 4):
        stream.take(package(script, count, 3.4, 1e-3, **{overloaded: 2}))
    assert len(stream.new_readings()) == 0
    assert stream.overloads == 3
    stream.take(package(script, 4, 3.4, 1e-3, c_status=4))
    assert len(stream.new_readings()) == 1
    assert stream.overloads == 0


def test_what_ended_a_visit_is_told_by_the_last_package() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    stream.take(package(script, 100, 4.1, 1e-3, why=10))
    assert not stream.ended
    stream.take("*")
    stream.take("")
    assert stream.ended
    assert stream.end == ENDS[0]
    assert not stream.tripped
    assert not stream.early


def test_a_limit_that_was_passed_is_a_trip() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    for line in (package(script, 100, 4.5, 1e-3, why=2), "*", ""):
        stream.take(line)
    assert stream.ended
    assert stream.tripped == "the voltage went above its limit"
    assert stream.end is None
    assert len(stream.new_readings()) == 1


@pytest.mark.parametrize(
    ("lines", "why"),
    [(["Z", "*", ""], "somebody else"), (["*", ""], "before the step did")],
)
def test_a_script_that_is_over_without_a_reason_is_over_early(lines: list[str], why: str) -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    for line in (package(script, 100, 3.4, 1e-3), *lines):
        stream.take(line)
    assert stream.ended
    assert why in stream.early


def test_a_script_that_fails_says_in_which_line() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    stream.take(package(script, 100, 3.4, 1e-3))
    stream.take("!0032: Line 44")
    assert stream.ended
    assert stream.refusal is not None
    assert stream.refusal.code == 0x32
    assert stream.refusal.line == 44


def test_another_scripts_data_is_not_taken_for_this_visits() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    with pytest.raises(ForeignScriptError):
        stream.take(package(script, 100, 3.4, 1e-3, mark=script.mark + 1))
    with pytest.raises(ForeignScriptError):
        stream.take("Pda8000190m;ba800000Am,14,20B")


def test_a_line_that_makes_no_sense_costs_no_charge() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    stream.take(package(script, 100, 3.4, 1e-3, charge_mAs=10))
    stream.take(package(script, 200, 3.4, 1e-3, charge_mAs=20)[:30])
    stream.take("\\x00\\xff what?")
    assert stream.garbled == 2
    stream.take(package(script, 300, 3.4, 1e-3, charge_mAs=30))
    assert stream.garbled == 0
    readings = stream.new_readings()
    assert readings.step_time_s.tolist() == [1.0, 3.0]
    assert readings.step_charge_Ah * 3600 == pytest.approx([0.01, 0.03])


def test_a_package_that_comes_again_is_not_read_again() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    for count in (100, 100, 50, 200):
        stream.take(package(script, count, 3.4, 1e-3))
    assert stream.new_readings().step_time_s.tolist() == [1.0, 2.0]


def test_at_rest_no_current_flows_and_none_is_measured() -> None:
    stream, script = stream_of(Rest())
    rest = [Value(50, "ee"), Value(3.1, "ab"), Value(1, "jc"), Value(script.mark, "jd")]
    stream.take("P" + ";".join(encoded(each) for each in rest))
    readings = stream.new_readings()
    assert readings.current_A.tolist() == [0.0]
    assert readings.step_charge_Ah.tolist() == [0.0]


def test_a_spectrum_that_was_not_measured_whole_is_not_complete() -> None:
    stream, script = stream_of(Impedance(False, 0.01, 1e3, 100.0, 2, 1e-2))
    mark = encoded(Value(script.mark, "jd"))

    def point(frequency: float) -> str:
        values = (Value(frequency, "dc"), Value(6.0, "cc"), Value(-1.5, "cd"))
        return "P" + ";".join([*(encoded(value) for value in values), mark])

    stream.take(point(1e3))
    stream.take(point(316.0))
    stream.take("")
    assert stream.ended
    assert "2 of 3 frequencies" in stream.early
    spectrum = stream.spectrum()
    assert spectrum is not None
    assert spectrum.impedance_imag_ohm == (-1.5, -1.5)
    assert stream.spectrum() is None


LINES = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="PMLCT*+-!0123456789abcdefnmu,; ", max_size=60),
    st.sampled_from(["", "*", "Z", "M000A", "L", "+", "Tlook", "!0001: Line 1", "e!4001"]),
)


@given(st.lists(LINES, max_size=30))
def test_whatever_comes_is_a_reading_or_is_thrown_away(lines: list[str]) -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    good = 0
    for place, line in enumerate(lines):
        try:
            stream.take(line)
            if not stream.ended:
                stream.take(package(script, 10 * (place + 1), 3.0, 1e-3))
                good += 1
        except ForeignScriptError:
            continue
    readings = stream.new_readings()
    assert len(readings) == good
    assert (np.diff(readings.step_time_s) > 0).all()
    assert readings.onboard_index.tolist() == list(range(1, good + 1))


def test_a_step_at_constant_current_may_give_the_current_that_was_set() -> None:
    """MethodSCRIPT examples of PalmSens, example 009: a package of the loop carries the set current
    and the measured potential."""
    stream, script = stream_of(ConstantCurrent(1e-3))
    stream.take(package(script, 100, 3.4, 1e-3).replace("ba", "db", 1))
    assert stream.new_readings().current_A == pytest.approx([1e-3])
