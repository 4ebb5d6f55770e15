"""How often a visit is sampled inside the instrument, and when its ends by time are. No I/O.

A measurement loop samples at a fixed interval and looks at every limit and end at each sample, so
the interval is what bounds how far a voltage runs past its end. It is a ten-thousandth of the
shortest time that the visit can take (by its ends, and by the charge that a step may pass), within
bounds. A held current that goes to a voltage is sampled more often when the voltage is near.
"""

from __future__ import annotations

import math
from typing import Final

from labctl.drivers.base import Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    EndCondition,
    Quantity,
)

SAMPLES: Final = 10_000
"""Of the longest stretch between two ends; at a steep end a cell moves some 10 times its window in
that time, which is some mV a sample."""

NEAR_V: Final = 0.15
"""So far from its end a voltage is looked at more often; it moves less than that in one sample."""

FINER: Final = 20
"""How much more often."""

LONGEST_S: Final = 1e6
_LADDER: Final = (1, 2, 5)
_ROUNDING: Final = 1e-6


def sample_ticks(task: Task, config: PalmSensConfig) -> int:
    """The interval of a visit's samples, in the model's fastest samples: 1, 2, 5, 10, 20…"""
    tick_s = config.kind.fastest_sample_s
    longest_s = min(
        _span_s(task) / SAMPLES,
        config.slowest_sample_s,
        task.step.record.every_s,
    )
    ticks = max(1, math.floor(longest_s / tick_s * (1 + _ROUNDING)))
    decade = int(10 ** math.floor(math.log10(ticks)))
    return max(step * decade for step in _LADDER if step * decade <= ticks)


def finer_ticks(ticks: int) -> int:
    """The interval where a voltage is near its end."""
    return max(1, ticks // FINER)


def next_end_V(task: Task, current_A: float, voltage_V: float | None = None) -> float | None:
    """The voltage at which a held current ends first: by an end of its step, or at ``voltage_V``;
    None where it goes to none."""
    charging = current_A > 0
    towards = Comparison.AT_LEAST if charging else Comparison.AT_MOST
    ends_V = [
        end.value
        for end in task.step.ends
        if end.quantity is Quantity.VOLTAGE_V and end.comparison is towards
    ]
    if voltage_V is not None:
        ends_V.append(voltage_V)
    if not ends_V:
        return None
    return min(ends_V) if charging else max(ends_V)


def end_ticks(end: EndCondition, task: Task, tick_s: float) -> int:
    """After how many ticks an end by time holds; late by at most one tick.

    What an interrupted visit had before is added by others, and a sum may come out a hair short:
    then it is one tick later.
    """
    left = (end.value - task.done_s) / tick_s
    return max(1, math.ceil(left * (1 - 1e-12)) + (1 if task.done_s > 0 else 0))


def time_left_s(task: Task) -> float:
    """How long the visit can take at the most, by its ends; bounded where it has none."""
    times_s = [
        end.value - task.done_s for end in task.step.ends if end.quantity is Quantity.STEP_TIME_S
    ]
    return max(0.0, min([*times_s, task.limits.duration_max_s, LONGEST_S]))


def _span_s(task: Task) -> float:
    span_s = time_left_s(task)
    current_A = 0.0
    match task.step.control:
        case ConstantCurrent(current_A=rate) | ConstantCurrentConstantVoltage(current_A=rate):
            current_A = abs(rate)
        case ConstantVoltage(max_current_A=most_A):
            current_A = most_A
        case _:
            pass
    charge_As = 3600.0 * task.limits.step_charge_max_Ah
    return min(span_s, charge_As / current_A) if current_A else span_s
