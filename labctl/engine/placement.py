"""Putting readings in their place: run, sequence number, cycle, step, integrals. Pure.

A fold over blocks of readings. The result does not depend, to the bit, on how the readings were cut
into blocks, so a run that was interrupted anywhere gives the same records as one that was not.
Charge and energy are net since the run began, positive for charging.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import msgspec
import numpy as np

from labctl.engine.walk import Position, Walk
from labctl.errors import InstrumentError
from labctl.model import FloatColumn, Readings, Records, join_records
from labctl.program import Comparison, EndCondition, Quantity, Step, technique_of
from labctl.stream.events import CycleEnded, Event, GapRecorded, StepEnded

VOLTAGE_TOLERANCE_V = 2e-3
"""An instrument that ends a step onboard decides on finer samples than it records."""
RELATIVE_TOLERANCE = 2e-3
TIME_TOLERANCE_S = 0.2


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands: all that is needed to place the next reading.

    The ``visit_`` sums integrate current of one sign each since the visit began.
    """

    run: str
    position: Position = Position()
    seq: int = 0
    visit: int = 0
    onboard_index: int = 0
    pass_mark: int = 0
    charge_Ah: float = 0.0
    energy_Wh: float = 0.0
    test_time_s: float = 0.0
    step_time_s: float = 0.0
    voltage_V: float = math.nan
    current_A: float = math.nan
    visit_first_seq: int = 1
    visit_start_test_time_s: float = 0.0
    visit_start_charge_Ah: float = 0.0
    visit_start_energy_Wh: float = 0.0
    visit_charge_Ah: float = 0.0
    visit_discharge_Ah: float = 0.0
    visit_charge_Wh: float = 0.0
    visit_discharge_Wh: float = 0.0
    cycle_first_seq: int = 1
    cycle_interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """Records and events in the order in which they happened, and where the run stands now."""

    records: Records
    events: tuple[Event, ...]
    place: Place


def place_readings(
    walk: Walk, place: Place, readings: Readings, *, unix_time_s: float = 0.0
) -> Placed:
    """Turn the next readings of a run into records.

    Readings at or below ``place.onboard_index`` are dropped: they are here already. Where readings
    are missing, the next one is taken to be of the first visit that fits, at most one pass of a
    loop on: how many passes went by unseen, no reading tells.

    Raises:
        InstrumentError: the instrument is in a step where the program cannot be, or says something
            that no reading can be: out of order, or not a finite number.
    """
    _check(place, readings)
    fresh = int(np.searchsorted(readings.onboard_index, place.onboard_index, side="right"))
    readings = readings[fresh:]
    blocks: list[Records] = []
    events: list[Event] = []
    for rows in _visits(readings):
        block = readings[rows]
        missing = int(block.onboard_index[0]) - place.onboard_index - 1
        if missing:
            events.append(
                GapRecorded(
                    run=place.run,
                    after_seq=place.seq,
                    reason=f"the instrument no longer has {missing} of its readings",
                    unix_time_s=unix_time_s,
                )
            )
            place = msgspec.structs.replace(place, cycle_interrupted=True)
        if _enters_a_step(walk, place, block):
            place, ended = _enter(walk, place, block)
            events += ended
        if missing:
            place = msgspec.structs.replace(place, cycle_interrupted=True)
        place, records = _extend(walk, place, block)
        blocks.append(records)
    return Placed(join_records(blocks) if blocks else Records(), tuple(events), place)


def close_run(walk: Walk, place: Place, *, completed: bool, cause: str = "") -> tuple[Event, ...]:
    """The events that end the last visit and the last cycle of a run.

    ``completed`` says whether the program was run to its end; ``cause`` names what ended the
    last step when no end condition did.
    """
    if place.visit == 0:
        return ()
    events: list[Event] = [_step_ended(walk, place, cause)]
    if place.position.cycle:
        events.append(_cycle_ended(walk, place, complete=completed))
    return tuple(events)


def at_the_end(walk: Walk, place: Place) -> bool:
    """Whether no visit is left to make."""
    return place.visit > 0 and walk.after(place.position) is None


def ended_by(step: Step, place: Place) -> str:
    """Which of the step's end conditions holds for its last record; ``unknown`` if none does.

    An instrument that runs onboard does not say which one won, and what it recorded last may lie
    a sample beside what it decided on: hence the tolerances of this module.
    """
    for condition in step.ends:
        if _holds(condition, place):
            return str(condition)
    return "unknown"


