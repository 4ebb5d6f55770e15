"""Runs one Program on one Channel of a sequencer, from wherever the journal says that it stands.

What will be done is journalled before it is done; switching an output off is the exception, which
a full disk does not hinder. A start is never repeated unless the instrument shows that the first
one did nothing. An answer that cannot be explained is asked for again; what stays unexplained ends
in HELD, with the output left to the instrument's own limits, and waits for a person. A run that is
to stop is told so until its output is off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from labctl.clock import Clock, RealClock
from labctl.drivers.base import Armed, ChannelState, Followed, Sequencer
from labctl.engine.journal import Journal
from labctl.engine.limits import wider
from labctl.engine.record import RunRecord, Viewer
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import RunState, Trigger
from labctl.errors import (
    CommandError,
    InstrumentError,
    JournalError,
    LabctlError,
    LinkError,
    PlanError,
)
from labctl.program import Step
from labctl.stream.events import Event

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 30.0
PATIENCE: Final = 3
"""So many answers in a row that cannot be explained hold a run: one may be a flipped bit."""
_LAST_WORD_S: Final = 1.0
"""So long an answer may still take when somebody wants the run to stop."""
_STILL_AT_WORK: Final = frozenset(
    {ChannelState.RUNNING, ChannelState.PAUSED, ChannelState.UNAVAILABLE}
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a running channel is asked for more, in seconds of the clock."""

    poll_s: float = 5.0


DEFAULT_PACE: Final = Pace()


class _NotYetError(LabctlError):
    """What was wanted has not happened; it is to be tried again until it has."""


