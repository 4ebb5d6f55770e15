"""What a run has come to: every step of it journalled first and remembered after.

No instrument is known here: what is to be kept comes in, and where the run stands comes out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from labctl.clock import Clock
from labctl.engine.journal import Entry, Journal
from labctl.engine.place import Place
from labctl.engine.placement import close_run
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import Trigger, next_state
from labctl.engine.walk import Onward, Walk
from labctl.engine.watching import watch_of
from labctl.errors import JournalError
from labctl.model import Records
from labctl.program import Step
from labctl.stream.events import BranchTaken, Event, RunEnded, RunStateChanged

log = logging.getLogger(__name__)

Viewer = Callable[[Charter, Checkpoint, Records], None]
"""Told of every record that is safely journalled; must return at once and may lose them."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run that ends here leaves its last cycle and its last step.

    complete: the cycle was run to its end. cause: what ended the step, '' where its own end did.
    """

    complete: bool = False
    cause: str = ""


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
        self.watch = watch_of(charter.run, charter.program, checkpoint.conditions)
        self._clock = clock
        self._viewer = viewer

    async def tell_news(self) -> None:
        """Journal what the watch has to say, where nothing else is to be kept.

        Raises:
            JournalError: it is not kept, and told with whatever is kept next.
        """
        async with self.changing:
            if self.watch.news and not self.checkpoint.state.ended:
                await self.advance(self.checkpoint)

    @property
    def step(self) -> Step | None:
        """The step that the run is in; None before the first."""
        place = self.checkpoint.place
        return self.walk.step(place.position) if place.visit else None

    async def change(
        self,
        trigger: Trigger,
        reason: str = "",
        *,
        changed: Checkpoint | None = None,
        cause: str = "",
        command: tuple[str, bytes] | None = None,
        note: Event | None = None,
    ) -> None:
        """Take a transition and journal it; a run that ends here ends without an instrument.

        ``changed`` is the checkpoint with what else changes. The caller holds the lock.
        """
        before = self.checkpoint if changed is None else changed
        await self.advance(
            msgspec.structs.replace(before, cause=before.cause or cause),
            trigger,
            reason,
            events=() if note is None else (note,),
            command=command,
            ending=Ending(cause="limit" if before.cause == "limit" else "stop"),
        )
        if trigger in {Trigger.HOLD, Trigger.REFUSED, Trigger.ABANDON}:
            log.error("run %s is %s: %s", self.charter.run, self.checkpoint.state, reason)

    async def advance(
        self,
        changed: Checkpoint,
        trigger: Trigger | None = None,
        reason: str | None = None,
        *,
        records: Records | None = None,
        events: tuple[Event, ...] = (),
        command: tuple[str, bytes] | None = None,
        ending: Ending | None = None,
    ) -> None:
        """Journal a checkpoint that was made out of the present one, and what goes with it.

        ``trigger`` moves its state on; ``reason`` is for people, None for the one that it has. The
        caller holds the lock.

        Raises:
            JournalError: nothing of it is kept; the run stands where it stood.
        """
        now_s = self._clock.unix_time_s()
        before = self.checkpoint
        checkpoint = msgspec.structs.replace(
            changed,
            state=changed.state if trigger is None else next_state(changed.state, trigger),
            reason=changed.reason if reason is None else reason,
            conditions=self.watch.standing,
        )
        news = self.watch.take_news()
        every: list[Event] = [*news, *events]
        if checkpoint.state.ended:
            how = Ending() if ending is None else ending
            every += close_run(self.walk, checkpoint.place, completed=how.complete, cause=how.cause)
        if checkpoint.state is not before.state or checkpoint.reason != before.reason:
            every.append(self._state_event(checkpoint, now_s))
        if checkpoint.state.ended:
            every.append(self._run_ended(checkpoint, now_s))
        try:
            await self._commit(
                checkpoint, Records() if records is None else records, every, command
            )
        except JournalError:
            self.watch.put_back(news)
            raise

    def branches(self, onward: Onward, place: Place) -> tuple[BranchTaken, ...]:
        """What was decided on the way from ``place``, as events."""
        return tuple(
            BranchTaken(
                run=self.charter.run,
                line=decision.line,
                after_seq=place.seq,
                held=decision.held,
                reason=decision.reason,
            )
            for decision in onward.decisions
        )

    async def _commit(
        self,
        checkpoint: Checkpoint,
        records: Records,
        events: list[Event],
        command: tuple[str, bytes] | None,
    ) -> None:
        await self.journal.commit(
            Entry(
                run=self.charter.run,
                checkpoint=checkpoint,
                records=records,
                events=tuple(events),
                command=command,
            )
        )
        self.checkpoint = checkpoint
        if self._viewer is not None and (len(records) or events or command):
            self._viewer(self.charter, checkpoint, records)
        if checkpoint.state.ended:
            log.info("run %s is %s: %s", self.charter.run, checkpoint.state, checkpoint.reason)

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
