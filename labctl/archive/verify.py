"""Is the archive of a run what its journal sent, and do its figures follow from its samples?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, func, select

from labctl.alarms.evidence import is_comparable
from labctl.archive import schema
from labctl.archive.packing_files import Block, sha256_of
from labctl.archive.packing_notes import Note, note_of
from labctl.archive.reading import Wanted, in_order, read_columns
from labctl.archive.reckoning import RECKONED, reckon_cycles
from labctl.archive.spans import Spans
from labctl.errors import ArchiveError
from labctl.model import RECORD_COLUMNS, Records

MOST_PROBLEMS = 50
LOOKED_AT = (
    "seq",
    "visit",
    "test_time_s",
    "unix_time_s",
    "voltage_V",
    "current_A",
    "charge_Ah",
    "energy_Wh",
)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What :func:`verify_run` found.

    problems: one sentence each, at most 50; none if all is well.
    samples, cycles: how many were looked at.
    removed: when and by what the samples were removed; '' if they were not.
    set_aside: the numbers of the samples that are in quarantine, such as '3 7-9'.
    """

    run: str
    samples: int
    cycles: int
    problems: tuple[str, ...]
    removed: str = ""
    set_aside: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def accounted_for(self) -> bool:
        """Nothing speaks against the run but samples whose place in quarantine is known."""
        return all(problem == _said_of(self.set_aside) for problem in self.problems)

    def __str__(self) -> str:
        looked = f"run {self.run}: {self.samples} samples, {self.cycles} cycles"
        if self.ok and self.removed:
            return f"{looked}: {self.removed}; what stays is consistent"
        if self.ok:
            return f"{looked}: complete and consistent"
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n".join([f"{looked}: {count}", *self.problems])


def _said_of(set_aside: str) -> str:
    one = set_aside.isdigit()
    samples = f"sample {set_aside} is" if one else f"samples {set_aside.replace(' ', ', ')} are"
    return f"{samples} in quarantine; the table of that name says why"


def verify_run(
    connection: Connection,
    run_id: str,
    *,
    in_bulk: bool = False,
    blocks: Iterable[Block] | None = None,
) -> VerifyReport:
    """Look for missing and doubled samples, an incomplete ledger, cycles that do not follow, steps
    that do not hold the samples that say so, spectra with holes, and a packed run's file that is
    not what was written. Where a policy removed the samples, what follows from them is left as it
    is.

    Args:
        in_bulk: see :func:`labctl.archive.reading.read_columns`.
        blocks: all samples of the run, from where they shall be taken instead.

    Raises:
        ArchiveError: there is no such run.
    """
    run = connection.execute(
        select(schema.runs).where(schema.runs.c.run_id == run_id)
    ).one_or_none()
    if run is None:
        raise ArchiveError(f"there is no run {run_id!r} in the archive")
    cycles = _cycle_rows(connection, run.run_number)
    note = note_of(connection, run.run_number) if blocks is None else None
    if note is not None and note.removed:
        problems = [*_of_ledger(connection, run), *_of_spectra(connection, run)]
        return VerifyReport(
            run_id, 0, len(cycles), tuple(problems[:MOST_PROBLEMS]), removed=note.removed
        )
    if note is not None and (problem := _of_file(note)):
        return VerifyReport(run_id, 0, len(cycles), (problem,))
    records = _records(connection, run.run_number, in_bulk=in_bulk, blocks=blocks)
    problems = [
        *_of_seq(run, records),
        *_of_ledger(connection, run),
        *_of_cycles(cycles, records, run),
        *_of_steps(connection, records, run),
        *_of_spectra(connection, run),
    ]
    return VerifyReport(
        run_id,
        len(records),
        len(cycles),
        tuple(problems[:MOST_PROBLEMS]),
        set_aside=str(Spans.parse(run.quarantined_seq)),
    )


