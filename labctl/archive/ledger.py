"""What is committed of each journal and of each run: read, compared with what comes, and noted.

The ledger is the table ``batches``; ``sources`` and ``runs`` say the same in short, as spans of
numbers. A journal's row in ``sources`` is locked from the moment on at which it is advanced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from labctl.archive import schema
from labctl.archive.arrivals import Arrived
from labctl.archive.happenings import keep, run_of
from labctl.archive.many import insert_new
from labctl.archive.spans import Spans
from labctl.stream.batches import EventsBatch, SamplesBatch
from labctl.stream.topics import MOST_ACK_RANGES, Ack


@dataclass(frozen=True, slots=True)
class SourceAck:
    """What is committed of one journal, and the node that waits to hear of it ('' if unknown)."""

    node: str
    ack: Ack


class OverlapError(Exception):
    """A run's samples came between the look at what it has and the writing of more."""


@dataclass(slots=True)
class Run:
    """What is committed of a run's samples, and which of them went to quarantine."""

    run_number: int
    source: str
    committed: Spans
    quarantined: Spans


def known_runs(connection: Connection, batches: Sequence[Arrived]) -> dict[str, Run]:
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
) -> dict[str, Run]:
    query = _RUNS_LOCKED if lock else _RUNS
    return {
        run_id: Run(number, source, Spans.parse(committed), Spans.parse(quarantined))
        for run_id, number, source, committed, quarantined in connection.execute(
            query, {"run_ids": list(run_ids)}
        )
    }


def into_ledger(
    connection: Connection, batches: Sequence[Arrived], runs: dict[str, Run], now_s: float
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


def check_belonging(connection: Connection, new: Sequence[Arrived], runs: dict[str, Run]) -> None:
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


def _contradiction(arrived: Arrived, runs: dict[str, Run]) -> str:
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


def advance_sources(
    connection: Connection,
    batches: Sequence[Arrived],
    new: Sequence[Arrived],
) -> tuple[dict[str, tuple[int, int]], dict[str, SourceAck]]:
    """Note what is committed of each journal; gives through which number without gaps it was
    before, and is now, and what is to be acknowledged.

    Holds a lock on each journal until the transaction ends.
    """
    nodes = {arrived.batch.source: arrived.node for arrived in batches}
    if not nodes:
        return {}, {}
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
    acks: dict[str, SourceAck] = {}
    for source, row in rows.items():
        before = Spans.parse(row.committed)
        spans = before.with_spans(numbers[source])
        node = nodes[source] or row.node
        if (str(spans), node) != (row.committed, row.node):
            changes.append({"of": source, "committed": str(spans), "node": node})
        news[source] = (before.through, spans.through)
        acks[source] = SourceAck(node, ack_of_spans(source, spans))
    if changes:
        connection.execute(_ADVANCE_SOURCE, changes)
    return news, acks


def ack_of_spans(source: str, spans: Spans) -> Ack:
    """The Ack that says that the batches ``spans`` are committed; pieces beyond the most it may
    have are left for a later one."""
    above = [piece for piece in spans if piece[0] > spans.through]
    return Ack(source=source, watermark=spans.through, ranges=tuple(above[:MOST_ACK_RANGES]))


def advance_runs(connection: Connection, kept: Sequence[Arrived]) -> None:
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
            raise OverlapError(f"samples of run {run_id} came twice")
        changes.append(
            {
                "of": run.run_number,
                "committed_seq": str(spans),
                "complete_through_seq": spans.through,
                "quarantined_seq": str(run.quarantined.with_spans(bad[run_id])),
            }
        )
    connection.execute(_ADVANCE_RUN, changes)
