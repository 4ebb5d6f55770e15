"""A program that a sequencer cannot run in one go is run in stretches, and nothing is replayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from paper_cycler import LIMITS, PaperCycler, PaperTest, charge, discharge, rest, three_cycles
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

from labctl.drivers.base import Armed, ChannelState
from labctl.engine.journal import Journal, open_journal
from labctl.engine.states import RunState
from labctl.errors import InstrumentError
from labctl.model import RECORD_COLUMNS, Records
from labctl.program import (
    Branch,
    Comparison,
    CycleFigure,
    CycleResult,
    EndCondition,
    EndedBy,
    Finish,
    Limits,
    Loop,
    Node,
    Program,
    Quantity,
    Step,
    Then,
    Wait,
)
from labctl.stream.events import BranchTaken, CycleEnded, Event, RunEnded, StepEnded

PROGRAM = three_cycles()
NEVER = CycleResult(CycleFigure.DISCHARGE_AH, Comparison.AT_MOST, 1e-6)
AT_ONCE = CycleResult(CycleFigure.DISCHARGE_AH, Comparison.AT_LEAST, 1e-6)


def program_of(*body: Node, limits: Limits = LIMITS) -> Program:
    return msgspec.structs.replace(PROGRAM, body=body, limits=limits)


def cycles(count: int, *until: CycleResult) -> Loop:
    return Loop(count, (charge(1), discharge(2)), counts_cycles=True, until=until)


CHECKED_EACH_CYCLE = program_of(rest(0), cycles(3, NEVER), rest(3))


def paused(index: int, timeout_s: float = 90.0) -> Step:
    end = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, timeout_s)
    return Step(index, "wait", Wait(signal="go on"), (end,), charge(0).record)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        yield journal


async def run_through(
    journal: Journal, program: Program, cycler: PaperCycler
) -> tuple[Records, list[Event]]:
    await begin(journal, program)
    runner = await runner_from(journal, cycler)
    async with asyncio.timeout(20.0):
        await runner.run()
    return await kept(journal)


def steps_of(events: list[Event]) -> list[StepEnded]:
    return [event for event in events if isinstance(event, StepEnded)]


def outcome(events: list[Event]) -> tuple[str, str]:
    [ended] = of_kind(events, RunEnded)
    assert isinstance(ended, RunEnded)
    return ended.outcome, ended.reason


async def test_a_loop_that_is_judged_after_each_cycle_is_run_cycle_by_cycle(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    records, events = await run_through(journal, CHECKED_EACH_CYCLE, cycler)
    assert [test.tag for test in cycler.tests] == ["r", "r.2", "r.3", "r.4"]
    assert cycler.calls.count("start") == 4
    assert [step.step for step in steps_of(events)] == [1, 2, 3, 2, 3, 2, 3, 4]
    assert [step.visit for step in steps_of(events)] == list(range(1, 9))
    complete = [event for event in events if isinstance(event, CycleEnded)]
    assert [(each.cycle, each.complete) for each in complete] == [(1, True), (2, True), (3, True)]
    assert records.seq.tolist() == list(range(1, len(records) + 1))
    assert outcome(events) == ("completed", "the program was run to its end")


async def test_a_run_in_stretches_has_the_records_of_a_run_in_one_go(tmp_path: Path) -> None:
    found: list[Records] = []
    for name, until_ in (("one go", ()), ("stretches", (NEVER,))):
        async with open_journal(tmp_path / f"{name}.db", "lab") as journal:
            program = program_of(rest(0), cycles(3, *until_), rest(3))
            found.append((await run_through(journal, program, PaperCycler()))[0])
    for name in set(RECORD_COLUMNS) - {"unix_time_s"}:
        assert getattr(found[0], name) == pytest.approx(getattr(found[1], name), abs=1e-15)


async def test_a_loop_is_left_when_its_cycle_says_so_and_the_reason_is_kept(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    _, events = await run_through(journal, program_of(rest(0), cycles(50, AT_ONCE)), cycler)
    assert [step.step for step in steps_of(events)] == [1, 2, 3]
    [taken] = of_kind(events, BranchTaken)
    assert isinstance(taken, BranchTaken)
    assert taken.held
    assert "discharge_Ah of cycle 1" in taken.reason
    assert outcome(events)[0] == "completed"


async def test_a_branch_sends_the_run_to_the_stretch_that_it_chooses(journal: Journal) -> None:
    late = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 1800.0)
    timed = msgspec.structs.replace(charge(0), ends=(*charge(0).ends, late))
    body = (
        timed,
        Branch(EndedBy(Quantity.STEP_TIME_S), (rest(1),), (discharge(2),), line=7),
        Branch(EndedBy(Quantity.VOLTAGE_V), (Finish("it was full"),), line=9),
        discharge(3),
    )
    _, events = await run_through(journal, program_of(*body), PaperCycler())
    assert [step.step for step in steps_of(events)] == [1, 2, 4]
    assert [(e.line, e.held) for e in events if isinstance(e, BranchTaken)] == [
        (7, True),
        (9, False),
    ]


async def test_a_recipe_may_finish_before_its_last_step(journal: Journal) -> None:
    body = (
        charge(0),
        Branch(EndedBy(Quantity.VOLTAGE_V), (Finish("it was full"),), line=3),
        rest(1),
    )
    _, events = await run_through(journal, program_of(*body), PaperCycler())
    assert outcome(events) == ("completed", "it was full")


@pytest.mark.parametrize("leaves_loops", [False, True])
@pytest.mark.parametrize("then", [Then.LEAVE_LOOP, Then.END_RUN])
async def test_an_end_that_leads_out_of_a_loop_does_so_on_any_sequencer(
    journal: Journal, then: Then, leaves_loops: bool
) -> None:
    out = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 3.0, then)
    leaving = msgspec.structs.replace(charge(1), ends=(out,))
    loop = Loop(4, (discharge(0, until_V=1.5), leaving), counts_cycles=True)
    cycler = PaperCycler(leaves_loops=leaves_loops)
    _, events = await run_through(journal, program_of(loop, rest(2)), cycler)
    left = [1, 2, 3] if then is Then.LEAVE_LOOP else [1, 2]
    assert [step.step for step in steps_of(events)] == left
    assert outcome(events)[0] == "completed"


async def test_the_cell_rests_between_two_stretches_and_is_looked_at(journal: Journal) -> None:
    cycler = PaperCycler()
    program = program_of(charge(0), paused(1), discharge(2))
    records, events = await run_through(journal, program, cycler)
    assert [step.technique for step in steps_of(events)] == [
        "constant_current",
        "wait",
        "constant_current",
    ]
    waiting = records.visit == 2
    assert waiting.sum() >= 3
    assert records.voltage_V[waiting] == pytest.approx(4.0)
    assert (records.current_A[waiting] == 0.0).all()
    assert cycler.calls.count("start") == 2
    assert records.charge_Ah[-1] == pytest.approx(0.0, abs=1e-12)


async def test_a_program_that_begins_with_a_step_of_the_host_arms_nothing_before_it_is_over(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    _, events = await run_through(journal, program_of(paused(0), charge(1)), cycler)
    calls = [call for call in cycler.calls if call in {"status", "arm", "start"}]
    assert calls[0] == "status"
    assert calls.count("arm") == 1
    assert [test.tag for test in cycler.tests] == ["r"]
    assert outcome(events)[0] == "completed"


async def test_a_power_cut_at_any_journal_boundary_of_a_run_in_stretches_leaves_no_trace(
    tmp_path: Path,
) -> None:
    program = program_of(rest(0), cycles(2, NEVER), paused(3, 60.0), charge(4, until_V=2.5))

    async def cut_run(folder: Path, cut_at: int, after: bool) -> tuple[Records, list[Event], int]:
        cycler = PaperCycler()
        async with open_journal(folder / "cut.db", "lab") as journal:
            await begin(journal, program)
            runner = await runner_from(journal, cycler)
            runner._record.journal = CutJournal(journal, cut_at, after=after)  # type: ignore[assignment]
            cut_indeed = 0
            try:
                await runner.run()
            except PowerCutError:
                cut_indeed = 1
                async with asyncio.timeout(20.0):
                    await (await runner_from(journal, cycler)).run()
            assert len(cycler.tests) == 3
            return *(await kept(journal)), cut_indeed

    (tmp_path / "whole").mkdir()
    whole, whole_events, _ = await cut_run(tmp_path / "whole", 10**6, False)
    kinds = (StepEnded, CycleEnded, BranchTaken)
    onboard = whole.step != 4
    for after in (False, True):
        for cut_at in range(1, 100):
            folder = tmp_path / f"{cut_at}{after}"
            folder.mkdir()
            records, events, cut_indeed = await cut_run(folder, cut_at, after)
            assert [shape(e) for e in of_kind(events, *kinds)] == [
                shape(e) for e in of_kind(whole_events, *kinds)
            ]
            for name in set(RECORD_COLUMNS) - {"seq", "test_time_s"}:
                found = getattr(records, name)[records.step != 4]
                assert found.tobytes() == getattr(whole, name)[onboard].tobytes()
            if not cut_indeed:
                assert cut_at > 20
                break
        else:
            pytest.fail("the run never got through")


def shape(event: Event) -> tuple[object, ...]:
    """An event without what a second look at a resting cell changes."""
    match event:
        case StepEnded():
            return (event.visit, event.step, event.cycle, event.ended_by, event.charge_Ah)
        case CycleEnded():
            return (event.cycle, event.complete, event.interrupted)
        case BranchTaken():
            return (event.line, event.held, event.reason)
        case _:
            return ()


async def test_a_limit_that_is_passed_in_a_later_stretch_trips_the_run(journal: Journal) -> None:
    tight = msgspec.structs.replace(LIMITS, voltage_max_V=3.5)
    program = program_of(
        charge(0, until_V=3.0), paused(1), charge(2, until_V=4.0), rest(3), limits=tight
    )
    cycler = PaperCycler(rows_per_answer=10)
    _, events = await run_through(journal, program, cycler)
    assert outcome(events)[0] == "tripped"
    assert "voltage 3.51" in outcome(events)[1]
    assert cycler.calls.count("stop") == 1


async def test_a_later_stretch_that_is_not_taken_is_tried_again_and_then_held(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    await begin(journal, CHECKED_EACH_CYCLE)
    runner = await runner_from(journal, cycler)
    arm = cycler.arm

    async def refusing(channel: str, program: Program, tag: str) -> Armed:
        if tag == "r.2":
            raise InstrumentError("the folder is full")
        return await arm(channel, program, tag)

    cycler.arm = refusing  # type: ignore[method-assign]
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "the folder is full" in runner.checkpoint.reason
        cycler.arm = arm  # type: ignore[method-assign]
        await runner.release("there is room again")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert len(cycler.tests) == 4


async def test_a_start_of_a_later_stretch_whose_answer_was_lost_is_not_repeated(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    await begin(journal, CHECKED_EACH_CYCLE)
    runner = await runner_from(journal, cycler)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.segment.number == 2)
        cycler.lose_answer_of_start = True
        await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert len(cycler.tests) == 4


async def test_a_stretch_that_the_instrument_stops_early_is_not_taken_for_done(
    journal: Journal,
) -> None:
    cycler = PaperCycler(rows_per_answer=20)
    await begin(journal, CHECKED_EACH_CYCLE)
    runner = await runner_from(journal, cycler)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.segment.number == 3 and len(cycler.tests) == 3)
        cycler.stopped_at = 100
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "before the end" in runner.checkpoint.reason
        await runner.stop("enough")
        await running
    assert runner.checkpoint.state is RunState.STOPPED


@pytest.mark.parametrize("stretch", [1, 3])
async def test_a_stretch_that_says_it_is_finished_and_is_not_is_not_taken_for_done(
    journal: Journal, stretch: int
) -> None:
    cycler = PaperCycler(rows_per_answer=20)
    cycler.says_when_stopped = ChannelState.FINISHED
    await begin(journal, CHECKED_EACH_CYCLE)
    runner = await runner_from(journal, cycler)
    async with at_work(runner) as running:
        await until(lambda: len(cycler.tests) == stretch)
        cycler.stopped_at = 100
        await running
    assert runner.checkpoint.state is RunState.STOPPED
    assert "before the end" in runner.checkpoint.reason
    assert len(cycler.tests) == stretch


async def test_somebody_elses_test_while_the_host_waits_holds_the_run(journal: Journal) -> None:
    cycler = PaperCycler()
    await begin(journal, program_of(charge(0), paused(1, 1e9), discharge(2)))
    runner = await runner_from(journal, cycler)
    async with at_work(runner):
        await until(lambda: runner.checkpoint.host is not None)
        cycler.tests.append(PaperTest("somebody else", PROGRAM))
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "waits there at open circuit" in runner.checkpoint.reason
    assert "stop" not in cycler.calls


async def test_a_run_that_is_stopped_while_the_host_waits_ends_without_a_word_to_the_channel(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    await begin(journal, program_of(charge(0), paused(1, 1e9), discharge(2)))
    runner = await runner_from(journal, cycler)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.host is not None)
        await runner.stop("lunch")
        await running
    events = (await kept(journal))[1]
    assert outcome(events) == ("stopped", "lunch")
    assert "stop" not in cycler.calls
    assert steps_of(events)[-1].ended_by == "stop"
