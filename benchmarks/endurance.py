"""An endurance of one HE-V cell at 50C, stage by stage: ``python benchmarks/endurance.py``.

    python benchmarks/endurance.py [--cycles 500] [--retention]

Each stage by itself on one core: the cell alone, the channel with its step file, the channel with
its electronics and the text of its answers, the driver's reading of these answers, and the records
that the engine makes of them. Then all of it as in the laboratory, a rack in a process of its own
and the driver on a socket. A time is for so many readings; the last column is for the 2 million of
10,000 cycles. ``--retention`` follows the run alone and prints what is left of the capacity.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from labctl.clock import VirtualClock
from labctl.drivers.base import Started
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.drivers.neware_bts.messages import Address
from labctl.drivers.neware_bts.readings import readings_of
from labctl.drivers.neware_bts.rows import MAX_ROWS, read_download
from labctl.drivers.neware_bts.stepfile import read_step_file, write_step_file
from labctl.drivers.neware_bts.translate import translate
from labctl.engine.placement import Place, place_readings
from labctl.engine.walk import Walk
from labctl.model import Readings
from labctl.program import (
    Comparison,
    ConstantCurrent,
    EndCondition,
    Limits,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
)
from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.compile import warm
from labctl.simulators.cells.interface import Control, Recorder, Until
from labctl.simulators.faults import FaultBoard
from labctl.simulators.neware_bts.channel import Channel
from labctl.simulators.neware_bts.commands import Bench, download
from labctl.simulators.neware_bts.instrument import Instrument
from labctl.simulators.neware_bts.persist import ChannelFiles
from labctl.simulators.neware_bts.position import Position
from labctl.simulators.neware_bts.program import Execution
from labctl.simulators.neware_bts.rack import CellInChannel, RackConfig, serve_rack
from labctl.simulators.neware_bts.wire import Element, Request

SPEC = CellSpec(name="HEV-1", material="HE-V", active_mass_g=2e-3, scatter=0.0)
ONE_C_A = 0.1 * SPEC.active_mass_g
RECORD = RecordRule(every_s=0.62)
LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 5e7)
READINGS = 2_000_000
ADDRESS = Address("127.0.0.1", 27, 21, 1, 1)
CONFIG = NewareConfig(host="127.0.0.1", step_file_dir="-")


def program(cycles: int) -> Program:
    """Three cycles at 5C, then ``cycles`` at 50C, which make about 200 readings each."""

    def half(index: int, rate: float, record: RecordRule) -> Step:
        end = EndCondition(
            Quantity.VOLTAGE_V,
            Comparison.AT_LEAST if rate > 0 else Comparison.AT_MOST,
            4.1 if rate > 0 else 1.5,
        )
        return Step(index, "", ConstantCurrent(rate * ONE_C_A), (end,), record)

    minute = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 60.0)
    slow, fast = RecordRule(every_s=10.0), RECORD
    return Program(
        name="endurance",
        recipe_sha256="",
        cell=SPEC.name,
        limits=LIMITS,
        body=(
            Step(0, "", Rest(), (minute,), slow),
            Loop(3, (half(1, 5, slow), half(2, -5, slow)), counts_cycles=True),
            Loop(cycles, (half(3, 50, fast), half(4, -50, fast)), counts_cycles=True),
        ),
    )


def say(stage: str, seconds: float, readings: int) -> None:
    each_us = seconds / readings * 1e6
    print(f"{stage:<46} {each_us:7.2f} us a reading {each_us * READINGS * 1e-6:7.1f} s")


def the_cell(cycles: int) -> None:
    warm()
    cell = build_cell(SPEC)
    halves = ((1, Until(voltage_at_least_V=4.1)), (-1, Until(voltage_at_most_V=1.5)))
    begun, records = time.perf_counter(), 0
    for _ in range(cycles):
        for sign, until in halves:
            trace = cell.advance(
                Control.CURRENT,
                sign * 50 * ONE_C_A,
                1e6,
                until=until,
                recorder=Recorder(every_s=RECORD.every_s),
            )
            records += len(trace.time_s)
    say("the cell", time.perf_counter() - begun, records)


def the_step_file(data: bytes) -> None:
    execution = Execution(read_step_file(data), build_cell(SPEC), Position())
    begun, records = time.perf_counter(), 0
    while (block := execution.run()) is not None:
        records += len(block)
    say("the cell and the step file", time.perf_counter() - begun, records)


def the_channel(data: bytes, folder: Path) -> list[bytes]:
    """Every answer to a download, without its terminator."""
    channel = Channel(
        "1-1",
        Instrument.of(1, 1, 1),
        lambda: build_cell(SPEC),
        "bench",
        ChannelFiles(folder, "1-1"),
        epoch_unix_s=1.8e9,
        now_unix_s=None,
    )
    bench = Bench("127.0.0.1", 27, 21, "", "", False, {(1, 1): channel}, FaultBoard())
    channel.start(data, "bench")
    answers: list[bytes] = []
    begun, records, found = time.perf_counter(), 0, MAX_ROWS
    while found:
        key = {"devtype": "27", "devid": "21", "subdevid": "1", "chlid": "1", "testid": "0"}
        asked = key | {"startpos": str(records + 1), "count": str(MAX_ROWS)}
        answer = download(bench, Request("download", (Element("download", asked, ""),)))
        found = answer.count(b"<data ")
        records += found
        answers.append(answer.removesuffix(b"\n\n#\r\n"))
    say("... with electronics, journal and XML", time.perf_counter() - begun, records)
    channel.close()
    return answers[:-1]


def the_driver(answers: list[bytes], run: Program) -> list[Readings]:
    begun, records = time.perf_counter(), 0
    blocks = []
    for answer in answers:
        rows = read_download(answer, ADDRESS, start=records + 1, count=MAX_ROWS)
        blocks.append(readings_of(rows, run))
        records += len(rows)
    say("the driver's reading of the XML", time.perf_counter() - begun, records)
    return blocks


def the_engine(blocks: list[Readings], run: Program) -> None:
    walk = Walk(run)
    begun, place = time.perf_counter(), Place(run="bench")
    for block in blocks:
        place = place_readings(walk, place, block).place
    say("the engine's placing", time.perf_counter() - begun, place.seq)


def serve(pipe: Connection, state: str) -> None:
    """A rack with one cell, until somebody writes into ``pipe``; then its time on the processor."""

    async def run() -> None:
        rack = RackConfig(
            port=0,
            speed="virtual",
            epoch_unix_s=1.8e9,
            state_dir=state,
            cells=(CellInChannel("1-1", SPEC),),
        )
        async with serve_rack(rack) as served:
            pipe.send(served.port)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_utime)


@contextlib.contextmanager
def a_rack(folder: str) -> Iterator[int]:
    """The port of a rack in another process; at the end it says how long it has computed."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    state = Path(folder) / "rack"
    process = context.Process(target=serve, args=(there, str(state)), daemon=True)
    process.start()
    yield int(here.recv())
    here.send(None)
    print(f"the rack's process has computed for {float(here.recv()):.1f} s in all")
    process.join()


