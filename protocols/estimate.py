"""How long a Program will take, what charge it will pass and how many readings it will keep.

Estimates: nobody knows the cell's capacity before it is measured. A step that ends by voltage is
taken to pass what 1C passes in one hour, and a hold to take :data:`HOLD_S` and to pass a tenth of
that. A power or a resistance is taken at the middle of the voltages. A chamber needs
:data:`CHAMBER_S` besides its settling. Waiting for something outside is not counted. Loops run to
their end, unless a voltage leads out of them; of two branches the longer one is taken. Nothing
lasts longer than its own bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from labctl.model import Cell
from labctl.program import (
    Branch,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Finish,
    Impedance,
    Leave,
    Loop,
    Node,
    Program,
    Quantity,
    Rest,
    SetTemperature,
    Signal,
    Step,
    Then,
    VoltageSweep,
    Wait,
    inner_bodies,
)
from labctl.protocols.extent import longest_of_step_s

HOLD_S = 1800.0
HOLD_PART = 0.1
CHAMBER_S = 1800.0
PERIODS_PER_FREQUENCY = 3.0
LEAST_PER_FREQUENCY_S = 0.5


@dataclass(frozen=True, slots=True)
class Expected:
    """``charge_Ah`` and ``discharge_Ah`` are what passes each way in all."""

    seconds: float = 0.0
    charge_Ah: float = 0.0
    discharge_Ah: float = 0.0
    records: float = 0.0
    spectra: float = 0.0

    def __add__(self, other: Expected) -> Expected:
        return Expected(
            self.seconds + other.seconds,
            self.charge_Ah + other.charge_Ah,
            self.discharge_Ah + other.discharge_Ah,
            self.records + other.records,
            self.spectra + other.spectra,
        )

    def __mul__(self, times: int) -> Expected:
        return Expected(
            self.seconds * times,
            self.charge_Ah * times,
            self.discharge_Ah * times,
            self.records * times,
            self.spectra * times,
        )


@dataclass(frozen=True, slots=True)
class _Voltages:
    """Between which voltages the program moves."""

    low_V: float
    high_V: float

    @property
    def middle_V(self) -> float:
        return (self.low_V + self.high_V) / 2

    @property
    def span_V(self) -> float:
        return self.high_V - self.low_V


def expected(program: Program, cell: Cell) -> Expected:
    """What the whole program is expected to take and to make."""
    return _of_body(program.body, cell, _voltages(program))


def _of_body(body: tuple[Node, ...], cell: Cell, voltages: _Voltages) -> Expected:
    total = Expected()
    for node in body:
        match node:
            case Step():
                total += _of_step(node, cell, voltages)
            case Loop():
                one = _of_body(node.body, cell, voltages)
                total += one * _passes(node, one, cell)
            case Branch():
                ways = [_of_body(inner, cell, voltages) for inner in inner_bodies(node)]
                total += max(ways, key=lambda way: way.seconds)
            case Leave() | Finish():
                pass
    return total


def _passes(loop: Loop, one: Expected, cell: Cell) -> int:
    """How often a loop is run through: one that a voltage ends, as in a titration, until what 1C
    passes in one hour has passed; any other as often as it says."""
    net_Ah = abs(one.charge_Ah - one.discharge_Ah)
    left_by_voltage = any(
        end.then is Then.LEAVE_LOOP and end.quantity is Quantity.VOLTAGE_V
        for node in loop.body
        if isinstance(node, Step)
        for end in node.ends
    )
    if not left_by_voltage or net_Ah == 0:
        return loop.count
    return min(loop.count, math.ceil(cell.one_C_A / net_Ah))


def _of_step(step: Step, cell: Cell, voltages: _Voltages) -> Expected:
    seconds, signed_Ah = _seconds_and_charge(step, cell, voltages)
    longest_s = longest_of_step_s(step)
    if seconds > longest_s > 0:
        seconds, signed_Ah = longest_s, signed_Ah * longest_s / seconds
    return Expected(
        seconds,
        max(signed_Ah, 0.0),
        max(-signed_Ah, 0.0),
        _records(step, seconds, abs(signed_Ah), voltages),
        float(isinstance(step.control, Impedance)),
    )


def _seconds_and_charge(step: Step, cell: Cell, voltages: _Voltages) -> tuple[float, float]:
    """Seconds, and the charge in Ah, positive for charging, if the step's bound did not matter."""
    control, longest_s = step.control, longest_of_step_s(step)
    match control:
        case Rest():
            return longest_s, 0.0
        case ConstantCurrent():
            charge_Ah = _charge_Ah(step, cell, longest_s * abs(control.current_A) / 3600.0)
            return charge_Ah / abs(control.current_A) * 3600.0, _signed(
                charge_Ah, control.current_A
            )
        case ConstantCurrentConstantVoltage():
            charge_Ah = _charge_Ah(step, cell, cell.one_C_A)
            seconds = charge_Ah / abs(control.current_A) * 3600.0 + HOLD_S
            return seconds, _signed(charge_Ah, control.current_A)
        case ConstantVoltage():
            return HOLD_S, HOLD_PART * cell.one_C_A * (1 if control.charging else -1)
        case ConstantPower():
            current_A = abs(control.power_W) / max(abs(voltages.middle_V), 0.01)
            charge_Ah = _charge_Ah(step, cell, longest_s * current_A / 3600.0)
            return charge_Ah / current_A * 3600.0, _signed(charge_Ah, control.power_W)
        case ConstantResistance():
            current_A = max(abs(voltages.middle_V), 0.01) / control.resistance_ohm
            charge_Ah = _charge_Ah(step, cell, longest_s * current_A / 3600.0)
            return charge_Ah / current_A * 3600.0, -charge_Ah
        case VoltageSweep():
            begins_V = voltages.middle_V if control.from_V is None else control.from_V
            return abs(control.to_V - begins_V) / control.rate_V_per_s, 0.0
        case Impedance():
            return _spectrum_s(control), 0.0
        case SetTemperature():
            return CHAMBER_S + control.settle_s, 0.0
        case Wait() | Signal():
            return 0.0, 0.0


