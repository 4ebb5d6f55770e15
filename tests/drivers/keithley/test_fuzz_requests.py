"""Whatever is asked of a SourceMeter: refused when it is planned, or done without an error."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import given
from hypothesis import strategies as st
from smu_bench import Bench, after, bench, hev, task
from wild_programs import channels, program_of, programs, tasks
from wire_fuzz import fuzz, typed

from labctl.clock import VirtualClock
from labctl.drivers.base import Task
from labctl.drivers.keithley.config import MODELS, KeithleyConfig
from labctl.drivers.keithley.driver import Keithley
from labctl.errors import InstrumentError, LabctlError, PlanError
from labctl.program import HOST_CONTROLS, Limits, Program, Rest

NAME = "smu 1"


def driver_of(model: str) -> Keithley:
    config = KeithleyConfig(resource="TCPIP::smu::5025::SOCKET", model=model)
    return Keithley(config, name=NAME, clock=VirtualClock())


@fuzz(100)
@given(programs, st.sampled_from(sorted(MODELS)))
def test_every_program_is_judged_without_an_instrument(program: Program, model: str) -> None:
    for reason in driver_of(model).refusals(program):
        assert reason.strip()


def _holds(limits: Limits, lab: Bench) -> bool:
    return limits.voltage_min_V <= lab.cell_V <= limits.voltage_max_V


async def ask(lab: Bench, work: Task) -> None:
    driver = lab.driver
    refused = driver.refusals(program_of(work))
    armed = await typed(driver.arm("1", work), NAME)
    if refused or isinstance(work.step.control, HOST_CONTROLS) or isinstance(armed, PlanError):
        assert isinstance(armed, PlanError), refused
        assert not lab.output_on
        return
    assert isinstance(armed, Limits), armed
    assert not lab.output_on
    assert driver.sample_period_s(work) > 0
    begun = await typed(driver.begin("1", work), NAME)
    if isinstance(begun, InstrumentError):
        assert "finds the cell at" in str(begun)
        return
    assert not isinstance(begun, LabctlError), begun
    for _ in range(2):
        await lab.clock.sleep(2 * driver.sample_period_s(work))
        looked = await typed(driver.look("1"), NAME)
        if isinstance(looked, InstrumentError) and not _holds(work.limits, lab):
            assert "does not see the cell" in str(looked)
            return
        assert not isinstance(looked, LabctlError), looked
        if looked.ended:
            break
    off = await typed(driver.off("1"), NAME)
    assert not isinstance(off, LabctlError), off
    assert not lab.output_on


def test_every_visit_is_refused_by_name_or_made_without_an_error() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        lab = runner.run(stack.enter_async_context(bench(hev())))

        @fuzz(40)
        @given(tasks)
        def check(work: Task) -> None:
            runner.run(ask(lab, work))

        try:
            check()
        finally:
            runner.run(stack.aclose())


@fuzz(20)
@given(channels, st.text(max_size=10))
def test_a_channel_or_an_output_that_is_not_there_is_named(channel: str, output: str) -> None:
    driver = driver_of("2450")
    work = task(Rest(), after(600.0))

    async def asked() -> None:
        calls = [driver.status, driver.look, driver.off]
        if channel != "1":
            for call in calls:
                assert isinstance(await typed(call(channel), NAME), InstrumentError)
            assert isinstance(await typed(driver.arm(channel, work), NAME), InstrumentError)
            assert isinstance(await typed(driver.begin(channel, work), NAME), InstrumentError)
        if not output.startswith("digital "):
            assert isinstance(await typed(driver.pulse("1", output), NAME), InstrumentError)

    asyncio.run(asked())
