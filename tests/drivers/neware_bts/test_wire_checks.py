"""What no reading of a BTS host can be, case by case: docs/wire.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from bts_words import PROGRAM, ROW_1, ROW_2, ROW_3, STARTED, Bench, download, status, summary

from labctl.errors import InstrumentError

GOOD = (ROW_1, ROW_2, ROW_3)


async def follow(folder: Path, *conversation: str, next_index: int = 1) -> str:
    bench = Bench(folder, *conversation)
    with pytest.raises(InstrumentError) as caught:
        await bench.driver.follow(STARTED, PROGRAM, next_index)
    assert caught.value.instrument == "rack 1"
    assert caught.value.command in {"download", "inquiredf"}
    assert caught.value.reply
    return str(caught.value)


async def test_the_readings_as_they_are_pass(tmp_path: Path) -> None:
    bench = Bench(tmp_path, status("working"), download(1, 144, *GOOD))
    followed = await bench.driver.follow(STARTED, PROGRAM, 1)
    assert followed.next_index == 4


@pytest.mark.parametrize(
    ("row", "old", "new", "says"),
    [
        (0, 'seqid="1"', 'seqid="4"', "begins with reading 4, after 1"),
        (1, 'seqid="2"', 'seqid="3"', "reading 3 comes after reading 1"),
        (2, 'seqid="3"', 'seqid="93"', "reading 93 comes after reading 2"),
        (1, 'volt="3.1"', 'volt="31"', "voltage_V of reading 2 is 31"),
        (1, 'volt="3.1"', 'volt="-11"', "voltage_V of reading 2 is -11"),
        (2, 'curr="-0.0002"', 'curr="-2"', "current_A of reading 3 is -2"),
        (2, 'cap="3e-06"', 'cap="3e999"', "capacity_Ah of reading 3 is not finite"),
    ],
)
async def test_a_reading_that_cannot_be_is_none(
    tmp_path: Path, row: int, old: str, new: str, says: str
) -> None:
    rows = list(GOOD)
    assert old in rows[row]
    rows[row] = rows[row].replace(old, new)
    assert says in await follow(tmp_path, status("working"), download(1, 144, *rows))


async def test_a_time_goes_back_only_where_a_step_begins_anew(tmp_path: Path) -> None:
    later = ROW_2.replace('seqid="2"', 'seqid="3"')
    back = later.replace('testtime="30000"', 'testtime="20000"')
    said = await follow(tmp_path, status("working"), download(1, 144, ROW_1, ROW_2, back))
    assert "the step time of reading 3 is before that of the reading before it" in said
    anew = later.replace('testtime="30000"', 'testtime="0"')
    next_pass = back.replace('cycleid="1"', 'cycleid="2"')
    for row in (later, anew, next_pass):
        bench = Bench(tmp_path, status("working"), download(1, 144, ROW_1, ROW_2, row))
        assert (await bench.driver.follow(STARTED, PROGRAM, 1)).next_index == 4


async def test_a_complete_test_holds_no_less_than_was_read_of_it(tmp_path: Path) -> None:
    said = await follow(tmp_path, status("finish"), summary(144, 2, "true"), next_index=4)
    assert "is complete with 2 readings, and 3 were read of it" in said
    said = await follow(
        tmp_path, status("finish"), summary(144, 2, "true"), download(1, 144, *GOOD)
    )
    assert "is complete with 2 readings, and shows reading 3" in said
    bench = Bench(tmp_path, status("finish"), summary(144, 3, "true"))
    assert (await bench.driver.follow(STARTED, PROGRAM, 4)).complete
