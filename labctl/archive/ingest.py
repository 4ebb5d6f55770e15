"""The archive's one way in: batches from journals become rows, exactly once.

One transaction takes in a group of batches: the ledger ``batches`` says which of them are new,
their samples and events are written, and all that follows from them (cycles, alarms, the state of
runs) is written with them. After any crash, and in whatever order batches come and however often,
the archive ends up the same.

Several archives may work on one PostgreSQL: samples are written side by side; what follows from
them is done by one archive at a time for each journal, which holds a lock on the journal's row in
``sources``. Memory only saves reading again what is committed.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, func, select, update
from sqlalchemy.exc import DataError, IntegrityError

from labctl.archive import schema
from labctl.archive.arrivals import Arrivals, Arrived, Refused, Samples, understand
from labctl.archive.bulk import Block, insert_samples
from labctl.archive.folding import CycleDone, fold
from labctl.archive.happenings import apply_events, keep, run_of
from labctl.archive.histories import Memory
from labctl.archive.many import insert_many, insert_new
from labctl.archive.reckoning import ReckonedCycles
from labctl.archive.spans import Spans
from labctl.archive.standing import watch_states
from labctl.archive.turns import OutOfTurnError, Turn, Turns
from labctl.model import Records
from labctl.stream.batches import EventsBatch, SamplesBatch
from labctl.stream.topics import MOST_ACK_RANGES, Ack

log = logging.getLogger(__name__)

MOST_UNATTRIBUTED = 10_000
"""Payloads without a source that are kept in quarantine; more are only logged."""


@dataclass(frozen=True, slots=True)
class SourceAck:
    """What is committed of one journal, and the node that waits to hear of it ('' if unknown)."""

    node: str
    ack: Ack


@dataclass(slots=True)
class Committed:
    """What one call of :meth:`Ingest.commit` did.

    acks: of every journal that a batch came from, old duplicates included.
    batches, readings, events: that were new.
    duplicates: batches that were committed before, or twice in the group.
    quarantined: payloads and samples that went to quarantine.
    cycles: of each run, the last few that were judged, in their order.
    alarms_changed: whether any alarm changed its state.
    """

    acks: dict[str, SourceAck] = field(default_factory=dict)
    batches: int = 0
    readings: int = 0
    events: int = 0
    duplicates: int = 0
    quarantined: int = 0
    cycles: list[CycleDone] = field(default_factory=list)
    alarms_changed: bool = False

    def add(self, other: Committed) -> None:
        """Take in what a later call did."""
        self.acks |= other.acks
        self.batches += other.batches
        self.readings += other.readings
        self.events += other.events
        self.duplicates += other.duplicates
        self.quarantined += other.quarantined
        self.cycles += other.cycles
        self.alarms_changed |= other.alarms_changed


class _OverlapError(Exception):
    """A run's samples came between the look at what it has and the writing of more."""


