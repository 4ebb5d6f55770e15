"""The samples of each run that came last, kept in memory: its next cycle is quickly reckoned.

They are copies of what is committed or is being committed: where they do not reach, the database
is asked.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np

from labctl.model import Records, join_records

MOST_ROWS = 500_000
A_BLOCK = 20
"""What a block takes beside its rows is as much as so many of them."""

Run = TypeVar("Run", int, tuple[str, str])
"""What a run is known by."""


class Tails(Generic[Run]):
    """Blocks of records by run; the run that was asked for longest ago is dropped first."""

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._blocks: OrderedDict[Run, dict[int, Records]] = OrderedDict()
        self._rows = 0
        self._most_rows = most_rows

    def add(self, run: Run, records: Records) -> None:
        """Keep a block of records of a run; blocks without gaps serve, others do not."""
        if not len(records):
            return
        blocks = self._blocks.setdefault(run, {})
        self._blocks.move_to_end(run)
        before = blocks.get(int(records.seq[0]))
        blocks[int(records.seq[0])] = records
        self._rows += _weight(records) - (0 if before is None else _weight(before))
        while self._rows > self._most_rows and self._blocks:
            _, dropped = self._blocks.popitem(last=False)
            self._rows -= sum(map(_weight, dropped.values()))

    def take(self, run: Run, first_seq: int, last_seq: int) -> Records | None:
        """Records ``first_seq`` to ``last_seq``, or None if not all of them are here."""
        wanted = [
            block
            for _, block in sorted(self._blocks.get(run, {}).items())
            if block.seq[-1] >= first_seq and block.seq[0] <= last_seq
        ]
        if not wanted:
            return None
        records = join_records(wanted)
        rows = slice(
            int(np.searchsorted(records.seq, first_seq)),
            int(np.searchsorted(records.seq, last_seq, side="right")),
        )
        found = records[rows]
        return found if len(found) == last_seq - first_seq + 1 else None

    def forget_before(self, run: Run, seq: int) -> None:
        """Drop the blocks that hold nothing from ``seq`` on."""
        blocks = self._blocks.get(run, {})
        for first_seq in [first for first, block in blocks.items() if block.seq[-1] < seq]:
            self._rows -= _weight(blocks.pop(first_seq))
        if not blocks:
            self._blocks.pop(run, None)

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self._rows = 0


def _weight(block: Records) -> int:
    return A_BLOCK + len(block)
