"""One owner an instrument, among all programs on this PC: a lock file for each name that it has.

A name says where an instrument is, or which one it is (:mod:`labctl.wire.places`). The operating
system frees a lock when its process ends, however it ends. The file says who has, or had, the
instrument; only who holds its lock may delete it. Another PC knows nothing of these locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from labctl.errors import ConfigError, InstrumentError, Problem

DEFAULT_FOLDER: Final = Path("/run/lock/labctl")
FOLDER_VARIABLE: Final = "LABCTL_LOCK_DIR"
"""Environment variable that names another folder for whoever does not name one."""

_FOLDER_MODE: Final = 0o1777
_FILE_MODE: Final = 0o666
_READABLE: Final = 0o644
_LONGEST_NAME: Final = 80
_MOST_TRIES: Final = 10


class Owner(msgspec.Struct, frozen=True):
    """What a lock file says. ``who`` is a node and its instrument, or a command."""

    who: str
    pid: int
    host: str
    since_unix_s: float
    name: str

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since_unix_s))
        return f"{self.who}, process {self.pid} on {self.host}, since {since}"


class OwnedError(InstrumentError):
    """Somebody else has the instrument. ``owner`` is None where the lock file does not say who."""

    def __init__(self, name: str, owner: Owner | None) -> None:
        self.name = name
        self.owner = owner
        super().__init__(
            f"owned by {owner or 'another process'}: it is not touched (its lock is {name!r})",
            instrument=name,
        )


def lock_folder(given: str | Path = "") -> Path:
    """The folder of the lock files: what is given, else what the environment says, else
    :data:`DEFAULT_FOLDER`."""
    return Path(given or os.environ.get(FOLDER_VARIABLE, "") or DEFAULT_FOLDER)


class Ownership:
    """What one instrument's user owns of it: a node, or a command that asks it something.

    ``who`` is told to whoever wants the same; it should name the node and the instrument.
    """

    def __init__(self, folder: Path, *, who: str) -> None:
        self._folder = folder
        self._who = who
        self._held: dict[str, int] = {}

    @property
    def held(self) -> tuple[str, ...]:
        """The names that are owned."""
        return tuple(self._held)

    def take(self, names: Iterable[str]) -> None:
        """Own all of ``names`` from here on, or none of those that were not owned before.

        Raises:
            OwnedError: somebody else owns one of them.
            ConfigError: the folder cannot be used.
        """
        taken: list[str] = []
        complete = False
        try:
            for name in names:
                if name not in self._held:
                    self._held[name] = self._locked(name)
                    taken.append(name)
            complete = True
        finally:
            if not complete:
                self.let_go(taken)

    def let_go(self, names: Iterable[str] | None = None) -> None:
        """Own ``names``, or everything, no longer. Idempotent."""
        for name in self.held if names is None else tuple(names):
            file = self._held.pop(name, -1)
            if file >= 0:
                # Whoever opened the file before this sees, once it is locked, that it is gone.
                with contextlib.suppress(OSError):
                    (self._folder / _file_name(name)).unlink()
                os.close(file)

    def _locked(self, name: str) -> int:
        path = self._folder / _file_name(name)
        try:
            _make(self._folder)
            file = _lock(path)
        except BlockingIOError:
            raise OwnedError(name, _owner(path)) from None
        except OSError as error:
            raise ConfigError(
                [
                    Problem(
                        "the lock file that keeps other daemons off an instrument cannot be used: "
                        f"{error.strerror or error}",
                        file=str(path),
                        suggestion="join the group that owns the folder, make it with "
                        "'systemd-tmpfiles --create', or set lock_dir under [node] to a folder "
                        "that every daemon on this PC may write",
                    )
                ]
            ) from error
        owner = Owner(self._who, os.getpid(), socket.gethostname(), time.time(), name)
        # A file of another user's, opened for reading only, holds the lock as well.
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, msgspec.json.encode(owner) + b"\n", 0)
        return file


def owner_of(folder: Path, names: Iterable[str]) -> Owner | None:
    """Who owns one of ``names`` now, found without owning any of them; None if nobody does.

    Raises:
        ConfigError: a lock file is there and cannot be looked at.
    """
    for name in names:
        path = folder / _file_name(name)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        except OSError as error:
            message = f"cannot be looked at: {error.strerror or error}"
            raise ConfigError([Problem(message, file=str(path))]) from error
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _owner(path) or Owner("another process", 0, "this PC", 0.0, name)
        finally:
            os.close(file)
    return None


def remember(folder: Path, address: str, serial: str) -> None:
    """Keep which instrument was found at an address; what cannot be kept is forgotten."""
    with contextlib.suppress(OSError):
        _make(folder)
        file, new = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(file, "wb") as opened:
                opened.write(msgspec.json.encode(serial))
                os.fchmod(file, _READABLE)
                Path(new).replace(folder / _file_name(f"last at {address}", "json"))
        finally:
            Path(new).unlink(missing_ok=True)


def remembered(folder: Path, address: str) -> str:
    """The serial number of the instrument that was last found there; '' if that is not known."""
    path = folder / _file_name(f"last at {address}", "json")
    try:
        return msgspec.json.decode(path.read_bytes(), type=str)
    except (OSError, msgspec.MsgspecError):
        return ""


def _make(folder: Path) -> None:
    """The folder, for every user of this PC, each of whom can delete only files of their own."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(_FOLDER_MODE)


def _lock(path: Path) -> int:
    """The open and locked file.

    Raises:
        BlockingIOError: somebody else has it.
        OSError: it cannot be used.
    """
    for _ in range(_MOST_TRIES):
        file = _opened(path)
        locked = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = _is_still_there(file, path)
        finally:
            if not locked:
                os.close(file)
        if locked:
            return file
    raise OSError("it is deleted again and again")


def _opened(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | flags)
    except FileNotFoundError:
        file = os.open(path, os.O_RDWR | os.O_CREAT | flags, _FILE_MODE)
        with contextlib.suppress(OSError):
            os.fchmod(file, _FILE_MODE)
        return file
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)


def _is_still_there(file: int, path: Path) -> bool:
    """Whether the open file is the one that others find under that name."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(file)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


def _owner(path: Path) -> Owner | None:
    """What the file says; None where it says nothing, or names a process that is no more."""
    try:
        owner = msgspec.json.decode(path.read_bytes(), type=Owner)
    except (OSError, msgspec.MsgspecError):
        return None
    try:
        os.kill(owner.pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        return owner
    return owner


def _file_name(name: str, ending: str = "lock") -> str:
    """A name's file: readable, and with a checksum where something of the name is left out."""
    plain = re.sub(r"[^0-9A-Za-z._-]+", "-", name).strip("-.")
    if plain != name.replace(" ", "-") or len(plain) > _LONGEST_NAME:
        checksum = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        plain = f"{plain[:_LONGEST_NAME]}-{checksum}"
    return f"{plain}.{ending}"
