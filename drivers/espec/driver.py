"""An Espec climate chamber with a P-300, PR-3J or SCP-220 controller.

Temperatures are in degC. A chamber tells no serial number: it is known again by the version of its
ROM and by its kind, which are asked on every new connection.

A set point goes to the chamber's constant operation. What is outside the chamber's own limits, or
beyond what it is used for, is not sent.

Source: MIT-licensed library of the vendor, ChamberConnectLibrary @1d2deb8, p300.py; espec-pr3j
0.5.0.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from labctl.clock import Clock
from labctl.drivers.base import ChamberAlarmError, Identity
from labctl.drivers.espec.config import EspecConfig
from labctl.drivers.espec.talk import Talk
from labctl.drivers.espec.words import (
    Kind,
    Mode,
    Monitored,
    Temperatures,
    parse_alarms,
    parse_kind,
    parse_mode,
    parse_monitored,
    parse_rom,
    parse_temperatures,
)
from labctl.errors import InstrumentError, LinkError
from labctl.wire.link import Exchange, Link

MANUFACTURER: Final = "ESPEC"
STEP_DEGC: Final = 0.1
"""The resolution of a set point."""

ROM: Final = "ROM?"
TYPE: Final = "TYPE?"
MON: Final = "MON?"
TEMP: Final = "TEMP?"
MODE: Final = "MODE?"
ALARM: Final = "ALARM?"


class Espec:
    """A :class:`labctl.drivers.base.Chamber`. ``link`` replaces the one that the config names."""

    Config = EspecConfig

    def __init__(
        self, config: EspecConfig, *, name: str, clock: Clock, link: Link | None = None
    ) -> None:
        self._config = config
        self._name = name
        self._talk = Talk(config, name=name, clock=clock, greeting=self.greet, link=link)
        self._known: tuple[str, Kind] | None = None
        self._setting = asyncio.Lock()
        self._held_degC: float | None = None
        """What it was set to from here, as long as it should hold that."""
        self._problem = ""

    @property
    def problem(self) -> str:
        """See :class:`labctl.drivers.base.Chamber`: it was stopped by somebody else, or by a cut of
        its power."""
        return self._problem

    async def open(self) -> Identity:
        """See :class:`labctl.drivers.base.Chamber`; switches nothing.

        Raises:
            InstrumentError: another chamber than the config names, or than was there before.
        """
        await self._talk.open()
        rom, kind = self._identified()
        return Identity(MANUFACTURER, kind.controller, rom, unique=False)

    async def close(self) -> None:
        """Let the connection go. The chamber stays as it is."""
        await self._talk.close()

    async def greet(self, exchange: Exchange) -> None:
        """Asked first on every new connection: which chamber is it?"""
        rom = await self._talk.ask_anew(exchange, ROM, parse_rom)
        kind = await self._talk.ask_anew(exchange, TYPE, parse_kind)
        known_rom, known_kind = self._known or (self._config.rom, None)
        if known_rom and rom != known_rom:
            raise self._talk.error(
                f"tells the ROM {rom!r}, and {known_rom!r} is expected", ROM, rom
            )
        if known_kind is not None and kind != known_kind:
            raise self._talk.error(f"is {kind}, and {known_kind} is expected", TYPE, str(kind))
        self._known = rom, kind

    async def set_temperature(self, temperature_degC: float) -> None:
        """See :class:`labctl.drivers.base.Chamber`. To the nearest 0.1 degC.

        Raises:
            ChamberAlarmError: it stands in alarm; nothing was set.
            InstrumentError: outside its limits, or it runs a program of its own, nothing was set;
                or what is read back is not what was set.
        """
        async with self._setting:
            await self._check_alarms(await self._talk.ask(MON, parse_monitored))
            self._check_range(temperature_degC, await self._talk.ask(TEMP, parse_temperatures))
            mode = await self._talk.ask(MODE, parse_mode)
            if mode is Mode.RUN:
                raise self._talk.error(
                    "runs a program of its own: end that at its panel before it is set", MODE, mode
                )
            wanted_degC = round(temperature_degC, 1) + 0.0
            setting = f"TEMP, S{wanted_degC:.1f}"
            await self._talk.tell(setting)
            self._check_set(wanted_degC, setting, await self._talk.ask(TEMP, parse_temperatures))
            await self._switch_on(mode)
            found = await self._talk.ask(TEMP, parse_temperatures)
            self._check_set(wanted_degC, setting, found, on=True)
            self._held_degC, self._problem = wanted_degC, ""

    async def standby(self) -> None:
        """Stop heating and cooling. Idempotent.

        Raises:
            InstrumentError: it goes on.
        """
        async with self._setting:
            self._held_degC, self._problem = None, ""
            await self._talk.tell("MODE, STANDBY")
            mode = await self._talk.ask(MODE, parse_mode)
            if mode not in {Mode.STANDBY, Mode.OFF}:
                raise self._talk.error(
                    f"was told to stop and is still {mode}: switch it off at its panel", MODE, mode
                )

    async def temperature(self) -> float:
        """See :class:`labctl.drivers.base.Chamber`.

        Raises:
            ChamberAlarmError: it stands in alarm; carries the temperature.
        """
        found = await self._talk.ask(MON, parse_monitored)
        await self._check_alarms(found)
        stopped = self._held_degC is not None and found.mode is not Mode.CONSTANT
        self._problem = ""
        if stopped and not self._setting.locked():
            self._problem = (
                f"{self._name} was set to {self._held_degC:g} degC and is {found.mode}: somebody "
                "else, or a power cut, has stopped it"
            )
        return found.temperature_degC

    async def _switch_on(self, mode: Mode) -> None:
        if mode is Mode.OFF:
            await self._talk.tell("POWER,ON")
            mode = await self._talk.ask(MODE, parse_mode)
        if mode is not Mode.CONSTANT:
            await self._talk.tell("MODE, CONSTANT")
            mode = await self._talk.ask(MODE, parse_mode)
        if mode is not Mode.CONSTANT:
            raise self._talk.error(f"was switched on and is {mode}", MODE, mode)

    async def _check_alarms(self, found: Monitored) -> None:
        if not found.alarms:
            return
        try:
            numbers = await self._talk.ask(ALARM, parse_alarms)
            if not numbers:
                return
            named = ", ".join(str(number) for number in numbers)
        except (LinkError, InstrumentError) as error:
            numbers, named = (), f"{found.alarms} of them, and does not tell which ({error})"
        raise ChamberAlarmError(
            f"{self._name} stands in alarm: {named} (see its manual), at "
            f"{found.temperature_degC:g} degC, {found.mode}",
            alarms=numbers,
            temperature_degC=found.temperature_degC,
            instrument=self._name,
            command=ALARM,
            reply=named,
        )

    def _check_range(self, wanted_degC: float, found: Temperatures) -> None:
        _, kind = self._identified()
        low_degC = max(found.low_degC, self._config.temperature_min_degC)
        high_degC = min(found.high_degC, kind.hottest_degC, self._config.temperature_max_degC)
        if not (math.isfinite(wanted_degC) and low_degC <= wanted_degC <= high_degC):
            raise self._talk.error(
                f"is not set to {wanted_degC:g} degC: its limits are {low_degC:g} to "
                f"{high_degC:g} degC",
                TEMP,
                str(found),
            )

    def _check_set(
        self, wanted_degC: float, setting: str, found: Temperatures, *, on: bool = False
    ) -> None:
        """See that the set point read back is the one that was set; one that is not yet in control
        may be told as off."""
        if found.set_degC is None and not on:
            return
        if found.set_degC is None or abs(found.set_degC - wanted_degC) > STEP_DEGC / 2:
            said = "off" if found.set_degC is None else f"{found.set_degC:g} degC"
            raise self._talk.error(
                f"was set to {wanted_degC:g} degC and tells {said}", setting, said
            )

    def _identified(self) -> tuple[str, Kind]:
        if self._known is None:
            raise self._talk.error("said nothing of itself", ROM)
        return self._known
