"""A test on a channel in virtual time, seen over the wire."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from linear_rack import Client, LinearCell, download, key, linear_rack, on, saved, step, step_file

from labctl.drivers.neware_bts.stepfile import Condition, Protection, StepType
from labctl.program import Comparison, Quantity
from labctl.simulators.neware_bts import timeline

CYCLES = step_file(
    step(1, StepType.REST, time_s=60.0),
    step(2, StepType.CC_CHARGE, current_A=5e-3, stop_voltage_V=4.0),
    step(3, StepType.CC_DISCHARGE, current_A=5e-3, stop_voltage_V=3.0),
    step(4, StepType.CYCLE, start_step=2, cycle_count=20),
)
LONG = step_file(step(1, StepType.CC_CHARGE, current_A=1e-3, stop_voltage_V=4.5), every_s=1.0)


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks so close together that a small test has many."""
    monkeypatch.setattr(timeline, "RECORDS_PER_MARK", 100)


async def test_reading_advances_a_test_and_looking_does_not(tmp_path: Path) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CYCLES))
        for _ in range(3):
            assert (await client.look())["totaltime"] == "0"
            assert await client.extent() == (1, 1, False)
            assert await client.status() == "working"
        await client.rows(1, 5)
        assert await client.extent() == (1, 5, False)
        assert (await client.look())["totaltime"] == "40"


async def test_a_download_holds_at_most_a_thousand_records(tmp_path: Path) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, LONG))
        rows = await client.rows(1, 5000)
        assert [int(row["seqid"]) for row in rows] == list(range(1, 1001))
        assert await client.extent() == (1, 1000, False)


async def test_records_are_the_same_in_whatever_pieces_they_are_asked_for(
    tmp_path: Path, short_pieces: None
) -> None:
    path = saved(tmp_path, CYCLES)
    found = []
    for size in (1000, 7, 333):
        async with linear_rack() as rack, await Client.to(rack.port) as client:
            await client.start(path)
            found.append(await client.all_rows(size=size))
    assert len(found[0]) == 2651
    assert found[0] == found[1] == found[2]


async def test_old_records_are_made_again_bit_for_bit(tmp_path: Path, short_pieces: None) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CYCLES))
        first = await client.all_rows()
        for place in range(len(first) - 10, 0, -217):
            assert await client.rows(place, 10) == first[place - 1 : place + 9]


async def test_the_step_layer_agrees_with_the_records(tmp_path: Path, short_pieces: None) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CYCLES))
        rows = await client.all_rows()
        ask = f"<cmd>downloadStepLayer</cmd><downloadStepLayer {key('1-1')} />"
        layers = [layer for layer, _ in await client.told(ask)]
    assert len(layers) == 41
    assert layers[0]["startseqid"] == "1"
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        first, last = rows[int(layer["startseqid"]) - 1], rows[int(layer["endseqid"]) - 1]
        assert (first["testtime"], first["volt"]) == ("0", layer["startvolt"])
        for here, there in (
            ("steptime", "testtime"),
            ("endvolt", "volt"),
            ("endcurr", "curr"),
            ("cap", "cap"),
            ("eng", "eng"),
            ("endatime", "atime"),
            ("cycleid", "cycleid"),
            ("stepid", "stepid"),
        ):
            assert layer[here] == last[there]
        if following is not None:
            assert int(following["startseqid"]) == int(layer["endseqid"]) + 1


async def test_the_number_of_the_test_and_the_channels_time_go_on(tmp_path: Path) -> None:
    path = saved(tmp_path, step_file(step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=3600.0)))
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        for test, hour in ((1, 8), (2, 9)):
            assert await client.start(path) == "ok"
            rows = await client.all_rows()
            assert await client.extent() == (test, 361, True)
            assert rows[0]["atime"] == f"2027-01-15 {hour:02}:00:00"
            assert float(rows[0]["volt"]) == pytest.approx(3.01 + hour - 8, abs=2e-3)
        assert await client.told(download(1, 10, test=1)) == []
        assert len(await client.told(download(1, 10, test=2))) == 10


