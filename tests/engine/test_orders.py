"""What people ask of a run, on either kind of instrument: done once, or it is said why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from paper_cycler import PaperCycler, charge, discharge, rest, three_cycles
from paper_runs import LabClock, at_work, begin, kept, of_kind, runner_from, until
from paper_source import PaperSource

from labctl.engine.bench import Pace
from labctl.engine.journal import Entry, Journal, open_journal
from labctl.engine.runner import Runner
from labctl.engine.states import RunState
from labctl.errors import CommandError, LinkError
from labctl.model import Records
from labctl.program import (
    Comparison,
    CycleFigure,
    CycleResult,
    EndCondition,
    Loop,
    Node,
    Program,
    Quantity,
    RecordRule,
    Step,
    Wait,
)
from labctl.stream.events import (
    CommandTaken,
    CycleEnded,
    Event,
    GapRecorded,
    RunEnded,
    RunStateChanged,
    StepEnded,
)

PROGRAM = three_cycles(2)
NOTE = CommandTaken(
    command="c1", verb="x", actor="anna", detail="", outcome="done", unix_time_s=1.0
)
KEPT = ("c1", b"done")


def program_of(*body: Node) -> Program:
    return msgspec.structs.replace(PROGRAM, body=body)


class Lab:
    """A run of two cycles on either kind of instrument."""

    def __init__(self, kind: str, journal: Journal) -> None:
        self.kind = kind
        self.clock = LabClock()
        self.clock.waits_for(journal)
        self.journal = journal
        self.source = PaperSource(self.clock)
        self.cycler = PaperCycler(rows_per_answer=20)

    async def runner(self) -> Runner:
        driver = self.source if self.kind == "source" else self.cycler
        pace = Pace(slow_journal_s=6000.0, keep_every_s=0.0)
        return await runner_from(self.journal, driver, self.clock, pace=pace)

    async def made(self, program: Program = PROGRAM) -> Runner:
        await begin(self.journal, program)
        return await self.runner()

    @property
    def calls(self) -> list[str]:
        return self.source.calls if self.kind == "source" else self.cycler.calls

    @property
    def is_open(self) -> bool:
        """No current flows."""
        if self.kind == "source":
            return not self.source.output_on
        return self.cycler.paused or self.cycler.stopped_at is not None


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        yield journal


@pytest.fixture(params=["source", "sequencer"])
def lab(request: pytest.FixtureRequest, journal: Journal) -> Lab:
    return Lab(request.param, journal)


def steps_of(events: list[Event]) -> list[StepEnded]:
    return [event for event in events if isinstance(event, StepEnded)]


def cycles_of(events: list[Event]) -> list[CycleEnded]:
    return [event for event in events if isinstance(event, CycleEnded)]


def states_of(events: list[Event]) -> list[str]:
    return [event.state for event in events if isinstance(event, RunStateChanged)]


def outcome(events: list[Event]) -> tuple[str, str]:
    [ended] = of_kind(events, RunEnded)
    assert isinstance(ended, RunEnded)
    return ended.outcome, ended.reason


async def a_while() -> None:
    for _ in range(300):
        await asyncio.sleep(0)


async def test_a_paused_run_is_open_and_goes_on_in_the_same_step(lab: Lab) -> None:
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        await runner.pause("lunch", KEPT, NOTE)
        await until(lambda: lab.is_open and (lab.kind != "source" or runner.checkpoint.left))
        await a_while()
        seq = runner.checkpoint.place.seq
        await a_while()
        assert runner.checkpoint.state is RunState.PAUSED
        assert runner.checkpoint.place.seq == seq
        await runner.pause("lunch again")
        await runner.resume("back")
        await running
    records, events = await kept(lab.journal)
    assert states_of(events) == ["arming", *started(lab), "paused", "running", "completed"]
    assert [step.visit for step in steps_of(events)] == list(range(1, 6))
    assert [cycle.interrupted for cycle in cycles_of(events)] == [True, False]
    assert not of_kind(events, GapRecorded)
    assert await lab.journal.answer_to("c1") == b"done"
    assert len(of_kind(events, CommandTaken)) == 1
    assert top(records, 2) == pytest.approx(2e-3, rel=0.02)


def started(lab: Lab) -> list[str]:
    return ["running"] if lab.kind == "source" else ["starting", "running"]


def top(records: Records, visit: int) -> float:
    """Charge that went in, in one visit."""
    charge_Ah = records.charge_Ah[records.visit == visit]
    return float(charge_Ah.max() - charge_Ah.min())


async def test_a_pause_survives_a_restart(lab: Lab) -> None:
    runner = await lab.made()
    async with at_work(runner):
        await until(lambda: runner.checkpoint.place.seq >= 40)
        await runner.pause("lunch")
    lab.cycler.paused = False
    runner = await lab.runner()
    async with at_work(runner) as running:
        await until(lambda: lab.is_open)
        await a_while()
        assert runner.checkpoint.state is RunState.PAUSED
        await runner.resume("back")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_a_pause_and_a_resume_at_once_harm_nothing(lab: Lab) -> None:
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        for _ in range(5):
            await runner.pause("a")
            await runner.resume("b")
        await runner.resume("c")
        await running
    assert [step.visit for step in steps_of((await kept(lab.journal))[1])] == list(range(1, 6))


async def test_a_paused_run_can_be_stopped(lab: Lab) -> None:
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        await runner.pause("lunch")
        await a_while()
        await runner.stop("no more")
        await running
    events = (await kept(lab.journal))[1]
    assert outcome(events) == ("stopped", "no more")
    assert steps_of(events)[-1].ended_by == "stop"


async def test_a_skipped_step_ends_by_that_and_the_next_one_begins(lab: Lab) -> None:
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        await runner.skip("that is enough", KEPT, NOTE)
        await running
    records, events = await kept(lab.journal)
    steps = steps_of(events)
    assert [step.step for step in steps] == [1, 2, 3, 2, 3]
    assert [step.ended_by for step in steps][:3] == ["step_time_s >= 600", "skip", "voltage_V <= 2"]
    assert top(records, 2) < 1.5e-3
    assert [cycle.interrupted for cycle in cycles_of(events)] == [True, False]
    assert await lab.journal.answer_to("c1") == b"done"
    assert outcome(events)[0] == "completed"


async def test_a_skip_of_the_last_step_ends_the_run(lab: Lab) -> None:
    runner = await lab.made(program_of(rest(0), charge(1)))
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.visit == 2)
        await runner.skip("enough")
        await running
    events = (await kept(lab.journal))[1]
    assert [step.ended_by for step in steps_of(events)] == ["step_time_s >= 600", "skip"]
    assert outcome(events)[0] == "completed"
    assert lab.kind == "sequencer" or lab.is_open


async def test_a_wait_can_be_skipped(lab: Lab) -> None:
    end = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 1e9)
    wait = Step(1, "wait", Wait(signal="x"), (end,), RecordRule())
    runner = await lab.made(program_of(charge(0), wait, discharge(2)))
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.visit == 2)
        await runner.skip("it will not come")
        await running
    events = (await kept(lab.journal))[1]
    assert [step.ended_by for step in steps_of(events)][1] == "skip"
    assert outcome(events)[0] == "completed"


@pytest.mark.parametrize("at", ["step", "cycle"])
async def test_a_stop_at_the_end_of_a_step_or_cycle_waits_for_it(lab: Lab, at: str) -> None:
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        await runner.stop("enough", KEPT, NOTE, at=at)  # type: ignore[arg-type]
        assert runner.checkpoint.state is RunState.RUNNING
        await running
    events = (await kept(lab.journal))[1]
    assert outcome(events) == ("stopped", "enough")
    visits = 2 if at == "step" else 3
    whole = steps_of(events)[:visits]
    assert whole[-1].ended_by == ("voltage_V >= 4" if at == "step" else "voltage_V <= 2")
    assert await lab.journal.answer_to("c1") == b"done"
    assert lab.is_open
    if lab.kind == "source":
        assert len(steps_of(events)) == visits
        assert [cycle.complete for cycle in cycles_of(events)] == [at == "cycle"]
    else:
        assert cycles_of(events)[0].complete is (at == "cycle")


@pytest.mark.parametrize("at", ["step", "cycle"])
async def test_a_stop_at_the_end_of_a_stretch_does_not_begin_the_next(
    journal: Journal, at: str
) -> None:
    lab = Lab("sequencer", journal)
    never = CycleResult(CycleFigure.DISCHARGE_AH, Comparison.AT_MOST, 1e-6)
    loop = Loop(3, (charge(0), discharge(1)), counts_cycles=True, until=(never,))
    runner = await lab.made(program_of(loop))
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.visit == 2)
        await runner.stop("enough", at=at)  # type: ignore[arg-type]
        await running
    events = (await kept(journal))[1]
    assert outcome(events) == ("stopped", "enough")
    assert len(lab.cycler.tests) == 1
    [cycle] = cycles_of(events)
    assert (cycle.complete, cycle.interrupted) == (True, False)
    assert steps_of(events)[-1].ended_by == "voltage_V <= 2"


async def test_a_stop_at_the_end_of_a_cycle_survives_a_restart_and_a_later_now_counts(
    lab: Lab,
) -> None:
    runner = await lab.made()
    async with at_work(runner):
        await until(lambda: runner.checkpoint.place.seq >= 40)
        await runner.stop("enough", at="cycle")
    runner = await lab.runner()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 60)
        await runner.stop("at once")
        await running
    assert outcome((await kept(lab.journal))[1]) == ("stopped", "at once")


async def test_a_stop_at_the_end_of_a_step_before_the_first_is_a_stop(lab: Lab) -> None:
    runner = await lab.made()
    await runner.stop("wrong cell", at="step")
    await runner.run()
    assert outcome((await kept(lab.journal))[1]) == ("stopped", "wrong cell")
    assert not {"begin", "start"} & set(lab.calls)


async def test_a_run_that_is_held_by_hand_is_open_until_it_is_released(lab: Lab) -> None:
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        await runner.hold_by_hand("smells odd", KEPT, NOTE)
        await until(lambda: lab.is_open)
        await a_while()
        assert runner.checkpoint.state is RunState.HELD
        with pytest.raises(CommandError, match="r is held: only a paused run"):
            await runner.resume("no")
        await runner.release("it was the lunch")
        await running
    events = (await kept(lab.journal))[1]
    assert [step.visit for step in steps_of(events)] == list(range(1, 6))
    assert outcome(events)[0] == "completed"
    assert cycles_of(events)[0].interrupted
    assert not lab.cycler.paused


@pytest.mark.parametrize("order", ["pause", "resume", "skip", "hold_by_hand", "release", "abandon"])
async def test_what_a_run_that_has_not_begun_cannot_do_is_said(lab: Lab, order: str) -> None:
    runner = await lab.made()
    with pytest.raises(CommandError, match="run r is created: only "):
        await getattr(runner, order)("please")
    assert lab.calls == []


@pytest.mark.parametrize("order", ["pause", "resume", "skip", "hold_by_hand", "release", "abandon"])
async def test_what_a_run_that_is_over_cannot_do_is_said(lab: Lab, order: str) -> None:
    runner = await lab.made(program_of(rest(0)))
    await runner.run()
    with pytest.raises(CommandError, match="run r is completed: only "):
        await getattr(runner, order)("please")


@pytest.mark.parametrize("order", ["pause", "skip", "hold_by_hand"])
async def test_an_instrument_that_cannot_do_it_leaves_the_run_as_it_was(
    journal: Journal, order: str
) -> None:
    lab = Lab("sequencer", journal)
    lab.cycler.cannot_pause = True
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        with pytest.raises(CommandError, match="run r is running, and its instrument cannot"):
            await getattr(runner, order)("please", KEPT, NOTE)
        assert await journal.answer_to("c1") is None
        await running
    assert states_of((await kept(journal))[1]) == ["arming", "starting", "running", "completed"]


async def test_a_pause_that_the_instrument_did_not_answer_is_said_and_not_kept(
    journal: Journal,
) -> None:
    lab = Lab("sequencer", journal)
    runner = await lab.made()
    async with at_work(runner):
        await until(lambda: runner.checkpoint.place.seq >= 40)
        lab.cycler.link_down = True
        with pytest.raises(LinkError):
            await runner.pause("lunch", KEPT, NOTE)
        assert runner.checkpoint.state is RunState.RUNNING
        assert await journal.answer_to("c1") is None
        lab.cycler.link_down = False


async def test_a_channel_that_was_paused_at_the_instrument_is_said_and_can_be_resumed(
    journal: Journal,
) -> None:
    lab = Lab("sequencer", journal)
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        lab.cycler.paused = True
        await until(lambda: "channel is paused" in runner.link_error)
        assert runner.checkpoint.state is RunState.RUNNING
        await runner.resume("it was me")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert lab.cycler.calls.count("resume") == 1


async def test_a_stretch_that_ends_just_when_the_run_pauses_is_gone_on_from_when_it_resumes(
    journal: Journal,
) -> None:
    lab = Lab("sequencer", journal)
    runner = await lab.made(program_of(rest(0)))
    lab.cycler.rows_per_answer = 5
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 5)
        await runner.pause("lunch")
        lab.cycler.paused = False
        lab.cycler.rows_per_answer = 100
        pause = lab.cycler.pause
        lab.cycler.pause = ignored  # type: ignore[method-assign]
        await until(lambda: runner.checkpoint.place.seq == 11)
        await a_while()
        assert runner.checkpoint.state is RunState.PAUSED
        lab.cycler.pause = pause  # type: ignore[method-assign]
        await runner.resume("back")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert lab.cycler.calls.count("resume") == 0


async def ignored(channel: str) -> None:
    """A pause that came too late."""


async def test_stop_is_possible_in_every_state_and_twice(lab: Lab) -> None:
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        await runner.hold_by_hand("odd")
        await runner.stop("now", KEPT, NOTE)
        await runner.stop("now")
        await runner.stop("now", at="cycle")
        await running
    await runner.stop("now")
    assert outcome((await kept(lab.journal))[1]) == ("stopped", "now")
    assert lab.is_open


async def test_a_stop_while_the_link_is_down_takes_effect_when_it_is_back(lab: Lab) -> None:
    runner = await lab.made()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq >= 40)
        lab.source.link_down = lab.cycler.link_down = True
        await runner.stop("smoke")
        await until(lambda: runner.link_down)
        assert runner.checkpoint.state is RunState.STOPPING
        lab.source.link_down = lab.cycler.link_down = False
        await running
    assert outcome((await kept(lab.journal))[1]) == ("stopped", "smoke")
    assert lab.is_open


async def test_a_run_that_was_held_before_it_began_begins_when_it_is_released(
    journal: Journal,
) -> None:
    lab = Lab("source", journal)
    runner = await lab.made()
    async with at_work(runner) as running:
        lab.source.deaf, lab.source.output_on = 1000, True
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        assert "says that it is on" in runner.checkpoint.reason
        lab.source.deaf = 0
        await runner.release("it was switched off by hand")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_a_stop_does_not_wait_for_a_journal_that_hangs(lab: Lab) -> None:
    await begin(lab.journal, PROGRAM)
    driver = lab.source if lab.kind == "source" else lab.cycler
    pace = Pace(slow_journal_s=1.0, keep_every_s=0.0)
    runner = await runner_from(lab.journal, driver, lab.clock, pace=pace)
    commit, free, hangs = lab.journal.commit, asyncio.Event(), asyncio.Event()

    async def stuck(entry: Entry) -> None:
        if entry.checkpoint is not None and entry.checkpoint.place.seq > 60:
            hangs.set()
            await free.wait()
        await commit(entry)

    runner._record.journal.commit = stuck  # type: ignore[method-assign]
    async with at_work(runner) as running:
        await hangs.wait()
        assert not lab.is_open
        stopping = asyncio.create_task(runner.stop("smoke"))
        await until(lambda: lab.is_open)
        assert not stopping.done()
        free.set()
        await stopping
        await running
    assert outcome((await kept(lab.journal))[1])[0] == "stopped"


async def test_a_look_that_hangs_does_not_keep_a_stop_waiting(journal: Journal) -> None:
    lab = Lab("source", journal)
    runner = await lab.made()
    look, hanging = lab.source.look, asyncio.Event()

    async def hangs(channel: str) -> object:
        if runner.checkpoint.place.seq >= 40:
            hanging.set()
            await asyncio.get_running_loop().create_future()
        return await look(channel)

    lab.source.look = hangs  # type: ignore[assignment,method-assign]
    async with at_work(runner) as running:
        await hanging.wait()
        await runner.stop("smoke")
        await running
    assert lab.is_open
    assert runner.checkpoint.state is RunState.STOPPED
