"""People are told of alarms: by mail, telephone, chat, whatever the apprise library reaches.

What is to be said is written into the database first, once, whichever of several archives notices;
then it is delivered to each address for itself. An archive that tries a delivery has it for two
minutes, and nobody else does; what fails is tried again, later and later, for a day. What was
delivered is in the database, so that a restart neither loses nor doubles. (A process that is killed
after an address has taken a message and before that is written will say it again.)

Nothing here holds up the archive: addresses are asked in a thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from labctl.alarms.notify import GROUP_S, REPEAT_S, Grouping, Told, due
from labctl.archive.keeping_alarms import Do, Look
from labctl.archive.notices import Delivery, claim, has_due, read_told, settle, write_down
from labctl.archive.sending import Sender, ask_for, guarded
from labctl.clock import Clock
from labctl.errors import ArchiveError

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 60.0
HEARTBEAT_AGAIN_S: Final = 10.0
_FAREWELL_S: Final = 15.0
_AFTER_TROUBLE_S: Final = 60.0


class Notifier:
    """Tells people of alarms for as long as :meth:`run` runs.

    Args:
        senders: by the names of their addresses in the database.
        min_priority: what is of less is not told of.
        do, look: write into the database, and read from it; they wait while it is away.
        healthy: whether the archive can commit now, and hears its broker.
        heartbeat_url: asked once a minute while it is, and soon again where that failed; '' for
            none.
        group_s: so long alarms are waited for that belong into the same message.
        repeat_s: how often an alarm of a priority is told of while nobody says anything.
    """

    def __init__(
        self,
        senders: Mapping[str, Sender],
        *,
        clock: Clock,
        do: Do,
        look: Look,
        healthy: Callable[[], Awaitable[bool]],
        min_priority: str = "low",
        heartbeat_url: str = "",
        every_s: float = 2.0,
        group_s: float = GROUP_S,
        repeat_s: Mapping[str, float] = REPEAT_S,
    ) -> None:
        self._senders = senders
        self._min_priority = min_priority
        self._clock = clock
        self._do = do
        self._look = look
        self._healthy = healthy
        self._heartbeat_url = heartbeat_url
        self._every_s = every_s
        self._repeat_s = dict(repeat_s)
        self._grouping = Grouping(group_s)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="notifications")
        self._heart = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")
        self._heart_problem = ""

    async def run(self) -> None:
        """Serve until cancelled; a message that is on its way is waited for."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._senders:
                    tasks.create_task(self._tell(), name="notifications")
                if self._heartbeat_url:
                    tasks.create_task(self._beat(), name="heartbeat")
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._heart.shutdown(wait=False, cancel_futures=True)

    async def _tell(self) -> None:
        while True:
            try:
                await self.turn()
            except ArchiveError as error:
                log.warning("nobody can be told of alarms now: %s", error)
                await self._clock.sleep(_AFTER_TROUBLE_S)
            await self._clock.sleep(self._every_s)

    async def _beat(self) -> None:
        while True:
            beats = await self.beat()
            await self._clock.sleep(HEARTBEAT_S if beats else HEARTBEAT_AGAIN_S)

    async def turn(self) -> int:
        """Write down what people should be told of now, and deliver what is due; gives how many
        deliveries were tried."""
        now_s, targets = self._clock.unix_time_s(), tuple(self._senders)
        told: list[Told] = await self._look(read_told)
        wanted = due(told, now_s, self._min_priority, self._repeat_s)
        if self._grouping.ready(wanted, self._clock.monotonic_s()):
            chosen = frozenset(one.alarm_number for one in wanted)
            await self._do(
                functools.partial(
                    write_down,
                    chosen=chosen,
                    targets=targets,
                    min_priority=self._min_priority,
                    now_unix_s=now_s,
                    repeat_s=self._repeat_s,
                )
            )
        tried = 0
        while await self._look(functools.partial(has_due, targets=targets, now_unix_s=now_s)):
            delivery = await self._do(functools.partial(claim, targets=targets, now_unix_s=now_s))
            if delivery is None:
                break
            await _to_the_end(self._deliver(delivery))
            tried += 1
        return tried

    async def _deliver(self, delivery: Delivery) -> None:
        send = functools.partial(
            self._senders[delivery.target],
            title=delivery.title,
            body=delivery.body,
            priority=delivery.priority,
        )
        problem = await asyncio.get_running_loop().run_in_executor(self._thread, guarded, send)
        if problem:
            log.warning(
                "notification %d could not be delivered to address %s (try %d): %s",
                delivery.notification_number,
                delivery.target,
                delivery.attempts,
                problem,
            )
        else:
            log.info(
                "notification %d was delivered to address %s",
                delivery.notification_number,
                delivery.target,
            )
        await self._do(
            functools.partial(
                settle, delivery=delivery, problem=problem, now_unix_s=self._clock.unix_time_s()
            )
        )

    async def beat(self) -> bool:
        """Ask the heartbeat's address if the archive is well; whether it was asked and
        answered."""
        problem = "the archive cannot commit or hears no broker, so that it is not asked"
        if await self._healthy():
            problem = await asyncio.get_running_loop().run_in_executor(
                self._heart, ask_for, self._heartbeat_url
            )
        if problem and problem != self._heart_problem:
            log.warning("the heartbeat's address: %s", problem)
        self._heart_problem = problem
        return not problem


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work``; when cancelled, for a while longer, so that it is written down."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_FAREWELL_S)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        raise
