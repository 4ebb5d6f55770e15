"""Downloaded rows as Readings of a Program. No I/O.

BTS's counters are magnitudes since the step began; here they get the sign of the step's direction.
A sweep has none, since current may flow both ways in it: its counters are NaN, and charge and
energy are integrated from current and voltage. What BTS calls a reading of a sweep is not known
(``SWEEP_WORD``).
"""

from __future__ import annotations

import numpy as np

from labctl.drivers.neware_bts.rows import Rows
from labctl.drivers.neware_bts.translate import direction_of, step_numbers
from labctl.errors import InstrumentError
from labctl.model import Readings
from labctl.program import (
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Control,
    Program,
    VoltageSweep,
)

SWEEP_WORD = "lsv"
_PAUSE = "pause"


def readings_of(
    rows: Rows, program: Program, *, utc_offset_s: float = 0.0, instrument: str = ""
) -> Readings:
    """The rows in the words of labctl.

    Raises:
        InstrumentError: a row is of a step that the program does not have, or of another type than
            that step: the channel runs something else.
    """
    if len(rows) == 0:
        return Readings()
    steps = program.steps
    index_of = step_numbers(program)
    for number, word in sorted(set(zip(rows.stepid.tolist(), rows.steptype, strict=True))):
        index = index_of.get(number)
        if index is None or word not in _words(steps[index].control):
            expected = "no step" if index is None else type(steps[index].control).__name__
            raise InstrumentError(
                f"{instrument or 'BTS'}: test {rows.test} has readings of type {word!r} in step "
                f"{number} of its file, which is {expected} in program {program.name!r}: the "
                "channel runs something else",
                instrument=instrument,
                command="download",
                reply=f"stepid={number} steptype={word}",
            )
    step_by_number = np.full(max(index_of) + 1, -1, dtype=np.int64)
    for number, index in index_of.items():
        step_by_number[number] = index
    step = step_by_number[rows.stepid]
    direction = np.array(
        [
            np.nan if isinstance(each.control, VoltageSweep) else direction_of(each.control)
            for each in steps
        ]
    )[step]
    return Readings(
        onboard_index=rows.seqid,
        step=step,
        pass_mark=rows.cycleid,
        step_time_s=rows.step_time_s,
        unix_time_s=rows.host_time_s - utc_offset_s,
        voltage_V=rows.voltage_V,
        current_A=rows.current_A,
        step_charge_Ah=rows.capacity_Ah * direction,
        step_energy_Wh=rows.energy_Wh * direction,
        temperature_degC=np.full(len(rows), np.nan),
    )


def _words(control: Control) -> frozenset[str]:
    """What BTS may call a reading of such a step."""
    charging = direction_of(control) > 0
    match control:
        case ConstantCurrent():
            words = {"cc"} if charging else {"dc"}
        case ConstantVoltage():
            words = {"cv"} if charging else {"dv"}
        case ConstantCurrentConstantVoltage():
            words = {"cccv", "cc", "cv"} if charging else {"cccd", "dc", "dv"}
        case ConstantPower():
            words = {"cp"} if charging else {"dp"}
        case ConstantResistance():
            words = {"dr"}
        case VoltageSweep():
            words = {SWEEP_WORD}
        case _:
            words = {"rest"}
    return frozenset(words | {_PAUSE})
