"""What a controller answers, as those who talk to real ones expect it."""

from __future__ import annotations

import re
import time

import pytest

from labctl.simulators.espec.chamber import CONSTANT, OFF, STANDBY, Chamber
from labctl.simulators.espec.commands import Controller
from labctl.simulators.espec.config import ChamberConfig

PR3J_TEMPERATURE = (
    r"(?P<current>\d+\.\d+),(?P<target>\d+\.\d+),(?P<upper>\d+\.\d+),(?P<lower>\d+\.\d+)"
)


def controller(model: str = "PR-3J", **options: object) -> Controller:
    config = ChamberConfig(**{"model": model, "noise_K": 0.0, **options})  # type: ignore[arg-type]
    return Controller(Chamber(config), epoch_unix_s=1_800_000_000.0)


@pytest.mark.parametrize(
    ("model", "command", "expected"),
    [
        # espec-pr3j 0.5.0: the regular expressions of espec_pr3j.py.
        ("PR-3J", "TEMP?", PR3J_TEMPERATURE),
        ("PR-3J", "HUMI?", r"(?P<current>\d+),(?P<target>OFF|\d+),(?P<upper>\d+),(?P<lower>\d+)"),
        ("PR-3J", "MON?", r"(?P<temp>\d+\.\d+),(?P<humid>\d+),(?P<state>\w+),(?P<alarms>\d+)"),
        ("PR-3J", "MODE?", r"(?P<mode>\w+)"),
        ("PR-3J", "%?", r"\d+,(?P<temp>\d+\.\d+),(?P<humid>\d+\.\d+)"),
        ("PR-3J", "TEMP, S25.0", r"OK:TEMP, S\d+.\d+"),
        ("PR-3J", "HUMI, SOFF", r"OK:HUMI, SOFF"),
        ("PR-3J", "HUMI, S50.0", r"OK:HUMI, S\d+.*\d*"),
        ("PR-3J", "TEMP, H 60.0", r"OK:TEMP, H \d+.\d+"),
        ("PR-3J", "TEMP, L 5.0", r"OK:TEMP, L \d+.\d+"),
        ("PR-3J", "HUMI, H95", r"OK:HUMI, H\d+"),
        ("PR-3J", "MODE, CONSTANT", r"OK:MODE, (?P<mode>\w+)"),
        # ChamberConnectLibrary @1d2deb8, p300.py: what each read_… makes of the answer.
        ("P-300", "ROM?", r"P3.*"),
        ("P-300", "TYPE?", r"T,[^,]+,\d+\.\d"),
        ("P-300", "MON?", r"-?\d+\.\d,,\w+,\d+"),
        ("P-300", "DATE?", r"\d\d\.\d\d/\d\d"),
        ("P-300", "TIME?", r"\d\d:\d\d:\d\d"),
        ("P-300", "SRQ?", r"[01]{8}"),
        ("P-300", "MASK?", r"[01]{8}"),
        ("P-300", "ALARM?", r"0"),
        ("P-300", "KEYPROTECT?", r"ON|OFF"),
        ("P-300", "SET?", r"REF[01369]"),
        ("P-300", "REF?", r"2,(ON|OFF)1,(ON|OFF)2"),
        ("P-300", "RELAY?", r"0"),
        ("P-300", "%?", r"1,\d+\.\d"),
        ("P-300", "CONSTANT SET?,TEMP", r"-?\d+\.\d,ON"),
        ("SCP-220", "CONSTANT SET?,HUMI", r"\d+,(ON|OFF)"),
        ("P-300", "CONSTANT SET?,REF", r"OFF|20|50|100|AUTO"),
        ("P-300", "MODE?,DETAIL", r"OFF|STANDBY|CONSTANT|RUN"),
        # The same, especinteract.py, ERROR_DESCRIPTIONS.
        ("P-300", "HUMI?", r"NA:CONT NOT READY-1"),
        ("P-300", "TEMP PTC?", r"NA:CONT NOT READY-1"),
        ("P-300", "PRGM MON?", r"NA:CONT NOT READY-2"),
        ("P-300", "PRGM DATA?,RAM:1", r"NA:DATA NOT READY"),
        ("P-300", "NONSENSE?", r"NA:CMD ERR"),
        ("P-300", "NONSENSE,1", r"NA:CMD ERR"),
        ("P-300", "TEMP, X25.0", r"NA:PARA ERR"),
        ("P-300", "TEMP", r"NA:PARA ERR"),
        ("P-300", "TEMP, S160.0", r"NA:DATA OUT OF RANGE"),
        ("P-300", "MODE, RUN3", r"NA:DATA NOT READY"),
        ("P-300", "MODE, WARM", r"NA:PARA ERR"),
        ("P-300", "RELAY,ON,13", r"NA:DATA OUT OF RANGE"),
        ("P-300", "SET,REF2", r"NA:PARA ERR"),
        ("SCP-220", "MODE?,DETAIL", r"NA:PARA ERR"),
    ],
)  # fmt: skip
def test_an_answer_is_as_clients_expect_it(model: str, command: str, expected: str) -> None:
    assert re.fullmatch(expected, controller(model).answer(command))


