"""Taking a visit up again, after whatever: a killed daemon, a cut cable, a pause, a hold.

Off first, whatever the instrument did meanwhile. Then its open circuit has to be plausible, and
what remains of the step, by charge and by voltage, is made; a rest counts the time that went by.
Nothing is made twice, and what was missed is journalled as a gap.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Final

import msgspec

from labctl.drivers.base import Source
from labctl.engine.bench import Bench
from labctl.engine.hoststeps import is_hosts
from labctl.engine.limits import beyond
from labctl.engine.output import Output
from labctl.engine.place import Place
from labctl.engine.placement import SKIP, finish_visit, resume_visit
from labctl.engine.visit import Visit, done_before, open_circuit_task, passes_current
from labctl.errors import InstrumentError
from labctl.program import Step, limits_of_step
from labctl.stream.events import Event, GapRecorded

log = logging.getLogger(__name__)

_MOST_LOOKS: Final = 20


@dataclass(frozen=True, slots=True)
class TakenUp:
    """The visit that goes on, or the place of one that is over already; neither if the run is
    held."""

    visit: Visit | None = None
    over: Place | None = None


async def take_up(bench: Bench, source: Source, output: Output, *, drives: bool) -> TakenUp:
    """Take up the visit in which the journal says that the run is.

    Raises:
        LinkError, InstrumentError: the instrument cannot be asked, or does not go off.
        JournalError: it could not be kept; nothing was begun.
    """
    record = bench.record
    if drives:
        await _see_that_it_is_the_same(bench, source)
        await output.off_for_certain()
    checkpoint = record.checkpoint
    place = checkpoint.place
    if place.visit_over:
        return TakenUp(over=place)
    if checkpoint.skip_visit == place.visit:
        return TakenUp(over=finish_visit(record.walk, place, end=None, cause=SKIP))
    step = record.walk.step(place.position)
    now_s = bench.clock.unix_time_s()
    gap_s = max(0.0, now_s - checkpoint.looked_unix_s)
    hosts, flows = is_hosts(step.control), passes_current(step.control)
    events: tuple[Event, ...] = ()
    if not hosts:
        if not checkpoint.left:
            if gap_s > bench.pace.longest_gap_s:
                await bench.hold(
                    f"nobody looked after the cell for {gap_s / 3600.0:.1f} h, longer than the "
                    f"{bench.pace.longest_gap_s / 3600.0:g} h after which a run goes on by itself: "
                    "see that it still makes sense, then release it"
                )
                return TakenUp()
            events = (_gap(place, gap_s, now_s),)
        if flows and not await _is_plausible(bench, source, output, step):
            return TakenUp()
    rested_s = gap_s if not flows and not checkpoint.left else 0.0
    resumed = resume_visit(record.walk, place, passed_s=rested_s)
    if hosts:
        resumed = msgspec.structs.replace(resumed, cycle_interrupted=place.cycle_interrupted)
    async with record.changing:
        changed = msgspec.structs.replace(
            record.checkpoint, place=resumed, left=False, looked_unix_s=now_s
        )
        await record.advance(changed, events=events)
    if flows and (end := done_before(step, resumed)) is not None:
        return TakenUp(over=finish_visit(record.walk, resumed, end=end, cause=""))
    log.info("run %s: goes on in step %d at %g s", place.run, step.index + 1, resumed.resumed_s)
    program, capabilities = record.charter.program, source.capabilities
    return TakenUp(visit=Visit(program, record.walk, resumed, capabilities, now_s))


async def _see_that_it_is_the_same(bench: Bench, source: Source) -> None:
    """Identify the instrument.

    Raises:
        InstrumentError: it is another one than the run began on.
    """
    identity = await source.open()
    known = bench.record.checkpoint.serial
    if known and identity.serial and identity.serial != known:
        raise InstrumentError(
            f"the instrument has serial number {identity.serial}, and run "
            f"{bench.record.charter.run} began on {known}: put that one back, or stop the run",
            reply=identity.serial,
        )


async def _is_plausible(bench: Bench, source: Source, output: Output, step: Step) -> bool:
    """Whether the cell is what the step can go on with; the run is held if it is not."""
    limits = limits_of_step(bench.record.charter.program, step)
    output.may_be_on()
    voltage_V = await _open_circuit_V(bench, source, step)
    outside = beyond(
        limits,
        source.capabilities,
        voltage_V=voltage_V,
        current_A=0.0,
        temperature_degC=math.nan,
        step_charge_Ah=0.0,
    )
    if outside:
        await bench.hold(
            f"at open circuit, {outside}: see what is connected, and which way round, then release "
            "the run or stop it"
        )
    return not outside


async def _open_circuit_V(bench: Bench, source: Source, step: Step) -> float:
    """The voltage of the cell, looked at in a rest that no record comes of."""
    task = open_circuit_task(step, limits_of_step(bench.record.charter.program, step))
    await source.arm(bench.channel, task)
    await source.begin(bench.channel, task)
    for _ in range(_MOST_LOOKS):
        looked = await source.look(bench.channel)
        if len(looked.readings):
            return float(looked.readings.voltage_V[-1])
        await bench.clock.sleep(source.sample_period_s(task))
    raise InstrumentError("no voltage was read at open circuit", command="look")


def _gap(place: Place, gap_s: float, now_s: float) -> GapRecorded:
    return GapRecorded(
        run=place.run,
        after_seq=place.seq,
        reason=f"nobody looked after the cell for {gap_s:.0f} s; its output was then switched off",
        unix_time_s=now_s,
    )
