"""Calls of a driver in any order, cut short anywhere, while the instrument misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from smu_bench import SERIAL, after, hev, rises_to, task
from wire_fuzz import Move, cut_short, fuzz, in_the_end, moves, typed

from labctl.clock import VirtualClock
from labctl.drivers.keithley.config import KeithleyConfig
from labctl.drivers.keithley.driver import Keithley
from labctl.errors import InstrumentError, LabctlError
from labctl.program import ConstantCurrent, Rest, VoltageSweep
from labctl.simulators.faults import Fault, FaultBoard
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import SimulatedSmu, serve_smu

NAME = "smu 1"
CHARGE = task(ConstantCurrent(2e-4), rises_to(4.1), after(36_000.0))
REST = task(Rest(), after(3600.0))
SWEEP = task(VoltageSweep(None, 4.0, 1e-3, 2e-4), rises_to(4.0), after(3600.0))
CALLS = ("open", "close", "arm", "arm rest", "arm sweep", "begin", "look", "status", "pulse", "off")
FAULTS = ("drop", "drop_unheard", "garbage", "truncate", "slow", "ignores_stop", "wrong_serial")


class Lab:
    def __init__(self, smu: SimulatedSmu) -> None:
        self.smu = smu
        self.armed = CHARGE
        config = KeithleyConfig(
            resource=f"TCPIP::127.0.0.1::{smu.port}::SOCKET",
            serial=SERIAL,
            reply_timeout_s=0.4,
            connect_timeout_s=2.0,
        )
        self.driver = Keithley(config, name=NAME, clock=VirtualClock())

    @property
    def output_on(self) -> bool:
        return self.smu.smu.output.on

    def set_faults(self, *faults: Fault) -> None:
        self.smu.smu.faults = FaultBoard(faults)

    def call(self, name: str) -> Awaitable[Any]:
        driver = self.driver
        works = {"arm": CHARGE, "arm rest": REST, "arm sweep": SWEEP}
        self.armed = works.get(name, self.armed)
        self.smu.advance(1.0)
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "open": driver.open,
            "close": driver.close,
            "begin": lambda: driver.begin("1", self.armed),
            "look": lambda: driver.look("1"),
            "status": lambda: driver.status("1"),
            "pulse": lambda: driver.pulse("1", "digital 1"),
            "off": lambda: driver.off("1"),
        }
        return calls.get(name, lambda: driver.arm("1", self.armed))()


async def live(lab: Lab, life: list[Move]) -> None:
    lab.set_faults()
    for move in life:
        lab.set_faults(*move.faults)
        if move.call == "off" and move.turns is None:
            off = await typed(lab.call("off"), NAME)
            assert isinstance(off, LabctlError) or not lab.output_on
        else:
            await cut_short(partial(lab.call, move.call), move.turns, NAME)
    lab.set_faults()
    driver = lab.driver
    identity = await in_the_end(driver.open)
    assert identity.serial == SERIAL
    await in_the_end(lambda: driver.off("1"))
    assert not lab.output_on

    async def anew() -> None:
        await driver.arm("1", CHARGE)
        await driver.begin("1", CHARGE)

    await in_the_end(anew)
    lab.smu.advance(3.0)
    readings = (await in_the_end(lambda: driver.look("1"))).readings
    buffer = lab.smu.smu.buffers["defbuffer1"]
    rows = buffer.rows(1, len(readings))
    assert len(rows) >= 2
    for place, row in enumerate(rows):
        pair = (readings.voltage_V[place], readings.current_A[place])
        assert pair == pytest.approx((row.source, row.reading), rel=1e-14)
    await in_the_end(lambda: driver.off("1"))
    assert not lab.output_on


def test_whatever_was_cut_short_the_driver_stays_usable_and_off_is_off() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        config = SmuConfig(port=0, time_port=0, speed="virtual", serial=SERIAL, single_client=False)
        smu = runner.run(stack.enter_async_context(serve_smu(config, cell=hev())))

        async def made() -> Lab:
            return Lab(smu)

        lab = runner.run(made())

        @fuzz(12)
        @given(moves(CALLS, FAULTS))
        def check(life: list[Move]) -> None:
            runner.run(live(lab, life))

        try:
            check()
        finally:
            runner.run(lab.driver.close())
            runner.run(stack.aclose())


async def test_an_output_that_stays_on_is_said_loudly() -> None:
    async with serve_smu(
        SmuConfig(port=0, time_port=0, speed="virtual", serial=SERIAL), cell=hev()
    ) as smu:
        lab = Lab(smu)
        try:
            await lab.driver.arm("1", CHARGE)
            await lab.driver.begin("1", CHARGE)
            smu.advance(1.0)
            assert lab.output_on
            lab.set_faults(Fault("ignores_stop"))
            with pytest.raises(InstrumentError, match="LEAVES ITS OUTPUT ON"):
                await lab.driver.off("1")
            lab.set_faults()
            await lab.driver.off("1")
            assert not lab.output_on
        finally:
            await lab.driver.close()
