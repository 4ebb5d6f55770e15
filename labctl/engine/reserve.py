"""Room on the journal's disk that is given up when the disk is full.

A file of zeros beside the journal. Given up, it lets the runs be brought to an order and what the
archive has be deleted, while a person makes room; it is laid by again when there is room enough.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

SIZE_B: Final = 32 * 1024 * 1024
"""Some 350,000 readings."""
_ROOM_FOR: Final = 4
"""It is laid by only where so many times its size is free: it is not to fill the disk itself."""


class Reserve:
    """The file at ``path``; ``size_B`` is 0 for none. For one thread at a time."""

    def __init__(self, path: Path, size_B: int = SIZE_B) -> None:
        self._path = path
        self._size_B = size_B
        self.given_up = False
        """Whether the disk was full, and has not had room again since."""

    def lay_by(self) -> bool:
        """Make the file if there is room for it; whether it is there now."""
        try:
            if self._path.exists() and self._path.stat().st_size >= self._size_B:
                self.given_up = False
                return True
            disk = os.statvfs(self._path.parent)
            if self._size_B == 0 or disk.f_bavail * disk.f_frsize < _ROOM_FOR * self._size_B:
                return False
            self._fill()
        except OSError as error:
            log.warning("no room is kept for a full disk beside the journal: %s", error)
            self._path.unlink(missing_ok=True)
            return False
        self.given_up = False
        return True

    def give_up(self) -> bool:
        """The disk is full: make room. Whether there was any to make."""
        self.given_up = True
        try:
            self._path.unlink()
        except OSError:
            return False
        log.error(
            "the disk of the journal is full: %d MB that were kept for this are used now; make "
            "room on %s",
            self._size_B // 1_000_000,
            self._path.parent,
        )
        return True

    def _fill(self) -> None:
        # Zeros are written, for a file with holes keeps nothing.
        with self._path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self._size_B)
            os.fsync(file.fileno())
