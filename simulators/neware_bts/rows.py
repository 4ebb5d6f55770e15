"""Records of a test as columns, and the table of the steps that they belong to.

True values: what the cell did, before the electronics read it. ``ms`` counts from the start of the
step, ``start_s`` is the test time at which the step began. ``capacity_Ah`` and ``energy_Wh`` are
magnitudes since the step began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatColumn = npt.NDArray[np.float64]
IntColumn = npt.NDArray[np.int64]

LAYER = np.dtype(
    [
        ("first_seq", "<i8"),
        ("last_seq", "<i8"),
        ("visit", "<i8"),
        ("step", "<i8"),
        ("cycle", "<i8"),
        ("start_s", "<f8"),
        ("ms", "<i8"),
        ("first_V", "<f8"),
        ("last_V", "<f8"),
        ("first_A", "<f8"),
        ("last_A", "<f8"),
        ("capacity_Ah", "<f8"),
        ("energy_Wh", "<f8"),
    ]
)
"""One visit to one step."""

LayerTable = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Block:
    """Records of one visit to one step, made in one call; ``seq`` runs on from ``first_seq``."""

    first_seq: int
    visit: int
    step: int
    cycle: int
    start_s: float
    ms: IntColumn
    voltage_V: FloatColumn
    current_A: FloatColumn
    capacity_Ah: FloatColumn
    energy_Wh: FloatColumn

    def __len__(self) -> int:
        return len(self.ms)

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.ms) - 1


@dataclass(frozen=True, slots=True)
class Rows:
    """Records without gaps, of any number of visits; columns of equal length."""

    first_seq: int
    visit: IntColumn
    step: IntColumn
    cycle: IntColumn
    start_s: FloatColumn
    ms: IntColumn
    voltage_V: FloatColumn
    current_A: FloatColumn
    capacity_Ah: FloatColumn
    energy_Wh: FloatColumn

    def __len__(self) -> int:
        return len(self.ms)

    @property
    def seq(self) -> IntColumn:
        return np.arange(self.first_seq, self.first_seq + len(self.ms), dtype=np.int64)

    @property
    def test_time_s(self) -> FloatColumn:
        return self.start_s + self.ms * 1e-3

    def between(self, first: int, last: int) -> Rows:
        """The records from ``first`` to ``last`` that are here."""
        here = slice(max(0, first - self.first_seq), max(0, last - self.first_seq + 1))
        return Rows(
            max(first, self.first_seq),
            self.visit[here],
            self.step[here],
            self.cycle[here],
            self.start_s[here],
            self.ms[here],
            self.voltage_V[here],
            self.current_A[here],
            self.capacity_Ah[here],
            self.energy_Wh[here],
        )


def rows_of(blocks: Sequence[Block]) -> Rows:
    """Blocks that follow one another, as one."""
    lengths = [len(block) for block in blocks]

    def repeated(values: list[int]) -> IntColumn:
        return np.repeat(np.array(values, dtype=np.int64), lengths)

    return Rows(
        blocks[0].first_seq if blocks else 1,
        repeated([block.visit for block in blocks]),
        repeated([block.step for block in blocks]),
        repeated([block.cycle for block in blocks]),
        np.repeat(np.array([block.start_s for block in blocks], dtype=np.float64), lengths),
        np.concatenate([block.ms for block in blocks] or [np.empty(0, dtype=np.int64)]),
        _joined([block.voltage_V for block in blocks]),
        _joined([block.current_A for block in blocks]),
        _joined([block.capacity_Ah for block in blocks]),
        _joined([block.energy_Wh for block in blocks]),
    )


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Rows that follow one another, as one."""
    filled = [part for part in parts if len(part)]
    if len(filled) == 1:
        return filled[0]
    if not filled:
        return rows_of([])
    return Rows(
        filled[0].first_seq,
        np.concatenate([part.visit for part in filled]),
        np.concatenate([part.step for part in filled]),
        np.concatenate([part.cycle for part in filled]),
        _joined([part.start_s for part in filled]),
        np.concatenate([part.ms for part in filled]),
        _joined([part.voltage_V for part in filled]),
        _joined([part.current_A for part in filled]),
        _joined([part.capacity_Ah for part in filled]),
        _joined([part.energy_Wh for part in filled]),
    )


def layers_of(rows: Rows) -> LayerTable:
    """One entry for each visit in the rows; the first and the last may be parts of a visit."""
    if not len(rows):
        return np.empty(0, dtype=LAYER)
    turns = np.flatnonzero(np.diff(rows.visit))
    first = np.concatenate(([0], turns + 1))
    last = np.concatenate((turns, [len(rows) - 1]))
    table = np.empty(len(first), dtype=LAYER)
    table["first_seq"] = rows.first_seq + first
    table["last_seq"] = rows.first_seq + last
    for name in ("visit", "step", "cycle", "start_s"):
        table[name] = getattr(rows, name)[first]
    for name in ("ms", "capacity_Ah", "energy_Wh"):
        table[name] = getattr(rows, name)[last]
    for name, column in (("V", rows.voltage_V), ("A", rows.current_A)):
        table[f"first_{name}"] = column[first]
        table[f"last_{name}"] = column[last]
    return table


def join_layers(tables: Sequence[LayerTable]) -> LayerTable:
    """Tables in order; a visit that was cut between two of them becomes one entry again."""
    table = np.concatenate([np.empty(0, dtype=LAYER), *tables])
    if len(table) < 2:
        return table
    begins = np.concatenate(([True], np.diff(table["visit"]) != 0))
    first = np.flatnonzero(begins)
    last = np.concatenate((first[1:] - 1, [len(table) - 1]))
    joined = table[last].copy()
    for name in ("first_seq", "first_V", "first_A"):
        joined[name] = table[name][first]
    return joined


def _joined(columns: list[FloatColumn]) -> FloatColumn:
    return np.concatenate(columns) if columns else np.empty(0, dtype=np.float64)
