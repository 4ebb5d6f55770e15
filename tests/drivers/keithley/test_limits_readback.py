"""No current flows before the instrument itself has said that it holds the limits.

The instrument is the simulated one; between it and the driver somebody tampers with a setting on
its way in, as an instrument does that clips a value without a word, or with what is read back.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
from smu_bench import SERIAL, after, falls_to, hev, rises_to, task

from labctl.clock import VirtualClock
from labctl.drivers.base import Failsafe, Task
from labctl.drivers.keithley.config import KeithleyConfig
from labctl.drivers.keithley.driver import Keithley
from labctl.engine.fitting import refusals_of
from labctl.errors import InstrumentError
from labctl.program import ConstantCurrent, ConstantVoltage, Limits, Program, Rest, VoltageSweep
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import SimulatedSmu, serve_smu

CHARGE = task(ConstantCurrent(2e-4), rises_to(4.1), after(36_000.0))
DISCHARGE = task(ConstantCurrent(-2e-4), falls_to(1.5), after(36_000.0))
HOLD = task(ConstantVoltage(4.0, 1e-3, charging=True), after(3600.0))
REST = task(Rest(), after(600.0))
SWEEP = task(VoltageSweep(3.0, 4.0, 1e-3, 2e-4), rises_to(4.0), after(3600.0))


class Tampered:
    """A wire on which one thing is changed; remembers whether the output was ever told to close."""

    def __init__(self, smu: SimulatedSmu) -> None:
        self.smu = smu
        self.port = 0
        self.on_the_way_in: tuple[str, str] = ("", "")
        self.read_back: tuple[str, str] = ("", "")
        self.ever_on = False

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Tampered]:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    line = (await reader.readuntil(b"\n")).decode().strip()
                    answer = await self._answer(line)
                    if answer:
                        writer.write(answer + b"\n")
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _answer(self, line: str) -> bytes:
        old, new = self.on_the_way_in
        if old and re.fullmatch(old, line):
            line = new
        answer = await self.smu.answer(line) if line else b""
        self.ever_on = self.ever_on or self.smu.smu.output.on
        query, said = self.read_back
        return said.encode() if query and line == query else answer


@contextlib.asynccontextmanager
async def tampered() -> AsyncIterator[tuple[Tampered, Keithley]]:
    config = SmuConfig(port=0, time_port=0, speed="virtual", serial=SERIAL)
    async with serve_smu(config, cell=hev()) as smu, Tampered(smu).listening() as wire:
        driver = Keithley(
            KeithleyConfig(resource=f"TCPIP::127.0.0.1::{wire.port}::SOCKET", serial=SERIAL),
            name="smu 1",
            clock=VirtualClock(),
        )
        try:
            yield wire, driver
        finally:
            await driver.close()


async def nothing_begins(wire: Tampered, driver: Keithley, work: Task, command: str) -> None:
    with pytest.raises(InstrumentError, match=r"although .* was set") as caught:
        await driver.arm("1", work)
    assert caught.value.instrument == "smu 1"
    assert caught.value.command == command
    assert caught.value.reply
    with pytest.raises(InstrumentError, match="was not armed"):
        await driver.begin("1", work)
    wire.smu.advance(5.0)
    assert not wire.ever_on
    assert not wire.smu.smu.output.on


async def test_an_untampered_wire_arms_what_was_asked() -> None:
    async with tampered() as (wire, driver):
        limits = await driver.arm("1", CHARGE)
        assert (limits.voltage_max_V, limits.current_max_A) == (4.103, 2e-4)
        assert not wire.ever_on
        await driver.begin("1", CHARGE)
        wire.smu.advance(1.0)
        assert wire.smu.smu.output.on


@pytest.mark.parametrize(
    ("work", "setting", "instead", "command"),
    [
        # the source limit is left at the 105 uA that *RST sets: 2461-901-01 ch. 6, ILIMit
        (CHARGE, r":SOUR:VOLT:ILIM .*", "", ":SOUR:VOLT:ILIM?"),
        (DISCHARGE, r":SOUR:VOLT:ILIM .*", ":SOUR:VOLT:ILIM 1", ":SOUR:VOLT:ILIM?"),
        (HOLD, r":SOUR:VOLT:ILIM .*", ":SOUR:VOLT:ILIM 1.001E-3", ":SOUR:VOLT:ILIM?"),
        (CHARGE, r":SOUR:VOLT \d.*", "", ":SOUR:VOLT?"),
        (CHARGE, r":SOUR:VOLT \d.*", ":SOUR:VOLT 4.2", ":SOUR:VOLT?"),
        (SWEEP, r":SOUR:VOLT \d.*", ":SOUR:VOLT 3.1", ":SOUR:VOLT?"),
        (CHARGE, r":SOUR:VOLT:PROT .*", "", ":SOUR:VOLT:PROT?"),
        (CHARGE, r":OUTP:VOLT:SMOD .*", ":OUTP:VOLT:SMOD NORM", ":OUTP:VOLT:SMOD?"),
        (REST, r":SOUR:CURR \d.*", ":SOUR:CURR 1E-6", ":SOUR:CURR?"),
        (REST, r":SOUR:FUNC CURR", "", ":SOUR:FUNC?"),
    ],
)
async def test_a_setting_that_is_clipped_or_left_at_its_default_closes_no_output(
    work: Task, setting: str, instead: str, command: str
) -> None:
    async with tampered() as (wire, driver):
        await driver.open()
        await wire.smu.answer("*RST")
        wire.on_the_way_in = (setting, instead)
        await nothing_begins(wire, driver, work, command)


@pytest.mark.parametrize(
    ("work", "query", "said"),
    [
        (CHARGE, ":SOUR:VOLT:ILIM?", "1.050000E-04"),
        (CHARGE, ":SOUR:VOLT:ILIM?", "2.000100E-04"),
        (CHARGE, ":SOUR:VOLT?", "0.000000E+00"),
        (CHARGE, ":SOUR:VOLT?", "-4.103000E+00"),
        (DISCHARGE, ":SOUR:VOLT?", "1.490000E+00"),
        (CHARGE, ":SOUR:VOLT:PROT?", "PROT40"),
        (CHARGE, ":SENS:CURR:RANG?", "1.000000E-02"),
        (CHARGE, ":SENS:CURR:RSEN?", "0"),
        (REST, ":SOUR:CURR:VLIM?", "2.100000E+01"),
        (REST, ":OUTP?", "1"),
    ],
)
async def test_limits_that_are_read_back_otherwise_close_no_output(
    work: Task, query: str, said: str
) -> None:
    async with tampered() as (wire, driver):
        await driver.off("1")
        wire.read_back = (query, said)
        if query == ":OUTP?":
            with pytest.raises(InstrumentError, match="LEAVES ITS OUTPUT ON"):
                await driver.arm("1", work)
            assert not wire.ever_on
        else:
            await nothing_begins(wire, driver, work, query)


@pytest.mark.parametrize("said", ["9.9E+37", "-", "2.0E-04;2.0E-04", "", "ILIM"])
async def test_a_limit_that_is_no_number_closes_no_output(said: str) -> None:
    async with tampered() as (wire, driver):
        await driver.off("1")
        wire.read_back = (":SOUR:VOLT:ILIM?", said or " ")
        with pytest.raises(InstrumentError) as caught:
            await driver.arm("1", CHARGE)
        assert caught.value.command == ":SOUR:VOLT:ILIM?"
        assert not wire.ever_on


def program_of(work: Task) -> Program:
    return Program(
        name="p",
        recipe_sha256="0",
        cell="HEV-01",
        body=(
            work.step.__class__(0, "charge", work.step.control, work.step.ends, work.step.record),
        ),
        limits=Limits(1.0, 4.4, -0.012, 0.012, 5e-4, 1e7),
    )


def test_without_its_watchdog_it_says_so_and_the_engine_refuses_to_charge_unattended() -> None:
    def driver(watchdog_s: float) -> Keithley:
        config = KeithleyConfig(resource="TCPIP::smu::5025::SOCKET", watchdog_s=watchdog_s)
        return Keithley(config, name="smu 1", clock=VirtualClock())

    assert driver(12.0).capabilities.failsafe is Failsafe.WATCHDOG
    assert driver(0.0).capabilities.failsafe is Failsafe.NONE
    for work in (CHARGE, HOLD):
        assert refusals_of(program_of(work), driver(12.0), chamber=False) == ()
        (refused,) = refusals_of(program_of(work), driver(0.0), chamber=False)
        assert "nothing would switch the instrument off" in refused
    for work in (DISCHARGE, REST):
        assert refusals_of(program_of(work), driver(0.0), chamber=False) == ()
