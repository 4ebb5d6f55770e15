"""Whatever is asked of a potentiostat: refused when it is planned, or done without an error."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from wild_programs import channels, program_of, programs, tasks
from wire_fuzz import HastyClock, fuzz, typed

from labctl.drivers.base import Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.driver import PalmSens
from labctl.drivers.palmsens.models import MODELS
from labctl.errors import InstrumentError, LabctlError, PlanError
from labctl.program import HOST_CONTROLS, Limits, Program
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import SimulatedPotentiostat, serve_potentiostat

NAME = "ps 1"
HE_V = CellSpec(name="HEV-01", material="HE-V", active_mass_g=0.002, seed=1)


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[tuple[SimulatedPotentiostat, PalmSens]]:
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        link = str(Path(folder) / "ps")
        config = PotentiostatConfig(speed="virtual", cell=HE_V, link=link)
        async with serve_potentiostat(config) as simulated:
            driver = PalmSens(
                PalmSensConfig(
                    port=link, model="EmStat4S HR", lock_dir=folder, slowest_sample_s=2.0
                ),
                name=NAME,
                clock=HastyClock(),
            )
            await driver.open()
            try:
                yield simulated, driver
            finally:
                await driver.close()


@fuzz(60)
@given(programs, st.sampled_from(sorted(MODELS)))
def test_every_program_is_judged_without_an_instrument(program: Program, model: str) -> None:
    config = PalmSensConfig(port="/dev/null", model=model)
    for reason in PalmSens(config, name=NAME, clock=HastyClock()).refusals(program):
        assert reason.strip()


async def ask(simulated: SimulatedPotentiostat, driver: PalmSens, work: Task) -> None:
    refused = driver.refusals(program_of(work))
    armed = await typed(driver.arm("1", work), NAME)
    if refused or isinstance(work.step.control, HOST_CONTROLS) or isinstance(armed, PlanError):
        assert isinstance(armed, PlanError), refused
        assert not simulated.device.on
        return
    assert isinstance(armed, Limits), armed
    assert not simulated.device.on
    begun = await typed(driver.begin("1", work), NAME)
    assert not isinstance(begun, LabctlError), begun
    for _ in range(2):
        looked = await typed(driver.look("1"), NAME)
        assert not isinstance(looked, LabctlError), looked
        if looked.ended:
            break
    off = await typed(driver.off("1"), NAME)
    assert not isinstance(off, LabctlError), off
    assert not simulated.device.on


def test_every_visit_is_refused_by_name_or_made_without_an_error() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        simulated, driver = runner.run(stack.enter_async_context(lab()))

        @fuzz(40)
        @given(tasks)
        def check(work: Task) -> None:
            runner.run(ask(simulated, driver, work))

        try:
            check()
        finally:
            runner.run(stack.aclose())


@fuzz(20)
@given(channels, st.text(max_size=10), tasks)
def test_a_channel_or_an_output_that_is_not_there_is_named(
    channel: str, output: str, work: Task
) -> None:
    config = PalmSensConfig(port="/dev/null", model="EmStat4S HR")
    driver = PalmSens(config, name=NAME, clock=HastyClock())

    async def asked() -> None:
        if channel != "1":
            for call in (driver.status, driver.look, driver.off):
                assert isinstance(await typed(call(channel), NAME), InstrumentError)
            assert isinstance(await typed(driver.arm(channel, work), NAME), InstrumentError)
            assert isinstance(await typed(driver.begin(channel, work), NAME), InstrumentError)
        if not output.startswith("GPIO"):
            assert isinstance(await typed(driver.pulse("1", output), NAME), InstrumentError)

    asyncio.run(asked())
