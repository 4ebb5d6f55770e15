"""What the host refuses before anything flows, and the limits an instrument itself has to hold."""

from __future__ import annotations

import math

import msgspec
import pytest
from paper_cycler import LIMITS, PaperCycler, charge, discharge, rest, three_cycles
from paper_source import PaperSource

from labctl.clock import VirtualClock
from labctl.drivers.base import Capabilities, Failsafe
from labctl.engine.limits import wider
from labctl.engine.refusing import asked_of_instrument, charges, refusals_of_host
from labctl.program import (
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Control,
    Impedance,
    Limits,
    Rest,
    VoltageSweep,
)

CHARGING: list[Control] = [
    ConstantCurrent(1e-3),
    ConstantCurrentConstantVoltage(1e-3, 4.0),
    ConstantVoltage(4.0, 1e-3, charging=True),
    ConstantPower(1e-3, 1e-3),
]
DISCHARGING: list[Control] = [
    ConstantCurrent(-1e-3),
    ConstantCurrentConstantVoltage(-1e-3, 2.0),
    ConstantVoltage(2.0, 1e-3, charging=False),
    ConstantPower(-1e-3, 1e-3),
    ConstantResistance(1e3, 1e-3),
]
SWINGING: list[Control] = [
    VoltageSweep(None, 4.0, 1e-3, 1e-2),
    Impedance(False, 0.01, 1e3, 1.0, 5, 1e-3),
]
NONE = Limits(-math.inf, math.inf, -math.inf, math.inf, math.inf, math.inf)


def source_without_failsafe() -> Capabilities:
    source = PaperSource(VirtualClock(0.0))
    source.failsafe = Failsafe.NONE
    return source.capabilities


@pytest.mark.parametrize("control", CHARGING)
def test_what_charges_needs_something_that_switches_it_off(control: Control) -> None:
    assert charges(control)
    step = msgspec.structs.replace(charge(0), control=control)
    program = msgspec.structs.replace(three_cycles(), body=(step,))
    capabilities = source_without_failsafe()
    for source in (True, False):
        [refusal] = refusals_of_host(program, capabilities, source=source, chamber=False)
        assert "step 1 (charge) charges" in refusal


@pytest.mark.parametrize("control", [Rest(), *DISCHARGING, *SWINGING])
def test_what_does_not_charge_needs_nothing(control: Control) -> None:
    assert not charges(control)
    step = msgspec.structs.replace(discharge(0), control=control)
    program = msgspec.structs.replace(three_cycles(), body=(step, rest(1)))
    assert refusals_of_host(program, source_without_failsafe(), source=True, chamber=False) == ()


@pytest.mark.parametrize(
    ("controls", "needed"),
    [
        (CHARGING, {"upper voltage", "charging current"}),
        (DISCHARGING, {"lower voltage", "discharging current"}),
        (SWINGING, {"upper voltage", "charging current", "lower voltage", "discharging current"}),
        ([Rest()], set()),
    ],
    ids=["charging", "discharging", "both ways", "resting"],
)
def test_an_instrument_holds_the_limits_that_the_current_leads_to(
    controls: list[Control], needed: set[str]
) -> None:
    for control in controls:
        said = wider(NONE, asked_of_instrument(LIMITS, NONE, control))
        assert {each.split(" inf")[0].split(" -inf")[0] for each in said.split("; ") if each} == (
            needed
        )


def test_a_sequencer_runs_what_it_runs() -> None:
    program = three_cycles()
    assert refusals_of_host(program, PaperCycler().capabilities, source=False, chamber=False) == ()
