"""What people were told of alarms, in the database: what is to be said, and who has heard it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Select, func, insert, or_, select, update

from labctl.alarms.notify import REPEAT_S, Told, backoff_s, due, text_of
from labctl.alarms.states import WANTS_A_PERSON, AlarmTrigger
from labctl.archive import schema
from labctl.archive.alarm_store import AlarmRow, read_alarms
from labctl.archive.happenings import insert_into
from labctl.archive.spans import Spans

LEASE_S: Final = 120.0
GIVEN_UP_AFTER_S: Final = 86400.0
_LOCK: Final = 7_236_181_004
"""Any number will do that nobody else uses as an advisory lock."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one address."""

    notification_number: int
    target: str
    attempts: int
    priority: str
    title: str
    body: str


def read_told(connection: Connection) -> list[Told]:
    """Every alarm that wants a person, and what people were told of it."""
    events, notices = schema.alarm_events.c, schema.notices
    alarms = [one for one in read_alarms(connection, standing=True) if one.state in WANTS_A_PERSON]
    if not alarms:
        return []
    numbers = [one.alarm_number for one in alarms]
    raised = {
        number: (event, unix_s)
        for number, event, unix_s in connection.execute(
            select(
                events.alarm_number,
                func.max(events.alarm_event_number),
                func.max(events.committed_unix_s),
            )
            .where(events.trigger == AlarmTrigger.RAISE.value, events.alarm_number.in_(numbers))
            .group_by(events.alarm_number)
        )
    }
    told = {
        row.alarm_number: row
        for row in connection.execute(select(notices).where(notices.c.alarm_number.in_(numbers)))
    }
    return [
        _told(one, raised[one.alarm_number], told.get(one.alarm_number))
        for one in alarms
        if one.alarm_number in raised
    ]


def _told(alarm: AlarmRow, raised: tuple[int, float], notice: object | None) -> Told:
    return Told(
        alarm_number=alarm.alarm_number,
        about=alarm.run_id or alarm.subject,
        of=alarm.about,
        rule=alarm.rule,
        name=alarm.name,
        priority=alarm.priority,
        state=alarm.state,
        message=alarm.message,
        raised=raised[0],
        raised_unix_s=alarm.unix_time_s or raised[1],
        told=getattr(notice, "raise_number", 0),
        told_unix_s=getattr(notice, "told_unix_s", None),
    )


def write_down(
    engine: Engine,
    *,
    chosen: frozenset[int],
    targets: Sequence[str],
    min_priority: str,
    now_unix_s: float,
    repeat_s: Mapping[str, float] = REPEAT_S,
) -> int | None:
    """Make one message of what people should be told of these alarms; gives its number.

    None if there is nothing to tell any more: another archive was faster, or a person. An address
    to which something is still on its way is not told again of what it was told before.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        found = [
            one
            for one in due(read_told(connection), now_unix_s, min_priority, repeat_s)
            if one.alarm_number in chosen
        ]
        if found and not any(one.is_new for one in found):
            busy = connection.execute(
                _undelivered(targets, now_unix_s).with_only_columns(schema.deliveries.c.target)
            )
            targets = sorted(set(targets) - set(busy.scalars()))
        if not found or not targets:
            return None
        text, notices = text_of(found), schema.notices
        number = connection.execute(
            insert(schema.notifications)
            .values(
                created_unix_s=now_unix_s,
                priority=text.priority,
                title=text.title,
                body=text.body,
                alarms=str(Spans((one.alarm_number, one.alarm_number) for one in found)),
            )
            .returning(schema.notifications.c.notification_number)
        ).scalar_one()
        for one in found:
            row = {"raise_number": one.raised, "told_unix_s": now_unix_s}
            put = insert_into(connection, notices).values(
                alarm_number=one.alarm_number, times=1, **row
            )
            again = notices.c.times + 1 if not one.is_new else 1
            connection.execute(
                put.on_conflict_do_update(
                    index_elements=["alarm_number"], set_=row | {"times": again}
                )
            )
        connection.execute(
            insert(schema.deliveries),
            [
                {
                    "notification_number": number,
                    "target": target,
                    "attempts": 0,
                    "next_try_unix_s": now_unix_s,
                    "problem": "",
                }
                for target in targets
            ],
        )
    return int(number)


def _undelivered(targets: Sequence[str], now_unix_s: float) -> Select[Any, Any]:
    deliveries, notifications = schema.deliveries.c, schema.notifications.c
    return (
        select(deliveries.notification_number, deliveries.target)
        .join(
            schema.notifications,
            notifications.notification_number == deliveries.notification_number,
        )
        .where(
            deliveries.delivered_unix_s.is_(None),
            deliveries.target.in_(list(targets)),
            notifications.created_unix_s > now_unix_s - GIVEN_UP_AFTER_S,
        )
    )


def _due(targets: Sequence[str], now_unix_s: float) -> Select[Any, Any]:
    deliveries = schema.deliveries.c
    # A moment that is further away than any wait was set by a clock that has been put back since.
    return _undelivered(targets, now_unix_s).where(
        or_(
            deliveries.next_try_unix_s <= now_unix_s,
            deliveries.next_try_unix_s > now_unix_s + 2 * GIVEN_UP_AFTER_S,
        )
    )


def has_due(connection: Connection, *, targets: Sequence[str], now_unix_s: float) -> bool:
    """Whether :func:`claim` might find anything."""
    return connection.execute(_due(targets, now_unix_s).limit(1)).first() is not None


def claim(engine: Engine, *, targets: Sequence[str], now_unix_s: float) -> Delivery | None:
    """A delivery that is to be tried now, if any; for two minutes it is nobody else's."""
    deliveries, notifications = schema.deliveries, schema.notifications
    with engine.begin() as connection:
        found = connection.execute(
            _due(targets, now_unix_s)
            .order_by(deliveries.c.next_try_unix_s, deliveries.c.notification_number)
            .limit(1)
            .with_for_update(of=deliveries, skip_locked=True)
        ).first()
        if found is None:
            return None
        number, target = found.notification_number, found.target
        attempts = connection.execute(
            update(deliveries)
            .where(deliveries.c.notification_number == number, deliveries.c.target == target)
            .values(attempts=deliveries.c.attempts + 1, next_try_unix_s=now_unix_s + LEASE_S)
            .returning(deliveries.c.attempts)
        ).scalar_one()
        row = connection.execute(
            select(notifications).where(notifications.c.notification_number == number)
        ).one()
    return Delivery(number, target, attempts, row.priority, row.title, row.body)


def settle(engine: Engine, *, delivery: Delivery, problem: str, now_unix_s: float) -> None:
    """Write down what came of a try."""
    deliveries = schema.deliveries
    values = {"problem": problem, "delivered_unix_s": None if problem else now_unix_s}
    if problem:
        values["next_try_unix_s"] = now_unix_s + backoff_s(delivery.attempts)
    with engine.begin() as connection:
        connection.execute(
            update(deliveries)
            .where(
                deliveries.c.notification_number == delivery.notification_number,
                deliveries.c.target == delivery.target,
            )
            .values(values)
        )


def can_commit(engine: Engine) -> bool:
    """Whether the database takes what is written; raises where it does not."""
    notices = schema.notices
    with engine.begin() as connection:
        connection.execute(
            update(notices).where(notices.c.alarm_number < 0).values(times=notices.c.times)
        )
    return True
