from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.neware_bts.conditions import WATCHED
from labctl.drivers.neware_bts.stepfile import (
    Condition,
    FileStep,
    Jump,
    Protection,
    RecordConditions,
    StepFile,
    StepType,
    Sweep,
    read_step_file,
    write_step_file,
)
from labctl.errors import InstrumentError
from labctl.program import Comparison, Quantity

# What BTS Client 8.0.1 saves for one CC discharge, one CCCV charge and a loop.
SAVED_BY_BTS = b"""<?xml version="1.0" encoding="utf-8"?>
<root>
  <config type="Step File" version="18" client_version="BTS Client 8.0.1.492(2025.01.23)(R3)" \
date="20250917205515" Guid="547058a3-855f-4a13-bcf3-e59e489ca1e5">
    <Head_Info>
      <Operate Value="66" />
      <Scale Value="1" />
      <Start_Step Value="1" Hide_Ctrl_Step="0" />
      <RateType Value="105" />
      <SCQ Value="2000" />
      <SCQ_F Value="0.00002" />
      <MultCap Value="720" />
    </Head_Info>
    <Whole_Prt>
      <Protect>
        <Main>
          <Volt>
            <Upper Value="50000" />
            <Lower Value="-50000" />
          </Volt>
        </Main>
      </Protect>
      <Record>
        <Main>
          <Time Value="30000" />
        </Main>
      </Record>
    </Whole_Prt>
    <Step_Info Num="5">
      <Step1 Step_ID="1" Step_Type="4">
        <Record><Main><Time Value="60000" /></Main></Record>
        <Limit>
          <Main>
            <Time Value="120000" />
          </Main>
        </Limit>
      </Step1>
      <Step2 Step_ID="2" Step_Type="2">
        <Limit>
          <Main>
            <Curr Value="0.01" />
            <Rate Value="0.05" />
            <Stop_Volt Value="500" />
            <Cap Value="5544" />
          </Main>
        </Limit>
      </Step2>
      <Step3 Step_ID="3" Step_Type="7">
        <Limit>
          <Main>
            <Curr Value="0.01" />
            <Rate Value="0.05" />
            <Volt Value="18000" />
            <Stop_Curr Value="0.002" />
            <Stop_Rate Value="0.01" />
          </Main>
        </Limit>
      </Step3>
      <Step4 Step_ID="4" Step_Type="5">
        <Limit>
          <Other>
            <Start_Step Value="2" />
            <Cycle_Count Value="3" />
          </Other>
        </Limit>
      </Step4>
      <Step5 Step_ID="5" Step_Type="6">
      </Step5>
    </Step_Info>
    <SMBUS>
      <SMBUS_Info Num="0" AdjacentInterval="0" />
    </SMBUS>
  </config>
</root>
"""

numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(
    st.characters(
        exclude_categories=["Cs"],
        exclude_characters=[chr(c) for c in range(32) if chr(c) not in "\t\n\r"]
        + ["\ufffe", "\uffff"],
    ),
    max_size=20,
)
protections = st.builds(Protection, *[numbers] * 6)
records = st.builds(RecordConditions, *[numbers] * 3)
values = st.floats(allow_nan=False, allow_infinity=False)
conditions = st.builds(
    Condition,
    st.sampled_from(sorted(WATCHED)),
    st.sampled_from(Comparison),
    values,
    st.integers(1, 254) | st.sampled_from([int(jump) for jump in Jump]),
)
sweeps = st.builds(Sweep, numbers, values, values)
counts = st.none() | st.integers(-(10**9), 10**9)


@st.composite
def step_files(draw: st.DrawFn) -> StepFile:
    steps = st.builds(
        FileStep,
        number=st.just(0),
        type=st.sampled_from(StepType),
        current_A=numbers,
        voltage_V=numbers,
        time_s=numbers,
        stop_voltage_V=numbers,
        stop_current_A=numbers,
        stop_capacity_Ah=numbers,
        start_step=counts,
        cycle_count=counts,
        record=st.none() | records,
        protection=st.none() | protections,
        power_W=numbers,
        resistance_ohm=numbers,
        sweep=st.none() | sweeps,
        conditions=st.lists(conditions, max_size=3).map(tuple),
    )
    return StepFile(
        steps=tuple(
            replace(step, number=number)
            for number, step in enumerate(draw(st.lists(steps, max_size=4)), start=1)
        ),
        protection=draw(protections),
        record=draw(records),
        creator=draw(texts),
        remark=draw(texts),
        date=draw(texts),
        guid=draw(texts),
    )


