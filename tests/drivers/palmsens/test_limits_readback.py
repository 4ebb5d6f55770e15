"""No current flows before the instrument itself has said that it holds the limits.

The instrument is the simulated one, in real time; on the line between it and the driver somebody
changes a line of a script on its way in, or a package on its way back.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator

import pytest

from labctl.clock import RealClock
from labctl.drivers.base import Failsafe, Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.driver import PalmSens
from labctl.errors import InstrumentError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    EndCondition,
    Limits,
    Quantity,
    RecordRule,
    Step,
)
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.palmsens.config import PotentiostatConfig
from labctl.simulators.palmsens.server import SimulatedPotentiostat, serve_potentiostat

HE_V = CellSpec(name="HEV-01", material="HE-V", active_mass_g=0.002, seed=1)
LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)
CHARGE = Task(
    step=Step(
        0,
        "charge",
        ConstantCurrent(2e-4),
        (EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 3600.0),),
        RecordRule(every_s=1.0),
    ),
    limits=LIMITS,
    tag="run.1",
)


class Tampered:
    """A line on which bytes are changed; remembers whether the cell was ever on.

    ``inwards``: what is changed in scripts that are sent with these commands.
    """

    def __init__(self, simulated: SimulatedPotentiostat) -> None:
        self.simulated = simulated
        self.port = 0
        self.inwards: tuple[bytes, bytes] = (b"", b"")
        self.of_commands = b"el"
        self.back: tuple[bytes, bytes] = (b"", b"")
        self.ever_on = False
        self._command = b""
        self._talks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Tampered]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        watch = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            server.close()
            for task in (watch, *self._talks):
                task.cancel()
            await asyncio.gather(watch, *self._talks, return_exceptions=True)
            await server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = int(self.simulated.address.rpartition(":")[2])
        below, above = await asyncio.open_connection("127.0.0.1", port)
        pumps = [
            asyncio.create_task(self._pump(reader, above, self._in)),
            asyncio.create_task(self._pump(below, writer, self._out)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in (above, writer):
                each.transport.abort()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    @staticmethod
    async def _pump(reader, writer, change) -> None:  # type: ignore[no-untyped-def]
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                writer.write(change(await reader.readuntil(b"\n")))

    def _in(self, line: bytes) -> bytes:
        if line in {b"e\n", b"l\n"}:
            self._command = line[:1]
        old, new = self.inwards
        return line.replace(old, new) if old and self._command in self.of_commands else line

    def _out(self, line: bytes) -> bytes:
        old, new = self.back
        return line.replace(old, new) if old else line

    async def _watch(self) -> None:
        while True:
            self.ever_on = self.ever_on or self.simulated.device.on
            await asyncio.sleep(1e-3)


@contextlib.asynccontextmanager
async def tampered() -> AsyncIterator[tuple[Tampered, PalmSens]]:
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        config = PotentiostatConfig(speed="1", cell=HE_V, port=0)
        async with serve_potentiostat(config) as simulated, Tampered(simulated).listening() as line:
            driver = PalmSens(
                PalmSensConfig(
                    port=f"socket://127.0.0.1:{line.port}", model="EmStat4S HR", lock_dir=folder
                ),
                name="ps 1",
                clock=RealClock(),
            )
            await driver.open()
            try:
                yield line, driver
            finally:
                await driver.close()


async def test_an_untampered_line_arms_what_was_asked() -> None:
    async with tampered() as (line, driver):
        limits = await driver.arm("1", CHARGE)
        assert limits.voltage_max_V == 4.4
        assert limits.current_max_A == 0.011
        assert not line.ever_on
        await driver.begin("1", CHARGE)
        while not line.ever_on:
            await driver.look("1")
        await driver.off("1")
        assert not line.simulated.device.on


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # MethodSCRIPT manual v1.8, ch. 4: 4400m is 4.4; one bit makes 4400m 4600m, another 4400k
        (b"store_var vh 4400m ia", b"store_var vh 4600m ia"),
        (b"store_var vh 4400m ia", b"store_var vh 4400k ia"),
        (b"store_var vl 1 ib", b"store_var vl 0 ib"),
        (b"store_var ch 11m ha", b"store_var ch 31m ha"),
        (b"store_var cl -11m hb", b"store_var cl -11k hb"),
        (b"store_var qh 1440m hc", b"store_var qh 1440k hc"),
        # no limit at all in the package that tells them
        (b"pck_add vh", b"pck_add vl"),
    ],
)
async def test_a_limit_that_came_through_damaged_switches_no_cell_on(
    old: bytes, new: bytes
) -> None:
    async with tampered() as (line, driver):
        line.inwards = (old, new)
        with pytest.raises(InstrumentError) as caught:
            await driver.arm("1", CHARGE)
        assert caught.value.instrument == "ps 1"
        assert caught.value.command == "e"
        with pytest.raises(InstrumentError, match="was not armed"):
            await driver.begin("1", CHARGE)
        assert not line.ever_on


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"store_var vh 4400m ia", b"store_var vh 4600m ia"),
        (b"store_var qh 1440m hc", b"store_var qh 1440k hc"),
        (b"jd", b"jc"),
    ],
)
async def test_a_script_that_was_loaded_damaged_is_ended_before_the_cell_is_on(
    old: bytes, new: bytes
) -> None:
    async with tampered() as (line, driver):
        line.inwards, line.of_commands = (old, new), b"l"
        await driver.arm("1", CHARGE)
        with pytest.raises(InstrumentError) as caught:
            await driver.begin("1", CHARGE)
        assert caught.value.command == "r"
        assert not line.ever_on
        assert not line.simulated.instrument.running


async def test_limits_that_come_back_otherwise_switch_no_cell_on() -> None:
    async with tampered() as (line, driver):
        line.back = (b"Pia", b"Pja")
        with pytest.raises(InstrumentError, match="was sent"):
            await driver.arm("1", CHARGE)
        line.back = (b"ib8", b"ib9")
        with pytest.raises(InstrumentError, match="was sent"):
            await driver.arm("1", CHARGE)
        assert not line.ever_on


def test_its_scripts_carry_their_limits_whether_anybody_listens_or_not() -> None:
    config = PalmSensConfig(port="/dev/null", model="EmStat4S HR")
    driver = PalmSens(config, name="ps 1", clock=RealClock())
    assert driver.capabilities.failsafe is Failsafe.ONBOARD
