"""What is kept of a source's samples, and when a visit ends."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe
from labctl.engine.sampling import Sampled, last_record, sample
from labctl.model import Readings
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


_voltages = st.lists(st.floats(1.5, 4.3), min_size=1, max_size=60)


@given(_voltages, st.lists(st.integers(0, 60), max_size=4), st.floats(2.0, 4.2))
def test_how_samples_are_cut_into_looks_leaves_no_trace(
    voltages: list[float], cuts: list[int], target_V: float
) -> None:
    step = a_step(
        EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, target_V),
        record=RecordRule(every_s=7.0, voltage_change_V=0.5),
    )
    whole = readings(voltages)
    state, kept, end, _ = sample(step, LIMITS, CAPABILITIES, Sampled(), whole)
    cut_state, times, charges, cut_end = Sampled(), [], [], None
    edges = [0, *sorted(min(cut, len(voltages)) for cut in cuts), len(voltages)]
    for first, last in itertools.pairwise(edges):
        cut_state = msgspec.msgpack.decode(msgspec.msgpack.encode(cut_state), type=Sampled)
        cut_state, part, cut_end, _ = sample(
            step, LIMITS, CAPABILITIES, cut_state, whole[slice(first, last)]
        )
        times += part.step_time_s.tolist()
        charges += part.step_charge_Ah.tolist()
        if cut_end is not None:
            break
    assert (times, charges) == (kept.step_time_s.tolist(), kept.step_charge_Ah.tolist())
    assert cut_end == end
    assert cut_state.passed_Ah == state.passed_Ah


@given(_voltages, st.floats(2.0, 4.2))
def test_an_end_fires_within_one_sample_period(voltages: list[float], target_V: float) -> None:
    full = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, target_V)
    _, kept, end, _ = sample(
        a_step(full), LIMITS, CAPABILITIES, Sampled(), readings(voltages, every_s=0.5)
    )
    crossed = [row for row, voltage_V in enumerate(voltages) if voltage_V >= target_V]
    if crossed:
        assert end == full
        assert kept.step_time_s[-1] == crossed[0] * 0.5
    else:
        assert end is None
