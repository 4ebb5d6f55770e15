"""A rack of Neware BTS 8 channels on a TCP port.

Time: in virtual time each channel has a clock of its own, which a running test moves on. Otherwise
the rack has one clock, which goes on while the rack's process is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from labctl.clock import Clock, RealClock
from labctl.errors import ConfigError, Problem
from labctl.simulators.cells.interface import SimulatedCell
from labctl.simulators.faults import FaultBoard
from labctl.simulators.neware_bts.channel import Channel
from labctl.simulators.neware_bts.commands import HANDLERS, Bench, channels_in
from labctl.simulators.neware_bts.config import (
    CellInChannel,
    RackConfig,
    changed,
    read_rack_config,
)
from labctl.simulators.neware_bts.instrument import Instrument
from labctl.simulators.neware_bts.openlead import OpenLead
from labctl.simulators.neware_bts.persist import VERSION, RackRecord, StateDirectory
from labctl.simulators.neware_bts.wire import (
    MAX_REQUEST_BYTES,
    SEPARATOR,
    TERMINATOR,
    Request,
    WireError,
    parse_request,
)
from labctl.simulators.server import After, Answer, Socket, follow_faults, serve_frames

__all__ = [
    "CellInChannel",
    "CellMaker",
    "Rack",
    "RackConfig",
    "changed",
    "read_rack_config",
    "serve_rack",
]

logger = logging.getLogger(__name__)

FAULTS_FILE = "faults.json"
WORKERS = 4

CellMaker = Callable[[], SimulatedCell]
"""Makes the same new cell every time."""


class Rack:
    """A rack that listens; :func:`serve_rack` gives one."""

    def __init__(self, config: RackConfig, clock: Clock, bench: Bench) -> None:
        self.host = config.host
        self.port = config.port
        self.bench = bench
        self._config = config
        self._clock = clock
        self._chance = random.Random(config.seed)  # noqa: S311
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="rack")
        self._reading_ahead: set[Channel] = set()
        self._closed = False
        self._socket: Socket | None = None

    @property
    def faults(self) -> FaultBoard:
        return self.bench.faults

    async def answer(self, frame: bytes) -> Answer:
        """What the rack says to one request, late and wrong where a fault is in force."""
        try:
            request = parse_request(frame)
        except WireError as error:
            logger.warning("a connection is closed: %s", error)
            return Answer(after=After.CLOSE)
        handler = HANDLERS.get(request.command)
        if handler is None:
            logger.warning("a connection is closed: no command %r", request.command[:80])
            return Answer(after=After.CLOSE)
        self.faults.refresh()
        take = partial(
            self.faults.take,
            command=request.command,
            channels=channels_in(self.bench, request),
        )
        if take("drop_unheard"):
            return Answer(after=After.CLOSE)
        data = await asyncio.get_running_loop().run_in_executor(
            self._workers, handler, self.bench, request
        )
        if request.command == "download":
            self._read_ahead(request)
        await self._dawdle(
            sum(fault.delay_s for name in ("slow", "stall") if (fault := take(name)))
        )
        if take("hang"):
            return Answer(after=After.IGNORE)
        if take("drop"):
            return Answer(after=After.CLOSE)
        if take("truncate"):
            return Answer(data[: len(data) // 2], After.CLOSE)
        if take("garbage"):
            return Answer(self._chance.randbytes(64) + TERMINATOR)
        return Answer(data)

    def _read_ahead(self, request: Request) -> None:
        """Let the channel that was read from go on while its answer is on its way."""
        for item in request.all("download")[:1]:
            channel = self.bench.channels.get((item.number("subdevid"), item.number("chlid")))
            if channel is not None and channel not in self._reading_ahead:
                self._reading_ahead.add(channel)
                asyncio.get_running_loop().call_soon(self._begin_to_read_ahead, channel)

    def _begin_to_read_ahead(self, channel: Channel) -> None:
        if not self._closed:
            self._workers.submit(self._read_ahead_on, channel)

    def _read_ahead_on(self, channel: Channel) -> None:
        try:
            channel.read_ahead()
        except Exception:
            logger.exception("channel %s cannot be read ahead", channel.name)
        finally:
            self._reading_ahead.discard(channel)

    async def _dawdle(self, delay_s: float) -> None:
        delay_s += self._config.response_delay_s
        if self._config.stall_probability > self._chance.random():
            delay_s += self._config.stall_s
        if delay_s > 0:
            await self._clock.sleep(delay_s)

    async def unplug(self) -> None:
        """Pull its network cable: the channels work on, and nobody can connect until :meth:`plug`.

        In virtual time they stand still, as nobody reads.
        """
        if self._socket is not None:
            await self._socket.unplug()

    async def plug(self) -> None:
        """Put the cable back.

        Raises:
            OSError: the address cannot be listened on.
        """
        if self._socket is not None:
            await self._socket.plug()

    async def power_cut(self) -> None:
        """Switch it off and on: tests that ran are stopped where they were, every output open.

        What a real rack does then is a setting of its own; this is assumed to be the safe one.
        """
        plugged = self._socket is not None and self._socket.plugged
        await self.unplug()
        await asyncio.gather(
            *(asyncio.to_thread(channel.stop) for channel in self.bench.channels.values())
        )
        if plugged:
            await self.plug()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Be there for clients, and obey the faults that pull a plug."""
        async with serve_frames(
            self.answer,
            host=self._config.host,
            port=self._config.port,
            separator=SEPARATOR,
            max_frame_bytes=MAX_REQUEST_BYTES,
        ) as self._socket:
            self.port = self._socket.port
            obeying = asyncio.create_task(follow_faults(self.faults, self), name="faults")
            try:
                yield
            finally:
                obeying.cancel()
                await asyncio.gather(obeying, return_exceptions=True)

    async def close(self) -> None:
        """Wait for what is being computed, and let the files go."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(
            None, partial(self._workers.shutdown, cancel_futures=True)
        )
        for channel in self.bench.channels.values():
            channel.close()


@contextlib.asynccontextmanager
async def serve_rack(
    config: RackConfig,
    clock: Clock | None = None,
    *,
    cells: Mapping[str, CellMaker] | None = None,
) -> AsyncIterator[Rack]:
    """A rack that serves until the block is left; its ``port`` is the true one.

    ``clock`` is the rack's time unless ``config.speed`` is ``virtual``; None makes one of the
    config's speed. ``cells`` are put into channels in place of those of the config.

    Raises:
        ConfigError: the state directory belongs to another rack or process, or a cell of the config
            cannot be built.
        OSError: the address cannot be listened on.
    """
    clock = config.clock() if clock is None else clock
    state = StateDirectory(Path(config.state_dir) if config.state_dir else None)
    with contextlib.closing(state):
        build = partial(_bench, config, clock, state, cells or {})
        rack = Rack(config, clock, await asyncio.to_thread(build))
        try:
            async with rack.listening():
                yield rack
        finally:
            await rack.close()


def _bench(
    config: RackConfig, clock: Clock, state: StateDirectory, cells: Mapping[str, CellMaker]
) -> Bench:
    epoch_unix_s, now_unix_s = _rack_time(config, clock, state)
    makers = _cell_makers(config) | {name: (name, maker) for name, maker in cells.items()}
    channels: dict[tuple[int, int], Channel] = {}
    for name in config.channel_names():
        unit, number = (int(part) for part in name.split("-"))
        key, maker = makers.get(name, ("", OpenLead))
        channels[unit, number] = Channel(
            name,
            Instrument.of(config.seed, unit, number),
            maker,
            key,
            state.channel(name),
            epoch_unix_s=epoch_unix_s,
            now_unix_s=None if config.is_virtual else now_unix_s,
            assemble=_assembler(config, name, channels),
        )
    faults_file = None if state.directory is None else state.directory / FAULTS_FILE
    return Bench(
        ip=config.ip,
        devtype=config.devtype,
        devid=config.devid,
        username=config.username,
        password=config.password,
        answers_subdevid_1=config.answers_subdevid_1,
        channels=channels,
        faults=FaultBoard(config.faults, faults_file),
    )


def _assembler(
    config: RackConfig, name: str, channels: Mapping[tuple[int, int], Channel]
) -> CellMaker | None:
    """How the full cell of a channel is built out of another channel's half cell, if it is."""
    seated = next((each for each in config.cells if each.channel == name), None)
    if seated is None or not seated.anode_from:
        return None
    unit, number = (int(part) for part in seated.anode_from.split("-"))
    spec, anode = seated.spec, seated.spec.anode

    def assemble() -> SimulatedCell:
        from labctl.simulators.cells import build_cell
        from labctl.simulators.cells.cell import ModelCell

        half_cell = channels[unit, number].taken_apart()
        if anode is None or not isinstance(half_cell, ModelCell):
            return build_cell(spec)
        carbon = half_cell.inventory().positive
        per_g = 1e3 / anode.active_mass_g
        sodiated = msgspec.structs.replace(
            anode,
            sodium_mAh_per_g=(carbon.sodium_Ah + carbon.plated_Ah) * per_g,
            film_mAh_per_g=carbon.film_Ah * per_g,
        )
        return build_cell(msgspec.structs.replace(spec, anode=sodiated))

    return assemble


