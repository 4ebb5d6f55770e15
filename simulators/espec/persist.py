"""What outlives the process: the air, what it is set to, its programs, its alarms. Constant
operation goes on; a program that ran does not."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from labctl.errors import ConfigError, Problem
from labctl.simulators.espec.chamber import RUN, STANDBY, Chamber, Settings
from labctl.simulators.espec.programs import Program

VERSION = 1


class Kept(msgspec.Struct, frozen=True):
    """``model`` says of which controller it is."""

    version: int
    model: str
    mode: str
    temperature_degC: float
    humidity: float
    settings: Settings
    alarms: list[int]
    programs: dict[int, Program] = {}


class StateFile:
    """``chamber.json`` in a directory that one process holds; None keeps nothing.

    Raises:
        ConfigError: another process holds the directory, or it cannot be used.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "chamber.json"
        self._lock = -1
        if directory is None:
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise _cannot(directory, "another instrument uses this state directory") from error
        except OSError as error:
            self.close()
            raise _cannot(directory, f"the state directory cannot be used: {error}") from error

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def restore(self, chamber: Chamber) -> None:
        """Make the chamber what it was; one of another model is left as it is.

        Raises:
            ConfigError: the file is not what this version writes.
        """
        if self._path is None or not self._path.exists():
            return
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except (msgspec.MsgspecError, OSError) as error:
            raise _cannot(self._path, f"cannot be read: {error}") from error
        if kept.version != VERSION:
            raise _cannot(self._path, f"is of version {kept.version}, not {VERSION}")
        if kept.model != chamber.config.model:
            return
        chamber.mode = STANDBY if kept.mode == RUN else kept.mode
        chamber.settings, chamber.programs = kept.settings, kept.programs
        chamber.temperature_degC, chamber.humidity = kept.temperature_degC, kept.humidity
        chamber.alarms = list(kept.alarms)

    def write(self, chamber: Chamber) -> None:
        if self._path is None:
            return
        kept = Kept(
            version=VERSION,
            model=chamber.config.model,
            mode=chamber.mode,
            temperature_degC=chamber.temperature_degC,
            humidity=chamber.humidity,
            settings=chamber.settings,
            alarms=chamber.alarms,
            programs=chamber.programs,
        )
        new = self._path.with_name(self._path.name + ".new")
        new.write_bytes(msgspec.json.encode(kept))
        new.replace(self._path)


def _cannot(path: Path, message: str) -> ConfigError:
    return ConfigError([Problem(message, file=str(path))])
