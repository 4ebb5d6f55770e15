"""The node's journal: one SQLite file, one writer, in which nothing is believed that is not here.

One transaction holds a batch of readings *and* the checkpoint of its run, so data and state cannot
disagree after a crash (WAL, ``synchronous=FULL``). Batches lie here as the bytes that MQTT will
carry, and stay until the archive says that it has committed them. Checkpoints and batches carry a
CRC-32.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from labctl.clock import Clock, RealClock
from labctl.engine.journal_file import Entry, JournalFile, lock_journal, unpack
from labctl.engine.run import Charter, Checkpoint
from labctl.errors import JournalError
from labctl.model import Cell
from labctl.stream.topics import Ack

__all__ = ["Backlog", "Entry", "Journal", "open_journal"]

log = logging.getLogger(__name__)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the archive has not confirmed yet."""

    batches: int
    size_bytes: int


class Journal:
    """Use :func:`open_journal`. Every method may be called from any task of one event loop."""

    def __init__(
        self, file: JournalFile, thread: ThreadPoolExecutor, clock: Clock, spacing_s: float
    ) -> None:
        self._file = file
        self._thread = thread
        self._clock = clock
        self.spacing_s = spacing_s
        """From the beginning of one transaction to that of the next, at least."""
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._work = asyncio.Event()
        self._grown = asyncio.Condition()
        self._closed = False
        self.problem = ""
        """What keeps the journal from letting go of what the archive has; '' if nothing does."""
        self.damaged: dict[str, str] = {}
        """What :meth:`runs` and :meth:`cells` could not read, and why."""
        self.source: str = file.source
        self._last_number = file.last_number

    @property
    def disk_is_full(self) -> bool:
        """Whether what was kept for a full disk is being used: no new work is to begin."""
        return self._file.reserve.given_up

    async def commit(self, entry: Entry) -> None:
        """Return once ``entry`` is on the disk. Entries that wait together share a transaction.

        A caller that is cancelled while it waits does not know whether the entry is kept: it must
        not go on with what it remembers, but with what the journal says when it is opened again.

        Raises:
            JournalError: it is not kept, none of it; the caller's state must not move on.
        """
        if self._closed:
            raise JournalError("the journal is closed: nothing more can be kept")
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, kept))
        self._work.set()
        await kept

    async def runs(self) -> list[tuple[Charter, Checkpoint]]:
        """Every run that can be read, oldest first; the others are named in :attr:`damaged`."""
        found: list[tuple[Charter, Checkpoint]] = []
        for run, charter, checkpoint in await self._query(
            "SELECT run, charter, checkpoint FROM runs ORDER BY run", ()
        ):
            try:
                found.append(
                    (
                        unpack(charter, Charter, f"the charter of run {run}"),
                        unpack(checkpoint, Checkpoint, f"the checkpoint of run {run}"),
                    )
                )
            except JournalError as error:
                self._note_damage(str(run), error)
        return found

    async def cells(self) -> dict[str, Cell]:
        """Every registered cell by name; those that cannot be read are in :attr:`damaged`."""
        found: dict[str, Cell] = {}
        for name, cell in await self._query("SELECT name, cell FROM cells ORDER BY name", ()):
            try:
                found[str(name)] = unpack(cell, Cell, f"cell {name}")
            except JournalError as error:
                self._note_damage(f"cell {name}", error)
        return found

    async def answer_to(self, command: str) -> bytes | None:
        """The answer that was given to the command with this id, None if it is new."""
        rows = await self._query("SELECT answer FROM commands WHERE id = ?", (command,))
        return bytes(rows[0][0]) if rows else None

    async def backlog(self) -> Backlog:
        """How much the archive has not confirmed."""
        rows = await self._query(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM batches", ()
        )
        return Backlog(int(rows[0][0]), int(rows[0][1]))

    async def pending(self, after_number: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        """Batches above ``after_number`` that are not confirmed, oldest first: at least one if
        there is one, and as many more as fit into ``limit_bytes``.

        Raises:
            JournalError: a batch is not what was written.
        """
        return await self._in_thread(self._file.pending, after_number, limit_bytes)

    async def wait_for_more(self, after_number: int) -> None:
        """Return when a batch with a number above ``after_number`` has been written."""
        async with self._grown:
            await self._grown.wait_for(lambda: self._last_number > after_number)

    async def acknowledge(self, ack: Ack) -> None:
        """Forget what the archive has committed; an ack for another journal is ignored.

        Where that fails (a full disk), :attr:`problem` says so and nothing is lost: the archive
        says it again with every later ack. An ack for batches that this journal never wrote shows
        that it was restored from an older copy: the archive takes its new batches for old ones.
        From then on nothing is forgotten any more, and a person is needed.
        """
        if ack.source != self.source:
            return
        spans = [(0, ack.watermark), *((int(first), int(last)) for first, last in ack.ranges)]
        before = self.problem
        try:
            self.problem = await self._in_thread(self._file.forget, spans)
        except JournalError as error:
            self.problem = str(error)
        if self.problem and self.problem != before:
            log.error("%s", self.problem)

    async def write_until_cancelled(self) -> None:
        """The one writer: one transaction after another, each with all that waits.

        Cancelled, it brings the transaction that is under way to its end; what still waits then,
        and whatever comes later, is refused.
        """
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                taken, self._waiting = self._waiting, []
                next_s = self._clock.monotonic_s() + self.spacing_s
                await self._write_taken(taken)
                if (left_s := next_s - self._clock.monotonic_s()) > 0.0:
                    await self._clock.sleep(left_s)
        finally:
            self._closed = True
            left, self._waiting = self._waiting, []
            for _, kept in left:
                if not kept.done():
                    kept.set_exception(JournalError("the journal was closed before it was kept"))

    async def _write_taken(self, taken: list[tuple[Entry, asyncio.Future[None]]]) -> None:
        entries = [entry for entry, _ in taken]
        writing = asyncio.create_task(self._in_thread(self._write_each, entries))
        try:
            number, failed = await asyncio.shield(writing)
            _tell(taken, failed)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            _tell(taken, writing.result()[1])
            raise
        finally:
            unknown = JournalError("the journal was closed; whether it was kept is not known")
            _tell(taken, [unknown] * len(taken))
        if number != self._last_number:
            async with self._grown:
                self._last_number = number
                self._grown.notify_all()

    def _write_each(self, entries: list[Entry]) -> tuple[int, list[Exception | None]]:
        """All in one transaction; if that fails, each in its own, so that none suffers for another.

        Gives the number of the last batch, and for each entry why it is not kept, if it is not.
        """
        number = self._last_number
        try:
            return self._file.write(entries, number), [None] * len(entries)
        except Exception as error:  # noqa: BLE001 - whoever waits for the entry gets it
            if len(entries) == 1:
                return number, [error]
        failed: list[Exception | None] = []
        for entry in entries:
            try:
                number = self._file.write([entry], number)
            except Exception as error:  # noqa: BLE001
                failed.append(error)
            else:
                failed.append(None)
        return number, failed

    def _note_damage(self, what: str, error: JournalError) -> None:
        self.damaged[what] = str(error)
        log.error("%s", error)

    async def _query(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        def fetch() -> list[tuple[Any, ...]]:
            return self._file.connection.execute(sql, values).fetchall()

        return await self._in_thread(fetch)

    async def _in_thread(
        self,
        work: Callable[Parameters, Result],
        *values: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(work, *values, **named))


@asynccontextmanager
async def open_journal(
    path: Path,
    node: str,
    *,
    reserve_B: int = 0,
    spacing_s: float = 0.0,
    clock: Clock | None = None,
) -> AsyncIterator[Journal]:
    """Open the journal at ``path``, or begin one for ``node``; its writer runs inside the block.

    Args:
        reserve_B: is kept on its disk for the time when that is full.
        spacing_s: from the beginning of one transaction to that of the next, at least. What comes
            meanwhile shares one: each writes whole pages, and a solid-state disk does not take any
            number of them.

    Raises:
        JournalError: another daemon has it open, it is damaged, or it is of another version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"the journal's folder {path.parent} cannot be made: {error}") from error
    lock = lock_journal(path)
    thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
    loop = asyncio.get_running_loop()
    try:
        file = await loop.run_in_executor(thread, JournalFile, path, node, reserve_B)
        try:
            journal = Journal(file, thread, clock or RealClock(), spacing_s)
            writer = asyncio.create_task(journal.write_until_cancelled(), name="journal writer")
            try:
                yield journal
            finally:
                writer.cancel()
                with suppress(asyncio.CancelledError):
                    await writer
        finally:
            await loop.run_in_executor(thread, file.connection.close)
    finally:
        thread.shutdown(wait=False)
        lock.close()


def _tell(
    taken: list[tuple[Entry, asyncio.Future[None]]], failed: Sequence[Exception | None]
) -> None:
    for (_, kept), error in zip(taken, failed, strict=True):
        if kept.done():
            continue
        if error is None:
            kept.set_result(None)
        else:
            kept.set_exception(error)
