"""A rack that follows the wall: what is seen is what has happened by now."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from linear_rack import Client, linear_rack, saved, step, step_file

from labctl.clock import ManualClock, RealClock
from labctl.drivers.neware_bts.stepfile import StepType

CHARGE = step_file(
    step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=3600.0),
    step(2, StepType.REST, time_s=600.0),
)
REAL = {"speed": 1.0, "epoch_unix_s": None}


async def test_records_appear_when_their_time_has_come(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with linear_rack(clock, **REAL) as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CHARGE))
        assert await client.extent() == (1, 1, False)
        assert len(await client.rows(1, 1000)) == 1
        await clock.advance(35.0)
        rows = await client.rows(1, 1000)
        assert [row["testtime"] for row in rows] == ["0", "10000", "20000", "30000"]
        assert await client.rows(5, 1000) == []
        await clock.advance(5.0)
        assert len(await client.rows(5, 1000)) == 1


async def test_a_look_shows_the_present_between_two_records(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with linear_rack(clock, **REAL) as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CHARGE))
        await clock.advance(1803.5)
        look = await client.look()
        assert look["relativetime"] == "1803.5"
        assert float(look["voltage"]) == pytest.approx(3.01 + 1803.5 / 3600, abs=2e-3)
        assert look["capacity"] == "0.0005"


async def test_a_test_that_is_over_says_so_and_its_cell_rests(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with linear_rack(clock, **REAL) as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CHARGE))
        await clock.advance(4199.9)
        assert await client.status() == "working"
        assert (await client.look())["step_type"] == "rest"
        await clock.advance(0.2)
        assert await client.status() == "finish"
        assert await client.extent() == (1, 422, True)
        assert float((await client.look())["voltage"]) == pytest.approx(4.0, abs=2e-3)
        await clock.advance(1000.0)
        await client.start(saved(tmp_path, CHARGE))
        assert (await client.rows(1, 1))[0]["atime"] == "2027-01-15 09:26:40"


async def test_a_stop_between_two_records_makes_one_of_its_own(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with linear_rack(clock, **REAL) as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CHARGE))
        await clock.advance(33.0)
        assert await client.each("stop") == "ok"
        await clock.advance(100.0)
        rows = await client.rows(1, 1000)
        assert [row["testtime"] for row in rows] == ["0", "10000", "20000", "30000", "33000"]
        assert float(rows[-1]["cap"]) == pytest.approx(33e-3 / 3600)
        assert await client.extent() == (1, 5, True)
        await clock.advance(7.0)
        assert await client.each("continue") == "ok"
        await clock.advance(20.0)
        more = await client.rows(6, 1000)
        assert [row["seqid"] for row in more] == ["6", "7"]
        assert [row["testtime"] for row in more] == ["40000", "50000"]
        assert more[0]["atime"] == "2027-01-15 08:02:27"


async def test_the_records_are_those_of_virtual_time(tmp_path: Path) -> None:
    path = saved(tmp_path, CHARGE)
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(path)
        virtual = await client.all_rows()
    clock = ManualClock(1_800_000_000.0)
    async with linear_rack(clock, **REAL) as rack, await Client.to(rack.port) as client:
        await client.start(path)
        found: list[dict[str, str]] = []
        for pause_s in (1.0, 99.0, 1000.0, 3.25, 5000.0):
            await clock.advance(pause_s)
            found += await client.rows(len(found) + 1, 1000)
    assert found == virtual


async def test_a_hastened_rack_runs_as_many_times_faster(tmp_path: Path) -> None:
    clock = RealClock(36_000)
    options = {"speed": 36_000.0, "epoch_unix_s": 1_800_000_000.0}
    async with linear_rack(clock, **options) as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CHARGE))
        async with asyncio.timeout(20):
            while await client.status() == "working":
                await clock.sleep(100.0)
        rows = await client.all_rows()
    assert [row["stepid"] for row in rows].count("2") == 61
    assert rows[0]["atime"].startswith("2027-01-15 ")
