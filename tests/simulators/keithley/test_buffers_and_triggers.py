"""Reading buffers, sweeps and the trigger model; examples are those of 2461-901-01 ch. 6."""

from __future__ import annotations

import struct

import pytest
from source_meter import SourceMeter


def source_of(volts: float = 1.0, ohm: float = 1000.0) -> SourceMeter:
    meter = SourceMeter(ohm)
    meter.good(f":SOUR:VOLT {volts}", ":SOUR:VOLT:ILIM 0.01", ":OUTP ON")
    return meter


def test_a_buffer_is_made_filled_and_read_in_rows() -> None:
    meter = source_of()
    meter.good(":TRAC:MAKE 'mine', 20, STANdard", ":SENS:COUN 3", ":TRAC:TRIG 'mine'")
    assert meter.good(":TRAC:ACT? 'mine';:TRAC:POIN? 'mine'") == "3;20"
    rows = meter.good(":TRAC:DATA? 1,3,'mine',REL,SOUR,READ,UNIT").split(",")
    assert len(rows) == 12
    assert rows[0] == "0.000000E+00"
    assert [float(value) for value in rows[1::4]] == pytest.approx([1.0] * 3)
    assert [float(value) for value in rows[2::4]] == pytest.approx([1e-3] * 3)
    assert rows[3::4] == ["A"] * 3
    meter.say(":TRAC:MAKE 'mine', 20")
    assert meter.error() == 1115
    meter.say(":TRAC:DATA? 1,4,'mine'")
    assert meter.error() == -222
    meter.good(":TRAC:DEL 'mine'")


def test_a_continuous_buffer_begins_again_and_a_single_one_stops() -> None:
    meter = source_of()
    meter.good(":TRAC:POIN 10", ":SENS:COUN 13", ":READ?")
    assert meter.good(":TRAC:ACT?;:TRAC:ACT:STAR?;:TRAC:ACT:END?") == "10;4;3"
    times = [float(value) for value in meter.good(":TRAC:DATA? 1,10,'defbuffer1',REL").split(",")]
    assert times[3] < times[9] < times[0] == 0.0 < times[2] or times[2] > times[0] == 0.0
    meter.good(":TRAC:FILL:MODE ONCE", ":READ?")
    assert meter.good(":TRAC:ACT?;:TRAC:ACT:END?;:TRAC:FILL:MODE?") == "10;10;ONCE"
    assert meter.say(":SYST:EVEN:NEXT?").startswith("4917,")


def test_readings_may_be_had_in_binary_and_with_more_digits() -> None:
    meter = source_of()
    meter.good(":FORM:ASC:PREC 12")
    assert len(meter.good(":READ?").split("E")[0]) == len("1.00000000000")
    meter.good(":FORM:DATA REAL")
    block = meter.raw(":READ? 'defbuffer1',READ,REL")
    assert block[:2] == b"#0"
    reading, _ = struct.unpack("<2d", block[2:])
    assert reading == pytest.approx(1e-3)
    meter.say(":READ? 'defbuffer1',TST")
    assert meter.error() == 1133
    meter.good(":FORM ASC", ":READ? 'defbuffer1',TST")


def test_the_counters_of_the_manuals_example_make_fifteen_readings() -> None:
    meter = source_of()
    meter.good('TRIG:LOAD "EMPTY"', "TRIG:BLOC:BUFF:CLEAR 1", "TRIG:BLOC:MEAS 2")
    meter.good("TRIG:BLOC:BRAN:COUN 3, 5, 2", "TRIG:BLOC:DEL:CONS 4, 1")
    meter.good("TRIG:BLOC:BRAN:COUN 5, 3, 2", ":INIT", "*WAI")
    assert meter.good(":TRAC:ACT?") == "15"
    assert meter.good("TRIG:STAT?") == "IDLE;IDLE;5"
    assert meter.smu.now_s == pytest.approx(3 * 1.0 + 15 * 0.0802, abs=0.2)


def test_while_a_trigger_model_runs_settings_are_refused_and_data_can_be_had() -> None:
    meter = source_of()
    meter.good(':TRIG:LOAD "SimpleLoop",1000,0.1', ":INIT")
    assert meter.good("TRIG:STAT?").startswith("RUNNING;RUNNING;")
    meter.wait(1.0)
    meter.say(":SOUR:VOLT 2", ":SENS:CURR:NPLC 2", ":TRIG:BLOC:NOP 1", ":READ?", ":INIT")
    assert [meter.error() for _ in range(6)] == [-221, -221, -221, -213, -213, 0]
    assert int(meter.good(":TRAC:ACT?")) == 5
    meter.good(":ABOR", ":SOUR:VOLT 2")
    assert meter.good("TRIG:STAT?").startswith("ABORTED;")
    assert meter.good(":OUTP?") == "1"


