"""Whatever comes over the wire from a BTS host: the right value, or an error that says why.

What counts as wrong, and what nobody can see, is said in docs/wire.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import given
from rack_lab import LIMITS, follow_to_the_end, rack_config, until
from wire_fuzz import DAMAGE, TRUE_WORDS, Deed, Meddler, babble, fuzz, in_the_end, plans, typed

from labctl.clock import VirtualClock
from labctl.drivers.base import Armed, ChannelState, ChannelStatus, Followed, Started
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.errors import LabctlError
from labctl.model import Readings
from labctl.program import ConstantCurrent, Loop, Program, Quantity, RecordRule, Rest, Step
from labctl.simulators.neware_bts.rack import Rack, serve_rack

NAME = "rack 1"
CHANNEL = "21-1-1"
RULE = RecordRule(every_s=5.0, voltage_change_V=0.05)
PROGRAM = Program(
    name="short",
    recipe_sha256="0",
    cell="HEV-01",
    body=(
        Step(0, "rest", Rest(), until(Quantity.STEP_TIME_S, ">=", 60.0), RecordRule(10.0)),
        Loop(
            2,
            (
                Step(
                    1, "charge", ConstantCurrent(2e-3), until(Quantity.VOLTAGE_V, ">=", 4.1), RULE
                ),
                Step(
                    2,
                    "discharge",
                    ConstantCurrent(-2e-3),
                    until(Quantity.VOLTAGE_V, "<=", 1.5),
                    RULE,
                ),
            ),
            counts_cycles=True,
        ),
    ),
    limits=LIMITS,
)
FOLLOWS = 5
ANSWERS = 24
END = b"\n\n#\r\n"


@dataclass
class Lab:
    rack: Rack
    wire: Meddler
    folder: Path
    tags: itertools.count[int] = field(default_factory=itertools.count)

    def driver(self, port: int, timeout_s: float) -> NewareBts:
        config = NewareConfig(
            host="127.0.0.1",
            port=port,
            step_file_dir=str(self.folder),
            reply_timeout_s=timeout_s,
            connect_timeout_s=2.0,
        )
        return NewareBts(config, name=NAME, clock=VirtualClock(1_800_000_000.0))

    def new_tag(self) -> str:
        return f"run-{next(self.tags)}"


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        async with serve_rack(rack_config()) as rack:
            async with Meddler(rack.port, END).listening() as wire:
                yield Lab(rack, wire, Path(folder))


def check_can_be(followed: Followed, next_index: int) -> None:
    """What can be seen of a reading: docs/wire.md, Neware."""
    readings = followed.readings
    count = len(readings)
    assert readings.onboard_index.tolist() == list(range(next_index, next_index + count))
    assert followed.next_index == next_index + count
    assert np.all((readings.step >= 0) & (readings.step < 3))
    assert np.all(np.abs(readings.voltage_V) <= 10.0)
    assert np.all(np.abs(readings.current_A) <= 0.15)
    assert np.all(np.isfinite(readings.step_charge_Ah))
    assert np.all(readings.step_time_s >= 0)
    back = np.diff(readings.step_time_s) < 0
    back &= (np.diff(readings.step) == 0) & (np.diff(readings.pass_mark) == 0)
    assert not np.any(back & (readings.step_time_s[1:] > 1.0))


async def begun(driver: NewareBts, tag: str, *, true: bool) -> Started | None:
    who = await typed(driver.open(), NAME)
    if true and not isinstance(who, LabctlError):
        assert who.serial == "27-21"
    armed = await typed(driver.arm(CHANNEL, PROGRAM, tag), NAME)
    if not isinstance(armed, Armed):
        return None
    limits = armed.limits
    assert (limits.voltage_min_V, limits.voltage_max_V) == (1.0, 4.4)
    assert (limits.current_min_A, limits.current_max_A) == (-0.011, 0.011)
    started = await typed(driver.start(armed), NAME)
    if isinstance(started, LabctlError):
        found = await typed(driver.find(armed), NAME)
        return found if isinstance(found, Started) else None
    return started


async def converse(lab: Lab, plan: Mapping[int, Deed], *, true: bool) -> None:
    """A test with mischief; then what it truly was, read without."""
    lab.wire.begin(plan)
    driver = lab.driver(lab.wire.port, 0.25)
    clean = lab.driver(lab.rack.port, 10.0)
    try:
        blocks: list[Readings] = []
        complete = False
        started = await begun(driver, lab.new_tag(), true=true)
        next_index = 1
        for _ in range(FOLLOWS if started is not None else 0):
            assert started is not None
            followed = await typed(driver.follow(started, PROGRAM, next_index), NAME)
            if isinstance(followed, LabctlError):
                continue
            check_can_be(followed, next_index)
            blocks.append(followed.readings)
            next_index, complete = followed.next_index, followed.complete
            if complete:
                break
        status = await typed(driver.status(CHANNEL), NAME)
        if isinstance(status, ChannelStatus):
            assert not abs(status.voltage_V) > 10.0
            assert not abs(status.current_A) > 0.15
        lab.wire.calm()
        await in_the_end(driver.open)
        await in_the_end(lambda: driver.stop(CHANNEL))
        assert (await in_the_end(lambda: driver.status(CHANNEL))).state is not ChannelState.RUNNING
        if true and started is not None:
            truth, _ = await follow_to_the_end(clean, started, PROGRAM)
            assert not complete or next_index == len(truth) + 1
            for block in blocks:
                check_true(block, truth)
    finally:
        lab.wire.calm()
        with contextlib.suppress(LabctlError):
            await clean.stop(CHANNEL)
        await driver.close()
        await clean.close()


def check_true(block: Readings, truth: Readings) -> None:
    if not len(block):
        return
    first, last = int(block.onboard_index[0]), int(block.onboard_index[-1])
    same = truth[first - 1 : last]
    for name in ("step", "pass_mark", "step_time_s", "unix_time_s", "voltage_V", "current_A"):
        assert np.array_equal(getattr(block, name), getattr(same, name)), name
    assert np.array_equal(block.step_charge_Ah, same.step_charge_Ah)
    assert np.array_equal(block.step_energy_Wh, same.step_energy_Wh)


def test_a_wire_that_loses_delays_doubles_or_mixes_up_answers_gives_no_wrong_value() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(8)
        @given(plans(*TRUE_WORDS, answers=ANSWERS))
        def check(plan: dict[int, Deed]) -> None:
            runner.run(converse(bench, plan, true=True))

        try:
            check()
        finally:
            runner.run(stack.aclose())


def test_a_wire_that_damages_answers_gives_no_value_that_cannot_be() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(12)
        @given(plans(*DAMAGE, answers=ANSWERS))
        def check(plan: dict[int, Deed]) -> None:
            runner.run(converse(bench, plan, true=False))

        try:
            check()
        finally:
            runner.run(stack.aclose())


def test_a_host_that_begins_to_babble_gives_errors_and_no_value() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(4)
        @given(babble(ANSWERS))
        def check(plan: dict[int, Deed]) -> None:
            runner.run(converse(bench, plan, true=False))

        try:
            check()
        finally:
            runner.run(stack.aclose())
