"""The file of the node's journal: what is written and read in its own thread, all of it at once.

SQLite in WAL mode with ``synchronous=FULL``: what a transaction committed survives a power cut.
"""

from __future__ import annotations

import fcntl
import secrets
import sqlite3
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeVar

import msgspec

from labctl.engine.reserve import Reserve
from labctl.engine.run import Charter, Checkpoint
from labctl.errors import JournalError
from labctl.model import Cell, Records
from labctl.stream.batches import checksum_of, encode_events, encode_samples
from labctl.stream.events import Event

SCHEMA_VERSION: Final = 1
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


class JournalFile:
    """Open the journal at ``path``, or begin one for ``node``; for one thread at a time.

    Raises:
        JournalError: it is damaged, of another version or of another node.
    """

    def __init__(self, path: Path, node: str, reserve_B: int = 0) -> None:
        self.connection = _connect(path, node)
        self.reserve = Reserve(path.with_name(path.name + ".reserve"), reserve_B)
        self.reserve.lay_by()
        self.source = _meta(self.connection, "source")
        self.last_number = int(_meta(self.connection, "last_number"))

    def write(self, entries: list[Entry], number: int) -> int:
        """All of the entries or none, with batches numbered on from ``number``; gives the last.

        On a full disk the reserve is given up for them.

        Raises:
            JournalError: none of them is kept.
        """
        try:
            return self._write(entries, number)
        except JournalError as error:
            if not (_is_full(error.__cause__) and self.reserve.give_up()):
                raise
        return self._write(entries, number)

    def _write(self, entries: list[Entry], number: int) -> int:
        try:
            if self.connection.in_transaction:
                self.connection.rollback()
            with self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                for entry in entries:
                    number = self._write_one(entry, number)
                self.connection.execute(
                    "UPDATE meta SET value = ? WHERE key = 'last_number'", (str(number),)
                )
        except sqlite3.Error as error:
            raise JournalError(f"the journal could not be written: {error}") from error
        return number

    def _write_one(self, entry: Entry, number: int) -> int:
        execute = self.connection.execute
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
            updated = execute(
                "UPDATE runs SET checkpoint = ?, ended = ? WHERE run = ?",
                (_pack(entry.checkpoint), int(entry.checkpoint.state.ended), entry.run),
            )
            if updated.rowcount != 1:
                raise JournalError(f"the journal knows no run {entry.run!r}")
        if entry.cell is not None:
            execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?)",
                (entry.cell.name, _pack(entry.cell)),
            )
        if entry.command is not None:
            execute("INSERT INTO commands VALUES (?, ?)", entry.command)
        return number

    def pending(self, after_number: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        size_bytes = 0
        rows = self.connection.execute(
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

    def forget(self, spans: list[tuple[int, int]]) -> str:
        """Delete what lies in ``spans``; says why not, if the archive is ahead of this journal.

        Deleting takes room too: on a full disk the reserve is given up for it.
        """
        try:
            problem = self._forget(spans)
        except JournalError as error:
            if not (_is_full(error.__cause__) and self.reserve.give_up()):
                raise
            problem = self._forget(spans)
        if self.reserve.given_up:
            self.reserve.lay_by()
        return problem

    def _forget(self, spans: list[tuple[int, int]]) -> str:
        highest = max(last for _, last in spans)
        try:
            with self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                overtaken = _overtaken(self.connection)
                ends_at = int(_meta(self.connection, "last_number"))
                if not overtaken and highest > ends_at:
                    overtaken = f"{highest} where this journal ended at {ends_at}"
                    self.connection.execute(
                        "INSERT INTO meta VALUES ('overtaken', ?)", (overtaken,)
                    )
                if overtaken:
                    return (
                        f"the archive has batches of {self.source} up to {overtaken}: this "
                        "journal was restored from an older copy, and the archive takes its new "
                        "batches for old ones. Nothing is deleted here any more: end the runs, "
                        "move the data folder aside and begin a new one"
                    )
                self.connection.executemany(
                    "DELETE FROM batches WHERE number BETWEEN ? AND ?", spans
                )
        except sqlite3.Error as error:
            raise JournalError(f"the journal could not be trimmed: {error}") from error
        return ""


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, sqlite3.Error) and (
        getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    )


def lock_journal(path: Path) -> IO[bytes]:
    """Hold the journal for this process until the file that is given is closed.

    Raises:
        JournalError: another daemon has it, or it cannot be locked.
    """
    file = path.with_name(path.name + ".lock")
    try:
        lock = file.open("ab")
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be locked: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise JournalError(
            f"another daemon has the journal {path} open; stop it first, or give this one another "
            "data folder"
        ) from None
    except OSError as error:
        lock.close()
        raise JournalError(
            f"the journal {path} cannot be locked: {error}; it needs a local disk, not a share"
        ) from error
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


def _overtaken(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = 'overtaken'").fetchone()
    return "" if row is None else str(row[0])


def _meta(connection: sqlite3.Connection, key: str) -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise JournalError(f"the journal has no {key!r}: it is not a labctl journal")
    return str(row[0])


def _pack(value: msgspec.Struct) -> bytes:
    body = msgspec.msgpack.encode(value)
    return _CRC.pack(zlib.crc32(body)) + body


def unpack(data: bytes, kind: type[Kept], what: str) -> Kept:
    """What was packed into ``data``.

    Raises:
        JournalError: it is damaged, or not a ``kind``; ``what`` names it in the message.
    """
    body = memoryview(data)[_CRC.size :]
    if len(data) < _CRC.size or zlib.crc32(body) != _CRC.unpack_from(data)[0]:
        raise JournalError(f"{what} in the journal is damaged: restore the journal from a copy")
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise JournalError(f"{what} in the journal cannot be read: {error}") from error
