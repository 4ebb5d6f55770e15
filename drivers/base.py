"""What a driver is, to the engine: declared capabilities and a handful of async calls.

A *sequencer* takes a whole Program, or a stretch of one, and runs it onboard; the engine then
follows it. The driver holds no state of a run: whatever is needed to go on after a crash is in
:class:`Armed`, :class:`Started` and an integer cursor, which the engine journals.

A *source* makes one visit to one step at a time; the engine walks the Program. The visit's own
limits, and where it can the visit's own ends, are in the instrument.

A *chamber* holds a temperature.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, TypeGuard

import msgspec

from labctl.errors import InstrumentError
from labctl.model import Readings, Spectrum
from labctl.program import EndCondition, Limits, Program, Step


class Failsafe(enum.StrEnum):
    """What ends a dangerous state when the PC is gone."""

    ONBOARD = "onboard"
    """The instrument runs the program with its limits by itself."""
    WATCHDOG = "watchdog"
    """The instrument switches off when it hears nothing."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class CurrentRange:
    """``full_scale_A`` both ways; ``resolution_A`` of a reading."""

    full_scale_A: float
    resolution_A: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an instrument can do, known before anything is sent to it."""

    techniques: frozenset[str]
    """Tags of the Controls in :mod:`labctl.program` that it runs."""
    voltage_min_V: float
    voltage_max_V: float
    current_ranges: tuple[CurrentRange, ...]
    fastest_record_s: float
    failsafe: Failsafe
    leaves_loops: bool = False
    """A sequencer that obeys ``Then.LEAVE_LOOP`` and ``Then.END_RUN`` onboard."""
    outputs: frozenset[str] = frozenset()
    """Names of its digital outputs, for :class:`labctl.program.Signal`."""


class Identity(msgspec.Struct, frozen=True):
    """Which instrument answered.

    ``unique``: no other instrument of this manufacturer has that ``serial``, so that it is known
    again wherever it is found.
    """

    manufacturer: str
    model: str
    serial: str
    unique: bool = True


class ChannelState(enum.StrEnum):
    """What a channel says it does."""

    IDLE = "idle"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    TRIPPED = "tripped"
    """A protection of the instrument ended the test."""
    UNAVAILABLE = "unavailable"
    """Reserved, faulty or disconnected."""


class ChannelStatus(msgspec.Struct, frozen=True):
    """One look at a channel.

    ``test`` is the instrument's own identifier of the last test on the channel ('' if none) and
    ``tag`` what labctl gave it when it was started (a run id), '' where unknown.
    """

    state: ChannelState
    test: str
    tag: str
    voltage_V: float
    current_A: float


class Armed(msgspec.Struct, frozen=True):
    """A program lies ready in the instrument; ``limits`` were read back, not remembered.

    ``test_before`` is the channel's last test at that time: a start that worked changes it.
    """

    channel: str
    tag: str
    program_ref: str
    limits: Limits
    test_before: str


class Started(msgspec.Struct, frozen=True):
    """A program runs: everything a restarted daemon needs to find it again."""

    channel: str
    tag: str
    test: str
    program_ref: str


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of one look at a running program.

    ``next_index`` is the cursor for the next look. ``complete`` means that the program has ended
    and that no reading beyond ``readings`` exists.
    """

    readings: Readings
    next_index: int
    state: ChannelState
    complete: bool
    spectra: tuple[Spectrum, ...] = ()


class Sequencer(Protocol):
    """An instrument that runs a whole Program by itself.

    Every call raises LinkError where the wire failed and InstrumentError where the instrument
    refused. ``channel`` is the driver's own name of a channel, as :meth:`channels` lists it.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    async def open(self) -> Identity:
        """Connect (or reconnect) and identify; changes no output."""
        ...

    async def close(self) -> None: ...

    async def channels(self) -> tuple[str, ...]:
        """Every channel that the instrument has, in its own order."""
        ...

    async def status(self, channel: str) -> ChannelStatus: ...

    def refusals(self, program: Program) -> tuple[str, ...]:
        """Why the instrument cannot run the program, one sentence each; empty if it can. No I/O."""
        ...

    async def arm(self, channel: str, program: Program, tag: str) -> Armed:
        """Upload the program with its limits and read the limits back. No current flows yet."""
        ...

    async def start(self, armed: Armed) -> Started:
        """Begin. Never retried by the driver: after LinkError the outcome is unknown."""
        ...

    async def find(self, armed: Armed) -> Started | None:
        """The test that :meth:`start` of ``armed`` made, or None if it certainly made none.

        Raises:
            InstrumentError: what the channel does now is not that program.
        """
        ...

    async def follow(self, started: Started, program: Program, next_index: int) -> Followed:
        """The readings from ``next_index`` on (first is 1), as many as one answer holds."""
        ...

    async def stop(self, channel: str) -> None:
        """Output off. Idempotent."""
        ...

    async def pause(self, channel: str) -> None:
        """Output open, the program stays where it is; :meth:`resume` goes on in the same step.

        Idempotent. Raises InstrumentError where the instrument has no such thing.
        """
        ...

    async def resume(self, channel: str) -> None:
        """Go on after :meth:`pause`. Idempotent."""
        ...

    async def skip(self, started: Started, program: Program, step: int) -> None:
        """Leave step ``step`` (an index into ``program.steps``) for the one after it, if the
        channel is still in it."""
        ...


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One visit to one step, as a source is asked to make it.

    ``limits`` hold while it runs. ``done_s`` and ``done_Ah`` (net, signed) are what an interrupted
    visit had come to: the ends by time and charge count from there. ``tag`` names run and visit.
    """

    step: Step
    limits: Limits
    tag: str
    done_s: float = 0.0
    done_Ah: float = 0.0


