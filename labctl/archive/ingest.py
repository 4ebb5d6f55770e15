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
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DataError, IntegrityError

from labctl.archive import schema
from labctl.archive.arrivals import Arrivals, Refused, Samples, understand
from labctl.archive.bulk import Block, insert_samples
from labctl.archive.folding import CycleDone, fold
from labctl.archive.happenings import apply_events, keep
from labctl.archive.histories import Memory
from labctl.archive.ledger import (
    OverlapError,
    SourceAck,
    advance_runs,
    advance_sources,
    check_belonging,
    into_ledger,
    known_runs,
)
from labctl.archive.many import insert_many
from labctl.archive.reckoning import ReckonedCycles
from labctl.archive.standing import watch_states
from labctl.archive.turns import OutOfTurnError, Turn, Turns
from labctl.model import Records

log = logging.getLogger(__name__)

MOST_UNATTRIBUTED = 10_000
"""Payloads without a source that are kept in quarantine; more are only logged."""


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
        except (DataError, OverflowError, OverlapError) as error:
            turn.come_alone()
            return self._one_by_one(arrivals, error)
        try:
            return self._in_one_transaction(arrivals, {}, turn, ends_first=True)
        except (DataError, IntegrityError, OverflowError, OverlapError) as error:
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
        runs = known_runs(connection, batches)
        new = into_ledger(connection, batches, runs, now_s)
        turn.past_ledger()
        committed.duplicates += len(batches) - len(new)
        check_belonging(connection, new, runs)
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
        news, committed.acks = advance_sources(connection, batches, new)
        advance_runs(connection, kept)
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
