"""The conversation with a MethodSCRIPT instrument over its line.

A command is answered with its own letter; an error is appended to it. Scripts are loaded (``l``)
and run (``r``), or both (``e``). While a script runs, only commands that end, halt or resume it are
taken; others are refused with 0006.

After an error an instrument is deaf for some 100 ms.

Source: communication protocols of EmStat Pico v1.6 and EmStat4 v1.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from labctl.clock import Clock
from labctl.drivers.palmsens.faultcodes import NOT_NOW, Refusal, parse_refusal
from labctl.drivers.palmsens.packages import Package, PackageError, parse_package
from labctl.drivers.palmsens.stages import script_bytes
from labctl.errors import InstrumentError, LinkError
from labctl.wire.serial_link import SerialLink

DEAF_S: Final = 0.15
CODE_LENGTH: Final = 6
"""How long the name is that an instrument gives itself in its answer to ``t``."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What an instrument says when a connection is new.

    serial: '' where it did not say, because a script runs. code: how it names its model.
    strays: lines that were no answer; they may be of the script that runs.
    """

    serial: str
    code: str
    strays: tuple[str, ...]


class Talk:
    """One conversation at a time; whoever uses it sees to that."""

    def __init__(
        self,
        link: SerialLink,
        *,
        clock: Clock,
        name: str,
        reply_timeout_s: float,
        stop_timeout_s: float,
    ) -> None:
        self.link = link
        self._clock = clock
        self._name = name
        self._reply_timeout_s = reply_timeout_s
        self._stop_timeout_s = stop_timeout_s

    async def hello(self) -> Hello:
        """Ask who is there, on a new connection. Changes nothing.

        Raises:
            LinkError: nobody answers.
            InstrumentError: it does not say its number for another reason than a running script.
        """
        await self.link.send(b"\n", command="hello")
        strays, reply = await self._reply("i", needed=False)
        refusal = parse_refusal(reply)
        if refusal is not None:
            await self._clock.sleep(DEAF_S)
        if refusal is not None and refusal.code != NOT_NOW:
            raise self._refused(refusal, "i", reply)
        if refusal is not None or not reply:
            if refusal is None and not strays:
                await self.link.drop()
                raise self._silent("i")
            self.link.went_well()
            return Hello("", "", strays)
        serial = reply[1:].strip()
        code = (await self.command("t"))[1 : 1 + CODE_LENGTH]
        self.link.went_well()
        return Hello(serial, code, strays)

    async def command(self, text: str) -> str:
        """The answer to a command; of an answer of several lines the first.

        Raises:
            InstrumentError: it was refused.
            LinkError: no answer.
        """
        self.link.discard()
        _, reply = await self._reply(text)
        refusal = parse_refusal(reply)
        if refusal is not None:
            await self.recover()
            raise self._refused(refusal, text, reply)
        if text == "t":
            await self._rest_of_version(reply)
        return reply

    async def load(self, lines: Sequence[str]) -> None:
        """Put a script into the instrument, which checks every line of it.

        Raises:
            InstrumentError: it refused a line.
        """
        await self._upload("l", lines)

    async def run(self, lines: Sequence[str], *, lasts_s: float = 0.0) -> tuple[Package, ...]:
        """Run a short script to its end; what it sent.

        Raises:
            InstrumentError: it refused a line, or failed.
        """
        await self._upload("e", lines)
        packages: list[Package] = []
        over = False
        over_s = self._now_s() + self._reply_timeout_s + lasts_s
        try:
            while True:
                left_s = over_s - self._now_s()
                line = await self.next_line(left_s) if left_s > 0 else None
                if line is None:
                    raise self._silent("e")
                over = not line or parse_refusal(line) is not None
                if over:
                    break
                if line.startswith("P"):
                    packages.append(self._understood(line))
        finally:
            if not over:
                await self.link.drop()
        refusal = parse_refusal(line)
        if refusal is not None:
            await self.recover()
            raise self._refused(refusal, "e", line, lines)
        return tuple(packages)

    async def abort(self) -> None:
        """End whatever script runs, and see it end. Idempotent.

        Raises:
            InstrumentError: it goes on.
            LinkError: no answer.
        """
        heard = told = over = False
        over_s = self._now_s() + self._stop_timeout_s
        again_s = 0.0
        try:
            while not over and (left_s := over_s - self._now_s()) > 0:
                if self._now_s() >= again_s and not told:
                    await self.link.send(b"Z\n", command="Z")
                    again_s = self._now_s() + self._stop_timeout_s / 3
                line = await self.next_line(min(left_s, self._stop_timeout_s / 3))
                heard = heard or line is not None
                refusal = None if line is None else parse_refusal(line)
                refused = refusal is not None and refusal.command == "Z"
                over = refused or (told and line == "")
                told = told or line == "Z"
                if refused:
                    await self.recover()
        finally:
            if not over:
                await self.link.drop()
        if over:
            return
        if heard:
            raise InstrumentError(
                f"{self._name}: its script goes on although it was told to end: switch the cell "
                "off at the instrument",
                instrument=self._name,
                command="Z",
            )
        raise self._silent("Z")

    async def next_line(self, timeout_s: float) -> str | None:
        line = await self.link.next_line(timeout_s)
        return None if line is None else line.decode("ascii", "backslashreplace")

    def waiting_lines(self) -> tuple[str, ...]:
        """Every line that has come and was not fetched; fetches them."""
        return tuple(line.decode("ascii", "backslashreplace") for line in self.link.waiting_lines())

    async def recover(self) -> None:
        """Wait until the instrument hears again after an error, and forget what it said."""
        await self._clock.sleep(DEAF_S)
        self.link.discard()

    def _understood(self, line: str) -> Package:
        try:
            return parse_package(line)
        except PackageError as error:
            raise InstrumentError(
                f"{self._name}: {error}", instrument=self._name, command="e", reply=line
            ) from error

    async def _upload(self, command: str, lines: Sequence[str]) -> None:
        self.link.discard()
        _, reply = await self._reply(command, script_bytes((command, *lines)))
        refusal = parse_refusal(reply)
        if refusal is not None:
            await self.recover()
            raise self._refused(refusal, command, reply, lines)

    async def _reply(
        self, command: str, request: bytes = b"", *, needed: bool = True
    ) -> tuple[tuple[str, ...], str]:
        """Lines that came before the answer, and the answer; '' without one, if not ``needed``."""
        await self.link.send(request or command.encode() + b"\n", command=command)
        over_s = self._now_s() + self._reply_timeout_s
        strays: list[str] = []
        settled = False
        try:
            while (left_s := over_s - self._now_s()) > 0:
                line = await self.next_line(left_s)
                if line is not None and _answers(line, command):
                    settled = True
                    return tuple(strays), line
                if line is not None:
                    strays.append(line)
            settled = not needed
        finally:
            if not settled:
                await self.link.drop()
        if needed:
            raise self._silent(command)
        return tuple(strays), ""

    async def _rest_of_version(self, first: str) -> None:
        line: str | None = first
        over_s = self._now_s() + self._reply_timeout_s
        while line is not None and not line.endswith("*"):
            line = await self.next_line(max(0.0, over_s - self._now_s()))

    def _refused(
        self, refusal: Refusal, command: str, reply: str, script: Sequence[str] = ()
    ) -> InstrumentError:
        return InstrumentError(
            f"{self._name}: {command!r} was refused with {refusal.words(script)}",
            instrument=self._name,
            command=command,
            reply=reply,
        )

    def _silent(self, command: str) -> LinkError:
        return LinkError(
            f"{self.link.address}: no answer to {command!r} in time; it may have arrived",
            address=self.link.address,
            command=command,
        )

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _answers(line: str, command: str) -> bool:
    """Whether a line is the answer to a command, and not of a script's output."""
    refusal = parse_refusal(line)
    if refusal is not None:
        return refusal.command == command
    if command in {"e", "l", "r", "Z"}:
        return line == command
    return line.startswith(command)
