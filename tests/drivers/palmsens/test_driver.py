"""The driver over a pseudo-terminal against a simulated instrument with an HE-V cell."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from labctl.drivers.base import ChannelState, Task
from labctl.drivers.palmsens.driver import PalmSens
from labctl.errors import InstrumentError, LinkError
from labctl.model import Readings
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    Control,
    EndCondition,
    Impedance,
    Limits,
    Quantity,
    RecordRule,
    Rest,
    Step,
    VoltageSweep,
)

MASS_G = 0.002
ONE_C_A = 2e-4
LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)
RULE = RecordRule(every_s=30.0, voltage_change_V=5e-3)


def at_least(quantity: Quantity, value: float) -> EndCondition:
    return EndCondition(quantity, Comparison.AT_LEAST, value)


def at_most(quantity: Quantity, value: float) -> EndCondition:
    return EndCondition(quantity, Comparison.AT_MOST, value)


A_DAY = at_least(Quantity.STEP_TIME_S, 86_400.0)


def task_of(
    control: Control,
    *ends: EndCondition,
    rule: RecordRule = RULE,
    limits: Limits = LIMITS,
    tag: str = "run.1",
    **done: float,
) -> Task:
    step = Step(2, "step", control, (*ends, A_DAY), rule)
    return Task(step=step, limits=limits, tag=tag, **done)


async def first_readings(driver: PalmSens) -> Readings:
    """What a visit that was just begun measures first."""
    while not len(readings := (await driver.look("1")).readings):
        pass
    return readings


async def test_it_says_who_it_is_and_what_the_cell_has(lab: Any) -> None:
    async with lab() as bench:
        driver = bench.driver()
        identity = await driver.open()
        assert (identity.manufacturer, identity.model) == ("PalmSens", "EmStat4 HR")
        assert identity.serial == "ES4HR20B0008"
        assert await driver.channels() == ("1",)
        status = await driver.status("1")
        assert status.state is ChannelState.IDLE
        assert status.current_A == 0.0
        truth_V = bench.simulated.device.cell.voltage_V()
        assert status.voltage_V == pytest.approx(truth_V, abs=2e-3)
        assert not bench.cell_is_on


async def test_a_gitt_pulse_and_its_rest(lab: Any, make_visit: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        pulse = task_of(ConstantCurrent(ONE_C_A / 10), at_least(Quantity.STEP_TIME_S, 600.0))
        made = await make_visit(driver, pulse)
        assert made.last.end == pulse.step.ends[0]
        assert not bench.cell_is_on
        times_s = made.column("step_time_s")
        assert times_s[-1] == pytest.approx(600.0)
        assert (np.diff(times_s) <= 30.0 + 2.0).all()
        assert made.column("current_A") == pytest.approx(ONE_C_A / 10, rel=3e-3)
        charge_Ah = made.column("step_charge_Ah")[-1]
        assert charge_Ah == pytest.approx(ONE_C_A / 10 * 600 / 3600, rel=3e-3)
        energy_Wh = made.column("step_energy_Wh")[-1]
        volts = made.column("voltage_V")
        assert volts.min() * charge_Ah < energy_Wh < volts.max() * charge_Ah
        indices = np.concatenate([block.onboard_index for block in made.readings])
        assert indices.tolist() == list(range(1, len(indices) + 1))
        rest = task_of(Rest(), at_least(Quantity.STEP_TIME_S, 3600.0), tag="run.2")
        relaxed = await make_visit(driver, rest)
        after = relaxed.column("voltage_V")
        assert after[0] < volts[-1]
        assert after[-1] < after[0]
        assert (relaxed.column("current_A") == 0.0).all()
        assert relaxed.last.end == rest.step.ends[0]


async def test_the_limits_are_read_back_from_the_instrument(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        odd = Limits(1.234567, 4.321098, -0.0109, 0.0107, 3.21e-4, 500_000.0)
        armed = await driver.arm("1", task_of(ConstantCurrent(1e-4), limits=odd))
        for name in (
            "voltage_min_V",
            "voltage_max_V",
            "current_min_A",
            "current_max_A",
            "step_charge_max_Ah",
        ):
            assert getattr(armed, name) == pytest.approx(getattr(odd, name), rel=1e-6)
        assert math.isinf(armed.duration_max_s)
        assert not bench.cell_is_on
        half = Limits(-math.inf, 4.3, -math.inf, math.inf, math.inf, 1e5)
        armed = await driver.arm("1", task_of(Rest(), limits=half))
        assert armed.voltage_max_V == pytest.approx(4.3)
        assert armed.voltage_min_V == -math.inf
        assert armed.current_max_A == math.inf
        assert armed.step_charge_max_Ah == math.inf


async def test_a_discharge_at_50C_stops_within_10_mV_of_its_end(lab: Any, make_visit: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        full = ConstantCurrentConstantVoltage(5 * ONE_C_A, 4.1)
        await make_visit(driver, task_of(full, at_most(Quantity.CURRENT_A, 0.05 * ONE_C_A)))
        fast = task_of(
            ConstantCurrent(-50 * ONE_C_A),
            at_most(Quantity.VOLTAGE_V, 1.5),
            rule=RecordRule(every_s=1.0, voltage_change_V=5e-3),
            tag="run.2",
        )
        made = await make_visit(driver, fast)
        volts = made.column("voltage_V")
        assert 1.49 < volts[-1] <= 1.5
        assert (volts[:-1] > 1.5).all()
        assert made.last.end == fast.step.ends[0]
        assert made.column("current_A") == pytest.approx(-0.01, rel=3e-3)
        assert 80 < -made.column("step_charge_Ah")[-1] * 1e3 / MASS_G < 140
        assert 40 < made.column("step_time_s")[-1] < 100


@pytest.mark.parametrize("rate_C", [1.0, 5.0, 10.0])
async def test_a_slower_discharge_stops_within_10_mV_of_its_end_however_seldom_it_is_looked_at(
    lab: Any, make_visit: Any, rate_C: float
) -> None:
    """The steep end of a discharge moves some 50 mV in a sample of the usual interval."""
    async with lab() as bench:
        driver = await bench.opened(slowest_sample_s=5.0)
        until = at_most(Quantity.VOLTAGE_V, 1.5)
        step = task_of(
            ConstantCurrent(-rate_C * ONE_C_A), until, rule=RecordRule(every_s=60.0), tag="run.1"
        )
        made = await make_visit(driver, step)
        volts, times_s = made.column("voltage_V"), made.column("step_time_s")
        assert made.last.end == until
        assert 1.49 < volts[-1] <= 1.5
        assert len(volts) <= 3 + times_s[-1] / 60.0, "no reading that was not asked for"


async def test_a_charge_that_begins_near_its_end_stops_at_it(lab: Any, make_visit: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened(slowest_sample_s=5.0)
        full = ConstantCurrentConstantVoltage(2 * ONE_C_A, 4.1)
        await make_visit(driver, task_of(full, at_most(Quantity.CURRENT_A, ONE_C_A), tag="run.1"))
        until = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1)
        again = task_of(ConstantCurrent(5 * ONE_C_A), until, tag="run.2")
        made = await make_visit(driver, again)
        assert made.last.end == until
        assert made.column("step_time_s")[-1] < 60.0
        assert 4.1 <= made.column("voltage_V")[-1] < 4.11


async def test_constant_current_goes_over_into_constant_voltage(lab: Any, make_visit: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        control = ConstantCurrentConstantVoltage(2 * ONE_C_A, 4.1)
        rule = RecordRule(every_s=30.0, voltage_change_V=5e-3, current_change_A=1e-5)
        until = at_most(Quantity.CURRENT_A, 2e-5)
        made = await make_visit(driver, task_of(control, until, rule=rule))
        assert made.last.end == until
        volts, amperes = made.column("voltage_V"), made.column("current_A")
        assert amperes.max() == pytest.approx(2 * ONE_C_A, rel=3e-3)
        assert abs(amperes[-1]) <= 2e-5
        held = amperes < 0.9 * amperes.max()
        assert held.sum() > 10
        assert volts[held][1:] == pytest.approx(4.1, abs=5e-3)
        assert (np.diff(made.column("step_time_s")) > 0).all()
        assert made.column("step_charge_Ah")[-1] * 1e3 / MASS_G == pytest.approx(117, abs=5)


@pytest.mark.parametrize(("volts", "charging"), [(3.6, True), (2.2, False)])
async def test_a_held_voltage_never_takes_more_than_its_largest_current(
    lab: Any, make_visit: Any, volts: float, charging: bool
) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        hold = task_of(
            ConstantVoltage(volts, 1e-3, charging=charging),
            at_least(Quantity.STEP_TIME_S, 1200.0),
            rule=RecordRule(every_s=1.0, current_change_A=1e-5),
        )
        made = await make_visit(driver, hold)
        amperes = made.column("current_A")
        assert abs(amperes).max() <= 1e-3 * 1.003
        assert (amperes[:5] > 0).all() == charging
        assert made.column("voltage_V")[-1] == pytest.approx(volts, abs=3e-3)
        counted_Ah = made.column("step_charge_Ah")
        times_s = made.column("step_time_s")
        steps_s = np.diff(times_s)
        summed_Ah = np.sum(0.5 * (amperes[1:] + amperes[:-1]) * steps_s) / 3600
        assert counted_Ah[-1] - counted_Ah[0] == pytest.approx(summed_Ah, rel=0.02)


async def test_a_voltammogram_at_a_tenth_of_a_millivolt_a_second_has_the_peaks_of_he_v(
    lab: Any, make_visit: Any
) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        rule = RecordRule(every_s=60.0, voltage_change_V=5e-3)
        up = task_of(VoltageSweep(None, 4.2, 1e-4, 5e-3), rule=rule)
        made = await make_visit(driver, up)
        assert made.last.ended
        assert not made.last.tripped
        volts, amperes = made.column("voltage_V"), made.column("current_A")
        assert volts[-1] == pytest.approx(4.2, abs=1e-3)
        assert made.column("step_time_s")[-1] == pytest.approx((4.2 - volts[0]) / 1e-4, rel=0.01)
        for expected_V in (3.43, 4.03):
            near = abs(volts - expected_V) < 0.15
            peak = np.argmax(np.where(near, amperes, -1.0))
            assert volts[peak] == pytest.approx(expected_V, abs=0.1)
            assert amperes[peak] > 2e-5
            away = (abs(volts - expected_V) > 0.2) & (volts > 2.8) & (volts < 3.85)
            assert amperes[peak] > 5 * np.median(amperes[away])
        down = task_of(VoltageSweep(4.2, 2.8, 1e-4, 5e-3), rule=rule, tag="run.2")
        back = await make_visit(driver, down)
        reduced_V = back.column("voltage_V")[np.argmin(back.column("current_A"))]
        assert any(abs(reduced_V - expected_V) < 0.1 for expected_V in (3.43, 4.03))
        assert back.column("voltage_V")[-1] == pytest.approx(2.8, abs=1e-3)


@pytest.mark.parametrize("galvanostatic", [False, True])
async def test_a_spectrum_is_the_impedance_of_the_cell(
    lab: Any, make_visit: Any, galvanostatic: bool
) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        amplitude = 1e-5 if galvanostatic else 0.01
        control = Impedance(galvanostatic, amplitude, 1e5, 0.1, 6, 1e-2)
        made = await make_visit(driver, task_of(control))
        (spectrum,) = made.spectra
        frequencies_Hz = np.array(spectrum.frequency_Hz)
        assert len(frequencies_Hz) == 37
        assert frequencies_Hz[0] == pytest.approx(1e5, rel=1e-5)
        assert frequencies_Hz[-1] == pytest.approx(0.1, rel=1e-5)
        truth_ohm = bench.simulated.device.cell.impedance(frequencies_Hz)
        found_ohm = np.array(spectrum.impedance_real_ohm) + 1j * np.array(
            spectrum.impedance_imag_ohm
        )
        assert abs(found_ohm / truth_ohm - 1) == pytest.approx(0.0, abs=0.01)
        assert (found_ohm.imag[frequencies_Hz < 1.0] < 0).all()
        assert spectrum.voltage_V == pytest.approx(2.55, abs=0.05)
        assert abs(spectrum.current_A) < 1e-4
        assert not made.last.tripped
        assert np.isnan(made.column("step_charge_Ah")).all()
        assert not bench.cell_is_on


async def test_a_limit_is_enforced_inside_the_instrument(lab: Any, make_visit: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        tight = Limits(1.0, 3.5, -0.011, 0.011, 4e-4, 500_000.0)
        made = await make_visit(driver, task_of(ConstantCurrent(5e-4), limits=tight))
        assert made.last.tripped == "the voltage went above its limit"
        assert made.column("voltage_V")[-1] > 3.5
        assert (made.column("voltage_V")[:-1] <= 3.5).all()
        assert not bench.cell_is_on
        little = Limits(1.0, 4.4, -0.011, 0.011, 1e-5, 500_000.0)
        made = await make_visit(driver, task_of(ConstantCurrent(-5e-4), limits=little, tag="run.2"))
        assert made.last.tripped == "more charge was passed in the step than its limit"
        assert abs(made.column("step_charge_Ah")[-1]) == pytest.approx(1e-5, rel=0.02)


async def test_an_interrupted_step_goes_on_by_charge_and_by_time(lab: Any, make_visit: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        by_charge = at_least(Quantity.STEP_CHARGE_AH, 2e-5)
        rest_of_it = task_of(ConstantCurrent(ONE_C_A), by_charge, done_s=270.0, done_Ah=1.5e-5)
        made = await make_visit(driver, rest_of_it)
        assert made.last.end == by_charge
        assert made.column("step_charge_Ah")[-1] == pytest.approx(5e-6, rel=0.02)
        by_time = at_least(Quantity.STEP_TIME_S, 100.0)
        left = task_of(ConstantCurrent(ONE_C_A), by_time, done_s=80.0, tag="run.2")
        made = await make_visit(driver, left)
        assert made.column("step_time_s")[-1] == pytest.approx(20.0, abs=0.1)


async def test_stopping_in_the_middle_leaves_the_cell_off(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        task = task_of(ConstantCurrent(1e-4))
        await driver.arm("1", task)
        await driver.begin("1", task)
        await first_readings(driver)
        assert bench.cell_is_on
        status = await driver.status("1")
        assert status.state is ChannelState.RUNNING
        assert status.tag == "run.1"
        assert status.current_A == pytest.approx(1e-4, rel=0.01)
        await driver.off("1")
        assert not bench.cell_is_on
        assert not bench.simulated.instrument.running
        assert (await driver.status("1")).state is ChannelState.IDLE
        await driver.off("1")
        assert not bench.cell_is_on


async def test_a_look_that_is_given_up_loses_nothing(lab: Any) -> None:
    async with lab(speed=200.0) as bench:
        driver = await bench.opened()
        task = task_of(
            ConstantCurrent(1e-4),
            at_least(Quantity.STEP_TIME_S, 60.0),
            rule=RecordRule(every_s=10.0),
        )
        await driver.arm("1", task)
        await driver.begin("1", task)
        times_s: list[float] = []
        ended = False
        while not ended:
            looking = asyncio.create_task(driver.look("1"))
            for _ in range(len(times_s)):
                await asyncio.sleep(0)
            looking.cancel()
            try:
                looked = await looking
            except asyncio.CancelledError:
                looked = await driver.look("1")
            times_s += looked.readings.step_time_s.tolist()
            ended = looked.ended
        assert times_s == pytest.approx([0.01, 10.01, 20.01, 30.01, 40.01, 50.01, 60.0])


async def test_the_next_step_ends_what_still_runs(lab: Any, make_visit: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        first = task_of(ConstantCurrent(1e-4))
        await driver.arm("1", first)
        await driver.begin("1", first)
        await driver.look("1")
        rest = task_of(Rest(), at_least(Quantity.STEP_TIME_S, 10.0), tag="run.2")
        await driver.arm("1", rest)
        assert not bench.cell_is_on
        assert not bench.simulated.instrument.running
        await driver.begin("1", rest)
        assert (await first_readings(driver)).current_A[0] == 0.0


async def test_nothing_begins_that_was_not_armed(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        task = task_of(ConstantCurrent(1e-4))
        with pytest.raises(InstrumentError, match="was not armed"):
            await driver.begin("1", task)
        with pytest.raises(InstrumentError, match="no step was begun"):
            await driver.look("1")
        await driver.arm("1", task)
        with pytest.raises(InstrumentError, match="was not armed for step 'step'"):
            await driver.begin("1", task_of(ConstantCurrent(2e-4)))
        await driver.off("1")
        with pytest.raises(InstrumentError, match="was not armed"):
            await driver.begin("1", task)
        with pytest.raises(InstrumentError, match="has no channel '2'"):
            await driver.arm("2", task)
        assert bench.simulated.instrument.runs > 0
        assert not bench.cell_is_on


async def test_a_look_at_the_cell_does_not_undo_what_was_armed(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        task = task_of(ConstantCurrent(1e-4), at_least(Quantity.STEP_TIME_S, 5.0))
        await driver.arm("1", task)
        assert (await driver.status("1")).state is ChannelState.IDLE
        await driver.begin("1", task)
        assert bench.cell_is_on
        assert (await first_readings(driver)).current_A[0] == pytest.approx(1e-4, rel=0.01)


async def test_a_pulse_comes_from_an_output_while_nothing_runs(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        await driver.pulse("1", "GPIO2")
        (up_s, up), (down_s, down) = bench.simulated.device.pulses
        assert (up, down) == (4, 0)
        assert down_s - up_s == pytest.approx(0.01)
        with pytest.raises(InstrumentError, match="has no output 'GPIO9'"):
            await driver.pulse("1", "GPIO9")
        task = task_of(ConstantCurrent(1e-4))
        await driver.arm("1", task)
        await driver.begin("1", task)
        with pytest.raises(InstrumentError, match="gives no pulse beside it"):
            await driver.pulse("1", "GPIO2")


async def test_a_pulse_interrupts_a_rest_which_goes_on(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        rest = task_of(Rest(), at_least(Quantity.STEP_TIME_S, 100_000.0))
        await driver.arm("1", rest)
        await driver.begin("1", rest)
        blocks = [await first_readings(driver)]
        await driver.pulse("1", "GPIO1")
        assert [pins for _, pins in bench.simulated.device.pulses] == [2, 0]
        blocks += [await first_readings(driver) for _ in range(3)]
        times_s = np.concatenate([block.step_time_s for block in blocks])
        indices = np.concatenate([block.onboard_index for block in blocks])
        assert (np.diff(times_s) > 0).all()
        assert (np.diff(times_s) < 35.0).all()
        assert indices.tolist() == list(range(1, len(indices) + 1))
        assert (await driver.status("1")).state is ChannelState.RUNNING
        await driver.off("1")


async def test_in_virtual_time_the_instrument_does_not_run_ahead_of_whoever_reads(
    lab: Any,
) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        task = task_of(ConstantCurrent(4e-5), rule=RecordRule(every_s=10.0))
        await driver.arm("1", task)
        before_s = bench.simulated.device.now_s
        await driver.begin("1", task)
        for _ in range(500):
            await asyncio.sleep(0.0005)
        ahead_s = bench.simulated.device.now_s - before_s
        assert 0 < ahead_s < 2000
        await driver.off("1")


async def test_it_can_be_reached_over_a_network_too(lab: Any, make_visit: Any) -> None:
    async with lab(port=0, link="") as bench:
        assert bench.simulated.address.startswith("socket://")
        driver = await bench.opened()
        task = task_of(ConstantCurrent(1e-4), at_least(Quantity.STEP_TIME_S, 60.0))
        made = await make_visit(driver, task)
        assert made.column("step_time_s")[-1] == pytest.approx(60.0)


async def test_a_script_that_fails_leaves_the_cell_off_and_says_where(
    lab: Any, make_visit: Any
) -> None:
    async with lab() as bench:
        device = bench.simulated.device
        device.model = dataclasses.replace(device.model, eis_max_Hz=1e3)
        driver = await bench.opened()
        with pytest.raises(InstrumentError) as caught:
            await make_visit(driver, task_of(Impedance(False, 0.01, 1e5, 1.0, 5, 1e-2)))
        said = str(caught.value)
        assert "error 0011 in line" in said
        assert "meas_loop_eis" in said
        assert "cannot do this frequency" in said
        assert "the cell was switched off" in said
        assert not bench.cell_is_on
        with pytest.raises(InstrumentError, match="no step was begun"):
            await driver.look("1")


async def test_a_script_that_is_refused_says_which_line(lab: Any) -> None:
    async with lab() as bench:
        device = bench.simulated.device
        device.model = dataclasses.replace(device.model, script_bytes=500)
        driver = await bench.opened()
        with pytest.raises(InstrumentError, match=r"error 4005 in line.*too large") as caught:
            await driver.arm("1", task_of(ConstantCurrent(1e-4)))
        assert caught.value.command == "l"
        assert (await driver.status("1")).state is ChannelState.IDLE


async def test_after_closing_nothing_is_sent(lab: Any) -> None:
    async with lab() as bench:
        driver = await bench.opened()
        await driver.close()
        with pytest.raises(LinkError, match="closed, nothing was sent"):
            await driver.status("1")
        assert (await driver.open()).serial == "ES4HR20B0008"
