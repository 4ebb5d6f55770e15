"""The SourceMeter on its sockets: time, faults, one client, and what outlives the process."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from labctl.cli.simulate import app
from labctl.clock import ManualClock, RealClock
from labctl.errors import ConfigError
from labctl.simulators.cells import CellSpec
from labctl.simulators.faults import Fault, write_faults
from labctl.simulators.keithley.config import SmuConfig, changed, read_smu_config
from labctl.simulators.keithley.server import SimulatedSmu, serve_smu
from labctl.wire.timelink import SteppedClock

EMPTY = '0,"No error;0;0 0"'
HEV = CellSpec(name="HEV-01", material="HE-V", active_mass_g=0.002)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def tell(self, *lines: str) -> None:
        for line in lines:
            self._writer.write(line.encode() + b"\n")
        await self._writer.drain()

    async def ask(self, *lines: str) -> str:
        await self.tell(*lines)
        return (await self._reader.readuntil(b"\n")).decode("latin-1").rstrip("\n")

    async def rest(self) -> bytes:
        return await self._reader.read()


@contextlib.asynccontextmanager
async def client(smu: SimulatedSmu) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(smu.host, smu.port)
    try:
        async with asyncio.timeout(20):
            yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def config(**options: Any) -> SmuConfig:
    return SmuConfig(**{"port": 0, "load_ohm": 1000.0, **options})


async def test_it_answers_line_by_line_and_settings_get_no_answer() -> None:
    async with serve_smu(config()) as smu, client(smu) as wire:
        assert await wire.ask("*IDN?") == "KEITHLEY INSTRUMENTS,MODEL 2450,04419969,1.7.12b"
        assert await wire.ask(":SOUR:VOLT 1", ":BAD?", ":SYST:ERR:COUN?") == "1"
        assert (await wire.ask(":SYST:ERR?")).startswith('-113,"Undefined header')
        assert await wire.ask(":SYST:ERR?") == EMPTY


async def test_a_second_client_is_refused_while_there_is_a_first() -> None:
    async with serve_smu(config()) as smu:
        async with client(smu) as first:
            assert await first.ask("*LANG?") == "SCPI"
            async with client(smu) as second:
                await second.tell("*LANG?")
                assert await second.rest() == b""
            assert await first.ask("*LANG?") == "SCPI"
        async with client(smu) as third:
            assert await third.ask("*LANG?") == "SCPI"


async def test_virtual_time_is_moved_on_by_its_port_and_by_what_takes_time() -> None:
    async with serve_smu(config(speed="virtual", time_port=0)) as smu, client(smu) as wire:
        clock = SteppedClock(smu.host, smu.time_port)
        await clock.sleep(100.0)
        assert smu.smu.now_s == 100.0
        await wire.ask(":SENS:CURR:NPLC 10", ":READ?")
        assert smu.smu.now_s == pytest.approx(100.8, abs=1e-3)
        await clock.sleep(1.0)
        assert clock.monotonic_s() == pytest.approx(101.8, abs=1e-3)
        await wire.ask(':TRIG:LOAD "SimpleLoop",5,1', ":INIT", "*OPC?")
        assert await wire.ask(":TRAC:ACT?") == "5"
        await clock.close()


async def test_in_real_time_the_trigger_model_goes_on_while_nobody_asks() -> None:
    clock = ManualClock()
    async with serve_smu(config(), clock) as smu, client(smu) as wire:
        await wire.ask(
            ':TRIG:LOAD "SimpleLoop",100,1',
            ":SOUR:VOLT 1",
            ":SOUR:VOLT:ILIM 0.01",
            ":OUTP ON",
            ":INIT",
            "*LANG?",
        )
        await clock.advance(60.0)
        assert int(await wire.ask(":TRAC:ACT?")) == 55
        reading = asyncio.create_task(wire.ask(":ABOR", ":SENS:CURR:NPLC 10", ":READ?"))
        while not reading.done():
            await clock.advance(0.1)
            await asyncio.sleep(0)
        assert float(await reading) == pytest.approx(1e-3, abs=1e-5)
        assert smu.smu.now_s >= 60.8


async def test_a_hastened_one_lives_faster() -> None:
    async with serve_smu(config(speed=10_000.0)) as smu, client(smu) as wire:
        before = smu.smu.now_s
        await RealClock(10_000.0).sleep(1000.0)
        await wire.ask("*LANG?")
        assert smu.smu.now_s > before + 900.0


async def test_faults_break_the_wire_in_their_ways() -> None:
    def once(name: str, command: str = "", **more: Any) -> Fault:
        return Fault(name=name, command=command, times=1, **more)

    faults = (once("garbage", "*LANG?"), once("truncate", "*IDN?"), once("drop", ":OUTP?"[1:]))
    async with serve_smu(config(faults=faults, single_client=False)) as smu:
        async with client(smu) as wire:
            assert await wire.ask("*LANG?") != "SCPI"
            await wire.tell("*IDN?")
            assert await wire.rest() == b"KEITHLEY INSTRUMENTS,MOD"
        async with client(smu) as wire:
            await wire.tell(":OUTP?")
            assert await wire.rest() == b""
        async with client(smu) as wire:
            assert await wire.ask(":OUTP?;*LANG?") == "0;SCPI"


async def test_an_unplugged_one_hears_nothing_until_it_is_plugged_in(tmp_path: Path) -> None:
    async with serve_smu(config(state_dir=str(tmp_path))) as smu:
        async with client(smu) as wire:
            assert await wire.ask(":OUTP ON", ":OUTP?") == "1"
            write_faults(tmp_path / "faults.json", [Fault(name="unplugged")])
            await wire.tell(":OUTP OFF")
            assert await wire.rest() == b""
        async with client(smu) as wire:
            await wire.tell(":OUTP OFF")
            with contextlib.suppress(ConnectionError):
                assert await wire.rest() == b""
        write_faults(tmp_path / "faults.json", [])
        async with client(smu) as wire:
            assert await wire.ask(":OUTP?") == "1"


async def test_a_cell_is_as_it_was_left_and_settings_are_not(tmp_path: Path) -> None:
    options = config(
        load_ohm=float("inf"), cell=HEV, speed="virtual", time_port=0, state_dir=str(tmp_path)
    )
    async with serve_smu(options) as smu, client(smu) as wire:
        clock = SteppedClock(smu.host, smu.time_port)
        await wire.ask(":SOUR:VOLT 4", ":SOUR:VOLT:ILIM 1e-3", ":OUTP ON", "*LANG?")
        await clock.sleep(600.0)
        await clock.close()
        left_V = smu.smu.cell.voltage_V()
        with pytest.raises(ConfigError, match="another instrument uses this state directory"):
            async with serve_smu(options):
                pass
    async with serve_smu(options) as smu, client(smu) as wire:
        assert smu.smu.cell.voltage_V() == pytest.approx(left_V, abs=1e-9)
        assert smu.smu.now_s == 600.0
        assert await wire.ask(":OUTP?;:SOUR:VOLT?") == "0;0.000000E+00"


def test_a_wrong_file_names_the_key(tmp_path: Path) -> None:
    file = tmp_path / "smu.toml"
    for text, says in (
        ("model = '2400'", "model must be one of 2450"),
        ("time_port = 1", "only time that is virtual"),
        ("serial = 'a b'", "serial must be"),
        ("speed = 'fast'", "speed"),
        ("line_Hz = 55.0", "line_Hz must be 50 or 60"),
        ("off_state = 'OPEN'", "off_state must be NORM"),
        ("load_ohm = 0.0", "load_ohm must be above 0"),
        ("color = 1", "color"),
        ("port 7", "line 1"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=says):
            read_smu_config(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_smu_config(tmp_path / "none.toml")


async def test_a_cell_that_cannot_be_is_refused() -> None:
    spec = CellSpec(name="x", material="unobtainium", active_mass_g=1.0)
    with pytest.raises(ConfigError, match="unobtainium"):
        async with serve_smu(config(load_ohm=float("inf"), cell=spec)):
            pass


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "smu.toml"
    file.write_text(
        "port = 1\nstate_dir = 'kept'\n[cell]\nname='x'\nmaterial='HE-V'\nactive_mass_g=1e-3\n"
    )
    read = read_smu_config(file)
    assert read.state_dir == str(tmp_path / "kept")
    other = changed(read, port=7, speed="virtual", time_port=0)
    assert (other.port, other.time_port, other.is_virtual, other.cell) == (7, 0, True, read.cell)
    with pytest.raises(ConfigError, match="command line"):
        changed(read, time_port=3)


async def test_the_command_tells_where_it_listens_and_ends_when_it_is_told(tmp_path: Path) -> None:
    file, ready = tmp_path / "smu.toml", tmp_path / "ready"
    file.write_text("port = 0\nload_ohm = 1000.0\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "labctl", "simulate", "keithley", "--config", str(file),
        "--speed", "virtual", "--time-port", "0", "--ready-file", str(ready),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            assert process.stdout is not None
            said = (await process.stdout.readline()).decode()
            address, time_address = ready.read_text().split()
            assert said == (
                f"Keithley 2450 SourceMeter at {address}, its time port at {time_address}\n"
            )
            clock = SteppedClock("127.0.0.1", int(time_address.rpartition(":")[2]))
            await clock.sleep(7.0)
            await clock.close()
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_the_command_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    file = tmp_path / "smu.toml"
    file.write_text("model = '2400'")
    result = CliRunner().invoke(app, ["keithley", "--config", str(file)])
    assert isinstance(result.exception, ConfigError)
