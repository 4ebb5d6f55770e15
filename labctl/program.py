"""A Program: a Recipe compiled for one Cell and one Channel.

Everything is in amperes, volts, watts, ohms, seconds, ampere-hours; loops stay loops; it is finite
by construction: every step has an end by time and every loop a count. Current, charge, power and
energy are positive for charging. Programs are values: they are compared, kept in journals as
MessagePack and never changed. What was encoded by an earlier version is still read: fields are only
ever added, with defaults.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

INFINITY = math.inf


class Quantity(enum.StrEnum):
    """What an end condition looks at."""

    VOLTAGE_V = "voltage_V"
    CURRENT_A = "current_A"
    """Magnitude of the current."""
    STEP_TIME_S = "step_time_s"
    STEP_CHARGE_AH = "step_charge_Ah"
    """Magnitude of the charge passed since the step began."""
    STEP_ENERGY_WH = "step_energy_Wh"
    """Magnitude of the energy passed since the step began."""
    RUN_CHARGE_AH = "run_charge_Ah"
    """Net charge since the run began, positive for charging."""
    VOLTAGE_SLOPE_V_PER_S = "voltage_slope_V_per_s"
    """Magnitude of dV/dt over the last readings of the step."""
    TEMPERATURE_DEGC = "temperature_degC"


class Comparison(enum.StrEnum):
    AT_LEAST = ">="
    AT_MOST = "<="


class Then(enum.StrEnum):
    """Where the program goes when an end condition has won."""

    NEXT = "next"
    """To the next step in order."""
    LEAVE_LOOP = "leave loop"
    """Out of the innermost loop around the step."""
    END_RUN = "end run"
    """The program is over; that is a proper end."""


class EndCondition(msgspec.Struct, frozen=True):
    """Ends a step when ``quantity comparison value`` holds; the first to hold wins.

    ``reason`` is why the run ends then, in the recipe's words; '' where it gives none.
    """

    quantity: Quantity
    comparison: Comparison
    value: float
    then: Then = Then.NEXT
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.quantity} {self.comparison} {self.value:g}"


class Rest(msgspec.Struct, frozen=True, tag="rest"):
    """Open circuit: no current."""


class ConstantCurrent(msgspec.Struct, frozen=True, tag="constant_current"):
    """``current_A`` is positive for charging."""

    current_A: float


class ConstantVoltage(msgspec.Struct, frozen=True, tag="constant_voltage"):
    """Hold ``voltage_V``; the magnitude of the current stays at or below ``max_current_A``.

    ``charging`` says which direction of current is expected.
    """

    voltage_V: float
    max_current_A: float
    charging: bool


class ConstantCurrentConstantVoltage(
    msgspec.Struct, frozen=True, tag="constant_current_constant_voltage"
):
    """``current_A`` (signed) until ``voltage_V``, then ``voltage_V`` while the current falls."""

    current_A: float
    voltage_V: float


class ConstantPower(msgspec.Struct, frozen=True, tag="constant_power"):
    """``power_W`` is positive for charging; the current stays within ``max_current_A``."""

    power_W: float
    max_current_A: float


class ConstantResistance(msgspec.Struct, frozen=True, tag="constant_resistance"):
    """A resistor across the cell: it discharges. The current stays within ``max_current_A``."""

    resistance_ohm: float
    max_current_A: float


class VoltageSweep(msgspec.Struct, frozen=True, tag="voltage_sweep"):
    """One leg of a voltammogram: the voltage moves to ``to_V`` at ``rate_V_per_s`` (above 0).

    It begins at ``from_V``, or where the cell stands (None). It is over when ``to_V`` is reached:
    the step's ends hold that as a voltage and as a time. |current| stays within ``max_current_A``.
    """

    from_V: float | None
    to_V: float
    rate_V_per_s: float
    max_current_A: float


class Impedance(msgspec.Struct, frozen=True, tag="impedance"):
    """A spectrum from ``frequency_max_Hz`` down to ``frequency_min_Hz``, log spaced.

    ``amplitude`` is the RMS amplitude, of the voltage in V, or of the current in A where
    ``galvanostatic``. ``bias`` is the voltage, or the current, around which it swings; None is the
    open-circuit voltage, or no current. It is over when every frequency was measured.
    """

    galvanostatic: bool
    amplitude: float
    frequency_max_Hz: float
    frequency_min_Hz: float
    points_per_decade: int
    max_current_A: float
    bias: float | None = None


class Wait(msgspec.Struct, frozen=True, tag="wait"):
    """Open circuit until something outside happens; the step's end by time is the timeout.

    signal: the name of a signal that a program, an instrument or an operator sends ('' for none).
    prompt: what an operator is asked to do and confirm ('' for none).
    until_unix_s: a moment to wait for (None for none).
    One of the three is set. A timeout does what its end condition's ``then`` says.
    """

    signal: str = ""
    prompt: str = ""
    until_unix_s: float | None = None


class Signal(msgspec.Struct, frozen=True, tag="signal"):
    """Tell the world: a marker in the record and on MQTT, and a pulse on a trigger output.

    ``output`` names a digital output of the instrument, '' for none. Takes no time.
    """

    marker: str
    output: str = ""


class SetTemperature(msgspec.Struct, frozen=True, tag="set_temperature"):
    """Set the chamber and wait at open circuit until it has been within ``within_degC`` of
    ``temperature_degC`` for ``settle_s``; the step's end by time is the timeout."""

    temperature_degC: float
    within_degC: float
    settle_s: float


