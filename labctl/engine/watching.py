"""What is watched of a run, reading by reading: which conditions hold from here, which end. Pure.

The conditions are those of :mod:`labctl.alarms.conditions`. A person is told; nothing is done here,
for what acts is a limit. Times are given: readings carry the instrument's, and whoever looks says
the run's (``now_s``, which may be virtual) and the wall's, in which lost links are tried again.

What holds is part of the run's checkpoint, and what is news goes into the journal with it, so that
a restart tells nothing twice and forgets nothing that was told. Delays begin anew after a restart.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from labctl.model import Readings
from labctl.program import Program, TemperatureAlarm
from labctl.stream.events import ConditionChanged

FROZEN_READINGS: Final = 30
FROZEN_S: Final = 600.0
LOST_S: Final = 60.0
"""A temperature that was known may be missing for so long."""
INTERVALS: Final = 3
"""So many reporting intervals may pass without a word."""
LEAST_PATIENCE_S: Final = 10.0
MOST_PATIENCE_S: Final = 60.0
DEADBAND_K: Final = 1.0
_WINDOW_POINTS: Final = 12


@dataclass(slots=True)
class Watch:
    """Of one run. ``standing`` are the names of the conditions that hold.

    rule: what the recipe says of temperature, None if nothing.
    """

    run: str
    rule: TemperatureAlarm | None = None
    standing: tuple[str, ...] = ()
    news: list[ConditionChanged] = field(default_factory=list)
    _value: tuple[float, float] = (math.nan, math.nan)
    _alike: int = 0
    _alike_since_s: float = math.nan
    _known_s: float = math.nan
    _beyond_since_s: float = math.nan
    _within_since_s: float = math.nan
    _window: deque[tuple[float, float]] = field(default_factory=deque)
    _quiet_since: tuple[float, float] | None = None
    _away_since_s: float = math.nan
    _away: str = ""

    def see(self, readings: Readings, now_s: float) -> None:
        """Take in what was read; ``now_s`` is the run's unix time, which dates the news."""
        if not len(readings):
            return
        self._quiet_since = None
        self._tell("silent", now_s, holds=False, message="readings come again")
        self._see_values(readings, now_s)
        self._see_temperatures(readings, now_s)

    def see_nothing(self, now_s: float, wall_s: float, interval_s: float) -> None:
        """The instrument answered, and had no reading, though one is due every ``interval_s``."""
        if self._quiet_since is None:
            self._quiet_since = (now_s, wall_s)
        quiet_s, waited_s = now_s - self._quiet_since[0], wall_s - self._quiet_since[1]
        # Where time passes faster than on the wall, a slow machine is no silence.
        if quiet_s > patience_s(interval_s, most_s=math.inf) and waited_s > LEAST_PATIENCE_S:
            said = f"no reading for {quiet_s:.0f} s; one is due every {interval_s:g} s"
            self._tell(
                "silent", now_s, holds=True, message=said, value=quiet_s, limit=interval_s, unit="s"
            )

    def expect_nothing(self) -> None:
        """No reading is due now."""
        self._quiet_since = None

    def rest(self) -> None:
        """Nothing is to be read for a while: delays begin anew when it is."""
        self.expect_nothing()
        self._alike, self._alike_since_s = 0, math.nan
        self._beyond_since_s = self._within_since_s = math.nan
        self._window.clear()

    def see_trouble(
        self, trouble: str, now_s: float, wall_s: float, *, link: bool, poll_s: float
    ) -> None:
        """What keeps the run from going on, '' if nothing does. ``link``: it is the connection."""
        if not trouble:
            away_s = wall_s - self._away_since_s
            for name in ("no-connection", "stuck"):
                message = f"over after {away_s:.0f} s" if math.isfinite(away_s) else "over"
                self._tell(name, now_s, holds=False, message=message)
            self._away_since_s, self._away = math.nan, ""
            return
        name, other = ("no-connection", "stuck") if link else ("stuck", "no-connection")
        if name != self._away:
            self._tell(other, now_s, holds=False, message=f"now: {trouble}")
            self._away_since_s, self._away = wall_s, name
        away_s = wall_s - self._away_since_s
        if away_s >= patience_s(poll_s):
            self._tell(name, now_s, holds=True, message=trouble, value=away_s, unit="s")

    def take_news(self) -> list[ConditionChanged]:
        """What has changed and was not told; :meth:`put_back` if it could not be kept."""
        news, self.news = self.news, []
        return news

    def put_back(self, news: list[ConditionChanged]) -> None:
        """It was not kept."""
        self.news = news + self.news

    def _see_values(self, readings: Readings, now_s: float) -> None:
        voltage_V, current_A = readings.voltage_V, readings.current_A
        if len(readings) == 1:
            self._see_value(
                (voltage_V.item(0), current_A.item(0)), readings.unix_time_s.item(0), now_s
            )
            return
        # Values that stand still are rare: most blocks are passed over as a whole.
        moves = (voltage_V[1:] != voltage_V[:-1]) | (current_A[1:] != current_A[:-1])
        first = int(np.flatnonzero(moves)[-1]) + 1 if moves.any() else 0
        if first:
            self._alike, self._value = 0, (math.nan, math.nan)
            self._tell("frozen", now_s, holds=False, message="voltage and current change again")
        for row in range(first, len(readings)):
            value = voltage_V.item(row), current_A.item(row)
            self._see_value(value, readings.unix_time_s.item(row), now_s)

    def _see_value(self, value: tuple[float, float], unix_time_s: float, now_s: float) -> None:
        if value != self._value or value[1] == 0.0:
            self._value, self._alike, self._alike_since_s = value, 1, unix_time_s
            self._tell("frozen", now_s, holds=False, message="voltage and current change again")
            return
        self._alike += 1
        stood_s = unix_time_s - self._alike_since_s
        if self._alike >= FROZEN_READINGS and stood_s >= FROZEN_S:
            said = (
                f"{self._alike} readings in {stood_s / 60.0:.0f} min were all {value[0]:.6g} V and "
                f"{1e3 * value[1]:.6g} mA"
            )
            self._tell("frozen", now_s, holds=True, message=said, value=stood_s, unit="s")

    def _see_temperatures(self, readings: Readings, now_s: float) -> None:
        times_s, values_degC = readings.unix_time_s, readings.temperature_degC
        if self.rule is not None:
            for row in range(len(readings)):
                if not math.isnan(value_degC := values_degC.item(row)):
                    self._judge(self.rule, value_degC, times_s.item(row), now_s)
        last_s = times_s.item(-1)
        known = np.flatnonzero(~np.isnan(values_degC)) if len(readings) > 1 else None
        if known is None:
            if not math.isnan(values_degC.item(0)):
                self._known_s = last_s
        elif len(known):
            self._known_s = times_s.item(int(known[-1]))
        missing_s = last_s - self._known_s
        if missing_s > LOST_S:
            said = f"the temperature is not known for {missing_s:.0f} s"
            self._tell(
                "temperature-lost", now_s, holds=True, message=said, value=missing_s, unit="s"
            )
        elif missing_s == 0.0:
            self._tell("temperature-lost", now_s, holds=False, message="it is known again")

    def _judge(
        self, rule: TemperatureAlarm, value_degC: float, unix_time_s: float, now_s: float
    ) -> None:
        stands = "temperature" in self.standing
        room_K = DEADBAND_K if stands else 0.0
        warm, cold = value_degC > rule.above_degC - room_K, value_degC < rule.below_degC + room_K
        if warm or cold:
            self._within_since_s = math.nan
            if math.isnan(self._beyond_since_s):
                self._beyond_since_s = unix_time_s
            if not stands and unix_time_s - self._beyond_since_s >= rule.for_s:
                limit = rule.above_degC if warm else rule.below_degC
                said = f"{value_degC:.1f} degC for {rule.for_s:g} s; the limit is {limit:g} degC"
                self._tell(
                    "temperature", now_s, holds=True, message=said, value=value_degC, limit=limit,
                    unit="degC",
                )  # fmt: skip
        else:
            self._beyond_since_s = math.nan
            if math.isnan(self._within_since_s):
                self._within_since_s = unix_time_s
            if unix_time_s - self._within_since_s >= rule.for_s:
                said = f"{value_degC:.1f} degC again"
                self._tell("temperature", now_s, holds=False, message=said, value=value_degC)
        if math.isfinite(rule.rate_K_per_s):
            self._judge_rate(rule, value_degC, unix_time_s, now_s)

    def _judge_rate(
        self, rule: TemperatureAlarm, value_degC: float, unix_time_s: float, now_s: float
    ) -> None:
        window = self._window
        if not window or unix_time_s - window[-1][0] >= rule.for_s / _WINDOW_POINTS:
            window.append((unix_time_s, value_degC))
        while len(window) > 2 and unix_time_s - window[1][0] >= rule.for_s:
            window.popleft()
        took_s = unix_time_s - window[0][0]
        if took_s < rule.for_s:
            return
        rate_K_per_s = (value_degC - window[0][1]) / took_s
        fast = abs(rate_K_per_s) > rule.rate_K_per_s
        said = (
            f"{60.0 * rate_K_per_s:+.2f} K/min over {took_s:.0f} s; "
            f"the limit is {60.0 * rule.rate_K_per_s:g} K/min"
        )
        self._tell(
            "temperature-rate", now_s, holds=fast, message=said, value=rate_K_per_s,
            limit=rule.rate_K_per_s, unit="K/s",
        )  # fmt: skip

    def _tell(
        self,
        name: str,
        now_s: float,
        *,
        holds: bool,
        message: str,
        value: float | None = None,
        limit: float | None = None,
        unit: str = "",
    ) -> None:
        if holds == (name in self.standing):
            return
        others = tuple(one for one in self.standing if one != name)
        self.standing = (*others, name) if holds else others
        self.news.append(
            ConditionChanged(
                run=self.run, condition=name, holds=holds, message=message, unix_time_s=now_s,
                value=value, limit=limit, unit=unit,
            )
        )  # fmt: skip


def watch_of(run: str, program: Program, standing: tuple[str, ...]) -> Watch:
    """The watch over a run, as its checkpoint left it."""
    rule = next((one for one in program.alarms if isinstance(one, TemperatureAlarm)), None)
    return Watch(run, rule, standing)


def patience_s(interval_s: float, *, most_s: float = MOST_PATIENCE_S) -> float:
    """How long nothing may be heard where something is due every ``interval_s``."""
    return min(max(INTERVALS * interval_s, LEAST_PATIENCE_S), most_s)
