"""A simulated Rodeostat at a serial port or a TCP port, and its time port beside it.

Time: a real or hastened clock moves the instrument on some times a second and whenever somebody
asks. In virtual time only the time port does. How late a fault makes an answer is real time,
because the patience of whoever waits for it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from labctl.clock import Clock, RealClock
from labctl.errors import ConfigError, Problem
from labctl.simulators.cells.interface import Control, Recorder, SimulatedCell, Until
from labctl.simulators.faults import Fault, FaultBoard
from labctl.simulators.keithley.loads import Resistor
from labctl.simulators.palmsens.persist import VERSION, Kept, StateFile
from labctl.simulators.palmsens.port import PtyPort, TcpPort
from labctl.simulators.rodeostat.commands import END_LINE, Commands, sample_line
from labctl.simulators.rodeostat.config import RodeostatSimConfig
from labctl.simulators.rodeostat.device import Device
from labctl.simulators.server import follow_faults
from labctl.simulators.timeport import serve_time

SAMPLE: Final = "sample"
"""The name under which faults know the lines that come without being asked for."""
LINE_END: Final = b"\r\n"
LONGEST_LINE: Final = 2000
FAULTS_FILE: Final = "faults.json"
TICK_S: Final = 0.02
KEEP_S: Final = 1.0
UNPLUGGED_S: Final = 0.2


class SimulatedRodeostat:
    """An instrument that can be talked to; :func:`serve_rodeostat` gives one.

    address: what a driver calls its port. time_port: 0 if there is none.
    """

    def __init__(
        self, config: RodeostatSimConfig, device: Device, clock: Clock, state: StateFile
    ) -> None:
        self.address = ""
        self.time_port = 0
        self.device = device
        self.faults = FaultBoard(
            config.faults, Path(config.state_dir) / FAULTS_FILE if config.state_dir else None
        )
        device.frozen = lambda: self.faults.take("frozen", SAMPLE) is not None
        self._config = config
        self._clock = clock
        self._state = state
        self._began_s = clock.monotonic_s()
        self._commands = Commands(device, variant=config.variant, device_id=config.device_id)
        self._chance = random.Random(f"labctl rodeostat garbage {config.seed}")  # noqa: S311
        self._partial = b""
        self._out: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._pty: PtyPort | None = None
        self._tcp: TcpPort | None = None
        self._replug: asyncio.TimerHandle | None = None

    async def connect(self) -> None:
        """Appear at the port.

        Raises:
            OSError: it cannot be made.
        """
        if self._config.port is None:
            link = Path(self._config.link) if self._config.link else None
            self._pty = PtyPort(self.hear, link=link, waits=False)
            self._pty.plug()
            self.address = str(link or self._pty.path)
        else:
            self._tcp = TcpPort(self.hear, waits=False)
            port = await self._tcp.listen(self._config.host, self._config.port)
            self.address = f"socket://{self._config.host}:{port}"

    async def close(self) -> None:
        """Be gone for good."""
        self.keep()
        if self._replug is not None:
            self._replug.cancel()
        if self._pty is not None:
            self._pty.unplug()
        if self._tcp is not None:
            await self._tcp.close()

    async def plug(self) -> None:
        """Put the plug back."""
        self._plug()

    async def unplug(self) -> None:
        """Pull the plug; over TCP the connection is closed."""
        self._unplug()
        if self._config.powered_by_line:
            await self.power_cut()

    async def power_cut(self) -> None:
        """Everything is forgotten, and the cell is disconnected."""
        self.catch_up()
        self.device.lose_power()

    def keep(self) -> None:
        """Write the cell down."""
        self._state.write(
            Kept(
                version=VERSION,
                cell=_cell_key(self._config),
                state=self.device.cell.state(),
                wall_unix_s=time.time(),
            )
        )

    async def keep_on(self) -> None:
        """Write the cell down each second, until cancelled."""
        while True:
            await asyncio.sleep(KEEP_S)
            self.keep()

    def advance(self, duration_s: float) -> float:
        """Move virtual time on; what time it is then."""
        self.device.live(duration_s)
        self._send_samples()
        return self.device.now_s

    def catch_up(self) -> None:
        """Live on to the present, where time is not virtual."""
        if not self._config.is_virtual:
            self.advance(max(0.0, self._clock.monotonic_s() - self._began_s - self.device.now_s))

    def hear(self, data: bytes) -> None:
        """Bytes from the port."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-LONGEST_LINE:]
        for line in lines:
            self._carry_out(line)

    async def tick(self) -> None:
        """Live on with the clock, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.catch_up()

    async def speak(self) -> None:
        """Write what is to be said, until cancelled."""
        while True:
            name, line = await self._out.get()
            await self._say(name, line)

    def _carry_out(self, line: bytes) -> None:
        self.faults.refresh()
        name = _name_in(line)
        if self._take("unplugged", name) or self._take("drop_unheard", name):
            self._unplug_for(UNPLUGGED_S)
            return
        self.catch_up()
        device = self.device
        ignored = self._take("ignores_stop", name) is not None
        before = (device.working, device.reference, device.counter)
        name, answer = self._commands.answer(line)
        if ignored:
            device.connect(working=before[0], reference=before[1], counter=before[2])
        self._out.put_nowait((name, answer))
        self._send_samples()

    def _send_samples(self) -> None:
        for sample in self.device.samples:
            self._out.put_nowait((SAMPLE, sample_line(*sample)))
        self.device.samples.clear()
        if self.device.ended:
            self.device.ended = False
            self._out.put_nowait((SAMPLE, END_LINE))

    async def _say(self, name: str, line: bytes) -> None:
        """Write a line, wrong where a fault is in force."""
        late_s = sum(
            fault.delay_s for each in ("slow", "stall") if (fault := self._take(each, name))
        )
        if late_s > 0:
            await asyncio.sleep(late_s)
        if self._take("hang", name):
            return
        if self._take("wrong_serial", name):
            line = line.replace(b'"deviceId":', b'"deviceId":1')
        if self._take("garbage", name):
            line = self._chance.randbytes(24).replace(b"\n", b"?")
        if self._take("truncate", name):
            await self._write(line[: len(line) // 2])
            self._unplug_for(UNPLUGGED_S)
        elif fault := self._take("drop", name):
            self._unplug_for(max(UNPLUGGED_S, fault.delay_s))
        else:
            await self._write(line + LINE_END)

    async def _write(self, data: bytes) -> None:
        if self._pty is not None:
            await self._pty.write(data)
        elif self._tcp is not None:
            await self._tcp.write(data)

    def _take(self, fault: str, name: str) -> Fault | None:
        return self.faults.take(fault, name)

    def _unplug_for(self, duration_s: float) -> None:
        """A bad contact: the line is gone for a moment, and the power is not."""
        self._unplug()
        self._replug = asyncio.get_running_loop().call_later(duration_s, self._plug)

    def _plug(self) -> None:
        if self._pty is not None:
            self._pty.plug()
            if not self._config.link:
                self.address = self._pty.path

    def _unplug(self) -> None:
        if self._pty is not None:
            self._pty.unplug()
        if self._tcp is not None:
            self._tcp.disconnect()
        self._partial = b""
        while not self._out.empty():
            self._out.get_nowait()


@contextlib.asynccontextmanager
async def serve_rodeostat(
    config: RodeostatSimConfig, clock: Clock | None = None, *, cell: SimulatedCell | None = None
) -> AsyncIterator[SimulatedRodeostat]:
    """An instrument that serves until the block is left; its ``address`` is where.

    ``clock`` is its time; None makes one of the config's speed. ``cell`` is connected in place of
    the config's.

    Raises:
        ConfigError: the state directory belongs to another process, or the cell cannot be built.
        OSError: a port cannot be made.
    """
    clock = config.clock() if clock is None else clock
    state = StateFile(Path(config.state_dir) if config.state_dir else None)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(state.close)
        if cell is None:
            cell = await asyncio.to_thread(_cell, config, clock, state)
        device = Device(
            config.variant,
            cell,
            counter_resistor_ohm=config.counter_resistor_ohm,
            seed=config.seed,
            scale=config.errors,
        )
        served = SimulatedRodeostat(config, device, clock, state)
        stack.push_async_callback(served.close)
        await served.connect()
        if config.time_port is not None:
            listening = await stack.enter_async_context(
                serve_time(served.advance, host=config.host, port=config.time_port)
            )
            served.time_port = listening.port
        work = [served.speak(), follow_faults(served.faults, served)]
        work += [] if config.is_virtual else [served.tick()]
        work += [served.keep_on()] if config.state_dir else []
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield served
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _cell(config: RodeostatSimConfig, clock: Clock, state: StateFile) -> SimulatedCell:
    cell = _built(config)
    kept = state.read()
    if kept is not None and kept.cell == _cell_key(config):
        cell.restore(kept.state)
        if isinstance(clock, RealClock) and not config.is_virtual:
            away_s = max(0.0, time.time() - kept.wall_unix_s) * clock.speed
            cell.advance(Control.REST, 0.0, away_s, until=Until(), recorder=Recorder())
    return cell


def _built(config: RodeostatSimConfig) -> SimulatedCell:
    if config.cell is None:
        return Resistor(config.load_ohm)
    from labctl.simulators.cells import build_cell

    try:
        return build_cell(config.cell)
    except ValueError as error:
        raise ConfigError([Problem(f"cell: {error}")]) from error


def _cell_key(config: RodeostatSimConfig) -> str:
    if config.cell is None:
        return f"{config.load_ohm:g} ohm"
    return msgspec.json.encode(config.cell, order="sorted").decode()


def _name_in(line: bytes) -> str:
    """The command in a line as far as it can be seen; '' if it cannot."""
    _, _, rest = line.partition(b'"command":')
    return rest.strip().strip(b'"').partition(b'"')[0].decode("latin-1")
