"""The instrument's end of the line, spoken to in bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from labctl.clock import ManualClock
from labctl.errors import ConfigError
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.faults import Fault, write_faults
from labctl.simulators.palmsens.config import (
    PotentiostatConfig,
    changed,
    read_potentiostat_config,
)
from labctl.simulators.palmsens.server import SimulatedPotentiostat, serve_potentiostat

OCP = "e\nvar p\nmeas_loop_ocp p 1 {run}\npck_start\npck_add p\npck_end\nendloop\n\n"
HELD = (
    "e\nvar p\nvar c\nset_pgstat_mode 6\nset_range db 1m\nset_i 1m\ncell_on\n"
    "meas_loop_cp p c 1m 1 {run}\npck_start\npck_add c\npck_end\nendloop\n"
    'send_string "after"\non_finished:\ncell_off\n\n'
)


class Terminal:
    """Whoever is at the other end."""

    def __init__(self, simulated: SimulatedPotentiostat) -> None:
        self.simulated = simulated
        self._fd = os.open(simulated.address, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self._heard = b""

    def say(self, text: str) -> None:
        os.write(self._fd, text.encode())

    async def line(self) -> str:
        async with asyncio.timeout(10):
            while b"\n" not in self._heard:
                try:
                    self._heard += os.read(self._fd, 4096)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    async def ask(self, text: str) -> str:
        self.say(text + "\n")
        reply = await self.line()
        if "!" in reply:
            await asyncio.sleep(0.1)
        return reply

    async def to_the_end(self) -> list[str]:
        lines = [await self.line()]
        while lines[-1]:
            lines.append(await self.line())
        return lines[:-1]

    def close(self) -> None:
        os.close(self._fd)


Maker = Callable[..., AbstractAsyncContextManager[Terminal]]


@pytest.fixture
def terminal() -> Maker:
    @contextlib.asynccontextmanager
    async def make(**options: Any) -> AsyncIterator[Terminal]:
        config = PotentiostatConfig(**{"speed": "virtual", "load_ohm": 1000.0, **options})
        async with serve_potentiostat(config) as simulated:
            end = Terminal(simulated)
            try:
                yield end
            finally:
                end.close()

    return make


async def test_it_names_itself_as_the_protocol_has_it(terminal: Maker) -> None:
    """Communication protocol EmStat4 v1.3: t, i and v."""
    async with terminal(model="EmStat4S LR", serial="ES4LR20B0008") as end:
        assert (await end.ask("t")).startswith("tes4_lr1")
        assert await end.line() == "R*"
        assert await end.ask("i") == "iES4LR20B0008"
        assert await end.ask("v") == "v01.09.00"
    async with terminal(model="EmStat Pico") as end:
        assert (await end.ask("t")) == "tespico1600#Sep 30 2025 12:00:00"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("x", "x!0003"),
        ("m", "m!0048"),
        ("G42", "G!0004"),
        ("r", "r!000C"),
        ("Z", "Z!0006"),
        ("h", "h!0006"),
        ("fs_dir /", "fs_dir!001B"),
        ("l\nvar 1\n", "l!402B: Line 1, Col 5"),
        ("e\nwait 1\nbeep 1i\n", "e!001B: Line 2, Col 1"),
        ("", None),
    ],
)
async def test_what_it_does_not_do_is_refused_with_a_code(
    terminal: Maker, command: str, reply: str | None
) -> None:
    """MethodSCRIPT manual v1.8, appendix A; e!4001: Line 3, Col 9 is the form."""
    async with terminal() as end:
        if reply is None:
            end.say("\n\n")
        else:
            assert await end.ask(command) == reply
        assert await end.ask("i") == "iES4HR20B0008"


async def test_after_an_error_it_is_deaf_for_a_moment(terminal: Maker) -> None:
    """Communication protocol EmStat4 v1.3, chapter 8: some 50 to 100 ms."""
    async with terminal() as end:
        end.say("x\n")
        assert await end.line() == "x!0003"
        end.say("t\n")
        await asyncio.sleep(0.15)
        assert await end.ask("i") == "iES4HR20B0008"


async def test_flow_control_characters_are_not_commands(terminal: Maker) -> None:
    async with terminal() as end:
        assert await end.ask("\x11i\x13\r") == "iES4HR20B0008"


async def test_a_script_writes_its_echo_its_output_and_an_empty_line(terminal: Maker) -> None:
    async with terminal() as end:
        end.say(OCP.format(run=3))
        lines = await end.to_the_end()
        assert [line[:3] for line in lines] == ["e", "M00", "Pab", "Pab", "Pab", "*"]


async def test_a_script_that_was_loaded_can_be_run_again_and_again(terminal: Maker) -> None:
    async with terminal() as end:
        assert await end.ask("l" + OCP.format(run=2)[1:].rstrip("\n") + "\n") == "l"
        for _ in range(2):
            end.say("r\n")
            assert [line[0] for line in await end.to_the_end()] == ["r", "M", "P", "P", "*"]


async def test_while_a_script_runs_other_commands_are_refused(terminal: Maker) -> None:
    async with terminal() as end:
        end.say(HELD.format(run=100_000))
        assert await end.line() == "e"
        for command in ("i", "t", "e", "r"):
            end.say(command + "\n")
            while "!" not in (line := await end.line()):
                pass
            assert line == f"{command}!0006"
            await asyncio.sleep(0.1)
        assert end.simulated.device.on
        end.say("Z\n")
        lines = await end.to_the_end()
        assert [line for line in lines if line[0] not in "PM"] == ["Z", "*"]
        assert not end.simulated.device.on


async def test_an_abort_acts_although_nobody_reads(terminal: Maker) -> None:
    async with terminal() as end:
        end.say(HELD.format(run=100_000))
        while not end.simulated.device.on:
            await asyncio.sleep(0.001)
        end.say("Z\n")
        lines = await end.to_the_end()
        assert len(lines) < 100
        assert not end.simulated.device.on


async def test_a_loop_can_be_left_and_the_script_goes_on(terminal: Maker) -> None:
    async with terminal() as end:
        end.say(HELD.format(run=100_000))
        assert await end.line() == "e"
        end.say("Y\n")
        lines = await end.to_the_end()
        assert [line for line in lines if line[0] not in "PM"] == ["Y", "*", "Tafter"]


async def test_a_script_can_be_halted_and_goes_on(terminal: Maker) -> None:
    async with terminal() as end:
        end.say(HELD.format(run=30))
        assert await end.line() == "e"
        end.say("h\n")
        seen = 0
        while (line := await end.line()) != "h":
            seen += line.startswith("P")
        for _ in range(50):
            await asyncio.sleep(0)
        halted_s = end.simulated.device.now_s
        await asyncio.sleep(0.02)
        assert end.simulated.device.now_s == halted_s
        end.say("H\n")
        lines = await end.to_the_end()
        assert "H" in lines
        assert seen + sum(line.startswith("P") for line in lines) == 30


async def test_a_script_that_fails_leaves_the_cell_on(terminal: Maker) -> None:
    """MethodSCRIPT manual v1.8, chapter 10.1: on_finished is not carried out."""
    async with terminal() as end:
        end.say("e\nvar a\nset_pgstat_mode 3\ncell_on\ndiv_var a 0\non_finished:\ncell_off\n\n")
        assert await end.to_the_end() == ["e", "!0028: Line 4"]
        assert end.simulated.device.on
        end.say("e\ncell_off\n\n")
        assert await end.to_the_end() == ["e"]
        assert not end.simulated.device.on


async def test_time_passes_as_fast_as_it_is_told_to(tmp_path: Path) -> None:
    clock = ManualClock()
    config = PotentiostatConfig(load_ohm=1000.0)
    async with serve_potentiostat(config, clock) as simulated:
        end = Terminal(simulated)
        end.say(OCP.format(run=5))
        assert await end.line() == "e"
        assert await end.line() == "M000B"
        for second in range(1, 4):
            waiting = asyncio.create_task(end.line())
            await clock.advance(0.9)
            assert not waiting.done()
            assert simulated.device.now_s == pytest.approx(second)
            await clock.advance(0.1)
            assert (await waiting).startswith("P")
        ending = asyncio.create_task(end.to_the_end())
        while not ending.done():
            await clock.advance(0.5)
            await asyncio.sleep(0.001)
        assert [line[0] for line in await ending] == ["P", "P", "*"]
        end.close()


async def test_a_cell_rests_between_scripts_where_time_is_not_virtual() -> None:
    clock = ManualClock()
    cell = CellSpec(name="c", material="HE-V", active_mass_g=0.002)
    async with serve_potentiostat(PotentiostatConfig(cell=cell), clock) as simulated:
        await clock.advance(5000.0)
        simulated.instrument.catch_up()
        assert simulated.device.now_s == pytest.approx(5000.0)


async def test_what_nobody_takes_is_thrown_away_where_time_is_not_virtual() -> None:
    config = PotentiostatConfig(load_ohm=1000.0, speed=2000.0)
    async with serve_potentiostat(config) as simulated:
        end = Terminal(simulated)
        end.say(OCP.format(run=1500))
        async with asyncio.timeout(20):
            while not simulated.instrument.runs or simulated.instrument.running:
                await asyncio.sleep(0.01)
        assert simulated.device.now_s >= 1500.0
        end.close()


async def test_a_pulled_plug_takes_the_port_and_its_name_away(tmp_path: Path) -> None:
    link = tmp_path / "ps"
    config = PotentiostatConfig(speed="virtual", load_ohm=1e3, link=str(link))
    async with serve_potentiostat(config) as simulated:
        assert link.is_symlink()
        end = Terminal(simulated)
        end.say(HELD.format(run=100_000))
        assert await end.line() == "e"
        simulated.unplug()
        assert not link.exists()
        assert not simulated.device.on
        end.close()
        simulated.plug()
        again = Terminal(simulated)
        assert await again.ask("i") == "iES4HR20B0008"
        again.close()
    assert not link.is_symlink()


async def test_faults_are_read_from_a_file_while_it_runs(tmp_path: Path) -> None:
    config = PotentiostatConfig(speed="virtual", load_ohm=1e3, state_dir=str(tmp_path / "state"))
    async with serve_potentiostat(config) as simulated:
        end = Terminal(simulated)
        assert await end.ask("i") == "iES4HR20B0008"
        write_faults(tmp_path / "state" / "faults.json", [Fault("wrong_serial")])
        assert await end.ask("i") == "i8000B02RH4SE"
        write_faults(tmp_path / "state" / "faults.json", [])
        assert await end.ask("i") == "iES4HR20B0008"
        end.close()


async def test_the_cell_outlives_the_process(tmp_path: Path) -> None:
    cell = CellSpec(name="c", material="HE-V", active_mass_g=0.002)
    config = PotentiostatConfig(speed="virtual", cell=cell, state_dir=str(tmp_path / "state"))
    async with serve_potentiostat(config) as simulated:
        before_V = simulated.device.cell.voltage_V()
        end = Terminal(simulated)
        end.say(HELD.format(run=300))
        await end.to_the_end()
        charged = simulated.device.cell.state()
        assert simulated.device.cell.voltage_V() > before_V + 0.1
        with pytest.raises(ConfigError, match="another instrument uses"):
            async with serve_potentiostat(config):
                pass
        end.close()
    async with serve_potentiostat(config) as simulated:
        assert simulated.device.cell.state() == charged
        assert not simulated.device.on


def test_a_file_describes_an_instrument(tmp_path: Path) -> None:
    file = tmp_path / "ps.toml"
    file.write_text(
        'model = "Nexus"\nlink = "ps"\nspeed = 60\nstate_dir = "state"\n'
        '[cell]\nname = "c"\nmaterial = "HE-V"\nactive_mass_g = 0.002\n'
    )
    config = read_potentiostat_config(file)
    assert config.model == "Nexus"
    assert config.link == str(tmp_path / "ps")
    assert config.state_dir == str(tmp_path / "state")
    assert changed(config, speed="virtual", port=0).is_virtual


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('model = "PalmSens9"', "model must be one of"),
        ('serial = "a b"', "letters and digits"),
        ("port = 70000", "port must be"),
        ('speed = "often"', "speed"),
        ("[cell\n", "Cannot declare|Expected|Invalid|expected"),
        ("modle = 1", "modle"),
        ("load_ohm = 0", "load_ohm must be above 0"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "ps.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_potentiostat_config(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_potentiostat_config(tmp_path / "nothing.toml")
