"""A cycler on paper: a Sequencer whose readings can be computed with a pencil.

Its cell is a capacitor: the voltage rises by ``VOLTS_PER_AH`` for each ampere-hour. It runs every
program to its end at once and then hands out the readings in answers of ``rows_per_answer``, so a
test decides how far a run has come by how often it asks.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import msgspec
import numpy as np

from labctl.clock import Clock
from labctl.drivers.base import (
    Armed,
    Capabilities,
    ChannelState,
    ChannelStatus,
    CurrentRange,
    Failsafe,
    Followed,
    Identity,
    Started,
)
from labctl.engine.walk import Facts, Position, Walk
from labctl.errors import InstrumentError, LinkError
from labctl.model import Readings
from labctl.program import (
    Comparison,
    ConstantCurrent,
    EndCondition,
    Limits,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
)

VOLTS_PER_AH = 1000.0
START_V = 2.0
SAMPLE_S = 60.0

LIMITS = Limits(
    voltage_min_V=1.0,
    voltage_max_V=4.5,
    current_min_A=-0.1,
    current_max_A=0.1,
    step_charge_max_Ah=0.1,
    duration_max_s=1e7,
)


def rest(index: int, time_s: float = 600.0) -> Step:
    end = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, time_s)
    return Step(index, "rest", Rest(), (end,), RecordRule())


def charge(index: int, current_A: float = 1e-3, until_V: float = 4.0) -> Step:
    end = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, until_V)
    return Step(index, "charge", ConstantCurrent(current_A), (end,), RecordRule())


def discharge(index: int, current_A: float = -1e-3, until_V: float = 2.0) -> Step:
    end = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_MOST, until_V)
    return Step(index, "discharge", ConstantCurrent(current_A), (end,), RecordRule())


def three_cycles(count: int = 3) -> Program:
    """A rest, then cycles of charge and discharge."""
    return Program(
        name="three cycles",
        recipe_sha256="0" * 64,
        cell="paper",
        body=(rest(0), Loop(count, (charge(1), discharge(2)), counts_cycles=True)),
        limits=LIMITS,
    )


def readings_of(
    program: Program, from_V: float = START_V, cuts: Mapping[int, int] = MappingProxyType({})
) -> Readings:
    """Every reading of the program, worked out step by step.

    Visit ``n`` (from 1) ends after ``cuts[n]`` readings, where that is sooner than by itself.
    """
    walk = Walk(program)
    rows: list[tuple[float, ...]] = []
    position = walk.after(Position(), Facts()).position
    voltage_V, index, visit = from_V, 0, 0
    while position is not None:
        step, visit = walk.step(position), visit + 1
        end = step.ends[0]
        match step.control:
            case ConstantCurrent(current_A):
                hours = (end.value - voltage_V) / (VOLTS_PER_AH * current_A)
                if end.quantity is Quantity.STEP_CHARGE_AH:
                    hours = end.value / abs(current_A)
                duration_s = max(0.0, hours * 3600.0)
                timeout = next((e for e in step.ends if e.quantity is Quantity.STEP_TIME_S), None)
                if timeout is not None and timeout.value < duration_s:
                    end, duration_s = timeout, timeout.value
            case _:
                current_A, duration_s = 0.0, end.value
        times = [*np.arange(0.0, duration_s, SAMPLE_S).tolist(), duration_s]
        if visit in cuts:
            times = times[: cuts[visit]]
        now_V = voltage_V
        for time_s in times:
            index += 1
            charge_Ah = current_A * time_s / 3600.0
            now_V = voltage_V + VOLTS_PER_AH * charge_Ah
            energy_Wh = (voltage_V + now_V) / 2.0 * charge_Ah
            rows.append(
                (
                    index, step.index, sum(position.counters), time_s, 1.8e9 + index,
                    now_V, current_A, charge_Ah, energy_Wh, 25.0,
                )
            )  # fmt: skip
        voltage_V = now_V
        facts = Facts(end=None if visit in cuts else end)
        position = walk.after(position, facts).position
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    whole = [column.astype(np.int64) for column in columns[:3]]
    return Readings(*whole, *columns[3:])


@dataclass
class PaperTest:
    """One test: its tag, what it runs, the voltage that it began at, and visits cut short."""

    tag: str
    program: Program
    from_V: float = START_V
    cuts: dict[int, int] = field(default_factory=dict)
    handed_out: int = 0
    _readings: Readings | None = None

    @property
    def readings(self) -> Readings:
        if self._readings is None:
            self._readings = readings_of(self.program, self.from_V, self.cuts)
        return self._readings

    def cut(self, step: int) -> None:
        """The visit of the last reading that was handed out ends there, if it is of ``step``."""
        readings = self.readings[: self.handed_out]
        if not len(readings) or int(readings.step[-1]) != step:
            return
        begins = np.flatnonzero(
            (np.diff(readings.step) != 0)
            | (np.diff(readings.pass_mark) != 0)
            | (np.diff(readings.step_time_s) < 0)
        )
        first = int(begins[-1]) + 1 if len(begins) else 0
        self.cuts[len(begins) + 1] = len(readings) - first
        self._readings = None


class PaperCycler:
    """See the module.

    refuses_to_stop: so many calls of stop fail, and the test runs on.
    garbles: so many answers of follow cannot be understood.
    says: what follow says of the channel, whatever it does.
    start_is_late: start is refused, though an earlier one has just taken effect.
    hangs: follow gives no answer.
    cannot_pause: it has no such thing; nor has it a skip.
    """

    def __init__(self, rows_per_answer: int = 50, *, leaves_loops: bool = False) -> None:
        self.rows_per_answer = rows_per_answer
        self.leaves_loops = leaves_loops
        self.tests: list[PaperTest] = []
        self.calls: list[str] = []
        self.stopped_at: int | None = None
        self.says_when_stopped = ChannelState.STOPPED
        self.link_down = False
        self.lose_answer_of_start = False
        self.read_back: Limits | None = None
        self.trips_at: int | None = None
        self.refuses_to_stop = 0
        self.garbles = 0
        self.says: ChannelState | None = None
        self.start_is_late = False
        self.hangs = False
        self.cannot_pause = False
        self.paused = False
        self.temperature_degC = 25.0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            techniques=frozenset({"rest", "constant_current"}),
            voltage_min_V=0.0,
            voltage_max_V=5.0,
            current_ranges=(CurrentRange(0.1, 1e-6),),
            fastest_record_s=0.1,
            failsafe=Failsafe.ONBOARD,
            leaves_loops=self.leaves_loops,
        )

    async def open(self) -> Identity:
        self._say("open")
        return Identity("Paper", "cycler", "1")

    async def close(self) -> None:
        self.calls.append("close")

    async def channels(self) -> tuple[str, ...]:
        return ("1",)

    async def status(self, channel: str) -> ChannelStatus:
        self._say("status")
        if not self.tests:
            return ChannelStatus(ChannelState.IDLE, "", "", START_V, 0.0)
        test = self.tests[-1]
        handed_out = test.readings[: test.handed_out]
        voltage_V = float(handed_out.voltage_V[-1]) if len(handed_out) else test.from_V
        last, state = self._last(test)
        if test.handed_out < last:
            state = ChannelState.PAUSED if self.paused else ChannelState.RUNNING
        return ChannelStatus(state, str(len(self.tests)), test.tag, voltage_V, 0.0)

    def refusals(self, program: Program) -> tuple[str, ...]:
        return ()

    async def arm(self, channel: str, program: Program, tag: str) -> Armed:
        self._say("arm")
        self._program = program
        return Armed(channel, tag, "paper", self.read_back or program.limits, str(len(self.tests)))

    async def start(self, armed: Armed) -> Started:
        self._say("start")
        from_V = float(self.tests[-1].readings.voltage_V[-1]) if self.tests else START_V
        self.tests.append(PaperTest(armed.tag, self._program, from_V))
        if self.start_is_late:
            raise InstrumentError("the channel is busy")
        if self.lose_answer_of_start:
            self.lose_answer_of_start = False
            raise LinkError("the answer was lost", command="start")
        return self._started(armed)

    async def find(self, armed: Armed) -> Started | None:
        self._say("find")
        if str(len(self.tests)) == armed.test_before:
            return None
        if self.tests[-1].tag != armed.tag:
            raise InstrumentError("another program runs on the channel")
        return self._started(armed)

    async def follow(self, started: Started, program: Program, next_index: int) -> Followed:
        self._say("follow")
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.garbles:
            self.garbles -= 1
            raise InstrumentError("an answer that cannot be understood")
        if self.says is ChannelState.UNAVAILABLE:
            return Followed(Readings(), next_index, self.says, complete=False)
        test = self.tests[int(started.test) - 1]
        everything = test.readings
        assert test.program == program
        last, state = self._last(test)
        if self.paused and self.stopped_at is None:
            last = min(last, max(test.handed_out, next_index - 1))
        end = min(next_index - 1 + self.rows_per_answer, last)
        test.handed_out = max(test.handed_out, end)
        everything = dataclasses.replace(
            everything,
            temperature_degC=np.full_like(everything.voltage_V, self.temperature_degC),
        )
        complete = end == self._last(test)[0]
        if self.paused and not complete:
            state = ChannelState.PAUSED
        return Followed(
            everything[next_index - 1 : end],
            end + 1,
            self.says or (state if complete or self.paused else ChannelState.RUNNING),
            complete,
        )

    async def stop(self, channel: str) -> None:
        self._say("stop")
        if self.refuses_to_stop:
            self.refuses_to_stop -= 1
            raise InstrumentError("the channel was told to stop and is still running")
        if self.stopped_at is None and self.tests:
            self.stopped_at = self.tests[-1].handed_out

    async def pause(self, channel: str) -> None:
        self._say("pause")
        if self.cannot_pause:
            raise InstrumentError("a paper cycler of this kind cannot pause")
        self.paused = True

    async def resume(self, channel: str) -> None:
        self._say("resume")
        self.paused, self.stopped_at = False, None

    async def skip(self, started: Started, program: Program, step: int) -> None:
        self._say("skip")
        if self.cannot_pause:
            raise InstrumentError("a paper cycler of this kind cannot skip")
        self.tests[int(started.test) - 1].cut(step)

    def _last(self, test: PaperTest) -> tuple[int, ChannelState]:
        """The number of the last reading that a test will have, and what it will say then."""
        last = len(test.readings)
        if test is self.tests[-1]:
            if self.stopped_at is not None:
                return min(last, self.stopped_at), self.says_when_stopped
            if self.trips_at is not None:
                return min(last, self.trips_at), ChannelState.TRIPPED
        return last, ChannelState.FINISHED

    def _started(self, armed: Armed) -> Started:
        return Started(armed.channel, armed.tag, str(len(self.tests)), armed.program_ref)

    def _say(self, call: str) -> None:
        self.calls.append(call)
        if self.link_down:
            raise LinkError("the cable is out", command=call)


class PaperDriver(PaperCycler):
    """The paper cycler as a configuration names it; the one made last for each instrument."""

    class Config(msgspec.Struct):
        rows: int = 50

    made: ClassVar[dict[str, PaperDriver]] = {}

    def __init__(self, config: Config, *, name: str, clock: Clock) -> None:
        super().__init__(config.rows)
        PaperDriver.made[name] = self

    async def channels(self) -> tuple[str, ...]:
        return ("1", "2")
