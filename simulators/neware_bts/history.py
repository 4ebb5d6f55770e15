"""One test of a channel: its legs, the records that each has made, and how many can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from labctl.drivers.neware_bts.stepfile import StepFile
from labctl.simulators.cells.interface import SimulatedCell
from labctl.simulators.neware_bts.persist import Cut, Leg, Mark, Test
from labctl.simulators.neware_bts.plan import Phase
from labctl.simulators.neware_bts.position import Condition, Position
from labctl.simulators.neware_bts.rows import LayerTable, Rows, join_layers, join_rows, layers_of
from labctl.simulators.neware_bts.timeline import Timeline, tail_rows

LOG_STARTED, LOG_FINISHED = 100000, 100001


class History:
    """Starts with no legs run; :meth:`run` takes up those of ``test`` one after the other.

    ``shown`` is the last record that can be seen of the last leg.
    """

    def __init__(
        self, test: Test, new_cell: Callable[[], SimulatedCell], keep: Callable[[Mark], None]
    ) -> None:
        self.test = test
        self.shown = 0
        self.files: list[StepFile] = []
        self.timelines: list[Timeline] = []
        self._new_cell = new_cell
        self._keep = keep

    @property
    def leg(self) -> Leg:
        return self.test.legs[-1]

    @property
    def timeline(self) -> Timeline:
        return self.timelines[-1]

    @property
    def file(self) -> StepFile:
        return self.files[-1]

    def run(self, leg: Leg, file: StepFile, marks: Sequence[Mark] = ()) -> None:
        """Begin to simulate a leg, from its start or from the last of its marks."""
        timeline = Timeline(self.test.test_id, leg, file, self._new_cell, marks, self._keep)
        self.files.append(file)
        self.timelines.append(timeline)
        if leg.cut is not None or leg.number + 1 < len(self.test.legs):
            timeline.extend_beyond(self._last_own(leg.number) - 1)

    def run_again(self, leg: Leg, marks: Sequence[Mark]) -> None:
        """Simulate the last leg anew from its marks, because what follows them has changed."""
        self.timelines.pop()
        self.run(leg, self.files.pop(), marks)

    @property
    def is_over(self) -> bool:
        """True when the last leg has come to its end, of itself or by a cut."""
        if self.leg.cut is not None:
            return True
        return self.timeline.ended and self.shown >= self.timeline.made

    @property
    def condition(self) -> Condition:
        if self.leg.cut is not None:
            return self.leg.cut.condition
        return self.timeline.head.condition if self.is_over else Condition.WORKING

    @property
    def count(self) -> int:
        """How many records can be seen."""
        return self.shown if self.leg.cut is None else self.leg.cut.position.seq - 1

    @property
    def end(self) -> tuple[Position, bytes]:
        """Where a test stands that is over, as a copy, and the state of its cell."""
        if self.leg.cut is not None:
            return self.leg.cut.position.copy(), self.leg.cut.cell
        return self.timeline.head.copy(), self.timeline.head_cell()

    @property
    def end_unix_s(self) -> float:
        """When a test that is over came to its end."""
        cut = self.leg.cut
        position = self.timeline.head if cut is None else cut.position
        return self.leg.unix_offset_s + position.test_time_s

    def cut_at(self, test_time_s: float | None) -> Cut:
        """What is left if the last leg is cut now; None is right after the last record shown."""
        if self.is_over:
            position, cell = self.end
            tail = None
        elif test_time_s is None:
            position, cell = self.timeline.cut_after(self.shown)
            tail = None
        else:
            position, cell, tail = self.timeline.cut_at(test_time_s, self.shown)
        return Cut(Condition.STOP, self.shown, tail, position, cell)

    def parts(self, first: int, last: int) -> Iterator[tuple[int, Rows]]:
        """The records ``first`` to ``last`` that can be seen, each part with the leg's number."""
        for place, leg in enumerate(self.test.legs):
            own_last = self._last_own(place)
            if leg.position.seq <= last and own_last >= first:
                yield place, self.timelines[place].rows(first, min(last, own_last))
            if leg.cut is not None and leg.cut.tail is not None and first <= own_last + 1 <= last:
                yield place, tail_rows(own_last + 1, leg.cut.tail)

    def rows(self, first: int, last: int) -> Rows:
        return join_rows([rows for _, rows in self.parts(first, last)])

    def layers(self) -> LayerTable:
        """Every visit to a step, as far as it can be seen."""
        tables = []
        for place, leg in enumerate(self.test.legs):
            tables.append(self.timelines[place].layers(self._last_own(place)))
            if leg.cut is not None and leg.cut.tail is not None:
                tables.append(layers_of(tail_rows(leg.cut.last_seq + 1, leg.cut.tail)))
        return join_layers(tables)

    def log(self) -> tuple[int, list[tuple[int, int, float]]]:
        """The test's number, and what happened to it: record, code, unix time in s."""
        entries = [(1, LOG_STARTED, self.test.legs[0].unix_offset_s)]
        if self.condition is Condition.FINISH:
            entries.append((self.count, LOG_FINISHED, self.end_unix_s))
        return self.test.test_id, entries

    def marks_within(self, visit: int) -> list[Mark]:
        """Those of the last leg that lie before what is shown, and before the end of a visit."""
        return [
            mark
            for mark in self.timeline.marks[1:]
            if mark.position.seq <= self.shown
            and (mark.position.visit < visit or mark.position.phase is not Phase.NOT_ENTERED)
        ]

    def older_marks(self) -> list[Mark]:
        """Those of all legs but the last."""
        return [mark for timeline in self.timelines[:-1] for mark in timeline.marks[1:]]

    def _last_own(self, place: int) -> int:
        """The last record of a leg, without the one made when it was cut."""
        legs = self.test.legs
        cut = legs[place].cut
        if cut is not None:
            return cut.last_seq
        return legs[place + 1].position.seq - 1 if place + 1 < len(legs) else self.shown
