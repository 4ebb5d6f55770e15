from __future__ import annotations

import pytest

from labctl.errors import LinkError
from labctl.wire.link import Exchange
from labctl.wire.transcript import Transcript, TranscriptError


async def test_a_conversation_is_played_and_then_finished() -> None:
    wire = Transcript(
        """
        # a power supply
        > MEAS:VOLT?
        < 3.7

        > DUMP?
        < <list>
            <a/>
          </list>
        """
    )
    assert await wire.ask(b"MEAS:VOLT?") == b"3.7"
    assert not wire.finished()
    assert await wire.ask(b"DUMP?") == b"<list>\n    <a/>\n  </list>"
    assert wire.finished()


async def test_another_request_than_the_recorded_one_fails_and_shows_both() -> None:
    wire = Transcript("> MEAS:VOLT?\n< 3.7")
    with pytest.raises(TranscriptError, match=r"line 1(?s:.)*MEAS:VOLT(?s:.)*MEAS:CURR"):
        await wire.ask(b"MEAS:CURR?")


async def test_a_request_after_the_end_fails() -> None:
    wire = Transcript("> a\n< b")
    await wire.ask(b"a")
    with pytest.raises(TranscriptError, match="at its end"):
        await wire.ask(b"a")


async def test_a_request_without_an_answer_in_the_transcript_fails() -> None:
    wire = Transcript("> a\n> b\n< c")
    with pytest.raises(TranscriptError, match="line 1 of the transcript has no answer"):
        await wire.ask(b"a")


async def test_a_failure_of_the_wire_can_be_recorded() -> None:
    wire = Transcript("> a\n! no answer within 30 s")
    with pytest.raises(LinkError, match="no answer within 30 s") as caught:
        await wire.ask(b"a", command="A")
    assert caught.value.command == "A"
    assert wire.finished()


async def test_a_greeting_comes_first_and_again_after_a_failure() -> None:
    async def greeting(exchange: Exchange) -> None:
        assert await exchange(b"hello") == b"welcome"

    wire = Transcript(
        """
        > hello
        < welcome
        > a
        ! reset
        > hello
        < welcome
        > b
        < c
        """,
        greeting=greeting,
    )
    with pytest.raises(LinkError):
        await wire.ask(b"a")
    assert await wire.ask(b"b") == b"c"
    assert wire.finished()


def test_a_transcript_that_begins_in_the_middle_is_refused() -> None:
    with pytest.raises(TranscriptError, match="begins nothing"):
        Transcript("3.7")
