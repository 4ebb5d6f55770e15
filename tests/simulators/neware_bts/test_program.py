"""Step files on a cell that can be worked out by hand: 3 V + 1 V per mAh, behind 10 ohm."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_rack import LinearCell, step, step_file

from labctl.drivers.neware_bts.stepfile import (
    FileStep,
    Protection,
    RecordConditions,
    StepFile,
    StepType,
    write_step_file,
)
from labctl.simulators.neware_bts.instrument import range_for
from labctl.simulators.neware_bts.position import Condition, Position
from labctl.simulators.neware_bts.program import Execution
from labctl.simulators.neware_bts.rows import Rows, layers_of, rows_of
from labctl.simulators.neware_bts.steps import full_scale_A, read_runnable, unrunnable


def executed(file: StepFile, cell: LinearCell | None = None) -> tuple[Rows, Position, LinearCell]:
    assert unrunnable(file) == ""
    cell = cell or LinearCell()
    execution = Execution(file, cell, Position())
    blocks = []
    while (block := execution.run()) is not None:
        blocks.append(block)
    return rows_of(blocks), execution.position, cell


def test_a_charge_ends_when_the_voltage_rises_to_its_stop() -> None:
    rows, at, cell = executed(
        step_file(step(1, StepType.CC_CHARGE, current_A=1e-3, stop_voltage_V=4.0))
    )
    assert at.condition is Condition.FINISH
    assert rows.ms[0] == 0
    assert rows.voltage_V[0] == pytest.approx(3.01)
    assert rows.ms[-1] == 3_564_000  # 0.99 V at 1 V per mAh and 1 mA
    assert rows.voltage_V[-1] == pytest.approx(4.0)
    assert rows.capacity_Ah[-1] == pytest.approx(0.99e-3)
    assert rows.energy_Wh[-1] == pytest.approx(0.99e-3 * (3.01 + 4.0) / 2)
    assert cell.charge_Ah == pytest.approx(0.99e-3)
    assert len(rows) == 358  # 0 s, 10 s, ... 3560 s, and the end


def test_a_discharge_counts_its_capacity_upwards_and_its_current_downwards() -> None:
    rows, _, cell = executed(
        step_file(step(1, StepType.CC_DISCHARGE, current_A=1e-3, stop_voltage_V=2.5))
    )
    assert rows.current_A[-1] == -1e-3
    assert rows.capacity_Ah[-1] == pytest.approx(0.49e-3)
    assert rows.energy_Wh[-1] == pytest.approx(0.49e-3 * (2.99 + 2.5) / 2)
    assert cell.charge_Ah == pytest.approx(-0.49e-3)


def test_a_cccv_charge_holds_its_voltage_until_the_current_has_fallen() -> None:
    rows, _, _ = executed(
        step_file(step(1, StepType.CCCV_CHARGE, current_A=1e-3, voltage_V=4.0, stop_current_A=1e-4))
    )
    hold_s = 36 * math.log(10)  # R C is 36 s
    assert rows.ms[-1] == round(1e3 * (3564 + hold_s))
    assert rows.voltage_V[-1] == pytest.approx(4.0)
    assert rows.current_A[-1] == pytest.approx(1e-4)
    assert rows.capacity_Ah[-1] == pytest.approx(0.99e-3 + 1e-3 * 36 * 0.9 / 3600)
    assert set(rows.step.tolist()) == {1}
    assert len(layers_of(rows)) == 1


def test_a_cv_charge_is_limited_to_its_current() -> None:
    rows, _, _ = executed(
        step_file(
            step(1, StepType.CV_CHARGE, voltage_V=3.1, current_A=2e-3, stop_current_A=1e-3),
        )
    )
    assert rows.current_A[0] == pytest.approx(2e-3)
    assert rows.voltage_V[0] == pytest.approx(3.02)
    limited_s = 0.08 * 3600 / 2
    assert rows.ms[-1] == round(1e3 * (limited_s + 36 * math.log(2)))


def test_a_cv_discharge_mirrors_a_cv_charge() -> None:
    rows, _, cell = executed(
        step_file(step(1, StepType.CV_DISCHARGE, voltage_V=2.9, stop_current_A=1e-3))
    )
    assert rows.current_A[0] == pytest.approx(-10e-3)
    assert rows.ms[-1] == round(36e3 * math.log(10))
    assert cell.charge_Ah == pytest.approx(-10e-3 * 36 * 0.9 / 3600)


def test_a_cccv_discharge_turns_to_holding_at_its_voltage() -> None:
    rows, _, _ = executed(
        step_file(
            step(1, StepType.CCCV_DISCHARGE, current_A=1e-3, voltage_V=2.9, stop_current_A=5e-4)
        )
    )
    assert rows.ms[-1] == round(1e3 * (0.09 * 3600 + 36 * math.log(2)))


def test_a_hold_below_the_cells_voltage_charges_nothing() -> None:
    rows, at, cell = executed(
        step_file(step(1, StepType.CV_CHARGE, voltage_V=2.5, stop_current_A=1e-4, time_s=60.0))
    )
    assert (len(rows), rows.current_A[0], cell.charge_Ah) == (1, 0.0, 0.0)
    assert at.condition is Condition.FINISH


def test_a_step_ends_by_its_time_or_by_its_capacity_whichever_is_first() -> None:
    by_time, _, _ = executed(
        step_file(step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=360.0, stop_capacity_Ah=2e-4))
    )
    by_capacity, _, _ = executed(
        step_file(step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=3600.0, stop_capacity_Ah=2e-4))
    )
    assert by_time.ms[-1] == 360_000
    assert by_capacity.ms[-1] == 720_000


def test_a_long_step_ends_by_its_capacity_though_it_is_made_in_blocks() -> None:
    rows, _, _ = executed(
        step_file(step(1, StepType.CC_CHARGE, current_A=1e-4, stop_capacity_Ah=5e-4), every_s=2.0)
    )
    assert rows.ms[-1] == 18_000_000
    assert len(rows) == 9001
    assert np.all(np.diff(rows.ms) == 2000)
    assert rows.capacity_Ah[-1] == pytest.approx(5e-4, rel=1e-12)


def test_records_come_by_voltage_change_and_by_current_change() -> None:
    by_voltage, _, _ = executed(
        step_file(
            step(1, StepType.CC_CHARGE, current_A=1e-3, stop_voltage_V=3.51),
            every_s=None,
            voltage_change_V=0.1,
        )
    )
    assert by_voltage.voltage_V.tolist() == pytest.approx([3.01, 3.11, 3.21, 3.31, 3.41, 3.51])
    by_current, _, _ = executed(
        step_file(
            step(1, StepType.CV_CHARGE, voltage_V=3.1, stop_current_A=2e-3),
            every_s=None,
            current_change_A=2e-3,
        )
    )
    assert by_current.current_A.tolist() == pytest.approx([10e-3, 8e-3, 6e-3, 4e-3, 2e-3])


def test_a_steps_own_record_conditions_take_the_place_of_the_files() -> None:
    rows, _, _ = executed(
        step_file(
            step(1, StepType.REST, time_s=60.0, record=RecordConditions(time_s=30.0)),
            step(2, StepType.REST, time_s=60.0),
        )
    )
    assert rows.ms[rows.step == 1].tolist() == [0, 30_000, 60_000]
    assert len(rows.ms[rows.step == 2]) == 7


def test_nothing_is_recorded_faster_than_the_electronics_can() -> None:
    rows, _, _ = executed(step_file(step(1, StepType.REST, time_s=1.0), every_s=0.001))
    assert np.diff(rows.ms).tolist() == [100] * 10


def test_a_loop_runs_its_block_as_often_as_it_says_in_all() -> None:
    rows, at, _ = executed(
        step_file(
            step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=20.0),
            step(2, StepType.CC_DISCHARGE, current_A=1e-3, time_s=20.0),
            step(3, StepType.CYCLE, start_step=1, cycle_count=3),
            step(4, StepType.REST, time_s=10.0),
        )
    )
    table = layers_of(rows)
    assert table["step"].tolist() == [1, 2, 1, 2, 1, 2, 4]
    assert table["cycle"].tolist() == [1, 1, 2, 2, 3, 3, 4]
    assert table["visit"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert table["start_s"].tolist() == [0, 20, 40, 60, 80, 100, 120]
    assert at.passes == {}


def test_a_loop_inside_a_loop_begins_anew_with_each_pass() -> None:
    rows, _, _ = executed(
        step_file(
            step(1, StepType.REST, time_s=1.0),
            step(2, StepType.CYCLE, start_step=1, cycle_count=2),
            step(3, StepType.REST, time_s=2.0),
            step(4, StepType.CYCLE, start_step=1, cycle_count=2),
        )
    )
    table = layers_of(rows)
    assert table["step"].tolist() == [1, 1, 3, 1, 1, 3]
    assert table["cycle"].tolist() == [1, 2, 3, 4, 5, 6]


def test_every_step_begins_with_a_record_at_its_time_0_and_its_counters_at_0() -> None:
    rows, _, _ = executed(
        step_file(
            step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=15.0),
            step(2, StepType.CC_DISCHARGE, current_A=1e-3, time_s=15.0),
        )
    )
    assert rows.ms.tolist() == [0, 10_000, 15_000, 0, 10_000, 15_000]
    assert rows.capacity_Ah[[0, 3]].tolist() == [0.0, 0.0]
    assert rows.energy_Wh[[0, 3]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("protection", "ms", "kind"),
    [
        (Protection(voltage_upper_V=3.51), 1_800_000, StepType.CC_CHARGE),
        (Protection(voltage_lower_V=2.49), 1_800_000, StepType.CC_DISCHARGE),
        (Protection(capacity_upper_Ah=1e-4), 360_000, StepType.CC_CHARGE),
        (Protection(current_upper_A=5e-4), 0, StepType.CC_CHARGE),
        (Protection(current_lower_A=-5e-4), 0, StepType.CC_DISCHARGE),
        (Protection(voltage_lower_V=3.5), 0, StepType.CC_CHARGE),
    ],
)
def test_a_passed_protection_ends_the_test(protection: Protection, ms: int, kind: StepType) -> None:
    rows, at, _ = executed(
        step_file(
            step(1, kind, current_A=1e-3, time_s=36_000.0),
            step(2, StepType.REST, time_s=10.0),
            protection=protection,
        )
    )
    assert at.condition is Condition.PROTECT
    assert rows.ms[-1] == ms
    assert set(rows.step.tolist()) == {1}


def test_the_tighter_of_the_files_and_the_steps_protection_counts() -> None:
    rows, at, _ = executed(
        step_file(
            step(
                1,
                StepType.CC_CHARGE,
                current_A=1e-3,
                time_s=36_000.0,
                protection=Protection(voltage_upper_V=3.51),
            ),
            protection=Protection(voltage_upper_V=4.0),
        )
    )
    assert (at.condition, int(rows.ms[-1])) == (Condition.PROTECT, 1_800_000)


def test_a_protection_with_a_delay_waits_before_it_trips() -> None:
    rows, at, _ = executed(
        step_file(
            step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=36_000.0),
            protection=Protection(voltage_upper_V=3.51, delay_s=5.0),
        )
    )
    assert (at.condition, int(rows.ms[-1])) == (Condition.PROTECT, 1_805_000)


def test_a_protection_that_is_passed_for_less_than_its_delay_does_not_trip() -> None:
    rows, at, _ = executed(
        step_file(
            step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=1803.0),
            step(2, StepType.REST, time_s=10.0),
            protection=Protection(voltage_upper_V=3.51, delay_s=5.0),
        )
    )
    assert at.condition is Condition.FINISH
    assert int(rows.step[-1]) == 2


def test_the_delay_of_a_protection_begins_anew_in_every_step() -> None:
    rows, at, _ = executed(
        step_file(
            step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=1803.0),
            step(2, StepType.REST, time_s=10.0),
            step(3, StepType.CC_CHARGE, current_A=5e-4, time_s=3600.0),
            protection=Protection(voltage_upper_V=3.51, delay_s=5.0),
        )
    )
    # 3 V + 1803 s at 1 mA + 5 mV over the resistance leaves 4.17 mV, which is 30 s at 0.5 mA.
    assert (at.condition, int(rows.step[-1])) == (Condition.PROTECT, 3)
    assert rows.ms[-1] == pytest.approx(35_000, abs=1)


def test_a_surge_that_fades_within_the_delay_is_forgiven() -> None:
    rows, at, _ = executed(
        step_file(
            step(1, StepType.CV_CHARGE, voltage_V=3.1, stop_current_A=1e-3),
            protection=Protection(current_upper_A=5e-3, delay_s=30.0),
        )
    )
    assert at.condition is Condition.FINISH
    assert rows.ms[-1] == round(36e3 * math.log(10))


def test_a_stop_voltage_at_the_protections_value_ends_the_step_and_not_the_test() -> None:
    _, at, _ = executed(
        step_file(
            step(1, StepType.CC_CHARGE, current_A=1e-3, stop_voltage_V=3.5),
            protection=Protection(voltage_upper_V=3.5),
        )
    )
    assert at.condition is Condition.FINISH


def test_a_pause_step_pauses_before_what_follows_it() -> None:
    rows, at, _ = executed(
        step_file(
            step(1, StepType.REST, time_s=10.0),
            step(2, StepType.PAUSE),
            step(3, StepType.REST, time_s=10.0),
        )
    )
    assert (at.condition, at.step) == (Condition.PAUSE, 3)
    assert set(rows.step.tolist()) == {1}


CURRENTS = st.floats(1e-4, 5e-3)
TIMES = st.floats(0.5, 400.0)
RUNNING = st.one_of(
    st.builds(lambda t: step(1, StepType.REST, time_s=t), TIMES),
    st.builds(
        lambda i, t, v: step(1, StepType.CC_CHARGE, current_A=i, time_s=t, stop_voltage_V=v),
        *(CURRENTS, TIMES, st.floats(2.5, 4.5)),
    ),
    st.builds(
        lambda i, t, q: step(1, StepType.CC_DISCHARGE, current_A=i, time_s=t, stop_capacity_Ah=q),
        *(CURRENTS, TIMES, st.floats(1e-6, 1e-3)),
    ),
    st.builds(
        lambda i, t, v: step(
            1, StepType.CCCV_CHARGE, current_A=i, voltage_V=v, time_s=t, stop_current_A=i / 10
        ),
        *(CURRENTS, TIMES, st.floats(2.5, 4.5)),
    ),
)


@given(
    st.lists(RUNNING, min_size=1, max_size=5),
    st.integers(1, 4),
    st.sampled_from([0.5, 7.0, None]),
    st.sampled_from([None, 0.01]),
)
def test_whatever_a_file_says_records_are_in_order_and_charge_is_kept(
    steps: list[FileStep], passes: int, every_s: float | None, change_V: float | None
) -> None:
    numbered = [replace(each, number=place) for place, each in enumerate(steps, start=1)]
    loop = step(len(steps) + 1, StepType.CYCLE, start_step=1, cycle_count=passes)
    rows, at, cell = executed(
        step_file(*numbered, loop, every_s=every_s, voltage_change_V=change_V)
    )
    assert at.condition is Condition.FINISH
    assert at.seq == len(rows) + 1
    table = layers_of(rows)
    assert table["step"].tolist() == [each.number for each in numbered] * passes
    assert rows.ms[table["first_seq"] - 1].tolist() == [0] * len(table)
    same_visit = np.diff(rows.visit) == 0
    assert np.all(np.diff(rows.ms)[same_visit] > 0)
    assert np.all(np.diff(rows.test_time_s) > -1e-3)
    signs = np.array(
        [-1 if steps[n - 1].type is StepType.CC_DISCHARGE else 1 for n in table["step"]]
    )
    assert cell.charge_Ah == pytest.approx(float(signs @ table["capacity_Ah"]), abs=2e-9)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (step(1, StepType.CC_CHARGE, current_A=1e-3), "nothing would end it"),
        (step(1, StepType.CC_CHARGE, time_s=1.0), "current is missing"),
        (step(1, StepType.CC_CHARGE, current_A=1.0, time_s=1.0), "no range holds"),
        (step(1, StepType.CV_CHARGE, time_s=1.0), "voltage is missing"),
        (step(1, StepType.CV_CHARGE, voltage_V=9.0, time_s=1.0), "outside"),
        (step(1, StepType.REST, time_s=-1.0), "negative"),
        (step(1, StepType.CYCLE, start_step=1, cycle_count=2), "cannot go back"),
        (step(2, StepType.REST, time_s=1.0), "carries the number 2"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(broken: FileStep, reason: str) -> None:
    assert reason in unrunnable(step_file(broken))


def test_a_file_without_an_end_or_that_is_no_file_is_refused() -> None:
    rest = step(1, StepType.REST, time_s=1.0)
    assert "end" in unrunnable(StepFile((rest,), Protection(), RecordConditions()))
    assert isinstance(read_runnable(b"<root/>"), str)
    file = step_file(rest)
    read = read_runnable(write_step_file(file))
    assert isinstance(read, StepFile)
    assert read.steps == file.steps


def test_a_step_runs_in_the_smallest_range_that_holds_its_current() -> None:
    assert [range_for(a) for a in (40e-6, 100e-6, 101e-6, -10e-3, 0.1)] == [
        100e-6,
        100e-6,
        1e-3,
        10e-3,
        0.1,
    ]
    assert range_for(0.11) is None
    rest = step(1, StepType.REST, time_s=1.0)
    assert full_scale_A(rest, step_file(rest)) == 0.0
