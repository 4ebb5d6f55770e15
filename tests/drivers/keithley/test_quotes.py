"""What a SourceMeter says, quoted, and what the driver makes of it.

Places are those of the reference manual 2461-901-01 Rev. A, chapter 6, unless another is named.
"""

from __future__ import annotations

import math

import pytest

from labctl.clock import VirtualClock
from labctl.drivers.keithley.config import KeithleyConfig
from labctl.drivers.keithley.meter import Meter
from labctl.drivers.keithley.readings import good_rows, parse_look, parse_rows
from labctl.errors import InstrumentError
from labctl.wire.scpi import (
    Event,
    is_sentinel,
    parse_boolean,
    parse_event,
    parse_identification,
    parse_number,
    parse_word,
)
from labctl.wire.transcript import Transcript


def meter(**options: object) -> Meter:
    config = KeithleyConfig(resource="TCPIP::smu::5025::SOCKET", **options)  # type: ignore[arg-type]
    return Meter(config, name="smu 1", clock=VirtualClock(), link=Transcript(""))


async def greeted(smu: Meter, said: dict[str, str]) -> None:
    async def exchange(request: bytes) -> bytes:
        return said[request.decode("ascii")].encode("ascii")

    await smu.greet(exchange)


GREETING = {
    # "*IDN?": as clients of real instruments split it on commas (QCoDeS strips "MODEL ")
    "*IDN?": "KEITHLEY INSTRUMENTS,MODEL 2450,01419969,1.7.12b",
    # "*LANG?" -> SCPI | TSP | SCPI2400
    "*LANG?": "SCPI",
    # ":SYSTem:ERRor[:NEXT]?", empty: observed on instruments of this family
    ":SYST:ERR?": '0,"No error;0;0 0"',
}


async def test_an_instrument_is_known_by_the_four_parts_of_its_identification() -> None:
    found = parse_identification("KEITHLEY INSTRUMENTS,MODEL 2450,01419969,1.7.12b")
    assert (found.manufacturer, found.model) == ("KEITHLEY INSTRUMENTS", "MODEL 2450")
    assert (found.serial, found.firmware) == ("01419969", "1.7.12b")
    smu = meter(serial="01419969")
    await greeted(smu, GREETING)
    assert (await smu.open()).serial == "01419969"


@pytest.mark.parametrize(
    ("query", "said", "says"),
    [
        ("*IDN?", "KEITHLEY INSTRUMENTS,MODEL 2460,01419969,1.7.12b", "is no Keithley 2450"),
        ("*IDN?", "KEITHLEY INSTRUMENTS,MODEL 2450,04419969,1.7.12b", "and 01419969 is expected"),
        ("*IDN?", "KEITHLEY INSTRUMENTS", "names no manufacturer, model and serial number"),
        ("*LANG?", "TSP", "speaks the command set TSP"),
        ("*LANG?", "SCPI2400", "speaks the command set SCPI2400"),
        ("*LANG?", "\x80", "it is not text"),
        (":SYST:ERR?", "No error", "not an entry of an error queue"),
    ],
)
async def test_another_instrument_or_language_is_told_with_what_was_asked_and_said(
    query: str, said: str, says: str
) -> None:
    async def exchange(request: bytes) -> bytes:
        answers = {**GREETING, query: said}
        return answers[request.decode("ascii")].encode("latin-1")

    with pytest.raises(InstrumentError, match=says) as caught:
        await meter(serial="01419969").greet(exchange)
    assert caught.value.instrument == "smu 1"
    assert caught.value.command == query
    assert caught.value.reply


@pytest.mark.parametrize(
    "said",
    [
        '0,"No error;0;0 0"',  # observed on instruments of this family
        '0,"No error;0,0,0"',  # as the manual of the 2461 prints it, :SYSTem:ERRor[:NEXT]?
    ],
)
def test_an_empty_error_queue_is_told_in_two_ways(said: str) -> None:
    assert parse_event(said).code == 0


def test_an_error_is_a_code_a_text_its_type_and_when() -> None:
    """:SYSTem:ERRor[:NEXT]?, its example."""
    said = parse_event('-109,"Missing parameter;1;2015/05/06 12:57:04.484"')
    assert said == Event(-109, "Missing parameter;1;2015/05/06 12:57:04.484")


@pytest.mark.parametrize("said", ["9.9e+37", "9.9E+37", "-9.900000E+37", "9.91E37"])
def test_an_overflow_is_no_number(said: str) -> None:
    """Overrange readings: 9.9e37, here as 2450s write it; SCPI-1999 vol. 1, 7.2.1.4 and 7.2.1.5."""
    assert is_sentinel(float(said))
    with pytest.raises(InstrumentError, match="overflow"):
        parse_number(said)


@pytest.mark.parametrize(
    ("said", "value"),
    [("1.000000E-02", 0.01), ("-7.350000E+00", -7.35), ("1.050000E-04", 1.05e-4), ("0", 0.0)],
)
def test_numbers_come_as_six_decimals_and_an_exponent(said: str, value: float) -> None:
    """FORMat:ASCii:PRECision, default; limits' defaults 7.35 V and 105 uA."""
    assert parse_number(said) == value


def test_a_function_comes_in_quotes_and_a_boolean_as_a_figure() -> None:
    """[SENSe[1]]:FUNCtion[:ON]?, OUTPut[1][:STATe]?"""
    assert parse_word('"CURR:DC"') == "CURR:DC"
    assert parse_word('"VOLT:DC"') == "VOLT:DC"
    assert parse_word("VOLT") == "VOLT"
    assert parse_boolean("1")
    assert not parse_boolean("0")


@pytest.mark.parametrize(
    "state",
    ["IDLE", "RUNNING", "WAITING", "EMPTY", "BUILDING", "FAILED", "ABORTING", "ABORTED"],
)
def test_every_state_of_a_trigger_model_is_known_and_no_other(state: str) -> None:
    """:TRIGger:STATe? -> state;state;last block."""
    assert parse_look(f"1;0;25;25;0;{state};{state};9").state == state
    for wrong in (state[:-1], state + "X", "RUNNIMG"):
        with pytest.raises(InstrumentError, match="not a state of a trigger model"):
            parse_look(f"1;0;25;25;0;{wrong};{state};9")
        with pytest.raises(InstrumentError, match="not a state of a trigger model"):
            parse_look(f"1;0;25;25;0;{state};{wrong};9")


def test_rows_of_a_buffer_come_row_by_row_in_the_order_of_the_elements() -> None:
    """:TRACe:DATA? start,end,"buffer",SEC,FRAC,SOUR,READ: comma separated, row-major."""
    rows = parse_rows("1430917024,4.84E-01,4.1,1.998E-04,1430917025,0,4.1,9.9e+37", 2)
    assert rows.time_s.tolist() == [1430917024.484, 1430917025.0]
    assert rows.source.tolist() == [4.1, 4.1]
    assert rows.reading.tolist() == [1.998e-4, 9.9e37]
    assert len(good_rows(rows)) == 1
    assert math.isclose(float(good_rows(rows).reading[0]), 1.998e-4)