async def test_a_stopped_test_keeps_what_was_shown_and_no_more(
    tmp_path: Path, short_pieces: None
) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, LONG))
        await client.rows(1, 1000)
        assert await client.each("stop") == "ok"
        assert await client.status() == "stop"
        assert await client.extent() == (1, 1000, True)
        assert await client.rows(1001, 10) == []
        assert (await client.look())["step_type"] == "--"
        # 999 s at 1 mA: 3 V and 0.2775 V
        assert float((await client.look())["voltage"]) == pytest.approx(3.2775, abs=2e-3)
        assert await client.start(saved(tmp_path, LONG)) == "ok"
        assert float((await client.rows(1, 1))[0]["volt"]) == pytest.approx(3.2875, abs=2e-3)


async def test_a_stopped_test_can_be_continued_where_it_was(tmp_path: Path) -> None:
    path = saved(tmp_path, CYCLES)
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(path, "1-1")
        whole = await client.all_rows()
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(path)
        await client.rows(1, 500)
        assert await client.each("stop") == "ok"
        assert await client.each("continue") == "ok"
        assert await client.status() == "working"
        rows = await client.all_rows()
        assert rows[:500] == whole[:500]
        for row, other in zip(rows, whole, strict=True):
            assert {**row, "cap": "", "eng": ""} == {**other, "cap": "", "eng": ""}
            assert float(row["cap"]) == pytest.approx(float(other["cap"]), rel=1e-12)
        assert await client.status() == "finish"
        assert await client.each("continue") == "false"


async def test_a_pause_step_waits_for_continue(tmp_path: Path) -> None:
    file = step_file(
        step(1, StepType.REST, time_s=20.0),
        step(2, StepType.PAUSE),
        step(3, StepType.CC_CHARGE, current_A=1e-3, time_s=20.0),
    )
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, file))
        assert len(await client.all_rows()) == 3
        assert await client.status() == "pause"
        assert await client.extent() == (1, 3, False)
        assert (await client.look())["step_id"] == "3"
        assert await client.start(saved(tmp_path, file)) == "false"
        assert await client.each("continue") == "ok"
        rows = await client.all_rows()
        assert [row["seqid"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
        assert [row["stepid"] for row in rows] == ["1", "1", "1", "3", "3", "3"]
        assert await client.status() == "finish"


async def test_a_reserved_pause_comes_at_the_end_of_the_step(
    tmp_path: Path, short_pieces: None
) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CYCLES))
        whole_step = [row for row in await client.rows(1, 300) if row["stepid"] == "2"]
        assert await client.each("setpause") == "ok"
        assert await client.each("getpause") == "true"
        [(named, _)] = await client.told("<cmd>getchlstatus</cmd>" + on("status", "1-1", "true"))
        assert named["reservepause"] == "1"
        before = await client.rows(1, 300)
        rows = await client.all_rows()
        assert rows[:300] == before
        assert {(r["stepid"], r["cycleid"]) for r in rows if r not in before} <= {
            (before[-1]["stepid"], before[-1]["cycleid"])
        }
        assert await client.status() == "pause"
        assert whole_step
        assert await client.each("continue") == "ok"
        assert len(await client.all_rows()) == 2651
        assert await client.status() == "finish"


async def test_a_cancelled_pause_does_not_come(tmp_path: Path) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CYCLES))
        await client.rows(1, 50)
        await client.each("setpause")
        assert await client.each("cancelpause") == "ok"
        assert len(await client.all_rows()) == 2651
        assert await client.status() == "finish"


async def test_goto_leaves_the_step_and_enters_another(tmp_path: Path) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CYCLES))
        await client.rows(1, 20)
        assert await client.each("goto", 'goto step="3"') == "ok"
        assert await client.each("goto", 'goto step="99"') == "false"
        [row] = await client.rows(21, 1)
        assert (row["stepid"], row["testtime"], row["cap"]) == ("3", "0", "0")