def _signed(charge_Ah: float, sign: float) -> float:
    return math.copysign(charge_Ah, sign)


def _charge_Ah(step: Step, cell: Cell, by_time_Ah: float) -> float:
    """What the step passes: by its voltage, its charge or its time, whichever is first."""
    charge_Ah = by_time_Ah
    for end in step.ends:
        if end.quantity is Quantity.VOLTAGE_V:
            charge_Ah = min(charge_Ah, cell.one_C_A)
        elif end.quantity is Quantity.STEP_CHARGE_AH:
            charge_Ah = min(charge_Ah, end.value)
    return charge_Ah


def _spectrum_s(control: Impedance) -> float:
    decades = math.log10(control.frequency_max_Hz / control.frequency_min_Hz)
    count = max(1, round(decades * control.points_per_decade) + 1)
    frequencies = (
        control.frequency_max_Hz / 10 ** (index / control.points_per_decade)
        for index in range(count)
    )
    return sum(max(PERIODS_PER_FREQUENCY / one, LEAST_PER_FREQUENCY_S) for one in frequencies)


def _records(step: Step, seconds: float, charge_Ah: float, voltages: _Voltages) -> float:
    rule, control = step.record, step.control
    records = 2 + seconds / rule.every_s + charge_Ah / rule.charge_change_Ah
    match control:
        case ConstantCurrent() | ConstantPower() | ConstantResistance():
            records += voltages.span_V / rule.voltage_change_V
        case ConstantCurrentConstantVoltage():
            records += voltages.span_V / rule.voltage_change_V
            records += abs(control.current_A) / rule.current_change_A
        case ConstantVoltage():
            records += control.max_current_A / rule.current_change_A
        case VoltageSweep():
            begins_V = voltages.middle_V if control.from_V is None else control.from_V
            records += abs(control.to_V - begins_V) / rule.voltage_change_V
        case _:
            pass
    return records


def _voltages(program: Program) -> _Voltages:
    """The lowest and the highest voltage that the program names, else those of its limits."""
    found: set[float] = set()
    for step in program.steps:
        found |= {end.value for end in step.ends if end.quantity is Quantity.VOLTAGE_V}
        match step.control:
            case ConstantVoltage(voltage_V=at_V) | ConstantCurrentConstantVoltage(voltage_V=at_V):
                found.add(at_V)
            case VoltageSweep(to_V=to_V):
                found.add(to_V)
            case _:
                pass
    if len(found) < 2:
        found |= {program.limits.voltage_min_V, program.limits.voltage_max_V}
    return _Voltages(min(found), max(found))
