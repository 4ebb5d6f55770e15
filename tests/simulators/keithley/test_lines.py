"""How lines are read: SCPI-1999 vol. 1 ch. 6 and 7, and what other people's programs send."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_meter import EMPTY, SourceMeter

from labctl.simulators.keithley.errors import ScpiError
from labctl.simulators.keithley.scpi import Text, parse_unit, split_units


@pytest.mark.parametrize(
    "line",
    [
        ":SENSe:CURRent:NPLCycles?",
        ":SENS:CURR:NPLC?",
        "sens:curr:nplc?",
        ":SENSe1:CURRent:DC:NPLCycles?",
        ":CURR:NPLC?",
        " :SENSe:current:NPLC? ",
    ],
)
def test_a_header_may_be_long_short_in_any_case_and_without_what_is_optional(line: str) -> None:
    assert SourceMeter().good(line) == "1.000000E+00"


@pytest.mark.parametrize("line", [":SENSE:CURRE:NPLC?", ":SEN:CURR:NPLC?", ":SENS2:CURR:NPLC?"])
def test_a_header_in_between_is_not_known(line: str) -> None:
    meter = SourceMeter()
    assert meter.say(line) == ""
    assert meter.say(":SYST:ERR?").startswith('-113,"Undefined header')


def test_units_of_a_line_are_carried_out_in_order_and_their_answers_joined() -> None:
    meter = SourceMeter()
    answer = meter.good(":SOUR:CURR:RANG:AUTO 0;:SOUR:CURR:RANG 0.1;:SOUR:CURR:RANG?;*LANG?;")
    assert answer == "1.000000E-01;SCPI"


def test_a_relative_header_goes_on_from_the_path_of_the_one_before() -> None:
    meter = SourceMeter()
    meter.good(":SENS:CURR:NPLC 2;RANG:AUTO OFF;:SENS:VOLT:NPLC 3")
    assert meter.good(":SENS:CURR:NPLC?;RANG:AUTO?;:SENS:VOLT:NPLC?") == (
        "2.000000E+00;0;3.000000E+00"
    )


def test_one_bad_unit_does_not_keep_the_others_from_being_carried_out() -> None:
    meter = SourceMeter()
    assert meter.say(":OUTP?;:FOO?;*LANG?") == "0;SCPI"
    assert meter.error() == -113


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (":SOUR:VOLT", -109),
        (":SOUR:VOLT 1,2", -108),
        (":SOUR:VOLT 'x'", -104),
        (":SOUR:VOLT one", -104),
        (":SOUR:VOLT nan", -104),
        (":SOUR:VOLT 1e9", -222),
        (":SOUR:FUNC OHM", -224),
        (":OUTP MAYBE", -224),
        (":READ", -113),
        (":SENS:AZER:ONCE?", -113),
        (":SENS:FUNC 'CURR", -151),
        ("*RST?", -113),
        ("1:2", -102),
        (":DIG:LINE9:STAT 1", -114),
        (":TRAC:DATA? 1,5", -222),
        (":FETC?", -230),
        (':TRAC:ACT? "nowhere"', -224),
    ],
)
def test_what_is_wrong_is_logged_and_gets_no_answer(line: str, code: int) -> None:
    meter = SourceMeter()
    assert meter.say(line) == ""
    assert meter.error() == code
    assert meter.say(":SYST:ERR?") == EMPTY


def test_an_entry_of_the_log_has_number_text_type_and_time() -> None:
    meter = SourceMeter()
    meter.say(":SOUR:VOLT")
    assert meter.say(":SYST:ERR:COUN?") == "1"
    assert meter.say(":SYST:ERR?") == '-109,"Missing parameter;1;2027/01/15 08:00:00.000"'
    meter.say(":SOUR:VOLT", ":BAD")
    assert meter.say(":SYST:ERR:CODE?") == "-109"
    assert meter.say("*CLS", ":SYST:ERR:COUN?") == "0"


def test_the_log_holds_a_thousand_entries_and_then_says_so() -> None:
    meter = SourceMeter()
    for _ in range(1500):
        meter.say(":BAD")
    assert meter.say(":SYST:ERR:COUN?") == "1000"
    codes = [meter.error() for _ in range(1000)]
    assert (codes[0], codes[-1]) == (-113, -350)


def test_quotations_may_hold_what_separates_elsewhere() -> None:
    assert split_units(":TRAC:MAKE 'a;b,c', 10; *CLS") == (":TRAC:MAKE 'a;b,c', 10", "*CLS")
    assert parse_unit(":TRAC:MAKE 'a;b,c', 10").parameters == (Text("a;b,c"), "10")


def test_default_minimum_and_maximum_are_numbers_too() -> None:
    meter = SourceMeter()
    assert meter.good(":SENS:CURR:NPLC MAX", ":SENS:CURR:NPLC?") == "1.000000E+01"
    assert meter.good(":SENS:CURR:NPLC? MIN") == "1.000000E-02"
    assert meter.good(":SENS:CURR:NPLC DEF", ":SENS:CURR:NPLC?") == "1.000000E+00"


PIECES = [
    ":SOUR:VOLT",
    ":SENS:CURR:RANG",
    ":TRAC:DATA?",
    ":TRIG:BLOC:BRAN:COUN",
    "*OPC?",
    ":INIT",
    ":READ?",
    ":OUTP ON",
    *" ,;1",
    "-2.5e3",
    "'defbuffer1'",
]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.from_regex(r"[:*;,?'\" A-Za-z0-9.+-]{0,80}", fullmatch=True),
        st.lists(
            st.sampled_from(
                [
                    ":SOUR:VOLT",
                    ":SENS:CURR:RANG",
                    ":TRAC:DATA?",
                    ":TRIG:BLOC:BRAN:COUN",
                    "*OPC?",
                    ":INIT",
                    ":READ?",
                    ":OUTP ON",
                    " ",
                    ",",
                    "1",
                    "-2.5e3",
                    "'defbuffer1'",
                    ";",
                ]
            ),
            max_size=12,
        ).map("".join),
    )
)
def test_any_line_is_carried_out_or_logged(line: str) -> None:
    meter = SourceMeter()
    meter.raw(line)
    meter.wait(1.0)
    assert meter.say("*LANG?") == "SCPI"


@given(st.text(max_size=60))
def test_any_text_is_a_unit_or_a_typed_error(text: str) -> None:
    with contextlib.suppress(ScpiError):
        for unit in split_units(text):
            assert parse_unit(unit).header
