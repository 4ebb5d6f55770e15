"""The systemd units say what systemd understands, and leave little open to attack."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import not_installed

from labctl.wire.ownership import DEFAULT_FOLDER

UNITS = sorted((Path(__file__).parents[2] / "systemd").glob("*.service"))
LARGEST_EXPOSURE = 1.3


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        not_installed("systemd-analyze", "systemd")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


def test_there_are_units() -> None:
    assert [unit.name for unit in UNITS] == [
        "labctl-archive.service",
        "labctl-daemon.service",
        "labctl-tidy.service",
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_silent_under_verify(unit: Path, tmp_path: Path) -> None:
    labctl = tmp_path / "labctl"
    labctl.symlink_to(sys.executable)
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/labctl/bin/labctl", str(labctl)))
    done = analyze("verify", str(copy))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_timer_starts_its_service_every_night(tmp_path: Path) -> None:
    folder = UNITS[0].parent
    for unit in (folder / "labctl-tidy.service", folder / "labctl-tidy.timer"):
        text = unit.read_text().replace("/opt/labctl/bin/labctl", sys.executable)
        (tmp_path / unit.name).write_text(text)
    done = analyze("verify", str(tmp_path / "labctl-tidy.timer"))
    assert (done.returncode, done.stderr) == (0, "")
    lines = (folder / "labctl-tidy.timer").read_text().splitlines()
    [when] = [line.partition("=")[2] for line in lines if line.startswith("OnCalendar=")]
    assert "Next elapse" in analyze("calendar", when).stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_hardened(unit: Path) -> None:
    done = analyze("security", "--offline=true", str(unit))
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure, done.stderr
    assert float(exposure[1]) <= LARGEST_EXPOSURE


def test_the_daemon_may_write_its_lock_files_and_leaves_those_of_others() -> None:
    """A folder that went away with the service would take the locks of another daemon along."""
    lines = (UNITS[0].parent / "labctl-daemon.service").read_text().splitlines()
    assert f"RuntimeDirectory={DEFAULT_FOLDER.relative_to('/run')}" in lines
    assert "RuntimeDirectoryPreserve=yes" in lines
    tmpfiles = (UNITS[0].parent / "labctl.tmpfiles").read_text()
    assert f"\nd {DEFAULT_FOLDER} 3770 root labctl -\n" in tmpfiles
