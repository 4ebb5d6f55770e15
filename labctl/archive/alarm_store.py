"""Alarms in the database: what a rule says becomes a state, and every change is kept."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError

from labctl.alarms.evidence import Evaluation, Verdict
from labctl.alarms.states import AlarmState, AlarmTrigger, next_state
from labctl.archive import schema
from labctl.archive.spans import Spans
from labctl.errors import ArchiveError

AlarmKey = tuple[int, str, int, str]
"""Run number, rule, place of the rule in the recipe, cycle class."""


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
    .join(schema.runs, schema.runs.c.run_number == schema.alarms.c.run_number)
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


def read_alarms(
    connection: Connection,
    *,
    run_numbers: Iterable[int] | None = None,
    alarm_number: int | None = None,
    standing: bool = False,
    lock: bool = False,
) -> list[AlarmRow]:
    """Alarms in the order of their numbers.

    Args:
        run_numbers: of these runs alone.
        alarm_number: this one alone.
        standing: those alone that are not normal.
        lock: keep others from changing them until the transaction ends.
    """
    alarms = schema.alarms
    query = _ALARMS
    if run_numbers is not None:
        query = query.where(alarms.c.run_number.in_(list(run_numbers)))
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
) -> bool:
    """Take note of what a rule says after ``cycle``; whether the state of its alarm changed.

    Args:
        alarm: the alarm as it stands, None if there never was one.
    """
    verdict = evaluation.verdict
    if verdict is Verdict.UNDECIDED:
        return False
    active = verdict in (Verdict.HOLDS, Verdict.CANNOT_TELL)
    was_active = alarm is not None and alarm.active
    other_reason = alarm is not None and alarm.verdict != verdict.value
    if active == was_active and not (active and other_reason):
        return False
    trigger = AlarmTrigger.RAISE if active else AlarmTrigger.CLEAR
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
            "run_number": run_number,
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


def acknowledge(
    engine: Engine,
    alarm_number: int,
    *,
    actor: str,
    note: str = "",
    unix_time_s: float | None = None,
) -> AlarmRow:
    """A person knows of an alarm; gives the alarm as it stands then.

    A running archive tells the stream of it within seconds.

    Raises:
        ArchiveError: there is no such alarm, or the archive cannot be written.
        CommandError: there is nothing to acknowledge about it now.
    """
    try:
        with engine.begin() as connection:
            found = read_alarms(connection, alarm_number=alarm_number, lock=True)
            if not found:
                raise ArchiveError(f"there is no alarm {alarm_number} in the archive")
            before = found[0].state
            after = next_state(before, AlarmTrigger.ACKNOWLEDGE)
            alarms = schema.alarms
            connection.execute(
                update(alarms)
                .where(alarms.c.alarm_number == alarm_number)
                .values(state=after.value)
            )
            now_s = time.time() if unix_time_s is None else unix_time_s
            connection.execute(
                insert(schema.alarm_events).values(
                    alarm_number=alarm_number,
                    trigger=AlarmTrigger.ACKNOWLEDGE.value,
                    from_state=before.value,
                    to_state=after.value,
                    message=note,
                    actor=actor,
                    unix_time_s=now_s,
                    committed_unix_s=now_s,
                )
            )
            return read_alarms(connection, alarm_number=alarm_number)[0]
    except DBAPIError as error:
        raise ArchiveError(f"alarm {alarm_number} cannot be acknowledged: {error.orig}") from error


def _alarm_row(row: RowMapping) -> AlarmRow:
    return AlarmRow(
        **{name: row[name] for name in AlarmRow.__slots__ if name not in ("state", "cell", "node")},
        state=AlarmState(row["state"]),
        cell=row["cell"] or "",
        node=row["node"] or "",
    )


def _cycles_as_text(cycles: tuple[int, ...]) -> str:
    return str(Spans((cycle, cycle) for cycle in cycles))
