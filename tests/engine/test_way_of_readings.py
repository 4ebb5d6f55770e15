"""Whatever way a program goes, its readings alone tell it, and no crash changes it."""

from __future__ import annotations

import itertools
from typing import TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from paper_programs import (
    END_V,
    SAMPLE_S,
    STEP_S,
    program_of,
    programs,
    readings_of_visit,
)

from labctl.engine.placement import (
    Place,
    begin_segment,
    close_run,
    enter_visit,
    finish_visit,
    onward,
    place_in_visit,
    place_readings,
    resume_visit,
)
from labctl.engine.walk import Walk
from labctl.errors import InstrumentError
from labctl.model import RECORD_COLUMNS, Readings, Records, Spectrum, join_records
from labctl.program import (
    Branch,
    Comparison,
    ConstantCurrent,
    EndCondition,
    EndedBy,
    Finish,
    Impedance,
    Leave,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
    Then,
)
from labctl.stream.events import CycleEnded, Event, GapRecorded, SpectrumMeasured, StepEnded

TIME = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, STEP_S)
FULL = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, END_V)
FULL_LEAVES = msgspec.structs.replace(FULL, then=Then.LEAVE_LOOP)
Kind = TypeVar("Kind", bound=Event)
ENDS = st.lists(st.integers(0, 1), min_size=1, max_size=40)


def charge(*ends: EndCondition) -> Step:
    return Step(0, "charge", ConstantCurrent(1e-4), ends or (TIME,), RecordRule())


def rest() -> Step:
    return Step(0, "rest", Rest(), (TIME,), RecordRule())


def through_the_journal(place: Place) -> Place:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(place), type=Place)


def by_ends(choices: list[int], visit: int, step: Step) -> EndCondition:
    return step.ends[choices[visit % len(choices)] % len(step.ends)]


class Walked:
    """A program walked by the host, visit by visit; every end is named, as ``choices`` say.

    ``gap``: the visit that is interrupted after so many readings, and the run taken up again.
    """

    def __init__(
        self, program: Program, choices: list[int], gap: tuple[int, int] | None = None
    ) -> None:
        walk, place = Walk(program), Place(run="r")
        self.blocks: list[Records] = []
        self.events: list[Event] = []
        self.readings: list[Readings] = []
        index = 1
        while (ahead := onward(walk, place)).position is not None:
            entered = enter_visit(walk, place, ahead.position)
            self.events += entered.events
            place = through_the_journal(entered.place)
            step = walk.step(place.position)
            end = by_ends(choices, place.visit, step)
            block = readings_of_visit(step, end, first_index=index, pass_mark=place.visit)
            self.readings.append(block)
            index += len(block)
            if gap is not None and gap[0] == place.visit:
                first = block[: gap[1]]
                place = self._take(walk, place, first)
                place = through_the_journal(resume_visit(walk, place))
                block = _since(block[gap[1] :], float(first.step_time_s[-1]))
            place = self._take(walk, place, block)
            place = through_the_journal(finish_visit(walk, place, end=end, cause=""))
        self.events += close_run(walk, place, completed=True)
        self.place = place

    def _take(self, walk: Walk, place: Place, block: Readings) -> Place:
        placed = place_in_visit(walk, place, block)
        self.blocks.append(placed.records)
        self.events += placed.events
        return through_the_journal(placed.place)

    @property
    def records(self) -> Records:
        return join_records(self.blocks) if self.blocks else Records()

    def kinds(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]


def _since(block: Readings, from_s: float) -> Readings:
    """What the instrument says when it is begun anew: its time counts from there."""
    columns = {name: getattr(block, name) for name in block.__dataclass_fields__}
    return Readings(**(columns | {"step_time_s": block.step_time_s - from_s}))


def joined(blocks: list[Readings]) -> Readings:
    columns = zip(*([getattr(b, n) for n in b.__dataclass_fields__] for b in blocks), strict=True)
    return Readings(*(np.concatenate(column) for column in columns))


