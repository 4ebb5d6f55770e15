"""Techniques and ends of single steps, and what a step file has for them."""

from __future__ import annotations

import math

import pytest
from bts_programs import (
    CHANNEL,
    LIMITS,
    REST,
    TEN_MINUTES,
    TO_1V5,
    TO_4V1,
    ending,
    leaving,
    program,
    refusals,
    step,
    translated,
    until,
)

from labctl.drivers.neware_bts.stepfile import (
    Condition,
    Jump,
    Protection,
    StepType,
    Sweep,
    read_step_file,
    write_step_file,
)
from labctl.drivers.neware_bts.translate import refusals as refusals_of_program
from labctl.errors import PlanError
from labctl.program import (
    Branch,
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Control,
    CycleFigure,
    CycleResult,
    EndedBy,
    Finish,
    Leave,
    Limits,
    Loop,
    Node,
    Quantity,
    RecordRule,
    Rest,
    SetTemperature,
    Signal,
    VoltageSweep,
    Wait,
)


def test_constant_power_constant_resistance_and_sweeps_have_steps_of_their_own() -> None:
    steps = translated(
        step(0, ConstantPower(1e-3, 2e-3), TO_4V1),
        step(1, ConstantPower(-1e-3, 0.1), TO_1V5, TEN_MINUTES),
        step(2, ConstantResistance(1e3, 5e-3), TO_1V5),
        step(
            3,
            VoltageSweep(1.5, 4.1, 1e-3, math.inf),
            TO_4V1,
            until(Quantity.STEP_TIME_S, ">=", 2600.0),
        ),
        step(4, VoltageSweep(None, 1.5, 1e-3, math.inf), TO_1V5),
    ).file.steps
    charge, discharge, load, up, down = steps[:5]
    assert (charge.type, charge.power_W, charge.stop_voltage_V) == (StepType.CP_CHARGE, 1e-3, 4.1)
    assert (discharge.type, discharge.power_W, discharge.stop_voltage_V, discharge.time_s) == (
        StepType.CP_DISCHARGE,
        1e-3,
        1.5,
        600.0,
    )
    assert (load.type, load.resistance_ohm, load.stop_voltage_V) == (
        StepType.CR_DISCHARGE,
        1e3,
        1.5,
    )
    assert (up.type, up.sweep, up.time_s) == (StepType.SWEEP, Sweep(1.5, 4.1, 1e-3), 2600.0)
    assert down.sweep == Sweep(None, 1.5, 1e-3)
    assert down.time_s == 3740.0  # all of 1.0 V to 4.4 V at 1 mV/s, and a tenth
    assert all(each.conditions == () for each in steps)


def test_a_largest_current_that_bts_cannot_hold_protects_the_step() -> None:
    charge, load, free, _ = translated(
        step(0, ConstantPower(1e-3, 2e-3), TO_4V1),
        step(1, ConstantResistance(1e3, 5e-3), TO_1V5),
        step(2, ConstantPower(1e-3, 0.5), TO_4V1),
    ).file.steps
    whole = Protection(4.4, 1.0, 0.011, -0.011, 4e-4)
    assert charge.protection == Protection(4.4, 1.0, 2e-3, -2e-3, 4e-4)
    assert load.protection == Protection(4.4, 1.0, 5e-3, -5e-3, 4e-4)
    assert free.protection is None
    assert translated(step(0, ConstantPower(1e-3, 0.5), TO_4V1)).file.protection == whole


def test_the_surge_of_a_sweep_is_cut_off_where_the_program_the_run_or_the_channel_ends() -> None:
    own = Limits(1.0, 4.4, -4e-3, 5e-3, 4e-4, 1e5)
    least, of_the_step, of_the_channel, _ = translated(
        step(0, VoltageSweep(1.5, 4.1, 1e-3, 1e-3), TO_4V1),
        step(1, VoltageSweep(4.1, 1.5, 1e-3, math.inf), TO_1V5, limits=own),
        step(2, VoltageSweep(1.5, 4.1, 1e-3, math.inf), TO_4V1),
    ).file.steps
    assert (least.current_A, least.protection) == (1e-3, None)
    assert of_the_step.current_A == 4e-3
    assert of_the_channel.current_A == 1e-2


