"""A resistor across the cell: the current is the voltage by the resistance."""

from __future__ import annotations

import math

from labctl.program import ConstantResistance
from labctl.protocols.techniques.base import Bench
from labctl.protocols.techniques.ends import Ends, Made, bounded, expected_s
from labctl.protocols.written import Written
from labctl.units import Amount, Kind, format_quantity


def build_resistance(
    load: Written[Amount], ends: Ends, max_current: Written[Amount] | None, bench: Bench
) -> Made | None:
    """The control and its bounds; None with what is wrong noted."""
    resistance_ohm = load.value.value
    high_V = bench.voltage_max_V
    if high_V <= 0:
        bench.note(load.text, "a cell of negative voltage does not discharge into a resistor")
        return None
    if max_current is None:
        largest_A = float(f"{high_V / resistance_ohm:.12g}")
        bench.check_current(load, -largest_A, f" at {format_quantity(high_V, Kind.VOLTAGE)}")
    else:
        largest_A = bench.amperes(max_current)
        if math.isnan(largest_A):
            return None
        bench.check_current(max_current, -largest_A)
    lowest_V = ends.voltage.value.value if ends.voltage else bench.voltage_min_V
    least_A = min(max(lowest_V, 0.0) / resistance_ohm, largest_A)
    bench.last_current_A = -largest_A
    middle_V = (max(lowest_V, 0.0) + high_V) / 2
    return Made(
        ConstantResistance(resistance_ohm, largest_A),
        bounded(ends, load, least_A, bench),
        expected_s(ends, middle_V / resistance_ohm, bench),
    )
