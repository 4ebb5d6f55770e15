"""A simulated PalmSens instrument at a serial port, or at a TCP port.

Time: in virtual time the instrument's passes as fast as what it writes is read, and stands still
while no script runs. Otherwise its cell lives on with the clock, at rest between scripts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from labctl.clock import Clock, RealClock
from labctl.errors import ConfigError, Problem
from labctl.simulators.cells.interface import Control, Recorder, SimulatedCell, Until
from labctl.simulators.faults import FaultBoard
from labctl.simulators.keithley.loads import Resistor
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.device import Potentiostat
from labctl.simulators.palmsens.instrument import Instrument
from labctl.simulators.palmsens.models import MODELS
from labctl.simulators.palmsens.persist import VERSION, Kept, StateFile
from labctl.simulators.palmsens.port import PtyPort, TcpPort
from labctl.simulators.server import follow_faults

FAULTS_FILE: Final = "faults.json"
KEEP_S: Final = 1.0
LEAST_UNPLUGGED_S: Final = 0.2


class SimulatedPotentiostat:
    """An instrument that can be talked to; :func:`serve_potentiostat` gives one.

    address: what a driver calls its port.
    """

    def __init__(
        self, config: PotentiostatConfig, instrument: Instrument, state: StateFile
    ) -> None:
        self.address = ""
        self.instrument = instrument
        self._config = config
        self._state = state
        self._pty: PtyPort | None = None
        self._tcp: TcpPort | None = None
        self._replug: asyncio.TimerHandle | None = None

    @property
    def device(self) -> Potentiostat:
        return self.instrument.device

    @property
    def faults(self) -> FaultBoard:
        return self.instrument.faults

    async def connect(self) -> None:
        """Appear at the port.

        Raises:
            OSError: it cannot be made.
        """
        waits = self._config.is_virtual
        if self._config.port is None:
            link = Path(self._config.link) if self._config.link else None
            self._pty = PtyPort(self.instrument.hear, link=link, waits=waits)
            self._pty.plug()
            self.address = str(link or self._pty.path)
            self.instrument.send = self._pty.write
        else:
            self._tcp = TcpPort(self.instrument.hear, waits=waits)
            port = await self._tcp.listen(self._config.host, self._config.port)
            self.address = f"socket://{self._config.host}:{port}"
            self.instrument.send = self._tcp.write
        self.instrument.unplug = self._unplug_for

    async def close(self) -> None:
        """Be gone for good."""
        if self._replug is not None:
            self._replug.cancel()
        if self._pty is not None:
            self._pty.unplug()
        if self._tcp is not None:
            await self._tcp.close()
        self.keep()

    def unplug(self) -> None:
        """Pull the plug; :meth:`plug` puts it back. Over TCP the connection is closed."""
        if self._pty is not None:
            self._pty.unplug()
        if self._tcp is not None:
            self._tcp.disconnect()
        self.instrument.lose_power()

    def plug(self) -> None:
        """Put the plug back."""
        if self._pty is not None:
            self._pty.plug()
            if not self._config.link:
                self.address = self._pty.path

    def power_cut(self) -> None:
        """Switch it off and on: its script is gone, and the cell is off."""
        self.instrument.power_cut()

    def keep(self) -> None:
        """Write the cell down."""
        self.instrument.catch_up()
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

    async def _unplug_for(self, duration_s: float) -> None:
        self.unplug()
        self._replug = asyncio.get_running_loop().call_later(
            max(LEAST_UNPLUGGED_S, duration_s), self.plug
        )


class _Plugs:
    """What faults do to it."""

    def __init__(self, served: SimulatedPotentiostat) -> None:
        self._served = served

    async def plug(self) -> None:
        self._served.plug()

    async def unplug(self) -> None:
        self._served.unplug()

    async def power_cut(self) -> None:
        self._served.power_cut()


@contextlib.asynccontextmanager
async def serve_potentiostat(
    config: PotentiostatConfig, clock: Clock | None = None, *, cell: SimulatedCell | None = None
) -> AsyncIterator[SimulatedPotentiostat]:
    """An instrument that serves until the block is left; its ``address`` is where.

    ``clock`` is its time; None makes one of the config's speed. ``cell`` is connected in place of
    the config's.

    Raises:
        ConfigError: the state directory belongs to another process, or the cell cannot be built.
        OSError: the port cannot be made.
    """
    clock = config.clock() if clock is None else clock
    state = StateFile(Path(config.state_dir) if config.state_dir else None)
    with contextlib.closing(state):
        device = await asyncio.to_thread(_built, config, clock, state, cell)
        faults_file = Path(config.state_dir) / FAULTS_FILE if config.state_dir else None
        instrument = Instrument(
            device,
            serial=config.serial,
            clock=clock,
            faults=FaultBoard(config.faults, faults_file),
            seed=config.seed,
            powered_by_line=config.powered_by_line,
        )
        served = SimulatedPotentiostat(config, instrument, state)
        instrument.script_over = served.keep
        tasks = [asyncio.create_task(instrument.work(), name="instrument")]
        if config.state_dir:
            tasks.append(asyncio.create_task(served.keep_on(), name="keeping"))
        try:
            await served.connect()
            obeying = follow_faults(instrument.faults, _Plugs(served))
            tasks.append(asyncio.create_task(obeying, name="faults"))
            yield served
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await served.close()


def _built(
    config: PotentiostatConfig, clock: Clock, state: StateFile, cell: SimulatedCell | None
) -> Potentiostat:
    cell = _cell(config) if cell is None else cell
    kept = state.read()
    if kept is not None and kept.cell == _cell_key(config):
        cell.restore(kept.state)
        if isinstance(clock, RealClock):
            away_s = max(0.0, time.time() - kept.wall_unix_s) * clock.speed
            cell.advance(Control.REST, 0.0, away_s, until=Until(), recorder=Recorder())
    return Potentiostat(MODELS[config.model], cell, seed=config.seed, scale=config.errors)


def _cell(config: PotentiostatConfig) -> SimulatedCell:
    if config.cell is None:
        return Resistor(config.load_ohm)
    from labctl.simulators.cells import build_cell

    try:
        return build_cell(config.cell)
    except ValueError as error:
        raise ConfigError([Problem(f"cell: {error}")]) from error


def _cell_key(config: PotentiostatConfig) -> str:
    if config.cell is None:
        return f"{config.load_ohm:g} ohm"
    return msgspec.json.encode(config.cell, order="sorted").decode()
