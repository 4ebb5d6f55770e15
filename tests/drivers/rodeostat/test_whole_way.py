"""One recipe on two instruments, by the daemon's own classes: the figures are the same."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from labctl.control import Command, Done, RegisterCell, Request, StartRun
from labctl.daemon import open_node
from labctl.daemon.commands import Commands
from labctl.daemon.node import Node
from labctl.engine.states import RunState
from labctl.errors import PlanError
from labctl.model import Cell, Records, join_records
from labctl.settings import load_settings
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import serve_potentiostat
from labctl.simulators.rodeostat.config import RodeostatSimConfig
from labctl.simulators.rodeostat.server import serve_rodeostat
from labctl.stream.batches import SamplesBatch, decode_batch
from labctl.wire.timelink import SteppedClock

SPEC = CellSpec(name="HEV-01", material="HE-V", active_mass_g=2e-3, scatter=0.0)
CELL = Cell(
    name="any",
    material="HE-V",
    active_mass_g=2e-3,
    one_C_mA_per_g=100.0,
    safe_voltage_min_V=1.0,
    safe_voltage_max_V=4.5,
)
VOLTAMMETRY = """
recipe: Voltammetry
limits: {voltage: 2.0 V .. 4.0 V, current: 2 mA}
steps:
  - rest: 10 s
  - voltammetry: {between: 2.7 V .. 3.3 V, at: 2 mV/s, cycles: 1, begin: up, max_current: 95 uA}
"""
CHARGE = """
recipe: Charge
limits: {voltage: 2.0 V .. 4.0 V, current: 2 mA}
steps:
  - charge: {at: 1C, until: 3.3 V}
"""
INSTRUMENTS = ("palmsens", "rodeostat")


@contextlib.asynccontextmanager
async def laboratory(folder: Path, errors: float = 1.0) -> AsyncIterator[Node]:
    """A node with the two instruments, and a cell of one kind at each."""
    virtual = {"speed": "virtual", "cell": SPEC, "errors": errors}
    async with (
        serve_potentiostat(PotentiostatConfig(powered_by_line=False, **virtual)) as emstat,  # type: ignore[arg-type]
        serve_rodeostat(
            RodeostatSimConfig(time_port=0, counter_resistor_ohm=12e3, **virtual)  # type: ignore[arg-type]
        ) as rodeostat,
    ):
        (folder / "labctl.toml").write_text(f"""
[node]
name = "lab"
speed = "virtual"
lock_dir = "locks"
[mqtt]
url = "mqtt://127.0.0.1:1"
[instruments.palmsens]
driver = "palmsens"
port = "{emstat.address}"
model = "EmStat4S HR"
lock_dir = "locks"
[instruments.rodeostat]
driver = "rodeostat"
port = "{rodeostat.address}"
counter_resistor_ohm = 12000
time = "127.0.0.1:{rodeostat.time_port}"
""")
        async with open_node(load_settings(folder / "labctl.toml")) as node:
            working = asyncio.create_task(node.work())
            try:
                yield node
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
                for instrument in node.instruments.values():
                    if isinstance(instrument.clock, SteppedClock):
                        await instrument.clock.close()


async def tell(node: Node, request: Request) -> Done:
    command = Command(id=str(time.perf_counter_ns()), expires_unix_s=9e9, request=request)
    answer = await Commands(node).obey(command, "anna")
    assert isinstance(answer, Done)
    return answer


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60.0):
        while not condition():
            await asyncio.sleep(0.002)


async def start(node: Node, instrument: str, recipe: str) -> str:
    await tell(node, RegisterCell(cell=msgspec.structs.replace(CELL, name=instrument)))
    await until(node.instruments[instrument].ready.is_set)
    request = StartRun(
        recipe_text=recipe, recipe_file="r", cell=instrument, instrument=instrument, channel="1"
    )
    return (await tell(node, request)).run


async def records_of(node: Node, run: str) -> Records:
    blocks = [
        batch.records()
        for _, payload in await node.journal.pending(0, 10**9)
        if isinstance(batch := decode_batch(payload), SamplesBatch) and batch.run == run
    ]
    return join_records(blocks)


def figures(records: Records) -> tuple[float, float, float, float]:
    """Of the cycle: charge and discharge in uAh, and the mean current in uA at 2.9 V to 3.1 V, up
    and down."""
    rows = records.cycle == 1
    time_h, current_uA = records.test_time_s[rows] / 3600.0, 1e6 * records.current_A[rows]
    voltage_V = records.voltage_V[rows]
    turn = int(np.argmin(voltage_V))
    return (
        float(np.trapezoid(np.clip(current_uA, 0.0, None), time_h)),
        float(np.trapezoid(np.clip(-current_uA, 0.0, None), time_h)),
        float(current_uA[turn:][np.abs(voltage_V[turn:] - 3.0) < 0.1].mean()),
        float(current_uA[:turn][np.abs(voltage_V[:turn] - 3.0) < 0.1].mean()),
    )


@pytest.mark.parametrize("errors", [0.0, 1.0])
async def test_voltammetry_gives_the_same_as_on_an_emstat_within_its_accuracy(
    errors: float, tmp_path: Path
) -> None:
    async with laboratory(tmp_path, errors) as node:
        runs = {name: await start(node, name, VOLTAMMETRY) for name in INSTRUMENTS}
        for run in runs.values():
            runner = node.runners[run]
            await until(lambda runner=runner: runner.checkpoint.state.ended)  # type: ignore[misc]
            assert runner.checkpoint.state is RunState.COMPLETED, runner.checkpoint.reason
        found = {name: figures(await records_of(node, run)) for name, run in runs.items()}
    # Parts of 0.1 to 0.5 %: up to 0.5 uA of the 100 uA range, for 300 s a leg, and up to 25 mV of
    # the 5 V range, which is 4 % of the window. A perfect one has steps of 2.4 mV, and its
    # samples fall on them as they will.
    offset_uA, share = 0.5 * errors, 0.03 + 0.04 * errors
    offset_uAh = offset_uA * 300.0 / 3600.0
    offsets = (offset_uAh, offset_uAh, offset_uA, offset_uA)
    for own, other, offset in zip(found["rodeostat"], found["palmsens"], offsets, strict=True):
        assert abs(own - other) <= share * abs(other) + offset, found


async def test_a_recipe_that_charges_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as node:
        with pytest.raises(PlanError) as caught:
            await start(node, "rodeostat", CHARGE)
    said = str(caught.value)
    assert "nothing would switch the instrument off" in said
    assert "a Rodeostat has no galvanostat" in said
