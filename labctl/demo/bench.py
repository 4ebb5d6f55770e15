"""The demo's folder: configuration of a PC with a simulated rack, and how far the demo came.

A demo that was interrupted goes on where it stood; one that was finished begins anew.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from labctl.demo.cells import DemoCell
from labctl.demo.study import RACK, Study
from labctl.errors import CommandError
from labctl.stream.mosquitto import free_port
from labctl.supervisor import hold_folder

NODE: Final = "demo"
EPOCH_UNIX_S: Final = 1_767_603_600
"""Monday 5 January 2026, 09:00 UTC: where virtual time begins, so that two demos are the same."""

_MARK: Final = "demo.json"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What demo it is. ``quick`` is the capacities alone; broker: auto, mosquitto or amqtt;
    archive: an address as in labctl.toml."""

    quick: bool = False
    seed: int = 7
    speed: str = "virtual"
    broker: str = "auto"
    archive: str = "sqlite:///archive.db"


class Mark(msgspec.Struct, frozen=True):
    """What the mark in the folder says."""

    wanted: Wanted
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder in which a demo is run."""

    folder: Path
    wanted: Wanted
    resumed: bool

    @property
    def config(self) -> Path:
        """The PC's labctl.toml."""
        return self.folder / "labctl.toml"

    @property
    def rack(self) -> Path:
        """The simulated rack's configuration."""
        return self.folder / "rack.toml"

    def finish(self) -> None:
        """Mark the demo as done: the next one begins anew."""
        _write_mark(self.folder, Mark(self.wanted, finished=True))


@contextmanager
def set_up_bench(folder: Path, study: Study, wanted: Wanted) -> Iterator[Bench]:
    """Make the folder, or find an unfinished demo in it; hold it against a second demo.

    Raises:
        CommandError: the folder holds something else, or another demo runs in it.
    """
    folder = folder.resolve()
    found = _read_mark(folder)
    if found is None and folder.is_dir() and any(folder.iterdir()):
        raise CommandError(
            f"{folder} is not empty and holds no demo: name another folder with --folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"{folder} cannot be made: {error}; name another with --folder"
        ) from error
    with _held(folder):
        resumed = found == Mark(wanted)
        if not resumed:
            with hold_folder(folder / "logs"):
                _clear(folder)
            (folder / "stepfiles").mkdir()
            (folder / "locks").mkdir()
            _write_mark(folder, Mark(wanted))
        # Anew each time: a port that was free then may be taken now.
        _write_files(folder, study, wanted)
        yield Bench(folder, wanted, resumed)


def _write_files(folder: Path, study: Study, wanted: Wanted) -> None:
    potentiostats = sorted({each.instrument for each in study.cells} - {RACK})
    mqtt_port, rack_port, *ports = _free_ports(2 + len(potentiostats))
    in_rack = [each for each in study.cells if each.instrument == RACK]
    (folder / "rack.toml").write_text(
        f"""# A simulated Neware BTS 8 rack of sixteen channels, and which cell sits where.
host = "127.0.0.1"
port = {rack_port}
units = 2
seed = {wanted.seed}
speed = "{wanted.speed}"
epoch_unix_s = {EPOCH_UNIX_S}
state_dir = "rack"
{"".join(_socket_of(each, in_rack) for each in in_rack)}""",
        encoding="utf-8",
    )
    tables = ""
    for name, port in zip(potentiostats, ports, strict=True):
        [seated] = [each for each in study.cells if each.instrument == name]
        (folder / f"{name}.toml").write_text(
            f"""# A simulated EmStat4S HR, and the cell that is connected to it.
host = "127.0.0.1"
port = {port}
model = "EmStat4S HR"
serial = "{name}"
seed = {wanted.seed}
speed = "{wanted.speed}"
state_dir = "{name}"
powered_by_line = false

[cell]
{_spec_of(seated, "")}""",
            encoding="utf-8",
        )
        tables += f"""
[instruments.{name}]
driver = "palmsens"
port = "socket://127.0.0.1:{port}"
model = "EmStat4S HR"
serial = "{name}"
lock_dir = "locks"
slowest_sample_s = 5.0

[simulators.{name}]
kind = "palmsens"
config = "{name}.toml"
"""
    (folder / "labctl.toml").write_text(
        f"""# The demo's PC. 'labctl up --config' with this file starts all of it again.
[node]
name = "{NODE}"
data = "data"
speed = "{wanted.speed}"
lock_dir = "locks"

[mqtt]
url = "mqtt://127.0.0.1:{mqtt_port}"

[archive]
url = "{wanted.archive}"
name = "{NODE}"

[broker]
kind = "{wanted.broker}"

[instruments.{RACK}]
driver = "neware_bts"
host = "127.0.0.1"
port = {rack_port}
step_file_dir = "stepfiles"

[simulators.{RACK}]
kind = "neware"
config = "rack.toml"
{tables}""",
        encoding="utf-8",
    )


def _socket_of(seated: DemoCell, in_rack: list[DemoCell]) -> str:
    own = seated.channel.partition("-")[2]
    from_line = ""
    for other in in_rack:
        if other.cell.name == seated.built_from:
            from_line = f'anode_from = "{other.channel.partition("-")[2]}"\n'
    return f"""
[[cells]]
channel = "{own}"
{from_line}{_spec_of(seated, "spec.")}"""


def _spec_of(seated: DemoCell, prefix: str) -> str:
    spec = seated.spec
    lines = [
        f'name = "{spec.name}"',
        f'material = "{spec.material}"',
        f"active_mass_g = {spec.active_mass_g!r}",
        f"seed = {spec.seed}",
        f"faults.fade_per_cycle = {spec.faults.fade_per_cycle!r}",
    ]
    if spec.anode is not None:
        lines.append(f"anode.active_mass_g = {spec.anode.active_mass_g!r}")
    return "".join(f"{prefix}{line}\n" for line in lines)


def _free_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    with (folder / "demo.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(
                f"another demo runs in {folder}: wait for it, or name another folder with --folder"
            ) from None
        yield


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name in {"demo.lock", "up.lock"}:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _read_mark(folder: Path) -> Mark | None:
    try:
        return msgspec.convert(json.loads((folder / _MARK).read_text()), Mark)
    except (OSError, ValueError, msgspec.ValidationError):
        return None


def _write_mark(folder: Path, mark: Mark) -> None:
    new = folder / (_MARK + ".new")
    new.write_bytes(msgspec.json.encode(mark))
    new.replace(folder / _MARK)
