"""The node's journal: one SQLite file, one writer, in which nothing is believed that is not here.

One transaction holds a batch of readings *and* the checkpoint of its run, so data and state cannot
disagree after a crash (WAL, ``synchronous=FULL``). Batches lie here as the bytes that MQTT will
carry, and stay until the archive says that it has committed them. Checkpoints and batches carry a
CRC-32.
"""

from __future__ import annotations

import asyncio
import fcntl
import secrets
import sqlite3
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final, ParamSpec, TypeVar

import msgspec

from labctl.engine.run import Charter, Checkpoint
from labctl.errors import JournalError
from labctl.model import Cell, Records
from labctl.stream.batches import checksum_of, encode_events, encode_samples
from labctl.stream.events import Event
from labctl.stream.topics import Ack

SCHEMA_VERSION: Final = 1
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Kept = TypeVar("Kept", bound=msgspec.Struct)
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE batches (number INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE runs (run TEXT PRIMARY KEY, ended INTEGER NOT NULL, charter BLOB NOT NULL,
                   checkpoint BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE cells (name TEXT PRIMARY KEY, cell BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE commands (id TEXT PRIMARY KEY, answer BLOB NOT NULL) WITHOUT ROWID;
"""
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be kept together or not at all.

    ``command`` is (id, answer) of a command that this entry carries out: asked again with the same
    id, the same answer is given and nothing is done twice.
    """

    run: str = ""
    charter: Charter | None = None
    checkpoint: Checkpoint | None = None
    records: Records | None = None
    events: tuple[Event, ...] = ()
    cell: Cell | None = None
    command: tuple[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the archive has not confirmed yet."""

    batches: int
    size_bytes: int


class Journal:
    """Use :func:`open_journal`. Every method may be called from any task of one event loop."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._work = asyncio.Event()
        self._grown = asyncio.Condition()
        self.source: str = _meta(connection, "source")
        self._last_number = int(_meta(connection, "last_number"))

    async def commit(self, entry: Entry) -> None:
        """Return once ``entry`` is on the disk. Entries that wait together share a transaction.

        Raises:
            JournalError: it is not kept, none of it; the caller's state must not move on.
        """
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, kept))
        self._work.set()
        await kept

    async def runs(self) -> list[tuple[Charter, Checkpoint]]:
        """Every run that the journal knows, oldest first."""
        rows = await self._query("SELECT charter, checkpoint FROM runs ORDER BY run", ())
        return [
            (
                _unpack(charter, Charter, "a run's charter"),
                _unpack(checkpoint, Checkpoint, "a run's checkpoint"),
            )
            for charter, checkpoint in rows
        ]

    async def cells(self) -> dict[str, Cell]:
        """Every registered cell by name."""
        rows = await self._query("SELECT cell FROM cells ORDER BY name", ())
        cells = (_unpack(cell, Cell, "a cell") for (cell,) in rows)
        return {cell.name: cell for cell in cells}

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
        return await self._in_thread(self._pending, after_number, limit_bytes)

    async def wait_for_more(self, after_number: int) -> None:
        """Return when a batch with a number above ``after_number`` has been written."""
        async with self._grown:
            await self._grown.wait_for(lambda: self._last_number > after_number)

    async def acknowledge(self, ack: Ack) -> None:
        """Forget what the archive has committed; an ack for another journal is ignored."""
        if ack.source != self.source:
            return
        spans = [(0, ack.watermark), *((int(first), int(last)) for first, last in ack.ranges)]
        await self._in_thread(self._forget, spans)

    async def write_until_cancelled(self) -> None:
        """The one writer: one transaction after another, each with all that waits."""
        while True:
            await self._work.wait()
            self._work.clear()
            taken, self._waiting = self._waiting, []
            entries = [entry for entry, _ in taken]
            writing = asyncio.create_task(self._in_thread(self._write, entries))
            try:
                number = await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait([writing])
                for _, kept in taken:
                    kept.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - whoever waits for the entry gets it
                for _, kept in taken:
                    if not kept.done():
                        kept.set_exception(error)
                continue
            for _, kept in taken:
                if not kept.done():
                    kept.set_result(None)
            if number != self._last_number:
                async with self._grown:
                    self._last_number = number
                    self._grown.notify_all()

    def _write(self, entries: list[Entry]) -> int:
        number = self._last_number
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                for entry in entries:
                    number = self._write_one(entry, number)
                self._connection.execute(
                    "UPDATE meta SET value = ? WHERE key = 'last_number'", (str(number),)
                )
        except sqlite3.Error as error:
            raise JournalError(f"the journal could not be written: {error}") from error
        return number

    def _write_one(self, entry: Entry, number: int) -> int:
        execute = self._connection.execute
        payloads: list[bytes] = []
        if entry.records is not None and len(entry.records):
            number += 1
            payloads.append(encode_samples(self.source, number, entry.run, entry.records))
            execute("INSERT INTO batches VALUES (?, ?)", (number, payloads[-1]))
        if entry.events:
            number += 1
            payloads.append(encode_events(self.source, number, entry.run, entry.events))
            execute("INSERT INTO batches VALUES (?, ?)", (number, payloads[-1]))
        if entry.charter is not None and entry.checkpoint is not None:
            execute(
                "INSERT INTO runs VALUES (?, 0, ?, ?)",
                (entry.run, _pack(entry.charter), _pack(entry.checkpoint)),
            )
        elif entry.checkpoint is not None:
            execute(
                "UPDATE runs SET checkpoint = ?, ended = ? WHERE run = ?",
                (_pack(entry.checkpoint), int(entry.checkpoint.state.ended), entry.run),
            )
        if entry.cell is not None:
            execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?)",
                (entry.cell.name, _pack(entry.cell)),
            )
        if entry.command is not None:
            execute("INSERT INTO commands VALUES (?, ?)", entry.command)
        return number

    def _pending(self, after_number: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        size_bytes = 0
        rows = self._connection.execute(
            "SELECT number, payload FROM batches WHERE number > ? ORDER BY number", (after_number,)
        )
        for number, payload in rows:
            size_bytes += len(payload)
            if found and size_bytes > limit_bytes:
                break
            if len(payload) < 8 or zlib.crc32(memoryview(payload)[8:]) != checksum_of(payload):
                raise JournalError(
                    f"batch {number} in the journal is not what was written: the disk or another "
                    "program changed it; restore the journal from a copy"
                )
            found.append((int(number), bytes(payload)))
        rows.close()
        return found

    def _forget(self, spans: list[tuple[int, int]]) -> None:
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "DELETE FROM batches WHERE number BETWEEN ? AND ?", spans
                )
        except sqlite3.Error as error:
            raise JournalError(f"the journal could not be trimmed: {error}") from error

    async def _query(self, sql: str, values: tuple[object, ...]) -> list[tuple[bytes, ...]]:
        def fetch() -> list[tuple[bytes, ...]]:
            return self._connection.execute(sql, values).fetchall()

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
async def open_journal(path: Path, node: str) -> AsyncIterator[Journal]:
    """Open the journal at ``path``, or begin one for ``node``; its writer runs inside the block.

    Raises:
        JournalError: another daemon has it open, it is damaged, or it is of another version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
    loop = asyncio.get_running_loop()
    lock = _lock(path)
    try:
        connection = await loop.run_in_executor(thread, _connect, path, node)
        try:
            journal = Journal(connection, thread)
            writer = asyncio.create_task(journal.write_until_cancelled(), name="journal writer")
            try:
                yield journal
            finally:
                writer.cancel()
                with suppress(asyncio.CancelledError):
                    await writer
        finally:
            await loop.run_in_executor(thread, connection.close)
    finally:
        thread.shutdown(wait=False)
        lock.close()


def _lock(path: Path) -> IO[bytes]:
    lock = path.with_name(path.name + ".lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise JournalError(
            f"another daemon has the journal {path} open; stop it first, or give this one another "
            "data folder"
        ) from None
    return lock


def _connect(path: Path, node: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            _create(connection, node)
        elif version != SCHEMA_VERSION:
            raise JournalError(
                f"the journal {path} has version {version}, this program knows {SCHEMA_VERSION}"
            )
        found = _meta(connection, "node")
        if found != node:
            raise JournalError(
                f"the journal {path} belongs to node {found!r}, not to {node!r}: its runs are "
                "named after it; keep the name, or give the new node another data folder"
            )
    except sqlite3.Error as error:
        connection.close()
        raise JournalError(f"the journal {path} cannot be used: {error}") from error
    except JournalError:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection, node: str) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.executemany(
            "INSERT INTO meta VALUES (?, ?)",
            [
                ("node", node),
                ("source", f"{node}-{secrets.token_hex(3)}"),
                ("last_number", "0"),
            ],
        )
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _meta(connection: sqlite3.Connection, key: str) -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise JournalError(f"the journal has no {key!r}: it is not a labctl journal")
    return str(row[0])


def _pack(value: msgspec.Struct) -> bytes:
    body = msgspec.msgpack.encode(value)
    return _CRC.pack(zlib.crc32(body)) + body


def _unpack(data: bytes, kind: type[Kept], what: str) -> Kept:
    body = memoryview(data)[_CRC.size :]
    if len(data) < _CRC.size or zlib.crc32(body) != _CRC.unpack_from(data)[0]:
        raise JournalError(f"{what} in the journal is damaged: restore the journal from a copy")
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise JournalError(f"{what} in the journal cannot be read: {error}") from error
