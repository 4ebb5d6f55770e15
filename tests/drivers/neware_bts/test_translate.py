from __future__ import annotations

import contextlib
import math

import pytest
from bts_programs import (
    CHANNEL,
    CHARGE,
    DISCHARGE,
    EVERY_30_S,
    REST,
    TEN_MINUTES,
    TO_1V5,
    TO_4V1,
    leaving,
    program,
    refusals,
    step,
    translated,
    until,
)
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.neware_bts.stepfile import (
    FileStep,
    Protection,
    RecordConditions,
    StepType,
    read_step_file,
    write_step_file,
)
from labctl.drivers.neware_bts.translate import (
    limits_of,
    longest_duration_s,
    step_numbers,
    translate,
)
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
    Step,
    Then,
    VoltageSweep,
)


def test_a_rest_and_ten_thousand_cycles_become_five_steps() -> None:
    result = translated(REST, Loop(10_000, (CHARGE, DISCHARGE), counts_cycles=True))
    assert result.file.steps == (
        FileStep(1, StepType.REST, time_s=600.0, record=EVERY_30_S),
        FileStep(
            2,
            StepType.CC_CHARGE,
            current_A=2e-4,
            time_s=7920.0,
            stop_voltage_V=4.1,
            record=EVERY_30_S,
        ),
        FileStep(
            3,
            StepType.CC_DISCHARGE,
            current_A=2e-4,
            time_s=7920.0,
            stop_voltage_V=1.5,
            record=EVERY_30_S,
        ),
        FileStep(4, StepType.CYCLE, start_step=2, cycle_count=10_000),
        FileStep(5, StepType.END),
    )
    assert result.step_of_number == {1: 0, 2: 1, 3: 2}


def test_the_limits_of_the_run_are_the_protections_of_the_file() -> None:
    file = translated(REST).file
    assert file.protection == Protection(
        voltage_upper_V=4.4,
        voltage_lower_V=1.0,
        current_upper_A=0.011,
        current_lower_A=-0.011,
        capacity_upper_Ah=4e-4,
    )
    assert file.record == EVERY_30_S


def test_loops_in_loops_go_back_to_where_each_begins() -> None:
    result = translated(
        Loop(
            3,
            (
                Loop(5, (step(0, Rest(), TEN_MINUTES), step(1, ConstantCurrent(1e-4), TO_4V1))),
                step(2, ConstantCurrent(-1e-4), TO_1V5),
                Loop(1, (step(3, Rest(), TEN_MINUTES),)),
            ),
        ),
        step(4, Rest(), TEN_MINUTES),
    )
    types = [(each.number, each.type.name, each.start_step) for each in result.file.steps]
    assert types == [
        (1, "REST", None),
        (2, "CC_CHARGE", None),
        (3, "CYCLE", 1),
        (4, "CC_DISCHARGE", None),
        (5, "REST", None),
        (6, "CYCLE", 1),
        (7, "REST", None),
        (8, "END", None),
    ]
    assert result.step_of_number == {1: 0, 2: 1, 4: 2, 5: 3, 7: 4}


def test_voltage_holds_and_their_ends() -> None:
    taper = until(Quantity.CURRENT_A, "<=", 1e-5)
    charge = until(Quantity.STEP_CHARGE_AH, ">=", 3e-4)
    steps = translated(
        step(0, ConstantCurrentConstantVoltage(2e-4, 4.1), taper, TEN_MINUTES),
        step(1, ConstantCurrentConstantVoltage(-2e-4, 1.5), taper, charge),
        step(2, ConstantVoltage(4.0, 5e-3, charging=True), taper),
        step(3, ConstantVoltage(2.0, 5e-3, charging=False), TEN_MINUTES),
    ).file.steps
    assert steps[0] == FileStep(
        1,
        StepType.CCCV_CHARGE,
        current_A=2e-4,
        voltage_V=4.1,
        time_s=600.0,
        stop_current_A=1e-5,
        record=EVERY_30_S,
    )
    assert steps[1] == FileStep(
        2,
        StepType.CCCV_DISCHARGE,
        current_A=2e-4,
        voltage_V=1.5,
        time_s=500_000.0,
        stop_current_A=1e-5,
        stop_capacity_Ah=3e-4,
        record=EVERY_30_S,
    )
    assert steps[2].type is StepType.CV_CHARGE
    assert (steps[2].voltage_V, steps[2].current_A, steps[2].stop_current_A) == (4.0, 5e-3, 1e-5)
    assert steps[3].type is StepType.CV_DISCHARGE
    assert (steps[3].voltage_V, steps[3].current_A, steps[3].time_s) == (2.0, 5e-3, 600.0)


