"""A SourceMeter on a TCP port, and its time port beside it.

Time: a real or hastened clock moves the instrument on whenever somebody asks and some times a
second besides. In virtual time only the time port does, and what takes time by itself, such as a
measurement that is waited for. How late a fault makes an answer is real time, because the patience
of whoever waits for it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from labctl.clock import Clock, RealClock
from labctl.errors import ConfigError, Problem
from labctl.simulators.cells.interface import Control, Recorder, SimulatedCell, Until
from labctl.simulators.faults import Fault, FaultBoard
from labctl.simulators.keithley.commands import Interpreter, Table, command_names
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.data_commands import DATA
from labctl.simulators.keithley.electronics import Electronics
from labctl.simulators.keithley.instrument import Identity, Smu
from labctl.simulators.keithley.loads import Resistor
from labctl.simulators.keithley.models import MODELS
from labctl.simulators.keithley.persist import VERSION, Kept, StateFile
from labctl.simulators.keithley.sense_commands import SENSE
from labctl.simulators.keithley.source_commands import SOURCE
from labctl.simulators.keithley.source_lists import LISTS
from labctl.simulators.keithley.status_commands import STATUS
from labctl.simulators.keithley.system_commands import SYSTEM
from labctl.simulators.keithley.trigger_commands import TRIGGER
from labctl.simulators.server import Socket, follow_faults
from labctl.simulators.timeport import serve_time

logger = logging.getLogger(__name__)

TABLE: Final[Table] = {**SYSTEM, **STATUS, **SOURCE, **SENSE, **DATA, **LISTS, **TRIGGER}

FAULTS_FILE: Final = "faults.json"
LONGEST_LINE: Final = 65_536
END: Final = b"\n"
TICK_S: Final = 0.1
KEEP_S: Final = 1.0
LET_GO_S: Final = 0.3
"""How long a new connection waits for the one before to be gone."""


class SimulatedSmu:
    """A SourceMeter that listens; :func:`serve_smu` gives one."""

    def __init__(self, config: SmuConfig, smu: Smu, clock: Clock, state: StateFile) -> None:
        self.host = config.host
        self.port = config.port
        self.time_port = 0
        self.smu = smu
        self._config = config
        self._clock = clock
        self._state = state
        self._interpreter = Interpreter(smu, TABLE)
        self._chance = random.Random(config.seed)  # noqa: S311
        self._offset_s = smu.now_s - clock.monotonic_s()
        self._busy = asyncio.Lock()
        self._client = asyncio.Lock()
        self._kept_at = (-1, 0.0)
        self._socket = Socket(
            self.converse, host=config.host, port=config.port, limit_bytes=LONGEST_LINE
        )

    async def plug(self) -> None:
        """Listen, at the same port as before.

        Raises:
            OSError: the address cannot be listened on.
        """
        await self._socket.plug()
        self.port = self._socket.port

    async def unplug(self) -> None:
        """Pull its network cable: it works on, and nobody can connect until :meth:`plug`."""
        await self._socket.unplug()

    async def power_cut(self) -> None:
        """Switch it off and on: settings and readings are gone, and the output is open."""
        plugged = self._socket.plugged
        await self._socket.unplug()
        self.catch_up()
        self.smu.power_cycle(self._config.off_state)
        self._interpreter = Interpreter(self.smu, TABLE)
        if plugged:
            await self._socket.plug()

    @property
    def faults(self) -> FaultBoard:
        return self.smu.faults

    def advance(self, duration_s: float) -> float:
        """Move virtual time on; what time it is then."""
        self.smu.run_to(self.smu.now_s + duration_s)
        self.keep()
        return self.smu.now_s

    def catch_up(self) -> None:
        """Live on to the present, where time is not virtual."""
        if not self._config.is_virtual:
            self.smu.run_to(max(self.smu.now_s, self._clock.monotonic_s() + self._offset_s))

    async def answer(self, line: str) -> bytes:
        """Carry a line out; what is answered, empty for nothing."""
        async with self._busy:
            self.catch_up()
            work = self._interpreter.run(line)
            try:
                while True:
                    await self._pass(next(work))
            except StopIteration as done:
                self.keep()
                answer: bytes = done.value
                return answer

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with contextlib.AsyncExitStack() as stack:
                if self._config.single_client:
                    await asyncio.wait_for(self._client.acquire(), LET_GO_S)
                    stack.callback(self._client.release)
                while await self._one(reader, writer):
                    pass
        except TimeoutError:
            logger.warning("a second connection is refused")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read and answer one line; whether the connection goes on."""
        self.faults.refresh()
        if self.faults.take("unplugged", ""):
            return False
        line = (await reader.readuntil(END)).decode("latin-1").strip()
        self.faults.refresh()
        names = command_names(line) or ("",)

        def take(fault: str) -> Fault | None:
            return next((hit for name in names if (hit := self.faults.take(fault, name))), None)

        if take("unplugged") or take("drop_unheard"):
            return False
        data = await self.answer(line)
        late_s = sum(fault.delay_s for name in ("slow", "stall") if (fault := take(name)))
        if late_s > 0:
            await asyncio.sleep(late_s)
        if not data:
            return True
        if take("hang"):
            while await reader.read(LONGEST_LINE):
                pass
            return False
        if take("drop"):
            return False
        if take("truncate"):
            writer.write(data[: len(data) // 2])
            await writer.drain()
            return False
        writer.write((self._chance.randbytes(64) if take("garbage") else data) + END)
        await writer.drain()
        return True

    async def _pass(self, duration_s: float) -> None:
        if self._config.is_virtual:
            self.smu.run_to(self.smu.now_s + duration_s)
        else:
            await self._clock.sleep(duration_s)
            self.catch_up()

    async def tick(self) -> None:
        """Live on with the clock, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            if not self._busy.locked():
                self.catch_up()
                self.keep()

    def keep(self, *, now: bool = False) -> None:
        """Write the cell down where it is time to, or now."""
        switched, kept_s = self._kept_at
        if not now and switched == self.smu.switched and time.monotonic() - kept_s < KEEP_S:
            return
        self._kept_at = (self.smu.switched, time.monotonic())
        self._state.write(
            Kept(
                version=VERSION,
                cell=_cell_key(self._config),
                state=self.smu.cell.state(),
                now_s=self.smu.now_s,
                epoch_unix_s=self.smu.unix_time_s - self.smu.now_s,
                wall_unix_s=time.time(),
            )
        )


@contextlib.asynccontextmanager
async def serve_smu(
    config: SmuConfig, clock: Clock | None = None, *, cell: SimulatedCell | None = None
) -> AsyncIterator[SimulatedSmu]:
    """A SourceMeter that serves until the block is left; its ``port`` and ``time_port`` are true.

    ``clock`` is its time unless ``config.speed`` is ``virtual``; None makes one of the config's
    speed. ``cell`` is connected in place of the config's.

    Raises:
        ConfigError: the state directory belongs to another process, or the cell cannot be built.
        OSError: an address cannot be listened on.
    """
    clock = config.clock() if clock is None else clock
    state = StateFile(Path(config.state_dir) if config.state_dir else None)
    with contextlib.closing(state):
        smu = await asyncio.to_thread(_built, config, clock, state, cell)
        served = SimulatedSmu(config, smu, clock, state)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(served.keep, now=True)
            if config.time_port is not None:
                listening = await stack.enter_async_context(
                    serve_time(served.advance, host=config.host, port=config.time_port)
                )
                served.time_port = listening.port
            await stack.enter_async_context(_serving(served, config))
            yield served


@contextlib.asynccontextmanager
async def _serving(served: SimulatedSmu, config: SmuConfig) -> AsyncIterator[None]:
    await served.plug()
    tasks = [asyncio.create_task(follow_faults(served.faults, served), name="faults")]
    if not config.is_virtual:
        tasks.append(asyncio.create_task(served.tick(), name="tick"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await served.unplug()


def _built(config: SmuConfig, clock: Clock, state: StateFile, cell: SimulatedCell | None) -> Smu:
    cell = _cell(config) if cell is None else cell
    kept = state.read()
    if kept is not None and kept.cell != _cell_key(config):
        kept = None
    wall_unix_s = time.time() if isinstance(clock, RealClock) else clock.unix_time_s()
    epoch_unix_s = wall_unix_s if config.epoch_unix_s is None else config.epoch_unix_s
    now_s = 0.0
    if kept is not None:
        cell.restore(kept.state)
        now_s, epoch_unix_s = kept.now_s, kept.epoch_unix_s
        if isinstance(clock, RealClock) and not config.is_virtual:
            away_s = max(0.0, wall_unix_s - kept.wall_unix_s) * clock.speed
            cell.advance(Control.REST, 0.0, away_s, until=Until(), recorder=Recorder())
            now_s += away_s
    faults_file = Path(config.state_dir) / FAULTS_FILE if config.state_dir else None
    return Smu(
        Identity(config.model, config.serial, config.firmware),
        MODELS[config.model],
        cell,
        Electronics(config.seed, config.errors),
        FaultBoard(config.faults, faults_file),
        line_Hz=config.line_Hz,
        epoch_unix_s=epoch_unix_s,
        now_s=now_s,
        off_state=config.off_state,
    )


def _cell(config: SmuConfig) -> SimulatedCell:
    if config.cell is None:
        return Resistor(config.load_ohm)
    from labctl.simulators.cells import build_cell

    try:
        return build_cell(config.cell)
    except ValueError as error:
        raise ConfigError([Problem(f"cell: {error}")]) from error


def _cell_key(config: SmuConfig) -> str:
    if config.cell is None:
        return f"{config.load_ohm:g} ohm"
    return msgspec.json.encode(config.cell, order="sorted").decode()
