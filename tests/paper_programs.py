"""Programs of every shape, for hypothesis: loops, branches, early ends, the host's own steps."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

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
_TIME = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 60.0)

_controls: st.SearchStrategy[Control] = st.sampled_from(
    [Rest(), ConstantCurrent(1e-4), ConstantCurrent(-1e-4), Signal("mark"), Wait(signal="go")]
)
_results = st.builds(
    CycleResult,
    figure=st.sampled_from(list(CycleFigure)),
    comparison=st.sampled_from(list(Comparison)),
    value=st.floats(0.0, 2.0),
    of_first=st.integers(0, 3),
    of_last=st.integers(0, 3),
)
_conditions = _results | st.builds(EndedBy, st.sampled_from(list(Quantity)))


@st.composite
def _steps(draw: st.DrawFn, *, in_loop: bool) -> Step:
    control = draw(_controls)
    ends = [_TIME]
    if isinstance(control, ConstantCurrent):
        thens = list(Then) if in_loop else [Then.NEXT, Then.END_RUN]
        then = draw(st.sampled_from([Then.NEXT, *thens]))
        rising = control.current_A > 0
        comparison = Comparison.AT_LEAST if rising else Comparison.AT_MOST
        ends.insert(0, EndCondition(Quantity.VOLTAGE_V, comparison, 3.0, then))
    return Step(0, "a step", control, tuple(ends), RecordRule(every_s=10.0))


@st.composite
def _bodies(
    draw: st.DrawFn, *, depth: int = 0, in_loop: bool = False, in_cycle: bool = False
) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["step", "step", "loop", "branch"] if depth < 3 else ["step"]))
        if kind == "step":
            nodes.append(draw(_steps(in_loop=in_loop)))
        elif kind == "loop":
            cycles = not in_cycle and draw(st.booleans())
            inner = draw(_bodies(depth=depth + 1, in_loop=True, in_cycle=in_cycle or cycles))
            until = draw(st.lists(_results, max_size=1))
            count = draw(st.integers(1, 4))
            nodes.append(Loop(count, inner, cycles, "cycle", tuple(until)))
        else:
            then = draw(_bodies(depth=depth + 1, in_loop=in_loop, in_cycle=in_cycle))
            way_out: list[Node] = [Finish("enough")]
            if in_loop:
                way_out.append(Leave())
            then = (*then, *draw(st.lists(st.sampled_from(way_out), max_size=1)))
            otherwise: tuple[Node, ...] = ()
            if draw(st.booleans()):
                otherwise = draw(_bodies(depth=depth + 1, in_loop=in_loop, in_cycle=in_cycle))
            nodes.append(Branch(draw(_conditions), then, otherwise))
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


def programs() -> st.SearchStrategy[Program]:
    """Any valid program of up to four levels."""
    return _bodies().map(lambda body: program_of(*body))
