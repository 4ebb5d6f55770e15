"""A run on a source: the engine walks the program, visit by visit, and nothing flows unwatched."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from paper_cycler import LIMITS, charge, discharge, rest, three_cycles
from paper_runs import FullDisk, at_work, begin, kept, of_kind, runner_from, until
from paper_source import PaperSource

from labctl.clock import RealClock, VirtualClock
from labctl.drivers.base import Failsafe
from labctl.engine.bench import Pace
from labctl.engine.journal import Entry, Journal, open_journal
from labctl.engine.states import RunState
from labctl.errors import JournalError, LinkError
from labctl.program import (
    Branch,
    Comparison,
    CycleFigure,
    CycleResult,
    EndCondition,
    EndedBy,
    Finish,
    Impedance,
    Limits,
    Loop,
    Node,
    Program,
    Quantity,
    RecordRule,
    Step,
    Then,
    VoltageSweep,
)
from labctl.stream.events import (
    BranchTaken,
    CycleEnded,
    Event,
    GapRecorded,
    RunEnded,
    SpectrumMeasured,
    StepEnded,
)

PROGRAM = three_cycles()


def program_of(*body: Node, limits: Limits = LIMITS) -> Program:
    return msgspec.structs.replace(PROGRAM, body=body, limits=limits)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        yield journal


@pytest.fixture
def source() -> PaperSource:
    return PaperSource(VirtualClock(0.0))


def steps_of(events: list[Event]) -> list[StepEnded]:
    return [event for event in events if isinstance(event, StepEnded)]


def ending(events: list[Event]) -> RunEnded:
    [ended] = of_kind(events, RunEnded)
    assert isinstance(ended, RunEnded)
    return ended


async def run_through(journal: Journal, source: PaperSource, program: Program) -> RunEnded:
    await begin(journal, program)
    runner = await runner_from(journal, source, source.clock)
    async with asyncio.timeout(20.0):
        await runner.run()
    return ending((await kept(journal))[1])


async def test_every_visit_is_armed_begun_and_ended_by_its_own_condition(
    journal: Journal, source: PaperSource
) -> None:
    ended = await run_through(journal, source, PROGRAM)
    records, events = await kept(journal)
    assert (ended.outcome, ended.last_seq) == ("completed", len(records))
    ends = [step.ended_by for step in steps_of(events)]
    assert ends == ["step_time_s >= 600", *["voltage_V >= 4", "voltage_V <= 2"] * 3]
    cycles = [event for event in events if isinstance(event, CycleEnded)]
    assert [(each.cycle, each.complete, each.interrupted) for each in cycles] == [
        (1, True, False),
        (2, True, False),
        (3, True, False),
    ]
    assert np.allclose(records.charge_Ah[records.step == 2].max(), 2e-3)
    assert not source.output_on
    assert source.calls.count("begin") == 7


async def test_the_output_stays_on_from_one_current_to_the_next_and_goes_off_for_a_rest(
    journal: Journal, source: PaperSource
) -> None:
    await run_through(journal, source, program_of(charge(0), discharge(1), rest(2)))
    calls = [call for call in source.calls if call in {"begin", "off"}]
    assert calls == ["off", "begin", "begin", "off", "begin", "off"]


async def test_a_visit_is_in_the_journal_before_it_begins(
    journal: Journal, source: PaperSource
) -> None:
    visits: list[int] = []
    source.before = lambda call: visits.append(journaled.visit) if call == "begin" else None
    commit = journal.commit

    class Journaled:
        visit = 0

    journaled = Journaled()

    async def committed(entry: Entry) -> None:
        await commit(entry)
        if entry.checkpoint is not None:
            journaled.visit = entry.checkpoint.place.visit

    journal.commit = committed  # type: ignore[method-assign]
    await run_through(journal, source, program_of(charge(0), discharge(1), rest(2)))
    assert visits == [1, 2, 3]


async def test_a_current_goes_off_while_the_journal_is_slow_at_the_end_of_a_step(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0), discharge(1)))
    runner = await runner_from(journal, source, source.clock, pace=Pace(slow_journal_s=1.0))
    commit, free = journal.commit, asyncio.Event()

    async def slow(entry: Entry) -> None:
        if entry.checkpoint is not None and entry.checkpoint.place.visit == 2:
            await free.wait()
        await commit(entry)

    journal.commit = slow  # type: ignore[method-assign]
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.visit == 1 and source.calls[-1] == "off")
        assert not source.output_on
        free.set()
        await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert not of_kind((await kept(journal))[1], GapRecorded)


async def test_the_output_is_off_before_a_rest_is_even_in_the_journal(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0), rest(1)))
    runner = await runner_from(journal, source, source.clock)
    commit, outputs = journal.commit, list[bool]()

    async def committed(entry: Entry) -> None:
        if entry.checkpoint is not None and entry.checkpoint.place.visit == 2:
            outputs.append(source.output_on)
        await commit(entry)

    journal.commit = committed  # type: ignore[method-assign]
    await runner.run()
    assert not any(outputs)
    assert source.calls.count("status") == 2


async def test_a_stop_that_comes_just_when_a_step_ends_leaves_no_output_on(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0), discharge(1)))
    runner = await runner_from(journal, source, source.clock)
    keeping = runner._way._keeping  # type: ignore[attr-defined]
    settle = keeping.settle

    async def stopped_meanwhile() -> None:
        if runner.checkpoint.stop_later is None:
            await runner.stop("enough", at="step")
        await settle()

    keeping.settle = stopped_meanwhile
    await runner.run()
    assert runner.checkpoint.state is RunState.STOPPED
    assert not source.output_on
    assert source.calls.count("begin") == 1


async def test_a_step_that_ends_just_when_the_run_pauses_is_over_when_it_resumes(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0), discharge(1)))
    runner = await runner_from(journal, source, source.clock, pace=Pace(keep_every_s=0.0))
    keeping = runner._way._keeping  # type: ignore[attr-defined]
    settle = keeping.settle

    async def paused_meanwhile() -> None:
        if source.voltage_V > 3.99 and runner.checkpoint.state is RunState.RUNNING:
            keeping.settle = settle
            await runner.pause("lunch")
        await settle()

    keeping.settle = paused_meanwhile
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.left)
        assert runner.checkpoint.place.visit_over
        assert not source.output_on
        await runner.resume("back")
        await until(lambda: runner.checkpoint.place.visit == 2)
        assert not runner.checkpoint.left
        await running
    assert [task.step.label for task in source.tasks] == ["charge", "discharge"]
    [first, _] = steps_of((await kept(journal))[1])
    assert first.ended_by == "voltage_V >= 4"


@pytest.mark.parametrize("order", ["skip", "stop", "pause"])
async def test_the_last_reading_of_what_is_cut_short_is_a_record(
    journal: Journal, source: PaperSource, order: str
) -> None:
    seldom = msgspec.structs.replace(charge(0), record=RecordRule(every_s=1e6))
    await begin(journal, program_of(seldom, discharge(1)))
    runner = await runner_from(journal, source, source.clock)
    async with at_work(runner):
        await until(lambda: source.calls.count("look") > 20)
        await getattr(runner, order)("enough")
        await until(
            lambda: (
                runner.checkpoint.left
                or runner.checkpoint.state.ended
                or (runner.checkpoint.place.visit == 2)
            )
        )
    records, _ = await kept(journal)
    [first_s, last_s] = records.test_time_s[records.visit == 1].tolist()
    assert first_s == 0.0
    assert last_s >= 20 * 60.0
    if order != "skip":
        assert records.charge_Ah[-1] == pytest.approx(source.passed_Ah, abs=2e-5)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"voltage_max_V": 3.5}, "voltage 3.51"),
        ({"current_max_A": 8e-4}, "current 0.001"),
        ({"step_charge_max_Ah": 1e-3}, "charge 0.00106"),
        ({"duration_max_s": 3000.0}, "lasted longer than its limit of 3000 s"),
    ],
)
async def test_a_limit_that_is_passed_switches_the_output_off_before_it_is_journalled(
    journal: Journal, source: PaperSource, limits: dict[str, float], said: str
) -> None:
    commit, outputs = journal.commit, dict[str, bool]()

    async def committed(entry: Entry) -> None:
        if entry.checkpoint is not None:
            outputs.setdefault(str(entry.checkpoint.state), source.output_on)
        await commit(entry)

    journal.commit = committed  # type: ignore[method-assign]
    tight = msgspec.structs.replace(LIMITS, **limits)
    ended = await run_through(journal, source, program_of(charge(0), limits=tight))
    assert ended.outcome == "tripped"
    assert said in ended.reason
    assert outputs["tripped"] is False
    [step] = steps_of((await kept(journal))[1])
    assert step.ended_by == "limit"
    assert step.last_seq == ended.last_seq


async def test_a_limit_of_a_step_alone_trips_the_run_too(
    journal: Journal, source: PaperSource
) -> None:
    tight = msgspec.structs.replace(LIMITS, voltage_max_V=3.0)
    step = msgspec.structs.replace(charge(0), limits=tight)
    ended = await run_through(journal, source, program_of(step))
    assert ended.outcome == "tripped"
    assert source.tasks[0].limits == tight


async def test_an_output_that_does_not_go_off_at_a_limit_is_told_until_it_does(
    journal: Journal, source: PaperSource
) -> None:
    source.deaf = 4
    tight = msgspec.structs.replace(LIMITS, voltage_max_V=3.5)
    ended = await run_through(journal, source, program_of(charge(0), limits=tight))
    assert ended.outcome == "tripped"
    assert "voltage 3.51" in ended.reason
    assert source.calls.count("off") == 5
    assert not source.output_on


async def test_a_limit_that_could_not_be_journalled_is_not_forgotten(
    journal: Journal, source: PaperSource
) -> None:
    tight = msgspec.structs.replace(LIMITS, voltage_max_V=3.5)
    await begin(journal, program_of(charge(0), limits=tight))
    runner = await runner_from(journal, source, source.clock)
    runner._record.journal = full = FullDisk(journal, commits=0)  # type: ignore[assignment]
    breaks = iter([4])
    source.before = lambda call: (
        setattr(full, "commits", next(breaks, full.commits))
        if call == "off" and source.output_on
        else None
    )
    async with asyncio.timeout(20.0):
        await runner.run()
    assert runner.checkpoint.state is RunState.TRIPPED
    assert "voltage 3.51" in runner.checkpoint.reason
    assert source.calls.count("begin") == 1


async def test_a_protection_of_the_instrument_trips_the_run(
    journal: Journal, source: PaperSource
) -> None:
    looks = iter(range(1000))
    source.before = lambda call: (
        setattr(source, "trips", "overvoltage") if call == "look" and next(looks) == 5 else None
    )
    ended = await run_through(journal, source, program_of(charge(0)))
    assert (ended.outcome, "overvoltage" in ended.reason) == ("tripped", True)


@pytest.mark.parametrize(
    ("step", "wider", "said"),
    [
        (charge(0), {"voltage_max_V": 4.6}, "upper voltage 4.6 instead of 4.5"),
        (charge(0), {"voltage_max_V": math.inf}, "upper voltage inf"),
        (charge(0), {"current_max_A": 1.0}, "charging current 1 instead of 0.1"),
        (discharge(0, until_V=1.5), {"voltage_min_V": -math.inf}, "lower voltage -inf"),
    ],
)
async def test_limits_that_are_read_back_wider_end_the_run_before_anything_flows(
    journal: Journal, source: PaperSource, step: Step, wider: dict[str, float], said: str
) -> None:
    source.read_back = lambda limits: msgspec.structs.replace(limits, **wider)
    ended = await run_through(journal, source, program_of(step))
    assert ended.outcome == "failed"
    assert said in ended.reason
    assert "begin" not in source.calls


@pytest.mark.parametrize(
    ("step", "none_held"),
    [
        (charge(0), {"voltage_min_V": -math.inf, "step_charge_max_Ah": math.inf}),
        (discharge(0, until_V=1.5), {"voltage_max_V": math.inf, "current_max_A": math.inf}),
    ],
)
async def test_a_limit_that_the_current_leads_away_from_is_the_hosts_to_watch(
    journal: Journal, source: PaperSource, step: Step, none_held: dict[str, float]
) -> None:
    source.read_back = lambda limits: msgspec.structs.replace(limits, **none_held)
    assert (await run_through(journal, source, program_of(step))).outcome == "completed"


async def test_limits_read_back_wider_in_a_later_step_hold_the_run_with_its_output_off(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(discharge(0, until_V=1.5), charge(1)))
    runner = await runner_from(journal, source, source.clock)
    good, bad = source.read_back, lambda limits: msgspec.structs.replace(limits, voltage_max_V=9.0)

    def read_back(limits: Limits) -> Limits:
        return (bad if runner.checkpoint.place.visit == 2 else good)(limits)

    source.read_back = read_back
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "upper voltage 9 instead of 4.5" in runner.checkpoint.reason
        assert not source.output_on
        source.read_back = good
        await runner.release("its firmware was put right")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_what_nothing_would_switch_off_does_not_charge(
    journal: Journal, source: PaperSource
) -> None:
    source.failsafe = Failsafe.NONE
    ended = await run_through(journal, source, PROGRAM)
    assert ended.outcome == "failed"
    assert "step 2 (charge) charges" in ended.reason
    assert source.calls == []


async def test_a_first_step_that_is_not_taken_ends_the_run(
    journal: Journal, source: PaperSource
) -> None:
    source.refuses = "no such range"
    ended = await run_through(journal, source, program_of(charge(0)))
    assert (ended.outcome, "no such range" in ended.reason) == ("failed", True)


async def test_what_the_instrument_ends_by_itself_is_over_by_its_own_condition(
    journal: Journal, source: PaperSource
) -> None:
    source.ends_itself = True
    source.sample_s = 700.0
    ended = await run_through(journal, source, program_of(charge(0), discharge(1)))
    records, events = await kept(journal)
    assert ended.outcome == "completed"
    assert [step.ended_by for step in steps_of(events)] == ["voltage_V >= 4", "voltage_V <= 2"]
    assert records.voltage_V.max() == pytest.approx(4.0)


async def test_an_instrument_that_knows_what_ended_a_visit_is_believed(
    journal: Journal, source: PaperSource
) -> None:
    source.ends_itself, source.reads_low_V = True, 0.05
    ended = await run_through(journal, source, program_of(charge(0)))
    records, events = await kept(journal)
    assert (ended.outcome, steps_of(events)[0].ended_by) == ("completed", "voltage_V >= 4")
    assert records.voltage_V.max() == pytest.approx(3.95)


async def test_a_visit_that_is_given_up_is_taken_up_again(
    journal: Journal, source: PaperSource
) -> None:
    source.gives_up = 2
    ended = await run_through(journal, source, PROGRAM)
    assert ended.outcome == "completed"
    [first, *others] = [e for e in (await kept(journal))[1] if isinstance(e, CycleEnded)]
    assert first.interrupted
    assert not any(cycle.interrupted for cycle in others)


async def test_a_visit_that_is_given_up_again_and_again_holds_the_run(
    journal: Journal, source: PaperSource
) -> None:
    source.gives_up = 100
    await begin(journal, program_of(charge(0)))
    runner = await runner_from(journal, source, source.clock)
    async with at_work(runner):
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "none of its ends explains" in runner.checkpoint.reason
        assert not source.output_on


def sweep(index: int, to_V: float) -> Step:
    ends = (
        EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, to_V),
        EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 1e5),
    )
    return Step(index, "sweep", VoltageSweep(None, to_V, 1e-4, 0.01), ends, RecordRule())


def impedance(index: int) -> Step:
    end = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 3600.0)
    return Step(index, "eis", Impedance(False, 0.01, 1e3, 1.0, 1, 0.01), (end,), RecordRule())


async def test_a_spectrum_is_measured_in_its_place_and_ends_its_step(
    journal: Journal, source: PaperSource
) -> None:
    await run_through(journal, source, program_of(charge(0), impedance(1), impedance(2)))
    events = (await kept(journal))[1]
    spectra = [event for event in events if isinstance(event, SpectrumMeasured)]
    assert [(each.number, each.visit) for each in spectra] == [(1, 2), (2, 3)]
    assert [step.ended_by for step in steps_of(events)][1:] == ["complete", "complete"]


async def test_a_branch_goes_by_what_was_measured_and_says_so(
    journal: Journal, source: PaperSource
) -> None:
    late = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 1800.0)
    timed = msgspec.structs.replace(charge(0), ends=(*charge(0).ends, late))
    body = (
        timed,
        Branch(EndedBy(Quantity.STEP_TIME_S), (rest(1),), (discharge(2),), line=7),
        Branch(EndedBy(Quantity.VOLTAGE_V), (Finish("it was full"),), line=9),
        rest(3),
    )
    ended = await run_through(journal, source, program_of(*body))
    events = (await kept(journal))[1]
    assert [step.step for step in steps_of(events)] == [1, 2, 4]
    taken = [(e.line, e.held) for e in events if isinstance(e, BranchTaken)]
    assert taken == [(7, True), (9, False)]
    assert ended.outcome == "completed"


async def test_a_loop_is_left_when_a_cycle_falls_below_its_mark(
    journal: Journal, source: PaperSource
) -> None:
    mark = CycleResult(CycleFigure.DISCHARGE_AH, Comparison.AT_MOST, 0.003)
    loop = Loop(50, (charge(0), discharge(1)), counts_cycles=True, until=(mark,))
    ended = await run_through(journal, source, program_of(loop, rest(2)))
    events = (await kept(journal))[1]
    assert [step.step for step in steps_of(events)] == [1, 2, 3]
    assert ended.outcome == "completed"


async def test_an_end_that_ends_the_run_is_a_proper_end(
    journal: Journal, source: PaperSource
) -> None:
    full = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 3.0, Then.END_RUN)
    step = msgspec.structs.replace(charge(0), ends=(full,))
    loop = Loop(5, (step, discharge(1)), counts_cycles=True)
    ended = await run_through(journal, source, program_of(loop))
    assert ended.outcome == "completed"
    assert not source.output_on
    [cycle] = of_kind((await kept(journal))[1], CycleEnded)
    assert isinstance(cycle, CycleEnded)
    assert not cycle.complete


async def test_readings_are_journalled_together_and_each_once(
    journal: Journal, source: PaperSource
) -> None:
    source.sample_s = 1.0
    often = msgspec.structs.replace(charge(0, until_V=2.5), record=RecordRule(every_s=1.0))
    await begin(journal, program_of(often))
    sizes: list[int] = []
    commit = journal.commit

    async def counted(entry: Entry) -> None:
        sizes.append(0 if entry.records is None else len(entry.records))
        await commit(entry)

    journal.commit = counted  # type: ignore[method-assign]
    pace = Pace(keep_every_s=math.inf, keep_most=300)
    runner = await runner_from(journal, source, source.clock, pace=pace, wall=RealClock())
    await runner.run()
    seqs = (await kept(journal))[0].seq.tolist()
    assert seqs == list(range(1, 1802))
    assert len([size for size in sizes if size]) <= 7


class StuckJournal:
    """A journal that keeps nothing more from some visit's second record on, until it is freed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.free = asyncio.Event()
        self.stuck = False

    async def commit(self, entry: Entry) -> None:
        if entry.checkpoint is not None and entry.checkpoint.place.seq > 10:
            self.stuck = True
            await self.free.wait()
        await self._journal.commit(entry)