@given(step_files())
def test_what_is_read_back_is_exactly_what_was_written(file: StepFile) -> None:
    assert read_step_file(write_step_file(file)) == file


def test_a_file_holds_tenths_of_millivolts_milliamperes_milliseconds_and_milliampere_seconds() -> (
    None
):
    text = write_step_file(
        StepFile(
            steps=(
                FileStep(
                    1,
                    StepType.CC_CHARGE,
                    current_A=39.3e-6,
                    time_s=0.1,
                    stop_voltage_V=4.1,
                    stop_capacity_Ah=1.54e-3,
                ),
                FileStep(2, StepType.CYCLE, start_step=1, cycle_count=10000),
                FileStep(3, StepType.END),
            ),
            protection=Protection(voltage_upper_V=4.4, current_lower_A=-0.01, delay_s=2.0),
            record=RecordConditions(voltage_change_V=0.005),
            remark="run-1",
        )
    ).decode()
    assert '<Step1 Step_ID="1" Step_Type="1">' in text
    assert '<Curr Value="0.0393" />' in text
    assert '<Time Value="100" />' in text
    assert '<Stop_Volt Value="41000" />' in text
    assert '<Cap Value="5544" />' in text
    assert '<Start_Step Value="1" />' in text
    assert '<Cycle_Count Value="10000" />' in text
    assert '<Upper Value="44000" />' in text
    assert '<Lower Value="-10" />' in text
    assert '<Delay_Time Value="2000" />' in text
    assert '<Volt Value="50" />' in text
    assert '<Remark Value="run-1" />' in text
    assert '<Step3 Step_ID="3" Step_Type="6" />' in text
    assert '<Step_Info Num="3">' in text


def test_powers_resistances_sweeps_and_conditions_are_written_in_the_files_own_units() -> None:
    text = write_step_file(
        StepFile(
            steps=(
                FileStep(1, StepType.CP_CHARGE, power_W=1.5e-3, time_s=60.0),
                FileStep(2, StepType.CR_DISCHARGE, resistance_ohm=470.0, time_s=60.0),
                FileStep(3, StepType.SWEEP, sweep=Sweep(1.5, 4.1, 1e-4), time_s=26000.0),
                FileStep(4, StepType.SWEEP, sweep=Sweep(None, 1.5, 2e-3), time_s=1300.0),
                FileStep(
                    5,
                    StepType.CC_CHARGE,
                    current_A=1e-3,
                    conditions=(
                        Condition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1, 7),
                        Condition(Quantity.CURRENT_A, Comparison.AT_MOST, 1e-5),
                        Condition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 1.5, Jump.FINISH),
                        Condition(Quantity.STEP_CHARGE_AH, Comparison.AT_LEAST, 2.5e-4),
                        Condition(Quantity.STEP_ENERGY_WH, Comparison.AT_LEAST, 1e-3),
                    ),
                ),
            ),
            protection=Protection(),
            record=RecordConditions(),
        )
    ).decode()
    rest = 'TimeGoto="0" GlobleUserID="2147483647" GLobleType="1" GlobalVar="2147483647" Aux="0"'
    assert '<Step1 Step_ID="1" Step_Type="9">' in text
    assert '<Pow Value="1.5" />' in text
    assert '<Step2 Step_ID="2" Step_Type="10">' in text
    assert '<Res Value="470000" />' in text
    assert '<Step3 Step_ID="3" Step_Type="25">' in text
    assert '<Slope SlopeType="1" Cycle_Count="1" ItemCount="1">' in text
    assert '<Slope1 StartValue="15000" EndValue="41000" Value="0.1" />' in text
    assert '<Slope1 EndValue="15000" Value="2" />' in text
    assert '<Other CndCount="5">' in text
    seen = 'Function="0" CmpType="3" Jump_Line="65526" Value="0"'
    for line in (
        f'<Cnd1 type="1" Function="0" CmpType="3" Jump_Line="7" Value="41000" {rest} />',
        f'<Cnd2 type="2" Function="0" CmpType="5" Jump_Line="65526" Value="0.01" {rest} />',
        f'<Cnd3 type="3" Function="0" CmpType="4" Jump_Line="65535" Value="1500" {rest} />',
        f'<Cnd4 type="22" {seen} {rest} ExpressionName="expr4" Expression="Ah - 0.00025" />',
        f'<Cnd5 type="22" {seen} {rest} ExpressionName="expr5" Expression="Wh - 0.001" />',
    ):
        assert line in text


