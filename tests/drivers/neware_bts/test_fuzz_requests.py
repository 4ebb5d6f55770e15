"""Whatever is asked of a BTS host: refused when it is planned, or done without an error."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from hypothesis import given
from rack_lab import Lab, rack_config
from wild_programs import channels, program_of, programs, tags, tasks
from wire_fuzz import fuzz, typed

from labctl.drivers.base import Armed, ChannelState, Started, Task
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.errors import InstrumentError, LabctlError, PlanError
from labctl.program import HOST_CONTROLS, Program
from labctl.simulators.neware_bts.rack import serve_rack

NAME = "rack 1"
CHANNEL = "21-1-1"


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        async with serve_rack(rack_config()) as rack:
            made = Lab(rack, Path(folder))
            try:
                yield made
            finally:
                for driver in made.drivers:
                    await driver.close()


async def ask(driver: NewareBts, program: Program, tag: str) -> None:
    refused = driver.refusals(program)
    armed = await typed(driver.arm(CHANNEL, program, tag), NAME)
    hosts = any(isinstance(step.control, HOST_CONTROLS) for step in program.steps)
    if refused or hosts or not program.steps:
        assert isinstance(armed, PlanError), (refused, armed)
        return
    assert isinstance(armed, Armed), armed
    started = await typed(driver.start(armed), NAME)
    assert isinstance(started, Started), started
    next_index = 1
    for _ in range(3):
        followed = await typed(driver.follow(started, program, next_index), NAME)
        assert not isinstance(followed, LabctlError), followed
        next_index = followed.next_index
        if followed.complete:
            break
    stopped = await typed(driver.stop(CHANNEL), NAME)
    assert not isinstance(stopped, LabctlError), stopped
    status = await typed(driver.status(CHANNEL), NAME)
    assert not isinstance(status, LabctlError), status
    assert status.state is not ChannelState.RUNNING


def test_every_program_is_refused_by_name_or_run_without_an_error() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        driver = runner.run(stack.enter_async_context(lab())).new_driver()
        numbers = itertools.count()

        @fuzz(25)
        @given(tasks)
        def check(work: Task) -> None:
            runner.run(ask(driver, program_of(work), f"run-{next(numbers)}"))

        @fuzz(25)
        @given(programs)
        def check_programs(program: Program) -> None:
            runner.run(ask(driver, program, f"run-{next(numbers)}"))

        try:
            check()
            check_programs()
        finally:
            runner.run(stack.aclose())


def test_a_channel_that_is_not_there_and_a_tag_that_names_no_file_are_refused() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        driver = runner.run(stack.enter_async_context(lab())).new_driver()

        async def asked(channel: str, program: Program, tag: str) -> None:
            if channel != CHANNEL:
                for call in (driver.status, driver.stop, driver.pause, driver.resume):
                    assert isinstance(await typed(call(channel), NAME), InstrumentError)
            if tag != "run-1":
                armed = await typed(driver.arm(CHANNEL, program, tag), NAME)
                assert isinstance(armed, PlanError | InstrumentError) or tag == "x" * 200

        @fuzz(15)
        @given(channels, programs, tags)
        def check(channel: str, program: Program, tag: str) -> None:
            runner.run(asked(channel, program, tag))

        try:
            check()
        finally:
            runner.run(stack.aclose())
