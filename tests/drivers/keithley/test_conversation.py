"""What goes over the wire, command by command; each is quoted from the notes on the reference
manual 2461-901-01, whose section is named beside it."""

from __future__ import annotations

import math

import pytest
from smu_bench import LIMITS, ONE_C_A, after, falls_to, rises_to, task

from labctl.clock import VirtualClock
from labctl.drivers.base import Task
from labctl.drivers.keithley.config import KeithleyConfig
from labctl.drivers.keithley.driver import Keithley
from labctl.errors import InstrumentError, LinkError
from labctl.program import ConstantCurrent, Rest, VoltageSweep
from labctl.wire.transcript import Transcript

GOOD = '0,"No error;0;0 0"'

OFF = """
    # :ABORt; OUTPut:SMODe HIMP: a battery needs the off state that opens the relay
    * :ABOR
    * :OUTP:VOLT:SMOD HIMP
    * :OUTP:CURR:SMOD HIMP
    * :OUTP OFF
    ? :OUTP? = 0
"""

FORMAT = """
    # FORMat[:DATA]; FORMat:ASCii:PRECision 1-16
    * :FORM:DATA ASC
    * :FORM:ASC:PREC 16
"""

BUFFER = """
    # TRACe:POINts n,"b" erases; TRACe:FILL:MODE CONT for a buffer that goes on when it is full
    * :TRAC:POIN 100000,"defbuffer1"
    * :TRAC:FILL:MODE CONT,"defbuffer1"
"""

CHARGE = f"""
    {OFF}
    {FORMAT}
    # SOURce:FUNCtion VOLT, the level at the cut-off, ILIMit the wanted current: fast-cell safety
    * :SOUR:FUNC VOLT
    * :OUTP:VOLT:SMOD HIMP
    * :SOUR:VOLT:PROT PROT5
    * :SOUR:VOLT:RANG 20.0
    * :SOUR:VOLT 4.103
    * :SOUR:VOLT:READ:BACK ON
    * :SOUR:VOLT:DEL 0
    * :SENS:FUNC "CURR"
    * :SENS:COUN 1
    * :SENS:CURR:RSEN ON
    * :SENS:CURR:NPLC 1.0
    * :SENS:CURR:AVER OFF
    # the limit must exceed 0.1 % of a fixed range, so the range is fixed last
    * :SENS:CURR:RANG:AUTO ON
    * :SOUR:VOLT:ILIM 0.0002
    * :SENS:CURR:RANG 0.001
    {BUFFER}
    # TRIGger:LOAD "Empty", then blocks from 1 on; a branch while *TRG is heard, else output off
    * :TRIG:LOAD "Empty"
    * :TRIG:BLOC:SOUR:STAT 1,ON
    * :TRIG:BLOC:MEAS 2,"defbuffer1"
    * :TRIG:BLOC:BRAN:LIM:CONS 3,BEL,0.000194,0.000194,7
    * :TRIG:BLOC:DEL:CONS 4,0.919500
    * :TRIG:BLOC:BRAN:COUN 5,5,2
    * :TRIG:BLOC:BRAN:EVEN 6,COMM,2
    * :TRIG:BLOC:SOUR:STAT 7,OFF
    ? :OUTP? = 0
    ? :SOUR:FUNC? = VOLT
    ? :OUTP:VOLT:SMOD? = HIMP
    ? :SOUR:VOLT? = 4.103000E+00
    ? :SOUR:VOLT:ILIM? = 2.000000E-04
    ? :SOUR:VOLT:PROT? = PROT5
    ? :SENS:FUNC? = "CURR:DC"
    ? :SENS:CURR:RANG? = 1.000000E-03
    ? :SENS:CURR:RSEN? = 1
"""