async def test_limits_are_watched_while_the_journal_hangs(
    journal: Journal, source: PaperSource
) -> None:
    tight = msgspec.structs.replace(LIMITS, voltage_max_V=3.5)
    await begin(journal, program_of(charge(0), limits=tight))
    runner = await runner_from(journal, source, source.clock, pace=Pace(keep_every_s=0.0))
    runner._record.journal = stuck = StuckJournal(journal)  # type: ignore[assignment]
    async with at_work(runner) as running:
        await until(lambda: stuck.stuck and not source.output_on)
        assert source.voltage_V == pytest.approx(3.52, abs=0.02)
        assert runner.checkpoint.place.seq <= 10
        stuck.free.set()
        await running
    assert runner.checkpoint.state is RunState.TRIPPED
    assert len((await kept(journal))[0]) == runner.checkpoint.place.seq


async def test_a_journal_that_hangs_for_long_is_not_waited_for_with_the_output_on(
    journal: Journal, source: PaperSource
) -> None:
    source.sample_s = 0.01
    often = msgspec.structs.replace(charge(0), record=RecordRule(every_s=0.0))
    await begin(journal, program_of(often))
    runner = await runner_from(journal, source, source.clock, pace=Pace(keep_every_s=0.0))
    runner._record.journal = stuck = StuckJournal(journal)  # type: ignore[assignment]
    async with at_work(runner) as running:
        await until(lambda: stuck.stuck and not source.output_on)
        stuck.free.set()
        source.sample_s = 60.0
        await running
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_one_answer_that_cannot_be_understood_interrupts_nothing(
    journal: Journal, source: PaperSource
) -> None:
    looks = iter(range(10**6))
    source.before = lambda call: (
        setattr(source, "garbles", 1) if call == "look" and next(looks) % 20 == 5 else None
    )
    ended = await run_through(journal, source, PROGRAM)
    assert ended.outcome == "completed"
    events = (await kept(journal))[1]
    assert not of_kind(events, GapRecorded)
    assert source.calls.count("begin") == 7