class Ingest:
    """Commits batches into the archive of ``engine``, whose schema is up to date.

    Two threads may use it at once with turns of theirs, on PostgreSQL. Several, in several
    processes, may share a PostgreSQL.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._memory = Memory()
        self._reckons_itself = False

    def commit(
        self,
        payloads: Sequence[bytes],
        nodes: Sequence[str] = (),
        *,
        checked: bool = False,
        samples: Samples | None = None,
        reckoned: ReckonedCycles | None = None,
        turn: Turn | None = None,
    ) -> Committed:
        """Take in a group of batches in one transaction.

        What cannot be understood or kept goes to quarantine. If it names its journal and number it
        is acknowledged all the same, for it would never be understood better; otherwise it is not,
        and the journal keeps it.

        Args:
            payloads: batches as they came; duplicates and any order do no harm.
            nodes: the node that each came from, if known.
            checked: see :func:`labctl.archive.arrivals.look_over`.
            samples: of those that hold samples, if they were laid out, which SQLite alone takes.
            reckoned: cycles that end in these batches, reckoned from samples of their sources that
                were ``checked``.
            turn: among other groups that are committed at the same time.

        Raises:
            sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError: the database is away,
                locked or full. Nothing was committed; call again with the same payloads.
        """
        arrivals = understand(payloads, nodes, checked=checked, samples=samples)
        return self.take_in(arrivals, reckoned, turn)

    def take_in(
        self,
        arrivals: Arrivals,
        reckoned: ReckonedCycles | None = None,
        turn: Turn | None = None,
    ) -> Committed:
        """The same, for a group that was understood before: see :meth:`commit`."""
        turn = turn or Turns().draw()
        try:
            return self._in_one_transaction(arrivals, reckoned or {}, turn)
        except (IntegrityError, OutOfTurnError):
            turn.come_alone()  # an end of a cycle was told twice, or the group before is in trouble
        except (DataError, OverflowError, _OverlapError) as error:
            turn.come_alone()
            return self._one_by_one(arrivals, error)
        try:
            return self._in_one_transaction(arrivals, {}, turn, ends_first=True)
        except (DataError, IntegrityError, OverflowError, _OverlapError) as error:
            return self._one_by_one(arrivals, error)

    def _in_one_transaction(
        self,
        arrivals: Arrivals,
        reckoned: ReckonedCycles,
        turn: Turn,
        *,
        ends_first: bool = False,
    ) -> Committed:
        done = False
        try:
            with self._engine.begin() as connection:
                committed = self._write(connection, arrivals, reckoned, turn, ends_first=ends_first)
            done = True
        finally:
            if not done and turn.has_come:
                self._memory.clear()
        return committed

    def _one_by_one(self, arrivals: Arrivals, error: Exception) -> Committed:
        log.warning("a group of batches could not be kept as a whole: %s", error)
        if len(arrivals.batches) == 1 and not arrivals.refused:
            arrived = arrivals.batches[0]
            if arrived.whole:
                raise error
            arrived.refuse(f"it cannot be kept: {error}")
        committed = Committed()
        if arrivals.refused:
            committed.add(self.take_in(Arrivals(refused=arrivals.refused)))
        for arrived in arrivals.batches:
            committed.add(self.take_in(Arrivals(batches=[arrived])))
        committed.duplicates += arrivals.repeated
        return committed

    def _write(
        self,
        connection: Connection,
        arrivals: Arrivals,
        reckoned: ReckonedCycles,
        turn: Turn,
        *,
        ends_first: bool,
    ) -> Committed:
        """Write it all.

        Args:
            ends_first: the ends of steps and cycles are kept before they are looked at, which
                passes over those that are there.
        """
        committed = Committed(duplicates=arrivals.repeated)
        now_s = time.time()
        batches = arrivals.batches
        turn.enter()
        runs = _known_runs(connection, batches)
        new = _into_ledger(connection, batches, runs, now_s)
        turn.past_ledger()
        committed.duplicates += len(batches) - len(new)
        _check_belonging(connection, new, runs)
        kept = [arrived for arrived in new if not arrived.whole]
        blocks = [
            Block(runs[arrived.batch.run].run_number, records)
            for arrived in kept
            if (records := arrived.records or arrived.rows) is not None
        ]
        insert_samples(connection, blocks)
        turn.come()
        if any(arrived.whole for arrived in new):
            # Who reckoned ahead took them for good.
            self._reckons_itself = True
        if self._reckons_itself:
            reckoned = {}
        refused = [*arrivals.refused, *(one for arrived in new for one in arrived.refused)]
        committed.quarantined = _into_quarantine(connection, refused, now_s)
        news = _advance_sources(connection, batches, new, committed)
        _advance_runs(connection, kept)
        committed.events, ended = apply_events(
            connection,
            kept,
            {run_id: run.run_number for run_id, run in runs.items()},
            once=not ends_first,
        )
        if ends_first:
            insert_many(connection, schema.cycles, ended)
            ended = []
        for run_number, records in blocks:
            if isinstance(records, Records):
                self._memory.tails.add(run_number, records)
        states_changed = watch_states(connection, news)
        committed_through = {name: span[1] for name, span in news.items()}
        folded = fold(connection, self._memory, committed_through, ended, reckoned)
        committed.batches = len(new)
        committed.readings = sum(block.size for block in blocks)
        committed.cycles = folded.cycles
        committed.alarms_changed = folded.alarms_changed or states_changed
        return committed


@dataclass(slots=True)
class _Run:
    run_number: int
    source: str
    committed: Spans
    quarantined: Spans


def _known_runs(connection: Connection, batches: Sequence[Arrived]) -> dict[str, _Run]:
    """The runs that the batches speak of; those that are new get a row."""
    first_source: dict[str, str] = {}
    for arrived in batches:
        if not arrived.whole:
            for run_id in _runs_of(arrived):
                first_source.setdefault(run_id, arrived.batch.source)
    found = _read_runs(connection, first_source)
    missing = sorted(first_source.keys() - found.keys())
    if missing:
        keep(
            connection,
            schema.runs,
            [{"run_id": run_id, "source": first_source[run_id]} for run_id in missing],
        )
        found |= _read_runs(connection, missing)
    return found


def _runs_of(arrived: Arrived) -> set[str]:
    batch = arrived.batch
    runs = {batch.run}
    if isinstance(batch, EventsBatch):
        runs |= {run_of(event) for event in batch.events}
    return runs - {""}


_RUNS = (
    select(
        schema.runs.c.run_id,
        schema.runs.c.run_number,
        schema.runs.c.source,
        schema.runs.c.committed_seq,
        schema.runs.c.quarantined_seq,
    )
    .where(schema.runs.c.run_id.in_(bindparam("run_ids", expanding=True)))
    .order_by(schema.runs.c.run_number)
)
_RUNS_LOCKED = _RUNS.with_for_update(key_share=True)
_SOURCES_LOCKED = (
    select(schema.sources)
    .where(schema.sources.c.source.in_(bindparam("names", expanding=True)))
    .order_by(schema.sources.c.source)
    .with_for_update()
)
_ADVANCE_SOURCE = (
    update(schema.sources)
    .where(schema.sources.c.source == bindparam("of"))
    .values(committed=bindparam("committed"), node=bindparam("node"))
)
_ADVANCE_RUN = (
    update(schema.runs)
    .where(schema.runs.c.run_number == bindparam("of"))
    .values(
        {
            name: bindparam(name)
            for name in ("committed_seq", "complete_through_seq", "quarantined_seq")
        }
    )
)


def _read_runs(
    connection: Connection, run_ids: Iterable[str], *, lock: bool = False
) -> dict[str, _Run]:
    query = _RUNS_LOCKED if lock else _RUNS
    return {
        run_id: _Run(number, source, Spans.parse(committed), Spans.parse(quarantined))
        for run_id, number, source, committed, quarantined in connection.execute(
            query, {"run_ids": list(run_ids)}
        )
    }


def _into_ledger(
    connection: Connection, batches: Sequence[Arrived], runs: dict[str, _Run], now_s: float
) -> list[Arrived]:
    """The batches that were not committed before; from now on they are."""
    if not batches:
        return []
    rows: list[dict[str, Any]] = []
    for arrived in batches:
        batch = arrived.batch
        samples = isinstance(batch, SamplesBatch) and not arrived.whole
        rows.append(
            {
                "source": batch.source,
                "number": batch.number,
                "kind": "quarantined" if arrived.whole else ("samples" if samples else "events"),
                "run_number": runs[batch.run].run_number if batch.run in runs else None,
                "first_seq": batch.first_seq if isinstance(batch, SamplesBatch) else None,
                "last_seq": batch.last_seq if isinstance(batch, SamplesBatch) else None,
                "crc": arrived.crc,
                "committed_unix_s": now_s,
            }
        )
        if arrived.whole:
            rows[-1] |= {"first_seq": None, "last_seq": None}
    inserted = insert_new(connection, schema.batches, rows)
    return [arrived for arrived in batches if arrived.key in inserted]


def _check_belonging(connection: Connection, new: Sequence[Arrived], runs: dict[str, _Run]) -> None:
    """Refuse the batches that contradict what is committed."""
    table = schema.batches
    for arrived in new:
        problem = "" if arrived.whole else _contradiction(arrived, runs)
        if problem:
            arrived.refuse(problem)
            connection.execute(
                update(table)
                .where(table.c.source == arrived.batch.source)
                .where(table.c.number == arrived.batch.number)
                .values(kind="quarantined", run_number=None, first_seq=None, last_seq=None)
            )


def _contradiction(arrived: Arrived, runs: dict[str, _Run]) -> str:
    batch = arrived.batch
    for run_id in sorted(_runs_of(arrived)):
        if runs[run_id].source != batch.source:
            return f"run {run_id} belongs to the journal {runs[run_id].source}"
    if isinstance(batch, SamplesBatch):
        run, span = runs[batch.run], (batch.first_seq, batch.last_seq)
        if run.committed.touches(*span):
            return f"samples {span[0]} to {span[1]} of run {batch.run} came before in another batch"
        run.committed = run.committed.with_spans([span])
    return ""


def _into_quarantine(connection: Connection, refused: Sequence[Refused], now_s: float) -> int:
    if not refused:
        return 0
    table = schema.quarantine
    kept = list(refused)
    if any(one.source is None for one in kept):
        count = connection.execute(
            select(func.count()).select_from(table).where(table.c.source.is_(None))
        ).scalar_one()
        if count >= MOST_UNATTRIBUTED:
            kept = [one for one in kept if one.source is not None]
    for one in refused:
        log.warning("to quarantine: %s", one.reason)
    keep(
        connection,
        table,
        [
            {
                "payload_sha256": one.key(),
                "part": one.part,
                "source": one.source,
                "number": one.number,
                "reason": one.reason,
                "payload": one.payload,
                "received_unix_s": now_s,
            }
            for one in kept
        ],
    )
    return len(refused)


def _advance_sources(
    connection: Connection,
    batches: Sequence[Arrived],
    new: Sequence[Arrived],
    committed: Committed,
) -> dict[str, tuple[int, int]]:
    """Note what is committed of each journal; gives through which number without gaps it was
    before, and is now.

    Holds a lock on each journal until the transaction ends.
    """
    nodes = {arrived.batch.source: arrived.node for arrived in batches}
    if not nodes:
        return {}
    names = {"names": list(nodes)}
    rows = {row.source: row for row in connection.execute(_SOURCES_LOCKED, names)}
    if missing := sorted(nodes.keys() - rows.keys()):
        keep(connection, schema.sources, [{"source": source, "node": ""} for source in missing])
        rows = {row.source: row for row in connection.execute(_SOURCES_LOCKED, names)}
    numbers: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for arrived in new:
        numbers[arrived.batch.source].append((arrived.batch.number, arrived.batch.number))
    changes: list[dict[str, str]] = []
    news: dict[str, tuple[int, int]] = {}
    for source, row in rows.items():
        before = Spans.parse(row.committed)
        spans = before.with_spans(numbers[source])
        node = nodes[source] or row.node
        if (str(spans), node) != (row.committed, row.node):
            changes.append({"of": source, "committed": str(spans), "node": node})
        news[source] = (before.through, spans.through)
        committed.acks[source] = SourceAck(node, ack_of_spans(source, spans))
    if changes:
        connection.execute(_ADVANCE_SOURCE, changes)
    return news


def ack_of_spans(source: str, spans: Spans) -> Ack:
    """The Ack that says that the batches ``spans`` are committed; pieces beyond the most it may
    have are left for a later one."""
    above = [piece for piece in spans if piece[0] > spans.through]
    return Ack(source=source, watermark=spans.through, ranges=tuple(above[:MOST_ACK_RANGES]))


def _advance_runs(connection: Connection, kept: Sequence[Arrived]) -> None:
    """Note which samples of each run are committed."""
    numbers: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    bad: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for arrived in kept:
        batch = arrived.batch
        if isinstance(batch, SamplesBatch):
            numbers[batch.run].append((batch.first_seq, batch.last_seq))
            bad[batch.run] += [(seq, seq) for seq in arrived.bad_seq]
    if not numbers:
        return
    changes: list[dict[str, Any]] = []
    for run_id, run in _read_runs(connection, numbers, lock=True).items():
        count = sum(last - first + 1 for first, last in numbers[run_id])
        spans = run.committed.with_spans(numbers[run_id])
        if spans.count != run.committed.count + count:
            raise _OverlapError(f"samples of run {run_id} came twice")
        changes.append(
            {
                "of": run.run_number,
                "committed_seq": str(spans),
                "complete_through_seq": spans.through,
                "quarantined_seq": str(run.quarantined.with_spans(bad[run_id])),
            }
        )
    connection.execute(_ADVANCE_RUN, changes)
