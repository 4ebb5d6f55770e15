"""Programs that ask for anything, for hypothesis: right numbers among numbers that cannot be.

Most numbers are ones that a cell of 2 mg could be given, so that not everything is refused.
"""

from __future__ import annotations

import math
from typing import TypeVar

import msgspec
from hypothesis import strategies as st

from labctl.drivers.base import Task
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Control,
    EndCondition,
    Impedance,
    Limits,
    Loop,
    Node,
    Program,
    Quantity,
    RecordRule,
    Rest,
    SetTemperature,
    Signal,
    Step,
    Then,
    VoltageSweep,
    Wait,
)

ODD = st.sampled_from(
    [0.0, -0.0, math.nan, math.inf, -math.inf, 1e-30, -1e-30, 1e-12, 1e9, -1e9, 1e30, 1e300, 5e-324]
)
Value = TypeVar("Value")
SANE = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)


@st.composite
def _mix(
    draw: st.DrawFn, right: st.SearchStrategy[Value], odd: st.SearchStrategy[Value], one_in: int
) -> Value:
    return draw(odd if draw(st.integers(0, one_in)) == one_in // 2 + 1 else right)


def _mostly(right: st.SearchStrategy[float]) -> st.SearchStrategy[float]:
    return _mix(right, ODD | st.floats(), 40)


volts = _mostly(st.floats(1.0, 4.4) | st.sampled_from([1.0, 4.1, 1.5, 4.4]))
amperes = _mostly(st.sampled_from([2e-4, -2e-4, 1e-2, -1e-2, 1e-6]) | st.floats(-0.012, 0.012))
most_amperes = _mostly(st.sampled_from([2e-4, 1e-2, 1e-5]) | st.floats(1e-6, 0.011))
seconds = _mostly(st.sampled_from([60.0, 3600.0, 0.5]) | st.floats(0.1, 1e5))
high_Hz = _mostly(st.sampled_from([1e5, 1e4, 1e3, 2e5, 3e5, 10.0]))
low_Hz = _mostly(st.sampled_from([100.0, 1.0, 0.1, 1e-2]))
rates = _mostly(st.sampled_from([1e-4, 1e-3, 5e-3, 0.1, 1.0]))
small = _mostly(st.sampled_from([1e-3, 5e-3, 1e-5, 1e-4, 1e-6]))

controls: st.SearchStrategy[Control] = st.one_of(
    st.just(Rest()),
    st.builds(ConstantCurrent, amperes),
    st.builds(ConstantVoltage, volts, most_amperes, st.booleans()),
    st.builds(ConstantCurrentConstantVoltage, amperes, volts),
    st.builds(ConstantPower, _mostly(st.sampled_from([1e-3, -1e-3, 4e-2])), most_amperes),
    st.builds(ConstantResistance, _mostly(st.sampled_from([10.0, 1e4])), most_amperes),
    st.builds(VoltageSweep, st.none() | volts, volts, rates, most_amperes),
    st.builds(
        Impedance,
        galvanostatic=st.booleans(),
        amplitude=small,
        frequency_max_Hz=high_Hz,
        frequency_min_Hz=low_Hz,
        points_per_decade=_mix(st.integers(1, 12), st.integers(-3, 10**9), 20),
        max_current_A=most_amperes,
        bias=st.none() | small,
    ),
    st.builds(Wait, signal=st.just("go")),
    st.builds(Signal, st.text(max_size=5), st.sampled_from(["", "digital 1", "GPIO0", "no such"])),
    st.builds(SetTemperature, volts, volts, seconds),
)

_values = {
    Quantity.VOLTAGE_V: volts,
    Quantity.CURRENT_A: most_amperes,
    Quantity.STEP_TIME_S: seconds,
    Quantity.STEP_CHARGE_AH: _mostly(st.sampled_from([1e-5, 2e-4])),
    Quantity.STEP_ENERGY_WH: _mostly(st.sampled_from([1e-5, 2e-4])),
    Quantity.RUN_CHARGE_AH: amperes,
    Quantity.VOLTAGE_SLOPE_V_PER_S: small,
    Quantity.TEMPERATURE_DEGC: st.sampled_from([25.0, 60.0]),
}


@st.composite
def _ends(draw: st.DrawFn) -> EndCondition:
    quantity = draw(st.sampled_from(list(Quantity)[:5] * 4 + list(Quantity)))
    return EndCondition(
        quantity,
        draw(st.sampled_from(list(Comparison))),
        draw(_values[quantity]),
        draw(_mix(st.just(Then.NEXT), st.sampled_from(list(Then)), 5)),
    )


ends = st.builds(
    EndCondition, st.just(Quantity.STEP_TIME_S), st.just(Comparison.AT_LEAST), seconds
).flatmap(lambda timed: st.lists(_ends(), max_size=2).map(lambda more: (timed, *more)))

records = _mix(
    st.builds(RecordRule, every_s=st.sampled_from([10.0, 1.0, 0.5, 300.0])),
    st.builds(
        RecordRule,
        every_s=seconds,
        voltage_change_V=st.just(math.inf) | small,
        current_change_A=st.just(math.inf) | small,
        charge_change_Ah=st.just(math.inf) | small,
    ),
    3,
)

limits = _mix(
    st.just(SANE),
    st.builds(
        Limits,
        volts,
        volts,
        amperes.map(lambda value: -abs(value)),
        most_amperes,
        small,
        seconds,
        _mix(st.just(-math.inf), st.just(0.0), 9),
        _mix(st.just(math.inf), st.just(60.0), 9),
    ),
    7,
)

labels = st.just("a step") | st.text(max_size=8)
steps = st.builds(Step, st.just(0), labels, controls, ends, records, limits=st.none() | limits)

tags = st.one_of(
    st.just("run-1"), st.sampled_from(["", "a/b", "../x", "x" * 200, "é", "a b", '<&">', "\0"])
)
channels = st.sampled_from(["", "1", "2", "21-1-1", "21-1-9", "1-1", "x", "\n", "é"])


@st.composite
def _bodies(draw: st.DrawFn, depth: int = 0) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for _ in range(draw(st.integers(0 if depth else 1, 2))):
        if depth < 4 and draw(st.integers(0, 3)) == 0:
            count = draw(st.sampled_from([1, 2, 3, 2, 3, 0, -1, 70_000, 10**12]))
            nodes.append(Loop(count, draw(_bodies(depth + 1)), draw(st.booleans())))
        else:
            nodes.append(draw(steps))
    return tuple(nodes)


def _numbered(body: tuple[Node, ...], first: int) -> tuple[tuple[Node, ...], int]:
    done: list[Node] = []
    for node in body:
        if isinstance(node, Step):
            done.append(msgspec.structs.replace(node, index=first))
            first += 1
        elif isinstance(node, Loop):
            inner, first = _numbered(node.body, first)
            done.append(msgspec.structs.replace(node, body=inner))
    return tuple(done), first


programs = st.builds(
    lambda body, limits: Program(
        name="wild",
        recipe_sha256="0" * 64,
        cell="HEV-01",
        body=_numbered(body, 0)[0],
        limits=limits,
    ),
    _bodies(),
    limits,
)

tasks = st.builds(
    Task,
    step=st.builds(Step, st.integers(0, 9), labels, controls, ends, records),
    limits=limits,
    tag=tags,
    done_s=_mix(st.just(0.0), seconds, 5),
    done_Ah=_mix(st.just(0.0), amperes, 5),
)


def program_of(task: Task) -> Program:
    """A program of which a task is the one visit."""
    step = msgspec.structs.replace(task.step, index=0)
    return Program(
        name="wild", recipe_sha256="0" * 64, cell="HEV-01", body=(step,), limits=task.limits
    )
