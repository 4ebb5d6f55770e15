"""Where a test stands, and what its channel does."""

from __future__ import annotations

import enum
import math

import msgspec

from labctl.drivers.neware_bts.stepfile import StepFile
from labctl.simulators.neware_bts.plan import Phase


class Condition(enum.StrEnum):
    """What a channel does, in BTS's own words."""

    WORKING = "working"
    FINISH = "finish"
    PAUSE = "pause"
    STOP = "stop"
    PROTECT = "protect"


class Position(msgspec.Struct):
    """Where a test stands: everything but the file and the cell. Times in s of test time."""

    condition: Condition = Condition.WORKING
    step: int = 1
    cycle: int = 1
    visit: int = 0
    passes: dict[int, int] = {}
    seq: int = 1
    """Number that the next record gets."""
    phase: Phase = Phase.NOT_ENTERED
    start_s: float = 0.0
    time_s: float = 0.0
    """Since the step began."""
    charge_Ah: float = 0.0
    energy_Wh: float = 0.0
    last_ms: int = -1
    last_time_s: float = 0.0
    last_voltage_V: float = 0.0
    last_current_A: float = 0.0
    grace_s: float = math.inf
    """Step time until which the protections are off; infinity when none has been passed."""
    sweep_from_V: float = 0.0

    @property
    def test_time_s(self) -> float:
        return self.start_s + self.time_s

    def copy(self) -> Position:
        copied = msgspec.structs.replace(self)
        copied.passes = dict(self.passes)
        return copied

    def go_to(self, step: int, file: StepFile) -> None:
        """Stand before ``step``; loops that it is not in begin anew when they are entered again."""
        self.passes = {
            number: done
            for number, done in self.passes.items()
            if (file.steps[number - 1].start_step or 1) <= step <= number
        }
        self.step, self.phase = step, Phase.NOT_ENTERED
