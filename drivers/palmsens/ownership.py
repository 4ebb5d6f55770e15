"""One owner an instrument: a lock file for each serial number.

The operating system can keep two programs off one port, but not a program that does not ask, and
not one that comes by another port. The lock is held by the process and ends with it, however it
ends; the file stays, and says who has, or had, the instrument.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from pathlib import Path

import msgspec

from labctl.errors import ConfigError, InstrumentError, Problem


class Owner(msgspec.Struct, frozen=True):
    """What a lock file says: ``address`` is where the instrument was found."""

    serial: str
    address: str
    name: str
    pid: int
    host: str


class Ownership:
    """The lock files in a folder, of which one instrument holds one."""

    def __init__(self, folder: Path, *, name: str) -> None:
        self._folder = folder
        self._name = name
        self._file = -1
        self._serial = ""

    def take(self, serial: str, address: str) -> None:
        """Own the instrument from here on; owning it already is no matter.

        Raises:
            InstrumentError: somebody else owns it.
            ConfigError: the folder cannot be used.
        """
        if self._file >= 0 and self._serial == serial:
            return
        self.let_go()
        path = self._path(serial)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = _opened(path)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.let_go()
            raise InstrumentError(
                f"{self._name}: the instrument {serial} is in use{_by_whom(path)}",
                instrument=self._name,
            ) from error
        except OSError as error:
            self.let_go()
            raise ConfigError(
                [
                    Problem(
                        f"instrument {self._name!r}: its lock file cannot be used: {error}",
                        file=str(path),
                        suggestion="set lock_dir to a folder that the daemon may write",
                    )
                ]
            ) from error
        self._serial = serial
        owner = Owner(serial, address, self._name, os.getpid(), socket.gethostname())
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, msgspec.json.encode(owner) + b"\n", 0)
        except OSError:
            # A file of another user's, opened for reading, holds the lock as well.
            return

    def let_go(self) -> None:
        """Own nothing. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._serial = -1, ""

    def last_at(self, address: str) -> str:
        """The serial number of the instrument that was last owned at ``address``; '' if unknown."""
        found = [
            (path.stat().st_mtime, owner.serial)
            for path in self._folder.glob("labctl-palmsens-*.lock")
            if (owner := _owner(path)) is not None and owner.address == address
        ]
        return max(found)[1] if found else ""

    def _path(self, serial: str) -> Path:
        safe = re.sub(r"[^0-9A-Za-z_-]", "_", serial)
        return self._folder / f"labctl-palmsens-{safe}.lock"


def _opened(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | flags)
    except FileNotFoundError:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)


def _owner(path: Path) -> Owner | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (OSError, msgspec.MsgspecError):
        return None


def _by_whom(path: Path) -> str:
    owner = _owner(path)
    if owner is None:
        return " by another process"
    return f" by {owner.name!r}, process {owner.pid} on {owner.host}"