@dataclass(frozen=True, slots=True)
class Looked:
    """What a source has to say since the last look.

    ``readings``: ``onboard_index`` counts from 1 within the visit without gaps; ``step`` is
    ``task.step.index``; ``pass_mark`` is 0; ``step_time_s`` and the charge and energy counters
    count from the visit's :meth:`Source.begin`. ``ended``: the instrument has itself ended the
    visit, its output is open or at the end's value and everything it measured is here.
    ``tripped``: why a protection of the instrument ended it, '' if none did. ``end``: which of the
    step's ends the instrument ended it by, where it knows; what it measured may lie beside that by
    what it is wrong by.
    """

    readings: Readings
    spectra: tuple[Spectrum, ...] = ()
    ended: bool = False
    tripped: str = ""
    end: EndCondition | None = None


class Source(Protocol):
    """An instrument that makes one visit at a time.

    Every call raises LinkError where the wire failed and InstrumentError where the instrument
    refused. The engine waits between looks on its own clock and judges every end and limit on every
    reading; what the instrument ends by itself it ends sooner.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    async def open(self) -> Identity:
        """Connect (or reconnect) and identify; changes no output."""
        ...

    async def close(self) -> None: ...

    async def channels(self) -> tuple[str, ...]: ...

    async def status(self, channel: str) -> ChannelStatus:
        """One look: RUNNING if the output is on, else IDLE; voltage and current as measured."""
        ...

    def refusals(self, program: Program) -> tuple[str, ...]:
        """Why the instrument cannot run the program, one sentence each; empty if it can. No I/O."""
        ...

    async def arm(self, channel: str, task: Task) -> Limits:
        """Set the visit's limits and set points; returns the limits read back from the instrument,
        infinite where it has none. The output stays as it was: no new current flows yet."""
        ...

    async def begin(self, channel: str, task: Task) -> None:
        """Begin the visit that was armed: from here on its control acts."""
        ...

    async def look(self, channel: str) -> Looked:
        """What was measured since the last look; waits for one reading at most."""
        ...

    def sample_period_s(self, task: Task) -> float:
        """How long the engine should wait between looks in this visit; 0 where :meth:`look` itself
        waits for the instrument."""
        ...

    async def off(self, channel: str) -> None:
        """Open circuit, high impedance. Idempotent, and always allowed."""
        ...

    async def pulse(self, channel: str, output: str) -> None:
        """A pulse on a digital output of ``capabilities.outputs``."""
        ...


class ChamberAlarmError(InstrumentError):
    """A chamber stands in alarm, and does not hold its temperature.

    ``alarms`` are the chamber's own numbers. ``temperature_degC`` is what it measures all the same,
    NaN where it was not asked: a limit that is watched from here needs it now more than ever.
    """

    def __init__(
        self,
        message: str,
        *,
        alarms: tuple[int, ...],
        temperature_degC: float,
        instrument: str = "",
        command: str = "",
        reply: str = "",
    ) -> None:
        self.alarms = alarms
        self.temperature_degC = temperature_degC
        super().__init__(message, instrument=instrument, command=command, reply=reply)


class Chamber(Protocol):
    """An instrument that holds a temperature.

    Every call raises LinkError where the wire failed, InstrumentError where the chamber refused,
    and of those ChamberAlarmError where it stands in alarm.
    """

    @property
    def problem(self) -> str:
        """What a person should see to although it answers, as of the last answer; '' if nothing."""
        ...

    async def open(self) -> Identity: ...

    async def close(self) -> None: ...

    async def set_temperature(self, temperature_degC: float) -> None:
        """Set, read back, and switch on if it is off."""
        ...

    async def temperature(self) -> float:
        """Measured, in degC."""
        ...


Driver: TypeAlias = Sequencer | Source | Chamber

SOURCE: Final = "source"
SEQUENCER: Final = "sequencer"
CHAMBER: Final = "chamber"


def is_source(driver: Driver) -> TypeGuard[Source]:
    """Whether the engine makes every visit with it."""
    return hasattr(driver, "look")


def is_sequencer(driver: Driver) -> TypeGuard[Sequencer]:
    """Whether it runs whole stretches of a Program by itself."""
    return hasattr(driver, "follow")
