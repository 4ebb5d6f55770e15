"""Runs one Program on one Channel of a sequencer, from wherever the journal says that it stands.

What will be done is journalled before it is done. A start is never repeated unless the instrument
shows that the first one did nothing. What can't be explained ends in HELD, with the output left to
the instrument's own limits, and waits for a person.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from labctl.clock import Clock, RealClock
from labctl.drivers.base import ChannelState, Followed, Sequencer
from labctl.engine.journal import Entry, Journal
from labctl.engine.placement import Placed, at_the_end, close_run, place_readings
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import RunState, Trigger, next_state
from labctl.engine.walk import Walk
from labctl.errors import CommandError, InstrumentError, JournalError, LinkError, PlanError
from labctl.model import Records
from labctl.program import Limits, Step
from labctl.stream.events import Event, RunEnded, RunStateChanged

log = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 30.0

Viewer = Callable[[Charter, Checkpoint, Records], None]
"""Told of every record that is safely journalled; must return at once and may lose them."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a running channel is asked for more, in seconds of the clock."""

    poll_s: float = 5.0


DEFAULT_PACE: Final = Pace()


class Runner:
    """One run. :meth:`run` returns when it has ended; cancelling that leaves the run resumable.

    ``clock`` is the laboratory's time, which may be virtual; ``wall`` is real time, in which lost
    links are tried again.
    """

    def __init__(
        self,
        charter: Charter,
        checkpoint: Checkpoint,
        driver: Sequencer,
        journal: Journal,
        clock: Clock,
        *,
        pace: Pace = DEFAULT_PACE,
        viewer: Viewer | None = None,
        wall: Clock | None = None,
    ) -> None:
        self.charter = charter
        self.checkpoint = checkpoint
        self._driver = driver
        self._journal = journal
        self._clock = clock
        self._pace = pace
        self._viewer = viewer
        self._wall: Clock = RealClock() if wall is None else wall
        self._walk = Walk(charter.program)
        self._changing = asyncio.Lock()
        self._poked = asyncio.Event()
        self.link_error = ""

    @property
    def step(self) -> Step | None:
        """The step that the last record belongs to; None before the first."""
        place = self.checkpoint.place
        return self._walk.step(place.position) if place.visit else None

    async def run(self) -> None:
        """Bring the run to its end, across lost links; returns when it has ended."""
        retry_s = FIRST_RETRY_S
        while not self.checkpoint.state.ended:
            try:
                if self.checkpoint.state is RunState.HELD:
                    await self._wait_for_a_person()
                else:
                    await self._go_on()
                if self.link_error:
                    log.warning("run %s: the instrument answers again", self.charter.run)
                self.link_error, retry_s = "", FIRST_RETRY_S
            except LinkError as error:
                await self._wait_before_retry("link", error, retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
            except JournalError as error:
                await self._wait_before_retry("journal", error, retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
            except InstrumentError as error:
                await self._change(Trigger.HOLD, f"{error}")

    async def stop(
        self,
        reason: str,
        command: tuple[str, bytes] | None = None,
        note: Event | None = None,
    ) -> None:
        """Ask for the run's end; always allowed, and asking twice does no more than asking once.

        ``command`` and ``note`` are journalled with it: see :class:`Entry`.
        """
        if self.checkpoint.state.ended:
            return
        await self._change(Trigger.STOP, reason, cause="stop", command=command, note=note)
        self._poked.set()

    async def release(
        self,
        reason: str,
        command: tuple[str, bytes] | None = None,
        note: Event | None = None,
    ) -> None:
        """Let a held run go on from where it is found.

        Raises:
            CommandError: the run is not held, or nothing was ever started that it could go on with.
        """
        if self.checkpoint.started is None:
            raise CommandError(
                f"run {self.charter.run} never began on its instrument: stop it and start anew"
            )
        await self._change(Trigger.RELEASE, reason, command=command, note=note)
        self._poked.set()

    async def _go_on(self) -> None:
        match self.checkpoint.state:
            case RunState.CREATED:
                await self._change(Trigger.ARM)
            case RunState.ARMING:
                await self._arm()
            case RunState.STARTING:
                await self._start()
            case RunState.STOPPING:
                await self._stop_and_follow()
            case _:
                await self._follow()

    async def _arm(self) -> None:
        charter = self.charter
        try:
            armed = await self._driver.arm(charter.channel, charter.program, charter.run)
        except (InstrumentError, PlanError) as error:
            await self._change(Trigger.REFUSED, f"the program was not taken: {error}")
            return
        if wider := _wider(armed.limits, charter.program.limits):
            await self._change(
                Trigger.REFUSED,
                f"the limits read back from the instrument are not those of the recipe: {wider}",
            )
            return
        async with self._changing:
            if self.checkpoint.state is RunState.ARMING:
                await self._keep(Trigger.ARMED, armed=armed)

    async def _start(self) -> None:
        armed = self.checkpoint.armed
        if armed is None:
            raise InstrumentError(f"run {self.charter.run} is starting but was never armed")
        started = await self._driver.find(armed)
        if started is None:
            try:
                started = await self._driver.start(armed)
            except InstrumentError as error:
                await self._change(Trigger.REFUSED, f"the program did not begin: {error}")
                return
        else:
            log.info("run %s: found running as test %s", self.charter.run, started.test)
        async with self._changing:
            trigger = (
                Trigger.STARTED if self.checkpoint.state is RunState.STARTING else Trigger.STOP
            )
            await self._keep(trigger, started=started)

    async def _stop_and_follow(self) -> None:
        if self.checkpoint.started is None:
            armed = self.checkpoint.armed
            started = None if armed is None else await self._driver.find(armed)
            if started is None:
                await self._change(Trigger.REFUSED, "stopped before anything was started")
                return
            async with self._changing:
                await self._keep(Trigger.STOP, started=started)
        await self._driver.stop(self.charter.channel)
        await self._follow()

    async def _follow(self) -> None:
        started = self.checkpoint.started
        if started is None:
            raise InstrumentError(f"run {self.charter.run} was never started")
        state = self.checkpoint.state
        while self.checkpoint.state is state:
            followed = await self._driver.follow(
                started, self.charter.program, self.checkpoint.next_index
            )
            await self._take(followed)
            if self.link_error:
                log.warning("run %s: the instrument answers again", self.charter.run)
                self.link_error = ""
            if not followed.complete and not len(followed.readings):
                await self._pause(self._clock, self._pace.poll_s)

    async def _take(self, followed: Followed) -> None:
        async with self._changing:
            now_s = self._clock.unix_time_s()
            before = self.checkpoint
            placed = place_readings(self._walk, before.place, followed.readings, unix_time_s=now_s)
            checkpoint = msgspec.structs.replace(
                before, place=placed.place, next_index=followed.next_index
            )
            events = list(placed.events)
            passed = "" if before.cause else _passed(self.charter.program.limits, placed.records)
            if followed.complete:
                checkpoint, ending = self._ending(checkpoint, followed.state, now_s)
                events += ending
            elif passed:
                checkpoint = msgspec.structs.replace(
                    checkpoint,
                    state=next_state(before.state, Trigger.STOP),
                    reason=passed,
                    cause="limit",
                )
                events.append(self._state_event(checkpoint, now_s))
            await self._commit(checkpoint, placed, tuple(events))

    def _ending(
        self, checkpoint: Checkpoint, state: ChannelState, now_s: float
    ) -> tuple[Checkpoint, list[Event]]:
        place = checkpoint.place
        cause, reason = checkpoint.cause, checkpoint.reason
        completed = state is ChannelState.FINISHED and at_the_end(self._walk, place)
        if completed:
            trigger, cause, reason = Trigger.READ_TO_END, "", "the program was run to its end"
        elif cause == "limit":
            trigger = Trigger.TRIP
        elif state is ChannelState.TRIPPED:
            trigger, cause = Trigger.TRIP, "limit"
            reason = "a protection of the instrument ended the test"
        else:
            trigger, cause = Trigger.ENDED_EARLY, cause or "stop"
            reason = reason or "the instrument stopped before the end of the program"
        ended = msgspec.structs.replace(
            checkpoint, state=next_state(checkpoint.state, trigger), reason=reason, cause=cause
        )
        return ended, [
            *close_run(self._walk, place, completed=completed, cause=cause),
            self._state_event(ended, now_s),
            RunEnded(
                run=self.charter.run,
                outcome=str(ended.state),
                reason=reason,
                last_seq=place.seq,
                unix_time_s=now_s,
            ),
        ]

    async def _change(
        self,
        trigger: Trigger,
        reason: str = "",
        *,
        cause: str = "",
        command: tuple[str, bytes] | None = None,
        note: Event | None = None,
    ) -> None:
        """Take a transition and journal it; a run that ends here ends without an instrument."""
        async with self._changing:
            now_s = self._clock.unix_time_s()
            before = self.checkpoint
            checkpoint = msgspec.structs.replace(
                before,
                state=next_state(before.state, trigger),
                reason=reason,
                cause=before.cause or cause,
            )
            events: list[Event] = [] if note is None else [note]
            if checkpoint.state is not before.state or reason != before.reason:
                events.append(self._state_event(checkpoint, now_s))
            if checkpoint.state.ended:
                events += [
                    *close_run(self._walk, checkpoint.place, completed=False, cause="stop"),
                    RunEnded(
                        run=self.charter.run,
                        outcome=str(checkpoint.state),
                        reason=reason,
                        last_seq=checkpoint.place.seq,
                        unix_time_s=now_s,
                    ),
                ]
            await self._journal.commit(
                Entry(
                    run=self.charter.run,
                    checkpoint=checkpoint,
                    events=tuple(events),
                    command=command,
                )
            )
            self.checkpoint = checkpoint
        if trigger in {Trigger.HOLD, Trigger.REFUSED}:
            log.error("run %s is %s: %s", self.charter.run, checkpoint.state, reason)

    async def _keep(self, trigger: Trigger, **changes: object) -> None:
        checkpoint = msgspec.structs.replace(
            self.checkpoint, state=next_state(self.checkpoint.state, trigger), **changes
        )
        events: tuple[Event, ...] = ()
        if checkpoint.state is not self.checkpoint.state:
            events = (self._state_event(checkpoint, self._clock.unix_time_s()),)
        await self._journal.commit(
            Entry(run=self.charter.run, checkpoint=checkpoint, events=events)
        )
        self.checkpoint = checkpoint

    async def _commit(
        self, checkpoint: Checkpoint, placed: Placed, events: tuple[Event, ...]
    ) -> None:
        if len(placed.records) or events:
            await self._journal.commit(
                Entry(
                    run=self.charter.run,
                    checkpoint=checkpoint,
                    records=placed.records,
                    events=events,
                )
            )
        self.checkpoint = checkpoint
        if self._viewer is not None and (len(placed.records) or events):
            self._viewer(self.charter, checkpoint, placed.records)
        if checkpoint.state.ended:
            log.info("run %s is %s: %s", self.charter.run, checkpoint.state, checkpoint.reason)
        elif checkpoint.cause == "limit" and len(placed.records):
            log.error("run %s: %s; stopping it", self.charter.run, checkpoint.reason)

    def _state_event(self, checkpoint: Checkpoint, now_s: float) -> RunStateChanged:
        return RunStateChanged(
            run=self.charter.run,
            state=str(checkpoint.state),
            reason=checkpoint.reason,
            unix_time_s=now_s,
        )

    async def _wait_for_a_person(self) -> None:
        while self.checkpoint.state is RunState.HELD:
            await self._poked.wait()
            self._poked.clear()

    async def _wait_before_retry(self, what: str, error: Exception, retry_s: float) -> None:
        if not self.link_error:
            log.warning("run %s: %s lost, trying again: %s", self.charter.run, what, error)
        self.link_error = str(error)
        await self._pause(self._wall, retry_s)

    async def _pause(self, clock: Clock, duration_s: float) -> None:
        """Wait, but no longer than until somebody asks for something."""
        sleeping = asyncio.create_task(clock.sleep(duration_s))
        poked = asyncio.create_task(self._poked.wait())
        try:
            await asyncio.wait([sleeping, poked], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            poked.cancel()
            await asyncio.gather(sleeping, poked, return_exceptions=True)
        self._poked.clear()


def _wider(armed: Limits, asked: Limits) -> str:
    """In which way what the instrument holds is less strict than what was asked; '' if it is not.

    Duration is the engine's to watch; so is whatever the instrument says that it does not hold.
    """
    slack = 1.0001
    pairs = (
        ("upper voltage", armed.voltage_max_V, asked.voltage_max_V, 1.0),
        ("lower voltage", armed.voltage_min_V, asked.voltage_min_V, -1.0),
        ("charging current", armed.current_max_A, asked.current_max_A, 1.0),
        ("discharging current", armed.current_min_A, asked.current_min_A, -1.0),
        ("charge in a step", armed.step_charge_max_Ah, asked.step_charge_max_Ah, 1.0),
    )
    return "; ".join(
        f"{name} {found:g} instead of {wanted:g}"
        for name, found, wanted, sign in pairs
        if sign * found > sign * wanted + (slack - 1.0) * abs(wanted)
    )


def _passed(limits: Limits, records: Records) -> str:
    """Which limit a record lies beyond; '' if none does."""
    if not len(records):
        return ""
    checks = (
        ("voltage", "V", records.voltage_V, limits.voltage_min_V, limits.voltage_max_V),
        ("current", "A", records.current_A, limits.current_min_A, limits.current_max_A),
        (
            "temperature",
            "degC",
            records.temperature_degC,
            limits.temperature_min_degC,
            limits.temperature_max_degC,
        ),
    )
    for name, unit, values, low, high in checks:
        beyond = (values < low) | (values > high)
        if beyond.any():
            first = int(beyond.argmax())
            return (
                f"{name} {values[first]:g} {unit} at record {int(records.seq[first])} is outside "
                f"its limits {low:g} .. {high:g} {unit}"
            )
    if float(records.test_time_s[-1]) > limits.duration_max_s:
        return f"the run has lasted longer than its limit of {limits.duration_max_s:g} s"
    return ""
