"""'if', 'until', 'first', 'leave' and 'stop': as the Program that comes of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labctl.errors import RecipeError
from labctl.program import (
    Branch,
    Comparison,
    CycleFigure,
    CycleResult,
    EndedBy,
    Finish,
    Leave,
    Loop,
    Node,
    Program,
    Quantity,
    Step,
    Then,
    decode_program,
    encode_program,
)
from labctl.protocols.extent import most_s

Compile = Callable[..., Program]
V, T = Quantity.VOLTAGE_V, Quantity.STEP_TIME_S
BELOW, ABOVE = Comparison.AT_MOST, Comparison.AT_LEAST

CYCLE = "      - charge: {at: 0.2C, until: 4.1 V}\n      - discharge: {at: 0.2C, until: 1.5 V}\n"


def thens(step: Step) -> dict[Quantity, Then]:
    return {end.quantity: end.then for end in step.ends}


def only(body: tuple[Node, ...]) -> Node:
    (node,) = body
    return node


def test_a_branch_looks_at_how_the_step_before_ended(compiled: Compile) -> None:
    program = compiled(
        "  - charge: {at: 0.2C, until: [4.1 V, 100 mAh/g]}\n"
        "  - if: {ended by: charge}\n"
        "    then:\n      - rest: 1 h\n      - rest: 2 h\n"
        "    else:\n      - rest: 3 h\n"
        "  - rest: 4 h\n"
    )
    _, branch, last = program.body
    assert isinstance(branch, Branch)
    assert branch.condition == EndedBy(Quantity.STEP_CHARGE_AH)
    assert branch.line == 4
    assert [len(branch.then), len(branch.otherwise)] == [2, 1]
    assert [step.index for step in program.steps] == [0, 1, 2, 3, 4]
    assert [step.ends[-1].value for step in program.steps[1:]] == [3600, 7200, 10_800, 14_400]
    assert isinstance(last, Step)
    assert decode_program(encode_program(program)) == program


def test_of_two_branches_the_longer_bounds_the_program(compiled: Compile) -> None:
    program = compiled(
        "  - charge: {at: 0.2C, for: 1 h}\n"
        "  - repeat: 10\n    do:\n"
        "      - charge: {at: 0.2C, for: 30 min}\n"
        "      - if: {ended by: time}\n"
        "        then:\n          - rest: 10 min\n          - rest: 10 min\n"
        "        else:\n          - rest: 1 h\n"
    )
    assert most_s(program.body) == 3600 + 10 * (1800 + 3600)
    assert program.visit_count == 1 + 10 * 3
    assert program.limits.duration_max_s >= most_s(program.body)


@pytest.mark.parametrize(
    ("condition", "result"),
    [
        ("discharge capacity: below 80 %, of: cycle 1", ("discharge_Ah", BELOW, 0.8, 1, 1)),
        ("retention: below 80 %, of: cycle 1", ("discharge_Ah", BELOW, 0.8, 1, 1)),
        ("charge capacity: above 102 %, of: cycles 1 .. 2", ("charge_Ah", ABOVE, 1.02, 1, 2)),
        ("discharge capacity: below 120 mAh/g", ("discharge_Ah", BELOW, 2.4e-4, 0, 0)),
        ("charge capacity: above 0.3 mAh", ("charge_Ah", ABOVE, 3e-4, 0, 0)),
        ("discharge energy: below 400 Wh/kg", ("discharge_Wh", BELOW, 8e-4, 0, 0)),
        ("charge energy: below 90 %, of: cycle 2", ("charge_Wh", BELOW, 0.9, 2, 2)),
        ("efficiency: below 99 %", ("coulombic_efficiency", BELOW, 0.99, 0, 0)),
    ],
)
def test_a_condition_on_a_cycle_is_in_ampere_hours_and_fractions(
    compiled: Compile, condition: str, result: tuple[str, Comparison, float, int, int]
) -> None:
    program = compiled(
        f"  - cycle: 5\n    do:\n{CYCLE}"
        f"      - if: {{{condition}}}\n        then:\n          - stop: enough\n"
    )
    loop = only(program.body)
    assert isinstance(loop, Loop)
    branch = loop.body[-1]
    assert isinstance(branch, Branch)
    figure, comparison, value, first, last = result
    assert branch.condition == CycleResult(
        CycleFigure(figure), comparison, pytest.approx(value), first, last
    )
    assert branch.then == (Finish("enough"),)


@pytest.mark.parametrize(("words", "then"), [("leave: loop", "leave loop"), ("stop: x", "end run")])
def test_leaving_after_one_end_is_written_into_that_end(
    compiled: Compile, words: str, then: str
) -> None:
    program = compiled(
        "  - repeat: 100\n    do:\n"
        "      - charge: {at: 0.2C, until: [4.1 V, 2 h]}\n"
        f"      - if: {{ended by: voltage}}\n        then: [{words}]\n"
        "      - rest: 10 min\n"
    )
    loop = only(program.body)
    assert isinstance(loop, Loop)
    charge, rest = loop.body
    assert isinstance(charge, Step)
    assert isinstance(rest, Step)
    assert thens(charge) == {V: Then(then), T: Then.NEXT}
    assert [end.reason for end in charge.ends] == ["x" if "stop" in words else "", ""]


def test_two_ways_out_of_one_step_are_both_written_into_its_ends(compiled: Compile) -> None:
    program = compiled(
        "  - repeat: 100\n    do:\n"
        "      - discharge: {at: 0.2C, until: [1.5 V, 2 h]}\n"
        "      - if: {ended by: voltage}\n        then: [leave: loop]\n"
        "      - if: {ended by: time}\n        then: [stop: too slow]\n"
    )
    loop = only(program.body)
    assert isinstance(loop, Loop)
    step = only(loop.body)
    assert isinstance(step, Step)
    assert thens(step) == {V: Then.LEAVE_LOOP, T: Then.END_RUN}


def test_of_two_ways_out_by_one_end_the_first_is_taken(compiled: Compile) -> None:
    program = compiled(
        "  - repeat: 100\n    do:\n"
        "      - discharge: {at: 0.2C, until: [1.5 V, 2 h]}\n"
        "      - if: {ended by: voltage}\n        then: [leave: loop]\n"
        "      - if: {ended by: voltage}\n        then: [stop: too late]\n"
    )
    assert thens(program.steps[0]) == {V: Then.LEAVE_LOOP, T: Then.NEXT}


@pytest.mark.parametrize(
    "after",
    [
        "      - if: {ended by: voltage}\n        then: [rest: 1 h, leave: loop]\n",
        "      - if: {ended by: voltage}\n        then: [leave: loop]\n        else: [rest: 1 h]\n",
        "      - rest: 1 h\n      - if: {efficiency: below 50 %}\n        then: [leave: loop]\n",
    ],
)
def test_what_an_end_alone_cannot_say_stays_a_branch(compiled: Compile, after: str) -> None:
    program = compiled(
        "  - cycle: 9\n    do:\n      - discharge: {at: 0.2C, until: 1.5 V}\n"
        f"      - charge: {{at: 0.2C, until: 4.1 V}}\n{after}"
    )
    loop = only(program.body)
    assert isinstance(loop, Loop)
    branch = loop.body[-1]
    assert isinstance(branch, Branch)
    assert branch.then[-1] == Leave()
    assert all(then is Then.NEXT for step in program.steps for then in thens(step).values())


def test_a_loop_is_left_after_a_cycle_for_which_one_of_its_conditions_holds(
    compiled: Compile,
) -> None:
    program = compiled(
        "  - cycle: 500\n"
        "    until: [{retention: below 80 %, of: cycle 3}, {efficiency: below 95 %}]\n"
        f"    do:\n{CYCLE}"
    )
    loop = only(program.body)
    assert isinstance(loop, Loop)
    assert loop.count == 500
    assert loop.until == (
        CycleResult(CycleFigure.DISCHARGE_AH, BELOW, 0.8, 3, 3),
        CycleResult(CycleFigure.COULOMBIC_EFFICIENCY, BELOW, 0.95),
    )


def test_blocks_are_repeated_until_the_cell_has_aged(compiled: Compile) -> None:
    program = compiled(
        f"  - cycle: 3\n    do:\n{CYCLE}"
        "  - repeat: 20\n    until: {retention: below 80 %, of: cycle 3}\n    do:\n"
        f"      - cycle: 50\n        do:\n{CYCLE.replace('      -', '          -')}"
    )
    _, blocks = program.body
    assert isinstance(blocks, Loop)
    assert (blocks.counts_cycles, len(blocks.until)) == (False, 1)


def test_the_first_cycle_of_a_loop_can_be_another(compiled: Compile) -> None:
    program = compiled(
        "  - cycle: 10\n    class: usual\n    first:\n"
        f"      - charge: {{at: 0.1C, until: 4.1 V}}\n    do:\n{CYCLE}"
    )
    first, rest = program.body
    assert isinstance(first, Loop)
    assert isinstance(rest, Loop)
    assert [(loop.count, loop.counts_cycles) for loop in (first, rest)] == [(1, True), (9, True)]
    assert [loop.cycle_class for loop in (first, rest)] == ["usual", "usual"]
    assert program.cycle_count == 10
    assert [step.label for step in program.steps][:1] == ["charge at 0.1C until 4.1 V"]


def test_the_first_cycle_can_be_of_a_class_of_its_own(compiled: Compile) -> None:
    program = compiled(
        f"  - cycle: 2\n    first class: slow\n    first:\n      - rest: 1 h\n    do:\n{CYCLE}"
    )
    assert [loop.cycle_class for loop in program.body if isinstance(loop, Loop)] == [
        "slow",
        "cycle",
    ]


def test_a_condition_that_holds_after_the_first_cycle_keeps_the_others_from_being_done(
    compiled: Compile,
) -> None:
    head = f"  - cycle: 3\n    do:\n{CYCLE}"
    program = compiled(
        f"{head}  - cycle: 10\n    until: {{retention: below 80 %, of: cycle 3}}\n    first:\n"
        f"{CYCLE}    do:\n{CYCLE}"
    )
    _, first, branch = program.body
    assert isinstance(first, Loop)
    assert isinstance(branch, Branch)
    rest = only(branch.otherwise)
    assert isinstance(rest, Loop)
    assert (first.until, branch.then) == ((), ())
    assert rest.until == (branch.condition,)

    program = compiled(
        "  - cycle: 10\n    until: {retention: below 80 %, of: cycle 1}\n    first:\n"
        f"{CYCLE}    do:\n{CYCLE}"
    )
    assert [type(node) for node in program.body] == [Loop, Loop], "a first is never below itself"


def test_a_for_that_is_left_goes_on_behind_all_of_its_values(compiled: Compile) -> None:
    steps = (
        "  - for: rate\n    in: [1C, 2C, 5C]\n    do:\n"
        "      - charge: {at: $rate, until: [4.1 V, 1 h]}\n"
    )
    left = compiled(
        f"{steps}      - if: {{ended by: time}}\n        then: [leave: loop]\n  - rest: 1 h\n"
    )
    loop, rest = left.body
    assert isinstance(loop, Loop)
    assert (loop.count, loop.counts_cycles, len(loop.body)) == (1, False, 3)
    assert isinstance(rest, Step)
    assert all(thens(step)[T] is Then.LEAVE_LOOP for step in loop.body if isinstance(step, Step))
    assert len(compiled(steps).body) == 3


def test_leaving_a_loop_inside_a_for_leaves_only_that_loop(compiled: Compile) -> None:
    program = compiled(
        "  - for: rate\n    in: [1C, 2C]\n    do:\n"
        "      - repeat: 5\n        do:\n"
        "          - charge: {at: $rate, until: [4.1 V, 1 h]}\n"
        "          - if: {ended by: time}\n            then: [leave: loop]\n"
    )
    assert [node.count for node in program.body if isinstance(node, Loop)] == [5, 5]


def test_names_stand_inside_conditions_and_ranges(compiled: Compile) -> None:
    head = "parameters: {part: 80 %, low: 1.2 V, high: 4.4 V}\nlimits: {voltage: $low .. $high}\n"
    steps = f"  - cycle: 9\n    until: {{retention: below $part, of: cycle 1}}\n    do:\n{CYCLE}"
    program = compiled(steps, head, part="70 %", low="1.4 V")
    loop = only(program.body)
    assert isinstance(loop, Loop)
    assert loop.until[0].value == 0.7
    assert (program.limits.voltage_min_V, program.limits.voltage_max_V) == (1.4, 4.4)
    assert compiled(steps, head).limits.voltage_min_V == 1.2


def test_mistakes_in_every_list_of_steps_are_found_together(compiled: Compile) -> None:
    with pytest.raises(RecipeError) as caught:
        compiled(
            "  - cycle: many\n    until: {retention: 80 %}\n    first:\n      - rest: 1\n    do:\n"
            "      - charge: {at: 0.2C, until: 4.1 V}\n      - if: {ended by: volts}\n"
            "        then:\n          - rest: 2\n        else:\n          - leave: it\n"
            "          - rest: 3\n"
        )
    assert [problem.line for problem in caught.value.problems] == [3, 4, 6, 9, 11, 13, 14]
