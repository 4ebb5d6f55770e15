"""What a channel is connected to when nothing is: an open lead, as a cell."""

from __future__ import annotations

import math

import numpy as np

from labctl.simulators.cells.interface import Control, Recorder, StopReason, Trace, Until
from labctl.simulators.neware_bts.instrument import COMPLIANCE_V

STRAY_V = 5e-4


class OpenLead:
    """No current ever flows; a current source drives the voltage to its compliance."""

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
        del max_current_A
        voltage_V = self._voltage_V(control, setpoint)
        reason, elapsed_s = StopReason.DURATION, duration_s
        if voltage_V >= until.voltage_at_least_V:
            reason, elapsed_s = StopReason.VOLTAGE_HIGH, 0.0
        elif voltage_V <= until.voltage_at_most_V:
            reason, elapsed_s = StopReason.VOLTAGE_LOW, 0.0
        elif until.current_magnitude_at_most_A >= 0:
            reason, elapsed_s = StopReason.CURRENT_SMALL, 0.0
        end_s = recorder.now_s + elapsed_s
        count = 0
        if math.isfinite(recorder.every_s):
            count = int((end_s - recorder.last_time_s) / recorder.every_s + 1e-9)
        if count >= max_records > 0:
            count, reason = max_records, StopReason.RECORDS
            end_s = recorder.last_time_s + count * recorder.every_s
        steps = np.arange(1, count + 1, dtype=np.float64)
        times = steps * recorder.every_s + recorder.last_time_s if count else steps
        elapsed_s = end_s - recorder.now_s
        recorder.now_s = end_s
        if count:
            recorder.last_time_s = float(times[-1])
            recorder.last_voltage_V, recorder.last_current_A = voltage_V, 0.0
        return Trace(
            time_s=times,
            voltage_V=np.full(count, voltage_V),
            current_A=np.zeros(count),
            charge_Ah=np.zeros(count),
            energy_Wh=np.zeros(count),
            temperature_degC=np.full(count, ambient_degC),
            elapsed_s=elapsed_s,
            end_voltage_V=voltage_V,
            end_current_A=0.0,
            end_charge_Ah=0.0,
            end_energy_Wh=0.0,
            end_temperature_degC=ambient_degC,
            reason=reason,
        )

    def voltage_V(self, current_A: float = 0.0) -> float:
        return self._voltage_V(Control.CURRENT if current_A else Control.REST, current_A)

    def state(self) -> bytes:
        return b""

    def restore(self, state: bytes) -> None:
        if state:
            raise ValueError("an open lead has no state")

    @staticmethod
    def _voltage_V(control: Control, setpoint: float) -> float:
        if control is Control.VOLTAGE:
            return setpoint
        if control in {Control.CURRENT, Control.POWER} and setpoint:
            return math.copysign(COMPLIANCE_V, setpoint)
        return STRAY_V
