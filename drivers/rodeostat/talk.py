"""The conversation with one Rodeostat: commands and their answers, with samples in between.

Nothing that comes is thrown away: samples wait in :attr:`Talk.heard` until somebody takes them. An
answer that does not come, or is not the right one, ends the connection, so that it cannot reach the
next question. The next command makes a new one, and sees that it leads to the same instrument.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, NoReturn, TypeVar

from labctl.clock import Clock
from labctl.drivers.base import Identity
from labctl.drivers.rodeostat import messages
from labctl.drivers.rodeostat.config import RodeostatConfig
from labctl.drivers.rodeostat.messages import Command, End, Reply, ReplyError, Sample, read_line
from labctl.errors import InstrumentError, LinkError
from labctl.wire.link import short_text
from labctl.wire.serial_link import SerialLink

MANUFACTURER: Final = "IO Rodeo"
HARDWARE: Final = "V0.2"
"""The first one that can disconnect the electrodes."""
MOST_HEARD: Final = 100_000

Value = TypeVar("Value")


class Talk:
    """``heard`` are samples, and ends of tests, in the order in which they came.

    meetings: how many connections there were.
    """

    def __init__(self, config: RodeostatConfig, *, name: str, clock: Clock) -> None:
        self.heard: deque[Sample | End] = deque(maxlen=MOST_HEARD)
        self.meetings = 0
        self._config = config
        self._name = name
        self._link = SerialLink(config.port, clock=clock, max_waiting=4096)
        self._identity: Identity | None = None
        self._met = False
        self._closed = True

    async def open(self) -> Identity:
        """Connect, and see which instrument it is.

        Raises:
            LinkError: nobody is there.
            InstrumentError: another instrument than it should be.
        """
        self._closed = False
        return await self.connected()

    async def close(self) -> None:
        self._closed = True
        self._met = False
        await self._link.close()

    async def connected(self) -> Identity:
        """Who is there; connects again where that is needed. See :meth:`open`."""
        if self._closed:
            raise self._lost("the instrument was closed, nothing was sent", "")
        if not self._link.connected or not self._met or self._identity is None:
            self._met = False
            await self._link.open()
            self._identity = await self._meet()
            self._met = True
            self.meetings += 1
        return self._identity

    async def ask(
        self, command: Command[Value], argument: object = None, *, test: str = ""
    ) -> Value:
        """What the instrument answers to a command.

        Raises:
            LinkError: no answer; the command may have arrived.
            InstrumentError: it refused, or answered something else; carries command and reply.
        """
        await self.connected()
        return await self._ask(command, argument, test=test)

    def error(self, message: str, command: str, reply: str = "") -> InstrumentError:
        return InstrumentError(
            f"{self._name} {message}", instrument=self._name, command=command, reply=reply
        )

    async def _meet(self) -> Identity:
        """Who is at the port: only after this is anything set."""
        self.heard.clear()
        known = False
        try:
            await self._first_answer()
            variant = await self._ask(messages.VARIANT)
            hardware = await self._ask(messages.HARDWARE)
            await self._ask(messages.VERSION)
            device_id = await self._ask(messages.DEVICE_ID)
            identity = self._checked(variant, hardware, device_id)
            if await self._ask(messages.MUX_ENABLED):
                raise self.error(
                    "has its multiplexer switched on, which labctl does not drive: switch it off",
                    messages.MUX_ENABLED.name,
                )
            known = True
        finally:
            if not known:
                await self._link.drop()
        return identity

    async def _first_answer(self) -> None:
        """Hear out what was under way: an empty line is answered like no command is."""
        command = messages.VARIANT.name
        await self._link.send(b"\n", command=command)
        over_s = self._over_s()
        while True:
            try:
                said = read_line(await self._line(command, over_s))
            except ReplyError:
                continue
            if isinstance(said, Reply) and not said.success and "command" not in said.response:
                return

    def _checked(self, variant: str, hardware: str, device_id: int) -> Identity:
        config, reply = self._config, f"{variant}, {hardware}, {device_id}"
        if hardware != HARDWARE:
            raise self.error(
                f"is hardware {hardware}, and {HARDWARE} is needed: it must be able to disconnect "
                "the cell",
                messages.HARDWARE.name,
                reply,
            )
        if config.variant not in variant:
            raise self.error(
                f"is a {variant}, not a {config.variant}: see 'variant'",
                messages.VARIANT.name,
                reply,
            )
        known = None if self._identity is None else int(self._identity.serial)
        wanted = config.device_id if known is None else known
        if wanted is not None and device_id != wanted:
            raise self.error(
                f"has the number {device_id}, and {wanted} is expected",
                messages.DEVICE_ID.name,
                reply,
            )
        return Identity(MANUFACTURER, f"Rodeostat {variant}", str(device_id), unique=False)

    async def _ask(
        self, command: Command[Value], argument: object = None, *, test: str = ""
    ) -> Value:
        in_step = False
        try:
            request = command.request(argument, test=test) + b"\n"
            await self._link.send(request, command=command.name)
            reply, line = await self._reply(command.name)
            if not reply.success and reply.response.get("command") == command.name:
                in_step = True
                raise self.error(
                    f"refused {command.name}: {reply.message or 'it does not say why'}",
                    command.name,
                    short_text(line, 1000),
                )
            try:
                value = command.value(reply, test=test)
            except ReplyError as error:
                self._garbled(command.name, line, error)
            in_step = True
        finally:
            if not in_step:
                await self._link.drop()
        return value

    async def _reply(self, command: str) -> tuple[Reply, bytes]:
        over_s = self._over_s()
        while True:
            line = await self._line(command, over_s)
            try:
                said = read_line(line)
            except ReplyError as error:
                self._garbled(command, line, error)
            if isinstance(said, Reply):
                return said, line
            self.heard.append(said)

    async def _line(self, command: str, over_s: float) -> bytes:
        left_s = over_s - asyncio.get_running_loop().time()
        line = await self._link.next_line(max(0.0, left_s), command=command) if left_s > 0 else None
        if line is None:
            raise self._lost(
                f"no answer to {command} within {self._config.reply_timeout_s:g} s; it may have "
                "arrived",
                command,
            )
        self._link.went_well()
        return line

    def _over_s(self) -> float:
        return asyncio.get_running_loop().time() + self._config.reply_timeout_s

    def _garbled(self, command: str, line: bytes, error: ReplyError) -> NoReturn:
        raise self.error(
            f"answered {command} with {short_text(line)!r}: {error}",
            command,
            short_text(line, 1000),
        ) from error

    def _lost(self, message: str, command: str) -> LinkError:
        address = self._link.address
        return LinkError(f"{address}: {message}", address=address, command=command)
