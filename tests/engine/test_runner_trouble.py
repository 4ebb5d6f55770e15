"""A run in trouble: what is stopped goes off, what is doubtful is looked at again, and nothing that
a person wants is lost between two commands."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from paper_cycler import LIMITS, PaperCycler, PaperTest, readings_of, three_cycles
from paper_runs import FullDisk, at_work, begin, kept, of_kind, runner_from, until

from labctl.drivers.base import Armed, ChannelState, Started
from labctl.engine.journal import Entry, Journal, open_journal
from labctl.engine.limits import passed, wider
from labctl.engine.placement import Place, Placed, place_readings
from labctl.engine.run import Checkpoint
from labctl.engine.runner import Runner
from labctl.engine.states import RunState
from labctl.engine.walk import Walk
from labctl.errors import CommandError, InstrumentError, JournalError
from labctl.model import Readings
from labctl.program import Limits, Program
from labctl.stream.events import RunEnded, RunStateChanged

PROGRAM = three_cycles()
ALL_READINGS = readings_of(PROGRAM)
CAPABILITIES = PaperCycler().capabilities


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await begin(journal)
        yield journal


async def begun(journal: Journal, cycler: PaperCycler, seq: int = 60) -> Runner:
    """A run of which ``seq`` records are in the journal, as a restarted daemon finds it."""
    cycler.rows_per_answer = 20
    runner = await runner_from(journal, cycler)
    async with at_work(runner):
        await until(lambda: runner.checkpoint.place.seq >= seq)
    return await runner_from(journal, cycler)


async def test_an_output_that_does_not_go_off_is_told_again_until_it_does(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    runner = await begun(journal, cycler)
    cycler.refuses_to_stop = 10
    async with at_work(runner) as running:
        await runner.stop("smoke")
        await until(lambda: bool(runner.link_error))
        assert runner.checkpoint.state is RunState.STOPPING
        assert "still running" in runner.link_error
        await running
    assert runner.checkpoint.state is RunState.STOPPED
    assert cycler.calls.count("stop") == 11


async def test_a_limit_that_was_passed_ends_the_run_only_when_the_output_is_off(
    tmp_path: Path,
) -> None:
    tight = msgspec.structs.replace(PROGRAM.limits, voltage_max_V=3.5)
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await begin(journal, msgspec.structs.replace(PROGRAM, limits=tight))
        cycler = PaperCycler(rows_per_answer=10)
        cycler.refuses_to_stop = 5
        runner = await runner_from(journal, cycler)
        await runner.run()
    assert runner.checkpoint.state is RunState.TRIPPED
    assert cycler.calls.count("stop") == 6


async def test_a_limit_that_is_passed_in_the_last_answer_trips_the_run_all_the_same(
    tmp_path: Path,
) -> None:
    tight = msgspec.structs.replace(PROGRAM.limits, voltage_max_V=3.5)
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await begin(journal, msgspec.structs.replace(PROGRAM, limits=tight))
        runner = await runner_from(journal, PaperCycler(rows_per_answer=10_000))
        await runner.run()
    assert runner.checkpoint.state is RunState.TRIPPED
    assert "voltage 3.51" in runner.checkpoint.reason


async def test_a_full_disk_does_not_keep_an_output_on(journal: Journal) -> None:
    cycler = PaperCycler()
    runner = await begun(journal, cycler)
    runner._record.journal = FullDisk(journal)  # type: ignore[assignment]
    with pytest.raises(JournalError, match="full"):
        await runner.stop("smoke")
    assert cycler.calls[-1] == "stop"
    cycler.refuses_to_stop = 1
    with pytest.raises(JournalError, match="OUTPUT MAY STILL BE ON"):
        await runner.stop("smoke")


async def test_a_limit_that_is_passed_while_the_disk_is_full_switches_the_output_off(
    tmp_path: Path,
) -> None:
    tight = msgspec.structs.replace(PROGRAM.limits, voltage_max_V=3.5)
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await begin(journal, msgspec.structs.replace(PROGRAM, limits=tight))
        cycler = PaperCycler()
        runner = await begun(journal, cycler, seq=20)
        runner._record.journal = FullDisk(journal)  # type: ignore[assignment]
        cycler.rows_per_answer = 100
        async with at_work(runner):
            await until(lambda: "stop" in cycler.calls)


async def test_stop_does_not_wait_for_an_answer_that_does_not_come(journal: Journal) -> None:
    cycler = PaperCycler()
    runner = await begun(journal, cycler)
    cycler.hangs = True
    async with at_work(runner):
        await until(lambda: cycler.calls[-1] == "follow")
        await asyncio.sleep(0.01)
        await runner.stop("smoke")
        await until(lambda: "stop" in cycler.calls)


async def test_a_stop_while_the_cable_is_out_takes_effect_when_it_is_back(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    runner = await begun(journal, cycler)
    cycler.link_down = True
    async with at_work(runner) as running:
        await until(lambda: runner.link_down)
        await runner.stop("lunch")
        await until(lambda: cycler.calls.count("status") > 3)
        assert runner.checkpoint.state is RunState.STOPPING
        cycler.link_down = False
        await running
    assert runner.checkpoint.state is RunState.STOPPED
    assert not runner.link_down


@pytest.mark.parametrize("call", ["arm", "find", "start"])
async def test_a_stop_at_any_moment_of_the_start_leaves_no_output_on(
    journal: Journal, call: str
) -> None:
    cycler = PaperCycler()
    runner = await runner_from(journal, cycler)
    whole = getattr(cycler, call)

    async def stopped_meanwhile(*arguments: object) -> object:
        await runner.stop("wrong cell")
        return await whole(*arguments)

    setattr(cycler, call, stopped_meanwhile)
    await runner.run()
    assert runner.checkpoint.state is RunState.STOPPED
    assert cycler.calls.count("start") == cycler.calls.count("stop") == (call == "start")


async def test_a_program_that_is_refused_after_the_run_was_stopped_does_not_matter(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    runner = await runner_from(journal, cycler)

    async def refuses(channel: str, program: Program, tag: str) -> Armed:
        await runner.stop("wrong cell")
        raise InstrumentError("the channel is busy")

    cycler.arm = refuses  # type: ignore[method-assign]
    await runner.run()
    assert runner.checkpoint.state is RunState.STOPPED


async def test_two_stops_at_once_are_one_and_the_first_reason_counts(journal: Journal) -> None:
    runner = await begun(journal, PaperCycler())
    await asyncio.gather(runner.stop("lunch"), runner.stop("dinner"))
    await runner.run()
    await runner.stop("breakfast")
    events = [e for e in (await kept(journal))[1] if isinstance(e, RunStateChanged)]
    assert [e.reason for e in events if e.state == "stopping"] == ["lunch"]
    [ended] = of_kind((await kept(journal))[1], RunEnded)
    assert isinstance(ended, RunEnded)
    assert ended.reason == "lunch"


async def test_a_stop_that_comes_just_when_the_run_ends_is_no_error(journal: Journal) -> None:
    cycler = PaperCycler(rows_per_answer=10_000)
    runner = await runner_from(journal, cycler)
    commit = runner._record.journal.commit
    stops: list[asyncio.Task[None]] = []

    async def stopped_meanwhile(entry: Entry) -> None:
        if entry.checkpoint is not None and entry.checkpoint.state is RunState.COMPLETED:
            stops.append(asyncio.create_task(runner.stop("lunch")))
            await asyncio.sleep(0)
        await commit(entry)

    runner._record.journal.commit = stopped_meanwhile  # type: ignore[method-assign]
    await runner.run()
    await asyncio.gather(*stops)
    assert len(stops) == 1
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_a_start_that_is_refused_because_an_earlier_one_took_effect_late_is_found(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    cycler.start_is_late = True
    runner = await runner_from(journal, cycler)
    await runner.run()
    assert runner.checkpoint.state is RunState.COMPLETED
    assert len(cycler.tests) == 1


async def test_one_answer_that_cannot_be_understood_does_not_hold_a_run(journal: Journal) -> None:
    cycler = PaperCycler()
    cycler.garbles = 2
    runner = await runner_from(journal, cycler)
    await runner.run()
    assert runner.checkpoint.state is RunState.COMPLETED
    assert len((await kept(journal))[0]) == len(ALL_READINGS)


async def test_answers_that_stay_unexplained_hold_the_run(journal: Journal) -> None:
    cycler = PaperCycler()
    cycler.garbles = 3
    runner = await runner_from(journal, cycler)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        await runner.release("the cable was loose")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED


@pytest.mark.parametrize("state", [ChannelState.RUNNING, ChannelState.PAUSED])
async def test_a_channel_that_has_ended_and_still_works_is_not_believed(
    journal: Journal, state: ChannelState
) -> None:
    cycler = PaperCycler(rows_per_answer=10_000)
    cycler.says = state
    runner = await runner_from(journal, cycler)
    async with at_work(runner):
        await until(lambda: runner.checkpoint.state is RunState.HELD)
    assert f"its channel is {state}" in runner.checkpoint.reason


async def test_an_unavailable_channel_is_waited_for_and_said(journal: Journal) -> None:
    cycler = PaperCycler()
    cycler.says = ChannelState.UNAVAILABLE
    runner = await runner_from(journal, cycler)
    async with at_work(runner) as running:
        await until(lambda: "unavailable" in runner.link_error)
        assert runner.checkpoint.state is RunState.RUNNING
        cycler.says = None
        await running
    assert runner.link_error == ""
    assert runner.checkpoint.state is RunState.COMPLETED


async def test_stop_does_not_touch_a_test_that_somebody_else_began_on_the_channel(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    runner = await begun(journal, cycler)
    cycler.tests.append(PaperTest("somebody else", PROGRAM))
    await runner.stop("wrong cell")
    await runner.run()
    assert runner.checkpoint.state is RunState.STOPPED
    assert "gone on to test 2" in runner.checkpoint.reason
    assert "stop" not in cycler.calls


async def test_a_held_run_whose_readings_stay_unreadable_can_be_stopped_and_abandoned(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    runner = await begun(journal, cycler)
    with pytest.raises(CommandError, match="r is running: only a run that is held"):
        await runner.abandon("not yet")
    cycler.garbles = 10**9
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        await runner.stop("does not get well")
        await until(lambda: runner.checkpoint.state is RunState.HELD and "stop" in cycler.calls)
        await runner.abandon("the output is off, I looked")
        await running
    [ended] = of_kind((await kept(journal))[1], RunEnded)
    assert isinstance(ended, RunEnded)
    assert (ended.outcome, ended.reason) == ("stopped", "the output is off, I looked")


async def test_release_of_a_run_that_was_told_to_stop_goes_on_stopping(journal: Journal) -> None:
    cycler = PaperCycler()
    runner = await begun(journal, cycler)
    cycler.garbles = 3
    async with at_work(runner) as running:
        await runner.stop("lunch")
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        cycler.calls.clear()
        await runner.release("the cable was loose")
        await running
    assert runner.checkpoint.state is RunState.STOPPED
    assert "stop" in cycler.calls


async def test_a_start_that_nobody_heard_of_is_found_when_the_run_is_released(
    journal: Journal,
) -> None:
    cycler = PaperCycler()
    runner = await runner_from(journal, cycler)
    find = cycler.find

    async def garbled(armed: Armed) -> Started | None:
        if not cycler.tests:
            return await find(armed)
        raise InstrumentError("an answer that cannot be understood")

    cycler.find = garbled  # type: ignore[method-assign]
    cycler.lose_answer_of_start = True
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        cycler.find = find  # type: ignore[method-assign]
        await runner.release("it runs")
        await running
    assert runner.checkpoint.state is RunState.COMPLETED
    assert cycler.calls.count("start") == 1


async def test_an_early_end_after_a_release_has_a_reason_of_its_own(journal: Journal) -> None:
    cycler = PaperCycler()
    cycler.garbles = 3
    runner = await runner_from(journal, cycler)
    async with at_work(runner) as running:
        await until(lambda: runner.checkpoint.state is RunState.HELD)
        cycler.stopped_at = 100
        await runner.release("I looked")
        await until(lambda: "stopped before the end" in runner.checkpoint.reason)
        await runner.stop("enough")
        await running
    assert runner.checkpoint.state is RunState.STOPPED


async def test_a_run_on_an_instrument_that_is_no_longer_configured_can_be_given_up(
    journal: Journal,
) -> None:
    await begun(journal, PaperCycler())
    runner = await runner_from(journal, None)
    async with at_work(runner) as running:
        await until(lambda: "not in the configuration" in runner.link_error)
        await runner.stop("sold")
        assert runner.checkpoint.state is RunState.STOPPING
        await runner.abandon("sold")
        await running
    assert runner.checkpoint.state is RunState.STOPPED


def placed_of(program: Program, change: Callable[[Readings], Readings]) -> Placed:
    return place_readings(Walk(program), Place(run="r"), change(readings_of(program)))


def with_offset(offset_V: float, gain_of_current: float = 1.0) -> Callable[[Readings], Readings]:
    return lambda readings: dataclasses.replace(
        readings,
        voltage_V=readings.voltage_V + offset_V,
        current_A=readings.current_A * gain_of_current,
    )


def test_a_cell_that_ends_its_steps_at_the_limits_is_not_tripped_by_noise_or_offset() -> None:
    at_the_limits = msgspec.structs.replace(
        LIMITS, voltage_min_V=2.0, voltage_max_V=4.0, current_min_A=-1e-3, current_max_A=1e-3
    )
    for offset_V in (-0.004, 0.0, 0.004):
        placed = placed_of(PROGRAM, with_offset(offset_V, 1.01))
        assert passed(at_the_limits, placed, CAPABILITIES) == ""


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"voltage_max_V": 3.99}, "voltage"),
        ({"voltage_min_V": 2.01}, "voltage"),
        ({"current_max_A": 8e-4}, "current 0.001"),
        ({"current_min_A": -8e-4}, "current -0.001"),
        ({"temperature_max_degC": 24.9}, "temperature 25 degC at record 1"),
        ({"temperature_min_degC": 25.1}, "temperature 25 degC at record 1"),
        ({"step_charge_max_Ah": 1.8e-3}, "charge 0.002 Ah passed in visit"),
        ({"duration_max_s": 43_000.0}, "lasted longer than its limit of 43000 s"),
    ],
)
def test_every_limit_that_is_passed_for_certain_is_named(
    limits: dict[str, float], said: str
) -> None:
    placed = placed_of(PROGRAM, lambda readings: readings)
    assert said in passed(msgspec.structs.replace(LIMITS, **limits), placed, CAPABILITIES)


def test_the_charge_of_a_step_that_still_goes_on_is_watched() -> None:
    placed = placed_of(PROGRAM, lambda readings: readings[: int(np.argmax(readings.step == 2))])
    tight = msgspec.structs.replace(LIMITS, step_charge_max_Ah=1.8e-3)
    assert "in visit 2 of a step" in passed(tight, placed, CAPABILITIES)


@pytest.mark.parametrize(
    "limits", [{"voltage_max_V": float("nan")}, {"current_min_A": float("-inf")}]
)
def test_a_limit_that_the_instrument_does_not_hold_is_wider(limits: dict[str, float]) -> None:
    armed: Limits = msgspec.structs.replace(LIMITS, **limits)
    assert "instead of" in wider(armed, LIMITS)
    assert wider(LIMITS, LIMITS) == ""


async def test_a_run_that_the_journal_does_not_know_cannot_be_kept(journal: Journal) -> None:
    checkpoint = Checkpoint(state=RunState.RUNNING, place=Place(run="x"))
    with pytest.raises(JournalError, match="knows no run 'x'"):
        await journal.commit(Entry(run="x", checkpoint=checkpoint))
