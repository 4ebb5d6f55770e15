"""``labctl simulate palmsens`` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = "import typer; from labctl.cli.simulate_palmsens import palmsens; typer.run(palmsens)"


def test_it_says_where_it_is_and_ends_when_told_to(tmp_path: Path) -> None:
    (tmp_path / "ps.toml").write_text('link = "port"\nspeed = "virtual"\nload_ohm = 1000.0\n')
    ready = tmp_path / "ready"
    command = (sys.executable, "-c", PROGRAM, "--config", str(tmp_path / "ps.toml"))
    with subprocess.Popen(
        (*command, "--ready-file", str(ready)), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == f"PalmSens EmStat4S HR ES4HR20B0008 at {tmp_path / 'port'}\n"
        address = ready.read_text().strip()
        port = os.open(address, os.O_RDWR | os.O_NOCTTY)
        os.write(port, b"i\n")
        heard = b""
        deadline_s = time.monotonic() + 10.0
        while not heard.endswith(b"\n") and time.monotonic() < deadline_s:
            heard += os.read(port, 100)
        assert heard == b"iES4HR20B0008\n"
        os.close(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10.0) == 0
    assert not (tmp_path / "port").is_symlink()
