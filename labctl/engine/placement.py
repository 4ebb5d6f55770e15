"""Putting readings in their place: run, sequence number, cycle, step, integrals. Pure.

A fold over blocks of readings. The result does not depend, to the bit, on how the readings were cut
into blocks, so a run that was interrupted anywhere gives the same records as one that was not.
Charge and energy are net since the run began, positive for charging.

A sequencer's readings find their visits by themselves (:func:`place_readings`). Where the host
walks the program, it says which visit they are of (:func:`enter_visit`, :func:`place_in_visit`,
:func:`finish_visit`). Either way :func:`onward` says what comes next.

A visit and a cycle without a single record leave no event, and such a cycle counts as not having
been. A cycle that was left before its end is not complete.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from labctl.engine.blocks import measure, place_block
from labctl.engine.entering import enter
from labctl.engine.place import (
    Place,
    Placed,
    cycle_ended,
    end_of_visit,
    ended_by,
    facts_of,
    facts_with,
    step_ended,
)
from labctl.engine.spectra import SpectraToPlace
from labctl.engine.walk import Onward, Position, Walk
from labctl.errors import InstrumentError
from labctl.model import Readings, Records, Spectrum
from labctl.program import EndCondition
from labctl.stream.events import Event, GapRecorded

__all__ = [
    "Place",
    "Placed",
    "at_the_end",
    "begin_segment",
    "close_run",
    "ended_by",
    "enter_visit",
    "facts_of",
    "finish_visit",
    "onward",
    "place_in_visit",
    "place_readings",
    "resume_visit",
]

SKIP = "skip"
"""The cause of a visit that a person ended."""


def place_readings(
    walk: Walk,
    place: Place,
    readings: Readings,
    *,
    spectra: Iterable[Spectrum] = (),
    unix_time_s: float = 0.0,
) -> Placed:
    """Turn the next readings of a sequencer into records; the visits are found in them.

    Readings at or below ``place.onboard_index`` are dropped: they are here already. Where readings
    are missing, the next one is taken to be of the nearest visit that fits, at most one pass of a
    loop on: how many passes went by unseen, no reading tells. Where the program has choices that
    the instrument made, the readings tell which. A spectrum is of the impedance visit that began
    last before it was measured; without one, of the visit that the readings end in.

    Raises:
        InstrumentError: the instrument is in a step where the program cannot be, or says something
            that no reading can be: out of order, or not a finite number.
    """
    readings = _fresh(place, readings)
    measured = SpectraToPlace(walk, spectra)
    if not len(readings):
        place, events = measured.rest(place)
        return Placed(Records(), tuple(events), place)
    begins = _rows_that_begin_visits(walk, place, readings)
    gaps = _gaps(place, readings, unix_time_s)
    return place_block(walk, place, measure(place, readings, begins), measured, gaps)


def enter_visit(
    walk: Walk, place: Place, position: Position, *, unix_time_s: float = 0.0
) -> Placed:
    """Begin the visit at ``position``, with the events that end what was before it.

    Its readings come by :func:`place_in_visit`, their ``onboard_index`` from 1.
    """
    del unix_time_s
    end, said = (None, "") if place.visit == 0 else end_of_visit(walk, place)
    ahead = walk.after(place.position, facts_with(place, end))
    complete = ahead.cycle_complete or ahead.position != position
    place, events = enter(walk, place, position, said, complete=complete)
    place = msgspec.structs.replace(place, onboard_index=0, pass_mark=0)
    return Placed(Records(), tuple(events), place)


def place_in_visit(
    walk: Walk,
    place: Place,
    readings: Readings,
    *,
    spectra: Iterable[Spectrum] = (),
    unix_time_s: float = 0.0,
) -> Placed:
    """Turn readings of the visit that ``place`` is in into records.

    Their times and counters count from where the visit was begun, or taken up again. Readings at or
    below ``place.onboard_index`` are dropped; those that are left out (because no record rule asks
    for them) are no gap.

    Raises:
        InstrumentError: they are out of order, or not finite numbers.
        ValueError: no visit was entered.
    """
    del unix_time_s
    if place.visit == 0:
        raise ValueError(f"run {place.run} is in no visit yet")
    readings = _fresh(place, readings)
    measured = SpectraToPlace(walk, spectra)
    if not len(readings):
        place, events = measured.rest(place)
        return Placed(Records(), tuple(events), place)
    _check_time(place, readings)
    return place_block(walk, place, measure(place, readings, []), measured)


def resume_visit(walk: Walk, place: Place, *, passed_s: float = 0.0) -> Place:
    """Take the visit up again after a gap: its cycle is interrupted, and nothing is integrated over
    the time between.

    The instrument's numbers, times and counters begin anew. ``passed_s`` is what of the gap counts
    as time of the step: all of it in a rest, nothing where current should have flowed.
    """
    del walk
    return msgspec.structs.replace(
        place,
        onboard_index=0,
        visit_over=False,
        visit_end=None,
        visit_cause="",
        resuming=True,
        resumed_s=place.step_time_s + passed_s,
        resumed_Ah=place.charge_Ah - place.visit_start_charge_Ah,
        resumed_Wh=place.energy_Wh - place.visit_start_energy_Wh,
        step_time_s=place.step_time_s + passed_s,
        test_time_s=place.test_time_s + passed_s,
        slope_points=(),
        known_slope_V_per_s=None,
        cycle_interrupted=place.position.cycle > 0,
    )


def begin_segment(place: Place) -> Place:
    """A sequencer begins anew: it counts its readings from 1 again, and the first begins a visit,
    unless :func:`resume_visit` says that it goes on with one."""
    return msgspec.structs.replace(place, onboard_index=0, segment_begins=True)


def finish_visit(walk: Walk, place: Place, *, end: EndCondition | None, cause: str) -> Place:
    """The visit is over, by ``end`` or for ``cause``; its events come with what follows it.

    A visit that is over already stays as it is. One that a person ended (``skip``) leaves its cycle
    interrupted: it cannot be compared with others.
    """
    del walk
    if place.visit_over or place.visit == 0:
        return place
    skipped = end is None and cause == SKIP and place.position.cycle > 0
    return msgspec.structs.replace(
        place,
        visit_over=True,
        visit_end=end,
        visit_cause=cause,
        cycle_interrupted=place.cycle_interrupted or skipped,
    )


def onward(walk: Walk, place: Place) -> Onward:
    """What comes after the visit that ``place`` is in; before any, the first visit."""
    return walk.after(place.position, facts_of(walk, place))


def at_the_end(walk: Walk, place: Place) -> bool:
    """Whether no visit is left to make."""
    return place.visit > 0 and onward(walk, place).position is None


def close_run(walk: Walk, place: Place, *, completed: bool, cause: str = "") -> tuple[Event, ...]:
    """The events that end the last visit and the last cycle of a run.

    ``completed`` says whether the program was run to its end; ``cause`` names what ended the last
    step when it was not over before, and no end condition of its own did.
    """
    events: list[Event] = []
    if place.visit_has_records:
        said = end_of_visit(walk, place)[1] if place.visit_over or not cause else cause
        events.append(step_ended(walk, place, said))
    if place.cycle_has_records:
        whole = completed and onward(walk, place).cycle_complete
        events.append(cycle_ended(walk, place, complete=whole))
    return tuple(events)


def _rows_that_begin_visits(walk: Walk, place: Place, readings: Readings) -> list[int]:
    step, mark, time_s = readings.step, readings.pass_mark, readings.step_time_s
    changed = (step[1:] != step[:-1]) | (mark[1:] != mark[:-1]) | (time_s[1:] < time_s[:-1])
    rows: list[int] = (changed.nonzero()[0] + 1).tolist()
    return [0, *rows] if _begins_a_visit(walk, place, readings) else rows


def _begins_a_visit(walk: Walk, place: Place, readings: Readings) -> bool:
    if place.visit == 0 or int(readings.step[0]) != walk.step(place.position).index:
        return True
    if place.resuming:
        return place.visit_over
    return (
        place.segment_begins
        or int(readings.pass_mark[0]) != place.pass_mark
        or float(readings.step_time_s[0]) + place.resumed_s < place.step_time_s
    )


def _gaps(place: Place, readings: Readings, unix_time_s: float) -> list[tuple[int, GapRecorded]]:
    """The rows before which readings are missing; the readings are in order."""
    if int(readings.onboard_index[-1]) - place.onboard_index == len(readings):
        return []
    missing = np.diff(readings.onboard_index, prepend=place.onboard_index) - 1
    return [
        (
            row,
            GapRecorded(
                run=place.run,
                after_seq=place.seq + row,
                reason=f"the instrument no longer has {int(missing[row])} of its readings",
                unix_time_s=unix_time_s,
            ),
        )
        for row in np.flatnonzero(missing).tolist()
    ]


def _fresh(place: Place, readings: Readings) -> Readings:
    """The readings that are not here already.

    Raises:
        InstrumentError: one would be doubled, or would spoil every integral after it.
    """
    index = readings.onboard_index
    back = index[1:] <= index[:-1]
    if back.any():
        first, second = index[int(back.argmax()) :][:2]
        raise InstrumentError(
            f"in run {place.run}, reading {second} of the instrument comes after reading {first}"
        )
    for name in ("step_time_s", "voltage_V", "current_A"):
        finite = np.isfinite(getattr(readings, name))
        if not finite.all():
            raise InstrumentError(
                f"in run {place.run}, {name} of the instrument's reading "
                f"{int(index[int(finite.argmin())])} is not a finite number"
            )
    if not len(index) or int(index[0]) > place.onboard_index:
        return readings
    return readings[int(np.searchsorted(index, place.onboard_index, side="right")) :]


def _check_time(place: Place, readings: Readings) -> None:
    time_s = readings.step_time_s + place.resumed_s
    back = np.flatnonzero(np.diff(time_s, prepend=place.step_time_s) < 0)
    if len(back):
        row = int(back[0])
        raise InstrumentError(
            f"in run {place.run}, reading {int(readings.onboard_index[row])} of visit "
            f"{place.visit} is earlier in its step than the one before it"
        )
