"""``labctl instruments``: what a technician types to put a bench into the configuration."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labctl.cli.main import app
from labctl.errors import LabctlError
from labctl.settings import load_settings
from labctl.simulators.faults import Fault
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import SimulatedSmu, serve_smu
from labctl.simulators.neware_bts.rack import Rack, RackConfig, serve_rack
from labctl.wire.ownership import Ownership
from labctl.wire.places import tcp_names


@pytest.fixture(autouse=True)
def _lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LABCTL_LOCK_DIR", str(tmp_path / "locks"))


@pytest.fixture
async def smu() -> AsyncIterator[SimulatedSmu]:
    async with serve_smu(SmuConfig(port=0)) as served:
        yield served


@pytest.fixture
async def bts() -> AsyncIterator[Rack]:
    async with serve_rack(RackConfig(port=0, units=1)) as served:
        yield served


@dataclass
class Typed:
    code: int
    said: str
    error: str


async def typed(*words: str) -> Typed:
    """What a command line says; an error of labctl's as ``main`` prints it."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["instruments", *words])
    error = result.exception
    if isinstance(error, LabctlError | OSError):
        return Typed(1, result.stdout, str(error))
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return Typed(result.exit_code, result.stdout, result.stderr)


async def test_a_bench_is_found_written_and_checked(
    tmp_path: Path, smu: SimulatedSmu, bts: Rack
) -> None:
    config = tmp_path / "labctl.toml"
    config.write_text('[node]\nname = "lab1"   # the bench by the window\n')
    hosts = ("--host", f"127.0.0.1:{smu.port}", "--host", f"127.0.0.1:{bts.port}")

    seen = await typed("scan", *hosts)
    assert "KEITHLEY INSTRUMENTS 2450" in seen.said
    assert "04419969" in seen.said
    assert '[instruments.smu1]\ndriver = "keithley"\n' in seen.said
    assert '# step_file_dir = ""' in seen.said
    assert config.read_text().count("\n") == 2

    first = await typed("scan", *hosts, "--write", "labctl.toml")
    assert "smu1 written; a daemon takes them up when it is started again" in first.said
    assert "rack1 stands there as a comment: it needs step_file_dir" in first.said
    assert config.read_text().startswith('[node]\nname = "lab1"   # the bench by the window\n')
    assert load_settings(config).instruments["smu1"]["serial"] == "04419969"

    (tmp_path / "steps").mkdir()
    second = await typed("scan", *hosts, "--write", "labctl.toml", "--set", "step_file_dir=steps")
    assert "rack1 written" in second.said
    assert set(load_settings(config).instruments) == {"smu1", "rack1"}

    text = config.read_text()
    third = await typed("scan", *hosts, "--write", "labctl.toml")
    assert "nothing new, it was not changed" in third.said
    assert config.read_text() == text

    checked = await typed("check")
    assert checked.code == 0
    assert "smu1: well; KEITHLEY INSTRUMENTS 2450, serial 04419969; channels (1): 1" in checked.said
    assert "rack1: well; Neware BTS 8 device type 27" in checked.said
    assert "channels (8): 21-1-1, 21-1-2" in checked.said


async def test_a_program_gets_the_same_as_json(tmp_path: Path, smu: SimulatedSmu) -> None:
    seen = await typed("scan", "--json", "--host", f"127.0.0.1:{smu.port}")
    told = json.loads(seen.said)
    [place] = told["places"]
    assert (place["outcome"], place["found"]["serial"]) == ("found", "04419969")
    [entry] = told["entries"]
    assert entry["options"]["resource"] == f"TCPIP::127.0.0.1::{smu.port}::SOCKET"
    assert told["written"] == []


async def test_what_a_daemon_has_is_said_and_left_alone(tmp_path: Path, smu: SimulatedSmu) -> None:
    (tmp_path / "labctl.toml").write_text(
        '[instruments.smu]\ndriver = "keithley"\n'
        f'resource = "TCPIP::127.0.0.1::{smu.port}::SOCKET"\n'
    )
    owner = Ownership(tmp_path / "locks", who="labctl node lab1, instrument smu")
    owner.take(tcp_names("127.0.0.1", smu.port))
    whose = f"owned by labctl node lab1, instrument smu, process {os.getpid()}"
    seen = await typed("scan", "--host", f"127.0.0.1:{smu.port}")
    assert whose in seen.said
    assert "[instruments" not in seen.said
    checked = await typed("check")
    assert (checked.code, whose in checked.said) == (0, True)
    told = json.loads((await typed("check", "--json")).said)
    assert told[0]["verdict"] == "owned"
    owner.let_go()


