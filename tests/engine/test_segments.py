"""A program is cut where the host has to act, and nowhere else."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from paper_programs import program_of, programs

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe
from labctl.engine.segments import in_whole, segment_at, stretches
from labctl.engine.walk import Facts, Position, Walk
from labctl.model import Readings
from labctl.program import (
    HOST_CONTROLS,
    Comparison,
    ConstantCurrent,
    CycleFigure,
    CycleResult,
    EndCondition,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Signal,
    Step,
    Then,
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
    assert cut(program, 3) == ["discharge"]
    assert cut(program, 6) == ["discharge"]


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


def test_a_titration_runs_onboard_where_the_instrument_leaves_loops() -> None:
    program = program_of(Loop(500, (step("pulse", FULL, TIME), step("rest"))), step("end"))
    assert cut(program, leaves_loops=True) == ["500 x ['pulse', 'rest']", "end"]
    assert cut(program, leaves_loops=False) == ["pulse"]


def test_outside_its_loop_a_step_that_leaves_it_ends_the_stretch() -> None:
    program = program_of(Loop(500, (step("rest"), step("pulse", FULL, TIME))), step("end"))
    walk = Walk(program)
    segment = segment_at(program, walk, position_of(walk, 2), can(leaves_loops=True))
    assert segment is not None
    assert told(segment.program.body) == ["pulse"]
    assert [end.then for end in segment.program.steps[0].ends] == [Then.NEXT, Then.NEXT]


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


def test_readings_of_a_stretch_get_the_whole_programs_steps() -> None:
    program = program_of(step("rest"), step("mark"), step("charge"), step("discharge"))
    walk = Walk(program)
    segment = segment_at(program, walk, position_of(walk, 3), can(leaves_loops=False))
    assert segment is not None
    ints, floats = np.arange(2), np.zeros(2)
    readings = Readings(ints + 1, ints, ints, *[floats] * 7)
    assert in_whole(segment, readings).step.tolist() == [2, 3]


@given(programs())
def test_stretch_by_stretch_the_same_steps_come_in_the_same_cycles(program: Program) -> None:
    for leaves_loops in (False, True):
        capabilities = can(leaves_loops=leaves_loops)
        walk = Walk(program)
        assume(program.visit_count <= 200)
        position = walk.after(Position(), Facts()).position
        while position is not None:
            segment = segment_at(program, walk, position, capabilities)
            if segment is None:
                assert isinstance(walk.step(position).control, HOST_CONTROLS)
                position = walk.after(position, Facts()).position
                continue
            inner = Walk(segment.program)
            at = inner.after(Position(), Facts()).position
            while at is not None:
                assert position is not None
                assert segment.steps[inner.step(at).index] == walk.step(position).index
                assert not isinstance(inner.step(at).control, HOST_CONTROLS)
                at = inner.after(at, Facts()).position
                position = walk.after(position, Facts()).position


@given(programs())
def test_what_may_come_is_known_beforehand(program: Program) -> None:
    known = {index for each in stretches(program, can(leaves_loops=True)) for index in each.steps}
    assert known == {
        step.index for step in program.steps if not isinstance(step.control, HOST_CONTROLS)
    }
