"""What is watched of a node and its runs while nothing else happens: every few seconds.

A run that waits in a back-off, or for an instrument that was never found, tells nothing by itself.
Runs and the node are looked at by the wall, and what changed is journalled, so that an alarm comes
of it: see :mod:`labctl.engine.watching` and :mod:`labctl.alarms.conditions`.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from labctl.clock import Clock
from labctl.engine.journal import Entry
from labctl.errors import JournalError
from labctl.stream.events import ConditionChanged

if TYPE_CHECKING:
    from labctl.daemon.node import Node

log = logging.getLogger(__name__)

EVERY_S: Final = 2.0
BACKLOG_EVERY_S: Final = 30.0
BEHIND_S: Final = 600.0
"""How long the archive may take nothing although something waits for it."""


class Watchman:
    """Of one node; ``wall`` is real time."""

    def __init__(self, node: Node, wall: Clock) -> None:
        self._node = node
        self._wall = wall
        self._told: dict[str, bool] = {}
        self._looked_s = -math.inf
        self._behind = False
        self._waits_since: tuple[int, float] | None = None

    async def work(self) -> None:
        """Look and tell until cancelled."""
        while True:
            await self.turn()
            await self._wall.sleep(EVERY_S)

    async def turn(self) -> None:
        """One look at everything."""
        for runner in list(self._node.runners.values()):
            instrument = self._node.instruments.get(runner.charter.instrument)
            away = ""
            if instrument is not None and not instrument.ready.is_set():
                away = instrument.problem
            try:
                await runner.keep_watch(away)
            except JournalError as error:
                log.warning("run %s: what is watched waits: %s", runner.charter.run, error)
        try:
            await self._look_at_node()
        except JournalError as error:
            log.warning("what is watched of the node waits: %s", error)

    async def _look_at_node(self) -> None:
        journal = self._node.journal
        await self._tell(
            "disk",
            holds=journal.disk_is_full,
            message="the disk of the journal is full: runs that go on live on its reserve, and no "
            "new run begins"
            if journal.disk_is_full
            else "there is room on the disk of the journal",
        )
        now_s = self._wall.monotonic_s()
        if now_s - self._looked_s >= BACKLOG_EVERY_S:
            self._looked_s = now_s
            await self._look_at_backlog(now_s)

    async def _look_at_backlog(self, now_s: float) -> None:
        backlog = await self._node.journal.backlog()
        taken = self._node.publisher.batches_acknowledged
        if not backlog.batches:
            self._waits_since = None
        elif self._waits_since is None or self._waits_since[0] != taken:
            self._waits_since = taken, now_s
        waited_s = 0.0 if self._waits_since is None else now_s - self._waits_since[1]
        behind = waited_s >= BEHIND_S
        await self._tell(
            "behind",
            holds=behind,
            message=f"the archive has taken nothing for {waited_s / 60.0:.0f} min; "
            f"{backlog.batches} batches ({backlog.size_bytes / 1e6:.1f} MB) wait in the journal"
            if behind
            else "the archive takes what is in the journal",
        )

    async def _tell(self, condition: str, *, holds: bool, message: str) -> None:
        if self._told.get(condition) is holds:
            return
        event = ConditionChanged(
            run="",
            condition=condition,
            holds=holds,
            message=message,
            unix_time_s=self._node.clock.unix_time_s(),
        )
        await self._node.journal.commit(Entry(events=(event,)))
        self._told[condition] = holds
        log.log(logging.WARNING if holds else logging.INFO, "%s: %s", condition, message)
