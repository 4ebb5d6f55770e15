"""One line in, one answer out, with everything that can go wrong on the way.

On an RS-485 line a chamber hears only its own address, and answers a setting with it. How long the
controller is busy, and how late a fault makes an answer, is real time, because the patience of
whoever waits for it is.
"""

from __future__ import annotations

import asyncio
import enum
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from labctl.simulators.espec.commands import Controller, is_question, name_of
from labctl.simulators.faults import Fault, FaultBoard

END: Final = b"\r\n"
LONGEST_LINE: Final = 512
QUESTION_BUSY_S: Final = 0.2
SETTING_BUSY_S: Final = 0.5
OTHER_ROM: Final = "OTHER VER0.01"

_ADDRESSED = re.compile(r"(\d{1,2}),(.*)", re.DOTALL)


class Then(enum.Enum):
    """What becomes of the connection."""

    LISTEN = "listen"
    CLOSE = "close"
    SILENCE = "silence"
    """It stays, and nothing is answered ever again."""


@dataclass(frozen=True, slots=True)
class Said:
    """Bytes to send, with their end, and what comes after them."""

    data: bytes = b""
    then: Then = Then.LISTEN


class Wire:
    """``catch_up`` brings the chamber to the present; ``changed`` is told when something was."""

    def __init__(
        self,
        controller: Controller,
        faults: FaultBoard,
        *,
        catch_up: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self.controller = controller
        self.faults = faults
        self._catch_up = catch_up
        self._changed = changed
        config = controller.chamber.config
        self._unit = config.unit
        self._hasty_is_lost = config.hasty == "lost"
        self._busy = 0.0 if config.is_virtual else config.busy
        self._free_s = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._chance = random.Random(config.seed)  # noqa: S311
        self.lost = 0
        """How many commands came too soon and were lost."""

    @property
    def unplugged(self) -> bool:
        self.faults.refresh()
        return self.faults.take("unplugged", "") is not None

    async def answer(self, line: bytes) -> Said:
        """What is answered to a line without its end."""
        command = line.decode("latin-1").strip()
        address = ""
        addressed = _ADDRESSED.fullmatch(command)
        if addressed:
            address, command = addressed[1], addressed[2].strip()
        name = name_of(command)
        self.faults.refresh()

        def take(fault: str) -> Fault | None:
            return self.faults.take(fault, name)

        if take("unplugged") or take("drop_unheard"):
            return Said(then=Then.CLOSE)
        if not command or (addressed and self._unit and int(address) != self._unit):
            return Said()
        async with self._one_at_a_time:
            if self._is_lost():
                return Said()
            await self._free()
            text = self._carried_out(command, address, take)
            busy_s = QUESTION_BUSY_S if is_question(command) else SETTING_BUSY_S
            self._free_s = _now_s() + self._busy * busy_s
        late_s = sum(fault.delay_s for each in ("slow", "stall") if (fault := take(each)))
        if late_s > 0:
            await asyncio.sleep(late_s)
        data = text.encode("latin-1") + END
        if take("hang"):
            return Said(then=Then.SILENCE)
        if take("drop"):
            return Said(then=Then.CLOSE)
        if take("truncate"):
            return Said(data[: len(data) // 2], Then.CLOSE)
        if take("garbage"):
            return Said(self._chance.randbytes(24).replace(b"\n", b"?") + END)
        return Said(data)

    def _carried_out(self, command: str, address: str, take: Callable[[str], Fault | None]) -> str:
        controller = self.controller
        self._catch_up()
        if bool(address) != bool(self._unit):
            return "NA:ADDR ERR"
        if take("unavailable"):
            return "NA:CHB NOT READY"
        controller.chamber.frozen = take("frozen") is not None
        controller.keeps_on = take("ignores_stop") is not None
        controller.rom = OTHER_ROM if take("wrong_serial") else controller.chamber.config.own_rom
        before = controller.chamber.changes
        text = controller.answer(command)
        if controller.chamber.changes != before:
            self._changed()
        if address and text.startswith("OK:"):
            text = f"OK:{address},{text.removeprefix('OK:')}"
        return text

    def _is_lost(self) -> bool:
        lost = self._hasty_is_lost and _now_s() < self._free_s
        self.lost += lost
        return lost

    async def _free(self) -> None:
        if (left_s := self._free_s - _now_s()) > 0:
            await asyncio.sleep(left_s)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
