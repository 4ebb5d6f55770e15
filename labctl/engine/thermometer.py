"""What the chamber measures, for records of instruments that measure no temperature.

Nothing waits long for a chamber: where it is slow, or does not answer, the last value stands for a
while and then none. Where time stands still meanwhile, there is no hurry. A chamber in alarm is
read all the same: that is when a limit of temperature has to act.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import Final

import numpy as np

from labctl.clock import Clock, RealClock
from labctl.drivers.base import ChamberAlarmError
from labctl.engine.hostwork import HostWork
from labctl.engine.waiting import Waiting, let_go
from labctl.errors import InstrumentError, LinkError
from labctl.model import Readings

EVERY_S: Final = 10.0
STALE_S: Final = 60.0
_PATIENCE_S: Final = 0.25
_NO_HURRY_S: Final = 5.0
"""How long an answer is waited for, by real time, where the run's time goes by itself, and where
it does not."""


class Thermometer:
    """``clock`` says how old a value is."""

    def __init__(self, host: HostWork | None, clock: Clock, waiting: Waiting) -> None:
        self._host = host
        self._clock = clock
        self._waiting = waiting
        self._patience_s = _PATIENCE_S if isinstance(clock, RealClock) else _NO_HURRY_S
        self._asking: asyncio.Task[None] | None = None
        self._due_s = -math.inf
        self._value_degC = math.nan
        self._value_s = -math.inf
        self._away_since_s = math.inf
        self.lost = False
        """Whether the latest readings have no temperature because their chamber says nothing."""

    async def temperature_degC(self) -> float:
        """The latest value; NaN where none is known."""
        now_s = self._clock.monotonic_s()
        if self._host is None:
            return math.nan
        if self._asking is None and now_s >= self._due_s:
            self._due_s = now_s + EVERY_S
            self._asking = asyncio.create_task(self._ask(self._host))
            await self._waiting.at_most(self._asking, self._patience_s)
        if self._asking is not None and self._asking.done():
            asked, self._asking = self._asking, None
            asked.result()
        age_s = self._clock.monotonic_s() - self._value_s
        return self._value_degC if age_s <= STALE_S else math.nan

    async def filled(self, readings: Readings) -> Readings:
        """Readings of now, with the chamber's temperature where they have none."""
        unknown = np.isnan(readings.temperature_degC)
        if not unknown.any():
            self.lost = self.lost and not len(readings)
            return readings
        value_degC = await self.temperature_degC()
        silent_s = self._clock.monotonic_s() - self._away_since_s
        self.lost = math.isnan(value_degC) and silent_s > STALE_S
        return dataclasses.replace(
            readings, temperature_degC=np.where(unknown, value_degC, readings.temperature_degC)
        )

    async def close(self) -> None:
        """Ask no more."""
        asking, self._asking = self._asking, None
        if asking is not None:
            await let_go(asking)

    async def _ask(self, host: HostWork) -> None:
        try:
            answer = await host.temperature()
        except ChamberAlarmError as alarm:
            answer = alarm.temperature_degC
        except (LinkError, InstrumentError):
            self._away_since_s = min(self._away_since_s, self._clock.monotonic_s())
            return
        self._away_since_s = math.inf
        if answer is not None and math.isfinite(answer):
            self._value_degC, self._value_s = answer, self._clock.monotonic_s()
