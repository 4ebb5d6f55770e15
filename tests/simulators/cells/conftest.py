"""Ways to handle simulated cells in tests."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from labctl.simulators.cells import Anode, CellSpec, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, Trace, Until

MASS_G = 2e-3
ONE_C_A = 0.1 * MASS_G

Make = Callable[..., ModelCell]
Run = Callable[..., Trace]


@pytest.fixture
def make() -> Make:
    """make("HE-V") is a nominal cell of 2 mg."""

    def build(
        material: str = "HE-V", *, seed: int = 0, scatter: float = 0.0, anode: Anode | None = None
    ) -> ModelCell:
        return build_cell(
            CellSpec(
                name="cell",
                material=material,
                active_mass_g=MASS_G,
                seed=seed,
                scatter=scatter,
                anode=anode,
            )
        )

    return build


@pytest.fixture
def constant_current() -> Run:
    """constant_current(cell, rate, until_V) charges (rate > 0) or discharges to a voltage."""

    def run(
        cell: ModelCell,
        rate: float,
        until_V: float,
        voltage_change_V: float = math.inf,
        every_s: float = math.inf,
    ) -> Trace:
        until = Until(voltage_at_least_V=until_V) if rate > 0 else Until(voltage_at_most_V=until_V)
        recorder = Recorder(voltage_change_V=voltage_change_V, every_s=every_s)
        return cell.advance(Control.CURRENT, rate * ONE_C_A, 1e7, until=until, recorder=recorder)

    return run
