"""What a person is told before a recipe runs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from labctl.model import Cell
from labctl.protocols.explain import explain_text
from labctl.protocols.plan import make_plan, plan_text
from labctl.protocols.recipe import Recipe, compile_recipe, read_recipe

RECIPE = """\
recipe: All of it
about: One of each.
parameters: {rates: [0.5C, 1C]}
limits: {voltage: 1.2 V .. 4.4 V, temperature: 5 degC .. 60 degC}
record: {every: 60 s, voltage_change: 10 mV}
alarms: {retention: {below: 90 %, reference: cycles 1 .. 2, over: 2 cycles}}
steps:
  - rest: {for: 1 h, record: 5 min}
  - for: rate
    in: $rates
    do:
      - cycle: 2
        class: $rate
        do:
          - charge: {at: $rate, until: 4.1 V, hold_until: 0.05C, at_most: 10 h}
          - discharge: {at: 25 mA/g, until: [1.5 V, 170 mAh/g]}
  - repeat: 3
    do:
      - hold: {voltage: 2 V, until: 0.01C, at_most: 20 min}
      - charge: {at: 1C, for: 6 min}
"""

EXPLAINED = """\
All of it
One of each.

1. Rest without current for 1 h; a reading is kept every 5 min.
2. Do this for each rate of 0.5C, 1C:
  1. Do this 2 times; each time is one cycle, in a class of its own for that rate:
    1. Charge at that rate until the voltage has risen to 4.1 V; then hold that voltage until the \
current has fallen to 0.05C, in all for at most 10 h.
    2. Discharge at 25 mA/g until the voltage has fallen to 1.5 V, or 170 mAh/g have passed.
3. Do this 3 times:
  1. Hold 2 V until the current has fallen to 0.01C, for at most 20 min.
  2. Charge at 1C, for 6 min.

The run is ended safely outside these limits: voltage 1.2 V .. 4.4 V, temperature 5 degC .. 60 degC.
A reading is kept every 60 s and at each change by 10 mV.
An alarm is raised when the median discharge capacity of 2 cycles falls below 90 % of the median \
of cycles 1 to 2.
Can be set: rates = [0.5C, 1C].
"""

PLANNED = """\
All of it, on cell 'HE-V-1'
1C is 200 uA (100 mA/g, 2 mg)

   1  rest 1 h                                         no current          for 1 h
      2 cycles of class '0.5C':
   2    charge at 0.5C until 4.1 V, hold until 0.05C   100 uA, then 4.1 V  \
until current <= 10 uA; at most 10 h
   3    discharge at 25 mA/g until 1.5 V or 170 mAh/g  -50 uA              \
until <= 1.5 V; until 0.34 mAh passed; at most 22 h
      2 cycles of class '1C':
   4    charge at 1C until 4.1 V, hold until 0.05C     200 uA, then 4.1 V  \
until current <= 10 uA; at most 10 h
   5    discharge at 25 mA/g until 1.5 V or 170 mAh/g  -50 uA              \
until <= 1.5 V; until 0.34 mAh passed; at most 22 h
      3 passes:
   6    hold 2 V until 0.01C                           2 V, at most 50 uA  \
until current <= 2 uA; at most 20 min
   7    charge at 1C                                   200 uA              for 6 min

