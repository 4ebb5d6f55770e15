"""Alarms about runs and nodes themselves: a run that waits for a person, one that a limit or a
refusal ended, and every condition that a node watches reading by reading.

What is said is judged in the order in which its journal told it, each word once, when every batch
before it is committed: so the alarms do not depend on the order in which batches come. A run that
ended leaves none that holds: what a limit ended is latched, what else there was wants to be
acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
from sqlalchemy import Connection, select

from labctl.alarms.conditions import condition
from labctl.alarms.evidence import Evaluation, Verdict
from labctl.archive import schema
from labctl.archive.alarm_store import (
    AlarmRow,
    lock_alarms,
    lock_subjects,
    read_alarms,
    record_evaluation,
    subject_of,
)
from labctl.archive.happenings import kind_of, known
from labctl.stream.events import ConditionChanged, RunEnded, RunStateChanged

WHILE: Final = {"held": ("held", "the run is held and waits for a person")}
"""By the state in which the alarm stands: the rule's name, and what it says."""
ONCE: Final = {
    "tripped": ("tripped", "a limit ended the run"),
    "failed": ("failed", "the run was refused"),
}
"""By the state that raises an alarm that is over at once."""
LATCHING: Final = frozenset({"tripped"})
"""Rules whose alarms stay until somebody says what was done."""
OVER: Final = frozenset({"completed", "stopped", "tripped", "failed"})
PRIORITY: Final = "high"

_Event: TypeAlias = RunStateChanged | RunEnded | ConditionChanged
_KINDS: Final[dict[str, type[_Event]]] = {
    kind_of(each): each for each in (RunStateChanged, RunEnded, ConditionChanged)
}
_Place = tuple[int, int]
_About = tuple[int, str]
"""A run's number and '', or 0 and a subject."""


@dataclass(frozen=True, slots=True)
class _Said:
    source: str
    place: _Place
    event: _Event


def watch_states(connection: Connection, news: Mapping[str, tuple[int, int]]) -> bool:
    """Judge what runs and nodes said of themselves; whether any alarm changed.

    Args:
        news: of each source, which the caller has locked: every batch up to the first number was
            committed before, and up to the second is now.
    """
    said = [one for source, span in news.items() for one in _said(connection, source, span)]
    if not said:
        return False
    judge = _Judge(connection, said)
    for one in said:
        judge.hear(one)
    return judge.changed


def _said(connection: Connection, source: str, span: tuple[int, int]) -> list[_Said]:
    if span[1] <= span[0]:
        return []
    events = schema.events.c
    found = connection.execute(
        select(events.number, events.position, events.kind, events.detail)
        .where(events.source == source, events.number > span[0], events.number <= span[1])
        .where(events.kind.in_(_KINDS))
        .order_by(events.number, events.position)
    )
    return [
        _Said(source, (number, position), msgspec.json.decode(detail, type=_KINDS[kind]))
        for number, position, kind, detail in found
    ]


class _Judge:
    def __init__(self, connection: Connection, said: Iterable[_Said]) -> None:
        self.changed = False
        self._connection = connection
        of_nodes = {one.source for one in said if not one.event.run}
        runs = {one.event.run for one in said} - {""}
        if of_nodes:
            lock_subjects(connection)
        self._subjects = self._read_subjects(of_nodes)
        self._numbers = self._read_numbers(runs)
        watched = {one.event.run for one in said if isinstance(one.event, ConditionChanged)}
        self._ended = self._read_ended(watched - {""})
        self._alarms: dict[tuple[_About, str], AlarmRow] = {}
        self._take(lock_alarms(connection, sorted(self._numbers.values())))
        if of_nodes:
            self._take(read_alarms(connection, subjects=set(self._subjects.values()), lock=True))

    def hear(self, one: _Said) -> None:
        """Judge what one event says."""
        event = one.event
        if isinstance(event, ConditionChanged):
            self._condition(one, event)
            return
        about = (self._numbers[event.run], "")
        over = isinstance(event, RunEnded)
        if isinstance(event, RunStateChanged):
            over = event.state in OVER
            for state, (rule, means) in (WHILE | ONCE).items():
                if event.state == state:
                    verdict = Evaluation(Verdict.HOLDS, f"{means}: {event.reason}")
                    self._record(about, rule, PRIORITY, verdict, event.unix_time_s)
                if event.state != state or state in ONCE:
                    self._over(about, rule, event.unix_time_s)
        if over:
            for rule in [rule for of, rule in self._alarms if of == about]:
                self._over(about, rule, event.unix_time_s)

    def _condition(self, one: _Said, event: ConditionChanged) -> None:
        about = (self._numbers[event.run], "") if event.run else (0, self._subjects[one.source])
        watched = condition(event.condition)
        if not event.holds:
            self._over(about, watched.name, event.unix_time_s)
            return
        if event.run in self._ended and self._ended[event.run] < one.place:
            return
        verdict = Evaluation(
            Verdict.HOLDS,
            event.message or watched.means,
            value=known(event.value),
            limit=known(event.limit),
            unit=event.unit,
        )
        self._record(about, watched.name, watched.priority, verdict, event.unix_time_s)

    def _over(self, about: _About, rule: str, unix_time_s: float) -> None:
        alarm = self._alarms.get((about, rule))
        if alarm is None or not alarm.active:
            return
        verdict = Evaluation(
            Verdict.DOES_NOT_HOLD,
            alarm.message,
            value=alarm.value,
            limit=alarm.limit_value,
            unit=alarm.unit,
        )
        self._record(about, rule, alarm.priority, verdict, unix_time_s)

    def _record(
        self, about: _About, rule: str, priority: str, verdict: Evaluation, unix_time_s: float
    ) -> None:
        run_number, subject = about
        if not record_evaluation(
            self._connection,
            self._alarms.get((about, rule)),
            (run_number, rule, 1, ""),
            priority,
            verdict,
            cycle=0,
            unix_time_s=unix_time_s,
            subject=subject,
            latches=rule in LATCHING,
        ):
            return
        self.changed = True
        if subject:
            self._take(read_alarms(self._connection, subjects=[subject]))
        else:
            self._take(read_alarms(self._connection, run_numbers=[run_number]))

    def _take(self, alarms: Iterable[AlarmRow]) -> None:
        for alarm in alarms:
            if alarm.cycle:
                continue  # a rule on cycles raised it
            self._alarms[(alarm.run_number, alarm.subject), alarm.rule] = alarm

    def _read_numbers(self, runs: Iterable[str]) -> dict[str, int]:
        table = schema.runs.c
        found = self._connection.execute(
            select(table.run_id, table.run_number).where(table.run_id.in_(list(runs)))
        )
        return {str(run_id): int(number) for run_id, number in found}

    def _read_subjects(self, sources: Iterable[str]) -> dict[str, str]:
        names = list(sources)
        if not names:
            return {}
        table = schema.sources.c
        found = self._connection.execute(
            select(table.source, table.node).where(table.source.in_(names))
        )
        return {source: subject_of(node or source) for source, node in found}

    def _read_ended(self, runs: Iterable[str]) -> dict[str, _Place]:
        """Where in its journal each of these runs ended, of those that did."""
        names = list(runs)
        if not names:
            return {}
        events = schema.events.c
        found = self._connection.execute(
            select(events.subject, events.number, events.position)
            .where(events.subject.in_(names), events.kind == kind_of(RunEnded))
            .order_by(events.number.desc(), events.position.desc())
        )
        return {run: (number, position) for run, number, position in found}
