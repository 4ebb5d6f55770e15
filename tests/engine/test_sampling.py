"""What is kept of a source's samples, and when a visit ends."""

from __future__ import annotations

import dataclasses
import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe
from labctl.engine.ends import holds, slope_window_s, slopes
from labctl.engine.limits import beyond as beyond_one
from labctl.engine.sampling import Sampled, Sampler, as_readings, last_record
from labctl.errors import InstrumentError
from labctl.model import FloatColumn, Readings
from labctl.program import (
    Comparison,
    ConstantCurrent,
    EndCondition,
    Limits,
    Quantity,
    RecordRule,
    Step,
)

CAPABILITIES = Capabilities(
    techniques=frozenset({"constant_current"}),
    voltage_min_V=-5.0,
    voltage_max_V=5.0,
    current_ranges=(CurrentRange(1e-3, 1e-9),),
    fastest_record_s=0.1,
    failsafe=Failsafe.ONBOARD,
)
LIMITS = Limits(
    voltage_min_V=1.0,
    voltage_max_V=4.4,
    current_min_A=-1e-3,
    current_max_A=1e-3,
    step_charge_max_Ah=1e-3,
    duration_max_s=1e6,
)
TIME = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 3600.0)


def a_step(*ends: EndCondition, record: RecordRule | None = None) -> Step:
    rule = record or RecordRule(every_s=10.0)
    return Step(0, "charge", ConstantCurrent(1e-4), (*ends, TIME), rule)


def readings(
    voltages: list[float], *, every_s: float = 1.0, current_A: float = 1e-4, first: int = 0
) -> Readings:
    count = len(voltages)
    numbers = np.arange(first, first + count)
    unknown = np.full(count, math.nan)
    return Readings(
        onboard_index=numbers + 1,
        step=np.zeros(count, dtype=np.int64),
        pass_mark=np.zeros(count, dtype=np.int64),
        step_time_s=numbers * every_s,
        unix_time_s=1.8e9 + numbers * every_s,
        voltage_V=np.array(voltages),
        current_A=np.full(count, current_A),
        step_charge_Ah=unknown,
        step_energy_Wh=unknown,
        temperature_degC=unknown,
    )


def sample(
    step: Step, limits: Limits, capabilities: Capabilities, state: Sampled, more: Readings
) -> tuple[Sampled, Readings, EndCondition | None, str]:
    state, rows, end, limit = Sampler(step, limits, capabilities).sample(state, more)
    return state, as_readings(rows), end, limit


def test_a_visit_ends_at_the_first_sample_that_meets_an_end() -> None:
    full = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1)
    rising = readings([4.0, 4.05, 4.11, 4.2])
    _, kept, end, beyond = sample(a_step(full), LIMITS, CAPABILITIES, Sampled(), rising)
    assert (end, beyond) == (full, "")
    assert kept.voltage_V.tolist() == [4.0, 4.11]


def test_a_limit_comes_before_an_end() -> None:
    full = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1)
    leap = readings([4.0, 4.5])
    _, kept, end, beyond = sample(a_step(full), LIMITS, CAPABILITIES, Sampled(), leap)
    assert end is None
    assert "4.5 V is outside its limits 1 .. 4.4 V" in beyond
    assert kept.voltage_V.tolist() == [4.0, 4.5]


def test_charge_is_counted_of_every_sample_and_kept_with_those_recorded() -> None:
    _, kept, _, _ = sample(a_step(), LIMITS, CAPABILITIES, Sampled(), readings([3.0] * 21))
    assert kept.step_time_s.tolist() == [0.0, 10.0, 20.0]
    assert kept.step_charge_Ah == pytest.approx([0.0, 1e-4 * 10 / 3600, 1e-4 * 20 / 3600])


def test_an_end_by_charge_counts_what_was_before_a_gap() -> None:
    enough = EndCondition(Quantity.STEP_CHARGE_AH, Comparison.AT_LEAST, 1e-4)
    state = Sampled(done_s=3000.0, done_Ah=9.9e-5, run_charge_Ah=5e-4)
    _, kept, end, _ = sample(a_step(enough), LIMITS, CAPABILITIES, state, readings([3.0] * 60))
    assert end == enough
    assert kept.step_time_s[-1] == pytest.approx(36.0)


