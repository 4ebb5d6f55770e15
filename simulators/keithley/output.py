"""The output: which voltage and current the settings bring about at the cell, and its limits.

Sign: positive current flows out of HI, which charges a cell whose positive pole is at HI.

Sourcing a voltage, the current is clamped at the limit; sourcing a current, the voltage is clamped
at plus and minus the limit: both control the cell by a voltage with a bound on the current.
Off, the output does what its off state says (reference manual 2461-901-01, OUTPut:SMODe): NORMal is
0 V with a tenth of the current range, ZERO is 0 V with the current limit, HIMPedance opens a relay,
and GUARd is a source of 0 A.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from labctl.simulators.cells.interface import Control, Recorder, SimulatedCell, Until
from labctl.simulators.keithley.electronics import Electronics
from labctl.simulators.keithley.models import Model, range_for

OFF_STATES: Final = ("NORMal", "HIMPedance", "ZERO", "GUARd")

OTHER: Final = {"VOLT": "CURR", "CURR": "VOLT"}


@dataclass(slots=True)
class SourceSettings:
    """What is set for sourcing one function. ``limit`` is of the other one."""

    level: float
    limit: float
    full_scale: float
    auto_range: bool = True
    delay_s: float = 0.0
    auto_delay: bool = True
    user_delays_s: list[float] = field(default_factory=lambda: [0.0] * 5)
    readback: bool = True
    high_capacitance: bool = False
    off_state: str = "NORM"

    def copy(self) -> SourceSettings:
        return replace(self, user_delays_s=list(self.user_delays_s))


def default_source(model: Model, function: str) -> SourceSettings:
    """After a reset."""
    if function == "VOLT":
        return SourceSettings(0.0, model.current_limit_default_A, model.voltage_ranges_V[0])
    return SourceSettings(0.0, model.voltage_limit_default_V, model.current_ranges_A[0])


@dataclass(frozen=True, slots=True)
class Drive:
    """What is done to the cell: a control of it, and the level where the source is not limited."""

    control: Control
    setpoint: float
    max_current_A: float = math.inf


class Output:
    """The terminals of one instrument. ``limit_scale_A`` is the range that a current limit is set
    in: the one that measures current."""

    def __init__(
        self,
        model: Model,
        electronics: Electronics,
        cell: SimulatedCell,
        limit_scale_A: Callable[[], float],
    ) -> None:
        self._model = model
        self._electronics = electronics
        self._cell = cell
        self._limit_scale_A = limit_scale_A
        self.on = False
        self.function = "VOLT"
        self.sources = {name: default_source(model, name) for name in ("VOLT", "CURR")}
        self.protection_V = math.inf
        self.voltage_V = cell.voltage_V()
        self.current_A = 0.0

    @property
    def source(self) -> SourceSettings:
        return self.sources[self.function]

    def full_scale(self, function: str) -> float:
        """The range that a function is sourced in."""
        source = self.sources[function]
        if not source.auto_range:
            return source.full_scale
        ranges = self.ranges(function)
        return range_for(source.level, ranges) or ranges[-1]

    def ranges(self, function: str) -> tuple[float, ...]:
        return self._model.voltage_ranges_V if function == "VOLT" else self._model.current_ranges_A

    @property
    def limited(self) -> bool:
        """Whether the limit of the source function holds the output off its level."""
        if not self.on:
            return False
        if self.function == "VOLT":
            return abs(self.voltage_V - self._level("VOLT")) > 1e-5
        if self.source.level == 0:
            return False
        return abs(self.current_A - self._level("CURR")) > 1e-4 * abs(self._level("CURR")) + 1e-12

    @property
    def protecting(self) -> bool:
        """Whether the overvoltage protection holds the output below what was asked."""
        if not self.on:
            return False
        asked_V = self._level("VOLT") if self.function == "VOLT" else self.source.limit
        return abs(asked_V) > self.protection_V and (
            abs(self.voltage_V) >= self.protection_V * (1 - 1e-6)
        )

    def settle(self) -> None:
        """Bring voltage and current in line with settings that have just changed."""
        self.advance(0.0)

    def advance(self, duration_s: float) -> None:
        """Let the cell live through so many seconds under what is set."""
        drive = self._drive()
        trace = self._cell.advance(
            drive.control,
            drive.setpoint,
            duration_s,
            until=Until(),
            recorder=Recorder(),
            max_current_A=drive.max_current_A,
        )
        self.voltage_V, self.current_A = trace.end_voltage_V, trace.end_current_A

    def _level(self, function: str) -> float:
        return self._electronics.sourced(
            function, self.sources[function].level, self.full_scale(function)
        )

    def _current_limit_A(self) -> float:
        return self._electronics.limited("CURR", self.sources["VOLT"].limit, self._limit_scale_A())

    def _drive(self) -> Drive:
        if not self.on:
            match self.source.off_state:
                case "NORM":
                    tenth_A = 0.1 * self._limit_scale_A()
                    return Drive(Control.VOLTAGE, 0.0, tenth_A)
                case "ZERO":
                    return Drive(Control.VOLTAGE, 0.0, self._current_limit_A())
                case _:
                    return Drive(Control.REST, 0.0)
        if self.function == "VOLT":
            level_V = self._level("VOLT")
            level_V = max(-self.protection_V, min(self.protection_V, level_V))
            return Drive(Control.VOLTAGE, level_V, self._current_limit_A())
        if self.source.level == 0:
            return Drive(Control.REST, 0.0)
        current_A = self._level("CURR")
        limit_V = min(
            self._electronics.limited("VOLT", self.source.limit, self.full_scale("VOLT")),
            self.protection_V,
        )
        return Drive(Control.VOLTAGE, math.copysign(limit_V, current_A), abs(current_A))
