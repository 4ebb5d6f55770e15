"""Cycles reckoned and judged: what follows from the samples and the ends of cycles.

A cycle is reckoned when its end is known and every sample up to its last one is committed. Cycles
are judged by the alarm rules one after the other, in the order in which they ended; none is judged
while an earlier one could still come: it is either the next number, or every batch of its journal
before the one that told of it is committed. So the result does not depend on the order in which
batches come.

Most cycles are reckoned and judged in the transaction that tells of their end, and are written once
and whole; the others wait in the table.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, bindparam, select, text, update

from labctl.alarms.evidence import (
    LEFT_OUT_CLASSES,
    Evaluation,
    Evidence,
    Verdict,
    is_comparable,
)
from labctl.alarms.rules import retention
from labctl.analysis.cycles import retention as retention_of
from labctl.archive import schema
from labctl.archive.alarm_store import (
    AlarmKey,
    AlarmRow,
    lock_alarms,
    read_alarms,
    record_evaluation,
)
from labctl.archive.happenings import keep, known
from labctl.archive.histories import History, Memory, history_of
from labctl.archive.many import Row, insert_many, update_many
from labctl.archive.reading import read_records
from labctl.archive.reckoning import RECKONED, ReckonedCycles, fill_in, reckon_cycles
from labctl.archive.spans import Spans
from labctl.model import Records
from labctl.stream.topics import CycleSummary

MOST_CYCLES_TOLD = 4
"""Of each run: between two of a cell in real time there are minutes, so none is left out; after a
backlog, thousands would be told of."""
UNREADABLE = "program"
"""Name of the alarm that a run's rules can't be read."""


@dataclass(frozen=True, slots=True)
class CycleDone:
    """A cycle that was judged now, to be told to others."""

    node: str
    summary: CycleSummary


@dataclass(slots=True)
class Folded:
    """What was done. ``cycles``: of each run, the last few that were judged."""

    cycles: list[CycleDone] = field(default_factory=list)
    alarms_changed: bool = False


_OF_RUN = (
    schema.runs.c.run_id,
    schema.runs.c.cell,
    schema.runs.c.source,
    schema.runs.c.program.is_not(None).label("created"),
    schema.runs.c.active_mass_g,
    schema.runs.c.quarantined_seq,
    schema.runs.c.judged_cycles,
    schema.sources.c.node,
)
"""What is asked of a cycle's run."""
_PENDING = (
    select(schema.cycles, *_OF_RUN)
    .join(schema.runs, schema.runs.c.run_number == schema.cycles.c.run_number)
    .join(schema.sources, schema.sources.c.source == schema.runs.c.source)
    .where(
        # Word for word as in the partial index: SQLite does not see that "judged = 0" is the same.
        text("NOT cycles.judged"),
        schema.cycles.c.last_seq <= schema.runs.c.complete_through_seq,
        schema.runs.c.source.in_(bindparam("names", expanding=True)),
    )
)

_RUNS_OF_ENDED = (
    select(schema.runs.c.run_number, schema.runs.c.complete_through_seq, *_OF_RUN)
    .join(schema.sources, schema.sources.c.source == schema.runs.c.source)
    .where(schema.runs.c.run_number.in_(bindparam("numbers", expanding=True)))
)
_JUDGED_OF_RUN = (
    update(schema.runs)
    .where(schema.runs.c.run_number == bindparam("of"))
    .values(judged_cycles=bindparam("judged_cycles"))
)

_CYCLE_KEY = ("run_number", "cycle")
_JUDGED = ("position_in_class", "comparable", "judged")
_COLUMNS = tuple(column.name for column in schema.cycles.columns)
_NOTHING_YET: Row = dict.fromkeys(set(_COLUMNS) - {"interrupted", "judged"})


