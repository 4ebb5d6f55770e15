"""What persons say about alarms. A running archive tells the stream of it within seconds."""

from __future__ import annotations

import math
import time

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from labctl.alarms.states import AlarmTrigger
from labctl.archive.alarm_store import AlarmRow, move, read_alarms
from labctl.errors import ArchiveError, CommandError


def acknowledge(
    engine: Engine,
    alarm_number: int,
    *,
    actor: str,
    note: str = "",
    unix_time_s: float | None = None,
) -> AlarmRow:
    """A person knows of an alarm; gives the alarm as it stands then.

    Raises:
        ArchiveError: there is no such alarm, or the archive cannot be written.
        CommandError: there is nothing to acknowledge about it now.
    """
    return _by_a_person(
        engine, alarm_number, AlarmTrigger.ACKNOWLEDGE, actor, note, now_unix_s=unix_time_s
    )


def shelve(
    engine: Engine,
    alarm_number: int,
    *,
    until_unix_s: float,
    actor: str,
    note: str = "",
    now_unix_s: float | None = None,
) -> AlarmRow:
    """A person does not want to hear of an alarm until a moment; then it comes back by itself.

    Raises:
        ArchiveError, CommandError: as with :func:`acknowledge`; or the moment has passed.
    """
    now_s = time.time() if now_unix_s is None else now_unix_s
    if not now_s < until_unix_s < math.inf:
        raise CommandError("an alarm can be shelved until a moment in the future only")
    return _by_a_person(
        engine,
        alarm_number,
        AlarmTrigger.SHELVE,
        actor,
        note,
        now_unix_s=now_s,
        until_unix_s=until_unix_s,
    )


def unshelve(engine: Engine, alarm_number: int, *, actor: str, note: str = "") -> AlarmRow:
    """Take an alarm back before its time.

    Raises:
        ArchiveError, CommandError: as with :func:`acknowledge`.
    """
    return _by_a_person(engine, alarm_number, AlarmTrigger.UNSHELVE, actor, note)


def reset(engine: Engine, alarm_number: int, *, actor: str, reason: str) -> AlarmRow:
    """Let go of an alarm that latched, with what was found and done.

    Raises:
        ArchiveError, CommandError: as with :func:`acknowledge`; or no reason is given.
    """
    return _by_a_person(engine, alarm_number, AlarmTrigger.RESET, actor, _given(reason))


def take_out_of_service(engine: Engine, alarm_number: int, *, actor: str, reason: str) -> AlarmRow:
    """Silence an alarm until it is put back.

    Raises:
        ArchiveError, CommandError: as with :func:`acknowledge`; or no reason is given.
    """
    return _by_a_person(engine, alarm_number, AlarmTrigger.TAKE_OUT, actor, _given(reason))


def put_back_in_service(
    engine: Engine, alarm_number: int, *, actor: str, note: str = ""
) -> AlarmRow:
    """Hear of an alarm again.

    Raises:
        ArchiveError, CommandError: as with :func:`acknowledge`.
    """
    return _by_a_person(engine, alarm_number, AlarmTrigger.PUT_BACK, actor, note)


def _given(reason: str) -> str:
    if not reason.strip():
        raise CommandError("say why: a reason is kept with the alarm")
    return reason


def _by_a_person(
    engine: Engine,
    alarm_number: int,
    trigger: AlarmTrigger,
    actor: str,
    reason: str,
    *,
    now_unix_s: float | None = None,
    until_unix_s: float | None = None,
) -> AlarmRow:
    now_s = time.time() if now_unix_s is None else now_unix_s
    try:
        with engine.begin() as connection:
            found = read_alarms(connection, alarm_number=alarm_number, lock=True)
            if not found:
                raise ArchiveError(
                    f"there is no alarm {alarm_number} in the archive: "
                    "'labctl alarms list --all' shows those that there are"
                )
            try:
                move(
                    connection,
                    found[0],
                    trigger,
                    actor=actor,
                    reason=reason,
                    now_unix_s=now_s,
                    until_unix_s=until_unix_s,
                )
            except CommandError as error:
                raise CommandError(f"alarm {alarm_number}: {error}") from None
            return read_alarms(connection, alarm_number=alarm_number)[0]
    except DBAPIError as error:
        raise ArchiveError(
            f"alarm {alarm_number} cannot take {trigger.value!r}: {error.orig}"
        ) from error
