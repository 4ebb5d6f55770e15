"""A run on a sequencer: stretch by stretch, each armed, started once, and followed to its end.

The instrument runs a stretch by itself, with its limits; this side looks on. Between two stretches
the host has the run, at open circuit, and walks it: see :mod:`labctl.engine.walking`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Final

import msgspec

from labctl.drivers.base import Armed, ChannelState, Followed, Sequencer, Started
from labctl.engine.atrest import AtRest
from labctl.engine.bench import Bench, NotYetError
from labctl.engine.limits import wider
from labctl.engine.placing import first_position, take
from labctl.engine.run import Checkpoint
from labctl.engine.segments import Segment, segment_at
from labctl.engine.setting_out import is_refused
from labctl.engine.states import RunState, Trigger
from labctl.engine.transit import transit_from
from labctl.engine.walk import Position
from labctl.engine.walking import Walking
from labctl.engine.way import off_without_a_word
from labctl.errors import CommandError, InstrumentError, JournalError, PlanError
from labctl.program import Impedance

log = logging.getLogger(__name__)

STILL_AT_WORK: Final = frozenset(
    {ChannelState.RUNNING, ChannelState.PAUSED, ChannelState.UNAVAILABLE}
)
_BACKFILL_S: Final = 60.0
"""Readings that come after a longer silence are of the past: no temperature of now is theirs."""


class Following:
    """See :class:`labctl.engine.way.Way`."""

    def __init__(self, bench: Bench, driver: Sequencer) -> None:
        self._bench = bench
        self._record = bench.record
        self._driver = driver
        self._walking = Walking(bench, AtRest(driver, bench.clock), drives=False)
        self._segment: tuple[int, Segment] | None = None
        self._sure_of_the_test = False
        self._followed_s = float("-inf")
        self.told_off = False

    async def arm(self) -> None:
        """Arm the stretch that comes next; a program may also begin with a step of the host."""
        checkpoint = self._checkpoint
        if checkpoint.segment.position == Position() and await self._is_off_otherwise():
            return
        asked = self._segment_now().program
        armed: Armed | None = None
        refused = ""
        try:
            armed = await self._driver.arm(self._bench.channel, asked, self._tag())
            if wide := wider(armed.limits, asked.limits):
                refused = (
                    f"the limits read back from the instrument are not those of the recipe: {wide}"
                )
        except (InstrumentError, PlanError) as error:
            refused = f"the program was not taken: {error}"
        if refused and checkpoint.place.visit:
            raise InstrumentError(refused)
        async with self._record.changing:
            if self._checkpoint.state is not RunState.ARMING:
                return
            if refused:
                await self._record.change(Trigger.REFUSED, refused)
            else:
                changed = msgspec.structs.replace(self._checkpoint, armed=armed)
                await self._record.change(Trigger.ARMED, changed=changed)

    async def start(self) -> None:
        armed = self._checkpoint.armed
        if armed is None:
            raise InstrumentError(f"run {self._run} is starting but was never armed")
        started = await self._driver.find(armed)
        refused = ""
        if started is not None:
            log.info("run %s: found running as test %s", self._run, started.test)
        elif self._checkpoint.state is not RunState.STARTING:
            return
        else:
            try:
                started = await self._driver.start(armed)
            except InstrumentError as error:
                # A refusal of this start may be the work of an earlier one whose answer was lost.
                started = await self._driver.find(armed)
                refused = f"the program did not begin: {error}"
        async with self._record.changing:
            checkpoint = self._checkpoint
            begun = msgspec.structs.replace(checkpoint, started=started)
            if checkpoint.state is RunState.STOPPING:
                trigger = Trigger.REFUSED if started is None else Trigger.STOP
                reason = refused if started is None else checkpoint.reason
                await self._record.change(trigger, reason, changed=begun)
            elif started is not None:
                await self._record.change(Trigger.STARTED, changed=begun)
            elif checkpoint.place.visit == 0:
                await self._record.change(Trigger.REFUSED, refused)
            else:
                raise InstrumentError(refused)

    async def go_on(self) -> None:
        if self._checkpoint.started is None:
            await self._walking.go_on()
        else:
            await self._follow(RunState.RUNNING)

    async def stay_paused(self) -> None:
        if self._checkpoint.started is None:
            await self._walking.stay_paused()
        else:
            await self._follow(RunState.PAUSED)

    async def stay_held(self) -> None:
        """HELD, with what runs onboard left to the instrument's own limits."""
        await self._walking.stay_held()

    async def stop(self) -> None:
        self.told_off = False
        await self._walking.tidy()
        if self._checkpoint.started is None and not await self._found_what_is_to_stop():
            return
        if not self._sure_of_the_test and await self._another_test_runs():
            return
        await self._driver.stop(self._bench.channel)
        self.told_off = True
        await self._follow(RunState.STOPPING)

    async def off(self) -> None:
        if self._checkpoint.armed is not None:
            await self._driver.stop(self._bench.channel)

    async def pause(self) -> None:
        if self._checkpoint.started is not None:
            await self._driver.pause(self._bench.channel)

    async def skip(self) -> None:
        checkpoint = self._checkpoint
        if checkpoint.started is None:
            return
        if checkpoint.segment.step < 0:
            raise CommandError(
                f"run {self._run} has no reading yet of what its instrument runs now: ask again"
            )
        program = self._segment_now().program
        await self._driver.skip(checkpoint.started, program, checkpoint.segment.step)

    async def what_to_release(self) -> tuple[Trigger, Started | None]:
        """See :class:`labctl.engine.way.Way`: a start that nobody heard of is looked for."""
        checkpoint = self._checkpoint
        if checkpoint.started is not None or checkpoint.host is not None:
            return Trigger.RELEASE, None
        doubt = ""
        if checkpoint.armed is not None:
            try:
                started = await self._driver.find(checkpoint.armed)
            except InstrumentError as error:
                started, doubt = None, f" ({error})"
            if started is not None:
                return Trigger.RELEASE, started
        if not doubt and (checkpoint.place.visit or checkpoint.armed is None):
            return Trigger.REARM, None
        raise CommandError(
            f"run {self._run} never began on its instrument{doubt}: stop it and start anew"
        )

    async def _is_off_otherwise(self) -> bool:
        """Whether the run sets out in another way than with a stretch for the instrument."""
        if await is_refused(self._bench, self._driver.capabilities, source=False):
            return True
        now_s = self._bench.clock.unix_time_s()
        transit = transit_from(self._record, self._checkpoint.place, drives_all=False, now_s=now_s)
        if transit.trigger is not Trigger.ONWARD:
            await self._walking.set_out()
            return True
        if transit.events:
            async with self._record.changing:
                mark = transit.changed.segment
                changed = msgspec.structs.replace(self._checkpoint, segment=mark)
                await self._record.advance(changed, events=transit.events)
        return self._checkpoint.state is not RunState.ARMING

    def in_doubt(self) -> None:
        self._sure_of_the_test = False

    async def close(self) -> None:
        await self._walking.close()

    async def _follow(self, state: RunState) -> None:
        started = self._checkpoint.started
        if started is None:
            raise InstrumentError(f"run {self._run} was never started")
        told_to_pause = False
        while self._checkpoint.state is state and self._checkpoint.started == started:
            if self._bench.unkept_stop:
                return
            followed = await self._bench.waiting.unless_asked(
                self._driver.follow(
                    started, self._segment_now().program, self._checkpoint.next_index
                )
            )
            if followed is None:
                continue
            if self._is_to_resume() and not _has_finished(followed):
                await self._resume_instrument()
                continue
            if (
                state is RunState.PAUSED
                and followed.state is ChannelState.RUNNING
                and not told_to_pause
            ):
                await self._driver.pause(self._bench.channel)
                told_to_pause = True
            await self._take(followed)
            self._bench.doubts, self._sure_of_the_test = 0, True
            self._bench.all_is_well()
            self._say_what_is_odd(followed.state)
            over = followed.complete and state is not RunState.PAUSED
            if not over and not len(followed.readings):
                await self._bench.waiting.pause(self._bench.clock, self._bench.pace.poll_s)

    async def _take(self, followed: Followed) -> None:
        if followed.complete and followed.state in STILL_AT_WORK:
            raise InstrumentError(
                f"the instrument says that run {self._run} has ended, and that its channel is "
                f"{followed.state}"
            )
        segment, now_s = self._segment_now(), self._bench.wall.monotonic_s()
        silence_s, self._followed_s = now_s - self._followed_s, now_s
        if silence_s <= _BACKFILL_S:
            readings = await self._bench.thermometer.filled(followed.readings)
            followed = replace(followed, readings=readings)
        self._watch(followed)
        async with self._record.changing:
            capabilities = self._driver.capabilities
            taken = take(
                self._record,
                segment,
                followed,
                capabilities,
                self._bench.clock.unix_time_s(),
                unwatched=self._bench.thermometer.lost,
            )
            if not taken.news(self._checkpoint):
                return
            try:
                await self._record.advance(
                    taken.changed,
                    taken.trigger,
                    taken.reason,
                    records=taken.records,
                    events=taken.events,
                    ending=taken.ending,
                )
            except JournalError as error:
                if taken.beyond and not followed.complete:
                    await off_without_a_word(self, error)
                raise
        if taken.beyond:
            log.error("run %s: %s; stopping it", self._run, taken.beyond)

    def _watch(self, followed: Followed) -> None:
        watch, step = self._record.watch, self._record.step
        now_s = self._bench.clock.unix_time_s()
        if len(followed.readings):
            watch.see(followed.readings, now_s)
        elif followed.state is not ChannelState.RUNNING or followed.complete:
            watch.rest()
        elif step is None or isinstance(step.control, Impedance):
            watch.expect_nothing()
        elif math.isfinite(step.record.every_s):
            watch.see_nothing(now_s, self._bench.wall.monotonic_s(), step.record.every_s)

    def _is_to_resume(self) -> bool:
        return self._checkpoint.state is RunState.RUNNING and self._checkpoint.paused

    async def _resume_instrument(self) -> None:
        await self._driver.resume(self._bench.channel)
        async with self._record.changing:
            if self._checkpoint.state is RunState.RUNNING:
                await self._record.advance(msgspec.structs.replace(self._checkpoint, paused=False))

    async def _found_what_is_to_stop(self) -> bool:
        """Whether a start that nobody heard of anew had made a test; if none did, the run ends."""
        checkpoint = self._checkpoint
        armed, started = checkpoint.armed, None
        reason = "stopped before anything was started"
        if checkpoint.place.visit:
            reason = checkpoint.reason
        if armed is not None:
            try:
                started = await self._driver.find(armed)
            except InstrumentError as error:
                status = await self._driver.status(self._bench.channel)
                another = status.test != armed.test_before and status.tag not in {"", armed.tag}
                if status.state in STILL_AT_WORK and not another:
                    raise NotYetError(f"the output may be on: {error}") from error
                reason = f"this run did not begin: {error}"
        async with self._record.changing:
            if started is None:
                await self._record.change(self._end_of_stop(), reason)
            else:
                found = msgspec.structs.replace(self._checkpoint, started=started)
                await self._record.change(Trigger.STOP, self._checkpoint.reason, changed=found)
        return started is not None

    def _end_of_stop(self) -> Trigger:
        return Trigger.TRIP if self._checkpoint.cause == "limit" else Trigger.REFUSED

    async def _another_test_runs(self) -> bool:
        """Whether the channel has gone on to a test that is not this run's, which then is over."""
        started = self._checkpoint.started
        status = await self._driver.status(self._bench.channel)
        if started is None or status.test in {"", started.test}:
            return False
        async with self._record.changing:
            await self._record.change(
                Trigger.ABANDON,
                f"channel {self._bench.channel} has gone on to test {status.test}: this run is "
                f"over, and what it measured after record {self._checkpoint.place.seq} is not here",
            )
        return True

    def _say_what_is_odd(self, state: ChannelState) -> None:
        expected = self._checkpoint.state is RunState.PAUSED and state is ChannelState.PAUSED
        if state in {ChannelState.PAUSED, ChannelState.UNAVAILABLE} and not expected:
            self._bench.trouble = f"the instrument says that its channel is {state}"

    def _segment_now(self) -> Segment:
        checkpoint = self._checkpoint
        mark = checkpoint.segment
        if self._segment is None or self._segment[0] != mark.number:
            segment = segment_at(
                self._record.charter.program,
                self._record.walk,
                first_position(self._record.walk, checkpoint),
                self._driver.capabilities,
            )
            if segment is None:
                raise InstrumentError(f"run {self._run} has come to a step that nobody makes")
            self._segment = (mark.number, segment)
        return self._segment[1]

    def _tag(self) -> str:
        number = self._checkpoint.segment.number
        return self._run if number == 1 else f"{self._run}.{number}"

    @property
    def _checkpoint(self) -> Checkpoint:
        return self._record.checkpoint

    @property
    def _run(self) -> str:
        return self._record.charter.run


def _has_finished(followed: Followed) -> bool:
    return followed.complete and followed.state is ChannelState.FINISHED
