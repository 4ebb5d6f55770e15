"""Which instrument is at the port.

While a script runs an instrument does not tell its serial number. Then it is taken for the one that
the configuration names, or that was last found at this port, and asked as soon as its script is
over.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from labctl.clock import Clock
from labctl.drivers.base import Identity
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.models import MODEL_OF_CODE
from labctl.drivers.palmsens.talk import Hello, Talk
from labctl.errors import InstrumentError, LinkError
from labctl.wire.ownership import lock_folder, remember, remembered
from labctl.wire.serial_link import SerialLink

MANUFACTURER: Final = "PalmSens"

_SERIAL: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Session:
    """The connection to one instrument, made again whenever it was lost.

    meetings: how many connections there were. script_runs: what the instrument did when the last
    one was made, or since :meth:`end_script`. strays: what it said then that was no answer.
    """

    def __init__(self, config: PalmSensConfig, *, name: str, clock: Clock) -> None:
        self.link = SerialLink(
            config.port,
            clock=clock,
            baud=config.baud or config.kind.baud,
            rtscts=config.rtscts,
            xonxoff=config.xonxoff or config.kind.xonxoff,
        )
        self.talk = Talk(
            self.link,
            clock=clock,
            name=name,
            reply_timeout_s=config.reply_timeout_s,
            stop_timeout_s=config.stop_timeout_s,
        )
        self.meetings = 0
        self.script_runs = False
        self.strays: tuple[str, ...] = ()
        self._config = config
        self._name = name
        self._folder = lock_folder(config.lock_dir)
        self._identity: Identity | None = None
        self._met = False
        self._closed = True

    async def open(self) -> Identity:
        """Connect, and see which instrument it is.

        Raises:
            LinkError: nobody is there.
            InstrumentError: another instrument than expected, or not known and busy.
        """
        self._closed = False
        return await self.connected()

    async def close(self) -> None:
        """Let the port go."""
        self._closed = True
        await self.link.close()
        self._met = False

    async def connected(self) -> Identity:
        """Who is there; connects again where that is needed. See :meth:`open`."""
        if self._closed:
            raise LinkError(
                f"{self.link.address}: the instrument was closed, nothing was sent",
                address=self.link.address,
                command="i",
            )
        if not self.link.connected:
            self._met = False
            await self.link.open()
        if not self._met or self._identity is None:
            await self._meet()
            self.meetings += 1
        return self._known()

    async def end_script(self) -> None:
        """End whatever script runs. Afterwards it is certain which instrument this is.

        Raises:
            InstrumentError: the script goes on, or it is another instrument than it was taken for.
        """
        await self.talk.abort()
        await self._meet()

    async def _meet(self) -> None:
        hello = await self.talk.hello()
        met = False
        try:
            identity = self._checked(hello) if hello.serial else await self._assumed()
            met = True
        finally:
            if not met:
                await self.link.drop()
        if hello.serial and identity != self._identity:
            await asyncio.to_thread(self._remember, identity.serial)
        self._identity, self._met = identity, True
        self.script_runs, self.strays = not hello.serial, hello.strays

    def _checked(self, hello: Hello) -> Identity:
        if not _SERIAL.fullmatch(hello.serial):
            raise self._error(f"says that its serial number is {hello.serial[:40]!r}", hello.serial)
        expected = self._identity.serial if self._identity else self._config.serial
        if expected and hello.serial != expected:
            raise self._error(
                f"is the instrument {hello.serial} now, not {expected}; nothing was done to it",
                hello.serial,
            )
        model = MODEL_OF_CODE.get(hello.code, f"unknown ({hello.code})")
        if hello.code not in self._config.kind.codes:
            raise self._error(f"is a {model}, not an {self._config.model}: see 'model'", hello.code)
        return Identity(MANUFACTURER, model, hello.serial)

    async def _assumed(self) -> Identity:
        if self._identity is not None:
            return self._identity
        serial = self._config.serial or await asyncio.to_thread(self._remembered)
        if not serial:
            raise self._error(
                "runs a script, and tells its serial number only when it runs none: set 'serial' "
                "in the configuration, or end the script"
            )
        return Identity(MANUFACTURER, self._config.model, serial)

    def _remember(self, serial: str) -> None:
        remember(self._folder, self.link.address, serial)

    def _remembered(self) -> str:
        return remembered(self._folder, self.link.address)

    def _known(self) -> Identity:
        if self._identity is None:
            raise self._error("did not say what it is")
        return self._identity

    def _error(self, message: str, reply: str = "") -> InstrumentError:
        return InstrumentError(
            f"{self._name} {message}", instrument=self._name, command="i", reply=reply
        )
