"""What no reading of a SourceMeter can be, case by case: docs/wire.md."""

from __future__ import annotations

import numpy as np
import pytest
from smu_bench import after, bench, hev, task

from labctl.drivers.keithley.readings import (
    Counted,
    Look,
    Rows,
    check_ranges,
    counted,
    parse_look,
    places_after,
)
from labctl.errors import InstrumentError
from labctl.model import Readings
from labctl.program import Limits, VoltageSweep


def rows(*times_s: float, source: float = 4.0, reading: float = 1e-3) -> Rows:
    count = len(times_s)
    return Rows(np.array(times_s), np.full(count, source), np.full(count, reading))


def count(before: Counted, block: Rows) -> tuple[Counted, Readings]:
    return counted(
        before, block, source="VOLT", step=1, clock_offset_s=0.0, lead_s=0.5, longest_gap_s=20.0
    )


@pytest.mark.parametrize("next_s", [999.0, 1000.0, 1020.001, 5000.0])
def test_a_reading_that_came_twice_or_from_another_time_is_none(next_s: float) -> None:
    state, _ = count(Counted(), rows(1000.0))
    with pytest.raises(InstrumentError, match="its clock"):
        count(state, rows(next_s))
    with pytest.raises(InstrumentError, match="its clock"):
        count(Counted(), rows(1000.0, next_s))
    assert len(count(state, rows(1019.0, 1039.0))[1]) == 2


@pytest.mark.parametrize(
    ("source", "reading"), [(22.1, 1e-3), (-22.1, 1e-3), (4.0, 1.2e-3), (4.0, -0.1), (4.0, 1e30)]
)
def test_a_value_beyond_the_range_that_is_set_is_none(source: float, reading: float) -> None:
    with pytest.raises(InstrumentError, match="beyond the range"):
        check_ranges(rows(1.0, source=source, reading=reading), 20.0, 1e-3)
    check_ranges(rows(1.0, source=21.0, reading=1.05e-3), 20.0, 1e-3)
    check_ranges(rows(1.0, reading=9.9e37), 20.0, 1e-3)


@pytest.mark.parametrize(
    ("held", "end"), [(101, 5), (50, 49), (50, 7), (99, 1)], ids=["more", "one off", "old", "full?"]
)
def test_a_buffer_whose_newest_place_does_not_fit_its_count_is_none(held: int, end: int) -> None:
    with pytest.raises(InstrumentError, match="that cannot be"):
        places_after(0, 0, Look(True, 0, held, end, False, "RUNNING"), 100)
    assert places_after(98, 98, Look(True, 0, 100, 3, False, "RUNNING"), 100) == ((99, 100), (1, 3))


@pytest.mark.parametrize("text", ["1;0;5;0;0;IDLE;IDLE;1", "1;0;5;5;0;IDLE;IDLE;x"])
def test_a_look_that_contradicts_itself_is_none(text: str) -> None:
    with pytest.raises(InstrumentError):
        parse_look(text)


async def test_rows_of_the_visit_before_are_none_of_this_one() -> None:
    async with bench(hev()) as lab:
        work = task(VoltageSweep(3.4, 3.5, 1e-3, 2e-4), after(300.0))
        await lab.started(work)
        await lab.clock.sleep(2.0)
        assert len((await lab.driver.look("1")).readings)
        await lab.started(work)
        lab.simulator.smu._epoch_unix_s -= 3600.0
        await lab.clock.sleep(2.0)
        with pytest.raises(InstrumentError, match="came after one of"):
            await lab.driver.look("1")
        await lab.driver.off("1")
        await lab.driver.open()
        await lab.started(work)
        await lab.clock.sleep(2.0)
        assert len((await lab.driver.look("1")).readings)


async def test_a_sweep_does_not_begin_from_where_its_limits_do_not_reach() -> None:
    async with bench(hev()) as lab:
        narrow = Limits(1.0, 2.0, -0.012, 0.012, 5e-4, 1e7)
        work = task(VoltageSweep(None, 1.5, 1e-3, 2e-4), after(3600.0), limits=narrow)
        await lab.driver.arm("1", work)
        with pytest.raises(InstrumentError, match="finds the cell at"):
            await lab.driver.begin("1", work)
        assert not lab.output_on
