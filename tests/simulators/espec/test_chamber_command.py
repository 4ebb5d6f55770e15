"""``labctl simulate espec`` in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

PROGRAM = "import typer; from labctl.cli.simulate_espec import espec; typer.run(espec)"


def test_it_says_where_it_is_and_ends_when_told_to(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    options = ("--model", "P-300", "--port", "0", "--time-port", "0", "--speed", "virtual")
    with subprocess.Popen(
        (sys.executable, "-c", PROGRAM, *options, "--ready-file", str(ready)),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        address, time_port = ready.read_text().split()
        assert said == f"Espec P-300 chamber at {address}, its time port at {time_port}\n"
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10.0) as talk:
            talk.sendall(b"ROM?\r\n")
            assert talk.makefile("rb").readline() == b"P3N20 VER2.05\r\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10.0) == 0


def test_a_port_of_a_serial_line_is_named(tmp_path: Path) -> None:
    line = tmp_path / "oven"
    with subprocess.Popen(
        (sys.executable, "-c", PROGRAM, "--pty", str(line)), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Espec PR-3J chamber at {line}\n"
        assert line.is_symlink()
        process.send_signal(signal.SIGINT)
        assert process.wait(10.0) == 0
    assert not line.is_symlink()
