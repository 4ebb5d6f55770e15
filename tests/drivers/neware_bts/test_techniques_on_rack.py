"""Techniques, ways out of loops, pauses and skips on a simulated rack, in virtual time."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rack_lab import (
    LIMITS,
    PROGRAM,
    RULE,
    begun,
    follow_to_the_end,
    joined,
    lab_in,
    visits_of,
)

from labctl.drivers.base import ChannelState
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.model import Readings
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantPower,
    ConstantResistance,
    Control,
    EndCondition,
    Limits,
    Loop,
    Node,
    Program,
    Quantity,
    Rest,
    Step,
    Then,
    VoltageSweep,
)


def going(quantity: Quantity, comparison: str, value: float, then: Then) -> EndCondition:
    return EndCondition(quantity, Comparison(comparison), value, then)


def of(*body: Node, limits: Limits = LIMITS) -> Program:
    return Program(name="p", recipe_sha256="0", cell="HEV-01", body=body, limits=limits)


def step(index: int, control: Control, *ends: EndCondition, limits: Limits | None = None) -> Step:
    return Step(index, "", control, ends, RULE, limits=limits)


def at(quantity: Quantity, comparison: str, value: float) -> EndCondition:
    return EndCondition(quantity, Comparison(comparison), value)


async def run_whole(driver: NewareBts, program: Program) -> tuple[Readings, ChannelState]:
    readings, end = await follow_to_the_end(driver, await begun(driver, program), program)
    return readings, end.state


async def test_power_resistance_and_sweeps_are_what_the_cell_is_asked_for(tmp_path: Path) -> None:
    program = of(
        step(0, ConstantPower(4e-3, 1e-2), at(Quantity.VOLTAGE_V, ">=", 4.0)),
        step(1, ConstantPower(-4e-3, 1e-2), at(Quantity.STEP_TIME_S, ">=", 60.0)),
        step(2, ConstantResistance(2e3, 1e-2), at(Quantity.STEP_ENERGY_WH, ">=", 5e-5)),
        step(3, VoltageSweep(3.0, 3.5, 2e-3, 1e-2), at(Quantity.VOLTAGE_V, ">=", 3.5)),
        step(4, VoltageSweep(None, 2.5, 5e-3, 1e-2), at(Quantity.VOLTAGE_V, "<=", 2.5)),
    )
    async with lab_in(tmp_path) as lab:
        readings, state = await run_whole(lab.new_driver(), program)
    assert state is ChannelState.FINISHED
    assert sorted(set(readings.step.tolist())) == [0, 1, 2, 3, 4]
    volts, amps = readings.voltage_V, readings.current_A
    charge, discharge, load, up, down = (readings.step == place for place in range(5))
    assert volts[charge] * amps[charge] == pytest.approx(4e-3, rel=2e-3)
    assert volts[charge][-1] == pytest.approx(4.0, abs=2e-3)
    assert volts[discharge] * amps[discharge] == pytest.approx(-4e-3, rel=2e-3)
    assert readings.step_energy_Wh[discharge][-1] == pytest.approx(-4e-3 / 60, rel=1e-4)
    assert volts[load] / amps[load] == pytest.approx(-2e3, rel=2e-3)
    assert readings.step_energy_Wh[load][-1] == pytest.approx(-5e-5, rel=1e-6)
    swept = 3.0 + 2e-3 * readings.step_time_s[up]
    free = np.abs(amps[up]) < 9.9e-3
    assert free.sum() > 80
    assert volts[up][free] == pytest.approx(swept[free], abs=2e-3)
    assert np.abs(amps[up]).max() < 1.001e-2
    assert readings.step_time_s[up][-1] == pytest.approx(250.0)
    assert volts[down][-1] == pytest.approx(2.5, abs=2e-3)
    assert np.isnan(readings.step_charge_Ah[up]).all()
    joint = volts[up][-1] - volts[down][0]
    assert abs(joint) < 0.05


async def test_a_loop_is_left_and_a_run_ended_by_the_channel_itself(tmp_path: Path) -> None:
    charge_end = at(Quantity.VOLTAGE_V, ">=", 4.1)
    short = going(Quantity.STEP_TIME_S, ">=", 20.0, Then.LEAVE_LOOP)
    program = of(
        Loop(
            3,
            (
                Loop(50, (step(0, ConstantCurrent(2e-3), charge_end), step(1, Rest(), short))),
                step(2, ConstantCurrent(-2e-3), at(Quantity.VOLTAGE_V, "<=", 1.5)),
            ),
            counts_cycles=True,
        ),
        step(3, ConstantCurrent(2e-3), going(Quantity.VOLTAGE_V, ">=", 3.0, Then.END_RUN)),
        step(4, Rest(), at(Quantity.STEP_TIME_S, ">=", 60.0)),
    )
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        assert driver.capabilities.leaves_loops
        readings, state = await run_whole(driver, program)
    assert state is ChannelState.FINISHED
    assert [place for place, _ in visits_of(readings)] == [0, 1, 2] * 3 + [3]
    assert readings.voltage_V[-1] == pytest.approx(3.0, abs=2e-3)
    marks = [mark for _, mark in visits_of(readings)]
    assert len({(place, mark) for place, mark in visits_of(readings)}) == len(marks)


async def test_a_steps_own_limits_trip_the_run_in_that_step_alone(tmp_path: Path) -> None:
    tight = msgspec.structs.replace(LIMITS, voltage_max_V=3.2)
    end = at(Quantity.VOLTAGE_V, ">=", 4.0)
    rest = step(1, Rest(), at(Quantity.STEP_TIME_S, ">=", 10.0), limits=tight)
    program = of(step(0, ConstantCurrent(2e-3), end), rest)
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        armed = await driver.arm("21-1-1", program, "run-7")
        assert armed.limits.voltage_max_V == LIMITS.voltage_max_V
        readings, followed = await follow_to_the_end(driver, await driver.start(armed), program)
    assert followed.state is ChannelState.TRIPPED
    assert readings.voltage_V[readings.step == 0].max() > 3.9
    assert len(readings.step[readings.step == 1]) == 1


SOME = msgspec.structs.replace(
    PROGRAM, body=(PROGRAM.body[0], msgspec.structs.replace(PROGRAM.body[1], count=8))
)


async def test_a_paused_run_goes_on_in_the_same_step_as_if_nothing_had_been(
    tmp_path: Path,
) -> None:
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        whole, _ = await run_whole(driver, SOME)
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        started = await begun(driver, SOME)
        blocks, next_index = [], 1
        for _ in range(3):
            followed = await driver.follow(started, SOME, next_index)
            blocks.append(followed.readings)
            next_index = followed.next_index
            await driver.pause("21-1-1")
            await driver.pause("21-1-1")
            shown = await driver.status("21-1-1")
            assert (shown.state, shown.current_A) == (ChannelState.STOPPED, 0.0)
            assert shown.test == started.test
            await driver.resume("21-1-1")
            await driver.resume("21-1-1")
            assert (await driver.status("21-1-1")).state is ChannelState.RUNNING
        rest, end = await follow_to_the_end(driver, started, SOME, next_index)
        readings = joined([*blocks, rest])
    assert end.state is ChannelState.FINISHED
    assert readings.onboard_index.tolist() == list(range(1, len(readings) + 1))
    assert visits_of(readings) == visits_of(whole)
    assert len(readings) == pytest.approx(len(whole), abs=5)
    last = readings.step_charge_Ah[np.flatnonzero(np.diff(readings.step))]
    expected = whole.step_charge_Ah[np.flatnonzero(np.diff(whole.step))]
    assert last == pytest.approx(expected, rel=1e-3, abs=1e-8)


async def test_a_skipped_step_makes_way_for_the_next_and_no_pass_of_a_loop_is_lost(
    tmp_path: Path,
) -> None:
    program = of(
        Loop(
            3,
            (
                step(0, Rest(), at(Quantity.STEP_TIME_S, ">=", 5000.0)),
                step(1, ConstantCurrent(2e-5), at(Quantity.STEP_TIME_S, ">=", 5000.0)),
            ),
            counts_cycles=True,
        ),
        step(2, Rest(), at(Quantity.STEP_TIME_S, ">=", 5000.0)),
    )
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        started = await begun(driver, program)
        seen: list[int] = []
        blocks, next_index, followed = [], 1, None
        while followed is None or not followed.complete:
            followed = await driver.follow(started, program, next_index)
            blocks.append(followed.readings)
            next_index = followed.next_index
            if len(followed.readings):
                here = int(followed.readings.step[-1])
                seen.append(here)
                await driver.skip(started, program, (here + 1) % 3)
                await driver.skip(started, program, here)
        readings = joined(blocks)
    assert followed.state is ChannelState.FINISHED
    assert [place for place, _ in visits_of(readings)] == [0, 1] * 3 + [2]
    assert seen == [0, 1, 0, 1, 0, 1, 2]
    assert readings.step_time_s.max() < 5000.0


async def test_one_test_after_another_runs_on_one_channel_without_end(tmp_path: Path) -> None:
    rest = step(0, Rest(), at(Quantity.STEP_TIME_S, ">=", 4.0))
    stretch = of(
        rest,
        Loop(
            2,
            (
                step(1, ConstantCurrent(1e-3), at(Quantity.STEP_TIME_S, ">=", 4.0)),
                step(2, ConstantCurrent(-1e-3), at(Quantity.STEP_TIME_S, ">=", 4.0)),
            ),
        ),
    )
    state = tmp_path / "rack"
    took_s, charge_Ah, times = [], [], []
    async with lab_in(tmp_path, state_dir=str(state)) as lab:
        driver = lab.new_driver()
        sizes = []
        for number in range(1, 41):
            begun_s = time.perf_counter()
            started = await driver.start(await driver.arm("21-1-1", stretch, "run-7"))
            assert started.test == str(number)
            readings, end = await follow_to_the_end(driver, started, stretch)
            took_s.append(time.perf_counter() - begun_s)
            assert end.state is ChannelState.FINISHED
            assert readings.onboard_index[0] == 1
            charge_Ah.append(float(readings.step_charge_Ah[-1]))
            times.append(float(readings.unix_time_s[-1]))
            sizes.append(sum(file.stat().st_size for file in state.iterdir()))
    assert np.all(np.diff(times) > 0)
    assert len(set(sizes[5:])) <= 3
    assert sorted(took_s[-15:])[7] < 4 * sorted(took_s[:15])[7]
