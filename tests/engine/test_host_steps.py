"""Waits, markers and chamber temperatures: the host's own steps, on either kind of instrument."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from paper_cycler import LIMITS, PaperCycler, charge, discharge, three_cycles
from paper_runs import (
    CutJournal,
    LabClock,
    PaperLab,
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
from labctl.engine.hostwork import signals_of
from labctl.engine.journal import Journal, open_journal
from labctl.engine.run import Checkpoint
from labctl.engine.runner import Runner
from labctl.engine.states import RunState
from labctl.errors import CommandError
from labctl.model import Records
from labctl.program import (
    Branch,
    Comparison,
    EndCondition,
    EndedBy,
    Limits,
    Loop,
    Node,
    Program,
    Quantity,
    RecordRule,
    SetTemperature,
    Signal,
    Step,
    Then,
    Wait,
)
from labctl.stream.events import CycleEnded, Event, GapRecorded, MarkerSet, RunEnded, StepEnded

PROGRAM = three_cycles()
PACE = Pace(slow_journal_s=6000.0, keep_every_s=0.0)


def program_of(*body: Node, limits: Limits = LIMITS) -> Program:
    return msgspec.structs.replace(PROGRAM, body=body, limits=limits)


def timed(value_s: float, then: Then = Then.NEXT) -> tuple[EndCondition, ...]:
    return (EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, value_s, then),)


def wait_for(index: int, signal: str = "frame", timeout_s: float = 1e6) -> Step:
    return Step(index, "wait", Wait(signal=signal), timed(timeout_s), RecordRule())


def ask(index: int, prompt: str = "turn the sample") -> Step:
    return Step(index, "ask", Wait(prompt=prompt), timed(1e6), RecordRule())


def tell(index: int, marker: str = "shoot", output: str = "") -> Step:
    return Step(index, "tell", Signal(marker, output), timed(0.0), RecordRule())


def warm(index: int, timeout_s: float = 1e6, then: Then = Then.NEXT) -> Step:
    control = SetTemperature(25.0, 0.5, 600.0)
    return Step(index, "warm", control, timed(timeout_s, then), RecordRule())


class Bench:
    """A run on either kind of instrument, with a laboratory around it."""

    def __init__(self, kind: str, journal: Journal) -> None:
        self.clock = LabClock()
        self.clock.waits_for(journal)
        self.journal = journal
        self.lab = PaperLab(self.clock)
        self.source = PaperSource(self.clock)
        self.cycler = PaperCycler(rows_per_answer=20)
        self.driver = self.source if kind == "source" else self.cycler

    async def runner(self) -> Runner:
        return await runner_from(self.journal, self.driver, self.clock, host=self.lab, pace=PACE)

    async def run_through(self, program: Program) -> tuple[Records, list[Event]]:
        await begin(self.journal, program)
        await self.to_its_end(await self.runner())
        return await kept(self.journal)

    async def to_its_end(self, runner: Runner) -> None:
        async with asyncio.timeout(20.0):
            await runner.run()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        yield journal


@pytest.fixture(params=["source", "sequencer"])
def bench(request: pytest.FixtureRequest, journal: Journal) -> Bench:
    return Bench(request.param, journal)


@pytest.fixture
def on_source(journal: Journal) -> Bench:
    return Bench("source", journal)


def steps_of(events: list[Event]) -> list[StepEnded]:
    return [event for event in events if isinstance(event, StepEnded)]


def ends(events: list[Event]) -> list[str]:
    return [step.ended_by for step in steps_of(events)]


def markers(events: list[Event]) -> list[MarkerSet]:
    return [event for event in events if isinstance(event, MarkerSet)]


def outcome(events: list[Event]) -> tuple[str, str]:
    [ended] = of_kind(events, RunEnded)
    assert isinstance(ended, RunEnded)
    return ended.outcome, ended.reason


def in_visit(checkpoint: Checkpoint, visit: int) -> bool:
    return checkpoint.place.visit == visit and checkpoint.host is not None


async def test_a_wait_ends_when_its_signal_comes_and_the_cell_rested_meanwhile(
    bench: Bench,
) -> None:
    await begin(bench.journal, program_of(charge(0), wait_for(1), discharge(2)))
    runner = await bench.runner()
    async with at_work(runner) as running:
        await until(lambda: in_visit(runner.checkpoint, 2) and runner.checkpoint.place.seq > 125)
        assert runner.waits_for == "waits for the signal 'frame'"
        assert not bench.source.output_on
        await runner.signal("frame", "diffractometer")
        await running
    records, events = await kept(bench.journal)
    assert ends(events)[1] == "signal"
    [marker] = markers(events)
    assert (marker.marker, marker.direction, marker.actor) == (
        "frame",
        "received",
        "diffractometer",
    )
    assert (records.current_A[records.visit == 2] == 0.0).all()
    assert np.diff(records.test_time_s[records.visit == 2]).max() <= 60.0
    assert outcome(events)[0] == "completed"
    assert runner.waits_for == ""


async def test_a_signal_that_came_before_its_wait_is_not_lost(bench: Bench) -> None:
    await begin(bench.journal, program_of(charge(0), wait_for(1), discharge(2)))
    runner = await bench.runner()
    await runner.signal("frame", "diffractometer")
    await bench.to_its_end(await bench.runner())
    records, events = await kept(bench.journal)
    assert ends(events)[1] == "signal"
    assert 1 <= (records.visit == 2).sum() <= 2


async def test_a_signal_that_came_while_the_daemon_was_down_is_not_lost(bench: Bench) -> None:
    await begin(bench.journal, program_of(charge(0), wait_for(1), discharge(2)))
    runner = await bench.runner()
    async with at_work(runner):
        await until(lambda: in_visit(runner.checkpoint, 2))
    await runner.signal("frame", "diffractometer")
    await bench.to_its_end(await bench.runner())
    assert ends((await kept(bench.journal))[1])[1] == "signal"


async def test_one_signal_ends_one_wait(bench: Bench) -> None:
    loop = Loop(2, (wait_for(0, timeout_s=300.0), charge(1, until_V=2.5), discharge(2)))
    await begin(bench.journal, program_of(loop))
    runner = await bench.runner()
    await runner.signal("frame", "diffractometer")
    await runner.signal("frame", "diffractometer")
    await bench.to_its_end(runner)
    waits = [step.ended_by for step in steps_of((await kept(bench.journal))[1])][::3]
    assert waits == ["signal", "step_time_s >= 300"]


async def test_a_signal_that_nothing_waits_for_is_a_marker_and_no_more(bench: Bench) -> None:
    await begin(bench.journal, program_of(wait_for(0, timeout_s=300.0)))
    runner = await bench.runner()
    await runner.signal("something else", "anna")
    assert runner.checkpoint.signals == ()
    assert len(markers((await kept(bench.journal))[1])) == 1
    await bench.to_its_end(runner)
    with pytest.raises(CommandError, match="r is completed: it hears no signals"):
        await runner.signal("frame", "anna")


def test_the_signals_that_a_program_waits_for_are_known() -> None:
    body = (wait_for(0, "a"), Loop(2, (wait_for(1, "b"), ask(2))), charge(3))
    assert signals_of(program_of(*body)) == {"a", "b"}


async def test_an_operator_confirms_only_what_is_asked_now(bench: Bench) -> None:
    await begin(bench.journal, program_of(charge(0), ask(1), ask(2), discharge(3)))
    runner = await bench.runner()
    with pytest.raises(CommandError, match="asks nobody"):
        await runner.signal("confirm", "anna")
    async with at_work(runner) as running:
        await until(lambda: in_visit(runner.checkpoint, 2))
        await runner.signal("confirm", "anna")
        await until(lambda: in_visit(runner.checkpoint, 3))
        assert runner.waits_for == "waits for an operator: turn the sample"
        assert runner.checkpoint.signals == ()
        await runner.signal("confirm", "ben")
        await running
    assert ends((await kept(bench.journal))[1])[1:3] == ["signal", "signal"]


async def test_a_wait_ends_at_its_moment(bench: Bench) -> None:
    step = Step(0, "until 5000", Wait(until_unix_s=5000.0), timed(1e6), RecordRule())
    records, events = await bench.run_through(program_of(step, charge(1)))
    assert ends(events)[0] == "complete"
    assert records.test_time_s[records.visit == 1].max() == pytest.approx(5000.0, abs=60.0)


async def test_a_wait_that_is_not_answered_does_what_its_timeout_says(bench: Bench) -> None:
    step = Step(0, "wait", Wait(signal="x"), timed(300.0, Then.END_RUN), RecordRule())
    records, events = await bench.run_through(program_of(step, charge(1)))
    assert ends(events) == ["step_time_s >= 300"]
    assert outcome(events)[0] == "completed"
    assert len(records) >= 2


async def test_a_branch_can_go_by_a_timeout(bench: Bench) -> None:
    body = (
        wait_for(0, timeout_s=300.0),
        Branch(EndedBy(Quantity.STEP_TIME_S), (charge(1),), (discharge(2),), line=4),
    )
    _, events = await bench.run_through(program_of(*body))
    assert [step.step for step in steps_of(events)] == [1, 2]


async def test_a_wait_for_a_person_takes_no_virtual_time_where_that_is_wanted(
    bench: Bench,
) -> None:
    await begin(bench.journal, program_of(wait_for(0, timeout_s=3600.0), charge(1)))
    pace = Pace(slow_journal_s=6000.0, keep_every_s=0.0, outside_in_real_time=True)
    runner = await runner_from(bench.journal, bench.driver, bench.clock, host=bench.lab, pace=pace)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.seq > 0)
        await asyncio.sleep(0.05)
        assert bench.clock.monotonic_s() < 60.0
        await runner.signal("frame", "anna")
        await running
    assert ends((await kept(bench.journal))[1])[0] == "signal"


async def test_a_wait_counts_the_time_in_which_nobody_looked(bench: Bench) -> None:
    await begin(bench.journal, program_of(wait_for(0, timeout_s=7200.0), charge(1)))
    runner = await bench.runner()
    async with at_work(runner):
        await until(lambda: runner.checkpoint.place.seq > 5)
    await bench.clock.sleep(24 * 3600.0)
    runner = await bench.runner()
    await bench.to_its_end(runner)
    events = (await kept(bench.journal))[1]
    assert runner.checkpoint.state is RunState.COMPLETED
    assert ends(events)[0] == "step_time_s >= 7200"
    assert not of_kind(events, GapRecorded)


async def test_a_restart_while_the_host_waits_interrupts_no_cycle(bench: Bench) -> None:
    loop = Loop(1, (charge(0), wait_for(1), discharge(2)), counts_cycles=True)
    await begin(bench.journal, program_of(loop))
    runner = await bench.runner()
    async with at_work(runner):
        await until(lambda: in_visit(runner.checkpoint, 2) and runner.checkpoint.place.seq > 125)
    runner = await bench.runner()
    await runner.signal("frame", "anna")
    await bench.to_its_end(runner)
    [cycle] = of_kind((await kept(bench.journal))[1], CycleEnded)
    assert isinstance(cycle, CycleEnded)
    assert (cycle.complete, cycle.interrupted) == (True, False)


async def test_a_rest_that_the_instrument_ends_by_itself_is_begun_again_while_the_host_waits(
    on_source: Bench,
) -> None:
    on_source.source.rests_for_s = 600.0
    loop = Loop(1, (wait_for(0, timeout_s=3600.0), charge(1)), counts_cycles=True)
    records, events = await on_source.run_through(program_of(loop))
    assert ends(events) == ["step_time_s >= 3600", "voltage_V >= 4"]
    assert on_source.source.calls.count("begin") >= 6
    assert records.test_time_s[records.visit == 1].max() == pytest.approx(3600.0, abs=130.0)
    assert not of_kind(events, GapRecorded)
    [cycle] = of_kind(events, CycleEnded)
    assert isinstance(cycle, CycleEnded)
    assert not cycle.interrupted


async def test_a_marker_is_in_the_journal_before_it_is_told_and_has_its_record(
    bench: Bench,
) -> None:
    told_at: list[int] = []
    publish = bench.lab.publish_marker

    def published(marker: MarkerSet, visit: int) -> None:
        assert runner.checkpoint.host is not None
        assert runner.checkpoint.host.marker == marker
        told_at.append(runner.checkpoint.place.seq)
        publish(marker, visit)

    bench.lab.publish_marker = published  # type: ignore[method-assign]
    await begin(bench.journal, program_of(charge(0), tell(1), discharge(2)))
    runner = await bench.runner()
    await bench.to_its_end(runner)
    records, events = await kept(bench.journal)
    [(marker, visit)] = bench.lab.markers
    assert markers(events) == [marker]
    assert (marker.marker, marker.direction, visit) == ("shoot", "sent", 2)
    assert told_at == [marker.seq]
    assert (records.visit == 2).sum() == 1
    assert records.seq[records.visit == 2].tolist() == [marker.seq]
    assert ends(events)[1] == "complete"


async def test_a_trigger_output_is_pulsed_after_its_marker_was_told(on_source: Bench) -> None:
    on_source.source.before = lambda call: (
        pulsed.append(len(on_source.lab.markers)) if call == "pulse" else None
    )
    pulsed: list[int] = []
    await on_source.run_through(program_of(tell(0, output="trigger"), charge(1)))
    assert on_source.source.pulses == ["trigger"]
    assert pulsed == [1]


async def test_a_crash_tells_a_marker_again_as_the_same_marker(tmp_path: Path) -> None:
    program = program_of(
        charge(0, until_V=2.1), tell(1, output="trigger"), discharge(2, until_V=2.05)
    )
    told_twice = 0
    for after in (False, True):
        for cut_at in range(1, 40):
            async with open_journal(tmp_path / f"{cut_at}{after}.db", "lab") as journal:
                bench = Bench("source", journal)
                await begin(journal, program)
                runner = await bench.runner()
                runner._record.journal = CutJournal(journal, cut_at, after=after)  # type: ignore[assignment]
                try:
                    await bench.to_its_end(runner)
                except PowerCutError:
                    await bench.to_its_end(await bench.runner())
                    told = bench.lab.markers
                    assert 1 <= len(told) <= 2
                    assert all(each == told[0] for each in told)
                    assert len(markers((await kept(journal))[1])) == 1
                    told_twice += len(told) == 2
                else:
                    break
    assert told_twice >= 1


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (tell(0, output="no such"), "pulses output 'no such'"),
        (warm(0), "sets a temperature, and the cell is in no chamber"),
    ],
)
async def test_what_the_host_cannot_do_is_refused_before_anything_flows(
    bench: Bench, step: Step, said: str
) -> None:
    bench.lab.chamber = False
    _, events = await bench.run_through(program_of(step, charge(1)))
    assert outcome(events)[0] == "failed"
    assert said in outcome(events)[1]
    assert not {"begin", "start"} & {*bench.source.calls, *bench.cycler.calls}


async def test_the_chamber_is_waited_for_until_it_has_settled(bench: Bench) -> None:
    records, events = await bench.run_through(program_of(warm(0), charge(1)))
    assert bench.lab.set_to_degC == [25.0]
    assert ends(events)[0] == "complete"
    settled_s = records.test_time_s[records.visit == 1].max()
    assert 450.0 + 600.0 <= settled_s <= 450.0 + 600.0 + 120.0


async def test_a_chamber_that_does_not_get_there_is_not_waited_for_for_ever(bench: Bench) -> None:
    bench.lab.speed_K_per_s = 0.0
    program = program_of(warm(0, timeout_s=1800.0, then=Then.END_RUN), charge(1))
    _, events = await bench.run_through(program)
    assert ends(events) == ["step_time_s >= 1800"]


async def test_a_chamber_whose_cable_is_out_is_said_and_asked_again(bench: Bench) -> None:
    await begin(bench.journal, program_of(charge(0), warm(1), discharge(2)))
    runner = await bench.runner()
    async with at_work(runner) as running:
        await until(lambda: in_visit(runner.checkpoint, 2))
        bench.lab.chamber_down = True
        await until(lambda: "chamber" in runner.link_error)
        assert runner.checkpoint.state is RunState.RUNNING
        bench.lab.chamber_down = False
        await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert runner.link_error == ""


async def test_a_chamber_that_was_set_before_a_restart_is_set_again(bench: Bench) -> None:
    await begin(bench.journal, program_of(warm(0), charge(1)))
    runner = await bench.runner()
    async with at_work(runner):
        await until(lambda: runner.checkpoint.place.seq > 2)
    await bench.to_its_end(await bench.runner())
    assert bench.lab.set_to_degC == [25.0, 25.0]


async def test_records_have_the_chambers_temperature_where_the_instrument_has_none(
    on_source: Bench,
) -> None:
    records, _ = await on_source.run_through(program_of(warm(0), charge(1)))
    assert records.temperature_degC[0] == pytest.approx(20.0)
    assert records.temperature_degC[records.visit == 2] == pytest.approx(25.0)


async def test_a_sequencers_own_temperature_is_not_replaced_and_a_missing_one_is_filled(
    journal: Journal,
) -> None:
    bench = Bench("sequencer", journal)
    bench.cycler.temperature_degC = math.nan
    await begin(journal, program_of(charge(0), discharge(1)))
    runner = await bench.runner()
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.visit == 2)
        bench.cycler.temperature_degC = 31.0
        await running
    records, _ = await kept(journal)
    assert np.isnan(records.temperature_degC[0])
    assert records.temperature_degC[60] == pytest.approx(20.0)
    assert records.temperature_degC[-1] == 31.0


async def test_a_chamber_that_does_not_answer_leaves_the_temperature_unknown(
    on_source: Bench,
) -> None:
    on_source.lab.chamber_down = True
    records, _ = await on_source.run_through(program_of(charge(0)))
    assert np.isnan(records.temperature_degC).all()


async def test_a_cell_whose_chamber_falls_silent_is_not_left_without_a_watch(bench: Bench) -> None:
    warm_enough = msgspec.structs.replace(PROGRAM.limits, temperature_max_degC=60.0)
    wait = wait_for(0, timeout_s=7200.0)
    await begin(bench.journal, program_of(wait, limits=warm_enough))
    runner = await bench.runner()

    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.place.visit == 1)
        bench.lab.chamber_down = True
        await running
    records, _ = await kept(bench.journal)
    assert runner.checkpoint.state is RunState.TRIPPED
    assert "chamber says nothing" in runner.checkpoint.reason
    assert records.test_time_s[-1] < 1200.0


async def test_a_chamber_that_is_too_warm_trips_a_resting_cell(bench: Bench) -> None:
    bench.cycler.temperature_degC = math.nan
    hot = msgspec.structs.replace(LIMITS, temperature_max_degC=22.0)
    _, events = await bench.run_through(program_of(charge(0), warm(1), limits=hot))
    assert outcome(events)[0] == "tripped"
    assert steps_of(events)[-1].technique == "set_temperature"
    assert "temperature" in outcome(events)[1]


async def test_a_source_hears_from_the_host_as_often_while_it_waits_as_in_any_other_step(
    on_source: Bench,
) -> None:
    on_source.source.sample_s = 1.0
    step = Step(0, "until 120", Wait(until_unix_s=120.0), timed(1e6), RecordRule(every_s=30.0))
    records, events = await on_source.run_through(program_of(step))
    assert ends(events) == ["complete"]
    assert on_source.source.calls.count("look") == pytest.approx(121, abs=2)
    assert len(records) < 10
