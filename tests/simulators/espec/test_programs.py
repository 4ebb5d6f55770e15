"""Programs of a chamber's own: written, read and run as the vendor's library does it.

Quotes are of ChamberConnectLibrary @1d2deb8, p300.py.
"""

from __future__ import annotations

import re

import pytest

from labctl.simulators.espec.chamber import CONSTANT, OFF, RUN, STANDBY, Chamber
from labctl.simulators.espec.commands import Controller
from labctl.simulators.espec.config import ChamberConfig

# parse_prgm_data
DATA = r"(\d+),<(.+)>,COUNT,A\((\d+).(\d+).(\d+)\),B\((\d+).(\d+).(\d+)\),END\(([a-zA-Z0-9:]+)\)"
# parse_prgm_data_step
STEP = (
    r"(\d+),TEMP([0-9.-]+),TEMP RAMP (\w+)(?:,PTC (\w+))?(?:,HUMI([^,]+)"
    r"(?:,HUMI RAMP (\w+))?)?,TIME(\d+):(\d+),GRANTY (\w+),REF(\w+)"
    r"(?:,RELAY ON([0-9.]+))?(?:,PAUSE (\w+))?(?:,DEVP([0-9.-]+),DEVN([0-9.-]+))?"
)
# parse_prgm_data_detail
DETAIL = (
    r"([0-9.-]+),([0-9.-]+),(?:(\d+),(\d+),)?TEMP(\w+)"
    r"(?:,([0-9.-]+))?(?:,HUMI(\w+)(?:,(\d+))?)?"
)
# read_prgm_set
RUNNING = r"R[AO]M:(\d+),(.+),END\((\w+)\)"
# read_run_prgm
REMOTE = (
    r"TEMP([0-9.-]+) GOTEMP([0-9.-]+)(?: HUMI(\d+) GOHUMI(\d+))? TIME(\d+):(\d+) (\w+)"
    r"(?: RELAYON,([0-9,]+))?"
)

# write_prgm_data_edit, write_prgm_data_step and write_prgm_data_details
WRITTEN = (
    "PRGM DATA WRITE,PGM1,EDIT START",
    "PRGM DATA WRITE,PGM1,STEP1,TEMP40.0,TRAMPON,TIME0:10,GRANTY OFF,PAUSE OFF,REF9",
    "PRGM DATA WRITE,PGM1,STEP2,TEMP30.0,TRAMPOFF,TIME1:30,GRANTY ON,REF9,RELAY ON1.2",
    "PRGM DATA WRITE,PGM1,COUNT,A(1.2.1)",
    "PRGM DATA WRITE,PGM1,NAME,WARM AND COOL",
    "PRGM DATA WRITE,PGM1,END,STANDBY",
    "PRGM DATA WRITE,PGM1,HTEMP,90.0",
    "PRGM DATA WRITE,PGM1,PRE MODE,TEMP,SV",
    "PRGM DATA WRITE,PGM1,PRE TSV,25.0",
    "PRGM DATA WRITE,PGM1,EDIT END",
)


def controller(model: str = "P-300", *written: str) -> Controller:
    config = ChamberConfig(model=model, noise_K=0.0)
    made = Controller(Chamber(config), epoch_unix_s=1_800_000_000.0)
    for command in written:
        assert made.answer(command) == f"OK:{command}"
    return made


def found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    assert match is not None, text
    return match.groups()


def test_a_program_is_read_as_it_was_written() -> None:
    made = controller("P-300", *WRITTEN)
    assert made.answer("PRGM USE?,RAM") == "1,1"
    name, *date = found(r"(.+),(\d+).(\d+)\/(\d+)", made.answer("PRGM USE?,RAM:1"))
    assert (name, len(date)) == ("WARM AND COOL", 3)
    assert found(DATA, made.answer("PRGM DATA?,RAM:1")) == (
        *("2", "WARM AND COOL"),
        *("1", "2", "1"),
        *("0", "0", "0"),
        "STANDBY",
    )
    first = found(STEP, made.answer("PRGM DATA?,RAM:1,STEP1"))
    assert first[:3] == ("1", "40.0", "ON")
    assert first[4:10] == (None, None, "0", "10", "OFF", "9")
    second = found(STEP, made.answer("PRGM DATA?,RAM:1,STEP2"))
    assert second[:3] == ("2", "30.0", "OFF")
    assert second[6:12] == ("1", "30", "ON", "9", "1.2", "OFF")
    detail = found(DETAIL, made.answer("PRGM DATA?,RAM:1,DETAIL"))
    assert detail[:2] == ("90.0", "-75.0")
    assert detail[4:6] == ("SV", "25.0")


