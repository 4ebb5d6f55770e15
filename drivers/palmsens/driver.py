"""A PalmSens potentiostat that runs MethodSCRIPT, as a source: one visit to one step at a time.

Sign: current is positive when it oxidises the working electrode, and so charges a cell whose
positive pole is there. The instrument has one channel, named ``1``.

A visit is one script. It runs in the instrument with its limits and its ends, whether anybody
listens or not, and ends with the cell off. Arming runs the lines that set the limits and reads back
what the instrument made of them, then loads the whole script, of which the instrument checks every
line; when it is begun, the script sends its limits once more before the cell is switched on. What
the instrument holds can not be read back otherwise.

While a script runs the instrument does not tell its serial number. A connection that is lost and
made again in such a time goes on by the visit's mark, which every package carries.

Source: communication protocols of EmStat Pico v1.6 and EmStat4 v1.3; MethodSCRIPT manual v1.8.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final

from labctl.clock import Clock
from labctl.drivers.base import (
    Capabilities,
    ChannelState,
    ChannelStatus,
    Identity,
    Looked,
    Task,
)
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.faultcodes import NOT_NOW, parse_refusal
from labctl.drivers.palmsens.packages import Kind, Package, PackageError, parse_package
from labctl.drivers.palmsens.readback import alike, limits_in, seen_in
from labctl.drivers.palmsens.refusals import refusals_of, refusals_of_task
from labctl.drivers.palmsens.session import Session
from labctl.drivers.palmsens.stages import Script
from labctl.drivers.palmsens.stream import GARBLED, OVERLOADS, ForeignScriptError, Stream
from labctl.drivers.palmsens.techniques import (
    SETTLE_S,
    open_circuit_script,
    pulse_script,
    script_of,
)
from labctl.errors import InstrumentError, LabctlError, LinkError, PlanError
from labctl.program import Limits, Program, Rest

CHANNEL: Final = "1"
LOOK_S: Final = 0.25
"""How long a look waits for a reading."""
PULSE_S: Final = 0.01
OVERHEAR_S: Final = 1.0
"""How long another's script is listened to, for what it measures."""


@dataclass(slots=True)
class _Visit:
    """A visit that was armed; ``stream`` once it was begun.

    lost: its script is over, and the end was not heard.
    """

    task: Task
    script: Script
    stream: Stream | None = None
    heard_s: float = 0.0
    lost: bool = False

    @property
    def runs(self) -> bool:
        return self.stream is not None and not self.stream.ended and not self.lost


