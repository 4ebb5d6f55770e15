"""Which end condition a visit met, by what its last record says."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_programs import program_of

from labctl.engine.ends import condition_that_ended, holds, slope_window_s, slopes
from labctl.engine.placement import Place, ended_by, place_readings
from labctl.engine.walk import Walk
from labctl.model import Readings
from labctl.program import (
    Comparison,
    EndCondition,
    Quantity,
    RecordRule,
    Rest,
    Step,
    Then,
)
from labctl.stream.events import Event, StepEnded

MILLIVOLT_AN_HOUR = 1e-3 / 3600.0

PLACE = Place(
    run="r",
    seq=10,
    visit=2,
    voltage_V=4.1,
    current_A=-2e-3,
    step_time_s=1800.0,
    charge_Ah=3e-3,
    energy_Wh=9e-3,
    visit_start_charge_Ah=4e-3,
    visit_start_energy_Wh=13e-3,
    known_temperature_degC=30.0,
    known_slope_V_per_s=-1e-4,
)


def end(
    quantity: Quantity, value: float, *, at_least: bool = True, then: Then = Then.NEXT
) -> EndCondition:
    comparison = Comparison.AT_LEAST if at_least else Comparison.AT_MOST
    return EndCondition(quantity, comparison, value, then)


def a_step(*ends: EndCondition) -> Step:
    return Step(0, "rest", Rest(), ends, RecordRule())


@pytest.mark.parametrize(
    ("quantity", "actual", "beside"),
    [
        (Quantity.VOLTAGE_V, 4.1, 1.5e-3),
        (Quantity.CURRENT_A, 2e-3, 3e-6),
        (Quantity.STEP_TIME_S, 1800.0, 0.1),
        (Quantity.STEP_CHARGE_AH, 1e-3, 1.5e-6),
        (Quantity.STEP_ENERGY_WH, 4e-3, 7e-6),
        (Quantity.RUN_CHARGE_AH, 3e-3, 5e-6),
        (Quantity.VOLTAGE_SLOPE_V_PER_S, 1e-4, 5e-6),
        (Quantity.TEMPERATURE_DEGC, 30.0, 0.05),
    ],
)
def test_every_quantity_ends_a_step_at_its_value_and_a_little_beside_it(
    quantity: Quantity, actual: float, beside: float
) -> None:
    for at_least, away in ((True, 1.0), (False, -1.0)):
        for miss, exactly, roughly in (
            (-1e-9, True, True), (beside, False, True), (3 * beside, False, False),
        ):  # fmt: skip
            condition = end(quantity, actual + away * miss, at_least=at_least)
            assert holds(condition, PLACE, exactly=True) == exactly
            assert holds(condition, PLACE, exactly=False) == roughly


def test_what_is_not_known_ends_nothing() -> None:
    unknown = msgspec.structs.replace(PLACE, known_temperature_degC=None, known_slope_V_per_s=None)
    for quantity in (Quantity.TEMPERATURE_DEGC, Quantity.VOLTAGE_SLOPE_V_PER_S):
        for at_least in (True, False):
            assert not holds(end(quantity, 0.0, at_least=at_least), unknown, exactly=False)


def test_the_net_charge_of_the_run_is_signed() -> None:
    assert holds(end(Quantity.RUN_CHARGE_AH, 0.0), PLACE, exactly=True)
    below_zero = msgspec.structs.replace(PLACE, charge_Ah=-3e-3)
    assert not holds(end(Quantity.RUN_CHARGE_AH, 0.0), below_zero, exactly=False)
    back_to_zero = msgspec.structs.replace(PLACE, charge_Ah=-1e-6)
    assert holds(end(Quantity.RUN_CHARGE_AH, 0.0), back_to_zero, exactly=False)


def test_an_end_that_is_met_comes_before_one_that_is_nearly_met() -> None:
    nearly = end(Quantity.VOLTAGE_V, 4.1015)
    timed = end(Quantity.STEP_TIME_S, 1800.0)
    assert condition_that_ended(a_step(nearly, timed), PLACE) == timed
    nearer = end(Quantity.STEP_TIME_S, 1800.01)
    assert condition_that_ended(a_step(nearly, nearer), PLACE) == nearer
    assert ended_by(a_step(nearly), PLACE) == str(nearly)


def test_no_end_is_named_where_none_is_near() -> None:
    assert ended_by(a_step(end(Quantity.VOLTAGE_V, 4.2)), PLACE) == "unknown"


def test_only_ends_that_lead_there_are_asked_about() -> None:
    on, out = end(Quantity.VOLTAGE_V, 4.0), end(Quantity.VOLTAGE_V, 4.1, then=Then.LEAVE_LOOP)
    assert condition_that_ended(a_step(on, out), PLACE) == on
    assert condition_that_ended(a_step(on, out), PLACE, Then.LEAVE_LOOP) == out


def test_a_slope_of_a_millivolt_an_hour_is_looked_for_over_half_an_hour() -> None:
    slow = end(Quantity.VOLTAGE_SLOPE_V_PER_S, MILLIVOLT_AN_HOUR, at_least=False)
    fast = end(Quantity.VOLTAGE_SLOPE_V_PER_S, 1e-3, at_least=False)
    assert slope_window_s(a_step(slow)) == pytest.approx(1800.0)
    assert slope_window_s(a_step(fast)) == 10.0
    assert slope_window_s(a_step(slow, fast)) == pytest.approx(1800.0)
    assert slope_window_s(a_step(end(Quantity.VOLTAGE_V, 4.1))) == 0.0


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 60.0))
def test_noise_of_a_tenth_of_a_millivolt_does_not_hide_a_slope(seed: int, every_s: float) -> None:
    window_s = 1800.0
    noise = itertools.cycle([1e-4, -1e-4, 0.7e-4, -0.3e-4, (seed % 7 - 3) * 3e-5])
    rows = [
        (n * every_s, 3.0 + 2.0 * MILLIVOLT_AN_HOUR * n * every_s + next(noise))
        for n in range(int(3 * window_s / every_s))
    ]
    _, found = slopes((), rows, window_s)
    known = [slope for slope in found if not math.isnan(slope)]
    assert all(MILLIVOLT_AN_HOUR < slope < 3.0 * MILLIVOLT_AN_HOUR for slope in known)
    assert all(
        math.isnan(slope)
        for (time_s, _), slope in zip(rows, found, strict=True)
        if time_s < window_s
    )
    assert known


@given(
    st.lists(st.tuples(st.floats(0.01, 30.0), st.floats(2.0, 4.0)), min_size=1, max_size=60),
    st.integers(0, 60),
    st.floats(1.0, 100.0),
)
def test_a_slope_does_not_depend_on_how_readings_are_cut_and_few_are_remembered(
    steps: list[tuple[float, float]], cut: int, window_s: float
) -> None:
    times_s = itertools.accumulate(step for step, _ in steps)
    rows = [(time_s, voltage_V) for time_s, (_, voltage_V) in zip(times_s, steps, strict=True)]
    points, found = slopes((), rows, window_s)
    first_points, first = slopes((), rows[:cut], window_s)
    last_points, last = slopes(first_points, rows[cut:], window_s)
    assert (last_points, repr([*first, *last])) == (points, repr(found))
    assert len(points) <= 20
    for (time_s, voltage_V), slope in zip(rows, found, strict=True):
        earlier = [row for row in rows if row[0] <= time_s - window_s]
        assert bool(earlier) >= (not math.isnan(slope))
        if not math.isnan(slope):
            assert slope in [
                (voltage_V - from_V) / (time_s - since_s) for since_s, from_V in earlier
            ]


@given(st.integers(1, 120), st.integers(1, 120))
def test_a_rest_that_ends_by_slope_says_so_however_its_readings_come(
    first: int, second: int
) -> None:
    still = end(Quantity.VOLTAGE_SLOPE_V_PER_S, 1e-5, at_least=False)
    timed = end(Quantity.STEP_TIME_S, 7200.0)
    walk = Walk(program_of(a_step(still, timed), a_step(timed)))
    count = 121
    time_s = np.arange(count) * 10.0
    unknown = np.full(count, math.nan)
    readings = Readings(
        onboard_index=np.arange(1, count + 1),
        step=np.r_[np.zeros(count - 1, dtype=np.int64), 1],
        pass_mark=np.zeros(count, dtype=np.int64),
        step_time_s=np.r_[time_s[:-1], 0.0],
        unix_time_s=1.8e9 + time_s,
        voltage_V=3.0 + 0.05 * np.exp(-time_s / 250.0),
        current_A=np.zeros(count),
        step_charge_Ah=unknown,
        step_energy_Wh=unknown,
        temperature_degC=unknown,
    )
    place = Place(run="r")
    events: list[Event] = []
    for rows in itertools.pairwise([0, *sorted({first, second}), count]):
        placed = place_readings(walk, place, readings[slice(*rows)])
        place = msgspec.msgpack.decode(msgspec.msgpack.encode(placed.place), type=Place)
        events += placed.events
    [ended] = events
    assert isinstance(ended, StepEnded)
    assert ended.ended_by == str(still)
    assert place.slope_points == ()
