"""Where a run goes from a visit that is over: to the next, to its instrument, to its end. Pure.

What is found here is journalled as a whole before any of it takes effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from labctl.engine.hoststeps import HEARD, is_hosts
from labctl.engine.hostwork import CONFIRM
from labctl.engine.place import Place
from labctl.engine.placement import begin_segment, enter_visit, onward
from labctl.engine.record import Ending, RunRecord
from labctl.engine.run import Checkpoint, HostVisit, SegmentMark, StopLater
from labctl.engine.states import RunState, Trigger
from labctl.engine.walk import Position
from labctl.program import Wait
from labctl.stream.events import Event

RUN_TO_ITS_END = "the program was run to its end"


@dataclass(frozen=True, slots=True)
class Transit:
    """What is to be journalled: see :meth:`labctl.engine.record.RunRecord.advance`.

    ``position`` is that of the visit that is entered, or with which the instrument is to begin;
    None where the run ends.
    """

    changed: Checkpoint
    trigger: Trigger | None
    reason: str | None = None
    events: tuple[Event, ...] = ()
    ending: Ending | None = None
    position: Position | None = None


def transit_from(
    record: RunRecord,
    place: Place,
    *,
    drives_all: bool,
    now_s: float,
) -> Transit:
    """Where the run goes from ``place``, whose visit is over; also from before its first.

    ``drives_all``: every step is made from here, not only those of the host.
    """
    before = record.checkpoint
    ahead = onward(record.walk, place)
    events: tuple[Event, ...] = record.branches(ahead, place)
    if ahead.position is None:
        return Transit(
            msgspec.structs.replace(before, place=place, cause=""),
            Trigger.READ_TO_END,
            ahead.reason or RUN_TO_ITS_END,
            events,
            Ending(complete=True),
        )
    later = before.stop_later
    if later is not None and place.visit and leaves(later, ahead.position):
        return Transit(
            msgspec.structs.replace(before, place=place, cause="stop"),
            Trigger.ENDED_EARLY,
            later.reason,
            events,
            Ending(complete=_cycle_is_left(place.position, ahead.position)),
        )
    control = record.walk.step(ahead.position).control
    free = msgspec.structs.replace(
        before,
        armed=None,
        started=None,
        next_index=1,
        segment=SegmentMark(number=before.segment.number + (before.started is not None)),
        host=HostVisit() if is_hosts(control) else None,
        left=False,
        skip_visit=0,
        signals=tuple(
            given for given in before.signals if given.name not in _signals_taken(record, place)
        ),
    )
    if drives_all or is_hosts(control):
        entered = enter_visit(record.walk, place, ahead.position, unix_time_s=now_s)
        return Transit(
            msgspec.structs.replace(free, place=entered.place, looked_unix_s=now_s),
            Trigger.BEGIN if before.state is RunState.ARMING else None,
            "" if before.state is RunState.ARMING else None,
            (*events, *entered.events),
            position=ahead.position,
        )
    mark = msgspec.structs.replace(free.segment, position=ahead.position)
    return Transit(
        msgspec.structs.replace(free, place=begin_segment(place), segment=mark),
        Trigger.ONWARD,
        "",
        events,
        position=ahead.position,
    )


def _signals_taken(record: RunRecord, place: Place) -> set[str]:
    """What the visit that is over was waiting for and has heard; nobody else shall hear that."""
    control = record.walk.step(place.position).control if place.visit else None
    if not isinstance(control, Wait):
        return set()
    if control.prompt:
        return {CONFIRM}
    return {control.signal} if place.visit_cause == HEARD else set()


def leaves(later: StopLater, position: Position) -> bool:
    """Whether a run that is at ``position`` now has left what it was to be stopped after."""
    if later.at == "step":
        return True
    return (position.cycle, position.cycles_begun) != (later.cycle, later.cycles_begun)


def _cycle_is_left(old: Position, new: Position) -> bool:
    return (old.cycle, old.cycles_begun) != (new.cycle, new.cycles_begun)
