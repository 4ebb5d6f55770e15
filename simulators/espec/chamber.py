"""The chamber itself: its air, what it is set to, its alarms. No wire.

While it works it holds its set point; when it stands still its air comes back to the room's. What
lies beyond an alarm limit, after it was inside, is an alarm: the chamber stops and stays in alarm
until it is switched off when the cause is gone. A heater that stays on, as a fault, is not stopped
by that; a fuse of its own keeps it from more than ``FUSE_K`` above what can be set.

Assumptions: the numbers of the alarms, and what ends them. Both are the manual's to say, which is
not public.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from labctl.simulators.espec.air import approached
from labctl.simulators.espec.config import ChamberConfig
from labctl.simulators.espec.programs import Program, Running

OFF: Final = "OFF"
STANDBY: Final = "STANDBY"
CONSTANT: Final = "CONSTANT"
RUN: Final = "RUN"

HIGH_TEMPERATURE: Final = 2
LOW_TEMPERATURE: Final = 3
HIGH_HUMIDITY: Final = 6
LOW_HUMIDITY: Final = 7
"""Numbers of alarms; those that exist are in ChamberConnectLibrary @1d2deb8, especp300.py."""

FUSE_K: Final = 20.0
SLICE_S: Final = 2.0
STILL_K: Final = 1e-6
ROOM_HUMIDITY: Final = 45.0
HUMIDITY_LAG_S: Final = 120.0
HUMIDITY_PER_S: Final = 0.05
HUMIDITY_NOISE: Final = 0.3
REFRIGERATION: Final = ("REF0", "REF1", "REF3", "REF6", "REF9")
RELAYS: Final = 12


@dataclass(slots=True)
class Settings:
    """What an operator sets. ``humidity`` None is no control of it; ``humidity_kept`` is what it
    was last controlled to."""

    temperature_degC: float
    high_degC: float
    low_degC: float
    humidity: int | None = None
    humidity_kept: int = 50
    humidity_high: int = 100
    humidity_low: int = 0
    refrigeration: str = "REF9"
    relays: set[int] = field(default_factory=set)
    locked: bool = False


class Chamber:
    """``now_s`` is its time since it was made."""

    def __init__(self, config: ChamberConfig) -> None:
        self.config = config
        self.now_s = 0.0
        self.mode = STANDBY
        self.temperature_degC = config.ambient_degC
        self.humidity = ROOM_HUMIDITY
        kind = config.kind
        self.settings = Settings(25.0, kind.high_degC, kind.low_degC)
        self.programs: dict[int, Program] = {}
        self.running: Running | None = None
        self.alarms: list[int] = []
        self.heater_stays_on = False
        self.frozen = False
        """Readings stay as they are."""
        self.changes = 0
        """How often something was set, or began or ended by itself."""
        self._was_inside: set[int] = set()
        self._chance = random.Random(config.seed)  # noqa: S311
        self._read: tuple[float, int] | None = None

    @property
    def at_work(self) -> bool:
        return self.mode in {CONSTANT, RUN}

    @property
    def set_degC(self) -> float:
        """What it is controlled to, or will be when it is switched on."""
        return self.running.temperature_degC if self.running else self.settings.temperature_degC

    @property
    def set_humidity(self) -> int | None:
        """The same for the humidity; None is no control of it."""
        if self.running is None:
            return self.settings.humidity
        humidity = self.running.humidity
        return None if humidity is None else round(humidity)

    @property
    def measured(self) -> tuple[float, int]:
        """Temperature to 0.1 degC, humidity in whole per cent: a new reading each time."""
        if not (self.frozen and self._read):
            noise_K = self._chance.gauss(0.0, self.config.noise_K)
            humidity = self.humidity + self._chance.gauss(0.0, HUMIDITY_NOISE)
            self._read = (
                round(self.temperature_degC + noise_K, 1) + 0.0,
                min(100, max(0, round(humidity))),
            )
        return self._read

    @property
    def heater_percent(self) -> float:
        """How much of its power the heater gives, roughly."""
        config = self.config
        if self.heater_stays_on:
            return 100.0
        if not self.at_work:
            return 0.0
        full_K = config.heating_K_per_min / 60.0 * config.lag_s
        missing_K = self.set_degC - self.temperature_degC
        needed_K = self.set_degC - config.ambient_degC
        return min(100.0, max(0.0, 100.0 * missing_K / full_K + 0.3 * max(0.0, needed_K)))

    @property
    def humidifier_percent(self) -> float:
        humidity = self.set_humidity
        if not self.at_work or humidity is None:
            return 0.0
        return min(100.0, max(0.0, 10.0 * (humidity - self.humidity) + 20.0))

    @property
    def refrigerators(self) -> tuple[bool, bool]:
        """Whether the one for high and the one for low temperatures runs."""
        runs = self.at_work and self.settings.refrigeration != "REF0"
        return runs, runs and self.set_degC < -30.0

    def switch(self, mode: str) -> None:
        """OFF, STANDBY or CONSTANT; ends a program. Switching it off ends the alarms whose cause is
        gone."""
        self.running = None
        if mode == OFF:
            self.alarms = [number for number in self.alarms if self._lies_beyond(number)]
        if mode == CONSTANT and not self.at_work:
            self._was_inside = set()
        self.mode = mode
        self.changes += 1

    def run(self, program: Program, number: int, step: int = 1) -> None:
        """Run a program from a step on, which counts from 1."""
        if not self.at_work:
            self._was_inside = set()
        self.running = Running(program, number, step - 1, self.temperature_degC, self.humidity)
        self.mode = RUN
        self.changes += 1

    def end_program(self, how: str) -> None:
        """End the program: OFF, STANDBY, CONSTANT, HOLD its last step, or RUN the next."""
        over = self.running
        following = self.programs.get(over.program.next) if over and how == RUN else None
        if over is not None and how == "HOLD":
            over.holds = True
        elif over is not None and following is not None:
            self.run(following, over.program.next)
        else:
            self.switch(how if how in {OFF, CONSTANT} else STANDBY)
        self.changes += 1

    def advance(self, duration_s: float) -> None:
        """Live on."""
        left_s = duration_s
        while left_s > 0:
            step_s = left_s if self._is_still() else min(left_s, SLICE_S)
            if self.running is not None:
                step_s = min(step_s, self.running.at_most_s)
            self._pass(step_s)
            if self.running is not None and self.running.advance(step_s, self.temperature_degC):
                self.end_program(self.running.program.end)
            self.now_s += step_s
            left_s -= step_s
            self._watch()

    def _is_still(self) -> bool:
        if self.running is not None:
            return False
        if self.heater_stays_on:
            return self.temperature_degC >= self._fuse_degC - STILL_K
        target_degC, humidity = self._targets()
        return (
            abs(target_degC - self.temperature_degC) < STILL_K
            and abs(humidity - self.humidity) < STILL_K
        )

    def _pass(self, for_s: float) -> None:
        config = self.config
        heating_K_per_s = config.heating_K_per_min / 60.0
        target_degC, humidity = self._targets()
        if self.heater_stays_on:
            warmer_degC = self.temperature_degC + heating_K_per_s * for_s
            self.temperature_degC = min(warmer_degC, self._fuse_degC)
        else:
            self.temperature_degC = approached(
                self.temperature_degC,
                target_degC,
                lag_s=config.lag_s if self.at_work else config.leak_s,
                up_per_s=heating_K_per_s,
                down_per_s=config.cooling_K_per_min / 60.0,
                for_s=for_s,
            )
        self.humidity = approached(
            self.humidity,
            humidity,
            lag_s=HUMIDITY_LAG_S,
            up_per_s=HUMIDITY_PER_S,
            down_per_s=HUMIDITY_PER_S,
            for_s=for_s,
        )

    def _targets(self) -> tuple[float, float]:
        if not self.at_work:
            return self.config.ambient_degC, ROOM_HUMIDITY
        humidity = self.set_humidity
        return self.set_degC, ROOM_HUMIDITY if humidity is None else humidity

    @property
    def _fuse_degC(self) -> float:
        return self.config.kind.range_degC[1] + FUSE_K

    def _watch(self) -> None:
        for number in (HIGH_TEMPERATURE, LOW_TEMPERATURE, HIGH_HUMIDITY, LOW_HUMIDITY):
            if not self._lies_beyond(number):
                self._was_inside.add(number)
            elif self._is_watched(number) and number not in self.alarms:
                self.alarms.append(number)
                if self.at_work:
                    self.switch(STANDBY)

    def _is_watched(self, number: int) -> bool:
        if number == HIGH_TEMPERATURE and self.heater_stays_on:
            return True
        humid = number in {HIGH_HUMIDITY, LOW_HUMIDITY}
        wanted = self.at_work and (not humid or self.set_humidity is not None)
        return wanted and number in self._was_inside

    def _lies_beyond(self, number: int) -> bool:
        found, humidity = self.settings, self.humidity
        return {
            HIGH_TEMPERATURE: self.temperature_degC > found.high_degC,
            LOW_TEMPERATURE: self.temperature_degC < found.low_degC,
            HIGH_HUMIDITY: humidity > found.humidity_high,
            LOW_HUMIDITY: humidity < found.humidity_low,
        }.get(number, False)
