"""What an answer of a sequencer makes of its run, before any of it is journalled. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from labctl.drivers.base import Capabilities, ChannelState, Followed
from labctl.engine.facts import Facts
from labctl.engine.limits import UNWATCHED, passed, watches_temperature
from labctl.engine.place import facts_of
from labctl.engine.placement import SKIP, finish_visit, onward, place_readings
from labctl.engine.record import Ending, RunRecord
from labctl.engine.run import Checkpoint
from labctl.engine.segments import Segment, in_whole
from labctl.engine.states import RunState, Trigger
from labctl.engine.transit import leaves, transit_from
from labctl.engine.walk import Position, Walk
from labctl.model import Records
from labctl.stream.events import Event, StepEnded

STOPPED_EARLY = (
    "the instrument stopped before the end of the program, and nobody here asked it to: somebody "
    "at the instrument did, or it lost its power; release the run to go on, or stop it"
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What is to be journalled: see :meth:`labctl.engine.record.RunRecord.advance`.

    ``beyond`` names the limit that a record lies beyond, '' if none does.
    """

    changed: Checkpoint
    records: Records
    events: tuple[Event, ...]
    trigger: Trigger | None = None
    reason: str | None = None
    ending: Ending | None = None
    beyond: str = ""

    def news(self, before: Checkpoint) -> bool:
        """Whether there is anything in it that the journal does not have yet."""
        return bool(
            len(self.records)
            or self.events
            or self.trigger
            or self.changed.next_index != before.next_index
        )


def take(
    record: RunRecord,
    segment: Segment,
    followed: Followed,
    capabilities: Capabilities,
    now_s: float,
    *,
    unwatched: bool = False,
) -> Taken:
    """Where the run will stand with this answer.

    ``unwatched``: the temperature of the cell is not known any more.

    Raises:
        InstrumentError: the readings cannot be of this run.
    """
    before = record.checkpoint
    placed = place_readings(
        record.walk,
        before.place,
        in_whole(segment, followed.readings),
        spectra=followed.spectra,
        unix_time_s=now_s,
    )
    mark = before.segment
    if len(followed.readings):
        mark = msgspec.structs.replace(mark, step=int(followed.readings.step[-1]))
    changed = msgspec.structs.replace(
        before, place=placed.place, next_index=followed.next_index, segment=mark
    )
    program = record.charter.program
    beyond = (
        "" if before.cause == "limit" else passed(program.limits, placed, capabilities, program)
    )
    if unwatched and not before.cause and watches_temperature(program.limits):
        beyond = beyond or UNWATCHED
    if beyond:
        changed = msgspec.structs.replace(changed, cause="limit", reason=beyond)
    taken = Taken(
        changed, placed.records, _with_skips(placed.events, before.skip_visit), beyond=beyond
    )
    if followed.complete and before.state is not RunState.PAUSED:
        return _at_the_end(record, segment, taken, followed.state, now_s)
    later = before.stop_later
    if beyond:
        return _with(taken, Trigger.STOP, beyond)
    if later is not None and before.state is not RunState.STOPPING:
        left = placed.place.visit != later.visit if later.at == "step" else True
        if left and placed.place.visit and leaves(later, placed.place.position):
            stopped = msgspec.structs.replace(changed, cause="stop")
            return _with(taken, Trigger.STOP, later.reason, changed=stopped)
    return taken


def _at_the_end(
    record: RunRecord, segment: Segment, taken: Taken, state: ChannelState, now_s: float
) -> Taken:
    """The instrument has ended the stretch, and every reading of it is here."""
    before, changed = record.checkpoint, taken.changed
    done = state is ChannelState.FINISHED and _is_run(record, segment, changed)
    if changed.cause == "limit":
        return _with(taken, Trigger.TRIP, changed.reason, ending=Ending(cause="limit"))
    if done:
        return _onward(record, taken, now_s)
    if state is ChannelState.TRIPPED:
        return _with(
            taken,
            Trigger.TRIP,
            "a protection of the instrument ended the test",
            changed=msgspec.structs.replace(changed, cause="limit"),
            ending=Ending(cause="limit"),
        )
    by_itself = before.state is RunState.RUNNING and not before.cause
    if by_itself and state is not ChannelState.FINISHED:
        return _with(taken, Trigger.HOLD, STOPPED_EARLY, changed=_stopped_by_itself(changed))
    return _with(
        taken,
        Trigger.ENDED_EARLY,
        before.reason if before.cause else STOPPED_EARLY,
        changed=msgspec.structs.replace(changed, cause=changed.cause or "stop"),
        ending=Ending(cause=changed.cause or "stop"),
    )


def _stopped_by_itself(changed: Checkpoint) -> Checkpoint:
    """The channel is open: a run that is released tells it to go on where it stopped, in a cycle
    that is not like others."""
    place = changed.place
    interrupted = place.cycle_interrupted or place.position.cycle > 0
    return msgspec.structs.replace(
        changed,
        paused=True,
        place=msgspec.structs.replace(place, cycle_interrupted=interrupted),
    )


def _onward(record: RunRecord, taken: Taken, now_s: float) -> Taken:
    """The stretch was run to its end: on to what follows it."""
    before, place = record.checkpoint, taken.changed.place
    if before.skip_visit == place.visit and facts_of(record.walk, place).end is None:
        place = finish_visit(record.walk, place, end=None, cause=SKIP)
    transit = transit_from(record, place, drives_all=False, now_s=now_s)
    events = (*taken.events, *transit.events)
    if before.state is RunState.STOPPING and transit.trigger is not Trigger.READ_TO_END:
        changed = msgspec.structs.replace(taken.changed, place=place)
        return _with(
            taken,
            Trigger.ENDED_EARLY,
            before.reason,
            changed=changed,
            ending=Ending(cause=""),
        )
    return Taken(
        transit.changed, taken.records, events, transit.trigger, transit.reason, transit.ending
    )


def _is_run(record: RunRecord, segment: Segment, changed: Checkpoint) -> bool:
    """Whether what follows the last reading lies beyond the stretch."""
    following = onward(record.walk, changed.place).position
    return following is None or following not in _visits(
        record.walk, first_position(record.walk, changed), segment
    )


def first_position(walk: Walk, checkpoint: Checkpoint) -> Position:
    """Where the present stretch begins; a mark that says nothing stands for the whole program."""
    marked = checkpoint.segment.position
    if marked != Position():
        return marked
    return walk.after(marked, Facts()).position or marked


def _visits(walk: Walk, position: Position, segment: Segment) -> Iterator[Position]:
    """Every visit of a stretch, where nothing cuts it short."""
    following: Position | None = position
    for _ in range(segment.program.visit_count):
        if following is None:
            return
        yield following
        following = walk.after(following, Facts()).position


def _with(
    taken: Taken,
    trigger: Trigger,
    reason: str,
    *,
    changed: Checkpoint | None = None,
    ending: Ending | None = None,
) -> Taken:
    return Taken(
        taken.changed if changed is None else changed,
        taken.records,
        taken.events,
        trigger,
        reason,
        ending,
        taken.beyond,
    )


def _with_skips(events: tuple[Event, ...], skip_visit: int) -> tuple[Event, ...]:
    """A visit that a person ended, and that none of its own ends explains, ended by that."""
    return tuple(
        msgspec.structs.replace(event, ended_by=SKIP)
        if isinstance(event, StepEnded)
        and event.visit == skip_visit
        and event.ended_by == "unknown"
        else event
        for event in events
    )
