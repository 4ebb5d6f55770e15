"""Old runs out of the table ``samples`` into Parquet, back again, and away by a policy.

A run is packed in this order:

1. its samples are written into a file, the file is brought to the disk under its name, read back
   and compared: every column the same, the run complete, its cycles equal to a recomputation;
2. one transaction notes the file in ``packed_runs``; from then on the file counts, and the rows
   are remains;
3. the rows are deleted, on SQLite a slice at a time with a pause as long as the slice took, so
   that what comes from the instruments gets in between;
4. the note says that only the file is left.

Whatever dies in between leaves the rows and a file that nobody knows, which the next packing
replaces, or a noted file and remains, which the next command on packed runs takes away. Unpacking
goes the other way: remains are made until they are all there, then the note is deleted, then the
file.

A run is packed when nothing of it can be missing: it has ended, all its samples are here or in
quarantine, every batch of its journal up to its last one is committed, and all its cycles are
judged. What comes all the same is kept in the table, and readers put it behind what is in the file.
What is in quarantine stays there, whatever becomes of the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from labctl.archive import packing_steps, schema
from labctl.archive.bulk import Block as OfRun
from labctl.archive.bulk import insert_samples
from labctl.archive.database import check, open_engine
from labctl.archive.exporting import said_of, whole_file
from labctl.archive.headers import read_header
from labctl.archive.packing_files import Block, ColumnSums, sums_of, write_samples
from labctl.archive.packing_notes import (
    MOVING,
    PACKED,
    REMOVED,
    Note,
    folder_at,
    note_of,
    notes,
)
from labctl.archive.packing_policy import Policy
from labctl.archive.packing_steps import (
    ALL_COLUMNS,
    RUN,
    alone_in,
    compare,
    delete_some,
    file_name,
    make_folder,
    of_note,
    rows_of,
    run_row,
    see_whole,
    set_state,
    why_not_ready,
)
from labctl.archive.reading import Wanted, read_packed
from labctl.archive.streaming import read_in_order
from labctl.archive.timeline import last_cycle, last_test_time_s
from labctl.errors import ArchiveError
from labctl.model import Records

ROWS_AT_ONCE = 100_000
_NOTED = tuple(column.name for column in schema.packed_runs.columns)


@dataclass(frozen=True, slots=True)
class Done:
    """One thing that was done, or in a dry run would be: to a run, and what of it."""

    run: str
    what: str

    def __str__(self) -> str:
        return f"{self.run}: {self.what}"


class Packing:
    """Packs runs of one archive; a context manager. Only one at a time works in a folder.

    Args:
        folder: where new files go; None for the folder beside an SQLite file.
        actor: who is noted.
        now: the time, since 1970.
        pause: waits so many seconds between slices.
        at: told the name of every moment at which what is on the disk has changed.
        settle: finish first what an earlier packing left; ``troubles`` says what could not be.

    Raises:
        ArchiveError: not an archive, it cannot be reached, no folder is named for an archive in
            PostgreSQL, or another packing is at work.
    """

    def __init__(
        self,
        url: str,
        *,
        actor: str,
        folder: Path | None = None,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
        at: Callable[[str], None] = lambda _: None,
        settle: bool = True,
    ) -> None:
        self._actor, self._now, self._pause, self._at = actor, now, pause, at
        self._engine = open_engine(url, create=False)
        self._reader = open_engine(url, read_only=True)
        self._of_sqlite = self._engine.dialect.name == "sqlite"
        self._folder = None if folder is None else folder.resolve()
        self._wants_settling = settle
        self._open = contextlib.ExitStack()
        self.troubles: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            opened.callback(self._engine.dispose)
            opened.callback(self._reader.dispose)
            check(self._engine)
            opened.enter_context(alone_in(self._lock_folder()))
            if self._wants_settling:
                with self._explained():
                    self._settle()
            self._open = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def pack(self, run: str) -> Done:
        """Pack a run.

        Raises:
            ArchiveError: no such run; it is not ready to be packed; its file cannot be written or
                is not what was written; the database is away. The run is as it was, or the rest is
                done by the next packing.
        """
        with self._explained():
            return self._pack(run)

    def unpack(self, run: str) -> Done:
        """Put the samples of a packed run back into the table, and delete its file.

        Raises:
            ArchiveError: no such run; it is not packed; its file cannot be read; the database is
                away.
        """
        with self._explained():
            return self._unpack(run)

    def ready(self, older_than_s: float) -> tuple[list[str], list[Done]]:
        """The runs that ended so long ago and can be packed; and those that cannot, and why."""
        ready, not_ready = [], []
        with self._explained(), self._reader.connect() as connection:
            for run in self._ended(connection, older_than_s):
                if note_of(connection, run.run_number) is not None or not run.last_seq:
                    continue
                if reason := why_not_ready(connection, run):
                    not_ready.append(Done(run.run_id, f"not packed: {reason}"))
                else:
                    ready.append(str(run.run_id))
        return ready, not_ready

    def look(self, run: str) -> tuple[int, str]:
        """How many samples a run has, and why it cannot be packed; '' if it can.

        Raises:
            ArchiveError: no such run.
        """
        with self._explained(), self._reader.connect() as connection:
            header = read_header(connection, run)
            if note_of(connection, header.run_number) is not None:
                return header.present.count, "it is packed already"
            reason = why_not_ready(connection, run_row(connection, header.run_number))
            return header.present.count, reason

    def tidy(self, policy: Policy, *, dry_run: bool = False) -> Iterator[Done]:
        """Do what a policy says, a run at a time; gives what was done, and what could not be.

        Raises:
            ArchiveError: the database is away, or the folder cannot be written.
        """
        if policy.pack_after_s is not None:
            ready, not_ready = self.ready(policy.pack_after_s)
            yield from not_ready
            for run in ready:
                if dry_run:
                    yield Done(run, f"{self.look(run)[0]} samples would be packed")
                    continue
                try:
                    yield self.pack(run)
                except ArchiveError as error:
                    yield Done(run, f"not packed: {error}")
        if policy.raw_kept_for_s is None:
            return
        with self._explained(), self._reader.connect() as connection:
            old = {
                str(run.run_id): note
                for run in self._ended(connection, policy.raw_kept_for_s)
                if (note := note_of(connection, run.run_number)) is not None
                and note.state == PACKED
            }
        for run_id, note in old.items():
            if not dry_run:
                with self._explained():
                    self._remove(note, f"policy, which keeps raw data for {policy.said}")
            verb = "would be" if dry_run else "were"
            yield Done(run_id, f"{note.rows} samples {verb} deleted, kept for {policy.said}")

    def vacuum(self) -> None:
        """Give free pages of an SQLite file back: writes all of it anew, and nothing gets in
        meanwhile.

        Raises:
            ArchiveError: the disk is full, or the database is away.
        """
        if not self._of_sqlite:
            return
        with self._explained(), contextlib.closing(self._engine.raw_connection()) as connection:
            driver: Any = connection.driver_connection
            try:
                driver.execute("VACUUM")
            except driver.Error as error:
                raise ArchiveError(f"the archive cannot be written anew: {error}") from error

    def _pack(self, run_id: str) -> Done:
        with self._reader.connect() as connection:
            header = read_header(connection, run_id)
            run = run_row(connection, header.run_number)
            if note_of(connection, header.run_number) is not None:
                raise ArchiveError(f"run {run_id} is packed already")
            if reason := why_not_ready(connection, run):
                raise ArchiveError(f"run {run_id} is not packed: {reason}")
            path = self._folder_of_files() / file_name(run_id, header.run_number)
            written = ColumnSums()
            with whole_file(path) as part:
                blocks = written.passing(
                    read_in_order(
                        connection, Wanted(run_number=header.run_number), ALL_COLUMNS,
                        present=header.present, rows=ROWS_AT_ONCE,
                    )
                )  # fmt: skip
                write_samples(
                    part, header.run_number, self._told(blocks, "writing"), said_of(header)
                )
                self._at("written")
            self._at("named")
            sums = sums_of(path)
            note = Note(
                path=path,
                run_id=run_id,
                run_number=header.run_number,
                last_seq=int(run.last_seq),
                state=MOVING,
                folder="" if self._folder is None else str(self._folder),
                file=path.name,
                rows=header.present.count,
                size_B=sums.size_B,
                sha256=sums.sha256,
                crc32=sums.crc32,
                last_cycle=last_cycle(connection, header.run_number),
                last_test_time_s=last_test_time_s(connection, header.run_number) or 0.0,
                packed_unix_s=self._now(),
                packed_by=self._actor,
                removed_unix_s=None,
                removed_by=None,
            )
            try:
                compare(connection, run_id, note, written)
            except ArchiveError:
                path.unlink()
                raise
        with self._engine.begin() as connection:
            if run_row(connection, note.run_number, lock=True) != run:
                path.unlink()
                raise ArchiveError(f"run {run_id} is as it was, for more of it came meanwhile")
            values = {name: getattr(note, name) for name in _NOTED}
            connection.execute(insert(schema.packed_runs).values(values))
        self._at("noted")
        self._take_out(note)
        return Done(run_id, f"{note.rows} samples packed into {path} ({note.size_B / 1e6:.1f} MB)")

    def _unpack(self, run_id: str) -> Done:
        with self._reader.connect() as connection:
            note = note_of(connection, read_header(connection, run_id).run_number)
        if note is None:
            raise ArchiveError(f"run {run_id} is not packed")
        if note.removed:
            raise ArchiveError(f"run {run_id} cannot be unpacked: {note.removed}")
        see_whole(note)
        with self._engine.begin() as connection:
            set_state(connection, note, MOVING)
        self._at("unpacking")
        wanted = Wanted(run_number=note.run_number)
        for block in read_packed(note, wanted, ALL_COLUMNS):
            for first in range(0, len(block["seq"]), packing_steps.SLICE_ROWS):
                piece = {
                    name: column[first : first + packing_steps.SLICE_ROWS]
                    for name, column in block.items()
                }
                began_s = time.monotonic()
                with self._engine.begin() as connection:
                    insert_samples(connection, [OfRun(note.run_number, Records(**piece))])
                self._at("put back")
                self._pause(time.monotonic() - began_s)
        with self._engine.begin() as connection:
            there = rows_of(connection, note)
            if there != note.rows:
                raise ArchiveError(f"{there} of {note.rows} samples of run {run_id} came back")
            connection.execute(of_note(delete(schema.packed_runs), note))
        self._at("forgotten")
        note.path.unlink(missing_ok=True)
        return Done(run_id, f"{note.rows} samples are in the table again")

    def _remove(self, note: Note, by: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                of_note(update(schema.packed_runs), note).values(
                    state=REMOVED, removed_unix_s=self._now(), removed_by=by
                )
            )
        self._at("given up")
        note.path.unlink(missing_ok=True)

    def _settle(self) -> None:
        """Finish what an earlier packing left."""
        with self._reader.connect() as connection:
            found = notes(connection)
        for note in found:
            if note.state == REMOVED:
                note.path.unlink(missing_ok=True)
            elif note.state == MOVING:
                self._settle_moving(note)

    def _settle_moving(self, note: Note) -> None:
        try:
            see_whole(note)
        except ArchiveError as error:
            # While every row is still there nothing is lost with the file.
            with self._engine.begin() as connection:
                if rows_of(connection, note) == note.rows:
                    connection.execute(of_note(delete(schema.packed_runs), note))
                    return
            self.troubles.append(str(error))
            return
        self._take_out(note)

    def _take_out(self, note: Note) -> None:
        """Delete the rows that the file has, and note that only the file is left."""
        while True:
            began_s = time.monotonic()
            with self._engine.begin() as connection:
                if not delete_some(connection, note):
                    break
            self._at("taken out")
            self._pause(time.monotonic() - began_s)
        with self._engine.begin() as connection:
            set_state(connection, note, PACKED)
        self._at("packed")

    def _ended(self, connection: Connection, older_than_s: float) -> Sequence[Any]:
        runs = schema.runs
        query = (
            RUN.where(runs.c.ended_unix_s < self._now() - older_than_s)
            .where(runs.c.outcome.is_not(None))
            .order_by(runs.c.ended_unix_s, runs.c.run_number)
        )
        return connection.execute(query).all()

    def _told(self, blocks: Iterator[Block], name: str) -> Iterator[Block]:
        for block in blocks:
            yield block
            self._at(name)

    def _lock_folder(self) -> Path:
        """Where new files go; for an archive that names no folder, where its files are."""
        if self._folder is None and not self._of_sqlite:
            with self._explained(), self._reader.connect() as connection:
                noted = connection.execute(select(schema.packed_runs.c.folder)).scalars().first()
            if noted is None:
                raise ArchiveError(
                    "the archive is in PostgreSQL: name the folder for packed runs, which every PC "
                    "that reads them must see, as packed_dir under [archive] or with --to"
                )
            self._folder = Path(noted)
        folder = self._folder_of_files()
        make_folder(folder)
        return folder

    def _folder_of_files(self) -> Path:
        return folder_at(self._engine.url, "" if self._folder is None else str(self._folder))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise ArchiveError(
                f"the archive cannot be written: {error.orig}; call again"
            ) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise ArchiveError(f"{where}{error.strerror or error}") from error