def test_a_step_with_limits_of_its_own_arms_the_tighter_of_them_and_the_runs() -> None:
    own = Limits(1.4, 4.2, -0.02, 3e-4, 2e-4, 1e9)
    made = translated(step(0, ConstantCurrent(2e-4), TO_4V1, limits=own), LIMITED).file
    assert made.steps[0].protection == Protection(4.2, 1.4, 3e-4, -0.011, 2e-4)
    assert made.steps[0].time_s == 3960.0  # by the step's own bound of the charge
    assert made.steps[1].protection is None
    assert made.protection == Protection(4.4, 1.0, 0.011, -0.011, 4e-4)


LIMITED = step(1, Rest(), TEN_MINUTES, limits=LIMITS)


def test_what_a_step_sets_is_judged_by_its_own_limits() -> None:
    own = Limits(1.4, 4.0, -1e-2, 1e-4, 2e-4, 1e5)
    reasons = refusals(step(0, ConstantCurrent(2e-4), TO_4V1, limits=own))
    assert "beyond the run's own limit of 0.0001 A" in reasons[0]
    assert "ends at 4.1 V, outside the run's own limits 1.4 V to 4 V" in reasons[1]
    empty = Limits(3.0, 2.0, -1e-2, 1e-2, 2e-4, 1e5)
    (reason,) = refusals(step(0, Rest(), TEN_MINUTES, limits=empty))
    assert "has limits of its own that cannot be: the voltage limits leave no room" in reason


def test_ends_that_a_step_has_no_element_for_become_conditions() -> None:
    charge, rest, hold, power = translated(
        step(
            0,
            ConstantCurrent(1e-4),
            TO_4V1,
            until(Quantity.VOLTAGE_V, "<=", 1.2),
            until(Quantity.STEP_ENERGY_WH, ">=", 1e-3),
        ),
        step(1, Rest(), until(Quantity.VOLTAGE_V, "<=", 3.9), TEN_MINUTES),
        step(
            2,
            ConstantVoltage(4.0, 5e-3, charging=True),
            until(Quantity.CURRENT_A, "<=", 1e-5),
            until(Quantity.CURRENT_A, "<=", 2e-5),
        ),
        step(3, ConstantPower(-1e-3, 1e-2), TO_1V5, until(Quantity.CURRENT_A, ">=", 6e-4)),
    ).file.steps[:4]
    assert charge.stop_voltage_V == 4.1
    assert charge.conditions == (
        Condition(Quantity.VOLTAGE_V, Comparison.AT_MOST, 1.2),
        Condition(Quantity.STEP_ENERGY_WH, Comparison.AT_LEAST, 1e-3),
    )
    assert rest.conditions == (Condition(Quantity.VOLTAGE_V, Comparison.AT_MOST, 3.9),)
    assert rest.time_s == 600.0
    assert hold.stop_current_A == 1e-5
    assert hold.conditions == (Condition(Quantity.CURRENT_A, Comparison.AT_MOST, 2e-5),)
    assert power.conditions == (Condition(Quantity.CURRENT_A, Comparison.AT_LEAST, 6e-4),)


def test_leaving_a_loop_leads_to_the_step_after_its_cycle_and_ending_the_run_to_its_finish() -> (
    None
):
    low = leaving(Quantity.VOLTAGE_V, "<=", 1.2)
    file = translated(
        Loop(
            10,
            (
                Loop(
                    5,
                    (
                        step(0, ConstantCurrent(1e-4), TO_4V1, low),
                        step(
                            1,
                            ConstantCurrent(-1e-4),
                            TO_1V5,
                            ending(Quantity.STEP_TIME_S, ">=", 5000.0),
                        ),
                    ),
                ),
                step(2, Rest(), leaving(Quantity.STEP_TIME_S, ">=", 600.0)),
                Loop(1, (step(3, ConstantCurrent(1e-4), low, TO_4V1),)),
            ),
        ),
        step(4, Rest(), TEN_MINUTES),
    ).file
    charge, discharge, inner, rest, once, outer, last, end = file.steps
    assert [inner.type, outer.type, end.type] == [StepType.CYCLE, StepType.CYCLE, StepType.END]
    assert charge.conditions[0].jump == rest.number
    assert discharge.conditions == (
        Condition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 5000.0, Jump.FINISH),
    )
    assert discharge.time_s == 5500.0
    assert rest.conditions == (
        Condition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 600.0, last.number),
    )
    assert rest.time_s == 660.0
    assert once.conditions[0].jump == outer.number
    assert read_step_file(write_step_file(file)) == file


