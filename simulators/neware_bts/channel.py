"""One channel of the rack: what it does when it is asked, told, or left alone.

In virtual time a running test moves on only when records are asked for that it has not made yet. In
real time it follows the rack's clock. Either way the records are the same; only how many of them
can be seen differs. What changes a test is on the disk before anybody is told.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from labctl.drivers.neware_bts.stepfile import StepFile
from labctl.errors import ConfigError, Problem
from labctl.simulators.cells.interface import Control, Recorder, SimulatedCell, Until
from labctl.simulators.neware_bts.history import History
from labctl.simulators.neware_bts.instrument import Instrument
from labctl.simulators.neware_bts.persist import (
    VERSION,
    ChannelFiles,
    ChannelRecord,
    Leg,
    Mark,
    Test,
)
from labctl.simulators.neware_bts.position import Condition, Position
from labctl.simulators.neware_bts.rows import join_layers, join_rows
from labctl.simulators.neware_bts.shown import Download, Layers, Look, Meter
from labctl.simulators.neware_bts.steps import read_runnable

logger = logging.getLogger(__name__)

MAX_ROWS = 1000
FARTHEST_AHEAD = 100_000
"""Virtual time does not run on for a reader who asks for records further ahead than this."""
LONGEST_RELAXATION_S = 30 * 86400.0

BUSY = {Condition.WORKING, Condition.PAUSE}


class Channel:
    """Every public method may be called from any thread; they take turns.

    ``now_unix_s`` is the rack's clock; None is virtual time. ``assemble`` builds the cell out of
    what it is built of then, as long as no test has been on it; None where nothing changes it.
    """

    def __init__(
        self,
        name: str,
        instrument: Instrument,
        new_cell: Callable[[], SimulatedCell],
        cell_key: str,
        files: ChannelFiles,
        *,
        epoch_unix_s: float,
        now_unix_s: Callable[[], float] | None,
        assemble: Callable[[], SimulatedCell] | None = None,
    ) -> None:
        self.name = name
        self._assemble = assemble
        self.light_on = False
        self._lock = threading.Lock()
        self._meter = Meter(instrument)
        self._new_cell = new_cell
        self._cell_key = cell_key
        self._files = files
        self._epoch_unix_s = epoch_unix_s
        self._now_unix_s = now_unix_s
        self._flag_cleared_of = 0
        self._idle_cell: SimulatedCell | None = None
        self._idle_since_s = 0.0
        self._last_test_id = 0
        self._history: History | None = None
        self._restore()

    def close(self) -> None:
        with self._lock:
            self._files.close()

    def condition(self) -> Condition:
        with self._lock:
            self._follow()
            return self._condition()

    def look(self) -> Look:
        with self._lock:
            self._follow()
            return self._meter.frozen_look(self._look())

    def taken_apart(self) -> SimulatedCell | None:
        """The cell, if it could be taken out now; None while a test is on it."""
        with self._lock:
            self._follow()
            return None if self._condition() in BUSY else self._resting()

    def freeze(self, frozen: bool) -> None:
        """While frozen, readings keep the voltage and current that they have now."""
        with self._lock:
            if frozen != self._meter.is_frozen:
                self._follow()
                self._meter.freeze(self._look() if frozen else None)

    def extent(self) -> tuple[int, int, bool]:
        """Number of the last test, how many records it has, and whether it is complete."""
        with self._lock:
            self._follow()
            count = 0 if self._history is None else self._history.count
            return self._last_test_id, count, self._condition() not in BUSY

    def download(self, test_id: int, first: int, count: int) -> Download:
        """Records from ``first`` on, at most 1000; ``test_id`` 0 is the last test.

        In virtual time the test runs on until these records exist.
        """
        with self._lock:
            self._follow()
            history = self._history
            if history is None or test_id not in {0, history.test.test_id}:
                return self._meter.download(test_id, [])
            first = max(1, first)
            last = first + min(count, MAX_ROWS) - 1
            if self._now_unix_s is None and first <= history.shown + FARTHEST_AHEAD:
                self._show(history, last)
            parts = [
                (history.files[place], history.test.legs[place].unix_offset_s, rows)
                for place, rows in history.parts(first, min(last, history.count))
            ]
            return self._meter.download(history.test.test_id, parts)

    def read_ahead(self) -> None:
        """In virtual time, make the records that a reader who reads on will ask for next.

        Nothing of them is seen, and nothing that is told depends on it.
        """
        with self._lock:
            history = self._history
            if self._now_unix_s is None and history is not None and history.leg.cut is None:
                history.timeline.extend_beyond(history.shown + MAX_ROWS)

    def layers(self) -> Layers:
        """Every visit to a step of the last test so far."""
        with self._lock:
            self._follow()
            history = self._history
            if history is None:
                return self._meter.layers(0, [], [], join_layers([]))
            return self._meter.layers(
                history.test.test_id, history.files, history.test.legs, history.layers()
            )

    def log(self) -> tuple[int, list[tuple[int, int, float]]]:
        """The last test, and its log: record, code, unix time in s."""
        with self._lock:
            self._follow()
            return (0, []) if self._history is None else self._history.log()

    def start(self, file: bytes, barcode: str) -> bool:
        """Begin a test; false if the channel is busy or would not run the file."""
        with self._lock:
            self._follow()
            if self._condition() in BUSY:
                return False
            steps = read_runnable(file)
            if isinstance(steps, str):
                logger.warning("channel %s refuses a step file: %s", self.name, steps)
                return False
            cell = self._resting().state()
            leg = Leg(0, file, Position(), cell, self._present_unix_s())
            test = Test(self._last_test_id + 1, barcode, (leg,))
            self._write(test)
            self._files.replace_marks([])
            self._last_test_id = test.test_id
            self._history = History(test, self._new_cell, self._files.add_mark)
            self._run(self._history, leg, steps)
            if self._now_unix_s is None:
                self._show(self._history, 1)
            return True

    def stop(self) -> bool:
        """Output off; false if no test is running or paused."""
        with self._lock:
            history = self._busy()
            if history is None:
                return False
            self._cut(history, Condition.STOP)
            return True

    def resume(self) -> bool:
        """Go on after a pause or a stop."""
        with self._lock:
            self._follow()
            history = self._history
            if history is None or history.condition not in {Condition.PAUSE, Condition.STOP}:
                return False
            self._go_on(history, history.end[0])
            return True

    def goto(self, step: int) -> bool:
        """Leave the step that runs and enter another one of the file."""
        with self._lock:
            history = self._busy()
            if history is None or not 1 <= step <= len(history.file.steps):
                return False
            self._cut(history, Condition.PAUSE)
            position = history.end[0]
            position.go_to(step, history.file)
            self._go_on(history, position)
            return True

    def change_file(self, file: bytes) -> bool:
        """Go on in the same step of another file, which must be of the same type there."""
        with self._lock:
            history = self._busy()
            steps = read_runnable(file)
            if history is None or isinstance(steps, str):
                return False
            at = history.cut_at(self._test_time_s(history)).position.step
            if at > len(steps.steps) or steps.steps[at - 1].type is not (
                history.file.steps[at - 1].type
            ):
                return False
            self._cut(history, Condition.PAUSE)
            self._go_on(history, history.end[0], file, steps)
            return True

    def reserve_pause(self, reserved: bool) -> bool:
        """Pause when the step that runs now has ended, or do not."""
        with self._lock:
            history = self._busy()
            if history is None or history.condition is not Condition.WORKING:
                return False
            shown = history.rows(history.shown, history.shown)
            if not len(shown):
                return False
            visit = int(shown.visit[0])
            leg = msgspec.structs.replace(history.leg, pause_after_visit=visit if reserved else 0)
            marks = history.marks_within(visit)
            self._replace_last_leg(history, leg)
            self._files.replace_marks([*history.older_marks(), *marks])
            history.run_again(leg, marks)
            self._look_ahead(history)
            return True

    def pause_is_reserved(self) -> bool:
        with self._lock:
            self._follow()
            if self._history is None or self._condition() is not Condition.WORKING:
                return False
            return self._history.leg.pause_after_visit > 0

    def clear_flag(self) -> bool:
        """Take note of a protection; false if there is none to take note of."""
        with self._lock:
            self._follow()
            cleared = self._flag_cleared_of == self._last_test_id
            if self._condition() is not Condition.PROTECT or cleared:
                return False
            self._flag_cleared_of = self._last_test_id
            return True

    def _restore(self) -> None:
        record = self._files.read()
        if record is None:
            return
        self._last_test_id = record.last_test_id
        if record.cell != self._cell_key:
            logger.warning("channel %s holds another cell than before: a new one", self.name)
            return
        if record.test is None:
            return
        history = History(record.test, self._new_cell, self._files.add_mark)
        marks = self._files.read_marks(record.test.test_id)
        for leg in record.test.legs:
            steps = read_runnable(leg.file)
            if isinstance(steps, str):
                message = f"channel {self.name}: the step file of its test is refused: {steps}"
                raise ConfigError([Problem(message)])
            history.shown = leg.position.seq - 1
            self._run(history, leg, steps, [mark for mark in marks if mark.leg == leg.number])
        self._history = history
        if self._now_unix_s is None:
            self._show(history, max(1, self._files.read_shown(record.test.test_id)))
        elif history.leg.cut is not None:
            history.shown = history.leg.cut.last_seq

    def _condition(self) -> Condition:
        return Condition.FINISH if self._history is None else self._history.condition

    def _busy(self) -> History | None:
        """The test that is running or paused now."""
        self._follow()
        history = self._history
        return history if history is not None and history.condition in BUSY else None

    def _run(
        self, history: History, leg: Leg, file: StepFile, marks: list[Mark] | None = None
    ) -> None:
        self._idle_cell = None
        history.run(leg, file, marks or [])
        self._look_ahead(history)

    def _look_ahead(self, history: History) -> None:
        """In virtual time, find out whether what is shown is all that will ever come."""
        if self._now_unix_s is None and history.leg.cut is None:
            history.timeline.extend_beyond(history.shown)

    def _follow(self) -> None:
        """In real time, let a running test come to the present."""
        history = self._history
        if self._now_unix_s is None or history is None or history.is_over:
            return
        test_time_s = self._now_unix_s() - history.leg.unix_offset_s
        history.timeline.extend_past(test_time_s)
        history.shown = max(history.shown, history.timeline.seq_at(test_time_s))

    def _show(self, history: History, seq: int) -> None:
        """In virtual time, let a running test come to a record."""
        if history.leg.cut is not None:
            history.shown = history.leg.cut.last_seq
            return
        history.timeline.extend_beyond(seq)
        reached = min(seq, history.timeline.made)
        if reached > history.shown:
            history.shown = reached
            self._files.write_shown(history.test.test_id, reached)

    def _cut(self, history: History, condition: Condition) -> None:
        leg = history.leg
        cut = leg.cut or history.cut_at(self._test_time_s(history))
        cut = msgspec.structs.replace(cut, condition=condition)
        self._replace_last_leg(history, msgspec.structs.replace(leg, cut=cut))
        self._idle_cell = None

    def _replace_last_leg(self, history: History, leg: Leg) -> None:
        test = msgspec.structs.replace(history.test, legs=(*history.test.legs[:-1], leg))
        self._write(test)
        history.test = test

    def _go_on(
        self,
        history: History,
        position: Position,
        data: bytes = b"",
        file: StepFile | None = None,
    ) -> None:
        """Begin a new leg at a position, with another file if one is given."""
        position.condition = Condition.WORKING
        leg = Leg(
            history.leg.number + 1,
            data or history.leg.file,
            position,
            self._resting().state(),
            self._present_unix_s() - position.test_time_s,
        )
        test = msgspec.structs.replace(history.test, legs=(*history.test.legs, leg))
        self._write(test)
        history.test = test
        history.shown = position.seq - 1
        self._run(history, leg, file or history.file)

    def _write(self, test: Test) -> None:
        self._files.write(ChannelRecord(VERSION, self._cell_key, test.test_id, test))

    def _test_time_s(self, history: History) -> float | None:
        """How far a test has come by the clock; None in virtual time."""
        if self._now_unix_s is None:
            return None
        return self._now_unix_s() - history.leg.unix_offset_s

    def _present_unix_s(self) -> float:
        if self._now_unix_s is not None:
            return self._now_unix_s()
        return self._epoch_unix_s if self._history is None else self._history.end_unix_s

    def _resting(self) -> SimulatedCell:
        """The cell of a channel whose output is open, as it is now."""
        if self._history is None and self._assemble is not None:
            self._idle_cell = self._assemble()
        if self._idle_cell is None:
            self._idle_cell = self._new_cell()
            if self._history is not None:
                self._idle_cell.restore(self._history.end[1])
                self._idle_since_s = self._history.end_unix_s
        if self._now_unix_s is not None and self._history is not None:
            rested_s = self._now_unix_s() - self._idle_since_s
            if rested_s >= 1.0:
                self._idle_cell.advance(
                    Control.REST,
                    0.0,
                    min(rested_s, LONGEST_RELAXATION_S),
                    until=Until(),
                    recorder=Recorder(),
                )
                self._idle_since_s += rested_s
        return self._idle_cell

    def _look(self) -> Look:
        history = self._history
        if history is not None and history.condition is Condition.WORKING:
            around = history.rows(history.shown, history.shown)
            test_time_s = self._test_time_s(history)
            if test_time_s is not None:
                following = history.timeline.rows(history.shown + 1, history.shown + 1)
                around = join_rows([around, following])
            return self._meter.look(
                self._last_test_id, history.test.barcode, history.file, around, test_time_s
            )
        moment = 0 if self._now_unix_s is None else int(self._now_unix_s())
        voltage_V = self._meter.idle_V(self._last_test_id, self._resting().voltage_V(), moment)
        if history is None:
            return Look(Condition.FINISH, "", voltage_V=voltage_V)
        if history.condition is Condition.PAUSE:
            return Look.paused(history.test.barcode, history.file, history.end[0], voltage_V)
        return Look(history.condition, history.test.barcode, voltage_V=voltage_V)
