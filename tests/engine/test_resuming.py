"""After a gap a visit goes on where it stood: nothing is replayed, and nothing counts the gap."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from labctl.model import Readings, Records, Spectrum, join_records
from labctl.program import (
    Comparison,
    ConstantCurrent,
    EndCondition,
    Limits,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Step,
)
from labctl.stream.events import CycleEnded, Event, SpectrumMeasured, StepEnded

CURRENT_A = 1e-3
HOUR = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 3600.0)
PROGRAM = Program(
    name="cycles",
    recipe_sha256="0" * 64,
    cell="paper",
    body=(
        Loop(
            2,
            (
                Step(0, "charge", ConstantCurrent(CURRENT_A), (HOUR,), RecordRule()),
                Step(1, "discharge", ConstantCurrent(-CURRENT_A), (HOUR,), RecordRule()),
            ),
            counts_cycles=True,
        ),
    ),
    limits=Limits(1.0, 4.5, -1.0, 1.0, 1.0, 1e9),
)
WALK = Walk(PROGRAM)


def readings(
    first_s: float, last_s: float, *, step: int, index: int = 1, mark: int = 0
) -> Readings:
    """Every ten minutes; the instrument counts nothing, so the host integrates."""
    times = np.arange(first_s, last_s + 1e-9, 600.0)
    count = len(times)
    unknown = np.full(count, math.nan)
    return Readings(
        onboard_index=np.arange(index, index + count),
        step=np.full(count, step),
        pass_mark=np.full(count, mark),
        step_time_s=times,
        unix_time_s=1.8e9 + times,
        voltage_V=np.full(count, 3.0),
        current_A=np.full(count, CURRENT_A if step == 0 else -CURRENT_A),
        step_charge_Ah=unknown,
        step_energy_Wh=unknown,
        temperature_degC=unknown,
    )


def walked(*, gap_after_s: float | None = None) -> tuple[Records, list[Event], Place]:
    """The whole program walked visit by visit, the second one interrupted after so long."""
    place, blocks, events = Place(run="r"), [], []
    while (ahead := onward(WALK, place)).position is not None:
        entered = enter_visit(WALK, place, ahead.position)
        events += entered.events
        place = msgspec.msgpack.decode(msgspec.msgpack.encode(entered.place), type=Place)
        step = WALK.step(place.position).index
        spans = [(0.0, 3600.0)]
        if place.visit == 2 and gap_after_s is not None:
            spans = [(0.0, gap_after_s), (0.0, 3600.0 - gap_after_s)]
        for number, (first_s, last_s) in enumerate(spans):
            if number:
                place = resume_visit(WALK, place)
            placed = place_in_visit(WALK, place, readings(first_s, last_s, step=step))
            blocks.append(placed.records)
            place = msgspec.msgpack.decode(msgspec.msgpack.encode(placed.place), type=Place)
        place = finish_visit(WALK, place, end=HOUR, cause="")
    events += close_run(WALK, place, completed=True)
    return join_records(blocks), events, place


def test_a_walked_program_gives_its_cycles_and_integrals() -> None:
    records, events, place = walked()
    assert place.charge_Ah == pytest.approx(0.0, abs=1e-12)
    cycles = [event for event in events if isinstance(event, CycleEnded)]
    assert [(one.cycle, one.interrupted, one.complete) for one in cycles] == [
        (1, False, True),
        (2, False, True),
    ]
    steps = [event for event in events if isinstance(event, StepEnded)]
    assert [one.charge_Ah for one in steps] == pytest.approx([1e-3, 0.0, 1e-3, 0.0])
    assert {one.ended_by for one in steps} == {str(HOUR)}
    assert records.seq.tolist() == list(range(1, len(records) + 1))


@given(st.sampled_from([600.0, 1200.0, 1800.0, 2400.0, 3000.0]))
def test_an_interrupted_visit_ends_with_the_same_integrals_the_gap_apart(
    gap_after_s: float,
) -> None:
    _, whole_events, whole = walked()
    records, events, place = walked(gap_after_s=gap_after_s)
    assert place.charge_Ah == pytest.approx(whole.charge_Ah, abs=1e-12)
    assert place.test_time_s == pytest.approx(whole.test_time_s)
    assert np.all(np.diff(records.test_time_s) >= 0)
    ours = [one for one in events if isinstance(one, StepEnded)]
    theirs = [one for one in whole_events if isinstance(one, StepEnded)]
    assert [one.discharge_Ah for one in ours] == pytest.approx([o.discharge_Ah for o in theirs])
    assert [(one.step, one.visit, one.cycle, one.ended_by) for one in ours] == [
        (one.step, one.visit, one.cycle, one.ended_by) for one in theirs
    ]
    cycles = [one for one in events if isinstance(one, CycleEnded)]
    assert [one.interrupted for one in cycles] == [True, False]


def test_a_sequencer_that_begins_anew_goes_on_in_the_same_visit() -> None:
    first = place_readings(WALK, Place(run="r"), readings(0.0, 1200.0, step=0))
    place = begin_segment(resume_visit(WALK, first.place))
    second = place_readings(WALK, place, readings(0.0, 2400.0, step=0, mark=7))
    assert second.place.visit == 1
    assert second.place.step_time_s == 3600.0
    assert second.place.charge_Ah == pytest.approx(1e-3)
    third = place_readings(WALK, second.place, readings(0.0, 600.0, step=1, index=6, mark=8))
    [ended] = third.events
    assert isinstance(ended, StepEnded)
    assert (ended.charge_Ah, ended.ended_by) == (pytest.approx(1e-3), str(HOUR))


def test_a_new_stretch_is_a_new_visit_though_its_pass_mark_is_the_same() -> None:
    first = place_readings(WALK, Place(run="r"), readings(0.0, 3600.0, step=1, mark=0))
    second = place_readings(WALK, begin_segment(first.place), readings(0.0, 600.0, step=1, mark=0))
    assert second.place.visit == first.place.visit + 1
    assert second.place.position.cycle == first.place.position.cycle + 1


def test_a_spectrum_stands_after_the_last_record_of_its_visit() -> None:
    spectrum = Spectrum(
        frequency_Hz=(10.0, 1.0), impedance_real_ohm=(5.0, 6.0), impedance_imag_ohm=(-1.0, -2.0)
    )
    ahead = onward(WALK, Place(run="r"))
    assert ahead.position is not None
    place = enter_visit(WALK, Place(run="r"), ahead.position).place
    placed = place_in_visit(WALK, place, readings(0.0, 600.0, step=0), spectra=[spectrum])
    [event] = placed.events
    assert isinstance(event, SpectrumMeasured)
    assert (event.number, event.visit, event.after_seq) == (1, 1, 2)
    again = place_in_visit(WALK, placed.place, Readings(), spectra=[spectrum])
    assert [one.number for one in again.events if isinstance(one, SpectrumMeasured)] == [2]
