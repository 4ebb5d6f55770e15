"""What is watched of a run: when a person is told, and when it is over."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.engine.watching import FROZEN_READINGS, FROZEN_S, LOST_S, Watch, patience_s
from labctl.model import Readings
from labctl.program import TemperatureAlarm

WARM = TemperatureAlarm(above_degC=45.0, below_degC=5.0, rate_K_per_s=2.0 / 60.0, for_s=60.0)


def readings(
    times_s: list[float],
    *,
    voltage_V: float | list[float] = 3.5,
    current_A: float | list[float] = 1e-3,
    temperature_degC: float | list[float] = 25.0,
) -> Readings:
    count = len(times_s)

    def column(value: float | list[float]) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, dtype=float), (count,)).copy()

    return Readings(
        onboard_index=np.arange(1, count + 1),
        step=np.zeros(count, dtype=np.int64),
        pass_mark=np.zeros(count, dtype=np.int64),
        step_time_s=np.asarray(times_s, dtype=float),
        unix_time_s=np.asarray(times_s, dtype=float),
        voltage_V=column(voltage_V),
        current_A=column(current_A),
        step_charge_Ah=column(math.nan),
        step_energy_Wh=column(math.nan),
        temperature_degC=column(temperature_degC),
    )


def told(watch: Watch) -> list[tuple[str, bool]]:
    return [(one.condition, one.holds) for one in watch.take_news()]


def trouble(watch: Watch, said: str, wall_s: float, *, link: bool = True) -> None:
    watch.see_trouble(said, wall_s, wall_s, link=link, poll_s=5.0)


def test_a_lost_connection_is_told_after_three_intervals_and_its_end_at_once() -> None:
    watch = Watch("run-1")
    for wall_s in (0.0, 5.0, 14.9):
        trouble(watch, "rack1: no connection", wall_s)
        assert told(watch) == []
    trouble(watch, "rack1: no connection", 15.0)
    [event] = watch.take_news()
    assert (event.condition, event.holds, event.run) == ("no-connection", True, "run-1")
    assert event.message == "rack1: no connection"
    for wall_s in (20.0, 4000.0):
        trouble(watch, "rack1: no route", wall_s)
    assert told(watch) == [], "once is enough"
    trouble(watch, "", 4001.0)
    [event] = watch.take_news()
    assert (event.holds, event.message) == (False, "over after 4001 s")


def test_a_connection_that_comes_and_goes_is_not_told_of() -> None:
    watch = Watch("run-1")
    for wall_s in range(0, 600, 10):
        trouble(watch, "no connection" if wall_s % 20 else "", float(wall_s))
    assert told(watch) == []


def test_what_is_no_connection_and_keeps_a_run_from_going_on_has_a_name_of_its_own() -> None:
    watch = Watch("run-1")
    trouble(watch, "no connection", 0.0)
    trouble(watch, "no connection", 20.0)
    trouble(watch, "the journal cannot be written", 21.0, link=False)
    trouble(watch, "the journal cannot be written", 40.0, link=False)
    assert told(watch) == [("no-connection", True), ("no-connection", False), ("stuck", True)]


@pytest.mark.parametrize(("interval_s", "expected_s"), [(0.1, 10.0), (5.0, 15.0), (600.0, 60.0)])
def test_patience_is_three_intervals_within_reason(interval_s: float, expected_s: float) -> None:
    assert patience_s(interval_s) == expected_s


def test_values_that_do_not_move_while_current_flows_are_told_until_they_move() -> None:
    watch = Watch("run-1")
    step_s = FROZEN_S / 20
    for place in range(40):
        watch.see(readings([place * step_s]), place * step_s)
        holds = place + 1 >= FROZEN_READINGS and place * step_s >= FROZEN_S
        assert ("frozen" in watch.standing) == holds
    watch.see(readings([41 * step_s], voltage_V=3.5001), 41 * step_s)
    assert told(watch) == [("frozen", True), ("frozen", False)]


def test_a_block_of_readings_that_came_at_once_is_judged_like_one_after_the_other() -> None:
    watch = Watch("run-1")
    times_s = [20.0 * place for place in range(60)]
    voltage_V = [3.5 + 0.001 * place for place in range(20)] + [3.6] * 40
    watch.see(readings(times_s, voltage_V=voltage_V), times_s[-1])
    assert told(watch) == [("frozen", True)]


@pytest.mark.parametrize(
    "quiet",
    [
        {"current_A": 0.0},
        {"voltage_V": [3.5, 3.5001] * 50},
        {"current_A": [1e-3, 0.999e-3] * 50, "voltage_V": 4.1},
    ],
    ids=["rest", "a plateau with noise", "a held voltage"],
)
def test_a_cell_at_work_or_at_rest_is_not_frozen(quiet: dict[str, float | list[float]]) -> None:
    watch = Watch("run-1")
    watch.see(readings([60.0 * place for place in range(100)], **quiet), 6000.0)
    assert told(watch) == []


def test_a_temperature_that_was_known_and_is_not_any_more_is_told_after_a_minute() -> None:
    watch = Watch("run-1")
    watch.see(readings([0.0], temperature_degC=math.nan), 0.0)
    watch.see(readings([500.0], temperature_degC=math.nan), 500.0)
    assert told(watch) == [], "it was never known"
    watch.see(readings([600.0]), 600.0)
    watch.see(readings([600.0 + LOST_S], temperature_degC=math.nan), 660.0)
    assert told(watch) == []
    watch.see(readings([601.0 + LOST_S], temperature_degC=math.nan), 661.0)
    watch.see(readings([700.0]), 700.0)
    assert told(watch) == [("temperature-lost", True), ("temperature-lost", False)]


def test_a_cell_that_is_too_warm_for_a_minute_is_told_and_over_when_it_is_cool_for_as_long() -> (
    None
):
    watch = Watch("run-1", WARM)
    course = [
        (0, 44.9),
        (10, 46),
        (40, 44),
        (50, 46),
        (100, 46),
        (110, 46.5),
        (120, 46),
        (130, 44.5),
    ]
    for time_s, value_degC in course:
        watch.see(readings([time_s], temperature_degC=value_degC), time_s)
    [event] = [one for one in watch.take_news() if one.condition == "temperature"]
    assert event.unix_time_s == 110
    assert (event.value, event.limit, event.unit) == (46.5, 45.0, "degC")
    assert "46.5 degC for 60 s; the limit is 45 degC" in event.message
    for time_s in (140, 160, 199):
        watch.see(readings([time_s], temperature_degC=43.9), time_s)
        assert "temperature" in watch.standing, "44.5 degC was within the deadband"
    watch.see(readings([200.0], temperature_degC=43.9), 200.0)
    assert "temperature" not in watch.standing


def test_a_temperature_that_runs_away_is_told_before_it_is_too_high() -> None:
    watch = Watch("run-1", WARM)
    for time_s in range(0, 300, 10):
        value_degC = 25.0 + max(0, time_s - 100) * 3.0 / 60.0
        watch.see(readings([time_s], temperature_degC=value_degC), time_s)
    assert told(watch) == [("temperature-rate", True)]


def test_no_reading_in_three_intervals_is_silence_unless_time_only_runs_fast() -> None:
    watch = Watch("run-1")
    watch.see(readings([0.0]), 0.0)
    for time_s in range(0, 100, 5):
        watch.see_nothing(time_s, time_s, interval_s=30.0)
    [event] = watch.take_news()
    assert (event.condition, event.value, event.limit) == ("silent", 95.0, 30.0)
    assert event.message == "no reading for 95 s; one is due every 30 s"
    watch.see(readings([100.0]), 100.0)
    assert told(watch) == [("silent", False)]
    for place in range(50):
        watch.see_nothing(100.0 + 300.0 * place, 100.0 + place / 10, interval_s=30.0)
    assert told(watch) == []


def test_what_was_told_before_a_restart_is_not_told_again_and_its_end_is() -> None:
    watch = Watch("run-1", standing=("no-connection",))
    trouble(watch, "no connection", 0.0)
    trouble(watch, "no connection", 100.0)
    assert told(watch) == []
    trouble(watch, "", 110.0)
    assert told(watch) == [("no-connection", False)]


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 400.0),
            st.sampled_from([3.5, 3.6]),
            st.sampled_from([0.0, 1e-3]),
            st.sampled_from([25.0, 44.5, 46.0, 80.0, math.nan]),
            st.booleans(),
        ),
        max_size=80,
    )
)
def test_every_condition_begins_before_it_ends_and_what_stands_is_what_was_told(
    course: list[tuple[float, float, float, float, bool]],
) -> None:
    watch, now_s = Watch("run-1", WARM), 0.0
    known: set[str] = set()
    for wait_s, voltage_V, current_A, temperature_degC, away in course:
        now_s += wait_s
        trouble(watch, "away" if away else "", now_s)
        if not away:
            watch.see(
                readings(
                    [now_s], voltage_V=voltage_V, current_A=current_A,
                    temperature_degC=temperature_degC,
                ),
                now_s,
            )  # fmt: skip
        for condition, holds in told(watch):
            assert holds == (condition not in known)
            known ^= {condition}
        assert known == set(watch.standing)
