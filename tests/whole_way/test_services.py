"""``labctl up`` as an administrator knows it: it starts, works, ends when told, starts again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.archive import open_archive
from labctl.control import Done, GetStatus, RegisterCell, StartRun, Status, StopRun, ask
from labctl.demo.bench import Bench, Wanted, set_up_bench
from labctl.demo.study import capacities
from labctl.errors import LabctlError
from labctl.settings import load_settings

pytestmark = pytest.mark.whole_way

STUDY = capacities(7)
CELLS = STUDY.cells
SHORT_REST = """
recipe: A short rest
steps:
  - rest: {for: 3 s, record: 1 s}
"""
LONG_REST = SHORT_REST.replace("3 s", "10 h")


async def up(bench: Bench) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "labctl", "up", "--config", str(bench.config),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


async def until(condition: Callable[[Status], bool], socket: Path) -> Status:
    async with asyncio.timeout(60.0):
        while True:
            try:
                status = await ask(socket, GetStatus(), Status)
            except LabctlError:
                status = None
            if status is not None and condition(status):
                return status
            await asyncio.sleep(0.05)


def connected(status: Status) -> bool:
    return all(instrument.connected for instrument in status.instruments)


async def start(socket: Path, recipe: str, number: int = 0) -> str:
    cell = CELLS[number]
    await ask(socket, RegisterCell(cell=cell.cell), Done)
    request = StartRun(
        recipe_text=recipe,
        recipe_file="short.yaml",
        cell=cell.cell.name,
        instrument="rack1",
        channel=cell.channel,
    )
    return (await ask(socket, request, Done)).run


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that still have to do with a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.fixture
def real_time(tmp_path: Path) -> Bench:
    with set_up_bench(tmp_path / "lab", STUDY, Wanted(speed="1")) as bench:
        text = bench.config.read_text()
        bench.config.write_text(text.replace('speed = "1"', 'speed = "1"\npoll_s = 0.2'))
    return bench


async def test_a_rest_of_three_seconds_takes_three_seconds_in_real_time(real_time: Bench) -> None:
    settings = load_settings(real_time.config)
    process = await up(real_time)
    await until(connected, settings.socket)
    run = await start(settings.socket, SHORT_REST)
    await until(lambda status: status.runs[0].ended and not status.unconfirmed_batches,
                settings.socket)  # fmt: skip
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    with open_archive(settings.archive_url) as archive:
        samples = archive.samples(run)
        outcome = archive.runs()["outcome"][run]
        report = archive.verify(run)
    assert samples["test_time_s"].tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=1e-3)
    assert outcome == "completed"
    assert report.ok


async def test_services_end_when_told_to_and_go_on_when_started_again(real_time: Bench) -> None:
    settings = load_settings(real_time.config)
    process = await up(real_time)
    await until(connected, settings.socket)
    run = await start(settings.socket, LONG_REST)
    await until(lambda status: status.runs[0].seq > 0, settings.socket)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    assert processes_of(real_time.folder) == []

    process = await up(real_time)
    before = (await until(lambda status: bool(status.runs), settings.socket)).runs[0].seq
    after = await until(lambda status: status.runs[0].seq > before, settings.socket)
    assert (after.runs[0].run, after.runs[0].state) == (run, "running")
    await ask(settings.socket, StopRun(run=run), Done)
    await until(lambda status: status.runs[0].ended and not status.unconfirmed_batches,
                settings.socket)  # fmt: skip
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0
    assert processes_of(real_time.folder) == []
    with open_archive(settings.archive_url) as archive:
        assert archive.runs()["outcome"][run] == "stopped"
        assert archive.verify(run).ok


async def test_nothing_is_left_behind_when_the_supervisor_is_killed(real_time: Bench) -> None:
    settings = load_settings(real_time.config)
    process = await up(real_time)
    await until(connected, settings.socket)
    process.kill()
    await process.wait()
    await _soon(lambda: processes_of(real_time.folder) == [])


async def _soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition():
            await asyncio.sleep(0.02)
