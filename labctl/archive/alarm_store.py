"""Alarms in the database: what a rule says becomes a state, and every change is kept.

Times of persons and of the archive itself are the wall's; those of rules come with the readings.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, insert, select, update

from labctl.alarms.evidence import Evaluation, Verdict
from labctl.alarms.states import SET_ASIDE, AlarmState, AlarmTrigger, next_state, path
from labctl.archive import schema
from labctl.archive.spans import Spans

AlarmKey = tuple[int, str, int, str]
"""Run number, rule, place of the rule in the recipe, cycle class. The run number is 0 for an alarm
about something else, whose subject says what."""
_NODES_LOCK = 7_236_181_003
"""Any number will do that nobody else uses as an advisory lock."""


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """One alarm as it stands now; see the table ``alarms``."""

    alarm_number: int
    run_number: int
    run_id: str
    cell: str
    node: str
    rule: str
    rule_number: int
    cycle_class: str
    priority: str
    state: AlarmState
    active: bool
    verdict: str
    message: str
    value: float | None
    limit_value: float | None
    unit: str
    reference: float | None
    reference_unit: str
    cycle: int
    unix_time_s: float | None
    subject: str = ""
    shelved_until_unix_s: float | None = None
    aside_actor: str = ""
    aside_reason: str = ""

    @property
    def about(self) -> str:
        """What it is about, for people: ``cell HEV-1``, ``run run-7``, ``node lab1``."""
        if self.subject:
            return self.subject
        return f"cell {self.cell}" if self.cell else f"run {self.run_id}"

    @property
    def name(self) -> str:
        """What tells it from the other alarms of its run: ``retention``, ``retention-2``."""
        parts = [self.rule]
        if self.rule_number > 1:
            parts.append(str(self.rule_number))
        if self.cycle_class not in ("", "cycle"):
            parts.append(self.cycle_class)
        return "-".join(parts)


_ALARMS = (
    select(schema.alarms, schema.runs.c.run_id, schema.runs.c.cell, schema.sources.c.node)
    .outerjoin(schema.runs, schema.runs.c.run_number == schema.alarms.c.run_number)
    .outerjoin(schema.sources, schema.sources.c.source == schema.runs.c.source)
    .order_by(schema.alarms.c.alarm_number)
)
_OF_RUNS_LOCKED = _ALARMS.where(
    schema.alarms.c.run_number.in_(bindparam("run_numbers", expanding=True))
).with_for_update(of=schema.alarms)


def lock_alarms(connection: Connection, run_numbers: Iterable[int]) -> list[AlarmRow]:
    """The alarms of these runs; others can't change them until the transaction ends."""
    found = connection.execute(_OF_RUNS_LOCKED, {"run_numbers": list(run_numbers)})
    return [_alarm_row(row) for row in found.mappings()]


def subject_of(node: str) -> str:
    """The subject of an alarm about a node."""
    return f"{_NODE}{node}"


_NODE = "node "


