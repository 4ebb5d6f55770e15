"""The whole way: every process of the system, as ``labctl demo`` starts them.

Recipe, engine, driver, TCP, simulated rack; journal, MQTT, archive, cycles, alarms. Whatever broker
and database stand in the middle, and whatever is killed, the archive is the same to the bit.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from labctl.archive import open_archive
from labctl.cli.services import services_of
from labctl.control import GetStatus, Status, ask
from labctl.demo.bench import Bench, Mark, Wanted, set_up_bench
from labctl.demo.conduct import Heard, Look, conduct
from labctl.demo.findings import Findings, read_findings
from labctl.demo.study import capacities
from labctl.errors import LinkError
from labctl.settings import load_settings
from labctl.supervisor import Supervisor, supervise

pytestmark = pytest.mark.whole_way

SEED = 7
STUDY = capacities(SEED)
CELLS = STUDY.cells
FAULTY = STUDY.faulty
LONGEST_S = 120.0


@dataclass(frozen=True)
class Measured:
    """What the archive holds of one demo, without what differs from one to the next: the names of
    runs, and when something was done."""

    samples: dict[str, pd.DataFrame]
    cycles: pd.DataFrame
    steps: dict[str, pd.DataFrame]
    alarms: pd.DataFrame
    findings: Findings
    heard: Heard


async def measure(bench: Bench, look: Look) -> Heard:
    settings = load_settings(bench.config)
    async with asyncio.timeout(LONGEST_S):
        return await conduct(settings, STUDY, look, look_every_s=0.02)


def read_back(bench: Bench, heard: Heard) -> Measured:
    url = load_settings(bench.config).archive_url
    with open_archive(url) as archive:
        runs = archive.runs()
        run_of = {row["cell"]: str(run) for run, row in runs.iterrows()}
        samples = {cell: archive.samples(run) for cell, run in run_of.items()}
        steps = {cell: archive.steps(run) for cell, run in run_of.items()}
        cycles = archive.cycles().reset_index().set_index(["cell", "cycle"]).sort_index()
        alarms = archive.alarms()[["cell", "rule", "state", "message", "cycle", "value"]]
    return Measured(
        samples,
        cycles.drop(columns="run_id"),
        steps,
        alarms.reset_index(drop=True),
        read_findings(url, STUDY, bench.folder / "plot.png"),
        heard,
    )


async def whole_way(folder: Path, wanted: Wanted, breaker: Breaker | None = None) -> Measured:
    with set_up_bench(folder, STUDY, wanted) as bench:
        settings = load_settings(bench.config)
        services = services_of(settings, bench.config)
        async with supervise(services, folder / "logs") as supervisor:
            if breaker is None:
                heard = await measure(bench, lambda _status, _heard: None)
            else:
                breaker.supervisor = supervisor
                heard = await measure(bench, breaker.look)
        bench.finish()
        return await asyncio.to_thread(read_back, bench, heard)


class Breaker:
    """Kills a process with SIGKILL each time the runs have come so much further."""

    def __init__(self, names: list[str], every: int) -> None:
        self.left = list(names)
        self.every = every
        self.supervisor: Supervisor | None = None
        self._next = every

    def look(self, status: Status, _heard: Heard) -> None:
        records = sum(run.seq for run in status.runs)
        if self.left and records >= self._next:
            self._next = records + self.every
            assert self.supervisor is not None
            os.kill(self.supervisor.children[self.left.pop(0)].pid, signal.SIGKILL)


def assert_same(one: Measured, other: Measured) -> None:
    assert one.samples.keys() == other.samples.keys()
    for cell, samples in one.samples.items():
        pd.testing.assert_frame_equal(samples, other.samples[cell], check_exact=True)
        pd.testing.assert_frame_equal(one.steps[cell], other.steps[cell], check_exact=True)
    pd.testing.assert_frame_equal(one.cycles, other.cycles, check_exact=True)
    pd.testing.assert_frame_equal(one.alarms, other.alarms, check_exact=True)


def assert_sound(measured: Measured, *, broker_lived: bool = True) -> None:
    assert measured.findings.problems == ()
    wrong = [figure for figure in measured.findings.figures if not figure.holds]
    assert wrong == []
    heard = {alarm.cell for alarm in measured.heard.alarms.values() if alarm.state != "normal"}
    assert heard == FAULTY
    if broker_lived:
        # What is said to people while there is no broker is lost; the archive has it.
        assert len(measured.heard.cycles) == 3 * len(CELLS)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, mosquitto: object) -> Measured:
    """One demo that nothing happened to."""
    folder = tmp_path_factory.mktemp("reference")
    return asyncio.run(
        whole_way(folder / "demo", Wanted(quick=True, seed=SEED, broker="mosquitto"))
    )


def test_the_figures_of_the_study_come_out(reference: Measured) -> None:
    assert_sound(reference)


async def test_the_embedded_broker_gives_the_same_archive(
    reference: Measured, tmp_path: Path
) -> None:
    measured = await whole_way(tmp_path / "demo", Wanted(quick=True, seed=SEED, broker="amqtt"))
    assert_same(measured, reference)
    assert_sound(measured)


@pytest.mark.parametrize("broker", ["mosquitto", "amqtt"])
async def test_postgresql_gives_the_same_archive(
    reference: Measured, tmp_path: Path, postgresql_url: str, broker: str
) -> None:
    wanted = Wanted(quick=True, seed=SEED, broker=broker, archive=postgresql_url)
    measured = await whole_way(tmp_path / "demo", wanted)
    assert_same(measured, reference)
    assert_sound(measured)


@pytest.mark.parametrize("victim", ["broker", "rack1", "archive", "daemon"])
async def test_a_process_that_is_killed_leaves_no_trace_in_the_archive(
    reference: Measured, tmp_path: Path, victim: str
) -> None:
    breaker = Breaker([victim], every=2000)
    wanted = Wanted(quick=True, seed=SEED, broker="mosquitto")
    measured = await whole_way(tmp_path / "demo", wanted, breaker)
    assert breaker.left == []
    assert_same(measured, reference)
    assert_sound(measured, broker_lived=victim != "broker")


async def test_everything_killed_one_after_the_other_with_the_embedded_broker(
    reference: Measured, tmp_path: Path
) -> None:
    breaker = Breaker(["archive", "rack1", "daemon", "broker", "daemon"], every=1500)
    wanted = Wanted(quick=True, seed=SEED, broker="amqtt")
    measured = await whole_way(tmp_path / "demo", wanted, breaker)
    assert breaker.left == []
    assert_same(measured, reference)
    assert_sound(measured, broker_lived=False)


async def records_so_far(folder: Path) -> int:
    try:
        status = await ask(folder / "data" / "control.sock", GetStatus(), Status)
    except LinkError:
        return 0
    return sum(run.seq for run in status.runs)


async def test_a_demo_that_is_killed_whole_goes_on_when_it_is_started_again(
    reference: Measured, tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    command = (sys.executable, "-m", "labctl", "demo", "--quick", "--folder", str(folder))
    first = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(LONGEST_S):
        while await records_so_far(folder) < 2000:
            await asyncio.sleep(0.01)
    first.kill()
    await first.wait()
    again = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await again.communicate()
    assert again.returncode == 0, said.decode()
    assert said.startswith(b"Going on with the demo")
    wanted = Wanted(quick=True, seed=SEED)
    mark = Mark(wanted, finished=True)
    assert json.loads((folder / "demo.json").read_text()) == msgspec.to_builtins(mark)
    measured = read_back(Bench(folder, wanted, resumed=True), reference.heard)
    assert_same(measured, reference)


async def test_a_recipe_runs_at_a_factor_as_it_does_in_virtual_time(
    reference: Measured, tmp_path: Path
) -> None:
    measured = await whole_way(tmp_path / "demo", Wanted(quick=True, seed=SEED, speed="40000"))
    assert_sound(measured)
    for cell, samples in reference.samples.items():
        at_a_factor = measured.samples[cell]
        assert len(at_a_factor) == pytest.approx(len(samples), abs=3)
        assert at_a_factor["charge_Ah"].iloc[-1] == pytest.approx(
            samples["charge_Ah"].iloc[-1], rel=1e-3
        )
