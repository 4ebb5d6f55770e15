"""What can be connected in place of a cell: a resistor, or nothing."""

from __future__ import annotations

import math
import struct

import numpy as np

from labctl.simulators.cells.interface import Control, Recorder, StopReason, Trace, Until

OPEN_OHM = 1e15


class Resistor:
    """A :class:`labctl.simulators.cells.interface.SimulatedCell` that is a resistor, by Ohm's law.

    Infinity is an open lead, of 1e15 ohm. It makes no records.
    """

    def __init__(self, resistance_ohm: float = math.inf) -> None:
        if not resistance_ohm > 0:
            raise ValueError(f"a resistor must have more than 0 ohm, not {resistance_ohm}")
        self._ohm = min(resistance_ohm, OPEN_OHM)

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
        """See the contract; power and resistance are refused with a ValueError."""
        del max_records
        if control is Control.REST:
            current_A = 0.0
        elif control is Control.CURRENT:
            current_A = setpoint
        elif control is Control.VOLTAGE:
            current_A = max(-max_current_A, min(max_current_A, setpoint / self._ohm))
        else:
            raise ValueError(f"a resistor has no control {control.name}")
        voltage_V = current_A * self._ohm
        reason = StopReason.DURATION
        if voltage_V >= until.voltage_at_least_V:
            reason = StopReason.VOLTAGE_HIGH
        elif voltage_V <= until.voltage_at_most_V:
            reason = StopReason.VOLTAGE_LOW
        elapsed_s = duration_s if reason is StopReason.DURATION else 0.0
        recorder.now_s += elapsed_s
        nothing = np.empty(0)
        charge_Ah = current_A * elapsed_s / 3600.0
        return Trace(
            time_s=nothing,
            voltage_V=nothing,
            current_A=nothing,
            charge_Ah=nothing,
            energy_Wh=nothing,
            temperature_degC=nothing,
            elapsed_s=elapsed_s,
            end_voltage_V=voltage_V,
            end_current_A=current_A,
            end_charge_Ah=charge_Ah,
            end_energy_Wh=charge_Ah * voltage_V,
            end_temperature_degC=ambient_degC,
            reason=reason,
        )

    def voltage_V(self, current_A: float = 0.0) -> float:
        return current_A * self._ohm

    def state(self) -> bytes:
        return struct.pack("<d", self._ohm)

    def restore(self, state: bytes) -> None:
        (self._ohm,) = struct.unpack("<d", state)