CONDITION = (
    b'<Other CndCount="1"><Cnd1 type="22" CmpType="3" Jump_Line="65526" Value="0"'
    b' Expression="Ah - 0.1" /></Other>'
)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'CndCount="1"', b'CndCount="2"', "announces 2 conditions and holds 1"),
        (b'type="22"', b'type="23"', "is of type '23', not known here"),
        (b'CmpType="3"', b'CmpType="9"', "compares by '9'"),
        (b'Jump_Line="65526"', b'Jump_Line="next"', "leads to 'next'"),
        (b'Expression="Ah - 0.1"', b'Expression="Ah * 0.1"', "has the expression 'Ah [*] 0.1'"),
        (b'Expression="Ah - 0.1"', b'Expression="Ah - much"', "is 'much', which is no number"),
        (b'Value="0"', b'Value="1"', "has the expression"),
        (b"<Other", b"<Slope><Slope1/><Slope2/></Slope><Other", "<Slope> has 2 legs"),
        (b"<Other", b"<Slope><Slope1/></Slope><Other", "EndValue> is '', which is no number"),
    ],
)
def test_a_condition_or_sweep_that_is_not_known_is_refused(
    old: bytes, new: bytes, says: str
) -> None:
    file = (
        b'<config type="Step File"><Step_Info><Step1 Step_ID="1" Step_Type="1"><Limit>'
        + CONDITION
        + b"</Limit></Step1></Step_Info></config>"
    )
    read = read_step_file(file).steps[0].conditions
    assert read == (Condition(Quantity.STEP_CHARGE_AH, Comparison.AT_LEAST, 0.1, Jump.NEXT),)
    assert old in file
    with pytest.raises(InstrumentError, match=says):
        read_step_file(file.replace(old, new))


def test_a_condition_on_what_no_step_file_watches_is_never_written() -> None:
    odd = Condition(Quantity.TEMPERATURE_DEGC, Comparison.AT_LEAST, 40.0)
    with pytest.raises(ValueError, match="no condition of a step file looks at temperature_degC"):
        write_step_file(
            StepFile(
                (FileStep(1, StepType.REST, conditions=(odd,)),), Protection(), RecordConditions()
            )
        )


def test_a_file_saved_by_the_vendors_window_is_understood() -> None:
    file = read_step_file(SAVED_BY_BTS)
    assert file.protection == Protection(voltage_upper_V=5.0, voltage_lower_V=-5.0)
    assert file.record == RecordConditions(time_s=30.0)
    assert file.date == "20250917205515"
    assert file.steps == (
        FileStep(1, StepType.REST, time_s=120.0, record=RecordConditions(time_s=60.0)),
        FileStep(
            2,
            StepType.CC_DISCHARGE,
            current_A=1e-5,
            stop_voltage_V=0.05,
            stop_capacity_Ah=1.54e-3,
        ),
        FileStep(3, StepType.CCCV_CHARGE, current_A=1e-5, voltage_V=1.8, stop_current_A=2e-6),
        FileStep(4, StepType.CYCLE, start_step=2, cycle_count=3),
        FileStep(5, StepType.END),
    )