async def test_goto_inside_a_loop_keeps_its_passes_and_out_of_it_forgets_them(
    tmp_path: Path,
) -> None:
    file = step_file(
        step(1, StepType.REST, time_s=100.0),
        step(2, StepType.REST, time_s=100.0),
        step(3, StepType.CYCLE, start_step=1, cycle_count=3),
        step(4, StepType.REST, time_s=50.0),
        step(5, StepType.CYCLE, start_step=1, cycle_count=2),
    )

    def visits(rows: list[dict[str, str]]) -> list[str]:
        return [row["stepid"] for row in rows if row["testtime"] == "0"]

    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, file))
        await client.rows(1, 2)
        assert await client.each("goto", 'goto step="2"') == "ok"
        await client.rows(3, 2)
        assert await client.each("goto", 'goto step="3"') == "ok"
        await client.rows(5, 2)
        assert await client.each("goto", 'goto step="4"') == "ok"
        rows = await client.all_rows()
    assert visits(rows) == ["1", "2", "1", "4", *["1", "2"] * 3, "4"]
    assert [row["cycleid"] for row in rows if row["testtime"] == "0"][:4] == ["1", "1", "2", "2"]


async def test_a_loop_left_by_its_condition_is_seen_over_the_wire(tmp_path: Path) -> None:
    full = Condition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 3.05, 4)
    file = step_file(
        step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=90.0, conditions=(full,)),
        step(2, StepType.REST, time_s=5.0),
        step(3, StepType.CYCLE, start_step=1, cycle_count=100),
        step(4, StepType.CC_DISCHARGE, current_A=1e-3, time_s=20.0),
    )
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, file))
        rows = await client.all_rows()
        assert await client.status() == "finish"
    assert [row["stepid"] for row in rows if row["testtime"] == "0"] == ["1", "2", "1", "4"]


async def test_what_is_made_ahead_of_a_reader_is_neither_seen_nor_lost(tmp_path: Path) -> None:
    path = saved(tmp_path, CYCLES)
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(path)
        whole = await client.all_rows()
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(path)
        await client.rows(1, 500)
        rack.bench.channels[1, 1].read_ahead()
        assert await client.extent() == (1, 500, False)
        assert (await client.look())["step_id"] == whole[499]["stepid"]
        assert await client.status() == "working"
        assert await client.each("stop") == "ok"
        assert await client.all_rows() == whole[:500]
        assert await client.each("continue") == "ok"
        rack.bench.channels[1, 1].read_ahead()
        assert len(await client.all_rows()) == len(whole)
        assert await client.status() == "finish"


async def test_reset_goes_on_with_another_file_in_the_same_step(tmp_path: Path) -> None:
    shorter = step_file(
        step(1, StepType.REST, time_s=60.0),
        step(2, StepType.CC_CHARGE, current_A=5e-3, stop_voltage_V=3.2),
    )
    path = saved(tmp_path, shorter, "shorter.xml")
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, CYCLES))
        await client.rows(1, 10)
        assert await client.each("reset", text=str(path)) == "ok"
        rows = await client.all_rows()
        assert float(rows[-1]["volt"]) == pytest.approx(3.2, abs=2e-3)
        assert await client.status() == "finish"


async def test_a_passed_protection_is_seen_and_its_flag_can_be_cleared_once(
    tmp_path: Path,
) -> None:
    file = step_file(
        step(1, StepType.CC_CHARGE, current_A=1e-3, stop_voltage_V=4.4),
        protection=Protection(voltage_upper_V=4.3),
    )
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, file))
        await client.all_rows()
        assert await client.status() == "protect"
        assert await client.each("continue") == "false"
        assert await client.each("clearflag") == "ok"
        assert await client.each("resetalarm") == "false"
        assert await client.start(saved(tmp_path, CYCLES)) == "ok"