def _holds(condition: EndCondition, place: Place) -> bool:
    relative = RELATIVE_TOLERANCE * abs(condition.value)
    actual, tolerance = {
        Quantity.VOLTAGE_V: (place.voltage_V, VOLTAGE_TOLERANCE_V),
        Quantity.CURRENT_A: (abs(place.current_A), relative),
        Quantity.STEP_TIME_S: (place.step_time_s, TIME_TOLERANCE_S),
        Quantity.STEP_CHARGE_AH: (abs(place.charge_Ah - place.visit_start_charge_Ah), relative),
    }[condition.quantity]
    if condition.comparison is Comparison.AT_LEAST:
        return actual >= condition.value - tolerance
    return actual <= condition.value + tolerance


def _check(place: Place, readings: Readings) -> None:
    """What would be doubled, or would spoil every integral after it, is no reading."""
    back = np.flatnonzero(np.diff(readings.onboard_index) <= 0)
    if len(back):
        first, second = readings.onboard_index[back[0] : back[0] + 2]
        raise InstrumentError(
            f"in run {place.run}, reading {second} of the instrument comes after reading {first}"
        )
    for name in ("step_time_s", "voltage_V", "current_A"):
        odd = np.flatnonzero(~np.isfinite(getattr(readings, name)))
        if len(odd):
            raise InstrumentError(
                f"in run {place.run}, {name} of the instrument's reading "
                f"{int(readings.onboard_index[odd[0]])} is not a finite number"
            )


def _visits(readings: Readings) -> list[slice]:
    """The rows of each visit, in order; a gap in the onboard index also begins a new slice."""
    if not len(readings):
        return []
    changed = (
        (np.diff(readings.step) != 0)
        | (np.diff(readings.pass_mark) != 0)
        | (np.diff(readings.step_time_s) < 0)
        | (np.diff(readings.onboard_index) != 1)
    )
    edges = [0, *(np.flatnonzero(changed) + 1).tolist(), len(readings)]
    return [slice(first, end) for first, end in itertools.pairwise(edges)]


def _enters_a_step(walk: Walk, place: Place, block: Readings) -> bool:
    return (
        place.visit == 0
        or int(block.step[0]) != walk.step(place.position).index
        or int(block.pass_mark[0]) != place.pass_mark
        or float(block.step_time_s[0]) < place.step_time_s
    )


def _enter(walk: Walk, place: Place, block: Readings) -> tuple[Place, list[Event]]:
    step = int(block.step[0])
    position = walk.reach(place.position, step)
    if position is None:
        raise InstrumentError(
            f"the instrument says that it is in step {step + 1}, where the program of run "
            f"{place.run} cannot be after visit {place.visit}",
            reply=f"reading {int(block.onboard_index[0])}, step {step + 1}",
        )
    events: list[Event] = []
    cycle_first_seq, interrupted = place.cycle_first_seq, place.cycle_interrupted
    if place.visit:
        events.append(_step_ended(walk, place, ""))
    if (
        position.cycles_begun != place.position.cycles_begun
        or position.cycle != place.position.cycle
    ):
        if place.position.cycle:
            events.append(_cycle_ended(walk, place, complete=True))
        cycle_first_seq, interrupted = place.seq + 1, False
    entered = msgspec.structs.replace(
        place,
        position=position,
        visit=place.visit + 1,
        pass_mark=int(block.pass_mark[0]),
        step_time_s=0.0,
        visit_first_seq=place.seq + 1,
        visit_start_test_time_s=place.test_time_s,
        visit_start_charge_Ah=place.charge_Ah,
        visit_start_energy_Wh=place.energy_Wh,
        visit_charge_Ah=0.0,
        visit_discharge_Ah=0.0,
        visit_charge_Wh=0.0,
        visit_discharge_Wh=0.0,
        cycle_first_seq=cycle_first_seq,
        cycle_interrupted=interrupted,
    )
    return entered, events


