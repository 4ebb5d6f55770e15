"""The conversation with a chamber: one answer to each command, and a pause after it.

A chamber may lose what comes too soon after another command. How long it is left alone goes by the
clock: monitor commands 0.2 to 0.3 s, settings 0.5 s.

Source: espec-pr3j 0.5.0, ``MONITOR_COMMAND_DELAY`` and ``SETTING_COMMAND_DELAY``; ESPEC "Network
Guide RS-485, RS-232C, GPIB".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from labctl.clock import Clock
from labctl.drivers.espec.config import EspecConfig
from labctl.drivers.espec.words import check_taken, parse_refusal, said_of_refusal, text_of
from labctl.errors import InstrumentError
from labctl.wire.link import Exchange, Framing, Greeting, Link, short_text
from labctl.wire.serial_link import SerialLink
from labctl.wire.tcp import TcpLink

END: Final = b"\r\n"

Value = TypeVar("Value")
Parse = Callable[[str], Value]


class Talk:
    """One chamber at a time. ``link`` replaces the one that the config names.

    Every call raises LinkError where the wire failed and InstrumentError where the chamber refused
    or said something that cannot be; the latter names the command and the answer.
    """

    def __init__(
        self,
        config: EspecConfig,
        *,
        name: str,
        clock: Clock,
        greeting: Greeting,
        link: Link | None = None,
    ) -> None:
        self._config = config
        self._name = name
        self._clock = clock
        self._link = link or _link(config, clock, greeting)
        self._before_end = END[:1] if isinstance(self._link, SerialLink) else b""
        """What a link that ends its lines with LF alone leaves out."""
        self._one_at_a_time = asyncio.Lock()
        self._ready_s = clock.monotonic_s()

    async def open(self) -> None:
        async with self._one_at_a_time:
            await self._wait()
            await self._link.open()

    async def close(self) -> None:
        await self._link.close()

    async def ask(self, query: str, parse: Parse[Value]) -> Value:
        """The answer to a question, read by ``parse``, which may raise InstrumentError."""
        return await self._say(query, parse, self._config.monitor_pause_s)

    async def tell(self, setting: str) -> None:
        """Set something; it was taken when this returns."""

        def taken(text: str) -> None:
            check_taken(text, setting, f"{self._address}{setting}")

        await self._say(setting, taken, self._config.setting_pause_s)

    async def ask_anew(self, exchange: Exchange, query: str, parse: Parse[Value]) -> Value:
        """A question on a connection that is being made; what is asked next may come at once."""
        try:
            reply = await exchange(self._request(query))
        finally:
            self._pause(self._config.monitor_pause_s)
        await self._wait()
        self._refused(reply, query)
        return self._understood(reply, query, parse)

    def error(self, message: str, command: str, reply: str = "") -> InstrumentError:
        return InstrumentError(
            f"{self._name} {message}", instrument=self._name, command=command, reply=reply
        )

    async def _say(self, command: str, parse: Parse[Value], pause_s: float) -> Value:
        values: list[Value] = []

        def check(reply: bytes) -> None:
            if not _is_refusal(reply):
                values.append(self._understood(reply, command, parse))

        async with self._one_at_a_time:
            await self._wait()
            try:
                reply = await self._link.ask(self._request(command), command=command, check=check)
            finally:
                self._pause(pause_s)
        self._refused(reply, command)
        return values[0]

    def _understood(self, reply: bytes, command: str, parse: Parse[Value]) -> Value:
        try:
            return parse(text_of(reply))
        except InstrumentError as error:
            said = short_text(reply)
            raise self.error(f"answered {command} with {said!r}: {error}", command, said) from error

    def _refused(self, reply: bytes, command: str) -> None:
        if not _is_refusal(reply):
            return
        text = text_of(reply)
        reason = parse_refusal(text) or ""
        meaning = said_of_refusal(reason)
        raise self.error(
            f"refused {command} with {text!r}" + (f": {meaning}" if meaning else ""), command, text
        )

    async def _wait(self) -> None:
        await self._clock.sleep(self._ready_s - self._clock.monotonic_s())

    def _pause(self, pause_s: float) -> None:
        self._ready_s = self._clock.monotonic_s() + pause_s

    def _request(self, command: str) -> bytes:
        return f"{self._address}{command}".encode("ascii") + self._before_end

    @property
    def _address(self) -> str:
        return f"{self._config.unit}," if self._config.unit else ""


def _is_refusal(reply: bytes) -> bool:
    """Whether a command was refused, which is an answer as good as any."""
    try:
        return parse_refusal(text_of(reply)) is not None
    except InstrumentError:
        return False


def _link(config: EspecConfig, clock: Clock, greeting: Greeting) -> Link:
    if config.host:
        return TcpLink(
            config.host,
            int(config.port),
            framing=Framing(END, END, max_reply_bytes=4096),
            clock=clock,
            reply_timeout_s=config.reply_timeout_s,
            connect_timeout_s=config.connect_timeout_s,
            greeting=greeting,
        )
    return SerialLink(
        str(config.port),
        clock=clock,
        baud=config.baud,
        reply_timeout_s=config.reply_timeout_s,
        greeting=greeting,
    )
