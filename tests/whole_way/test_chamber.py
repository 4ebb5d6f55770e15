"""The whole way of a temperature: recipe, engine, chamber driver, socket, simulated chamber; and
back into the records of a run on a SourceMeter, which measures none, and into its limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from labctl.control import Command, Done, RegisterCell, Request, StartRun
from labctl.daemon import open_node
from labctl.daemon.commands import Commands
from labctl.daemon.node import Node
from labctl.daemon.status import status_of
from labctl.engine.runner import Runner
from labctl.engine.states import RunState
from labctl.errors import PlanError
from labctl.model import Cell, Records, join_records
from labctl.settings import load_settings
from labctl.simulators.cells import CellSpec
from labctl.simulators.espec.chamber import HIGH_TEMPERATURE
from labctl.simulators.espec.config import ChamberConfig
from labctl.simulators.espec.server import SimulatedChamber, serve_chamber
from labctl.simulators.faults import Fault, write_faults
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import serve_smu
from labctl.stream.batches import SamplesBatch, decode_batch
from labctl.wire.timelink import SteppedClock

WARM = """
recipe: Warm, then cooler
limits: {voltage: 1.0 V .. 4.4 V, temperature: 10 degC .. 60 degC}
steps:
  - temperature: {to: 35 degC, within: 0.5 K, settle: 2 min, record: {every: 60 s}}
  - rest: {for: 5 min, record: {every: 60 s}}
  - temperature: {to: 28 degC, within: 0.5 K, settle: 2 min, record: {every: 60 s}}
  - rest: {for: 2 min, record: {every: 60 s}}
"""
LONG = """
recipe: Warm for a while
limits: {voltage: 1.0 V .. 4.4 V, temperature: 10 degC .. 37 degC}
steps:
  - temperature: {to: 32 degC, within: 0.5 K, settle: 1 min, at_most: 15 min, record: {every: 60 s}}
  - discharge: {at: 0.01C, for: 3 min, record: {every: 60 s}}
"""


@dataclass
class Laboratory:
    """A node at work in virtual time, with a cell on a SourceMeter in a chamber."""

    node: Node
    chamber: SimulatedChamber
    faults_file: Path

    def fault(self, *faults: Fault) -> None:
        """The chamber's faults that are in force from here on."""
        write_faults(self.faults_file, faults)

    async def tell(self, request: Request) -> Done:
        command = Command(id=str(time.perf_counter_ns()), expires_unix_s=9e9, request=request)
        answer = await Commands(self.node).obey(command, "anna")
        assert isinstance(answer, Done)
        return answer

    async def start(self, recipe: str) -> Runner:
        await until(lambda: all(one.ready.is_set() for one in self.node.instruments.values()))
        return await self.start_now(recipe)

    async def start_now(self, recipe: str) -> Runner:
        request = StartRun(
            recipe_text=recipe, recipe_file="r", cell="HEV-01", instrument="smu1", channel="1"
        )
        return self.node.runners[(await self.tell(request)).run]

    async def to_its_end(self, runner: Runner) -> Records:
        await until(lambda: runner.checkpoint.state.ended)
        return await self.records()

    async def records(self) -> Records:
        """Every reading in the journal."""
        batches = [decode_batch(told) for _, told in await self.node.journal.pending(0, 10**9)]
        return join_records([one.records() for one in batches if isinstance(one, SamplesBatch)])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60.0):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def laboratory(
    folder: Path, *, chamber: str = "", plugged: bool = True
) -> AsyncIterator[Laboratory]:
    """``chamber`` are further options of the chamber's driver. plugged: the chamber is there."""
    state = folder / "chamber"
    async with AsyncExitStack() as stack:
        smu = await stack.enter_async_context(
            serve_smu(
                SmuConfig(
                    port=0,
                    time_port=0,
                    speed="virtual",
                    cell=CellSpec(name="HEV-01", material="HE-V", active_mass_g=0.002),
                    off_state="HIMP",
                )
            )
        )
        oven = await stack.enter_async_context(
            serve_chamber(ChamberConfig(port=0, time_port=0, speed="virtual", state_dir=str(state)))
        )
        if not plugged:
            await oven.unplug()
        (folder / "labctl.toml").write_text(f"""
[node]
speed = "virtual"
[mqtt]
url = "mqtt://127.0.0.1:1"
[instruments.smu1]
driver = "keithley"
resource = "TCPIP::{smu.host}::{smu.port}::SOCKET"
time = "{smu.host}:{smu.time_port}"
chamber = "oven1"
temperature_watched_elsewhere = true
[instruments.oven1]
driver = "espec"
host = "{oven.host}"
port = {oven.port}
time = "{oven.host}:{oven.time_port}"
monitor_pause_s = 0.0
setting_pause_s = 0.0
reply_timeout_s = 1.0
{chamber}
""")
        node = await stack.enter_async_context(open_node(load_settings(folder / "labctl.toml")))
        working = asyncio.create_task(node.work())
        lab = Laboratory(node, oven, state / "faults.json")
        try:
            cell = Cell(
                name="HEV-01",
                material="HE-V",
                active_mass_g=2e-3,
                one_C_mA_per_g=100.0,
                safe_voltage_min_V=1.0,
                safe_voltage_max_V=4.5,
            )
            await lab.tell(RegisterCell(cell=cell))
            yield lab
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            for instrument in node.instruments.values():
                if isinstance(instrument.clock, SteppedClock):
                    await instrument.clock.close()


