"""What a rack keeps on disk, so that killing it loses nothing that it told anyone.

Per channel: ``1-3.test`` (the test that was started and where it was cut, written before the answer
is sent), ``1-3.marks`` (places from which the test can be simulated again, appended; losing the
last ones costs time only) and ``1-3.shown`` (the last record that was shown to anyone in virtual
time). The records themselves are not kept: they follow from these, bit for bit.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from pathlib import Path
from typing import TypeVar

import msgspec

from labctl.errors import ConfigError, Problem
from labctl.simulators.neware_bts.position import Condition, Position

VERSION = 1


class Tail(msgspec.Struct, frozen=True):
    """The record made when a test was cut between two others; true values."""

    visit: int
    step: int
    cycle: int
    start_s: float
    ms: int
    voltage_V: float
    current_A: float
    capacity_Ah: float
    energy_Wh: float


class Cut(msgspec.Struct, frozen=True):
    """How a leg was ended from outside: its last record of its own, and what was left."""

    condition: Condition
    last_seq: int
    tail: Tail | None
    position: Position
    cell: bytes


class Leg(msgspec.Struct, frozen=True):
    """A part of a test that ran without anybody interfering; simulated again from its start.

    A record at test time t carries the label ``unix_offset_s`` + t.
    """

    number: int
    file: bytes
    position: Position
    cell: bytes
    unix_offset_s: float
    pause_after_visit: int = 0
    cut: Cut | None = None


class Test(msgspec.Struct, frozen=True):
    """One test of a channel; a pause, a jump and a new file each begin a new leg."""

    test_id: int
    barcode: str
    legs: tuple[Leg, ...]

    __test__ = False


class Mark(msgspec.Struct, frozen=True):
    """A place inside a leg, and the table of the visits in the records before it."""

    test_id: int
    leg: int
    position: Position
    cell: bytes
    layers: bytes


class ChannelRecord(msgspec.Struct, frozen=True):
    """``cell`` says what is connected, so that a changed cell is noticed."""

    version: int
    cell: str
    last_test_id: int
    test: Test | None


class RackRecord(msgspec.Struct, frozen=True):
    """The rack's own clock: at ``wall_unix_s`` it stood at ``epoch_unix_s``."""

    version: int
    seed: int
    epoch_unix_s: float
    wall_unix_s: float


Record = TypeVar("Record")

_FRAME = struct.Struct("<II")
_SHOWN = struct.Struct("<QQ")


class StateDirectory:
    """The directory of one rack, held by one process; None keeps nothing.

    Raises:
        ConfigError: another process holds the directory, or it cannot be used.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self._lock = -1
        if directory is None:
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise _cannot(directory, "another rack is using this state directory") from error
        except OSError as error:
            raise _cannot(directory, f"the state directory cannot be used: {error}") from error

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def read_rack(self) -> RackRecord | None:
        """What :meth:`write_rack` wrote last.

        Raises:
            ConfigError: the file is not what this version writes.
        """
        if self.directory is None or not (self.directory / "rack.json").exists():
            return None
        path = self.directory / "rack.json"
        try:
            record = msgspec.json.decode(path.read_bytes(), type=RackRecord)
        except msgspec.MsgspecError as error:
            raise _cannot(path, f"cannot be read: {error}") from error
        return _checked(path, record, record.version)

    def write_rack(self, record: RackRecord) -> None:
        if self.directory is not None:
            write_durably(self.directory / "rack.json", msgspec.json.encode(record))

    def channel(self, name: str) -> ChannelFiles:
        return ChannelFiles(self.directory, name)


class ChannelFiles:
    """The three files of one channel."""

    def __init__(self, directory: Path | None, name: str) -> None:
        self._test = None if directory is None else directory / f"{name}.test"
        self._marks = None if directory is None else directory / f"{name}.marks"
        self._marks_end = 0
        self._shown = -1
        if directory is not None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._shown = os.open(directory / f"{name}.shown", flags, 0o644)

    def close(self) -> None:
        if self._shown >= 0:
            os.close(self._shown)
            self._shown = -1

    def read(self) -> ChannelRecord | None:
        """What :meth:`write` wrote last.

        Raises:
            ConfigError: the file is not what this version writes.
        """
        if self._test is None or not self._test.exists():
            return None
        try:
            record = msgspec.msgpack.decode(self._test.read_bytes(), type=ChannelRecord)
        except msgspec.MsgspecError as error:
            raise _cannot(self._test, f"cannot be read: {error}") from error
        return _checked(self._test, record, record.version)

    def write(self, record: ChannelRecord) -> None:
        """On the disk when this returns."""
        if self._test is not None:
            write_durably(self._test, msgspec.msgpack.encode(record))

    def read_marks(self, test_id: int) -> list[Mark]:
        """The marks of a test; what was written last and not wholly is forgotten."""
        marks: list[Mark] = []
        if self._marks is None or not self._marks.exists():
            return marks
        data = self._marks.read_bytes()
        at = 0
        while at + _FRAME.size <= len(data):
            length, checksum = _FRAME.unpack_from(data, at)
            body = data[at + _FRAME.size : at + _FRAME.size + length]
            if len(body) < length or zlib.crc32(body) != checksum:
                break
            marks.append(msgspec.msgpack.decode(body, type=Mark))
            at += _FRAME.size + length
        self._marks_end = at
        return [mark for mark in marks if mark.test_id == test_id]

    def add_mark(self, mark: Mark) -> None:
        if self._marks is None:
            return
        framed = _framed(mark)
        with self._marks.open("r+b" if self._marks.exists() else "w+b") as file:
            file.truncate(self._marks_end)
            file.seek(self._marks_end)
            file.write(framed)
        self._marks_end += len(framed)

    def replace_marks(self, marks: list[Mark]) -> None:
        if self._marks is None:
            return
        framed = b"".join(_framed(mark) for mark in marks)
        write_durably(self._marks, framed)
        self._marks_end = len(framed)

    def read_shown(self, test_id: int) -> int:
        """The last record that was shown of a test; 0 if none."""
        if self._shown < 0:
            return 0
        data = os.pread(self._shown, _SHOWN.size, 0)
        if len(data) < _SHOWN.size:
            return 0
        of_test, seq = _SHOWN.unpack(data)
        return int(seq) if of_test == test_id else 0

    def write_shown(self, test_id: int, seq: int) -> None:
        """Survives the death of the process, not of the machine."""
        if self._shown >= 0:
            os.pwrite(self._shown, _SHOWN.pack(test_id, seq), 0)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file so that after any crash it is wholly the old or wholly the new one."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _framed(mark: Mark) -> bytes:
    body = msgspec.msgpack.encode(mark)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _checked(path: Path, record: Record, version: int) -> Record:
    if version != VERSION:
        raise _cannot(path, f"is of version {version}; this program writes version {VERSION}")
    return record


def _cannot(path: Path, message: str) -> ConfigError:
    return ConfigError([Problem(message, file=str(path))])
