"""Putting readings in their place: run, sequence number, cycle, step, integrals. Pure.

A fold over blocks of readings. The result does not depend, to the bit, on how the readings were cut
into blocks, so a run that was interrupted anywhere gives the same records as one that was not.
Charge and energy are net since the run began, positive for charging.

A sequencer's readings find their visits themselves (:func:`place_readings`); where the host walks
the program, it says which visit they are of (:func:`enter_visit`, :func:`place_in_visit`,
:func:`finish_visit`). Either way :func:`onward` says what comes next, out of the Place alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from labctl.engine.ends import condition_that_ended, slope_after
from labctl.engine.walk import CycleFigures, Facts, Onward, Position, Walk
from labctl.errors import InstrumentError
from labctl.model import FloatColumn, Readings, Records, Spectrum, join_records
from labctl.program import EndCondition, Quantity, Step, technique_of
from labctl.stream.events import (
    CycleEnded,
    Event,
    GapRecorded,
    SpectrumMeasured,
    StepEnded,
)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands: all that is needed to place the next reading and to choose the next step.

    The ``visit_`` sums integrate current of one sign each since the visit began, the ``cycle_``
    sums those of the visits of the cycle that are over. ``visit_over`` says that the visit has
    ended, by ``visit_end`` or for ``visit_cause``; its events come with what follows it.
    ``resumed_`` is what a visit had come to when it was taken up again; ``resuming`` until the
    first reading after that. ``slope_`` is dV/dt, see :func:`labctl.engine.ends.slope_after`.
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
    temperature_degC: float = math.nan
    visit_over: bool = False
    visit_end: EndCondition | None = None
    visit_cause: str = ""
    spectra: int = 0
    cycle_charge_Ah: float = 0.0
    cycle_discharge_Ah: float = 0.0
    cycle_charge_Wh: float = 0.0
    cycle_discharge_Wh: float = 0.0
    last_cycle: CycleFigures | None = None
    kept_cycles: dict[int, CycleFigures] = {}
    resuming: bool = False
    resumed_s: float = 0.0
    resumed_Ah: float = 0.0
    resumed_Wh: float = 0.0
    slope_time_s: float = math.nan
    slope_voltage_V: float = math.nan
    slope_V_per_s: float = math.nan


NO_PASS = -1
"""A pass mark that no instrument gives."""

_CYCLE_SUMS = ("cycle_charge_Ah", "cycle_discharge_Ah", "cycle_charge_Wh", "cycle_discharge_Wh")


@dataclass(frozen=True, slots=True)
class Placed:
    """Records and events in the order in which they happened, and where the run stands now."""

    records: Records
    events: tuple[Event, ...]
    place: Place


def place_readings(
    walk: Walk,
    place: Place,
    readings: Readings,
    *,
    spectra: Sequence[Spectrum] = (),
    unix_time_s: float = 0.0,
) -> Placed:
    """Turn the next readings of a sequencer into records; the visits are found in them.

    Readings at or below ``place.onboard_index`` are dropped: they are here already. Where readings
    are missing, the next one is taken to be of the first visit that fits, at most one pass of a
    loop on: how many passes went by unseen, no reading tells. ``spectra`` are put after the last
    of the readings.

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
            place, ended = _enter_by_reading(walk, place, block)
            events += ended
        if missing:
            place = msgspec.structs.replace(place, cycle_interrupted=True)
        place, records = _extend(walk, place, block)
        blocks.append(records)
    place, told = _spectra(walk, place, spectra)
    records = join_records(blocks) if blocks else Records()
    return Placed(records, (*events, *told), place)


def enter_visit(
    walk: Walk, place: Place, position: Position, *, unix_time_s: float = 0.0
) -> Placed:
    """Begin the visit at ``position``, with the events that end what was before it."""
    del unix_time_s
    entered, events = _enter(walk, place, position, pass_mark=place.visit + 1)
    return Placed(Records(), tuple(events), msgspec.structs.replace(entered, onboard_index=0))


def place_in_visit(
    walk: Walk,
    place: Place,
    readings: Readings,
    *,
    spectra: Sequence[Spectrum] = (),
    unix_time_s: float = 0.0,
) -> Placed:
    """Turn readings of the visit that ``place`` is in into records.

    Times and counters of ``readings`` count from where the visit was begun or taken up again.

    Raises:
        InstrumentError: they are out of order, or not finite numbers.
    """
    del unix_time_s
    _check(place, readings)
    records = Records()
    if len(readings):
        place, records = _extend(walk, place, readings)
    place, told = _spectra(walk, place, spectra)
    return Placed(records, told, place)