def _extend(walk: Walk, place: Place, block: Readings) -> tuple[Place, Records]:
    """Records of readings that all belong to the visit that ``place`` is in."""
    count = len(block)
    first_of_visit = place.seq + 1 == place.visit_first_seq
    charge_Ah = _integral(
        place.visit_start_charge_Ah,
        place.charge_Ah,
        block.step_charge_Ah,
        block.current_A,
        block.current_A[0] if first_of_visit else place.current_A,
        block.step_time_s,
        place.step_time_s,
    )
    power_W = block.voltage_V * block.current_A
    energy_Wh = _integral(
        place.visit_start_energy_Wh,
        place.energy_Wh,
        block.step_energy_Wh,
        power_W,
        power_W[0] if first_of_visit else place.voltage_V * place.current_A,
        block.step_time_s,
        place.step_time_s,
    )
    charge_change_Ah = np.diff(charge_Ah, prepend=place.charge_Ah)
    energy_change_Wh = np.diff(energy_Wh, prepend=place.energy_Wh)
    charging = charge_change_Ah > 0
    test_time_s = place.visit_start_test_time_s + block.step_time_s
    position = place.position
    records = Records(
        seq=np.arange(place.seq + 1, place.seq + 1 + count, dtype=np.int64),
        test_time_s=test_time_s,
        unix_time_s=block.unix_time_s,
        cycle=np.full(count, position.cycle, dtype=np.int64),
        step=np.full(count, walk.step(position).index + 1, dtype=np.int64),
        visit=np.full(count, place.visit, dtype=np.int64),
        voltage_V=block.voltage_V,
        current_A=block.current_A,
        charge_Ah=charge_Ah,
        energy_Wh=energy_Wh,
        temperature_degC=block.temperature_degC,
    )
    extended = msgspec.structs.replace(
        place,
        seq=place.seq + count,
        onboard_index=int(block.onboard_index[-1]),
        charge_Ah=float(charge_Ah[-1]),
        energy_Wh=float(energy_Wh[-1]),
        test_time_s=float(test_time_s[-1]),
        step_time_s=float(block.step_time_s[-1]),
        voltage_V=float(block.voltage_V[-1]),
        current_A=float(block.current_A[-1]),
        visit_charge_Ah=_add_up(place.visit_charge_Ah, charge_change_Ah * charging),
        visit_discharge_Ah=_add_up(place.visit_discharge_Ah, -charge_change_Ah * ~charging),
        visit_charge_Wh=_add_up(place.visit_charge_Wh, energy_change_Wh * charging),
        visit_discharge_Wh=_add_up(place.visit_discharge_Wh, -energy_change_Wh * ~charging),
    )
    return extended, records


def _integral(
    visit_start: float,
    before: float,
    counter: FloatColumn,
    rate: FloatColumn,
    rate_before: float,
    time_s: FloatColumn,
    time_before_s: float,
) -> FloatColumn:
    """Ah or Wh since the run began: by the instrument's counter, or else by trapezoids.

    Each row for itself, so that a counter that is missing here and there is bridged the same way
    however the rows are cut into blocks.
    """
    known = np.isfinite(counter)
    if known.all():
        return visit_start + counter
    rates = np.concatenate(([rate_before], rate))
    hours = np.diff(time_s, prepend=time_before_s) / 3600.0
    changes = hours * (rates[1:] + rates[:-1]) / 2.0
    if not known.any():
        return _running_sum(before, changes)
    sums = np.empty(len(counter))
    for row in range(len(counter)):
        before = visit_start + counter[row] if known[row] else before + changes[row]
        sums[row] = before
    return sums


def _running_sum(start: float, changes: FloatColumn) -> FloatColumn:
    """One addition after the other, so that the cut into blocks leaves no trace."""
    return np.asarray(np.add.accumulate(np.concatenate(([start], changes)))[1:], dtype=np.float64)


def _add_up(start: float, changes: FloatColumn) -> float:
    return float(_running_sum(start, changes)[-1])


def _step_ended(walk: Walk, place: Place, cause: str) -> StepEnded:
    step = walk.step(place.position)
    return StepEnded(
        run=place.run,
        visit=place.visit,
        step=step.index + 1,
        cycle=place.position.cycle,
        label=step.label,
        technique=technique_of(step.control),
        first_seq=place.visit_first_seq,
        last_seq=place.seq,
        start_test_time_s=place.visit_start_test_time_s,
        end_test_time_s=place.test_time_s,
        end_voltage_V=place.voltage_V,
        end_current_A=place.current_A,
        ended_by=cause or ended_by(step, place),
        charge_Ah=place.visit_charge_Ah,
        discharge_Ah=place.visit_discharge_Ah,
        charge_Wh=place.visit_charge_Wh,
        discharge_Wh=place.visit_discharge_Wh,
    )


def _cycle_ended(walk: Walk, place: Place, *, complete: bool) -> CycleEnded:
    return CycleEnded(
        run=place.run,
        cycle=place.position.cycle,
        cycle_class=walk.cycle_class(place.position),
        first_seq=place.cycle_first_seq,
        last_seq=place.seq,
        complete=complete,
        interrupted=place.cycle_interrupted,
    )
