"""A limit of a step holds while that step runs, and no longer."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import numpy as np
import pytest
from paper_cycler import LIMITS, PaperCycler, readings_of, three_cycles

from labctl.engine.limits import beyond, passed
from labctl.engine.placement import Place, Placed, place_readings
from labctl.engine.walk import Walk
from labctl.program import Limits, Loop, Program, Step

CAPABILITIES = PaperCycler().capabilities
CHARGE, DISCHARGE = 2, 3


def with_limits(number: int, **changes: float) -> Program:
    """Three cycles, with limits of its own for the step of that number."""
    program = three_cycles()
    own = msgspec.structs.replace(LIMITS, **changes)

    def changed(step: Step) -> Step:
        return msgspec.structs.replace(step, limits=own) if step.index + 1 == number else step

    rest, loop = program.body
    assert isinstance(loop, Loop)
    body = tuple(changed(step) for step in loop.body if isinstance(step, Step))
    return msgspec.structs.replace(program, body=(rest, msgspec.structs.replace(loop, body=body)))


def placed(program: Program) -> Placed:
    return place_readings(Walk(program), Place(run="r"), readings_of(program))


def said(program: Program) -> str:
    return passed(program.limits, placed(program), CAPABILITIES, program)


def test_a_voltage_limit_of_a_step_is_watched_in_that_step() -> None:
    assert "voltage 3.5" in said(with_limits(CHARGE, voltage_max_V=3.5))
    assert "outside its limits 1 .. 3.5 V" in said(with_limits(CHARGE, voltage_max_V=3.5))


def test_what_another_step_does_is_not_its_business() -> None:
    assert said(with_limits(DISCHARGE, current_max_A=0.0)) == ""
    assert "current 0.001 A" in said(with_limits(CHARGE, current_max_A=0.0))


def test_the_first_record_beyond_any_limit_is_named() -> None:
    program = with_limits(DISCHARGE, current_min_A=0.0)
    first = 1 + int(np.flatnonzero(placed(program).records.step == DISCHARGE)[0])
    assert f"at record {first} " in said(program)


def test_the_charge_of_a_visit_is_judged_by_the_limit_of_its_own_step() -> None:
    program = with_limits(DISCHARGE, step_charge_max_Ah=1.5e-3)
    assert "charge 0.002 Ah passed in visit 3 of a step is beyond its limit of 0.0015" in said(
        program
    )
    assert said(with_limits(CHARGE, step_charge_max_Ah=1.95e-3)) == ""


def test_a_limit_of_the_program_holds_in_steps_without_their_own() -> None:
    program = with_limits(CHARGE, voltage_max_V=4.4)
    tight = msgspec.structs.replace(program, limits=limits_with(LIMITS, voltage_min_V=2.5))
    assert "outside its limits 2.5 .. 4.5 V" in said(tight)


def limits_with(limits: Limits, **changes: float) -> Limits:
    return msgspec.structs.replace(limits, **changes)


def test_the_duration_is_that_of_the_whole_run() -> None:
    program = with_limits(CHARGE, duration_max_s=1.0)
    assert said(program) == ""
    short = msgspec.structs.replace(program, limits=limits_with(LIMITS, duration_max_s=1.0))
    assert "lasted longer than its limit of 1 s" in said(short)


@pytest.mark.parametrize("degC", [math.nan, 25.0])
def test_a_temperature_that_is_not_known_passes_no_limit(degC: float) -> None:
    limits = limits_with(LIMITS, temperature_min_degC=20.0, temperature_max_degC=24.0)
    words = beyond(
        limits,
        CAPABILITIES,
        voltage_V=3.0,
        current_A=0.0,
        temperature_degC=degC,
        step_charge_Ah=0.0,
    )
    assert bool(words) != math.isnan(degC)


def test_readings_without_a_temperature_pass_no_limit() -> None:
    program = three_cycles()
    readings = readings_of(program)
    bare = dataclasses.replace(readings, temperature_degC=np.full(len(readings), math.nan))
    limits = limits_with(LIMITS, temperature_min_degC=20.0, temperature_max_degC=24.0)
    walk = Walk(program)
    with_them = place_readings(walk, Place(run="r"), readings)
    without = place_readings(walk, Place(run="r"), bare)
    assert "temperature 25 degC" in passed(limits, with_them, CAPABILITIES)
    assert passed(limits, without, CAPABILITIES) == ""
