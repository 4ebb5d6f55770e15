"""How a run sets out: what is refused before anything flows, and which visit is the first."""

from __future__ import annotations

from labctl.drivers.base import Capabilities
from labctl.engine.bench import Bench
from labctl.engine.refusing import refusals_of_host
from labctl.engine.states import RunState, Trigger
from labctl.program import SetTemperature


async def is_refused(bench: Bench, capabilities: Capabilities, *, source: bool) -> bool:
    """Whether the host will not run the program; the run has failed then.

    Raises:
        LinkError, InstrumentError: the chamber does not say whether it is there.
    """
    record = bench.record
    program = record.charter.program
    chamber = False
    if any(isinstance(step.control, SetTemperature) for step in program.steps):
        chamber = bench.host is not None and await bench.host.temperature() is not None
    refusals = refusals_of_host(program, capabilities, source=source, chamber=chamber)
    if refusals:
        await refuse(bench, "; ".join(refusals))
    return bool(refusals)


async def refuse(bench: Bench, reason: str) -> None:
    """End a run that has not begun, unless it was ended meanwhile."""
    async with bench.record.changing:
        if bench.record.checkpoint.state is RunState.ARMING:
            await bench.record.change(Trigger.REFUSED, reason)