async def test_a_wrong_instrument_is_told_and_is_an_error(
    tmp_path: Path, smu: SimulatedSmu, bts: Rack
) -> None:
    (tmp_path / "labctl.toml").write_text(
        '[instruments.other]\ndriver = "keithley"\nserial = "1"\n'
        f'resource = "TCPIP::127.0.0.1::{smu.port}::SOCKET"\n'
        '[instruments.away]\ndriver = "keithley"\nresource = "TCPIP::127.0.0.1::1::SOCKET"\n'
        '[instruments.odd]\ndriver = "keithly"\n'
        f'[instruments.rack]\ndriver = "neware_bts"\nhost = "127.0.0.1"\nport = {bts.port}\n'
        'step_file_dir = "."\n'
    )
    checked = await typed("check")
    assert checked.code == 1
    assert "has the serial number 04419969, and 1 is expected" in checked.said
    assert "away: wrong; TCPIP::127.0.0.1::1::SOCKET: no connection, nothing was sent" in (
        checked.said
    )
    assert "did you mean 'keithley'?" in checked.said
    assert "rack: well" in checked.said


async def test_a_check_that_hangs_is_ended_and_the_others_are_checked(
    tmp_path: Path, smu: SimulatedSmu
) -> None:
    async with serve_smu(SmuConfig(port=0, faults=(Fault("hang"),))) as stuck:
        (tmp_path / "labctl.toml").write_text(
            "".join(
                f'[instruments.{name}]\ndriver = "keithley"\nreply_timeout_s = 0.3\n'
                f'resource = "TCPIP::127.0.0.1::{port}::SOCKET"\n'
                for name, port in (("stuck", stuck.port), ("smu", smu.port))
            )
        )
        checked = await typed("check")
    assert checked.code == 1
    assert "stuck: wrong" in checked.said
    assert "smu: well" in checked.said
    assert 'pin it: serial = "04419969" under [instruments.smu]' in checked.said


async def test_a_pinned_number_that_moved_is_said_and_not_written_again(
    tmp_path: Path, smu: SimulatedSmu
) -> None:
    config = tmp_path / "labctl.toml"
    config.write_text(
        '[instruments.smu]\ndriver = "keithley"\nserial = "04419969"\n'
        'resource = "TCPIP::127.0.0.1::1::SOCKET"\n'
    )
    text = config.read_text()
    seen = await typed("scan", "--host", f"127.0.0.1:{smu.port}", "--write", "labctl.toml")
    assert "smu is at another address in the configuration" in seen.said
    assert config.read_text() == text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("scan --write nothing.toml", "'labctl init' writes one"),
        ("scan --host a/b", "is no host: write HOST or HOST:PORT"),
        ("scan --network 10.0.0.0/8", "at most 1024 are asked in one go"),
        ("scan --visa nonsense", "is no VISA resource"),
        ("scan --config nothing.toml", "cannot be read"),
        ("scan --set x --port y", "is not NAME=VALUE"),
        ("check", "no configuration: neither labctl.toml in this folder"),
    ],
)
async def test_a_wrong_command_says_what_and_what_to_do(line: str, says: str) -> None:
    result = await typed(*line.split(" "))
    assert result.code != 0
    assert says in result.error


async def test_a_network_where_nobody_is_says_so() -> None:
    seen = await typed("scan", "--network", "127.0.0.1/32")
    assert "nothing was found at" in seen.said


async def test_a_broken_configuration_that_nobody_named_does_not_hinder_a_scan(
    tmp_path: Path, smu: SimulatedSmu
) -> None:
    (tmp_path / "labctl.toml").write_text("[node]\nnam = 1\n")
    seen = await typed("scan", "--host", f"127.0.0.1:{smu.port}")
    assert seen.code == 0
    assert "KEITHLEY INSTRUMENTS 2450" in seen.said


async def test_the_list_says_what_each_driver_can_do() -> None:
    said = (await typed("list")).said
    for line in (
        "keithley  A Keithley 2450, 2460 or 2461 SourceMeter",
        "source; a scan finds it at: USB, GPIB, tcp 5025",
        "failsafe watchdog",
        "sequencer; a scan finds it at: tcp 502",
        "chamber; a scan finds it at: serial, tcp 57732, tcp 10001",
        "current ranges 10 nA, 100 nA, 1 uA, 10 uA, 100 uA, 1 mA, 10 mA, 100 mA, 1 A",
    ):
        assert line in said
    kinds = json.loads((await typed("list", "--json")).said)
    assert {"keithley", "neware_bts", "palmsens"} <= {kind["driver"] for kind in kinds}
    assert all(kind["models"] and kind["found_by"] for kind in kinds)


async def test_the_help_promises_that_nothing_is_changed() -> None:
    said = " ".join((await typed("scan", "--help")).said.split())
    assert "no output and no setting of any instrument is changed" in said
    assert "nothing is ever broadcast" in said
