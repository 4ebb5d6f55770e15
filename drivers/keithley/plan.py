"""What the instrument is set to for one visit to one step. No I/O.

The output is a voltage source at the voltage where the visit must stop, with the current as its
limit. The instrument then sits in its current limit, which is the constant current, and the cut-off
is the level of the source itself: no cell can be charged or discharged past it, however late
anybody looks. (Sourcing a current with a limited voltage would not do: that limit is the same up
and down, so nothing would end a discharge before 0 V.) The price is that the current is as good as
a limit is, 0.3 % of what was set; what flows is measured to 0.02 %.

A constant current is over when the source leaves its limit: the current falls below
``STILL_LIMITED`` of what was set. The level lies ``GUARD_V`` beyond the end, as far as the limits
allow, so that the end is also passed in what is measured, whatever the source and the measurement
are wrong by. A rest is a source of 0 A, because with the output off nothing
can be measured. A sweep is a staircase of levels.

Source: reference manual 2461-901-01, ch. 6; SPEC-2450 Rev. A.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from labctl.drivers.base import Task
from labctl.drivers.keithley.config import KeithleyConfig, holding
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    EndCondition,
    Limits,
    Quantity,
    Rest,
    Step,
    VoltageSweep,
)

STILL_LIMITED: Final = 0.97
"""A limit is within 0.3 % of what was set, and what is measured of it within 0.1 %."""

GUARD_V: Final = 3e-3
"""As much as a level of 4 V in the 20 V range may be wrong by: 0.015 % and 2.4 mV."""

READINGS_IN_A_STEP: Final = 3000
"""About how many readings a step in which current flows gets before its limit by charge, or before
its nearest end by time or charge. The host sees such an end in a reading that is up to two periods
old, and what flows meanwhile is in no reading: so it is less than a thousandth of
the step."""

PROTECTION_MARGIN: Final = 1.05

NEVER_TIGHT_V: Final = 0.2
"""The smallest voltage limit that every model takes."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is measured, as a branch of the trigger model compares it: ``kind`` is ``BEL`` (below
    both), ``ABOV`` (above both) or ``IN`` (from ``low`` to ``high``)."""

    kind: str
    low: float
    high: float

    def holds(self, measured: float) -> bool:
        match self.kind:
            case "BEL":
                return measured < self.low
            case "ABOV":
                return measured > self.high
            case _:
                return self.low <= measured <= self.high


class Stops(enum.Enum):
    """Which way the source drives the voltage no further than its level.

    A sweep goes both ways, and is nowhere driven past the level that it stands at.
    """

    RISE = "rise"
    FALL = "fall"
    BOTH = "both"
    NEITHER = "neither"

    @classmethod
    def towards(cls, *, charging: bool) -> Stops:
        return cls.RISE if charging else cls.FALL


@dataclass(frozen=True, slots=True)
class Setup:
    """One visit. ``source`` is ``VOLT`` or ``CURR``; the other one is measured and limited.

    ``ends`` is what the instrument ends the visit by itself at, which is ``end`` of the step; or a
    limit, which ``limit_reached`` then names. ``windows``: see :func:`program_of`.
    ``settles_first``: the delay comes before the measurement and not after it.
    """

    source: str
    level: float
    limit: float
    source_range: float
    sense_range: float
    protection_V: float
    period_s: float
    delay_s: float
    windows: int
    ends: Window | None = None
    end: EndCondition | None = None
    limit_reached: str = ""
    settles_first: bool = False
    stops: Stops = Stops.NEITHER

    @property
    def sense(self) -> str:
        return "CURR" if self.source == "VOLT" else "VOLT"


def setup_of(task: Task, config: KeithleyConfig) -> Setup:
    """What the instrument is set to for ``task``, which was not refused when it was planned."""
    control, limits = task.step.control, task.limits
    match control:
        case ConstantCurrent(current_A=current_A):
            level_V, end = stop_voltage(task.step, limits, charging=current_A > 0)
            held_A = STILL_LIMITED * abs(current_A)
            return _voltage_setup(
                task,
                config,
                level_V,
                abs(current_A),
                ends=Window("BEL", held_A, held_A)
                if current_A > 0
                else Window("ABOV", -held_A, -held_A),
                end=end,
                limit_reached=("" if end else f"the voltage reached its limit of {level_V:g} V"),
                stops=Stops.towards(charging=current_A > 0),
            )
        case ConstantCurrentConstantVoltage(current_A=current_A, voltage_V=voltage_V):
            return _voltage_setup(
                task,
                config,
                voltage_V,
                abs(current_A),
                end=cut_off(task.step),
                stops=Stops.towards(charging=current_A > 0),
            )
        case ConstantVoltage(voltage_V=voltage_V, max_current_A=most_A, charging=charging):
            return _voltage_setup(
                task,
                config,
                voltage_V,
                most_A,
                end=cut_off(task.step),
                stops=Stops.towards(charging=charging),
            )
        case VoltageSweep(from_V=from_V, to_V=to_V, max_current_A=most_A):
            level_V = to_V if from_V is None else from_V
            return _voltage_setup(task, config, level_V, most_A, stops=Stops.BOTH)
        case Rest():
            return _rest_setup(task, config)
        case _:
            raise ValueError(f"{control} cannot be set up")


def stop_voltage(
    step: Step, limits: Limits, *, charging: bool
) -> tuple[float, EndCondition | None]:
    """The level at which a constant current must stop, and for which of the step's ends; None
    where it is for a limit."""
    wanted = Comparison.AT_LEAST if charging else Comparison.AT_MOST
    sign = 1.0 if charging else -1.0
    limit_V = limits.voltage_max_V if charging else limits.voltage_min_V
    nearest = min(
        (
            end
            for end in step.ends
            if end.quantity is Quantity.VOLTAGE_V and end.comparison is wanted
        ),
        key=lambda end: sign * end.value,
        default=None,
    )
    if nearest is None or sign * nearest.value > sign * limit_V:
        return limit_V, None
    return sign * min(sign * nearest.value + GUARD_V, sign * limit_V), nearest


def period_s(task: Task, config: KeithleyConfig) -> float:
    """How long one look should be after the other."""
    control = task.step.control
    longest_s = min(config.sample_period_s, task.step.record.every_s)
    match control:
        case VoltageSweep(rate_V_per_s=rate):
            stair_s = config.sweep_step_V / rate
            return max(config.reading_s, stair_s / math.ceil(stair_s / config.sample_period_s))
        case (
            ConstantCurrent(current_A=current_A)
            | ConstantCurrentConstantVoltage(current_A=current_A)
            | ConstantVoltage(max_current_A=current_A)
        ):
            longest_s = min(longest_s, _soonest_s(task, abs(current_A)) / READINGS_IN_A_STEP)
        case _:
            pass
    return max(config.reading_s, longest_s)


def _soonest_s(task: Task, current_A: float) -> float:
    """When the visit can be over at the soonest, but for its voltage."""
    found_s = [task.limits.step_charge_max_Ah * 3600.0 / current_A]
    for end in task.step.ends:
        if end.quantity is Quantity.STEP_TIME_S:
            found_s.append(end.value)
        elif end.quantity is Quantity.STEP_CHARGE_AH:
            found_s.append(abs(end.value) * 3600.0 / current_A)
    return min(found_s)


def program_of(setup: Setup, buffer: str, *, watched: bool) -> tuple[str, ...]:
    """The trigger model of a visit: output on, measure on and on, output off.

    It goes on only while the host is heard (``*TRG``) at least once in each window of
    ``setup.windows`` readings: a host that is gone lets at most two windows pass.
    """
    wait = "NOP {}"
    if setup.delay_s > 0:
        wait = "DEL:CONS {}," + f"{setup.delay_s:.6f}"
    look = "NOP {}"
    if setup.ends is not None:
        ends = setup.ends
        look = "BRAN:LIM:CONS {}," + f"{ends.kind},{ends.low:.9g},{ends.high:.9g},7"
    measure = "MEAS {}," + f'"{buffer}"'
    inner = (wait, measure, look) if setup.settles_first else (measure, look, wait)
    if watched:
        again = (f"BRAN:COUN {{}},{setup.windows},2", "BRAN:EVEN {},COMM,2")
    else:
        again = ("BRAN:ALW {},2", "NOP {}")
    blocks = ("SOUR:STAT {},ON", *inner, *again, "SOUR:STAT {},OFF")
    return tuple(
        f":TRIG:BLOC:{block.format(number)}" for number, block in enumerate(blocks, start=1)
    )


def stair_V(control: VoltageSweep, from_V: float, elapsed_s: float, step_V: float) -> float:
    """The level of a sweep ``elapsed_s`` after it began at ``from_V``."""
    whole_V = control.to_V - from_V
    gone_V = control.rate_V_per_s * elapsed_s
    if gone_V >= abs(whole_V) - 0.5 * step_V:
        return control.to_V
    return from_V + math.copysign(math.floor(gone_V / step_V + 1e-6) * step_V, whole_V)


def _voltage_setup(
    task: Task,
    config: KeithleyConfig,
    level_V: float,
    current_A: float,
    *,
    ends: Window | None = None,
    end: EndCondition | None = None,
    limit_reached: str = "",
    stops: Stops = Stops.NEITHER,
) -> Setup:
    kind = config.kind
    sweeps = isinstance(task.step.control, VoltageSweep)
    if ends is None and end is not None:
        ends = Window("IN", -end.value, end.value)
    pace = period_s(task, config)
    return Setup(
        source="VOLT",
        level=level_V,
        limit=max(current_A, kind.limit_min_A),
        source_range=holding(_widest_V(task, config), kind.voltage_ranges_V),
        sense_range=holding(current_A, kind.current_ranges_A),
        protection_V=protection_V(task, config),
        period_s=pace,
        delay_s=max(0.0, (0.9 if sweeps else 1.0) * pace - config.reading_s),
        windows=_windows(pace, config),
        ends=ends,
        end=end,
        limit_reached=limit_reached,
        settles_first=sweeps,
        stops=stops,
    )


def _rest_setup(task: Task, config: KeithleyConfig) -> Setup:
    kind = config.kind
    pace = period_s(task, config)
    return Setup(
        source="CURR",
        level=0.0,
        limit=max(NEVER_TIGHT_V, config.widest_voltage_V),
        source_range=holding(1e-6, kind.current_ranges_A),
        sense_range=holding(_widest_V(task, config), kind.voltage_ranges_V),
        protection_V=protection_V(task, config),
        period_s=pace,
        delay_s=max(0.0, pace - config.reading_s),
        windows=_windows(pace, config),
    )


def protection_V(task: Task, config: KeithleyConfig) -> float:
    """The lowest overvoltage protection that the visit leaves alone; infinite if there is none."""
    return holding(PROTECTION_MARGIN * _widest_V(task, config), config.kind.protections_V)


def _widest_V(task: Task, config: KeithleyConfig) -> float:
    """Any voltage that the cell can be at, whatever the level of the source."""
    limits = [abs(v) for v in (task.limits.voltage_min_V, task.limits.voltage_max_V)]
    return max(value if math.isfinite(value) else config.widest_voltage_V for value in limits)


def _windows(pace: float, config: KeithleyConfig) -> int:
    """How many readings half a watchdog holds, also if they take half as long again as thought."""
    return max(1, math.floor(config.watchdog_s / 2 / (pace + 0.5 * config.reading_s)))


def cut_off(step: Step) -> EndCondition | None:
    """The end by which a constant voltage is over when its current has fallen."""
    found = (
        end
        for end in step.ends
        if end.quantity is Quantity.CURRENT_A
        and end.comparison is Comparison.AT_MOST
        and end.value > 0
    )
    return max(found, key=lambda end: end.value, default=None)
