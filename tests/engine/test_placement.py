"""Readings become records: cycles, steps, integrals, and nothing of how they were cut up."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_cycler import discharge, readings_of, three_cycles

from labctl.engine.placement import Place, Placed, at_the_end, close_run, place_readings
from labctl.engine.walk import Walk
from labctl.errors import InstrumentError
from labctl.model import RECORD_COLUMNS, Readings, Records, join_records
from labctl.stream.events import CycleEnded, Event, GapRecorded, StepEnded

PROGRAM = three_cycles()
WALK = Walk(PROGRAM)
READINGS = readings_of(PROGRAM)


def place_in_blocks(readings: Readings, cuts: list[int]) -> tuple[Records, list[Event], Place]:
    place, blocks, events = Place(run="r"), list[Records](), list[Event]()
    edges = [0, *sorted(cuts), len(readings)]
    for first, last in itertools.pairwise(edges):
        placed = place_readings(WALK, place, readings[first:last])
        place = placed.place
        blocks.append(placed.records)
        events += placed.events
    return join_records(blocks), events, place


def placed_whole() -> Placed:
    return place_readings(WALK, Place(run="r"), READINGS)


def test_every_reading_becomes_one_record_with_its_own_number() -> None:
    records = placed_whole().records
    assert records.seq.tolist() == list(range(1, len(READINGS) + 1))


def test_cycles_and_steps_are_those_of_the_recipe() -> None:
    records = placed_whole().records
    walked = sorted({*zip(records.visit, records.cycle, records.step, strict=True)})
    assert walked == [
        (1, 0, 1), (2, 1, 2), (3, 1, 3), (4, 2, 2), (5, 2, 3), (6, 3, 2), (7, 3, 3),
    ]  # fmt: skip


def test_a_charge_of_two_volts_on_the_paper_cell_is_two_milliampere_hours() -> None:
    events = placed_whole().events
    charges = [event for event in events if isinstance(event, StepEnded) and event.step == 2]
    assert [event.charge_Ah for event in charges] == pytest.approx([2e-3] * 3)
    assert [event.discharge_Ah for event in charges] == [0.0] * 3
    assert [event.charge_Wh for event in charges] == pytest.approx([6e-3] * 3)
    assert {event.ended_by for event in charges} == {"voltage_V >= 4"}


def test_net_charge_comes_back_to_zero_after_each_cycle() -> None:
    placed = placed_whole()
    last_of_cycle = [e.last_seq - 1 for e in placed.events if isinstance(e, CycleEnded)]
    assert placed.records.charge_Ah[last_of_cycle] == pytest.approx(0.0, abs=1e-15)


def test_test_time_runs_on_over_the_steps() -> None:
    records = placed_whole().records
    assert (np.diff(records.test_time_s) >= 0).all()
    assert records.test_time_s[-1] == pytest.approx(600 + 6 * 2 * 3600)


def test_the_run_is_closed_with_its_last_step_and_cycle() -> None:
    placed = placed_whole()
    assert at_the_end(WALK, placed.place)
    step, cycle = close_run(WALK, placed.place, completed=True)
    assert isinstance(step, StepEnded)
    assert isinstance(cycle, CycleEnded)
    assert (step.visit, step.ended_by) == (7, "voltage_V <= 2")
    assert (cycle.cycle, cycle.last_seq, cycle.complete) == (3, len(READINGS), True)


def test_a_run_that_is_stopped_in_a_cycle_leaves_it_incomplete() -> None:
    placed = place_readings(WALK, Place(run="r"), READINGS[:100])
    step, cycle = close_run(WALK, placed.place, completed=False, cause="stop")
    assert isinstance(step, StepEnded)
    assert isinstance(cycle, CycleEnded)
    assert (step.ended_by, cycle.complete) == ("stop", False)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(READINGS)), max_size=12))
def test_how_the_readings_are_cut_into_answers_leaves_no_trace(cuts: list[int]) -> None:
    whole = placed_whole()
    records, events, place = place_in_blocks(READINGS, cuts)
    for name in RECORD_COLUMNS:
        assert getattr(records, name).tobytes() == getattr(whole.records, name).tobytes()
    assert tuple(events) == whole.events
    assert place == whole.place


@settings(deadline=None)
@given(st.lists(st.integers(0, len(READINGS)), max_size=12))
def test_without_counters_the_integral_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    nothing = np.full(len(READINGS), math.nan)
    bare = dataclasses.replace(READINGS, step_charge_Ah=nothing, step_energy_Wh=nothing)
    whole = place_readings(WALK, Place(run="r"), bare)
    records, events, place = place_in_blocks(bare, cuts)
    assert records.charge_Ah.tobytes() == whole.records.charge_Ah.tobytes()
    assert records.energy_Wh.tobytes() == whole.records.energy_Wh.tobytes()
    assert (tuple(events), place) == (whole.events, whole.place)
    assert records.charge_Ah == pytest.approx(placed_whole().records.charge_Ah, abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, len(READINGS)), st.integers(0, len(READINGS)))
def test_readings_that_are_here_already_are_dropped(known: int, again_from: int) -> None:
    before = place_readings(WALK, Place(run="r"), READINGS[:known])
    again = place_readings(WALK, before.place, READINGS[min(again_from, known) :])
    assert len(before.records) + len(again.records) == len(READINGS)
    assert again.place == placed_whole().place


def test_lost_readings_are_a_gap_and_their_cycle_is_interrupted() -> None:
    first = place_readings(WALK, Place(run="r"), READINGS[:100])
    second = place_readings(WALK, first.place, READINGS[110:])
    gaps = [event for event in second.events if isinstance(event, GapRecorded)]
    cycles = [event for event in second.events if isinstance(event, CycleEnded)]
    assert [(gap.after_seq, "10 of its readings" in gap.reason) for gap in gaps] == [(100, True)]
    assert [(cycle.cycle, cycle.interrupted) for cycle in cycles] == [(1, True), (2, False)]
    assert second.records.seq[0] == 101


def test_a_small_discharge_within_a_charge_counts_as_discharge() -> None:
    current_A = READINGS.current_A.copy()
    dip = np.flatnonzero(READINGS.step == 1)[5:8]
    current_A[dip] = -1e-3
    nothing = np.full(len(READINGS), math.nan)
    readings = dataclasses.replace(
        READINGS, current_A=current_A, step_charge_Ah=nothing, step_energy_Wh=nothing
    )
    events = place_readings(WALK, Place(run="r"), readings).events
    first_charge = next(e for e in events if isinstance(e, StepEnded) and e.step == 2)
    assert first_charge.discharge_Ah == pytest.approx(1e-3 * 2 * 60 / 3600)


def test_an_instrument_in_a_step_where_the_program_cannot_be_is_an_error() -> None:
    odd = dataclasses.replace(READINGS, step=np.where(READINGS.step == 2, 0, READINGS.step))
    with pytest.raises(InstrumentError, match="step 1, where the program"):
        place_readings(WALK, Place(run="r"), odd)


def test_a_step_that_no_end_condition_explains_is_said_to_be_unknown() -> None:
    rows = np.r_[0:40, np.flatnonzero(READINGS.step == 2)[0] : len(READINGS)]
    cut = Readings(*(getattr(READINGS, f.name)[rows] for f in dataclasses.fields(Readings)))
    cut = dataclasses.replace(cut, onboard_index=np.arange(1, len(cut) + 1))
    events = place_readings(WALK, Place(run="r"), cut).events
    first_charge = next(e for e in events if isinstance(e, StepEnded) and e.step == 2)
    assert first_charge.ended_by == "unknown"
    assert discharge(2).ends


@settings(deadline=None)
@given(st.lists(st.integers(0, len(READINGS)), max_size=12), st.sets(st.integers(0, 300)))
def test_a_counter_that_is_missing_here_and_there_leaves_no_trace_of_the_cuts(
    cuts: list[int], missing: set[int]
) -> None:
    charge_Ah, energy_Wh = READINGS.step_charge_Ah.copy(), READINGS.step_energy_Wh.copy()
    charge_Ah[sorted(missing)] = math.nan
    energy_Wh[sorted(missing)] = math.nan
    holed = dataclasses.replace(READINGS, step_charge_Ah=charge_Ah, step_energy_Wh=energy_Wh)
    whole = place_readings(WALK, Place(run="r"), holed)
    records, events, place = place_in_blocks(holed, cuts)
    assert records.charge_Ah.tobytes() == whole.records.charge_Ah.tobytes()
    assert records.energy_Wh.tobytes() == whole.records.energy_Wh.tobytes()
    assert (tuple(events), place) == (whole.events, whole.place)
    assert records.charge_Ah == pytest.approx(placed_whole().records.charge_Ah, abs=1e-12)


@pytest.mark.parametrize("column", ["voltage_V", "current_A", "step_time_s"])
def test_a_reading_that_is_not_a_number_is_no_reading(column: str) -> None:
    values = getattr(READINGS, column).copy()
    values[41] = math.nan
    with pytest.raises(InstrumentError, match=f"{column} of the instrument's reading 42"):
        place_readings(WALK, Place(run="r"), dataclasses.replace(READINGS, **{column: values}))


def test_an_answer_that_brings_a_reading_twice_is_refused() -> None:
    index = READINGS.onboard_index.copy()
    index[10] = index[9]
    with pytest.raises(InstrumentError, match="reading 10 of the instrument comes after"):
        place_readings(WALK, Place(run="r"), dataclasses.replace(READINGS, onboard_index=index))
