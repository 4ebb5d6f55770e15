"""One visit that is made from here: where the run stands by every reading of it, kept or not.

Every reading is judged when it comes. Those to record are put in their place when they are asked
for, many together; the journal follows a little later. No instrument is known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from labctl.drivers.base import Capabilities, Looked, Task
from labctl.engine.ends import condition_that_ended, holds
from labctl.engine.hoststeps import is_hosts
from labctl.engine.place import Place
from labctl.engine.placement import finish_visit, place_in_visit
from labctl.engine.sampling import Row, Sampled, Sampler, as_readings, last_record
from labctl.engine.walk import Walk
from labctl.model import Readings, Records, Spectrum, join_records
from labctl.program import (
    Comparison,
    Control,
    EndCondition,
    Impedance,
    Limits,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Signal,
    Step,
    VoltageSweep,
    limits_of_step,
)
from labctl.stream.events import Event, GapRecorded

_SIGNAL_RESTS_S = 60.0
_DONE_BEFORE = frozenset(
    {
        Quantity.STEP_TIME_S,
        Quantity.STEP_CHARGE_AH,
        Quantity.STEP_ENERGY_WH,
        Quantity.RUN_CHARGE_AH,
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look came to. Either end of a visit, or neither.

    end: the condition that ended it. limit: what was passed, '' if nothing was.
    """

    end: EndCondition | None = None
    limit: str = ""


@dataclass(frozen=True, slots=True)
class Unkept:
    """What the journal does not have yet, and where the run stands with it."""

    place: Place
    records: Records
    events: tuple[Event, ...]