def test_a_rest_ends_when_the_voltage_stands_still() -> None:
    still = EndCondition(Quantity.VOLTAGE_SLOPE_V_PER_S, Comparison.AT_MOST, 1e-3 / 3600)
    relaxing = [3.0 - 0.05 * math.exp(-t / 600) for t in range(0, 14400, 10)]
    step = msgspec.structs.replace(a_step(still), ends=(still,))
    state, _, end, _ = sample(
        step, LIMITS, CAPABILITIES, Sampled(), readings(relaxing, every_s=10.0, current_A=0.0)
    )
    assert end == still
    slope_V_per_s = 0.05 / 600 * math.exp(-state.time_s / 600)
    assert slope_V_per_s < 1e-3 / 3600
    assert 600 * math.log(300) < state.time_s < 600 * math.log(300) + 1800


def test_the_last_sample_of_a_visit_that_something_else_ends_is_recorded() -> None:
    block = readings([3.0, 3.1, 3.2])
    state, kept, _, _ = sample(a_step(), LIMITS, CAPABILITIES, Sampled(), block)
    assert kept.step_time_s.tolist() == [0.0]
    assert last_record(state, block).step_time_s.tolist() == [2.0]


def test_a_last_sample_that_was_recorded_is_not_recorded_again() -> None:
    block = readings([3.0, 3.1, 3.2], every_s=10.0)
    state, kept, _, _ = sample(a_step(), LIMITS, CAPABILITIES, Sampled(), block)
    assert kept.step_time_s.tolist() == [0.0, 10.0, 20.0]
    assert len(last_record(state, block)) == 0


@pytest.mark.parametrize(
    ("rule", "times"),
    [
        (RecordRule(every_s=3.0), [0, 3, 6, 9]),
        (RecordRule(every_s=100.0, voltage_change_V=0.2), [0, 2, 4, 6, 8, 10]),
        (RecordRule(every_s=100.0, current_change_A=1e-4), [0, 5, 10]),
        (RecordRule(every_s=100.0, charge_change_Ah=1e-4 * 4 / 3600), [0, 4, 7, 9]),
    ],
)
def test_a_record_is_made_at_each_change_that_the_rule_names(
    rule: RecordRule, times: list[int]
) -> None:
    rising = readings([3.0 + 0.1 * n for n in range(11)])
    current_A = np.array([1e-4] * 5 + [2e-4] * 5 + [3e-4])
    rising = dataclasses.replace(rising, current_A=current_A)
    _, kept, _, _ = sample(a_step(record=rule), LIMITS, CAPABILITIES, Sampled(), rising)
    assert kept.step_time_s.tolist() == times


def test_a_step_limit_of_charge_counts_what_was_before_a_gap() -> None:
    state = Sampled(done_Ah=1.0499e-3)
    _, kept, _, beyond = sample(a_step(), LIMITS, CAPABILITIES, state, readings([3.0] * 60))
    assert "charge 0.00105" in beyond
    assert kept.step_time_s[-1] == 4.0


def test_the_room_that_measuring_needs_is_left_beside_a_limit() -> None:
    good = readings([4.404, 4.404])
    state, _, _, beyond = sample(a_step(), LIMITS, CAPABILITIES, Sampled(), good)
    assert beyond == ""
    worse = readings([4.404, 4.406], first=2)
    assert "4.406 V" in sample(a_step(), LIMITS, CAPABILITIES, state, worse)[3]


