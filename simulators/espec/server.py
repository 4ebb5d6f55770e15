"""A climate chamber on a TCP port or a serial line, and its time port beside it.

Time: a real or hastened clock moves the chamber on whenever somebody asks and some times a second
besides. In virtual time only the time port does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from labctl.clock import Clock
from labctl.simulators.espec.chamber import OFF, STANDBY, Chamber
from labctl.simulators.espec.commands import Controller
from labctl.simulators.espec.config import ChamberConfig
from labctl.simulators.espec.persist import StateFile
from labctl.simulators.espec.wire import LONGEST_LINE, Then, Wire
from labctl.simulators.faults import FaultBoard
from labctl.simulators.palmsens.port import PtyPort
from labctl.simulators.server import Socket, follow_faults
from labctl.simulators.timeport import serve_time

logger = logging.getLogger(__name__)

FAULTS_FILE: Final = "faults.json"
TICK_S: Final = 0.2
KEEP_S: Final = 1.0
AWAY_S: Final = 0.2
"""How long a serial line is away that a fault closed."""
LET_GO_S: Final = 0.3
"""How long a new connection waits for the one before to be gone."""


class SimulatedChamber:
    """A chamber that can be talked to; :func:`serve_chamber` gives one.

    host, port: where it listens, port 0 if it does not. address: what a driver calls its place.
    time_port: 0 where there is none.
    """

    def __init__(self, config: ChamberConfig, clock: Clock, state: StateFile) -> None:
        self.host = config.host
        self.port = 0
        self.time_port = 0
        self.address = ""
        self.chamber = Chamber(config)
        state.restore(self.chamber)
        faults_file = Path(config.state_dir) / FAULTS_FILE if config.state_dir else None
        self.faults = FaultBoard(config.faults, faults_file)
        self.wire = Wire(
            Controller(self.chamber, epoch_unix_s=clock.unix_time_s()),
            self.faults,
            catch_up=self.catch_up,
            changed=self.keep,
        )
        self._config = config
        self._clock = clock
        self._state = state
        self._offset_s = self.chamber.now_s - clock.monotonic_s()
        self._client = asyncio.Lock()
        self._pty: PtyPort | None = None
        self._socket: Socket | None = None
        if config.link:
            link = None if config.link == "auto" else Path(config.link)
            self._pty = PtyPort(self._hear, link=link, waits=False)
        else:
            self._socket = Socket(
                self.converse, host=config.host, port=config.tcp_port, limit_bytes=LONGEST_LINE
            )
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._partial = b""
        self._kept_s = 0.0

    def advance(self, duration_s: float) -> float:
        """Move virtual time on; what time it is then."""
        self._look_for_faults()
        self.chamber.advance(duration_s)
        if time.monotonic() - self._kept_s > KEEP_S:
            self.keep()
        return self.chamber.now_s

    def catch_up(self) -> None:
        """Live on to the present, where time is not virtual."""
        self._look_for_faults()
        if not self._config.is_virtual:
            now_s = self._clock.monotonic_s() + self._offset_s
            self.chamber.advance(max(0.0, now_s - self.chamber.now_s))

    def keep(self) -> None:
        """Write the chamber's state down."""
        self._kept_s = time.monotonic()
        self._state.write(self.chamber)

    async def tick(self) -> None:
        """Live on with the clock, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.catch_up()
            if time.monotonic() - self._kept_s > KEEP_S:
                self.keep()

    async def plug(self) -> None:
        """Appear, at the same place as before. Idempotent.

        Raises:
            OSError: the address cannot be listened on, or the link cannot be made.
        """
        if self._pty is not None:
            self._pty.plug()
            self.address = self._pty.path if self._config.link == "auto" else self._config.link
        elif self._socket is not None:
            await self._socket.plug()
            self.port = self._socket.port
            self.address = f"{self.host}:{self.port}"

    async def unplug(self) -> None:
        """Pull its cable: it works on, and nobody can connect until :meth:`plug`. Idempotent."""
        if self._pty is not None:
            self._pty.unplug()
            self._partial, self._lines = b"", asyncio.Queue()
        elif self._socket is not None:
            await self._socket.unplug()

    @property
    def plugged(self) -> bool:
        return any(end is not None and end.plugged for end in (self._socket, self._pty))

    async def power_cut(self) -> None:
        """Switch it off and on: it keeps what it is set to, and stands still."""
        plugged = self.plugged
        await self.unplug()
        self.catch_up()
        self.chamber.switch(OFF)
        self.chamber.switch(STANDBY)
        self.keep()
        if plugged:
            await self.plug()

    async def talk_serially(self, pty: PtyPort) -> None:
        """Answer what comes on the serial line, until cancelled."""
        while True:
            said = await self.wire.answer(await self._lines.get())
            if said.data:
                await pty.write(said.data)
            if said.then is Then.CLOSE:
                await self.unplug()
                await asyncio.sleep(AWAY_S)
                await self.plug()

    def serial_line(self) -> PtyPort | None:
        """Its serial line, None if it is on a network."""
        return self._pty

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one TCP connection until it ends."""
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
        if self.wire.unplugged:
            return False
        said = await self.wire.answer(await reader.readuntil(b"\n"))
        writer.write(said.data)
        await writer.drain()
        while said.then is Then.SILENCE and await reader.read(LONGEST_LINE):
            pass
        return said.then is Then.LISTEN

    def _hear(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-LONGEST_LINE:]
        for line in lines:
            self._lines.put_nowait(line)

    def _look_for_faults(self) -> None:
        self.faults.refresh()
        self.chamber.heater_stays_on = self.faults.standing("over_temperature") is not None


@contextlib.asynccontextmanager
async def serve_chamber(
    config: ChamberConfig, clock: Clock | None = None
) -> AsyncIterator[SimulatedChamber]:
    """A chamber that serves until the block is left; its ``address`` is where.

    ``clock`` is its time unless ``config.speed`` is ``virtual``; None makes one of the config's
    speed.

    Raises:
        ConfigError: the state directory belongs to another process.
        OSError: an address cannot be listened on, or the link cannot be made.
    """
    clock = config.clock() if clock is None else clock
    state = StateFile(Path(config.state_dir) if config.state_dir else None)
    with contextlib.closing(state):
        served = SimulatedChamber(config, clock, state)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(served.keep)
            if config.time_port is not None:
                listening = await stack.enter_async_context(
                    serve_time(served.advance, host=config.host, port=config.time_port)
                )
                served.time_port = listening.port
            await stack.enter_async_context(_serving(served))
            yield served


@contextlib.asynccontextmanager
async def _serving(served: SimulatedChamber) -> AsyncIterator[None]:
    await served.plug()
    tasks = [
        asyncio.create_task(served.tick(), name="tick"),
        asyncio.create_task(follow_faults(served.faults, served), name="faults"),
    ]
    if pty := served.serial_line():
        tasks.append(asyncio.create_task(served.talk_serially(pty), name="serial line"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await served.unplug()
