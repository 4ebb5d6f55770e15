"""What is watched of a run comes into the journal with it, once, also over a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from paper_cycler import PaperCycler
from paper_runs import FullDisk, at_work, begin, kept, of_kind, runner_from, until

from labctl.clock import ManualClock
from labctl.engine.journal import Journal, open_journal
from labctl.engine.runner import Runner
from labctl.engine.states import RunState
from labctl.errors import JournalError
from labctl.stream.events import ConditionChanged


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", "lab") as journal:
        await begin(journal)
        yield journal


async def told(journal: Journal) -> list[tuple[str, bool]]:
    _, events = await kept(journal)
    found = of_kind(events, ConditionChanged)
    return [(one.condition, one.holds) for one in found if isinstance(one, ConditionChanged)]


async def cut_off(journal: Journal, wall: ManualClock) -> tuple[Runner, PaperCycler]:
    """A run in the middle, whose cable is pulled as it is taken up again."""
    cycler = PaperCycler()
    cycler.rows_per_answer = 20
    first = await runner_from(journal, cycler)
    async with at_work(first):
        await until(lambda: first.checkpoint.place.seq >= 40)
    cycler.link_down = True
    return await runner_from(journal, cycler, wall=wall), cycler


async def test_an_instrument_that_stays_away_is_told_once_and_so_is_its_return(
    journal: Journal,
) -> None:
    wall = ManualClock()
    runner, cycler = await cut_off(journal, wall)
    async with at_work(runner) as running:
        await until(lambda: runner.link_down)
        await runner.keep_watch()
        assert await told(journal) == []
        for _ in range(5):
            await wall.advance(10.0)
            await runner.keep_watch()
        assert await told(journal) == [("no-connection", True)]
        assert runner.checkpoint.state is RunState.RUNNING
        assert runner.checkpoint.conditions == ("no-connection",)
        cycler.link_down = False
        while runner.link_down:
            await wall.advance(5.0)
        await runner.keep_watch()
        await running
    assert await told(journal) == [("no-connection", True), ("no-connection", False)]


async def test_a_restart_while_it_is_away_tells_nothing_twice(journal: Journal) -> None:
    wall = ManualClock()
    runner, cycler = await cut_off(journal, wall)
    for away in ("", "rack1: no connection"):
        runner.link_error = ""
        await runner.keep_watch(away)
    await wall.advance(20.0)
    await runner.keep_watch("rack1: no connection")
    assert await told(journal) == [("no-connection", True)]
    again = await runner_from(journal, cycler, wall=wall)
    await again.keep_watch("rack1: no connection")
    await wall.advance(100.0)
    await again.keep_watch("rack1: no connection")
    assert await told(journal) == [("no-connection", True)]
    await again.keep_watch()
    assert await told(journal) == [("no-connection", True), ("no-connection", False)]


async def test_what_a_full_disk_would_not_take_is_told_when_there_is_room(journal: Journal) -> None:
    wall = ManualClock()
    runner, _ = await cut_off(journal, wall)
    await runner.keep_watch("rack1: no connection")
    await wall.advance(20.0)
    runner._record.journal = FullDisk(journal, 1)  # type: ignore[assignment]
    with pytest.raises(JournalError):
        await runner.keep_watch("rack1: no connection")
    assert await told(journal) == []
    await runner.keep_watch("rack1: no connection")
    assert await told(journal) == [("no-connection", True)]
