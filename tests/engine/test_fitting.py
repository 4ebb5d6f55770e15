"""Whether a program fits an instrument is said beforehand, and what runs where."""

from __future__ import annotations

from paper_cycler import PaperCycler
from paper_programs import program_of

from labctl.engine.fitting import refusals_of, stretches_told
from labctl.program import (
    Comparison,
    ConstantCurrent,
    EndCondition,
    Loop,
    Quantity,
    RecordRule,
    SetTemperature,
    Signal,
    Step,
)

TIME = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 60.0)
CHARGE = Step(0, "charge", ConstantCurrent(1e-4), (TIME,), RecordRule())
MARK = Step(0, "mark", Signal("mark"), (TIME,), RecordRule())
WARM = Step(0, "warm", SetTemperature(45.0, 0.5, 600.0), (TIME,), RecordRule())


def test_what_the_instrument_runs_by_itself_is_told() -> None:
    program = program_of(CHARGE, MARK, Loop(3, (CHARGE, CHARGE)))
    assert stretches_told(program, PaperCycler()) == (
        "step 1 runs in the instrument in one go",
        "steps 3 to 4 run in the instrument in one go, 6 visits to steps",
    )


def test_a_temperature_needs_a_chamber() -> None:
    program = program_of(WARM, CHARGE)
    [refusal] = refusals_of(program, PaperCycler(), chamber=False)
    assert "the cell is in no chamber" in refusal
    assert refusals_of(program, PaperCycler(), chamber=True) == ()


def test_an_output_that_the_instrument_does_not_have_is_refused() -> None:
    pulse = Step(0, "trigger", Signal("mark", output="DIO1"), (TIME,), RecordRule())
    [refusal] = refusals_of(program_of(pulse), PaperCycler(), chamber=False)
    assert "DIO1" in refusal
