"""One instrument, one cell, one node: a whole laboratory in this process, for benchmarks and tests.

The node is the daemon's, with its journal on the disk; the instrument is simulated, behind a real
socket or pseudo-terminal; the archive takes in what the journal holds, batch by batch, as it would
come over MQTT. Of the cell every voltage that it ever had is seen, not only those that were read.

Time is virtual, or so many times faster than the wall. A SourceMeter is always in virtual time,
which its time port moves on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from labctl.archive import open_archive
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.queries import Archive
from labctl.control import Command, Done, RegisterCell, Request, StartRun
from labctl.daemon import open_node
from labctl.daemon.commands import Commands
from labctl.daemon.node import Node
from labctl.engine.runner import Runner
from labctl.model import Cell
from labctl.protocols.recipe import compile_recipe, file_loader, read_recipe, shipped_recipes
from labctl.settings import load_settings
from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.interface import Control, SimulatedCell, Trace
from labctl.simulators.faults import Fault, write_faults
from labctl.simulators.keithley.config import SmuConfig
from labctl.simulators.keithley.server import SimulatedSmu, serve_smu
from labctl.simulators.neware_bts.config import RackConfig
from labctl.simulators.neware_bts.rack import Rack, serve_rack
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import SimulatedPotentiostat, serve_potentiostat
from labctl.wire.timelink import SteppedClock

EPOCH_UNIX_S = 1_767_603_600.0
MASS_G = 2e-3
ONE_C_A = 0.1 * MASS_G
SPEC = CellSpec(name="HEV-1", material="HE-V", active_mass_g=MASS_G, scatter=0.0)
INSTRUMENT = "instrument"
MOST_BYTES = 4_000_000


@dataclass(slots=True)
class Seen:
    """The widest that a cell's true voltage came to, in V, and how large its current was, in A.

    fast: the same while the magnitude of the current was at least ``fast_A``, or had just been.
    charged_Ah, discharged_Ah: all that ever passed. A rack computes some stretches twice: there
    they are too much.
    """

    fast_A: float = math.inf
    highest_V: float = -math.inf
    lowest_V: float = math.inf
    fast_highest_V: float = -math.inf
    fast_lowest_V: float = math.inf
    most_A: float = 0.0
    was_fast: bool = False
    charged_Ah: float = 0.0
    discharged_Ah: float = 0.0

    def take(self, trace: Trace) -> None:
        """Note what a cell lived through."""
        self.charged_Ah += max(0.0, trace.end_charge_Ah)
        self.discharged_Ah += max(0.0, -trace.end_charge_Ah)
        volts = (*trace.voltage_V.tolist(), trace.end_voltage_V)
        now_A = max(map(abs, (*trace.current_A.tolist(), trace.end_current_A)))
        high_V, low_V = max(volts), min(volts)
        self.most_A = max(self.most_A, now_A)
        self.highest_V, self.lowest_V = max(self.highest_V, high_V), min(self.lowest_V, low_V)
        fast = now_A >= self.fast_A
        if fast or self.was_fast:
            self.fast_highest_V = max(self.fast_highest_V, high_V)
            self.fast_lowest_V = min(self.fast_lowest_V, low_V)
        self.was_fast = fast


class WatchedCell:
    """A cell of which every voltage is seen; everything else is the cell's own."""

    def __init__(self, cell: SimulatedCell, seen: Seen) -> None:
        self._cell = cell
        self._seen = seen

    def advance(
        self,
        control: Control,
        setpoint: float,
        duration_s: float,
        **more: Any,  # noqa: ANN401
    ) -> Trace:
        """See :class:`labctl.simulators.cells.interface.SimulatedCell`."""
        trace = self._cell.advance(control, setpoint, duration_s, **more)
        self._seen.take(trace)
        return trace

    def sweep(self, *given: Any, **more: Any) -> Trace:  # noqa: ANN401
        """See :class:`labctl.simulators.cells.cell.ModelCell`."""
        trace: Trace = self._cell.sweep(*given, **more)  # type: ignore[attr-defined]
        self._seen.take(trace)
        return trace

    def voltage_V(self, current_A: float = 0.0) -> float:
        """See :class:`labctl.simulators.cells.interface.SimulatedCell`."""
        return self._cell.voltage_V(current_A)

    def state(self) -> bytes:
        """See :class:`labctl.simulators.cells.interface.SimulatedCell`."""
        return self._cell.state()

    def restore(self, state: bytes) -> None:
        """See :class:`labctl.simulators.cells.interface.SimulatedCell`."""
        self._cell.restore(state)

    def impedance(self, frequency_Hz: Any) -> Any:  # noqa: ANN401
        """See :class:`labctl.simulators.cells.cell.ModelCell`."""
        return self._cell.impedance(frequency_Hz)  # type: ignore[attr-defined]