def test_a_record_rule_becomes_the_record_of_its_step() -> None:
    steps = translated(
        step(0, Rest(), TEN_MINUTES, record=RecordRule(60.0, voltage_change_V=0.001)),
        step(1, ConstantCurrent(1e-4), TO_4V1, record=RecordRule(math.inf, 0.005, 1e-5)),
    ).file.steps
    assert steps[0].record == RecordConditions(60.0, 0.001, None)
    assert steps[1].record == RecordConditions(None, 0.005, 1e-5)


def test_every_step_has_a_time_that_no_healthy_step_reaches() -> None:
    steps = translated(
        step(0, ConstantCurrent(1e-2), TO_4V1),
        step(1, ConstantCurrent(1e-6), TO_4V1),
        step(2, ConstantVoltage(4.0, 1e-3, charging=True), until(Quantity.CURRENT_A, "<=", 1e-5)),
    ).file.steps
    assert steps[0].time_s == 159.0  # 4e-4 Ah at 10 mA take 144 s
    assert steps[1].time_s == 500_000.0  # 4e-4 Ah at 1 uA would take longer than the run may
    assert steps[2].time_s == 500_000.0


def test_limits_read_from_a_file_are_those_that_it_arms() -> None:
    file = read_step_file(write_step_file(translated(REST, Loop(2, (CHARGE, DISCHARGE))).file))
    limits = limits_of(file)
    assert limits == Limits(
        voltage_min_V=1.0,
        voltage_max_V=4.4,
        current_min_A=-0.011,
        current_max_A=0.011,
        step_charge_max_Ah=4e-4,
        duration_max_s=600.0 + 2 * (7920.0 + 7920.0),
    )
    bare = limits_of(read_step_file(b'<config type="Step File"><Step_Info/></config>'))
    assert bare.voltage_max_V == math.inf
    assert bare.current_min_A == -math.inf


def test_the_longest_duration_of_nested_loops_is_their_product() -> None:
    minute = until(Quantity.STEP_TIME_S, ">=", 60.0)
    file = translated(
        Loop(10, (step(0, Rest(), minute), Loop(5, (step(1, Rest(), minute),)))),
        step(2, Rest(), minute),
    ).file
    assert longest_duration_s(file) == 60.0 * (10 * (1 + 5) + 1)


