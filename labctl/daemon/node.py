"""A node at work: its instruments, its runs, its publisher. Nothing else touches an instrument."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field

from labctl.clock import Clock, RealClock, clock_from_speed
from labctl.drivers import build_driver
from labctl.drivers.base import Identity, Sequencer
from labctl.engine.journal import Entry, Journal
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.runner import Pace, Runner
from labctl.errors import CommandError, InstrumentError, LabctlError, LinkError
from labctl.model import Cell, Records
from labctl.settings import Settings
from labctl.stream.events import InstrumentSeen
from labctl.stream.publisher import Publisher
from labctl.stream.topics import ChannelLatest, check_name, encode, latest_topic

log = logging.getLogger("labctl.daemon")

_LIVE_INTERVAL_S = 0.5


@dataclass(slots=True)
class Instrument:
    """A configured instrument; ``ready`` once it has been identified."""

    name: str
    kind: str
    driver: Sequencer
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
        self.run_count = len(runs)
        self._wall = RealClock()
        self._group: asyncio.TaskGroup | None = None
        self._live_s: dict[str, float] = {}
        for name, options in settings.instruments.items():
            check_name(name, "instrument")
            self.instruments[name] = self._instrument(name, options)
        self.publisher = Publisher(settings.mqtt, settings.node.name, journal, clock=self._wall)
        for charter, checkpoint in runs:
            self._adopt(charter, checkpoint)

    async def work(self) -> None:
        """Open the instruments, let the runs go on, publish the journal, until cancelled.

        The runs are then left to their instruments, and resumable.

        Raises:
            JournalError: the journal cannot be read.
            ConfigError: the broker's password or certificates cannot be read.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self.publisher.run(), name="publisher")
                for instrument in self.instruments.values():
                    group.create_task(self._keep_open(instrument), name=f"open {instrument.name}")
                for runner in self.runners.values():
                    if not runner.checkpoint.state.ended:
                        self._watch(group, runner)
        except* LabctlError as failed:
            error: BaseException = failed
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    def begin(self, charter: Charter, checkpoint: Checkpoint) -> None:
        """Take up a run that has just been journalled."""
        self.run_count += 1
        self._adopt(charter, checkpoint)
        if self._group is not None:
            self._watch(self._group, self.runners[charter.run])

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
        """Let go of every instrument; changes no output."""
        for instrument in self.instruments.values():
            await instrument.driver.close()

    def _instrument(self, name: str, options: dict[str, object]) -> Instrument:
        kind = str(options["driver"])
        own = {
            key: str(self.settings.base / str(value)) if key.endswith("_dir") else value
            for key, value in options.items()
            if key != "driver"
        }
        return Instrument(name, kind, build_driver(kind, own, name=name, clock=self._wall))

    async def _keep_open(self, instrument: Instrument) -> None:
        identity, channels = await self._identify(instrument)
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

    async def _identify(self, instrument: Instrument) -> tuple[Identity, tuple[str, ...]]:
        """Ask until the instrument answers."""
        retry_s = 0.2
        while True:
            try:
                return await instrument.driver.open(), await instrument.driver.channels()
            except (LinkError, InstrumentError) as error:
                if str(error) != instrument.problem:
                    log.warning("instrument %s: %s; trying again", instrument.name, error)
                instrument.problem = str(error)
            await self._wall.sleep(retry_s)
            retry_s = min(2 * retry_s, 10.0)

    def _adopt(self, charter: Charter, checkpoint: Checkpoint) -> None:
        instrument = self.instruments.get(charter.instrument)
        if instrument is None:
            if not checkpoint.state.ended:
                log.error(
                    "run %s is %s on instrument %r, which is not in the configuration: "
                    "it is not watched",
                    charter.run,
                    checkpoint.state,
                    charter.instrument,
                )
            return
        self.runners[charter.run] = Runner(
            charter,
            checkpoint,
            instrument.driver,
            self.journal,
            self.clock,
            pace=Pace(poll_s=self.settings.node.poll_s),
            viewer=self._show,
            wall=self._wall,
        )

    def _watch(self, group: asyncio.TaskGroup, runner: Runner) -> None:
        run = runner.charter.run
        ready = self.instruments[runner.charter.instrument].ready

        async def watch() -> None:
            await ready.wait()
            try:
                await runner.run()
            except Exception:
                runner.link_error = "an internal error ended the watch over this run; see the log"
                log.exception("run %s is no longer watched: restart the daemon to go on", run)

        group.create_task(watch(), name=f"run {run}")

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
