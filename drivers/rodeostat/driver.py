"""A Rodeostat as a source: one visit to one step at a time, each a test of the instrument's own.

Sign: current is positive when it oxidises the working electrode, and so charges a cell whose
positive pole is there. The instrument has one channel, named ``1``.

A test puts its waveform out, samples, ends, and disconnects the cell by itself, whether anybody
listens or not. It has no limits: its voltage stays between what its parameters say, which are read
back, and its current within what a resistor in the counter electrode's lead lets pass. There is no
watchdog, so nothing may charge unattended (:class:`labctl.drivers.base.Failsafe`).

The voltage of a sample is the one that is put out, not a measured one; so at each look the cell's
own is measured beside it, and a step whose cell does not follow is tripped. A rest is a test with
the counter electrode open, of which only the time is used.

Source: firmware github.com/iorodeo/potentiostat at 86e4708, ``ps_system_state.cpp``.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from labctl.clock import Clock
from labctl.drivers.base import (
    Capabilities,
    ChannelState,
    ChannelStatus,
    Identity,
    Looked,
    Task,
)
from labctl.drivers.rodeostat import messages
from labctl.drivers.rodeostat.config import VOLTAGE_RANGES_V, RodeostatConfig, range_name
from labctl.drivers.rodeostat.messages import End, Sample
from labctl.drivers.rodeostat.refusals import refusals_of
from labctl.drivers.rodeostat.talk import Talk
from labctl.drivers.rodeostat.waveforms import Waveform, waveform_of
from labctl.errors import InstrumentError, LinkError
from labctl.model import Readings
from labctl.program import ConstantVoltage, Limits, Program, VoltageSweep

CHANNEL: Final = "1"
READ_BACK_SLACK: Final = 1e-4
WITHIN_FULL_SCALE: Final = 0.995
"""A current beyond this share of its range is taken to be beyond the range, and no reading."""
OVERLOADS: Final = 5
"""So many in a row end the step."""
FOLLOWS_WITHIN: Final = 0.02
"""Of the voltage's range: so far may the measured voltage lie from the one that is put out."""
ASTRAY_LOOKS: Final = 2

Row = tuple[int, float, float, float]
"""Number, time in s, voltage in V and current in A of a reading."""


@dataclass(slots=True)
class _Visit:
    """A visit that was armed.

    last: the last sample's number, in periods. rested_until: of a rest, the one that was read last;
    rests_read: how many were. overloads: samples in a row that were beyond the current's range.
    astray: looks in a row at which the cell did not follow.
    """

    task: Task
    waveform: Waveform
    current_range_A: float
    begun: bool = False
    begun_unix_s: float = 0.0
    meeting: int = 0
    last: int = 0
    rested_until: int = 0
    rests_read: int = 0
    overloads: int = 0
    astray: int = 0


