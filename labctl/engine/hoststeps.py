"""Steps that the host makes itself, on any instrument: waits, markers, chamber temperatures.

The cell is at open circuit meanwhile and is looked at now and then; between two looks, a step is
asked whether it is over. Its end by time is its timeout, which the readings show.

A marker is journalled before it is told. After a crash in between it is told again, with the same
values: whoever listens may hear it twice, and never misses it.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Final

import msgspec

from labctl.drivers.base import Source
from labctl.engine.bench import Bench
from labctl.engine.hostwork import CONFIRM, HostWork
from labctl.engine.run import HostVisit
from labctl.errors import InstrumentError, LabctlError, LinkError
from labctl.program import HOST_CONTROLS, Control, Quantity, SetTemperature, Signal, Step, Wait
from labctl.stream.events import MarkerSet

log = logging.getLogger(__name__)

HEARD: Final = "signal"
COMPLETE: Final = "complete"
"""What ended a step: see :class:`labctl.stream.events.StepEnded`."""
_CHAMBER_AT_LEAST_S: Final = 10.0
_CHAMBER_AT_MOST_S: Final = 1.0
"""How often a chamber is asked: as its settling time is long, within these."""


def is_hosts(control: Control) -> bool:
    """Whether a step is made by the host, and not by the instrument."""
    return isinstance(control, HOST_CONTROLS)


class HostStep:
    """One visit to such a step. ``source`` has the digital outputs, None where there are none."""

    def __init__(self, bench: Bench, step: Step, source: Source | None) -> None:
        self._bench = bench
        self._step = step
        self._source = source
        self._is_set = False
        self._asked_s = -math.inf
        self._inside_since_s: float | None = None
        bench.waits_for = self._what_it_waits_for()

    @property
    def may_be_over(self) -> bool:
        """Whether it is worth journalling every reading for, and asking :meth:`cause_to_end`."""
        match self._step.control:
            case SetTemperature() as wanted:
                return self._is_due(wanted)
            case Wait() as wait:
                return bool(self._heard(wait))
            case _:
                return True

    async def cause_to_end(self) -> str:
        """What ended the step now, '' if nothing did.

        Every reading of the visit is journalled before this is asked.

        Raises:
            JournalError: a marker could not be kept, and was not told.
            LinkError, InstrumentError: a trigger output did not answer, or refused.
        """
        match self._step.control:
            case Signal() as signal:
                await self._tell(signal)
                return COMPLETE
            case SetTemperature() as wanted:
                return await self._settled(wanted)
            case Wait() as wait:
                return self._heard(wait)
            case _:
                return COMPLETE

    def wait_s(self, step_time_s: float) -> float:
        """How long to wait until the next look, by the clock of the run."""
        step = self._step
        waits_s = [self._bench.pace.host_look_s, step.record.every_s]
        waits_s += [
            end.value - step_time_s for end in step.ends if end.quantity is Quantity.STEP_TIME_S
        ]
        match step.control:
            case Wait(until_unix_s=until_unix_s) if until_unix_s is not None:
                waits_s.append(until_unix_s - self._bench.clock.unix_time_s())
            case SetTemperature() as wanted:
                waits_s.append(_often_s(wanted))
            case _:
                pass
        return max(0.0, min(waits_s))

    @property
    def waits_outside(self) -> bool:
        """Whether it waits for a person or another program, who live in real time."""
        match self._step.control:
            case Wait(signal=signal, prompt=prompt):
                return bool(signal or prompt)
            case _:
                return False

    def _heard(self, wait: Wait) -> str:
        given = {signal.name for signal in self._bench.record.checkpoint.signals}
        if (wait.signal and wait.signal in given) or (wait.prompt and CONFIRM in given):
            return HEARD
        until_unix_s = wait.until_unix_s
        if until_unix_s is not None and self._bench.clock.unix_time_s() >= until_unix_s:
            return COMPLETE
        return ""

    async def _tell(self, signal: Signal) -> None:
        bench = self._bench
        async with bench.record.changing:
            checkpoint = bench.record.checkpoint
            place = checkpoint.place
            marker = None if checkpoint.host is None else checkpoint.host.marker
            if marker is None:
                marker = MarkerSet(
                    run=place.run,
                    marker=signal.marker,
                    direction="sent",
                    seq=place.seq,
                    cycle=place.position.cycle,
                    test_time_s=place.test_time_s,
                    unix_time_s=bench.clock.unix_time_s(),
                )
                changed = msgspec.structs.replace(checkpoint, host=HostVisit(marker=marker))
                await bench.record.advance(changed, events=(marker,))
        if bench.host is not None:
            bench.host.publish_marker(marker, place.visit)
        if signal.output and self._source is not None:
            await self._source.pulse(bench.channel, signal.output)

    async def _settled(self, wanted: SetTemperature) -> str:
        bench = self._bench
        if bench.host is None:
            raise InstrumentError(f"step {self._step.label!r} needs a chamber, and there is none")
        now_s = bench.clock.monotonic_s()
        if not self._is_due(wanted):
            return ""
        self._asked_s = now_s
        try:
            answer = await bench.waiting.unless_asked(self._ask_chamber(bench.host, wanted))
        except (LinkError, InstrumentError) as error:
            self._in_trouble(error)
            return ""
        if answer is None:
            self._asked_s = -math.inf
            return ""
        bench.all_is_well()
        bench.waits_for = f"{self._what_it_waits_for()}, and has {answer:.1f} degC"
        if abs(answer - wanted.temperature_degC) > wanted.within_degC:
            self._inside_since_s = None
        elif self._inside_since_s is None:
            self._inside_since_s = now_s
        since_s = self._inside_since_s
        return COMPLETE if since_s is not None and now_s - since_s >= wanted.settle_s else ""

    def _is_due(self, wanted: SetTemperature) -> bool:
        """Whether the chamber has not been asked for a while."""
        return self._bench.clock.monotonic_s() - self._asked_s >= 0.9 * _often_s(wanted)

    async def _ask_chamber(self, host: HostWork, wanted: SetTemperature) -> float:
        if not self._is_set:
            await host.set_temperature(wanted.temperature_degC)
            self._is_set = True
        measured_degC = await host.temperature()
        if measured_degC is None:
            raise LinkError("the chamber does not say how warm it is")
        return measured_degC

    def _in_trouble(self, error: LabctlError) -> None:
        self._inside_since_s = None
        if str(error) != self._bench.trouble:
            log.warning("run %s: its chamber: %s", self._bench.record.charter.run, error)
        self._bench.trouble = str(error)

    def _what_it_waits_for(self) -> str:
        match self._step.control:
            case Wait(signal=signal) if signal:
                return f"waits for the signal {signal!r}"
            case Wait(prompt=prompt) if prompt:
                return f"waits for an operator: {prompt}"
            case Wait(until_unix_s=until_unix_s) if until_unix_s is not None:
                moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(until_unix_s))
                return f"waits until {moment}"
            case SetTemperature(temperature_degC=temperature_degC):
                return f"waits for its chamber to be at {temperature_degC:g} degC"
            case _:
                return ""


def _often_s(wanted: SetTemperature) -> float:
    return min(max(_CHAMBER_AT_MOST_S, wanted.settle_s / 4.0), _CHAMBER_AT_LEAST_S)
