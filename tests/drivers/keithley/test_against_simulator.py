"""The driver on a simulated SourceMeter with a real cell model, over sockets, in virtual time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from smu_bench import (
    LIMITS,
    ONE_C_A,
    SERIAL,
    after,
    bench,
    current_falls_to,
    falls_to,
    hev,
    lived,
    rises_to,
    task,
)

from labctl.clock import RealClock
from labctl.drivers.base import ChannelState, Failsafe
from labctl.drivers.keithley.config import KeithleyConfig
from labctl.drivers.keithley.driver import Keithley
from labctl.errors import InstrumentError, LinkError
from labctl.program import (
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    Rest,
    VoltageSweep,
)
from labctl.simulators.cells.interface import Control as CellControl
from labctl.simulators.cells.interface import Until
from labctl.simulators.faults import Fault
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import serve_smu

# 20 V range of SPEC-2450 Rev. A: 0.015 % + 2.4 mV sourced; 0.015 % + 1 mV measured
SOURCE_ERROR_V = 1.5e-4 * 4.4 + 2.4e-3
READING_ERROR_V = 1.5e-4 * 4.4 + 1e-3


async def test_the_instrument_says_who_it_is() -> None:
    async with bench(hev()) as lab:
        who = await lab.driver.open()
        assert (who.manufacturer, who.model, who.serial) == ("KEITHLEY INSTRUMENTS", "2450", SERIAL)
        assert await lab.driver.channels() == ("1",)
        assert lab.driver.capabilities.failsafe is Failsafe.WATCHDOG


async def test_a_1C_discharge_gives_the_capacity_of_the_cell() -> None:
    twin = hev(charged_to_V=4.1)
    capacity_Ah = -lived(twin, CellControl.CURRENT, -ONE_C_A, 1e5, Until(voltage_at_most_V=1.5))
    async with bench(hev(charged_to_V=4.1), watchdog_s=15.0, sample_period_s=2.5) as lab:
        work = task(ConstantCurrent(-ONE_C_A), falls_to(1.5), after(1e5))
        visited = await lab.visit(work)
        assert visited.last.tripped == ""
        assert not lab.output_on
    readings = visited.readings
    assert -visited.charge_Ah == pytest.approx(capacity_Ah, rel=3e-3)
    assert readings.onboard_index.tolist() == list(range(1, len(readings) + 1))
    assert set(readings.step.tolist()) == {3}
    assert (np.diff(readings.step_time_s) > 0).all()
    assert np.diff(readings.unix_time_s) == pytest.approx(np.diff(readings.step_time_s), abs=1e-5)
    held = readings.current_A[:-2]
    assert held == pytest.approx(-ONE_C_A, rel=4e-3)  # a limit is good to 0.3 %
    assert np.ptp(held) < 1e-4 * ONE_C_A
    energy_Wh = np.trapezoid(readings.voltage_V * readings.current_A, readings.step_time_s / 3600.0)
    assert float(readings.step_energy_Wh[-1]) == pytest.approx(energy_Wh, rel=1e-3)


@pytest.mark.parametrize("charging", [True, False])
async def test_at_50C_the_voltage_stays_within_10_mV_of_its_end(charging: bool) -> None:
    cell = hev() if charging else hev(charged_to_V=4.1)
    end_V = 4.1 if charging else 1.5
    current_A = 50 * ONE_C_A * (1 if charging else -1)
    end = rises_to(end_V) if charging else falls_to(end_V)
    async with bench(cell) as lab:
        work = task(ConstantCurrent(current_A), end, after(600.0))
        limits = await lab.started(work)
        visited = await lab.follow(work, until_s=600.0)
    assert visited.last.ended
    assert visited.last.tripped == ""
    beyond_V = max(visited.true_V) - end_V if charging else end_V - min(visited.true_V)
    assert beyond_V < 10e-3
    assert beyond_V < 3e-3 + SOURCE_ERROR_V
    assert abs(float(visited.readings.voltage_V[-1]) - end_V) < 10e-3
    assert visited.last.end == end
    assert float(np.max(np.diff(visited.time_s))) < 0.3
    held_V = limits.voltage_max_V if charging else limits.voltage_min_V
    assert held_V == pytest.approx(end_V, abs=3.1e-3)
    assert (limits.current_max_A, limits.current_min_A) == (0.01, -0.01)


async def test_at_50C_the_end_is_the_instruments_own_when_nobody_looks() -> None:
    async with bench(hev(), watchdog_s=0.0) as lab:
        await lab.started(task(ConstantCurrent(50 * ONE_C_A), rises_to(4.1), after(600.0)))
        await lab.clock.sleep(600.0)
        assert not lab.output_on
        looked = await lab.driver.look("1")
        assert looked.ended
        assert looked.tripped == ""
        assert float(np.max(looked.readings.voltage_V)) < 4.11
        assert len(looked.readings) > 300


async def test_an_output_that_is_left_alone_opens_within_the_watchdogs_time() -> None:
    async with bench(hev(), watchdog_s=12.0) as lab:
        work = task(ConstantCurrent(ONE_C_A), rises_to(4.1), after(1e5))
        await lab.started(work)
        for _ in range(100):
            await lab.clock.sleep(1.0)
            await lab.driver.look("1")
        assert lab.output_on
        heard_s = lab.clock.monotonic_s()
        while lab.output_on:
            await lab.clock.sleep(0.5)
        assert 2.0 < lab.clock.monotonic_s() - heard_s <= 12.0
        looked = await lab.driver.look("1")
        assert looked.ended
        assert "heard nothing for up to 12 s" in looked.tripped


async def test_an_instrument_that_was_unplugged_is_found_with_its_output_open() -> None:
    async with bench(hev()) as lab:
        work = task(ConstantCurrent(ONE_C_A), rises_to(4.1), after(1e5))
        await lab.started(work)
        await lab.clock.sleep(2.0)
        before = await lab.driver.look("1")
        lab.fault(Fault(name="unplugged", times=3))
        for _ in range(3):
            with pytest.raises(LinkError):
                await lab.driver.look("1")
        await lab.clock.sleep(12.0)
        assert not lab.output_on
        looked = await lab.driver.look("1")
        assert looked.ended
        assert "heard nothing" in looked.tripped
        assert looked.readings.onboard_index[0] == before.readings.onboard_index[-1] + 1


async def test_without_a_watchdog_there_is_no_failsafe() -> None:
    async with bench(hev(), watchdog_s=0.0) as lab:
        assert lab.driver.capabilities.failsafe is Failsafe.NONE


async def test_a_constant_current_that_meets_a_limit_before_its_end_is_tripped() -> None:
    async with bench(hev(charged_to_V=3.9)) as lab:
        limits = LIMITS.__class__(1.0, 4.0, -0.01, 0.01, 5e-4, 1e7)
        visited = await lab.visit(task(ConstantCurrent(ONE_C_A), after(1e5), limits=limits))
        assert visited.last.tripped == "the voltage reached its limit of 4 V"
        assert max(visited.true_V) < 4.0 + SOURCE_ERROR_V
        assert not lab.output_on


async def test_a_rest_passes_no_current_and_sees_the_voltage() -> None:
    cell = hev(charged_to_V=4.0)
    open_V = cell.voltage_V()
    async with bench(cell) as lab:
        work = task(Rest(), after(120.0))
        limits = await lab.started(work)
        assert (limits.current_min_A, limits.current_max_A) == (0.0, 0.0)
        visited = await lab.follow(work, until_s=120.0)
        await lab.driver.off("1")
        assert not lab.output_on
    assert visited.readings.voltage_V == pytest.approx(open_V, abs=READING_ERROR_V + 2e-3)
    assert np.abs(visited.readings.current_A).max() < 1e-9
    assert len(visited.readings) == pytest.approx(120, abs=2)


async def test_a_cccv_charge_ends_when_its_current_has_fallen() -> None:
    cut_A = 0.1 * ONE_C_A
    async with bench(hev(charged_to_V=3.6)) as lab:
        work = task(
            ConstantCurrentConstantVoltage(ONE_C_A, 3.8), current_falls_to(cut_A), after(1e5)
        )
        visited = await lab.visit(work)
        assert visited.last.ended
        assert visited.last.tripped == ""
        assert not lab.output_on
    current_A = visited.readings.current_A
    assert float(current_A[0]) == pytest.approx(ONE_C_A, rel=4e-3)
    assert float(current_A[-1]) <= cut_A < float(current_A[-2])
    assert visited.readings.voltage_V[-5:] == pytest.approx(3.8, abs=2 * SOURCE_ERROR_V)


async def test_a_constant_voltage_is_within_its_current() -> None:
    async with bench(hev(charged_to_V=4.0)) as lab:
        work = task(ConstantVoltage(2.5, 5 * ONE_C_A, charging=False), after(60.0))
        limits = await lab.started(work)
        visited = await lab.follow(work, until_s=60.0)
    assert limits.voltage_min_V == 2.5
    assert math.isinf(limits.voltage_max_V)
    assert visited.readings.current_A[0] == pytest.approx(-5 * ONE_C_A, rel=4e-3)
    assert np.abs(visited.readings.current_A).max() <= 5 * ONE_C_A * 1.004


async def test_a_sweep_follows_its_rate_in_stairs_and_ends_at_its_voltage() -> None:
    rate = 5e-3
    async with bench(hev(charged_to_V=3.6)) as lab:
        work = task(VoltageSweep(3.4, 3.5, rate, 5e-3), rises_to(3.5), after(30.0))
        visited = await lab.visit(work)
    assert visited.last.tripped == ""
    voltage_V, time_s = visited.readings.voltage_V, visited.time_s
    line_V = 3.4 + rate * time_s
    assert voltage_V[:-1] == pytest.approx(line_V[:-1], abs=1.2e-3 + SOURCE_ERROR_V)
    assert np.diff(voltage_V).max() < 2e-3
    assert float(time_s[-1]) == pytest.approx(20.0, abs=0.5)
    assert float(voltage_V[-1]) == pytest.approx(3.5, abs=SOURCE_ERROR_V)


async def test_a_sweep_may_begin_where_the_cell_stands() -> None:
    cell = hev(charged_to_V=3.6)
    stands_V = cell.voltage_V()
    async with bench(cell) as lab:
        work = task(
            VoltageSweep(None, stands_V - 0.05, 2e-3, 5e-3), falls_to(stands_V - 0.05), after(60.0)
        )
        visited = await lab.visit(work)
        assert lab.output_on
    assert visited.readings.voltage_V[0] == pytest.approx(stands_V, abs=SOURCE_ERROR_V + 2e-3)
    assert visited.time_s[-1] == pytest.approx(25.0, abs=1.5)


async def test_one_visit_follows_another_without_a_moment_in_between_that_is_not_open() -> None:
    async with bench(hev()) as lab:
        first = task(ConstantCurrent(ONE_C_A), after(20.0))
        await lab.visit(first, until_s=20.0)
        assert lab.output_on
        second = task(ConstantCurrent(-10 * ONE_C_A), after(20.0))
        await lab.driver.arm("1", second)
        assert not lab.output_on
        assert lab.simulator.smu.output.current_A == 0.0
        await lab.driver.begin("1", second)
        visited = await lab.follow(second, until_s=5.0)
    assert visited.readings.current_A == pytest.approx(-10 * ONE_C_A, rel=4e-3)


async def test_a_ladder_of_rates_is_measured_in_the_ranges_that_fit() -> None:
    async with bench(hev(charged_to_V=3.5)) as lab:
        for rate, full_scale_A in ((0.2, 1e-4), (1, 1e-3), (5, 1e-3), (20, 1e-2), (50, 1e-2)):
            work = task(ConstantCurrent(-rate * ONE_C_A), after(3.0))
            visited = await lab.visit(work, until_s=2.0)
            assert lab.simulator.smu.senses["CURR"].full_scale == pytest.approx(full_scale_A)
            assert visited.readings.current_A == pytest.approx(-rate * ONE_C_A, rel=4e-3)


async def test_a_buffer_that_begins_again_loses_no_reading() -> None:
    async with bench(hev(), buffer_readings=10) as lab:
        work = task(ConstantCurrent(ONE_C_A), after(1e5))
        visited = await lab.visit(work, until_s=57.0)
    assert visited.readings.onboard_index.tolist() == list(range(1, len(visited.readings) + 1))
    assert len(visited.readings) > 50
    assert np.diff(visited.time_s) == pytest.approx(1.0, abs=0.05)


async def test_readings_wait_in_the_instrument_for_a_host_that_is_late() -> None:
    async with bench(hev()) as lab:
        work = task(ConstantCurrent(ONE_C_A), after(1e5))
        await lab.started(work)
        await lab.clock.sleep(2.4)
        assert len((await lab.driver.look("1")).readings) == 3
        await lab.clock.sleep(3.0)
        late = (await lab.driver.look("1")).readings
        assert late.onboard_index.tolist() == [4, 5, 6]
        assert late.step_time_s[-1] == pytest.approx(5.08, abs=0.05)


async def test_status_tells_what_flows_and_switches_nothing() -> None:
    async with bench(hev(charged_to_V=3.8)) as lab:
        idle = await lab.driver.status("1")
        assert idle.state is ChannelState.IDLE
        assert math.isnan(idle.voltage_V)
        assert lab.simulator.smu.switched == 0
        work = task(ConstantCurrent(-ONE_C_A), after(1e5))
        await lab.started(work)
        await lab.clock.sleep(3.0)
        running = await lab.driver.status("1")
        assert (running.state, running.tag) == (ChannelState.RUNNING, "run-7/3")
        assert running.current_A == pytest.approx(-ONE_C_A, rel=4e-3)
        assert running.voltage_V == pytest.approx(lab.cell_V, abs=5e-3)
        await lab.driver.off("1")
        await lab.driver.off("1")
        assert (await lab.driver.status("1")).state is ChannelState.IDLE


async def test_off_is_open_and_not_0_V() -> None:
    async with bench(hev(charged_to_V=4.0)) as lab:
        await lab.driver.off("1")
        await lab.clock.sleep(3600.0)
        assert lab.simulator.smu.output.current_A == 0.0
        assert lab.cell_V > 3.5


async def test_an_output_that_stays_on_is_said_so() -> None:
    async with bench(hev()) as lab:
        await lab.started(task(ConstantCurrent(ONE_C_A), after(1e5)))
        lab.fault(Fault(name="ignores_stop"))
        with pytest.raises(InstrumentError, match="LEAVES ITS OUTPUT ON"):
            await lab.driver.off("1")


async def test_another_serial_number_is_refused_also_after_a_reconnection() -> None:
    async with bench(hev(), serial="01234567") as lab:
        with pytest.raises(InstrumentError, match=f"{SERIAL}, and 01234567 is expected"):
            await lab.driver.open()
    faults = {"faults": (Fault(name="drop", command="OUTP?", times=1),)}
    async with bench(hev(), serial="", simulator=faults) as lab:
        await lab.driver.open()
        with pytest.raises(LinkError):
            await lab.driver.status("1")
        lab.fault(Fault(name="wrong_serial"))
        with pytest.raises(InstrumentError, match=f"0000001, and {SERIAL} is expected"):
            await lab.driver.status("1")


async def test_another_model_is_refused() -> None:
    async with bench(hev(), simulator={"model": "2461"}) as lab:
        with pytest.raises(InstrumentError, match="is no Keithley 2450"):
            await lab.driver.open()


@pytest.mark.parametrize("fault", ["stall", "drop", "truncate", "garbage"])
async def test_a_wire_that_fails_once_loses_no_reading(fault: str) -> None:
    async with bench(hev(), reply_timeout_s=0.6 if fault == "stall" else 5.0) as lab:
        work = task(ConstantCurrent(ONE_C_A), after(1e5))
        await lab.started(work)
        await lab.clock.sleep(3.0)
        first = (await lab.driver.look("1")).readings
        lab.fault(Fault(name=fault, command="TRAC:DATA?", times=1, seconds=0.9))
        await lab.clock.sleep(1.0)
        with pytest.raises((LinkError, InstrumentError)):
            await lab.driver.look("1")
        await lab.clock.sleep(1.0)
        second = (await lab.driver.look("1")).readings
        assert second.onboard_index[0] == first.onboard_index[-1] + 1
        assert len(second) >= 2
        assert (second.step_time_s > first.step_time_s[-1]).all()


async def test_an_instrument_that_was_switched_off_and_on_has_lost_its_readings() -> None:
    async with bench(hev()) as lab:
        work = task(ConstantCurrent(ONE_C_A), after(1e5))
        await lab.started(work)
        await lab.clock.sleep(3.0)
        await lab.driver.look("1")
        lab.simulator.smu.reset()
        with pytest.raises(InstrumentError, match="cleared, or switched off and on"):
            await lab.driver.look("1")


async def test_an_output_that_somebody_opened_at_the_front_panel_ends_the_visit() -> None:
    async with bench(hev()) as lab:
        await lab.started(task(ConstantCurrent(ONE_C_A), after(1e5)))
        await lab.clock.sleep(3.0)
        lab.simulator.smu.switch(on=False)
        looked = await lab.driver.look("1")
        assert looked.ended
        assert looked.tripped == "its output was opened at the instrument"


async def test_a_visit_is_armed_before_it_begins_and_begins_once() -> None:
    async with bench(hev()) as lab:
        work = task(ConstantCurrent(ONE_C_A), after(1e5))
        with pytest.raises(InstrumentError, match="was not armed"):
            await lab.driver.begin("1", work)
        with pytest.raises(InstrumentError, match="no step was begun"):
            await lab.driver.look("1")
        await lab.driver.arm("1", work)
        with pytest.raises(InstrumentError, match="was not armed"):
            await lab.driver.begin("1", task(ConstantCurrent(2 * ONE_C_A), after(1e5)))
        await lab.driver.begin("1", work)
        with pytest.raises(InstrumentError, match="was not armed"):
            await lab.driver.begin("1", work)
        with pytest.raises(InstrumentError, match="no channel '2'"):
            await lab.driver.arm("2", work)


async def test_a_look_right_after_the_begin_is_not_its_end() -> None:
    async with bench(hev()) as lab:
        await lab.started(task(ConstantCurrent(ONE_C_A), after(1e5)))
        looked = await lab.driver.look("1")
        assert not looked.ended
        assert len(looked.readings) == 0


async def test_a_pulse_raises_a_digital_line_and_lowers_it() -> None:
    async with bench(hev()) as lab:
        assert "digital 3" in lab.driver.capabilities.outputs
        await lab.driver.pulse("1", "digital 3")
        assert lab.simulator.smu.pulses == [(3, True), (3, False)]
        with pytest.raises(InstrumentError, match="has no output 'lamp'"):
            await lab.driver.pulse("1", "lamp")


async def test_a_cell_that_is_full_already_ends_a_charge_at_once() -> None:
    async with bench(hev(charged_to_V=4.1)) as lab:
        visited = await lab.visit(task(ConstantCurrent(ONE_C_A), rises_to(3.0), after(1e5)))
        assert visited.last.ended
        assert visited.time_s[-1] < 1.0
        assert abs(visited.charge_Ah) < ONE_C_A * 1.0 / 3600


async def test_the_same_seed_gives_the_same_readings_to_the_bit() -> None:
    async def readings() -> bytes:
        async with bench(hev(), simulator={"epoch_unix_s": 1.8e9}) as lab:
            visited = await lab.visit(
                task(ConstantCurrent(20 * ONE_C_A), rises_to(4.1), after(1e5))
            )
            return visited.readings.voltage_V.tobytes() + visited.time_s.tobytes()

    assert await readings() == await readings()


async def test_in_real_time_it_is_the_same() -> None:
    clock = RealClock(4.0)
    config = SmuConfig(port=0, speed=4.0, off_state="HIMP")
    async with serve_smu(config, clock, cell=hev(charged_to_V=3.5)) as smu:
        driver = Keithley(
            KeithleyConfig(resource=f"TCPIP::{smu.host}::{smu.port}::SOCKET"),
            name="smu 1",
            clock=clock,
        )
        work = task(ConstantCurrent(-ONE_C_A), after(10.0))
        await driver.arm("1", work)
        await driver.begin("1", work)
        current_A: list[float] = []
        while len(current_A) < 4:
            await clock.sleep(driver.sample_period_s(work))
            looked = await driver.look("1")
            assert not looked.ended
            current_A += looked.readings.current_A.tolist()
        assert current_A == pytest.approx([-ONE_C_A] * len(current_A), rel=4e-3)
        await driver.off("1")
        assert not smu.smu.output.on
        await driver.close()


async def test_labels_go_on_from_visit_to_visit_by_the_instruments_own_clock() -> None:
    async with bench(hev()) as lab:
        first = await lab.visit(task(ConstantCurrent(ONE_C_A), after(1e5)), until_s=300.0)
        await lab.clock.sleep(1000.0)
        second = await lab.visit(task(Rest(), after(1e5)), until_s=5.0)
    between_s = second.readings.unix_time_s[0] - first.readings.unix_time_s[-1]
    assert between_s == pytest.approx(1000.0, abs=2.0)


@pytest.mark.parametrize("seed", [301, 377, 84, 231])  # the worst of 400 instruments, both ways
async def test_what_is_measured_passes_the_end_whatever_the_instrument_is_wrong_by(
    seed: int,
) -> None:
    async with bench(hev(charged_to_V=3.9), simulator={"seed": seed}) as lab:
        end = rises_to(4.1)
        visited = await lab.visit(task(ConstantCurrent(5 * ONE_C_A), end, after(1e5)))
        assert visited.last.end == end
        assert float(visited.readings.voltage_V[-1]) > 4.1 - 2e-3
        assert max(visited.true_V) < 4.1 + 10e-3
