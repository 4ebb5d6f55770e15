"""The words of the laboratory: cells, readings, records.

Sign: current is positive when it charges the cell. SI inside, with the field's own exceptions
named (Ah, Wh, mAh/g, degC). Blocks of readings are columns, because a lab makes millions of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import msgspec
import numpy as np
import numpy.typing as npt

FloatColumn = npt.NDArray[np.float64]
IntColumn = npt.NDArray[np.int64]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One electrochemical cell, as a person registers it.

    ``one_C_mA_per_g`` is what 1C means for this cell (100 mA/g in the reference study), per gram
    of active material. The safe window bounds every recipe that is run on the cell, and so do the
    limits that the laboratory's configuration has for its ``cell_type``.
    """

    name: str
    material: str
    active_mass_g: float
    one_C_mA_per_g: float
    safe_voltage_min_V: float
    safe_voltage_max_V: float
    area_cm2: float | None = None
    max_current_A: float | None = None
    parents: tuple[str, ...] = ()
    note: str = ""
    cell_type: str = ""

    def __post_init__(self) -> None:
        positive = {
            "active_mass_g": self.active_mass_g,
            "one_C_mA_per_g": self.one_C_mA_per_g,
            "area_cm2": self.area_cm2,
            "max_current_A": self.max_current_A,
        }
        for key, value in positive.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{key} must be a finite number above 0, not {value}")
        if not self.safe_voltage_min_V < self.safe_voltage_max_V:
            raise ValueError(
                f"the safe window {self.safe_voltage_min_V} V .. {self.safe_voltage_max_V} V "
                "is empty: its lower voltage must be below its upper"
            )
        if not self.name.strip():
            raise ValueError("a cell needs a name")

    @property
    def one_C_A(self) -> float:
        """The current that 1C means for this cell, in A."""
        return self.one_C_mA_per_g * 1e-3 * self.active_mass_g


def _no_floats() -> FloatColumn:
    return np.empty(0, dtype=np.float64)


def _no_ints() -> IntColumn:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Readings:
    """What an instrument said while it ran a Program, oldest first; columns of equal length.

    onboard_index: the instrument's own number of the reading, strictly increasing.
    step: index into ``Program.steps`` of the step that the instrument was in.
    pass_mark: any number that changes when the instrument enters the same step again.
    step_time_s: since that step began.
    step_charge_Ah, step_energy_Wh: the instrument's counters since that step began, net, positive
        for charging; NaN where it has none.
    temperature_degC: NaN where unknown.
    """

    onboard_index: IntColumn = field(default_factory=_no_ints)
    step: IntColumn = field(default_factory=_no_ints)
    pass_mark: IntColumn = field(default_factory=_no_ints)
    step_time_s: FloatColumn = field(default_factory=_no_floats)
    unix_time_s: FloatColumn = field(default_factory=_no_floats)
    voltage_V: FloatColumn = field(default_factory=_no_floats)
    current_A: FloatColumn = field(default_factory=_no_floats)
    step_charge_Ah: FloatColumn = field(default_factory=_no_floats)
    step_energy_Wh: FloatColumn = field(default_factory=_no_floats)
    temperature_degC: FloatColumn = field(default_factory=_no_floats)

    def __len__(self) -> int:
        return len(self.onboard_index)

    def __getitem__(self, rows: slice) -> Readings:
        return Readings(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True, slots=True)
class Records:
    """Readings in their place in a run; columns of equal length, ``seq`` without gaps from 1.

    cycle: number of the recipe's cycle, from 1; 0 outside any cycle.
    step: number of the step in the Program as a person counts, from 1.
    visit: counts every entry into a step over the whole run, from 1.
    test_time_s: since the run began, by the instrument's time.
    charge_Ah, energy_Wh: net since the run began, positive for charging.
    """

    seq: IntColumn = field(default_factory=_no_ints)
    test_time_s: FloatColumn = field(default_factory=_no_floats)
    unix_time_s: FloatColumn = field(default_factory=_no_floats)
    cycle: IntColumn = field(default_factory=_no_ints)
    step: IntColumn = field(default_factory=_no_ints)
    visit: IntColumn = field(default_factory=_no_ints)
    voltage_V: FloatColumn = field(default_factory=_no_floats)
    current_A: FloatColumn = field(default_factory=_no_floats)
    charge_Ah: FloatColumn = field(default_factory=_no_floats)
    energy_Wh: FloatColumn = field(default_factory=_no_floats)
    temperature_degC: FloatColumn = field(default_factory=_no_floats)

    def __len__(self) -> int:
        return len(self.seq)

    def __getitem__(self, rows: slice) -> Records:
        return Records(*(getattr(self, column.name)[rows] for column in fields(self)))


RECORD_COLUMNS: dict[str, str] = {
    column.name: "<i8" if column.name in {"seq", "cycle", "step", "visit"} else "<f8"
    for column in fields(Records)
}
"""Every column of Records with its numpy type on the wire and in the journal."""


def join_records(blocks: list[Records]) -> Records:
    """One block out of many, in the order given."""
    return Records(
        *(np.concatenate([getattr(block, name) for block in blocks]) for name in RECORD_COLUMNS)
    )


class Spectrum(msgspec.Struct, frozen=True, kw_only=True):
    """One impedance spectrum, in the order measured; tuples of equal length.

    ``impedance_imag_ohm`` is the imaginary part itself: negative for a capacitor. ``voltage_V`` and
    ``current_A`` are the working point, NaN where unknown.
    """

    frequency_Hz: tuple[float, ...]
    impedance_real_ohm: tuple[float, ...]
    impedance_imag_ohm: tuple[float, ...]
    voltage_V: float = math.nan
    current_A: float = math.nan
    temperature_degC: float = math.nan
    unix_time_s: float = 0.0
