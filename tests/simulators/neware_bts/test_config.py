"""The rack as a file describes it, and the command that runs it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from linear_rack import Client, saved, step, step_file

from labctl.drivers.neware_bts.stepfile import StepType
from labctl.errors import ConfigError
from labctl.simulators.cells import Anode, Faults
from labctl.simulators.neware_bts.rack import RackConfig, changed, read_rack_config, serve_rack

RACK = """
port = 0
seed = 7
speed = "virtual"
epoch_unix_s = 1800000000
state_dir = "rack-state"

[[cells]]
channel = "1-3"
spec.name = "HEV-01"
spec.material = "HE-V"
spec.active_mass_g = 0.002
"""

COMMAND = "from labctl.cli.simulate import app; app()"


def written(directory: Path, text: str) -> Path:
    path = directory / "rack.toml"
    path.write_text(text)
    return path


def test_a_rack_has_sixteen_channels_unless_told_otherwise(tmp_path: Path) -> None:
    rack = read_rack_config(written(tmp_path, ""))
    assert rack == RackConfig()
    assert rack.channel_names()[0] == "1-1"
    assert rack.channel_names()[-1] == "2-8"
    assert len(rack.channel_names()) == 16


def test_a_file_is_read_and_the_command_line_wins(tmp_path: Path) -> None:
    rack = read_rack_config(written(tmp_path, RACK))
    assert rack.state_dir == str(tmp_path / "rack-state")
    assert rack.is_virtual
    other = changed(rack, port=5021, speed="60")
    assert (other.port, other.is_virtual, other.cells) == (5021, False, rack.cells)
    with pytest.raises(ConfigError, match="speed"):
        changed(rack, speed="fast")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = 'x'", r"\$\.port"),
        ("prot = 1", "prot"),
        ("port = 70000", "port must be"),
        ("units = 0", "units must be"),
        ("speed = 'fast'", "speed"),
        ("speed = -1", "speed"),
        ("units = 1\nport = @", "line 2"),
        ("[[faults]]\nname = 'explode'", "explode"),
        (RACK.replace("1-3", "3-1"), r"cells\[0\]\.channel.*3-1"),
        (RACK + RACK[RACK.index("[[cells]]") :], r"cells\[1\]\.channel.*holds a cell already"),
        (RACK.replace("0.002", "-1"), "active_mass_g"),
    ],
)
def test_a_wrong_file_is_reported_with_its_name_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_rack_config(written(tmp_path, text))
    assert caught.value.problems[0].file.endswith("rack.toml")


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rack_config(tmp_path / "none.toml")


async def test_a_material_that_does_not_exist_is_reported_with_its_key(tmp_path: Path) -> None:
    rack = read_rack_config(written(tmp_path, RACK.replace("HE-V", "unobtainium")))
    with pytest.raises(ConfigError, match=r"cells\[0\]\.spec.*unobtainium"):
        async with serve_rack(rack):
            pass


EVERY_KIND_OF_CELL = """
port = 0
speed = "virtual"
epoch_unix_s = 1800000000

[[cells]]
channel = "1-1"

[cells.spec]
name = "full"
material = "HE-V"
active_mass_g = 0.002
seed = 3
scatter = 0.5

[cells.spec.anode]
material = "HC"
active_mass_g = 0.0016
sodium_mAh_per_g = 20.0
film_mAh_per_g = 40.0

[cells.spec.faults]
fade_per_cycle = 1e-4
resistance_per_cycle = 1e-4
short_ohm = 1e6
contact_ohm = 5.0

[[cells]]
channel = "1-2"
spec = {name = "hard carbon", material = "HC", active_mass_g = 0.0015, scatter = 0.0}