def test_what_is_set_together_is_set_together_or_not_at_all() -> None:
    # ChamberConnectLibrary @1d2deb8, p300.py, write_temp: 'TEMP, S%0.1f H%0.1f L%0.1f'.
    made = controller("P-300")
    assert made.answer("TEMP, S30.0 H60.0 L-10.0") == "OK:TEMP, S30.0 H60.0 L-10.0"
    assert made.answer("TEMP?") == "23.0,30.0,60.0,-10.0"
    assert made.answer("TEMP, S65.0 H70.0 L80.0") == "NA:DATA OUT OF RANGE"
    assert made.answer("TEMP?") == "23.0,30.0,60.0,-10.0"
    assert made.answer("TEMP, S60.1") == "NA:DATA OUT OF RANGE"
    assert made.answer("TEMP, S30.0 S40.0") == "NA:PARA ERR"
    assert made.answer("TEMP?") == "23.0,30.0,60.0,-10.0"


def test_modes_are_switched() -> None:
    made = controller()
    for command, mode in (
        ("MODE, CONSTANT", CONSTANT),
        ("MODE,STANDBY", STANDBY),
        ("MODE,OFF", OFF),
        ("POWER,ON", CONSTANT),
        ("POWER,off", OFF),
    ):
        assert made.answer(command) == f"OK:{command}"
        assert made.answer("MODE?") == mode


def test_in_alarm_it_does_not_start() -> None:
    made = controller()
    made.chamber.alarms = [2]
    assert made.answer("MODE, CONSTANT") == "NA:CHB NOT READY"
    assert made.answer("ALARM?") == "1,2"
    assert made.answer("MON?").endswith(",STANDBY,1")
    assert made.answer("SRQ?")[1] == "1"
    made.answer("POWER,OFF")
    assert made.answer("POWER,ON") == "OK:POWER,ON"


def test_keys_are_not_locked_while_it_is_off() -> None:
    # ChamberConnectLibrary @1d2deb8: "Keys may not be locked while controller is off".
    made = controller()
    assert made.answer("KEYPROTECT,ON") == "OK:KEYPROTECT,ON"
    assert made.answer("KEYPROTECT?") == "ON"
    made.answer("MODE,OFF")
    assert made.answer("KEYPROTECT,OFF") == "NA:CONT NOT READY-4"


def test_a_locked_chamber_answers_questions_and_takes_no_settings() -> None:
    made = controller(protected=True)
    assert made.answer("TEMP, S30.0") == "NA:PROTECT ON"
    assert made.answer("TEMP?").startswith("23.0,25.0")


def test_relays_and_refrigeration_are_as_they_were_set() -> None:
    made = controller("P-300")
    made.answer("RELAY,ON,1,2,12")
    made.answer("RELAY,OFF,2")
    assert made.answer("RELAY?") == "2,1,12"
    assert made.answer("CONSTANT SET?,RELAY") == "2,1,12"
    made.answer("SET,REF1")
    assert (made.answer("SET?"), made.answer("CONSTANT SET?,REF")) == ("REF1", "20")


def test_humidity_is_off_or_a_number() -> None:
    made = controller()
    made.answer("HUMI, S60")
    assert made.answer("HUMI?").split(",")[1] == "60"
    made.answer("HUMI,SOFF")
    assert made.answer("HUMI?").split(",")[1] == "OFF"
    assert made.answer("CONSTANT SET?,HUMI") == "60,OFF"
    assert made.answer("HUMI, S101") == "NA:DATA OUT OF RANGE"


def test_its_clock_is_set_and_goes_on() -> None:
    # ChamberConnectLibrary @1d2deb8: write_date 'DATE,%d.%d/%d. %s', write_time 'TIME,%d:%d:%d'.
    made = controller("P-300")
    assert made.answer("DATE,27.2/28. SUN") == "OK:DATE,27.2/28. SUN"
    assert made.answer("TIME,23:59:50") == "OK:TIME,23:59:50"
    assert made.answer("DATE?") == "27.02/28"
    made.chamber.advance(15.0)
    assert (made.answer("DATE?"), made.answer("TIME?")) == ("27.03/01", "00:00:05")
    assert made.answer("DATE,27.2/30") == "NA:DATA OUT OF RANGE"
    assert made.answer("TIME,1") == "NA:PARA ERR"


def test_service_requests_are_reset() -> None:
    made = controller()
    made.answer("MODE,CONSTANT")
    assert made.answer("SRQ?") == "00010000"
    assert made.answer("SRQ,RESET") == "OK:SRQ,RESET"
    assert made.answer("SRQ?") == "00000000"
    assert made.answer("MASK,01100010") == "OK:MASK,01100010"
    assert made.answer("MASK?") == "01100010"


def test_the_time_is_the_labs_own() -> None:
    assert controller().answer("TIME?") == time.strftime("%H:%M:%S", time.localtime(1.8e9))