async def test_a_recipe_sets_the_chamber_and_its_records_have_the_temperature(
    tmp_path: Path,
) -> None:
    async with laboratory(tmp_path) as lab:
        runner = await lab.start(WARM)
        records = await lab.to_its_end(runner)
        assert runner.checkpoint.state is RunState.COMPLETED, runner.checkpoint.reason
        assert not np.isnan(records.temperature_degC).any()
        heating, warm, cooling, last = (
            records.temperature_degC[records.visit == visit] for visit in (1, 2, 3, 4)
        )
        assert heating[0] == pytest.approx(23.2, abs=0.5)
        assert heating[-1] == pytest.approx(35.0, abs=0.5)
        # It warms at 3 K/min and cools at 1.5 K/min at the most.
        rises_K = np.diff(heating)[:3]
        assert rises_K == pytest.approx(np.full(3, 3.0), abs=0.7)
        assert len(warm) >= 6
        assert warm == pytest.approx(np.full(len(warm), 35.0), abs=0.5)
        assert cooling[-1] == pytest.approx(28.0, abs=0.5)
        assert last == pytest.approx(np.full(len(last), 28.0), abs=0.5)
        # The chamber has lived as long as the run.
        assert lab.chamber.chamber.now_s == pytest.approx(
            float(records.test_time_s[-1]), rel=0.05, abs=60.0
        )
        assert lab.chamber.chamber.settings.temperature_degC == 28.0


async def test_a_heater_that_stays_on_ends_the_run_at_its_limit_of_temperature(
    tmp_path: Path,
) -> None:
    async with laboratory(tmp_path) as lab:
        runner = await lab.start(LONG)
        await until(lambda: runner.checkpoint.place.visit == 2)
        lab.fault(Fault("over_temperature"))
        records = await lab.to_its_end(runner)
        assert runner.checkpoint.state is RunState.TRIPPED
        assert "temperature" in runner.checkpoint.reason
        assert "10 .. 37 degC" in runner.checkpoint.reason
        last_degC = records.temperature_degC[-1]
        # It is looked at every 10 s: at 3 K/min it is not far beyond.
        assert 37.0 < last_degC < 39.0


