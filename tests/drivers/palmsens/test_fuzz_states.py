"""Calls of a driver in any order, cut short anywhere, while the instrument misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given
from wire_fuzz import HastyClock, Move, cut_short, fuzz, in_the_end, moves, typed

from labctl.drivers.base import Looked, Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.driver import PalmSens
from labctl.errors import InstrumentError, LabctlError, LinkError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    Control,
    EndCondition,
    Limits,
    Quantity,
    RecordRule,
    Rest,
    Step,
)
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.faults import Fault, FaultBoard
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import SimulatedPotentiostat, serve_potentiostat

NAME = "ps 1"
SERIAL = "ES4HR20B0008"
HE_V = CellSpec(name="HEV-01", material="HE-V", active_mass_g=0.002, seed=1)
LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)
CALLS = ("open", "close", "arm", "arm rest", "begin", "look", "status", "pulse", "off")
FAULTS = ("drop", "drop_unheard", "garbage", "truncate", "hang", "slow", "ignores_stop")


def task_of(control: Control, tag: str) -> Task:
    ends = (EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 400.0),)
    step = Step(4, "step", control, ends, RecordRule(every_s=10.0))
    return Task(step=step, limits=LIMITS, tag=tag)


CHARGE = task_of(ConstantCurrent(1e-4), "run.1")
REST = task_of(Rest(), "run.2")


class Lab:
    def __init__(self, simulated: SimulatedPotentiostat, folder: str) -> None:
        self.simulated = simulated
        self.armed = CHARGE
        config = PalmSensConfig(
            port=simulated.address,
            model="EmStat4S HR",
            serial=SERIAL,
            lock_dir=folder,
            slowest_sample_s=2.0,
            reply_timeout_s=0.3,
            stop_timeout_s=0.8,
        )
        self.driver = PalmSens(config, name=NAME, clock=HastyClock())

    @property
    def cell_is_on(self) -> bool:
        return self.simulated.device.on

    def set_faults(self, *faults: Fault) -> None:
        self.simulated.instrument.faults = FaultBoard(faults)

    def call(self, name: str) -> Awaitable[Any]:
        driver = self.driver
        self.armed = {"arm": CHARGE, "arm rest": REST}.get(name, self.armed)
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "open": driver.open,
            "close": driver.close,
            "begin": lambda: driver.begin("1", self.armed),
            "look": lambda: driver.look("1"),
            "status": lambda: driver.status("1"),
            "pulse": lambda: driver.pulse("1", "GPIO0"),
            "off": lambda: driver.off("1"),
        }
        return calls.get(name, lambda: driver.arm("1", self.armed))()


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        config = PotentiostatConfig(speed="virtual", cell=HE_V, link=str(Path(folder) / "ps"))
        async with serve_potentiostat(config) as simulated:
            made = Lab(simulated, folder)
            try:
                yield made
            finally:
                await made.driver.close()


async def live(bench: Lab, life: list[Move]) -> None:
    bench.set_faults()
    for move in life:
        bench.set_faults(*move.faults)
        if move.call == "off" and move.turns is None:
            off = await typed(bench.call("off"), NAME)
            assert isinstance(off, LabctlError) or not bench.cell_is_on
        else:
            await cut_short(partial(bench.call, move.call), move.turns, NAME)
    bench.set_faults()
    driver = bench.driver
    assert (await in_the_end(driver.open)).serial == SERIAL

    async def off() -> None:
        try:
            await driver.off("1")
        except InstrumentError as error:
            raise LinkError(str(error)) from error

    await in_the_end(off)
    assert not bench.cell_is_on

    async def anew() -> Looked:
        await driver.arm("1", CHARGE)
        await driver.begin("1", CHARGE)
        while not len((looked := await driver.look("1")).readings):
            pass
        return looked

    readings = (await in_the_end(anew)).readings
    assert readings.onboard_index[0] == 1
    assert readings.step_time_s[0] <= 2.0
    assert abs(float(readings.current_A[0]) - 1e-4) < 2e-6
    await in_the_end(off)
    assert not bench.cell_is_on


def test_whatever_was_cut_short_the_driver_stays_usable_and_off_is_off() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(8)
        @given(moves(CALLS, FAULTS))
        def check(life: list[Move]) -> None:
            runner.run(live(bench, life))

        try:
            check()
        finally:
            runner.run(stack.aclose())
