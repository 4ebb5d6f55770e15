"""A node at work: what goes wrong in one place stays there, is said, and is tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from paper_cycler import PaperDriver

from labctl.control import (
    AbandonRun,
    Command,
    Done,
    GetStatus,
    RegisterCell,
    ReleaseRun,
    Request,
    SendSignal,
    SkipStep,
    StartRun,
    Status,
    StopRun,
)
from labctl.daemon import open_node, run_daemon
from labctl.daemon.commands import Commands
from labctl.daemon.node import Node
from labctl.daemon.status import MOST_ENDED_RUNS, status_of
from labctl.drivers import DRIVERS
from labctl.engine.journal import Entry
from labctl.engine.states import RunState
from labctl.errors import CommandError, JournalError, RecipeError
from labctl.model import Cell
from labctl.settings import Settings, load_settings

RECIPE = """
recipe: One cycle
steps:
  - charge: {at: 0.5C, until: 4.0 V}
  - discharge: {at: 0.5C, until: 2.0 V}
"""


@pytest.fixture(autouse=True)
def _paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DRIVERS, "paper", "paper_cycler:PaperDriver")


def settings_in(
    folder: Path, *instruments: str, name: str = "lab", speed: str = "virtual"
) -> Settings:
    tables = "".join(f'[instruments.{each}]\ndriver = "paper"\n' for each in instruments)
    (folder / "labctl.toml").write_text(
        f'[node]\nname = "{name}"\nspeed = "{speed}"\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n{tables}'
    )
    return load_settings(folder / "labctl.toml")


@asynccontextmanager
async def at_work(settings: Settings) -> AsyncIterator[Node]:
    async with open_node(settings) as node:
        working = asyncio.create_task(node.work())
        try:
            yield node
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition():
            await asyncio.sleep(0.001)


async def tell(node: Node, request: Request) -> Done:
    command = Command(id=str(time.perf_counter_ns()), expires_unix_s=9e9, request=request)
    answer = await Commands(node).obey(command, "anna")
    assert isinstance(answer, Done)
    return answer


async def start(node: Node, cell: str = "a", instrument: str = "rack", channel: str = "1") -> str:
    await tell(
        node,
        RegisterCell(
            cell=Cell(
                name=cell,
                material="HE-V",
                active_mass_g=2e-2,
                one_C_mA_per_g=100.0,
                safe_voltage_min_V=1.0,
                safe_voltage_max_V=4.5,
            )
        ),
    )
    await until(node.instruments[instrument].ready.is_set)
    request = StartRun(
        recipe_text=RECIPE, recipe_file="r", cell=cell, instrument=instrument, channel=channel
    )
    return (await tell(node, request)).run


async def test_a_run_is_started_by_command_and_comes_to_its_end(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        run = await start(node)
        await until(lambda: node.runners[run].checkpoint.state is RunState.COMPLETED)
        [status] = (await status_of(node)).runs
        assert (status.state, status.ended, status.link_error) == ("completed", True, "")


async def test_an_internal_error_in_one_run_holds_it_and_no_other(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack", "other")) as node:
        await until(lambda: len(PaperDriver.made) >= 2)
        broken = PaperDriver.made["rack"]
        follow = broken.follow

        async def breaks(*_: object) -> object:
            raise ZeroDivisionError

        broken.follow = breaks  # type: ignore[assignment,method-assign]
        run, other = await start(node, "a"), await start(node, "b", "other")
        await until(lambda: node.runners[run].checkpoint.state is RunState.HELD)
        await until(lambda: node.runners[other].checkpoint.state is RunState.COMPLETED)
        assert "ZeroDivisionError" in node.runners[run].checkpoint.reason
        broken.follow = follow  # type: ignore[method-assign]
        await tell(node, StopRun(run=run))
        await until(lambda: node.runners[run].checkpoint.state.ended)
        assert "stop" in broken.calls


async def test_a_run_whose_instrument_left_the_configuration_is_shown_and_can_be_ended(
    tmp_path: Path,
) -> None:
    async with at_work(settings_in(tmp_path, "rack", "other")) as node:
        PaperDriver.made["rack"].hangs = True
        run = await start(node)
        await until(lambda: node.runners[run].checkpoint.state is RunState.RUNNING)
    async with at_work(settings_in(tmp_path, "other")) as node:
        await until(lambda: bool(node.runners[run].link_error))
        [status] = (await status_of(node)).runs
        assert (status.state, status.instrument) == ("running", "rack")
        assert "'rack' is not in the configuration" in status.link_error
        with pytest.raises(CommandError, match="can only be in one place"):
            await start(node, instrument="other")
        await tell(node, StopRun(run=run))
        await tell(node, AbandonRun(run=run, reason="the rack was sold"))
        assert node.runners[run].checkpoint.state is RunState.STOPPED
        assert await start(node, instrument="other") == run.replace("00001", "00002")


async def test_a_run_whose_instrument_is_away_after_a_restart_says_so_and_goes_on_later(
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path, "rack")
    async with at_work(settings) as node:
        PaperDriver.made["rack"].hangs = True
        run = await start(node)
        await until(lambda: node.runners[run].checkpoint.state is RunState.RUNNING)
        tests = PaperDriver.made["rack"].tests
    async with open_node(settings) as node:
        cycler = PaperDriver.made["rack"]
        cycler.link_down, cycler.tests = True, tests
        working = asyncio.create_task(node.work())
        await until(lambda: "cable" in node.instruments["rack"].problem)
        status = await status_of(node)
        assert "the cable is out" in status.runs[0].link_error
        assert not status.instruments[0].connected
        cycler.link_down = False
        await until(lambda: node.runners[run].checkpoint.state is RunState.COMPLETED)
        assert (await status_of(node)).instruments[0].connected
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_cable_that_is_pulled_shows_at_the_instrument(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        PaperDriver.made["rack"].says = "unavailable"  # type: ignore[assignment]
        run = await start(node)
        await until(lambda: node.runners[run].checkpoint.state is RunState.RUNNING)
        PaperDriver.made["rack"].link_down = True
        await until(lambda: node.runners[run].link_down)
        [instrument] = (await status_of(node)).instruments
        assert (instrument.connected, instrument.problem) == (False, "the cable is out")


async def test_a_publisher_that_fails_is_said_and_hinders_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: object) -> None:
        raise JournalError("batch 7 is not what was written")

    monkeypatch.setattr("labctl.stream.publisher.Publisher.run", fails)
    async with at_work(settings_in(tmp_path, "rack")) as node:
        run = await start(node)
        await until(lambda: node.runners[run].checkpoint.state is RunState.COMPLETED)
        assert "batch 7" in (await status_of(node)).stream_problem


async def test_a_journal_that_fails_at_the_start_does_not_end_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path, "rack")
    async with open_node(settings) as node:
        whole, failures = node.journal.commit, [1, 2]

        async def fails(entry: Entry) -> None:
            if failures:
                failures.pop()
                raise JournalError("the disk is full")
            await whole(entry)

        monkeypatch.setattr(node.journal, "commit", fails)
        working = asyncio.create_task(node.work())
        await until(lambda: "full" in node.instruments["rack"].problem)
        await until(node.instruments["rack"].ready.is_set)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_the_daemon_ends_in_time_though_its_links_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(PaperDriver, "close", hangs)
    monkeypatch.setattr("labctl.daemon.node._CLOSE_S", 0.05)
    ready = asyncio.Event()
    serving = asyncio.create_task(
        run_daemon(settings_in(tmp_path, "rack", "other", "third"), ready.set)
    )
    await ready.wait()
    serving.cancel()
    async with asyncio.timeout(2.0):
        await asyncio.gather(serving, return_exceptions=True)


async def test_a_node_under_another_name_is_refused_the_journal(tmp_path: Path) -> None:
    async with open_node(settings_in(tmp_path)):
        pass
    with pytest.raises(JournalError, match="belongs to node 'lab', not to 'lab2'"):
        async with open_node(settings_in(tmp_path, name="lab2")):
            pass


@pytest.mark.parametrize(("speed", "spacing_s"), [("1", 0.02), ("60", 0.0), ("virtual", 0.0)])
async def test_a_disk_is_spared_where_a_second_is_a_second(
    tmp_path: Path, speed: str, spacing_s: float
) -> None:
    async with open_node(settings_in(tmp_path, speed=speed)) as node:
        assert node.journal.spacing_s == spacing_s


async def test_a_damaged_run_is_shown_and_its_number_is_not_given_again(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "rack")
    async with at_work(settings) as node:
        run = await start(node)
        await until(lambda: node.runners[run].checkpoint.state is RunState.COMPLETED)
        node.journal._file.connection.execute("UPDATE runs SET checkpoint = x'00'")
    async with at_work(settings) as node:
        [status] = (await status_of(node)).runs
        assert (status.run, status.state, status.ended) == (run, "damaged", False)
        assert await start(node) == run.replace("00001", "00002")


async def test_status_tells_of_every_open_run_and_of_the_newest_that_ended(tmp_path: Path) -> None:
    async with open_node(settings_in(tmp_path, "rack")) as node:
        working = asyncio.create_task(node.work())
        first = await start(node)
        await until(lambda: node.runners[first].checkpoint.state is RunState.COMPLETED)
        ended = node.runners[first]
        for number in range(MOST_ENDED_RUNS + 5):
            node.runners[f"x-{number}"] = ended
        PaperDriver.made["rack"].hangs = True
        run = await start(node, "b", channel="2")
        runs = (await status_of(node)).runs
        assert len(runs) == MOST_ENDED_RUNS + 1
        assert runs[-1].run == run
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_stop_does_not_wait_for_another_command(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        PaperDriver.made["rack"].hangs = True
        run = await start(node)
        commands = Commands(node)
        async with commands._one_at_a_time, asyncio.timeout(2.0):
            stop = Command(id="s", expires_unix_s=9e9, request=StopRun(run=run))
            assert await commands.obey(stop, "anna") == await commands.obey(stop, "anna")


async def test_status_is_answered_as_it_travels(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        command = Command(id="1", expires_unix_s=9e9, request=GetStatus())
        status = await Commands(node).obey(command, "anna")
        assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status


WAITS = """
recipe: In step
steps:
  - wait: {for signal: go, at_most: 1 h, then: stop}
  - signal: begins
  - charge: {at: 0.5C, until: 4.0 V}