def fold(
    connection: Connection,
    memory: Memory,
    committed_through: Mapping[str, int],
    ended: Sequence[Row] = (),
    reckoned: ReckonedCycles | None = None,
) -> Folded:
    """Reckon and judge every cycle of these sources that is ready.

    Args:
        committed_through: of each source, every batch up to this number is committed; the caller
            has locked these sources.
        ended: rows of cycles whose ends have come now and that are in no table yet.
        reckoned: cycles that were reckoned before, from the very samples that are committed.

    Raises:
        sqlalchemy.exc.IntegrityError: one of ``ended`` is in the table after all, or there twice.
    """
    pending: defaultdict[int, list[Row]] = defaultdict(list)
    for row in _pending(connection, list(committed_through)):
        pending[row["run_number"]].append(row)
    whole = _joined_to_runs(connection, ended)
    _fill_in(whole, reckoned or {})
    for row in whole:
        if row["last_seq"] <= row["complete_through_seq"]:
            pending[row["run_number"]].append(row)
    folded = Folded()
    if pending:
        changed = _fold_pending(connection, memory, committed_through, pending, folded)
        waited = [row for row in changed if "complete_through_seq" not in row]
        update_many(connection, schema.cycles, _CYCLE_KEY, (*RECKONED, *_JUDGED), waited)
    insert_many(connection, schema.cycles, whole, _COLUMNS, once=True)
    return folded


def _joined_to_runs(connection: Connection, ended: Sequence[Row]) -> list[Row]:
    """Whole rows of ``cycles``, with what is asked of their runs."""
    if not ended:
        return []
    numbers = {row["run_number"] for row in ended}
    found = connection.execute(_RUNS_OF_ENDED, {"numbers": list(numbers)}).mappings()
    runs = {run["run_number"]: {**_NOTHING_YET, **run} for run in found}
    return [runs[row["run_number"]] | row for row in ended]


def _fill_in(rows: Sequence[Row], reckoned: ReckonedCycles) -> None:
    quarantined: dict[int, Spans] = {}
    for row in rows:
        found = reckoned.get((row["source"], row["run_id"], row["cycle"]))
        if found is None or found[:2] != (row["first_seq"], row["last_seq"]):
            continue
        if row["last_seq"] > row["complete_through_seq"]:
            continue
        number = row["run_number"]
        if number not in quarantined:
            quarantined[number] = Spans.parse(row["quarantined_seq"])
        fill_in(row, found.figures, quarantined[number])


def _fold_pending(
    connection: Connection,
    memory: Memory,
    committed_through: Mapping[str, int],
    pending: Mapping[int, list[Row]],
    folded: Folded,
) -> list[Row]:
    """The rows that were changed."""
    alarms: defaultdict[int, dict[AlarmKey, AlarmRow]] = defaultdict(dict)
    for alarm in lock_alarms(connection, pending):
        key = (alarm.run_number, alarm.rule, alarm.rule_number, alarm.cycle_class)
        alarms[alarm.run_number][key] = alarm
    written: list[Row] = []
    for run_number, rows in sorted(pending.items()):
        rows.sort(key=_IN_ORDER)
        new = _reckon(connection, memory, run_number, rows)
        ready = _ready(rows, committed_through[rows[0]["source"]])
        judged = _judge(connection, memory, run_number, ready, alarms[run_number], folded)
        written += {row["cycle"]: row for row in (*new, *judged)}.values()
    return written


_IN_ORDER = itemgetter("last_seq", "cycle")


def _pending(connection: Connection, sources: list[str]) -> list[Row]:
    """Cycles that wait, past SQLAlchemy's work for each value."""
    result = connection.execute(_PENDING, {"names": sources})
    names = tuple(result.keys())
    cursor: Any = result.cursor
    rows = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
    result.close()
    for row in rows:
        row["complete"], row["interrupted"] = bool(row["complete"]), bool(row["interrupted"])
    return rows


def _reckon(
    connection: Connection, memory: Memory, run_number: int, rows: Sequence[Row]
) -> list[Row]:
    new = [row for row in rows if row["charge_Ah"] is None]
    if not new:
        memory.tails.forget_before(run_number, max(row["last_seq"] for row in rows))
        return []

    def read(first_seq: int, last_seq: int) -> Records:
        kept = memory.tails.take(run_number, first_seq, last_seq)
        if kept is not None:
            return kept
        cycles = [row["cycle"] for row in new]
        return read_records(
            connection, run_number, first_seq, last_seq, (min(cycles) - 1, max(cycles))
        )

    reckon_cycles(new, read, Spans.parse(new[0]["quarantined_seq"]))
    memory.tails.forget_before(run_number, max(row["last_seq"] for row in new))
    return new


def _ready(rows: Sequence[Row], committed_through: int) -> list[Row]:
    ready: list[Row] = []
    for row in rows:
        told = row["batch_number"] <= committed_through
        if not row["created"] and not told:
            break
        row["told"] = told
        ready.append(row)
    return ready


