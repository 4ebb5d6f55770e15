"""Single steps of packing a run: what must be true of it, and what is done to the table."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text, update

from labctl.archive import schema
from labctl.archive.exporting import sync_folder
from labctl.archive.packing_files import ColumnSums, sha256_of
from labctl.archive.packing_notes import Note
from labctl.archive.reading import Wanted, read_packed
from labctl.archive.spans import Spans
from labctl.archive.verify import verify_run
from labctl.errors import ArchiveError
from labctl.model import RECORD_COLUMNS

SLICE_ROWS = 20_000
LOCK = ".labctl-packing.lock"
ALL_COLUMNS = tuple(RECORD_COLUMNS)

RUN = select(
    schema.runs.c.run_number,
    schema.runs.c.run_id,
    schema.runs.c.source,
    schema.runs.c.outcome,
    schema.runs.c.last_seq,
    schema.runs.c.committed_seq,
    schema.runs.c.quarantined_seq,
    schema.runs.c.complete_through_seq,
)


def run_row(connection: Connection, run_number: int, *, lock: bool = False) -> Any:  # noqa: ANN401
    """What decides whether a run can be packed; locked on PostgreSQL until the transaction ends."""
    query = RUN.where(schema.runs.c.run_number == run_number)
    return connection.execute(query.with_for_update() if lock else query).one()


def why_not_ready(connection: Connection, run: Any) -> str:  # noqa: ANN401
    """Why a run cannot be packed; '' if it can."""
    if run.outcome is None or run.last_seq is None:
        return "it has not ended"
    if not run.last_seq:
        return "it has no samples"
    if Spans.parse(run.quarantined_seq).count == run.last_seq:
        return "all its samples are in quarantine"
    if run.complete_through_seq != run.last_seq:
        return (
            f"it ended with sample {run.last_seq} and is complete "
            f"through {run.complete_through_seq}"
        )
    cycles, batches, sources = schema.cycles, schema.batches, schema.sources
    waiting = connection.execute(
        select(func.min(cycles.c.cycle))
        .where(cycles.c.run_number == run.run_number)
        .where(~cycles.c.judged)
    ).scalar()
    if waiting is not None:
        return f"its cycle {waiting} has not been judged"
    last = connection.execute(
        select(func.max(batches.c.number))
        .where(batches.c.source == run.source)
        .where(batches.c.run_number == run.run_number)
    ).scalar()
    said = connection.execute(
        select(sources.c.committed).where(sources.c.source == run.source)
    ).scalar()
    through = Spans.parse(said or "").through
    if last is None or through < last:
        return f"batch {through + 1} of the journal {run.source} has not come"
    return ""


def compare(connection: Connection, run_id: str, note: Note, written: ColumnSums) -> None:
    """See that a file holds what was written into it, and that the run follows from it.

    Raises:
        ArchiveError: it does not.
    """
    again = ColumnSums()
    blocks = again.passing(read_packed(note, Wanted(run_number=note.run_number), ALL_COLUMNS))
    try:
        report = verify_run(connection, run_id, blocks=blocks)
    except ArchiveError as error:
        raise ArchiveError(
            f"run {run_id} is as it was, for the file that was written for it cannot be read back "
            f"({error.__cause__}); it was deleted: look after the disk"
        ) from error
    if (again.rows, written.rows) != (note.rows, note.rows) or written.differing(again):
        raise ArchiveError(
            f"{note.path} holds {again.rows} of the {note.rows} samples of run {run_id} and "
            f"differs in {', '.join(written.differing(again)) or 'no column'}; it was deleted, and "
            "the run is as it was: look after the disk"
        )
    if not report.accounted_for:
        raise ArchiveError(f"run {run_id} is not packed, for verify says: {report}")


def see_whole(note: Note) -> None:
    """Read a file from end to end.

    Raises:
        ArchiveError: it is not there, or not what was written.
    """
    try:
        found = sha256_of(note.path)
    except OSError as error:
        raise note.unreadable(error) from error
    if found != note.sha256:
        raise note.unreadable(f"its SHA-256 is {found}")


def of_note(statement: Any, note: Note) -> Any:  # noqa: ANN401
    """A statement on ``packed_runs`` for that row alone."""
    return statement.where(schema.packed_runs.c.run_number == note.run_number)


def set_state(connection: Connection, note: Note, state: str) -> None:
    """Note in what state a run is: see :mod:`labctl.archive.packing_notes`."""
    connection.execute(of_note(update(schema.packed_runs), note).values(state=state))


def rows_of(connection: Connection, note: Note) -> int:
    """How many of the samples that a file has the table has, too."""
    table = schema.samples
    query = (
        select(func.count())
        .select_from(table)
        .where(table.c.run_number == note.run_number, table.c.seq <= note.last_seq)
    )
    return int(connection.execute(query).scalar_one())


def delete_some(connection: Connection, note: Note) -> int:
    """Delete a slice of the rows, on PostgreSQL all of them; gives how many."""
    remains = "run_number = :run AND seq <= :last"
    given = {"run": note.run_number, "last": note.last_seq}
    if connection.dialect.name == "sqlite":
        some = f"SELECT rowid FROM samples WHERE {remains} LIMIT {SLICE_ROWS}"  # noqa: S608
        remains = f"rowid IN ({some})"
    found = connection.execute(text(f"DELETE FROM samples WHERE {remains}"), given)  # noqa: S608
    return int(found.rowcount)


def file_name(run_id: str, run_number: int) -> str:
    """A name for the file of a run that no other run of the archive has."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in run_id)
    return f"{plain[:60].lstrip('.')}-{run_number}.parquet"


def make_folder(folder: Path) -> None:
    """Make a folder and bring its name to the disk.

    Raises:
        ArchiveError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise ArchiveError(f"the folder {folder} cannot be made: {error.strerror}") from error


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep every other packing out of a folder.

    Raises:
        ArchiveError: one is at work in it.
    """
    try:
        with (folder / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise ArchiveError(f"another packing is at work in {folder}") from error
