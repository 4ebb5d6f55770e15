"""Where a run stands: a value that is journalled with every record. Pure.

Everything that is chosen after a crash is chosen from it alone. Charge and energy are net since the
run began, positive for charging.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from labctl.engine.ends import SlopePoints, condition_that_ended
from labctl.engine.facts import CycleFigures, Facts
from labctl.engine.walk import Position, Walk
from labctl.model import Records
from labctl.program import EndCondition, Step, technique_of
from labctl.stream.events import CycleEnded, Event, StepEnded


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """All that is needed to place the next reading and to choose the next step.

    The ``visit_`` sums integrate current of one sign each since the visit began, the ``cycle_``
    sums those of the cycle's visits before that one.

    visit_over: the visit has ended, by ``visit_end`` or for ``visit_cause``; its events come with
        what follows it.
    resumed_s, resumed_Ah, resumed_Wh: what the visit had come to, net, when it was taken up
        again; 0 where it never was. What the instrument says of times and counters of the visit
        counts from there. ``resuming`` until the first reading after that.
    segment_begins: the next reading begins a visit, whatever its pass mark says.
    known_temperature_degC: at the last record, None where unknown.
    known_slope_V_per_s: dV/dt at the last record, None where unknown or where no end of the step
        looks at it; slope_points: what it needs of the readings before. See
        :mod:`labctl.engine.ends`.
    last_cycle: the cycle that ended last; kept_cycles: those that the program's conditions name.
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
    known_temperature_degC: float | None = None
    visit_over: bool = False
    visit_end: EndCondition | None = None
    visit_cause: str = ""
    resuming: bool = False
    resumed_s: float = 0.0
    resumed_Ah: float = 0.0
    resumed_Wh: float = 0.0
    segment_begins: bool = False
    spectra: int = 0
    slope_points: SlopePoints = ()
    known_slope_V_per_s: float | None = None
    cycle_charge_Ah: float = 0.0
    cycle_discharge_Ah: float = 0.0
    cycle_charge_Wh: float = 0.0
    cycle_discharge_Wh: float = 0.0
    last_cycle: CycleFigures | None = None
    kept_cycles: tuple[CycleFigures, ...] = ()

    @property
    def temperature_degC(self) -> float:
        """At the last record; NaN where unknown."""
        return math.nan if self.known_temperature_degC is None else self.known_temperature_degC

    @property
    def slope_V_per_s(self) -> float:
        """dV/dt at the last record; NaN where unknown."""
        return math.nan if self.known_slope_V_per_s is None else self.known_slope_V_per_s

    @property
    def visit_has_records(self) -> bool:
        """Whether a reading of the visit is here."""
        return self.visit > 0 and self.seq >= self.visit_first_seq

    @property
    def cycle_has_records(self) -> bool:
        """Whether a reading of the cycle is here."""
        return self.position.cycle > 0 and self.seq >= self.cycle_first_seq


@dataclass(frozen=True, slots=True)
class Placed:
    """Records and events in the order in which they happened, and where the run stands now."""

    records: Records
    events: tuple[Event, ...]
    place: Place


def ended_by(step: Step, place: Place) -> str:
    """Which end condition the last record of a visit fulfils; ``unknown`` if it fulfils none."""
    end = condition_that_ended(step, place)
    return "unknown" if end is None else str(end)


def end_of_visit(walk: Walk, place: Place) -> tuple[EndCondition | None, str]:
    """The condition that ended the visit, and what ended it in the words of StepEnded.

    Where nobody named it, it is taken from the visit's last record.
    """
    if place.visit_over and (place.visit_end is not None or place.visit_cause):
        return place.visit_end, place.visit_cause or str(place.visit_end)
    step = walk.step(place.position)
    end = condition_that_ended(step, place) if place.visit_has_records else None
    return end, "unknown" if end is None else str(end)


def facts_of(walk: Walk, place: Place) -> Facts:
    """What the choices after the visit that ``place`` is in are made by."""
    if place.visit == 0:
        return Facts()
    return facts_with(place, end_of_visit(walk, place)[0])


def facts_with(place: Place, end: EndCondition | None) -> Facts:
    """The same where it is known what ended the visit."""
    return Facts(
        end=end,
        running=running_cycle(place) if place.cycle_has_records else None,
        last=place.last_cycle,
        kept={cycle.cycle: cycle for cycle in place.kept_cycles},
    )


def running_cycle(place: Place) -> CycleFigures:
    """The cycle that ``place`` is in, as far as it has come."""
    return CycleFigures(
        cycle=place.position.cycle,
        charge_Ah=place.cycle_charge_Ah + place.visit_charge_Ah,
        discharge_Ah=place.cycle_discharge_Ah + place.visit_discharge_Ah,
        charge_Wh=place.cycle_charge_Wh + place.visit_charge_Wh,
        discharge_Wh=place.cycle_discharge_Wh + place.visit_discharge_Wh,
        interrupted=place.cycle_interrupted,
    )


def step_ended(walk: Walk, place: Place, ended_by: str) -> StepEnded:
    """The event that ends the visit that ``place`` is in."""
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
        ended_by=ended_by,
        charge_Ah=place.visit_charge_Ah,
        discharge_Ah=place.visit_discharge_Ah,
        charge_Wh=place.visit_charge_Wh,
        discharge_Wh=place.visit_discharge_Wh,
    )


def cycle_ended(walk: Walk, place: Place, *, complete: bool) -> CycleEnded:
    """The event that ends the cycle that ``place`` is in."""
    return CycleEnded(
        run=place.run,
        cycle=place.position.cycle,
        cycle_class=walk.cycle_class(place.position),
        first_seq=place.cycle_first_seq,
        last_seq=place.seq,
        complete=complete,
        interrupted=place.cycle_interrupted,
    )