@pytest.mark.parametrize(
    ("control", "ends", "says"),
    [
        (Rest(), (), "has no end"),
        (ConstantCurrent(1e-4), (until(Quantity.CURRENT_A, "<=", 1e-5),), "does not change"),
        (ConstantCurrent(1e-4), (until(Quantity.STEP_TIME_S, "<=", 5.0),), "from the start"),
        (Rest(), (until(Quantity.STEP_CHARGE_AH, ">=", 1e-4),), "nothing flows in a rest"),
        (
            ConstantCurrent(1e-4),
            (until(Quantity.RUN_CHARGE_AH, ">=", 1e-4),),
            "cannot end when run_charge_Ah >= 0.0001: a step file watches voltage, current, time",
        ),
        (Rest(), (until(Quantity.TEMPERATURE_DEGC, ">=", 40.0),), "a step file watches"),
        (Rest(), (until(Quantity.VOLTAGE_SLOPE_V_PER_S, "<=", 1e-6),), "a step file watches"),
        (
            Impedance(False, 0.005, 1e5, 0.1, 10, 1e-3),
            (TEN_MINUTES,),
            "is of the kind impedance, which BTS does not have",
        ),
        (ConstantPower(0.0, 1e-3), (TEN_MINUTES,), "sets 0 W, and the channel can do up to 0.05 W"),
        (ConstantPower(0.06, 1e-2), (TEN_MINUTES,), "sets 0.06 W"),
        (ConstantPower(1e-3, 0.0), (TEN_MINUTES,), "allows a current of 0 A"),
        (ConstantResistance(0.0, 1e-3), (TEN_MINUTES,), "sets 0 ohm"),
        (ConstantResistance(math.inf, 1e-3), (TEN_MINUTES,), "sets inf ohm"),
        (VoltageSweep(1.5, 6.0, 1e-3, 1e-3), (TEN_MINUTES,), "sweeps to 6 V"),
        (VoltageSweep(0.5, 4.0, 1e-3, 1e-3), (TEN_MINUTES,), "begins at 0.5 V, outside the run's"),
        (VoltageSweep(1.5, 4.0, 0.0, 1e-3), (TEN_MINUTES,), "sweeps at 0 V/s"),
        (VoltageSweep(2.0, 2.0, 1e-3, 1e-3), (TEN_MINUTES,), "to the same voltage"),
        (VoltageSweep(2.0, 3.0, 1e-3, 0.0), (TEN_MINUTES,), "sets 0 A"),
        (VoltageSweep(2.0, 3.0, 1e-3, math.nan), (TEN_MINUTES,), "sets nan A"),
        (
            ConstantCurrent(1e-4),
            (EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1, Then.LEAVE_LOOP),),
            "leaves a loop when voltage_V >= 4.1, and there is no loop around it",
        ),
        (ConstantCurrent(1e-4), (until(Quantity.STEP_TIME_S, ">=", 0.0),), "above 0"),
        (ConstantCurrent(1e-4), (until(Quantity.STEP_TIME_S, ">=", math.inf),), "finite"),
        (ConstantCurrent(1e-4), (until(Quantity.STEP_TIME_S, ">=", 4e7),), "at most 3.1536e+07 s"),
        (ConstantCurrent(0.0), (TO_1V5,), "sets 0 A, and the channel can do 1e-09 A to 0.01 A"),
        (ConstantCurrent(0.02), (TO_4V1,), "sets 0.02 A, and the channel can do"),
        (ConstantCurrent(math.nan), (TO_1V5,), "sets nan A"),
        (ConstantCurrent(1e-4), (until(Quantity.VOLTAGE_V, ">=", 6.0),), "ends at 6 V, and the ch"),
        (ConstantCurrent(1e-4), (until(Quantity.VOLTAGE_V, ">=", 4.5),), "outside the run's own"),
        (ConstantVoltage(5.5, 1e-3, charging=True), (TEN_MINUTES,), "holds 5.5 V"),
        (ConstantVoltage(4.0, math.inf, charging=True), (TEN_MINUTES,), "sets inf A"),
        (
            ConstantCurrentConstantVoltage(1e-4, 4.1),
            (until(Quantity.CURRENT_A, "<=", 2e-4),),
            "cannot end when current_A <= 0.0002: that is not below its current of 0.0001 A",
        ),
    ],
)
def test_a_step_that_bts_cannot_run_is_refused_with_the_reason(
    control: Control, ends: tuple[EndCondition, ...], says: str
) -> None:
    reasons = refusals(step(0, control, *ends, line=7))
    assert len(reasons) == 1, reasons
    assert reasons[0].startswith("step 1 of line 7 ")
    assert says in reasons[0]


