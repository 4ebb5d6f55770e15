"""A rack that is killed keeps its tests, its data and its time."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from linear_rack import Client, LinearCell, linear_rack, saved, step, step_file

from labctl.clock import ManualClock
from labctl.drivers.neware_bts.stepfile import StepType
from labctl.errors import ConfigError
from labctl.simulators.neware_bts import timeline

CYCLES = step_file(
    step(1, StepType.CCCV_CHARGE, current_A=5e-3, voltage_V=4.0, stop_current_A=1e-3),
    step(2, StepType.CC_DISCHARGE, current_A=5e-3, stop_voltage_V=3.0),
    step(3, StepType.CYCLE, start_step=1, cycle_count=100),
    every_s=5.0,
)
SCRIPT = Path(__file__).with_name("linear_rack.py")


@asynccontextmanager
async def killable(state: Path, speed: str = "virtual") -> AsyncIterator[int]:
    """The port of a rack in a process of its own, which is killed at the end."""
    ready = state.with_name(f"{state.name}.ready")
    ready.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), str(state), speed, str(ready)
    )
    try:
        async with asyncio.timeout(60):
            while not ready.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
        yield int(ready.read_text())
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_a_killed_rack_goes_on_bit_for_bit(tmp_path: Path) -> None:
    path = saved(tmp_path, CYCLES)
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(path)
        whole = await client.all_rows()
    assert len(whole) > 20_000
    found: list[dict[str, str]] = []
    for lives in range(4):
        async with killable(tmp_path / "state") as port, await Client.to(port) as client:
            if lives == 0:
                assert await client.start(path, barcode="run-1") == "ok"
            assert await client.extent() == (1, max(1, len(found)), False)
            assert (await client.look())["barcode"] == "run-1"
            assert await client.start(path) == "false"
            for _ in range(5):
                found += await client.rows(len(found) + 1, 1000)
            again = await client.rows(len(found) - 4500, 1000)
            assert again == found[-4501:-3501]
    async with killable(tmp_path / "state") as port, await Client.to(port) as client:
        while rows := await client.rows(len(found) + 1, 1000):
            found += rows
        assert await client.status() == "finish"
    assert found == whole


async def test_a_stop_is_remembered_with_the_state_of_the_cell(tmp_path: Path) -> None:
    path = saved(tmp_path, CYCLES)
    state = str(tmp_path / "state")
    async with linear_rack(state_dir=state) as rack, await Client.to(rack.port) as client:
        await client.start(path)
        await client.rows(1, 77)
        await client.each("stop")
        rows, look = await client.all_rows(), await client.look()
    async with linear_rack(state_dir=state) as rack, await Client.to(rack.port) as client:
        assert await client.status() == "stop"
        assert await client.all_rows() == rows
        assert await client.look() == look
        assert await client.start(path) == "ok"
        assert (await client.extent())[0] == 2
        first = (await client.rows(1, 1))[0]
    async with linear_rack(state_dir=state) as rack, await Client.to(rack.port) as client:
        assert await client.rows(1, 1) == [first]
    assert float(first["volt"]) == pytest.approx(float(look["voltage"]) + 0.05, abs=1e-3)


async def test_pauses_and_jumps_survive_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "RECORDS_PER_MARK", 50)
    path, state = saved(tmp_path, CYCLES), str(tmp_path / "state")
    commands = [("setpause", "setpause"), ("goto", 'goto step="2"'), ("stop", "stop")]
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(path)
        for count, (command, tag) in zip((210, 420, 777), commands, strict=True):
            await client.rows(1 + count // 2, count - count // 2)
            assert await client.each(command, tag) == "ok"
            await client.each("continue")
        whole = await client.all_rows()
    async with linear_rack(state_dir=state) as rack, await Client.to(rack.port) as client:
        await client.start(path)
    for count, (command, tag) in zip((210, 420, 777), commands, strict=True):
        async with linear_rack(state_dir=state) as rack, await Client.to(rack.port) as client:
            await client.rows(1 + count // 2, count - count // 2)
            assert await client.each(command, tag) == "ok"
        async with linear_rack(state_dir=state) as rack, await Client.to(rack.port) as client:
            await client.each("continue")
    async with linear_rack(state_dir=state) as rack, await Client.to(rack.port) as client:
        assert await client.all_rows() == whole
        assert await client.status() == "finish"


async def test_a_torn_mark_costs_time_and_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "RECORDS_PER_MARK", 100)
    path, state = saved(tmp_path, CYCLES), tmp_path / "state"
    async with linear_rack(state_dir=str(state)) as rack, await Client.to(rack.port) as client:
        await client.start(path)
        rows = await client.rows(1, 1000)
    marks = state / "1-1.marks"
    marks.write_bytes(marks.read_bytes()[:-5])
    async with linear_rack(state_dir=str(state)) as rack, await Client.to(rack.port) as client:
        assert await client.rows(1, 1000) == rows
        more = await client.rows(1001, 1000)
    async with linear_rack(state_dir=str(state)) as rack, await Client.to(rack.port) as client:
        assert await client.rows(1, 1000) == rows
        assert await client.rows(1001, 1000) == more


async def test_in_real_time_the_test_has_run_on_while_the_rack_was_dead(tmp_path: Path) -> None:
    path, state = saved(tmp_path, CYCLES), str(tmp_path / "state")
    options = {"speed": 1.0, "state_dir": state, "epoch_unix_s": None}
    before = ManualClock(1_800_000_000.0)
    async with linear_rack(before, **options) as rack, await Client.to(rack.port) as client:
        await client.start(path)
        await before.advance(100.0)
        first = await client.rows(1, 1000)
    assert first[-1]["testtime"] == "100000"
    after = ManualClock(1_800_000_400.0)
    async with linear_rack(after, **options) as rack, await Client.to(rack.port) as client:
        rows = await client.rows(1, 1000)
        assert rows[: len(first)] == first
        assert rows[-1]["testtime"] == "400000"
        assert rows[-1]["atime"] == "2027-01-15 08:06:40"


async def test_a_rack_does_not_share_its_state_with_another_process(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    async with linear_rack(state_dir=state):
        with pytest.raises(ConfigError, match="another rack"):
            async with linear_rack(state_dir=state):
                pass


async def test_a_rack_with_another_seed_does_not_go_on_with_the_state(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    async with linear_rack(state_dir=state, seed=1):
        pass
    with pytest.raises(ConfigError, match="seed 1, not 2"):
        async with linear_rack(state_dir=state, seed=2):
            pass


async def test_a_damaged_state_is_reported_with_its_file(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with linear_rack(state_dir=str(state)) as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CYCLES))
    (state / "1-1.test").write_bytes(b"\x93\x01")
    with pytest.raises(ConfigError, match=r"1-1\.test"):
        async with linear_rack(state_dir=str(state)):
            pass


async def test_another_cell_in_the_channel_is_a_new_cell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, state = saved(tmp_path, CYCLES), str(tmp_path / "state")
    async with linear_rack(state_dir=state) as rack, await Client.to(rack.port) as client:
        await client.start(path)
        await client.rows(1, 10)
    async with (
        linear_rack(state_dir=state, at=("1-2",), cell=LinearCell) as rack,
        await Client.to(rack.port) as client,
    ):
        assert await client.status() == "finish"
        assert abs(float((await client.look())["voltage"])) < 0.01
        assert await client.start(path) == "ok"
        assert (await client.extent())[0] == 2
    assert "another cell" in caplog.text