async def test_answers_that_stay_unexplained_hold_the_run_with_its_output_off(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0)))
    runner = await runner_from(journal, source, source.clock)
    async with at_work(runner) as running:
        await until(lambda: source.calls.count("look") > 20)
        source.garbles = 10**6
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert not source.output_on
        source.garbles = 0
        await runner.release("the cable was loose")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_a_full_disk_switches_the_output_off_and_the_step_goes_on_when_there_is_room(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0)))
    runner = await runner_from(journal, source, source.clock, pace=Pace(keep_every_s=0.0))
    full = FullDisk(journal, commits=0)
    runner._record.journal = full  # type: ignore[assignment]
    async with at_work(runner) as running:
        await until(lambda: source.calls.count("look") > 20)
        full.commits = 4
        await until(lambda: "full" in runner.link_error)
        assert not source.output_on
        await running
    records, _ = await kept(journal)
    assert runner.checkpoint.state is RunState.COMPLETED
    assert records.seq.tolist() == list(range(1, len(records) + 1))
    assert records.voltage_V[-1] == pytest.approx(4.0, abs=0.02)
    passed_Ah = np.unique(records.charge_Ah)
    assert np.diff(passed_Ah).max() == pytest.approx(1e-3 / 60.0, rel=1e-6)
    assert records.charge_Ah[-1] == pytest.approx(source.passed_Ah, rel=1e-6)


