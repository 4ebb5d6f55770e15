"""What a step is in the instrument: one of its own tests, with its parameters. No I/O.

A test has its waveform, its sampling and its end in the instrument. It knows no limits: what the
voltage can come to is what the parameters say, and the current is whatever the cell takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from labctl.drivers.base import Task
from labctl.drivers.rodeostat.config import (
    FASTEST_S,
    VOLTAGE_RANGES_V,
    RodeostatConfig,
    range_name,
)
from labctl.program import ConstantVoltage, Quantity, VoltageSweep

LONGEST_S: Final = 4e6
"""Times are 32 bits of ms."""
SAMPLES_PER_SWEEP: Final = 200
"""A short test is sampled more often than the config says."""


@dataclass(frozen=True, slots=True)
class Waveform:
    """A test: its name, its parameters as they are sent, and where its voltage begins and ends.

    ``rests``: the counter electrode stays open, and the test is no more than a clock.
    """

    test: str
    param: dict[str, float]
    begins_V: float
    ends_V: float
    duration_ms: int
    period_ms: int
    rests: bool = False

    @property
    def voltage_range(self) -> str:
        """The range that the instrument will choose for it."""
        return range_name(VOLTAGE_RANGES_V, max(abs(self.begins_V), abs(self.ends_V)))

    def voltage_V(self, time_ms: int) -> float:
        """What is to be put out at a time."""
        share = min(1.0, time_ms / self.duration_ms)
        return self.begins_V + (self.ends_V - self.begins_V) * share


def waveform_of(task: Task, config: RodeostatConfig, open_circuit_V: float) -> Waveform:
    """The test of a visit; whatever is no sweep and no hold is a rest.

    ``open_circuit_V`` is where a sweep begins that begins where the cell stands.
    """
    control = task.step.control
    match control:
        case VoltageSweep(from_V=from_V, to_V=to_V, rate_V_per_s=rate):
            begins_V = open_circuit_V if from_V is None else from_V
            duration_s = abs(to_V - begins_V) / rate
            return _test("linearSweep", begins_V, to_V, duration_s, task, config)
        case ConstantVoltage(voltage_V=voltage_V):
            return _test("constant", voltage_V, voltage_V, _time_left_s(task), task, config)
        case _:
            return _test("constant", config.widest_V, config.widest_V, LONGEST_S, task, config)


def _test(
    test: str,
    begins_V: float,
    ends_V: float,
    duration_s: float,
    task: Task,
    config: RodeostatConfig,
) -> Waveform:
    duration_ms = max(1, round(1000 * min(duration_s, LONGEST_S)))
    period_s = min(config.sample_period_s, task.step.record.every_s)
    if test == "linearSweep":
        period_s = min(period_s, duration_s / SAMPLES_PER_SWEEP)
    param = {"quietValue": begins_V, "quietTime": 0, "duration": duration_ms}
    levels = (
        {"startValue": begins_V, "finalValue": ends_V}
        if test == "linearSweep"
        else {"value": begins_V}
    )
    return Waveform(
        test=test,
        param=param | levels,
        begins_V=begins_V,
        ends_V=ends_V,
        duration_ms=duration_ms,
        period_ms=max(1, math.floor(1000 * max(FASTEST_S, period_s) * (1 + 1e-9))),
        rests=not isinstance(task.step.control, VoltageSweep | ConstantVoltage),
    )


def _time_left_s(task: Task) -> float:
    times_s = [
        end.value - task.done_s for end in task.step.ends if end.quantity is Quantity.STEP_TIME_S
    ]
    return max(0.0, min([*times_s, task.limits.duration_max_s, LONGEST_S]))
