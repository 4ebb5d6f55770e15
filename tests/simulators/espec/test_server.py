"""A chamber at its port: lines, faults, time, and what outlives it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from labctl.errors import ConfigError
from labctl.simulators.espec.config import ChamberConfig, changed, read_chamber_config
from labctl.simulators.espec.server import SimulatedChamber, serve_chamber
from labctl.simulators.faults import Fault, write_faults
from labctl.wire.timelink import SteppedClock


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[SimulatedChamber]:
    wanted = {"speed": "virtual", "time_port": 0, "noise_K": 0.0, **options}
    if "link" not in wanted:
        wanted["port"] = 0
    if wanted["speed"] != "virtual":
        wanted["time_port"] = None
    async with serve_chamber(ChamberConfig(**wanted)) as chamber:
        yield chamber


class Client:
    """A program of somebody else's, on a plain socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, line: bytes) -> bytes:
        """The answer, b'' when the connection is closed."""
        self._writer.write(line)
        async with asyncio.timeout(5.0):
            return await self._reader.readline()

    def write(self, line: bytes) -> None:
        self._writer.write(line)


@asynccontextmanager
async def client(chamber: SimulatedChamber) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(chamber.host, chamber.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_lines_end_with_cr_lf_both_ways() -> None:
    async with serving() as chamber, client(chamber) as talk:
        assert await talk.ask(b"MON?\r\n") == b"23.0,45,STANDBY,0\r\n"
        assert await talk.ask(b"TEMP, S30.0\r\n") == b"OK:TEMP, S30.0\r\n"
        assert await talk.ask(b"\xff\xfe\r\n") == b"NA:CMD ERR\r\n"


async def test_virtual_time_moves_by_its_time_port_only() -> None:
    async with serving() as chamber, client(chamber) as talk:
        clock = SteppedClock(chamber.host, chamber.time_port)
        await talk.ask(b"TEMP, S60.0\r\n")
        await talk.ask(b"MODE, CONSTANT\r\n")
        assert (await talk.ask(b"TEMP?\r\n")).startswith(b"23.0,60.0")
        await clock.sleep(600.0)
        assert (await talk.ask(b"TEMP?\r\n")).startswith(b"53.0,60.0")
        await clock.close()


async def test_real_time_is_hastened() -> None:
    async with serving(speed=1e5, busy=0.0) as chamber, client(chamber) as talk:
        await talk.ask(b"TEMP, S60.0\r\n")
        await talk.ask(b"MODE, CONSTANT\r\n")
        async with asyncio.timeout(5.0):
            while not (await talk.ask(b"TEMP?\r\n")).startswith(b"60.0"):
                await asyncio.sleep(0)


async def test_a_hasty_command_waits_or_is_lost() -> None:
    async with serving(speed=1.0, busy=0.2) as chamber, client(chamber) as talk:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await talk.ask(b"TEMP, S30.0\r\n")
        assert await talk.ask(b"MODE?\r\n") == b"STANDBY\r\n"
        assert loop.time() - began_s >= 0.1
    async with serving(speed=1.0, busy=0.2, hasty="lost") as chamber, client(chamber) as talk:
        talk.write(b"TEMP, S31.0\r\nTEMP, S32.0\r\n")
        assert await talk.ask(b"") == b"OK:TEMP, S31.0\r\n"
        async with asyncio.timeout(5.0):
            while not chamber.wire.lost:
                await asyncio.sleep(0)
        assert chamber.chamber.settings.temperature_degC == 31.0


async def test_a_second_client_is_sent_away() -> None:
    async with serving() as chamber, client(chamber) as first, client(chamber) as second:
        assert await first.ask(b"MODE?\r\n") == b"STANDBY\r\n"
        assert await second.ask(b"MODE?\r\n") == b""
        assert await first.ask(b"MODE?\r\n") == b"STANDBY\r\n"


@pytest.mark.parametrize(
    ("name", "answer", "carried_out"),
    [
        ("drop", b"", True),
        ("drop_unheard", b"", False),
        ("truncate", b"OK:TEMP,", True),
        ("unavailable", b"NA:CHB NOT READY\r\n", False),
    ],
)
async def test_faults_do_what_they_say(
    name: str, answer: bytes, carried_out: bool, tmp_path: Path
) -> None:
    fault = Fault(name, command="TEMP")
    async with serving(faults=(fault,), state_dir=str(tmp_path)) as chamber:
        async with client(chamber) as talk:
            assert await talk.ask(b"TEMP, S31.0\r\n") == answer
        assert (chamber.chamber.settings.temperature_degC == 31.0) is carried_out


async def test_a_fault_is_switched_on_and_off_while_it_runs(tmp_path: Path) -> None:
    async with serving(state_dir=str(tmp_path)) as chamber, client(chamber) as talk:
        write_faults(tmp_path / "faults.json", [Fault("wrong_serial")])
        assert await talk.ask(b"ROM?\r\n") == b"OTHER VER0.01\r\n"
        write_faults(tmp_path / "faults.json", [])
        assert await talk.ask(b"ROM?\r\n") == b"PR3J VER1.10\r\n"


async def test_it_goes_on_as_it_was_when_it_is_started_again(tmp_path: Path) -> None:
    options = {"state_dir": str(tmp_path)}
    async with serving(**options) as chamber, client(chamber) as talk:
        await talk.ask(b"TEMP, S60.0 H70.0 L5.0\r\n")
        await talk.ask(b"MODE, CONSTANT\r\n")
        chamber.advance(600.0)
    async with serving(**options) as chamber, client(chamber) as talk:
        assert await talk.ask(b"TEMP?\r\n") == b"53.0,60.0,70.0,5.0\r\n"
        assert await talk.ask(b"MODE?\r\n") == b"CONSTANT\r\n"
    async with serving(model="P-300", **options) as chamber, client(chamber) as talk:
        assert (await talk.ask(b"TEMP?\r\n")).startswith(b"23.0,25.0")


async def test_two_simulators_do_not_share_a_state(tmp_path: Path) -> None:
    async with serving(state_dir=str(tmp_path)):
        with pytest.raises(ConfigError, match="another instrument uses"):
            async with serving(state_dir=str(tmp_path)):
                pass


async def test_a_power_cut_leaves_it_standing_still() -> None:
    async with serving() as chamber:
        async with client(chamber) as talk:
            await talk.ask(b"TEMP, S60.0\r\n")
            await talk.ask(b"MODE, CONSTANT\r\n")
            await chamber.power_cut()
            assert await talk.ask(b"MODE?\r\n") == b""
        async with client(chamber) as talk:
            assert await talk.ask(b"MODE?\r\n") == b"STANDBY\r\n"
            assert (await talk.ask(b"TEMP?\r\n")).startswith(b"23.0,60.0")


async def test_an_unplugged_chamber_works_on() -> None:
    async with serving() as chamber:
        async with client(chamber) as talk:
            await talk.ask(b"TEMP, S60.0\r\n")
            await talk.ask(b"MODE, CONSTANT\r\n")
        await chamber.unplug()
        chamber.advance(600.0)
        with pytest.raises(OSError, match=r"refused|failed"):
            async with client(chamber):
                pass
        await chamber.plug()
        async with client(chamber) as talk:
            assert (await talk.ask(b"TEMP?\r\n")).startswith(b"53.0,60.0")


async def test_a_serial_line_has_a_name(tmp_path: Path) -> None:
    async with serving(link=str(tmp_path / "oven"), unit=2) as chamber:
        assert chamber.address == str(tmp_path / "oven")
        assert await over_serial(chamber.address, b"2,MODE?\r\n") == b"STANDBY\r\n"
        assert await over_serial(chamber.address, b"2,MODE,OFF\r\n") == b"OK:2,MODE,OFF\r\n"
        assert await over_serial(chamber.address, b"MODE?\r\n") == b"NA:ADDR ERR\r\n"
        assert await over_serial(chamber.address, b"3,MODE?\r\n2,MODE?\r\n") == b"OFF\r\n"
    assert not (tmp_path / "oven").is_symlink()


async def over_serial(path: str, line: bytes) -> bytes:
    def talk() -> bytes:
        port = os.open(path, os.O_RDWR | os.O_NOCTTY)
        try:
            os.write(port, line)
            heard = b""
            while not heard.endswith(b"\n"):
                heard += os.read(port, 100)
            return heard
        finally:
            os.close(port)

    async with asyncio.timeout(5.0):
        return await asyncio.to_thread(talk)


async def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            async with serve_chamber(ChamberConfig(port=taken.getsockname()[1])):
                pass


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "oven.toml"
    file.write_text('model = "SCP-220"\nlink = "oven"\nstate_dir = "state"\nunit = 3\n')
    config = read_chamber_config(file)
    assert (config.link, config.state_dir) == (str(tmp_path / "oven"), str(tmp_path / "state"))
    assert changed(config, port=0).link == ""
    assert changed(config, speed="60").speed == "60"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('model = "P-400"', "model must be one of PR-3J, P-300, SCP-220"),
        ("port = 70000", "port must be 0 to 65535"),
        ('link = "a"\nport = 1', "either a port or a link"),
        ("time_port = 1", "only time that is virtual"),
        ('hasty = "soon"', "hasty must be wait or lost"),
        ("heating_K_per_min = 0", "heating_K_per_min must be"),
        ('speed = "fast"', "speed"),
        ("colour = 1", "colour"),
        ("= 1", "line 1"),
    ],
)
def test_a_file_that_is_wrong_is_said(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "oven.toml"
    file.write_text(text + "\n")
    with pytest.raises(ConfigError, match=says):
        read_chamber_config(file)
