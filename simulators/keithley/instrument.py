"""One SourceMeter: its settings, its output, its buffers and its trigger model, in its own time.

Time is a number that is moved on from outside, by a clock or by a time port. While a measurement is
made time goes on too, by how long it takes: NPLC over the line frequency, twice where the source is
read back, twice where the zero is corrected each time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from labctl.simulators.cells.interface import SimulatedCell
from labctl.simulators.faults import FaultBoard
from labctl.simulators.keithley.buffers import DEFAULT_BUFFERS, DEFAULT_SIZE, Buffer, Row
from labctl.simulators.keithley.electronics import OVERFLOW, Electronics
from labctl.simulators.keithley.errors import INFORMATION, EventLog, ScpiError
from labctl.simulators.keithley.models import OVERRANGE, Model, range_for
from labctl.simulators.keithley.output import Output, SourceSettings, default_source
from labctl.simulators.keithley.status import Status
from labctl.simulators.keithley.trigger import TriggerModel

CONVERSION_S: Final = 2e-4
"""What every reading takes besides its apertures."""

FRONT_TERMINALS: Final = 0x8
SOURCE_LIMITED: Final = 0x8
SOURCE_FOUR_WIRE: Final = 0x10
SOURCE_ON: Final = 0x20
SOURCE_READ_BACK: Final = 0x2
SOURCE_PROTECTED: Final = 0x1
LIMIT_SHARE: Final = 1e-3
"""A limit must be above this share of a fixed range that measures it."""

Setup = tuple[dict[str, Any], tuple[str, dict[str, SourceSettings], float]]
"""What ``*SAV`` keeps: settings by their names, and function, sources and protection of the source.
"""

UNIT_WORDS: Final = {"VOLT": "VOLT", "CURR": "AMP", "RES": "OHM"}


@dataclass(slots=True)
class SenseSettings:
    """What is set for measuring one function."""

    full_scale: float
    unit: str
    auto_range: bool = True
    lower_limit: float = 0.0
    nplc: float = 1.0
    four_wire: bool = False
    autozero: bool = True
    averaging: bool = False
    average_count: int = 10
    average_kind: str = "REP"
    user_delays_s: list[float] = field(default_factory=lambda: [0.0] * 5)


@dataclass(slots=True)
class Line:
    """A digital line, in the words of ``:DIGital:LINE<n>:MODE``."""

    kind: str = "DIG"
    direction: str = "IN"
    high: bool = False


@dataclass(slots=True)
class Display:
    """What is set for the screen; nothing of it can be read but the settings."""

    light: str = "ON50"
    reading_format: str = "PREF"
    texts: dict[int, str] = field(default_factory=dict)
    digits: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    model: str
    serial: str
    firmware: str


class Smu:
    """A SourceMeter without its wire. ``epoch_unix_s`` is its clock when ``now_s`` is 0.

    ``off_state`` is the one that it is switched on with; a reset makes it NORMal.
    """

    def __init__(
        self,
        identity: Identity,
        model: Model,
        cell: SimulatedCell,
        electronics: Electronics,
        faults: FaultBoard,
        *,
        line_Hz: float,
        epoch_unix_s: float,
        now_s: float = 0.0,
        off_state: str = "NORM",
    ) -> None:
        self.identity = identity
        self.model = model
        self.cell = cell
        self.faults = faults
        self.log = EventLog()
        self.status = Status()
        self.log.heard = self.status.heard
        self.display = Display()
        self.setups: dict[int, Setup] = {}
        self.line_Hz = line_Hz
        self.now_s = now_s
        self.switched = 0
        """How many times the output was switched."""
        self.pulses: list[tuple[int, bool]] = []
        """What digital lines were set to, in order."""
        self._epoch_unix_s = epoch_unix_s
        self._electronics = electronics
        self._due_s: float | None = None
        self._program: Iterator[float] | None = None
        self._frozen: tuple[float, float] | None = None
        self.output = Output(model, electronics, cell, self.current_limit_range_A)
        self.trigger = TriggerModel()
        self.reset()
        self._come_up(off_state)

    def power_cycle(self, off_state: str) -> None:
        """Switched off and on: as at the very start, and its relays open whatever else is wrong."""
        self.log.clear()
        self.status = Status()
        self.log.heard = self.status.heard
        self.display = Display()
        self.abort()
        self.output.on = False
        self.reset()
        self._come_up(off_state)

    def _come_up(self, off_state: str) -> None:
        for source in self.output.sources.values():
            source.off_state = off_state
        self.output.settle()

    def reset(self) -> None:
        """``*RST``: the output off, everything as delivered."""
        self.abort()
        self.trigger = TriggerModel()
        self.senses = {
            name: SenseSettings(self.ranges(name)[0], UNIT_WORDS[name])
            for name in ("VOLT", "CURR", "RES")
        }
        self.sense_function = "CURR"
        self.sense_count = 1
        self.terminals = "FRON"
        self.precision = 0
        self.data_format = "ASC"
        self.swapped = True
        self.buffers = {
            name: Buffer(name, DEFAULT_SIZE, continuous=True) for name in DEFAULT_BUFFERS
        }
        self.active_buffer = DEFAULT_BUFFERS[0]
        self.lists: dict[str, list[tuple[str, SourceSettings]]] = {}
        self.list_at: dict[str, int] = {}
        self.listed: dict[str, list[float]] = {}
        self.lines = {number: Line() for number in range(1, 7)}
        self.output.function = "VOLT"
        self.output.sources = {name: default_source(self.model, name) for name in ("VOLT", "CURR")}
        self.output.protection_V = math.inf
        self.switch(on=False)

    @property
    def unix_time_s(self) -> float:
        return self._epoch_unix_s + self.now_s

    # Time

    def run_to(self, moment_s: float) -> None:
        """Live on to ``moment_s``; the trigger model runs meanwhile."""
        while self._program is not None:
            if self._due_s is None:
                passed_s = next(self._program, None)
                if passed_s is None:
                    self._program = None
                    break
                self._due_s = self.now_s + passed_s
            if self._due_s > moment_s:
                break
            self._move_to(self._due_s)
            self._due_s = None
        self._move_to(moment_s)

    @property
    def next_due_s(self) -> float | None:
        """When the trigger model goes on; None if it does not run."""
        if self._program is None:
            return None
        return self.now_s if self._due_s is None else self._due_s

    def _move_to(self, moment_s: float) -> None:
        if moment_s > self.now_s:
            self.output.advance(moment_s - self.now_s)
            self.now_s = moment_s

    # The trigger model

    def initiate(self) -> None:
        self._program = self.trigger.start()
        self._due_s = None
        self.run_to(self.now_s)

    def abort(self) -> None:
        self.trigger.abort()
        self._program, self._due_s = None, None

    def refuse_while_running(self) -> None:
        """Source and measure settings cannot be changed while the trigger model runs."""
        if self.trigger.active:
            raise ScpiError(-221, "the trigger model is running")

    # The output

    def switch(self, *, on: bool) -> None:
        if not on and self.output.on and self.faults.take("ignores_stop", "OUTP"):
            return
        if on != self.output.on:
            self.output.on = on
            self.switched += 1
        self.output.settle()

    def source_changed(self) -> None:
        """After any setting of the source."""
        self.output.settle()
        if self.output.limited:
            self.trigger.happened("SLIM")

    # Measuring

    @property
    def sense(self) -> SenseSettings:
        return self.senses[self.sense_function]

    def ranges(self, function: str) -> tuple[float, ...]:
        """Full scales that a function is measured in."""
        if function == "RES":
            return tuple(2.0 * 10**power for power in range(1, 9))
        return self.output.ranges(function)

    def current_limit_range_A(self) -> float:
        """The range that a current limit is set in."""
        sense = self.senses["CURR"]
        if not sense.auto_range:
            return sense.full_scale
        ranges = self.output.ranges("CURR")
        return range_for(self.output.sources["VOLT"].limit, ranges) or ranges[-1]

    def refuse_small_limit(self, limit: float, full_scale: float) -> None:
        if limit <= LIMIT_SHARE * full_scale:
            raise ScpiError(
                -222, f"a limit of {limit:g} is not above 0.1 % of the range {full_scale:g}"
            )

    def reading_s(self) -> float:
        """How long one reading takes."""
        sense = self.sense
        apertures = sense.nplc / self.line_Hz * (2 if sense.autozero else 1)
        if self.output.source.readback and self.sense_function != self.output.function:
            apertures *= 2
        times = sense.average_count if sense.averaging and sense.average_kind == "REP" else 1
        return apertures * times + CONVERSION_S

    def read(self) -> Row:
        """What is measured at this moment; the time that it takes is the caller's to let pass."""
        voltage_V, current_A = self._true()
        source_function = self.output.function
        read = {"VOLT": voltage_V, "CURR": current_A}
        if self.sense_function == "RES":
            volts = self._measured("VOLT", voltage_V)
            amperes = self._measured("CURR", current_A)
            reading = (
                OVERFLOW
                if OVERFLOW in (volts, amperes) or abs(amperes) < 1e-12
                else volts / amperes
            )
        else:
            reading = self._measured(self.sense_function, read[self.sense_function])
        source = self.output.source
        put_out = (
            self._measured(source_function, read[source_function])
            if source.readback
            else source.level
        )
        status = (
            SOURCE_PROTECTED * self.output.protecting
            + SOURCE_READ_BACK * source.readback
            + SOURCE_LIMITED * self.output.limited
            + SOURCE_FOUR_WIRE * self.sense.four_wire
            + SOURCE_ON * self.output.on
        )
        return Row(
            unix_time_s=self.unix_time_s,
            reading=reading,
            source=put_out,
            function=self.sense_function,
            source_function=source_function,
            status=FRONT_TERMINALS if self.terminals == "FRON" else 0,
            source_status=status,
        )

    def store(self, row: Row, name: str) -> None:
        buffer = self.buffer(name)
        if buffer.add(row):
            self.log.add(4917, self.unix_time_s, kind=INFORMATION, detail=name)

    def buffer(self, name: str) -> Buffer:
        found = self.buffers.get(name)
        if found is None:
            raise ScpiError(-224, f"there is no buffer {name[:40]}")
        return found

    def _true(self) -> tuple[float, float]:
        if self.faults.take("frozen", "READ"):
            if self._frozen is None:
                self._frozen = (self.output.voltage_V, self.output.current_A)
            return self._frozen
        self._frozen = None
        return self.output.voltage_V, self.output.current_A

    def _measured(self, function: str, true: float) -> float:
        ranges = self.output.ranges(function)
        sense = self.senses[function]
        if function == self.output.function:
            full_scale = self.output.full_scale(function)
        elif sense.auto_range:
            full_scale = range_for(true / OVERRANGE, ranges) or ranges[-1]
        else:
            full_scale = sense.full_scale
        return self._electronics.measured(function, true, full_scale, self.sense.nplc)
