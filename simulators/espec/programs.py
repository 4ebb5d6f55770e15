"""Programs that a chamber runs by itself: steps, ramps, soaks, counters, and what comes at the end.

A step holds its temperature or ramps to it; one that soaks counts its time from when the air is
there. A counter goes back from the end of a step so many times.

Assumptions: how near a soak must be, and that a counter's cycles are how often it goes back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

SOAKED_K: Final = 0.5
MOST_STEPS: Final = 99


@dataclass(slots=True)
class ProgramStep:
    """``humidity`` None is no control of it."""

    temperature_degC: float
    ramp: bool = False
    humidity: int | None = None
    humidity_ramp: bool = False
    time_s: float = 0.0
    soaks: bool = False
    pauses: bool = False
    refrigeration: str = "REF9"
    relays: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Counter:
    """From the end of step ``end`` back to ``start``, both from 1; cycles 0 is none."""

    start: int = 0
    end: int = 0
    cycles: int = 0


@dataclass(slots=True)
class Program:
    """``end`` is OFF, STANDBY, CONSTANT or HOLD, or RUN with the number of the next."""

    name: str = ""
    steps: list[ProgramStep] = field(default_factory=list)
    a: Counter = field(default_factory=Counter)
    b: Counter = field(default_factory=Counter)
    end: str = "STANDBY"
    next: int = 0
    details: dict[str, str] = field(default_factory=dict)
    date: str = ""


@dataclass(slots=True)
class Running:
    """How far a program has come. number 0: it was sent to be run once. index: of the step, from 0.
    holds: it is over, and its last step is held."""

    program: Program
    number: int
    index: int
    from_degC: float
    from_humidity: float
    step_s: float = 0.0
    soaked: bool = False
    paused: bool = False
    holds: bool = False
    a_left: int = 0
    b_left: int = 0

    def __post_init__(self) -> None:
        self.a_left, self.b_left = self.program.a.cycles, self.program.b.cycles

    @property
    def step(self) -> ProgramStep:
        return self.program.steps[self.index]

    @property
    def left_s(self) -> float:
        return max(0.0, self.step.time_s - self.step_s)

    @property
    def at_most_s(self) -> float:
        """How long nothing changes but the set point."""
        goes_on = not (self.paused or self.holds or (self.step.soaks and not self.soaked))
        return self.left_s if goes_on and self.left_s > 0 else math.inf

    @property
    def temperature_degC(self) -> float:
        """The set point now."""
        step = self.step
        if not step.ramp:
            return step.temperature_degC
        return self.from_degC + self._share * (step.temperature_degC - self.from_degC)

    @property
    def humidity(self) -> float | None:
        """The set point now."""
        step = self.step
        if step.humidity is None or not step.humidity_ramp:
            return step.humidity
        return self.from_humidity + self._share * (step.humidity - self.from_humidity)

    def advance(self, duration_s: float, air_degC: float) -> bool:
        """Live on, at most to the end of the step; whether the program is over."""
        if self.paused or self.holds:
            return False
        self.soaked = self.soaked or abs(air_degC - self.step.temperature_degC) <= SOAKED_K
        if self.step.soaks and not self.soaked:
            return False
        self.step_s += duration_s
        return self.step_s >= self.step.time_s and self.next_step()

    def next_step(self) -> bool:
        """Leave the step; whether the program is over."""
        step, number = self.step, self.index + 1
        self.from_degC = step.temperature_degC
        self.from_humidity = self.from_humidity if step.humidity is None else step.humidity
        if number == self.program.a.end and self.a_left:
            self.a_left -= 1
            to = self.program.a.start
        elif number == self.program.b.end and self.b_left:
            self.b_left -= 1
            to = self.program.b.start
        else:
            to = number + 1
        if to > len(self.program.steps):
            return True
        self.index, self.step_s, self.soaked, self.paused = to - 1, 0.0, False, step.pauses
        return False

    @property
    def _share(self) -> float:
        return min(1.0, self.step_s / self.step.time_s) if self.step.time_s else 1.0
