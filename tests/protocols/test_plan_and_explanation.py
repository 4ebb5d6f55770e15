"""What a person is told before a recipe runs."""

from __future__ import annotations

import pytest

from labctl.model import Cell
from labctl.protocols.explain import explain_text
from labctl.protocols.plan import make_plan, plan_text
from labctl.protocols.recipe import compile_recipe, read_recipe

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
