"""Whatever comes over the line from a potentiostat: the right value, or an error that says why.

What counts as wrong, and what nobody can see, is said in docs/wire.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from wire_fuzz import (
    DAMAGE,
    TRUE_WORDS,
    Deed,
    HastyClock,
    Meddler,
    babble,
    fuzz,
    in_the_end,
    plans,
    typed,
)

from labctl.drivers.base import ChannelStatus, Looked, Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.driver import PalmSens
from labctl.errors import InstrumentError, LabctlError
from labctl.model import Readings
from labctl.program import (
    Comparison,
    ConstantCurrent,
    Control,
    EndCondition,
    Limits,
    Quantity,
    RecordRule,
    Rest,
    Step,
)
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import SimulatedPotentiostat, serve_potentiostat

NAME = "ps 1"
SERIAL = "ES4HR20B0008"
HE_V = CellSpec(name="HEV-01", material="HE-V", active_mass_g=0.002, seed=1)
LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)
LOOKS = 12
ANSWERS = 45

PREFIXES = {"u": 1e6, "m": 1e3, " ": 1.0, "n": 1e9, "p": 1e12, "f": 1e15, "a": 1e18, "i": 1.0}
VARIABLE = re.compile("([a-z]{2})([0-9A-F]{7})(.)")


def task_of(control: Control) -> Task:
    ends = (EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 400.0),)
    return Task(
        step=Step(4, "step", control, ends, RecordRule(every_s=10.0)), limits=LIMITS, tag="run.1"
    )


CHARGE = task_of(ConstantCurrent(1e-4))
REST = task_of(Rest())


@dataclass
class Lab:
    simulated: SimulatedPotentiostat
    wire: Meddler
    folder: Path

    def driver(self) -> PalmSens:
        config = PalmSensConfig(
            port=f"socket://127.0.0.1:{self.wire.port}",
            model="EmStat4S HR",
            serial=SERIAL,
            lock_dir=str(self.folder),
            slowest_sample_s=2.0,
            reply_timeout_s=0.2,
            stop_timeout_s=0.6,
        )
        return PalmSens(config, name=NAME, clock=HastyClock())

    def truth(self) -> set[tuple[float, float, float]]:
        """Time, potential and current of every package that the instrument truly sent.

        MethodSCRIPT manual v1.8, chapter 5: seven digits of the value plus 2^27, and a prefix.
        """
        found = set()
        for line in self.wire.told:
            values = {
                kind: (int(digits, 16) - 2**27) / PREFIXES[prefix]
                for kind, digits, prefix in VARIABLE.findall(line.decode("latin-1"))
            }
            if line.startswith(b"P") and "ee" in values:
                found.add((round(0.01 * values["ee"], 9), values["ab"], values.get("ba", 0.0)))
        return found

    @property
    def cell_is_on(self) -> bool:
        return self.simulated.device.on


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        config = PotentiostatConfig(speed="virtual", cell=HE_V, port=0)
        async with serve_potentiostat(config) as simulated:
            port = int(simulated.address.rpartition(":")[2])
            async with Meddler(port, b"\n", one_wire=True).listening() as wire:
                yield Lab(simulated, wire, Path(folder))


def check_can_be(looked: Looked, before: Readings | None) -> None:
    """What can be seen of a reading: docs/wire.md, PalmSens."""
    readings = looked.readings
    first = 1 if before is None else int(before.onboard_index[-1]) + 1
    assert readings.onboard_index.tolist() == list(range(first, first + len(readings)))
    last_s = -1.0 if before is None else float(before.step_time_s[-1])
    for time_s in readings.step_time_s.tolist():
        assert last_s < time_s < math.inf
        last_s = time_s
    assert all(abs(value) <= 7.5 for value in readings.voltage_V.tolist())
    assert all(abs(value) <= 0.25 for value in readings.current_A.tolist())
    assert all(math.isfinite(value) for value in readings.step_charge_Ah.tolist())
    assert all(math.isfinite(value) for value in readings.step_energy_Wh.tolist())


def check_true(bench: Lab, looked: Looked) -> None:
    truth = bench.truth()
    readings = looked.readings
    for row in zip(
        readings.step_time_s.tolist(),
        readings.voltage_V.tolist(),
        readings.current_A.tolist(),
        strict=True,
    ):
        assert row in truth


async def followed(bench: Lab, driver: PalmSens, *, true: bool) -> None:
    before: Readings | None = None
    for _ in range(LOOKS):
        looked = await typed(driver.look("1"), NAME)
        if isinstance(looked, InstrumentError):
            return
        if isinstance(looked, LabctlError):
            continue
        check_can_be(looked, before)
        if true:
            check_true(bench, looked)
        if len(looked.readings):
            before = looked.readings
        if looked.ended:
            return


async def converse(bench: Lab, work: Task, plan: Mapping[int, Deed], *, true: bool) -> None:
    """A visit with mischief, then one without."""
    bench.wire.begin(plan)
    driver = bench.driver()
    try:
        who = await typed(driver.open(), NAME)
        if not isinstance(who, LabctlError):
            assert who.serial == SERIAL
        armed = await typed(driver.arm("1", work), NAME)
        if isinstance(armed, Limits):
            assert armed.voltage_max_V == 4.4
            assert armed.current_max_A == 0.011
            if not isinstance(await typed(driver.begin("1", work), NAME), LabctlError):
                await followed(bench, driver, true=true)
        status = await typed(driver.status("1"), NAME)
        if isinstance(status, ChannelStatus):
            assert not abs(status.voltage_V) > 7.5
            assert not abs(status.current_A) > 0.25
        said_off = not isinstance(await typed(driver.off("1"), NAME), LabctlError)
        assert not (true and said_off and bench.cell_is_on)
        bench.wire.calm()
        await in_the_end(lambda: driver.off("1"))
        assert not bench.cell_is_on
        bench.wire.begin({})

        async def anew() -> Looked:
            await driver.arm("1", work)
            await driver.begin("1", work)
            while not len((looked := await driver.look("1")).readings):
                pass
            return looked

        looked = await in_the_end(anew)
        check_true(bench, looked)
    finally:
        bench.wire.calm()
        with contextlib.suppress(LabctlError):
            await driver.off("1")
        await driver.close()


def test_a_line_that_loses_delays_doubles_or_mixes_up_lines_gives_no_wrong_value() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(4)
        @given(plans(*TRUE_WORDS, answers=ANSWERS), st.sampled_from([CHARGE, REST]))
        def check(plan: dict[int, Deed], work: Task) -> None:
            runner.run(converse(bench, work, plan, true=True))

        try:
            check()
        finally:
            runner.run(stack.aclose())


def test_a_line_that_damages_lines_gives_no_value_that_cannot_be() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(5)
        @given(plans(*DAMAGE, answers=ANSWERS), st.sampled_from([CHARGE, REST]))
        def check(plan: dict[int, Deed], work: Task) -> None:
            runner.run(converse(bench, work, plan, true=False))

        try:
            check()
        finally:
            runner.run(stack.aclose())


def test_a_potentiostat_that_begins_to_babble_gives_errors_and_no_value() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(2)
        @given(babble(ANSWERS))
        def check(plan: dict[int, Deed]) -> None:
            runner.run(converse(bench, CHARGE, plan, true=False))

        try:
            check()
        finally:
            runner.run(stack.aclose())
