"""A constant power: the current is the power by the voltage, so the lower limit bounds it."""

from __future__ import annotations

import math

from labctl.program import ConstantPower
from labctl.protocols.techniques.base import Bench
from labctl.protocols.techniques.ends import Ends, Made, bounded, expected_s
from labctl.protocols.written import Written
from labctl.units import Amount, Kind, format_quantity


def build_power(
    load: Written[Amount],
    ends: Ends,
    max_current: Written[Amount] | None,
    bench: Bench,
    *,
    charging: bool,
) -> Made | None:
    """The control and its bounds; None with what is wrong noted."""
    power_W = bench.watts(load)
    low_V, high_V = bench.voltage_min_V, bench.voltage_max_V
    low = format_quantity(low_V, Kind.VOLTAGE)
    sign = 1 if charging else -1
    if high_V <= 0 or (low_V <= 0 and max_current is None):
        bench.note(
            load.text,
            f"{load} can be any current where the voltage limits reach down to {low}",
            "write 'max_current', or a narrower 'voltage' under 'limits'",
        )
        return None
    if max_current is None:
        largest_A = float(f"{power_W / low_V:.12g}")
        bench.check_current(load, sign * largest_A, f" at {low}")
    else:
        largest_A = bench.amperes(max_current)
        if math.isnan(largest_A):
            return None
        bench.check_current(max_current, sign * largest_A)
    least_A = power_W / high_V
    if largest_A <= least_A:
        high = format_quantity(high_V, Kind.VOLTAGE)
        bench.note(
            max_current.text if max_current else load.text,
            f"{load} is {format_quantity(least_A, Kind.CURRENT, digits=4)} at {high} and more "
            f"below: with {max_current} it is never reached",
            "write a larger 'max_current'",
        )
    bench.last_current_A = sign * largest_A
    middle_V = (max(low_V, 0.0) + high_V) / 2
    return Made(
        ConstantPower(sign * power_W, largest_A),
        bounded(ends, load, least_A, bench),
        expected_s(ends, power_W / middle_V, bench),
    )
