"""Cycles reckoned and judged: what follows from the samples and the ends of cycles.

A cycle is reckoned when its end is known and every sample up to its last one is committed. Cycles
are judged by the alarm rules one after the other, in the order in which they ended; none is judged
while an earlier one could still come: it is either the next number, or every batch of its journal
before the one that told of it is committed. So the result does not depend on the order in which
batches come.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select, text, tuple_, update

from labctl.alarms.evidence import (
    LEFT_OUT_CLASSES,
    ClassHistory,
    Evaluation,
    Evidence,
    Verdict,
    is_comparable,
)
from labctl.alarms.rules import RULES, Rule, retention
from labctl.alarms.rules.retention import reference_cycles
from labctl.analysis.cycles import reference_capacity_Ah
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
from labctl.archive.many import update_many
from labctl.archive.reading import read_records
from labctl.archive.spans import Spans
from labctl.archive.tails import ReadSamples, Tails, summaries
from labctl.model import Records
from labctl.program import AlarmRule, Program, RetentionAlarm, decode_program
from labctl.stream.topics import CycleSummary

MOST_HISTORIES = 2000
UNREADABLE = "program"
"""Name of the alarm that a run's rules can't be read."""


@dataclass(slots=True)
class History:
    """What the rules know of one run: as much as can be read again from its judged cycles.

    watched: the rules on cycles, with their places among those of their kind in the recipe, and how
        they are evaluated.
    last_cycle, last_class, last_seq: of the cycle that was judged last.
    """

    rules: tuple[AlarmRule, ...]
    problem: str
    judged: int = 0
    last_cycle: int = 0
    last_class: str | None = None
    last_seq: int = -1
    classes: dict[str, ClassHistory] = field(default_factory=dict)
    watched: tuple[tuple[int, AlarmRule, Rule], ...] = field(init=False)
    reference_rule: RetentionAlarm = field(init=False)
    """Says which cycles retention is divided by."""
    _needed: tuple[int, int] = field(init=False)
    _references: dict[str, tuple[float, tuple[int, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = [type(rule) for rule in self.rules]
        self.watched = tuple(
            (kinds[: place + 1].count(kind), self.rules[place], RULES[kind])
            for place, kind in enumerate(kinds)
            if kind in RULES
        )
        self.reference_rule = next(
            (rule for rule in self.rules if isinstance(rule, RetentionAlarm)), RetentionAlarm()
        )
        needed = [declared.cycles_needed(rule) for _, rule, declared in self.watched]
        needed.append(retention.cycles_needed(self.reference_rule))
        self._needed = max(first for first, _ in needed), max(last for _, last in needed)

    def of_class(self, cycle_class: str) -> ClassHistory:
        """The history of one class of cycles."""
        if cycle_class not in self.classes:
            self.classes[cycle_class] = ClassHistory(*self._needed)
        return self.classes[cycle_class]

    def add(
        self,
        cycle: int,
        cycle_class: str,
        discharge_Ah: float,
        efficiency: float | None,
        *,
        comparable: bool,
        last_seq: int,
    ) -> int:
        """Take in the next judged cycle; gives its position in its class."""
        position = self.of_class(cycle_class).add(
            cycle,
            discharge_Ah,
            comparable=comparable,
            efficiency=efficiency,
            follows=cycle_class == self.last_class,
        )
        self.judged += 1
        self.last_cycle, self.last_class, self.last_seq = cycle, cycle_class, last_seq
        return position

    def reference(self, evidence: Evidence) -> tuple[float, tuple[int, ...]] | None:
        """The reference capacity in Ah and its cycles, once they are all over."""
        rule = self.reference_rule
        found = self._references.get(evidence.cycle_class)
        if found is not None:
            return found
        if evidence.position < rule.reference_last:
            return None
        cycles = reference_cycles(evidence, rule.reference_first, rule.reference_last)
        if not cycles:
            return None
        found = (
            reference_capacity_Ah([one.discharge_Ah for one in cycles]),
            tuple(one.cycle for one in cycles),
        )
        self._references[evidence.cycle_class] = found
        return found


@dataclass(slots=True)
class Memory:
    """Copies of committed facts that save reading them again. Cleared after any failure."""

    tails: Tails = field(default_factory=Tails)
    histories: OrderedDict[int, History] = field(default_factory=OrderedDict)

    def clear(self) -> None:
        """Forget everything."""
        self.tails.clear()
        self.histories.clear()


@dataclass(frozen=True, slots=True)
class CycleDone:
    """A cycle that was judged now, to be told to others."""

    node: str
    summary: CycleSummary


@dataclass(slots=True)
class Folded:
    cycles: list[CycleDone] = field(default_factory=list)
    alarms_changed: bool = False


_PENDING = (
    select(
        schema.cycles,
        schema.runs.c.run_id,
        schema.runs.c.cell,
        schema.runs.c.source,
        schema.runs.c.program.is_not(None).label("created"),
        schema.runs.c.active_mass_g,
        schema.runs.c.quarantined_seq,
        schema.runs.c.judged_cycles,
        schema.sources.c.node,
    )
    .join(schema.runs, schema.runs.c.run_number == schema.cycles.c.run_number)
    .join(schema.sources, schema.sources.c.source == schema.runs.c.source)
    .where(
        # Word for word as in the partial index: SQLite does not see that "judged = 0" is the same.
        text("NOT cycles.judged"),
        schema.cycles.c.last_seq <= schema.runs.c.complete_through_seq,
        schema.runs.c.source.in_(bindparam("names", expanding=True)),
    )
    .order_by(schema.cycles.c.run_number, schema.cycles.c.last_seq, schema.cycles.c.cycle)
)

_JUDGED_OF_RUN = (
    update(schema.runs)
    .where(schema.runs.c.run_number == bindparam("of"))
    .values(judged_cycles=bindparam("judged_cycles"))
)

_ORDER = tuple_(schema.cycles.c.last_seq, schema.cycles.c.cycle)
_JUDGED_SINCE = (
    select(
        schema.cycles.c.cycle,
        schema.cycles.c.cycle_class,
        schema.cycles.c.discharge_Ah,
        schema.cycles.c.coulombic_efficiency,
        schema.cycles.c.comparable,
        schema.cycles.c.last_seq,
    )
    .where(
        schema.cycles.c.run_number == bindparam("of"),
        schema.cycles.c.judged,
        _ORDER.op(">")(tuple_(bindparam("last_seq"), bindparam("last_cycle"))),
    )
    .order_by(schema.cycles.c.last_seq, schema.cycles.c.cycle)
)

_OF_SUMMARY = (
    "charge_Ah",
    "discharge_Ah",
    "charge_Wh",
    "discharge_Wh",
    "coulombic_efficiency",
    "mean_charge_voltage_V",
    "mean_discharge_voltage_V",
    "voltage_min_V",
    "voltage_max_V",
    "current_min_A",
    "current_max_A",
    "duration_s",
)
_figures_of = attrgetter(*_OF_SUMMARY)
RECKONED = ("interrupted", *_OF_SUMMARY, "end_test_time_s", "end_unix_time_s")
"""Columns of ``cycles`` that are reckoned from samples."""
_CYCLE_KEY = ("run_number", "cycle")
_JUDGED = ("position_in_class", "comparable", "judged")


def fold(connection: Connection, memory: Memory, committed_through: Mapping[str, int]) -> Folded:
    """Reckon and judge every cycle of these sources that is ready.

    Args:
        committed_through: of each source, every batch up to this number is committed; the caller
            has locked these sources.
    """
    pending: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in _pending(connection, list(committed_through)):
        pending[row["run_number"]].append(row)
    folded = Folded()
    if not pending:
        return folded
    alarms: defaultdict[int, dict[AlarmKey, AlarmRow]] = defaultdict(dict)
    for alarm in lock_alarms(connection, pending):
        key = (alarm.run_number, alarm.rule, alarm.rule_number, alarm.cycle_class)
        alarms[alarm.run_number][key] = alarm
    written: list[dict[str, Any]] = []
    for run_number, rows in pending.items():
        new = _reckon(connection, memory, run_number, rows)
        ready = _ready(rows, committed_through[rows[0]["source"]])
        judged = _judge(connection, memory, run_number, ready, alarms[run_number], folded)
        written += {row["cycle"]: row for row in (*new, *judged)}.values()
    update_many(connection, schema.cycles, _CYCLE_KEY, (*RECKONED, *_JUDGED), written)
    return folded


def _pending(connection: Connection, sources: list[str]) -> list[dict[str, Any]]:
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
    connection: Connection, memory: Memory, run_number: int, rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    new = [row for row in rows if row["charge_Ah"] is None]
    if not new:
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


def reckon_cycles(rows: Sequence[dict[str, Any]], read: ReadSamples, quarantined: Spans) -> None:
    """Put the integrals of each row of ``cycles`` of one run into it."""
    found = summaries([(row["first_seq"], row["last_seq"]) for row in rows], read)
    for row, (summary, test_time_s, unix_time_s) in zip(rows, found, strict=True):
        figures = _figures_of(summary)
        if not math.isfinite(sum(figures)):
            figures = tuple(map(known, figures))
        row.update(zip(_OF_SUMMARY, figures, strict=True))
        row["end_test_time_s"], row["end_unix_time_s"] = test_time_s, unix_time_s
        if quarantined.touches(row["first_seq"] - 1, row["last_seq"]):
            row["interrupted"] = True


def _ready(rows: Sequence[dict[str, Any]], committed_through: int) -> list[dict[str, Any]]:
    ready: list[dict[str, Any]] = []
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
    ready: Sequence[dict[str, Any]],
    alarms: dict[AlarmKey, AlarmRow],
    folded: Folded,
) -> list[dict[str, Any]]:
    if not ready:
        return []
    history = _history(connection, memory, run_number, ready[0]["judged_cycles"])
    judged: list[dict[str, Any]] = []
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
        row.update(position_in_class=position, comparable=comparable, judged=True)
        judged.append(row)
        folded.cycles.append(
            CycleDone(row["node"], _told(row, None if reference is None else reference[0]))
        )
    if judged:
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


def _history(
    connection: Connection, memory: Memory, run_number: int, judged_cycles: int
) -> History:
    kept = memory.histories.get(run_number)
    if kept is not None and kept.judged < judged_cycles:
        _catch_up(connection, run_number, kept)  # another archive judged some meanwhile
    if kept is None or kept.judged != judged_cycles:
        program, problem = _program(connection, run_number)
        kept = History(program.alarms if program else (), problem)
        _catch_up(connection, run_number, kept)
        memory.histories[run_number] = kept
    memory.histories.move_to_end(run_number)
    while len(memory.histories) > MOST_HISTORIES:
        memory.histories.popitem(last=False)
    return kept


def _catch_up(connection: Connection, run_number: int, history: History) -> None:
    """Take in the judged cycles after those that ``history`` knows."""
    for row in connection.execute(
        _JUDGED_SINCE,
        {"of": run_number, "last_seq": history.last_seq, "last_cycle": history.last_cycle},
    ):
        history.add(
            row.cycle,
            row.cycle_class,
            row.discharge_Ah,
            row.coulombic_efficiency,
            comparable=row.comparable,
            last_seq=row.last_seq,
        )


def _program(connection: Connection, run_number: int) -> tuple[Program | None, str]:
    blob = connection.execute(
        select(schema.runs.c.program).where(schema.runs.c.run_number == run_number)
    ).scalar_one()
    if blob is None:
        return None, "alarm rules cannot be evaluated: nothing told the archive of the run's start"
    try:
        return decode_program(bytes(blob)), ""
    except msgspec.MsgspecError as error:
        return None, f"alarm rules cannot be evaluated: the run's program is unreadable: {error}"