@settings(deadline=None)
@given(programs(most_visits=120), ENDS, st.lists(st.integers(0, 500), max_size=5))
def test_the_readings_of_a_program_alone_tell_which_way_it_went(
    program: Program, choices: list[int], cuts: list[int]
) -> None:
    walked = Walked(program, choices)
    assume(walked.readings)
    whole = joined(walked.readings)
    walk, place = Walk(program), Place(run="r")
    blocks, events = list[Records](), list[Event]()
    for first, last in itertools.pairwise(
        [0, *sorted(min(c, len(whole)) for c in cuts), len(whole)]
    ):
        placed = place_readings(walk, place, whole[first:last])
        place = through_the_journal(placed.place)
        blocks.append(placed.records)
        events += placed.events
    events += close_run(walk, place, completed=True)
    records = join_records(blocks)
    for name in RECORD_COLUMNS:
        assert getattr(records, name).tobytes() == getattr(walked.records, name).tobytes()
    assert events == walked.events
    assert onward(walk, place).position is None


@settings(deadline=None)
@given(programs(results=False, most_visits=60), ENDS, st.data())
def test_a_run_that_was_interrupted_anywhere_gives_the_same_records_the_gap_apart(
    program: Program, choices: list[int], data: st.DataObject
) -> None:
    whole = Walked(program, choices)
    assume(whole.readings)
    visit = data.draw(st.integers(1, len(whole.readings)))
    after = data.draw(st.integers(1, len(whole.readings[visit - 1]) - 1))
    cut = Walked(program, choices, gap=(visit, after))
    for name in RECORD_COLUMNS:
        if name != "energy_Wh":
            ours, theirs = getattr(cut.records, name), getattr(whole.records, name)
            assert np.allclose(ours, theirs, rtol=1e-12, atol=1e-18, equal_nan=True)
    energy_Wh = whole.records.energy_Wh - cut.records.energy_Wh
    assert np.all(np.abs(energy_Wh) <= 2e-4 * SAMPLE_S / 3600.0 * 0.5)
    for ours, theirs in zip(cut.events, whole.events, strict=True):
        if isinstance(ours, StepEnded) and isinstance(theirs, StepEnded):
            assert (ours.visit, ours.step, ours.ended_by) == (
                theirs.visit, theirs.step, theirs.ended_by,
            )  # fmt: skip
            assert ours.charge_Ah == pytest.approx(theirs.charge_Ah, abs=1e-15)
            assert ours.discharge_Ah == pytest.approx(theirs.discharge_Ah, abs=1e-15)
        if isinstance(ours, CycleEnded) and isinstance(theirs, CycleEnded):
            of_gap = int(cut.records.cycle[cut.records.visit == visit][0])
            assert ours.interrupted == (ours.cycle == of_gap)
            assert (ours.cycle, ours.complete) == (theirs.cycle, theirs.complete)
    assert not cut.kinds(GapRecorded)


def test_nothing_is_integrated_over_a_gap() -> None:
    program = program_of(charge(TIME))
    walk = Walk(program)
    whole = readings_of_visit(walk.steps[0], TIME)
    ahead = onward(walk, Place(run="r")).position
    assert ahead is not None
    place = enter_visit(walk, Place(run="r"), ahead).place
    place = place_in_visit(walk, place, whole[:2]).place
    placed = place_in_visit(walk, resume_visit(walk, place), whole[:1])
    assert placed.place.charge_Ah == place.charge_Ah
    assert placed.place.energy_Wh == place.energy_Wh
    assert placed.place.test_time_s == place.test_time_s


def test_a_charge_that_leaves_the_loop_leaves_its_cycle_incomplete() -> None:
    program = program_of(
        Loop(3, (charge(TIME, FULL_LEAVES), rest()), counts_cycles=True), charge(TIME)
    )
    walked = Walked(program, [0, 0, 0, 1, 0])
    steps = [(one.step, one.ended_by) for one in walked.kinds(StepEnded)]
    assert steps == [(1, str(TIME)), (2, str(TIME)), (1, str(FULL_LEAVES)), (3, str(TIME))]
    cycles = [(one.cycle, one.complete) for one in walked.kinds(CycleEnded)]
    assert cycles == [(1, True), (2, False)]
    assert walked.place.last_cycle is not None
    assert walked.place.last_cycle.interrupted


