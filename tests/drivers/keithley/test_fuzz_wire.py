"""Whatever comes over the wire from a SourceMeter: the right value, or an error that says why.

What counts as wrong, and what nobody can see, is said in docs/wire.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smu_bench import SERIAL, after, hev, rises_to, task
from wire_fuzz import DAMAGE, TRUE_WORDS, Deed, Meddler, babble, fuzz, in_the_end, plans, typed

from labctl.clock import VirtualClock
from labctl.drivers.base import ChannelStatus, Looked, Task
from labctl.drivers.keithley.config import KeithleyConfig
from labctl.drivers.keithley.driver import Keithley
from labctl.errors import LabctlError
from labctl.model import Readings
from labctl.program import ConstantCurrent, Limits, Rest
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import SimulatedSmu, serve_smu

NAME = "smu 1"
CHARGE = task(ConstantCurrent(2e-4), rises_to(4.1), after(36_000.0))
REST = task(Rest(), after(3600.0))
LOOKS = 5
ARMING = 45
"""About how many answers it takes to open and to arm."""


@dataclass
class Lab:
    smu: SimulatedSmu
    wire: Meddler
    faults_file: Path

    def driver(self) -> Keithley:
        config = KeithleyConfig(
            resource=f"TCPIP::127.0.0.1::{self.wire.port}::SOCKET",
            serial=SERIAL,
            reply_timeout_s=0.25,
            connect_timeout_s=2.0,
        )
        return Keithley(config, name=NAME, clock=VirtualClock())

    def live(self, duration_s: float) -> None:
        self.smu.advance(duration_s)

    def rows(self) -> list[tuple[float, float]]:
        """Source and reading of everything in the instrument's own buffer."""
        buffer = self.smu.smu.buffers["defbuffer1"]
        return [(row.source, row.reading) for row in buffer.rows(1, len(buffer))]

    @property
    def output_on(self) -> bool:
        return self.smu.smu.output.on


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        config = SmuConfig(
            port=0,
            time_port=0,
            speed="virtual",
            serial=SERIAL,
            state_dir=folder,
            single_client=False,
        )
        async with serve_smu(config, cell=hev()) as smu:
            async with Meddler(smu.port, b"\n").listening() as wire:
                yield Lab(smu, wire, Path(folder) / "faults.json")


def check_can_be(looked: Looked, before: Readings | None) -> None:
    """What can be seen of a reading: docs/wire.md, Keithley."""
    readings = looked.readings
    first = 1 if before is None else int(before.onboard_index[-1]) + 1
    assert readings.onboard_index.tolist() == list(range(first, first + len(readings)))
    times = [-math.inf if before is None else float(before.step_time_s[-1])]
    for time_s in readings.step_time_s.tolist():
        assert time_s > times[-1]
        assert time_s - max(times[-1], 0.0) < 20.0 or (len(times) == 1 and before is None)
        times.append(time_s)
    assert all(abs(value) <= 22.0 for value in readings.voltage_V.tolist())
    assert all(abs(value) <= 1.1e-3 for value in readings.current_A.tolist())


def check_true(lab: Lab, work: Task, looked: Looked) -> None:
    rows = lab.rows()
    for place, voltage_V, current_A in zip(
        looked.readings.onboard_index.tolist(),
        looked.readings.voltage_V.tolist(),
        looked.readings.current_A.tolist(),
        strict=True,
    ):
        pair = (
            (current_A, voltage_V)
            if isinstance(work.step.control, Rest)
            else (
                voltage_V,
                current_A,
            )
        )
        assert pair == pytest.approx(rows[place - 1], rel=1e-14)


def check_limits(work: Task, limits: Limits) -> None:
    if isinstance(work.step.control, ConstantCurrent):
        assert math.isclose(limits.voltage_max_V, 4.103, rel_tol=1e-5)
        assert math.isclose(limits.current_max_A, 2e-4, rel_tol=1e-5)
    else:
        # A digit of an exponent that was flipped gives less than the instrument can resolve.
        assert 0.0 <= limits.current_max_A <= 1e-12


async def converse(lab: Lab, work: Task, plan: Mapping[int, Deed], *, true: bool) -> None:
    """A visit with mischief, then one without."""
    lab.wire.begin(plan)
    driver = lab.driver()
    try:
        armed = await opened_and_armed(driver, work)
        if isinstance(armed, Limits):
            check_limits(work, armed)
            if not isinstance(await typed(driver.begin("1", work), NAME), LabctlError):
                await followed(lab, driver, work, true=true)
        status = await typed(driver.status("1"), NAME)
        if isinstance(status, ChannelStatus):
            assert not abs(status.voltage_V) > 220.0
            assert not abs(status.current_A) > 1.155
        said_off = not isinstance(await typed(driver.off("1"), NAME), LabctlError)
        assert not (true and said_off and lab.output_on)
        lab.wire.calm()
        await in_the_end(lambda: driver.off("1"))
        assert not lab.output_on

        async def anew() -> None:
            await driver.arm("1", work)
            await driver.begin("1", work)

        await in_the_end(anew)
        lab.live(3.0)
        looked = await in_the_end(lambda: driver.look("1"))
        assert len(looked.readings) >= 2
        check_true(lab, work, looked)
    finally:
        lab.wire.calm()
        with contextlib.suppress(LabctlError):
            await driver.off("1")
        await driver.close()


async def opened_and_armed(driver: Keithley, work: Task) -> Limits | LabctlError:
    who = await typed(driver.open(), NAME)
    if not isinstance(who, LabctlError):
        assert who.serial == SERIAL
    return await typed(driver.arm("1", work), NAME)


async def followed(lab: Lab, driver: Keithley, work: Task, *, true: bool) -> None:
    before: Readings | None = None
    for _ in range(LOOKS):
        lab.live(2.0)
        looked = await typed(driver.look("1"), NAME)
        if isinstance(looked, LabctlError):
            continue
        check_can_be(looked, before)
        if true:
            check_true(lab, work, looked)
        if len(looked.readings):
            before = looked.readings
        if looked.ended:
            return


def test_a_wire_that_loses_delays_doubles_or_mixes_up_answers_gives_no_wrong_value() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(10)
        @given(plans(*TRUE_WORDS, answers=ARMING + 3 * LOOKS), st.sampled_from([CHARGE, REST]))
        def check(plan: dict[int, Deed], work: Task) -> None:
            runner.run(converse(bench, work, plan, true=True))

        try:
            check()
        finally:
            runner.run(stack.aclose())


def test_a_wire_that_damages_answers_gives_no_value_that_cannot_be() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(15)
        @given(
            plans(*DAMAGE, answers=ARMING + 3 * LOOKS),
            st.sampled_from([CHARGE, REST]),
        )
        def check(plan: dict[int, Deed], work: Task) -> None:
            runner.run(converse(bench, work, plan, true=False))

        try:
            check()
        finally:
            runner.run(stack.aclose())


def test_a_source_meter_that_begins_to_babble_gives_errors_and_no_value() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(4)
        @given(babble(ARMING + 3 * LOOKS))
        def check(plan: dict[int, Deed]) -> None:
            runner.run(converse(bench, CHARGE, plan, true=False))

        try:
            check()
        finally:
            runner.run(stack.aclose())