class Rodeostat:
    """A :class:`labctl.drivers.base.Source`."""

    Config = RodeostatConfig

    def __init__(self, config: RodeostatConfig, *, name: str, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._capabilities = config.capabilities
        self._talk = Talk(config, name=name, clock=clock)
        self._one_at_a_time = asyncio.Lock()
        self._visit: _Visit | None = None
        self._last_unix_s = -math.inf

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def open(self) -> Identity:
        """See :class:`labctl.drivers.base.Source`.

        Raises:
            InstrumentError: another instrument than the config names, or than was there before.
        """
        async with self._one_at_a_time:
            return await self._talk.open()

    async def close(self) -> None:
        """Let the port go. A test that runs goes on to its end, and disconnects the cell then."""
        await self._talk.close()

    async def channels(self) -> tuple[str, ...]:
        return (CHANNEL,)

    async def status(self, channel: str) -> ChannelStatus:
        """See :class:`labctl.drivers.base.Source`. At rest the cell's open-circuit voltage is
        measured."""
        self._check_channel(channel)
        async with self._one_at_a_time:
            visit = self._visit
            tag = visit.task.tag if visit is not None and visit.begun else ""
            if await self._talk.ask(messages.COUNTER_CONNECTED):
                voltage_V = await self._talk.ask(messages.REFERENCE_V)
                current_A = 1e-6 * await self._talk.ask(messages.CURRENT_UA)
                return ChannelStatus(ChannelState.RUNNING, "", tag, voltage_V, current_A)
            if visit is not None and visit.begun:
                voltage_V = await self._talk.ask(messages.REFERENCE_V)
            else:
                voltage_V = await self._open_circuit_V()
            return ChannelStatus(ChannelState.IDLE, "", tag, voltage_V, 0.0)

    def refusals(self, program: Program) -> tuple[str, ...]:
        """See :class:`labctl.drivers.base.Source`."""
        return refusals_of(program, self._config)

    def sample_period_s(self, task: Task) -> float:
        """See :class:`labctl.drivers.base.Source`."""
        return min(self._config.sample_period_s, task.step.record.every_s)

    async def arm(self, channel: str, task: Task) -> Limits:
        """See :class:`labctl.drivers.base.Source`. A test that runs is ended first.

        The voltage that the visit begins with is put out while the cell is still disconnected:
        otherwise the cell would see 0 V for the first 0.2 ms.
        """
        self._check_channel(channel)
        async with self._one_at_a_time:
            await self._off()
            open_circuit_V = await self._open_circuit_V()
            waveform = waveform_of(task, self._config, open_circuit_V)
            full_A = await self._set_up(task, waveform)
            if waveform.rests:
                await self._rest_electrodes()
                limits = Limits(-math.inf, math.inf, 0.0, 0.0, math.inf, math.inf)
            else:
                await self._talk.ask(messages.SET_VOLTAGE_RANGE, waveform.voltage_range)
                await self._expect(
                    messages.SET_VOLTAGE,
                    waveform.begins_V,
                    slack=VOLTAGE_RANGES_V[waveform.voltage_range] / 1000.0,
                )
                await self._expect(messages.CONNECT_BY_TEST, True)
                limits = await self._limits(waveform)
            self._visit = _Visit(task, waveform, full_A)
            return limits

    async def begin(self, channel: str, task: Task) -> None:
        """See :class:`labctl.drivers.base.Source`. Never tried twice."""
        self._check_channel(channel)
        async with self._one_at_a_time:
            visit = self._visit
            if visit is None or visit.begun or visit.task != task:
                raise self._talk.error(
                    f"was not armed for step {task.step.label!r}", messages.RUN_TEST.name
                )
            await self._talk.connected()
            self._talk.heard.clear()
            visit.begun, visit.meeting = True, self._talk.meetings
            visit.begun_unix_s = max(self._clock.unix_time_s(), self._last_unix_s)
            await self._talk.ask(messages.RUN_TEST, test=visit.waveform.test)

    async def look(self, channel: str) -> Looked:
        """See :class:`labctl.drivers.base.Source`.

        Raises:
            InstrumentError: no visit was begun, or what the instrument says cannot be.
        """
        self._check_channel(channel)
        async with self._one_at_a_time:
            visit = self._visit
            if visit is None or not visit.begun:
                raise self._talk.error(
                    "was asked for readings, and no step was begun", messages.RUN_TEST.name
                )
            await self._talk.connected()
            if visit.meeting != self._talk.meetings:
                if not await self._talk.ask(messages.WORKING_CONNECTED):
                    return Looked(Readings(), ended=True)
                visit.meeting = self._talk.meetings
            measured_V = await self._talk.ask(messages.REFERENCE_V)
            heard = list(self._talk.heard)
            self._talk.heard.clear()
            return await self._looked(visit, heard, measured_V)

    async def off(self, channel: str) -> None:
        """See :class:`labctl.drivers.base.Source`.

        Raises:
            InstrumentError: the cell stays connected.
        """
        self._check_channel(channel)
        async with self._one_at_a_time:
            try:
                await self._off()
            except LinkError:
                await self._off()

    async def pulse(self, channel: str, output: str) -> None:
        """A Rodeostat has no digital output.

        Raises:
            InstrumentError: always.
        """
        self._check_channel(channel)
        raise self._talk.error(f"has no output {output!r}, and no other", "")

    async def _off(self) -> None:
        """End what runs, disconnect every electrode, and hear that it is so."""
        self._visit = None
        await self._talk.ask(messages.STOP_TEST)
        connected = await self._talk.ask(messages.CONNECT_ALL, False)
        if connected or await self._talk.ask(messages.COUNTER_CONNECTED):
            raise self._talk.error(
                "LEAVES THE CELL CONNECTED although it was told to disconnect it",
                messages.CONNECT_ALL.name,
            )
        self._talk.heard.clear()

    async def _open_circuit_V(self) -> float:
        """What the cell has of its own; nothing can flow, as its counter electrode is open."""
        await self._talk.ask(
            messages.SET_REFERENCE_RANGE, range_name(VOLTAGE_RANGES_V, self._config.widest_V)
        )
        await self._rest_electrodes()
        voltage_V = await self._talk.ask(messages.REFERENCE_V)
        await self._expect(messages.CONNECT_ALL, False)
        return voltage_V

    async def _rest_electrodes(self) -> None:
        await self._expect(messages.CONNECT_BY_TEST, False)
        await self._expect(messages.CONNECT_ALL, False)
        await self._expect(messages.CONNECT_WORKING, True)
        await self._expect(messages.CONNECT_REFERENCE, True)
        if await self._talk.ask(messages.COUNTER_CONNECTED):
            raise self._talk.error(
                "has connected the counter electrode although nothing told it to",
                messages.COUNTER_CONNECTED.name,
            )

    async def _set_up(self, task: Task, waveform: Waveform) -> float:
        """Set what a visit needs, and read it back; the full scale of the current's range in A."""
        ranges_A = self._config.current_ranges_A
        current_range = range_name(ranges_A, _most_A(task))
        if not current_range or not waveform.voltage_range:
            raise self._talk.error(
                f"cannot make step {task.step.label!r}: no range is wide enough", ""
            )
        await self._talk.ask(messages.SET_CURRENT_RANGE, current_range)
        await self._talk.ask(messages.SET_PERIOD_MS, waveform.period_ms)
        await self._talk.ask(messages.SET_PARAM, waveform.param, test=waveform.test)
        wanted_of: tuple[tuple[messages.Command[object], object], ...] = (
            (messages.GET_CURRENT_RANGE, current_range),
            (messages.GET_PERIOD_MS, waveform.period_ms),
        )
        for command, wanted in wanted_of:
            found = await self._talk.ask(command)
            if found != wanted:
                raise self._not_set(command.name, found, wanted)
        done_ms = await self._talk.ask(messages.DONE_TIME_MS, test=waveform.test)
        if done_ms != waveform.duration_ms:
            raise self._not_set(messages.DONE_TIME_MS.name, done_ms, waveform.duration_ms)
        return ranges_A[current_range]

    async def _limits(self, waveform: Waveform) -> Limits:
        """The limits as the instrument has them: the ends of its waveform, as it says them."""
        param = await self._talk.ask(messages.GET_PARAM, test=waveform.test)
        for key, wanted in waveform.param.items():
            found = param.get(key, math.nan)
            if not abs(found - wanted) <= READ_BACK_SLACK * max(1.0, abs(wanted)):
                raise self._not_set(f"{messages.GET_PARAM.name} {key}", found, wanted)
        levels = [
            param[key]
            for key in ("startValue", "finalValue", "value", "quietValue")
            if key in param
        ]
        bound_A = self._config.current_bound_A
        return Limits(
            voltage_min_V=min(levels),
            voltage_max_V=max(levels),
            current_min_A=-bound_A,
            current_max_A=bound_A,
            step_charge_max_Ah=math.inf,
            duration_max_s=param["duration"] / 1000.0,
        )

    async def _looked(self, visit: _Visit, heard: list[Sample | End], measured_V: float) -> Looked:
        rows, ended, beyond_A = self._rows(visit, heard, measured_V)
        readings = self._readings(visit, rows)
        tripped = ""
        if beyond_A:
            tripped = f"{beyond_A:g} A is at the end of its range of {visit.current_range_A:g} A"
        elif not visit.waveform.rests and not ended and visit.last:
            put_out_V = visit.waveform.voltage_V(visit.last * visit.waveform.period_ms)
            if abs(measured_V - put_out_V) > self._may_differ_V(visit):
                visit.astray += 1
            else:
                visit.astray = 0
            if visit.astray >= ASTRAY_LOOKS:
                tripped = (
                    f"the cell has {measured_V:g} V and {put_out_V:g} V is put out: a lead is off, "
                    "or the cell wants more current than the counter electrode's resistor lets pass"
                )
        if tripped and not ended:
            await self._off()
        return Looked(readings, ended=ended or bool(tripped), tripped=tripped)

    def _rows(
        self, visit: _Visit, heard: list[Sample | End], measured_V: float
    ) -> tuple[list[Row], bool, float]:
        """What the samples say; whether the test is over; a current that is beyond its range."""
        waveform = visit.waveform
        rows: list[Row] = []
        ended, beyond_A = False, 0.0
        for place, said in enumerate(heard):
            if isinstance(said, End):
                ended = True
                break
            if why := self._why_impossible(visit, said):
                if place:
                    self._talk.heard.extendleft(reversed(heard[place:]))
                    break
                self._talk.heard.extendleft(reversed(heard[1:]))
                raise self._talk.error(
                    f"sent a sample that cannot be: {why}", messages.RUN_TEST.name, str(said)
                )
            visit.last = said.t // waveform.period_ms
            current_A = 1e-6 * said.i
            if waveform.rests:
                continue
            if abs(current_A) > WITHIN_FULL_SCALE * visit.current_range_A:
                visit.overloads += 1
                if visit.overloads >= OVERLOADS:
                    beyond_A = current_A
                    break
                continue
            visit.overloads = 0
            rows.append((visit.last, said.t / 1000.0, said.v, current_A))
        if waveform.rests and visit.last > visit.rested_until:
            visit.rested_until = visit.last
            visit.rests_read += 1
            time_s = visit.last * waveform.period_ms / 1000.0
            rows = [(visit.rests_read, time_s, measured_V, 0.0)]
        return rows, ended, beyond_A

    def _why_impossible(self, visit: _Visit, said: Sample) -> str:
        """Why a sample cannot be one of the visit's; '' if it can."""
        waveform = visit.waveform
        wanted_V = waveform.voltage_V(said.t)
        if said.n:
            return "it is of the multiplexer"
        if said.t % waveform.period_ms or said.t > waveform.duration_ms + waveform.period_ms:
            return f"nothing is sampled at {said.t} ms"
        if said.t <= visit.last * waveform.period_ms:
            return f"its time is not after the {visit.last * waveform.period_ms} ms before it"
        if abs(said.v - wanted_V) > READ_BACK_SLACK * max(1.0, abs(wanted_V)):
            return f"{wanted_V:g} V was to be put out then"
        if abs(said.i) > 1.1e6 * visit.current_range_A:
            return f"its range ends at {visit.current_range_A:g} A"
        return ""

    def _readings(self, visit: _Visit, rows: list[Row]) -> Readings:
        if not rows:
            return Readings()
        number, time_s, voltage_V, current_A = (np.array(each) for each in zip(*rows, strict=True))
        unknown = np.full(len(rows), np.nan)
        unix_time_s = visit.begun_unix_s + time_s
        self._last_unix_s = float(unix_time_s[-1])
        return Readings(
            onboard_index=number.astype(np.int64),
            step=np.full(len(rows), visit.task.step.index, dtype=np.int64),
            pass_mark=np.zeros(len(rows), dtype=np.int64),
            step_time_s=time_s,
            unix_time_s=unix_time_s,
            voltage_V=voltage_V,
            current_A=current_A,
            step_charge_Ah=unknown,
            step_energy_Wh=unknown.copy(),
            temperature_degC=unknown.copy(),
        )

    def _may_differ_V(self, visit: _Visit) -> float:
        """The voltage is measured a little later than the last sample, and both have errors."""
        waveform = visit.waveform
        slope = abs(waveform.ends_V - waveform.begins_V) / waveform.duration_ms
        late_ms = 2 * waveform.period_ms + 1000 * self._config.reply_timeout_s * 0.1
        return FOLLOWS_WITHIN * VOLTAGE_RANGES_V[waveform.voltage_range] + slope * late_ms

    async def _expect(
        self, command: messages.Command[float], wanted: float, *, slack: float = 0.0
    ) -> None:
        found = await self._talk.ask(command, wanted)
        if abs(found - wanted) > slack:
            raise self._not_set(command.name, found, wanted)

    def _not_set(self, command: str, found: object, wanted: object) -> InstrumentError:
        return self._talk.error(
            f"answers {command} with {found} although {wanted} was set", command, str(found)
        )

    def _check_channel(self, channel: str) -> None:
        if channel != CHANNEL:
            raise self._talk.error(
                f"has no channel {channel!r}; its one channel is {CHANNEL!r}", ""
            )


def _most_A(task: Task) -> float:
    control = task.step.control
    if isinstance(control, VoltageSweep | ConstantVoltage):
        return control.max_current_A
    return 0.0
