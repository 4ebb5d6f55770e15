"""What the journal keeps of a run: a charter that never changes and a checkpoint that does."""

from __future__ import annotations

import msgspec

from labctl.drivers.base import Armed, Started
from labctl.engine.place import Place
from labctl.engine.states import RunState
from labctl.engine.walk import Position
from labctl.program import Program
from labctl.stream.events import MarkerSet


class Charter(msgspec.Struct, frozen=True, kw_only=True):
    """One Program on one Cell on one Channel: what was agreed when the run was made.

    The program is in amperes: a cell that is registered anew with another mass does not change a
    run that exists. ``not_before_unix_s`` is the earliest moment at which it may begin and
    ``after_run`` the run that it is queued behind ('' for none). ``limits_from`` says, for people,
    where its limits come from.
    """

    run: str
    cell: str
    instrument: str
    channel: str
    recipe_name: str
    recipe_text: str
    program: Program
    active_mass_g: float
    one_C_mA_per_g: float
    actor: str
    created_unix_s: float
    not_before_unix_s: float = 0.0
    after_run: str = ""
    limits_from: str = ""


class SegmentMark(msgspec.Struct, frozen=True, kw_only=True):
    """Where the stretch of the program begins that a sequencer runs now, so that it can be worked
    out again.

    ``position`` is that of its first visit; Position() stands for the first of the program.
    ``number`` counts the stretches of the run, from 1. ``step`` is the step of the stretch that the
    last reading was of, -1 before any.
    """

    position: Position = Position()
    number: int = 1
    step: int = -1


class HostVisit(msgspec.Struct, frozen=True, kw_only=True):
    """A visit that the host makes itself; ``marker`` is what it tells the world, once that is
    journalled."""

    marker: MarkerSet | None = None


class StopLater(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is to stop when it leaves the step or the cycle that it is in when somebody asks.

    ``at`` is ``step`` or ``cycle``; the visit, and the numbers of a Position, say which one.
    """

    at: str
    reason: str
    visit: int
    cycle: int
    cycles_begun: int


class SignalGiven(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that came and that no step has taken yet."""

    name: str
    actor: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands, written in the same transaction as the readings that it counts.

    cause: what ends the run once it was asked to stop (``stop``, ``limit``).
    next_index: the instrument's number of the next reading to ask for.
    armed, started: of the present stretch of a sequencer; None while the host has the run.
    host: set while the host itself makes the present visit.
    left: the present visit of a source was left in order: its output is open, nothing is missing.
    paused: a sequencer was told to pause, and has to be told to go on.
    skip_visit: the visit that a person wants to end, 0 for none.
    serial: of the instrument that the run began on, '' where unknown.
    looked_unix_s: when the host last looked at a cell that it drives, by the clock of the run.
    conditions: names of those of labctl.alarms.conditions that hold and were told.
    """

    state: RunState
    place: Place
    reason: str = ""
    cause: str = ""
    next_index: int = 1
    armed: Armed | None = None
    started: Started | None = None
    segment: SegmentMark = SegmentMark()
    host: HostVisit | None = None
    left: bool = False
    paused: bool = False
    stop_later: StopLater | None = None
    skip_visit: int = 0
    signals: tuple[SignalGiven, ...] = ()
    serial: str = ""
    looked_unix_s: float = 0.0
    conditions: tuple[str, ...] = ()
