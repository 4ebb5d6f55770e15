"""A SourceMeter without its wire, in the hand of a test: time passes only when the test says so."""

from __future__ import annotations

from labctl.simulators.cells.interface import SimulatedCell
from labctl.simulators.faults import Fault, FaultBoard
from labctl.simulators.keithley.commands import Interpreter
from labctl.simulators.keithley.electronics import Electronics
from labctl.simulators.keithley.instrument import Identity, Smu
from labctl.simulators.keithley.loads import Resistor
from labctl.simulators.keithley.models import MODELS
from labctl.simulators.keithley.server import TABLE

EMPTY = '0,"No error;0;0 0"'


class SourceMeter:
    """``load`` is a resistance in ohm or a cell. ``errors`` 0 is a perfect instrument."""

    def __init__(
        self,
        load: float | SimulatedCell = 1000.0,
        *,
        model: str = "2450",
        errors: float = 0.0,
        faults: tuple[Fault, ...] = (),
    ) -> None:
        self.smu = Smu(
            Identity(model, "04419969", "1.7.12b"),
            MODELS[model],
            Resistor(load) if isinstance(load, float) else load,
            Electronics(1, errors),
            FaultBoard(faults),
            line_Hz=50.0,
            epoch_unix_s=1_800_000_000.0,
        )
        self._interpreter = Interpreter(self.smu, TABLE)

    def raw(self, line: str) -> bytes:
        """Carry out a line, with the time that it takes; what is answered."""
        work = self._interpreter.run(line)
        try:
            while True:
                self.smu.run_to(self.smu.now_s + next(work))
        except StopIteration as done:
            answer: bytes = done.value
            return answer

    def say(self, *lines: str) -> str:
        """Carry out lines; what the last one is answered with."""
        answer = b""
        for line in lines:
            answer = self.raw(line)
        return answer.decode()

    def number(self, query: str) -> float:
        return float(self.say(query))

    def error(self) -> int:
        """The number of the oldest error, which is taken out of the log."""
        return int(self.say(":SYST:ERR?").split(",")[0])

    def good(self, *lines: str) -> str:
        """:meth:`say`, and see that nothing was wrong with it."""
        answer = self.say(*lines)
        assert self.say(":SYST:ERR?") == EMPTY
        return answer

    def wait(self, duration_s: float) -> None:
        self.smu.run_to(self.smu.now_s + duration_s)
