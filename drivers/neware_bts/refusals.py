"""Why BTS cannot run a Program: one sentence, or the end of one, for each reason. No I/O.

MAX_STEPS, MAX_LOOP_COUNT, MAX_NESTING and MAX_STEP_TIME_S are what data sheets of the CT-4000
series give, from memory: to be verified.
"""

from __future__ import annotations

import math

from labctl.drivers.base import Capabilities
from labctl.program import (
    HOST_CONTROLS,
    Branch,
    Finish,
    Leave,
    Limits,
    Loop,
    Node,
    Step,
    inner_bodies,
    technique_of,
)

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
    """A loop of one pass takes no step in the file, and so does not count as nesting."""
    reasons: list[str] = []
    for node in body:
        if not isinstance(node, Loop):
            continue
        if not 1 <= node.count <= MAX_LOOP_COUNT:
            reasons.append(
                f"a loop of {node.count} passes: a step file holds 1 to {MAX_LOOP_COUNT}"
            )
        if depth > MAX_NESTING and node.count != 1:
            reasons.append(f"loops are nested {depth} deep, a step file holds {MAX_NESTING}")
        if not _has_steps(node.body):
            reasons.append("a loop has no steps in it")
        reasons += refusals_of_loops(node.body, depth + (node.count != 1))
    return reasons


def refusals_of_choices(body: tuple[Node, ...]) -> list[str]:
    """What a host does between two tests, and no step file can."""
    reasons: list[str] = []
    for node in body:
        match node:
            case Step(control=control) if isinstance(control, HOST_CONTROLS):
                kind = technique_of(control).replace("_", " ")
                reasons.append(f"a step of the kind {kind} is the host's, not the channel's")
            case Loop(until=until) if until:
                reasons.append("a loop that ends by a result of a cycle is the host's")
            case Branch() | Leave() | Finish():
                kind = str(node.__struct_config__.tag)
                reasons.append(f"a choice ({kind}) in the program is the host's, not the channel's")
            case _:
                pass
        for inner in inner_bodies(node):
            reasons += refusals_of_choices(inner)
    return reasons


def _has_steps(body: tuple[Node, ...]) -> bool:
    return any(
        isinstance(node, Step) or any(_has_steps(inner) for inner in inner_bodies(node))
        for node in body
    )


def refusals_of_load(
    power_W: float | None, resistance_ohm: float | None, capabilities: Capabilities
) -> list[str]:
    largest_A = max(current.full_scale_A for current in capabilities.current_ranges)
    largest_V = max(abs(capabilities.voltage_min_V), abs(capabilities.voltage_max_V))
    if power_W is not None and not 0 < power_W <= largest_A * largest_V:
        return [f"sets {power_W:g} W, and the channel can do up to {largest_A * largest_V:g} W"]
    if resistance_ohm is not None and not 0 < resistance_ohm < math.inf:
        return [f"sets {resistance_ohm:g} ohm: it must be finite and above 0"]
    return []


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