def test_a_current_beyond_the_runs_own_limit_is_refused() -> None:
    limits = Limits(1.0, 4.4, -1e-3, 2e-3, 4e-4, 1e5)
    assert refusals(REST, step(1, ConstantCurrent(3e-3), TO_4V1), limits=limits) == (
        "step 2 sets 0.003 A, beyond the run's own limit of 0.002 A",
    )
    assert (
        "limit of 0.001 A" in refusals(step(0, ConstantCurrent(-1.5e-3), TO_1V5), limits=limits)[0]
    )


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(1.0, math.inf, -1e-2, 1e-2, 4e-4, 1e5), "voltage_max_V is inf"),
        (Limits(1.0, 4.4, -math.inf, 1e-2, 4e-4, 1e5), "current_min_A is -inf"),
        (Limits(1.0, 4.4, -1e-2, 1e-2, math.inf, 1e5), "step_charge_max_Ah is inf"),
        (Limits(1.0, 5.5, -1e-2, 1e-2, 4e-4, 1e5), "5.5 V is outside what the channel sees"),
        (Limits(-1.0, 4.4, -1e-2, 1e-2, 4e-4, 1e5), "-1 V is outside what the channel sees"),
        (Limits(1.0, 4.4, 1e-3, 1e-2, 4e-4, 1e5), "do not allow 0 A"),
        (Limits(4.4, 1.0, -1e-2, 1e-2, 4e-4, 1e5), "leave no room"),
        (Limits(1.0, 4.4, -1e-2, 1e-2, -1.0, 1e5), "must be above 0"),
        (Limits(1.0, 4.4, -1e-2, 1e-2, 4e-4, 1e5, 5.0, 60.0), "5 to 60 degC cannot be watched"),
    ],
)
def test_a_limit_that_bts_cannot_watch_is_refused(limits: Limits, says: str) -> None:
    assert says in "\n".join(refusals(REST, limits=limits))


def test_a_run_that_may_outlast_the_longest_step_is_refused_where_nothing_else_ends_it() -> None:
    limits = Limits(1.0, 4.4, -1e-2, 1e-2, 4e-4, 1e9)
    assert translated(REST, CHARGE, limits=limits).file.steps[1].time_s == 7920.0
    taper = until(Quantity.CURRENT_A, "<=", 1e-5)
    hold = step(0, ConstantVoltage(4.0, 1e-3, charging=True), taper)
    (reason,) = refusals(hold, limits=limits)
    assert "may last 1e+09 s" in reason
    endless = Limits(1.0, 4.4, -1e-2, 1e-2, 4e-4, math.inf)
    assert "may last inf s" in refusals(hold, limits=endless)[0]


def test_temperature_limits_are_let_pass_where_something_else_watches_them() -> None:
    limits = Limits(1.0, 4.4, -1e-2, 1e-2, 4e-4, 1e5, 5.0, 60.0)
    assert translate(program(REST, limits=limits), CHANNEL, temperature_watched_elsewhere=True)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (RecordRule(0.01), "every 0.01 s, and the channel's fastest is 0.1 s"),
        (RecordRule(math.nan), "every nan s"),
        (RecordRule(30.0, voltage_change_V=0.0), "voltage_change_V 0: it must be above 0"),
        (RecordRule(math.inf), "nothing is ever recorded"),
    ],
)
def test_a_record_rule_that_bts_cannot_keep_is_refused(rule: RecordRule, says: str) -> None:
    assert says in refusals(step(0, Rest(), TEN_MINUTES, record=rule))[0]


def test_loops_that_bts_cannot_run_are_refused() -> None:
    assert "a loop of 0 passes" in refusals(REST, Loop(0, (CHARGE,)))[0]
    assert "a loop of 65536 passes" in refusals(REST, Loop(65_536, (CHARGE,)))[0]
    assert "no steps in it" in refusals(REST, Loop(2, ()))[0]
    deep: Node = REST
    for _ in range(4):
        deep = Loop(2, (deep,))
    assert refusals(deep) == ("loops are nested 4 deep, a step file holds 3",)
    assert refusals() == ("the program has no steps",)


def test_a_program_with_more_steps_than_a_file_holds_is_refused() -> None:
    steps = tuple(step(index, Rest(), TEN_MINUTES) for index in range(253))
    assert len(translated(*steps).file.steps) == 254
    (reason,) = refusals(*steps, step(253, Rest(), TEN_MINUTES))
    assert "takes 255 steps" in reason


def test_a_program_whose_steps_are_numbered_wrongly_is_refused() -> None:
    assert "not numbered in their order" in refusals(CHARGE)[0]


