"""What chambers answer, quoted from manuals, captures and the vendor's library."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labctl.drivers.espec.words import (
    Kind,
    Mode,
    Monitored,
    Temperatures,
    check_taken,
    parse_alarms,
    parse_kind,
    parse_mode,
    parse_monitored,
    parse_refusal,
    parse_rom,
    parse_temperatures,
    said_of_refusal,
    text_of,
)
from labctl.errors import InstrumentError


def test_the_conditions_are_read_as_the_manual_gives_them() -> None:
    # ESPEC EHS-411M manual, table 3.3: example command "1,MON?", example response
    # "24.1,100,CONSTANT,0"; format "monitored temperature,monitored humidity,operating mode,number
    # of alarms occurred".
    assert parse_monitored("24.1,100,CONSTANT,0") == Monitored(24.1, 100.0, Mode.CONSTANT, 0)


def test_a_chamber_without_humidity_leaves_its_place_empty() -> None:
    # ChamberConnectLibrary @1d2deb8, p300.py, read_mon: "if rsp[1]: data['humidity'] = ...".
    assert parse_monitored("-12.5,,STANDBY,0") == Monitored(-12.5, None, Mode.STANDBY, 0)


def test_the_version_may_be_any_text() -> None:
    # ESPEC EHS-411M manual, table 3.4: example response "EHS-XXX Ver. X.XXX".
    assert parse_rom("EHS-XXX Ver. X.XXX") == "EHS-XXX Ver. X.XXX"


def test_the_kind_is_read_as_captured() -> None:
    # akaeba/ATWG, espec/espec_sh_def.py, an SH-641: RSP_CH_ID="T,T,S2,160.0".
    assert parse_kind("T,T,S2,160.0") == Kind(("T", "T"), "S2", 160.0)
    # ChamberConnectLibrary @1d2deb8, p300.py, read_type: three values without a wet bulb.
    assert parse_kind("T,P300,150.0") == Kind(("T",), "P300", 150.0)


def test_temperatures_are_measured_set_upper_and_lower() -> None:
    # espec-pr3j 0.5.0, get_temperature_status: "data format: [current temp, set temp, upper limit,
    # lower limit]".
    assert parse_temperatures("23.2,25.0,110.0,-40.0") == Temperatures(23.2, 25.0, 110.0, -40.0)


def test_a_control_that_is_off_has_no_set_point() -> None:
    # An SH-242 tells OFF in place of the set point where its temperature control is off.
    assert parse_temperatures("23.2,OFF,110.0,-40.0").set_degC is None


def test_alarms_are_counted_and_named() -> None:
    # ChamberConnectLibrary @1d2deb8, p300.py, read_alarm: the first value is left out; the numbers
    # that a P-300 has are in especp300.py, get_alarm_status: 0, 1, 2, 3, 6 ... 51, 99.
    assert parse_alarms("0") == ()
    assert parse_alarms("2,2,51") == (2, 51)
    with pytest.raises(InstrumentError, match="2 alarms and names 1"):
        parse_alarms("2,51")


def test_of_many_alarms_sixteen_are_named() -> None:
    # An SH-242 names 16 alarms at the most.
    assert len(parse_alarms("19," + ",".join(map(str, range(16))))) == 16


@pytest.mark.parametrize(
    ("reply", "reason", "means"),
    [
        # ChamberConnectLibrary @1d2deb8, especinteract.py, ERROR_DESCRIPTIONS.
        ("NA:CMD ERR", "CMD ERR", "does not know the command"),
        ("NA:DATA OUT OF RANGE", "DATA OUT OF RANGE", "outside what is allowed"),
        ("NA:PROTECT ON", "PROTECT ON", "locked"),
        ("NA:CONT NOT READY-1", "CONT NOT READY-1", "no humidity"),
        ("NA:CHB NOT READY", "CHB NOT READY", "alarm"),
        # An SH-242 writes an underscore.
        ("NA:CMD_ERR", "CMD ERR", "does not know the command"),
        # An SH-641 writes the word out.
        ("NA:PARAMETER ERR", "PARAMETER ERR", "cannot be read"),
        # ESPEC EHS-211M manual, page 8: "NA : error message".
        ("NA : PARA ERR", "PARA ERR", "cannot be read"),
        ("NA:", "no reason", ""),
    ],
)
def test_a_refusal_is_told_in_words(reply: str, reason: str, means: str) -> None:
    assert parse_refusal(reply) == reason
    assert means in said_of_refusal(reason)


def test_an_answer_is_no_refusal() -> None:
    assert parse_refusal("24.1,100,CONSTANT,0") is None


@pytest.mark.parametrize(
    "reply",
    [
        "OK:TEMP, S25.0",  # espec-pr3j 0.5.0, set_target_temperature: r"OK:TEMP, S\d+.\d+"
        "OK:TEMP,S25.0",
        "OK:1,TEMP, S25.0",  # EHS-211M manual, page 8: "OK : address, setting command"
        "OK : 1,TEMP, S25.0",
    ],
)
def test_a_setting_is_taken_when_it_is_said_again(reply: str) -> None:
    check_taken(reply, "TEMP, S25.0", "1,TEMP, S25.0")


@pytest.mark.parametrize("reply", ["OK:TEMP, S26.0", "OK:", "OK", "25.0", "", "OK:MODE, OFF"])
def test_another_setting_is_not_taken_for_it(reply: str) -> None:
    with pytest.raises(InstrumentError):
        check_taken(reply, "TEMP, S25.0")


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "24.1,100,CONSTANT",
        "24.1,100,CONSTANT,0,0",
        "24.1,100,WARM,0",
        "24.1,101,CONSTANT,0",
        "24.1,100,CONSTANT,-1",
        "24.1,100,CONSTANT,0.5",
        "----,100,CONSTANT,0",
        "nan,100,CONSTANT,0",
        "inf,100,CONSTANT,0",
        "1e2,100,CONSTANT,0",
        "24,1,100,CONSTANT,0",
        "999.9,100,CONSTANT,0",
        "-273.1,100,CONSTANT,0",
        "٢٤.1,100,CONSTANT,0",
        "OK:MON?",
    ],
)
def test_what_is_no_condition_is_refused(reply: str) -> None:
    with pytest.raises(InstrumentError):
        parse_monitored(reply)


@pytest.mark.parametrize("reply", ["20.0,25.0,10.0,30.0", "20.0,25.0,10.0,10.0", "OFF,1.0,9.0,0.0"])
def test_what_are_no_temperatures_is_refused(reply: str) -> None:
    with pytest.raises(InstrumentError):
        parse_temperatures(reply)


@pytest.mark.parametrize("reply", [b"\xff\xfe", b"24.1\x0024", "24,1°".encode()])
def test_what_is_no_text_is_refused(reply: bytes) -> None:
    with pytest.raises(InstrumentError):
        text_of(reply)


@given(st.text(max_size=60))
@example("24.1,100,CONSTANT,0")
@example("24.1 ,100, CONSTANT,00")
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        found = parse_monitored(text)
    except InstrumentError:
        return
    fields = [field.strip() for field in text.split(",")]
    assert len(fields) == 4
    assert found.temperature_degC == float(fields[0])
    assert math.isfinite(found.temperature_degC)
    assert found.mode == fields[2]
    assert found.alarms == int(fields[3])


@given(st.text(alphabet="0123456789,OFNA:. -+", max_size=40))
def test_any_digits_are_temperatures_and_alarms_or_refused(text: str) -> None:
    for parse in (parse_temperatures, parse_alarms, parse_kind, parse_mode):
        try:
            parse(text)
        except InstrumentError:
            continue
    try:
        found = parse_temperatures(text)
    except InstrumentError:
        return
    measured, _, high, low = (field.strip() for field in text.split(","))
    assert (found.measured_degC, found.high_degC, found.low_degC) == (
        float(measured),
        float(high),
        float(low),
    )