def resume_visit(walk: Walk, place: Place) -> Place:
    """Take up the visit again after a gap: its cycle is interrupted, and nothing is integrated
    over the time between."""
    del walk
    return msgspec.structs.replace(
        place,
        resuming=True,
        resumed_s=place.step_time_s,
        resumed_Ah=place.charge_Ah - place.visit_start_charge_Ah,
        resumed_Wh=place.energy_Wh - place.visit_start_energy_Wh,
        cycle_interrupted=place.cycle_interrupted or place.position.cycle > 0,
        visit_over=False,
        visit_end=None,
        visit_cause="",
        onboard_index=0,
        slope_time_s=math.nan,
        slope_voltage_V=math.nan,
        slope_V_per_s=math.nan,
    )


def begin_segment(place: Place) -> Place:
    """A sequencer begins anew: it counts its readings from 1 again, and what it says first is of a
    new visit, or of the one that was taken up again by :func:`resume_visit`."""
    return msgspec.structs.replace(place, onboard_index=0, pass_mark=NO_PASS)


def finish_visit(walk: Walk, place: Place, *, end: EndCondition | None, cause: str) -> Place:
    """The visit is over, by ``end`` or for ``cause``; its events come with what follows it."""
    del walk
    return msgspec.structs.replace(place, visit_over=True, visit_end=end, visit_cause=cause)


def onward(walk: Walk, place: Place) -> Onward:
    """What comes after the visit that ``place`` is in."""
    if place.visit == 0:
        return walk.after(Position(), Facts())
    return walk.after(place.position, facts_of(walk, place))


def facts_of(walk: Walk, place: Place) -> Facts:
    """What the next choice is made by; an end that nobody named is found in the last reading."""
    end = place.visit_end
    if not place.visit_over and place.visit:
        end = condition_that_ended(walk.step(place.position), place)
    running = _figures(place) if place.position.cycle else None
    return Facts(end=end, running=running, last=place.last_cycle, kept=place.kept_cycles)


def close_run(walk: Walk, place: Place, *, completed: bool, cause: str = "") -> tuple[Event, ...]:
    """The events that end the last visit and the last cycle of a run.

    ``completed`` says whether the program was run to its end; ``cause`` names what ended the
    last step when no end condition did, and the step was not over before.
    """
    if place.visit == 0:
        return ()
    events: list[Event] = [_step_ended(walk, place, cause)]
    if place.position.cycle:
        events.append(_cycle_ended(walk, place, complete=completed))
    return tuple(events)


def ended_by(step: Step, place: Place) -> str:
    """Which of the step's end conditions its last record meets, as text; ``unknown`` if none."""
    found = condition_that_ended(step, place)
    return "unknown" if found is None else str(found)


def at_the_end(walk: Walk, place: Place) -> bool:
    """Whether no visit is left to make."""
    return place.visit > 0 and onward(walk, place).position is None


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
    step = int(block.step[0])
    if place.resuming:
        return step != walk.step(place.position).index
    return (
        place.visit == 0
        or place.visit_over
        or step != walk.step(place.position).index
        or int(block.pass_mark[0]) != place.pass_mark
        or float(block.step_time_s[0]) + place.resumed_s < place.step_time_s
    )


def _enter_by_reading(walk: Walk, place: Place, block: Readings) -> tuple[Place, list[Event]]:
    step = int(block.step[0])
    position = walk.reach(place.position, step)
    if position is None:
        raise InstrumentError(
            f"the instrument says that it is in step {step + 1}, where the program of run "
            f"{place.run} cannot be after visit {place.visit}",
            reply=f"reading {int(block.onboard_index[0])}, step {step + 1}",
        )
    return _enter(walk, place, position, pass_mark=int(block.pass_mark[0]))


def _enter(
    walk: Walk, place: Place, position: Position, *, pass_mark: int
) -> tuple[Place, list[Event]]:
    events: list[Event] = []
    changes: dict[str, object] = {}
    if place.visit:
        events.append(_step_ended(walk, place, ""))
    if (
        position.cycles_begun != place.position.cycles_begun
        or position.cycle != place.position.cycle
    ):
        if place.position.cycle:
            events.append(_cycle_ended(walk, place, complete=True))
            changes["last_cycle"] = ended = _figures(place)
            if ended.cycle in walk.references:
                changes["kept_cycles"] = {**place.kept_cycles, ended.cycle: ended}
        changes |= {"cycle_first_seq": place.seq + 1, "cycle_interrupted": False}
        changes |= dict.fromkeys(_CYCLE_SUMS, 0.0)
    elif place.position.cycle:
        changes["cycle_charge_Ah"] = place.cycle_charge_Ah + place.visit_charge_Ah
        changes["cycle_discharge_Ah"] = place.cycle_discharge_Ah + place.visit_discharge_Ah
        changes["cycle_charge_Wh"] = place.cycle_charge_Wh + place.visit_charge_Wh
        changes["cycle_discharge_Wh"] = place.cycle_discharge_Wh + place.visit_discharge_Wh
    entered = msgspec.structs.replace(
        place,
        position=position,
        visit=place.visit + 1,
        pass_mark=pass_mark,
        step_time_s=0.0,
        visit_first_seq=place.seq + 1,
        visit_start_test_time_s=place.test_time_s,
        visit_start_charge_Ah=place.charge_Ah,
        visit_start_energy_Wh=place.energy_Wh,
        visit_charge_Ah=0.0,
        visit_discharge_Ah=0.0,
        visit_charge_Wh=0.0,
        visit_discharge_Wh=0.0,
        visit_over=False,
        visit_end=None,
        visit_cause="",
        resuming=False,
        resumed_s=0.0,
        resumed_Ah=0.0,
        resumed_Wh=0.0,
        slope_time_s=math.nan,
        slope_voltage_V=math.nan,
        slope_V_per_s=math.nan,
        **changes,
    )
    return entered, events


