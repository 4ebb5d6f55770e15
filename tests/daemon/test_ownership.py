"""Two daemons, one instrument: one has it, the other says who, and takes it when it is free."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from labctl.control import Command, Done, GetStatus, RegisterCell, StartRun, Status, ask
from labctl.daemon import open_node, owned
from labctl.daemon.commands import Commands
from labctl.daemon.node import Node
from labctl.daemon.status import status_of
from labctl.errors import CommandError, LinkError
from labctl.model import Cell
from labctl.settings import Settings, load_settings
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import SimulatedSmu, serve_smu
from labctl.simulators.neware_bts.rack import Rack, RackConfig, serve_rack
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import serve_potentiostat

RECIPE = """
recipe: A moment
steps:
  - rest: 1 s
"""
CELL = Cell(
    name="a",
    material="HE-V",
    active_mass_g=2e-3,
    one_C_mA_per_g=100.0,
    safe_voltage_min_V=1.0,
    safe_voltage_max_V=4.5,
)


def settings_of(folder: Path, name: str, tables: str) -> Settings:
    (folder / name).mkdir()
    file = folder / name / "labctl.toml"
    file.write_text(
        f'[node]\nname = "{name}"\nlock_dir = "../locks"\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n'
        + tables
    )
    return load_settings(file)


def keithley(name: str, port: int, host: str = "127.0.0.1") -> str:
    return (
        f'[instruments.{name}]\ndriver = "keithley"\nresource = "TCPIP::{host}::{port}::SOCKET"\n'
    )


def rack(name: str, port: int, folder: Path) -> str:
    return (
        f'[instruments.{name}]\ndriver = "neware_bts"\nhost = "127.0.0.1"\nport = {port}\n'
        f'step_file_dir = "{folder}"\n'
    )


@asynccontextmanager
async def at_work(settings: Settings) -> AsyncIterator[Node]:
    async with open_node(settings) as node:
        working = asyncio.create_task(node.work())
        try:
            yield node
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15.0):
        while not condition():
            await asyncio.sleep(0.002)


def problem(node: Node, instrument: str) -> str:
    return node.instruments[instrument].problem


def ready(node: Node, instrument: str) -> bool:
    return node.instruments[instrument].ready.is_set()


@pytest.fixture
async def smu() -> AsyncIterator[SimulatedSmu]:
    async with serve_smu(SmuConfig(port=0, single_client=False)) as served:
        yield served


@pytest.fixture
async def bts() -> AsyncIterator[Rack]:
    async with serve_rack(RackConfig(port=0, units=1)) as served:
        yield served


async def test_the_second_daemon_says_who_has_it_and_takes_it_when_it_is_free(
    tmp_path: Path, smu: SimulatedSmu, bts: Rack
) -> None:
    one = settings_of(tmp_path, "one", keithley("smu", smu.port))
    two = settings_of(
        tmp_path, "two", keithley("meter", smu.port, "localhost") + rack("rack", bts.port, tmp_path)
    )
    async with at_work(two) as second:
        async with open_node(one) as first, asyncio.TaskGroup() as group:
            await until(lambda: ready(second, "meter"))
            working = group.create_task(first.work())
            await until(lambda: "owned by" in problem(first, "smu"))
            assert "labctl node two, instrument meter, process" in problem(first, "smu")
            assert f"process {os.getpid()} on " in problem(first, "smu")
            [seen] = (await status_of(first)).instruments
            assert not seen.connected
            assert "owned by labctl node two" in seen.problem
            working.cancel()
        await until(lambda: ready(second, "rack"))
    async with at_work(one) as first:
        await until(lambda: ready(first, "smu"))


async def test_runs_are_refused_for_anothers_instrument_and_the_others_go_on(
    tmp_path: Path, smu: SimulatedSmu, bts: Rack
) -> None:
    one = settings_of(tmp_path, "one", keithley("smu", smu.port))
    two = settings_of(tmp_path, "two", keithley("smu", smu.port) + rack("rack", bts.port, tmp_path))
    async with at_work(one) as first:
        await until(lambda: ready(first, "smu"))
        async with at_work(two) as second:
            await until(lambda: ready(second, "rack"))
            await until(lambda: "owned by labctl node one" in problem(second, "smu"))
            obey = Commands(second).obey

            async def told(request: RegisterCell | StartRun) -> Done:
                id_ = str(time.perf_counter_ns())
                answer = await obey(Command(id=id_, expires_unix_s=9e9, request=request), "anna")
                assert isinstance(answer, Done)
                return answer

            def run_on(instrument: str, channel: str) -> StartRun:
                return StartRun(
                    recipe_text=RECIPE,
                    recipe_file="r",
                    cell="a",
                    instrument=instrument,
                    channel=channel,
                )

            await told(RegisterCell(cell=CELL))
            with pytest.raises(CommandError, match="smu is away: owned by labctl node one"):
                await told(run_on("smu", "1"))
            channel = second.instruments["rack"].channels[0]
            assert (await told(run_on("rack", channel))).run


@asynccontextmanager
async def another_way_to(port: int) -> AsyncIterator[int]:
    """A port that leads to another one, as a tunnel or a gateway does."""
    talks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                writer.write(data)
        writer.close()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.create_task(lead(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for talk in talks:
        talk.cancel()
    await asyncio.gather(*talks, return_exceptions=True)


async def test_an_instrument_is_known_by_its_number_at_another_address(
    tmp_path: Path, smu: SimulatedSmu
) -> None:
    async with another_way_to(smu.port) as other_port:
        one = settings_of(tmp_path, "one", keithley("smu", smu.port))
        two = settings_of(tmp_path, "two", keithley("meter", other_port))
        async with at_work(one) as first:
            await until(lambda: ready(first, "smu"))
            async with at_work(two) as second:
                await until(lambda: "owned by labctl node one" in problem(second, "meter"))
                assert "number keithley instruments 04419969" in problem(second, "meter")
                assert not second.instruments["meter"].owned._ownership.held
        async with at_work(settings_of(tmp_path, "three", keithley("m", other_port))) as third:
            await until(lambda: ready(third, "m"))


async def test_one_node_does_not_have_one_instrument_twice(
    tmp_path: Path, smu: SimulatedSmu
) -> None:
    tables = keithley("a", smu.port) + keithley("b", smu.port)
    async with at_work(settings_of(tmp_path, "one", tables)) as node:
        await until(lambda: any("owned by" in problem(node, name) for name in "ab"))
        [owner] = [name for name in "ab" if "owned by" not in problem(node, name)]
        other = "b" if owner == "a" else "a"
        assert f"labctl node one, instrument {owner}, process" in problem(node, other)


async def test_two_racks_that_call_their_units_the_same_are_two(tmp_path: Path, bts: Rack) -> None:
    """A BTS host has no serial number, and every laboratory's first unit is unit 1."""
    async with serve_rack(RackConfig(port=0, units=1)) as other:
        tables = rack("a", bts.port, tmp_path) + rack("b", other.port, tmp_path)
        async with at_work(settings_of(tmp_path, "one", tables)) as node:
            await until(lambda: ready(node, "a") and ready(node, "b"))