async def test_a_disk_that_is_full_just_when_a_step_ends_does_not_begin_it_again(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0), discharge(1)))
    runner = await runner_from(journal, source, source.clock)
    commit, fails = journal.commit, iter([True, True])

    async def full(entry: Entry) -> None:
        if entry.checkpoint is not None and entry.checkpoint.place.visit == 2 and next(fails, 0):
            raise JournalError("the disk is full")
        await commit(entry)

    journal.commit = full  # type: ignore[method-assign]
    async with asyncio.timeout(20.0):
        await runner.run()
    records, events = await kept(journal)
    assert [task.step.label for task in source.tasks] == ["charge", "discharge"]
    assert [step.ended_by for step in steps_of(events)] == ["voltage_V >= 4", "voltage_V <= 2"]
    assert records.seq.tolist() == list(range(1, len(records) + 1))
    assert records.voltage_V.max() == pytest.approx(4.0)
    assert not of_kind(events, GapRecorded)


async def test_a_stop_that_a_full_disk_cannot_keep_stops_the_run_all_the_same(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0)))
    runner = await runner_from(journal, source, source.clock)
    full = FullDisk(journal, commits=0)
    runner._record.journal = full  # type: ignore[assignment]
    async with at_work(runner) as running:
        await until(lambda: source.calls.count("look") > 0 and source.output_on)
        full.commits = 6
        with pytest.raises(JournalError, match="full"):
            await runner.stop("smoke")
        assert not source.output_on
        begun = source.calls.count("begin")
        await running
    assert runner.checkpoint.state is RunState.STOPPED
    assert runner.checkpoint.reason == "smoke"
    assert source.calls.count("begin") == begun


