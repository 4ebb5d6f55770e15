"""A driver on a simulated SourceMeter with a cell, over real sockets, in virtual time.

As in a node, the driver's own clock is the wall's: only who waits between looks knows virtual time.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labctl.clock import RealClock
from labctl.drivers.base import Looked, Task
from labctl.drivers.keithley.config import KeithleyConfig
from labctl.drivers.keithley.driver import Keithley
from labctl.model import FloatColumn, Readings
from labctl.program import (
    Comparison,
    Control,
    EndCondition,
    Limits,
    Quantity,
    RecordRule,
    Step,
)
from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control as CellControl
from labctl.simulators.cells.interface import Recorder, SimulatedCell, Until
from labctl.simulators.faults import Fault, write_faults
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import SimulatedSmu, serve_smu
from labctl.wire.timelink import SteppedClock

SERIAL = "04419969"
HEV = CellSpec(name="HEV-01", material="HE-V", active_mass_g=0.002, scatter=0.0)
ONE_C_A = 2e-4
LIMITS = Limits(
    voltage_min_V=1.0,
    voltage_max_V=4.4,
    current_min_A=-0.012,
    current_max_A=0.012,
    step_charge_max_Ah=5e-4,
    duration_max_s=1e7,
)


def hev(charged_to_V: float | None = None) -> ModelCell:
    """A nominal HE-V cell of 2 mg, as assembled or charged at 1C to a voltage and rested."""
    cell = build_cell(HEV)
    if charged_to_V is not None:
        lived(cell, CellControl.CURRENT, ONE_C_A, 1e5, Until(voltage_at_least_V=charged_to_V))
        lived(cell, CellControl.REST, 0.0, 600.0, Until())
    return cell


def lived(
    cell: SimulatedCell, control: CellControl, setpoint: float, duration_s: float, until: Until
) -> float:
    """The charge in Ah that went through the cell."""
    return cell.advance(
        control, setpoint, duration_s, until=until, recorder=Recorder()
    ).end_charge_Ah


def rises_to(voltage_V: float) -> EndCondition:
    return EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, voltage_V)


def falls_to(voltage_V: float) -> EndCondition:
    return EndCondition(Quantity.VOLTAGE_V, Comparison.AT_MOST, voltage_V)


def current_falls_to(current_A: float) -> EndCondition:
    return EndCondition(Quantity.CURRENT_A, Comparison.AT_MOST, current_A)


def after(time_s: float) -> EndCondition:
    return EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, time_s)


def step(control: Control, *ends: EndCondition, every_s: float = 30.0, index: int = 3) -> Step:
    return Step(index, "a step", control, ends, RecordRule(every_s=every_s))


def task(control: Control, *ends: EndCondition, limits: Limits = LIMITS, **options: Any) -> Task:
    return Task(step=step(control, *ends, **options), limits=limits, tag="run-7/3")


@dataclass(frozen=True)
class Visited:
    """What one visit measured, and how it ended; ``true_V`` are the cell's own at every look."""

    readings: Readings
    last: Looked
    true_V: list[float]

    @property
    def time_s(self) -> FloatColumn:
        return self.readings.step_time_s

    @property
    def charge_Ah(self) -> float:
        return float(self.readings.step_charge_Ah[-1])


@dataclass(frozen=True)
class Bench:
    simulator: SimulatedSmu
    clock: SteppedClock
    driver: Keithley
    faults_file: Path

    @property
    def output_on(self) -> bool:
        return self.simulator.smu.output.on

    @property
    def cell_V(self) -> float:
        """The cell's true voltage at its terminals."""
        return self.simulator.smu.output.voltage_V

    def fault(self, *faults: Fault) -> None:
        """The faults that are in force from here on."""
        write_faults(self.faults_file, faults)

    async def started(self, work: Task) -> Limits:
        limits = await self.driver.arm("1", work)
        await self.driver.begin("1", work)
        return limits

    async def visit(self, work: Task, *, until_s: float = 1e9) -> Visited:
        """Make a visit until the instrument ends it, or for ``until_s``."""
        await self.started(work)
        return await self.follow(work, until_s=until_s)

    async def follow(self, work: Task, *, until_s: float) -> Visited:
        period_s = self.driver.sample_period_s(work)
        blocks: list[Readings] = []
        true_V: list[float] = []
        time_s = 0.0
        while True:
            await self.clock.sleep(period_s)
            true_V.append(self.cell_V)
            looked = await self.driver.look("1")
            if len(looked.readings):
                blocks.append(looked.readings)
                time_s = float(looked.readings.step_time_s[-1])
            if looked.ended or time_s >= until_s:
                return Visited(joined(blocks), looked, true_V)


def joined(blocks: list[Readings]) -> Readings:
    names = Readings.__dataclass_fields__
    return Readings(*(np.concatenate([getattr(block, name) for block in blocks]) for name in names))


@contextlib.asynccontextmanager
async def bench(
    cell: SimulatedCell | None = None,
    *,
    simulator: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Bench]:
    """``options`` are the driver's, ``simulator`` the simulator's."""
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        settings = {"port": 0, "time_port": 0, "speed": "virtual", "serial": SERIAL}
        config = SmuConfig(**{**settings, "state_dir": folder, **(simulator or {})})
        async with _driven(config, cell, Path(folder), options) as lab:
            yield lab


@contextlib.asynccontextmanager
async def _driven(
    config: SmuConfig, cell: SimulatedCell | None, folder: Path, options: dict[str, Any]
) -> AsyncIterator[Bench]:
    async with serve_smu(config, cell=cell) as smu:
        clock = SteppedClock(smu.host, smu.time_port)
        driver = Keithley(
            KeithleyConfig(
                **{
                    "resource": f"TCPIP::{smu.host}::{smu.port}::SOCKET",
                    "serial": SERIAL,
                    **options,
                }
            ),
            name="smu 1",
            clock=RealClock(),
        )
        try:
            yield Bench(smu, clock, driver, folder / "faults.json")
        finally:
            await driver.close()
            await clock.close()
