"""Compiles the core and fills its cache: ``python -m labctl.simulators.cells.compile``.

A fresh machine calls it once; afterwards a process loads the core from the cache.
"""

from __future__ import annotations

import time

import numpy as np

from labctl.simulators.cells.build import build_cell
from labctl.simulators.cells.interface import Control, Recorder, Until
from labctl.simulators.cells.spec import CellSpec


def warm() -> float:
    """Compiles or loads all that a cell can be asked; gives the seconds that it took."""
    begun = time.perf_counter()
    cell = build_cell(CellSpec(name="warm", material="HE-V", active_mass_g=2e-3))
    cell.advance(Control.CURRENT, 4e-5, 1.0, until=Until(), recorder=Recorder(every_s=0.5))
    cell.voltage_V()
    cell.impedance(np.array([1.0]))
    return time.perf_counter() - begun


def main() -> None:
    """Says how long it took."""
    print(f"the simulated cells' core is ready after {warm():.1f} s")  # noqa: T201


if __name__ == "__main__":
    main()
