"""What a SourceMeter is asked and told, whichever step runs: everything with its wire.

Source: reference manual 2461-901-01, ch. 6; its native command set (``*LANG SCPI``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from labctl.clock import Clock
from labctl.drivers.base import Identity
from labctl.drivers.keithley.config import KeithleyConfig, holding
from labctl.drivers.keithley.plan import Setup, Stops
from labctl.drivers.keithley.readings import (
    ELEMENTS,
    OVER_RANGE,
    STATES,
    Look,
    Rows,
    check_ranges,
    parse_look,
    parse_rows,
)
from labctl.drivers.keithley.settings import (
    BUFFER,
    FINEST_SOURCE_A,
    LIMIT_OF,
    Value,
    agrees,
    questions_of,
    settings_of,
)
from labctl.errors import InstrumentError, LabctlError, LinkError
from labctl.program import Limits
from labctl.wire.link import Exchange, Link, short_text
from labctl.wire.scpi import (
    ERROR_QUERY,
    Scpi,
    parse_boolean,
    parse_event,
    parse_identification,
    parse_number,
    parse_word,
    text_of,
    write_number,
)
from labctl.wire.visa import VisaLink

log = logging.getLogger(__name__)

MANUFACTURER: Final = "KEITHLEY"
PULSE_S: Final = 0.01
OFF: Final = (":ABOR", ":OUTP:VOLT:SMOD HIMP", ":OUTP:CURR:SMOD HIMP", ":OUTP OFF")

LOOK: Final = (
    f'*TRG;:OUTP?;:SYST:ERR:COUN?;:TRAC:ACT? "{BUFFER}";:TRAC:ACT:END? "{BUFFER}"'
    ";:SOUR:VOLT:PROT:TRIP?;:TRIG:STAT?"
)

_MOST_EVENTS: Final = 50

Said = TypeVar("Said")


class Meter:
    """One SourceMeter on its wire. ``link`` replaces the one that the config names.

    Every call raises LinkError where the wire failed and InstrumentError where the instrument
    refused, said something impossible, or is another one than it should be.
    """

    def __init__(
        self, config: KeithleyConfig, *, name: str, clock: Clock, link: Link | None = None
    ) -> None:
        self._config = config
        self._name = name
        self._clock = clock
        self._identity: Identity | None = None
        self._link = link or VisaLink(
            config.resource,
            clock=clock,
            library=config.visa,
            reply_timeout_s=config.reply_timeout_s,
            connect_timeout_s=config.connect_timeout_s,
            greeting=self.greet,
        )
        self._scpi = Scpi(self._link, name=name)

    async def open(self) -> Identity:
        await self._link.open()
        if self._identity is None:
            raise self.error("said nothing of itself", "*IDN?")
        return self._identity

    async def close(self) -> None:
        await self._link.close()

    async def greet(self, exchange: Exchange) -> None:
        """Said first on every new connection: which instrument is it, and what went wrong there."""

        async def said(query: str, parse: Callable[[str], Said]) -> tuple[str, Said]:
            reply = await exchange(query.encode())
            try:
                text = text_of(reply)
                return text, parse(text)
            except InstrumentError as error:
                shown = short_text(reply)
                raise self.error(
                    f"answered {query} with {shown!r}: {error}", query, shown
                ) from error

        reply, found = await said("*IDN?", parse_identification)
        model = found.model.upper().removeprefix("MODEL").strip()
        wanted = self._config.serial or (self._identity.serial if self._identity else "")
        if MANUFACTURER not in found.manufacturer.upper() or model != self._config.model:
            raise self.error(f"is no Keithley {self._config.model} but {reply}", "*IDN?", reply)
        if wanted and found.serial != wanted:
            raise self.error(
                f"has the serial number {found.serial}, and {wanted} is expected", "*IDN?", reply
            )
        language, _ = await said("*LANG?", parse_word)
        if language.upper() != "SCPI":
            raise self.error(
                f"speaks the command set {language}: choose SCPI in its menu System > Settings > "
                "Command Set, and restart it",
                "*LANG?",
                language,
            )
        for _ in range(_MOST_EVENTS):
            _, event = await said(ERROR_QUERY, parse_event)
            if not event.code:
                break
            log.warning("%s had in its error queue: %s", self._name, event)
        self._identity = Identity(found.manufacturer, model, found.serial)

    async def tell(self, command: str) -> None:
        await self._scpi.tell(command)

    async def set_up(self, setup: Setup, blocks: Sequence[str]) -> None:
        """Set everything for a visit, and its trigger model. The output must be open."""
        for setting in (*settings_of(setup, self._config), ':TRIG:LOAD "Empty"', *blocks):
            await self._scpi.tell(setting)

    async def armed(self, setup: Setup) -> Limits:
        """The limits that the instrument says it holds; infinite where it has none.

        Raises:
            InstrumentError: it says something else than was set.
        """
        said: dict[str, Value] = {}
        for query, parse, wanted in questions_of(setup, self._config):
            said[query] = await self._scpi.ask(query, parse)
            if not agrees(said[query], wanted):
                raise self.error(
                    f"answers {query} with {said[query]} although {wanted} was set",
                    query,
                    str(said[query]),
                )
        level = float(said[f":SOUR:{setup.source}?"])
        limit = float(said[f":SOUR:{setup.source}:{LIMIT_OF[setup.source]}?"])
        current_A = limit if setup.source == "VOLT" else abs(level)
        return Limits(
            voltage_min_V=level if setup.stops in {Stops.FALL, Stops.BOTH} else -math.inf,
            voltage_max_V=level if setup.stops in {Stops.RISE, Stops.BOTH} else math.inf,
            current_min_A=0.0 - current_A,
            current_max_A=current_A,
            step_charge_max_Ah=math.inf,
            duration_max_s=math.inf,
        )

    async def look(self) -> Look:
        """How a running trigger model stands; tells its watchdog that the host is there.

        Raises:
            InstrumentError: the instrument has logged an error.
        """
        look = await self._scpi.ask(LOOK, parse_look)
        if look.errors:
            events = await self._scpi.drain()
            raise self.error(
                "logged an error: " + "; ".join(str(event) for event in events), "*TRG"
            )
        return look

    async def rows(self, first: int, last: int, setup: Setup) -> Rows:
        """The rows of the buffer in these places, none beyond the ranges of ``setup``."""
        count = last - first + 1

        def read(text: str) -> Rows:
            rows = parse_rows(text, count)
            check_ranges(rows, setup.source_range, setup.sense_range)
            return rows

        return await self._scpi.ask(f':TRAC:DATA? {first},{last},"{BUFFER}",{ELEMENTS}', read)

    async def output_is_on(self) -> bool:
        return await self._scpi.ask(":OUTP?", parse_boolean)

    async def latest(self) -> tuple[float, float]:
        """Voltage and current with the output on: as a running trigger model measured them last,
        else measured for this."""
        source = await self._scpi.ask(":SOUR:FUNC?", parse_word)
        state = await self._scpi.ask(":TRIG:STAT?", _state)
        if state in {"RUNNING", "WAITING"}:
            if not await self._scpi.ask(f':TRAC:ACT? "{BUFFER}"', parse_number):
                return math.nan, math.nan
            query = f':FETC? "{BUFFER}",SOUR,READ'
        else:
            sense = "CURR" if source == "VOLT" else "VOLT"
            await self._scpi.tell(f':SENS:FUNC "{sense}"')
            query = f':READ? "{BUFFER}",SOUR,READ'
        if source not in LIMIT_OF:
            raise self.error(f"sources {source}, which it cannot", ":SOUR:FUNC?", source)

        def read(text: str) -> tuple[float, float]:
            put_out, measured = _pair(text)
            voltage_V, current_A = (put_out, measured) if source == "VOLT" else (measured, put_out)
            kind = self._config.kind
            if abs(voltage_V) > OVER_RANGE * kind.voltage_ranges_V[-1]:
                raise InstrumentError(f"{voltage_V:g} V is beyond its ranges")
            if abs(current_A) > OVER_RANGE * kind.current_max_A:
                raise InstrumentError(f"{current_A:g} A is beyond its ranges")
            return voltage_V, current_A

        return await self._scpi.ask(query, read)

    async def open_circuit_V(self) -> float:
        """The voltage with a source of 0 A, for which the output closes for a moment.

        Raises:
            InstrumentError: also if the output does not open again.
        """
        widest_V = self._config.widest_voltage_V
        kind = self._config.kind
        setup = Setup(
            source="CURR",
            level=0.0,
            limit=widest_V,
            source_range=holding(FINEST_SOURCE_A, kind.current_ranges_A),
            sense_range=holding(widest_V, kind.voltage_ranges_V),
            protection_V=holding(1.05 * widest_V, kind.protections_V),
            period_s=0.0,
            delay_s=0.0,
            windows=1,
        )

        def read(text: str) -> float:
            voltage_V = parse_number(text)
            if abs(voltage_V) > OVER_RANGE * setup.sense_range:
                raise InstrumentError(f"{voltage_V:g} V is beyond its range")
            return voltage_V

        await self.set_up(setup, ())
        await self.armed(setup)
        try:
            await self._scpi.tell(":OUTP ON")
            return await self._scpi.ask(f':READ? "{BUFFER}",READ', read)
        finally:
            await self.off()

    async def restart_at(self, level_V: float) -> None:
        """Go on at another level: settings cannot be changed while the trigger model runs."""
        await self._scpi.tell(f":ABOR;:SOUR:VOLT {write_number(level_V)};:INIT")

    async def off(self) -> None:
        """End what runs and open the output, at high impedance.

        Raises:
            InstrumentError: the output stays on, or something else was refused.
        """
        problem: LabctlError | None = None
        try:
            for setting in OFF:
                await self._scpi.tell(setting)
        except InstrumentError as error:
            problem = error
            await self._scpi.tell(":OUTP OFF")
        if await self.output_is_on():
            raise self.error("LEAVES ITS OUTPUT ON although it was told to open it", ":OUTP?", "1")
        if problem is not None:
            raise problem

    async def off_for_certain(self) -> None:
        """:meth:`off`, a second time where the wire failed."""
        try:
            await self.off()
        except LinkError as error:
            log.warning("%s is told a second time to open its output: %s", self._name, error)
            await self.off()

    async def pulse(self, line: int) -> None:
        """A pulse of some 10 ms on a digital line."""
        await self._scpi.tell(f":DIG:LINE{line}:MODE DIG,OUT")
        await self._scpi.tell(f":DIG:LINE{line}:STAT 1")
        try:
            await self._clock.sleep(PULSE_S)
        finally:
            await self._scpi.tell(f":DIG:LINE{line}:STAT 0")

    def error(self, message: str, command: str, reply: str = "") -> InstrumentError:
        return InstrumentError(
            f"{self._name} {message}", instrument=self._name, command=command, reply=reply
        )


def _state(text: str) -> str:
    state = parse_word(text.partition(";")[0])
    if state not in STATES:
        raise InstrumentError(f"{state[:20]!r} is not a state of a trigger model")
    return state


def _pair(text: str) -> tuple[float, float]:
    parts = text.split(",")
    if len(parts) != 2:
        raise InstrumentError(f"{len(parts)} numbers came instead of 2")
    return parse_number(parts[0]), parse_number(parts[1])
