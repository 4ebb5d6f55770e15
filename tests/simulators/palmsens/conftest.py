"""Scripts run on a simulated potentiostat without a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labctl.simulators.cells import build_cell
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.keithley.loads import Resistor
from labctl.simulators.palmsens.device import Potentiostat
from labctl.simulators.palmsens.interpreter import Interpreter
from labctl.simulators.palmsens.language import parse
from labctl.simulators.palmsens.models import MODELS


class Run:
    """What came of a script."""

    def __init__(self, device: Potentiostat, written: list[str]) -> None:
        self.device = device
        self.written = written
        self.packages = [line for line in written if line.startswith("P")]


@pytest.fixture
def run_script() -> Callable[..., Run]:
    """Runs a script to its end, on a resistor of 1 kohm unless told otherwise."""

    def run(
        script: str,
        *,
        model: str = "EmStat4S HR",
        ohm: float = 1000.0,
        cell: CellSpec | None = None,
        device: Potentiostat | None = None,
        meanwhile: Callable[[Interpreter, list[str]], Any] = lambda *_: None,
    ) -> Run:
        if device is None:
            load = Resistor(ohm) if cell is None else build_cell(cell)
            device = Potentiostat(MODELS[model], load, seed=1, scale=0.0)
        lines = [line for line in script.splitlines() if line.strip()]
        interpreter = Interpreter(parse(lines), device)
        written: list[str] = []
        for _ in interpreter.run():
            written += interpreter.take_written()
            meanwhile(interpreter, written)
        written += interpreter.take_written()
        return Run(device, written)

    return run