Control: TypeAlias = (
    Rest
    | ConstantCurrent
    | ConstantVoltage
    | ConstantCurrentConstantVoltage
    | ConstantPower
    | ConstantResistance
    | VoltageSweep
    | Impedance
    | Wait
    | Signal
    | SetTemperature
)

HOST_CONTROLS: Final = (Wait, Signal, SetTemperature)
"""What the engine itself does, on any instrument, with the output open."""


def technique_of(control: Control) -> str:
    """The technique's name, as drivers declare it and the archive keeps it."""
    return str(control.__struct_config__.tag)


class RecordRule(msgspec.Struct, frozen=True):
    """Record when any change since the last record is reached; infinity switches a rule off."""

    every_s: float = 30.0
    voltage_change_V: float = INFINITY
    current_change_A: float = INFINITY
    charge_change_Ah: float = INFINITY


class Limits(msgspec.Struct, frozen=True):
    """Ends the run safely. Currents signed: ``current_min_A`` is the strongest discharge.

    ``step_charge_max_Ah`` bounds the magnitude of the charge passed in any one step;
    ``duration_max_s`` the whole run.
    """

    voltage_min_V: float
    voltage_max_V: float
    current_min_A: float
    current_max_A: float
    step_charge_max_Ah: float
    duration_max_s: float
    temperature_min_degC: float = -INFINITY
    temperature_max_degC: float = INFINITY


class Step(msgspec.Struct, frozen=True, tag="step"):
    """One step. ``index`` is its place in :attr:`Program.steps`, from 0.

    ``line`` is the line of the recipe that it came from, 0 if none. ``limits`` are the step's own,
    nowhere wider than the program's; None where it has none.
    """

    index: int
    label: str
    control: Control
    ends: tuple[EndCondition, ...]
    record: RecordRule
    line: int = 0
    limits: Limits | None = None


class CycleFigure(enum.StrEnum):
    """What a condition looks at in a cycle."""

    CHARGE_AH = "charge_Ah"
    DISCHARGE_AH = "discharge_Ah"
    CHARGE_WH = "charge_Wh"
    DISCHARGE_WH = "discharge_Wh"
    COULOMBIC_EFFICIENCY = "coulombic_efficiency"


class CycleResult(msgspec.Struct, frozen=True, tag="cycle_result"):
    """Holds when a figure of a cycle compares with ``value``.

    Looked at inside a cycle, that cycle so far; elsewhere, and in :attr:`Loop.until`, the cycle
    that ended last. With ``of_first`` above 0, ``value`` is a fraction of the median of that figure
    over cycles ``of_first`` to ``of_last``. It does not hold where a cycle that it needs has not
    been, was interrupted or has no such figure.
    """

    figure: CycleFigure
    comparison: Comparison
    value: float
    of_first: int = 0
    of_last: int = 0


class EndedBy(msgspec.Struct, frozen=True, tag="ended_by"):
    """Holds when the step before ended by a condition on ``quantity``."""

    quantity: Quantity


Condition: TypeAlias = CycleResult | EndedBy


class Loop(msgspec.Struct, frozen=True, tag="loop"):
    """``body`` is run ``count`` times. Each pass of a loop with ``counts_cycles`` is one cycle.

    ``cycle_class`` names what kind of cycle its passes are; only like is compared with like. The
    loop is left after a pass when any of ``until`` holds.
    """

    count: int
    body: tuple[Node, ...]
    counts_cycles: bool = False
    cycle_class: str = "cycle"
    until: tuple[CycleResult, ...] = ()