[[cells]]
channel = "2-8"
spec = {name = "half", material = "NVP", active_mass_g = 0.002, faults = {contact_ohm = 20.0}}
"""


async def test_a_rack_holds_full_cells_hard_carbon_and_faulty_cells(tmp_path: Path) -> None:
    rack = read_rack_config(written(tmp_path, EVERY_KIND_OF_CELL))
    full, carbon, half = (item.spec for item in rack.cells)
    assert full.anode == Anode(active_mass_g=0.0016, sodium_mAh_per_g=20.0, film_mAh_per_g=40.0)
    assert full.faults == Faults(
        fade_per_cycle=1e-4, resistance_per_cycle=1e-4, short_ohm=1e6, contact_ohm=5.0
    )
    assert (full.seed, full.scatter, carbon.anode, half.faults.contact_ohm) == (3, 0.5, None, 20.0)
    sodiate = step_file(
        step(1, StepType.CC_DISCHARGE, current_A=7.5e-5, stop_voltage_V=0.01, time_s=40_000.0),
        step(2, StepType.CC_CHARGE, current_A=7.5e-5, stop_voltage_V=2.0, time_s=40_000.0),
        every_s=300.0,
    )
    charge = step_file(
        step(1, StepType.CC_CHARGE, current_A=2e-4, stop_voltage_V=4.0, time_s=20_000.0),
        step(2, StepType.CC_DISCHARGE, current_A=2e-4, stop_voltage_V=1.5, time_s=20_000.0),
        every_s=60.0,
    )
    async with serve_rack(rack) as served, await Client.to(served.port) as client:
        first: dict[str, float] = {}
        for at, file in (("1-1", charge), ("1-2", sodiate), ("2-8", charge)):
            assert await client.start(saved(tmp_path, file, f"{at}.xml"), at) == "ok"
            rows = await client.all_rows(at)
            assert await client.status(at) == "finish"
            assert {row["stepid"] for row in rows} == {"1", "2"}
            last = [row for row in rows if row["stepid"] == "1"][-1]
            first[at] = float(last["cap"])
            volts = [float(row["volt"]) for row in rows]
            assert min(volts) > -0.01
            if at == "1-2":
                assert float(last["volt"]) == pytest.approx(0.01, abs=2e-3)
                assert max(volts) < 2.6
            else:
                assert max(volts) == pytest.approx(4.0, abs=2e-3)
    assert 150 < first["1-2"] / 0.0015 * 1e3 < 450  # mAh/g of a first sodiation
    assert first["1-1"] == pytest.approx(2.3e-4, rel=0.1)
    assert first["2-8"] == pytest.approx(1.9e-4, rel=0.1)


async def test_an_anode_that_cannot_be_is_reported_with_its_key(tmp_path: Path) -> None:
    text = EVERY_KIND_OF_CELL.replace("sodium_mAh_per_g = 20.0", "sodium_mAh_per_g = 9e9")
    with pytest.raises(ConfigError, match=r"cells\[0\]\.spec.*anode cannot hold"):
        async with serve_rack(read_rack_config(written(tmp_path, text))):
            pass
    text = EVERY_KIND_OF_CELL.replace("active_mass_g = 0.0016", "active_mass_g = 0")
    with pytest.raises(ConfigError, match=r"anode\.active_mass_g must be above 0"):
        read_rack_config(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scatter = 0.5", "scater = 0.5"),
        ("film_mAh_per_g = 40.0", "flim_mAh_per_g = 40.0"),
        ("contact_ohm = 5.0", "contact_ohms = 5.0"),
    ],
)
def test_a_misspelt_key_of_a_cell_is_reported(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=new.split(" ", maxsplit=1)[0]):
        read_rack_config(written(tmp_path, EVERY_KIND_OF_CELL.replace(old, new)))


async def test_the_command_serves_a_real_cell_and_ends_cleanly(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-X", "dev", "-W", "error", "-c", COMMAND, "neware"),
        *("--config", str(written(tmp_path, RACK)), "--ready-file", str(ready)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    host, _, port = ready.read_text().strip().partition(":")
    assert line == f"Neware BTS 8 rack, 16 channels, at {host}:{port}\n"
    file = step_file(
        step(1, StepType.REST, time_s=60.0),
        step(2, StepType.CC_CHARGE, current_A=1e-3, stop_voltage_V=3.6, time_s=3600.0),
    )
    async with await Client.to(int(port)) as client:
        assert 1.0 < float((await client.look("1-3"))["voltage"]) < 4.2
        assert await client.start(saved(tmp_path, file), "1-3") == "ok"
        rows = await client.all_rows("1-3")
        assert await client.status("1-3") == "finish"
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    charge = [row for row in rows if row["stepid"] == "2"]
    assert [float(row["volt"]) for row in charge[:-1]] < [float(row["volt"]) for row in charge[1:]]
    assert all(abs(float(row["curr"]) - 1e-3) < 1e-6 for row in charge)
    assert float(charge[-1]["cap"]) == pytest.approx(int(charge[-1]["testtime"]) / 3.6e9, rel=1e-6)
