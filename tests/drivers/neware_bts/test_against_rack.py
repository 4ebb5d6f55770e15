"""The driver over a real socket against a simulated rack, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import fields
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rack_lab import (
    LIMITS,
    LONG,
    PROGRAM,
    VISITS,
    begun,
    follow_to_the_end,
    joined,
    lab_in,
    visits_of,
)

from labctl.drivers.base import Armed, ChannelState
from labctl.errors import InstrumentError, LinkError
from labctl.model import Readings
from labctl.program import (
    Limits,
)
from labctl.simulators.faults import Fault


async def test_a_program_runs_to_its_end_and_every_step_is_followed(tmp_path: Path) -> None:
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        await driver.open()
        armed = await driver.arm("21-1-1", PROGRAM, "run-7")
        assert await driver.find(armed) is None
        assert replace_duration(armed.limits) == replace_duration(LIMITS)
        started = await driver.start(armed)
        assert started.tag == "run-7"
        assert started.test != armed.test_before
        shown = await driver.status("21-1-1")
        assert (shown.state, shown.tag, shown.test) == (
            ChannelState.RUNNING,
            "run-7",
            started.test,
        )
        readings, end = await follow_to_the_end(driver, started)
        assert end.state is ChannelState.FINISHED
        assert end.next_index == len(readings) + 1
        assert readings.onboard_index.tolist() == list(range(1, len(readings) + 1))
        assert [step for step, _ in visits_of(readings)] == VISITS
        assert np.all(np.diff(readings.unix_time_s) >= 0)
        assert readings.unix_time_s[0] >= 1_800_000_000.0 - 1
        charging = readings.step == 1
        assert np.all(readings.current_A[charging] > 0)
        assert np.all(readings.step_charge_Ah[charging] >= 0)
        assert readings.voltage_V[charging].max() == pytest.approx(4.1, abs=2e-3)
        discharging = readings.step == 2
        assert np.all(readings.current_A[discharging] < 0)
        assert np.all(readings.step_charge_Ah[discharging] <= 0)
        assert readings.voltage_V[discharging].min() == pytest.approx(1.5, abs=2e-3)
        resting = readings.step == 0
        assert readings.step_time_s[resting].max() == 60.0
        assert not readings.step_charge_Ah[resting].any()
        assert await driver.find(armed) == started
        assert (await driver.status("21-1-1")).state is ChannelState.FINISHED


def replace_duration(limits: Limits) -> Limits:
    return msgspec.structs.replace(limits, duration_max_s=0.0)


async def test_a_rack_whose_time_runs_by_itself_is_followed_to_its_last_reading(
    tmp_path: Path,
) -> None:
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        expected, _ = await follow_to_the_end(driver, await begun(driver))
    async with lab_in(tmp_path, speed="20000x") as lab:
        driver = lab.new_driver()
        readings, end = await follow_to_the_end(driver, await begun(driver))
        assert end.state is ChannelState.FINISHED
        assert np.array_equal(readings.voltage_V, expected.voltage_V)
        assert np.array_equal(readings.step, expected.step)


async def test_a_fresh_driver_finds_the_run_and_goes_on_from_the_cursor(tmp_path: Path) -> None:
    async with lab_in(tmp_path) as lab:
        before = lab.new_driver()
        armed = await before.arm("21-1-1", LONG, "run-7")
        started = await before.start(armed)
        first = await before.follow(started, LONG, 1)
        assert len(first.readings) == 1000
        await before.close()
        after = lab.new_driver()
        assert await after.find(armed) == started
        second = await after.follow(started, LONG, first.next_index)
        again = await after.follow(started, LONG, 1)
        assert second.readings.onboard_index[0] == 1001
        for column in fields(Readings):
            assert np.array_equal(
                getattr(again.readings, column.name),
                getattr(first.readings, column.name),
                equal_nan=True,
            )


async def test_a_stopped_run_is_complete_with_its_last_reading(tmp_path: Path) -> None:
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        started = await begun(driver, LONG)
        first = await driver.follow(started, LONG, 1)
        assert not first.complete
        await driver.stop("21-1-1")
        await driver.stop("21-1-1")
        _, end = await follow_to_the_end(driver, started, LONG, first.next_index)
        assert end.state is ChannelState.STOPPED
        with pytest.raises(InstrumentError, match="has run test"):
            await driver.start(Armed("21-1-1", "run-21-1-1", started.program_ref, LIMITS, ""))


async def test_a_protection_ends_the_run(tmp_path: Path) -> None:
    tight = msgspec.structs.replace(
        PROGRAM, limits=msgspec.structs.replace(LIMITS, step_charge_max_Ah=1e-4)
    )
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        armed = await driver.arm("21-1-1", tight, "run-7")
        assert armed.limits.step_charge_max_Ah == 1e-4
        started = await driver.start(armed)
        readings, end = await follow_to_the_end(driver, started, tight)
        assert end.state is ChannelState.TRIPPED
        assert np.abs(readings.step_charge_Ah).max() <= 1.001e-4
        assert set(readings.step.tolist()) == {0, 1}


@pytest.mark.parametrize("connections", [1, 3])
async def test_several_channels_are_followed_through_one_driver(
    tmp_path: Path, connections: int
) -> None:
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver(connections=connections)
        starts = [await begun(driver, PROGRAM, channel) for channel in ("21-1-1", "21-1-2")]
        async with asyncio.TaskGroup() as tasks:
            follows = [tasks.create_task(follow_to_the_end(driver, each)) for each in starts]
        one, other = (task.result()[0] for task in follows)
        assert [step for step, _ in visits_of(one)] == VISITS
        assert [step for step, _ in visits_of(other)] == VISITS
        assert len(one) != len(other) or not np.array_equal(one.voltage_V, other.voltage_V)
        statuses = await driver.status_all()
        assert len(statuses) == 16
        assert statuses["21-1-1"].tag == "run-21-1-1"
        assert statuses["21-1-2"].tag == "run-21-1-2"
        assert statuses["21-2-8"].test == ""


async def test_a_follower_that_is_cancelled_costs_nobody_a_reading(tmp_path: Path) -> None:
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        started = await begun(driver)
        for turns in range(0, 60, 3):
            follower = asyncio.create_task(driver.follow(started, PROGRAM, 1))
            for _ in range(turns):
                await asyncio.sleep(0)
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower
        readings, _ = await follow_to_the_end(driver, started)
        assert [step for step, _ in visits_of(readings)] == VISITS


async def test_a_busy_channel_is_neither_armed_nor_started(tmp_path: Path) -> None:
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        await begun(driver, LONG)
        with pytest.raises(InstrumentError, match="nothing can be armed"):
            await driver.arm("21-1-1", PROGRAM, "run-8")


async def test_a_step_file_that_the_host_cannot_read_starts_nothing(tmp_path: Path) -> None:
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver(step_file_dir_on_host="/another/folder")
        armed = await driver.arm("21-1-1", PROGRAM, "run-7")
        with pytest.raises(InstrumentError, match="refused to start /another/folder/"):
            await driver.start(armed)
        assert await driver.find(armed) is None


@pytest.mark.parametrize(("fault", "begins"), [("drop", True), ("drop_unheard", False)])
async def test_after_a_start_without_an_answer_the_channel_tells_what_became_of_it(
    tmp_path: Path, fault: str, begins: bool
) -> None:
    async with lab_in(tmp_path, faults=(Fault(fault, command="start", times=1),)) as lab:
        driver = lab.new_driver()
        armed = await driver.arm("21-1-1", PROGRAM, "run-7")
        with pytest.raises(LinkError, match="no answer to start"):
            await driver.start(armed)
        found = await driver.find(armed)
        assert (found is not None) == begins
        assert (await driver.status("21-1-1")).state is (
            ChannelState.RUNNING if begins else ChannelState.FINISHED
        )


@pytest.mark.parametrize("fault", ["garbage", "truncate", "drop", "drop_unheard"])
async def test_a_bad_answer_is_an_error_and_the_next_look_goes_on(
    tmp_path: Path, fault: str
) -> None:
    faults = tuple(
        Fault(fault, command=command, times=1)
        for command in ("getchlstatus", "inquiredf", "download")
    )
    async with lab_in(tmp_path) as plain:
        driver = plain.new_driver()
        expected, _ = await follow_to_the_end(driver, await begun(driver))
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        started = await begun(driver)
        lab.rack.faults._given = faults
        lab.rack.faults._left = lab.rack.faults._count(faults)
        blocks, errors, followed = [], 0, None
        while followed is None or not followed.complete:
            try:
                next_index = 1 if followed is None else followed.next_index
                followed = await driver.follow(started, PROGRAM, next_index)
            except (LinkError, InstrumentError):
                errors += 1
            else:
                blocks.append(followed.readings)
        assert errors == 3
        readings = joined(blocks)
        assert np.array_equal(readings.voltage_V, expected.voltage_V)


async def test_a_wrong_password_is_said_to_be_wrong(tmp_path: Path) -> None:
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver(password="guess")
        with pytest.raises(InstrumentError, match="login was refused"):
            await driver.open()


async def test_a_channel_that_ignores_stop_is_reported(tmp_path: Path) -> None:
    async with lab_in(tmp_path, faults=(Fault("ignores_stop"),)) as lab:
        driver = lab.new_driver()
        await begun(driver, LONG)
        with pytest.raises(InstrumentError, match="still running after 15 s"):
            await driver.stop("21-1-1")
