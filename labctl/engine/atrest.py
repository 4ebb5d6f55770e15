"""A channel of a sequencer on which nothing runs, looked at as if it were a source.

While the host has a run between two stretches of its program, the cell is at open circuit and its
voltage is what :meth:`labctl.drivers.base.Sequencer.status` says. Nothing is sent to the channel.
"""

from __future__ import annotations

import numpy as np

from labctl.clock import Clock
from labctl.drivers.base import (
    Capabilities,
    ChannelState,
    ChannelStatus,
    Identity,
    Looked,
    Sequencer,
    Task,
)
from labctl.errors import InstrumentError, LinkError
from labctl.model import Readings
from labctl.program import Limits, Program


class AtRest:
    """A :class:`labctl.drivers.base.Source` that can only rest; ``clock`` times its visits."""

    def __init__(self, driver: Sequencer, clock: Clock) -> None:
        self._driver = driver
        self._clock = clock
        self._began_s = 0.0
        self._looks = 0
        self._step = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._driver.capabilities

    async def open(self) -> Identity:
        return await self._driver.open()

    async def close(self) -> None:
        await self._driver.close()

    async def channels(self) -> tuple[str, ...]:
        return await self._driver.channels()

    async def status(self, channel: str) -> ChannelStatus:
        return await self._driver.status(channel)

    def refusals(self, program: Program) -> tuple[str, ...]:
        return self._driver.refusals(program)

    async def arm(self, channel: str, task: Task) -> Limits:
        """Nothing flows, so that every limit holds."""
        del channel
        return task.limits

    async def begin(self, channel: str, task: Task) -> None:
        """From here on the readings' times count."""
        del channel
        self._began_s = self._clock.monotonic_s()
        self._looks = 0
        self._step = task.step.index

    async def look(self, channel: str) -> Looked:
        """One reading of now.

        Raises:
            LinkError: the channel cannot be reached.
            InstrumentError: something runs on it.
        """
        status = await self._driver.status(channel)
        if status.state is ChannelState.UNAVAILABLE:
            raise LinkError(f"channel {channel} is unavailable", command="status")
        if status.state in {ChannelState.RUNNING, ChannelState.PAUSED}:
            raise InstrumentError(
                f"channel {channel} is {status.state} with test {status.test}, while this run "
                "waits there at open circuit",
                command="status",
            )
        self._looks += 1
        return Looked(
            Readings(
                onboard_index=np.array([self._looks]),
                step=np.array([self._step]),
                pass_mark=np.array([0]),
                step_time_s=np.array([self._clock.monotonic_s() - self._began_s]),
                unix_time_s=np.array([self._clock.unix_time_s()]),
                voltage_V=np.array([status.voltage_V]),
                current_A=np.array([0.0]),
                step_charge_Ah=np.array([0.0]),
                step_energy_Wh=np.array([0.0]),
                temperature_degC=np.array([np.nan]),
            )
        )

    def sample_period_s(self, task: Task) -> float:
        """The step says how often it wants to look."""
        del task
        return 0.0

    async def off(self, channel: str) -> None:
        """Nothing was switched on."""

    async def pulse(self, channel: str, output: str) -> None:
        raise InstrumentError(f"channel {channel} has no output {output!r}", command="pulse")
