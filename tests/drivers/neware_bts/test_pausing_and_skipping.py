"""Pausing, going on and skipping, and the readings of every technique."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from bts_words import (
    LIMITS,
    PROGRAM,
    STARTED,
    STOP,
    STOPPED,
    Bench,
    download,
    inquiry,
    status,
    summary,
    told,
)

from labctl.errors import InstrumentError
from labctl.program import (
    Comparison,
    ConstantPower,
    ConstantResistance,
    EndCondition,
    Program,
    Quantity,
    RecordRule,
    Step,
    VoltageSweep,
)


async def test_a_pause_is_a_stop_of_what_runs_and_leaves_what_is_open(tmp_path: Path) -> None:
    bench = Bench(tmp_path, status("working"), STOP, STOPPED, status("stop"), status("stop"))
    await bench.driver.pause("21-1-1")
    await bench.driver.pause("21-1-1")
    assert bench.wire.finished()


@pytest.mark.parametrize("word", ["stop", "pause", "finish", "protect"])
async def test_nothing_is_said_to_a_channel_whose_output_is_open_already(
    tmp_path: Path, word: str
) -> None:
    bench = Bench(tmp_path, status(word))
    await bench.driver.pause("21-1-1")
    assert bench.wire.finished()


@pytest.mark.parametrize("word", ["stop", "pause"])
async def test_a_paused_test_goes_on_when_it_is_told_to(tmp_path: Path, word: str) -> None:
    bench = Bench(tmp_path, status(word), told("continue", "ok"), status(word), status("working"))
    await bench.driver.resume("21-1-1")
    assert bench.wire.finished()
    assert bench.clock.monotonic_s() == 0.5


@pytest.mark.parametrize("word", ["working", "finish"])
async def test_a_test_that_goes_on_or_is_over_is_not_told_to_go_on(
    tmp_path: Path, word: str
) -> None:
    bench = Bench(tmp_path, status(word))
    await bench.driver.resume("21-1-1")
    assert bench.wire.finished()


@pytest.mark.parametrize(
    ("conversation", "says"),
    [
        (status("protect"), "is tripped and cannot go on"),
        (status("false"), "is unavailable and cannot go on"),
        (status("stop") + told("continue", "false"), "refused to go on"),
        (
            status("stop") + told("continue", "ok") + status("stop") * 61,
            "was told to go on and is still stopped after 30 s",
        ),
    ],
)
async def test_a_test_that_cannot_go_on_is_an_error(
    tmp_path: Path, conversation: str, says: str
) -> None:
    bench = Bench(tmp_path, conversation)
    with pytest.raises(InstrumentError, match=says):
        await bench.driver.resume("21-1-1")
    assert bench.wire.finished()


def in_step(number: int, word: str = "working") -> str:
    return inquiry(word, "run-1").replace('step_id="4"', f'step_id="{number}"')


async def test_a_skipped_step_is_left_for_the_line_after_it(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        summary(144, 3, "false"),
        in_step(2),
        told("goto", "ok", more=' step="3"'),
        summary(144, 3, "false"),
        in_step(3),
        told("goto", "ok", more=' step="4"'),
    )
    await bench.driver.skip(STARTED, PROGRAM, 1)
    await bench.driver.skip(STARTED, PROGRAM, 2)
    assert bench.wire.finished()


@pytest.mark.parametrize("shown", [in_step(1), in_step(3), in_step(2, "finish")])
async def test_a_step_that_the_channel_has_left_is_not_skipped(tmp_path: Path, shown: str) -> None:
    bench = Bench(tmp_path, summary(144, 3, "false"), shown)
    await bench.driver.skip(STARTED, PROGRAM, 1)
    assert bench.wire.finished()


@pytest.mark.parametrize(
    ("conversation", "says"),
    [
        (summary(145, 3, "false"), "is 145, not 144"),
        (summary(144, 3, "false") + in_step(2, "stop"), "only a running step can be skipped"),
        (
            summary(144, 3, "false") + in_step(2) + told("goto", "false", more=' step="3"'),
            "refused to leave step 2",
        ),
    ],
)
async def test_a_skip_that_cannot_be_is_an_error(
    tmp_path: Path, conversation: str, says: str
) -> None:
    bench = Bench(tmp_path, conversation)
    with pytest.raises(InstrumentError, match=says):
        await bench.driver.skip(STARTED, PROGRAM, 1)
    assert bench.wire.finished()


WIDE = Program(
    name="techniques",
    recipe_sha256="0",
    cell="HEV-01",
    body=tuple(
        Step(
            place,
            "",
            control,
            (EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 600.0),),
            RecordRule(),
        )
        for place, control in enumerate(
            (
                ConstantPower(1e-3, 1e-2),
                ConstantPower(-1e-3, 1e-2),
                ConstantResistance(1e4, 1e-2),
                VoltageSweep(2.0, 3.0, 1e-3, 1e-2),
            )
        )
    ),
    limits=LIMITS,
)


async def test_readings_of_every_technique_carry_the_sign_of_their_step(tmp_path: Path) -> None:
    rows = [
        f'seqid="{place}" stepid="{place}" cycleid="1" steptype="{word}" testtime="0"'
        f' atime="2025-12-28 23:29:05" volt="2.5" curr="{current}" cap="1e-06" eng="2e-06"'
        for place, (word, current) in enumerate(
            (("cp", "0.0004"), ("dp", "-0.0004"), ("dr", "-0.00025"), ("lsv", "1e-05")), start=1
        )
    ]
    bench = Bench(tmp_path, status("working"), download(1, 144, *rows))
    readings = (await bench.driver.follow(STARTED, WIDE, 1)).readings
    assert readings.step.tolist() == [0, 1, 2, 3]
    assert readings.step_charge_Ah[:3].tolist() == [1e-6, -1e-6, -1e-6]
    assert readings.step_energy_Wh[:3].tolist() == [2e-6, -2e-6, -2e-6]
    assert math.isnan(readings.step_charge_Ah[3])
    assert math.isnan(readings.step_energy_Wh[3])
