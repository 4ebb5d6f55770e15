"""Batches: what the journal keeps, MQTT carries and the archive commits, byte for byte the same.

A batch is ``LCB1``, the CRC-32 of the rest (4 bytes, little endian), and a MessagePack map that
describes itself: schema version, source, number, run, and either columns of records (name, numpy
type, raw little-endian bytes) or events. ``source`` names one journal and never changes; ``number``
counts its batches from 1 without gaps, and a batch is never cut up or renumbered, so
(source, number) is what the archive drops duplicates by.
"""

from __future__ import annotations

import struct
import zlib
from typing import TypeAlias

import msgspec
import numpy as np

from labctl.errors import StreamError
from labctl.model import RECORD_COLUMNS, Records
from labctl.stream.events import Event

MAGIC = b"LCB1"
SCHEMA_VERSION = 1
_HEAD = struct.Struct("<4sI")
_NAMES = tuple(RECORD_COLUMNS)
_TYPES = tuple(map(np.dtype, RECORD_COLUMNS.values()))


class Column(msgspec.Struct, frozen=True, array_like=True):
    """``type`` is a numpy type string such as ``<f8``."""

    name: str
    type: str
    data: bytes


class SamplesBatch(msgspec.Struct, frozen=True, kw_only=True, tag="samples"):
    """Records ``first_seq`` to ``last_seq`` of one run."""

    version: int
    source: str
    number: int
    run: str
    first_seq: int
    last_seq: int
    columns: tuple[Column, ...]

    def records(self, *, checked: bool = False) -> Records:
        """The records; columns that this version does not know are left out.

        Args:
            checked: their numbers were looked at before.

        Raises:
            StreamError: a column is missing, of another type, or of another length.
        """
        count = self.last_seq - self.first_seq + 1
        columns = self.columns
        if tuple([column.name for column in columns]) != _NAMES:
            by_name = {column.name: column for column in columns}
            for name in _NAMES:
                if name not in by_name:
                    raise StreamError(f"batch {self.source}/{self.number} has no column {name!r}")
            columns = tuple(by_name[name] for name in _NAMES)
        arrays = []
        for column, numpy_type in zip(columns, _TYPES, strict=True):
            if column.type != numpy_type.str or len(column.data) != 8 * count:
                raise StreamError(
                    f"batch {self.source}/{self.number}: column {column.name!r} is {column.type} "
                    f"of {len(column.data)} bytes, not {count} values of {numpy_type.str}"
                )
            arrays.append(np.frombuffer(column.data, dtype=numpy_type))
        records = Records(*arrays)
        if not checked and (
            count < 1
            or not np.array_equal(records.seq, np.arange(self.first_seq, self.last_seq + 1))
        ):
            raise StreamError(
                f"batch {self.source}/{self.number}: its sequence numbers are not "
                f"{self.first_seq} to {self.last_seq}"
            )
        return records


class EventsBatch(msgspec.Struct, frozen=True, kw_only=True, tag="events"):
    """Events in the order in which they happened; ``run`` is '' for events of the node itself."""

    version: int
    source: str
    number: int
    run: str
    events: tuple[Event, ...]


Batch: TypeAlias = SamplesBatch | EventsBatch

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Batch] = msgspec.msgpack.Decoder(SamplesBatch | EventsBatch)


def encode_samples(source: str, number: int, run: str, records: Records) -> bytes:
    """One batch of at least one record, in order of ``seq`` and without gaps."""
    return _frame(
        SamplesBatch(
            version=SCHEMA_VERSION,
            source=source,
            number=number,
            run=run,
            first_seq=int(records.seq[0]),
            last_seq=int(records.seq[-1]),
            columns=tuple(
                Column(
                    name,
                    numpy_type,
                    np.ascontiguousarray(getattr(records, name), dtype=numpy_type).tobytes(),
                )
                for name, numpy_type in RECORD_COLUMNS.items()
            ),
        )
    )


def encode_events(source: str, number: int, run: str, events: tuple[Event, ...]) -> bytes:
    """One batch of events."""
    return _frame(
        EventsBatch(version=SCHEMA_VERSION, source=source, number=number, run=run, events=events)
    )


def decode_batch(payload: bytes, *, checked: bool = False) -> Batch:
    """Inverse of the two encoders.

    Args:
        checked: its checksum was looked at before.

    Raises:
        StreamError: truncated, corrupted, of another schema, or not a batch at all.
    """
    if len(payload) < _HEAD.size:
        raise StreamError(f"a payload of {len(payload)} bytes is too short for a batch")
    magic, crc = _HEAD.unpack_from(payload)
    body = memoryview(payload)[_HEAD.size :]
    if magic != MAGIC:
        raise StreamError(f"a batch begins with {MAGIC!r}, this payload with {magic!r}")
    if not checked and zlib.crc32(body) != crc:
        raise StreamError("the checksum of a batch does not match its content")
    try:
        batch = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise StreamError(
            f"a batch with a good checksum does not fit the schema: {error}"
        ) from error
    if batch.version != SCHEMA_VERSION:
        raise StreamError(
            f"batch {batch.source}/{batch.number} has schema version {batch.version}, "
            f"this program knows {SCHEMA_VERSION}"
        )
    return batch


def checksum_of(payload: bytes) -> int:
    """The CRC-32 that the batch carries of itself."""
    return int(_HEAD.unpack_from(payload)[1])


def _frame(batch: Batch) -> bytes:
    body = _encoder.encode(batch)
    return _HEAD.pack(MAGIC, zlib.crc32(body)) + body