Limits: voltage 1.2 V .. 4.4 V; current -240 uA .. 240 uA; step charge 1 mAh; duration 5.701 d; \
temperature 5 degC .. 60 degC
Alarm: median discharge capacity of 2 cycles below 90 % of the median of cycles 1 to 2; \
clears at 91 %
"""


def test_a_recipe_is_explained_as_a_technician_would_say_it() -> None:
    assert explain_text(read_recipe(RECIPE)) == EXPLAINED


def test_a_plan_says_amperes_and_volts_step_by_step(cell: Cell) -> None:
    program = compile_recipe(read_recipe(RECIPE), cell)
    assert plan_text(program, cell).startswith(PLANNED)


def test_a_plan_estimates_time_from_what_1C_passes_in_an_hour(cell: Cell) -> None:
    plan = make_plan(compile_recipe(read_recipe(RECIPE), cell), cell)
    charges_h = 2 * (2 + 0.5) + 2 * (1 + 0.5)
    discharges_h = 4 * 4
    assert plan.expected_s == pytest.approx(
        3600 * (1 + charges_h + discharges_h + 3 * (20 / 60 + 0.1))
    )
    bound_h = 1 + 4 * (10 + 22) + 3 * (20 + 6) / 60
    assert plan.longest_s == pytest.approx(3600 * bound_h)


def test_a_plan_estimates_readings_by_time_and_by_voltage(cell: Cell) -> None:
    program = compile_recipe(
        read_recipe(
            "recipe: x\nrecord: {every: 2 min, voltage_change: 10 mV}\nsteps:\n"
            "  - cycle: 10\n    do:\n"
            "      - charge: {at: 1C, until: 4.0 V}\n      - discharge: {at: 1C, until: 2.0 V}\n"
        ),
        cell,
    )
    plan = make_plan(program, cell)
    assert plan.expected_records == 10 * 2 * (2 + 30 + 200)
    text = plan_text(program, cell)
    assert "Steps: 20 in all, 2 different; cycles: 10" in text
    assert "Estimated: 20 h and 4,600 readings, if each charge and discharge passes 0.2 mAh" in text
    assert f"SHA-256 {program.recipe_sha256}" in text
    assert "temperature not limited" in text


STRUCTURED = """\
recipe: Ageing
parameters:
  upper: {default: 4.1 V, from: 3.8 V, to: 4.3 V, about: where charges end}
  lower: {example: 1.5 V}
  rate: 1C
limits: {voltage: 1.0 V .. 4.4 V}
record: 60 s
steps:
  - recipe: formation.yaml
    with: {rate: 0.1C}
  - cycle: 500
    first:
      - charge: {at: 0.1C, until: $upper}
      - discharge: {at: 0.1C, until: $lower}
    first class: slow
    until: [{retention: below 80 %, of: cycle 3}, {efficiency: below 95 %}]
    do:
      - charge: {at: $rate, until: $upper, at_most: 2 h, limits: {voltage: 1.2 V .. 4.35 V}}
      - if: {ended by: time}
        then: [{stop: it does not come to its voltage}]
      - discharge: {at: $rate, until: $lower}
      - if: {discharge capacity: below 100 mAh/g}
        then:
          - rest: 10 min
        else:
          - rest: 1 min
  - for: r
    in: [1C, 2C]
    do:
      - charge: {at: $r, until: [4.0 V, 2 h]}
      - if: {ended by: voltage}
        then: [leave: loop]
"""
FORMATION = """\
recipe: Formation
parameters: {rate: 0.2C}
limits: {voltage: 1.1 V .. 4.3 V}
record: 10 s
steps:
  - cycle: 2
    class: formation
    do:
      - charge: {at: $rate, until: 4.1 V}
      - discharge: {at: $rate, until: 1.5 V}
"""

STRUCTURE_EXPLAINED = """\
Ageing

1. Do what 'Formation' says (formation.yaml), with rate = 0.1C:
  1. Do this 2 times; each time is one cycle, of the class 'formation':
    1. Charge at 0.1C until the voltage has risen to 4.1 V.
    2. Discharge at 0.1C until the voltage has fallen to 1.5 V.
  In it the limits are voltage 1.1 V .. 4.3 V.
  In it a reading is kept every 10 s.
2. Do this 500 times; each time is one cycle; no more when the discharge capacity of the cycle is \
below 80 % of that of cycle 3 or the efficiency of the cycle is below 95 %:
  The first time, of the class 'slow':
    1. Charge at 0.1C until the voltage has risen to 4.1 V.
    2. Discharge at 0.1C until the voltage has fallen to 1.5 V.
  Every other time:
    1. Charge at 1C until the voltage has risen to 4.1 V, in all for at most 2 h; within voltage \
1.2 V .. 4.35 V.
    2. If the step before ended by time:
      1. Stop the run: it does not come to its voltage.
    3. Discharge at 1C until the voltage has fallen to 1.5 V.
    4. If the discharge capacity of the cycle is below 100 mAh/g:
      1. Rest without current for 10 min.
    Otherwise:
      1. Rest without current for 1 min.
