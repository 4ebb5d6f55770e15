"""Groups that are committed side by side, one after the other where it matters.

While PostgreSQL takes in the samples of one group, what follows from those of the group before is
reckoned and written. So there are two transactions, and three places at which they keep to the
order in which the groups came:

- the ledger: whichever of two groups with the same batch comes first has it;
- what follows from the samples, up to the commit: it reads what the group before has written;
- where the first try failed, a group is tried again *alone*: the one behind it rolls back what it
  has, for the database could let the first wait for that while the second waits for its turn.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self


class OutOfTurnError(Exception):
    """One that comes before is tried again alone: roll back, and wait."""


class Turns:
    """Gives out turns, in the order in which they are drawn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._drawn = 0
        self._past_ledger = 0
        self._over = 0
        self._someone_alone = False

    def draw(self) -> Turn:
        """The next turn: a context, whose end ends it."""
        with self._changed:
            self._drawn += 1
            return Turn(self, self._drawn - 1)


class Turn:
    """One group's turn. To be used by one thread."""

    def __init__(self, turns: Turns, number: int) -> None:
        self._turns = turns
        self._number = number
        self.has_come = False
        """Whether every one before is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        turns = self._turns
        with turns._changed:
            turns._changed.wait_for(self._comes)
            turns._past_ledger = max(turns._past_ledger, self._number + 1)
            turns._over = self._number + 1
            turns._someone_alone = False
            turns._changed.notify_all()

    def enter(self) -> None:
        """Wait until all before have entered what they have into the ledger."""
        turns = self._turns
        with turns._changed:
            turns._changed.wait_for(lambda: turns._past_ledger >= self._number)

    def past_ledger(self) -> None:
        """Let the next one enter."""
        turns = self._turns
        with turns._changed:
            turns._past_ledger = max(turns._past_ledger, self._number + 1)
            turns._changed.notify_all()

    def come(self) -> None:
        """Wait until all before are over.

        Raises:
            OutOfTurnError: one of them is tried again alone.
        """
        turns = self._turns
        with turns._changed:
            turns._changed.wait_for(lambda: self._comes() or turns._someone_alone)
            if not self._comes():
                raise OutOfTurnError
            self.has_come = True

    def come_alone(self) -> None:
        """Wait until all before are over, and hold off those behind. Not to be called within a
        transaction unless the turn has come."""
        turns = self._turns
        with turns._changed:
            turns._changed.wait_for(self._comes)
            self.has_come = True
            turns._someone_alone = True
            turns._changed.notify_all()

    def _comes(self) -> bool:
        return self._turns._over == self._number
