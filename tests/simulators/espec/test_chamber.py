"""The chamber itself: how fast it warms and cools, how it settles, and when it gives alarm."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.simulators.espec.air import approached
from labctl.simulators.espec.chamber import (
    CONSTANT,
    FUSE_K,
    HIGH_TEMPERATURE,
    LOW_TEMPERATURE,
    OFF,
    STANDBY,
    Chamber,
)
from labctl.simulators.espec.config import ChamberConfig


def chamber(to_degC: float | None = None, **options: object) -> Chamber:
    made = Chamber(ChamberConfig(**{"noise_K": 0.0, **options}))  # type: ignore[arg-type]
    if to_degC is not None:
        made.settings.temperature_degC = to_degC
        made.switch(CONSTANT)
    return made


def test_it_warms_at_full_rate_and_then_comes_nearer_with_its_time_constant() -> None:
    made = chamber(60.0, heating_K_per_min=3.0, lag_s=60.0)
    made.advance(600.0)
    assert made.temperature_degC == pytest.approx(23.0 + 30.0)
    # 3 K below, which is the rate times the time constant, the heater is throttled.
    made.advance(220.0)
    assert made.temperature_degC == pytest.approx(60.0 - 3.0 * math.exp(-140.0 / 60.0))
    made.advance(3600.0)
    assert made.temperature_degC == pytest.approx(60.0)


def test_it_cools_more_slowly_than_it_warms() -> None:
    made = chamber(5.0, cooling_K_per_min=1.5)
    made.advance(300.0)
    assert made.temperature_degC == pytest.approx(23.0 - 7.5)


def test_standing_still_it_comes_back_to_the_room() -> None:
    made = chamber(60.0, leak_s=3600.0)
    made.advance(7200.0)
    made.switch(STANDBY)
    made.advance(600.0)
    # It leaks no faster than it can cool, and then with its own time constant.
    assert 45.0 < made.temperature_degC < 55.0
    made.advance(36_000.0)
    assert made.temperature_degC == pytest.approx(23.0, abs=0.1)


@given(
    value=st.floats(-50, 150),
    target=st.floats(-50, 150),
    for_s=st.floats(0, 1e5),
    share=st.floats(0, 1),
)
def test_two_short_times_are_as_one_long(
    value: float, target: float, for_s: float, share: float
) -> None:
    def after(start: float, duration_s: float) -> float:
        return approached(
            start, target, lag_s=60.0, up_per_s=0.05, down_per_s=0.025, for_s=duration_s
        )

    whole = after(value, for_s)
    assert after(after(value, share * for_s), (1 - share) * for_s) == pytest.approx(whole, abs=1e-6)
    assert min(value, target) - 1e-9 <= whole <= max(value, target) + 1e-9
    assert abs(whole - value) <= 0.05 * for_s + 1e-9


def test_a_reading_has_a_resolution_and_noise() -> None:
    made = chamber(noise_K=0.2)
    read = [made.measured[0] for _ in range(200)]
    assert all(round(value, 1) == value for value in read)
    assert sum(read) / len(read) == pytest.approx(23.0, abs=0.1)
    assert 0.1 < max(read) - 23.0 < 1.0
    again = chamber(noise_K=0.2)
    assert read == [again.measured[0] for _ in range(200)]


def test_above_its_limit_it_gives_alarm_and_stops() -> None:
    made = chamber(60.0)
    made.advance(3600.0)
    made.settings.high_degC = 55.0
    made.advance(10.0)
    assert (made.mode, made.alarms) == (STANDBY, [HIGH_TEMPERATURE])


def test_on_its_way_up_it_may_be_below_its_lower_limit() -> None:
    made = chamber(60.0)
    made.settings.low_degC = 50.0
    made.advance(3600.0)
    assert (made.mode, made.alarms) == (CONSTANT, [])
    made.settings.temperature_degC = 40.0
    made.advance(3600.0)
    assert made.alarms == [LOW_TEMPERATURE]


def test_an_alarm_ends_when_it_is_switched_off_and_its_cause_is_gone() -> None:
    made = chamber(60.0)
    made.advance(3600.0)
    made.settings.high_degC = 55.0
    made.advance(10.0)
    made.switch(OFF)
    assert made.alarms == [HIGH_TEMPERATURE]
    made.advance(36_000.0)
    assert made.alarms == [HIGH_TEMPERATURE]
    made.switch(OFF)
    assert made.alarms == []


def test_a_heater_that_stays_on_is_stopped_by_a_fuse_only() -> None:
    made = chamber()
    made.heater_stays_on = True
    made.advance(600.0)
    assert made.temperature_degC == pytest.approx(23.0 + 30.0)
    made.advance(36_000.0)
    assert made.temperature_degC == pytest.approx(100.0 + FUSE_K)
    assert made.alarms == [HIGH_TEMPERATURE]


def test_humidity_comes_to_what_it_is_set_to() -> None:
    made = chamber(30.0)
    made.settings.humidity = 80
    made.advance(7200.0)
    assert made.humidity == pytest.approx(80.0, abs=0.1)
    assert made.measured[1] in {79, 80, 81}


def test_a_long_time_that_nothing_happens_in_takes_no_long_time() -> None:
    made = chamber(60.0)
    made.advance(1e7)
    assert made.now_s == pytest.approx(1e7)
    assert made.temperature_degC == pytest.approx(60.0)
