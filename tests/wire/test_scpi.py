from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.errors import InstrumentError
from labctl.wire import scpi
from labctl.wire.scpi import Scpi
from labctl.wire.transcript import Transcript

NO_ERROR = '0,"No error;0;0 0"'

PARSERS: tuple[Callable[[str], object], ...] = (
    scpi.parse_number,
    scpi.parse_any_number,
    scpi.parse_integer,
    scpi.parse_boolean,
    scpi.parse_word,
    scpi.parse_event,
    scpi.parse_identification,
)


async def test_a_setting_is_followed_by_a_look_at_the_error_queue() -> None:
    wire = Transcript(f"""
        > :SOUR:VOLT 4.2
        :SYST:ERR?
        < {NO_ERROR}
    """)
    await Scpi(wire, name="smu").tell(":SOUR:VOLT 4.2")
    assert wire.finished()


async def test_a_refused_setting_names_the_command_and_all_that_was_said() -> None:
    wire = Transcript(f"""
        > :SOUR:VOLT 4200
        :SYST:ERR?
        < -222,"Parameter data out of range;1;2015/05/06 12:57:04.484"
        > :SYST:ERR?
        < -109,"Missing parameter;1;2015/05/06 12:57:04.484"
        > :SYST:ERR?
        < {NO_ERROR}
    """)
    with pytest.raises(InstrumentError, match=r"out of range.*Missing parameter") as caught:
        await Scpi(wire, name="smu 1").tell(":SOUR:VOLT 4200")
    assert caught.value.command == ":SOUR:VOLT 4200"
    assert caught.value.instrument == "smu 1"
    assert caught.value.reply.startswith("-222")
    assert wire.finished()


async def test_an_answer_that_means_nothing_names_the_query_and_the_answer() -> None:
    wire = Transcript("""
        > :OUTP?
        < maybe
    """)
    with pytest.raises(InstrumentError, match="neither 0 nor 1") as caught:
        await Scpi(wire, name="smu").ask(":OUTP?", scpi.parse_boolean)
    assert (caught.value.command, caught.value.reply) == (":OUTP?", "maybe")


@pytest.mark.parametrize("text", ["9.9e+37", "9.900000E+37", "-9.9E37", "9.91E37"])
def test_a_number_that_stands_for_an_overflow_is_no_number(text: str) -> None:
    with pytest.raises(InstrumentError, match="overflow"):
        scpi.parse_number(text)
    assert scpi.is_sentinel(scpi.parse_any_number(text))


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e", "0x10", "1,2", "1 2", "1_000", "٣"])
def test_what_is_no_number_of_scpi_is_refused(text: str) -> None:
    with pytest.raises(InstrumentError, match="is not a number"):
        scpi.parse_number(text)


@pytest.mark.parametrize("empty", ['0,"No error;0;0 0"', '0,"No error;0,0,0"', '+0,"No error"'])
def test_an_empty_error_queue_is_known_in_every_form_that_was_seen(empty: str) -> None:
    assert scpi.parse_event(empty).code == 0


def test_an_identification_has_four_parts() -> None:
    found = scpi.parse_identification("KEITHLEY INSTRUMENTS,MODEL 2450,01419969,1.7.12b")
    assert (found.model, found.serial, found.firmware) == ("MODEL 2450", "01419969", "1.7.12b")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_back_as_it_was_written(value: float) -> None:
    assert scpi.parse_any_number(scpi.write_number(value)) == value


@given(st.one_of(st.text(max_size=60), st.from_regex(r'[-+0-9.eE,";: A-Z]{0,40}')))
@pytest.mark.parametrize("parse", PARSERS)
def test_any_reply_is_read_or_is_a_typed_error(parse: Callable[[str], object], text: str) -> None:
    try:
        value = parse(text)
    except InstrumentError:
        return
    if isinstance(value, float):
        assert not math.isnan(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_text_or_a_typed_error(reply: bytes) -> None:
    try:
        text = scpi.text_of(reply)
    except InstrumentError:
        return
    assert text == text.strip()
    assert text.isascii()
