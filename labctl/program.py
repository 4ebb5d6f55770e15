"""A Program: a Recipe compiled for one Cell and one Channel.

Everything is in amperes, volts, seconds, ampere-hours; loops stay loops; it is finite by
construction. Current and charge are positive for charging. Programs are values: they are compared,
kept in journals as MessagePack and never changed.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import TypeAlias

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


class Comparison(enum.StrEnum):
    AT_LEAST = ">="
    AT_MOST = "<="


class EndCondition(msgspec.Struct, frozen=True):
    """Ends a step when ``quantity comparison value`` holds; the first to hold wins."""

    quantity: Quantity
    comparison: Comparison
    value: float

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


Control: TypeAlias = Rest | ConstantCurrent | ConstantVoltage | ConstantCurrentConstantVoltage


def technique_of(control: Control) -> str:
    """The technique's name, as drivers declare it and the archive keeps it."""
    return str(control.__struct_config__.tag)


class RecordRule(msgspec.Struct, frozen=True):
    """Record when any change since the last record is reached; infinity switches a rule off."""

    every_s: float = 30.0
    voltage_change_V: float = INFINITY
    current_change_A: float = INFINITY


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

    ``line`` is the line of the recipe that it came from, 0 if none.
    """

    index: int
    label: str
    control: Control
    ends: tuple[EndCondition, ...]
    record: RecordRule
    line: int = 0


class Loop(msgspec.Struct, frozen=True, tag="loop"):
    """``body`` is run ``count`` times. Each pass of a loop with ``counts_cycles`` is one cycle.

    ``cycle_class`` names what kind of cycle its passes are; only like is compared with like.
    """

    count: int
    body: tuple[Step | Loop, ...]
    counts_cycles: bool = False
    cycle_class: str = "cycle"


Node: TypeAlias = Step | Loop


class RetentionAlarm(msgspec.Struct, frozen=True, tag="retention"):
    """Raise when the median discharge capacity of the last ``over_cycles`` comparable cycles falls
    below ``below`` (a fraction) of the reference, the median of cycles ``reference_first`` to
    ``reference_last``."""

    below: float = 0.8
    clears_at: float = 0.81
    reference_first: int = 3
    reference_last: int = 7
    over_cycles: int = 5


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. ``recipe_sha256`` identifies the text that it was compiled from."""

    name: str
    recipe_sha256: str
    cell: str
    body: tuple[Node, ...]
    limits: Limits
    alarms: tuple[RetentionAlarm, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step once, in the order written; ``steps[i].index == i``."""
        return tuple(_steps_of(self.body))

    @property
    def cycle_count(self) -> int:
        """How many cycles the whole program has."""
        return _cycles_of(self.body)

    @property
    def visit_count(self) -> int:
        """How many times a step is entered over the whole program."""
        return _visits_of(self.body)


def _steps_of(body: tuple[Node, ...]) -> Iterator[Step]:
    for node in body:
        if isinstance(node, Step):
            yield node
        else:
            yield from _steps_of(node.body)


def _cycles_of(body: tuple[Node, ...]) -> int:
    return sum(
        node.count * (int(node.counts_cycles) + _cycles_of(node.body))
        for node in body
        if isinstance(node, Loop)
    )


def _visits_of(body: tuple[Node, ...]) -> int:
    return sum(1 if isinstance(node, Step) else node.count * _visits_of(node.body) for node in body)


def encode_program(program: Program) -> bytes:
    """MessagePack and not JSON, because JSON has no infinity; round-trips exactly."""
    return msgspec.msgpack.encode(program)


def decode_program(data: bytes) -> Program:
    """Inverse of :func:`encode_program`.

    Raises:
        msgspec.ValidationError: the bytes are not a Program.
    """
    return msgspec.msgpack.decode(data, type=Program)
