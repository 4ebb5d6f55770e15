"""Runs on the paper cycler: begun in a journal, found in it again, and what it keeps of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from paper_cycler import three_cycles

from labctl.clock import Clock, RealClock, VirtualClock
from labctl.drivers.base import Sequencer, Source
from labctl.engine.hostwork import HostWork
from labctl.engine.journal import Entry, Journal
from labctl.engine.place import Place
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.runner import Pace, Runner
from labctl.engine.states import RunState
from labctl.errors import InstrumentError, JournalError, LinkError
from labctl.model import Records, join_records
from labctl.program import Program
from labctl.stream.batches import SamplesBatch, decode_batch
from labctl.stream.events import Event, MarkerSet

PROGRAM = three_cycles()
WALL_SPEED = 100.0
"""Links that are lost are tried again so much sooner than in a laboratory."""
PACE = Pace(slow_journal_s=60.0 * WALL_SPEED)


def charter_of(program: Program) -> Charter:
    return Charter(
        run="r",
        cell="c",
        instrument="rack",
        channel="1",
        recipe_name=program.name,
        recipe_text="",
        program=program,
        active_mass_g=2e-3,
        one_C_mA_per_g=100.0,
        actor="anna",
        created_unix_s=0.0,
    )


async def begin(journal: Journal, program: Program = PROGRAM) -> None:
    created = Checkpoint(state=RunState.CREATED, place=Place(run="r"))
    await journal.commit(Entry(run="r", charter=charter_of(program), checkpoint=created))


async def runner_from(
    journal: Journal,
    driver: Sequencer | Source | None,
    clock: Clock | None = None,
    *,
    host: HostWork | None = None,
    pace: Pace = PACE,
    wall: Clock | None = None,
) -> Runner:
    """The run as a daemon finds it in the journal when it starts."""
    [(charter, checkpoint)] = await journal.runs()
    clock = VirtualClock(0.0) if clock is None else clock
    wall = RealClock(WALL_SPEED) if wall is None else wall
    return Runner(charter, checkpoint, driver, journal, clock, pace=pace, wall=wall, host=host)


async def kept(journal: Journal) -> tuple[Records, list[Event]]:
    """Every record and event in the journal."""
    records: list[Records] = []
    events: list[Event] = []
    for _, payload in await journal.pending(0, 10**9):
        batch = decode_batch(payload)
        if isinstance(batch, SamplesBatch):
            records.append(batch.records())
        else:
            events += batch.events
    return (join_records(records) if records else Records()), events


def of_kind(events: list[Event], *kinds: type) -> list[Event]:
    return [event for event in events if isinstance(event, kinds)]


class LabClock(VirtualClock):
    """A virtual clock that does not run ahead of the journal it is given to."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self._busy = 0
        self._idle = asyncio.Event()

    def waits_for(self, journal: Journal) -> None:
        """Time stands while ``journal`` writes."""
        commit = journal.commit

        async def watched(entry: Entry) -> None:
            self._busy += 1
            self._idle.clear()
            try:
                await commit(entry)
            finally:
                self._busy -= 1
                if not self._busy:
                    self._idle.set()

        journal.commit = watched  # type: ignore[method-assign]

    async def sleep(self, duration_s: float) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        if self._busy:
            await self._idle.wait()
        await super().sleep(duration_s)


class PowerCutError(Exception):
    """The lights went out."""


class CutJournal:
    """A journal whose machine loses power at its ``cut_at``-th commit, before or after it."""

    def __init__(
        self,
        journal: Journal,
        cut_at: int,
        *,
        after: bool,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal, self._left, self._after, self._then = journal, cut_at, after, then

    def cut_now(self) -> None:
        """The next commit is not made."""
        self._left, self._after = 1, False

    async def commit(self, entry: Entry) -> None:
        self._left -= 1
        if self._left == 0 and self._after:
            await self._journal.commit(entry)
        if self._left <= 0:
            self._then()
            raise PowerCutError
        await self._journal.commit(entry)


class FullDisk:
    """A journal on a disk that is full for so many commits."""

    def __init__(self, journal: Journal, commits: int = 1_000_000) -> None:
        self._journal, self.commits = journal, commits

    async def commit(self, entry: Entry) -> None:
        if self.commits > 0:
            self.commits -= 1
            raise JournalError("the disk is full")
        await self._journal.commit(entry)


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks work until something holds."""
    async with asyncio.timeout(20.0):
        while not condition():
            await asyncio.sleep(0)


@asynccontextmanager
async def at_work(runner: Runner) -> AsyncIterator[asyncio.Task[None]]:
    """The run goes on while the test does something; it is then left as it is."""
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class PaperLab:
    """A laboratory around an instrument: its chamber creeps by ``speed_K_per_s`` to what is set.

    chamber_down: it does not answer. chamber: there is one.
    """

    def __init__(self, clock: Clock, *, speed_K_per_s: float = 0.01) -> None:
        self.clock = clock
        self.speed_K_per_s = speed_K_per_s
        self.chamber = True
        self.chamber_down = False
        self.chamber_refuses = ""
        self.set_to_degC: list[float] = []
        self.markers: list[tuple[MarkerSet, int]] = []
        self._from_degC, self._to_degC, self._since_s = 20.0, 20.0, 0.0

    @property
    def now_degC(self) -> float:
        moved_K = self.speed_K_per_s * (self.clock.monotonic_s() - self._since_s)
        away_K = self._to_degC - self._from_degC
        return self._from_degC + max(-moved_K, min(moved_K, away_K))

    async def set_temperature(self, temperature_degC: float) -> None:
        if self.chamber_down:
            raise LinkError("the chamber's cable is out")
        if self.chamber_refuses:
            raise InstrumentError(self.chamber_refuses)
        self._from_degC, self._since_s = self.now_degC, self.clock.monotonic_s()
        self._to_degC = temperature_degC
        self.set_to_degC.append(temperature_degC)

    async def temperature(self) -> float | None:
        if self.chamber_down:
            raise LinkError("the chamber's cable is out")
        return self.now_degC if self.chamber else None

    def publish_marker(self, marker: MarkerSet, visit: int) -> None:
        self.markers.append((marker, visit))
