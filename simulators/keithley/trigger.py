"""The trigger model: numbered blocks that the instrument carries out by itself.

Source: reference manual 2461-901-01, TRIGger subsystem; manual 2470-901-01 for the branch on an
event, which is remembered until the block is reached. A counter is raised before it is compared,
branches while it is below its target, and begins again after it let the model go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from labctl.simulators.keithley.errors import ScpiError

MOST_BLOCKS: Final = 63
ZERO_TIME_BLOCKS: Final = 1000
"""So many blocks in a row that take no time are taken to last ``ZERO_TIME_S`` together."""
ZERO_TIME_S: Final = 1e-3

IDLE, RUNNING, WAITING, EMPTY, BUILDING, ABORTED = (
    "IDLE",
    "RUNNING",
    "WAITING",
    "EMPTY",
    "BUILDING",
    "ABORTED",
)


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on with block ``to``."""

    to: int


@dataclass(frozen=True, slots=True)
class Block:
    """One block. ``name`` is what the list of blocks prints; ``target`` is where it may branch to.

    ``run`` carries it out and gives the seconds that pass; after a Jump another block is next than
    the one that follows.
    """

    name: str
    run: Callable[[], Iterator[float | Jump]]
    target: int = 0


class TriggerModel:
    """Blocks and where in them the instrument is. Time is the caller's."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.state = EMPTY
        self.at = 0
        self.counters: dict[int, int] = {}
        self._events: set[str] = set()
        self._once: set[int] = set()
        self._readings: dict[int, list[float]] = {}
        self._measured_last = 0
        self._running: Iterator[float] | None = None

    @property
    def active(self) -> bool:
        return self._running is not None

    def load(self, blocks: list[Block]) -> None:
        """Replace all blocks."""
        self.blocks = list(blocks)
        self.state = IDLE if blocks else EMPTY
        self.at = 0

    def put(self, number: int, block: Block) -> None:
        """Set block ``number``; the next free number adds one."""
        if not 1 <= number <= min(len(self.blocks) + 1, MOST_BLOCKS):
            raise ScpiError(-222, f"block {number}")
        self.blocks[number - 1 : number] = [block]
        self.state = BUILDING

    def start(self) -> Iterator[float]:
        """Begin at block 1. Gives the seconds that pass, one after the other."""
        if self.active:
            raise ScpiError(-213)
        if not self.blocks:
            raise ScpiError(-221, "the trigger model is empty")
        for number, block in enumerate(self.blocks, 1):
            if block.target > len(self.blocks):
                raise ScpiError(-221, f"block {number} branches to block {block.target}")
        self.counters.clear()
        self._events.clear()
        self._once.clear()
        self._readings.clear()
        self.state = RUNNING
        self._running = self._walk()
        return self._running

    def abort(self) -> None:
        if self.active:
            self._running = None
            self.state = ABORTED

    def happened(self, event: str) -> None:
        """Remember an event until a block looks for it."""
        if self.active:
            self._events.add(event)

    def take_event(self, event: str) -> bool:
        found = event in self._events
        self._events.discard(event)
        return found

    def count(self, number: int, target: int) -> bool:
        """Whether the counter block ``number`` branches once more."""
        self.counters[number] = self.counters.get(number, 0) + 1
        if self.counters[number] < target:
            return True
        self.counters[number] = 0
        return False

    def first_time(self, number: int) -> bool:
        first = number not in self._once
        self._once.add(number)
        return first

    def measured(self, number: int, reading: float) -> None:
        """Remember what measure block ``number`` measured."""
        self._readings[number] = [*self._readings.get(number, [])[-1:], reading]
        self._measured_last = number

    def reading_of(self, number: int) -> float | None:
        """What a measure block measured last; 0 is whichever block it was."""
        found = self._readings.get(number or self._measured_last)
        return found[-1] if found else None

    def drop(self) -> float | None:
        """By how much the reading before was above the latest; None without two."""
        found = self._readings.get(self._measured_last, [])
        return found[0] - found[1] if len(found) == 2 else None

    def listing(self) -> str:
        return ";".join(f"{n}) {block.name}" for n, block in enumerate(self.blocks, 1))

    def _walk(self) -> Iterator[float]:
        idle_blocks = 0
        self.at = 1
        while self.at <= len(self.blocks):
            onward = self.at + 1
            for passed in self.blocks[self.at - 1].run():
                if isinstance(passed, Jump):
                    onward = passed.to
                else:
                    idle_blocks = 0 if passed > 0 else idle_blocks
                    yield passed
            idle_blocks += 1
            if idle_blocks >= ZERO_TIME_BLOCKS:
                idle_blocks = 0
                yield ZERO_TIME_S
            if onward > len(self.blocks):
                break
            self.at = onward
        self._running = None
        self.state = IDLE
