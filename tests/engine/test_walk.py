"""The order of the steps of a program, and which cycle each visit belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_cycler import LIMITS, charge, discharge, rest, three_cycles

from labctl.engine.walk import Facts, Position, Walk
from labctl.program import Loop, Node, Program, Step, decode_program, encode_program


def visits(program: Program) -> list[tuple[int, int]]:
    """(step index, cycle) of every visit."""
    walk, position, found = Walk(program), Position(), list[tuple[int, int]]()
    while (following := walk.after(position, Facts()).position) is not None:
        position = following
        found.append((walk.step(position).index, position.cycle))
    return found


def program_of(*body: Node) -> Program:
    return Program(name="p", recipe_sha256="", cell="c", body=body, limits=LIMITS)


def test_a_rest_and_three_cycles_are_seven_visits() -> None:
    assert visits(three_cycles()) == [(0, 0), (1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3)]


def test_what_comes_after_the_last_cycle_belongs_to_no_cycle() -> None:
    program = program_of(Loop(2, (charge(0),), counts_cycles=True), rest(1))
    assert visits(program) == [(0, 1), (0, 2), (1, 0)]


def test_cycle_numbers_go_on_in_the_next_loop() -> None:
    program = program_of(
        Loop(2, (charge(0),), counts_cycles=True), Loop(2, (discharge(1),), counts_cycles=True)
    )
    assert [cycle for _, cycle in visits(program)] == [1, 2, 3, 4]


def test_a_loop_that_does_not_count_repeats_cycles() -> None:
    program = program_of(Loop(2, (rest(0), Loop(2, (charge(1),), counts_cycles=True))))
    assert visits(program) == [(0, 0), (1, 1), (1, 2), (0, 0), (1, 3), (1, 4)]


def test_the_class_of_a_cycle_is_that_of_its_loop() -> None:
    program = program_of(
        rest(0), Loop(1, (charge(1),), counts_cycles=True, cycle_class="formation")
    )
    walk = Walk(program)
    first = walk.after(Position(), Facts()).position
    assert first is not None
    second = walk.after(first, Facts()).position
    assert second is not None
    assert (walk.cycle_class(first), walk.cycle_class(second)) == ("", "formation")


def test_a_step_that_was_passed_without_a_reading_is_stepped_over() -> None:
    walk = Walk(three_cycles())
    at_rest = walk.after(Position(), Facts()).position
    assert at_rest is not None
    at_discharge = walk.reach(at_rest, 2)
    assert at_discharge is not None
    assert (walk.step(at_discharge).index, at_discharge.cycle) == (2, 1)


def test_a_step_that_the_program_has_left_behind_cannot_be_reached() -> None:
    walk = Walk(three_cycles())
    at_rest = walk.after(Position(), Facts()).position
    assert at_rest is not None
    assert walk.reach(at_rest, 0) is None


@st.composite
def bodies(draw: st.DrawFn, depth: int = 3) -> tuple[Node, ...]:
    nodes = st.integers(0, 2).map(lambda _: rest(0))
    if depth:
        loops = st.builds(Loop, st.integers(1, 3), bodies(depth=depth - 1), st.booleans())
        return tuple(draw(st.lists(nodes | loops, min_size=1, max_size=3)))
    return tuple(draw(st.lists(nodes, min_size=1, max_size=3)))


def numbered(body: tuple[Node, ...], counter: list[int]) -> tuple[Node, ...]:
    out: list[Node] = []
    for node in body:
        if isinstance(node, Step):
            out.append(rest(counter[0]))
            counter[0] += 1
        else:
            out.append(Loop(node.count, numbered(node.body, counter), node.counts_cycles))
    return tuple(out)


@settings(deadline=None)
@given(bodies())
def test_every_program_is_walked_to_its_end_in_as_many_visits_as_it_says(
    body: tuple[Node, ...],
) -> None:
    program = program_of(*numbered(body, [0]))
    walked = visits(program)
    assert len(walked) == program.visit_count
    assert [step.index for step in program.steps] == list(range(len(program.steps)))
    cycles = [cycle for _, cycle in walked if cycle]
    assert cycles == sorted(cycles)
    assert max(cycles, default=0) <= program.cycle_count


@pytest.mark.parametrize("program", [three_cycles(), program_of(rest(0))])
def test_a_program_survives_the_journal(program: Program) -> None:
    assert decode_program(encode_program(program)) == program
