"""What people may ask of a run, and what it answers.

Each order is journalled with its command's id, so that asked again it does nothing twice. What is
not possible in a state raises CommandError, which says what the run is doing and what is possible.
Where an instrument has to be told before (pause, skip), one that refuses leaves the run as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Literal

import msgspec

from labctl.engine.bench import Bench
from labctl.engine.hostwork import CONFIRM, signals_of
from labctl.engine.run import Checkpoint, SignalGiven, StopLater
from labctl.engine.states import ENDED, RunState, Trigger
from labctl.engine.waiting import let_go
from labctl.engine.way import Way, off_without_a_word
from labctl.errors import CommandError, InstrumentError, JournalError
from labctl.program import Step, Wait
from labctl.stream.events import Event, MarkerSet

Kept = tuple[str, bytes] | None
"""(id, answer) of the command that an order carries out: see :class:`labctl.engine.journal.Entry`.
"""

NOT_ENDED: Final = frozenset(RunState) - ENDED
_POSSIBLE: Final = {
    RunState.CREATED: "now it can be stopped",
    RunState.ARMING: "now it can be stopped; it is about to begin",
    RunState.STARTING: "now it can be stopped; it is about to begin",
    RunState.RUNNING: "now it can be paused, held or stopped, or skip a step",
    RunState.PAUSED: "now it can be resumed, held or stopped",
    RunState.STOPPING: "now it can be abandoned",
    RunState.HELD: "now it can be released, stopped or abandoned",
} | dict.fromkeys(ENDED, "it is over")


class Orders:
    """The orders of one run. ``note`` is journalled with an order, for the audit."""

    def __init__(self, bench: Bench, way: Way) -> None:
        self._bench = bench
        self._way = way
        self._record = bench.record

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the run stands, as the journal has it."""
        return self._record.checkpoint

    async def stop(
        self,
        reason: str,
        command: Kept = None,
        note: Event | None = None,
        *,
        at: Literal["now", "step", "cycle"] = "now",
    ) -> None:
        """Ask for the run's end, now or when it leaves its step or cycle; always allowed.

        Asking twice does no more than asking once; a later 'now' counts. On a sequencer the end of
        a step or cycle is seen in the first reading after it.

        Raises:
            JournalError: that could not be kept (a full disk); the output was switched off all the
                same, unless the message says otherwise.
        """
        if at != "now" and await self._stop_later(reason, at, command, note):
            return
        keeping = asyncio.create_task(self._stop_now(reason, command, note))
        try:
            if not await self._bench.waiting.at_most(keeping, self._bench.pace.slow_journal_s):
                await self._off_without_a_word(JournalError("the journal does not answer"))
            await asyncio.wait([keeping])
            keeping.result()
        except JournalError as error:
            self._bench.unkept_stop = reason or "stopped"
            self._bench.waiting.poke()
            await self._off_without_a_word(error)
            raise
        finally:
            await let_go(keeping)
        self._bench.waiting.poke()

    async def pause(self, reason: str, command: Kept = None, note: Event | None = None) -> None:
        """Open circuit until :meth:`resume`; the run stays in its step, its cycle is interrupted.

        Raises:
            CommandError: the run is not at work, or its instrument cannot pause.
            LinkError: the instrument did not answer; it may have paused.
        """
        paused = {RunState.PAUSED}
        self._refuse_unless(paused | {RunState.RUNNING}, "only a running run can be paused")
        if self.checkpoint.state is RunState.RUNNING:
            await self._tell_instrument(self._way.pause(), "cannot pause")
        async with self._record.changing:
            before = self.checkpoint
            self._refuse_unless(paused | {RunState.RUNNING}, "only a running run can be paused")
            if before.state is RunState.PAUSED:
                await self._note(command, note)
            else:
                changed = self._opened(before)
                await self._record.change(
                    Trigger.PAUSE, reason, changed=changed, command=command, note=note
                )
        self._bench.waiting.poke()

    async def resume(self, reason: str, command: Kept = None, note: Event | None = None) -> None:
        """Go on after :meth:`pause`, with what is left of the step; a run that goes on goes on.

        Raises:
            CommandError: the run is in a state that something else leads out of.
        """
        async with self._record.changing:
            self._refuse_unless(
                {RunState.PAUSED, RunState.RUNNING}, "only a paused run can be resumed"
            )
            before = self.checkpoint
            looked = self._looked_at_now(before)
            if before.state is RunState.RUNNING:
                changed = msgspec.structs.replace(before, paused=before.started is not None)
                await self._record.advance(changed, events=_just(note), command=command)
            else:
                await self._record.change(
                    Trigger.RESUME, reason, changed=looked, command=command, note=note
                )
        self._bench.waiting.poke()

    async def skip(self, reason: str, command: Kept = None, note: Event | None = None) -> None:
        """Leave the present step for the next one. ``reason`` is for the log of commands only.

        Raises:
            CommandError: the run is not in a step, or its instrument cannot skip.
            LinkError: the instrument did not answer; it may have skipped.
        """
        del reason
        self._refuse_unless({RunState.RUNNING}, "only a running run can skip a step")
        visit = self.checkpoint.place.visit
        if visit == 0:
            raise CommandError(f"run {self._run} has no reading yet: there is no step to skip")
        await self._tell_instrument(self._way.skip(), "cannot skip a step")
        async with self._record.changing:
            changed = self._interrupted(self.checkpoint)
            changed = msgspec.structs.replace(changed, skip_visit=visit)
            await self._record.advance(changed, events=_just(note), command=command)
        self._bench.waiting.poke()

    async def hold_by_hand(
        self, reason: str, command: Kept = None, note: Event | None = None
    ) -> None:
        """Open circuit until somebody releases the run with a reason.

        Raises:
            CommandError: the run has not begun, is being started or stopped, or its instrument
                cannot pause.
            LinkError: the instrument did not answer; it may have paused.
        """
        possible = {RunState.RUNNING, RunState.PAUSED, RunState.HELD}
        why = "only a run that is at work can be held: it can be stopped"
        self._refuse_unless(possible, why)
        if self.checkpoint.state is not RunState.PAUSED:
            await self._tell_instrument(self._way.pause(), "cannot hold its output open")
        async with self._record.changing:
            self._refuse_unless(possible, why)
            changed = self._opened(self.checkpoint)
            await self._record.change(
                Trigger.HOLD, reason, changed=changed, command=command, note=note
            )
        self._bench.waiting.poke()

    async def release(self, reason: str, command: Kept = None, note: Event | None = None) -> None:
        """Let a held run go on from where it is found; one that was told to stop goes on stopping.

        A start whose outcome was not known is looked for again, and never repeated.

        Raises:
            CommandError: the run is not held, or nothing was ever started that it could go on with.
            LinkError: the instrument was asked and did not answer.
        """
        self._refuse_unless({RunState.HELD}, "only a held run can be released")
        trigger, started = await self._way.what_to_release()
        async with self._record.changing:
            self._refuse_unless({RunState.HELD}, "only a held run can be released")
            before = self.checkpoint
            changed = self._looked_at_now(before)
            if started is not None:
                changed = msgspec.structs.replace(changed, started=started)
            await self._record.change(
                Trigger.STOP if before.cause else trigger,
                reason,
                changed=changed,
                command=command,
                note=note,
            )
        self._bench.waiting.poke()

    async def abandon(self, reason: str, command: Kept = None, note: Event | None = None) -> None:
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
        self._bench.waiting.poke()

    async def signal(
        self, name: str, actor: str, command: Kept = None, note: Event | None = None
    ) -> None:
        """Something outside has happened, for the step that waits for it, now or later.

        It is kept once for the next step that waits for that name; the marker is kept in any case.
        An operator confirms what a step prompts for with the name ``confirm``, while it prompts.

        Raises:
            CommandError: the run has ended, or asks for no confirmation now.
        """
        async with self._record.changing:
            self._refuse_unless(set(NOT_ENDED), "it hears no signals any more")
            before = self.checkpoint
            if name == CONFIRM and not self._is_prompting():
                raise CommandError(
                    f"run {self._run} is {before.state} and asks nobody for anything now"
                )
            heard = name == CONFIRM or name in signals_of(self._record.charter.program)
            known = {given.name for given in before.signals}
            signals = before.signals
            if heard and name not in known:
                signals = (*signals, SignalGiven(name=name, actor=actor))
            place = before.place
            marker = MarkerSet(
                run=self._run,
                marker=name,
                direction="received",
                seq=place.seq,
                cycle=place.position.cycle,
                test_time_s=place.test_time_s,
                unix_time_s=self._bench.clock.unix_time_s(),
                actor=actor,
            )
            await self._record.advance(
                msgspec.structs.replace(before, signals=signals),
                events=(marker, *_just(note)),
                command=command,
            )
        self._bench.waiting.poke()

    async def keep_stop(self) -> None:
        """Journal a stop that could not be kept when it was asked for.

        Raises:
            JournalError: it still cannot.
        """
        await self._stop_now(self._bench.unkept_stop, None, None)

    async def _stop_now(self, reason: str, command: Kept, note: Event | None) -> None:
        async with self._record.changing:
            before = self.checkpoint
            if not before.state.ended:
                told = before.state is RunState.STOPPING
                await self._record.change(
                    Trigger.STOP,
                    before.reason if told else reason,
                    cause=before.cause or "stop",
                    command=command,
                    note=note,
                )
            self._bench.unkept_stop = ""

    async def _stop_later(self, reason: str, at: str, command: Kept, note: Event | None) -> bool:
        """Whether there is something to wait for; if not, the run stops now."""
        async with self._record.changing:
            before = self.checkpoint
            place = before.place
            if before.state.ended:
                return True
            if before.state is RunState.STOPPING:
                await self._note(command, note)
                return True
            if place.visit == 0 and before.state is not RunState.RUNNING:
                return False
            later = StopLater(
                at=at,
                reason=reason,
                visit=place.visit,
                cycle=place.position.cycle,
                cycles_begun=place.position.cycles_begun,
            )
            changed = msgspec.structs.replace(before, stop_later=later)
            await self._record.advance(changed, events=_just(note), command=command)
        return True

    async def _off_without_a_word(self, error: JournalError) -> None:
        if not self.checkpoint.state.ended:
            await off_without_a_word(self._way, error)

    async def _note(self, command: Kept, note: Event | None) -> None:
        await self._record.advance(self.checkpoint, events=_just(note), command=command)

    async def _tell_instrument(self, telling: Coroutine[Any, Any, None], cannot: str) -> None:
        try:
            await telling
        except InstrumentError as error:
            raise CommandError(
                f"run {self._run} is {self.checkpoint.state}, and its instrument {cannot}: {error}"
            ) from error

    def _opened(self, before: Checkpoint) -> Checkpoint:
        """A sequencer has been told to pause; a source's own visit says for itself how it goes."""
        if before.started is None:
            return before
        return msgspec.structs.replace(self._interrupted(before), paused=True)

    def _interrupted(self, before: Checkpoint) -> Checkpoint:
        """The cycle of what a sequencer runs is not like others."""
        place = before.place
        if before.started is None or not place.position.cycle:
            return before
        place = msgspec.structs.replace(place, cycle_interrupted=True)
        return msgspec.structs.replace(before, place=place)

    def _looked_at_now(self, before: Checkpoint) -> Checkpoint:
        """A person looked: what went by until now is no reason to hold the run."""
        now_s = self._bench.clock.unix_time_s()
        return msgspec.structs.replace(before, looked_unix_s=now_s)

    def _is_prompting(self) -> bool:
        step, place = self._record.step, self.checkpoint.place
        return step is not None and not place.visit_over and _prompts(step)

    def _refuse_unless(self, states: set[RunState], why: str) -> None:
        state = self.checkpoint.state
        if state not in states:
            raise CommandError(f"run {self._run} is {state}: {why} ({_POSSIBLE[state]})")

    @property
    def _run(self) -> str:
        return self._record.charter.run


def _prompts(step: Step) -> bool:
    return isinstance(step.control, Wait) and bool(step.control.prompt)


def _just(note: Event | None) -> tuple[Event, ...]:
    return () if note is None else (note,)