def test_readings_that_come_twice_or_backwards_are_refused() -> None:
    block = readings([3.0, 3.1, 3.2])
    state, _, _, _ = sample(a_step(), LIMITS, CAPABILITIES, Sampled(), block)
    with pytest.raises(InstrumentError, match="reading 3 of a visit"):
        sample(a_step(), LIMITS, CAPABILITIES, state, block[2:])
    back = dataclasses.replace(block, onboard_index=block.onboard_index + 3)
    with pytest.raises(InstrumentError, match="reading 4 of a visit, at 0 s"):
        sample(a_step(), LIMITS, CAPABILITIES, state, back)
    odd = dataclasses.replace(block, voltage_V=np.array([3.0, math.nan, 3.2]))
    with pytest.raises(InstrumentError, match="voltage_V of reading 2"):
        sample(a_step(), LIMITS, CAPABILITIES, Sampled(), odd)


_ENDS = st.builds(
    EndCondition,
    st.sampled_from(list(Quantity)),
    st.sampled_from(list(Comparison)),
    st.sampled_from([-1e-7, 1e-9, 1e-7, 5e-5, 1e-4, 7.0, 0.05, 2.5, 3.5, 20.0, 26.0]),
)
_RULES = st.builds(
    RecordRule,
    st.sampled_from([0.1, 3.0, 7.0, 1e9]),
    st.sampled_from([math.inf, 0.5]),
    st.sampled_from([math.inf, 5e-5]),
    st.sampled_from([math.inf, 1e-7]),
)
_NOW_AND_THEN = st.sampled_from([math.nan, math.nan, math.nan, 1e-7, 2e-7])


@st.composite
def _blocks(draw: st.DrawFn) -> Readings:
    """Up to 40 readings at uneven times, with counters here and there."""
    count = draw(st.integers(1, 40))

    def column(values: st.SearchStrategy[float]) -> FloatColumn:
        return np.array(draw(st.lists(values, min_size=count, max_size=count)))

    counted = draw(st.sampled_from([_NOW_AND_THEN, st.just(math.nan), st.floats(-1e-6, 1e-6)]))
    time_s = np.cumsum(column(st.floats(0.0, 3.0)))
    return Readings(
        onboard_index=np.arange(1, count + 1),
        step=np.zeros(count, dtype=np.int64),
        pass_mark=np.zeros(count, dtype=np.int64),
        step_time_s=time_s,
        unix_time_s=1.8e9 + time_s,
        voltage_V=column(st.floats(1.5, 4.45)),
        current_A=column(st.floats(-1.2e-4, 1.2e-4)),
        step_charge_Ah=column(counted),
        step_energy_Wh=column(counted),
        temperature_degC=column(st.sampled_from([math.nan, 25.0, 26.0])),
    )


class Sampling:
    """What comes of readings that are looked at in pieces, until the visit is over."""

    def __init__(self, step: Step, whole: Readings, cuts: list[int], state: Sampled) -> None:
        edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
        self.kept: list[Readings] = []
        self.end: EndCondition | None = None
        self.beyond = ""
        for first, last in itertools.pairwise(edges):
            state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Sampled)
            state, kept, self.end, self.beyond = sample(
                step, LIMITS, CAPABILITIES, state, whole[first:last]
            )
            self.kept.append(kept)
            if self.end is not None or self.beyond:
                break
        self.state = state

    def column(self, name: str) -> bytes:
        return b"".join(getattr(block, name).tobytes() for block in self.kept)


_STATES = st.sampled_from([Sampled(), Sampled(done_s=5.0, done_Ah=1e-7, run_charge_Ah=2e-7)])


@settings(deadline=None)
@given(
    _blocks(),
    st.lists(_ENDS, max_size=3),
    _RULES,
    st.lists(st.integers(0, 40), max_size=5),
    _STATES,
)
def test_how_samples_are_cut_into_looks_leaves_no_trace(
    whole: Readings, ends: list[EndCondition], rule: RecordRule, cuts: list[int], state: Sampled
) -> None:
    step = a_step(*ends, record=rule)
    at_once = Sampling(step, whole, [], state)
    in_parts = Sampling(step, whole, cuts, state)
    for name in whole.__dataclass_fields__:
        assert in_parts.column(name) == at_once.column(name)
    assert (in_parts.end, in_parts.beyond) == (at_once.end, at_once.beyond)
    assert msgspec.msgpack.encode(in_parts.state) == msgspec.msgpack.encode(at_once.state)


