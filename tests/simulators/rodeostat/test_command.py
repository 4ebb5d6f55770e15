"""``labctl simulate rodeostat`` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labctl.cli.services import services_of
from labctl.errors import ConfigError
from labctl.settings import load_settings

PROGRAM = "import typer; from labctl.cli.simulate_rodeostat import rodeostat; typer.run(rodeostat)"


def test_it_says_where_it_is_and_ends_when_told_to(tmp_path: Path) -> None:
    (tmp_path / "rodeostat.toml").write_text(
        'device_id = 3\nspeed = "virtual"\nload_ohm = 1000.0\n'
    )
    ready, port = tmp_path / "ready", tmp_path / "port"
    command = (
        *(sys.executable, "-c", PROGRAM, "--config", str(tmp_path / "rodeostat.toml")),
        *("--pty", str(port), "--time-port", "0", "--ready-file", str(ready)),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        address, time_at = ready.read_text().split()
        assert said == f"Rodeostat microAmp 3 at {port}, its time port at {time_at}\n"
        assert address == str(port)
        line = os.open(port, os.O_RDWR | os.O_NOCTTY)
        os.write(line, b'{"command":"getDeviceId"}\n')
        heard = b""
        deadline_s = time.monotonic() + 10.0
        while not heard.endswith(b"\n") and time.monotonic() < deadline_s:
            heard += os.read(line, 100)
        assert heard == b'{"success":true,"response":{"command":"getDeviceId","deviceId":3}}\r\n'
        os.close(line)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10.0) == 0
    assert not port.is_symlink()


def settings_with(folder: Path, kind: str) -> Path:
    file = folder / "labctl.toml"
    file.write_text(f'[simulators.one]\nkind = "{kind}"\nconfig = "one.toml"\n')
    return file


def test_labctl_up_starts_it_by_its_name(tmp_path: Path) -> None:
    file = settings_with(tmp_path, "rodeostat")
    services = {each.name: each.command for each in services_of(load_settings(file), file)}
    assert services["one"] == ("simulate", "rodeostat", "--config", str(tmp_path / "one.toml"))


def test_labctl_up_refuses_a_simulator_that_there_is_not(tmp_path: Path) -> None:
    file = settings_with(tmp_path, "rodeostatt")
    with pytest.raises(ConfigError, match="no simulator 'rodeostatt'") as caught:
        services_of(load_settings(file), file)
    assert "rodeostat" in caught.value.problems[0].suggestion
