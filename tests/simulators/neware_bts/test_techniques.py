"""Every technique and every way out of a step, on a cell by hand and on a real one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from linear_rack import LinearCell, step, step_file

from labctl.drivers.neware_bts.stepfile import (
    Condition,
    FileStep,
    Jump,
    Protection,
    StepFile,
    StepType,
    Sweep,
)
from labctl.program import Comparison, Quantity
from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.interface import SimulatedCell
from labctl.simulators.neware_bts.openlead import OpenLead
from labctl.simulators.neware_bts.position import Condition as Working
from labctl.simulators.neware_bts.position import Position
from labctl.simulators.neware_bts.program import Execution
from labctl.simulators.neware_bts.rows import Rows, layers_of, rows_of
from labctl.simulators.neware_bts.steps import full_scale_A, unrunnable


def executed(file: StepFile, cell: SimulatedCell | None = None) -> tuple[Rows, Position]:
    assert unrunnable(file) == ""
    execution = Execution(file, cell or LinearCell(), Position())
    blocks = []
    while (block := execution.run()) is not None:
        blocks.append(block)
    return rows_of(blocks), execution.position


def condition(quantity: Quantity, comparison: str, value: float, jump: int) -> Condition:
    return Condition(quantity, Comparison(comparison), value, jump)


def test_a_step_ends_when_its_energy_has_passed() -> None:
    end = condition(Quantity.STEP_ENERGY_WH, ">=", 2e-3, Jump.NEXT)
    for kind, sign in ((StepType.CC_CHARGE, 1), (StepType.CC_DISCHARGE, -1)):
        rows, at = executed(
            step_file(
                step(1, kind, current_A=1e-3, time_s=36_000.0, conditions=(end,)),
                step(2, StepType.REST, time_s=10.0),
            )
        )
        assert at.condition is Working.FINISH
        driven = rows.step == 1
        assert rows.energy_Wh[driven][-1] == pytest.approx(2e-3, rel=1e-8)
        # q (3 V + sign 10 mV) + sign q^2 / (2 mAh/V) is the energy of a charge q.
        charge_Ah = rows.capacity_Ah[driven][-1]
        energy_Wh = charge_Ah * (3 + sign * 0.01) + sign * charge_Ah**2 / 2e-3
        assert energy_Wh == pytest.approx(2e-3, rel=1e-8)
        assert np.diff(rows.ms[driven])[:-1].tolist() == [10_000] * (driven.sum() - 2)


def test_a_condition_ends_a_step_before_its_own_end_and_leads_where_it_says() -> None:
    def file(*conditions: Condition) -> StepFile:
        return step_file(
            step(
                1,
                StepType.CC_CHARGE,
                current_A=1e-3,
                stop_voltage_V=4.0,
                time_s=36_000.0,
                conditions=conditions,
            ),
            step(2, StepType.REST, time_s=10.0),
            step(3, StepType.REST, time_s=20.0),
        )

    def visited(*conditions: Condition) -> tuple[list[int], Working, float]:
        rows, at = executed(file(*conditions))
        return layers_of(rows)["step"].tolist(), at.condition, float(rows.ms[rows.step == 1][-1])

    high = Quantity.VOLTAGE_V
    assert visited() == ([1, 2, 3], Working.FINISH, 3_564_000.0)
    assert visited(condition(high, ">=", 3.51, 3)) == ([1, 3], Working.FINISH, 1_800_000.0)
    assert visited(condition(high, ">=", 4.0, 3)) == ([1, 2, 3], Working.FINISH, 3_564_000.0)
    assert visited(condition(high, "<=", 3.1, Jump.NEXT)) == ([1, 2, 3], Working.FINISH, 0.0)
    assert visited(condition(high, ">=", 3.51, Jump.FINISH)) == ([1], Working.FINISH, 1.8e6)
    assert visited(condition(high, ">=", 3.51, Jump.STOP)) == ([1], Working.STOP, 1.8e6)
    assert visited(condition(high, ">=", 3.51, Jump.PROTECT)) == ([1], Working.PROTECT, 1.8e6)
    assert visited(condition(Quantity.STEP_TIME_S, ">=", 60.0, 3))[::2] == ([1, 3], 60_000.0)
    assert visited(condition(Quantity.STEP_CHARGE_AH, ">=", 1e-4, 3))[::2] == ([1, 3], 360_000.0)
    assert visited(condition(Quantity.CURRENT_A, ">=", 5e-4, 3))[::2] == ([1, 3], 0.0)
    assert visited(condition(Quantity.CURRENT_A, ">=", 5e-3, 3))[0] == [1, 2, 3]
    earlier = condition(high, ">=", 3.4, 2), condition(high, ">=", 3.2, 3)
    assert visited(*earlier)[0] == [1, 3]


def test_the_hold_of_a_charge_ends_by_the_condition_that_comes_first() -> None:
    rows, _ = executed(
        step_file(
            step(
                1,
                StepType.CCCV_CHARGE,
                current_A=1e-3,
                voltage_V=4.0,
                stop_current_A=1e-4,
                conditions=(condition(Quantity.CURRENT_A, "<=", 5e-4, Jump.NEXT),),
            )
        )
    )
    assert rows.ms[-1] == round(1e3 * (3564 + 36 * math.log(2)))


def test_a_loop_that_is_left_begins_anew_when_it_is_entered_again() -> None:
    short = condition(Quantity.STEP_TIME_S, ">=", 5.0, 4)
    rows, at = executed(
        step_file(
            step(1, StepType.REST, time_s=1.0),
            step(2, StepType.CC_CHARGE, current_A=1e-3, time_s=9.0, conditions=(short,)),
            step(3, StepType.CYCLE, start_step=1, cycle_count=3),
            step(4, StepType.REST, time_s=2.0),
            step(5, StepType.CYCLE, start_step=1, cycle_count=2),
        )
    )
    table = layers_of(rows)
    assert table["step"].tolist() == [1, 2, 4, 1, 2, 4]
    assert table["cycle"].tolist() == [1, 1, 1, 2, 2, 2]
    assert at.passes == {}


def test_a_loop_left_in_its_second_pass_has_all_its_passes_the_next_time() -> None:
    rows, _ = executed(
        step_file(
            step(
                1,
                StepType.CC_CHARGE,
                current_A=1e-3,
                time_s=360.0,
                conditions=(condition(Quantity.VOLTAGE_V, ">=", 3.16, 3),),
            ),
            step(2, StepType.CYCLE, start_step=1, cycle_count=3),
            step(3, StepType.CC_DISCHARGE, current_A=1e-3, stop_voltage_V=2.59),
            step(4, StepType.CYCLE, start_step=1, cycle_count=2),
        )
    )
    # 3.01 V, 3.11 V, out at 3.16 V; then from 2.6 V three passes of 0.1 V, all of the loop.
    assert layers_of(rows)["step"].tolist() == [1, 1, 3, 1, 1, 1, 3]


def real_cell() -> SimulatedCell:
    return build_cell(CellSpec(name="c", material="HE-V", active_mass_g=0.002, scatter=0.0))


def driven(kind: StepType, **fields: object) -> Rows:
    """The records of a step of that kind on a real cell that was charged to 3.2 V."""
    charge = step(1, StepType.CC_CHARGE, current_A=2e-4, stop_voltage_V=3.2)
    rows, at = executed(step_file(charge, step(2, kind, **fields), every_s=1.0), real_cell())
    assert at.condition is Working.FINISH
    return rows.between(int(np.argmax(rows.step == 2)) + 1, len(rows))


def test_constant_power_holds_the_product_of_voltage_and_current() -> None:
    charge = driven(StepType.CP_CHARGE, power_W=1e-3, stop_voltage_V=3.8)
    assert charge.voltage_V * charge.current_A == pytest.approx(1e-3, rel=1e-6)
    assert charge.voltage_V[-1] == pytest.approx(3.8, abs=1e-6)
    hours = (charge.ms - charge.ms[0]) / 3.6e6
    assert charge.energy_Wh == pytest.approx(1e-3 * hours, rel=1e-4, abs=1e-12)
    discharge = driven(StepType.CP_DISCHARGE, power_W=1e-3, time_s=60.0)
    assert discharge.voltage_V * discharge.current_A == pytest.approx(-1e-3, rel=1e-6)
    assert discharge.capacity_Ah[-1] > 0


def test_constant_resistance_holds_the_ratio_of_voltage_and_current() -> None:
    rows = driven(StepType.CR_DISCHARGE, resistance_ohm=5e3, stop_voltage_V=2.5)
    assert rows.voltage_V / rows.current_A == pytest.approx(-5e3, rel=1e-6)
    assert rows.voltage_V[-1] == pytest.approx(2.5, abs=1e-6)


def test_a_sweep_moves_the_voltage_steadily_from_where_the_cell_stands() -> None:
    rows = driven(StepType.SWEEP, sweep=Sweep(None, 3.4, 1e-3))
    swept = rows.voltage_V[0] + 1e-6 * rows.ms
    assert rows.voltage_V == pytest.approx(swept, abs=1e-6)
    assert rows.voltage_V[-1] == pytest.approx(3.4, abs=1e-6)
    assert abs(rows.current_A[0]) < 1e-9
    assert rows.current_A[-1] > 0
    down = driven(StepType.SWEEP, sweep=Sweep(3.2, 3.1, 1e-3))
    assert down.ms[-1] == 100_000
    assert down.current_A[-1] < 0


def test_a_sweep_is_ended_by_a_condition_and_tripped_by_the_narrower_current() -> None:
    early = condition(Quantity.VOLTAGE_V, ">=", 3.3, Jump.NEXT)
    rows = driven(StepType.SWEEP, sweep=Sweep(None, 4.0, 1e-3), conditions=(early,))
    assert rows.voltage_V[-1] == pytest.approx(3.3, abs=1e-6)
    file = step_file(
        step(
            1,
            StepType.SWEEP,
            sweep=Sweep(None, 4.0, 1e-3),
            protection=Protection(current_upper_A=1e-4, current_lower_A=-1e-2),
        )
    )
    tripped, at = executed(file, real_cell())
    assert at.condition is Working.PROTECT
    assert tripped.current_A[-1] == pytest.approx(1e-4, rel=1e-3)


def test_an_open_lead_follows_a_sweep_without_a_current() -> None:
    file = step_file(
        step(1, StepType.SWEEP, sweep=Sweep(0.5, 1.5, 0.01)),
        step(2, StepType.CP_CHARGE, power_W=1e-3, stop_voltage_V=4.0),
        every_s=10.0,
        voltage_change_V=0.25,
    )
    rows, at = executed(file, OpenLead())
    assert at.condition is Working.FINISH
    assert rows.voltage_V.tolist() == pytest.approx([*np.arange(0.5, 1.51, 0.1).tolist(), 6.0])
    assert not rows.current_A.any()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (step(1, StepType.CP_CHARGE, time_s=1.0), "power is missing"),
        (step(1, StepType.CR_DISCHARGE, time_s=1.0), "resistance is missing"),
        (step(1, StepType.SWEEP, time_s=1.0), "sweep or its rate is missing"),
        (step(1, StepType.SWEEP, sweep=Sweep(1.0, 2.0, 0.0)), "sweep or its rate is missing"),
        (step(1, StepType.SWEEP, sweep=Sweep(1.0, 7.0, 1.0)), "outside"),
        (
            step(
                1,
                StepType.REST,
                conditions=(Condition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.0, 3),),
            ),
            "a condition leads to step 3",
        ),
        (
            step(
                1,
                StepType.PAUSE,
                conditions=(Condition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.0),),
            ),
            "only a step that runs has conditions",
        ),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(broken: FileStep, reason: str) -> None:
    assert reason in unrunnable(step_file(broken))


def test_a_step_that_sets_no_current_runs_in_the_range_of_what_may_flow() -> None:
    power = step(1, StepType.CP_CHARGE, power_W=1e-3, time_s=1.0)
    assert full_scale_A(power, step_file(power)) == 0.1
    bounded = step_file(power, protection=Protection(current_upper_A=6e-4, current_lower_A=-4e-3))
    assert full_scale_A(power, bounded) == 1e-2
