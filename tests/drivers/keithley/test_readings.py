from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.keithley.readings import (
    Counted,
    Look,
    Rows,
    counted,
    good_rows,
    parse_look,
    parse_rows,
    places_after,
)
from labctl.errors import InstrumentError
from labctl.model import Readings


def rows(*values: tuple[float, float, float]) -> Rows:
    table = np.array(values, dtype=np.float64).reshape(len(values), 3)
    return Rows(table[:, 0], table[:, 1], table[:, 2])


def count(before: Counted, block: Rows, source: str = "VOLT") -> tuple[Counted, Readings]:
    return counted(before, block, source=source, step=5, clock_offset_s=1.0e9, lead_s=0.5)


def test_a_look_is_what_the_manual_prints() -> None:
    look = parse_look("1;0;25;25;0;RUNNING;RUNNING;4")
    assert look == Look(True, 0, 25, 25, False, "RUNNING")
    assert parse_look("0;2;0;0;1;IDLE;IDLE;9") == Look(False, 2, 0, 0, True, "IDLE")


@pytest.mark.parametrize(
    "text",
    ["", "1;0;25;25;0;RUNNING", "2;0;0;0;0;IDLE;IDLE;1", "1;0;5;6;0;IDLE;IDLE;1", "1;0;0;0;0;;;1"],
)
def test_a_look_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InstrumentError):
        parse_look(text)


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[0-9;A-Z, .eE+-]{0,60}", fullmatch=True)))
def test_any_look_and_any_rows_are_read_or_are_a_typed_error(text: str) -> None:
    try:
        look = parse_look(text)
        assert 0 <= look.end <= look.count
    except InstrumentError:
        pass
    for number in (1, 2):
        try:
            found = parse_rows(text, number)
        except InstrumentError:
            continue
        assert len(found) == number
        assert np.isfinite(found.time_s).all()


def test_rows_are_time_source_and_reading() -> None:
    found = parse_rows("1.7E+09,2.5E-01,4.1E+00,-1.0E-03,1700000001,0,4,9.9E+37", 2)
    assert found.time_s.tolist() == [1.7e9 + 0.25, 1.7e9 + 1]
    assert found.source.tolist() == [4.1, 4.0]
    assert len(good_rows(found)) == 1
    with pytest.raises(InstrumentError, match="does not see the cell"):
        good_rows(found[1:])


@given(
    size=st.integers(10, 40),
    looks=st.lists(st.integers(0, 9), min_size=1, max_size=40),
)
def test_every_reading_of_a_buffer_is_taken_once_and_in_order(size: int, looks: list[int]) -> None:
    buffer: list[int] = []
    written = place = taken = 0
    got: list[int] = []
    for new in looks:
        for _ in range(new):
            if len(buffer) < size:
                buffer.append(written)
            else:
                buffer[written % size] = written
            written += 1
        end = (written - 1) % size + 1 if written else 0
        look = Look(True, 0, len(buffer), end, False, "RUNNING")
        for first, last in places_after(place, taken, look, size):
            got += buffer[first - 1 : last]
        taken, place = len(got), end
    assert got == list(range(written))


def test_a_buffer_that_holds_less_than_was_taken_was_lost() -> None:
    with pytest.raises(InstrumentError, match="was cleared"):
        places_after(7, 7, Look(True, 0, 3, 3, False, "RUNNING"), 100)


def test_counters_begin_with_the_visit_and_not_with_its_first_reading() -> None:
    state, readings = count(Counted(), rows((1000.0, 4.0, 1e-3), (1001.0, 4.2, 1e-3)))
    assert readings.step_time_s.tolist() == [0.5, 1.5]
    assert readings.unix_time_s.tolist() == [1.0e9 + 1000.0, 1.0e9 + 1001.0]
    assert readings.step_charge_Ah == pytest.approx([0.5e-3 / 3600, 1.5e-3 / 3600])
    assert readings.step_energy_Wh == pytest.approx([2e-3 / 3600, (2e-3 + 4.1e-3) / 3600])
    assert readings.onboard_index.tolist() == [1, 2]
    assert set(readings.step.tolist()) == {5}
    assert state.count == 2
    assert math.isnan(readings.temperature_degC[0])


def test_where_a_current_is_put_out_the_voltage_is_what_is_read() -> None:
    _, readings = count(Counted(), rows((1000.0, 0.0, 3.7)), source="CURR")
    assert (readings.voltage_V[0], readings.current_A[0]) == (3.7, 0.0)


@given(
    st.lists(
        st.tuples(st.floats(0.001, 10), st.floats(-5, 5), st.floats(-1, 1)), min_size=1, max_size=30
    ),
    st.integers(0, 30),
)
def test_counters_do_not_depend_on_how_rows_are_cut(
    values: list[tuple[float, float, float]], cut: int
) -> None:
    times = np.cumsum([value[0] for value in values]) + 1.7e9
    block = rows(*((t, v, i) for t, (_, v, i) in zip(times, values, strict=True)))
    whole, at_once = count(Counted(), block)
    first, one = count(Counted(), block[:cut])
    second, two = count(first, block[cut:])
    assert second.count == whole.count == len(values)
    assert second.charge_Ah == pytest.approx(whole.charge_Ah, abs=1e-15)
    assert second.energy_Wh == pytest.approx(whole.energy_Wh, abs=1e-15)
    assert [*one.onboard_index, *two.onboard_index] == at_once.onboard_index.tolist()
    assert [*one.step_time_s, *two.step_time_s] == at_once.step_time_s.tolist()
    sums = np.concatenate([[0.0], np.asarray(at_once.step_time_s)])
    currents = np.concatenate([[block.reading[0]], block.reading])
    assert whole.charge_Ah == pytest.approx(np.trapezoid(currents, sums) / 3600.0, abs=1e-15)


def test_a_clock_that_goes_back_is_no_time() -> None:
    state, _ = count(Counted(), rows((1000.0, 4.0, 1e-3)))
    with pytest.raises(InstrumentError, match="clock went back"):
        count(state, rows((999.0, 4.0, 1e-3)))
