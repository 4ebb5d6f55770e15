"""Alarms about runs themselves: one that waits for a person, one that a limit or a refusal ended.

What a run says of its state is judged in the order in which its journal told it, each word once,
when every batch before it is committed: so the alarms do not depend on the order in which batches
come. A run that ended leaves an alarm that is over and wants to be acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from labctl.alarms.evidence import Evaluation, Verdict
from labctl.archive import schema
from labctl.archive.alarm_store import AlarmRow, lock_alarms, read_alarms, record_evaluation
from labctl.archive.happenings import kind_of
from labctl.stream.events import RunStateChanged

WHILE: Final = {"held": ("held", "the run is held and waits for a person")}
"""By the state in which the alarm stands: the rule's name, and what it says."""
ONCE: Final = {
    "tripped": ("tripped", "a limit ended the run"),
    "failed": ("failed", "the run was refused"),
}
"""By the state that raises an alarm that is over at once."""
PRIORITY: Final = "high"


def watch_states(connection: Connection, news: Mapping[str, tuple[int, int]]) -> bool:
    """Judge what runs said of their state; whether any alarm changed.

    Args:
        news: of each source, which the caller has locked: every batch up to the first number was
            committed before, and up to the second is now.
    """
    said = [event for source, span in news.items() for event in _said(connection, source, span)]
    if not said:
        return False
    runs = schema.runs.c
    found = connection.execute(
        select(runs.run_id, runs.run_number).where(runs.run_id.in_({one.run for one in said}))
    )
    numbers = {str(run_id): int(number) for run_id, number in found}
    alarms = {
        (alarm.run_number, alarm.rule): alarm
        for alarm in lock_alarms(connection, sorted(numbers.values()))
    }
    changed = False
    for event in said:
        number = numbers[event.run]
        for state, (rule, means) in (WHILE | ONCE).items():
            holds = event.state == state
            changed |= _record(connection, alarms, number, rule, event, means, holds=holds)
            if holds and state in ONCE:
                _record(connection, alarms, number, rule, event, means, holds=False)
    return changed


def _said(connection: Connection, source: str, span: tuple[int, int]) -> list[RunStateChanged]:
    if span[1] <= span[0]:
        return []
    events = schema.events.c
    found = connection.execute(
        select(events.detail)
        .where(events.source == source, events.number > span[0], events.number <= span[1])
        .where(events.kind == kind_of(RunStateChanged))
        .order_by(events.number, events.position)
    )
    return [msgspec.json.decode(detail, type=RunStateChanged) for (detail,) in found]


def _record(
    connection: Connection,
    alarms: dict[tuple[int, str], AlarmRow],
    run_number: int,
    rule: str,
    event: RunStateChanged,
    means: str,
    *,
    holds: bool,
) -> bool:
    known = alarms.get((run_number, rule))
    if not holds and (known is None or not known.active):
        return False
    changed = record_evaluation(
        connection,
        known,
        (run_number, rule, 1, ""),
        PRIORITY,
        Evaluation(
            Verdict.HOLDS if holds else Verdict.DOES_NOT_HOLD,
            f"{means}: {event.reason}" if holds or known is None else known.message,
        ),
        cycle=0,
        unix_time_s=event.unix_time_s,
    )
    if changed:
        for alarm in read_alarms(connection, run_numbers=[run_number]):
            alarms[alarm.run_number, alarm.rule] = alarm
    return changed
