"""Where a program has a choice, what has been decides it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_programs import program_of, programs

from labctl.engine.walk import CycleFigures, Facts, Position, Walk
from labctl.program import (
    Branch,
    Comparison,
    ConstantCurrent,
    CycleFigure,
    CycleResult,
    EndCondition,
    EndedBy,
    Finish,
    Leave,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
    Then,
)

TIME = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 600.0)
FULL = EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1, Then.LEAVE_LOOP)


def step(label: str, *ends: EndCondition) -> Step:
    control = Rest() if label == "rest" else ConstantCurrent(1e-4)
    return Step(0, label, control, ends or (TIME,), RecordRule())


def labels(program: Program, *answers: Facts) -> list[str]:
    """The steps visited; ``answers`` are the facts after each visit, then none are known."""
    walk, known = Walk(program), iter(answers)
    visited: list[str] = []
    onward = walk.after(Position(), Facts())
    while onward.position is not None:
        visited.append(walk.step(onward.position).label)
        onward = walk.after(onward.position, next(known, Facts()))
    return visited


def test_a_titration_is_left_when_a_pulse_ends_by_voltage() -> None:
    program = program_of(Loop(500, (step("pulse", TIME, FULL), step("rest"))), step("after"))
    by_time, by_voltage = Facts(end=TIME), Facts(end=FULL)
    visited = labels(program, by_time, Facts(), by_time, Facts(), by_voltage)
    assert visited == ["pulse", "rest", "pulse", "rest", "pulse", "after"]


def test_leaving_a_loop_inside_a_loop_leaves_the_inner_one() -> None:
    program = program_of(Loop(2, (Loop(9, (step("pulse", TIME, FULL),)), step("rest"))))
    visited = labels(program, Facts(end=FULL), Facts(), Facts(end=FULL))
    assert visited == ["pulse", "rest", "pulse", "rest"]


def test_an_end_may_be_the_end_of_the_program() -> None:
    over = msgspec.structs.replace(FULL, then=Then.END_RUN)
    onward = Walk(program_of(step("charge", over), step("after"))).after(
        Position(0), Facts(end=over)
    )
    assert onward.position is None
    assert "voltage_V" in onward.reason


def test_a_branch_goes_by_how_the_step_before_ended() -> None:
    branch = Branch(EndedBy(Quantity.VOLTAGE_V), (step("full"),), (step("not full"),))
    program = program_of(step("charge"), branch, step("after"))
    full = msgspec.structs.replace(FULL, then=Then.NEXT)
    assert labels(program, Facts(end=full)) == ["charge", "full", "after"]
    assert labels(program, Facts(end=TIME)) == ["charge", "not full", "after"]


WORN = CycleResult(CycleFigure.DISCHARGE_AH, Comparison.AT_MOST, 0.8, of_first=3, of_last=3)


def cycled(number: int, discharge_Ah: float, **kept: float) -> Facts:
    return Facts(
        running=CycleFigures(cycle=number, charge_Ah=1.0, discharge_Ah=discharge_Ah),
        kept={int(n): CycleFigures(cycle=int(n), discharge_Ah=Ah) for n, Ah in kept.items()},
    )


def test_a_worn_cell_gets_its_diagnosis_and_then_the_run_stops() -> None:
    diagnosis = Branch(WORN, (step("diagnosis"), Finish("capacity is down")))
    program = program_of(Loop(5, (step("cycle"), diagnosis), counts_cycles=True), step("after"))
    fresh = [cycled(n, 1.0, **{"3": 1.0} if n > 3 else {}) for n in range(1, 5)]
    visited = labels(program, *fresh, cycled(5, 0.79, **{"3": 1.0}))
    assert visited == [*["cycle"] * 5, "diagnosis"]
    assert labels(program, *fresh, cycled(5, 0.81, **{"3": 1.0}))[-1] == "after"


def test_a_loop_ends_when_a_whole_cycle_is_worn() -> None:
    program = program_of(Loop(9, (step("cycle"),), counts_cycles=True, until=(WORN,)))
    onward = Walk(program).after(Position(1, (4,), 4, 4), cycled(4, 0.5, **{"3": 1.0}))
    assert onward.position is None
    assert onward.decisions[0].held
    assert "discharge_Ah of cycle 4 is 0.5" in onward.decisions[0].reason


def test_the_reference_may_be_the_cycle_that_has_just_ended() -> None:
    program = program_of(Loop(9, (step("cycle"),), counts_cycles=True, until=(WORN,)))
    third = Walk(program).after(Position(1, (3,), 3, 3), cycled(3, 1.0))
    assert third.position is not None
    assert third.position.cycle == 4


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_interrupted_cycle_decides_nothing(interrupted: bool) -> None:
    program = program_of(Loop(9, (step("cycle"),), counts_cycles=True, until=(WORN,)))
    facts = cycled(4, 0.1, **{"3": 1.0})
    assert facts.running is not None
    cut = msgspec.structs.replace(facts.running, interrupted=interrupted)
    onward = Walk(program).after(
        Position(1, (4,), 4, 4), msgspec.structs.replace(facts, running=cut)
    )
    assert (onward.position is not None) == interrupted


def test_what_has_not_been_decides_nothing() -> None:
    program = program_of(Branch(WORN, (step("diagnosis"),)), step("first"))
    assert labels(program) == ["first"]


def test_leave_goes_on_after_the_loop() -> None:
    program = program_of(
        Loop(3, (step("charge"), Branch(EndedBy(Quantity.VOLTAGE_V), (Leave(),)), step("rest"))),
        step("after"),
    )
    visited = labels(program, Facts(end=TIME), Facts(), Facts(end=FULL))
    assert visited == ["charge", "rest", "charge", "after"]


def test_a_cycle_of_which_nothing_was_measured_yet_decides_nothing() -> None:
    worn = msgspec.structs.replace(WORN, of_first=0, of_last=0)
    program = program_of(Loop(3, (Branch(worn, (Leave(),)), step("charge")), counts_cycles=True))
    first = Walk(program).after(Position(), Facts())
    assert first.position is not None
    second = Walk(program).after(first.position, cycled(1, 0.1))
    assert second.position is not None
    assert [(decision.held, decision.reason) for decision in second.decisions] == [
        (False, "there is no cycle to look at")
    ]


def test_inside_a_cycle_the_cycle_so_far_is_looked_at_and_outside_the_last_one() -> None:
    little = CycleResult(CycleFigure.DISCHARGE_AH, Comparison.AT_MOST, 0.5)
    program = program_of(
        Loop(2, (step("cycle"), Branch(little, (step("more"),))), counts_cycles=True),
        step("rest"),
        Branch(little, (step("again"),)),
    )
    at_rest = Facts(last=CycleFigures(cycle=2, discharge_Ah=0.4))
    visited = labels(program, cycled(1, 0.4), cycled(1, 0.6), cycled(2, 0.6), at_rest)
    assert visited == ["cycle", "more", "cycle", "rest", "again"]


def test_a_cycle_that_was_left_in_the_middle_decides_nothing() -> None:
    little = CycleResult(CycleFigure.DISCHARGE_AH, Comparison.AT_MOST, 0.5)
    program = program_of(
        Loop(9, (step("charge", TIME, FULL), step("rest")), counts_cycles=True),
        Branch(little, (step("more"),)),
        step("after"),
    )
    facts = msgspec.structs.replace(cycled(1, 0.1), end=FULL)
    assert labels(program, facts) == ["charge", "after"]
    whole = labels(program, Facts(), *[cycled(1, 0.1)] * 17)
    assert whole[-2:] == ["more", "after"]


def test_a_loop_that_has_nothing_to_visit_is_left_at_once() -> None:
    never = Branch(EndedBy(Quantity.VOLTAGE_V), (step("never"),))
    program = program_of(step("rest"), Loop(10**9, (never,), counts_cycles=True), step("after"))
    onward = Walk(program).after(Position(0), Facts(end=TIME))
    assert onward.position is not None
    assert Walk(program).step(onward.position).label == "after"
    assert len(onward.decisions) == 1


def test_a_loop_says_why_it_goes_on_and_not_where_it_ends_anyway() -> None:
    program = program_of(Loop(5, (step("cycle"),), counts_cycles=True, until=(WORN,)))
    walk = Walk(program)
    on = walk.after(Position(1, (4,), 4, 4), cycled(4, 0.9, **{"3": 1.0}))
    assert [(decision.line, decision.held) for decision in on.decisions] == [(0, False)]
    assert "discharge_Ah of cycle 4 is 0.9 > 0.8, 0.8 of that of cycle 3" in on.decisions[0].reason
    last = walk.after(Position(1, (5,), 5, 5), cycled(5, 0.1, **{"3": 1.0}))
    assert (last.position, last.decisions) == (None, ())


def test_a_figure_is_compared_with_the_median_of_several_cycles() -> None:
    worn = msgspec.structs.replace(WORN, of_first=1, of_last=3)
    walk = Walk(program_of(Loop(9, (step("cycle"),), counts_cycles=True, until=(worn,))))
    assert walk.references == {1, 2, 3}
    kept = {"1": 9.0, "2": 1.0, "3": 1.1}
    assert walk.after(Position(1, (5,), 5, 5), cycled(5, 0.89, **kept)).position is not None
    assert walk.after(Position(1, (5,), 5, 5), cycled(5, 0.87, **kept)).position is None
    without = {"1": 9.0, "3": 1.1}
    assert walk.after(Position(1, (5,), 5, 5), cycled(5, 0.1, **without)).position is not None


def test_efficiency_is_not_known_where_nothing_was_charged() -> None:
    poor = CycleResult(CycleFigure.COULOMBIC_EFFICIENCY, Comparison.AT_MOST, 0.9)
    program = program_of(step("cycle"), Branch(poor, (Finish("poor"),)))
    charged = CycleFigures(cycle=1, charge_Ah=1.0, discharge_Ah=0.5)
    nothing = CycleFigures(cycle=1, discharge_Ah=0.5)
    walk = Walk(program)
    assert walk.after(Position(0), Facts(last=charged)).reason == "poor"
    assert walk.after(Position(0), Facts(last=nothing)).reason == ""


def test_an_end_that_ends_the_run_says_why_in_the_words_of_the_recipe() -> None:
    over = msgspec.structs.replace(FULL, then=Then.END_RUN, reason="the cell is full")
    onward = Walk(program_of(step("charge", over))).after(Position(0), Facts(end=over))
    assert (onward.position, onward.reason) == (None, "the cell is full")


def test_a_loop_of_steps_that_wait_counts_as_left_whole_only_in_its_last_pass() -> None:
    over = msgspec.structs.replace(FULL, then=Then.END_RUN)
    inner = Loop(3, (step("pulse", TIME, over),))
    walk = Walk(program_of(Loop(2, (step("rest"), inner), counts_cycles=True)))
    facts = Facts(end=over)
    pulse = 3
    assert walk.step(Position(pulse, (1, 1), 1, 1)).label == "pulse"
    assert not walk.after(Position(pulse, (1, 1), 1, 1), facts).cycle_complete
    assert walk.after(Position(pulse, (1, 3), 1, 1), facts).cycle_complete


def test_a_step_is_reached_whichever_way_the_instrument_went() -> None:
    program = program_of(
        Loop(9, (step("pulse", TIME, FULL), step("rest"))),
        Branch(EndedBy(Quantity.VOLTAGE_V), (step("full"),), (step("not full"),)),
        step("after"),
    )
    walk = Walk(program)
    pulse = walk.after(Position()).position
    assert pulse is not None
    reached = [walk.reach(pulse, index) for index in range(5)]
    assert [each.counters if each else None for each in reached] == [(2,), (1,), (), (), ()]


def test_the_nearest_of_the_visits_that_fit_is_taken() -> None:
    program = program_of(Loop(3, (Loop(4, (step("pulse", TIME, FULL),)), step("rest"))))
    walk = Walk(program)
    reached = walk.reach(Position(2, (1, 2)), 0)
    assert reached == Position(2, (1, 3))


def test_looking_for_a_step_that_cannot_come_is_soon_given_up() -> None:
    body: tuple[Loop | Step, ...] = (step("pulse", TIME, FULL),)
    for _ in range(12):
        body = (Loop(10**6, (*body, step("pulse", TIME, FULL))),)
    program = program_of(step("first"), *body)
    walk = Walk(program)
    position = walk.after(Position(0)).position
    assert position is not None
    assert walk.reach(position, 0) is None


_cycles = st.none() | st.builds(
    CycleFigures, cycle=st.just(1), charge_Ah=st.floats(0, 2), discharge_Ah=st.floats(0, 2)
)


@settings(deadline=None)
@given(programs(), st.data())
def test_any_program_comes_to_its_end_whatever_happens(
    program: Program, data: st.DataObject
) -> None:
    walk = Walk(program)
    position, visits, ends = Position(), 0, [None]
    while True:
        facts = Facts(
            end=data.draw(st.sampled_from(ends)),
            running=data.draw(_cycles),
            last=data.draw(_cycles),
        )
        onward = walk.after(position, facts)
        if onward.position is None:
            break
        reached = walk.reach(position, walk.step(onward.position).index)
        assert reached is not None
        assert onward.position.cycles_begun <= program.cycle_count
        position, visits = onward.position, visits + 1
        assert visits <= program.visit_count
        ends = [None, *walk.step(position).ends]


@settings(deadline=None)
@given(programs())
def test_a_position_survives_the_journal(program: Program) -> None:
    walk = Walk(program)
    onward = walk.after(Position(), Facts())
    while onward.position is not None:
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(onward.position), type=Position)
        assert kept == onward.position
        onward = walk.after(kept, Facts())
