"""Journalling what is read from a source: soon, together, and without holding up the next look."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import msgspec

from labctl.engine.bench import Bench
from labctl.engine.output import Output
from labctl.engine.visit import Visit
from labctl.engine.waiting import let_go
from labctl.errors import JournalError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_LONGEST_S: Final = 10.0
"""A journal that has kept nothing for so long, by real time, is not waited for with current on."""
_LAST_WORDS_S: Final = 3.0


class Keeping:
    """One commit at a time, each of everything that waits."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._task: asyncio.Task[None] | None = None
        self._begun_s = bench.wall.monotonic_s()

    def soon(self, visit: Visit) -> None:
        """Journal what is due, without waiting for it.

        Raises:
            JournalError: what was to be kept before could not be, or takes too long.
        """
        now_s = self._bench.wall.monotonic_s()
        if self._task is not None:
            if not self._task.done():
                if now_s - self._begun_s > _LONGEST_S:
                    raise JournalError(f"the journal has kept nothing for {_LONGEST_S:g} s")
                return
            done, self._task = self._task, None
            done.result()
        pace = self._bench.pace
        due = now_s - self._begun_s >= pace.keep_every_s or visit.unkept >= pace.keep_most
        if due and visit.unkept:
            self._begun_s = now_s
            self._task = asyncio.create_task(self._keep(visit, left=False))

    async def all_of(self, visit: Visit, *, left: bool = False) -> None:
        """Journal everything of a visit; ``left``: its output is off, and nothing more comes.

        Raises:
            JournalError: it is not kept; the visit has it still.
        """
        await self.settle()
        if visit.unkept or left:
            self._begun_s = self._bench.wall.monotonic_s()
            await self._keep(visit, left=left)

    async def settle(self) -> None:
        """Wait for the commit that is under way.

        Raises:
            JournalError: it was not kept; the visit has it still.
        """
        if self._task is not None:
            await asyncio.wait([self._task])
            done, self._task = self._task, None
            done.result()

    async def in_time(self, work: Coroutine[Any, Any, Result], output: Output) -> Result:
        """Journal a transition; where that takes long, the output goes off meanwhile."""
        task = asyncio.create_task(work)
        try:
            if not await self._bench.waiting.at_most(task, self._bench.pace.slow_journal_s):
                log.error("channel %s: the journal is slow; output off", self._bench.channel)
                await output.off_whatever_happens()
                await asyncio.wait([task])
            return task.result()
        finally:
            await let_go(task)

    async def whatever_happens(self, visit: Visit | None) -> None:
        """Journal what there is if it can be done now; what hinders it is logged.

        What takes longer goes on by itself, and :meth:`settle` waits for it.
        """
        try:
            if not await self._at_most():
                return
            if visit is not None and visit.unkept:
                self._task = asyncio.create_task(self._keep(visit, left=False))
                await self._at_most()
        except JournalError as error:
            log.warning("channel %s: the last readings wait: %s", self._bench.channel, error)

    async def close(self) -> None:
        """Nothing is waited for any more: whether the last commit was kept is not known."""
        if self._task is not None:
            task, self._task = self._task, None
            await let_go(task)

    async def _at_most(self) -> bool:
        if self._task is None:
            return True
        if not await self._bench.waiting.at_most(self._task, _LAST_WORDS_S):
            log.warning("channel %s: the last readings wait", self._bench.channel)
            return False
        done, self._task = self._task, None
        done.result()
        return True

    async def _keep(self, visit: Visit, *, left: bool) -> None:
        record = self._bench.record
        async with record.changing:
            unkept = visit.take_unkept()
            changed = msgspec.structs.replace(
                record.checkpoint,
                place=unkept.place,
                left=left,
                looked_unix_s=visit.recorded_unix_s,
            )
            try:
                await record.advance(changed, records=unkept.records, events=unkept.events)
            except JournalError:
                visit.put_back(unkept)
                raise
