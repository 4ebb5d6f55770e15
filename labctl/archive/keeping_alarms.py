"""What becomes of alarms without a new reading: time passes, and nodes go and come.

A shelved alarm comes back when its time is over. A node whose last will has stood for a minute is
an alarm, and what else is known of it and of its runs is suppressed until it is back: one cause,
one alarm. A node that was told to end says so itself and is none.

Nodes are judged by the clock of this process that never goes back, and only while it hears the
broker: what was heard before the connection broke says nothing.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine

from labctl.alarms.conditions import CONDITIONS, GONE
from labctl.alarms.evidence import Evaluation, Verdict
from labctl.alarms.states import AlarmState, AlarmTrigger
from labctl.archive.alarm_store import (
    AlarmRow,
    lock_subjects,
    move,
    read_alarms,
    record_evaluation,
    subject_of,
)
from labctl.clock import Clock
from labctl.errors import StreamError
from labctl.stream import topics
from labctl.stream.topics import NodeState

log = logging.getLogger(__name__)

GONE_AFTER_S: Final = 60.0
TIME_IS_OVER: Final = "its time is over"

Result = TypeVar("Result")
Do = Callable[[Callable[[Engine], Any]], Awaitable[Any]]
"""Lets a function of a module, or a partial of one, write into the database."""
Look = Callable[[Callable[[Connection], Any]], Awaitable[Any]]
"""Lets a function read from the database."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Nodes that are gone (and since when, by the wall), and those that are not."""

    gone: Mapping[str, float] = field(default_factory=dict)
    here: frozenset[str] = frozenset()


class Nodes:
    """What nodes last said of themselves."""

    def __init__(self, clock: Clock, gone_after_s: float = GONE_AFTER_S) -> None:
        self._clock = clock
        self._gone_after_s = gone_after_s
        self._here: set[str] = set()
        self._gone: dict[str, tuple[float, float]] = {}

    def hear(self, topic: str, payload: object) -> bool:
        """Whether this is what a node says of itself; it is taken note of then."""
        if not topics.is_node_state(topic):
            return False
        if payload == b"":
            self._scrapped(topic)
            return True
        try:
            node, said = (
                topics.node_of(topic),
                topics.decode(payload if isinstance(payload, bytes) else b"", NodeState),
            )
        except StreamError as error:
            log.warning("a node's state on %s cannot be understood: %s", topic, error)
            return True
        if said.state == "online" or said.orderly:
            self._gone.pop(node, None)
            self._here.add(node)
        elif node not in self._gone:
            self._here.discard(node)
            self._gone[node] = self._clock.monotonic_s(), self._clock.unix_time_s()
        return True

    def _scrapped(self, topic: str) -> None:
        """Somebody cleared what the broker kept of a node: nobody misses it any more."""
        with contextlib.suppress(StreamError):
            node = topics.node_of(topic)
            self._gone.pop(node, None)
            self._here.add(node)

    def forget(self) -> None:
        """What was heard says nothing any more."""
        self._here.clear()
        self._gone.clear()

    def seen(self) -> Seen:
        """Which nodes are gone for long enough to be an alarm, and which are not."""
        now_s = self._clock.monotonic_s()
        gone = {
            node: unix_s
            for node, (since_s, unix_s) in self._gone.items()
            if now_s - since_s >= self._gone_after_s
        }
        return Seen(gone, frozenset(self._here))


class AlarmKeeper:
    """Keeps alarms up to date between readings."""

    def __init__(
        self, clock: Clock, do: Do, look: Look, *, gone_after_s: float = GONE_AFTER_S
    ) -> None:
        self.nodes = Nodes(clock, gone_after_s)
        self._clock = clock
        self._do = do
        self._look = look

    async def turn(self) -> bool:
        """Look once whether anything has to change, and change it; whether anything did."""
        seen, now_s = self.nodes.seen(), self._clock.unix_time_s()
        wanted = functools.partial(wants_keeping, seen=seen, now_unix_s=now_s)
        if not await self._look(wanted):
            return False
        return bool(await self._do(functools.partial(keep, seen=seen, now_unix_s=now_s)))


def wants_keeping(connection: Connection, *, seen: Seen, now_unix_s: float) -> bool:
    """Whether :func:`keep` would find anything to do."""
    alarms = read_alarms(connection, standing=True)
    known = {one.node for one in alarms if _says_gone(one) and one.active}
    over = _over(alarms, now_unix_s)
    changed = bool(seen.gone.keys() - known or seen.here & known or over)
    gone = (known | seen.gone.keys()) - seen.here
    return changed or bool(_below(alarms, gone) or _freed(alarms, gone))


def keep(engine: Engine, *, seen: Seen, now_unix_s: float) -> bool:
    """Do all that time and nodes ask for; whether anything changed."""
    with engine.begin() as connection:
        lock_subjects(connection)
        changed = _judge_nodes(connection, seen, now_unix_s)
        alarms = read_alarms(connection, standing=True, lock=True)
        gone = {one.node for one in alarms if _says_gone(one) and one.active}
        moves = [(one, AlarmTrigger.UNSHELVE, TIME_IS_OVER) for one in _over(alarms, now_unix_s)]
        moves += [
            (one, AlarmTrigger.SUPPRESS, f"node {one.node} is gone") for one in _below(alarms, gone)
        ]
        moves += [
            (one, AlarmTrigger.UNSUPPRESS, f"node {one.node} is back")
            for one in _freed(alarms, gone)
        ]
        for alarm, trigger, reason in moves:
            move(connection, alarm, trigger, reason=reason, now_unix_s=now_unix_s)
    return changed or bool(moves)


def _judge_nodes(connection: Connection, seen: Seen, now_unix_s: float) -> bool:
    subjects = {subject_of(node): node for node in seen.gone.keys() | seen.here}
    if not subjects:
        return False
    alarms = {
        one.node: one
        for one in read_alarms(connection, subjects=subjects, lock=True)
        if _says_gone(one)
    }
    changed = False
    for subject, node in sorted(subjects.items()):
        alarm, gone = alarms.get(node), node in seen.gone
        if not gone and (alarm is None or not alarm.active):
            continue
        changed |= record_evaluation(
            connection,
            alarm,
            (0, GONE.name, 1, ""),
            GONE.priority,
            Evaluation(
                Verdict.HOLDS if gone else Verdict.DOES_NOT_HOLD,
                f"{GONE.means}: see whether its PC runs and reaches the broker"
                if gone or alarm is None
                else alarm.message,
            ),
            cycle=0,
            unix_time_s=seen.gone.get(node, now_unix_s),
            subject=subject,
        )
    return changed


def _says_gone(alarm: AlarmRow) -> bool:
    return alarm.rule == GONE.name and not alarm.run_id


def _over(alarms: Sequence[AlarmRow], now_unix_s: float) -> list[AlarmRow]:
    return [
        one
        for one in alarms
        if one.state is AlarmState.SHELVED and (one.shelved_until_unix_s or 0.0) <= now_unix_s
    ]


def _below(alarms: Sequence[AlarmRow], gone: set[str]) -> list[AlarmRow]:
    """What has nothing more to say while its node is gone."""
    return [
        one
        for one in alarms
        if one.node in gone
        and one.rule in CONDITIONS
        and not _says_gone(one)
        and one.state in (AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED)
    ]


def _freed(alarms: Sequence[AlarmRow], gone: set[str]) -> list[AlarmRow]:
    return [one for one in alarms if one.state is AlarmState.SUPPRESSED and one.node not in gone]
