"""What a run has come to: every step of it journalled first and remembered after.

No instrument is known here: readings come in, and where the run stands comes out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from labctl.clock import Clock
from labctl.drivers.base import Armed, Capabilities, ChannelState, Followed, Started
from labctl.engine.journal import Entry, Journal
from labctl.engine.limits import passed
from labctl.engine.placement import at_the_end, close_run, place_readings
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import Trigger, next_state
from labctl.engine.walk import Walk
from labctl.model import Records
from labctl.program import Step
from labctl.stream.events import Event, RunEnded, RunStateChanged

log = logging.getLogger(__name__)

Viewer = Callable[[Charter, Checkpoint, Records], None]
"""Told of every record that is safely journalled; must return at once and may lose them."""


@dataclass(frozen=True, slots=True)
class Taken:
    """An answer of the instrument, put in its place and not journalled yet.

    ``beyond`` names the limit that a record lies beyond, '' if none does.
    """

    checkpoint: Checkpoint
    records: Records
    events: tuple[Event, ...]
    beyond: str


class RunRecord:
    """One run. Whoever changes it holds :attr:`changing` from looking to journalling."""

    def __init__(
        self,
        charter: Charter,
        checkpoint: Checkpoint,
        journal: Journal,
        clock: Clock,
        viewer: Viewer | None = None,
    ) -> None:
        self.charter = charter
        self.checkpoint = checkpoint
        self.journal = journal
        self.changing = asyncio.Lock()
        self.walk = Walk(charter.program)
        self._clock = clock
        self._viewer = viewer

    @property
    def step(self) -> Step | None:
        """The step that the last record belongs to; None before the first."""
        place = self.checkpoint.place
        return self.walk.step(place.position) if place.visit else None

    def place(self, followed: Followed, capabilities: Capabilities) -> Taken:
        """Where the run will stand with this answer.

        Raises:
            InstrumentError: the readings cannot be of this run.
        """
        now_s = self._clock.unix_time_s()
        before = self.checkpoint
        placed = place_readings(self.walk, before.place, followed.readings, unix_time_s=now_s)
        checkpoint = msgspec.structs.replace(
            before, place=placed.place, next_index=followed.next_index
        )
        events = list(placed.events)
        limits = self.charter.program.limits
        beyond = "" if before.cause == "limit" else passed(limits, placed, capabilities)
        if beyond:
            checkpoint = msgspec.structs.replace(checkpoint, reason=beyond, cause="limit")
        if followed.complete:
            checkpoint, ending = self._ending(checkpoint, followed.state, now_s)
            events += ending
        elif beyond:
            state = next_state(before.state, Trigger.STOP)
            checkpoint = msgspec.structs.replace(checkpoint, state=state)
            events.append(self._state_event(checkpoint, now_s))
        return Taken(checkpoint, placed.records, tuple(events), beyond)

    async def keep(self, taken: Taken) -> None:
        """Journal an answer, readings and checkpoint together.

        Raises:
            JournalError: nothing of it is kept; the run stands where it stood.
        """
        await self._commit(taken.checkpoint, taken.records, taken.events)

    async def change(
        self,
        trigger: Trigger,
        reason: str = "",
        *,
        cause: str = "",
        started: Started | None = None,
        armed: Armed | None = None,
        command: tuple[str, bytes] | None = None,
        note: Event | None = None,
    ) -> None:
        """Take a transition and journal it; a run that ends here ends without an instrument.

        The caller holds the lock.
        """
        now_s = self._clock.unix_time_s()
        before = self.checkpoint
        checkpoint = msgspec.structs.replace(
            before,
            state=next_state(before.state, trigger),
            reason=reason,
            cause=before.cause or cause,
            started=started or before.started,
            armed=armed or before.armed,
        )
        events: list[Event] = [] if note is None else [note]
        if checkpoint.state is not before.state or reason != before.reason:
            events.append(self._state_event(checkpoint, now_s))
        if checkpoint.state.ended:
            events += close_run(self.walk, checkpoint.place, completed=False, cause="stop")
            events.append(self._run_ended(checkpoint, now_s))
        await self._commit(checkpoint, Records(), tuple(events), command)
        if trigger in {Trigger.HOLD, Trigger.REFUSED, Trigger.ABANDON}:
            log.error("run %s is %s: %s", self.charter.run, checkpoint.state, reason)

    async def _commit(
        self,
        checkpoint: Checkpoint,
        records: Records,
        events: tuple[Event, ...],
        command: tuple[str, bytes] | None = None,
    ) -> None:
        news = bool(len(records) or events or command)
        if news or checkpoint.state is not self.checkpoint.state:
            await self.journal.commit(
                Entry(
                    run=self.charter.run,
                    checkpoint=checkpoint,
                    records=records,
                    events=events,
                    command=command,
                )
            )
        self.checkpoint = checkpoint
        if self._viewer is not None and news:
            self._viewer(self.charter, checkpoint, records)
        if checkpoint.state.ended:
            log.info("run %s is %s: %s", self.charter.run, checkpoint.state, checkpoint.reason)

    def _ending(
        self, checkpoint: Checkpoint, state: ChannelState, now_s: float
    ) -> tuple[Checkpoint, list[Event]]:
        place = checkpoint.place
        cause, reason = checkpoint.cause, checkpoint.reason
        completed = state is ChannelState.FINISHED and at_the_end(self.walk, place)
        if cause == "limit":
            trigger = Trigger.TRIP
        elif completed:
            trigger, cause, reason = Trigger.READ_TO_END, "", "the program was run to its end"
        elif state is ChannelState.TRIPPED:
            trigger, cause = Trigger.TRIP, "limit"
            reason = "a protection of the instrument ended the test"
        else:
            trigger = Trigger.ENDED_EARLY
            if not cause:
                cause, reason = "stop", "the instrument stopped before the end of the program"
        ended = msgspec.structs.replace(
            checkpoint, state=next_state(checkpoint.state, trigger), reason=reason, cause=cause
        )
        last_step_cause = "" if completed else cause
        return ended, [
            *close_run(self.walk, place, completed=completed, cause=last_step_cause),
            self._state_event(ended, now_s),
            self._run_ended(ended, now_s),
        ]

    def _state_event(self, checkpoint: Checkpoint, now_s: float) -> RunStateChanged:
        return RunStateChanged(
            run=self.charter.run,
            state=str(checkpoint.state),
            reason=checkpoint.reason,
            unix_time_s=now_s,
        )

    def _run_ended(self, checkpoint: Checkpoint, now_s: float) -> RunEnded:
        return RunEnded(
            run=self.charter.run,
            outcome=str(checkpoint.state),
            reason=checkpoint.reason,
            last_seq=checkpoint.place.seq,
            unix_time_s=now_s,
        )
