"""A run that is walked from here, visit by visit: all of it on a source, the steps of the host on
any instrument.

A visit is entered in the journal before it is armed; the limits that the instrument then says it
holds are compared before it begins. Every reading is judged when it comes, limits first, and
journalled a little later, while the next look is under way. The output goes off before the cell
rests and when the run ends, pauses or is held, and whenever something goes wrong here: how it goes
on afterwards is told in :mod:`labctl.engine.taking_up`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from typing import Final

import msgspec

from labctl.drivers.base import Looked, Source, Started
from labctl.engine.bench import Bench, NotYetError
from labctl.engine.hoststeps import HostStep
from labctl.engine.keeping import Keeping
from labctl.engine.limits import UNWATCHED, watches_temperature, wider
from labctl.engine.output import Output
from labctl.engine.place import Place
from labctl.engine.placement import SKIP
from labctl.engine.record import Ending
from labctl.engine.refusing import asked_of_instrument
from labctl.engine.run import Checkpoint
from labctl.engine.setting_out import is_refused, refuse
from labctl.engine.states import RunState, Trigger
from labctl.engine.taking_up import take_up
from labctl.engine.transit import Transit, transit_from
from labctl.engine.visit import Visit, passes_current
from labctl.errors import InstrumentError, JournalError, LinkError, PlanError
from labctl.program import Control, EndCondition, Impedance, Limits, Rest

log = logging.getLogger(__name__)

_ODD_LOOKS: Final = 2
"""So many answers in a row that cannot be explained end a visit: one may be a flipped bit."""
_EARLY_ENDS: Final = 3
"""So often an instrument may give one visit up before it is over."""


class Walking:
    """See :class:`labctl.engine.way.Way`. ``drives``: ``source`` is an instrument that makes every
    step; otherwise the host has a channel between two stretches that it runs by itself."""

    def __init__(self, bench: Bench, source: Source, *, drives: bool) -> None:
        self._bench = bench
        self._record = bench.record
        self._source = source
        self._drives = drives
        self._output = Output(bench, source, drives=drives)
        self._keeping = Keeping(bench)
        self._visit: Visit | None = None
        self._begun = False
        self._tripped = ""
        self._early_ends = (0, 0)
        self.told_off = False

    async def arm(self) -> None:
        """What a run on a source comes to first: the first visit is armed on trial."""
        capabilities = self._source.capabilities
        if await is_refused(self._bench, capabilities, source=True):
            return
        identity = await self._source.open()
        await self._output.off_for_certain()
        first = self._transit(self._checkpoint.place)
        if first.position is not None and passes_current(self._control_of(first)):
            visit = self._visit_at(first.changed.place)
            try:
                refused = await self._armed(visit)
            except InstrumentError as error:
                refused = f"the first step was not taken: {error}"
            if refused:
                await refuse(self._bench, refused)
                return
        await self.set_out(identity.serial)

    async def set_out(self, serial: str = "") -> None:
        """Enter the first visit, which is made from here."""
        async with self._record.changing:
            if self._checkpoint.state is not RunState.ARMING:
                return
            transit = self._transit(self._checkpoint.place)
            changed = msgspec.structs.replace(transit.changed, serial=serial)
            await self._advance(replace(transit, changed=changed))
        self._visit, self._begun = self._visit_at(self._checkpoint.place), False

    async def start(self) -> None:
        raise InstrumentError(f"run {self._run} is starting, and nothing has to be started")

    async def go_on(self) -> None:
        """One visit, or what is left of it."""
        try:
            if self._tripped and self._visit is not None:
                await self._trip(self._visit, self._tripped)
            elif self._visit is None or self._begun:
                await self._take_up()
            if self._visit is not None and not self._begun:
                await self._make(self._visit)
        except (Exception, asyncio.CancelledError):
            await self._output.off_whatever_happens()
            if self._visit is not None and self._begun:
                self._visit.complete()
            await self._keeping.whatever_happens(self._visit)
            raise

    async def stay_paused(self) -> None:
        await self.tidy()
        await self._bench.waiting.until_asked()

    async def stay_held(self) -> None:
        await self.tidy()
        await self._bench.waiting.until_asked()

    async def stop(self) -> None:
        self.told_off = False
        self._output.may_be_on()
        await self.tidy()
        self.told_off = True
        async with self._record.changing:
            checkpoint = self._checkpoint
            if checkpoint.state is RunState.STOPPING:
                tripped = checkpoint.cause == "limit"
                trigger = Trigger.TRIP if tripped else Trigger.ENDED_EARLY
                await self._record.change(trigger, checkpoint.reason)

    async def off(self) -> None:
        if self._checkpoint.place.visit:
            await self._output.off_for_certain()

    async def pause(self) -> None:
        """The visit's own loop sees to it."""

    async def skip(self) -> None:
        """The visit's own loop sees to it."""

    async def what_to_release(self) -> tuple[Trigger, Started | None]:
        """See :class:`labctl.engine.way.Way`."""
        return (Trigger.RELEASE if self._checkpoint.place.visit else Trigger.REARM), None

    def in_doubt(self) -> None:
        """Every visit is looked at anew."""

    async def close(self) -> None:
        await self._keeping.close()

    async def _take_up(self) -> None:
        """After a restart, a pause, or trouble: what is left of the visit."""
        if self._visit is not None:
            await self._keeping.all_of(self._visit)
        await self._keeping.settle()
        self._visit, self._begun = None, False
        taken = await take_up(self._bench, self._source, self._output, drives=self._drives)
        if taken.visit is not None:
            self._visit = taken.visit
        elif taken.over is not None:
            await self._over(self._visit_at(taken.over))

    async def _make(self, visit: Visit) -> None:
        host = None
        if visit.hosts:
            host = HostStep(self._bench, visit.step, self._source if self._drives else None)
        await self._begin(visit)
        period_s = self._source.sample_period_s(visit.task)
        due_s, odd = self._bench.clock.monotonic_s(), 0
        while not self._is_asked_to_leave():
            if self._is_skipped(visit):
                await self._finish(visit, None, SKIP)
                return
            try:
                looked = await self._bench.waiting.unless_asked(self._look())
                if looked is None:
                    continue
                if await self._has_ended(visit, host, looked):
                    return
                odd = 0
            except InstrumentError:
                odd += 1
                if odd >= _ODD_LOOKS:
                    raise
            self._keeping.soon(visit)
            if self._is_asked_to_leave() or self._is_skipped(visit):
                continue
            wait_s = period_s
            if host is not None and (period_s or not self._drives):
                seldom_s = max(period_s, host.wait_s(visit.step_time_s))
                if host.waits_outside and self._bench.pace.outside_in_real_time:
                    await self._bench.waiting.pause(self._bench.wall, seldom_s)
                    continue
                # A source whose watchdog hears nothing for long opens its output and says so.
                wait_s = period_s if self._drives else seldom_s
            now_s = self._bench.clock.monotonic_s()
            due_s = max(due_s + wait_s, now_s)
            await self._bench.waiting.pause(self._bench.clock, due_s - now_s)

    async def _has_ended(self, visit: Visit, host: HostStep | None, looked: Looked) -> bool:
        """Judge a look: limits, ends, what the instrument says, what the host waits for."""
        now_s = self._bench.clock.unix_time_s()
        verdict = visit.take(looked, now_s)
        self._watch(visit, looked, now_s)
        self._bench.doubts = 0
        if self._bench.link_down or host is None:
            self._bench.all_is_well()
        limit = verdict.limit
        if self._bench.thermometer.lost and watches_temperature(visit.limits):
            limit = limit or UNWATCHED
        if looked.tripped:
            limit = limit or f"a protection of the instrument ended the step: {looked.tripped}"
        if limit:
            await self._trip(visit, limit)
        elif verdict.end is not None:
            await self._finish(visit, verdict.end, "")
        elif looked.ended:
            await self._ended_by_itself(visit, looked.end)
        elif host is not None and host.may_be_over:
            await self._keeping.all_of(visit)
            cause = await host.cause_to_end()
            if not cause:
                return False
            await self._finish(visit, None, cause)
        else:
            return False
        return True

    def _watch(self, visit: Visit, looked: Looked, now_s: float) -> None:
        watch, control = self._record.watch, visit.step.control
        period_s = max(self._source.sample_period_s(visit.task), visit.step.record.every_s)
        if len(looked.readings):
            watch.see(looked.readings, now_s)
        elif visit.hosts or looked.ended or isinstance(control, Rest | Impedance):
            watch.expect_nothing()
        elif math.isfinite(period_s):
            watch.see_nothing(now_s, self._bench.wall.monotonic_s(), period_s)

    async def _look(self) -> Looked:
        looked = await self._source.look(self._bench.channel)
        readings = await self._bench.thermometer.filled(looked.readings)
        return looked if readings is looked.readings else replace(looked, readings=readings)

    async def _begin(self, visit: Visit) -> None:
        self._begun = True
        if refused := await self._armed(visit):
            raise InstrumentError(refused)
        if not self._is_asked_to_leave():
            self._output.may_be_on()
            await self._source.begin(self._bench.channel, visit.task)

    async def _armed(self, visit: Visit) -> str:
        """Arm a visit; why it must not begin, '' if it may."""
        try:
            limits: Limits = await self._source.arm(self._bench.channel, visit.task)
        except PlanError as error:
            return f"step {visit.step.index + 1} was not taken: {error}"
        asked = asked_of_instrument(visit.limits, limits, visit.step.control)
        if wide := wider(limits, asked):
            return f"the limits read back from the instrument are not those of the recipe: {wide}"
        return ""

    async def _ended_by_itself(self, visit: Visit, known: EndCondition | None) -> None:
        visit.complete()
        end, cause = (known, "") if known in visit.step.ends else visit.own_end()
        if end is not None or cause:
            await self._finish(visit, end, cause)
            return
        if visit.hosts:
            return
        number, times = self._early_ends
        times = times + 1 if number == visit.number else 1
        self._early_ends = (visit.number, times)
        said = (
            f"the instrument ended step {visit.step.index + 1} ({visit.step.label}) by itself, and "
            "none of its ends explains that"
        )
        if times < _EARLY_ENDS:
            raise NotYetError(said)
        await self._output.off_for_certain()
        await self._bench.hold(said)

    async def _finish(self, visit: Visit, end: EndCondition | None, cause: str) -> None:
        visit.complete()
        visit.finish(end, cause)
        await self._over(visit)

    async def _over(self, visit: Visit) -> None:
        """Go from a visit that is over to whatever follows it."""
        ahead = self._transit(visit.place)
        if ahead.position is None:
            await self._output.off_for_certain()
        elif not self._flows_on(ahead):
            await self._output.off()
        while not await self._keeping.in_time(self._go_from(visit), self._output):
            await self._output.off_for_certain()
        self._bench.waits_for = ""
        self._bench.all_is_well()

    async def _go_from(self, visit: Visit) -> bool:
        """Journal the transition; false if the output has to be off first."""
        await self._keeping.settle()
        async with self._record.changing:
            if self._checkpoint.state is not RunState.RUNNING:
                if not self._output.is_off:
                    return False
                changed = msgspec.structs.replace(self._checkpoint, place=visit.place, left=True)
                await self._advance(Transit(changed, None), visit)
                self._visit, self._begun = None, False
                return True
            transit = self._transit(visit.place)
            if not self._output.is_off and not self._flows_on(transit):
                return False
            await self._advance(transit, visit)
        self._visit, self._begun = None, False
        if transit.trigger is None:
            self._visit = self._visit_at(self._checkpoint.place)
        return True

    async def _advance(self, transit: Transit, visit: Visit | None = None) -> None:
        """Journal a transition with what a visit has unkept; the caller holds the lock."""
        unkept = None if visit is None else visit.take_unkept()
        try:
            await self._record.advance(
                transit.changed,
                transit.trigger,
                transit.reason,
                records=None if unkept is None else unkept.records,
                events=transit.events if unkept is None else (*unkept.events, *transit.events),
                ending=transit.ending,
            )
        except JournalError:
            if visit is not None and unkept is not None:
                visit.put_back(unkept)
            raise

    async def _trip(self, visit: Visit, limit: str) -> None:
        """Off first, then the journal; what could not be kept is kept later."""
        if not self._tripped:
            log.error("run %s: %s; output off", self._run, limit)
        self._tripped = limit
        failed: LinkError | InstrumentError | None = None
        try:
            await self._output.off_for_certain()
        except (LinkError, InstrumentError) as error:
            failed = error
        visit.complete()
        await self._keeping.settle()
        async with self._record.changing:
            checkpoint = self._checkpoint
            at_once = failed is None and checkpoint.state in {RunState.RUNNING, RunState.STOPPING}
            transit = Transit(
                msgspec.structs.replace(checkpoint, place=visit.place, cause="limit", left=True),
                Trigger.TRIP if at_once else Trigger.STOP,
                limit,
                ending=Ending(cause="limit"),
            )
            await self._advance(transit, visit)
        self._tripped, self._visit, self._begun = "", None, False
        if failed is not None:
            raise failed

    async def tidy(self) -> None:
        """Output off, and everything kept."""
        if not self._output.is_off:
            await self._output.off_for_certain()
        visit = self._visit
        if visit is None:
            return
        if self._begun:
            visit.complete()
        await self._keeping.all_of(visit, left=True)
        self._visit, self._begun = None, False
        self._bench.waits_for = ""

    def _is_skipped(self, visit: Visit) -> bool:
        return self._checkpoint.skip_visit == visit.number

    def _is_asked_to_leave(self) -> bool:
        return self._checkpoint.state is not RunState.RUNNING or bool(self._bench.unkept_stop)

    def _transit(self, place: Place) -> Transit:
        now_s = self._bench.clock.unix_time_s()
        return transit_from(self._record, place, drives_all=self._drives, now_s=now_s)

    def _flows_on(self, transit: Transit) -> bool:
        """Whether current is to flow in the next visit too, so that the output may stay on."""
        return transit.position is not None and passes_current(self._control_of(transit))

    def _control_of(self, transit: Transit) -> Control:
        if transit.position is None:
            raise InstrumentError(f"run {self._run} has come to its end")
        return self._record.walk.step(transit.position).control

    def _visit_at(self, place: Place) -> Visit:
        return Visit(
            self._record.charter.program,
            self._record.walk,
            place,
            self._source.capabilities,
            self._bench.clock.unix_time_s(),
        )

    @property
    def _checkpoint(self) -> Checkpoint:
        return self._record.checkpoint

    @property
    def _run(self) -> str:
        return self._record.charter.run
