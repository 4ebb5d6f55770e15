"""A program is cut where the host has to act, and nowhere else."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from paper_programs import program_of, programs

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe
from labctl.engine.instructions import nodes_of
from labctl.engine.segments import in_whole, segment_at, stretches
from labctl.engine.walk import Facts, Position, Walk
from labctl.errors import InstrumentError
from labctl.model import Readings
from labctl.program import (
    HOST_CONTROLS,
    Branch,
    Comparison,
    ConstantCurrent,
    CycleFigure,
    CycleResult,
    EndCondition,
    EndedBy,
    Leave,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Signal,
    Step,
    Then,
    VoltageSweep,
)

TIME = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 600.0)
CHARGE = EndCondition(Quantity.STEP_CHARGE_AH, Comparison.AT_LEAST, 1e-3)
FULL = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1, Then.LEAVE_LOOP)
UNTIL = CycleResult(CycleFigure.DISCHARGE_AH, Comparison.AT_MOST, 0.8, of_first=1, of_last=1)


def can(*, leaves_loops: bool) -> Capabilities:
    return Capabilities(
        techniques=frozenset({"rest", "constant_current"}),
        voltage_min_V=-5.0,
        voltage_max_V=5.0,
        current_ranges=(CurrentRange(1e-3, 1e-7),),
        fastest_record_s=0.1,
        failsafe=Failsafe.ONBOARD,
        leaves_loops=leaves_loops,
    )


def step(label: str, *ends: EndCondition) -> Step:
    controls = {"rest": Rest(), "mark": Signal("mark")}
    return Step(0, label, controls.get(label, ConstantCurrent(1e-4)), ends or (TIME,), RecordRule())


def position_of(walk: Walk, visits: int) -> Position:
    """Where the walk stands at that visit, from 1, if every step ends by time."""
    position = Position()
    for _ in range(visits):
        following = walk.after(position, Facts()).position
        assert following is not None
        position = following
    return position


def cut(
    program: Program, visits: int = 1, *, leaves_loops: bool = False, **done: float
) -> list[str]:
    """The labels of the stretch that begins with that visit, loops as 'n x [...]'."""
    walk = Walk(program)
    at = position_of(walk, visits)
    segment = segment_at(program, walk, at, can(leaves_loops=leaves_loops), **done)
    return ["(host)"] if segment is None else told(segment.program.body)


def told(body: tuple[object, ...]) -> list[str]:
    said: list[str] = []
    for node in body:
        if isinstance(node, Step):
            said.append(node.label)
        elif isinstance(node, Loop):
            said.append(f"{node.count} x {told(node.body)}")
    return said


def test_a_program_without_the_host_is_one_stretch() -> None:
    program = program_of(step("rest"), Loop(3, (step("charge"), step("discharge"))), step("end"))
    assert cut(program) == ["rest", "3 x ['charge', 'discharge']", "end"]


def test_a_marker_lies_between_two_stretches() -> None:
    program = program_of(step("rest"), step("mark"), step("charge"), step("discharge"))
    assert cut(program) == ["rest"]
    assert cut(program, 2) == ["(host)"]
    assert cut(program, 3) == ["charge", "discharge"]


def test_a_loop_with_a_marker_in_it_is_walked_pass_by_pass() -> None:
    program = program_of(Loop(2, (step("charge"), step("mark"), step("discharge"))), step("end"))
    assert cut(program) == ["charge"]
    assert cut(program, 3) == ["discharge", "charge"]
    assert cut(program, 6) == ["discharge", "end"]


def test_from_inside_a_loop_the_rest_of_the_pass_comes_first_then_the_passes_left() -> None:
    program = program_of(Loop(4, (step("charge"), step("discharge"))), step("end"))
    assert cut(program, 2) == ["discharge", "3 x ['charge', 'discharge']", "end"]
    assert cut(program, 3) == ["3 x ['charge', 'discharge']", "end"]
    assert cut(program, 8) == ["discharge", "end"]


def test_nested_loops_are_unrolled_once_on_each_level() -> None:
    program = program_of(Loop(2, (Loop(3, (step("a"), step("b"))), step("c"))), step("d"))
    assert cut(program, 2) == ["b", "2 x ['a', 'b']", "c", "1 x [\"3 x ['a', 'b']\", 'c']", "d"]


def test_a_loop_that_is_left_by_its_cycles_is_the_hosts_pass_by_pass() -> None:
    program = program_of(
        Loop(5, (step("charge"), step("discharge")), counts_cycles=True, until=(UNTIL,)),
        step("end"),
    )
    assert cut(program) == ["charge", "discharge"]
    assert cut(program, 2) == ["discharge"]


def test_what_only_a_host_can_leave_is_not_in_a_stretch() -> None:
    leaving = Branch(EndedBy(Quantity.VOLTAGE_V), (Leave(),))
    program = program_of(Loop(5, (step("charge"), leaving, step("rest"))), step("end"))
    assert cut(program) == ["charge"]
    assert cut(program, 2) == ["rest", "charge"]
    assert cut(program, 10) == ["rest", "end"]


def test_an_end_that_leads_out_of_a_loop_in_parts_ends_the_stretch() -> None:
    program = program_of(
        Loop(5, (step("a"), step("pulse", FULL, TIME), step("mark"), step("b"))), step("end")
    )
    walk = Walk(program)
    segment = segment_at(program, walk, position_of(walk, 4), can(leaves_loops=True))
    assert segment is not None
    assert told(segment.program.body) == ["b", "a", "pulse"]
    assert [end.then for end in segment.program.steps[2].ends] == [Then.END_RUN, Then.NEXT]


def test_a_titration_runs_onboard_where_the_instrument_leaves_loops() -> None:
    program = program_of(Loop(500, (step("pulse", FULL, TIME), step("rest"))), step("end"))
    assert cut(program, leaves_loops=True) == ["500 x ['pulse', 'rest']", "end"]
    assert cut(program, leaves_loops=False) == ["pulse"]


def test_from_inside_a_titration_the_loop_can_still_be_left() -> None:
    program = program_of(Loop(500, (step("rest"), step("pulse", FULL, TIME))), step("end"))
    whole = cut(program, 2, leaves_loops=True)
    assert whole == ["1 x ['pulse', \"499 x ['rest', 'pulse']\"]", "end"]


def test_what_a_visit_had_come_to_makes_its_ends_nearer() -> None:
    program = program_of(Loop(3, (step("charge", CHARGE, TIME), step("rest"))))
    walk = Walk(program)
    segment = segment_at(
        program, walk, position_of(walk, 1), can(leaves_loops=False), done_s=100.0, done_Ah=-4e-4
    )
    assert segment is not None
    assert told(segment.program.body) == ["charge", "rest", "2 x ['charge', 'rest']"]
    [charge_end, time_end] = segment.program.steps[0].ends
    assert abs(charge_end.value - 6e-4) < 1e-12
    assert time_end.value == 500.0
    assert segment.program.steps[2].ends == program.steps[0].ends
    assert segment.steps == (0, 1, 0, 1)


def test_a_sweep_that_was_interrupted_goes_on_from_where_it_was() -> None:
    sweep = VoltageSweep(from_V=3.0, to_V=2.0, rate_V_per_s=1e-3, max_current_A=1e-3)
    program = program_of(msgspec.structs.replace(step("leg"), control=sweep))
    walk = Walk(program)
    at = position_of(walk, 1)
    segment = segment_at(program, walk, at, can(leaves_loops=True), done_s=250.0)
    assert segment is not None
    control = segment.program.steps[0].control
    assert isinstance(control, VoltageSweep)
    assert control.from_V == 2.75


def test_a_step_that_is_in_a_stretch_twice_has_two_pass_marks() -> None:
    program = program_of(step("mark"), Loop(3, (step("charge"),)))
    walk = Walk(program)
    segment = segment_at(program, walk, position_of(walk, 2), can(leaves_loops=True), done_s=10.0)
    assert segment is not None
    assert segment.steps == (1, 1)
    ints, floats = np.arange(2), np.zeros(2)
    whole = in_whole(segment, Readings(ints + 1, ints, ints * 0, *[floats] * 7))
    assert whole.step.tolist() == [1, 1]
    assert whole.pass_mark[0] != whole.pass_mark[1]


def test_a_reading_of_a_step_that_is_not_in_the_stretch_is_an_error() -> None:
    program = program_of(step("mark"), step("charge"))
    walk = Walk(program)
    segment = segment_at(program, walk, position_of(walk, 2), can(leaves_loops=True))
    assert segment is not None
    ints, floats = np.arange(2), np.zeros(2)
    with pytest.raises(InstrumentError, match="reading 2 of the instrument is of step 2"):
        in_whole(segment, Readings(ints + 1, ints, ints, *[floats] * 7))


def test_readings_of_a_stretch_get_the_whole_programs_steps() -> None:
    program = program_of(step("rest"), step("mark"), step("charge"), step("discharge"))
    walk = Walk(program)
    segment = segment_at(program, walk, position_of(walk, 3), can(leaves_loops=False))
    assert segment is not None
    ints, floats = np.arange(2), np.zeros(2)
    readings = Readings(ints + 1, ints, ints, *[floats] * 7)
    assert in_whole(segment, readings).step.tolist() == [2, 3]


def end_of(step: Step, choices: list[int], visit: int) -> int:
    return choices[visit % len(choices)] % len(step.ends)


CHOICES = st.lists(st.integers(0, 1), min_size=1, max_size=20)


@settings(deadline=None)
@given(programs(), CHOICES, st.booleans())
def test_stretch_by_stretch_the_same_steps_come_whatever_ends_them(
    program: Program, choices: list[int], leaves_loops: bool
) -> None:
    walk, visit = Walk(program), 0
    position = walk.after(Position(), Facts()).position
    while position is not None:
        segment = segment_at(program, walk, position, can(leaves_loops=leaves_loops))
        step = walk.step(position)
        if segment is None:
            assert isinstance(step.control, HOST_CONTROLS)
            end = step.ends[end_of(step, choices, visit)]
            position, visit = walk.after(position, Facts(end=end)).position, visit + 1
            continue
        inner = Walk(segment.program)
        at = inner.after(Position(), Facts()).position
        while at is not None:
            assert position is not None
            step, onboard = walk.step(position), inner.step(at)
            assert segment.steps[onboard.index] == step.index
            assert not isinstance(onboard.control, HOST_CONTROLS)
            assert leaves_loops or all(end.then is Then.NEXT for end in onboard.ends)
            chosen = end_of(step, choices, visit)
            visit += 1
            at = inner.after(at, Facts(end=onboard.ends[chosen])).position
            position = walk.after(position, Facts(end=step.ends[chosen])).position


@settings(deadline=None)
@given(programs(results=False), CHOICES)
def test_a_stretch_ends_only_where_the_host_has_to_act(
    program: Program, choices: list[int]
) -> None:
    assume(not any(isinstance(node, Leave) for node in nodes_of(program.body)))
    walk, visit = Walk(program), 0
    position = walk.after(Position(), Facts()).position
    while position is not None:
        segment = segment_at(program, walk, position, can(leaves_loops=True))
        inner = None if segment is None else Walk(segment.program)
        at = None if inner is None else inner.after(Position(), Facts()).position
        while True:
            step = walk.step(position)
            chosen = end_of(step, choices, visit)
            visit += 1
            ahead = walk.after(position, Facts(end=step.ends[chosen]))
            if inner is not None and at is not None:
                at = inner.after(at, Facts(end=inner.step(at).ends[chosen])).position
            if at is None:
                break
            assert ahead.position is not None
            position = ahead.position
        before, position = position, ahead.position
        if position is None:
            break
        hosts = (walk.step(each).control for each in (before, position))
        assert (
            any(isinstance(control, HOST_CONTROLS) for control in hosts)
            or ahead.decisions
            or step.ends[chosen].then is not Then.NEXT
        )


@settings(deadline=None)
@given(programs())
def test_what_may_come_is_known_beforehand(program: Program) -> None:
    known = {index for each in stretches(program, can(leaves_loops=True)) for index in each.steps}
    assert known == {
        step.index for step in program.steps if not isinstance(step.control, HOST_CONTROLS)
    }
