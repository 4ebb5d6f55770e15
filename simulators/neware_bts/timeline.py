"""The records of one leg of a test: made once, kept as columns, made again when asked for later.

Only the newest records and a few older pieces are held in memory. Every few thousand records a mark
(position and cell) is kept, and any record can be made again from the mark before it, bit for bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from labctl.drivers.neware_bts.stepfile import StepFile
from labctl.simulators.cells.interface import SimulatedCell
from labctl.simulators.neware_bts.persist import Leg, Mark, Tail
from labctl.simulators.neware_bts.position import Condition, Position
from labctl.simulators.neware_bts.program import Execution
from labctl.simulators.neware_bts.rows import (
    LAYER,
    Block,
    LayerTable,
    Rows,
    join_layers,
    join_rows,
    layers_of,
    rows_of,
)

RECORDS_PER_MARK = 8192
PIECES_IN_MEMORY = 3


class Timeline:
    """What a leg's file does with its cell, as far as it has been simulated.

    ``keep`` is called with every new mark. ``marks`` are those that were kept before.
    """

    def __init__(
        self,
        test_id: int,
        leg: Leg,
        file: StepFile,
        new_cell: Callable[[], SimulatedCell],
        marks: Sequence[Mark],
        keep: Callable[[Mark], None],
    ) -> None:
        self._test_id = test_id
        self._leg = leg
        self._file = file
        self._new_cell = new_cell
        self._keep = keep
        self.marks = [Mark(test_id, leg.number, leg.position, leg.cell, b""), *marks]
        self._starts = [mark.position.seq for mark in self.marks]
        self._pieces: OrderedDict[int, Rows] = OrderedDict()
        self._open: list[Block] = []
        self._cell = new_cell()
        self._other_cell: SimulatedCell | None = None
        self._head = self._execution(self.marks[-1], self._cell)
        self._ended = self._head.position.condition is not Condition.WORKING

    @property
    def first_seq(self) -> int:
        return self._leg.position.seq

    @property
    def made(self) -> int:
        """Number of the last record made."""
        return self._head.position.seq - 1

    @property
    def ended(self) -> bool:
        """True when no more records will come."""
        return self._ended

    @property
    def head(self) -> Position:
        """Where the simulation stands; not to be changed."""
        return self._head.position

    def head_cell(self) -> bytes:
        """State of the cell where the simulation stands."""
        return self._cell.state()

    def extend_beyond(self, seq: int) -> None:
        """Make records until there is one after ``seq``, or the leg has ended."""
        while self.made <= seq and self._step():
            pass

    def extend_past(self, test_time_s: float) -> None:
        """Make records until they reach beyond a test time, or the leg has ended."""
        while self._head.position.test_time_s <= test_time_s and self._step():
            pass

    def seq_at(self, test_time_s: float) -> int:
        """The last record that is not later than a test time, among those made last."""
        for block in reversed(self._open):
            times = block.start_s + block.ms * 1e-3
            if times[0] <= test_time_s:
                return block.first_seq + int(np.searchsorted(times, test_time_s, "right")) - 1
        return self.marks[-1].position.seq - 1

    def rows(self, first: int, last: int) -> Rows:
        """The records ``first`` to ``last``, as far as they were made."""
        first, last = max(first, self.first_seq), min(last, self.made)
        if first > last:
            return rows_of([])
        starts = self._starts
        parts = []
        for place in range(bisect_right(starts, first) - 1, bisect_right(starts, last)):
            if place < len(starts) - 1:
                parts.append(self._piece(place).between(first, last))
            else:
                blocks = [b for b in self._open if b.first_seq <= last and b.last_seq >= first]
                parts.append(rows_of(blocks).between(first, last))
        return join_rows(parts)

    def layers(self, last_seq: int) -> LayerTable:
        """Every visit up to a record; the last one as far as that record."""
        kept = [np.frombuffer(mark.layers, dtype=LAYER) for mark in self.marks[1:]]
        table = join_layers([*kept, layers_of(rows_of(self._open))])
        table = table[table["first_seq"] <= last_seq].copy()
        if len(table) and table["last_seq"][-1] > last_seq:
            end = layers_of(self.rows(last_seq, last_seq))
            for name in ("last_seq", "ms", "last_V", "last_A", "capacity_Ah", "energy_Wh"):
                table[name][-1] = end[name][0]
        return table

    def cut_after(self, seq: int) -> tuple[Position, bytes]:
        """Position and cell right after a record."""
        row = self.rows(seq, seq)
        at_s = float(row.test_time_s[0]) if len(row) else 0.0
        position, cell, _ = self._cut(seq, at_s)
        return position, cell

    def cut_at(self, test_time_s: float, last_seq: int) -> tuple[Position, bytes, Tail | None]:
        """Position and cell at a test time, and the record of that moment.

        ``last_seq`` is the last record before it. No record is made if that one is not older.
        """
        return self._cut(last_seq, test_time_s, tail=True)

    def _cut(
        self, last_seq: int, at_s: float, *, tail: bool = False
    ) -> tuple[Position, bytes, Tail | None]:
        mark = self.marks[max(0, bisect_right(self._starts, last_seq) - 1)]
        cell = self._borrowed_cell()
        execution = self._execution(mark, cell)
        while True:
            before = Mark(0, 0, execution.position.copy(), cell.state(), b"")
            block = execution.run()
            reached = execution.position
            if block is None:
                return reached, cell.state(), None
            if not tail and block.last_seq == last_seq:
                return reached, cell.state(), None
            if (reached.test_time_s > at_s) if tail else (block.last_seq > last_seq):
                break
        execution = self._execution(before, cell)
        execution.run(at_s)
        position = execution.position
        position.seq = last_seq + 1
        made = self._tail(execution, last_seq) if tail else None
        if made is not None:
            position.seq += 1
            position.last_ms = made.ms
        return position, cell.state(), made

    def _tail(self, execution: Execution, last_seq: int) -> Tail | None:
        at = execution.position
        ms = round(at.time_s * 1e3)
        row = self.rows(last_seq, last_seq)
        if not len(row) or int(row.visit[0]) != at.visit or ms <= int(row.ms[0]):
            return None
        voltage_V, current_A = execution.instant()
        return Tail(
            visit=at.visit,
            step=at.step,
            cycle=at.cycle,
            start_s=at.start_s,
            ms=ms,
            voltage_V=voltage_V,
            current_A=current_A,
            capacity_Ah=abs(at.charge_Ah),
            energy_Wh=abs(at.energy_Wh),
        )

    def _step(self) -> bool:
        if self._ended:
            return False
        if self._open and self.made - self._open[0].first_seq + 1 >= RECORDS_PER_MARK:
            self._close_piece()
        block = self._head.run()
        if block is None:
            self._ended = True
            return False
        self._open.append(block)
        return True

    def _close_piece(self) -> None:
        rows = rows_of(self._open)
        mark = Mark(
            self._test_id,
            self._leg.number,
            self._head.position.copy(),
            self._cell.state(),
            layers_of(rows).tobytes(),
        )
        self._remember(len(self.marks) - 1, rows)
        self.marks.append(mark)
        self._starts.append(mark.position.seq)
        self._open = []
        self._keep(mark)

    def _piece(self, place: int) -> Rows:
        piece = self._pieces.get(place)
        if piece is None:
            cell = self._borrowed_cell()
            execution = self._execution(self.marks[place], cell)
            end = self.marks[place + 1].position.seq
            blocks = []
            while execution.position.seq < end:
                block = execution.run()
                if block is None:
                    break
                blocks.append(block)
            piece = rows_of(blocks)
        self._remember(place, piece)
        return piece

    def _remember(self, place: int, piece: Rows) -> None:
        self._pieces[place] = piece
        self._pieces.move_to_end(place)
        while len(self._pieces) > PIECES_IN_MEMORY:
            self._pieces.popitem(last=False)

    def _borrowed_cell(self) -> SimulatedCell:
        if self._other_cell is None:
            self._other_cell = self._new_cell()
        return self._other_cell

    def _execution(self, mark: Mark, cell: SimulatedCell) -> Execution:
        cell.restore(mark.cell)
        return Execution(
            self._file,
            cell,
            mark.position.copy(),
            pause_after_visit=self._leg.pause_after_visit,
        )


def tail_rows(seq: int, tail: Tail) -> Rows:
    """The record of a cut as rows."""
    return rows_of(
        [
            Block(
                first_seq=seq,
                visit=tail.visit,
                step=tail.step,
                cycle=tail.cycle,
                start_s=tail.start_s,
                ms=np.array([tail.ms], dtype=np.int64),
                voltage_V=np.array([tail.voltage_V]),
                current_A=np.array([tail.current_A]),
                capacity_Ah=np.array([tail.capacity_Ah]),
                energy_Wh=np.array([tail.energy_Wh]),
            )
        ]
    )
