"""A scan against simulated instruments, and against things that are none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from labctl.discovery.conversation import Patience
from labctl.discovery.places import place_of_port, place_of_resource
from labctl.discovery.scan import AT_ONCE, Outcome, Seen, scan
from labctl.drivers.probe import Place, Wire
from labctl.errors import ConfigError
from labctl.simulators.espec.config import ChamberConfig
from labctl.simulators.espec.server import serve_chamber
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import serve_smu
from labctl.simulators.neware_bts.rack import RackConfig, serve_rack
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import serve_potentiostat
from labctl.simulators.rodeostat.config import RodeostatSimConfig
from labctl.simulators.rodeostat.server import serve_rodeostat
from labctl.wire.ownership import Ownership
from labctl.wire.places import number_name, tcp_names

QUICK = Patience(answer_s=0.05, longest_s=2.0, guess_s=0.3, pause_s=0.02)
NODE = "labctl node lab1, instrument smu"


def tcp(port: int) -> Place:
    return Place(wire=Wire.TCP, address="127.0.0.1", port=port)


async def seen_at(folder: Path, *places: Place, patience: Patience = QUICK) -> tuple[Seen, ...]:
    return await asyncio.to_thread(scan, places, folder / "locks", patience=patience)


async def test_every_simulated_instrument_is_told_by_what_it_says(tmp_path: Path) -> None:
    async with (
        serve_smu(SmuConfig(port=0, model="2461", serial="04088712")) as smu,
        serve_rack(RackConfig(port=0, units=2)) as rack,
        serve_potentiostat(PotentiostatConfig(link=str(tmp_path / "ps"))) as potentiostat,
        serve_potentiostat(PotentiostatConfig(port=0, model="Nexus", serial="NX1")) as nexus,
        serve_chamber(ChamberConfig(port=0)) as chamber,
        serve_rodeostat(RodeostatSimConfig(link=str(tmp_path / "rod"), device_id=7)),
    ):
        places = (
            tcp(smu.port),
            tcp(rack.port),
            place_of_port(potentiostat.address),
            place_of_port(nexus.address),
            tcp(chamber.port),
            place_of_port(str(tmp_path / "rod")),
        )
        seen = await seen_at(tmp_path, *places, patience=Patience(pause_s=0.2))
        assert [each.outcome for each in seen] == [Outcome.FOUND] * 6, seen
        found = [each.found for each in seen if each.found is not None]
        assert [(each.driver, each.manufacturer, each.model, each.serial) for each in found][
            :4
        ] == [
            ("keithley", "KEITHLEY INSTRUMENTS", "2461", "04088712"),
            ("neware_bts", "Neware", "BTS 8 device type 27", "27-21"),
            ("palmsens", "PalmSens", "EmStat4 HR", "ES4HR20B0008"),
            ("palmsens", "PalmSens", "Nexus", "NX1"),
        ]
        assert [each.driver for each in found[4:]] == ["espec", "rodeostat"]
        assert len(found[1].channels) == 16
        assert found[1].channels[0] == "21-1-1"
        assert (await smu.answer(":SYST:ERR:COUN?")) == b"0"
    assert list((tmp_path / "locks").iterdir()) == []


async def test_an_instrument_that_a_daemon_owns_is_not_opened(tmp_path: Path) -> None:
    async with serve_smu(SmuConfig(port=0, single_client=True)) as smu:
        owner = Ownership(tmp_path / "locks", who=NODE)
        owner.take(tcp_names("127.0.0.1", smu.port))
        reader, writer = await asyncio.open_connection("127.0.0.1", smu.port)
        writer.write(b"*IDN?\n")
        assert (await reader.readline()).startswith(b"KEITHLEY")
        [seen] = await seen_at(tmp_path, place_of_resource(f"TCPIP::localhost::{smu.port}::SOCKET"))
        assert seen.outcome is Outcome.OWNED
        assert f"owned by {NODE}, process {os.getpid()}" in seen.why
        writer.write(b"*IDN?\n")
        assert (await reader.readline()).startswith(b"KEITHLEY")
        writer.close()
        owner.let_go()


async def test_an_instrument_that_a_daemon_reaches_another_way_is_not_offered(
    tmp_path: Path,
) -> None:
    async with serve_smu(SmuConfig(port=0)) as smu:
        owner = Ownership(tmp_path / "locks", who=NODE)
        owner.take([number_name("Keithley Instruments", "04419969")])
        [seen] = await seen_at(tmp_path, tcp(smu.port))
        assert seen.outcome is Outcome.OWNED
        assert "reaches it another way" in seen.why
        owner.let_go()


async def test_a_potentiostat_that_runs_a_script_is_told_and_goes_on(tmp_path: Path) -> None:
    script = (
        "e\nvar p\nset_pgstat_chan 0\nset_pgstat_mode 3\nmeas_loop_ocp p 50m 100\n"
        "pck_start\npck_add p\npck_end\nendloop\n\n"
    )
    async with serve_potentiostat(PotentiostatConfig(link=str(tmp_path / "ps"))) as potentiostat:
        port = os.open(tmp_path / "ps", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        os.write(port, script.encode())
        heard = b""
        async with asyncio.timeout(10.0):
            while b"Pab" not in heard:
                await asyncio.sleep(0.01)
                try:
                    heard += os.read(port, 4096)
                except BlockingIOError:
                    continue
        os.close(port)
        [seen] = await seen_at(tmp_path, place_of_port(str(tmp_path / "ps")))
        assert potentiostat.instrument.running
    assert seen.found is not None
    assert seen.outcome is Outcome.FOUND
    assert (seen.found.driver, seen.found.serial) == ("palmsens", "")
    assert "runs a script" in seen.why
    assert set(seen.found.missing) == {"model", "serial"}


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def something(behave: Behaviour) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)


async def gone(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 100_000)
        await writer.drain()


async def unknown_scpi(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The answer is quoted from Zahner's own client, ``searcher.py``."""
    while line := await reader.readline():
        writer.write(b"ZAHNER-ELEKTRIK,PP242,35000,1.1.0\n" if line == b"*IDN?\n" else b"27\n")


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        writer.write(b"\x1b[31m\xff KEITHLEY?,,,\n")