def test_humidity_is_in_the_steps_of_a_chamber_that_has_it() -> None:
    step = "PRGM DATA WRITE,PGM2,STEP1,TEMP40.0,TRAMPOFF,HUMI60,HRAMPON,TIME0:10,GRANTY OFF,REF9"
    off = "PRGM DATA WRITE,PGM2,STEP2,TEMP40.0,HUMIOFF,TIME0:10"
    made = controller(
        "PR-3J", "PRGM DATA WRITE,PGM2,EDIT START", step, off, "PRGM DATA WRITE,PGM2,EDIT END"
    )
    assert found(STEP, made.answer("PRGM DATA?,RAM:2,STEP1"))[4:6] == ("60", "ON")
    # Without control of it there is a blank before OFF, as parse_prgm_data_step has it.
    assert found(STEP, made.answer("PRGM DATA?,RAM:2,STEP2"))[4] == " OFF"


def test_a_program_ramps_soaks_goes_back_and_ends() -> None:
    made = controller("P-300", *WRITTEN, "PRGM,RUN,RAM:1,STEP1")
    chamber = made.chamber
    assert made.answer("MODE?") == RUN
    assert found(RUNNING, made.answer("PRGM SET?")) == ("1", "WARM AND COOL", "STANDBY")
    chamber.advance(300.0)
    # Half of a ramp from 23 to 40 degC in ten minutes; read_prgm_mon: step, temperature, time left,
    # two counters.
    assert chamber.set_degC == pytest.approx(31.5)
    assert made.answer("PRGM MON?") == "1,31.5,0:05,1,0"
    chamber.advance(300.0)
    assert made.answer("PRGM MON?").startswith("2,30.0,1:30,")
    # The second step soaks: its time begins when the air is there.
    before = made.answer("PRGM MON?")
    chamber.advance(60.0)
    assert made.answer("PRGM MON?") == before
    chamber.advance(5400.0 + 600.0)
    assert made.answer("PRGM MON?").startswith("1,")
    assert made.answer("PRGM MON?").endswith(",0,0")
    chamber.advance(3 * 3600.0)
    assert (chamber.mode, chamber.running) == (STANDBY, None)
    assert made.answer("PRGM MON?") == "NA:CONT NOT READY-2"


def test_a_program_is_paused_advanced_and_ended() -> None:
    made = controller("P-300", *WRITTEN, "MODE,RUN1", "PRGM,PAUSE")
    assert made.answer("MODE?,DETAIL") == "RUN PAUSE"
    assert made.answer("MON?,DETAIL").split(",")[2] == "RUN PAUSE"
    made.chamber.advance(3600.0)
    assert made.answer("PRGM MON?").startswith("1,")
    made.answer("PRGM,CONTINUE")
    made.answer("PRGM,ADVANCE")
    assert made.answer("PRGM MON?").startswith("2,")
    assert made.answer("PRGM,END,HOLD") == "OK:PRGM,END,HOLD"
    assert made.answer("MODE?,DETAIL") == "RUN END HOLD"
    made.chamber.advance(36_000.0)
    assert made.answer("TEMP?").startswith("30.0,30.0")
    made.answer("PRGM,END,CONST")
    assert (made.chamber.mode, made.answer("TEMP?").split(",")[1]) == (CONSTANT, "25.0")


@pytest.mark.parametrize(("end", "mode"), [("OFF", OFF), ("CONSTANT", CONSTANT)])
def test_the_end_of_a_program_is_as_it_says(end: str, mode: str) -> None:
    written = [command.replace("END,STANDBY", f"END,{end}") for command in WRITTEN]
    made = controller("P-300", *written, "PRGM,RUN,RAM:1,STEP2")
    made.chamber.advance(6 * 3600.0)
    assert made.chamber.mode == mode


def test_a_program_may_be_followed_by_another() -> None:
    written = [command.replace("END,STANDBY", "END,RUN,PTN2") for command in WRITTEN]
    second = (
        "PRGM DATA WRITE,PGM2,EDIT START",
        "PRGM DATA WRITE,PGM2,STEP1,TEMP50.0,TIME99:00",
        "PRGM DATA WRITE,PGM2,EDIT END",
    )
    made = controller("P-300", *written, *second, "PRGM,RUN,RAM:1,STEP2")
    assert found(DATA, made.answer("PRGM DATA?,RAM:1"))[8] == "RUN:2"
    made.chamber.advance(6 * 3600.0)
    assert made.answer("TEMP?").startswith("50.0,50.0")