def test_a_loop_at_the_end_is_left_for_the_end() -> None:
    steps = translated(Loop(3, (step(0, Rest(), leaving(Quantity.STEP_TIME_S, ">=", 9.0)),))).file
    assert steps.steps[0].conditions[0].jump == steps.steps[-1].number == 3


@pytest.mark.parametrize(
    ("control", "rule", "every_s"),
    [
        (ConstantCurrent(1e-4), RecordRule(charge_change_Ah=1e-6), 30.0),
        (ConstantCurrent(-1e-3), RecordRule(charge_change_Ah=1e-6), 3.6),
        (ConstantCurrent(1e-3), RecordRule(math.inf, charge_change_Ah=1e-6), 3.6),
        (ConstantCurrentConstantVoltage(1e-3, 4.1), RecordRule(charge_change_Ah=1e-6), 3.6),
        (Rest(), RecordRule(charge_change_Ah=1e-6), 30.0),
    ],
)
def test_a_record_by_charge_is_one_by_time_where_the_current_is_set(
    control: Control, rule: RecordRule, every_s: float
) -> None:
    made = translated(step(0, control, TEN_MINUTES, record=rule)).file.steps[0].record
    assert made is not None
    assert made.time_s == pytest.approx(every_s)


def test_a_record_by_charge_is_refused_where_the_current_is_not_set_or_too_large() -> None:
    rule = RecordRule(charge_change_Ah=1e-6)
    for control in (
        ConstantPower(1e-3, 1e-2),
        ConstantVoltage(4.0, 1e-3, charging=True),
        VoltageSweep(1.5, 4.0, 1e-3, 1e-3),
    ):
        assert (
            "records by time, voltage and current"
            in refusals(step(0, control, TEN_MINUTES, record=rule))[0]
        )
    fast = RecordRule(charge_change_Ah=1e-8)
    (reason,) = refusals(step(0, ConstantCurrent(1e-3), TEN_MINUTES, record=fast))
    assert "every 1e-08 Ah, which at 0.001 A is every 0.036 s, and the channel's fastest" in reason


HOST_STEPS = (
    step(0, Wait(signal="go"), TEN_MINUTES),
    step(1, Signal(marker="here")),
    step(2, SetTemperature(40.0, 1.0, 600.0), TEN_MINUTES),
)
FADED = CycleResult(CycleFigure.DISCHARGE_AH, Comparison.AT_MOST, 1e-4)


def test_what_is_the_hosts_cannot_be_in_a_file_and_is_no_reason_against_a_program() -> None:
    assert len(refusals(*HOST_STEPS)) == 3
    body = (
        *HOST_STEPS,
        Loop(
            70_000,
            (
                step(3, ConstantCurrent(1e-4), TO_4V1, leaving(Quantity.VOLTAGE_V, "<=", 1.2)),
                Branch(FADED, (Finish("faded"),), (step(4, ConstantCurrent(-1e-4), TO_1V5),)),
            ),
            until=(FADED,),
        ),
        Loop(2, (Branch(EndedBy(Quantity.VOLTAGE_V), (Leave(),)), step(5, Rest(), TEN_MINUTES))),
    )
    with pytest.raises(PlanError) as caught:
        translated(*body)
    text = str(caught.value)
    for kind in ("wait", "signal", "set temperature", "result of a cycle", "branch", "finish"):
        assert kind in text
    assert refusals_of_program(program(*body), CHANNEL) == ()


def test_of_a_program_that_the_host_runs_each_step_and_loop_of_the_channels_is_judged() -> None:
    body = (
        *HOST_STEPS,
        Branch(FADED, (step(3, ConstantCurrent(1.0), TO_4V1),)),
        Loop(70_000, (step(4, Rest(), TEN_MINUTES),)),
    )
    reasons = refusals_of_program(program(*body), CHANNEL)
    assert "a loop of 70000 passes" in reasons[0]
    assert "step 4 sets 1 A" in reasons[1]
    assert len(reasons) == 2
    alone = program(step(0, ConstantCurrent(1.0), TO_4V1))
    assert refusals_of_program(alone, CHANNEL) == refusals(*alone.body)


def test_loops_of_one_pass_do_not_count_as_nested() -> None:
    deep: Node = REST
    for count in (1, 2, 1, 2, 1, 2, 1):
        deep = Loop(count, (deep,))
    assert [each.type for each in translated(deep).file.steps].count(StepType.CYCLE) == 3