class Branch(msgspec.Struct, frozen=True, tag="branch"):
    """``then`` if ``condition`` holds, ``otherwise`` if not."""

    condition: Condition
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()
    line: int = 0


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Go on after the innermost loop around it."""


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """The program is over: a proper end, for ``reason``."""

    reason: str


Node: TypeAlias = Step | Loop | Branch | Leave | Finish


class RetentionAlarm(msgspec.Struct, frozen=True, tag="retention"):
    """Raise when the median discharge capacity of the last ``over_cycles`` comparable cycles falls
    below ``below`` (a fraction) of the reference, the median of cycles ``reference_first`` to
    ``reference_last``.

    by_default: nobody asked for it, so that it is silent where its reference does not exist.
    """

    below: float = 0.8
    clears_at: float = 0.81
    reference_first: int = 3
    reference_last: int = 7
    over_cycles: int = 5
    by_default: bool = False


class DropAlarm(msgspec.Struct, frozen=True, tag="drop"):
    """Raise when more than ``more_than`` (a fraction) of the discharge capacity is lost from one
    comparable cycle to the next, against the median of the last ``against_cycles`` before, and the
    next ``confirmed_by`` are as low. Over after ``steady_cycles`` at the new level."""

    more_than: float = 0.05
    against_cycles: int = 5
    confirmed_by: int = 2
    steady_cycles: int = 10


class EfficiencyAlarm(msgspec.Struct, frozen=True, tag="efficiency"):
    """Raise when ``enough_cycles`` of the last ``of_cycles`` comparable cycles have a coulombic
    efficiency below ``below``, or above ``above`` (fractions), or a robust z below ``robust_z``
    against the ``over_cycles`` before. The first ``first_cycles`` of a class are not judged.

    by_default: nobody asked for ``below``, so that a class of cycles that is healthily below it is
    compared with its own beginning instead.
    """

    below: float = 0.99
    above: float = 1.005
    robust_z: float = -5.0
    least_spread: float = 0.0005
    over_cycles: int = 50
    enough_cycles: int = 3
    of_cycles: int = 5
    first_cycles: int = 2
    by_default: bool = False


class FadeAlarm(msgspec.Struct, frozen=True, tag="fade"):
    """Raise when the discharge capacity falls, over the last ``over_cycles`` comparable cycles,
    more than ``times`` as fast as over the first ones after the reference, and by ``at_least`` (a
    fraction of the reference a cycle) or more. ``limit``: the retention whose cycle is foretold."""

    times: float = 3.0
    at_least: float = 2e-4
    over_cycles: int = 50
    every_cycles: int = 10
    reference_first: int = 3
    reference_last: int = 7
    limit: float = 0.8


class KneeAlarm(msgspec.Struct, frozen=True, tag="knee"):
    """Raise when the discharge capacity of the last ``over_cycles`` comparable cycles bends
    downwards, and has for ``confirmed_by`` cycles or more. An advice."""

    over_cycles: int = 60
    confirmed_by: int = 20
    every_cycles: int = 10


class TemperatureAlarm(msgspec.Struct, frozen=True, tag="temperature"):
    """Raise when the cell is warmer or colder than this, or its temperature changes faster, for
    ``for_s``. Watched by the node, reading by reading."""

    above_degC: float = math.inf
    below_degC: float = -math.inf
    rate_K_per_s: float = math.inf
    for_s: float = 60.0


AlarmRule: TypeAlias = (
    RetentionAlarm | DropAlarm | EfficiencyAlarm | FadeAlarm | KneeAlarm | TemperatureAlarm
)


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. ``recipe_sha256`` identifies the text that it was compiled from."""

    name: str
    recipe_sha256: str
    cell: str
    body: tuple[Node, ...]
    limits: Limits
    alarms: tuple[AlarmRule, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step once, in the order written; ``steps[i].index == i``."""
        return tuple(_steps_of(self.body))

    @property
    def cycle_count(self) -> int:
        """How many cycles the whole program has at the most."""
        return _cycles_of(self.body)

    @property
    def visit_count(self) -> int:
        """How many times a step is entered over the whole program at the most."""
        return _visits_of(self.body)


def limits_of_step(program: Program, step: Step) -> Limits:
    """The limits that hold while ``step`` runs."""
    return program.limits if step.limits is None else step.limits


def inner_bodies(node: Node) -> tuple[tuple[Node, ...], ...]:
    """The lists of nodes inside a node, in the order written; none for a leaf."""
    match node:
        case Loop(body=body):
            return (body,)
        case Branch(then=then, otherwise=otherwise):
            return (then, otherwise)
        case _:
            return ()


def _steps_of(body: tuple[Node, ...]) -> Iterator[Step]:
    for node in body:
        if isinstance(node, Step):
            yield node
        for inner in inner_bodies(node):
            yield from _steps_of(inner)


def _cycles_of(body: tuple[Node, ...]) -> int:
    total = 0
    for node in body:
        if isinstance(node, Loop):
            total += node.count * (int(node.counts_cycles) + _cycles_of(node.body))
        elif isinstance(node, Branch):
            total += max(_cycles_of(node.then), _cycles_of(node.otherwise))
    return total


def _visits_of(body: tuple[Node, ...]) -> int:
    total = 0
    for node in body:
        if isinstance(node, Step):
            total += 1
        elif isinstance(node, Loop):
            total += node.count * _visits_of(node.body)
        elif isinstance(node, Branch):
            total += max(_visits_of(node.then), _visits_of(node.otherwise))
    return total


def encode_program(program: Program) -> bytes:
    """MessagePack and not JSON, because JSON has no infinity; round-trips exactly."""
    return msgspec.msgpack.encode(program)


def decode_program(data: bytes) -> Program:
    """Inverse of :func:`encode_program`.

    Raises:
        msgspec.ValidationError: the bytes are not a Program.
    """
    return msgspec.msgpack.decode(data, type=Program)
