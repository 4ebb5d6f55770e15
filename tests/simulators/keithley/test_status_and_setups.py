"""Status registers, setups, display and list sweeps.

Expected are: reference manual 2450-901-01 Rev. B, B-4 (``*ESR?``), C-4 (standard events) and
6-91 (``:STATus:OPERation:MAP``); IEEE 488.2, 11.2 (status byte); and what the manual says of
``:SOURce[1]:LIST`` and ``:SOURce[1]:SWEep:<function>:LIST``.
"""

from __future__ import annotations

import pytest
from source_meter import EMPTY, SourceMeter


def test_power_on_is_the_first_event_and_reading_the_register_clears_it() -> None:
    meter = SourceMeter()
    assert meter.good("*ESR?") == "128"
    assert meter.good("*ESR?") == "0"


def test_operation_complete_is_told_when_the_trigger_model_is_over() -> None:
    meter = SourceMeter()
    meter.good("*CLS", ':TRIG:LOAD "SimpleLoop",5,1', ":INIT", "*OPC")
    assert meter.good("*ESR?") == "0"
    meter.wait(10.0)
    assert meter.good("*ESR?") == "1"


@pytest.mark.parametrize(
    ("line", "bit"),
    [(":NO:SUCH 1", 32), (":SOUR:VOLT 1 V 2", 32), (":SOUR:VOLT 9999", 16)],
)
def test_an_error_sets_the_bit_of_its_class(line: str, bit: int) -> None:
    meter = SourceMeter()
    meter.good("*CLS")
    meter.say(line)
    assert meter.say("*ESR?") == str(bit)


def test_the_status_byte_sums_up_what_is_enabled_and_requests_service() -> None:
    meter = SourceMeter()
    meter.good("*CLS", "*ESE 32", "*SRE 32")
    assert meter.good("*STB?") == "0"
    meter.say(":NO:SUCH 1")
    assert meter.say("*STB?") == str(4 + 32 + 64)
    meter.say("*CLS")
    assert meter.good("*STB?") == "0"
    assert (meter.good("*ESE?"), meter.good("*SRE?")) == ("32", "32")


def test_a_mapped_event_sets_its_bit_and_another_clears_its_condition() -> None:
    meter = SourceMeter()
    meter.good("*CLS", ":STAT:OPER:MAP 0, 4917, 4916", ":STAT:OPER:ENAB 1")
    assert meter.good(":STAT:OPER:MAP? 0") == "4917,4916"
    assert meter.good(":STAT:OPER:MAP? 1") == "0,0"
    meter.good(':TRAC:MAKE "full", 10', ":SENS:COUN 10", ':TRAC:TRIG "full"')
    assert meter.good(":STAT:OPER:COND?") == "1"
    assert int(meter.good("*STB?")) & 128
    assert meter.good(":STAT:OPER?") == "1"
    assert meter.good(":STAT:OPER?") == "0"
    assert meter.good(":STAT:QUES?") == "0"


def test_clearing_the_registers_leaves_the_event_log_alone() -> None:
    meter = SourceMeter()
    meter.say(":NO:SUCH 1", ":STAT:CLE")
    assert meter.error() == -113
    meter.say(":NO:SUCH 1", ":SYST:CLE")
    assert meter.say(":SYST:ERR?") == EMPTY
    assert int(meter.say("*ESR?")) & 32


def test_a_saved_setup_comes_back_with_the_output_off() -> None:
    meter = SourceMeter()
    meter.good(":SOUR:FUNC CURR", ":SOUR:CURR 0.5e-3", ":SENS:FUNC 'VOLT'", ":SENS:VOLT:NPLC 5")
    meter.good("*SAV 2", "*RST", ":OUTP ON", "*RCL 2")
    assert meter.good(":SOUR:FUNC?") == "CURR"
    assert meter.number(":SOUR:CURR?") == 0.5e-3
    assert meter.good(":SENS:FUNC?") == '"VOLT:DC"'
    assert meter.number(":SENS:VOLT:NPLC?") == 5.0
    assert meter.good(":OUTP?") == "0"
    meter.say("*RCL 3")
    assert meter.error() == -224


def test_the_display_takes_its_commands_and_refuses_a_text_that_is_too_long() -> None:
    meter = SourceMeter()
    meter.good(":DISP:SCR HOME", ":DISP:USER1:TEXT 'labctl'", ":DISP:CLE", ":DISP:CURR:DIG 6")
    assert meter.good(":DISP:CURR:DIG?") == "6"
    assert meter.good(":DISP:LIGH:STAT OFF", ":DISP:LIGH:STAT?") == "OFF"
    meter.say(f":DISP:USER1:TEXT '{'x' * 21}'")
    assert meter.error() == -223


def test_a_list_is_swept_from_where_it_is_told() -> None:
    meter = SourceMeter(1000.0)
    meter.good(":SOUR:LIST:VOLT 0.1,0.2,0.5", ":SOUR:LIST:VOLT:APP 1.0")
    assert meter.good(":SOUR:LIST:VOLT:POIN?") == "4"
    assert [float(x) for x in meter.good(":SOUR:LIST:VOLT?").split(",")] == [0.1, 0.2, 0.5, 1.0]
    meter.good(":SOUR:VOLT:ILIM 0.01", ":SOUR:SWE:VOLT:LIST 2, 0.01, 1", ":INIT", "*WAI")
    rows = [float(x) for x in meter.good(":TRAC:DATA? 1,3").split(",")]
    assert rows == pytest.approx([0.2e-3, 0.5e-3, 1.0e-3], rel=1e-3)
    meter.say(":SOUR:SWE:VOLT:LIST 5")
    assert meter.error() == 2790


@pytest.mark.parametrize(
    "header", ["*OPT?", ":TRAC:FEED SENS", ":SENS:CURR:PROT 1", ":SYST:RSEN 1"]
)
def test_what_a_2450_does_not_have_is_an_undefined_header(header: str) -> None:
    meter = SourceMeter()
    assert meter.say(header) == ""
    assert meter.error() == -113
