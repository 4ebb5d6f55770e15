"""A run goes from its first command to its last record, through cut cables and power cuts."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_cycler import LIMITS, PaperCycler, PaperTest, readings_of, three_cycles
from paper_runs import (
    CutJournal,
    PowerCutError,
    at_work,
    begin,
    kept,
    of_kind,
    runner_from,
    until,
)

from labctl.engine.journal import Journal, open_journal
from labctl.engine.states import RunState
from labctl.errors import CommandError
from labctl.model import RECORD_COLUMNS, Records
from labctl.program import Program
from labctl.stream.events import CycleEnded, Event, GapRecorded, RunEnded, StepEnded

PROGRAM = three_cycles()
ALL_READINGS = readings_of(PROGRAM)
WHOLE: list[tuple[Records, list[Event]]] = []
"""An uninterrupted run, once it was made."""


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await begin(journal)
        yield journal


async def test_a_program_is_armed_started_followed_and_completed(journal: Journal) -> None:
    cycler = PaperCycler()
    runner = await runner_from(journal, cycler)
    await runner.run()
    records, events = await kept(journal)
    assert len(records) == len(ALL_READINGS)
    assert cycler.calls[:3] == ["arm", "find", "start"]
    [ended] = of_kind(events, RunEnded)
    assert isinstance(ended, RunEnded)
    assert (ended.outcome, ended.last_seq) == ("completed", len(ALL_READINGS))
    cycles = [event for event in events if isinstance(event, CycleEnded)]
    assert [(cycle.cycle, cycle.complete) for cycle in cycles] == [(1, True), (2, True), (3, True)]
    assert len(of_kind(events, StepEnded)) == 7


async def uninterrupted(folder: Path) -> tuple[Records, list[Event]]:
    async with open_journal(folder / "whole.db", "lab") as journal:
        await begin(journal)
        await (await runner_from(journal, PaperCycler())).run()
        return await kept(journal)


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
async def test_a_power_cut_at_any_journal_boundary_leaves_no_trace(
    tmp_path: Path, after: bool
) -> None:
    whole, whole_events = await uninterrupted(tmp_path)
    for cut_at in range(1, 100):
        cycler = PaperCycler()
        async with open_journal(tmp_path / f"cut{cut_at}.db", "lab") as journal:
            await begin(journal)
            runner = await runner_from(journal, cycler)
            runner._record.journal = CutJournal(journal, cut_at, after=after)  # type: ignore[assignment]
            try:
                await runner.run()
            except PowerCutError:
                await (await runner_from(journal, cycler)).run()
            else:
                assert cut_at > 15
                return
            records, events = await kept(journal)
        assert len(cycler.tests) == 1
        for name in RECORD_COLUMNS:
            assert getattr(records, name).tobytes() == getattr(whole, name).tobytes()
        kinds = (StepEnded, CycleEnded, RunEnded, GapRecorded)
        assert of_kind(events, *kinds) == of_kind(whole_events, *kinds)
    pytest.fail("the run never got through")


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=5),
    rows=st.integers(1, 400),
)
def test_many_power_cuts_and_any_size_of_answer_give_the_same_run(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, bool]], rows: int
) -> None:
    folder = tmp_path_factory.mktemp("cuts")

    async def interrupted() -> tuple[Records, list[Event]]:
        cycler = PaperCycler(max(rows, 20))
        async with open_journal(folder / "cut.db", "lab") as journal:
            await begin(journal)
            for cut_at, after in cuts:
                runner = await runner_from(journal, cycler)
                runner._record.journal = CutJournal(journal, cut_at, after=after)  # type: ignore[assignment]
                try:
                    await runner.run()
                except PowerCutError:
                    continue
            await (await runner_from(journal, cycler)).run()
            return await kept(journal)

    if not WHOLE:
        WHOLE.append(asyncio.run(uninterrupted(folder)))
    whole, whole_events = WHOLE[0]
    records, events = asyncio.run(interrupted())
    for name in RECORD_COLUMNS:
        assert getattr(records, name).tobytes() == getattr(whole, name).tobytes()
    assert of_kind(events, StepEnded, CycleEnded) == of_kind(whole_events, StepEnded, CycleEnded)


async def test_a_start_whose_answer_was_lost_is_found_and_not_repeated(journal: Journal) -> None:
    cycler = PaperCycler()
    cycler.lose_answer_of_start = True
    runner = await runner_from(journal, cycler)
    await runner.run()
    assert runner.checkpoint.state is RunState.COMPLETED
    assert cycler.calls.count("start") == 1
    assert len(cycler.tests) == 1


async def test_a_cut_cable_delays_a_run_and_loses_nothing(journal: Journal) -> None:
    cycler = PaperCycler(rows_per_answer=100)
    runner = await runner_from(journal, cycler)
    running = asyncio.create_task(runner.run())
    while runner.checkpoint.place.seq < 200:
        await asyncio.sleep(0)
    cycler.link_down = True
    while not runner.link_error:
        await asyncio.sleep(0)
    cycler.link_down = False
    await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert len((await kept(journal))[0]) == len(ALL_READINGS)


async def test_somebody_elses_test_on_the_channel_holds_the_run(journal: Journal) -> None:
    cycler = PaperCycler()
    runner = await runner_from(journal, cycler)
    running = asyncio.create_task(runner.run())
    while runner.checkpoint.state is not RunState.ARMING:
        await asyncio.sleep(0)
    armed_then_taken = PaperCycler.find

    async def taken(self: PaperCycler, armed: object) -> object:
        self.tests.append(PaperTest("somebody else", PROGRAM))
        return await armed_then_taken(self, armed)  # type: ignore[arg-type]

    cycler.find = taken.__get__(cycler)  # type: ignore[method-assign]
    while runner.checkpoint.state is not RunState.HELD:
        await asyncio.sleep(0)
    assert "another program" in runner.checkpoint.reason
    assert "start" not in cycler.calls
    with pytest.raises(CommandError, match="never began"):
        await runner.release("looked at it")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_limits_that_are_read_back_wider_than_asked_end_the_run_before_current_flows(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    cycler.read_back = msgspec.structs.replace(LIMITS, voltage_max_V=5.0)
    runner = await runner_from(journal, cycler)
    await runner.run()
    assert runner.checkpoint.state is RunState.FAILED
    assert "upper voltage 5 instead of 4.5" in runner.checkpoint.reason
    assert "start" not in cycler.calls


async def test_a_reading_beyond_a_limit_stops_the_run_and_trips_it(tmp_path: Path) -> None:
    program = three_cycles()
    tight = msgspec.structs.replace(program.limits, voltage_max_V=3.5)
    program = msgspec.structs.replace(program, limits=tight)
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await begin(journal, program)
        cycler = PaperCycler(rows_per_answer=10)
        runner = await runner_from(journal, cycler)
        await runner.run()
        records, events = await kept(journal)
    assert runner.checkpoint.state is RunState.TRIPPED
    assert "voltage 3.51" in runner.checkpoint.reason
    assert "stop" in cycler.calls
    assert len(records) < len(ALL_READINGS)
    [cycle] = of_kind(events, CycleEnded)
    assert isinstance(cycle, CycleEnded)
    assert not cycle.complete


async def test_a_protection_of_the_instrument_trips_the_run(journal: Journal) -> None:
    cycler = PaperCycler()
    cycler.trips_at = 77
    runner = await runner_from(journal, cycler)
    await runner.run()
    assert runner.checkpoint.state is RunState.TRIPPED
    assert len((await kept(journal))[0]) == 77


async def test_a_run_that_is_stopped_keeps_everything_it_measured(journal: Journal) -> None:
    cycler = PaperCycler(rows_per_answer=20)
    runner = await runner_from(journal, cycler)
    running = asyncio.create_task(runner.run())
    while runner.checkpoint.place.seq < 100:
        await asyncio.sleep(0)
    await runner.stop("lunch")
    await runner.stop("lunch")
    await running
    await runner.stop("lunch")
    records, events = await kept(journal)
    assert runner.checkpoint.state is RunState.STOPPED
    assert len(records) == cycler.stopped_at
    [ended] = of_kind(events, RunEnded)
    assert isinstance(ended, RunEnded)
    assert ended.reason == "lunch"


async def test_a_run_that_is_stopped_before_it_began_touches_no_instrument(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    runner = await runner_from(journal, cycler)
    await runner.stop("wrong cell")
    await runner.run()
    assert runner.checkpoint.state is RunState.STOPPED
    assert cycler.calls == []


async def test_an_instrument_that_gives_up_early_does_not_complete_the_run(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    cycler.stopped_at = 300
    runner = await runner_from(journal, cycler)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "before the end" in runner.checkpoint.reason
        assert "resume" not in cycler.calls
        await runner.stop("it had lost its power")
        await running
    assert runner.checkpoint.state is RunState.STOPPED
    assert runner.checkpoint.place.seq == 300


async def test_a_test_that_stopped_by_itself_goes_on_where_it_stopped_when_it_is_released(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    cycler.stopped_at = 300
    runner = await runner_from(journal, cycler)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert runner.checkpoint.place.cycle_interrupted
        await runner.release("the power is back")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert cycler.calls.count("resume") == 1
    assert runner.checkpoint.place.seq > 300


async def test_readings_that_cannot_be_placed_hold_the_run(journal: Journal) -> None:
    cycler = PaperCycler()
    runner = await runner_from(journal, cycler)
    whole_follow = cycler.follow

    async def odd_follow(started: object, program: Program, next_index: int) -> object:
        followed = await whole_follow(started, program, next_index)  # type: ignore[arg-type]
        step = followed.readings.step.copy()
        step[step == 2] = 0
        return dataclasses.replace(
            followed, readings=dataclasses.replace(followed.readings, step=step)
        )

    cycler.follow = odd_follow  # type: ignore[assignment,method-assign]
    running = asyncio.create_task(runner.run())
    while runner.checkpoint.state is not RunState.HELD:
        await asyncio.sleep(0)
    cycler.follow = whole_follow  # type: ignore[method-assign]
    await runner.release("the file was put right")
    await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert len((await kept(journal))[0]) == len(ALL_READINGS)