def recompute_cycles(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    """The rows of ``cycles`` of a run, reckoned one by one from the samples in the database.

    Those whose samples are not all committed keep their empty columns.

    Raises:
        ArchiveError: there is no such run.
    """
    run = connection.execute(
        select(schema.runs).where(schema.runs.c.run_id == run_id)
    ).one_or_none()
    if run is None:
        raise ArchiveError(f"there is no run {run_id!r} in the archive")
    records = _records(connection, run.run_number)
    return _recomputed(_cycle_rows(connection, run.run_number), records, run)


def _records(
    connection: Connection,
    run_number: int,
    *,
    in_bulk: bool = False,
    blocks: Iterable[Block] | None = None,
) -> Records:
    """Every sample of a run; the columns that nothing here follows from are left at 0."""
    if blocks is None:
        wanted = Wanted(run_number=run_number)
        blocks = read_columns(connection, wanted, LOOKED_AT, in_bulk=in_bulk)
    found = in_order(blocks, LOOKED_AT)
    nothing = np.zeros(len(found["seq"]))
    return Records(
        **{
            name: found[name] if name in found else nothing.astype(kind, copy=False)
            for name, kind in RECORD_COLUMNS.items()
        }
    )


def _of_file(note: Note) -> str:
    try:
        found = sha256_of(note.path)
    except OSError as error:
        return str(note.unreadable(error))
    if found != note.sha256:
        return str(note.unreadable(f"its SHA-256 is {found}"))
    return ""


def _recomputed(
    rows: Sequence[dict[str, Any]], records: Records, run: Row[Any]
) -> list[dict[str, Any]]:
    def read(first_seq: int, last_seq: int) -> Records:
        first, end = np.searchsorted(records.seq, [first_seq, last_seq + 1])
        return records[int(first) : int(end)]

    quarantined = Spans.parse(run.quarantined_seq)
    positions: dict[str, int] = {}
    class_before: str | None = None
    again = [dict(row) for row in rows]
    for row in again:
        if row["last_seq"] <= run.complete_through_seq:
            reckon_cycles([row], read, quarantined)
        if row["judged"]:
            cycle_class = row["cycle_class"]
            positions[cycle_class] = positions.get(cycle_class, 0) + 1
            row["position_in_class"] = positions[cycle_class]
            row["comparable"] = is_comparable(
                cycle_class,
                class_before,
                complete=row["complete"],
                interrupted=row["interrupted"],
            )
            class_before = cycle_class
    return again


def _cycle_rows(connection: Connection, run_number: int) -> list[dict[str, Any]]:
    table = schema.cycles
    query = (
        select(table)
        .where(table.c.run_number == run_number)
        .order_by(table.c.last_seq, table.c.cycle)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def _of_seq(run: Row[Any], records: Records) -> list[str]:
    problems = []
    values, counts = np.unique(records.seq, return_counts=True)
    often = counts > 1
    problems += [f"sample {a} is there {n} times" for a, n in _pairs(values[often], counts[often])]
    there = _spans_of(values)
    committed = Spans.parse(run.committed_seq)
    quarantined = Spans.parse(run.quarantined_seq)
    for first, last in committed:
        problems += [
            f"samples {a} to {b} were committed and are not there"
            for piece in there.holes(first, last)
            for a, b in _without(piece, quarantined)
        ]
    if committed:
        last = max(last for _, last in committed)
        problems += [f"samples {a} to {b} never came" for a, b in committed.holes(1, last)]
    if quarantined:
        problems.append(_said_of(str(quarantined)))
    if run.last_seq is not None and run.complete_through_seq != run.last_seq:
        problems.append(
            f"the run ended with sample {run.last_seq}, the archive is complete "
            f"through {run.complete_through_seq}"
        )
    return problems


def _of_ledger(connection: Connection, run: Row[Any]) -> list[str]:
    batches, sources = schema.batches, schema.sources
    rows = connection.execute(
        select(batches.c.first_seq, batches.c.last_seq)
        .where(batches.c.source == run.source, batches.c.run_number == run.run_number)
        .where(batches.c.kind == "samples")
    ).all()
    problems = []
    ledger = Spans((row.first_seq, row.last_seq) for row in rows)
    if str(ledger) != run.committed_seq:
        problems.append(
            f"the ledger has the samples {ledger or 'none'}, "
            f"the run says {run.committed_seq or 'none'}"
        )
    if ledger.count != sum(row.last_seq - row.first_seq + 1 for row in rows):
        problems.append("two batches of the ledger hold the same sample")
    numbers = np.array(
        connection.execute(select(batches.c.number).where(batches.c.source == run.source))
        .scalars()
        .all(),
        dtype=np.int64,
    )
    said = connection.execute(
        select(sources.c.committed).where(sources.c.source == run.source)
    ).scalar_one_or_none()
    if str(_spans_of(np.unique(numbers))) != (said or ""):
        problems.append(f"the ledger of {run.source} is not what has been acknowledged: {said}")
    return problems


def _of_cycles(rows: Sequence[dict[str, Any]], records: Records, run: Row[Any]) -> list[str]:
    problems = []
    for row, again in zip(rows, _recomputed(rows, records, run), strict=True):
        different = [
            name
            for name in (*RECKONED, "position_in_class", "comparable")
            if row[name] != again[name]
        ]
        if different:
            problems.append(
                f"cycle {row['cycle']} does not follow from its samples: "
                + ", ".join(f"{name} is {row[name]}, not {again[name]}" for name in different)
            )
    return problems


def _of_steps(connection: Connection, records: Records, run: Row[Any]) -> list[str]:
    """Each sample lies in the step whose visit it names; all of them do once the run is over."""
    table = schema.steps
    query = (
        select(table.c.visit, table.c.first_seq, table.c.last_seq)
        .where(table.c.run_number == run.run_number, table.c.last_seq >= table.c.first_seq)
        .order_by(table.c.first_seq)
    )
    rows = np.array(connection.execute(query).all(), dtype=np.int64).reshape(-1, 3)
    visits, firsts, lasts = rows.T
    if not len(rows):
        return []
    place = np.searchsorted(firsts, records.seq, side="right") - 1
    covered = (place >= 0) & (records.seq <= lasts[np.maximum(place, 0)])
    elsewhere = covered & (visits[np.maximum(place, 0)] != records.visit)
    problems = [
        f"sample {records.seq[n]} is of visit {records.visit[n]}, "
        f"and the steps say of visit {visits[place[n]]}"
        for n in np.flatnonzero(elsewhere)[:MOST_PROBLEMS]
    ]
    if run.last_seq is not None and run.last_seq == run.complete_through_seq:
        problems += [
            f"samples {a} to {b} belong to no step that ended"
            for a, b in _spans_of(np.unique(records.seq[~covered]))
        ]
    return problems


def _of_spectra(connection: Connection, run: Row[Any]) -> list[str]:
    table = schema.spectra
    query = (
        select(table.c.spectrum, func.count(), func.max(table.c.point))
        .where(table.c.run_number == run.run_number)
        .group_by(table.c.spectrum)
        .order_by(table.c.spectrum)
    )
    rows = connection.execute(query).all()
    problems = [
        f"spectrum {spectrum} has {count} of {last} points"
        for spectrum, count, last in rows
        if count != last
    ]
    if rows and run.outcome is not None:
        there = Spans((row.spectrum, row.spectrum) for row in rows)
        missing = there.holes(1, rows[-1].spectrum)
        problems += [f"spectra {a} to {b} are not there" for a, b in missing]
    return problems


def _spans_of(ascending: np.ndarray[Any, np.dtype[np.int64]]) -> Spans:
    if not len(ascending):
        return Spans()
    breaks = np.flatnonzero(np.diff(ascending) != 1)
    firsts = ascending[np.concatenate(([0], breaks + 1))]
    lasts = ascending[np.concatenate((breaks, [len(ascending) - 1]))]
    return Spans(_pairs(firsts, lasts))


def _pairs(
    left: np.ndarray[Any, np.dtype[np.int64]], right: np.ndarray[Any, np.dtype[np.int64]]
) -> list[tuple[int, int]]:
    return list(zip(left.tolist(), right.tolist(), strict=True))


def _without(piece: tuple[int, int], taken: Spans) -> Spans:
    return taken.holes(*piece)
