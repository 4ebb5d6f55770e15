"""Why BTS cannot run a Program: one sentence, or the end of one, for each reason. No I/O.

MAX_STEPS, MAX_LOOP_COUNT, MAX_NESTING and MAX_STEP_TIME_S are what data sheets of the CT-4000
series give, from memory: to be verified.
"""

from __future__ import annotations

import math

from labctl.drivers.base import Capabilities
from labctl.program import Limits, Loop, Node, Step

MAX_STEPS = 254
MAX_LOOP_COUNT = 65_535
MAX_NESTING = 3
MAX_STEP_TIME_S = 365 * 24 * 3600.0


def refusals_of_limits(
    limits: Limits, capabilities: Capabilities, temperature_watched_elsewhere: bool
) -> list[str]:
    reasons = [
        f"the limit {name} is {value}: a step file holds only finite numbers"
        for name, value in (
            ("voltage_min_V", limits.voltage_min_V),
            ("voltage_max_V", limits.voltage_max_V),
            ("current_min_A", limits.current_min_A),
            ("current_max_A", limits.current_max_A),
            ("step_charge_max_Ah", limits.step_charge_max_Ah),
        )
        if not math.isfinite(value)
    ]
    reasons += [
        f"the voltage limit {value:g} V is outside what the channel sees, {_window(capabilities)}"
        for value in (limits.voltage_min_V, limits.voltage_max_V)
        if math.isfinite(value) and not _in_window(value, capabilities)
    ]
    if not limits.voltage_min_V < limits.voltage_max_V:
        reasons.append("the voltage limits leave no room between them")
    if not limits.current_min_A <= 0 <= limits.current_max_A:
        reasons.append("the current limits do not allow 0 A, so a rest would trip them")
    if limits.step_charge_max_Ah <= 0:
        reasons.append("the limit step_charge_max_Ah must be above 0")
    temperatures = (limits.temperature_min_degC, limits.temperature_max_degC)
    if any(math.isfinite(value) for value in temperatures) and not temperature_watched_elsewhere:
        reasons.append(
            f"the temperature limits {temperatures[0]:g} to {temperatures[1]:g} degC cannot be "
            "watched by the channel: leave them out, or set temperature_watched_elsewhere for an "
            "instrument in a chamber with a protection of its own"
        )
    return reasons


def refusals_of_loops(body: tuple[Node, ...], depth: int = 1) -> list[str]:
    reasons: list[str] = []
    for node in body:
        if not isinstance(node, Loop):
            continue
        if not 1 <= node.count <= MAX_LOOP_COUNT:
            reasons.append(
                f"a loop of {node.count} passes: a step file holds 1 to {MAX_LOOP_COUNT}"
            )
        if depth > MAX_NESTING:
            reasons.append(f"loops are nested {depth} deep, a step file holds {MAX_NESTING}")
        if not _has_steps(node.body):
            reasons.append("a loop has no steps in it")
        reasons += refusals_of_loops(node.body, depth + 1)
    return reasons


def _has_steps(body: tuple[Node, ...]) -> bool:
    return any(isinstance(node, Step) or _has_steps(node.body) for node in body)


def refusals_of_current(
    current_A: float, direction: int, limits: Limits, capabilities: Capabilities
) -> list[str]:
    largest_A = max(current.full_scale_A for current in capabilities.current_ranges)
    smallest_A = min(current.resolution_A for current in capabilities.current_ranges)
    limit_A = limits.current_max_A if direction > 0 else -limits.current_min_A
    if not smallest_A <= current_A <= largest_A:
        return [f"sets {current_A:g} A, and the channel can do {smallest_A:g} A to {largest_A:g} A"]
    if current_A > limit_A:
        return [f"sets {current_A:g} A, beyond the run's own limit of {limit_A:g} A"]
    return []


def refusals_of_voltage(
    verb: str, voltage_V: float, limits: Limits, capabilities: Capabilities
) -> list[str]:
    if not _in_window(voltage_V, capabilities):
        return [f"{verb} {voltage_V:g} V, and the channel can do {_window(capabilities)}"]
    if not limits.voltage_min_V <= voltage_V <= limits.voltage_max_V:
        window = f"{limits.voltage_min_V:g} V to {limits.voltage_max_V:g} V"
        return [f"{verb} {voltage_V:g} V, outside the run's own limits {window}"]
    return []


def _in_window(voltage_V: float, capabilities: Capabilities) -> bool:
    return capabilities.voltage_min_V <= voltage_V <= capabilities.voltage_max_V


def _window(capabilities: Capabilities) -> str:
    return f"{capabilities.voltage_min_V:g} V to {capabilities.voltage_max_V:g} V"