async def test_the_limit_acts_although_the_chamber_stands_in_alarm(tmp_path: Path) -> None:
    """In alarm the chamber says so in place of its temperature: it is known all the same."""
    async with laboratory(tmp_path) as lab:
        lab.chamber.chamber.settings.high_degC = 34.0
        runner = await lab.start(LONG)
        await until(lambda: runner.checkpoint.place.visit == 2)
        lab.fault(Fault("over_temperature"))
        records = await lab.to_its_end(runner)
        assert lab.chamber.chamber.alarms == [HIGH_TEMPERATURE]
        assert runner.checkpoint.state is RunState.TRIPPED
        assert 37.0 < records.temperature_degC[-1] < 39.0
        oven = next(one for one in (await status_of(lab.node)).instruments if one.name == "oven1")
        assert not oven.connected
        assert f"stands in alarm: {HIGH_TEMPERATURE}" in oven.problem


async def test_a_chamber_in_alarm_is_said_by_the_step_that_waits_for_it(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        lab.chamber.chamber.settings.high_degC = 33.0
        runner = await lab.start(LONG.replace("10 degC .. 37 degC", "10 degC .. 200 degC"))
        await until(lambda: runner.checkpoint.place.visit == 1)
        lab.fault(Fault("over_temperature"))
        await until(lambda: "stands in alarm" in runner.link_error or is_over(runner))
        assert f"oven1 stands in alarm: {HIGH_TEMPERATURE}" in runner.link_error
        records = await lab.to_its_end(runner)
        assert set(records.visit.tolist()) == {1}


async def test_a_temperature_that_the_chamber_does_not_go_to_is_said(tmp_path: Path) -> None:
    async with laboratory(tmp_path, chamber="temperature_max_degC = 30.0") as lab:
        runner = await lab.start(LONG)
        await until(lambda: "its limits are 0 to 30 degC" in runner.link_error)
        assert lab.chamber.chamber.settings.temperature_degC == 25.0
        records = await lab.to_its_end(runner)
        assert set(records.visit.tolist()) == {1}
        assert records.temperature_degC == pytest.approx(23.0, abs=0.3)


async def test_a_run_waits_for_a_chamber_that_is_not_there_yet(tmp_path: Path) -> None:
    async with laboratory(tmp_path, plugged=False) as lab:
        await until(lab.node.instruments["smu1"].ready.is_set)
        runner = await lab.start_now(LONG)
        await until(lambda: "the chamber oven1 does not answer" in runner.link_error)
        assert not runner.checkpoint.state.ended
        await lab.chamber.plug()
        records = await lab.to_its_end(runner)
        assert runner.checkpoint.state is RunState.COMPLETED
        assert not np.isnan(records.temperature_degC).any()


async def test_a_chamber_whose_cable_was_out_is_waited_for(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        runner = await lab.start(LONG)
        await until(lambda: runner.checkpoint.place.visit == 1)
        lab.fault(Fault("unplug", seconds=0.4))
        await until(lambda: not lab.chamber.plugged or is_over(runner))
        records = await lab.to_its_end(runner)
        assert runner.checkpoint.state is RunState.COMPLETED
        assert records.temperature_degC[-1] == pytest.approx(32.0, abs=0.5)


async def test_a_chamber_that_lost_its_power_is_said(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        runner = await lab.start(LONG)
        await until(lambda: runner.checkpoint.place.visit == 2)
        lab.fault(Fault("power_cut", times=1))
        oven = lab.node.instruments["oven1"]
        await until(lambda: "was set to 32 degC and is STANDBY" in oven.problem)
        await lab.to_its_end(runner)
        assert runner.checkpoint.state is RunState.COMPLETED
        records = await lab.records()
        assert records.temperature_degC[-1] < 31.8


async def test_a_cell_in_no_chamber_is_refused_a_temperature(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        await until(lab.node.instruments["smu1"].ready.is_set)
        lab.node.instruments["smu1"].chamber = ""
        with pytest.raises(PlanError, match="the cell is in no chamber"):
            await lab.start_now(WARM)
        assert not lab.node.runners


def is_over(runner: Runner) -> bool:
    return runner.checkpoint.state.ended
