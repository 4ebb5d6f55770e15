"""Runs one Program on one Channel, from wherever the journal says that it stands.

What will be done is journalled before it is done; switching an output off is the exception, which
a full disk does not hinder. A start is never repeated unless the instrument shows that the first
one did nothing. An answer that cannot be explained is asked for again; what stays unexplained ends
in HELD and waits for a person: with the output left to the limits of an instrument that runs by
itself, and with the output off where it is driven from here. A run that is to stop is told so until
its output is off.

How a run gets on depends on its instrument: :mod:`labctl.engine.following` for sequencers,
:mod:`labctl.engine.walking` for sources.
"""

from __future__ import annotations

import logging
from typing import Final

from labctl.clock import Clock, RealClock
from labctl.drivers.base import Sequencer, Source, is_sequencer, is_source
from labctl.engine.bench import DEFAULT_PACE, Bench, NotYetError, Pace
from labctl.engine.following import Following
from labctl.engine.hostwork import HostWork
from labctl.engine.journal import Journal
from labctl.engine.orders import Orders
from labctl.engine.record import RunRecord, Viewer
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import RunState, Trigger
from labctl.engine.walking import Walking
from labctl.engine.way import NoWay, Way
from labctl.errors import InstrumentError, JournalError, LinkError
from labctl.program import Step

__all__ = ["DEFAULT_PACE", "Pace", "Runner"]

log = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 30.0
LONGEST_RETRY_OF_SOURCE_S: Final = 5.0
"""Its output may be on, and goes off as soon as it answers."""
PATIENCE: Final = 3
"""So many answers in a row that cannot be explained hold a run: one may be a flipped bit."""


class Runner(Orders):
    """One run. :meth:`run` returns when it has ended; cancelling that leaves the run resumable.

    ``driver`` is None for an instrument that the configuration no longer has. ``clock`` is the
    laboratory's time, which may be virtual; ``wall`` is real time, in which lost links are tried
    again. ``host`` is the laboratory around the instrument, None where there is none.
    """

    def __init__(
        self,
        charter: Charter,
        checkpoint: Checkpoint,
        driver: Sequencer | Source | None,
        journal: Journal,
        clock: Clock,
        *,
        pace: Pace = DEFAULT_PACE,
        viewer: Viewer | None = None,
        wall: Clock | None = None,
        host: HostWork | None = None,
    ) -> None:
        self.charter = charter
        record = RunRecord(charter, checkpoint, journal, clock, viewer)
        bench = Bench(record, clock, RealClock() if wall is None else wall, pace, host)
        self._longest_retry_s = LONGEST_RETRY_S
        way: Way = NoWay(bench)
        if driver is not None and is_source(driver):
            way = Walking(bench, driver, drives=True)
            self._longest_retry_s = LONGEST_RETRY_OF_SOURCE_S
        elif driver is not None and is_sequencer(driver):
            way = Following(bench, driver)
        super().__init__(bench, way)

    @property
    def step(self) -> Step | None:
        """The step that the last record belongs to, or that the host makes now; None before the
        first."""
        return self._record.step

    @property
    def link_error(self) -> str:
        """What keeps the run from going on now; '' if nothing does."""
        return self._bench.trouble

    @link_error.setter
    def link_error(self, trouble: str) -> None:
        self._bench.trouble = trouble

    @property
    def link_down(self) -> bool:
        """Whether that is the link to the instrument."""
        return self._bench.link_down

    @property
    def waits_for(self) -> str:
        """What the present step waits for, for people; '' where it waits for nothing outside."""
        return self._bench.waits_for if self.checkpoint.state is RunState.RUNNING else ""

    @property
    def hears(self) -> bool:
        """Whether a signal still means anything to the run."""
        return not self.checkpoint.state.ended

    async def run(self) -> None:
        """Bring the run to its end, across lost links; returns when it has ended."""
        retry_s = FIRST_RETRY_S
        try:
            while not self.checkpoint.state.ended:
                try:
                    if self._bench.unkept_stop:
                        await self.keep_stop()
                    await self._go_on_or_doubt()
                    self._bench.all_is_well()
                    retry_s = FIRST_RETRY_S
                except (LinkError, JournalError, NotYetError) as error:
                    stopping = self.checkpoint.state is RunState.STOPPING
                    self._bench.in_trouble(error)
                    await self._bench.waiting.pause(
                        self._bench.wall, FIRST_RETRY_S if stopping else retry_s
                    )
                    retry_s = min(2 * retry_s, self._longest_retry_s)
        finally:
            await self._bench.thermometer.close()
            await self._way.close()

    async def keep_watch(self, away: str = "") -> None:
        """Journal what the watch over the run has to say; to be called every few seconds.

        Args:
            away: why the instrument was not found yet, '' if it was.

        Raises:
            JournalError: it is not kept; what it was is told the next time.
        """
        state, bench = self.checkpoint.state, self._bench
        if state.ended or state is RunState.CREATED:
            return
        watch = self._record.watch
        watch.see_trouble(
            bench.trouble or away,
            bench.clock.unix_time_s(),
            bench.wall.monotonic_s(),
            link=bench.link_down or not bench.trouble,
            poll_s=bench.pace.poll_s,
        )
        if watch.news and not self._record.changing.locked():
            await self._record.tell_news()

    async def hold(self, reason: str, *, also_stopping: bool = False) -> None:
        """Leave the run to a person; one that is to stop goes on stopping unless said otherwise.

        For what cannot be explained: an instrument that runs by itself is left alone.

        Raises:
            JournalError: that could not be kept.
        """
        await self._bench.hold(reason, also_stopping=also_stopping)

    async def _go_on_or_doubt(self) -> None:
        try:
            await self._go_on()
        except InstrumentError as error:
            self._bench.doubts += 1
            self._way.in_doubt()
            may_be_on = self.checkpoint.state is RunState.STOPPING and not self._way.told_off
            if may_be_on or self._bench.doubts < PATIENCE:
                raise NotYetError(str(error)) from error
            self._bench.doubts = 0
            await self.hold(str(error), also_stopping=True)

    async def _go_on(self) -> None:
        match self.checkpoint.state:
            case RunState.CREATED:
                async with self._record.changing:
                    if self.checkpoint.state is RunState.CREATED:
                        await self._record.change(Trigger.ARM)
            case RunState.ARMING:
                await self._way.arm()
            case RunState.STARTING:
                await self._way.start()
            case RunState.PAUSED:
                await self._way.stay_paused()
            case RunState.STOPPING:
                await self._way.stop()
            case RunState.HELD:
                await self._way.stay_held()
            case _:
                await self._way.go_on()