async def test_a_test_on_an_empty_channel_reads_near_0_V_and_trips(tmp_path: Path) -> None:
    guarded = step_file(
        step(1, StepType.REST, time_s=60.0), protection=Protection(voltage_lower_V=1.0)
    )
    charge = step_file(
        step(1, StepType.CC_CHARGE, current_A=1e-3, stop_voltage_V=4.1),
        step(2, StepType.CC_DISCHARGE, current_A=1e-3, stop_voltage_V=2.0),
        step(3, StepType.CYCLE, start_step=1, cycle_count=3),
    )
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        assert abs(float((await client.look("2-8"))["voltage"])) < 0.01
        await client.start(saved(tmp_path, guarded), "2-8")
        await client.rows(1, 10, "2-8")
        assert await client.status("2-8") == "protect"
        await client.start(saved(tmp_path, charge), "2-8")
        assert len(await client.all_rows("2-8")) == 6
        assert await client.status("2-8") == "finish"


async def test_a_file_that_is_missing_or_broken_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "broken.xml").write_bytes(b"<root>")
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        for path in (tmp_path / "none.xml", tmp_path / "broken.xml", tmp_path, Path("/dev/zero")):
            assert await client.start(path) == "false"
        assert await client.extent() == (0, 0, True)


async def test_a_channel_that_does_not_exist_answers_false() -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        assert await client.status("3-1") == "false"
        assert await client.each("stop", at="1-9") == "false"
        assert await client.rows(1, 10, "0-0") == []


async def test_broadcaststop_stops_every_channel_of_the_device(tmp_path: Path) -> None:
    path = saved(tmp_path, LONG)
    async with linear_rack(at=("1-1", "2-2")) as rack, await Client.to(rack.port) as client:
        await client.start(path, "1-1")
        await client.start(path, "2-2")
        answer = await client.told(
            '<cmd>broadcaststop</cmd><list count="1">'
            '<stop ip="127.0.0.1" devtype="27" devid="21">true</stop></list>'
        )
        assert [text for _, text in answer] == ["ok"]
        assert [await client.status(at) for at in ("1-1", "2-2", "1-2")] == [
            "stop",
            "stop",
            "finish",
        ]


async def test_channels_run_side_by_side_and_each_has_errors_of_its_own(tmp_path: Path) -> None:
    path = saved(tmp_path, CYCLES)
    channels = ("1-1", "1-2", "2-1", "2-8")
    async with linear_rack(at=channels) as rack:

        async def read(at: str) -> list[dict[str, str]]:
            async with await Client.to(rack.port) as client:
                await client.start(path, at)
                return await client.all_rows(at)

        found = await asyncio.gather(*(read(at) for at in channels))
    assert {len(rows) for rows in found} == {2651}
    assert len({tuple(row["volt"] for row in rows) for rows in found}) == 4
    assert len({tuple(row["cap"] for row in rows) for rows in found}) == 1


async def test_nobody_can_make_the_rack_run_on_for_ever(tmp_path: Path) -> None:
    endless = step_file(
        step(1, StepType.REST, time_s=1.0),
        step(2, StepType.CYCLE, start_step=1, cycle_count=2_000_000_000),
    )
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, endless))
        assert await client.rows(10**14, 1000) == []
        assert await client.extent() == (1, 1, False)


async def test_a_cell_that_fails_closes_the_connection_and_spares_the_other_channels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(LinearCell):
        def state(self) -> bytes:
            raise ArithmeticError("the cell has diverged")

    async with linear_rack(cell=Broken) as rack:
        async with await Client.to(rack.port) as client:
            with pytest.raises(asyncio.IncompleteReadError):
                await client.start(saved(tmp_path, LONG))
        async with await Client.to(rack.port) as client:
            assert await client.start(saved(tmp_path, LONG), "1-2") == "ok"
    assert re.search("the cell has diverged", caplog.text)