REST = f"""
    {OFF}
    {FORMAT}
    # rest with the open circuit voltage: SOURce:FUNCtion CURR, 0 A, output on
    * :SOUR:FUNC CURR
    * :OUTP:CURR:SMOD HIMP
    * :SOUR:VOLT:PROT PROT5
    * :SOUR:CURR:RANG 1e-06
    * :SOUR:CURR 0
    * :SOUR:CURR:READ:BACK ON
    * :SOUR:CURR:DEL 0
    * :SENS:FUNC "VOLT"
    * :SENS:COUN 1
    * :SENS:VOLT:RSEN ON
    * :SENS:VOLT:NPLC 1.0
    * :SENS:VOLT:AVER OFF
    * :SENS:VOLT:RANG:AUTO ON
    * :SOUR:CURR:VLIM 5.0
    * :SENS:VOLT:RANG 20.0
    {BUFFER}
    * :TRIG:LOAD "Empty"
    * :TRIG:BLOC:SOUR:STAT 1,ON
    * :TRIG:BLOC:MEAS 2,"defbuffer1"
    * :TRIG:BLOC:NOP 3
    * :TRIG:BLOC:DEL:CONS 4,0.919500
    * :TRIG:BLOC:BRAN:COUN 5,5,2
    * :TRIG:BLOC:BRAN:EVEN 6,COMM,2
    * :TRIG:BLOC:SOUR:STAT 7,OFF
    ? :OUTP? = 0
    ? :SOUR:FUNC? = CURR
    ? :OUTP:CURR:SMOD? = HIMP
    ? :SOUR:CURR? = 0.000000E+00
    ? :SOUR:CURR:VLIM? = 5.000000E+00
    ? :SOUR:VOLT:PROT? = PROT5
    ? :SENS:FUNC? = "VOLT:DC"
    ? :SENS:VOLT:RANG? = 2.000000E+01
    ? :SENS:VOLT:RSEN? = 1
"""

LOOK = (
    '*TRG;:OUTP?;:SYST:ERR:COUN?;:TRAC:ACT? "defbuffer1";:TRAC:ACT:END? "defbuffer1"'
    ";:SOUR:VOLT:PROT:TRIP?;:TRIG:STAT?"
)


def conversation(*texts: str) -> Transcript:
    """``*`` is a setting with its look at the error queue, ``?`` a query and its answer."""
    lines: list[str] = []
    for line in "\n".join(texts).splitlines():
        mark, _, rest = line.strip().partition(" ")
        if mark == "*":
            lines += [f"> {rest}", ":SYST:ERR?", f"< {GOOD}"]
        elif mark == "?":
            query, _, answer = rest.rpartition(" = ")
            lines += [f"> {query}", f"< {answer}"]
        elif mark in {">", "<", "!"} or mark.startswith(":SYST"):
            lines.append(line.strip())
    return Transcript("\n".join(lines))


def driven(wire: Transcript, **options: object) -> Keithley:
    config = KeithleyConfig(resource="TCPIP::smu::5025::SOCKET", **options)  # type: ignore[arg-type]
    return Keithley(config, name="smu 1", clock=VirtualClock(), link=wire)


def charge(end_V: float = 4.1) -> Task:
    return task(ConstantCurrent(ONE_C_A), rises_to(end_V), after(36_000.0))


async def test_a_charge_is_armed_with_its_cut_off_as_the_sources_level() -> None:
    wire = conversation(CHARGE)
    limits = await driven(wire).arm("1", charge())
    assert wire.finished()
    assert (limits.voltage_max_V, limits.current_max_A, limits.current_min_A) == (
        4.103,
        2e-4,
        -2e-4,
    )
    assert limits.voltage_min_V == -math.inf
    assert limits.step_charge_max_Ah == math.inf


async def test_a_discharge_stops_at_its_lower_end_with_the_same_limit() -> None:
    text = CHARGE.replace("VOLT 4.103", "VOLT 1.497").replace("4.103000E+00", "1.497000E+00")
    text = text.replace("BEL,0.000194,0.000194", "ABOV,-0.000194,-0.000194")
    wire = conversation(text)
    limits = await driven(wire).arm(
        "1", task(ConstantCurrent(-ONE_C_A), falls_to(1.5), after(36_000.0))
    )
    assert wire.finished()
    assert (limits.voltage_min_V, limits.voltage_max_V) == (1.497, math.inf)


async def test_a_rest_is_a_source_of_no_current() -> None:
    wire = conversation(REST)
    limits = await driven(wire).arm("1", task(Rest(), after(600.0)))
    assert wire.finished()
    assert (limits.current_min_A, limits.current_max_A) == (0.0, 0.0)


async def test_without_a_watchdog_the_program_goes_on_by_itself() -> None:
    text = CHARGE.replace("BRAN:COUN 5,5,2", "BRAN:ALW 5,2").replace("BRAN:EVEN 6,COMM,2", "NOP 6")
    wire = conversation(text)
    await driven(wire, watchdog_s=0.0).arm("1", charge())
    assert wire.finished()


