"""What came in: payloads understood and checked, before any of it touches the database."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from labctl.archive.pages import MOST_ROWS, Rows, can_copy, lay_out
from labctl.errors import StreamError
from labctl.model import RECORD_COLUMNS, Cell, Records, Spectrum
from labctl.stream.batches import (
    SCHEMA_VERSION,
    Batch,
    SamplesBatch,
    checksum_of,
    decode_batch,
)

LONGEST_NAME = 200
LARGEST_INT4 = 2**31 - 1
LARGEST_INT8 = 2**63 - 1
LONGEST_QUARANTINED_B = 8 * 1024 * 1024
_SMALL = ("cycle", "step", "visit")
_SMALL_OF_EVENTS = (*_SMALL, "number")
_FINITE = tuple(
    name for name, kind in RECORD_COLUMNS.items() if kind == "<f8" and name != "temperature_degC"
)


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that goes to quarantine. ``part`` is '' for a whole payload."""

    reason: str
    payload: bytes
    part: str = ""
    source: str | None = None
    number: int | None = None
    payload_sha256: str = ""

    def key(self) -> str:
        """What the same payload is known by when it comes again."""
        return self.payload_sha256 or hashlib.sha256(self.payload).hexdigest()


@dataclass(slots=True)
class Arrived:
    """A batch that names itself.

    records: the good ones of a batch of samples; ``rows`` in their place if they were laid out.
    bad_seq: sequence numbers of the others.
    refused: what of it goes to quarantine; ``whole`` if nothing of it can be kept otherwise.
    mended: a value that means nothing was made one that is not known.
    """

    batch: Batch
    payload: bytes
    node: str
    crc: int
    records: Records | None = None
    rows: Rows | None = None
    bad_seq: tuple[int, ...] = ()
    refused: list[Refused] = field(default_factory=list)
    whole: bool = False
    mended: bool = False

    @property
    def key(self) -> tuple[str, int]:
        return self.batch.source, self.batch.number

    def refuse(self, reason: str) -> None:
        """Send the whole of it to quarantine."""
        self.whole = True
        self.records = self.rows = None
        self.refused = [
            Refused(
                reason=reason,
                payload=bytes(self.payload),
                source=self.batch.source,
                number=self.batch.number,
            )
        ]


@dataclass(slots=True)
class Arrivals:
    """``batches`` in order of source and number, each once; ``refused`` can't be attributed."""

    batches: list[Arrived] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    repeated: int = 0


class LaidOutBatch(NamedTuple):
    """A batch of samples that was looked over and is nowhere decoded again: its samples are in a
    table, from this row on."""

    source: str
    number: int
    run: str
    first_seq: int
    last_seq: int
    crc: int
    first_rowid: int


class Samples(NamedTuple):
    """What is in the batches of a group that hold samples, one for each batch of the group, and the
    database that they were laid out in."""

    batches: Sequence[LaidOutBatch | None]
    database: Any


def laid_out(arrived: Sequence[Arrived]) -> Samples | None:
    """The samples of batches that were looked over; None if there are none, or too many."""
    blocks = [one.records for one in arrived if one.records is not None]
    if not can_copy() or not 0 < sum(map(len, blocks)) <= MOST_ROWS:
        return None
    rows = lay_out(blocks)
    left = iter(rows)
    batches: list[LaidOutBatch | None] = []
    for one in arrived:
        batch = one.batch
        if isinstance(batch, SamplesBatch) and one.records is not None:
            where = (batch.source, batch.number, batch.run, batch.first_seq, batch.last_seq)
            batches.append(LaidOutBatch(*where, one.crc, next(left).first_rowid))
        else:
            batches.append(None)
    return Samples(batches, rows[0].database)


def look_over(payloads: Sequence[bytes]) -> list[Arrived] | None:
    """The batches, if nothing of them is to be refused or changed, and nothing is there twice: then
    they may be taken as ``checked``, in another process for instance. Otherwise None."""
    found: dict[tuple[str, int], Arrived] = {}
    for payload in payloads:
        try:
            batch = decode_batch(payload)
            _check_names(batch)
        except StreamError:
            return None
        arrived = Arrived(batch, payload, "", checksum_of(payload))
        _check_content(arrived)
        if arrived.refused or arrived.whole or arrived.mended or arrived.key in found:
            return None
        found[arrived.key] = arrived
    return list(found.values())