class Stand(Protocol):
    """A simulated instrument with one cell, and what can be done to it."""

    seen: Seen
    channel: str

    def options(self) -> dict[str, str | float]:
        """Its table in labctl.toml."""
        ...

    @property
    def output_on(self) -> bool: ...

    async def unplug(self) -> None: ...

    async def plug(self) -> None: ...

    async def power_cut(self) -> None:
        """Lose what it does and what it was set to; call it while it is unplugged."""
        ...

    async def become_another(self) -> None:
        """Be replaced by another of the same model; call it while it is unplugged."""
        ...

    async def become_itself(self) -> None:
        """Be put back."""
        ...


Maker = Callable[[Path, str, Seen], contextlib.AbstractAsyncContextManager[Stand]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of instrument: its name in tables, how it is made, and its table's other options."""

    name: str
    make: Maker
    options: dict[str, str | float] = field(default_factory=dict)
    virtual_only: bool = False


@dataclass
class SmuStand:
    """A Keithley SourceMeter at a TCP port."""

    smu: SimulatedSmu
    model: str
    folder: Path
    seen: Seen
    channel: str = "1"

    def options(self) -> dict[str, str | float]:
        return {
            "driver": "keithley",
            "resource": f"TCPIP::127.0.0.1::{self.smu.port}::SOCKET",
            "model": self.model,
            "time": f"127.0.0.1:{self.smu.time_port}",
        }

    @property
    def output_on(self) -> bool:
        return self.smu.smu.output.on

    async def unplug(self) -> None:
        await self.smu.unplug()

    async def plug(self) -> None:
        await self.smu.plug()

    async def power_cut(self) -> None:
        await self.smu.power_cut()

    async def become_another(self) -> None:
        write_faults(self.folder / "faults.json", [Fault("wrong_serial")])

    async def become_itself(self) -> None:
        write_faults(self.folder / "faults.json", [])


@dataclass
class RackStand:
    """A Neware rack at a TCP port, with the cell in its first channel."""

    rack: Rack
    folder: Path
    speed: str
    seen: Seen
    stack: contextlib.AsyncExitStack
    channel: str = "21-1-1"
    other: Rack | None = None

    def options(self) -> dict[str, str | float]:
        return {
            "driver": "neware_bts",
            "host": "127.0.0.1",
            "port": self.rack.port,
            "step_file_dir": str(self.folder),
        }

    @property
    def output_on(self) -> bool:
        return self.rack.bench.channels[1, 1].condition().value == "working"

    def records(self) -> int:
        """How many records the last test has."""
        _, count, _ = self.rack.bench.channels[1, 1].extent()
        return count

    async def unplug(self) -> None:
        await (self.rack if self.other is None else self.other).unplug()

    async def plug(self) -> None:
        await (self.rack if self.other is None else self.other).plug()

    async def power_cut(self) -> None:
        await self.rack.power_cut()

    async def become_another(self) -> None:
        """Another rack with the same name, on which a test of the same number runs."""
        config = _rack_config(self.speed, self.rack.port, "", seed=99)
        cells = {"1-1": lambda: build_cell(SPEC)}
        self.other = await self.stack.enter_async_context(serve_rack(config, cells=cells))
        file = await asyncio.to_thread(_newest, self.folder)
        await asyncio.to_thread(self.other.bench.channels[1, 1].start, file, "another-00001")

    async def become_itself(self) -> None:
        if self.other is not None:
            await self.other.unplug()
            self.other = None
        await self.rack.plug()


@dataclass
class PotentiostatStand:
    """A PalmSens instrument at a pseudo-terminal; its name stays when its number changes."""

    instrument: SimulatedPotentiostat
    model: str
    folder: Path
    seen: Seen
    channel: str = "1"
    taken: list[int] = field(default_factory=list)

    def options(self) -> dict[str, str | float]:
        return {
            "driver": "palmsens",
            "port": self.instrument.address,
            "model": self.model,
            "slowest_sample_s": 5.0,
        }

    @property
    def output_on(self) -> bool:
        return self.instrument.device.on

    async def unplug(self) -> None:
        self.instrument.unplug()

    async def plug(self) -> None:
        self.instrument.plug()

    def take_its_number(self) -> None:
        """Let it come back as another terminal than it was."""
        self.taken += os.openpty()

    async def power_cut(self) -> None:
        self.instrument.power_cut()

    async def become_another(self) -> None:
        write_faults(self.folder / "faults.json", [Fault("wrong_serial")])

    async def become_itself(self) -> None:
        write_faults(self.folder / "faults.json", [])


@contextlib.asynccontextmanager
async def _smu(model: str, folder: Path, speed: str, seen: Seen) -> AsyncIterator[Stand]:
    del speed
    config = SmuConfig(
        port=0,
        time_port=0,
        model=model,
        speed="virtual",
        state_dir=str(folder),
        epoch_unix_s=EPOCH_UNIX_S,
        off_state="HIMP",
    )
    async with serve_smu(config, cell=WatchedCell(build_cell(SPEC), seen)) as smu:
        yield SmuStand(smu, model, folder, seen)


@contextlib.asynccontextmanager
async def _rack(folder: Path, speed: str, seen: Seen) -> AsyncIterator[Stand]:
    config = _rack_config(speed, 0, str(folder / "state"), seed=7)

    def cell() -> SimulatedCell:
        return WatchedCell(build_cell(SPEC), seen)

    async with contextlib.AsyncExitStack() as stack:
        rack = await stack.enter_async_context(serve_rack(config, cells={"1-1": cell}))
        yield RackStand(rack, folder, speed, seen, stack)


def _newest(folder: Path) -> bytes:
    """The step file that was written last."""
    return max(folder.glob("*.xml"), key=lambda path: path.stat().st_mtime_ns).read_bytes()


def _rack_config(speed: str, port: int, state_dir: str, *, seed: int) -> RackConfig:
    return RackConfig(
        port=port,
        units=1,
        seed=seed,
        speed=speed,
        state_dir=state_dir,
        epoch_unix_s=EPOCH_UNIX_S,
    )


@contextlib.asynccontextmanager
async def _potentiostat(
    model: str, powered_by_line: bool, folder: Path, speed: str, seen: Seen
) -> AsyncIterator[Stand]:
    config = PotentiostatConfig(
        model=model,
        link=str(folder / "port"),
        speed=speed,
        state_dir=str(folder),
        powered_by_line=powered_by_line,
    )
    async with serve_potentiostat(config, cell=WatchedCell(build_cell(SPEC), seen)) as instrument:
        stand = PotentiostatStand(instrument, model, folder, seen)
        try:
            yield stand
        finally:
            for descriptor in stand.taken:
                os.close(descriptor)


def neware() -> Kind:
    """A Neware BTS 8 rack."""
    return Kind("Neware BTS 8", _rack)


def keithley(model: str = "2450") -> Kind:
    """A SourceMeter, looked at as seldom as its watchdog allows."""

    def make(folder: Path, speed: str, seen: Seen) -> contextlib.AbstractAsyncContextManager[Stand]:
        return _smu(model, folder, speed, seen)

    return Kind(f"Keithley {model}", make, {"sample_period_s": 2.0}, virtual_only=True)


def palmsens(model: str = "EmStat4S HR", *, powered_by_line: bool = False) -> Kind:
    """A potentiostat; ``powered_by_line``: without its cable it has no power."""

    def make(folder: Path, speed: str, seen: Seen) -> contextlib.AbstractAsyncContextManager[Stand]:
        return _potentiostat(model, powered_by_line, folder, speed, seen)

    return Kind(f"PalmSens {model}", make)


class Laboratory:
    """What :func:`laboratory` gives."""

    def __init__(self, node: Node, stand: Stand, folder: Path) -> None:
        self.node = node
        self.stand = stand
        self.folder = folder
        self._commands = Commands(node)
        self._ingest = Ingest(open_engine(self.archive_url))
        self._taken_in = 0

    @property
    def archive_url(self) -> str:
        """Of the archive that this laboratory fills."""
        return f"sqlite:///{self.folder / 'archive.db'}"

    async def start(
        self, recipe: str, parameters: dict[str, str] | None = None, *, text: str = ""
    ) -> Runner:
        """Begin a shipped recipe, or ``text``, on the cell.

        Raises:
            CommandError, PlanError, RecipeError: it cannot be done.
        """
        included: dict[str, str] = {}
        if not text:
            path = shipped_recipes()[recipe]
            text = path.read_text(encoding="utf-8")
            included = dict(read_recipe(text, file=path.name, load=file_loader(path)).included)
        await self.ready()
        await self._tell(RegisterCell(cell=registered()))
        done = await self._tell(
            StartRun(
                recipe_text=text,
                recipe_file=f"{recipe}.yaml",
                included=included,
                cell=SPEC.name,
                instrument=INSTRUMENT,
                channel=self.stand.channel,
                parameters=parameters or {},
            )
        )
        return self.node.runners[done.run]

    async def ready(self) -> None:
        """Return when the instrument has been identified."""
        await self.node.instruments[INSTRUMENT].ready.wait()

    def refused(self, recipe: str, parameters: dict[str, str] | None = None) -> str:
        """Why the instrument will not run a shipped recipe, as planning it says; '' if it would."""
        path = shipped_recipes()[recipe]
        text = path.read_text(encoding="utf-8")
        read = read_recipe(text, file=path.name, load=file_loader(path))
        program = compile_recipe(read, registered(), parameters or {}, bounds=())
        instrument = self.node.instruments[INSTRUMENT]
        return "; ".join(self.node.refusals(instrument, program))

    async def tell(self, request: Request) -> Done:
        """One command, as an operator gives it."""
        return await self._tell(request)

    async def _tell(self, request: Request) -> Done:
        command = Command(id=os.urandom(8).hex(), expires_unix_s=9e12, request=request)
        answer = await self._commands.obey(command, "benchmark")
        if not isinstance(answer, Done):
            raise TypeError(f"{answer} is no answer to an order")
        return answer

    async def take_in(self) -> None:
        """Bring the archive up to what the journal holds."""
        while batches := await self.node.journal.pending(self._taken_in, MOST_BYTES):
            payloads = [payload for _, payload in batches]
            nodes = [self.node.settings.node.name] * len(payloads)
            await asyncio.to_thread(self._ingest.commit, payloads, nodes)
            self._taken_in = batches[-1][0]

    async def archive(self) -> Archive:
        """The archive with all of it, to be closed by whoever asked."""
        await self.take_in()
        return open_archive(self.archive_url)


@contextlib.asynccontextmanager
async def laboratory(
    folder: Path,
    kind: Kind,
    *,
    speed: str = "virtual",
    fast_A: float = math.inf,
    poll_s: float = 5,
    more: str = "",
) -> AsyncIterator[Laboratory]:
    """A laboratory in ``folder``, until the block is left; ``more`` is added to its labctl.toml."""
    seen = Seen(fast_A)
    place = folder / "instrument"
    place.mkdir(parents=True)
    async with kind.make(place, speed, seen) as stand:
        options = {**stand.options(), **kind.options}
        lines = "\n".join(f"{key} = {_toml(value)}" for key, value in options.items())
        (folder / "labctl.toml").write_text(
            f'[node]\nname = "lab"\nspeed = "{"virtual" if kind.virtual_only else speed}"\n'
            f'poll_s = {poll_s}\nlock_dir = "locks"\n'
            f'[mqtt]\nurl = "mqtt://127.0.0.1:1"\n[instruments.{INSTRUMENT}]\n{lines}\n{more}',
            encoding="utf-8",
        )
        (folder / "locks").mkdir(exist_ok=True)
        await asyncio.to_thread(_new_archive, f"sqlite:///{folder / 'archive.db'}")
        async with open_node(load_settings(folder / "labctl.toml")) as node:
            working = asyncio.create_task(node.work(), name="node")
            try:
                yield Laboratory(node, stand, folder)
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
                for instrument in node.instruments.values():
                    if isinstance(instrument.clock, SteppedClock):
                        await instrument.clock.close()


_ONE_SCHEMA_AT_A_TIME = threading.Lock()


def _new_archive(url: str) -> None:
    """Make the tables; what makes them cannot make two sets at a time."""
    engine = open_engine(url)
    with _ONE_SCHEMA_AT_A_TIME:
        upgrade(engine)
    engine.dispose()


def registered() -> Cell:
    """The cell as it is known to the node."""
    return Cell(
        name=SPEC.name,
        material=SPEC.material,
        active_mass_g=MASS_G,
        one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0,
        safe_voltage_max_V=4.5,
    )


async def until(
    condition: Callable[[], bool], *, at_most_s: float = 3600.0, every_s: float = 0.02
) -> None:
    """Return when a condition holds, in real time.

    Raises:
        TimeoutError: it does not.
    """
    async with asyncio.timeout(at_most_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is in many places
            await asyncio.sleep(every_s)


def _toml(value: str | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)
