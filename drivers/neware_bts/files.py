"""Step files on the disk that this PC shares with the BTS host. Blocking calls: run in a thread."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WINDOWS = re.compile(r"[A-Za-z]:|.*\\")


def is_plain_name(name: str) -> bool:
    """Whether ``name`` can be the name of a file everywhere, and can leave no folder."""
    return _PLAIN_NAME.fullmatch(name) is not None and not name.endswith(".")


def path_on_host(folder: str, name: str) -> str:
    """``name`` in ``folder``, as the BTS host writes paths: with backslashes on Windows."""
    if _WINDOWS.match(folder):
        return str(PureWindowsPath(folder) / name)
    return str(PurePosixPath(folder) / name)


def written_and_read_back(path: Path, data: bytes) -> bytes:
    """What ``path`` holds after ``data`` was written to it.

    Raises:
        OSError: it could not be written or read.
    """
    write_whole(path, data)
    return path.read_bytes()


_parts = itertools.count()
"""A write that was given up goes on in its thread, beside the next one of the same file."""


def write_whole(path: Path, data: bytes) -> None:
    """``path`` holds all of ``data``, or what it held before, whenever the power fails.

    Raises:
        OSError: it could not be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{next(_parts)}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    # Neither Windows nor every network share can sync a folder.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
