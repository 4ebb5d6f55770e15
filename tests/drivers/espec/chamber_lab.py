"""A driver on a simulated chamber, over a real socket or terminal, in virtual time unless said
otherwise; as in a node, the driver's own clock is the wall's."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.clock import RealClock
from labctl.drivers.base import Identity
from labctl.drivers.espec.config import EspecConfig
from labctl.drivers.espec.driver import Espec
from labctl.errors import LinkError
from labctl.simulators.espec.config import ChamberConfig
from labctl.simulators.espec.server import SimulatedChamber, serve_chamber
from labctl.simulators.faults import Fault, write_faults
from labctl.wire.timelink import SteppedClock

NO_PAUSE = {"monitor_pause_s": 0.0, "setting_pause_s": 0.0}


@dataclass(frozen=True)
class ChamberLab:
    simulated: SimulatedChamber
    clock: SteppedClock
    driver: Espec
    faults_file: Path

    @property
    def air_degC(self) -> float:
        """What the air is at in truth."""
        return self.simulated.chamber.temperature_degC

    async def opened(self) -> Identity:
        """Who is there, as soon as it answers: a terminal may be held for a moment by whoever had
        its number before."""
        async with asyncio.timeout(10.0):
            while True:
                try:
                    return await self.driver.open()
                except LinkError:
                    await asyncio.sleep(0)

    def fault(self, *faults: Fault) -> None:
        """The faults that are in force from here on."""
        write_faults(self.faults_file, faults)


@contextlib.asynccontextmanager
async def chamber_lab(
    *, simulator: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[ChamberLab]:
    """``options`` are the driver's, ``simulator`` the simulator's; ``serial`` among these puts it
    on a serial line, with a name that stays when it is plugged in again."""
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        wanted = {"speed": "virtual", "noise_K": 0.0, **(simulator or {})}
        if wanted.pop("serial", False):
            wanted["link"] = str(Path(folder) / "oven")
        else:
            wanted["port"] = 0
        if wanted["speed"] == "virtual":
            wanted["time_port"] = 0
        config = ChamberConfig(**{"state_dir": folder, **wanted})
        async with serve_chamber(config) as simulated:
            place = (
                {"port": simulated.address}
                if wanted.get("link")
                else {"host": simulated.host, "port": simulated.port}
            )
            driver = Espec(
                EspecConfig(**{**place, **NO_PAUSE, **options}), name="oven 1", clock=RealClock()
            )
            clock = SteppedClock(simulated.host, simulated.time_port)
            try:
                yield ChamberLab(simulated, clock, driver, Path(folder) / "faults.json")
            finally:
                await driver.close()
                await clock.close()
