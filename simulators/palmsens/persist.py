"""What outlives the process: the cell. Its instrument forgets everything, as one without power.

The cell is written at the end of each script, each second of real time while one runs, and when
the simulator ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from labctl.errors import ConfigError, Problem

VERSION = 1


class Kept(msgspec.Struct, frozen=True):
    """``cell`` says what is connected, ``state`` is of that, written at ``wall_unix_s``."""

    version: int
    cell: str
    state: bytes
    wall_unix_s: float


class StateFile:
    """``cell.state`` in a directory that one process holds; None keeps nothing.

    Raises:
        ConfigError: another process holds the directory, or it cannot be used.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "cell.state"
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

    def read(self) -> Kept | None:
        """What :meth:`write` wrote last.

        Raises:
            ConfigError: the file is not what this version writes.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            kept = msgspec.msgpack.decode(self._path.read_bytes(), type=Kept)
        except (msgspec.MsgspecError, OSError) as error:
            raise _cannot(self._path, f"cannot be read: {error}") from error
        if kept.version != VERSION:
            raise _cannot(self._path, f"is of version {kept.version}, not {VERSION}")
        return kept

    def write(self, kept: Kept) -> None:
        if self._path is not None:
            new = self._path.with_name(self._path.name + ".new")
            new.write_bytes(msgspec.msgpack.encode(kept))
            new.replace(self._path)


def _cannot(path: Path, message: str) -> ConfigError:
    return ConfigError([Problem(message, file=str(path))])
