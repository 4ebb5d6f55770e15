"""Calls of a driver in any order, cut short anywhere, while the host misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given
from rack_lab import PROGRAM, follow_to_the_end, rack_config
from wire_fuzz import Move, cut_short, fuzz, in_the_end, moves, typed

from labctl.clock import VirtualClock
from labctl.drivers.base import Armed, ChannelState, Followed, Started
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.errors import LabctlError
from labctl.simulators.faults import Fault, write_faults
from labctl.simulators.neware_bts.position import Condition
from labctl.simulators.neware_bts.rack import Rack, serve_rack

NAME = "rack 1"
CHANNEL = "21-1-1"
CALLS = (
    "open", "close", "arm", "start", "start", "find", "follow", "follow", "status", "pause",
    "resume", "skip", "stop",
)  # fmt: skip
FAULTS = ("drop", "drop_unheard", "garbage", "truncate", "slow", "unavailable", "ignores_stop")


class Lab:
    def __init__(self, rack: Rack, folder: Path) -> None:
        self.rack = rack
        self.faults_file = folder / "faults.json"
        self.numbers = itertools.count()
        config = NewareConfig(
            host="127.0.0.1",
            port=rack.port,
            step_file_dir=str(folder),
            reply_timeout_s=1.0,
            connect_timeout_s=2.0,
            stop_timeout_s=2.0,
            start_timeout_s=2.0,
        )
        self.driver = NewareBts(config, name=NAME, clock=VirtualClock(1_800_000_000.0))
        self.forget()

    def forget(self) -> None:
        self.armed = Armed(CHANNEL, "none", "none.xml", PROGRAM.limits, "0")
        self.started = Started(CHANNEL, "none", "0", "none.xml")
        self.next_index = 1

    def set_faults(self, *faults: Fault) -> None:
        write_faults(self.faults_file, faults)

    async def arm(self) -> None:
        self.armed = await self.driver.arm(CHANNEL, PROGRAM, f"run-{next(self.numbers)}")

    async def begin(self, how: Callable[[Armed], Awaitable[Started | None]]) -> None:
        started = await how(self.armed)
        if started is not None:
            self.started, self.next_index = started, 1

    async def follow(self) -> None:
        followed: Followed = await self.driver.follow(self.started, PROGRAM, self.next_index)
        readings = followed.readings
        first = self.next_index
        assert readings.onboard_index.tolist() == list(range(first, first + len(readings)))
        self.next_index = followed.next_index

    def call(self, name: str) -> Awaitable[Any]:
        driver = self.driver
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "open": driver.open,
            "close": driver.close,
            "arm": self.arm,
            "start": lambda: self.begin(driver.start),
            "find": lambda: self.begin(driver.find),
            "follow": self.follow,
            "status": lambda: driver.status(CHANNEL),
            "pause": lambda: driver.pause(CHANNEL),
            "resume": lambda: driver.resume(CHANNEL),
            "skip": lambda: driver.skip(self.started, PROGRAM, 1),
            "stop": lambda: driver.stop(CHANNEL),
        }
        return calls[name]()

    async def runs(self) -> bool:
        """What the channel itself says, whatever the driver does."""
        channel = self.rack.bench.channels[(1, 1)]
        return channel.condition() is Condition.WORKING


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        async with serve_rack(rack_config(state_dir=folder)) as rack:
            made = Lab(rack, Path(folder))
            try:
                yield made
            finally:
                await made.driver.close()


async def live(bench: Lab, life: list[Move]) -> None:
    bench.set_faults()
    bench.forget()
    for move in life:
        bench.set_faults(*move.faults)
        if move.call == "stop" and move.turns is None:
            stopped = await typed(bench.call("stop"), NAME)
            bench.set_faults()
            assert isinstance(stopped, LabctlError) or not await bench.runs()
        else:
            await cut_short(partial(bench.call, move.call), move.turns, NAME)
    bench.set_faults()
    driver = bench.driver
    await in_the_end(driver.open)
    await in_the_end(lambda: driver.stop(CHANNEL))
    assert not await bench.runs()
    armed = await in_the_end(lambda: driver.arm(CHANNEL, PROGRAM, f"run-{next(bench.numbers)}"))
    started = await driver.start(armed)
    readings, followed = await follow_to_the_end(driver, started)
    assert followed.state is ChannelState.FINISHED
    assert readings.onboard_index.tolist() == list(range(1, len(readings) + 1))
    assert (await driver.status(CHANNEL)).tag == armed.tag


def test_whatever_was_cut_short_the_driver_stays_usable_and_stop_is_stop() -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        bench = runner.run(stack.enter_async_context(lab()))

        @fuzz(8)
        @given(moves(CALLS, FAULTS))
        def check(life: list[Move]) -> None:
            runner.run(live(bench, life))

        try:
            check()
        finally:
            runner.run(stack.aclose())