async def test_terminals_and_two_wires_are_set_where_they_are_configured() -> None:
    text = CHARGE.replace("    * :SOUR:FUNC VOLT", "    * :ROUT:TERM REAR\n    * :SOUR:FUNC VOLT")
    text = text.replace("RSEN ON", "RSEN OFF").replace("RSEN? = 1", "RSEN? = 0")
    wire = conversation(text)
    await driven(wire, terminals="rear", four_wire=False).arm("1", charge())
    assert wire.finished()


async def test_begin_starts_the_trigger_model_and_a_look_feeds_the_watchdog() -> None:
    wire = conversation(
        CHARGE,
        "* :INIT",
        f"? {LOOK} = 1;0;0;0;0;RUNNING;RUNNING;2",
        f"? {LOOK} = 1;0;2;2;0;RUNNING;RUNNING;4",
        '? :TRAC:DATA? 1,2,"defbuffer1",SEC,FRAC,SOUR,READ = '
        "1.7E+09,2.5E-01,2.6E+00,1.998E-04,1.7E+09,7.5E-01,2.7E+00,1.998E-04",
        f"? {LOOK} = 0;0;3;3;0;IDLE;IDLE;7",
        '? :TRAC:DATA? 3,3,"defbuffer1",SEC,FRAC,SOUR,READ = 1.7E+09,9.9E-01,4.1E+00,1.9E-04',
    )
    driver = driven(wire)
    await driver.arm("1", charge())
    await driver.begin("1", charge())
    assert len((await driver.look("1")).readings) == 0
    looked = await driver.look("1")
    readings = looked.readings
    assert readings.voltage_V.tolist() == [2.6, 2.7]
    assert readings.current_A.tolist() == [1.998e-4, 1.998e-4]
    assert readings.step_time_s[1] - readings.step_time_s[0] == pytest.approx(0.5, abs=1e-6)
    last = await driver.look("1")
    assert (last.ended, last.tripped, last.end) == (True, "", rises_to(4.1))
    assert last.readings.onboard_index.tolist() == [3]
    assert wire.finished()


async def test_a_step_of_a_sweep_ends_the_program_sets_the_level_and_begins_it_again() -> None:
    text = CHARGE.replace("VOLT 4.103", "VOLT 3.0").replace("4.103000E+00", "3.000000E+00")
    text = text.replace('MEAS 2,"defbuffer1"', "DEL:CONS 2,0.099500")
    text = text.replace("BRAN:LIM:CONS 3,BEL,0.000194,0.000194,7", 'MEAS 3,"defbuffer1"')
    text = text.replace("DEL:CONS 4,0.919500", "NOP 4").replace("COUN 5,5,2", "COUN 5,24,2")
    # settings cannot be changed while the trigger model runs
    wire = conversation(
        text,
        "* :INIT",
        f"? {LOOK} = 1;0;0;0;0;RUNNING;RUNNING;2",
        f"? {LOOK} = 1;0;1;1;0;RUNNING;RUNNING;2",
        '? :TRAC:DATA? 1,1,"defbuffer1",SEC,FRAC,SOUR,READ = 1.7E+09,0,3.0E+00,1.0E-05',
        "* :ABOR;:SOUR:VOLT 3.001;:INIT",
    )
    driver = driven(wire)
    work = task(VoltageSweep(3.0, 3.1, 5e-3, ONE_C_A), rises_to(3.1), after(30.0))
    limits = await driver.arm("1", work)
    assert (limits.voltage_min_V, limits.voltage_max_V) == (3.0, 3.0)
    await driver.begin("1", work)
    await driver.look("1")
    await driver.look("1")
    assert wire.finished()


async def test_a_setting_that_is_refused_names_command_and_reply() -> None:
    wire = conversation(
        OFF,
        FORMAT,
        "> :SOUR:FUNC VOLT\n:SYST:ERR?",
        '< -221,"Settings conflict;1;2015/05/06 12:57:04.484"',
        f"> :SYST:ERR?\n< {GOOD}",
    )
    with pytest.raises(InstrumentError, match="Settings conflict") as caught:
        await driven(wire).arm("1", charge())
    assert caught.value.command == ":SOUR:FUNC VOLT"
    assert caught.value.reply.startswith("-221")
    assert wire.finished()