3. Do this for each r of 1C, 2C:
  1. Charge at that r until the voltage has risen to 4.0 V, in all for at most 2 h.
  2. If the step before ended by voltage:
    1. Leave the loop.

The run is ended safely outside these limits: voltage 1.0 V .. 4.4 V.
A reading is kept every 60 s.
As in every run, an alarm is raised when less than 80 % of the capacity is left, the capacity \
drops suddenly, the efficiency is unusual, the fade becomes faster or the capacity bends downwards.
Can be set: rate = 1C.
Must be given: lower.
Can be set: upper = 4.1 V (where charges end), from 3.8 V to 4.3 V.
"""

STRUCTURE_PLANNED = """\
      2 cycles of class 'formation':
   1    charge at 0.1C until 4.1 V       20 uA       until >= 4.1 V; at most 2.292 d
   2    discharge at 0.1C until 1.5 V    -20 uA      until <= 1.5 V; at most 2.292 d
      1 cycle of class 'slow':
   3    charge at 0.1C until 4.1 V       20 uA       until >= 4.1 V; at most 2.292 d
   4    discharge at 0.1C until 1.6 V    -20 uA      until <= 1.6 V; at most 2.292 d
      unless efficiency below 95 %:
        499 cycles, or until discharge capacity below 80 % of cycle 3 or efficiency below 95 %:
   5      charge at 1C until 4.1 V       200 uA      until >= 4.1 V; \
at most 2 h, then the run ends: it does not come to its voltage
   6      discharge at 1C until 1.6 V    -200 uA     until <= 1.6 V; at most 5.5 h
          if discharge capacity below 0.2 mAh:
   7        rest 10 min                  no current  for 10 min
          else:
   8        rest 1 min                   no current  for 60 s
      1 pass:
   9    charge at 1C until 4.0 V or 2 h  200 uA      until >= 4 V, then leaves the loop; at most 2 h
  10    charge at 2C until 4.0 V or 2 h  400 uA      until >= 4 V, then leaves the loop; at most 2 h