class Runner:
    """One run. :meth:`run` returns when it has ended; cancelling that leaves the run resumable.

    ``driver`` is None for an instrument that the configuration no longer has.
    ``clock`` is the laboratory's time, which may be virtual; ``wall`` is real time, in which lost
    links are tried again.
    """

    def __init__(
        self,
        charter: Charter,
        checkpoint: Checkpoint,
        driver: Sequencer | None,
        journal: Journal,
        clock: Clock,
        *,
        pace: Pace = DEFAULT_PACE,
        viewer: Viewer | None = None,
        wall: Clock | None = None,
    ) -> None:
        self.charter = charter
        self._record = RunRecord(charter, checkpoint, journal, clock, viewer)
        self._given_driver = driver
        self._clock = clock
        self._pace = pace
        self._wall: Clock = RealClock() if wall is None else wall
        self._poked = asyncio.Event()
        self._doubts = 0
        self._sure_of_the_test = False
        self._told_off = False
        self.link_error = ""
        """What keeps the run from going on now; '' if nothing does."""
        self.link_down = False
        """Whether that is the link to the instrument."""

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the run stands, as the journal has it."""
        return self._record.checkpoint

    @property
    def step(self) -> Step | None:
        """The step that the last record belongs to; None before the first."""
        return self._record.step

    async def run(self) -> None:
        """Bring the run to its end, across lost links; returns when it has ended."""
        retry_s = FIRST_RETRY_S
        while not self.checkpoint.state.ended:
            try:
                await self._go_on_or_doubt()
                self._all_is_well()
                retry_s = FIRST_RETRY_S
            except (LinkError, JournalError, _NotYetError) as error:
                stopping = self.checkpoint.state is RunState.STOPPING
                await self._wait_before_retry(error, FIRST_RETRY_S if stopping else retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)

    async def stop(
        self,
        reason: str,
        command: tuple[str, bytes] | None = None,
        note: Event | None = None,
    ) -> None:
        """Ask for the run's end; always allowed, and asking twice does no more than asking once.

        ``command`` and ``note`` are journalled with it: see :class:`Entry`.

        Raises:
            JournalError: that could not be kept (a full disk); the output was switched off all the
                same, unless the message says otherwise.
        """
        try:
            async with self._record.changing:
                before = self.checkpoint
                if before.state.ended:
                    return
                told = before.state is RunState.STOPPING
                await self._record.change(
                    Trigger.STOP,
                    before.reason if told else reason,
                    cause=before.cause or "stop",
                    command=command,
                    note=note,
                )
        except JournalError as error:
            await self._off_without_a_word(error)
            raise
        self._poked.set()

    async def release(
        self,
        reason: str,
        command: tuple[str, bytes] | None = None,
        note: Event | None = None,
    ) -> None:
        """Let a held run go on from where it is found; one that was told to stop goes on stopping.

        A start whose outcome was not known is looked for again, and never repeated.

        Raises:
            CommandError: the run is not held, or nothing was ever started that it could go on with.
            LinkError: the instrument was asked and did not answer.
        """
        before = self.checkpoint
        self._refuse_unless({RunState.HELD}, "only a held run can be released")
        started, doubt = before.started, ""
        if started is None and before.armed is not None:
            try:
                started = await self._driver.find(before.armed)
            except InstrumentError as error:
                doubt = f" ({error})"
        if started is None:
            raise CommandError(
                f"run {self.charter.run} never began on its instrument{doubt}: stop it and start "
                "anew"
            )
        async with self._record.changing:
            self._refuse_unless({RunState.HELD}, "only a held run can be released")
            await self._record.change(
                Trigger.STOP if before.cause else Trigger.RELEASE,
                reason,
                command=command,
                note=note,
                started=started,
            )
        self._poked.set()

    async def abandon(
        self,
        reason: str,
        command: tuple[str, bytes] | None = None,
        note: Event | None = None,
    ) -> None:
        """End the record of a run that is held or does not come to its stop; nothing is sent.

        Raises:
            CommandError: the run is in another state.
        """
        async with self._record.changing:
            self._refuse_unless(
                {RunState.HELD, RunState.STOPPING},
                "only a run that is held or does not come to its stop can be abandoned: stop it",
            )
            await self._record.change(Trigger.ABANDON, reason, command=command, note=note)
        self._poked.set()

    async def hold(self, reason: str, *, also_stopping: bool = False) -> None:
        """Leave the run to a person; one that is to stop goes on stopping unless said otherwise.

        Raises:
            JournalError: that could not be kept.
        """
        unheld = {RunState.CREATED} if also_stopping else {RunState.CREATED, RunState.STOPPING}
        async with self._record.changing:
            state = self.checkpoint.state
            if not state.ended and state not in unheld:
                await self._record.change(Trigger.HOLD, reason)

    def _refuse_unless(self, states: set[RunState], why: str) -> None:
        state = self.checkpoint.state
        if state not in states:
            raise CommandError(f"run {self.charter.run} is {state}: {why}")

    @property
    def _driver(self) -> Sequencer:
        if self._given_driver is None:
            raise LinkError(
                f"instrument {self.charter.instrument!r} is not in the configuration: put it back, "
                "or stop the run and then abandon it"
            )
        return self._given_driver

    async def _go_on_or_doubt(self) -> None:
        try:
            await self._go_on()
        except InstrumentError as error:
            self._doubts += 1
            self._sure_of_the_test = False
            may_be_on = self.checkpoint.state is RunState.STOPPING and not self._told_off
            if may_be_on or self._doubts < PATIENCE:
                raise _NotYetError(str(error)) from error
            self._doubts = 0
            await self.hold(str(error), also_stopping=True)

    async def _go_on(self) -> None:
        match self.checkpoint.state:
            case RunState.CREATED:
                async with self._record.changing:
                    if self.checkpoint.state is RunState.CREATED:
                        await self._record.change(Trigger.ARM)
            case RunState.ARMING:
                await self._arm()
            case RunState.STARTING:
                await self._start()
            case RunState.STOPPING:
                await self._stop_and_follow()
            case RunState.HELD:
                await self._poked.wait()
                self._poked.clear()
            case _:
                await self._follow()

    async def _arm(self) -> None:
        charter = self.charter
        armed: Armed | None = None
        try:
            armed = await self._driver.arm(charter.channel, charter.program, charter.run)
            refused = wider(armed.limits, charter.program.limits)
            if refused:
                refused = (
                    f"the limits read back from the instrument are not those of the recipe: "
                    f"{refused}"
                )
        except (InstrumentError, PlanError) as error:
            refused = f"the program was not taken: {error}"
        async with self._record.changing:
            if self.checkpoint.state is not RunState.ARMING:
                return
            if refused:
                await self._record.change(Trigger.REFUSED, refused)
            else:
                await self._record.change(Trigger.ARMED, armed=armed)

    async def _start(self) -> None:
        armed = self.checkpoint.armed
        if armed is None:
            raise InstrumentError(f"run {self.charter.run} is starting but was never armed")
        started = await self._driver.find(armed)
        refused = ""
        if started is not None:
            log.info("run %s: found running as test %s", self.charter.run, started.test)
        elif self.checkpoint.state is not RunState.STARTING:
            return
        else:
            try:
                started = await self._driver.start(armed)
            except InstrumentError as error:
                # A refusal of this start may be the work of an earlier one whose answer was lost.
                started = await self._driver.find(armed)
                refused = f"the program did not begin: {error}"
        async with self._record.changing:
            stopping = self.checkpoint.state is RunState.STOPPING
            if started is None:
                await self._record.change(Trigger.REFUSED, refused)
            elif stopping:
                await self._record.change(Trigger.STOP, self.checkpoint.reason, started=started)
            else:
                await self._record.change(Trigger.STARTED, started=started)

    async def _stop_and_follow(self) -> None:
        self._told_off = False
        if self.checkpoint.started is None and not await self._found_what_is_to_stop():
            return
        if not self._sure_of_the_test and await self._another_test_runs():
            return
        await self._driver.stop(self.charter.channel)
        self._told_off = True
        await self._follow()

    async def _found_what_is_to_stop(self) -> bool:
        """Whether a start that nobody heard of anew had made a test; if none did, the run ends."""
        armed, started = self.checkpoint.armed, None
        reason = "stopped before anything was started"
        if armed is not None:
            try:
                started = await self._driver.find(armed)
            except InstrumentError as error:
                status = await self._driver.status(self.charter.channel)
                another = status.test != armed.test_before and status.tag not in {"", armed.tag}
                if status.state in _STILL_AT_WORK and not another:
                    raise _NotYetError(f"the output may be on: {error}") from error
                reason = f"this run did not begin: {error}"
        async with self._record.changing:
            if started is None:
                await self._record.change(Trigger.REFUSED, reason)
            else:
                await self._record.change(Trigger.STOP, self.checkpoint.reason, started=started)
        return started is not None

    async def _another_test_runs(self) -> bool:
        """Whether the channel has gone on to a test that is not this run's, which then is over."""
        started = self.checkpoint.started
        status = await self._driver.status(self.charter.channel)
        if started is None or status.test in {"", started.test}:
            return False
        async with self._record.changing:
            await self._record.change(
                Trigger.ABANDON,
                f"channel {self.charter.channel} has gone on to test {status.test}: this run is "
                f"over, and what it measured after record {self.checkpoint.place.seq} is not here",
            )
        return True

    async def _follow(self) -> None:
        started = self.checkpoint.started
        if started is None:
            raise InstrumentError(f"run {self.charter.run} was never started")
        state = self.checkpoint.state
        while self.checkpoint.state is state:
            followed = await self._unless_asked(
                self._driver.follow(started, self.charter.program, self.checkpoint.next_index)
            )
            if followed is None:
                continue
            await self._take(followed)
            self._doubts, self._sure_of_the_test = 0, True
            self._all_is_well()
            if followed.state in {ChannelState.PAUSED, ChannelState.UNAVAILABLE}:
                self.link_error = f"the instrument says that its channel is {followed.state}"
            if not followed.complete and not len(followed.readings):
                await self._pause(self._clock, self._pace.poll_s)

    async def _take(self, followed: Followed) -> None:
        if followed.complete and followed.state in _STILL_AT_WORK:
            raise InstrumentError(
                f"the instrument says that run {self.charter.run} has ended, and that its channel "
                f"is {followed.state}"
            )
        async with self._record.changing:
            taken = self._record.place(followed, self._driver.capabilities)
            try:
                await self._record.keep(taken)
            except JournalError as error:
                if taken.beyond and not followed.complete:
                    await self._off_without_a_word(error)
                raise
        if taken.beyond:
            log.error("run %s: %s; stopping it", self.charter.run, taken.beyond)

    async def _off_without_a_word(self, error: JournalError) -> None:
        """Output off although the journal cannot keep why: safety comes before the record."""
        if self.checkpoint.armed is None:
            return
        try:
            await self._driver.stop(self.charter.channel)
        except (LinkError, InstrumentError) as failed:
            raise JournalError(f"{error}; AND THE OUTPUT MAY STILL BE ON: {failed}") from failed

    def _all_is_well(self) -> None:
        if self.link_down:
            log.warning("run %s: the instrument answers again", self.charter.run)
        self.link_error, self.link_down = "", False

    async def _wait_before_retry(self, error: LabctlError, retry_s: float) -> None:
        if str(error) != self.link_error:
            log.warning("run %s: trying again: %s", self.charter.run, error)
        self.link_error, self.link_down = str(error), isinstance(error, LinkError)
        await self._pause(self._wall, retry_s)

    async def _unless_asked(self, work: Coroutine[Any, Any, Answer]) -> Answer | None:
        """The answer; None if somebody wanted something and the answer did not come soon after."""
        asking = asyncio.create_task(work)
        try:
            await _either(asking, self._poked.wait())
            if not asking.done():
                self._poked.clear()
                await _either(asking, self._wall.sleep(_LAST_WORD_S))
            return asking.result() if asking.done() else None
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _pause(self, clock: Clock, duration_s: float) -> None:
        """Wait, but no longer than until somebody asks for something."""
        sleeping = asyncio.create_task(clock.sleep(duration_s))
        try:
            await _either(sleeping, self._poked.wait())
        finally:
            sleeping.cancel()
            await asyncio.gather(sleeping, return_exceptions=True)
        self._poked.clear()


async def _either(task: asyncio.Task[Any], other: Coroutine[Any, Any, Any]) -> None:
    """Return when one of the two is done; ``other`` is then cancelled."""
    waiting = asyncio.create_task(other)
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
