"""How a run gets on, by the kind of its instrument: what a Runner asks of either kind."""

from __future__ import annotations

from typing import Protocol

from labctl.drivers.base import Started
from labctl.engine.bench import Bench
from labctl.engine.states import Trigger
from labctl.errors import InstrumentError, JournalError, LinkError


class Way(Protocol):
    """One method for each state of a run that is not over; each returns when the state is another.

    Every one raises LinkError, InstrumentError and JournalError; it is then called again, for the
    state that the run is in by then. A call that is cancelled leaves the run resumable.
    """

    told_off: bool
    """Whether the output is off since the run was last told to stop."""

    async def arm(self) -> None: ...

    async def start(self) -> None: ...

    async def go_on(self) -> None:
        """RUNNING. May also return in the same state, to be called again."""
        ...

    async def stay_paused(self) -> None: ...

    async def stay_held(self) -> None: ...

    async def stop(self) -> None:
        """STOPPING: output off, and the rest of the readings."""
        ...

    async def off(self) -> None:
        """Output off, whatever the journal says of it. Idempotent."""
        ...

    async def pause(self) -> None:
        """Open circuit where the instrument itself has to be told, before it is journalled."""
        ...

    async def skip(self) -> None:
        """Leave the present step where the instrument itself has to be told, likewise."""
        ...

    async def what_to_release(self) -> tuple[Trigger, Started | None]:
        """How a held run goes on, with a start that only now was heard of.

        Raises:
            CommandError: there is nothing to go on with.
        """
        ...

    def in_doubt(self) -> None:
        """What the instrument said last cannot be explained: what was known of it is doubtful."""
        ...

    async def close(self) -> None:
        """The run is over, or left for another process."""
        ...


async def off_without_a_word(way: Way, error: JournalError) -> None:
    """Output off although the journal cannot keep why: safety comes before the record.

    Raises:
        JournalError: ``error``, with what went wrong besides.
    """
    try:
        await way.off()
    except (LinkError, InstrumentError) as failed:
        raise JournalError(f"{error}; AND THE OUTPUT MAY STILL BE ON: {failed}") from failed


class NoWay:
    """A run whose instrument is not in the configuration: it can only be given up."""

    told_off = False

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def arm(self) -> None:
        raise self._absent()

    async def start(self) -> None:
        raise self._absent()

    async def go_on(self) -> None:
        raise self._absent()

    async def stay_paused(self) -> None:
        await self._bench.waiting.until_asked()

    async def stay_held(self) -> None:
        await self._bench.waiting.until_asked()

    async def stop(self) -> None:
        raise self._absent()

    async def off(self) -> None:
        raise self._absent()

    async def pause(self) -> None:
        raise self._absent()

    async def skip(self) -> None:
        raise self._absent()

    async def what_to_release(self) -> tuple[Trigger, Started | None]:
        raise self._absent()

    def in_doubt(self) -> None:
        """Nothing is known."""

    async def close(self) -> None:
        """Nothing is open."""

    def _absent(self) -> LinkError:
        return LinkError(
            f"instrument {self._bench.record.charter.instrument!r} is not in the configuration: "
            "put it back, or stop the run and then abandon it"
        )