"""


def structured() -> Recipe:
    return read_recipe(STRUCTURED, load=lambda _: FORMATION)


def test_choices_and_included_recipes_are_explained_too() -> None:
    assert explain_text(structured()) == STRUCTURE_EXPLAINED


def test_choices_are_planned_in_amperes_and_ampere_hours(cell: Cell) -> None:
    text = plan_text(compile_recipe(structured(), cell, {"lower": "1.6 V"}), cell)
    assert STRUCTURE_PLANNED in text
    assert "Limits of steps 1-2: voltage 1.1 V .. 4.3 V\n" in text
    assert "Limits of step 5: voltage 1.2 V .. 4.35 V\n" in text


def test_a_plan_says_charge_and_disk(cell: Cell) -> None:
    program = compile_recipe(
        read_recipe(
            "recipe: x\nrecord: {every: 1 s}\nsteps:\n  - cycle: 10\n    do:\n"
            "      - charge: {at: 1C, for: 30 min}\n      - discharge: {at: 1C, until: 0.05 mAh}\n"
        ),
        cell,
    )
    plan = make_plan(program, cell)
    assert plan.expected.charge_Ah == pytest.approx(10 * 1e-4)
    assert plan.expected.discharge_Ah == pytest.approx(10 * 5e-5)
    assert plan.expected_records == 10 * (1802 + 902)
    assert plan.archive_B == pytest.approx(27_040 * 98)
    text = plan_text(program, cell)
    assert "Charge: about 1 mAh charged and 0.5 mAh discharged in all" in text
    assert "Disk: about 2.6 MB in the archive, and 2.5 MB in the journal" in text


def test_a_titration_is_not_taken_to_last_all_its_pulses(cell: Cell) -> None:
    program = compile_recipe(
        read_recipe(
            "recipe: x\nsteps:\n  - repeat: 1000\n    do:\n"
            "      - charge: {at: 0.1C, until: [4.1 V, 30 min]}\n"
            "      - if: {ended by: voltage}\n        then: [leave: loop]\n      - rest: 1 h\n"
        ),
        cell,
    )
    plan = make_plan(program, cell)
    assert plan.expected_s == pytest.approx(20 * 5400), "0.05 of 1C for an hour in each pulse"
    assert plan.longest_s == 1000 * 5400


@dataclass(frozen=True)
class _Range:
    full_scale_A: float
    resolution_A: float


@dataclass(frozen=True)
class _Instrument:
    current_ranges: tuple[_Range, ...] = (_Range(1e-2, 1e-6), _Range(1e-4, 1e-8), _Range(1.0, 1e-4))
    fastest_record_s: float = 0.1


def test_a_plan_says_which_ranges_an_instrument_uses(cell: Cell) -> None:
    program = compile_recipe(
        read_recipe(
            "recipe: x\nsteps:\n  - charge: {at: 0.5C, until: 4.1 V}\n"
            "  - discharge: {at: 10C, until: 1.5 V, record: 50 ms}\n  - rest: 1 h\n"
            "  - charge: {at: 0.1C, until: 4.1 V}\n  - hold: {voltage: 4.1 V, for: 1 h}\n"
        ),
        cell,
    )
    plan = make_plan(program, cell, _Instrument())
    assert [(use.full_scale_A, use.steps) for use in plan.ranges] == [
        (1e-2, (2,)),
        (1e-4, (1, 4, 5)),
    ]
    text = plan_text(
        program, cell, _Instrument(), stretches=["steps 1 to 5 onboard"], refusals=["no", "never"]
    )
    assert "Current range: 10 mA, to 1 uA, for step 2\n" in text
    assert "Current range: 100 uA, to 10 nA, for steps 1, 4-5\n" in text
    assert "Readings: not faster than every 0.1 s, in steps 2\n" in text
    assert "Runs: steps 1 to 5 onboard\nRefused: no\nRefused: never\n" in text
    assert "Current range" not in plan_text(program, cell)


def test_every_technique_has_a_plan_and_an_estimate(cell: Cell) -> None:
    program = compile_recipe(
        read_recipe(
            "recipe: x\nsteps:\n"
            "  - charge: {at: 2 mW, until: 4.1 V}\n"
            "  - discharge: {into: 5 kohm, until: 1.5 V}\n"
            "  - sweep: {from: 2 V, to: 3 V, at: 1 mV/s}\n"
            "  - impedance: {from: 100 kHz, to: 100 mHz, amplitude: 10 mV}\n"
            "  - wait: {for operator: look, at_most: 1 h}\n"
            "  - wait: {for signal: ready, at_most: 1 h, then: go on}\n"
            "  - signal: pattern\n"
            "  - temperature: 25 degC\n"
            "  - rest: {for: 4 h, until: 1 mV/h}\n"
            "  - charge: {at: 0.2C, until: [4.1 V, 1 mWh, 40 degC]}\n"
            "  - discharge: {at: 0.2C, until: {net charge: 0 mAh/g}}\n"
        ),
        cell,
    )
    rows = make_plan(program, cell).rows
    assert [row.control for row in rows] == [
        "2 mW, at most 2 mA",
        "5 kohm, at most 900 uA",
        "2 V to 3 V at 1 mV/s",
        "100 kHz to 100 mHz, 10 mV",
        "operator",
        "signal 'ready'",
        "marker 'pattern'",
        "25 degC",
        "no current",
        "40 uA",
        "-40 uA",
    ]
    ends = [row.ends for row in rows]
    assert ends[4] == "for 1 h, then the run ends"
    assert ends[5] == "for 1 h"
    assert ends[8] == "until dV/dt <= 1 mV/h; at most 4 h"
    assert ends[9].startswith("until >= 4.1 V; until 1 mWh passed; until >= 40 degC; at most")
    assert ends[10].startswith("until the run's charge <= 0 Ah; at most")
    text = plan_text(program, cell)
    assert "1 spectrum" in text
    assert "Not counted: the time for which it waits for something outside" in text
