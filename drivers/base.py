"""What a driver is, to the engine: declared capabilities and a handful of async calls.

A *sequencer* takes a whole Program and runs it onboard; the engine then follows it. The driver
holds no state of a run: whatever is needed to go on after a crash is in :class:`Armed`,
:class:`Started` and an integer cursor, which the engine journals.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

import msgspec

from labctl.model import Readings
from labctl.program import Limits, Program


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


class Identity(msgspec.Struct, frozen=True):
    """Which instrument answered."""

    manufacturer: str
    model: str
    serial: str


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
