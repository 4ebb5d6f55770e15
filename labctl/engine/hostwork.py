"""What the host itself does in a run, beside its instrument: chambers and markers.

The engine asks, the daemon does: this protocol is what lies between. Signals come the other way,
by :meth:`labctl.engine.runner.Runner.signal`, which journals them before the run hears of them.
"""

from __future__ import annotations

from typing import Final, Protocol

from labctl.program import Program, Wait
from labctl.stream.events import MarkerSet

CONFIRM: Final = "confirm"
"""The signal by which an operator confirms what a :class:`labctl.program.Wait` prompts for."""


class HostWork(Protocol):
    """The laboratory around one instrument.

    Every coroutine raises LinkError where a wire failed and InstrumentError where a device refused;
    the engine then asks again.
    """

    async def set_temperature(self, temperature_degC: float) -> None:
        """Set the chamber that the instrument's cells are in. Setting it again does no harm."""
        ...

    async def temperature(self) -> float | None:
        """What that chamber measures, in degC; None if there is no chamber."""
        ...

    def publish_marker(self, marker: MarkerSet, visit: int) -> None:
        """Tell the world; returns at once.

        After a crash the same marker may be told again: ``marker.run`` and ``visit`` say that it
        is the same, and so do all its other values.
        """
        ...


def signals_of(program: Program) -> frozenset[str]:
    """The names of the signals that a program waits for anywhere; those of operators are not named.

    See :data:`CONFIRM`.
    """
    return frozenset(
        step.control.signal
        for step in program.steps
        if isinstance(step.control, Wait) and step.control.signal
    )
