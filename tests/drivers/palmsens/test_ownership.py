"""One owner an instrument, whichever port it is found at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.drivers.palmsens.ownership import Ownership
from labctl.errors import ConfigError, InstrumentError

SERIAL = "ES4HR20B0008"


def test_a_second_daemon_is_told_who_has_the_instrument(tmp_path: Path) -> None:
    first = Ownership(tmp_path, name="bench 1")
    second = Ownership(tmp_path, name="bench 2")
    first.take(SERIAL, "/dev/ttyACM0")
    with pytest.raises(InstrumentError, match=rf"in use by 'bench 1', process {os.getpid()}"):
        second.take(SERIAL, "/dev/ttyACM1")
    first.let_go()
    second.take(SERIAL, "/dev/ttyACM1")
    second.let_go()


def test_another_instrument_is_another_lock(tmp_path: Path) -> None:
    first, second = Ownership(tmp_path, name="1"), Ownership(tmp_path, name="2")
    first.take(SERIAL, "a")
    second.take("ES4HR20B0009", "b")
    first.take(SERIAL, "a")
    first.let_go()
    first.let_go()
    second.let_go()


def test_an_owner_that_is_killed_owns_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path;"
        "from labctl.drivers.palmsens.ownership import Ownership;"
        f"Ownership(Path(sys.argv[1]), name='other').take({SERIAL!r}, 'x');"
        "print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        ours = Ownership(tmp_path, name="ours")
        with pytest.raises(InstrumentError, match=f"process {other.pid}"):
            ours.take(SERIAL, "x")
        other.kill()
        other.wait()
        ours.take(SERIAL, "x")
        ours.let_go()


def test_what_was_last_at_a_port_is_remembered(tmp_path: Path) -> None:
    ownership = Ownership(tmp_path, name="ps")
    assert ownership.last_at("/dev/ttyACM0") == ""
    ownership.take(SERIAL, "/dev/ttyACM0")
    ownership.let_go()
    assert Ownership(tmp_path, name="ps").last_at("/dev/ttyACM0") == SERIAL
    assert ownership.last_at("/dev/ttyACM1") == ""
    (tmp_path / "labctl-palmsens-broken.lock").write_text("{")
    assert ownership.last_at("/dev/ttyACM0") == SERIAL


def test_a_serial_number_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    ownership = Ownership(tmp_path / "locks", name="ps")
    ownership.take("../../etc/passwd", "x")
    assert [path.parent for path in tmp_path.rglob("*.lock")] == [tmp_path / "locks"]
    ownership.let_go()


def test_a_folder_that_cannot_be_used_is_the_administrators_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="lock_dir"):
        Ownership(tmp_path / "file", name="ps").take(SERIAL, "x")