def test_a_loop_that_is_left_at_the_end_of_a_pass_leaves_a_whole_cycle() -> None:
    leaving = Branch(EndedBy(Quantity.VOLTAGE_V), (Leave(),))
    program = program_of(Loop(3, (rest(), charge(TIME, FULL), leaving), counts_cycles=True), rest())
    walked = Walked(program, [1])
    assert [(one.cycle, one.complete) for one in walked.kinds(CycleEnded)] == [(1, True)]
    assert [one.step for one in walked.kinds(StepEnded)] == [1, 2, 3]


def test_a_run_that_finishes_in_the_middle_of_a_cycle_leaves_it_incomplete() -> None:
    finishing = Branch(EndedBy(Quantity.VOLTAGE_V), (Finish("full"),))
    program = program_of(Loop(3, (charge(TIME, FULL), finishing, rest()), counts_cycles=True))
    walked = Walked(program, [0, 0, 0, 1])
    assert [(one.cycle, one.complete) for one in walked.kinds(CycleEnded)] == [
        (1, True), (2, False),
    ]  # fmt: skip


def test_where_the_instrument_went_tells_how_the_step_before_ended() -> None:
    program = program_of(Loop(9, (charge(TIME, FULL_LEAVES), rest())), charge(TIME))
    walk = Walk(program)
    odd = readings_of_visit(walk.steps[0], TIME)[:2]
    after = readings_of_visit(walk.steps[2], TIME, first_index=3, pass_mark=1)
    placed = place_readings(walk, Place(run="r"), joined([odd, after]))
    [ended] = placed.events
    assert isinstance(ended, StepEnded)
    assert ended.ended_by == str(FULL_LEAVES)
    assert walk.step(placed.place.position).index == 2


def test_a_step_whose_time_begins_anew_is_visited_again_though_no_mark_says_so() -> None:
    program = program_of(Loop(2, (charge(TIME),), counts_cycles=True))
    walk = Walk(program)
    first = readings_of_visit(walk.steps[0], TIME)
    second = readings_of_visit(walk.steps[0], TIME, first_index=len(first) + 1)
    at_once = place_readings(walk, Place(run="r"), joined([first, second]))
    place = place_readings(walk, Place(run="r"), first).place
    in_parts = place_readings(walk, through_the_journal(place), second)
    assert at_once.place == in_parts.place
    assert in_parts.place.visit == 2


def test_a_new_segment_begins_a_visit_though_step_and_mark_are_the_same() -> None:
    program = program_of(Loop(2, (charge(TIME),), counts_cycles=True))
    walk = Walk(program)
    block = readings_of_visit(walk.steps[0], TIME)
    place = place_readings(walk, Place(run="r"), block).place
    again = place_readings(walk, through_the_journal(begin_segment(place)), block)
    assert again.place.visit == 2
    assert [event.cycle for event in again.events if isinstance(event, CycleEnded)] == [1]


def test_a_segment_that_goes_on_with_an_interrupted_visit_counts_from_there() -> None:
    program = program_of(charge(TIME), rest())
    walk = Walk(program)
    whole = readings_of_visit(walk.steps[0], TIME)
    place = place_readings(walk, Place(run="r"), whole[:2]).place
    place = through_the_journal(begin_segment(resume_visit(walk, place)))
    shortened = _since(whole[2:], SAMPLE_S)
    again = place_readings(walk, place, Readings(
        *(getattr(shortened, n) for n in whole.__dataclass_fields__)
    ))  # fmt: skip
    assert again.place.visit == 1
    assert again.place.step_time_s == STEP_S
    assert again.place.charge_Ah == pytest.approx(1e-4 * STEP_S / 3600)


def test_a_rest_that_is_taken_up_again_counts_the_time_of_the_gap() -> None:
    program = program_of(rest())
    walk = Walk(program)
    ahead = onward(walk, Place(run="r")).position
    assert ahead is not None
    place = enter_visit(walk, Place(run="r"), ahead).place
    place = place_in_visit(walk, place, readings_of_visit(walk.steps[0], TIME)[:2]).place
    resumed = resume_visit(walk, place, passed_s=25.0)
    placed = place_in_visit(walk, resumed, readings_of_visit(walk.steps[0], TIME)[1:2])
    assert placed.place.step_time_s == SAMPLE_S + 25.0 + SAMPLE_S
    assert placed.records.test_time_s[0] == placed.place.step_time_s
    assert placed.place.charge_Ah == 0.0