def lock_subjects(connection: Connection) -> None:
    """Keep other archives from making alarms about nodes until the transaction ends. To be called
    before alarms are locked."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_NODES_LOCK})")


def read_alarms(
    connection: Connection,
    *,
    run_numbers: Iterable[int] | None = None,
    subjects: Iterable[str] | None = None,
    alarm_number: int | None = None,
    standing: bool = False,
    lock: bool = False,
) -> list[AlarmRow]:
    """Alarms in the order of their numbers.

    Args:
        run_numbers: of these runs alone.
        subjects: about these alone.
        alarm_number: this one alone.
        standing: those alone that are not normal.
        lock: keep others from changing them until the transaction ends.
    """
    alarms = schema.alarms
    query = _ALARMS
    if run_numbers is not None:
        query = query.where(alarms.c.run_number.in_(list(run_numbers)))
    if subjects is not None:
        query = query.where(alarms.c.run_number.is_(None), alarms.c.subject.in_(list(subjects)))
    if alarm_number is not None:
        query = query.where(alarms.c.alarm_number == alarm_number)
    if standing:
        query = query.where(alarms.c.state != AlarmState.NORMAL.value)
    if lock:
        query = query.with_for_update(of=alarms)
    return [_alarm_row(row) for row in connection.execute(query).mappings()]


def record_evaluation(
    connection: Connection,
    alarm: AlarmRow | None,
    key: AlarmKey,
    priority: str,
    evaluation: Evaluation,
    *,
    cycle: int,
    unix_time_s: float | None,
    subject: str = "",
    latches: bool = False,
) -> bool:
    """Take note of what a rule says after ``cycle``; whether its alarm changed.

    Args:
        alarm: the alarm as it stands, None if there never was one.
        subject: what it is about, where that is no run.
        latches: it does not go by itself when its condition is over.
    """
    verdict = evaluation.verdict
    if verdict is Verdict.UNDECIDED:
        return False
    active = verdict in (Verdict.HOLDS, Verdict.CANNOT_TELL)
    was_active = alarm is not None and alarm.active
    other_reason = alarm is not None and alarm.verdict != verdict.value
    if active == was_active and not (active and other_reason):
        return False
    if active:
        trigger = AlarmTrigger.RAISE
    else:
        trigger = AlarmTrigger.LATCH if latches else AlarmTrigger.CLEAR
    before = AlarmState.NORMAL if alarm is None else alarm.state
    after = next_state(before, trigger)
    values: dict[str, Any] = {
        "priority": priority,
        "state": after.value,
        "active": active,
        "verdict": verdict.value,
        "message": evaluation.message,
        "value": evaluation.value,
        "limit_value": evaluation.limit,
        "unit": evaluation.unit,
        "reference": evaluation.reference,
        "reference_unit": evaluation.reference_unit,
        "cycles": _cycles_as_text(evaluation.cycles),
        "reference_cycles": _cycles_as_text(evaluation.reference_cycles),
        "cycle": cycle,
        "unix_time_s": unix_time_s,
    }
    alarms = schema.alarms
    if alarm is None:
        run_number, rule, rule_number, cycle_class = key
        values |= {
            "run_number": run_number or None,
            "subject": subject,
            "rule": rule,
            "rule_number": rule_number,
            "cycle_class": cycle_class,
        }
        number = connection.execute(
            insert(alarms).values(values).returning(alarms.c.alarm_number)
        ).scalar_one()
    else:
        number = alarm.alarm_number
        connection.execute(update(alarms).where(alarms.c.alarm_number == number).values(values))
    connection.execute(
        insert(schema.alarm_events).values(
            alarm_number=number,
            trigger=trigger.value,
            from_state=before.value,
            to_state=after.value,
            cycle=cycle,
            message=evaluation.message,
            value=evaluation.value,
            reference=evaluation.reference,
            actor="",
            unix_time_s=unix_time_s,
            committed_unix_s=time.time(),
        )
    )
    return True


def move(
    connection: Connection,
    alarm: AlarmRow,
    trigger: AlarmTrigger,
    *,
    actor: str = "",
    reason: str = "",
    now_unix_s: float,
    until_unix_s: float | None = None,
) -> None:
    """Take an alarm, which the caller has locked, to another state for another cause than its rule.

    Where it comes back from being set aside and its condition holds, it is raised again.

    Raises:
        CommandError: ``trigger`` means nothing in its state.
    """
    state = alarm.state
    for step, after in path(state, trigger, active=alarm.active):
        raised = step is AlarmTrigger.RAISE
        connection.execute(
            insert(schema.alarm_events).values(
                alarm_number=alarm.alarm_number,
                trigger=step.value,
                from_state=state.value,
                to_state=after.value,
                message=alarm.message if raised else reason,
                value=alarm.value if raised else None,
                actor="" if raised else actor,
                unix_time_s=now_unix_s,
                committed_unix_s=now_unix_s,
            )
        )
        state = after
    aside = state in SET_ASIDE
    alarms = schema.alarms
    connection.execute(
        update(alarms)
        .where(alarms.c.alarm_number == alarm.alarm_number)
        .values(
            state=state.value,
            shelved_until_unix_s=until_unix_s if state is AlarmState.SHELVED else None,
            aside_actor=actor if aside else "",
            aside_reason=reason if aside else "",
        )
    )


def _alarm_row(row: RowMapping) -> AlarmRow:
    subject = row["subject"]
    return AlarmRow(
        **{name: row[name] for name in _AS_THEY_ARE},
        run_number=row["run_number"] or 0,
        run_id=row["run_id"] or "",
        state=AlarmState(row["state"]),
        cell=row["cell"] or "",
        node=subject.removeprefix(_NODE) if subject.startswith(_NODE) else row["node"] or "",
    )


_AS_THEY_ARE = set(AlarmRow.__slots__) - {"run_number", "run_id", "state", "cell", "node"}


def _cycles_as_text(cycles: tuple[int, ...]) -> str:
    return str(Spans((cycle, cycle) for cycle in cycles))
