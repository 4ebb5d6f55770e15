"""Programs of every shape, for hypothesis: loops, branches, early ends, the host's own steps.

Every step has an end by time, and one that passes current has an end by voltage, each of which may
lead elsewhere. :func:`readings_of_visit` makes the readings of a visit that ends by either.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from hypothesis import strategies as st

from labctl.model import Readings
from labctl.program import (
    Branch,
    Comparison,
    ConstantCurrent,
    Control,
    CycleFigure,
    CycleResult,
    EndCondition,
    EndedBy,
    Finish,
    Leave,
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
    Wait,
)

LIMITS = Limits(
    voltage_min_V=0.5,
    voltage_max_V=4.8,
    current_min_A=-1.0,
    current_max_A=1.0,
    step_charge_max_Ah=1.0,
    duration_max_s=1e9,
)
STEP_S = 60.0
SAMPLE_S = 20.0
END_V = 3.0

_CONTROLS: list[Control] = [
    Rest(),
    ConstantCurrent(1e-4),
    ConstantCurrent(2e-4),
    ConstantCurrent(-1e-4),
    ConstantCurrent(-1e-4),
    Signal("mark"),
    Wait(signal="go"),
    SetTemperature(25.0, within_degC=1.0, settle_s=60.0),
]
_results = st.builds(
    CycleResult,
    figure=st.sampled_from(list(CycleFigure)),
    comparison=st.sampled_from(list(Comparison)),
    value=st.sampled_from([0.0, 1e-6, 2e-6, 5e-6, 0.5, 0.8, 1.0, 1.5]),
    of_first=st.integers(0, 3),
    of_last=st.integers(0, 3),
)
_ended_by = st.builds(EndedBy, st.sampled_from([Quantity.VOLTAGE_V, Quantity.STEP_TIME_S]))


@st.composite
def _steps(draw: st.DrawFn, *, in_loop: bool) -> Step:
    control = draw(st.sampled_from(_CONTROLS))
    ways = [Then.NEXT, *(Then if in_loop else [Then.NEXT, Then.END_RUN])]
    timed = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, STEP_S, draw(_way(ways)))
    ends = [timed]
    if isinstance(control, ConstantCurrent):
        rising = control.current_A > 0
        comparison = Comparison.AT_LEAST if rising else Comparison.AT_MOST
        ends.append(EndCondition(Quantity.VOLTAGE_V, comparison, END_V, draw(_way(ways))))
    return Step(0, "a step", control, tuple(ends), RecordRule(every_s=SAMPLE_S))


def _way(ways: list[Then]) -> st.SearchStrategy[Then]:
    """Mostly on to the next step: a program that ends at once shows little."""
    return st.sampled_from([Then.NEXT] * 6 + ways)


@st.composite
def _bodies(
    draw: st.DrawFn,
    results: bool,
    *,
    depth: int = 0,
    in_loop: bool = False,
    in_cycle: bool = False,
) -> tuple[Node, ...]:
    nodes: list[Node] = []
    conditions = _results | _ended_by if results else _ended_by
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["step", "step", "loop", "branch"] if depth < 3 else ["step"]))
        if kind == "step":
            nodes.append(draw(_steps(in_loop=in_loop)))
        elif kind == "loop":
            cycles = not in_cycle and draw(st.booleans())
            inner = draw(
                _bodies(results, depth=depth + 1, in_loop=True, in_cycle=in_cycle or cycles)
            )
            until = draw(st.lists(_results, max_size=1)) if results else []
            count = draw(st.integers(1, 4))
            nodes.append(Loop(count, inner, cycles, "cycle", tuple(until)))
        else:
            then = draw(_bodies(results, depth=depth + 1, in_loop=in_loop, in_cycle=in_cycle))
            way_out: list[Node] = [Finish("enough")]
            if in_loop:
                way_out.append(Leave())
            then = (*then, *draw(st.lists(st.sampled_from(way_out), max_size=1)))
            otherwise: tuple[Node, ...] = ()
            if draw(st.booleans()):
                otherwise = draw(
                    _bodies(results, depth=depth + 1, in_loop=in_loop, in_cycle=in_cycle)
                )
            nodes.append(Branch(draw(conditions), then, otherwise))
    return tuple(nodes)


def _numbered(body: tuple[Node, ...], count: list[int]) -> tuple[Node, ...]:
    numbered: list[Node] = []
    for node in body:
        if isinstance(node, Step):
            numbered.append(msgspec.structs.replace(node, index=count[0]))
            count[0] += 1
        elif isinstance(node, Loop):
            numbered.append(msgspec.structs.replace(node, body=_numbered(node.body, count)))
        elif isinstance(node, Branch):
            then = _numbered(node.then, count)
            otherwise = _numbered(node.otherwise, count)
            numbered.append(msgspec.structs.replace(node, then=then, otherwise=otherwise))
        else:
            numbered.append(node)
    return tuple(numbered)


def program_of(*body: Node) -> Program:
    """A program of these nodes, its steps numbered."""
    return Program(
        name="drawn",
        recipe_sha256="0" * 64,
        cell="paper",
        body=_numbered(body, [0]),
        limits=LIMITS,
    )


def programs(*, results: bool = True, most_visits: int = 200) -> st.SearchStrategy[Program]:
    """Any valid program of up to four levels and ``most_visits`` visits.

    ``results``: with choices by figures of cycles.
    """
    drawn = _bodies(results).map(lambda body: program_of(*body))
    return drawn.filter(lambda program: program.visit_count <= most_visits)


def readings_of_visit(
    step: Step, end: EndCondition, *, first_index: int = 1, pass_mark: int = 0
) -> Readings:
    """A visit that ends by ``end``: a reading every ``SAMPLE_S``, half as long if by voltage."""
    control = step.control
    current_A = control.current_A if isinstance(control, ConstantCurrent) else 0.0
    duration_s = STEP_S if end.quantity is Quantity.STEP_TIME_S else STEP_S / 2.0
    time_s = np.array([*np.arange(0.0, duration_s, SAMPLE_S), duration_s])
    count = len(time_s)
    before_V = END_V - 0.5 if current_A > 0 else END_V + 0.5
    voltage_V = np.full(count, before_V)
    if end.quantity is Quantity.VOLTAGE_V:
        voltage_V[-1] = end.value
    unknown = np.full(count, math.nan)
    return Readings(
        onboard_index=np.arange(first_index, first_index + count),
        step=np.full(count, step.index),
        pass_mark=np.full(count, pass_mark),
        step_time_s=time_s,
        unix_time_s=1.8e9 + first_index + np.arange(count),
        voltage_V=voltage_V,
        current_A=np.full(count, current_A),
        step_charge_Ah=unknown,
        step_energy_Wh=unknown,
        temperature_degC=unknown,
    )
