"""A run on a source that was left alone: it goes on with what is left of its step, or it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_cycler import charge, discharge, rest, three_cycles
from paper_runs import (
    CutJournal,
    LabClock,
    PowerCutError,
    at_work,
    begin,
    kept,
    of_kind,
    runner_from,
    until,
)
from paper_source import PaperSource

from labctl.engine.bench import Pace
from labctl.engine.journal import Journal, open_journal
from labctl.engine.runner import Runner
from labctl.engine.states import RunState
from labctl.program import (
    Comparison,
    EndCondition,
    Loop,
    Node,
    Program,
    Quantity,
    Step,
    VoltageSweep,
)
from labctl.stream.events import CycleEnded, Event, GapRecorded, RunEnded, StepEnded

PROGRAM = three_cycles(2)
AT_ONCE = Pace(keep_every_s=0.0, slow_journal_s=6000.0)
SAMPLE_AH = 1e-3 * 60.0 / 3600.0


def program_of(*body: Node) -> Program:
    return msgspec.structs.replace(PROGRAM, body=body)


@pytest.fixture
def clock() -> LabClock:
    return LabClock()


@pytest.fixture
async def journal(tmp_path: Path, clock: LabClock) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        clock.waits_for(journal)
        yield journal


@pytest.fixture
def source(clock: LabClock) -> PaperSource:
    return PaperSource(clock)


async def killed(journal: Journal, source: PaperSource, records: int) -> None:
    """A run whose computer dies with the output on, when so many records are in its journal."""
    runner = await runner_from(journal, source, source.clock, pace=AT_ONCE)
    die = lambda: setattr(source, "link_down", True)  # noqa: E731
    cut = CutJournal(journal, 1_000_000, after=False, then=die)
    runner._record.journal = cut  # type: ignore[assignment]
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.checkpoint.place.seq >= records)
    cut.cut_now()
    with pytest.raises(PowerCutError):
        await running
    source.link_down = False


async def restarted(journal: Journal, source: PaperSource) -> Runner:
    return await runner_from(journal, source, source.clock, pace=AT_ONCE)


async def to_its_end(runner: Runner) -> None:
    async with asyncio.timeout(20.0):
        await runner.run()


def gaps(events: list[Event]) -> list[GapRecorded]:
    return [event for event in events if isinstance(event, GapRecorded)]


async def test_a_killed_run_goes_off_first_and_makes_what_is_left_of_its_step(
    journal: Journal, source: PaperSource, clock: LabClock
) -> None:
    await begin(journal, program_of(Loop(2, (charge(0), discharge(1)), counts_cycles=True)))
    await killed(journal, source, 40)
    assert source.output_on
    await clock.sleep(20.0)
    source.calls.clear()
    runner = await restarted(journal, source)
    done = runner.checkpoint.place
    await to_its_end(runner)
    assert source.calls[:3] == ["open", "off", "status"]
    records, events = await kept(journal)
    assert [step.visit for step in events if isinstance(step, StepEnded)] == [1, 2, 3, 4]
    cycles = [event for event in events if isinstance(event, CycleEnded)]
    assert [(cycle.cycle, cycle.interrupted) for cycle in cycles] == [(1, True), (2, False)]
    [gap] = gaps(events)
    assert gap.after_seq == done.seq
    assert "for 140 s" in gap.reason
    resumed = next(t for t in source.tasks if t.done_s and t.step.label == "charge")
    assert (resumed.done_s, resumed.done_Ah) == (done.step_time_s, pytest.approx(done.charge_Ah))
    charged_Ah = records.charge_Ah[records.visit == 1]
    assert charged_Ah.max() == pytest.approx(2e-3, abs=3 * SAMPLE_AH)
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_nothing_is_integrated_over_a_gap(
    journal: Journal, source: PaperSource, clock: LabClock
) -> None:
    await begin(journal, program_of(charge(0)))
    await killed(journal, source, 40)
    await clock.sleep(600.0)
    runner = await restarted(journal, source)
    before_Ah, measured_V = runner.checkpoint.place.charge_Ah, runner.checkpoint.place.voltage_V
    await to_its_end(runner)
    records, _ = await kept(journal)
    missed_Ah = 2e-3 - records.charge_Ah[-1]
    assert missed_Ah == pytest.approx(720e-3 / 3600.0, rel=1e-3)
    after = records.charge_Ah > before_Ah
    assert records.voltage_V[after][0] > measured_V + 0.15


async def test_a_rest_counts_the_time_that_went_by(
    journal: Journal, source: PaperSource, clock: LabClock
) -> None:
    await begin(journal, program_of(rest(0, 7200.0), charge(1)))
    await killed(journal, source, 10)
    await clock.sleep(3600.0)
    runner = await restarted(journal, source)
    await to_its_end(runner)
    records, _ = await kept(journal)
    assert records.test_time_s[records.visit == 1].max() == pytest.approx(7200.0, abs=60.0)
    assert clock.monotonic_s() == pytest.approx(7200.0 + 7200.0, abs=200.0)


async def test_a_rest_whose_time_is_over_when_the_run_goes_on_ends_at_its_next_reading(
    journal: Journal, source: PaperSource, clock: LabClock
) -> None:
    await begin(journal, program_of(rest(0), charge(1)))
    await killed(journal, source, 3)
    await clock.sleep(4000.0)
    await to_its_end(await restarted(journal, source))
    [first, _] = [e for e in (await kept(journal))[1] if isinstance(e, StepEnded)]
    assert (first.ended_by, first.last_seq) == ("step_time_s >= 600", 4)


async def test_a_step_that_was_done_by_its_charge_is_not_begun_again(
    journal: Journal, source: PaperSource
) -> None:
    full = EndCondition(Quantity.STEP_CHARGE_AH, Comparison.AT_LEAST, 39 * SAMPLE_AH)
    step = msgspec.structs.replace(charge(0), ends=(full,))
    await begin(journal, program_of(step, rest(1)))
    await killed(journal, source, 39)
    begun = len(source.tasks)
    await to_its_end(await restarted(journal, source))
    charges = [task for task in source.tasks[begun:] if task.step.label == "charge"]
    assert all(task.done_Ah < full.value for task in charges)
    [first, _] = [e for e in (await kept(journal))[1] if isinstance(e, StepEnded)]
    assert first.ended_by == str(full)


async def test_a_sweep_goes_on_from_where_it_was(journal: Journal, source: PaperSource) -> None:
    end = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.0)
    sweep = Step(0, "sweep", VoltageSweep(2.0, 4.0, 1e-3, 0.01), (end,), charge(0).record)
    await begin(journal, program_of(sweep))
    await killed(journal, source, 15)
    runner = await restarted(journal, source)
    await to_its_end(runner)
    control = source.tasks[-1].step.control
    assert isinstance(control, VoltageSweep)
    assert control.from_V is not None
    assert control.from_V > 2.5
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_a_run_that_was_left_alone_for_long_waits_for_a_person(
    journal: Journal, source: PaperSource, clock: LabClock
) -> None:
    await begin(journal, program_of(charge(0)))
    source.off_when_unheard_s = 120.0
    await killed(journal, source, 40)
    await clock.sleep(13 * 3600.0)
    runner = await restarted(journal, source)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "13.0 h" in runner.checkpoint.reason
        assert not source.output_on
        begun = source.calls.count("begin")
        await runner.release("the cell is as it was")
        await running
    assert source.calls.count("begin") > begun
    assert runner.checkpoint.state is RunState.COMPLETED


@pytest.mark.parametrize("passed_Ah", [-4e-3, 3e-3], ids=["wrong way round", "overcharged"])
async def test_an_open_circuit_beyond_the_limits_holds_the_run(
    journal: Journal, source: PaperSource, passed_Ah: float
) -> None:
    await begin(journal, program_of(charge(0)))
    await killed(journal, source, 40)
    good_Ah, source.passed_Ah = source.passed_Ah, passed_Ah
    runner = await restarted(journal, source)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "at open circuit, voltage" in runner.checkpoint.reason
        assert not source.output_on
        source.passed_Ah = good_Ah
        await runner.release("it was put in the right way round")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_another_instrument_at_the_same_address_is_not_used(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0)))
    await killed(journal, source, 40)
    source.serial = "P2"
    source.calls.clear()
    runner = await restarted(journal, source)
    async with at_work(runner):
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "serial number P2" in runner.checkpoint.reason
        assert "begin" not in source.calls


async def test_a_cut_cable_is_followed_by_a_gap_and_the_rest_of_the_step(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, PROGRAM)
    runner = await restarted(journal, source)
    source.off_when_unheard_s = 120.0
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 60)
        source.link_down = True
        await until(lambda: runner.link_down)
        source.link_down = False
        await running
    records, events = await kept(journal)
    assert runner.checkpoint.state is RunState.COMPLETED
    assert len(gaps(events)) == 1
    assert records.seq.tolist() == list(range(1, len(records) + 1))
    assert [e.visit for e in events if isinstance(e, StepEnded)] == [1, 2, 3, 4, 5]


async def test_a_run_that_was_paused_over_a_restart_is_still_paused(
    journal: Journal, source: PaperSource, clock: LabClock
) -> None:
    await begin(journal, PROGRAM)
    runner = await restarted(journal, source)
    async with at_work(runner):
        await until(lambda: runner.checkpoint.place.seq >= 60)
        await runner.pause("lunch")
        await until(lambda: runner.checkpoint.left)
    await clock.sleep(24 * 3600.0)
    runner = await restarted(journal, source)
    async with at_work(runner) as running:
        for _ in range(200):
            await asyncio.sleep(0)
        assert runner.checkpoint.state is RunState.PAUSED
        assert not source.output_on
        await runner.resume("back again")
        await running
    events = (await kept(journal))[1]
    assert runner.checkpoint.state is RunState.COMPLETED
    assert gaps(events) == []
    [first, second] = [event for event in events if isinstance(event, CycleEnded)]
    assert (first.interrupted, second.interrupted) == (True, False)


def shape(events: list[Event]) -> list[tuple[object, ...]]:
    """What a run came to, apart from its figures: its visits and cycles in their order."""
    found: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, StepEnded):
            found.append((event.visit, event.step, event.cycle, event.ended_by))
        elif isinstance(event, CycleEnded):
            found.append(("cycle", event.cycle, event.complete))
        elif isinstance(event, RunEnded):
            found.append((event.outcome, event.reason))
    return found


WHOLE: list[tuple[object, ...]] = []


async def cut_often(
    folder: Path,
    cuts: list[tuple[int, bool, float, bool]],
    program: Program = PROGRAM,
    *,
    sample_s: float = 600.0,
) -> tuple[list[Event], int]:
    """A run that is cut at so many commits each, before or after them, for so many seconds, and
    by a killed computer or by a daemon that is stopped; and how many of the cuts it came to."""
    cut_indeed = 0
    clock = LabClock()
    source = PaperSource(clock, sample_s=sample_s)
    async with open_journal(folder / "cut.db", "lab") as journal:
        clock.waits_for(journal)
        await begin(journal, program)
        for cut_at, after, gap_s, killed_dead in cuts:
            runner = await restarted(journal, source)
            die = lambda: setattr(source, "link_down", True)  # noqa: E731
            cut = CutJournal(journal, cut_at, after=after, then=die if killed_dead else no_more)
            runner._record.journal = cut  # type: ignore[assignment]
            try:
                await to_its_end(runner)
            except PowerCutError:
                cut_indeed += 1
                await clock.sleep(gap_s)
            source.link_down = False
        await to_its_end(await restarted(journal, source))
        records, events = await kept(journal)
    assert records.seq.tolist() == list(range(1, len(records) + 1))
    assert not source.output_on
    return events, cut_indeed


def no_more() -> None:
    """Nothing else dies with the journal."""


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(
        st.tuples(
            st.integers(1, 45), st.booleans(), st.sampled_from([0.0, 20.0, 400.0]), st.booleans()
        ),
        max_size=4,
    )
)
def test_a_run_that_is_killed_anywhere_makes_the_same_visits_and_cycles(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, bool, float, bool]]
) -> None:
    if not WHOLE:
        WHOLE.extend(shape(asyncio.run(cut_often(tmp_path_factory.mktemp("whole"), []))[0]))
    events, _ = asyncio.run(cut_often(tmp_path_factory.mktemp("cut"), cuts))
    assert shape(events) == WHOLE
    for step in events:
        if isinstance(step, StepEnded) and step.technique != "rest":
            passed_Ah = step.charge_Ah + step.discharge_Ah
            missed_Ah = 1e-3 * (1800.0 * len(cuts) + 400.0 * len(cuts) + 1200.0) / 3600.0
            assert passed_Ah == pytest.approx(2e-3, abs=missed_Ah)
    assert len(of_kind(events, GapRecorded)) <= len(cuts)


async def test_every_journal_boundary_of_a_run_can_be_its_last(tmp_path: Path) -> None:
    small = program_of(rest(0), Loop(1, (charge(1), discharge(2)), counts_cycles=True))
    whole = shape((await cut_often(tmp_path, [], small, sample_s=1800.0))[0])
    for after in (False, True):
        for cut_at in range(1, 60):
            folder = tmp_path / f"{cut_at}{after}"
            folder.mkdir()
            cuts = [(cut_at, after, 20.0, True)]
            events, cut_indeed = await cut_often(folder, cuts, small, sample_s=1800.0)
            assert shape(events) == whole
            if not cut_indeed:
                assert cut_at > 10
                break
        else:
            pytest.fail("the run never got through")
