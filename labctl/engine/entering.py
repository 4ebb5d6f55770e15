"""One visit follows another: what ended, what begins, and which visit a reading is of. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from labctl.engine.ends import condition_that_ended
from labctl.engine.place import (
    Place,
    cycle_ended,
    end_of_visit,
    facts_with,
    running_cycle,
    step_ended,
)
from labctl.engine.walk import Position, Walk
from labctl.errors import InstrumentError
from labctl.model import Readings
from labctl.program import EndCondition, Then
from labctl.stream.events import Event


def enter_by_reading(
    walk: Walk, place: Place, readings: Readings, row: int
) -> tuple[Place, list[Event]]:
    """Begin the visit that a reading is of: by the facts, or else by what the reading says."""
    index = int(readings.step[row])
    end, said = (None, "") if place.visit == 0 else end_of_visit(walk, place)
    for candidate in (end, *_other_ends(walk, place, end)):
        ahead = walk.after(place.position, facts_with(place, candidate))
        if ahead.position is not None and walk.step(ahead.position).index == index:
            if candidate is not end:
                said = "unknown" if candidate is None else str(candidate)
            return enter(walk, place, ahead.position, said, complete=ahead.cycle_complete)
    position = walk.reach(place.position, index)
    if position is None:
        raise InstrumentError(
            f"the instrument says that it is in step {index + 1}, where the program of run "
            f"{place.run} cannot be after visit {place.visit}",
            reply=f"reading {int(readings.onboard_index[row])}, step {index + 1}",
        )
    return enter(walk, place, position, said, complete=True)


def _other_ends(
    walk: Walk, place: Place, end: EndCondition | None
) -> Iterator[EndCondition | None]:
    """What else may have ended the visit, if what followed it says that ``end`` did not."""
    if place.visit == 0:
        return
    step = walk.step(place.position)
    presumed = Then.NEXT if end is None else end.then
    for then in dict.fromkeys([Then.NEXT, *(each.then for each in step.ends)]):
        if then is presumed:
            continue
        best = condition_that_ended(step, place, then)
        alone = [each for each in step.ends if each.then is then]
        yield best if best is not None or then is Then.NEXT else alone[0]


def enter(
    walk: Walk, place: Place, position: Position, said: str, *, complete: bool
) -> tuple[Place, list[Event]]:
    """``said``: what ended the visit before; ``complete``: whether its cycle was run to its end."""
    events: list[Event] = []
    if place.visit_has_records:
        events.append(step_ended(walk, place, said))
    same_cycle = (
        position.cycles_begun == place.position.cycles_begun
        and position.cycle == place.position.cycle
    )
    last_cycle, kept = place.last_cycle, place.kept_cycles
    if place.cycle_has_records and not same_cycle:
        events.append(cycle_ended(walk, place, complete=complete))
        last_cycle = running_cycle(place)
        if not complete:
            last_cycle = msgspec.structs.replace(last_cycle, interrupted=True)
        if last_cycle.cycle in walk.references:
            kept = (*kept, last_cycle)
    goes_on = same_cycle and position.cycle > 0
    entered = msgspec.structs.replace(
        place,
        position=position,
        visit=place.visit + 1,
        step_time_s=0.0,
        visit_first_seq=place.seq + 1,
        visit_start_test_time_s=place.test_time_s,
        visit_start_charge_Ah=place.charge_Ah,
        visit_start_energy_Wh=place.energy_Wh,
        visit_charge_Ah=0.0,
        visit_discharge_Ah=0.0,
        visit_charge_Wh=0.0,
        visit_discharge_Wh=0.0,
        cycle_first_seq=place.cycle_first_seq if same_cycle else place.seq + 1,
        cycle_interrupted=place.cycle_interrupted and same_cycle,
        visit_over=False,
        visit_end=None,
        visit_cause="",
        resuming=False,
        resumed_s=0.0,
        resumed_Ah=0.0,
        resumed_Wh=0.0,
        segment_begins=False,
        slope_points=(),
        known_slope_V_per_s=None,
        cycle_charge_Ah=place.cycle_charge_Ah + place.visit_charge_Ah if goes_on else 0.0,
        cycle_discharge_Ah=place.cycle_discharge_Ah + place.visit_discharge_Ah if goes_on else 0.0,
        cycle_charge_Wh=place.cycle_charge_Wh + place.visit_charge_Wh if goes_on else 0.0,
        cycle_discharge_Wh=place.cycle_discharge_Wh + place.visit_discharge_Wh if goes_on else 0.0,
        last_cycle=last_cycle,
        kept_cycles=kept,
    )
    return entered, events