def test_the_scale_of_a_file_divides_currents_and_capacities_only() -> None:
    file = read_step_file(SAVED_BY_BTS.replace(b'<Scale Value="1" />', b'<Scale Value="100" />'))
    assert file.steps[1].current_A == 1e-7
    assert file.steps[1].stop_capacity_Ah == 1.54e-5
    assert file.steps[1].stop_voltage_V == 0.05
    assert file.steps[0].time_s == 120.0


@pytest.mark.parametrize("codec", ["gb2312", "utf-8", "utf-8-sig"])
def test_a_chinese_remark_is_read_whatever_the_file_is_encoded_in(codec: str) -> None:
    text = (
        SAVED_BY_BTS.decode()
        .replace('encoding="utf-8"', 'encoding="GB2312"')
        .replace("</Head_Info>", '<Remark Value="酯类电解液50uL" /></Head_Info>')
    )
    file = read_step_file(text.encode(codec))
    assert file.remark == "酯类电解液50uL"
    assert len(file.steps) == 5


def test_a_file_without_protection_records_or_head_is_read() -> None:
    file = read_step_file(
        b'<root><config type="Step File"><Step_Info>'
        b'<Step1 Step_ID="1" Step_Type="6"/></Step_Info></config></root>'
    )
    assert file == StepFile(
        (FileStep(1, StepType.END),), Protection(), RecordConditions(), creator=""
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"</root>", b"", "not XML"),
        (b"<root>", b'<!DOCTYPE root [<!ENTITY a "b">]><root>', "document type or entity"),
        (b"Step File", b"Shopping List", "no step file"),
        (b'Num="5"', b'Num="6"', "announces 6 steps and holds 5"),
        (b'Step_ID="3"', b'Step_ID="4"', "step 3 is expected here"),
        (b'Step_Type="7"', b'Step_Type="77"', "step 3 has type '77'"),
        (b'Value="18000"', b'Value="nan"', "line 52: <Volt> is 'nan'"),
        (b'Value="18000"', b'Value="1e999"', "too large"),
        (b'Value="18000"', b'Value=""', "which is no number"),
        (b'Value="18000"', b"", "which is no number"),
        (b'<Cycle_Count Value="3" />', b'<Cycle_Count Value="3.5" />', "which is no count"),
        (b'<Scale Value="1" />', b'<Scale Value="0" />', "must be above 0"),
        (b'<Volt Value="18000" />', b'<Volt Value="1" /><Volt Value="2" />', "2 elements <Volt>"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_the_reason(
    old: bytes, new: bytes, says: str
) -> None:
    assert old in SAVED_BY_BTS
    with pytest.raises(InstrumentError) as caught:
        read_step_file(SAVED_BY_BTS.replace(old, new), name="run-1.xml")
    assert "run-1.xml" in str(caught.value)
    assert says in str(caught.value)


def test_a_cut_file_is_refused_wherever_it_is_cut() -> None:
    for length in range(0, len(SAVED_BY_BTS.rstrip()), 7):
        with pytest.raises(InstrumentError):
            read_step_file(SAVED_BY_BTS[:length])


@given(st.binary(max_size=200), st.integers(0, len(SAVED_BY_BTS)), st.integers(0, 50))
def test_damaged_bytes_are_read_or_refused_but_nothing_else(
    damage: bytes, start: int, length: int
) -> None:
    with contextlib.suppress(InstrumentError):
        read_step_file(SAVED_BY_BTS[:start] + damage + SAVED_BY_BTS[start + length :])


def test_a_deeply_nested_file_is_refused() -> None:
    with pytest.raises(InstrumentError, match="nested deeper"):
        read_step_file(b"<a>" * 100_000)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_never_written(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        write_step_file(
            StepFile((FileStep(1, StepType.REST, time_s=value),), Protection(), RecordConditions())
        )


def test_steps_out_of_order_and_texts_that_xml_cannot_carry_are_never_written() -> None:
    end = FileStep(2, StepType.END)
    with pytest.raises(ValueError, match="stands in place 1"):
        write_step_file(StepFile((end,), Protection(), RecordConditions()))
    with pytest.raises(ValueError, match="XML cannot carry"):
        write_step_file(StepFile((), Protection(), RecordConditions(), remark="a\x00b"))