async def followed(port: int, folder: str, run: Program) -> list[Readings]:
    """Every block of the run, as the driver gets it from the rack."""
    config = NewareConfig(host="127.0.0.1", port=port, step_file_dir=folder)
    driver = NewareBts(config, name="rack", clock=VirtualClock(1.8e9))
    await driver.open()
    started: Started = await driver.start(await driver.arm("21-1-1", run, "bench"))
    blocks: list[Readings] = []
    next_index, complete = 1, False
    begun, computed = time.perf_counter(), time.process_time()
    while not complete:
        look = await driver.follow(started, run, next_index)
        blocks.append(look.readings)
        next_index, complete = look.next_index, look.complete
    took_s, cpu_s = time.perf_counter() - begun, time.process_time() - computed
    await driver.close()
    say("rack and driver on a socket, by the wall", took_s, next_index - 1)
    say("... of which the driver's process computes", cpu_s, next_index - 1)
    return blocks


def retention(blocks: list[Readings]) -> None:
    """Discharge capacity of the cycles at 50C, in mAh/g and against the first of them."""
    joined = Readings(
        *(
            np.concatenate([getattr(block, column.name) for block in blocks])
            for column in fields(Readings)
        )
    )
    discharging = np.flatnonzero(joined.step == 4)
    last = discharging[np.flatnonzero(np.diff(joined.pass_mark[discharging], append=-1))]
    capacity_Ah = -joined.step_charge_Ah[last]
    per_g = capacity_Ah * 1e3 / SPEC.active_mass_g
    shown = sorted({1, 100, 500, 1000, 2500, 5000, 7500, 10_000, len(per_g)})
    for cycle in (cycle for cycle in shown if cycle <= len(per_g)):
        left = per_g[cycle - 1] / per_g[0]
        print(f"cycle {cycle:6d} at 50C: {per_g[cycle - 1]:6.2f} mAh/g, {left:6.1%}")
    print(f"{len(joined) / len(per_g):.0f} readings a cycle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--retention", action="store_true")
    arguments = parser.parse_args()
    run = program(arguments.cycles)
    print(f"{arguments.cycles} cycles at 50C, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.retention:
            data = write_step_file(translate(run, CONFIG.capabilities).file)
            the_cell(arguments.cycles)
            the_step_file(data)
            blocks = the_driver(the_channel(data, Path(folder)), run)
            the_engine(blocks, run)
        with a_rack(folder) as port:
            blocks = asyncio.run(followed(port, folder, run))
        retention(blocks)


if __name__ == "__main__":
    main()
