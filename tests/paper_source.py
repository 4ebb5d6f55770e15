"""A source on paper: it makes one visit at a time, on a cell that a pencil can follow.

Its cell is a capacitor: the voltage rises by ``VOLTS_PER_AH`` for each ampere-hour. It measures
every ``sample_s`` of its clock from the beginning of a visit on, and its output stays as it is when
nobody asks: what flows then flows on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import msgspec
import numpy as np
from paper_cycler import START_V, VOLTS_PER_AH

from labctl.clock import Clock
from labctl.drivers.base import (
    Capabilities,
    ChannelState,
    ChannelStatus,
    CurrentRange,
    Failsafe,
    Identity,
    Looked,
    Task,
)
from labctl.errors import InstrumentError, LinkError
from labctl.model import Readings, Spectrum
from labctl.program import (
    ConstantCurrent,
    Control,
    Impedance,
    Limits,
    Program,
    Quantity,
    Rest,
    VoltageSweep,
)


class PaperSource:
    """See the module.

    link_down: nothing is heard, and what flows flows on.
    off_when_unheard_s: the watchdog, by the clock; infinite for none.
    deaf: so many calls of off do nothing.
    garbles: so many looks cannot be understood.
    refuses: why it takes no task, '' if it does.
    read_back: what it says of the limits that it was given.
    ends_itself: it ends a visit at its end by voltage, as :class:`Looked` says.
    reads_low_V: what it measures is wrong by so much; it ends a visit at the right voltage.
    rests_for_s: it ends every rest by itself after so long.
    gives_up: so many visits it ends after two readings, for no reason.
    trips: what its protection says of the next look, '' if nothing.
    before: called with the name of every call before anything happens.
    """

    def __init__(self, clock: Clock, *, sample_s: float = 60.0) -> None:
        self.clock = clock
        self.sample_s = sample_s
        self.calls: list[str] = []
        self.tasks: list[Task] = []
        self.pulses: list[str] = []
        self.serial = "P1"
        self.failsafe = Failsafe.WATCHDOG
        self.link_down = False
        self.off_when_unheard_s = math.inf
        self.deaf = 0
        self.garbles = 0
        self.refuses = ""
        self.read_back: Callable[[Limits], Limits] = lambda limits: limits
        self.ends_itself = False
        self.reads_low_V = 0.0
        self.rests_for_s = math.inf
        self.gives_up = 0
        self.trips = ""
        self.before: Callable[[str], None] = lambda _: None
        self.passed_Ah = 0.0
        self.charged_Ah = 0.0
        self.output_on = False
        self._task: Task | None = None
        self._armed: Task | None = None
        self._begun_s = 0.0
        self._now_s = clock.monotonic_s()
        self._heard_s = self._now_s
        self._handed_out = 0
        self._begun_Ah = 0.0
        self._from_V = 0.0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            techniques=frozenset({"rest", "constant_current", "voltage_sweep", "impedance"}),
            voltage_min_V=0.0,
            voltage_max_V=5.0,
            current_ranges=(CurrentRange(0.1, 1e-6),),
            fastest_record_s=0.1,
            failsafe=self.failsafe,
            outputs=frozenset({"trigger"}),
        )

    @property
    def voltage_V(self) -> float:
        """Of the cell, now."""
        self._live()
        return self._voltage_V()

    async def open(self) -> Identity:
        self._say("open")
        return Identity("Paper", "source", self.serial)

    async def close(self) -> None:
        self.calls.append("close")

    async def channels(self) -> tuple[str, ...]:
        return ("1",)

    async def status(self, channel: str) -> ChannelStatus:
        self._say("status")
        state = ChannelState.RUNNING if self.output_on else ChannelState.IDLE
        return ChannelStatus(state, "", "", self._voltage_V(), self._current_A())

    def refusals(self, program: Program) -> tuple[str, ...]:
        return ()

    async def arm(self, channel: str, task: Task) -> Limits:
        self._say("arm")
        if self.refuses:
            raise InstrumentError(self.refuses)
        self._armed = task
        return self.read_back(task.limits)

    async def begin(self, channel: str, task: Task) -> None:
        self._say("begin")
        assert task == self._armed, "a visit is begun that was not armed"
        self.tasks.append(task)
        self._task = task
        self.output_on = not isinstance(task.step.control, Rest)
        self._begun_s, self._handed_out = self._now_s, 0
        self._begun_Ah, self._from_V = self.passed_Ah, self._voltage_V()

    async def look(self, channel: str) -> Looked:
        self._say("look")
        if self.garbles:
            self.garbles -= 1
            raise InstrumentError("an answer that cannot be understood")
        task = self._task
        if task is None:
            raise InstrumentError("nothing was begun")
        if isinstance(task.step.control, Impedance):
            self.output_on, self._task = False, None
            return Looked(self._readings(task, [0.0]), (_spectrum(self._voltage_V()),), ended=True)
        last = math.floor((self._now_s - self._begun_s) / self.sample_s + 1e-9) + 1
        times_s = [index * self.sample_s for index in range(self._handed_out, last)]
        if self.trips:
            trips, self.trips = self.trips, ""
            self.output_on, self._task = False, None
            return Looked(self._readings(task, times_s), ended=True, tripped=trips)
        if self.ends_itself and (end_s := self._end_s(task)) <= self._now_s - self._begun_s:
            times_s = [*(time_s for time_s in times_s if time_s < end_s), end_s]
            readings = self._readings(task, times_s)
            self.passed_Ah = self._begun_Ah + self._rate_A(task.step.control) * end_s / 3600.0
            self.output_on, self._task = False, None
            known = task.step.ends[0] if self.reads_low_V else None
            return Looked(readings, ended=True, end=known)
        rested = isinstance(task.step.control, Rest) and times_s and times_s[-1] > self.rests_for_s
        if rested:
            self._task = None
            return Looked(self._readings(task, times_s), ended=True)
        if self.gives_up and last >= 2 and not isinstance(task.step.control, Rest):
            self.gives_up -= 1
            self.output_on, self._task = False, None
            return Looked(self._readings(task, times_s), ended=True)
        return Looked(self._readings(task, times_s))

    def sample_period_s(self, task: Task) -> float:
        return self.sample_s

    async def off(self, channel: str) -> None:
        self._say("off")
        if self.deaf:
            self.deaf -= 1
            return
        self.output_on = False
        self._task = None

    async def pulse(self, channel: str, output: str) -> None:
        self._say("pulse")
        self.pulses.append(output)

    def _readings(self, task: Task, times_s: list[float]) -> Readings:
        control = task.step.control
        count = len(times_s)
        time_s = np.array(times_s, dtype=np.float64)
        charge_Ah = self._rate_A(control) * time_s / 3600.0
        indexes = np.arange(self._handed_out + 1, self._handed_out + 1 + count)
        self._handed_out += count
        return Readings(
            onboard_index=indexes,
            step=np.full(count, task.step.index),
            pass_mark=np.zeros(count, dtype=np.int64),
            step_time_s=time_s,
            unix_time_s=self.clock.unix_time_s() - (self._now_s - self._begun_s) + time_s,
            voltage_V=self._from_V + VOLTS_PER_AH * charge_Ah - self.reads_low_V,
            current_A=np.full(count, self._rate_A(control)),
            step_charge_Ah=np.full(count, np.nan),
            step_energy_Wh=np.full(count, np.nan),
            temperature_degC=np.full(count, np.nan),
        )

    def _end_s(self, task: Task) -> float:
        rate_A = self._rate_A(task.step.control)
        targets = [end.value for end in task.step.ends if end.quantity is Quantity.VOLTAGE_V]
        if not targets or not rate_A:
            return math.inf
        return max(0.0, (targets[0] - self._from_V) / (VOLTS_PER_AH * rate_A) * 3600.0)

    def _say(self, call: str) -> None:
        self.before(call)
        self.calls.append(call)
        if self.link_down:
            self._live(heard=False)
            raise LinkError("the cable is out", command=call)
        self._live()

    def _live(self, *, heard: bool = True) -> None:
        """Let time pass for the cell; a watchdog acts when it was to."""
        now_s = self.clock.monotonic_s()
        unheard_from_s = self._heard_s + self.off_when_unheard_s
        if self.output_on and now_s > unheard_from_s:
            self._pass(max(self._now_s, unheard_from_s))
            self.output_on = False
            self._task = None
        self._pass(now_s)
        if heard:
            self._heard_s = now_s

    def _pass(self, until_s: float) -> None:
        changed_Ah = self._current_A() * (until_s - self._now_s) / 3600.0
        self.passed_Ah += changed_Ah
        self.charged_Ah += max(0.0, changed_Ah)
        self._now_s = until_s

    def _voltage_V(self) -> float:
        return START_V + VOLTS_PER_AH * self.passed_Ah

    def _current_A(self) -> float:
        if not self.output_on or self._task is None:
            return 0.0
        return self._rate_A(self._task.step.control)

    def _rate_A(self, control: Control) -> float:
        match control:
            case ConstantCurrent(current_A):
                return current_A
            case VoltageSweep(to_V=to_V, rate_V_per_s=rate):
                return math.copysign(rate * 3600.0 / VOLTS_PER_AH, to_V - self._from_V)
            case _:
                return 0.0


def _spectrum(voltage_V: float) -> Spectrum:
    return Spectrum(
        frequency_Hz=(1000.0, 1.0),
        impedance_real_ohm=(0.1, 0.2),
        impedance_imag_ohm=(-0.01, -0.1),
        voltage_V=voltage_V,
    )


class PaperSourceDriver(PaperSource):
    """The paper source as a configuration names it; the one made last for each instrument."""

    class Config(msgspec.Struct):
        sample_s: float = 60.0

    made: ClassVar[dict[str, PaperSourceDriver]] = {}

    def __init__(self, config: Config, *, name: str, clock: Clock) -> None:
        super().__init__(clock, sample_s=config.sample_s)
        PaperSourceDriver.made[name] = self
