"""A node at work: its instruments, its runs, its publisher. Nothing else touches an instrument.

Each of them stands for itself: what goes wrong in one is said in the status and tried again, and
the others go on.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from labctl.clock import Clock, RealClock, VirtualClock, clock_from_speed, first_of
from labctl.daemon.configured import drivers_own, is_chamber, runs_recipes
from labctl.daemon.host import Host
from labctl.daemon.owned import Owned
from labctl.daemon.turns import Waiting, waits_for
from labctl.daemon.watchman import Watchman
from labctl.drivers import build_driver, checked_options
from labctl.drivers.base import Chamber, Driver, Identity, Sequencer, Source
from labctl.engine.fitting import refusals_of
from labctl.engine.hostwork import CONFIRM
from labctl.engine.journal import Entry, Journal
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.runner import Pace, Runner
from labctl.engine.states import RunState
from labctl.errors import CommandError, JournalError, LabctlError
from labctl.model import Cell, Records
from labctl.program import Program
from labctl.settings import Settings
from labctl.stream.events import CommandTaken, Event, InstrumentSeen
from labctl.stream.publisher import Publisher
from labctl.stream.topics import ChannelLatest, Signal, check_name, encode, latest_topic
from labctl.wire.ownership import lock_folder
from labctl.wire.timelink import SteppedClock

log = logging.getLogger("labctl.daemon")

_LIVE_INTERVAL_S = 0.5
_LONGEST_RETRY_S = 10.0
_CLOSE_S = 3.0
_LONGEST_NAP_S = 60.0
MQTT_ACTOR = "mqtt"


@dataclass(slots=True)
class Instrument:
    """A configured instrument; ``ready`` once it has been identified.

    clock: what its runs wait on. chamber: name of the chamber that its cells are in, '' if none.
    owned: what keeps other daemons off it.
    """

    name: str
    kind: str
    driver: Driver
    clock: Clock
    owned: Owned
    chamber: str = ""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    identity: Identity | None = None
    channels: tuple[str, ...] = ()
    problem: str = "not connected yet"


class Node:
    """Made by :func:`labctl.daemon.open_node`; at work in :meth:`work`."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        cells: dict[str, Cell],
        runs: list[tuple[Charter, Checkpoint]],
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.clock: Clock = clock_from_speed(settings.node.speed)
        self.cells = cells
        self.instruments: dict[str, Instrument] = {}
        self.runners: dict[str, Runner] = {}
        self.stream_problem = ""
        self._last_run = _highest_number([*(c.run for c, _ in runs), *journal.damaged])
        self._wall = RealClock()
        self._group: asyncio.TaskGroup | None = None
        self._live_s: dict[str, float] = {}
        self._turn = asyncio.Event()
        self._released: set[str] = set()
        for name, options in settings.instruments.items():
            check_name(name, "instrument")
            self.instruments[name] = self._instrument(name, options)
        self.publisher = Publisher(
            settings.mqtt, settings.node.name, journal, clock=self._wall, on_signal=self._hear
        )
        for charter, checkpoint in runs:
            self._adopt(charter, checkpoint)

    async def work(self) -> None:
        """Open the instruments, let the runs go on, publish the journal, until cancelled.

        The runs are then left to their instruments, and resumable.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._publish(), name="publisher")
            group.create_task(Watchman(self, self._wall).work(), name="watch")
            for instrument in self.instruments.values():
                group.create_task(self._keep_open(instrument), name=f"open {instrument.name}")
            for runner in self.runners.values():
                if not runner.checkpoint.state.ended:
                    group.create_task(self._watch(runner), name=f"run {runner.charter.run}")

    def next_run(self) -> str:
        """The name of the run that is made next."""
        return f"{self.journal.source}-{self._last_run + 1:05d}"

    def begin(self, charter: Charter, checkpoint: Checkpoint) -> None:
        """Take up a run that has just been journalled."""
        self._last_run += 1
        self._adopt(charter, checkpoint)
        if self._group is not None:
            self._group.create_task(self._watch(self.runners[charter.run]), name=charter.run)

    def runner(self, run: str) -> Runner:
        """The run of that name.

        Raises:
            CommandError: there is none.
        """
        try:
            return self.runners[run]
        except KeyError:
            raise CommandError(f"no run {run!r} on this node") from None

    async def close(self) -> None:
        """Let go of every instrument; changes no output. A link that hangs is left to hang."""
        await asyncio.gather(*(_let_go(instrument) for instrument in self.instruments.values()))
        for instrument in self.instruments.values():
            instrument.owned.let_go()
            if isinstance(instrument.clock, SteppedClock):
                await instrument.clock.close()

    def waiting(self, runner: Runner) -> Waiting | None:
        """Why a run that was made has not begun; None if it has, or if it is its turn."""
        if runner.checkpoint.state is not RunState.CREATED:
            return None
        before = itertools.takewhile(lambda other: other is not runner, self.runners.values())
        return waits_for(
            runner.charter,
            [(other.charter, other.checkpoint) for other in before],
            self.clock.unix_time_s(),
            self._released,
        )

    async def signal(
        self,
        name: str,
        actor: str,
        *,
        run: str,
        command: Callable[[tuple[str, ...]], tuple[str, bytes]],
        note: Event,
    ) -> tuple[str, ...]:
        """Tell a run, or with ``run`` '' every run that goes on, that something outside happened.

        Returns who heard it. ``command`` gives what is kept of the command, for those who hear it.

        Raises:
            CommandError: the run that is named cannot hear it now.
            JournalError: it could not be kept.
        """
        if run:
            hearing = [self.runner(run)]
        else:
            hearing = [each for each in self.runners.values() if each.hears]
        names = tuple(each.charter.run for each in hearing)
        if not hearing:
            await self.journal.commit(Entry(events=(note,), command=command(names)))
        for place, runner in enumerate(hearing):
            if place == 0:
                await runner.signal(name, actor, command(names), note)
            else:
                await runner.signal(name, actor)
        return names

    async def _hear(self, name: str, signal: Signal) -> None:
        """A signal over MQTT: kept like one that was typed, by whoever the broker let in.

        What an operator is asked to confirm, no message on MQTT confirms.
        """
        if name == CONFIRM:
            log.warning("a confirmation over MQTT is not taken: 'labctl run confirm' gives one")
            return
        actor = f"{MQTT_ACTOR} {signal.actor}".strip()
        note = CommandTaken(
            command=f"mqtt-{uuid.uuid4().hex}",
            verb="send signal",
            actor=actor,
            detail=f"{name} {signal.run}".strip(),
            outcome="done",
            unix_time_s=self.clock.unix_time_s(),
        )
        try:
            await self.signal(
                name, actor, run=signal.run, command=lambda _: (note.command, b"{}"), note=note
            )
        except LabctlError as error:
            log.warning("signal %r over MQTT is not taken: %s", name, error)

    def refusals(self, instrument: Instrument, program: Program) -> tuple[str, ...]:
        """Why a program cannot be run on an instrument, one sentence each; empty if it can."""
        if not runs_recipes(instrument.driver):
            return ("it runs no recipes: it is a chamber",)
        return refusals_of(program, instrument.driver, chamber=bool(instrument.chamber))

    def let_begin(self, run: str) -> None:
        """A person lets a run begin although the one that it was queued behind did not end well."""
        self._released.add(run)
        self.next_please()

    def next_please(self) -> None:
        """Something ended or was decided: whoever waits for a channel looks again."""
        self._turn.set()
        self._turn = asyncio.Event()

    def chamber_of(self, instrument: str) -> Chamber | None:
        """The chamber that an instrument's cells are in, None if there is none that answers."""
        found = self.instruments.get(instrument)
        chamber = self.instruments.get(found.chamber) if found and found.chamber else None
        if chamber is None or not chamber.ready.is_set():
            return None
        return chamber.driver if is_chamber(chamber.driver) else None

    def _instrument(self, name: str, options: dict[str, object]) -> Instrument:
        kind = str(options["driver"])
        own = drivers_own(self.settings, options)
        clock = self.clock
        if time_port := options.get("time"):
            host, _, port = str(time_port).rpartition(":")
            clock = SteppedClock(host, int(port))
        driver = build_driver(kind, own, name=name, clock=self._wall)
        owned = Owned(
            checked_options(kind, own, name=name),
            lock_folder(self.settings.lock_dir),
            who=f"labctl node {self.settings.node.name}, instrument {name}",
        )
        return Instrument(name, kind, driver, clock, owned, str(options.get("chamber", "")))

    async def _keep_open(self, instrument: Instrument) -> None:
        """Ask until the instrument answers, and journal what it is."""
        retry_s = 0.2
        while not instrument.ready.is_set():
            try:
                await self._identify(instrument)
            except LabctlError as error:
                if str(error) != instrument.problem:
                    log.warning("instrument %s: %s; trying again", instrument.name, error)
                instrument.problem = str(error)
            except Exception as error:
                instrument.problem = f"an internal error, see the log: {error!r}"
                log.exception("instrument %s cannot be opened; trying again", instrument.name)
            else:
                break
            await self._wall.sleep(retry_s)
            retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
        await instrument.owned.follow(instrument.name, self._wall)

    async def _identify(self, instrument: Instrument) -> None:
        """Nothing is sent before it is certain that no other daemon has what is at that place; it
        is let go again where it is not the right one, or another daemon's under another address."""
        async with instrument.owned.kept_if_well():
            try:
                await self._greet(instrument)
            finally:
                if not instrument.ready.is_set():
                    await _let_go(instrument)

    async def _greet(self, instrument: Instrument) -> None:
        identity = await instrument.driver.open()
        instrument.owned.take_number(identity)
        channels: tuple[str, ...] = ()
        if runs_recipes(instrument.driver):
            channels = await instrument.driver.channels()
        seen = InstrumentSeen(
            instrument=instrument.name,
            driver=instrument.kind,
            manufacturer=identity.manufacturer,
            model=identity.model,
            serial=identity.serial,
            channels=channels,
            unix_time_s=self.clock.unix_time_s(),
        )
        await self.journal.commit(Entry(events=(seen,)))
        instrument.identity, instrument.channels, instrument.problem = identity, channels, ""
        instrument.ready.set()
        log.info(
            "instrument %s is %s %s, serial %s, %d channels",
            instrument.name,
            identity.manufacturer,
            identity.model,
            identity.serial,
            len(channels),
        )

    async def _publish(self) -> None:
        """Publish the journal; whatever hinders that is said, and hinders nothing else."""
        while True:
            self.stream_problem = ""
            try:
                await self.publisher.run()
            except LabctlError as error:
                self.stream_problem = f"nothing is sent to the archive: {error}"
            except Exception as error:
                self.stream_problem = f"nothing is sent to the archive: internal error {error!r}"
                log.exception("the publisher failed")
            log.error("%s; trying again in %.0f s", self.stream_problem, _LONGEST_RETRY_S)
            await self._wall.sleep(_LONGEST_RETRY_S)

    def _adopt(self, charter: Charter, checkpoint: Checkpoint) -> None:
        instrument = self.instruments.get(charter.instrument)
        driver: Sequencer | Source | None = None
        if instrument is not None and runs_recipes(instrument.driver):
            driver = instrument.driver
        self.runners[charter.run] = Runner(
            charter,
            checkpoint,
            driver,
            self.journal,
            self.clock if instrument is None else instrument.clock,
            pace=Pace(
                poll_s=self.settings.node.poll_s,
                outside_in_real_time=isinstance(self.clock, VirtualClock),
            ),
            viewer=self._show,
            wall=self._wall,
            host=Host(self, charter.instrument),
        )

    async def _watch(self, runner: Runner) -> None:
        run = runner.charter.run
        instrument = self.instruments.get(runner.charter.instrument)
        await self._its_turn(runner)
        if instrument is not None:
            await instrument.ready.wait()
        while not runner.checkpoint.state.ended:
            try:
                await runner.run()
            except Exception as error:
                log.exception("run %s: an internal error", run)
                try:
                    await runner.hold(f"an internal error, see the daemon's log: {error!r}")
                except JournalError as failed:
                    runner.link_error = str(failed)
                await self._wall.sleep(1.0)
        self.next_please()

    async def _its_turn(self, runner: Runner) -> None:
        while waiting := self.waiting(runner):
            turn = self._turn
            if math.isinf(waiting.for_s):
                await turn.wait()
            else:
                await first_of(self.clock.sleep(min(waiting.for_s, _LONGEST_NAP_S)), turn.wait())

    def _show(self, charter: Charter, checkpoint: Checkpoint, records: Records) -> None:
        """Publish the latest reading of a channel, at most twice a second."""
        now_s = self._wall.monotonic_s()
        due_s = self._live_s.get(charter.run, -math.inf) + _LIVE_INTERVAL_S
        if now_s < due_s and not checkpoint.state.ended:
            return
        self._live_s[charter.run] = now_s
        place, step = checkpoint.place, self.runners[charter.run].step
        latest = ChannelLatest(
            instrument=charter.instrument,
            channel=charter.channel,
            run=charter.run,
            state=str(checkpoint.state),
            cell=charter.cell,
            cycle=place.position.cycle,
            step=0 if step is None else step.index + 1,
            label="" if step is None else step.label,
            unix_time_s=float(records.unix_time_s[-1]) if len(records) else 0.0,
            voltage_V=place.voltage_V,
            current_A=place.current_A,
            charge_Ah=place.charge_Ah,
        )
        topic = latest_topic(self.settings.node.name, f"{charter.instrument}.{charter.channel}")
        self.publisher.publish_live(topic, encode(latest))


async def _let_go(instrument: Instrument) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await instrument.driver.close()
    except (TimeoutError, LabctlError, OSError) as error:
        log.warning("instrument %s was not closed: %r", instrument.name, error)


def _highest_number(runs: Iterable[str]) -> int:
    """The highest number at the end of a run's name; 0 without any."""
    ends = (run.rpartition("-")[2] for run in runs)
    return max((int(end) for end in ends if end.isdecimal()), default=0)
