"""What every driver must do, whatever it drives: a new driver is one more line in LINES.

Each runs against its own simulator, over a real socket or terminal. Only the clock by which a lost
link is tried again is hastened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labctl.clock import RealClock
from labctl.drivers import DRIVERS, build_driver
from labctl.drivers.base import (
    ChannelState,
    Failsafe,
    Identity,
    Looked,
    Task,
    is_sequencer,
    is_source,
)
from labctl.engine.fitting import refusals_of
from labctl.engine.limits import wider
from labctl.engine.refusing import asked_of_instrument
from labctl.errors import InstrumentError, LinkError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Control,
    EndCondition,
    Impedance,
    Limits,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
    VoltageSweep,
    technique_of,
)
from labctl.simulators.espec.config import ChamberConfig
from labctl.simulators.espec.server import serve_chamber
from labctl.simulators.faults import Fault, write_faults
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import serve_smu
from labctl.simulators.neware_bts.rack import RackConfig, serve_rack
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import serve_potentiostat
from labctl.simulators.rodeostat.config import RodeostatSimConfig
from labctl.simulators.rodeostat.server import serve_rodeostat

Options = dict[str, Any]

NO_PAUSE = {"monitor_pause_s": 0.0, "setting_pause_s": 0.0}


LIMITS = Limits(
    voltage_min_V=0.1,
    voltage_max_V=4.0,
    current_min_A=-0.003,
    current_max_A=0.003,
    step_charge_max_Ah=1e-3,
    duration_max_s=3600.0,
)
CONTROLS: tuple[Control, ...] = (
    Rest(),
    ConstantCurrent(-1e-4),
    ConstantVoltage(1.0, 1e-3, charging=False),
    ConstantCurrentConstantVoltage(-1e-4, 1.0),
    ConstantPower(-1e-4, 1e-3),
    ConstantResistance(1e4, 1e-3),
    VoltageSweep(0.5, 0.9, 1e-3, 1e-3),
    Impedance(False, 0.01, 1e3, 1.0, 5, 1e-3, 1.0),
)
SWEEP = CONTROLS[6]


@dataclass(frozen=True)
class Line:
    """How one driver is tested.

    kind: its name in :data:`labctl.drivers.DRIVERS`. serve: its simulator, of a ``config``; what is
    at its leads is 10 kohm, or nothing. simulated: the simulator's options. options: the driver's,
    from the simulator and a folder; ``nowhere`` are such that lead to nobody; ``quick`` are added
    where it is made to wait in vain. control: of the step that a source makes, between 0.5 V and
    0.9 V. hurry: how many times faster its clock is, by which it waits before it tries again.
    """

    kind: str
    serve: Callable[[Any], Any]
    config: type
    simulated: Options
    options: Callable[[Any, Path], Options]
    nowhere: Options
    quick: Options = field(default_factory=lambda: {"reply_timeout_s": 0.5})
    control: Control = SWEEP
    channel: str = "1"
    hurry: float = 200.0

    @property
    def task(self) -> Task:
        return Task(step=step_of(self.control), limits=LIMITS, tag="run-1.1")


LINES = (
    Line(
        "keithley", serve_smu, SmuConfig,
        {"port": 0, "speed": 50, "load_ohm": 1e4, "errors": 0.0, "off_state": "HIMP"},
        lambda sim, _: {"resource": f"TCPIP::127.0.0.1::{sim.port}::SOCKET"},
        {"resource": "TCPIP::127.0.0.1::1::SOCKET"},
    ),
    Line(
        "palmsens", serve_potentiostat, PotentiostatConfig,
        {"speed": 50, "load_ohm": 1e4, "errors": 0.0, "powered_by_line": False},
        lambda sim, home: {"port": sim.address, "model": "EmStat4S HR", "lock_dir": str(home)},
        {"port": "/dev/nobody", "model": "EmStat4S HR"},
        {"reply_timeout_s": 0.5, "stop_timeout_s": 0.5},
        hurry=1.0,
    ),
    Line(
        "rodeostat", serve_rodeostat, RodeostatSimConfig,
        {"speed": 50, "load_ohm": 1e4, "errors": 0.0},
        lambda sim, _: {"port": sim.address, "counter_resistor_ohm": 12e3},
        {"port": "/dev/nobody", "counter_resistor_ohm": 12e3},
    ),
    Line(
        "neware_bts", serve_rack, RackConfig,
        {"port": 0, "speed": 1.0},
        lambda sim, home: {"host": "127.0.0.1", "port": sim.port, "step_file_dir": str(home)},
        {"host": "127.0.0.1", "port": 1, "step_file_dir": "/nowhere"},
        channel="21-1-1",
    ),
    Line(
        "espec", serve_chamber, ChamberConfig,
        {"port": 0, "busy": 0.0, "noise_K": 0.0},
        lambda sim, _: {"host": sim.host, "port": sim.port, **NO_PAUSE},
        {"host": "127.0.0.1", "port": 1},
    ),
)  # fmt: skip
"""A line for each driver."""


def step_of(control: Control, *, index: int = 0) -> Step:
    end = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 600.0)
    return Step(index, "the step", control, (end,), RecordRule(every_s=1.0))


def program_of(control: Control) -> Program:
    return Program(name="p", recipe_sha256="0", cell="c", body=(step_of(control),), limits=LIMITS)


PROGRAM = program_of(ConstantCurrent(-1e-4))

Call = Callable[[], Awaitable[object]]


class Bench:
    """A driver and the simulator that it leads to."""

    def __init__(self, line: Line, simulator: Any, driver: Any, folder: Path) -> None:
        self.line = line
        self.simulator = simulator
        self.driver = driver
        self._folder = folder

    def fault(self, *faults: Fault) -> None:
        """The faults that are in force from here on."""
        write_faults(self._folder / "faults.json", faults)
        self.simulator.faults.refresh()

    async def off(self) -> None:
        """Nothing flows any more, whichever way this driver says so."""
        if is_source(self.driver):
            await self.driver.off(self.line.channel)
        elif is_sequencer(self.driver):
            await self.driver.stop(self.line.channel)

    def calls(self, channel: str = "") -> dict[str, tuple[tuple[Call, ...], Call]]:
        """Each call by its name, with those that have to be made before it."""
        driver, on, task = self.driver, channel or self.line.channel, self.line.task
        if is_source(driver):
            arm, begin = (lambda: driver.arm(on, task)), (lambda: driver.begin(on, task))
            return {
                "status": ((), lambda: driver.status(on)),
                "arm": ((), arm),
                "begin": ((arm,), begin),
                "look": ((arm, begin), lambda: driver.look(on)),
                "off": ((arm, begin), lambda: driver.off(on)),
            }
        if is_sequencer(driver):
            armed: dict[str, Any] = {}

            async def arm_it() -> object:
                armed["it"] = await driver.arm(on, PROGRAM, "run-1")
                return armed["it"]

            async def start() -> object:
                armed["run"] = await driver.start(armed["it"])
                return armed["run"]

            return {
                "status": ((), lambda: driver.status(on)),
                "arm": ((), arm_it),
                "start": ((arm_it,), start),
                "follow": ((arm_it, start), lambda: driver.follow(armed["run"], PROGRAM, 1)),
                "stop": ((arm_it, start), lambda: driver.stop(on)),
            }
        return {
            "temperature": ((), driver.temperature),
            "set_temperature": ((), lambda: driver.set_temperature(30.0)),
        }


@contextlib.asynccontextmanager
async def bench(line: Line, folder: Path, **options: Any) -> AsyncIterator[Bench]:
    serial = {} if "port" in line.simulated else {"link": str(folder / "port")}
    config = line.config(**{**line.simulated, **serial, "state_dir": str(folder)})
    async with line.serve(config) as simulator:
        driver: Any = build_driver(
            line.kind,
            {**line.options(simulator, folder), **options},
            name="it",
            clock=RealClock(line.hurry),
        )
        try:
            yield Bench(line, simulator, driver, folder)
        finally:
            await driver.close()


async def outcome(call: Call) -> object:
    """What a call gives, or the one of the two errors that it may raise."""
    try:
        return await call()
    except (InstrumentError, LinkError) as error:
        return error


async def first_trouble(bench: Bench, name: str, call: Call) -> object:
    """The outcome of a call; of one that reads on and on, the first that is an error."""
    for _ in range(200):
        said = await outcome(call)
        if name not in {"look", "follow"} or isinstance(said, Exception):
            return said
        are_true(said)
    return said


def are_true(said: object) -> None:
    """No reading is beside what is really there: 0.5 V to 0.9 V on 10 kohm."""
    if isinstance(said, Looked) and len(said.readings):
        readings = said.readings
        assert (np.abs(readings.voltage_V - 0.7) < 0.25).all(), readings.voltage_V
        assert readings.current_A == pytest.approx(readings.voltage_V / 1e4, abs=1e-6)
        assert (np.diff(readings.onboard_index) == 1).all()


def alone(line: Line) -> Any:
    """A driver that leads to nobody."""
    return build_driver(line.kind, line.nowhere, name="it", clock=RealClock())


def each(lines: Iterable[Line]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("line", tuple(lines), ids=lambda line: line.kind)


every_driver = each(LINES)
sources = each(line for line in LINES if is_source(alone(line)))
driving = each(line for line in LINES if hasattr(alone(line), "capabilities"))


def test_every_driver_has_a_line_here() -> None:
    assert {line.kind for line in LINES} == set(DRIVERS)


@every_driver
async def test_it_says_who_it_is_and_the_same_again(line: Line, tmp_path: Path) -> None:
    async with bench(line, tmp_path) as lab:
        who = await lab.driver.open()
        assert isinstance(who, Identity)
        assert who.manufacturer
        assert who.model
        assert who.serial
        assert await lab.driver.open() == who
        await lab.driver.close()
        assert await lab.driver.open() == who


@driving
async def test_it_lists_its_channels_and_none_of_them_runs(line: Line, tmp_path: Path) -> None:
    async with bench(line, tmp_path) as lab:
        await lab.driver.open()
        assert line.channel in await lab.driver.channels()
        assert (await lab.driver.status(line.channel)).state is not ChannelState.RUNNING


@driving
async def test_switching_off_what_is_off_changes_nothing(line: Line, tmp_path: Path) -> None:
    async with bench(line, tmp_path) as lab:
        await lab.driver.open()
        for _ in range(3):
            await lab.off()
        assert (await lab.driver.status(line.channel)).state is not ChannelState.RUNNING


@sources
async def test_limits_are_read_back_before_anything_flows(line: Line, tmp_path: Path) -> None:
    async with bench(line, tmp_path) as lab:
        await lab.driver.open()
        limits = await lab.driver.arm(line.channel, line.task)
        assert (await lab.driver.status(line.channel)).state is not ChannelState.RUNNING
        asked = asked_of_instrument(LIMITS, limits, line.control)
        assert wider(limits, asked) == ""
        assert LIMITS.voltage_min_V <= limits.voltage_min_V
        assert limits.voltage_max_V <= LIMITS.voltage_max_V


@sources
async def test_a_step_that_was_begun_is_read_and_ended(line: Line, tmp_path: Path) -> None:
    async with bench(line, tmp_path) as lab:
        await lab.driver.open()
        with pytest.raises(InstrumentError, match="it"):
            await lab.driver.begin(line.channel, line.task)
        await lab.driver.arm(line.channel, line.task)
        await lab.driver.begin(line.channel, line.task)
        read = 0
        async with asyncio.timeout(20.0):
            while read < 3:
                looked = await lab.driver.look(line.channel)
                are_true(looked)
                read += len(looked.readings)
        await lab.driver.off(line.channel)
        assert (await lab.driver.status(line.channel)).state is ChannelState.IDLE
        with pytest.raises(InstrumentError):
            await lab.driver.look(line.channel)


@driving
def test_what_it_cannot_do_is_refused_without_a_wire(line: Line) -> None:
    driver = alone(line)
    techniques = driver.capabilities.techniques
    for control in CONTROLS:
        refusals = driver.refusals(program_of(control))
        if technique_of(control) in techniques:
            assert refusals == (), control
        else:
            assert refusals, control
            assert any("the step" in reason for reason in refusals)


@driving
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(voltage_V=st.floats(-1e4, 1e4))
def test_a_voltage_beyond_what_it_is_used_for_is_refused(line: Line, voltage_V: float) -> None:
    driver = alone(line)
    can = driver.capabilities
    if can.voltage_min_V <= voltage_V <= can.voltage_max_V:
        return
    for control in (
        VoltageSweep(0.5, voltage_V, 1e-3, 1e-3),
        ConstantVoltage(voltage_V, 1e-3, charging=False),
        ConstantCurrentConstantVoltage(-1e-4, voltage_V),
    ):
        assert driver.refusals(program_of(control)), control


@sources
def test_one_that_nothing_would_switch_off_is_refused_to_charge(line: Line) -> None:
    driver = alone(line)
    charge = program_of(ConstantVoltage(1.0, 1e-3, charging=True))
    refused = refusals_of(charge, driver, chamber=False)
    if driver.capabilities.failsafe is Failsafe.NONE:
        assert any("nothing would switch the instrument off" in reason for reason in refused)
    else:
        assert refused == ()


@driving
async def test_a_channel_that_is_not_there_is_refused_by_name(line: Line, tmp_path: Path) -> None:
    async with bench(line, tmp_path) as lab:
        await lab.driver.open()
        for name, (before, call) in lab.calls("no such channel").items():
            if before and name not in {"look", "off", "stop", "begin"}:
                continue
            with pytest.raises(InstrumentError) as caught:
                await call()
            assert "no such channel" in str(caught.value), name
            assert caught.value.instrument == "it", name


@every_driver
async def test_a_link_that_is_lost_in_any_call_is_a_link_error(line: Line, tmp_path: Path) -> None:
    async with bench(line, tmp_path, **line.quick) as lab:
        who = await lab.driver.open()
        for name, (before, call) in lab.calls().items():
            for earlier in before:
                await eventually(earlier)
            lab.fault(Fault(name="drop"))
            assert isinstance(await first_trouble(lab, name, call), LinkError), name
            lab.fault()
            assert await eventually(lab.driver.open) == who
            await eventually(lab.off)


@every_driver
async def test_bytes_that_mean_nothing_are_an_error_and_never_a_reading(
    line: Line, tmp_path: Path
) -> None:
    async with bench(line, tmp_path, **line.quick) as lab:
        who = await lab.driver.open()
        for name, (before, call) in lab.calls().items():
            for earlier in before:
                await eventually(earlier)
            lab.fault(Fault(name="garbage"))
            said = await first_trouble(lab, name, call)
            assert isinstance(said, InstrumentError | LinkError), (name, said)
            assert str(said), name
            lab.fault()
            assert await eventually(lab.driver.open) == who
            await eventually(lab.off)


@every_driver
async def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(
    line: Line, tmp_path: Path
) -> None:
    async with bench(line, tmp_path, **line.quick) as lab:
        who = await lab.driver.open()
        _, look = next(iter(lab.calls().values()))
        before = await look()
        lab.fault(Fault(name="slow", seconds=0.7, times=1))
        assert isinstance(await outcome(look), LinkError)
        lab.fault()
        assert await eventually(lab.driver.open) == who
        assert type(await look()) is type(before)


@every_driver
@pytest.mark.parametrize("turns", [1, 4, 40])
async def test_a_call_that_is_given_up_leaves_it_usable(
    line: Line, turns: int, tmp_path: Path
) -> None:
    async with bench(line, tmp_path) as lab:
        who = await lab.driver.open()
        for name, (before, call) in lab.calls().items():
            if name in {"off", "stop"}:
                continue
            for earlier in before:
                await eventually(earlier)
            given_up = asyncio.ensure_future(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            ended = (await asyncio.gather(given_up, return_exceptions=True))[0]
            assert not isinstance(ended, Exception), (name, ended)
            assert await eventually(lab.driver.open) == who
            await eventually(lab.off)


@every_driver
async def test_one_that_was_closed_is_silent_until_it_is_opened(line: Line, tmp_path: Path) -> None:
    async with bench(line, tmp_path) as lab:
        who = await lab.driver.open()
        await lab.driver.close()
        _, look = next(iter(lab.calls().values()))
        assert isinstance(await outcome(look), LinkError)
        await lab.driver.close()
        assert await lab.driver.open() == who


async def eventually(call: Call) -> object:
    """What a call gives, tried again while the link is down, as the engine does."""
    async with asyncio.timeout(20.0):
        while True:
            try:
                return await call()
            except LinkError:
                await asyncio.sleep(0.01)
