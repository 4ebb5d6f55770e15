"""A cycler on paper: a Sequencer whose readings can be computed with a pencil.

Its cell is a capacitor: the voltage rises by ``VOLTS_PER_AH`` for each ampere-hour. It runs every
program to its end at once and then hands out the readings in answers of ``rows_per_answer``, so a
test decides how far a run has come by how often it asks.
"""

from __future__ import annotations

import asyncio
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


def readings_of(program: Program) -> Readings:
    """Every reading of the program, worked out step by step."""
    walk = Walk(program)
    rows: list[tuple[float, ...]] = []
    position: Position | None = walk.after(Position(), Facts()).position
    voltage_V, index = START_V, 0
    while position is not None:
        step = walk.step(position)
        match step.control:
            case ConstantCurrent(current_A):
                target_V = step.ends[0].value
                hours = (target_V - voltage_V) / (VOLTS_PER_AH * current_A)
                duration_s = hours * 3600.0
            case _:
                current_A, duration_s = 0.0, step.ends[0].value
        times = [*np.arange(0.0, duration_s, SAMPLE_S).tolist(), duration_s]
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
        position = walk.after(position, Facts()).position
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    whole = [column.astype(np.int64) for column in columns[:3]]
    return Readings(*whole, *columns[3:])


class PaperCycler:
    """See the module.

    refuses_to_stop: so many calls of stop fail, and the test runs on.
    garbles: so many answers of follow cannot be understood.
    says: what follow says of the channel, whatever it does.
    start_is_late: start is refused, though an earlier one has just taken effect.
    hangs: follow gives no answer.
    """

    def __init__(self, rows_per_answer: int = 50) -> None:
        self.rows_per_answer = rows_per_answer
        self.tests: list[tuple[str, Program]] = []
        self.calls: list[str] = []
        self.stopped_at: int | None = None
        self.link_down = False
        self.lose_answer_of_start = False
        self.read_back: Limits | None = None
        self.trips_at: int | None = None
        self.refuses_to_stop = 0
        self.garbles = 0
        self.says: ChannelState | None = None
        self.start_is_late = False
        self.hangs = False
        self._handed_out = 0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            techniques=frozenset({"rest", "constant_current"}),
            voltage_min_V=0.0,
            voltage_max_V=5.0,
            current_ranges=(CurrentRange(0.1, 1e-6),),
            fastest_record_s=0.1,
            failsafe=Failsafe.ONBOARD,
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
        tag = self.tests[-1][0] if self.tests else ""
        state = ChannelState.RUNNING if self.tests else ChannelState.IDLE
        return ChannelStatus(state, str(len(self.tests)), tag, START_V, 0.0)

    def refusals(self, program: Program) -> tuple[str, ...]:
        return ()

    async def arm(self, channel: str, program: Program, tag: str) -> Armed:
        self._say("arm")
        self._program = program
        return Armed(channel, tag, "paper", self.read_back or program.limits, str(len(self.tests)))

    async def start(self, armed: Armed) -> Started:
        self._say("start")
        self.tests.append((armed.tag, self._program))
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
        if self.tests[-1][0] != armed.tag:
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
        everything = readings_of(self.tests[int(started.test) - 1][1])
        last = len(everything)
        state = ChannelState.FINISHED
        if self.stopped_at is not None:
            last, state = min(last, self.stopped_at), ChannelState.STOPPED
        elif self.trips_at is not None:
            last, state = min(last, self.trips_at), ChannelState.TRIPPED
        end = min(next_index - 1 + self.rows_per_answer, last)
        self._handed_out = max(self._handed_out, end)
        complete = end == last
        return Followed(
            everything[next_index - 1 : end],
            end + 1,
            self.says or (state if complete else ChannelState.RUNNING),
            complete,
        )

    async def stop(self, channel: str) -> None:
        self._say("stop")
        if self.refuses_to_stop:
            self.refuses_to_stop -= 1
            raise InstrumentError("the channel was told to stop and is still running")
        if self.stopped_at is None:
            self.stopped_at = self._handed_out

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
