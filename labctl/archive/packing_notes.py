"""Which runs have their samples in a file: the table ``packed_runs``, and where the file is.

A row of it decides for every reader. ``moving``: the file counts, and rows of the same numbers in
``samples`` are remains that are being taken out or put back. ``packed``: only the file is left.
``removed``: a policy had the file deleted; cycles, steps, events and alarms stay.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.engine import URL

from labctl.archive.schema import packed_runs, runs
from labctl.errors import ArchiveError

MOVING: Final = "moving"
PACKED: Final = "packed"
REMOVED: Final = "removed"
FOLDER_VARIABLE: Final = "LABCTL_PACKED_DIR"
"""Names the folder of packed runs where it is not what the archive has noted, as on another PC."""


@dataclass(frozen=True, slots=True)
class Note:
    """What the archive has noted of a packed run: a row of ``packed_runs``.

    path: of the file, as this program finds it.
    last_seq: of the run. Every sample up to it is in the file, or in quarantine for good.
    rows: so many are in the file.
    """

    path: Path
    run_id: str
    run_number: int
    last_seq: int
    state: str
    folder: str
    file: str
    rows: int
    size_B: int
    sha256: str
    crc32: str
    last_cycle: int
    last_test_time_s: float
    packed_unix_s: float
    packed_by: str
    removed_unix_s: float | None
    removed_by: str | None

    @property
    def removed(self) -> str:
        """When and by what its samples were removed; '' if they were not."""
        if self.state != REMOVED or self.removed_unix_s is None:
            return ""
        day = datetime.fromtimestamp(self.removed_unix_s, UTC).date()
        return f"its {self.rows} samples were removed on {day} by {self.removed_by}"

    def unreadable(self, reason: object) -> ArchiveError:
        """An error that names the file and says what to do."""
        said = getattr(reason, "strerror", None) or reason
        return ArchiveError(
            f"the samples of run {self.run_id} are packed into {self.path}, which cannot be read: "
            f"{said}; put the file back from a copy (SHA-256 {self.sha256}), or name the folder "
            f"that it is in now with ${FOLDER_VARIABLE}"
        )


_OF_RUN = (
    select(packed_runs, runs.c.run_id, runs.c.last_seq)
    .join(runs, runs.c.run_number == packed_runs.c.run_number)
    .where(packed_runs.c.run_number == bindparam("of"))
)
_COLUMNS = tuple(one.name for one in fields(Note) if one.name != "path")


def note_of(connection: Connection, run_number: int) -> Note | None:
    """What is noted of a run; None if its samples are in the table."""
    row = connection.execute(_OF_RUN, {"of": run_number}).mappings().one_or_none()
    if row is None:
        return None
    folder = folder_at(connection.engine.url, str(row["folder"]))
    return Note(folder / str(row["file"]), *(row[name] for name in _COLUMNS))


def notes(connection: Connection) -> list[Note]:
    """Every packed run."""
    numbers = connection.execute(select(packed_runs.c.run_number).order_by("run_number"))
    found = (note_of(connection, number) for number in numbers.scalars().all())
    return [note for note in found if note is not None]


def folder_at(url: URL, noted: str) -> Path:
    """Where the files of the archive at ``url`` are.

    Args:
        noted: what ``packed_runs`` has as their folder.
    """
    named = os.environ.get(FOLDER_VARIABLE, "")
    if named:
        return Path(named)
    return Path(noted) if noted else beside(url)


def beside(url: URL) -> Path:
    """The folder beside an SQLite file."""
    return Path(f"{Path(str(url.database)).resolve()}.packed")
