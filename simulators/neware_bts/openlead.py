"""What a channel is connected to when nothing is: an open lead, as a cell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from labctl.simulators.cells.interface import (
    Control,
    FloatColumn,
    Recorder,
    StopReason,
    Trace,
    Until,
)
from labctl.simulators.neware_bts.instrument import COMPLIANCE_V

STRAY_V = 5e-4
_NEVER = Until()


@dataclass(frozen=True, slots=True)
class _Ramp:
    """A voltage that moves at a steady rate, 0 for one that stands."""

    from_V: float
    slope_V_per_s: float = 0.0

    def at(self, elapsed_s: FloatColumn) -> FloatColumn:
        return self.from_V + self.slope_V_per_s * elapsed_s

    def when_s(self, voltage_V: float, sign: int) -> float:
        """When it is at or beyond ``voltage_V`` in the direction of ``sign``; inf if never."""
        if sign * (self.from_V - voltage_V) >= 0:
            return 0.0
        if sign * self.slope_V_per_s <= 0:
            return math.inf
        return (voltage_V - self.from_V) / self.slope_V_per_s


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
        ramp = _Ramp(self._voltage_V(control, setpoint))
        return _live(ramp, duration_s, until, recorder, max_records, ambient_degC)

    def sweep(
        self,
        from_V: float,
        to_V: float,
        rate_V_per_s: float,
        *,
        recorder: Recorder,
        duration_s: float = math.inf,
        max_records: int = 100_000,
        max_current_A: float = math.inf,
        ambient_degC: float = 25.0,
        until: Until = _NEVER,
    ) -> Trace:
        """The voltage is what is set, from ``from_V`` to ``to_V``; nothing flows."""
        del max_current_A
        longest_s = min(duration_s, abs(to_V - from_V) / rate_V_per_s)
        ramp = _Ramp(from_V, math.copysign(rate_V_per_s, to_V - from_V))
        return _live(ramp, longest_s, until, recorder, max_records, ambient_degC)

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


def _live(
    ramp: _Ramp,
    duration_s: float,
    until: Until,
    recorder: Recorder,
    max_records: int,
    ambient_degC: float,
) -> Trace:
    ends = [
        (ramp.when_s(until.voltage_at_least_V, 1), StopReason.VOLTAGE_HIGH),
        (ramp.when_s(until.voltage_at_most_V, -1), StopReason.VOLTAGE_LOW),
        (0.0 if until.current_magnitude_at_most_A >= 0 else math.inf, StopReason.CURRENT_SMALL),
        (duration_s, StopReason.DURATION),
    ]
    elapsed_s, reason = min(ends, key=lambda end: end[0])
    every_s = recorder.every_s
    if ramp.slope_V_per_s:
        every_s = min(every_s, recorder.voltage_change_V / abs(ramp.slope_V_per_s))
    end_s = recorder.now_s + elapsed_s
    count = 0
    if math.isfinite(every_s):
        count = int((end_s - recorder.last_time_s) / every_s + 1e-9)
    if count >= max_records > 0:
        count, reason = max_records, StopReason.RECORDS
        end_s = recorder.last_time_s + count * every_s
    steps = np.arange(1, count + 1, dtype=np.float64)
    times = steps * every_s + recorder.last_time_s if count else steps
    volts = ramp.at(times - recorder.now_s)
    elapsed_s = end_s - recorder.now_s
    end_V = ramp.from_V + ramp.slope_V_per_s * elapsed_s
    recorder.now_s = end_s
    if count:
        recorder.last_time_s = float(times[-1])
        recorder.last_voltage_V, recorder.last_current_A = float(volts[-1]), 0.0
    return Trace(
        time_s=times,
        voltage_V=volts,
        current_A=np.zeros(count),
        charge_Ah=np.zeros(count),
        energy_Wh=np.zeros(count),
        temperature_degC=np.full(count, ambient_degC),
        elapsed_s=elapsed_s,
        end_voltage_V=end_V,
        end_current_A=0.0,
        end_charge_Ah=0.0,
        end_energy_Wh=0.0,
        end_temperature_degC=ambient_degC,
        reason=reason,
    )
