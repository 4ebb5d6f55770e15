"""Waits, signals and temperatures: what the host does, with the cell at open circuit."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.program import Program, Quantity, SetTemperature, Signal, Step, Then, Wait
from labctl.protocols.explain import explain_text
from labctl.protocols.recipe import compile_recipe, read_recipe

Compile = Callable[..., Program]


def timeout_of(step: Step) -> tuple[float, Then]:
    (end,) = step.ends
    assert end.quantity is Quantity.STEP_TIME_S
    return end.value, end.then


def told(step: str) -> str:
    lines = explain_text(read_recipe(f"recipe: x\nsteps:\n  - {step}\n")).split("\n")
    return next(line for line in lines if line.startswith("1. "))


@pytest.fixture
def in_kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The computer's clock is 5 h 45 min ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_wait_for_the_operator_asks_and_gives_up_after_a_week(compiled: Compile) -> None:
    (step,) = compiled('  - wait: {for operator: "Gas: open the valve, then confirm"}\n').steps
    assert step.control == Wait(prompt="Gas: open the valve, then confirm")
    assert timeout_of(step) == (7 * 86400.0, Then.END_RUN)
    assert step.label == "wait for the operator: Gas: open the valve, then confirm"


def test_a_wait_for_a_signal_says_what_happens_when_none_comes(compiled: Compile) -> None:
    steps = compiled(
        "  - wait: {for signal: pattern-1}\n"
        "  - wait: {for signal: pattern-1, at_most: 2 h, then: go on}\n"
        "  - wait: {for signal: pattern-1, at_most: 2 h, then: stop}\n"
    ).steps
    assert {step.control for step in steps} == {Wait(signal="pattern-1")}
    assert [timeout_of(step) for step in steps] == [
        (86_400.0, Then.END_RUN),
        (7200.0, Then.NEXT),
        (7200.0, Then.END_RUN),
    ]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-05 09:00 +01:00", (2026, 1, 5, 8, 0, 0)),
        ("2026-07-05T09:00+02:00", (2026, 7, 5, 7, 0, 0)),
        ("2026-01-05 09:00:30 UTC", (2026, 1, 5, 9, 0, 30)),
        ("2026-01-05T09:00Z", (2026, 1, 5, 9, 0, 0)),
        ("2026-01-05 00:30 -03:30", (2026, 1, 5, 4, 0, 0)),
    ],
)
def test_a_moment_has_its_own_time_zone(
    compiled: Compile, in_kathmandu: None, text: str, utc: tuple[int, ...]
) -> None:
    expected = dt.datetime(*utc, tzinfo=dt.UTC).timestamp()  # type: ignore[misc]
    long, short = compiled(f"  - wait: {{until: {text}}}\n  - wait: {text}\n").steps
    assert long.control == short.control == Wait(until_unix_s=expected)
    assert timeout_of(long) == (31 * 86400.0, Then.END_RUN)


def test_a_moment_without_a_zone_is_refused_with_that_of_the_computer(in_kathmandu: None) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe("recipe: x\nsteps:\n  - wait: {until: 2026-01-05 09:00}\n")
    (problem,) = caught.value.problems
    assert problem.message == "'2026-01-05 09:00' does not say of which time zone"
    assert problem.suggestion == (
        "write '2026-01-05 09:00 +05:45', which is this computer's, or '2026-01-05 09:00 UTC'"
    )


@given(unix_s=st.integers(946_684_800, 4_102_444_799), quarters=st.integers(-12 * 4, 14 * 4))
def test_any_moment_of_this_century_reads_back(unix_s: int, quarters: int) -> None:
    zone = dt.timezone(dt.timedelta(minutes=15 * quarters))
    moment = dt.datetime.fromtimestamp(unix_s, zone)
    recipe = read_recipe(f"recipe: x\nsteps:\n  - wait: {moment.isoformat(sep=' ')}\n")
    cell = Cell(
        name="c", material="x", active_mass_g=0.002, one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0, safe_voltage_max_V=4.5,
    )  # fmt: skip
    (step,) = compile_recipe(recipe, cell).steps
    assert step.control == Wait(until_unix_s=unix_s)


def test_a_signal_is_a_marker_and_may_be_a_pulse_on_an_output(compiled: Compile) -> None:
    short, long = compiled(
        "  - signal: pattern-1\n  - signal: {marker: pattern-2, output: DO1}\n"
    ).steps
    assert short.control == Signal("pattern-1")
    assert long.control == Signal("pattern-2", "DO1")
    assert timeout_of(short) == timeout_of(long) == (60.0, Then.NEXT)


def test_a_cell_and_a_diffractometer_go_in_step(compiled: Compile) -> None:
    program = compiled(
        "  - repeat: 3\n    do:\n"
        "      - charge: {at: 0.1C, for: 10 min, until: 4.1 V}\n"
        "      - signal: ready\n"
        "      - wait: {for signal: pattern-taken, at_most: 30 min}\n"
    )
    assert [type(step.control).__name__ for step in program.steps] == [
        "ConstantCurrent",
        "Signal",
        "Wait",
    ]
    assert program.limits.duration_max_s >= 3 * (600 + 60 + 1800)


def test_a_temperature_is_set_and_has_to_settle(compiled: Compile) -> None:
    short, long = compiled(
        "  - temperature: 25 degC\n"
        "  - temperature: {to: 318.15 K, within: 0.2 K, settle: 1 h, at_most: 5 h, then: go on}\n"
    ).steps
    assert short.control == SetTemperature(25.0, 0.5, 600.0)
    assert timeout_of(short) == (10_800.0, Then.END_RUN)
    assert long.control == SetTemperature(45.0, 0.2, 3600.0)
    assert timeout_of(long) == (18_000.0, Then.NEXT)


def test_a_temperature_lies_inside_the_limits(compiled: Compile) -> None:
    head = "limits: {temperature: 5 degC .. 60 degC}\n"
    assert compiled("  - temperature: 59 degC\n", head).limits.temperature_max_degC == 60.0
    with pytest.raises(RecipeError, match="4 degC is not inside the temperature limits, 5 degC"):
        compiled("  - temperature: 4 degC\n", head)


def test_waiting_is_told_as_a_person_would() -> None:
    assert told("wait: {for operator: Open the valve, at_most: 2 h}") == (
        '1. Wait until the operator has confirmed: "Open the valve", for at most 2 h, after which '
        "the run ends."
    )
    assert told("wait: {for signal: pattern-1, then: go on}") == (
        "1. Wait for the signal pattern-1, for at most 1 d, after which the run goes on."
    )
    assert told("wait: 2026-01-05 09:00 UTC") == (
        "1. Wait until 2026-01-05 09:00 UTC, for at most 31 d, after which the run ends."
    )
    assert told("signal: {marker: ready, output: DO1}") == (
        "1. Set the marker ready, with a pulse on DO1."
    )
    assert told("temperature: 25 degC") == (
        "1. Set the chamber to 25 degC and wait until it has been within 0.5 K of that for 10 min, "
        "for at most 3 h, after which the run ends."
    )
