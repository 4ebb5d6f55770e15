"""256 channels in one daemon, each sampled ten times a second in real time.

The instruments are in memory (a resistor and a capacitor each), so what is measured is the daemon:
engine, limits, ends, record rule, journal on the disk. Every sample is recorded. Printed are the
daemon's share of one CPU, how late samples were taken, and how long it took until they were safe in
the journal.

    .venv/bin/python benchmarks/channels.py [--channels 256] [--seconds 30]
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from labctl.clock import Clock
from labctl.control import Command, RegisterCell, Request, StartRun, StopRun
from labctl.daemon import open_node
from labctl.daemon.commands import Commands
from labctl.daemon.node import Node
from labctl.drivers import DRIVERS
from labctl.drivers.base import (
    Capabilities,
    ChannelState,
    ChannelStatus,
    CurrentRange,
    Failsafe,
    Identity,
    Looked,
    Task,
)
from labctl.engine.journal import Entry
from labctl.model import Cell, Readings
from labctl.program import ConstantCurrent, Limits, Program
from labctl.settings import load_settings

SAMPLE_S = 0.1
RECIPE = """
recipe: As fast as it goes
record: {every: 100 ms}
steps:
  - charge: {at: 1C, until: 4.4 V, for: 1 h}
"""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """How many channels there are."""

    channels: int = 256


class MemorySource:
    """A source of many channels that lives in this process."""

    Config = Config

    def __init__(self, config: Config, *, name: str, clock: Clock) -> None:
        del name, clock
        self._names = tuple(str(number + 1) for number in range(config.channels))
        self._tasks: dict[str, Task] = {}
        self._began_s: dict[str, float] = {}
        self._count: dict[str, int] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            techniques=frozenset({"rest", "constant_current"}),
            voltage_min_V=-5.0,
            voltage_max_V=5.0,
            current_ranges=(CurrentRange(1.0, 1e-6),),
            fastest_record_s=0.01,
            failsafe=Failsafe.WATCHDOG,
        )

    async def open(self) -> Identity:
        return Identity("labctl", "memory", "1")

    async def close(self) -> None: ...

    async def channels(self) -> tuple[str, ...]:
        return self._names

    async def status(self, channel: str) -> ChannelStatus:
        running = channel in self._tasks
        state = ChannelState.RUNNING if running else ChannelState.IDLE
        return ChannelStatus(state, "", "", 3.0, 0.0)

    def refusals(self, program: Program) -> tuple[str, ...]:
        del program
        return ()

    async def arm(self, channel: str, task: Task) -> Limits:
        del channel
        return task.limits

    async def begin(self, channel: str, task: Task) -> None:
        self._tasks[channel] = task
        self._began_s[channel] = time.monotonic()
        self._count[channel] = 0

    async def look(self, channel: str) -> Looked:
        task = self._tasks[channel]
        self._count[channel] += 1
        control = task.step.control
        current_A = control.current_A if isinstance(control, ConstantCurrent) else 0.0
        passed_s = time.monotonic() - self._began_s[channel]
        one = np.ones(1)
        return Looked(
            Readings(
                onboard_index=np.array([self._count[channel]]),
                step=np.array([task.step.index]),
                pass_mark=np.zeros(1, dtype=np.int64),
                step_time_s=one * passed_s,
                unix_time_s=one * time.time(),
                voltage_V=one * (3.0 + 1e-5 * passed_s),
                current_A=one * current_A,
                step_charge_Ah=one * math.nan,
                step_energy_Wh=one * math.nan,
                temperature_degC=one * 25.0,
            )
        )

    def sample_period_s(self, task: Task) -> float:
        del task
        return SAMPLE_S

    async def off(self, channel: str) -> None:
        self._tasks.pop(channel, None)

    async def pulse(self, channel: str, output: str) -> None: ...


class Meter:
    """Looks over the journal's shoulder."""

    def __init__(self, node: Node) -> None:
        self._commit = node.journal.commit
        self.times: dict[str, list[np.ndarray[Any, Any]]] = {}
        self.until_safe_s: list[np.ndarray[Any, Any]] = []
        self.on = False
        node.journal.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, entry: Entry) -> None:
        await self._commit(entry)
        if self.on and len(entry.records):
            self.times.setdefault(entry.run, []).append(entry.records.unix_time_s)
            self.until_safe_s.append(time.time() - entry.records.unix_time_s)


async def tell(commands: Commands, request: Request) -> None:
    """One command, as an operator gives it."""
    command = Command(id=os.urandom(8).hex(), expires_unix_s=9e12, request=request)
    await commands.obey(command, "benchmark")


async def measure(folder: Path, channels: int, seconds: float) -> None:
    """Run the channels and print what came of it."""
    (folder / "labctl.toml").write_text(
        '[mqtt]\nurl = "mqtt://127.0.0.1:1"\n[instruments.memory]\ndriver = "memory"\n'
        f"channels = {channels}\n",
        encoding="utf-8",
    )
    settings = load_settings(folder / "labctl.toml")
    async with open_node(settings) as node:
        meter, commands = Meter(node), Commands(node)
        working = asyncio.create_task(node.work())
        await node.instruments["memory"].ready.wait()
        for number in range(1, channels + 1):
            cell = Cell(
                name=f"c{number}",
                material="x",
                active_mass_g=1.0,
                one_C_mA_per_g=100.0,
                safe_voltage_min_V=1.0,
                safe_voltage_max_V=4.5,
            )
            await tell(commands, RegisterCell(cell=cell))
            await tell(
                commands,
                StartRun(
                    recipe_text=RECIPE,
                    recipe_file="r",
                    cell=cell.name,
                    instrument="memory",
                    channel=str(number),
                ),
            )
        await asyncio.sleep(3.0)
        meter.on, cpu_s, wall_s = True, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        meter.on = False
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        for run in list(node.runners):
            await tell(commands, StopRun(run=run))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    gaps_s = np.concatenate([np.diff(np.concatenate(each)) for each in meter.times.values()])
    late_s = np.maximum(0.0, gaps_s - SAMPLE_S)
    safe_s = np.concatenate(meter.until_safe_s)
    count = sum(len(part) for each in meter.times.values() for part in each)
    print(f"{channels} channels at {1 / SAMPLE_S:g} Hz for {wall_s:.1f} s, {os.cpu_count()} cores")
    print(f"  readings journalled   {count} ({count / wall_s / channels:.2f} a channel and second)")
    print(f"  CPU of the daemon     {100 * cpu_s / wall_s:.0f} % of one core")
    for name, values in (("sample late by", late_s), ("until in the journal", safe_s)):
        middle, most, worst = np.percentile(values, (50, 99, 100)) * 1e3
        print(f"  {name:<21} median {middle:.0f} ms, p99 {most:.0f} ms, longest {worst:.0f} ms")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=30.0)
    wanted = parser.parse_args()
    sys.modules.setdefault("channels", sys.modules["__main__"])
    DRIVERS["memory"] = "channels:MemorySource"
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), wanted.channels, wanted.seconds))


if __name__ == "__main__":
    main()
