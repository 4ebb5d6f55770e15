"""``labctl archive``: takes batches from the stream, commits them, and says so afterwards.

Nothing is acknowledged before it is committed. While the database is away the group at hand is
tried again and no more messages are taken than fit into the bounds; the journals keep the rest. The
database is used by one worker thread and never by the event loop.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import aiomqtt
from sqlalchemy import Connection as Database
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

import labctl
from labctl.alarms.notify import NotifyConfig
from labctl.alarms.states import AlarmState
from labctl.archive.alarm_store import AlarmRow, read_alarms
from labctl.archive.database import open_engine, upgrade
from labctl.archive.inbox import GroupLimits, Inbox
from labctl.archive.ingest import Committed
from labctl.archive.keeping_alarms import GONE_AFTER_S, AlarmKeeper
from labctl.archive.ledger import SourceAck
from labctl.archive.notices import can_commit
from labctl.archive.notifying import Notifier
from labctl.archive.sending import senders_of
from labctl.archive.telling import (
    Message,
    ack_message,
    alarm_message,
    all_acks,
    cycle_message,
    latest_cycles,
)
from labctl.archive.writer import ProcessWriter, ThreadWriter, Writer, WriterGoneError
from labctl.clock import Clock, RealClock, first_of
from labctl.errors import ArchiveError, LabctlError, StreamError
from labctl.stream import topics
from labctl.stream.connection import (
    Announcement,
    Backoff,
    Connection,
    ConnectionStatus,
    MqttConfig,
    stay_connected,
)
from labctl.stream.parcels import open_parcel
from labctl.stream.topics import ArchiveState, Presence

log = logging.getLogger(__name__)

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(slots=True)
class ArchiveStatus:
    """What has been done since the start, for people. ``problem`` is '' while all is well."""

    groups: int = 0
    batches: int = 0
    readings: int = 0
    duplicates: int = 0
    quarantined: int = 0
    problem: str = ""


class ArchiveService:
    """Keeps the archive at ``url`` up to date for as long as :meth:`run` runs.

    Args:
        url: ``sqlite:///file.db`` or ``postgresql://user@host/database``.
        name: of this archive in topics.
        share: if given, archives with the same share divide the batches between them (PostgreSQL
            and MQTT 5 only); each then needs a name of its own.
        on_ready: called once, when the database is open and up to date.
        own_process: commit in a process beside this one, which is faster and takes longer to start.
        notify: whom to tell of alarms, beside the log and the stream.
        gone_after_s: a node whose last will stands for so long is an alarm.

    Raises:
        ArchiveError: not an address of an archive.
        ConfigError: an address to tell of alarms is not understood or cannot be read.
        StreamError: the name cannot stand in a topic.
    """

    def __init__(
        self,
        url: str,
        mqtt: MqttConfig,
        *,
        name: str = "main",
        share: str = "",
        clock: Clock | None = None,
        limits: GroupLimits | None = None,
        on_ready: Callable[[], None] | None = None,
        own_process: bool = False,
        notify: NotifyConfig | None = None,
        gone_after_s: float = GONE_AFTER_S,
    ) -> None:
        notify = notify or NotifyConfig()
        urls, heartbeat_url = notify.read()
        senders = senders_of(urls)
        self.status = ArchiveStatus()
        self.connection_status = ConnectionStatus()
        self._engine: Engine = open_engine(url)
        self._reader: Engine = open_engine(url, read_only=True)
        self._mqtt = mqtt
        self._name = name
        self._filter = topics.shared_batches(share) if share else topics.ALL_BATCHES
        self._state_topic = topics.archive_state_topic(name)
        self._clock = clock or RealClock()
        self._limits = limits or GroupLimits()
        self._on_ready = on_ready
        self._writer: Writer = ProcessWriter(url) if own_process else ThreadWriter(self._engine)
        self._own_process = own_process
        self._turn = asyncio.Lock()
        self._committing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._said: dict[int, AlarmRow] = {}
        self._alarms_changed = asyncio.Event()
        self._keeper = AlarmKeeper(self._clock, self._do, self._look, gone_after_s=gone_after_s)
        self._notifier = Notifier(
            senders,
            clock=self._clock,
            do=self._do,
            look=self._look,
            healthy=self._is_well,
            min_priority=notify.min_priority,
            heartbeat_url=heartbeat_url,
            every_s=self._limits.alarms_every_s,
            group_s=notify.group_s,
            repeat_s=notify.repeat_s,
        )

    async def run(self) -> None:
        """Serve until cancelled; a commit that is running is finished first.

        Raises:
            ArchiveError: the database is newer than this program, or damaged.
            ConfigError: the MQTT password or certificates cannot be read.
        """
        try:
            await self._patiently(upgrade, self._engine)
            if self._own_process:
                # Its process alone has the database open for writing.
                await self._in_worker(self._engine.dispose)
            await self._until_done(self._writer.start)
            if self._on_ready is not None:
                self._on_ready()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_alarms(), name="keep alarms")
                tasks.create_task(self._notifier.run(), name="notify")
                await stay_connected(
                    self._mqtt,
                    self._serve,
                    client_id=f"labctl-archive-{self._name}",
                    clock=self._clock,
                    announcement=Announcement(self._state_topic, self._state),
                    receive_maximum=self._limits.messages,
                    status=self.connection_status,
                )
        except BaseExceptionGroup as group:
            ours = group.subgroup(LabctlError)
            if ours is None:
                raise
            error: BaseException = ours
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from group
        finally:
            await asyncio.shield(self._writer.close())
            self._worker.submit(self._engine.dispose)
            self._worker.submit(self._reader.dispose)
            self._worker.shutdown(wait=True)

    async def _serve(self, connection: Connection) -> None:
        inbox = Inbox(self._limits)
        said: asyncio.Queue[Committed] = asyncio.Queue(maxsize=20)
        await connection.subscribe(self._filter)
        await self._listen_to_nodes(connection)
        await self._say_what_stands(connection)
        await connection.announce()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(connection, inbox), name="receive")
            for _ in range(self._writer.at_once):
                tasks.create_task(self._commit(connection, inbox, said), name="commit")
            tasks.create_task(self._tell(connection, said), name="tell")
            tasks.create_task(self._tell_alarms(connection), name="alarms")

    async def _receive(self, connection: Connection, inbox: Inbox) -> None:
        async for message in connection.messages():
            if not self._keeper.nodes.hear(message.topic.value, message.payload):
                await inbox.put(message)

    async def _commit(
        self, connection: Connection, inbox: Inbox, said: asyncio.Queue[Committed]
    ) -> None:
        while True:
            async with self._turn:
                messages = await inbox.take_group(self._clock, self._idle)
                self._committing += 1
                self._idle.clear()
            payloads: list[bytes] = []
            nodes: list[str] = []
            for message in messages:
                batches = open_parcel(bytes(message.payload))
                payloads += batches
                nodes += [_node_of(str(message.topic))] * len(batches)
            try:
                committed = await self._until_done(
                    functools.partial(self._writer.commit, payloads, nodes)
                )
            finally:
                self._committing -= 1
                if not self._committing:
                    self._idle.set()
            self.status.groups += 1
            self.status.batches += committed.batches
            self.status.readings += committed.readings
            self.status.duplicates += committed.duplicates
            self.status.quarantined += committed.quarantined
            for message in messages:
                connection.acknowledge(message)
            await said.put(committed)

    async def _tell(self, connection: Connection, said: asyncio.Queue[Committed]) -> None:
        while True:
            committed = await said.get()
            await self._publish(connection, _acks(committed.acks.values()))
            await self._publish(
                connection,
                [cycle_message(done.node, done.summary) for done in committed.cycles if done.node],
            )
            if committed.alarms_changed:
                self._alarms_changed.set()

    async def _tell_alarms(self, connection: Connection) -> None:
        """Alarms that this archive, another one or a person changed."""
        while True:
            await first_of(
                self._alarms_changed.wait(), self._clock.sleep(self._limits.alarms_every_s)
            )
            self._alarms_changed.clear()
            before = self._said
            now = await self._patiently(self._read_alarms)
            news = [alarm for number, alarm in now.items() if before.get(number) != alarm]
            await self._publish(connection, _alarms(news))
            self._said = {
                number: alarm for number, alarm in now.items() if alarm.state != AlarmState.NORMAL
            }

    async def _listen_to_nodes(self, connection: Connection) -> None:
        self._keeper.nodes.forget()
        try:
            # Without acknowledgement, so that none comes between those of the batches.
            await connection.subscribe(topics.ALL_NODE_STATES, qos=0)
        except aiomqtt.MqttError as error:
            log.warning("a node that is gone would not be noticed: %s", error)

    async def _keep_alarms(self) -> None:
        while True:
            if not self.connection_status.connected:
                self._keeper.nodes.forget()
            if await self._keeper.turn():
                self._alarms_changed.set()
            await self._clock.sleep(self._limits.alarms_every_s)

    async def _do(self, work: Callable[[Engine], Result]) -> Result:
        return await self._until_done(functools.partial(self._writer.do, work))

    async def _look(self, look: Callable[[Database], Result]) -> Result:
        return await self._patiently(self._read, look)

    async def _is_well(self) -> bool:
        """Whether it commits, and hears what there is to commit: one that is cut off from its
        broker notices nothing, and nobody would notice that."""
        if self.status.problem or not self.connection_status.connected:
            return False
        try:
            return await self._writer.do(can_commit)
        except (ArchiveError, DBAPIError, WriterGoneError):
            return False

    async def _say_what_stands(self, connection: Connection) -> None:
        """What may have been missed while there was no connection; all of it is retained."""

        def look(database: Database) -> tuple[list[SourceAck], list[Message]]:
            cycles = [cycle_message(*cycle) for cycle in latest_cycles(database)]
            return all_acks(database), cycles

        acks, cycles = await self._patiently(self._read, look)
        await self._publish(connection, _acks(acks))
        await self._publish(connection, cycles)
        now = await self._patiently(self._read_alarms)
        await self._publish(connection, _alarms(now.values()))
        self._said = now

    def _read(self, look: Callable[[Database], Result]) -> Result:
        with self._reader.begin() as database:
            return look(database)

    def _read_alarms(self) -> dict[int, AlarmRow]:
        """The alarms that stand, and those that stood when they were last told of. Tells the log
        of those that changed."""

        def look(database: Database) -> dict[int, AlarmRow]:
            found = {one.alarm_number: one for one in read_alarms(database, standing=True)}
            for number in self._said.keys() - found.keys():
                for alarm in read_alarms(database, alarm_number=number):
                    found[number] = alarm
            return found

        now = self._read(look)
        for number, alarm in now.items():
            if self._said.get(number) != alarm:
                log.log(
                    logging.WARNING if alarm.active else logging.INFO,
                    "alarm %d, %s of %s%s, is %s: %s",
                    number,
                    alarm.name,
                    alarm.about,
                    f" in run {alarm.run_id}" if alarm.cell else "",
                    alarm.state.value,
                    alarm.message,
                )
        return now

    async def _publish(self, connection: Connection, messages: Iterable[Message]) -> None:
        for topic, payload in messages:
            await connection.publish(topic, payload, retain=True)

    async def _patiently(
        self, work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs
    ) -> Result:
        """Do ``work`` in the worker thread, again and again while the database is away."""
        call = functools.partial(work, *given, **named)
        return await self._until_done(lambda: self._in_worker(call))

    async def _until_done(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Await ``work``, again and again while the database is away."""
        backoff = Backoff(first_s=0.1, most_s=10.0)
        while True:
            try:
                result = await work()
            except WriterGoneError as error:
                self.status.problem = str(error)
                log.warning("%s (it is started again; nothing is lost)", error)
                await self._clock.sleep(backoff.next_s())
            except (ArchiveError, DBAPIError) as error:
                cause = error if isinstance(error, DBAPIError) else error.__cause__
                if not isinstance(cause, OperationalError | InterfaceError):
                    if isinstance(error, ArchiveError):
                        raise
                    raise ArchiveError(f"the archive cannot be written: {error.orig}") from error
                problem = f"the archive's database is away: {cause.orig}"
                if not self.status.problem:
                    log.warning("%s (trying again; nothing is lost)", problem)
                self.status.problem = problem
                await self._clock.sleep(backoff.next_s())
            else:
                if self.status.problem:
                    log.info("the archive's database is back")
                self.status.problem = ""
                return result

    async def _in_worker(self, work: Callable[[], Result]) -> Result:
        future = asyncio.get_running_loop().run_in_executor(self._worker, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()
            raise

    def _state(self, presence: Presence) -> bytes:
        return topics.encode(
            ArchiveState(
                archive=self._name,
                state=presence,
                unix_time_s=self._clock.unix_time_s(),
                labctl_version=labctl.__version__,
            )
        )


def _acks(acks: Iterable[SourceAck]) -> list[Message]:
    return [ack_message(each.node, each.ack) for each in acks if each.node]


def _alarms(alarms: Iterable[AlarmRow]) -> list[Message]:
    return [alarm_message(alarm) for alarm in alarms if alarm.node]


def _node_of(topic: str) -> str:
    try:
        return topics.node_of(topic)
    except StreamError:
        return ""