@pytest.mark.parametrize(
    ("query", "right", "wrong"),
    [
        (":SOUR:VOLT?", "4.103000E+00", "4.203000E+00"),
        (":SOUR:VOLT:ILIM?", "2.000000E-04", "1.050000E-04"),
        (":SOUR:VOLT:PROT?", "PROT5", "NONE"),
        (":OUTP:VOLT:SMOD?", "HIMP", "NORM"),
        (":SENS:CURR:RSEN?", "1", "0"),
        (":SENS:FUNC?", '"CURR:DC"', '"VOLT:DC"'),
    ],
)
async def test_nothing_begins_when_what_is_read_back_is_not_what_was_set(
    query: str, right: str, wrong: str
) -> None:
    said = f"? {query} = {wrong}"
    text = CHARGE.replace(f"? {query} = {right}", said)
    text = text[: text.index(said) + len(said)]
    wire = conversation(text)
    driver = driven(wire)
    with pytest.raises(InstrumentError, match=r"although .* was set") as caught:
        await driver.arm("1", charge())
    assert caught.value.command == query
    with pytest.raises(InstrumentError, match="was not armed"):
        await driver.begin("1", charge())


@pytest.mark.parametrize("sentinel", ["9.9E+37", "-9.900000E+37", "9.91E+37"])
async def test_an_overflow_never_passes_as_a_reading(sentinel: str) -> None:
    wire = conversation(
        CHARGE,
        "* :INIT",
        f"? {LOOK} = 1;0;2;2;0;RUNNING;RUNNING;4",
        '? :TRAC:DATA? 1,2,"defbuffer1",SEC,FRAC,SOUR,READ = '
        f"1.7E+09,2.5E-01,2.6E+00,1.998E-04,1.7E+09,7.5E-01,2.7E+00,{sentinel}",
        f"? {LOOK} = 1;0;2;2;0;RUNNING;RUNNING;4",
        f'? :TRAC:DATA? 2,2,"defbuffer1",SEC,FRAC,SOUR,READ = 1.7E+09,7.5E-01,2.7E+00,{sentinel}',
    )
    driver = driven(wire)
    await driver.arm("1", charge())
    await driver.begin("1", charge())
    looked = await driver.look("1")
    assert looked.readings.current_A.tolist() == [1.998e-4]
    with pytest.raises(InstrumentError, match="beyond its range"):
        await driver.look("1")


async def test_an_error_that_was_logged_while_a_step_runs_is_told() -> None:
    wire = conversation(
        CHARGE,
        "* :INIT",
        f"? {LOOK} = 1;1;0;0;0;RUNNING;RUNNING;4",
        '? :SYST:ERR? = -221,"Settings conflict;1;2015/05/06 12:57:04.484"',
        f"? :SYST:ERR? = {GOOD}",
    )
    driver = driven(wire)
    await driver.arm("1", charge())
    await driver.begin("1", charge())
    with pytest.raises(InstrumentError, match="logged an error: -221, Settings conflict"):
        await driver.look("1")


async def test_off_is_told_a_second_time_where_the_wire_failed() -> None:
    wire = conversation("> :ABOR\n:SYST:ERR?", "! no answer", OFF)
    await driven(wire).off("1")
    assert wire.finished()
    with pytest.raises(LinkError):
        await driven(
            conversation("> :ABOR\n:SYST:ERR?", "! gone", "> :ABOR\n:SYST:ERR?", "! gone")
        ).off("1")


async def test_off_goes_on_to_the_output_when_something_else_is_refused() -> None:
    wire = conversation(
        "* :ABOR",
        '> :OUTP:VOLT:SMOD HIMP\n:SYST:ERR?\n< -113,"Undefined header;1;0"',
        f"? :SYST:ERR? = {GOOD}",
        "* :OUTP OFF",
        "? :OUTP? = 0",
    )
    with pytest.raises(InstrumentError, match="Undefined header"):
        await driven(wire).off("1")
    assert wire.finished()


async def test_limits_are_those_of_the_visit() -> None:
    narrow = LIMITS.__class__(2.0, 4.0, -1e-3, 1e-3, 5e-4, 1e7)
    text = CHARGE.replace("VOLT 4.103", "VOLT 4.0").replace("4.103000E+00", "4.000000E+00")
    wire = conversation(text)
    work = task(ConstantCurrent(ONE_C_A), after(36_000.0), limits=narrow)
    assert (await driven(wire).arm("1", work)).voltage_max_V == 4.0
    assert wire.finished()