"""


async def ask_for(node: Node, recipe: str, **more: object) -> str:
    await until(node.instruments["rack"].ready.is_set)
    wanted = {"cell": "a", "channel": "1", "instrument": "rack", "recipe_file": "r", **more}
    return (await tell(node, StartRun(recipe_text=recipe, **wanted))).run  # type: ignore[arg-type]


async def register(node: Node, *names: str) -> None:
    for name in names:
        cell = Cell(
            name=name,
            material="HE-V",
            active_mass_g=2e-2,
            one_C_mA_per_g=100.0,
            safe_voltage_min_V=1.0,
            safe_voltage_max_V=4.5,
        )
        await tell(node, RegisterCell(cell=cell))


async def test_in_virtual_time_a_run_waits_for_people_and_takes_no_time(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        await register(node, "a")
        run = await ask_for(node, WAITS)
        runner = node.runners[run]
        await until(lambda: "'go'" in runner.waits_for)
        [status] = (await status_of(node)).runs
        assert "waits for the signal 'go'" in status.waits_for
        assert runner.checkpoint.place.test_time_s == 0.0
        done = await tell(node, SendSignal(name="go"))
        assert run in done.message
        await until(lambda: runner.checkpoint.state is RunState.COMPLETED)


async def test_a_signal_that_nobody_can_hear_is_kept_all_the_same(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        assert "no run goes on" in (await tell(node, SendSignal(name="go"))).message


async def test_a_queued_run_begins_when_the_one_before_has_run_to_its_end(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        await register(node, "a")
        first = await ask_for(node, WAITS)
        with pytest.raises(CommandError, match="start with --queue"):
            await ask_for(node, RECIPE)
        second = await ask_for(node, RECIPE, queue=True)
        await until(lambda: bool(node.runners[first].waits_for))
        statuses = {each.run: each for each in (await status_of(node)).runs}
        assert f"waits for run {first}" in statuses[second].waits_for
        assert node.runners[second].checkpoint.state is RunState.CREATED
        await tell(node, SendSignal(name="go", run=first))
        await until(lambda: node.runners[second].checkpoint.state is RunState.COMPLETED)


async def test_behind_a_run_that_was_stopped_somebody_looks_first(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        await register(node, "a")
        first = await ask_for(node, WAITS)
        second = await ask_for(node, RECIPE, queue=True)
        await until(lambda: bool(node.runners[first].waits_for))
        await tell(node, StopRun(run=first))
        await until(lambda: node.runners[first].checkpoint.state is RunState.STOPPED)
        waiting = node.waiting(node.runners[second])
        assert waiting is not None
        assert "release this run or stop it" in waiting.why
        await tell(node, ReleaseRun(run=second, reason="the cell is fine"))
        await until(lambda: node.runners[second].checkpoint.state is RunState.COMPLETED)


async def test_a_queued_run_can_be_stopped_before_it_begins(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        await register(node, "a")
        first = await ask_for(node, WAITS)
        second = await ask_for(node, RECIPE, queue=True)
        third = await ask_for(node, RECIPE, queue=True)
        await tell(node, StopRun(run=second))
        assert node.runners[second].checkpoint.state is RunState.STOPPED
        await until(lambda: bool(node.runners[first].waits_for))
        await tell(node, SendSignal(name="go", run=first))
        await until(lambda: node.runners[first].checkpoint.state is RunState.COMPLETED)
        await until(lambda: "release" in getattr(node.waiting(node.runners[third]), "why", ""))


async def test_a_queue_survives_a_restart(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "rack")
    async with at_work(settings) as node:
        await register(node, "a")
        first = await ask_for(node, WAITS)
        second = await ask_for(node, RECIPE, queue=True)
        await until(lambda: bool(node.runners[first].waits_for))
        tests = PaperDriver.made["rack"].tests
    async with open_node(settings) as node:
        PaperDriver.made["rack"].tests = tests
        working = asyncio.create_task(node.work())
        await until(lambda: bool(node.runners[first].waits_for))
        assert node.runners[second].checkpoint.state is RunState.CREATED
        await tell(node, SendSignal(name="go", run=first))
        await until(lambda: node.runners[second].checkpoint.state is RunState.COMPLETED)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_run_begins_no_sooner_than_it_was_asked_to(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        await register(node, "a")
        at_unix_s = node.clock.unix_time_s() + 7200.0
        run = await ask_for(node, RECIPE, not_before_unix_s=at_unix_s)
        await until(lambda: node.runners[run].checkpoint.state is RunState.COMPLETED)
        assert node.clock.unix_time_s() >= at_unix_s


async def test_what_the_site_does_not_allow_no_recipe_may(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "rack")
    with (tmp_path / "labctl.toml").open("a") as file:
        file.write("[limits]\nvoltage_max_V = 3.9\n")
    async with at_work(load_settings(tmp_path / "labctl.toml")) as node:
        assert settings.node.name == "lab"
        await register(node, "a")
        with pytest.raises(RecipeError, match="the limits of the site"):
            await ask_for(node, RECIPE)


async def test_a_prompt_is_confirmed_to_one_run_while_it_asks(tmp_path: Path) -> None:
    recipe = WAITS.replace("for signal: go", "for operator: The box is closed")
    async with at_work(settings_in(tmp_path, "rack")) as node:
        await register(node, "a")
        run = await ask_for(node, recipe)
        await until(lambda: "The box is closed" in node.runners[run].waits_for)
        with pytest.raises(CommandError, match="say which run"):
            await tell(node, SendSignal(name="confirm"))
        await tell(node, SendSignal(name="confirm", run=run))
        await until(lambda: node.runners[run].checkpoint.state is RunState.COMPLETED)
        with pytest.raises(CommandError):
            await tell(node, SendSignal(name="confirm", run=run))


async def test_a_step_that_is_not_the_present_one_is_not_skipped(tmp_path: Path) -> None:
    async with at_work(settings_in(tmp_path, "rack")) as node:
        await register(node, "a")
        run = await ask_for(node, WAITS)
        await until(lambda: bool(node.runners[run].waits_for))
        with pytest.raises(CommandError, match="is in step 1"):
            await tell(node, SkipStep(run=run, step=3))
        await tell(node, SkipStep(run=run, step=1))
        await until(lambda: node.runners[run].checkpoint.state is RunState.COMPLETED)