def test_a_visit_without_a_single_record_leaves_no_event() -> None:
    program = program_of(Loop(2, (rest(),), counts_cycles=True), rest())
    walk, place = Walk(program), Place(run="r")
    events: list[Event] = []
    for _ in range(3):
        ahead = onward(walk, place).position
        assert ahead is not None
        entered = enter_visit(walk, place, ahead)
        events += entered.events
        place = finish_visit(walk, entered.place, end=None, cause="skip")
    assert (events, close_run(walk, place, completed=True)) == ([], ())
    assert place.last_cycle is None


def test_a_skipped_step_leaves_its_cycle_interrupted() -> None:
    program = program_of(Loop(1, (charge(TIME), rest()), counts_cycles=True))
    walk = Walk(program)
    place = place_readings(walk, Place(run="r"), readings_of_visit(walk.steps[0], TIME)[:2]).place
    place = finish_visit(walk, place, end=None, cause="skip")
    placed = place_readings(
        walk, place, readings_of_visit(walk.steps[1], TIME, first_index=3, pass_mark=1)
    )
    step, cycle = placed.events[0], close_run(walk, placed.place, completed=True)[-1]
    assert isinstance(step, StepEnded)
    assert isinstance(cycle, CycleEnded)
    assert (step.ended_by, cycle.interrupted) == ("skip", True)


def test_a_visit_that_is_over_stays_ended_by_what_ended_it() -> None:
    program = program_of(charge(TIME, FULL))
    walk = Walk(program)
    place = place_readings(walk, Place(run="r"), readings_of_visit(walk.steps[0], TIME)).place
    place = finish_visit(walk, place, end=FULL, cause="")
    place = finish_visit(walk, place, end=None, cause="stop")
    [ended] = close_run(walk, place, completed=False, cause="stop")
    assert isinstance(ended, StepEnded)
    assert ended.ended_by == str(FULL)


def test_time_that_goes_back_in_a_visit_is_refused() -> None:
    program = program_of(charge(TIME))
    walk = Walk(program)
    ahead = onward(walk, Place(run="r")).position
    assert ahead is not None
    place = enter_visit(walk, Place(run="r"), ahead).place
    block = readings_of_visit(walk.steps[0], TIME)
    place = place_in_visit(walk, place, block[:3]).place
    back = _since(block[3:], 30.0)
    with pytest.raises(InstrumentError, match="reading 4 of visit 1 is earlier"):
        place_in_visit(walk, place, back)


def test_a_spectrum_is_of_the_impedance_step_that_it_was_measured_in() -> None:
    sweep = Impedance(
        galvanostatic=False,
        amplitude=0.01,
        frequency_max_Hz=1e4,
        frequency_min_Hz=1.0,
        points_per_decade=5,
        max_current_A=1e-3,
    )
    impedance = Step(0, "impedance", sweep, (TIME,), RecordRule())
    program = program_of(rest(), Loop(2, (impedance, rest()), counts_cycles=True))
    walk, index, blocks = Walk(program), 1, []
    for visit, step in enumerate([0, 1, 2, 1, 2]):
        block = readings_of_visit(walk.steps[step], TIME, first_index=index, pass_mark=visit)
        blocks.append(block)
        index += len(block)
    ends_unix_s = [float(block.unix_time_s[-1]) for block in blocks]
    one, two = (
        Spectrum(
            frequency_Hz=(1.0,),
            impedance_real_ohm=(1.0,),
            impedance_imag_ohm=(-1.0,),
            unix_time_s=ends_unix_s[visit],
        )
        for visit in (1, 3)
    )
    placed = place_readings(walk, Place(run="r"), joined(blocks), spectra=[one, two])
    measured = [event for event in placed.events if isinstance(event, SpectrumMeasured)]
    assert [(m.number, m.visit, m.step, m.cycle, m.after_seq) for m in measured] == [
        (1, 2, 2, 1, 8), (2, 4, 2, 2, 16),
    ]  # fmt: skip
    kinds = [type(event) for event in placed.events]
    assert kinds[:3] == [StepEnded, SpectrumMeasured, StepEnded]
    late = place_readings(walk, placed.place, Readings(), spectra=[one])
    [event] = late.events
    assert isinstance(event, SpectrumMeasured)
    assert (event.number, event.visit) == (3, 5)