async def test_what_is_no_instrument_is_unknown_with_what_it_said(tmp_path: Path) -> None:
    async with (
        something(silent) as a,
        something(echo) as b,
        something(gone) as c,
        something(flood) as d,
        something(nonsense) as e,
    ):
        seen = await seen_at(tmp_path, *map(tcp, (a, b, c, d, e)), tcp(1))
    outcomes = [each.outcome for each in seen]
    unknown = Outcome.UNKNOWN
    assert outcomes == [
        *(Outcome.SILENT, unknown, Outcome.SILENT, unknown, unknown, Outcome.CLOSED)
    ]
    assert "'*IDN?" in seen[1].why
    assert "\\x1b[31m\\xff KEITHLEY?" in seen[4].why
    assert seen[5].why == "nothing listens there"


async def test_an_instrument_that_labctl_has_no_driver_for_is_named(tmp_path: Path) -> None:
    async with something(unknown_scpi) as port:
        [seen] = await seen_at(tmp_path, tcp(port))
    assert seen.found is not None
    assert (seen.found.manufacturer, seen.found.model) == ("ZAHNER-ELEKTRIK", "PP242")
    assert seen.found.driver == ""
    assert seen.why == "labctl has no driver for it"


LOGIN = (
    b'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>connect</cmd>'
    b"<username>admin</username><password>neware</password><type>bfgs</type></bts>\n\n#\r\n"
)
"""aurora-neware, ``neware.py``, ``connect``: without it a BTS host answers nothing."""

ONLY_QUESTIONS = {
    b"*IDN?\n",  # 2461-901-01, 6-1: identification
    b"i\n",  # EmStat4 communication protocol v1.3: get serial number
    b"TYPE?\r\n",  # P-300 communication manual: sensor and controller
    b"ROM?\r\n",  # the same: version
    b'{"command":"getVariant"}\n',  # Rodeostat firmware, ps_constants.cpp
    LOGIN,
}


async def test_whoever_does_not_understand_hears_nothing_but_questions(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while data := await reader.read(10_000):
            heard.append(data)

    async with something(listen) as port:
        await seen_at(tmp_path, tcp(port))
    assert set(heard) <= ONLY_QUESTIONS
    assert {b"*IDN?\n", b"i\n"} < set(heard)
    assert len(heard) == len(set(heard))


async def test_few_are_asked_at_once(tmp_path: Path) -> None:
    now = most = 0

    async def count(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await reader.read(1)
        now -= 1

    async with something(count) as port:
        places = [
            Place(wire=Wire.TCP, address=f"127.0.0.{host}", port=port) for host in range(1, 30)
        ]
        seen = await seen_at(tmp_path, *places)
    assert len(seen) == len(places)
    assert [each.place for each in seen] == places
    assert 0 < most <= AT_ONCE


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """A serial line with nobody at the other end yet."""
    master, slave = os.openpty()
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


async def test_a_port_that_another_program_has_is_left_to_it(
    tmp_path: Path, line: tuple[int, str]
) -> None:
    import serial

    with serial.Serial(line[1], exclusive=True):
        [seen] = await seen_at(tmp_path, place_of_port(line[1]))
    assert (seen.outcome, seen.why) == (Outcome.CLOSED, "another program has it open")


async def test_a_port_at_which_nobody_is_is_silent(tmp_path: Path, line: tuple[int, str]) -> None:
    [seen] = await seen_at(tmp_path, place_of_port(line[1]))
    assert (seen.outcome, seen.why) == (Outcome.SILENT, "no answer")


async def test_what_is_no_serial_port_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("precious")
    names = ("pipe", "file", "nothing")
    seen = await seen_at(tmp_path, *(place_of_port(str(tmp_path / name)) for name in names))
    assert [each.why for each in seen] == ["it is no serial port"] * 2 + ["there is no such port"]
    assert (tmp_path / "file").read_text() == "precious"


async def test_without_the_locks_nothing_is_asked(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("")
    asked = threading.Event()

    async def listen(*_: object) -> None:
        asked.set()

    async with something(listen) as port:
        with pytest.raises(ConfigError, match="lock_dir"):
            await seen_at(tmp_path, tcp(port))
    assert not asked.is_set()