async def test_what_cannot_be_reached_is_not_kept_from_others(
    tmp_path: Path, smu: SimulatedSmu
) -> None:
    one = settings_of(tmp_path, "one", keithley("smu", smu.port) + 'serial = "other"\n')
    two = settings_of(tmp_path, "two", keithley("smu", smu.port))
    async with at_work(one) as first:
        await until(lambda: "has the serial number" in problem(first, "smu"))
        async with at_work(two) as second:
            await until(lambda: ready(second, "smu"))


async def test_a_port_that_is_plugged_in_anew_is_owned_by_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "LOOK_AGAIN_S", 0.01)
    config = PotentiostatConfig(model="EmStat4S HR", link=str(tmp_path / "by-id"), speed="virtual")
    async with serve_potentiostat(config) as potentiostat:
        table = (
            '[instruments.ps]\ndriver = "palmsens"\nmodel = "EmStat4S HR"\n'
            f'port = "{tmp_path}/by-id"\n'
        )
        async with at_work(settings_of(tmp_path, "one", table)) as node:
            await until(lambda: ready(node, "ps"))
            held = node.instruments["ps"].owned._ownership
            before = str((tmp_path / "by-id").readlink())
            assert f"serial {before}" in held.held
            potentiostat.unplug()
            elsewhere, slave = os.openpty()
            potentiostat.plug()
            after = str((tmp_path / "by-id").readlink())
            assert after != before
            await until(lambda: f"serial {after}" in held.held)
            assert f"serial {before}" not in held.held
            assert any(name.startswith("number palmsens") for name in held.held)
            os.close(elsewhere)
            os.close(slave)


async def test_a_daemon_that_is_killed_frees_its_instruments(
    tmp_path: Path, smu: SimulatedSmu
) -> None:
    one = settings_of(tmp_path, "one", keithley("smu", smu.port))
    two = settings_of(tmp_path, "two", keithley("smu", smu.port))
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "labctl", "daemon", "--config", str(tmp_path / "one" / "labctl.toml")),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20.0):
            connected = False
            while not connected:
                await asyncio.sleep(0.05)
                with contextlib.suppress(LinkError):
                    status = await ask(one.socket, GetStatus(), Status)
                    connected = status.instruments[0].connected
        async with at_work(two) as node:
            await until(lambda: "owned by labctl node one" in problem(node, "smu"))
            assert f"process {daemon.pid} on" in problem(node, "smu")
            daemon.send_signal(signal.SIGKILL)
            await until(lambda: ready(node, "smu"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            daemon.kill()
        await daemon.wait()
