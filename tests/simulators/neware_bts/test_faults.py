"""Every fault that can be asked for, as a driver meets it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from linear_rack import ENVELOPE, Client, linear_rack, on, saved, step, step_file

from labctl.clock import ManualClock
from labctl.drivers.neware_bts.stepfile import StepType
from labctl.errors import ConfigError
from labctl.simulators.faults import FAULTS, Fault, FaultBoard, read_faults, write_faults

CHARGE = step_file(step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=36_000.0))


@pytest.mark.parametrize(("name", "delay_s"), [("slow", 0.5), ("stall", 5.0)])
async def test_an_answer_comes_late(name: str, delay_s: float) -> None:
    clock = ManualClock()
    fault = Fault(name)
    async with linear_rack(clock, speed=1.0, faults=(fault,)) as rack:
        async with await Client.to(rack.port) as client:
            asked = asyncio.create_task(client.ask("<cmd>connect</cmd>"))
            while not clock._sleepers:
                await asyncio.sleep(0)
            await clock.advance(delay_s - 0.01)
            assert not asked.done()
            await clock.advance(0.02)
            assert b"connect_resp" in await asked


async def test_a_rack_can_be_slow_and_stall_by_its_nature() -> None:
    clock = ManualClock()
    options = {"response_delay_s": 0.2, "stall_probability": 1.0, "stall_s": 5.0}
    async with linear_rack(clock, speed=1.0, **options) as rack:
        async with await Client.to(rack.port) as client:
            asked = asyncio.create_task(client.ask("<cmd>connect</cmd>"))
            while not clock._sleepers:
                await asyncio.sleep(0)
            assert clock._sleepers[0][0] == pytest.approx(5.2)
            await clock.advance(5.3)
            await asked


async def test_a_hung_connection_stays_open_and_silent() -> None:
    async with linear_rack(faults=(Fault("hang", command="connect", times=1),)) as rack:
        async with await Client.to(rack.port) as client:
            client.writer.write(ENVELOPE % b"<cmd>connect</cmd>")
            async with await Client.to(rack.port) as other:
                assert b"connect_resp" in await other.ask("<cmd>connect</cmd>")
            client.writer.write(ENVELOPE % b"<cmd>getdevinfo</cmd>")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.05)


async def test_a_dropped_command_was_carried_out_and_an_unheard_one_was_not(
    tmp_path: Path,
) -> None:
    path = saved(tmp_path, CHARGE)
    for name, status in (("drop", "working"), ("drop_unheard", "finish")):
        async with linear_rack(faults=(Fault(name, command="start"),)) as rack:
            async with await Client.to(rack.port) as client:
                with pytest.raises(asyncio.IncompleteReadError):
                    await client.start(path)
            async with await Client.to(rack.port) as client:
                assert await client.status() == status


async def test_garbage_and_truncation_are_no_answers() -> None:
    async with linear_rack(faults=(Fault("garbage", times=1),)) as rack:
        async with await Client.to(rack.port) as client:
            assert b"<bts" not in await client.ask("<cmd>connect</cmd>")
            assert b"<bts" in await client.ask("<cmd>connect</cmd>")
    async with linear_rack(faults=(Fault("truncate"),)) as rack:
        async with await Client.to(rack.port) as client:
            client.writer.write(ENVELOPE % b"<cmd>connect</cmd>")
            answer = await client.reader.read()
            assert answer.startswith(b"<?xml")
            assert b"</bts>" not in answer


async def test_a_frozen_channel_repeats_itself_until_it_thaws(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with linear_rack(state_dir=str(state)) as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CHARGE))
        before = await client.rows(1, 20)
        write_faults(state / "faults.json", [Fault("frozen", channel="1-1")])
        frozen = await client.rows(21, 20)
        assert {(row["volt"], row["curr"]) for row in frozen} == {
            (before[-1]["volt"], before[-1]["curr"])
        }
        assert frozen[-1]["seqid"] == "40"
        assert float((await client.look())["voltage"]) == pytest.approx(
            float(before[-1]["volt"]), abs=1e-4
        )
        write_faults(state / "faults.json", [])
        assert len({row["volt"] for row in await client.rows(21, 20)}) == 20


async def test_an_unavailable_channel_says_false_and_the_others_do_not(tmp_path: Path) -> None:
    fault = Fault("unavailable", channel="1-1")
    async with linear_rack(faults=(fault,)) as rack, await Client.to(rack.port) as client:
        assert await client.status() == "false"
        assert (await client.look())["workstatus"] == "false"
        assert await client.start(saved(tmp_path, CHARGE)) == "false"
        assert await client.extent() == (0, 0, False)
        assert await client.rows(1, 10) == []
        assert await client.status("1-2") == "finish"


async def test_an_output_that_ignores_stop_says_ok_and_goes_on(tmp_path: Path) -> None:
    fault = Fault("ignores_stop", channel="1-1", times=1)
    async with linear_rack(faults=(fault,)) as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CHARGE))
        assert await client.each("stop") == "ok"
        assert await client.status() == "working"
        assert await client.each("stop") == "ok"
        assert await client.status() == "stop"


async def test_a_faults_file_that_is_wrong_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    async with linear_rack(state_dir=str(state)) as rack, await Client.to(rack.port) as client:
        write_faults(state / "faults.json", [Fault("unavailable", channel="1-2")])
        assert await client.status("1-2") == "false"
        (state / "faults.json").write_text('[{"name": "explode"}]')
        assert await client.status("1-2") == "false"
        assert "there is no fault 'explode'" in caplog.text
        (state / "faults.json").unlink()
        assert await client.status("1-2") == "finish"


async def test_a_fault_for_one_command_and_channel_spares_the_rest() -> None:
    fault = Fault("drop_unheard", channel="1-2", command="getchlstatus")
    async with linear_rack(faults=(fault,)) as rack, await Client.to(rack.port) as client:
        assert await client.status("1-1") == "finish"
        assert (await client.look("1-2"))["workstatus"] == "finish"
        with pytest.raises(asyncio.IncompleteReadError):
            await client.told("<cmd>getchlstatus</cmd>" + on("status", "1-2", "true"))


def test_a_counted_fault_happens_that_often() -> None:
    board = FaultBoard([Fault("drop", times=2)])
    assert [board.take("drop", "stop") is not None for _ in range(4)] == [True, True, False, False]
    assert board.take("hang", "stop") is None


def test_faults_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    faults = [Fault(name, channel="1-1", times=3, seconds=1.0) for name in FAULTS]
    write_faults(tmp_path / "faults.json", faults)
    assert list(read_faults(tmp_path / "faults.json")) == faults
    (tmp_path / "faults.json").write_text('[{"name": "slow", "seconds": -1}]')
    with pytest.raises(ConfigError, match="seconds"):
        read_faults(tmp_path / "faults.json")
