"""A Keithley 2450, 2460 or 2461 SourceMeter as a source: one visit to one step at a time.

Sign: positive current flows out of HI and charges a cell whose positive pole is at HI.
The instrument has one channel, named ``1``.

A visit's trigger model measures into the instrument's own buffer, ends the step at its voltage or
current, and opens the output when the host falls silent (see :mod:`labctl.drivers.keithley.plan`).
While it runs nothing can be set, and what is set acts at once; so each visit is armed with the
output open, and the limits are read back before it begins. Off is always the high-impedance off
state: the normal one sources 0 V and would discharge the cell.

Source: reference manual 2461-901-01, ch. 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
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
from labctl.drivers.keithley.config import DIGITAL_OUTPUTS, KeithleyConfig
from labctl.drivers.keithley.meter import Meter
from labctl.drivers.keithley.plan import Setup, period_s, program_of, setup_of, stair_V
from labctl.drivers.keithley.readings import (
    LONGEST_GAP_PERIODS,
    LONGEST_GAP_S,
    Counted,
    Look,
    Rows,
    counted,
    good_rows,
    places_after,
)
from labctl.drivers.keithley.refusals import refusals_of, refusals_of_task
from labctl.drivers.keithley.settings import BUFFER
from labctl.errors import InstrumentError, PlanError
from labctl.model import Readings
from labctl.program import Limits, Program, VoltageSweep
from labctl.wire.link import Link

CHANNEL: Final = "1"
MOST_ROWS: Final = 1000
"""Rows of the buffer in one answer."""

STARTING_LOOKS: Final = 5
"""So many looks without a reading a visit that does not seem to run is taken to be starting."""

RUNNING: Final = frozenset({"RUNNING", "WAITING"})


@dataclass(slots=True)
class _Visit:
    """A visit that was armed, and since it began how far it has come."""

    task: Task
    setup: Setup
    begun: bool = False
    begun_unix_s: float = 0.0
    empty_looks: int = 0
    place: int = 0
    counted: Counted = field(default_factory=Counted)
    from_V: float = 0.0
    level_V: float = 0.0
    count_at_level: int = 0
    """How many readings there were when the level was set last."""


class Keithley:
    """A :class:`labctl.drivers.base.Source`. ``link`` replaces the one that the config names."""

    Config = KeithleyConfig

    def __init__(
        self, config: KeithleyConfig, *, name: str, clock: Clock, link: Link | None = None
    ) -> None:
        self._config = config
        self._clock = clock
        self._capabilities = config.capabilities
        self._meter = Meter(config, name=name, clock=clock, link=link)
        self._visit: _Visit | None = None
        self._clock_offset_s: float | None = None
        """What the clock here is ahead of the instrument's, as it was when that was first read."""
        self._newest_s = -math.inf
        """The time of the newest reading of any visit, by the instrument's clock."""

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def open(self) -> Identity:
        """See :class:`labctl.drivers.base.Source`.

        Raises:
            InstrumentError: another instrument than the config names, or than was there before.
        """
        identity = await self._meter.open()
        self._newest_s = -math.inf
        return identity

    async def close(self) -> None:
        """Let the connection go. An output that is on is opened by the watchdog."""
        await self._meter.close()

    async def channels(self) -> tuple[str, ...]:
        return (CHANNEL,)

    async def status(self, channel: str) -> ChannelStatus:
        """See :class:`labctl.drivers.base.Source`.

        The voltage is NaN while the output is open: what is to be measured has to be connected.
        """
        self._check_channel(channel)
        visit = self._visit
        if await self._meter.output_is_on():
            state = ChannelState.RUNNING
            voltage_V, current_A = await self._meter.latest()
        else:
            state = ChannelState.IDLE
            voltage_V, current_A = math.nan, 0.0
        tag = visit.task.tag if visit is not None and visit.begun else ""
        return ChannelStatus(state, "", tag, voltage_V, current_A)

    def refusals(self, program: Program) -> tuple[str, ...]:
        """See :class:`labctl.drivers.base.Source`."""
        return refusals_of(program, self._config)

    def sample_period_s(self, task: Task) -> float:
        """See :class:`labctl.drivers.base.Source`."""
        return period_s(task, self._config)

    async def arm(self, channel: str, task: Task) -> Limits:
        """See :class:`labctl.drivers.base.Source`.

        An output that is on is opened first: what is set here acts at once.

        Raises:
            PlanError: the visit is one that :meth:`refusals` refuses.
            InstrumentError: the instrument refused a setting, or says that it has another one.
        """
        await self.off(channel)
        if refused := refusals_of_task(task, self._config):
            raise PlanError(refused)
        setup = setup_of(task, self._config)
        await self._set_up(setup)
        limits = await self._meter.armed(setup)
        self._visit = _Visit(task, setup, level_V=setup.level)
        return limits

    async def begin(self, channel: str, task: Task) -> None:
        """See :class:`labctl.drivers.base.Source`. Never tried twice."""
        self._check_channel(channel)
        visit = self._visit
        if visit is None or visit.begun or visit.task != task:
            raise self._meter.error(f"was not armed for step {task.step.label!r}", ":INIT")
        control = task.step.control
        if isinstance(control, VoltageSweep):
            visit.from_V = visit.level_V = await self._sweep_from(visit, control)
        visit.begun = True
        await self._meter.tell(":INIT")
        visit.begun_unix_s = self._clock.unix_time_s()

    async def look(self, channel: str) -> Looked:
        """See :class:`labctl.drivers.base.Source`. Tells the watchdog that the host is there.

        Raises:
            InstrumentError: no visit was begun; the instrument logged an error, lost its readings,
                or cannot read what it measures.
        """
        self._check_channel(channel)
        visit = self._visit
        if visit is None or not visit.begun:
            raise self._meter.error("was asked for readings, and no step was begun", "*TRG")
        look = await self._meter.look()
        readings = await self._new_readings(visit, look)
        control = visit.task.step.control
        if not look.output_on or look.state not in RUNNING:
            return self._ended(visit, look, readings)
        if isinstance(control, VoltageSweep):
            return await self._swept(visit, control, readings)
        return Looked(readings)

    async def off(self, channel: str) -> None:
        """See :class:`labctl.drivers.base.Source`.

        Raises:
            LinkError: twice without an answer; the watchdog opens the output.
            InstrumentError: the output stays on.
        """
        self._check_channel(channel)
        self._visit = None
        await self._meter.off_for_certain()

    async def pulse(self, channel: str, output: str) -> None:
        """See :class:`labctl.drivers.base.Source`."""
        self._check_channel(channel)
        line = DIGITAL_OUTPUTS.get(output)
        if line is None:
            raise self._meter.error(f"has no output {output!r}", ":DIG:LINE")
        await self._meter.pulse(line)

    async def _set_up(self, setup: Setup) -> None:
        watched = self._config.watchdog_s > 0
        await self._meter.set_up(setup, program_of(setup, BUFFER, watched=watched))

    async def _new_readings(self, visit: _Visit, look: Look) -> Readings:
        """The rows that the buffer got since the last look."""
        size = self._config.buffer_readings
        try:
            places = places_after(visit.place, visit.counted.count, look, size)
            rows = await self._rows(places, visit.setup)
            if rows is None:
                return Readings()
            if rows.time_s[0] <= self._newest_s:
                raise InstrumentError(
                    f"a reading of {rows.time_s[0]:.6f} s came after one of {self._newest_s:.6f} "
                    "s: it came twice, or the instrument's time was set back"
                )
            lead_s = self._config.reading_s
            if visit.setup.settles_first:
                lead_s += visit.setup.delay_s
            if self._clock_offset_s is None:
                first_s = float(rows.time_s[0]) - lead_s
                self._clock_offset_s = visit.begun_unix_s - first_s
            visit.counted, readings = counted(
                visit.counted,
                good_rows(rows),
                source=visit.setup.source,
                step=visit.task.step.index,
                clock_offset_s=self._clock_offset_s,
                lead_s=lead_s,
                longest_gap_s=max(LONGEST_GAP_S, LONGEST_GAP_PERIODS * visit.setup.period_s),
            )
        except InstrumentError as error:
            if error.command:
                raise
            raise self._meter.error(f"cannot be followed: {error}", ":TRAC:DATA?") from error
        self._newest_s = float(rows.time_s[len(readings) - 1])
        visit.place = (visit.place + len(readings) - 1) % size + 1
        return readings

    async def _rows(self, places: tuple[tuple[int, int], ...], setup: Setup) -> Rows | None:
        blocks = [
            await self._meter.rows(begin, min(last, begin + MOST_ROWS - 1), setup)
            for first, last in places
            for begin in range(first, last + 1, MOST_ROWS)
        ]
        if not blocks:
            return None
        return Rows(
            np.concatenate([block.time_s for block in blocks]),
            np.concatenate([block.source for block in blocks]),
            np.concatenate([block.reading for block in blocks]),
        )

    def _ended(self, visit: _Visit, look: Look, readings: Readings) -> Looked:
        """What it means that the program does not run, or that the output is open."""
        setup, last = visit.setup, visit.counted
        if not last.count and visit.empty_looks < STARTING_LOOKS and not look.protecting:
            visit.empty_looks += 1
            return Looked(readings)
        measured = last.current_A if setup.sense == "CURR" else last.voltage_V
        if look.protecting:
            tripped = "its overvoltage protection acted"
        elif setup.ends is not None and last.count and setup.ends.holds(measured):
            return Looked(readings, ended=True, tripped=setup.limit_reached, end=setup.end)
        elif look.state in RUNNING:
            tripped = "its output was opened at the instrument"
        elif look.output_on:
            tripped = f"its program was ended at the instrument ({look.state})"
        elif self._config.watchdog_s:
            tripped = (
                f"it heard nothing for up to {self._config.watchdog_s:g} s and opened its output"
            )
        else:
            tripped = "its output was opened"
        return Looked(readings, ended=True, tripped=tripped)

    async def _swept(self, visit: _Visit, control: VoltageSweep, readings: Readings) -> Looked:
        """Go on to the stair that it is time for, by the instrument's time, which is as late as its
        last reading; the last stair is over when it was measured."""
        if visit.level_V == control.to_V and visit.counted.count > visit.count_at_level:
            return Looked(readings, ended=True)
        if not visit.counted.count:
            return Looked(readings)
        elapsed_s = visit.counted.time_s + 0.5 * visit.setup.period_s
        level_V = stair_V(control, visit.from_V, elapsed_s, self._config.sweep_step_V)
        if level_V != visit.level_V:
            await self._meter.restart_at(level_V)
            visit.level_V, visit.count_at_level = level_V, visit.counted.count
        return Looked(readings)

    async def _sweep_from(self, visit: _Visit, control: VoltageSweep) -> float:
        """Where a sweep begins; where that is the cell's own voltage, armed for it anew."""
        if control.from_V is not None:
            return control.from_V
        from_V = await self._meter.open_circuit_V()
        limits = visit.task.limits
        low_V = max(limits.voltage_min_V, self._config.voltage_min_V)
        high_V = min(limits.voltage_max_V, self._config.voltage_max_V)
        if not low_V <= from_V <= high_V:
            raise self._meter.error(
                f"finds the cell at {from_V:g} V, and a sweep that begins there has to stay within "
                f"{low_V:g} V to {high_V:g} V",
                ":READ?",
                f"{from_V:g}",
            )
        visit.setup = replace(visit.setup, level=from_V)
        await self._set_up(visit.setup)
        await self._meter.armed(visit.setup)
        return from_V

    def _check_channel(self, channel: str) -> None:
        if channel != CHANNEL:
            raise self._meter.error(
                f"has no channel {channel!r}; its one channel is {CHANNEL!r}", "*IDN?"
            )
