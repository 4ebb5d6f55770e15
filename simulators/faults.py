"""Faults on demand: what a simulated instrument does wrong, by name.

A fault is chosen at start, or at run time through a JSON file that is read again whenever it
changes, such as ``[{"name": "frozen", "channel": "1-3"}, {"name": "drop", "times": 1}]``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from labctl.errors import ConfigError, Problem

logger = logging.getLogger(__name__)

FAULTS: dict[str, str] = {
    "slow": "every answer comes `seconds` late",
    "stall": "an answer comes 5 s late, or `seconds`",
    "hang": "no answer ever comes, and the connection stays open",
    "drop": "the command is carried out, then the connection is closed without an answer",
    "drop_unheard": "the connection is closed before the command is carried out",
    "garbage": "bytes that mean nothing come instead of the answer",
    "truncate": "half of the answer comes, then the connection is closed",
    "frozen": "voltage and current keep the value that they had",
    "unavailable": "the channel answers `false` to everything",
    "ignores_stop": "stop is answered `ok`, and the output stays on",
    "wrong_serial": "another serial number is told",
    "over_temperature": "the heater of a chamber stays on, whatever it is told",
    "unplugged": "every connection is closed, and no command is heard",
    "unplug": "its port is gone, for `seconds` or as long as the fault is there; it works on",
    "power_cut": "it is switched off and on: settings are gone and outputs open",
}
"""Every fault that exists; a simulated instrument need not know all of them."""

DEFAULT_SECONDS = {"slow": 0.5, "stall": 5.0}


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault. Empty ``channel`` or ``command`` means every one; ``times`` None means always."""

    name: str
    channel: str = ""
    command: str = ""
    times: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(f"there is no fault {self.name!r}; there are {', '.join(FAULTS)}")
        if self.seconds is not None and not 0 <= self.seconds <= 86_400:
            raise ValueError(f"seconds must be 0 to 86400, not {self.seconds}")

    @property
    def delay_s(self) -> float:
        """How late the answer comes, in s of the instrument's clock."""
        return DEFAULT_SECONDS.get(self.name, 0.0) if self.seconds is None else self.seconds

    def concerns(self, command: str, channel: str) -> bool:
        return self.command in {"", command} and self.channel in {"", channel}


def read_faults(path: Path) -> tuple[Fault, ...]:
    """The faults in a JSON file.

    Raises:
        ConfigError: the file is not a list of faults.
        OSError: the file cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Fault, ...])
    except msgspec.MsgspecError as error:
        raise ConfigError([Problem(str(error), file=str(path))]) from error


def write_faults(path: Path, faults: Sequence[Fault]) -> None:
    """Set the faults of a running simulator that watches ``path``; an empty list ends them."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(msgspec.json.encode(list(faults)))
    new.replace(path)


class FaultBoard:
    """The faults in force now. Safe to use from several threads."""

    def __init__(self, faults: Iterable[Fault] = (), file: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._given = tuple(faults)
        self._file = file
        self._mark: tuple[int, int, int] | None = None
        self._left = self._count(self._given)

    def refresh(self) -> None:
        """Read the file again if it has changed. A file that is not right changes nothing."""
        if self._file is None:
            return
        mark: tuple[int, int, int] | None = None
        with contextlib.suppress(FileNotFoundError):
            found = self._file.stat()
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        with self._lock:
            if mark == self._mark:
                return
            self._mark = mark
            try:
                added = () if mark is None else read_faults(self._file)
            except (ConfigError, OSError) as error:
                logger.warning("the faults stay as they are: %s", error)
                return
            self._left = self._count((*self._given, *added))

    def standing(self, name: str) -> Fault | None:
        """The first fault of that name, which is not counted as having happened."""
        with self._lock:
            for fault, left in self._left:
                if fault.name == name and left != 0:
                    return fault
        return None

    def take(self, name: str, command: str, channels: Iterable[str] = ("",)) -> Fault | None:
        """The first fault of that name that concerns the command, counted as having happened."""
        with self._lock:
            for place, (fault, left) in enumerate(self._left):
                if fault.name != name or left == 0:
                    continue
                if any(fault.concerns(command, channel) for channel in channels):
                    self._left[place] = (fault, None if left is None else left - 1)
                    return fault
        return None

    @staticmethod
    def _count(faults: Iterable[Fault]) -> list[tuple[Fault, int | None]]:
        return [(fault, fault.times) for fault in faults]
