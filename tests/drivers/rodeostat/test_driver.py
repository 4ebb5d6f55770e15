"""The driver on a simulated Rodeostat, over a real terminal or socket, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labctl.clock import RealClock
from labctl.drivers import build_driver
from labctl.drivers.base import ChannelState, Looked, Task
from labctl.drivers.rodeostat.config import RodeostatConfig
from labctl.drivers.rodeostat.driver import Rodeostat
from labctl.errors import ConfigError, InstrumentError, LinkError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantVoltage,
    Control,
    EndCondition,
    Limits,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Signal,
    Step,
    VoltageSweep,
)
from labctl.simulators.faults import Fault, write_faults
from labctl.simulators.rodeostat.config import RodeostatSimConfig
from labctl.simulators.rodeostat.server import SimulatedRodeostat, serve_rodeostat

LIMITS = Limits(-2.0, 4.5, -0.002, 0.002, 1.0, 1e6)
WARM = msgspec.structs.replace(LIMITS, temperature_max_degC=50.0)
WIDE = msgspec.structs.replace(LIMITS, voltage_max_V=7.0)
SWEEP = VoltageSweep(0.5, 1.5, 0.1, 1e-3)


def task(control: Control = SWEEP, *, limits: Limits = LIMITS, after_s: float = 10.0) -> Task:
    end = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, after_s)
    return Task(step=Step(2, "s", control, (end,), RecordRule(0.05)), limits=limits, tag="run-1.2")


def program(control: Control, limits: Limits = LIMITS) -> Program:
    step = msgspec.structs.replace(task(control).step, index=0)
    return Program(name="p", recipe_sha256="0", cell="c", body=(step,), limits=limits)


@dataclass
class Lab:
    simulated: SimulatedRodeostat
    driver: Rodeostat
    folder: Path

    def fault(self, *faults: Fault) -> None:
        write_faults(self.folder / "faults.json", faults)
        self.simulated.faults.refresh()

    async def looks(self, duration_s: float, every_s: float = 0.1) -> list[Looked]:
        """What was said while so much time passed, or until the step was over."""
        found: list[Looked] = []
        for _ in range(round(duration_s / every_s)):
            self.simulated.advance(every_s)
            found.append(await self.driver.look("1"))
            if found[-1].ended:
                break
        return found

    async def begun(self, work: Task) -> Limits:
        limits = await self.driver.arm("1", work)
        await self.driver.begin("1", work)
        return limits


@contextlib.asynccontextmanager
async def lab(
    folder: Path, *, simulator: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Lab]:
    """A resistor of 10 kohm at an instrument without errors, unless told otherwise."""
    config = {"speed": "virtual", "load_ohm": 1e4, "errors": 0.0, "state_dir": str(folder)}
    async with serve_rodeostat(RodeostatSimConfig(**(config | (simulator or {})))) as simulated:  # type: ignore[arg-type]
        driver = Rodeostat(
            RodeostatConfig(
                **{"port": simulated.address, "counter_resistor_ohm": 12e3, "reply_timeout_s": 1.0}
                | options
            ),
            name="r 1",
            clock=RealClock(200.0),
        )
        try:
            yield Lab(simulated, driver, folder)
        finally:
            await driver.close()


def column(looks: list[Looked], name: str) -> Any:
    return np.concatenate([getattr(look.readings, name) for look in looks])


async def test_a_sweep_is_the_instruments_own_and_ends_with_the_cell_disconnected(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path) as it:
        await it.driver.open()
        limits = await it.begun(task())
        assert (limits.voltage_min_V, limits.voltage_max_V) == (0.5, 1.5)
        assert (limits.current_min_A, limits.current_max_A) == (-0.002, 0.002)  # 2 x 12 V / 12 kohm
        assert it.simulated.device.connected
        looks = await it.looks(11.0)
        assert looks[-1].ended
        assert not it.simulated.device.connected
    time_s, voltage_V = column(looks, "step_time_s"), column(looks, "voltage_V")
    assert time_s == pytest.approx(0.05 * np.arange(1, 201))
    assert voltage_V == pytest.approx(0.5 + 0.1 * time_s)
    assert column(looks, "current_A") == pytest.approx(voltage_V / 1e4, abs=3e-7)  # 12 bits of 2 V
    assert column(looks, "onboard_index").tolist() == list(range(1, 201))
    assert set(column(looks, "step").tolist()) == {2}
    assert np.isnan(column(looks, "step_charge_Ah")).all()


async def test_the_cell_never_sees_anything_but_the_voltages_of_its_step(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.driver.open()
        await it.driver.arm("1", task())
        assert not it.simulated.device.connected
        assert it.simulated.device.put_out_V == pytest.approx(0.5, abs=1e-3)
        await it.driver.begin("1", task())
        assert it.simulated.device.put_out_V == pytest.approx(0.5, abs=1e-3)


async def test_a_rest_measures_the_cell_with_nothing_flowing(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.driver.open()
        limits = await it.begun(task(Rest()))
        assert (limits.current_min_A, limits.current_max_A) == (0.0, 0.0)
        assert not it.simulated.device.counter
        looks = await it.looks(2.0, every_s=0.5)
        assert not it.simulated.device.counter
    assert column(looks, "step_time_s") == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert column(looks, "onboard_index").tolist() == [1, 2, 3, 4]
    assert (column(looks, "current_A") == 0.0).all()
    assert column(looks, "voltage_V") == pytest.approx([0.0] * 4, abs=1e-3)


async def test_a_voltage_is_held_for_its_time(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.driver.open()
        hold = task(ConstantVoltage(1.2, 1e-3, charging=False), after_s=1.0)
        limits = await it.begun(hold)
        assert (limits.voltage_min_V, limits.voltage_max_V, limits.duration_max_s) == (
            1.2,
            1.2,
            1.0,
        )
        looks = await it.looks(2.0)
        assert looks[-1].ended
    assert column(looks, "step_time_s")[-1] == pytest.approx(1.0)
    assert column(looks, "current_A") == pytest.approx(1.2e-4, abs=3e-7)


async def test_a_sweep_from_where_the_cell_stands_begins_there(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.driver.open()
        limits = await it.begun(task(VoltageSweep(None, 1.0, 0.1, 1e-3)))
        assert limits.voltage_min_V == pytest.approx(0.0, abs=1e-3)
        looks = await it.looks(20.0)
        assert looks[-1].ended
    assert column(looks, "voltage_V")[-1] == pytest.approx(1.0, abs=2e-3)


async def test_a_current_beyond_its_range_is_no_reading_and_ends_the_step(tmp_path: Path) -> None:
    async with lab(tmp_path, simulator={"load_ohm": 1000.0}) as it:
        await it.driver.open()
        await it.begun(task())  # 1 mA is the end of the range, at 1 V
        looks = await it.looks(11.0)
        assert looks[-1].ended
        assert "at the end of its range of 0.001 A" in looks[-1].tripped
        assert not it.simulated.device.connected
    assert column(looks, "current_A").max() < 0.996e-3


IMPOSSIBLE = (
    (b'{"t":250,"v":9.0,"i":50.0}', "0.525 V was to be put out then"),
    (b'{"t":250,"v":0.525,"i":5e4}', "its range ends at 0.001 A"),
    (b'{"t":251,"v":0.5251,"i":50.0}', "nothing is sampled at 251 ms"),
    (b'{"t":99000,"v":1.5,"i":50.0}', "nothing is sampled at 99000 ms"),
    (b'{"t":150,"v":0.515,"i":50.0}', "its time is not after the 200 ms before it"),
    (b'{"t":250,"v":0.525,"i":50.0,"n":2}', "it is of the multiplexer"),
)


@pytest.mark.parametrize(("line", "why"), IMPOSSIBLE)
async def test_a_sample_that_cannot_be_is_no_reading_and_says_why(
    line: bytes, why: str, tmp_path: Path
) -> None:
    async with lab(tmp_path) as it:
        await it.driver.open()
        await it.begun(task())
        before = await it.looks(0.2)
        await it.simulated._write(line + b"\r\n")
        with pytest.raises(InstrumentError, match=why) as caught:
            await it.driver.look("1")
        assert caught.value.reply
        after = await it.looks(0.2)
    assert column(before, "onboard_index").tolist() == [1, 2, 3, 4]
    assert column(after, "onboard_index").tolist() == [5, 6, 7, 8]


async def test_a_cell_that_does_not_follow_trips_the_step(tmp_path: Path) -> None:
    async with lab(tmp_path, simulator={"load_ohm": 2000.0, "counter_resistor_ohm": 30e3}) as it:
        await it.driver.open()
        await it.begun(task())  # at most (12 - 1) V / 30 kohm, some 0.37 mA: 0.74 V at the load
        looks = await it.looks(11.0)
        assert "is put out: a lead is off" in looks[-1].tripped
        assert not it.simulated.device.connected
    assert column(looks, "voltage_V").max() < 1.0


async def test_an_instrument_that_lost_its_power_says_that_its_step_is_over(tmp_path: Path) -> None:
    async with lab(tmp_path, simulator={"link": str(tmp_path / "port")}) as it:
        await it.driver.open()
        await it.begun(task())
        await it.looks(1.0)
        await it.simulated.unplug()
        with pytest.raises(LinkError):
            await it.driver.look("1")
        await it.simulated.plug()
        looked = await it.driver.look("1")
        assert looked.ended
        assert not len(looked.readings)


async def test_a_line_that_is_lost_for_a_moment_leaves_a_gap_and_no_more(tmp_path: Path) -> None:
    async with lab(tmp_path, simulator={"link": str(tmp_path / "port")}) as it:
        await it.driver.open()
        await it.begun(task())
        before = await it.looks(1.0)
        it.fault(Fault(name="drop", command="getRefVolt", times=1))
        with pytest.raises(LinkError):
            await it.driver.look("1")
        it.simulated.advance(1.0)
        after: list[Looked] = []
        async with asyncio.timeout(5.0):
            while not after:
                with contextlib.suppress(LinkError):
                    after = await it.looks(9.0)
    assert column(before, "onboard_index")[-1] == 20
    assert column(after, "onboard_index")[0] > 21
    voltage_V, time_s = column(after, "voltage_V"), column(after, "step_time_s")
    assert voltage_V == pytest.approx(0.5 + 0.1 * time_s)
    assert after[-1].ended


async def test_an_output_that_stays_on_is_an_error_and_not_an_off(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.driver.open()
        await it.begun(task())
        it.fault(Fault(name="ignores_stop"))
        with pytest.raises(InstrumentError, match="LEAVES THE CELL CONNECTED"):
            await it.driver.off("1")
        it.fault()
        await it.driver.off("1")
        assert (await it.driver.status("1")).state is ChannelState.IDLE


@pytest.mark.parametrize(
    ("simulator", "options", "says"),
    [
        ({"variant": "nanoAmp"}, {}, "not a microAmp: see 'variant'"),
        ({"device_id": 8}, {"device_id": 7}, "has the number 8, and 7 is expected"),
    ],
)
async def test_another_instrument_is_refused_and_says_which(
    simulator: dict[str, Any], options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    async with lab(tmp_path, simulator=simulator, **options) as it:
        with pytest.raises(InstrumentError, match=says) as caught:
            await it.driver.open()
        assert caught.value.instrument == "r 1"
        assert caught.value.command
        assert caught.value.reply


async def test_the_first_instrument_that_was_found_is_held_to(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.driver.open()
        await it.driver.close()
        it.fault(Fault(name="wrong_serial", command="getDeviceId"))
        with pytest.raises(InstrumentError, match="has the number 17, and 7 is expected"):
            await it.driver.open()


async def test_a_refusal_of_the_instrument_carries_command_and_reply(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.driver.open()
        it.simulated.device.ranges_uA = {"10uA": 10.0}
        with pytest.raises(InstrumentError) as caught:
            await it.driver.arm("1", task())
        error = caught.value
        assert (error.instrument, error.command) == ("r 1", "setCurrRange")
        assert "currRange, 1000uA, not found" in error.reply
        assert await it.driver.open()


async def test_it_gives_no_pulse(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        with pytest.raises(InstrumentError, match="has no output 'trigger'"):
            await it.driver.pulse("1", "trigger")


@pytest.mark.parametrize(
    ("control", "options", "limits", "says"),
    [
        (ConstantCurrent(-1e-4), {}, LIMITS, "has no galvanostat"),
        (SWEEP, {"counter_resistor_ohm": 0.0}, LIMITS, "has no limit of its own for it: put"),
        (SWEEP, {"counter_resistor_ohm": 1e3}, LIMITS, "let 0.024 A pass: 1.2e+04 ohm would do"),
        (VoltageSweep(0.5, 1.5, 0.1, 2e-3), {}, LIMITS, "reads up to 0.001 A: say 'max_current'"),
        (VoltageSweep(0.5, 5.5, 0.1, 1e-3), {}, LIMITS, "goes to 5.5 V"),
        (VoltageSweep(0.5, 4.7, 0.1, 1e-3), {}, LIMITS, "outside the limits"),
        (VoltageSweep(0.5, 1.5, 30.0, 1e-3), {}, LIMITS, "20 V/s is the fastest"),
        (VoltageSweep(0.0, 4.0, 1e-7, 1e-3), {}, LIMITS, "lasts longer than"),
        (ConstantVoltage(1.0, 1e-3, charging=True), {}, LIMITS, "neither a limit of its own nor"),
        (Signal("go", "trigger"), {}, LIMITS, "and a Rodeostat has none"),
        (Rest(), {}, WARM, "temperature limits"),
        (Rest(), {}, WIDE, "the voltage limit 7 V"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_in_words(
    control: Control, options: dict[str, Any], limits: Limits, says: str
) -> None:
    config = RodeostatConfig(**{"port": "x", "counter_resistor_ohm": 12e3} | options)
    driver = Rodeostat(config, name="r 1", clock=RealClock())
    assert any(says in reason for reason in driver.refusals(program(control, limits)))


def test_a_sweep_with_a_resistor_that_is_large_enough_is_taken() -> None:
    driver = Rodeostat(
        RodeostatConfig(port="x", counter_resistor_ohm=12e3), name="r", clock=RealClock()
    )
    assert driver.refusals(program(SWEEP)) == ()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("port", " ", "port is empty"),
        ("variant", "kiloAmp", "must be one of nanoAmp"),
        ("sample_period_s", 2.0, "sample_period_s is 2"),
        ("counter_resistor_ohm", -1.0, "counter_resistor_ohm is -1"),
        ("voltage_min_V", 6.0, "below voltage_max_V"),
    ],
)
def test_an_option_that_cannot_be_is_refused(option: str, value: object, says: str) -> None:
    options = {"port": "x", option: value}
    with pytest.raises(ConfigError, match=says):
        build_driver("rodeostat", options, name="r 1", clock=RealClock())


WORDS = ["getRefVolt", "getVariant", "10V_microAmpV0.2", "V0.2", 7, True, False, 0.5, 1e9]
STRAYS = st.one_of(
    st.binary(max_size=60).filter(lambda data: b"\n" not in data),
    st.sampled_from([b"", b"{}", b'{"t":50,"v":0.505,"i":50.0}', b'{"t":50,"v":9,"i":9e9}']),
    st.fixed_dictionaries(
        {
            "success": st.booleans(),
            "response": st.dictionaries(
                st.sampled_from(["command", "variant", "version", "deviceId", "r", "connected"]),
                st.sampled_from(WORDS),
            ),
        }
    ).map(lambda said: json.dumps(said).encode()),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strays=st.lists(STRAYS, min_size=1, max_size=6), name=st.sampled_from(["look", "status"]))
def test_whatever_else_comes_there_is_a_true_reading_or_a_typed_error(
    strays: list[bytes], name: str
) -> None:
    """A wire fuzzer: in the middle of a sweep, any lines come before the instrument's own."""

    async def converse() -> None:
        config = RodeostatSimConfig(speed="virtual", load_ohm=1e4, errors=0.0)
        async with serve_rodeostat(config) as simulated:
            options = {"counter_resistor_ohm": 12e3, "reply_timeout_s": 0.5}
            driver = Rodeostat(
                RodeostatConfig(port=simulated.address, **options),
                name="r 1",
                clock=RealClock(1000.0),
            )
            try:
                await driver.open()
                await driver.arm("1", task())
                await driver.begin("1", task())
                simulated.advance(0.2)
                for stray in strays:
                    await simulated._write(stray + b"\r\n")
                for _ in range(3):
                    with contextlib.suppress(InstrumentError, LinkError):
                        are_true(await getattr(driver, name)("1"))
                    simulated.advance(0.1)
            finally:
                await driver.close()

    asyncio.run(converse())


def are_true(said: object) -> None:
    """No reading is beside the sweep, or beside 10 kohm."""
    if isinstance(said, Looked):
        readings = said.readings
        assert readings.voltage_V == pytest.approx(0.5 + 0.1 * readings.step_time_s, abs=1e-3)
        assert (np.abs(readings.current_A) <= 1e-3).all()