class PalmSens:
    """A :class:`labctl.drivers.base.Source`."""

    Config = PalmSensConfig

    def __init__(self, config: PalmSensConfig, *, name: str, clock: Clock) -> None:
        self._config = config
        self._name = name
        self._clock = clock
        self._capabilities = config.capabilities
        self._session = Session(config, name=name, clock=clock)
        self._talk = self._session.talk
        self._one_at_a_time = asyncio.Lock()
        self._meetings = 0
        self._loaded: Script | None = None
        self._visit: _Visit | None = None
        self._last_unix_s = -math.inf

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def open(self) -> Identity:
        """See :class:`labctl.drivers.base.Source`.

        Raises:
            InstrumentError: another instrument than expected, or one that is in use, or one that
                runs a script and is not known yet.
            ConfigError: the folder of the lock files cannot be used.
        """
        async with self._one_at_a_time:
            await self._session.open()
            return await self._connected()

    async def close(self) -> None:
        """Let the port and the instrument go. A script that runs goes on, with its limits."""
        await self._session.close()

    async def channels(self) -> tuple[str, ...]:
        return (CHANNEL,)

    async def status(self, channel: str) -> ChannelStatus:
        """See :class:`labctl.drivers.base.Source`. With no script running, the cell's open-circuit
        voltage is measured."""
        self._check_channel(channel)
        async with self._one_at_a_time:
            await self._connected()
            visit = self._visit
            if visit is not None and visit.stream is not None and visit.runs:
                stream = visit.stream
                return ChannelStatus(
                    ChannelState.RUNNING, "", visit.task.tag, stream.voltage_V, stream.current_A
                )
            if self._session.script_runs:
                voltage_V, current_A = await self._overheard()
                return ChannelStatus(ChannelState.RUNNING, "", "", voltage_V, current_A)
            measured = await self._run(open_circuit_script(self._config), lasts_s=SETTLE_S)
            voltage_V, _ = self._seen(measured, "e")
            return ChannelStatus(ChannelState.IDLE, "", "", voltage_V, 0.0)

    def refusals(self, program: Program) -> tuple[str, ...]:
        """See :class:`labctl.drivers.base.Source`."""
        return refusals_of(program, self._config)

    def sample_period_s(self, task: Task) -> float:
        """A look waits for the instrument."""
        del task
        return 0.0

    async def arm(self, channel: str, task: Task) -> Limits:
        """See :class:`labctl.drivers.base.Source`.

        A script that still runs is ended first: nothing can be loaded beside it.

        Raises:
            PlanError: the visit is one that :meth:`refusals` refuses.
            InstrumentError: the instrument refused the script, or has other limits than were sent.
        """
        self._check_channel(channel)
        async with self._one_at_a_time:
            await self._connected()
            await self._end_script()
            self._visit = None
            if refused := refusals_of_task(task, self._config):
                raise PlanError(refused)
            script = script_of(task, self._config)
            declared = await self._run_at_rest(script.declared)
            limits = self._limits_in(declared, script, "e")
            if not alike(limits, task.limits):
                raise self._error(
                    f"says that it has the limits {limits}, and was sent {task.limits}", "e"
                )
            await self._talk.load(script.lines)
            self._loaded = script
            self._visit = _Visit(task, script)
            return limits

    async def begin(self, channel: str, task: Task) -> None:
        """See :class:`labctl.drivers.base.Source`. Never tried twice.

        Raises:
            InstrumentError: the visit was not armed, or the script that runs has other limits; it
                was ended then.
        """
        self._check_channel(channel)
        async with self._one_at_a_time:
            visit = self._visit
            if visit is None or visit.stream is not None or visit.task != task:
                raise self._error(f"was not armed for step {task.step.label!r}", "r")
            await self._connected()
            if self._session.script_runs:
                raise self._error("runs a script that is not the one that was armed", "r")
            if self._loaded is not visit.script:
                await self._talk.load(visit.script.lines)
                self._loaded = visit.script
            began_unix_s = max(self._clock.unix_time_s(), self._last_unix_s)
            visit.stream = Stream(visit.script, task, self._config.kind, began_unix_s)
            await self._run_loaded(visit)

    async def look(self, channel: str) -> Looked:
        """See :class:`labctl.drivers.base.Source`. Returns without a reading where none comes soon.

        Raises:
            InstrumentError: no visit was begun; the script failed, and the cell was switched off;
                the script was over before the step was, or its end was not heard.
            LinkError: also where the script is silent for too long.
        """
        self._check_channel(channel)
        async with self._one_at_a_time:
            visit = self._visit
            if visit is None or visit.stream is None:
                raise self._error("was asked for readings, and no step was begun", "r")
            stream = visit.stream
            if not stream.ended:
                await self._hear(visit, stream)
            self._last_unix_s = max(self._last_unix_s, stream.last_unix_s)
            if stream.refusal is not None:
                await self._failed(visit, stream)
            readings = stream.new_readings()
            if stream.early:
                if len(readings):
                    return Looked(readings)
                raise self._error(f"does not go on with the step: {stream.early}", "r")
            spectrum = stream.spectrum() if stream.ended else None
            return Looked(
                readings,
                spectra=() if spectrum is None else (spectrum,),
                ended=stream.ended,
                tripped=stream.tripped,
                end=stream.end,
            )

    async def off(self, channel: str) -> None:
        """See :class:`labctl.drivers.base.Source`.

        Raises:
            InstrumentError: the script goes on, or it is another instrument.
        """
        self._check_channel(channel)
        async with self._one_at_a_time:
            await self._connected()
            await self._end_script()
            await self._run_at_rest(("cell_off",))
            self._visit = None

    async def pulse(self, channel: str, output: str) -> None:
        """See :class:`labctl.drivers.base.Source`. A rest is interrupted for it, and goes on.

        Raises:
            InstrumentError: there is no such output, or a script runs that is no rest.
        """
        self._check_channel(channel)
        line = self._config.outputs.get(output)
        if line is None:
            raise self._error(f"has no output {output!r}", "set_gpio")
        async with self._one_at_a_time:
            await self._connected()
            resting = self._visit if self._visit is not None and self._visit.runs else None
            if self._script_runs:
                if resting is None or not isinstance(resting.task.step.control, Rest):
                    raise self._error("runs a script, and gives no pulse beside it", "set_gpio")
                await self._session.end_script()
            await self._run(pulse_script(line, PULSE_S), lasts_s=PULSE_S)
            if resting is not None and resting.stream is not None:
                await self._talk.load(resting.script.lines)
                resting.stream.go_on()
                await self._run_loaded(resting)

    @property
    def _script_runs(self) -> bool:
        return self._session.script_runs or (self._visit is not None and self._visit.runs)

    async def _connected(self) -> Identity:
        """The connection; what a new one means for the visit."""
        identity = await self._session.connected()
        visit = self._visit
        if self._meetings != self._session.meetings:
            self._meetings = self._session.meetings
            self._loaded = None
            if visit is not None and visit.stream is not None and visit.runs:
                visit.stream.missed()
                visit.heard_s = _now_s()
                visit.lost = not self._session.script_runs
        return identity

    async def _end_script(self) -> None:
        """End whatever script runs, this visit's or another."""
        if self._script_runs:
            await self._session.end_script()
        if self._visit is not None and self._visit.stream is not None:
            self._visit.stream.ended = True

    async def _run(self, lines: tuple[str, ...], *, lasts_s: float = 0.0) -> Package:
        """The last package of a short script."""
        self._loaded = None
        packages = await self._talk.run(lines, lasts_s=lasts_s)
        return packages[-1] if packages else {}

    async def _run_at_rest(self, lines: tuple[str, ...]) -> Package:
        """:meth:`_run`; a script that runs after all, whose end seemed to have come, is ended."""
        try:
            return await self._run(lines)
        except InstrumentError as error:
            refusal = parse_refusal(error.reply)
            if refusal is None or refusal.code != NOT_NOW:
                raise
        await self._session.end_script()
        return await self._run(lines)

    def _limits_in(self, package: Package, script: Script, command: str) -> Limits:
        """The limits that the instrument says it has; infinite where it has none."""
        mark = package.get(Kind.MARK)
        if mark is None or mark.value != script.mark:
            raise self._error("does not send back what its script has set", command, str(package))
        return limits_in(package)

    async def _run_loaded(self, visit: _Visit) -> None:
        """Run the script that is loaded, and see that it is the visit's."""
        self._session.strays = ()
        visit.heard_s = _now_s()
        await self._talk.command("r")
        try:
            await self._prove(visit)
        except InstrumentError:
            visit.lost = True
            await self._session.end_script()
            raise

    async def _prove(self, visit: _Visit) -> None:
        """See the limits of the script that was begun, and that they are those that were armed.

        Raises:
            InstrumentError: they are not.
            LinkError: the script says nothing.
        """
        line: str | None = ""
        over_s = _now_s() + self._config.reply_timeout_s
        while line is not None and not line.startswith("P"):
            if (refusal := parse_refusal(line)) is not None:
                words = refusal.words(visit.script.lines)
                raise self._error(f"could not begin the step: {words}", "r", line)
            line = await self._talk.next_line(max(0.0, over_s - _now_s()))
        if line is None:
            raise await self._lost("the script was begun and says nothing; it may run")
        try:
            armed = self._limits_in(parse_package(line), visit.script, "r")
        except PackageError as error:
            raise self._error(str(error), "r", line) from error
        if not alike(armed, visit.task.limits):
            raise self._error(f"runs a script with other limits: {armed}", "r", line)

    async def _hear(self, visit: _Visit, stream: Stream) -> None:
        """Take what has come, or wait a little for something to come."""
        await self._connected()
        lines = self._said()
        if not lines and not visit.lost:
            line = await self._talk.next_line(LOOK_S)
            lines = [] if line is None else [line, *self._said()]
        if lines:
            visit.heard_s = _now_s()
        elif _now_s() - visit.heard_s > visit.script.silence_s + self._config.reply_timeout_s:
            raise await self._lost("the script has been silent for too long; it may run")
        try:
            for line in lines:
                stream.take(line)
        except ForeignScriptError as error:
            visit.lost = self._session.script_runs = True
            raise self._error(str(error), "r", lines[-1]) from error
        if visit.lost and not stream.ended:
            stream.ended = True
            stream.early = "its script is over, and the end of it was not heard"
        if stream.garbled >= GARBLED:
            stream.garbled = 0
            raise await self._lost(f"what comes makes no sense, such as {lines[-1][:80]!r}")
        if stream.overloads >= OVERLOADS and not stream.ended:
            await self._session.end_script()
            stream.ended = True
            stream.tripped = f"{stream.overloads} readings in a row were overloaded"

    def _said(self) -> list[str]:
        """Every line that has come and was not looked at."""
        strays, self._session.strays = self._session.strays, ()
        return [*strays, *self._talk.waiting_lines()]

    async def _failed(self, visit: _Visit, stream: Stream) -> None:
        """A script that failed leaves the cell as it was: switch it off, and say so."""
        refusal = stream.refusal
        words = "" if refusal is None else refusal.words(visit.script.lines)
        switched = "the cell was switched off"
        try:
            await self._talk.recover()
            await self._run_at_rest(("cell_off",))
            self._visit = None
        except LabctlError as error:
            switched = f"the cell could not be switched off ({error})"
        raise self._error(f"could not run the step: {words}; {switched}", "r")

    async def _overheard(self) -> tuple[float, float]:
        """What a script that is not known measures, NaN if it does not say."""
        over_s = _now_s() + OVERHEAR_S
        lines = self._said()
        while True:
            for line in lines:
                try:
                    package = parse_package(line)
                except PackageError:
                    continue
                if Kind.POTENTIAL in package:
                    return self._seen(package, "r")
            left_s = over_s - _now_s()
            more = await self._talk.next_line(left_s) if left_s > 0 else None
            if more is None:
                return math.nan, math.nan
            lines = [more]

    def _seen(self, package: Package, command: str) -> tuple[float, float]:
        try:
            return seen_in(package, self._config.kind)
        except PackageError as error:
            raise self._error(str(error), command, str(package)) from error

    async def _lost(self, message: str) -> LinkError:
        """Give the connection up; the error to raise."""
        await self._session.link.drop()
        address = self._session.link.address
        return LinkError(f"{address}: {message}", address=address, command="r")

    def _check_channel(self, channel: str) -> None:
        if channel != CHANNEL:
            raise self._error(f"has no channel {channel!r}; its one channel is {CHANNEL!r}", "i")

    def _error(self, message: str, command: str, reply: str = "") -> InstrumentError:
        return InstrumentError(
            f"{self._name} {message}", instrument=self._name, command=command, reply=reply
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