@settings(deadline=None)
@given(_blocks(), st.lists(_ENDS, min_size=1, max_size=3), _RULES)
def test_an_end_or_a_limit_acts_at_the_first_reading_that_shows_it(
    whole: Readings, ends: list[EndCondition], rule: RecordRule
) -> None:
    """Reading by reading, with the conditions' own words: within one sample period."""
    step = a_step(*ends, record=rule)
    at_once = Sampling(step, whole, [], Sampled())
    state = Sampled()
    for row in range(len(whole)):
        state, _, _, beyond = sample(
            msgspec.structs.replace(step, ends=()),
            LIMITS,
            CAPABILITIES,
            state,
            whole[row : row + 1],
        )
        limits = (state.voltage_V, state.current_A, state.temperature_degC, state.passed_Ah)
        assert bool(beyond) == bool(
            beyond_one(
                LIMITS,
                CAPABILITIES,
                voltage_V=limits[0],
                current_A=limits[1],
                temperature_degC=limits[2],
                step_charge_Ah=limits[3],
            )
        )
        met = [
            end
            for end in step.ends
            if holds(end, _with_slope(step, whole, row, state), exactly=True)
        ]
        if beyond or met:
            assert at_once.beyond == beyond
            assert at_once.end == (None if beyond else met[0])
            assert at_once.state.samples == row + 1
            assert at_once.kept[-1].onboard_index[-1] == row + 1
            return
    assert at_once.end is None
    assert at_once.beyond == ""
    assert at_once.state.samples == len(whole)


def _with_slope(step: Step, whole: Readings, row: int, state: Sampled) -> Sampled:
    """The state as it is where the step's ends look at dV/dt: worked out anew."""
    window_s = slope_window_s(step)
    if not window_s:
        return state
    rows = zip(
        whole.step_time_s[: row + 1].tolist(), whole.voltage_V[: row + 1].tolist(), strict=True
    )
    return msgspec.structs.replace(state, slope_V_per_s=slopes((), rows, window_s)[1][-1])


@settings(deadline=None)
@given(_blocks(), _RULES)
def test_records_carry_the_charge_of_every_sample_and_are_as_close_as_the_rule_says(
    whole: Readings, rule: RecordRule
) -> None:
    bare = dataclasses.replace(whole, step_charge_Ah=np.full(len(whole), math.nan))
    bare = dataclasses.replace(bare, voltage_V=np.full(len(whole), 3.0))
    sampling = Sampling(a_step(record=rule), bare, [], Sampled())
    [kept] = sampling.kept
    time_s, current_A = bare.step_time_s, bare.current_A
    means_A = np.r_[current_A[0], (current_A[1:] + current_A[:-1]) / 2.0]
    charge_Ah = np.cumsum(np.diff(time_s, prepend=0.0) / 3600.0 * means_A)
    rows = kept.onboard_index - 1
    assert kept.step_charge_Ah == pytest.approx(charge_Ah[rows], abs=1e-15)
    left_out = np.setdiff1d(np.arange(len(bare)), rows)
    for row in left_out.tolist():
        last = int(rows[rows < row].max())
        assert time_s[row] - time_s[last] < rule.every_s
        assert abs(current_A[row] - current_A[last]) < rule.current_change_A
        assert abs(charge_Ah[row] - charge_Ah[last]) < rule.charge_change_Ah + 1e-15


def test_readings_that_come_a_little_unevenly_are_recorded_as_often_as_the_rule_says() -> None:
    uneven = readings([3.0] * 50, every_s=0.1)
    jitter_s = np.array([0.0, *([0.004, -0.004, -0.002, 0.003, 0.0] * 10)[:49]])
    uneven = dataclasses.replace(uneven, step_time_s=uneven.step_time_s + jitter_s)
    step = a_step(record=RecordRule(every_s=0.1))
    assert len(sample(step, LIMITS, CAPABILITIES, Sampled(), uneven)[1]) == 50
    seldom = a_step(record=RecordRule(every_s=1.0))
    assert len(sample(seldom, LIMITS, CAPABILITIES, Sampled(), uneven)[1]) == 5