def understand(
    payloads: Sequence[bytes],
    nodes: Sequence[str] = (),
    *,
    checked: bool = False,
    samples: Samples | None = None,
) -> Arrivals:
    """Decode and check; never raises because of what is in a payload.

    Args:
        nodes: the node that each payload came from, if known.
        checked: :func:`look_over` found all of them good.
        samples: of those that hold samples, if they were laid out.
    """
    found: dict[tuple[str, int], Arrived] = {}
    arrivals = Arrivals()
    for place, payload in enumerate(payloads):
        known = samples.batches[place] if samples else None
        if samples is not None and known is not None:
            node = nodes[place] if place < len(nodes) else ""
            arrived = _as_arrived(known, samples.database, payload, node)
            found[arrived.key] = arrived
            continue
        try:
            batch = decode_batch(payload, checked=checked)
            if not checked:
                _check_names(batch)
        except StreamError as error:
            arrivals.refused.append(Refused(str(error), payload[:LONGEST_QUARANTINED_B]))
            continue
        arrived = Arrived(
            batch, payload, nodes[place] if place < len(nodes) else "", checksum_of(payload)
        )
        if arrived.key in found:
            arrivals.repeated += 1
            continue
        found[arrived.key] = arrived
        if not checked:
            _check_content(arrived)
        elif isinstance(batch, SamplesBatch):
            arrived.records = batch.records(checked=True)
    arrivals.batches = [found[key] for key in sorted(found)]
    return arrivals


def _as_arrived(known: LaidOutBatch, database: object, payload: bytes, node: str) -> Arrived:
    source, number, run, first_seq, last_seq, crc, first_rowid = known
    batch = SamplesBatch(
        version=SCHEMA_VERSION,
        source=source,
        number=number,
        run=run,
        first_seq=first_seq,
        last_seq=last_seq,
        columns=(),
    )
    rows = Rows(database, first_rowid, last_seq - first_seq + 1)
    return Arrived(batch, payload, node, crc, rows=rows)


def _check_names(batch: Batch) -> None:
    for what, name in (("source", batch.source), ("run", batch.run)):
        if not _storable(name) or len(name) > LONGEST_NAME or (what == "source" and not name):
            raise StreamError(f"a batch with the {what} {name[:LONGEST_NAME]!r} cannot be kept")
    if not 0 < batch.number <= LARGEST_INT8:
        raise StreamError(f"a batch cannot have the number {batch.number}")


def _check_content(arrived: Arrived) -> None:
    batch = arrived.batch
    if isinstance(batch, SamplesBatch):
        if not batch.run:
            arrived.refuse("a batch of samples must name its run")
        elif not 0 < batch.first_seq <= batch.last_seq <= LARGEST_INT8:
            arrived.refuse(f"samples cannot be numbered {batch.first_seq} to {batch.last_seq}")
        else:
            _check_records(arrived, batch)
        return
    for position, event in enumerate(batch.events):
        problem = _problem_of(event)
        if problem:
            arrived.refuse(f"event {position + 1} ({type(event).__name__}): {problem}")
            return


def _check_records(arrived: Arrived, batch: SamplesBatch) -> None:
    try:
        records = batch.records()
    except StreamError as error:
        arrived.refuse(str(error))
        return
    temperature = records.temperature_degC
    if np.isinf(temperature).any():
        columns = {one.name: getattr(records, one.name) for one in fields(records)}
        columns["temperature_degC"] = np.where(np.isinf(temperature), np.nan, temperature)
        records = Records(**columns)
        arrived.mended = True
    if _all_good(records):
        arrived.records = records
        return
    good = np.ones(len(records), dtype=bool)
    for name in _FINITE:
        good &= np.isfinite(getattr(records, name))
    for name in _SMALL:
        column = getattr(records, name)
        good &= (column >= 0) & (column <= LARGEST_INT4)
    if good.all():
        arrived.records = records
        return
    bad = np.flatnonzero(~good)
    arrived.records = Records(*(getattr(records, name)[good] for name in RECORD_COLUMNS))
    arrived.bad_seq = tuple(records.seq[bad].tolist())
    sha256 = hashlib.sha256(arrived.payload).hexdigest()
    arrived.refused = [
        Refused(
            reason="a value of this sample is not a number or out of range",
            payload=_row_as_json(records, row),
            part=f"seq {records.seq[row]}",
            source=batch.source,
            number=batch.number,
            payload_sha256=sha256,
        )
        for row in bad.tolist()
    ]