class Visit:
    """``place`` is where the run stands when the visit is begun, or taken up again."""

    def __init__(
        self,
        program: Program,
        walk: Walk,
        place: Place,
        capabilities: Capabilities,
        unix_time_s: float,
    ) -> None:
        self.step = walk.step(place.position)
        self.number = place.visit
        self.limits = limits_of_step(program, self.step)
        self.hosts = is_hosts(self.step.control)
        self.recorded_unix_s = unix_time_s
        """When the last record was made, by the clock of the run."""
        self._lasts_at_most_s = program.limits.duration_max_s - place.visit_start_test_time_s
        self._duration_max_s = program.limits.duration_max_s
        self._walk = walk
        self._place = place
        self._sampler = Sampler(_as_judged(self.step), self.limits, capabilities)
        self._sampled = Sampled(
            done_s=place.resumed_s,
            done_Ah=place.resumed_Ah,
            done_Wh=place.resumed_Wh,
            run_charge_Ah=place.charge_Ah,
        )
        self._latest = Readings()
        self._rows: list[Row] = []
        """To be recorded, and not in their place yet."""
        self._blocks: list[Records] = []
        self._events: list[Event] = []
        self.task = self._as_task(place)

    @property
    def step_time_s(self) -> float:
        """Of the last reading, kept or not."""
        return self._sampled.step_time_s

    @property
    def place(self) -> Place:
        """Where the run stands with everything that is to be recorded."""
        self._place_rows()
        return self._place

    @property
    def unkept(self) -> int:
        """How many records, and events, the journal does not have yet."""
        return len(self._rows) + sum(map(len, self._blocks)) + len(self._events)

    def take(self, looked: Looked, unix_time_s: float) -> Verdict:
        """Judge what a source said.

        Raises:
            InstrumentError: it says something that no reading can be; nothing was taken.
        """
        readings = looked.readings
        index_before = self._sampled.onboard_index
        sampled = self._sampler.sample(self._sampled, readings)
        if len(readings):
            missing = int(readings.onboard_index[-1]) - index_before - len(readings)
            if missing:
                self._note_gap(missing, unix_time_s)
            self._latest = readings
        self._sampled = sampled.state
        if sampled.rows:
            self._rows += sampled.rows
            self.recorded_unix_s = unix_time_s
        if looked.spectra:
            self._place_rows(looked.spectra)
        limit = sampled.limit
        if not limit and self._sampled.step_time_s > self._lasts_at_most_s:
            limit = f"the run has lasted longer than its limit of {self._duration_max_s:g} s"
        return Verdict(None if limit else sampled.end, limit)

    def finish(self, end: EndCondition | None, cause: str) -> None:
        """The visit is over: see :func:`labctl.engine.placement.finish_visit`."""
        self._place = finish_visit(self._walk, self.place, end=end, cause=cause)

    def complete(self) -> None:
        """The last reading is a record, whatever the record rule says: nothing comes after it."""
        last = last_record(self._sampled, self._latest)
        self._latest = Readings()
        self._place_rows()
        self._put_in_place(last)

    def own_end(self) -> tuple[EndCondition | None, str]:
        """How a visit ended that its instrument says is over: by a condition, or ``complete``;
        '' where neither explains it."""
        end = condition_that_ended(self.step, self.place)
        whole = isinstance(self.step.control, VoltageSweep | Impedance)
        return end, "complete" if end is None and whole else ""

    def take_unkept(self) -> Unkept:
        """Hand over what the journal does not have yet."""
        place = self.place
        records = join_records(self._blocks) if self._blocks else Records()
        unkept = Unkept(place, records, tuple(self._events))
        self._blocks, self._events = [], []
        return unkept

    def put_back(self, unkept: Unkept) -> None:
        """The journal would not have it."""
        self._blocks = [unkept.records, *self._blocks] if len(unkept.records) else self._blocks
        self._events = [*unkept.events, *self._events]

    def _as_task(self, place: Place) -> Task:
        step = self.step
        if self.hosts:
            step = resting(step)
        if isinstance(step.control, VoltageSweep) and place.visit_has_records:
            control = msgspec.structs.replace(step.control, from_V=place.voltage_V)
            step = msgspec.structs.replace(step, control=control)
        return Task(
            step=step,
            limits=self.limits,
            tag=f"{place.run}.{place.visit}",
            done_s=place.resumed_s,
            done_Ah=place.resumed_Ah,
        )

    def _note_gap(self, missing: int, unix_time_s: float) -> None:
        place = self.place
        self._events.append(
            GapRecorded(
                run=place.run,
                after_seq=place.seq,
                reason=f"the instrument no longer has {missing} of its readings",
                unix_time_s=unix_time_s,
            )
        )
        self._place = _interrupted(place)

    def _place_rows(self, spectra: tuple[Spectrum, ...] = ()) -> None:
        if self._rows or spectra:
            self._put_in_place(as_readings(self._rows), spectra)
            self._rows = []

    def _put_in_place(self, readings: Readings, spectra: tuple[Spectrum, ...] = ()) -> None:
        placed = place_in_visit(self._walk, self._place, readings, spectra=spectra)
        self._place = placed.place
        if len(placed.records):
            self._blocks.append(placed.records)
        self._events += placed.events


def _as_judged(step: Step) -> Step:
    """A step as its readings are judged: a marker's end is that it was told."""
    return msgspec.structs.replace(step, ends=()) if isinstance(step.control, Signal) else step


def _interrupted(place: Place) -> Place:
    inside = place.cycle_interrupted or place.position.cycle > 0
    return msgspec.structs.replace(place, cycle_interrupted=inside)


def passes_current(control: Control) -> bool:
    """Whether current is meant to flow in a step."""
    return not (isinstance(control, Rest) or is_hosts(control))


def resting(step: Step) -> Step:
    """A step of the host as its instrument sees it: open circuit, for as long as it takes."""
    times = tuple(end for end in step.ends if end.quantity is Quantity.STEP_TIME_S and end.value)
    if not times:
        times = (EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, _SIGNAL_RESTS_S),)
    return Step(step.index, step.label, Rest(), times, RecordRule(every_s=step.record.every_s))


def done_before(step: Step, place: Place) -> EndCondition | None:
    """The end that an interrupted visit had come to already, by what it had counted."""
    counted = (end for end in step.ends if end.quantity in _DONE_BEFORE)
    return next((end for end in counted if holds(end, place, exactly=True)), None)


def open_circuit_task(step: Step, limits: Limits) -> Task:
    """A look at the open-circuit voltage of a cell before ``step`` goes on."""
    rest = resting(msgspec.structs.replace(step, label="open circuit", ends=()))
    return Task(step=rest, limits=limits, tag="")
