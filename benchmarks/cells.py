"""How fast the simulated cells live: ``python benchmarks/cells.py [cycles]``.

10,000 cycles at 50C with about 200 records a cycle on one core, compile time apart; then the cost
of a record against history, and of the small calls of an onboard cycler.
"""

from __future__ import annotations

import sys
import time

from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.compile import warm
from labctl.simulators.cells.interface import Control, Recorder, Until

MASS_G = 2e-3
CURRENT_A = 50.0 * 0.1 * MASS_G
HALVES = ((1, Until(voltage_at_least_V=4.1)), (-1, Until(voltage_at_most_V=1.5)))


def cycles(cell: ModelCell, count: int) -> tuple[int, float]:
    """Records made in so many cycles at 50C, and the last discharge in Ah."""
    records, charge_Ah = 0, 0.0
    for _ in range(count):
        for sign, until in HALVES:
            trace = cell.advance(
                Control.CURRENT,
                sign * CURRENT_A,
                1e6,
                until=until,
                recorder=Recorder(every_s=0.62),
            )
            records += len(trace.time_s)
            charge_Ah = trace.end_charge_Ah
    return records, -charge_Ah


def main() -> None:
    """Prints what was measured."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"compile or load: {warm():.2f} s")
    cell = build_cell(CellSpec(name="b", material="HE-V", active_mass_g=MASS_G, scatter=0.0))
    _, first_Ah = cycles(cell, 2)
    total_s, total = 0.0, 0
    for tenth in range(10):
        begun = time.perf_counter()
        records, charge_Ah = cycles(cell, count // 10)
        took_s = time.perf_counter() - begun
        total_s += took_s
        total += records
        print(
            f"cycle {(tenth + 1) * (count // 10):6d}: {took_s / records * 1e6:5.2f} us a record, "
            f"retention {charge_Ah / first_Ah:.4f}"
        )
    print(f"{count} cycles at 50C, {total} records: {total_s:.2f} s")
    recorder = Recorder(every_s=1.0)
    begun = time.perf_counter()
    for _ in range(10_000):
        cell.advance(Control.REST, 0.0, 0.1, until=Until(), recorder=recorder)
    print(f"a call of 0.1 s: {(time.perf_counter() - begun) / 10_000 * 1e6:.1f} us")


if __name__ == "__main__":
    main()
