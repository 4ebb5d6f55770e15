"""What a simulated cell is to a simulated instrument.

The instrument decides what is applied, for how long, and when a record is made; the cell answers
with the true voltage and current. Noise, resolution and ranges belong to the instrument.
Current is positive when it charges the cell.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatColumn = npt.NDArray[np.float64]


class Control(enum.IntEnum):
    """What the instrument holds constant; the setpoint's unit is A, V, W or ohm."""

    REST = 0
    CURRENT = 1
    VOLTAGE = 2
    POWER = 3
    """Positive power charges the cell."""
    RESISTANCE = 4
    """A resistor across the cell: discharges it."""


class StopReason(enum.IntEnum):
    """Why :meth:`SimulatedCell.advance` came back."""

    DURATION = 0
    RECORDS = 1
    VOLTAGE_HIGH = 2
    VOLTAGE_LOW = 3
    CURRENT_SMALL = 4
    """Magnitude of the current fell to the threshold."""
    CHARGE = 5
    """Magnitude of the net charge since the call began reached the threshold."""
    CURRENT_LARGE = 6


@dataclass(frozen=True, slots=True)
class Until:
    """End conditions, found exactly (to better than 1 uV or 1 ms); infinity switches one off."""

    voltage_at_least_V: float = math.inf
    voltage_at_most_V: float = -math.inf
    current_magnitude_at_most_A: float = -1.0
    current_magnitude_at_least_A: float = math.inf
    charge_magnitude_at_least_Ah: float = math.inf


@dataclass(slots=True)
class Recorder:
    """The record rule of a step and where it stands; carried over from call to call of one step.

    A record is due when any change since the last record reaches its threshold. ``last_time_s``
    counts on the step's own clock, which the caller starts at 0 and ``advance`` moves on.
    """

    every_s: float = math.inf
    voltage_change_V: float = math.inf
    current_change_A: float = math.inf
    now_s: float = 0.0
    last_time_s: float = 0.0
    last_voltage_V: float = math.nan
    last_current_A: float = math.nan


@dataclass(frozen=True, slots=True)
class Trace:
    """Records made in one call, and where the cell stood at its end.

    Columns: ``time_s`` on the recorder's clock, ``voltage_V``, ``current_A``, and ``charge_Ah`` and
    ``energy_Wh``, net since the call began.
    """

    time_s: FloatColumn
    voltage_V: FloatColumn
    current_A: FloatColumn
    charge_Ah: FloatColumn
    energy_Wh: FloatColumn
    temperature_degC: FloatColumn
    elapsed_s: float
    end_voltage_V: float
    end_current_A: float
    end_charge_Ah: float
    end_energy_Wh: float
    end_temperature_degC: float
    reason: StopReason


class SimulatedCell(Protocol):
    """One cell. The same spec and the same calls give the same answers, to the bit."""

    def advance(
        self,
        control: Control,
        setpoint: float,
        duration_s: float,
        *,
        until: Until,
        recorder: Recorder,
        max_records: int = 100_000,
        max_current_A: float = math.inf,
        ambient_degC: float = 25.0,
    ) -> Trace:
        """Live through at most ``duration_s`` under one control.

        ``max_current_A`` clips the magnitude of the current under voltage control (the cell's
        voltage is then off the setpoint). Stops at the first of ``until``, of ``max_records`` and
        of the duration. Calling it twice for half the time equals calling it once, to rounding.
        """
        ...

    def voltage_V(self, current_A: float = 0.0) -> float:
        """Terminal voltage now, if ``current_A`` were flowing."""
        ...

    def state(self) -> bytes:
        """Everything that changes, as bytes; :meth:`restore` of it goes on bit for bit."""
        ...

    def restore(self, state: bytes) -> None: ...
