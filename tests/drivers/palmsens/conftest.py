"""A simulated instrument on a pseudo-terminal or a TCP port, and drivers to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labctl.clock import RealClock
from labctl.drivers.base import Looked, Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.driver import PalmSens
from labctl.model import FloatColumn, Readings
from labctl.program import Limits
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import SimulatedPotentiostat, serve_potentiostat

HE_V = CellSpec(name="HEV-01", material="HE-V", active_mass_g=0.002, seed=1)


class Lab:
    """An instrument, and the drivers that were made to it."""

    def __init__(self, simulated: SimulatedPotentiostat, folder: Path) -> None:
        self.simulated = simulated
        self.folder = folder
        self.drivers: list[PalmSens] = []

    def driver(self, **options: Any) -> PalmSens:
        config: dict[str, Any] = {
            "port": self.simulated.address,
            "model": "EmStat4S HR",
            "lock_dir": str(self.folder / "locks"),
            "slowest_sample_s": 2.0,
            "reply_timeout_s": 5.0,
            **options,
        }
        driver = PalmSens(PalmSensConfig(**config), name="ps 1", clock=RealClock())
        self.drivers.append(driver)
        return driver

    async def opened(self, **options: Any) -> PalmSens:
        driver = self.driver(**options)
        await driver.open()
        return driver

    @property
    def cell_is_on(self) -> bool:
        return self.simulated.device.on


LabMaker = Callable[..., AbstractAsyncContextManager[Lab]]


@pytest.fixture
def lab(tmp_path: Path) -> LabMaker:
    """Makes an instrument with an HE-V half cell, in virtual time unless told otherwise."""

    @contextlib.asynccontextmanager
    async def make(**options: Any) -> AsyncIterator[Lab]:
        config: dict[str, Any] = {
            "speed": "virtual",
            "cell": HE_V,
            "link": str(tmp_path / "ps"),
            **options,
        }
        async with serve_potentiostat(PotentiostatConfig(**config)) as simulated:
            made = Lab(simulated, tmp_path)
            try:
                yield made
            finally:
                for driver in made.drivers:
                    await driver.close()

    return make


class Made:
    """Everything that was read in one visit."""

    def __init__(self, limits: Limits, looks: list[Looked]) -> None:
        self.limits = limits
        self.last = looks[-1]
        self.spectra = [spectrum for look in looks for spectrum in look.spectra]
        self._blocks = [look.readings for look in looks if len(look.readings)]

    def column(self, name: str) -> FloatColumn:
        values: FloatColumn = np.concatenate([getattr(block, name) for block in self._blocks])
        return values

    @property
    def readings(self) -> list[Readings]:
        return self._blocks


@pytest.fixture
def make_visit() -> Callable[..., Any]:
    """Arms, begins and follows a visit to its end."""

    async def make(driver: PalmSens, task: Task) -> Made:
        limits = await driver.arm("1", task)
        await driver.begin("1", task)
        looks = [await driver.look("1")]
        while not looks[-1].ended:
            looks.append(await driver.look("1"))
        return Made(limits, looks)

    return make
