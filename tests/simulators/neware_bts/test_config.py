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