def _judge(
    connection: Connection,
    memory: Memory,
    run_number: int,
    ready: Sequence[Row],
    alarms: dict[AlarmKey, AlarmRow],
    folded: Folded,
) -> list[Row]:
    if not ready:
        return []
    history = history_of(connection, memory, run_number, ready[0]["judged_cycles"])
    judged: list[Row] = []
    last: deque[tuple[Row, float | None]] = deque(maxlen=MOST_CYCLES_TOLD)
    for row in ready:
        if not row["told"] and row["cycle"] != history.last_cycle + 1:
            break
        cycle_class = row["cycle_class"]
        comparable = is_comparable(
            cycle_class,
            history.last_class,
            complete=row["complete"],
            interrupted=row["interrupted"],
        )
        position = history.add(
            row["cycle"],
            cycle_class,
            row["discharge_Ah"],
            row["coulombic_efficiency"],
            comparable=comparable,
            last_seq=row["last_seq"],
        )
        evidence = history.of_class(cycle_class).evidence(cycle_class)
        reference = history.reference(evidence)
        if reference is not None and position == history.reference_rule.reference_last:
            keep(
                connection,
                schema.retention_references,
                [
                    {
                        "run_number": run_number,
                        "cycle_class": cycle_class,
                        "reference_discharge_Ah": reference[0],
                        "reference_cycles": str(Spans((one, one) for one in reference[1])),
                    }
                ],
            )
        for key, priority, evaluation in _evaluations(
            history, run_number, evidence, alarms, comparable=comparable
        ):
            if record_evaluation(
                connection,
                alarms.get(key),
                key,
                priority,
                evaluation,
                cycle=row["cycle"],
                unix_time_s=row["end_unix_time_s"],
            ):
                folded.alarms_changed = True
                for alarm in read_alarms(connection, run_numbers=[run_number]):
                    alarms[run_number, alarm.rule, alarm.rule_number, alarm.cycle_class] = alarm
        row["position_in_class"], row["comparable"], row["judged"] = position, comparable, True
        judged.append(row)
        last.append((row, None if reference is None else reference[0]))
    if judged:
        folded.cycles += [CycleDone(row["node"], _told(row, known_Ah)) for row, known_Ah in last]
        connection.execute(_JUDGED_OF_RUN, {"of": run_number, "judged_cycles": history.judged})
    return judged


def _evaluations(
    history: History,
    run_number: int,
    evidence: Evidence,
    alarms: Mapping[AlarmKey, AlarmRow],
    *,
    comparable: bool,
) -> list[tuple[AlarmKey, str, Evaluation]]:
    if history.problem:
        verdict = Evaluation(Verdict.CANNOT_TELL, history.problem)
        return [((run_number, UNREADABLE, 1, ""), "medium", verdict)]
    if evidence.cycle_class in LEFT_OUT_CLASSES:
        return []
    found = []
    for place, rule, declared in history.watched:
        if not comparable and declared.name != retention.NAME:
            continue
        key = (run_number, declared.name, place, evidence.cycle_class)
        alarm = alarms.get(key)
        evaluation = declared.evaluate(
            rule, evidence, active=alarm is not None and alarm.verdict == Verdict.HOLDS.value
        )
        # A cycle that is left out can only show that there will never be a reference.
        if comparable or evaluation.verdict is Verdict.CANNOT_TELL:
            found.append((key, declared.priority, evaluation))
    return found


def _told(row: Mapping[str, Any], reference_Ah: float | None) -> CycleSummary:
    mass_g = row["active_mass_g"]

    def per_gram(charge_Ah: float) -> float | None:
        return 1000 * charge_Ah / mass_g if mass_g else None

    kept = None
    if row["comparable"] and reference_Ah is not None:
        kept = known(retention_of(row["discharge_Ah"], reference_Ah))
    return CycleSummary(
        run=row["run_id"],
        cell=row["cell"] or "",
        cycle=row["cycle"],
        cycle_class=row["cycle_class"],
        complete=row["complete"],
        interrupted=row["interrupted"],
        charge_mAh_g=per_gram(row["charge_Ah"]),
        discharge_mAh_g=per_gram(row["discharge_Ah"]),
        coulombic_efficiency=row["coulombic_efficiency"],
        retention=kept,
        mean_charge_V=row["mean_charge_voltage_V"],
        mean_discharge_V=row["mean_discharge_voltage_V"],
        unix_time_s=row["end_unix_time_s"],
    )