def _rack_time(
    config: RackConfig, clock: Clock, state: StateDirectory
) -> tuple[float, Callable[[], float]]:
    """The rack's epoch and its clock, which counts from the epoch across restarts."""
    hastened = clock.speed if isinstance(clock, RealClock) else 1.0
    wall_unix_s = time.time() if isinstance(clock, RealClock) else clock.unix_time_s()
    record = state.read_rack()
    if record is None:
        epoch = wall_unix_s if config.epoch_unix_s is None else config.epoch_unix_s
        record = RackRecord(VERSION, config.seed, epoch, wall_unix_s)
        state.write_rack(record)
    if record.seed != config.seed:
        raise ConfigError(
            [
                Problem(
                    f"seed: the state directory {state.directory} belongs to a rack with seed "
                    f"{record.seed}, not {config.seed}; its readings would not go on",
                    suggestion="use another state directory, or the former seed",
                )
            ]
        )
    already_s = max(0.0, wall_unix_s - record.wall_unix_s) * hastened
    began_s = clock.monotonic_s()
    epoch_unix_s = record.epoch_unix_s
    return epoch_unix_s, lambda: epoch_unix_s + already_s + clock.monotonic_s() - began_s


def _cell_makers(config: RackConfig) -> dict[str, tuple[str, CellMaker]]:
    """For each channel with a cell: what identifies the cell, and how to make it."""
    if not config.cells:
        return {}
    from labctl.simulators.cells import build_cell
    from labctl.simulators.neware_bts.rowtext import warm

    warm()
    makers: dict[str, tuple[str, CellMaker]] = {}
    for place, item in enumerate(config.cells):
        try:
            build_cell(item.spec)
        except ValueError as error:
            raise ConfigError([Problem(f"cells[{place}].spec: {error}")]) from error
        key = msgspec.json.encode(item.spec, order="sorted").decode()
        makers[item.channel] = (key, partial(build_cell, item.spec))
    return makers