def test_a_block_may_branch_on_what_was_measured() -> None:
    for kind, low, high, ends in (
        ("BELow", 2e-3, 3e-3, True),
        ("ABOVe", 0, 2e-3, False),
        ("ABOVe", 0, 0.5e-3, True),
        ("IN", 0.9e-3, 1.1e-3, True),
        ("OUTside", 0.9e-3, 1.1e-3, False),
        ("BEL", 0, 0.5e-3, False),
    ):
        meter = source_of()
        meter.good(':TRIG:LOAD "Empty"', ":TRIG:BLOC:MEAS 1")
        meter.good(f":TRIG:BLOC:BRAN:LIM:CONS 2,{kind},{low},{high},4", ":TRIG:BLOC:BRAN:ALW 3,1")
        meter.good(":TRIG:BLOC:SOUR:STAT 4,OFF", ":INIT")
        meter.wait(1.0)
        assert (meter.good(":OUTP?") == "0") is ends, kind


def test_an_event_is_remembered_until_a_block_looks_for_it() -> None:
    meter = source_of()
    meter.good(':TRIG:LOAD "Empty"', ":TRIG:BLOC:DEL:CONS 1,1")
    meter.good(":TRIG:BLOC:BRAN:EVEN 2,COMM,1", ":TRIG:BLOC:SOUR:STAT 3,OFF", ":INIT")
    meter.wait(0.2)
    meter.good("*TRG")
    meter.wait(1.0)
    assert meter.good(":OUTP?") == "1"
    meter.wait(1.0)
    assert meter.good(":OUTP?") == "0"


def test_a_wait_block_waits_for_its_event() -> None:
    meter = source_of()
    meter.good(':TRIG:LOAD "Empty"', ":TRIG:BLOC:WAIT 1,COMM", ":TRIG:BLOC:MEAS 2", ":INIT")
    meter.wait(100.0)
    assert meter.good("TRIG:STAT?;:TRAC:ACT?") == "WAITING;WAITING;1;0"
    meter.good("*TRG")
    meter.wait(0.2)
    assert meter.good("TRIG:STAT?;:TRAC:ACT?") == "IDLE;IDLE;2;1"


def test_a_trigger_model_that_leads_nowhere_is_not_begun() -> None:
    meter = source_of()
    meter.say(":INIT")
    assert meter.error() == -221
    meter.good(":TRIG:BLOC:BRAN:ALW 1,5")
    meter.say(":INIT", ":TRIG:BLOC:NOP 7")
    assert [meter.error(), meter.error()] == [-221, -222]


def test_a_loop_that_takes_no_time_does_not_stop_time() -> None:
    meter = source_of()
    meter.good(':TRIG:LOAD "Empty"', ":TRIG:BLOC:NOP 1", ":TRIG:BLOC:BRAN:ALW 2,1", ":INIT")
    meter.wait(0.5)
    assert meter.smu.now_s == pytest.approx(0.5)
    assert meter.good("TRIG:STAT?").startswith("RUNNING")


def test_a_sweep_walks_its_stairs_and_switches_off() -> None:
    meter = source_of(0.0)
    meter.good(":SOUR:SWE:VOLT:LIN 0,1,11,0.01", ":INIT", "*WAI")
    rows = [float(v) for v in meter.good(":TRAC:DATA? 1,11,'defbuffer1',SOUR,READ").split(",")]
    assert rows[0::2] == pytest.approx([k / 10 for k in range(11)], abs=1e-4)
    assert rows[1::2] == pytest.approx([k * 1e-4 for k in range(11)], abs=1e-7)
    assert meter.good(":OUTP?") == "0"


def test_a_sweep_that_meets_its_limit_ends() -> None:
    meter = source_of(0.0)
    meter.good(":SOUR:VOLT:ILIM 0.5e-3", ":SOUR:SWE:VOLT:LIN:STEP 0,1,0.1", ":INIT", "*WAI")
    assert int(meter.good(":TRAC:ACT?")) == 7
    assert meter.good(":OUTP?") == "0"


def test_configuration_lists_keep_settings_for_later() -> None:
    meter = source_of()
    meter.good(':SOUR:CONF:LIST:CRE "two"')
    for volts in (1, 2):
        meter.good(f":SOUR:VOLT {volts}", ':SOUR:CONF:LIST:STOR "two"')
    assert meter.good(':SOUR:CONF:LIST:SIZE? "two"') == "2"
    meter.good(':SOUR:CONF:LIST:REC "two",1')
    assert meter.number(":SOUR:VOLT?") == 1.0
    meter.say(':SOUR:CONF:LIST:REC "two",3')
    assert meter.error() == 2790


def test_statistics_are_those_of_the_buffer() -> None:
    meter = source_of()
    for volts in (1, 2, 3):
        meter.good(f":SOUR:VOLT {volts}", ":READ?")
    assert meter.number(":TRAC:STAT:AVER?") == pytest.approx(2e-3)
    assert meter.number(":TRAC:STAT:PK2PK?") == pytest.approx(2e-3)
    assert meter.number(":TRAC:STAT:MAX?") == pytest.approx(3e-3)
