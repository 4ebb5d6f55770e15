"""The instrument's end of the line: commands in, answers and the output of scripts out.

Source: communication protocols of EmStat Pico v1.6 and EmStat4 v1.3.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from labctl.clock import Clock, VirtualClock, first_of
from labctl.simulators.faults import Fault, FaultBoard
from labctl.simulators.palmsens.device import Potentiostat
from labctl.simulators.palmsens.errors import Code, ScriptError
from labctl.simulators.palmsens.interpreter import Interpreter
from labctl.simulators.palmsens.language import LONGEST_LINE, Parsed, parse
from labctl.simulators.palmsens.loops import NEED_GALVANOSTAT

logger = logging.getLogger(__name__)

DEAF_S: Final = 0.06
"""How long it hears nothing after an error, in real time."""
SCRIPT_VERSION: Final = "01.09.00"
DATA: Final = "P"
"""The name under which faults know the output of scripts."""
STEPS_BETWEEN: Final = 16
"""In virtual time, after so many steps of a script commands are looked for."""
REFRESH_S: Final = 0.1

WHILE_RUNNING: Final = frozenset({"h", "H", "Z", "Y", "R"})
UPLOADS: Final = frozenset({"e", "l"})
NOT_HERE: Final = frozenset({"Fmscr", "Lmscr", "dlfw"})

Send = Callable[[bytes], Awaitable[None]]
Unplug = Callable[[float], Awaitable[None]]


class Instrument:
    """One instrument. Bytes from the line go to :meth:`hear`; it writes with ``send``.

    ``unplug`` is called when a fault pulls the plug, with for how long.
    """

    def __init__(
        self,
        device: Potentiostat,
        *,
        serial: str,
        clock: Clock,
        faults: FaultBoard,
        seed: int,
        powered_by_line: bool,
    ) -> None:
        self.device = device
        self.faults = faults
        self.runs = 0
        self.send: Send = _nowhere
        self.unplug: Unplug = _no_unplug
        self.script_over: Callable[[], None] = lambda: None
        self._serial = serial
        self._clock = clock
        self._virtual = isinstance(clock, VirtualClock)
        self._powered_by_line = powered_by_line
        self._chance = random.Random(f"labctl garbage {seed}")  # noqa: S311
        self._began_s = clock.monotonic_s() - device.now_s
        self._partial = b""
        self._deaf_until_s = 0.0
        self._upload: tuple[str, list[str]] | None = None
        self._loaded: Parsed | None = None
        self._running: Interpreter | None = None
        self._halted = False
        self._woken = asyncio.Event()
        self._heard: asyncio.Queue[str] = asyncio.Queue()
        self._sending = asyncio.Lock()
        self._refreshed_s = 0.0
        missing = frozenset() if device.model.held else NEED_GALVANOSTAT | {"set_i"}
        self._missing = missing
        device.frozen = lambda: self.faults.take("frozen", DATA) is not None

    @property
    def running(self) -> bool:
        return self._running is not None

    async def work(self) -> None:
        """Carry out what is heard, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    line = await self._heard.get()
                    await self._take(line, group)
        except Exception:
            logger.exception("a simulated potentiostat failed")
            raise
        finally:
            self._running = None

    def hear(self, data: bytes) -> None:
        """Bytes from the line."""
        if asyncio.get_running_loop().time() < self._deaf_until_s:
            return
        *lines, self._partial = (self._partial + data.translate(None, b"\x11\x13\r")).split(b"\n")
        if len(self._partial) > 4 * LONGEST_LINE:
            self._partial = self._partial[: 4 * LONGEST_LINE]
        for line in lines:
            self._heard.put_nowait(line.decode("latin-1"))

    def lose_power(self) -> None:
        """Where the line is what it is powered by: everything is forgotten, and the cell is off."""
        self._partial, self._upload = b"", None
        while not self._heard.empty():
            self._heard.get_nowait()
        if self._powered_by_line:
            self.power_cut()

    def power_cut(self) -> None:
        """Everything is forgotten, and the cell is off."""
        self._partial, self._upload = b"", None
        self._loaded, self._running, self._halted = None, None, False
        self.device.switch(on=False)
        self._woken.set()

    def catch_up(self) -> None:
        """Let the cell live on to the present, where time is not virtual."""
        if self._running is None:
            self._live_to_now()

    def _live_to_now(self) -> None:
        self.device.live(max(0.0, self._clock.monotonic_s() - self._began_s - self.device.now_s))

    async def _take(self, line: str, group: asyncio.TaskGroup) -> None:
        self.faults.refresh()
        name = line.strip()[:1]
        if (fault := self.faults.take("unplugged", name)) is not None:
            await self.unplug(fault.delay_s)
            return
        if self.faults.take("drop_unheard", name):
            await self.unplug(0.0)
            return
        if self._upload is not None:
            await self._more_script(line, group)
        elif line.strip():
            await self._command(line.strip(), group)

    async def _command(self, text: str, group: asyncio.TaskGroup) -> None:
        name = text[:1]
        if self.running:
            if text not in WHILE_RUNNING:
                await self._refuse(name, Code.NOT_NOW)
            else:
                await self._interfere(text)
        elif text in WHILE_RUNNING:
            await self._refuse(name, Code.NOT_NOW)
        elif text in UPLOADS:
            self._upload = (text, [])
        elif text == "r":
            if self._loaded is None:
                await self._refuse("r", Code.NOTHING_LOADED)
            else:
                await self._start("r", self._loaded, group)
        elif text == "i":
            wrong = self.faults.take("wrong_serial", "i") is not None
            await self._answer("i", "i" + (self._serial[::-1] if wrong else self._serial))
        elif text == "t":
            await self._answer("t", f"t{self.device.model.code}{self.device.model.firmware}", "R*")
        elif text == "v":
            await self._answer("v", f"v{SCRIPT_VERSION}")
        elif text == "m":
            await self._refuse("m", Code.NOT_MULTI)
        elif name in {"G", "S"} and len(text) >= 3:
            await self._refuse(name, Code.UNKNOWN_REGISTER)
        elif text.startswith("fs_") or text in NOT_HERE:
            await self._refuse(text.split(" ", maxsplit=1)[0], Code.NOT_ON_THIS_DEVICE)
        else:
            await self._refuse(name, Code.UNKNOWN_COMMAND)

    async def _more_script(self, line: str, group: asyncio.TaskGroup) -> None:
        command, lines = self._upload or ("e", [])
        if line:
            lines.append(line)
            return
        self._upload = None
        try:
            parsed = parse(
                lines, largest_bytes=self.device.model.script_bytes, missing=self._missing
            )
        except ScriptError as error:
            await self._answer(command, command + error.text)
            self._go_deaf()
            return
        self._loaded = parsed
        if command == "e":
            await self._start("e", parsed, group)
        else:
            await self._answer("l", "l")

    async def _start(self, command: str, parsed: Parsed, group: asyncio.TaskGroup) -> None:
        self.catch_up()
        self._running = Interpreter(parsed, self.device)
        self.runs += 1
        await self._answer(command, command)
        if self._running is not None:
            group.create_task(self._run(self._running), name="script")

    async def _interfere(self, text: str) -> None:
        script = self._running
        if script is None:
            return
        ignored = text == "Z" and self.faults.take("ignores_stop", "Z") is not None
        script.say(text)
        if text == "Z" and not ignored:
            script.abort, self._halted = True, False
        elif text == "Y":
            script.skip_loop = True
        elif text == "R":
            script.reverse = True
        elif text in {"h", "H"}:
            self._halted = text == "h"
        self._woken.set()

    async def _run(self, script: Interpreter) -> None:
        for step, _ in enumerate(script.run()):
            if script.has_written or step % STEPS_BETWEEN == 0 or not self._virtual:
                await self._write_waiting(script)
                await self._keep_time(script)
            if self._running is not script:
                return
        await self._write_waiting(script)
        if self._running is not script:
            return
        self._running = None
        self.script_over()
        await self._line(DATA, "")

    async def _keep_time(self, script: Interpreter) -> None:
        """Wait until the instrument's time is everybody's, or a command from outside is heard."""
        self._woken.clear()
        while self._halted and self._running is script:
            await self._write_waiting(script)
            await self._woken.wait()
            self._woken.clear()
            self._live_to_now()
        ahead_s = self.device.now_s + self._began_s - self._clock.monotonic_s()
        if self._virtual or ahead_s <= 0:
            await self._clock.sleep(ahead_s)
        else:
            await first_of(self._clock.sleep(ahead_s), self._woken.wait())

    async def _write_waiting(self, script: Interpreter) -> None:
        for line in script.take_written():
            if self._running is script:
                await self._line(line[:1] if line[:1] in WHILE_RUNNING else DATA, line)

    async def _refuse(self, name: str, code: Code) -> None:
        await self._answer(name, f"{name}!{code:04X}")
        self._go_deaf()

    def _go_deaf(self) -> None:
        self._deaf_until_s = asyncio.get_running_loop().time() + DEAF_S

    async def _answer(self, name: str, *lines: str) -> None:
        for line in lines:
            await self._line(name, line)

    async def _line(self, name: str, text: str) -> None:
        """Write a line, wrong where a fault is in force."""

        def take(fault: str) -> Fault | None:
            return self.faults.take(fault, name)

        self._refresh()
        late_s = sum(fault.delay_s for fault in (take("slow"), take("stall")) if fault is not None)
        if late_s > 0:
            await asyncio.sleep(late_s)
        if take("hang"):
            return
        data = text.encode("latin-1") + b"\n"
        if take("garbage"):
            data = self._chance.randbytes(24).replace(b"\n", b"?") + b"\n"
        if take("truncate"):
            await self._send(data[: len(data) // 2])
            await self.unplug(0.0)
        elif (fault := take("drop")) is not None:
            await self.unplug(fault.delay_s)
        else:
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self.send(data)

    def _refresh(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._refreshed_s > REFRESH_S:
            self._refreshed_s = now_s
            self.faults.refresh()


async def _nowhere(data: bytes) -> None:
    del data


async def _no_unplug(duration_s: float) -> None:
    del duration_s
