"""When readings are kept where a recipe does not say it, and that what it says wins."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.program import Program, RecordRule
from labctl.protocols.techniques.recording import (
    FASTEST_S,
    of_a_current,
    of_a_hold,
    of_a_pulse,
    of_a_rest,
    of_a_sweep,
    of_a_titration,
)

Compile = Callable[..., Program]


def rule(compiled: Compile, step: str, head: str = "") -> RecordRule:
    return compiled(f"  - {step}\n", head).steps[0].record


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("rest: 10 s", RecordRule(1.0, 0.002)),
        ("rest: 10 min", RecordRule(5.0, 0.002)),
        ("rest: 1 h", RecordRule(30.0, 0.002)),
        ("rest: 12 h", RecordRule(300.0, 0.002)),
        ("charge: {at: 0.05C, until: 4.1 V}", RecordRule(30.0, 0.01)),
        ("charge: {at: 0.2C, until: 4.1 V}", RecordRule(30.0, 0.01)),
        ("charge: {at: 1C, until: 4.1 V}", RecordRule(20.0, 0.01)),
        ("discharge: {at: 5C, until: 1.5 V}", RecordRule(4.0, 0.01)),
        ("discharge: {at: 50C, until: 1.5 V}", RecordRule(0.4, 0.01)),
        ("charge: {at: 1C, for: 3 min}", RecordRule(1.0, 0.01)),
        ("charge: {at: 1C, until: 10 mAh/g}", RecordRule(2.0, 0.01)),
        ("discharge: {at: 0.1 W/g, until: 1.5 V}", RecordRule(30.0, 0.01)),
        ("discharge: {at: 20 W/g, until: 1.5 V}", RecordRule(0.3, 0.01)),
        ("discharge: {into: 100 ohm, until: 1.5 V}", RecordRule(0.1, 0.01)),
        ("hold: {voltage: 4.1 V, until: 0.02C, direction: charge}",
         RecordRule(10.0, current_change_A=4e-6)),
        ("hold: {voltage: 4.1 V, for: 5 min, direction: charge}",
         RecordRule(2.0, current_change_A=2e-6)),
        ("impedance: {from: 1 kHz, to: 1 Hz, amplitude: 10 mV}", RecordRule(10.0)),
        ("wait: {for signal: a}", RecordRule(60.0, 0.005)),
        ("signal: a", RecordRule(60.0)),
        ("temperature: 25 degC", RecordRule(60.0, 0.005)),
    ],
)  # fmt: skip
def test_a_step_without_a_record_is_kept_as_finely_as_it_is_short(
    compiled: Compile, step: str, expected: RecordRule
) -> None:
    assert rule(compiled, step) == expected


def test_a_half_cycle_of_a_minute_at_50C_has_a_hundred_readings_by_time_alone(
    compiled: Compile,
) -> None:
    assert 60.0 / rule(compiled, "charge: {at: 50C, until: 4.1 V}").every_s >= 100


def test_what_the_recipe_or_the_step_writes_wins(compiled: Compile) -> None:
    charge = "charge: {at: 50C, until: 4.1 V RECORD}"

    def of(record: str = "", head: str = "") -> RecordRule:
        inner = f", record: {record}" if record else ""
        return rule(compiled, charge.replace(" RECORD", inner), head)

    assert of("1 s") == RecordRule(1.0)
    assert of(head="record: 1 s\n") == RecordRule(1.0)
    assert of("5 s", "record: {every: 1 s, voltage_change: 5 mV}\n") == RecordRule(5.0, 0.005)
    assert of("{voltage_change: off}", "record: {every: 1 s, voltage_change: 5 mV}\n") == (
        RecordRule(1.0)
    )
    assert of("{every: off}", "record: {every: 1 s, voltage_change: 5 mV}\n") == (
        RecordRule(math.inf, 0.005)
    )


def test_every_is_the_techniques_where_only_other_changes_are_written(compiled: Compile) -> None:
    assert rule(compiled, "charge: {at: 50C, until: 4.1 V, record: {voltage_change: 5 mV}}") == (
        RecordRule(0.4, 0.005)
    )
    head = "record: {current_change: 10 uA}\n"
    assert rule(compiled, "rest: 12 h", head) == RecordRule(300.0, current_change_A=1e-5)


def test_readings_can_be_kept_by_the_charge_that_has_passed(compiled: Compile) -> None:
    step = "charge: {at: 1C, until: 4.1 V, record: {charge_change: CHANGE}}"
    for written, charge_Ah in (("1 mAh/g", 2e-6), ("2 uAh", 2e-6), ("0.01 mAh/cm2", 1e-5)):
        kept = rule(compiled, step.replace("CHANGE", written))
        assert kept == RecordRule(20.0, charge_change_Ah=pytest.approx(charge_Ah))
    off = rule(compiled, step.replace("CHANGE", "off"), "record: {charge_change: 1 mAh/g}\n")
    assert off == RecordRule(20.0)


def test_ten_thousand_cycles_at_50C_stay_within_a_few_million_readings(compiled: Compile) -> None:
    program = compiled(
        "  - cycle: 10000\n    do:\n"
        "      - charge: {at: 50C, until: 4.1 V}\n      - discharge: {at: 50C, until: 1.5 V}\n"
    )
    half_cycle_s, window_V = 60.0, 2.6
    record = program.steps[0].record
    most = half_cycle_s / record.every_s + window_V / record.voltage_change_V
    assert 20_000 * most < 14e6


TIMES = st.floats(1e-3, 1e9)


@given(TIMES)
def test_no_default_is_faster_than_instruments_are_or_says_nothing(seconds: float) -> None:
    rules = [
        of_a_rest(seconds),
        of_a_current(seconds),
        of_a_hold(seconds, 1e-3),
        of_a_pulse(seconds),
        of_a_titration(seconds),
        of_a_sweep(2.0, 1.0 / seconds),
    ]
    for one in rules:
        assert FASTEST_S <= one.every_s <= 300.0
        first, *rest = f"{one.every_s:.12f}".strip("0.").replace(".", "")
        assert first in "123456789"
        assert set(rest) <= {"0"}


@given(st.floats(15.0, 4500.0))
def test_a_charge_of_any_length_has_150_readings_by_time(seconds: float) -> None:
    assert 149.999 <= seconds / of_a_current(seconds).every_s <= 300.001
