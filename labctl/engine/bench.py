"""What the parts of one run share: its record, its clocks, the laboratory around it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from labctl.clock import Clock
from labctl.engine.hostwork import HostWork
from labctl.engine.record import RunRecord
from labctl.engine.states import RunState, Trigger
from labctl.engine.thermometer import Thermometer
from labctl.engine.waiting import Waiting
from labctl.errors import LabctlError, LinkError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a run is looked at, in seconds of its clock unless said otherwise.

    poll_s: between two looks at what an instrument runs onboard.
    host_look_s: at the most, between two looks at a cell that rests while the host does something.
    longest_gap_s: a run on a source that nobody looked after for longer waits for a person.
    keep_every_s, keep_most: readings of a source are journalled at least as often, by real time,
        and at least so many together.
    outside_in_real_time: a step that waits for a person or another program waits in real time and
        takes none of the run's; for a clock that is moved on by whoever waits.
    slow_journal_s: if keeping a transition takes longer, by real time, the output goes off.
    """

    poll_s: float = 5.0
    host_look_s: float = 30.0
    longest_gap_s: float = 12 * 3600.0
    keep_every_s: float = 1.0
    keep_most: int = 500
    slow_journal_s: float = 2.0
    outside_in_real_time: bool = False


DEFAULT_PACE: Final = Pace()


class NotYetError(LabctlError):
    """What was wanted has not happened; it is to be tried again until it has."""


class Bench:
    """One run's. ``wall`` is real time, in which instruments answer and lost links are tried."""

    def __init__(
        self,
        record: RunRecord,
        clock: Clock,
        wall: Clock,
        pace: Pace,
        host: HostWork | None,
    ) -> None:
        self.record = record
        self.clock = clock
        self.wall = wall
        self.pace = pace
        self.host = host
        self.waiting = Waiting(wall)
        self.thermometer = Thermometer(host, clock, self.waiting)
        self.channel = record.charter.channel
        self.trouble = ""
        """What keeps the run from going on now; '' if nothing does."""
        self.link_down = False
        self.doubts = 0
        """How many answers in a row could not be explained."""
        self.unkept_stop = ""
        """Why the run is to stop, where the journal could not keep that yet."""
        self.waits_for = ""
        """What the present step waits for, for people; '' where it waits for nothing outside."""

    def all_is_well(self) -> None:
        """The instrument answers."""
        if self.link_down:
            log.warning("run %s: the instrument answers again", self.record.charter.run)
        self.trouble, self.link_down = "", False

    def in_trouble(self, error: LabctlError) -> None:
        """Something went wrong that will be tried again."""
        if str(error) != self.trouble:
            log.warning("run %s: trying again: %s", self.record.charter.run, error)
        self.trouble, self.link_down = str(error), isinstance(error, LinkError)

    async def hold(self, reason: str, *, also_stopping: bool = False) -> None:
        """Leave the run to a person; one that is to stop goes on stopping unless said otherwise.

        Raises:
            JournalError: that could not be kept.
        """
        unheld = {RunState.CREATED} if also_stopping else {RunState.CREATED, RunState.STOPPING}
        async with self.record.changing:
            state = self.record.checkpoint.state
            if not state.ended and state not in unheld:
                await self.record.change(Trigger.HOLD, reason)
