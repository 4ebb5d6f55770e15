"""What goes wrong on a line: cables, other instruments, other programs, and words without sense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from labctl.drivers.base import ChannelState, Looked, Task
from labctl.drivers.palmsens.driver import PalmSens
from labctl.errors import InstrumentError, LinkError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    EndCondition,
    Limits,
    Quantity,
    RecordRule,
    Rest,
    Step,
)
from labctl.simulators.faults import Fault, FaultBoard

LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)


def task_of(current_A: float = 1e-4, lasts_s: float = 3600.0, every_s: float = 10.0) -> Task:
    control = Rest() if current_A == 0 else ConstantCurrent(current_A)
    ends = (EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, lasts_s),)
    step = Step(0, "step", control, ends, RecordRule(every_s=every_s))
    return Task(step=step, limits=LIMITS, tag="run.1")


async def begun(driver: PalmSens, task: Task) -> Looked:
    """The first reading of a visit that was begun."""
    await driver.arm("1", task)
    await driver.begin("1", task)
    while not len((looked := await driver.look("1")).readings):
        pass
    return looked


async def look_on(driver: PalmSens) -> None:
    """Look at a visit that must not end, until something goes wrong."""
    while True:
        assert not (await driver.look("1")).ended


async def look_until_lost(driver: PalmSens) -> LinkError:
    with pytest.raises(LinkError) as caught:
        await look_on(driver)
    return caught.value


async def in_spite_of_the_line(doing: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again for as long as the line fails."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(LinkError):
                await doing()
                return


async def reopened(driver: PalmSens) -> None:
    """As the engine does it: again and again until the instrument is there."""

    async def opened() -> None:
        await driver.open()

    await in_spite_of_the_line(opened)


def set_faults(bench: Any, *faults: Fault) -> None:
    bench.simulated.instrument.faults = FaultBoard(faults)


async def test_a_pulled_plug_is_a_link_error_and_off_works_when_it_is_back(lab: Any) -> None:
    async with lab(powered_by_line=True) as bench:
        driver = await bench.opened()
        await begun(driver, task_of())
        assert bench.cell_is_on
        bench.simulated.unplug()
        error = await look_until_lost(driver)
        assert error.address == bench.simulated.address
        assert not bench.cell_is_on
        with pytest.raises(LinkError):
            await driver.off("1")
        bench.simulated.plug()
        await reopened(driver)
        await driver.off("1")
        assert (await driver.status("1")).state is ChannelState.IDLE


async def test_an_instrument_with_power_of_its_own_goes_on_and_is_switched_off(lab: Any) -> None:
    async with lab(powered_by_line=False) as bench:
        driver = await bench.opened()
        await begun(driver, task_of())
        bench.simulated.unplug()
        await look_until_lost(driver)
        assert bench.cell_is_on
        bench.simulated.plug()
        await reopened(driver)
        assert (await driver.status("1")).state is ChannelState.RUNNING
        await driver.off("1")
        assert not bench.cell_is_on
        assert not bench.simulated.instrument.running


async def test_a_visit_goes_on_over_a_lost_connection_with_its_charge_whole(lab: Any) -> None:
    async with lab(powered_by_line=False) as bench:
        driver = await bench.opened()
        readings = [(await begun(driver, task_of(lasts_s=1800.0))).readings]
        bench.simulated.unplug()
        await look_until_lost(driver)
        bench.simulated.plug()
        ended = False
        while not ended:
            try:
                looked = await driver.look("1")
            except LinkError:
                continue
            readings.append(looked.readings)
            ended = looked.ended
        times_s = np.concatenate([block.step_time_s for block in readings])
        charge_Ah = np.concatenate([block.step_charge_Ah for block in readings])
        indices = np.concatenate([block.onboard_index for block in readings])
        assert times_s[-1] == pytest.approx(1800.0)
        assert charge_Ah[-1] == pytest.approx(1e-4 * 0.5, rel=2e-3)
        assert indices.tolist() == list(range(1, len(indices) + 1))


async def test_a_visit_that_ended_while_nobody_heard_is_not_taken_for_complete(lab: Any) -> None:
    async with lab(powered_by_line=True) as bench:
        driver = await bench.opened()
        await begun(driver, task_of())
        bench.simulated.unplug()
        bench.simulated.plug()
        await look_until_lost(driver)
        with pytest.raises(InstrumentError, match="the end of it was not heard"):
            await in_spite_of_the_line(lambda: look_on(driver))
        assert (await driver.status("1")).state is ChannelState.IDLE
        await driver.off("1")


async def test_a_daemon_that_comes_back_finds_the_instrument_that_it_had(lab: Any) -> None:
    async with lab(powered_by_line=False) as bench:
        first = await bench.opened()
        await begun(first, task_of())
        await first.close()
        assert bench.cell_is_on
        second = bench.driver(stop_timeout_s=15.0)
        assert (await second.open()).serial == "ES4HR20B0008"
        status = await second.status("1")
        assert status.state is ChannelState.RUNNING
        assert status.current_A == pytest.approx(1e-4, rel=0.01)
        assert 2.0 < status.voltage_V < 4.0
        async with asyncio.timeout(4.0):
            await second.off("1")
        assert not bench.cell_is_on
        assert (await second.status("1")).state is ChannelState.IDLE
        assert (await begun(second, task_of(0.0))).readings.current_A[0] == 0.0


async def test_an_instrument_that_is_busy_and_not_known_is_left_alone(lab: Any) -> None:
    async with lab(powered_by_line=False) as bench:
        first = await bench.opened()
        await begun(first, task_of())
        await first.close()
        stranger = bench.driver(lock_dir=str(bench.folder / "other locks"))
        with pytest.raises(InstrumentError, match="set 'serial' in the configuration"):
            await stranger.open()
        assert bench.cell_is_on
        told = bench.driver(lock_dir=str(bench.folder / "other locks"), serial="ES4HR20B0008")
        await told.open()
        await told.off("1")
        assert not bench.cell_is_on


async def test_another_instrument_at_the_port_is_refused(lab: Any) -> None:
    async with lab(powered_by_line=True) as bench:
        with pytest.raises(InstrumentError, match="is the instrument ES4HR20B0008 now, not OTHER1"):
            await bench.driver(serial="OTHER1").open()
        driver = await bench.opened()
        bench.simulated.unplug()
        bench.simulated.plug()
        set_faults(bench, Fault("wrong_serial"))
        with pytest.raises(InstrumentError, match="now, not ES4HR20B0008; nothing was done to it"):
            await in_spite_of_the_line(lambda: driver.off("1"))
        assert bench.simulated.instrument.runs == 0


async def test_another_model_at_the_port_is_refused(lab: Any) -> None:
    async with lab() as bench:
        with pytest.raises(InstrumentError, match="is a EmStat4 HR, not an EmStat4S LR"):
            await bench.driver(model="EmStat4S LR").open()


async def test_somebody_elses_abort_is_not_an_end_of_the_step(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        await begun(driver, task_of())
        bench.simulated.instrument.hear(b"Z\n")
        with pytest.raises(InstrumentError, match="ended by somebody else"):
            await look_on(driver)
        assert not bench.cell_is_on


async def test_lines_without_sense_are_passed_over(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        first = await begun(driver, task_of(lasts_s=1000.0))
        set_faults(bench, Fault("garbage", command="P", times=2))
        blocks, ended = [first.readings], False
        while not ended:
            looked = await driver.look("1")
            blocks.append(looked.readings)
            ended = looked.ended
        times_s = np.concatenate([block.step_time_s for block in blocks])
        charge_Ah = np.concatenate([block.step_charge_Ah for block in blocks])
        assert np.diff(times_s).max() > 15.0
        assert times_s[-1] == pytest.approx(1000.0)
        assert charge_Ah[-1] == pytest.approx(1e-4 * 1000 / 3600, rel=2e-3)


async def test_a_line_without_any_sense_is_a_lost_line(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        await begun(driver, task_of())
        set_faults(bench, Fault("garbage", command="P"))
        assert "makes no sense" in str(await look_until_lost(driver))
        set_faults(bench)
        await reopened(driver)
        await driver.off("1")
        assert not bench.cell_is_on


async def test_a_line_that_is_cut_short_is_a_lost_line(lab: Any) -> None:
    async with lab(powered_by_line=False) as bench:
        driver = await bench.opened()
        await begun(driver, task_of())
        set_faults(bench, Fault("truncate", command="P", times=1))
        await look_until_lost(driver)
        await reopened(driver)
        await driver.off("1")
        assert not bench.cell_is_on


async def test_a_silent_script_is_a_lost_line(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened(reply_timeout_s=0.3, slowest_sample_s=0.05)
        await begun(driver, task_of(every_s=0.2))
        set_faults(bench, Fault("hang", command="P"))
        assert "silent for too long" in str(await look_until_lost(driver))
        set_faults(bench)


async def test_an_instrument_that_does_not_answer_is_a_link_error(lab: Any) -> None:
    async with lab(faults=(Fault("hang"),)) as bench:
        driver = bench.driver(reply_timeout_s=0.2)
        with pytest.raises(LinkError, match="no answer to 'i' in time"):
            await driver.open()
        set_faults(bench)
        await reopened(driver)


async def test_a_late_answer_is_not_taken_for_another(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened(reply_timeout_s=0.3)
        set_faults(bench, Fault("slow", command="e", seconds=0.5, times=1))
        with pytest.raises(LinkError, match="no answer to 'e'"):
            await driver.status("1")
        await reopened(driver)
        status = await driver.status("1")
        assert status.state is ChannelState.IDLE
        assert 2.0 < status.voltage_V < 3.0


async def test_a_slow_instrument_is_waited_for(lab: Any) -> None:
    async with lab(faults=(Fault("slow", command="l", seconds=0.3),)) as bench:
        driver = await bench.opened()
        await begun(driver, task_of())
        await driver.off("1")
        assert not bench.cell_is_on


async def test_a_script_that_does_not_stop_is_said_so(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened(stop_timeout_s=0.6)
        await begun(driver, task_of(every_s=1.0))
        set_faults(bench, Fault("ignores_stop"))
        with pytest.raises(InstrumentError, match="goes on although it was told to end"):
            await driver.off("1")
        assert bench.cell_is_on
        set_faults(bench)
        await reopened(driver)
        await driver.off("1")
        assert not bench.cell_is_on


async def test_a_reading_that_is_frozen_stays_as_it_was(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        first = await begun(driver, task_of(1e-3))
        set_faults(bench, Fault("frozen"))
        volts: list[float] = []
        while len(volts) < 30:
            volts += (await driver.look("1")).readings.voltage_V.tolist()
        assert len(set(volts[-10:])) == 1
        assert first.readings.voltage_V[0] < volts[-1]
        await driver.off("1")


async def test_a_current_beyond_its_range_is_no_reading_and_ends_the_step(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        task = task_of(1e-4, every_s=1.0)
        await driver.arm("1", task)
        await driver.begin("1", task)
        device = bench.simulated.device
        measured = device.read_current

        def overloaded(into: Any) -> None:
            measured(into)
            into.status = 2

        device.read_current = overloaded
        looked = await driver.look("1")
        while not looked.ended:
            looked = await driver.look("1")
        assert "overloaded" in looked.tripped
        assert not bench.cell_is_on


async def test_a_begin_whose_answer_is_lost_is_not_repeated(lab: Any) -> None:
    async with lab(powered_by_line=False) as bench:
        driver = await bench.opened(reply_timeout_s=0.3)
        task = task_of()
        await driver.arm("1", task)
        runs = bench.simulated.instrument.runs
        set_faults(bench, Fault("hang", command="r", times=1))
        with pytest.raises(LinkError, match="no answer to 'r' in time; it may have arrived"):
            await driver.begin("1", task)
        assert bench.simulated.instrument.runs == runs + 1
        await reopened(driver)
        assert (await driver.status("1")).state is ChannelState.RUNNING
        await driver.off("1")
        assert not bench.cell_is_on
        with pytest.raises(InstrumentError, match="was not armed"):
            await driver.begin("1", task)


async def test_a_script_with_other_limits_than_were_armed_is_ended(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        task = task_of()
        await driver.arm("1", task)
        instrument = bench.simulated.instrument
        kept = instrument._loaded
        await driver.arm("1", task_of(2e-4))
        other = Limits(1.0, 4.9, -0.011, 0.011, 4e-4, 500_000.0)
        await driver.arm("1", Task(step=task.step, limits=other, tag=task.tag))
        wider = instrument._loaded
        assert kept is not wider
        await driver.arm("1", task)
        instrument._loaded = wider
        with pytest.raises(InstrumentError, match="runs a script with other limits"):
            await driver.begin("1", task)
        assert not bench.cell_is_on
        assert not instrument.running


async def test_whatever_step_the_line_is_lost_in_off_works_afterwards(lab: Any) -> None:
    """The plug is pulled at each of the first answers of a visit in turn."""
    for command in ("i", "t", "e", "l", "r", "P", "Z"):
        async with lab(powered_by_line=False) as bench:
            driver = await bench.opened(reply_timeout_s=0.5)
            await driver.close()
            set_faults(bench, Fault("drop", command=command, times=1))
            lost = 0
            for _ in range(20):
                try:
                    await driver.open()
                    await begun(driver, task_of())
                    await driver.off("1")
                    break
                except LinkError:
                    lost += 1
                    await reopened(driver)
                    with contextlib.suppress(LinkError):
                        await driver.off("1")
            else:
                pytest.fail(f"it never worked again after losing the answer to {command}")
            assert lost >= 1
            assert not bench.cell_is_on
