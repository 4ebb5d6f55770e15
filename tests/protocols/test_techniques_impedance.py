"""Impedance spectra, as the step that comes of them on a cell of 1C = 200 uA."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.program import Impedance, Program, Quantity
from labctl.protocols.explain import explain_text
from labctl.protocols.recipe import read_recipe
from labctl.protocols.techniques.impedance import frequencies_Hz, longest_s

Compile = Callable[..., Program]


def told(step: str) -> str:
    lines = explain_text(read_recipe(f"recipe: x\nsteps:\n  - {step}\n")).split("\n")
    return next(line for line in lines if line.startswith("1. "))


def test_a_voltage_as_amplitude_makes_it_potentiostatic(compiled: Compile) -> None:
    (step,) = compiled("  - impedance: {from: 100 kHz, to: 10 mHz, amplitude: 10 mV}\n").steps
    assert step.control == Impedance(
        galvanostatic=False,
        amplitude=0.01,
        frequency_max_Hz=1e5,
        frequency_min_Hz=0.01,
        points_per_decade=10,
        max_current_A=4e-3,
        bias=None,
    )
    assert step.label == "impedance from 100 kHz to 10 mHz, 10 mV"


def test_a_current_as_amplitude_makes_it_galvanostatic(compiled: Compile) -> None:
    first, second = compiled(
        "  - impedance: {from: 10 kHz, to: 1 Hz, amplitude: 0.25C, points: 5 per decade}\n"
        "  - impedance: {from: 10 kHz, to: 1 Hz, amplitude: 50 uA, at: -0.1C}\n"
    ).steps
    assert first.control == Impedance(
        galvanostatic=True,
        amplitude=5e-5,
        frequency_max_Hz=1e4,
        frequency_min_Hz=1.0,
        points_per_decade=5,
        max_current_A=pytest.approx(5e-5 * math.sqrt(2), rel=1e-5),
        bias=None,
    )
    assert isinstance(second.control, Impedance)
    assert second.control.bias == -2e-5
    assert second.control.max_current_A == pytest.approx(2e-5 + 5e-5 * math.sqrt(2), rel=1e-5)


def test_it_swings_around_a_voltage_that_is_written(compiled: Compile) -> None:
    (step,) = compiled(
        "  - impedance: {from: 10 kHz, to: 1 Hz, amplitude: 5 mV, at: 3.4 V, max_current: 2C}\n"
    ).steps
    assert isinstance(step.control, Impedance)
    assert (step.control.bias, step.control.max_current_A) == (3.4, 4e-4)
    assert step.label == "impedance from 10 kHz to 1 Hz, 5 mV at 3.4 V"


def test_open_circuit_can_be_written_too(compiled: Compile) -> None:
    text = "  - impedance: {from: 10 kHz, to: 1 Hz, amplitude: AMPLITUDE, at: open circuit}\n"
    for amplitude in ("5 mV", "5 uA"):
        control = compiled(text.replace("AMPLITUDE", amplitude)).steps[0].control
        assert isinstance(control, Impedance)
        assert control.bias is None


def test_a_spectrum_has_ten_periods_and_ten_seconds_for_each_frequency(compiled: Compile) -> None:
    (step,) = compiled(
        "  - impedance: {from: 100 Hz, to: 1 Hz, amplitude: 10 mV, points: 1 per decade}\n"
    ).steps
    (end,) = step.ends
    assert end.quantity is Quantity.STEP_TIME_S
    assert end.value == 60 + 3 * 10 + math.ceil(10 * (1 + 0.1 + 0.01))


@given(
    low=st.floats(1e-3, 1e3),
    decades=st.floats(0.01, 8),
    points=st.integers(1, 100),
)
def test_frequencies_go_down_evenly_from_the_highest_to_the_lowest(
    low: float, decades: float, points: int
) -> None:
    high = low * 10**decades
    found = frequencies_Hz(high, low, points)
    assert found[0] == pytest.approx(high)
    assert found[-1] == low
    assert all(before > after for before, after in itertools.pairwise(found))
    steps = [math.log10(a / b) for a, b in itertools.pairwise(found)]
    assert all(step == pytest.approx(1 / points, abs=1e-6) for step in steps[:-1])
    assert steps[-1] <= 1 / points + 1e-6
    assert longest_s(high, low, points) >= sum(10 / one for one in found)


def test_a_spectrum_is_told_as_a_person_would() -> None:
    assert told("impedance: {from: 100 kHz, to: 10 mHz, amplitude: 10 mV}") == (
        "1. Measure the impedance from 100 kHz to 10 mHz, 10 per decade, with a voltage of 10 mV "
        "(RMS) around open circuit."
    )
    assert told("impedance: {from: 1 kHz, to: 1 Hz, amplitude: 0.05C, at: 0.1C}") == (
        "1. Measure the impedance from 1 kHz to 1 Hz, 10 per decade, with a current of 0.05C "
        "(RMS) around 0.1C."
    )
