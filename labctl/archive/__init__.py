"""The SQL archive: its schema, its one writer, and how to read it.

>>> from labctl.archive import open_archive
>>> open_archive("sqlite:///archive.db").cycles("run-1")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labctl.archive.queries import Archive

__all__ = ["open_archive"]


def open_archive(url: str) -> Archive:
    """Open an archive for reading: see :class:`labctl.archive.queries.Archive`.

    Raises:
        ArchiveError: not an archive, of another schema, or it cannot be reached.
    """
    from labctl.archive.queries import Archive

    return Archive.open(url)
