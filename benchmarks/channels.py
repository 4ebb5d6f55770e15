"""256 channels in one daemon, each recorded ten times a second in real time.

First on instruments in memory (a resistor and a capacitor each) that the daemon drives itself,
sample by sample: what is measured is the daemon, with its engine, limits, ends, record rule, and
its journal on the disk. Then on a simulated Neware rack in a process of its own, over TCP: the rack
records by itself, and the daemon fetches. Printed are the daemon's share of one CPU, how late
samples were taken, and how long it took until they were safe in the journal.

    .venv/bin/python benchmarks/channels.py [--channels 256] [--seconds 30] [--only memory|rack]
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
MATERIAL = "HE-V"
MASS_G = 5e-3
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
        self._seen: set[str] = set()
        self._grown = asyncio.Event()
        self.on = False
        node.journal.commit = self.commit  # type: ignore[method-assign]

    async def all_on(self, channels: int) -> None:
        """Return when so many runs have a reading in the journal."""
        while len(self._seen) < channels:
            self._grown.clear()
            await self._grown.wait()

    async def commit(self, entry: Entry) -> None:
        await self._commit(entry)
        if entry.records is not None and len(entry.records):
            self._seen.add(entry.run)
            self._grown.set()
        if self.on and len(entry.records):
            self.times.setdefault(entry.run, []).append(entry.records.test_time_s)
            self.until_safe_s.append(time.time() - entry.records.unix_time_s)


async def tell(commands: Commands, request: Request) -> None:
    """One command, as an operator gives it."""
    command = Command(id=os.urandom(8).hex(), expires_unix_s=9e12, request=request)
    await commands.obey(command, "benchmark")


class Lab(NamedTuple):
    """What stands on the bench: the instrument's table of labctl.toml, and its channels."""

    name: str
    table: str
    channels: tuple[str, ...]


def in_memory(channels: int) -> Lab:
    """Sources that the daemon drives."""
    return Lab(
        "memory",
        f'[instruments.memory]\ndriver = "memory"\nchannels = {channels}\n',
        tuple(str(number) for number in range(1, channels + 1)),
    )


@contextmanager
def simulated_rack(folder: Path, channels: int) -> Iterator[Lab]:
    """A rack with a cell on every channel."""
    units = math.ceil(channels / 8)
    names = [f"{unit}-{number}" for unit in range(1, units + 1) for number in range(1, 9)]
    cells = "".join(
        f'[[cells]]\nchannel = "{name}"\nspec.name = "c{number}"\nspec.seed = {number}\n'
        f'spec.material = "{MATERIAL}"\nspec.active_mass_g = {MASS_G}\n'
        for number, name in enumerate(names[:channels], start=1)
    )
    (folder / "rack.toml").write_text(
        f'host = "127.0.0.1"\nport = 0\nunits = {units}\n{cells}', encoding="utf-8"
    )
    (folder / "stepfiles").mkdir()
    ready = folder / "ready"
    rack = subprocess.Popen(
        [
            *(sys.executable, "-m", "labctl", "simulate", "neware"),
            *("--config", str(folder / "rack.toml"), "--ready-file", str(ready), "--speed", "1"),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not ready.exists() or not ready.read_text(encoding="utf-8").strip():
            if rack.poll() is not None:
                raise SystemExit("the simulated rack did not start")
            time.sleep(0.1)
        port = ready.read_text(encoding="utf-8").strip().rpartition(":")[2]
        yield Lab(
            "rack",
            f'[instruments.rack]\ndriver = "neware_bts"\nhost = "127.0.0.1"\nport = {port}\n'
            f'step_file_dir = "{folder / "stepfiles"}"\n',
            tuple(f"21-{name}" for name in names[:channels]),
        )
    finally:
        rack.terminate()
        rack.wait()


async def measure(folder: Path, lab: Lab, seconds: float) -> None:
    """Run the channels and print what came of it."""
    (folder / "labctl.toml").write_text(
        f'[mqtt]\nurl = "mqtt://127.0.0.1:1"\n{lab.table}',
        encoding="utf-8",
    )
    settings = load_settings(folder / "labctl.toml")
    async with open_node(settings) as node:
        meter, commands = Meter(node), Commands(node)
        working = asyncio.create_task(node.work())
        await node.instruments[lab.name].ready.wait()
        channels = len(lab.channels)
        for number, channel in enumerate(lab.channels, start=1):
            cell = Cell(
                name=f"c{number}",
                material=MATERIAL,
                active_mass_g=MASS_G,
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
                    instrument=lab.name,
                    channel=channel,
                ),
            )
        async with asyncio.timeout(120.0):
            await meter.all_on(channels)
        await asyncio.sleep(6.0)
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
    print(
        f"{lab.name}: {channels} channels at {1 / SAMPLE_S:g} Hz for {wall_s:.1f} s, "
        f"{os.cpu_count()} cores"
    )
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
    parser.add_argument("--only", choices=("memory", "rack"))
    wanted = parser.parse_args()
    sys.modules.setdefault("channels", sys.modules["__main__"])
    DRIVERS["memory"] = "channels:MemorySource"
    if wanted.only != "rack":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure(Path(folder), in_memory(wanted.channels), wanted.seconds))
    if wanted.only != "memory":
        with (
            tempfile.TemporaryDirectory() as folder,
            simulated_rack(Path(folder), wanted.channels) as lab,
        ):
            asyncio.run(measure(Path(folder), lab, wanted.seconds))


if __name__ == "__main__":
    main()
