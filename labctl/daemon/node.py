"""A node at work: its instruments, its runs, its publisher. Nothing else touches an instrument.

Each of them stands for itself: what goes wrong in one is said in the status and tried again, and
the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from labctl.clock import Clock, RealClock, clock_from_speed
from labctl.drivers import build_driver
from labctl.drivers.base import Identity, Sequencer
from labctl.engine.journal import Entry, Journal
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.runner import Pace, Runner
from labctl.errors import CommandError, JournalError, LabctlError
from labctl.model import Cell, Records
from labctl.settings import Settings
from labctl.stream.events import InstrumentSeen
from labctl.stream.publisher import Publisher
from labctl.stream.topics import ChannelLatest, check_name, encode, latest_topic

log = logging.getLogger("labctl.daemon")

_LIVE_INTERVAL_S = 0.5
_LONGEST_RETRY_S = 10.0
_CLOSE_S = 3.0


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
        self.stream_problem = ""
        self._last_run = _highest_number([*(c.run for c, _ in runs), *journal.damaged])
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
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._publish(), name="publisher")
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

    def _instrument(self, name: str, options: dict[str, object]) -> Instrument:
        kind = str(options["driver"])
        own = {
            key: str(self.settings.base / str(value)) if key.endswith("_dir") else value
            for key, value in options.items()
            if key != "driver"
        }
        return Instrument(name, kind, build_driver(kind, own, name=name, clock=self._wall))

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
                return
            await self._wall.sleep(retry_s)
            retry_s = min(2 * retry_s, _LONGEST_RETRY_S)

    async def _identify(self, instrument: Instrument) -> None:
        identity = await instrument.driver.open()
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
        self.runners[charter.run] = Runner(
            charter,
            checkpoint,
            None if instrument is None else instrument.driver,
            self.journal,
            self.clock,
            pace=Pace(poll_s=self.settings.node.poll_s),
            viewer=self._show,
            wall=self._wall,
        )

    async def _watch(self, runner: Runner) -> None:
        run = runner.charter.run
        instrument = self.instruments.get(runner.charter.instrument)
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
