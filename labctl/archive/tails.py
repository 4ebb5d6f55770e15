"""The samples of each run that came last, kept in memory: its next cycle is quickly reckoned.

They are copies of what is committed or is being committed: where they do not reach, the database
is asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from labctl.analysis.cycles import CycleSummary, summarise_cycles
from labctl.model import RECORD_COLUMNS, Records, join_records

MOST_ROWS = 500_000

ReadSamples = Callable[[int, int], Records]
"""``(first_seq, last_seq) -> Records`` of a run, in order of seq."""


class Tails:
    """Blocks of records by run number; the run that was asked for longest ago is dropped first."""

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._blocks: OrderedDict[int, dict[int, Records]] = OrderedDict()
        self._rows = 0
        self._most_rows = most_rows

    def add(self, run_number: int, records: Records) -> None:
        """Keep a block of records of a run; blocks without gaps serve, others do not."""
        if not len(records):
            return
        blocks = self._blocks.setdefault(run_number, {})
        self._blocks.move_to_end(run_number)
        blocks[int(records.seq[0])] = records
        self._rows += len(records)
        while self._rows > self._most_rows and self._blocks:
            _, dropped = self._blocks.popitem(last=False)
            self._rows -= sum(map(len, dropped.values()))

    def take(self, run_number: int, first_seq: int, last_seq: int) -> Records | None:
        """Records ``first_seq`` to ``last_seq``, or None if not all of them are here."""
        wanted = [
            block
            for _, block in sorted(self._blocks.get(run_number, {}).items())
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

    def forget_before(self, run_number: int, seq: int) -> None:
        """Drop the blocks that hold nothing from ``seq`` on."""
        blocks = self._blocks.get(run_number, {})
        for first_seq in [first for first, block in blocks.items() if block.seq[-1] < seq]:
            self._rows -= len(blocks.pop(first_seq))
        if not blocks:
            self._blocks.pop(run_number, None)

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self._rows = 0


def summaries(
    spans: list[tuple[int, int]], read: ReadSamples
) -> list[tuple[CycleSummary, float, float]]:
    """The cycles with the samples ``first_seq`` to ``last_seq``, in the order of the list.

    Each with the test time and the unix time of its last sample. The sample before ``first_seq`` is
    what its first change is taken from; before the first sample of a run, charge and energy are 0.
    Samples that are missing are passed over.

    Args:
        read: gives the samples of the run; asked once.
    """
    if not spans:
        return []
    first_seq = max(1, min(first for first, _ in spans) - 1)
    records = read(first_seq, max(last for _, last in spans))
    if first_seq == 1 or not len(records):
        records = join_records([_origin(records), records])
    before = np.searchsorted(records.seq, [first - 1 for first, _ in spans])
    last = np.searchsorted(records.seq, [end for _, end in spans], side="right") - 1
    before = np.minimum(before, len(records) - 1)
    last = np.maximum(last, before)
    reckoned = summarise_cycles(
        records.test_time_s,
        records.voltage_V,
        records.current_A,
        records.charge_Ah,
        records.energy_Wh,
        before,
        last,
    )
    return [
        (summary, float(records.test_time_s[row]), float(records.unix_time_s[row]))
        for summary, row in zip(reckoned, last.tolist(), strict=True)
    ]


def _origin(records: Records) -> Records:
    """A record before the first one: no charge, no energy, at the time of the first."""
    values = {name: np.zeros(1, dtype=numpy_type) for name, numpy_type in RECORD_COLUMNS.items()}
    if len(records):
        for name in ("test_time_s", "unix_time_s", "voltage_V", "current_A"):
            values[name] = getattr(records, name)[:1]
    return Records(**values)