def _all_good(records: Records) -> bool:
    """Whether every value can be kept; may say no where a sum is too large for a number."""
    with np.errstate(over="ignore", invalid="ignore"):
        if not all(math.isfinite(getattr(records, name).sum()) for name in _FINITE):
            return False
    return all(
        getattr(records, name).min() >= 0 and getattr(records, name).max() <= LARGEST_INT4
        for name in _SMALL
    )


def _row_as_json(records: Records, row: int) -> bytes:
    values = {name: getattr(records, name)[row].item() for name in RECORD_COLUMNS}
    return json.dumps(
        {
            name: value if math.isfinite(value) else str(value).lower()
            for name, value in values.items()
        }
    ).encode()


def _problem_of(value: msgspec.Struct) -> str:
    """Why an event cannot be kept, '' if it can."""
    checks = _checks_of(type(value))
    if checks.spans_samples:
        first_seq, last_seq = checks.spans_samples(value)
        if first_seq < 1 or last_seq < first_seq - 1 or last_seq > LARGEST_INT8:
            return f"it has the samples {first_seq} to {last_seq}"
    if not _storable("".join(checks.texts_of(value))):
        for name in checks.texts:
            if not _storable(getattr(value, name)):
                return f"{name} holds a NUL character"
    counts = checks.counts_of(value)
    for name, largest, count in zip(checks.counts, checks.largest, counts, strict=True):
        if not 0 <= count <= largest:
            return f"{name} is {count}"
    for name in checks.finite:
        number = getattr(value, name)
        if number is not None and not math.isfinite(number):
            return f"{name} is {number}"
    for name in checks.text_tuples:
        if not all(map(_storable, getattr(value, name))):
            return f"{name} hold a NUL character"
    if len({len(getattr(value, name)) for name in checks.alike}) > 1:
        return f"{', '.join(checks.alike)} are not of the same length"
    for name in checks.inside:
        if problem := _problem_of(getattr(value, name)):
            return f"{name}: {problem}"
    return ""


class _Checks(NamedTuple):
    """The fields of one kind of event, by what must be true of them."""

    spans_samples: Callable[[object], tuple[int, int]] | None
    texts: list[str]
    texts_of: Callable[[object], tuple[str, ...]]
    counts: list[str]
    counts_of: Callable[[object], tuple[int, ...]]
    largest: list[int]
    finite: list[str]
    text_tuples: list[str]
    alike: list[str]
    inside: list[str]


@cache
def _checks_of(kind: type[msgspec.Struct]) -> _Checks:
    types = {one.name: one.type for one in msgspec.structs.fields(kind)}
    spans = "first_seq" in types and "last_seq" in types
    ints = [name for name, one in types.items() if one is int and name not in _SPAN]
    if not spans:
        ints += [name for name in _SPAN if name in types]
    texts = [name for name, one in types.items() if one is str]
    return _Checks(
        attrgetter("first_seq", "last_seq") if spans else None,
        texts,
        _all_of(texts),
        ints,
        _all_of(ints),
        [LARGEST_INT4 if name in _SMALL_OF_EVENTS else LARGEST_INT8 for name in ints],
        [
            name
            for name, one in types.items()
            if one in (float, float | None) and (name == "unix_time_s" or kind is Cell)
        ],
        [name for name, one in types.items() if one == tuple[str, ...]],
        [name for name, one in types.items() if one == tuple[float, ...]],
        [name for name, one in types.items() if one in (Cell, Spectrum)],
    )


def _all_of(names: list[str]) -> Callable[[object], tuple[Any, ...]]:
    """Gives the values of these fields, as a tuple however many they are."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


_SPAN = ("first_seq", "last_seq")


def _storable(text: str) -> bool:
    return "\0" not in text