def test_a_program_of_one_step_is_sent_and_run() -> None:
    # write_run_prgm: 'RUN PRGM, TEMP%0.1f TIME%d:%d', ' GOTEMP%0.1f', ' RELAYON,%s'
    made = controller("P-300", "RUN PRGM, TEMP25.0 TIME1:30 GOTEMP55.0 RELAYON,1,2")
    assert made.answer("MODE?,DETAIL") == "RMT RUN"
    assert found(REMOTE, made.answer("RUN PRGM?")) == (
        *("25.0", "55.0", None, None),
        *("1", "30", "REF9", "1,2"),
    )
    made.chamber.advance(2700.0)
    assert made.answer("RUN PRGM MON?") == "1,40.0,0:45,0"
    assert made.answer("PRGM MON?") == "NA:CONT NOT READY-2"
    made.chamber.advance(2700.0)
    assert made.chamber.mode == STANDBY


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        # especinteract.py, ERROR_DESCRIPTIONS
        ("PRGM DATA WRITE,PGM2,NAME,X", "PRGM WRITE ERR-2"),
        ("PRGM DATA WRITE,PGM41,EDIT START", "DATA OUT OF RANGE"),
        ("PRGM DATA WRITE,PGM2,OVER WRITE START", "DATA NOT READY"),
        ("PRGM DATA WRITE,PGM1,EDIT START", "PRGM WRITE ERR-10"),
        ("PRGM ERASE,RAM:1", "PRGM WRITE ERR-10"),
        ("PRGM ERASE,RAM:2", "DATA NOT READY"),
        ("PRGM,RUN,RAM:1,STEP3", "DATA NOT READY"),
        ("PRGM,RUN,RAM:2,STEP1", "DATA NOT READY"),
        ("PRGM,SLEEP", "PARA ERR"),
        ("PRGM,END,SLEEP", "PARA ERR"),
        ("RUN PRGM, TEMP500.0 TIME1:30", "DATA OUT OF RANGE"),
        ("RUN PRGM, TEMP25.0", "PARA ERR"),
        ("PRGM DATA?,RAM:1,STEP9", "DATA NOT READY"),
        ("PRGM DATA?,1", "PARA ERR"),
    ],
)
def test_what_cannot_be_is_refused_while_a_program_runs(command: str, reason: str) -> None:
    made = controller("P-300", *WRITTEN, "PRGM,RUN,RAM:1,STEP1")
    assert made.answer(command) == f"NA:{reason}"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("PRGM DATA WRITE,PGM3,EDIT START", "PRGM WRITE ERR-4"),
        ("PRGM DATA WRITE,PGM3,NAME,X", "PRGM WRITE ERR-7"),
        ("PRGM DATA WRITE,PGM2,STEP2,TEMP25.0", "PRGM WRITE ERR-8"),
        ("PRGM DATA WRITE,PGM2,STEP1,TIME1:00", "PRGM WRITE ERR-13"),
        ("PRGM DATA WRITE,PGM2,STEP1,TEMP25.0,TIME1:60", "DATA OUT OF RANGE"),
        ("PRGM DATA WRITE,PGM2,STEP1,TEMP999.0", "DATA OUT OF RANGE"),
        ("PRGM DATA WRITE,PGM2,STEP1,WARM", "PARA ERR"),
        ("PRGM DATA WRITE,PGM2,COUNT,A(3.2.1)", "PRGM WRITE ERR-9"),
        ("PRGM DATA WRITE,PGM2,EDIT END", "PRGM WRITE ERR-11"),
        ("PRGM DATA WRITE,PGM2,END,SLEEP", "PARA ERR"),
    ],
)
def test_what_cannot_be_written_is_refused(command: str, reason: str) -> None:
    made = controller("P-300", "PRGM DATA WRITE,PGM2,EDIT START")
    assert made.answer(command) == f"NA:{reason}"


def test_an_edit_that_is_cancelled_changes_nothing() -> None:
    made = controller("P-300", *WRITTEN, "PRGM DATA WRITE,PGM1,OVER WRITE START")
    before = made.answer("PRGM DATA?,RAM:1,STEP1")
    made.answer("PRGM DATA WRITE,PGM1,STEP1,TEMP10.0")
    made.answer("PRGM DATA WRITE,PGM1,OVER WRITE CANCEL")
    assert made.answer("PRGM DATA?,RAM:1,STEP1") == before
    assert made.answer("PRGM ERASE,RAM:1") == "OK:PRGM ERASE,RAM:1"
    assert made.answer("PRGM USE?,RAM") == "0"