async def test_a_link_that_is_lost_while_nothing_has_begun_is_waited_for(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0)))
    source.link_down = True
    runner = await runner_from(journal, source, source.clock)
    async with at_work(runner) as running:
        await until(lambda: runner.link_down)
        source.link_down = False
        await running
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_cancelling_a_run_switches_the_output_off_and_keeps_what_was_read(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0)))
    runner = await runner_from(journal, source, source.clock)
    async with at_work(runner):
        await until(lambda: source.calls.count("look") > 50)
    assert not source.output_on
    records, _ = await kept(journal)
    assert records.voltage_V[-1] == pytest.approx(source.voltage_V, abs=0.05)
    assert len(records) >= 50


async def test_a_run_on_a_link_that_fails_for_good_can_be_stopped_and_abandoned(
    journal: Journal, source: PaperSource
) -> None:
    await begin(journal, program_of(charge(0)))
    runner = await runner_from(journal, source, source.clock)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.visit == 1 and source.output_on)
        source.link_down = True
        await runner.stop("smoke")
        await until(lambda: runner.link_down)
        assert runner.checkpoint.state is RunState.STOPPING
        await runner.abandon("the plug was pulled")
        await running
    assert runner.checkpoint.state is RunState.STOPPED


def test_the_paper_source_says_when_its_cable_is_out(source: PaperSource) -> None:
    source.link_down = True
    with pytest.raises(LinkError):
        asyncio.run(source.open())