def test_every_reason_is_given_at_once() -> None:
    reasons = refusals(
        step(0, Rest()),
        step(1, ConstantCurrent(1.0), until(Quantity.VOLTAGE_V, ">=", 6.0)),
        limits=Limits(1.0, 9.0, -1e-2, 1e-2, 4e-4, 1e5),
    )
    assert len(reasons) == 4


controls: st.SearchStrategy[tuple[Control, EndCondition]] = st.sampled_from(
    [
        (Rest(), TEN_MINUTES),
        (ConstantCurrent(1e-3), TO_4V1),
        (ConstantCurrent(-1e-3), TO_1V5),
        (ConstantCurrentConstantVoltage(1e-3, 4.1), until(Quantity.CURRENT_A, "<=", 1e-4)),
    ]
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    index = 0

    def body(depth: int) -> tuple[Node, ...]:
        nonlocal index
        nodes: list[Node] = []
        for _ in range(draw(st.integers(1, 3))):
            if depth < 3 and draw(st.booleans()):
                nodes.append(Loop(draw(st.integers(1, 4)), body(depth + 1)))
            else:
                control, end = draw(controls)
                ends = [end]
                if depth and draw(st.booleans()):
                    ends.append(leaving(Quantity.VOLTAGE_V, "<=", 1.2))
                nodes.append(step(index, control, *ends))
                index += 1
        return tuple(nodes)

    return program(*body(0))


class Leaves:
    """Says of each visit in turn whether the step's own way out of its loop is taken."""

    def __init__(self, taken: list[bool]) -> None:
        self.taken = taken
        self.visits = 0

    def __call__(self, possible: bool) -> bool:
        self.visits += 1
        return possible and self.taken[self.visits % len(self.taken)]


def run_of_file(steps: tuple[FileStep, ...], leaves: Leaves) -> list[int]:
    """The numbers of the steps that BTS enters, by what its manual calls a cycle."""
    entered = []
    passes: dict[int, int] = {}
    place = 0
    while steps[place].type is not StepType.END:
        each = steps[place]
        if each.type is StepType.CYCLE:
            assert each.start_step is not None
            assert each.cycle_count is not None
            passes[place] = passes.get(place, 0) + 1
            if passes[place] < each.cycle_count:
                place = each.start_step - 1
                continue
            passes[place] = 0
        else:
            entered.append(each.number)
            if leaves(bool(each.conditions)):
                place = each.conditions[0].jump - 1
                for cycle in passes:
                    if not (steps[cycle].start_step or 0) - 1 <= place <= cycle:
                        passes[cycle] = 0
                continue
        place += 1
    return entered


class LoopLeft(Exception):  # noqa: N818
    """A way out of the innermost loop was taken."""


def run_of_program(body: tuple[Node, ...], leaves: Leaves) -> list[int]:
    entered: list[int] = []

    def run(nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            if isinstance(node, Step):
                entered.append(node.index)
                if leaves(any(end.then is Then.LEAVE_LOOP for end in node.ends)):
                    raise LoopLeft
            elif isinstance(node, Loop):
                with contextlib.suppress(LoopLeft):
                    for _ in range(node.count):
                        run(node.body)

    run(body)
    return entered


@given(programs(), st.lists(st.booleans(), min_size=1, max_size=7))
def test_the_file_enters_the_steps_that_the_program_enters_in_the_same_order(
    source: Program, taken: list[bool]
) -> None:
    result = translate(source, CHANNEL)
    steps = result.file.steps
    for choices in ([False], taken):
        entered = [result.step_of_number[number] for number in run_of_file(steps, Leaves(choices))]
        assert entered == run_of_program(source.body, Leaves(choices))
    assert result.step_of_number == step_numbers(source)
    assert all(
        each.time_s is not None and 0 < each.time_s < math.inf
        for each in result.file.steps
        if each.type not in {StepType.CYCLE, StepType.END}
    )
    whole = run_of_file(steps, Leaves([False]))
    times_s = [steps[number - 1].time_s for number in whole]
    assert longest_duration_s(result.file) == pytest.approx(sum(time or 0 for time in times_s))
