"""What a run is refused for before anything flows: what the host cannot see to. Pure."""

from __future__ import annotations

from labctl.drivers.base import Capabilities, Failsafe
from labctl.program import (
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Control,
    Impedance,
    Limits,
    Program,
    SetTemperature,
    Signal,
    VoltageSweep,
)


def refusals_of_host(
    program: Program, capabilities: Capabilities, *, source: bool, chamber: bool
) -> tuple[str, ...]:
    """Why the host will not run a program on an instrument, one sentence each; empty if it will.

    ``source``: the instrument is driven step by step from here. ``chamber``: there is one.
    """
    refusals: list[str] = []
    for step in program.steps:
        at = f"step {step.index + 1} ({step.label})"
        match step.control:
            case SetTemperature() if not chamber:
                refusals.append(f"{at} sets a temperature, and the cell is in no chamber")
            case Signal(output=output) if output and not source:
                refusals.append(
                    f"{at} pulses output {output!r}, which the host cannot do on an instrument "
                    "that runs its program by itself"
                )
            case Signal(output=output) if output and output not in capabilities.outputs:
                has = ", ".join(sorted(capabilities.outputs)) or "none"
                refusals.append(f"{at} pulses output {output!r}; the instrument has {has}")
            case control if charges(control):
                if capabilities.failsafe is Failsafe.NONE:
                    refusals.append(
                        f"{at} charges, and nothing would switch the instrument off if this "
                        "computer stopped: such an instrument may only discharge or rest, or be "
                        "swept"
                    )
            case _:
                pass
    return tuple(refusals)


def charges(control: Control) -> bool:
    """Whether a step is meant to pass charge into the cell for as long as it lasts."""
    match control:
        case ConstantCurrent(current_A=rate) | ConstantCurrentConstantVoltage(current_A=rate):
            return rate > 0
        case ConstantPower(power_W=power_W):
            return power_W > 0
        case ConstantVoltage(charging=charging):
            return charging
        case _:
            return False


def asked_of_instrument(limits: Limits, armed: Limits, control: Control) -> Limits:
    """The limits that a source has to hold itself while it makes a visit, for comparison.

    Those that its current works away from are the host's to watch, and so is the charge of a step:
    for these, what the instrument holds (``armed``) is as good as any.
    """
    up, down = _directions(control)
    return Limits(
        voltage_min_V=limits.voltage_min_V if down else armed.voltage_min_V,
        voltage_max_V=limits.voltage_max_V if up else armed.voltage_max_V,
        current_min_A=limits.current_min_A if down else armed.current_min_A,
        current_max_A=limits.current_max_A if up else armed.current_max_A,
        step_charge_max_Ah=armed.step_charge_max_Ah,
        duration_max_s=limits.duration_max_s,
    )


def _directions(control: Control) -> tuple[bool, bool]:
    """Whether a step may pass charging current, and whether discharging current."""
    match control:
        case ConstantCurrent(current_A=rate) | ConstantCurrentConstantVoltage(current_A=rate):
            return rate > 0, rate < 0
        case ConstantPower(power_W=power_W):
            return power_W > 0, power_W < 0
        case ConstantVoltage(charging=charging):
            return charging, not charging
        case VoltageSweep() | Impedance():
            return True, True
        case ConstantResistance():
            return False, True
        case _:
            return False, False