def _figures(place: Place) -> CycleFigures:
    """The cycle that ``place`` is in, with the visit that it is in."""
    return CycleFigures(
        cycle=place.position.cycle,
        charge_Ah=place.cycle_charge_Ah + place.visit_charge_Ah,
        discharge_Ah=place.cycle_discharge_Ah + place.visit_discharge_Ah,
        charge_Wh=place.cycle_charge_Wh + place.visit_charge_Wh,
        discharge_Wh=place.cycle_discharge_Wh + place.visit_discharge_Wh,
        interrupted=place.cycle_interrupted,
    )


def _spectra(
    walk: Walk, place: Place, spectra: Sequence[Spectrum]
) -> tuple[Place, tuple[Event, ...]]:
    events: list[Event] = []
    for spectrum in spectra:
        place = msgspec.structs.replace(place, spectra=place.spectra + 1)
        events.append(
            SpectrumMeasured(
                run=place.run,
                number=place.spectra,
                visit=place.visit,
                step=walk.step(place.position).index + 1,
                cycle=place.position.cycle,
                after_seq=place.seq,
                test_time_s=place.test_time_s,
                spectrum=spectrum,
            )
        )
    return place, tuple(events)


def _extend(walk: Walk, place: Place, block: Readings) -> tuple[Place, Records]:
    """Records of readings that all belong to the visit that ``place`` is in."""
    count = len(block)
    begins = place.resuming or place.seq + 1 == place.visit_first_seq
    step_time_s = block.step_time_s + place.resumed_s if place.resumed_s else block.step_time_s
    charge_Ah = _integral(
        place.visit_start_charge_Ah + place.resumed_Ah,
        place.charge_Ah,
        block.step_charge_Ah,
        block.current_A,
        block.current_A[0] if begins else place.current_A,
        step_time_s,
        place.step_time_s,
    )
    power_W = block.voltage_V * block.current_A
    energy_Wh = _integral(
        place.visit_start_energy_Wh + place.resumed_Wh,
        place.energy_Wh,
        block.step_energy_Wh,
        power_W,
        power_W[0] if begins else place.voltage_V * place.current_A,
        step_time_s,
        place.step_time_s,
    )
    charge_change_Ah = np.diff(charge_Ah, prepend=place.charge_Ah)
    energy_change_Wh = np.diff(energy_Wh, prepend=place.energy_Wh)
    charging = charge_change_Ah > 0
    test_time_s = place.visit_start_test_time_s + step_time_s
    position = place.position
    step = walk.step(position)
    slope = (place.slope_time_s, place.slope_voltage_V, place.slope_V_per_s)
    if any(end.quantity is Quantity.VOLTAGE_SLOPE_V_PER_S for end in step.ends):
        slope = slope_after(slope, step_time_s, block.voltage_V)
    records = Records(
        seq=np.arange(place.seq + 1, place.seq + 1 + count, dtype=np.int64),
        test_time_s=test_time_s,
        unix_time_s=block.unix_time_s,
        cycle=np.full(count, position.cycle, dtype=np.int64),
        step=np.full(count, step.index + 1, dtype=np.int64),
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
        step_time_s=float(step_time_s[-1]),
        voltage_V=float(block.voltage_V[-1]),
        current_A=float(block.current_A[-1]),
        temperature_degC=float(block.temperature_degC[-1]),
        pass_mark=int(block.pass_mark[-1]) if place.resuming else place.pass_mark,
        resuming=False,
        slope_time_s=slope[0],
        slope_voltage_V=slope[1],
        slope_V_per_s=slope[2],
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
        ended_by=_ended_by(step, place, cause),
        charge_Ah=place.visit_charge_Ah,
        discharge_Ah=place.visit_discharge_Ah,
        charge_Wh=place.visit_charge_Wh,
        discharge_Wh=place.visit_discharge_Wh,
    )


def _ended_by(step: Step, place: Place, cause: str) -> str:
    """What ended the visit: what was said when it was over, else ``cause``, else the end that its
    last record meets."""
    if place.visit_over:
        return place.visit_cause if place.visit_end is None else str(place.visit_end)
    if cause:
        return cause
    return ended_by(step, place)


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
