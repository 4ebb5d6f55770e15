from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.errors import LinkError
from labctl.simulators.timeport import serve_time
from labctl.wire.timelink import (
    SteppedClock,
    TimeLineError,
    advance_line,
    now_line,
    read_advance,
    read_now,
)


class Laboratory:
    """A simulator's time; ``moves`` are the durations that it was moved on by."""

    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s
        self.moves: list[float] = []
        self.more_s = 0.0

    def advance(self, duration_s: float) -> float:
        if duration_s:
            self.moves.append(duration_s)
            self.now_s += duration_s + self.more_s
        return self.now_s


@contextlib.asynccontextmanager
async def stepped(laboratory: Laboratory, **options: float) -> AsyncIterator[SteppedClock]:
    async with serve_time(laboratory.advance, host="127.0.0.1", port=0) as listening:
        clock = SteppedClock(listening.host, listening.port, **options)
        try:
            async with asyncio.timeout(20):
                yield clock
        finally:
            await clock.close()


def test_the_lines_are_those_that_were_agreed_on() -> None:
    assert advance_line(12.5) == b"advance 12.5\n"
    assert now_line(1234.5) == b"now 1234.5\n"
    assert read_advance(b"advance 12.5\n") == 12.5
    assert read_now(b"now 1234.5") == 1234.5


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_time_goes_over_the_wire_to_the_last_bit(value: float) -> None:
    assert read_advance(advance_line(value)) == value
    assert read_now(now_line(value)) == value


@given(st.binary(max_size=300))
@pytest.mark.parametrize("read", [read_advance, read_now])
def test_any_line_is_a_time_or_a_typed_error(read: object, line: bytes) -> None:
    assert callable(read)
    try:
        value = read(line)
    except TimeLineError:
        return
    assert math.isfinite(value)
    assert value >= 0


@pytest.mark.parametrize("line", [b"advance -1", b"advance nan", b"advance inf", b"advance", b""])
def test_a_line_that_would_stop_or_turn_time_is_refused(line: bytes) -> None:
    with pytest.raises(TimeLineError, match="advance"):
        read_advance(line)


async def test_to_sleep_is_to_move_the_simulators_time_on() -> None:
    laboratory = Laboratory()
    async with stepped(laboratory, unix_start_s=1_800_000_000.0) as clock:
        assert clock.monotonic_s() == 0.0
        await clock.sleep(12.5)
        await clock.sleep(0.0)
        await clock.sleep(-3.0)
        assert laboratory.moves == [12.5]
        assert clock.monotonic_s() == 12.5
        assert clock.unix_time_s() == 1_800_000_012.5


async def test_time_that_passed_in_the_simulator_besides_is_told() -> None:
    laboratory = Laboratory()
    laboratory.more_s = 0.25
    async with stepped(laboratory) as clock:
        await clock.sleep(10.0)
        assert clock.monotonic_s() == 10.25


async def test_two_who_sleep_at_once_move_time_on_once() -> None:
    laboratory = Laboratory()
    woken: list[tuple[str, float]] = []

    async def sleeper(clock: SteppedClock, name: str, *durations_s: float) -> None:
        for duration_s in durations_s:
            await clock.sleep(duration_s)
            woken.append((name, clock.monotonic_s()))

    async with stepped(laboratory, grace_s=0.5) as clock, asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper(clock, "long", 10.0))
        tasks.create_task(sleeper(clock, "short", 4.0, 4.0, 4.0))
    assert woken == [("short", 4.0), ("short", 8.0), ("long", 10.0), ("short", 12.0)]
    assert sum(laboratory.moves) == 12.0


async def test_time_waits_for_the_one_who_woke_and_still_works() -> None:
    laboratory = Laboratory()
    async with stepped(laboratory, grace_s=5.0) as clock:
        asleep = asyncio.create_task(clock.sleep(600.0))
        await clock.sleep(1.0)
        await asyncio.sleep(0.05)
        assert laboratory.moves == [1.0]
        await clock.sleep(1.0)
        assert clock.monotonic_s() == 2.0
        asleep.cancel()
        await asyncio.gather(asleep, return_exceptions=True)
        assert laboratory.moves == [1.0, 1.0]


async def test_a_sleeper_is_not_kept_for_good_by_one_who_does_not_sleep_again() -> None:
    laboratory = Laboratory()
    async with stepped(laboratory, grace_s=0.02) as clock:
        asleep = asyncio.create_task(clock.sleep(600.0))
        await clock.sleep(1.0)
        await asleep
        assert clock.monotonic_s() == 600.0


async def test_a_sleep_that_is_broken_off_leaves_the_clock_right() -> None:
    laboratory = Laboratory()
    async with stepped(laboratory, grace_s=0.0) as clock:
        for _ in range(20):
            asleep = asyncio.create_task(clock.sleep(1.0))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asleep.cancel()
            await asyncio.gather(asleep, return_exceptions=True)
        before_s = clock.monotonic_s()
        await clock.sleep(5.0)
        assert clock.monotonic_s() == before_s + 5.0


async def test_nobody_at_the_time_port_is_an_error_of_the_link() -> None:
    async with serve_time(Laboratory().advance, host="127.0.0.1", port=0) as listening:
        port = listening.port
    clock = SteppedClock("127.0.0.1", port)
    with pytest.raises(LinkError, match=f"time port 127.0.0.1:{port}"):
        await clock.sleep(1.0)
    assert clock.monotonic_s() == 0.0


async def test_a_time_port_that_is_lost_and_found_goes_on() -> None:
    laboratory = Laboratory()
    async with serve_time(laboratory.advance, host="127.0.0.1", port=0) as listening:
        clock = SteppedClock("127.0.0.1", listening.port)
        await clock.sleep(3.0)
    with pytest.raises(LinkError):
        await clock.sleep(3.0)
    fresh = Laboratory(now_s=0.0)
    async with serve_time(fresh.advance, host="127.0.0.1", port=listening.port):
        await clock.sleep(2.0)
        assert clock.monotonic_s() == 5.0
        assert fresh.moves == [2.0]
        await clock.close()


@pytest.mark.parametrize("said", [b"later\n", b"now -1\n", b"now nan\n", b"\xff\xfe\n", b"x" * 500])
async def test_nonsense_at_the_time_port_is_an_error_of_the_link(said: bytes) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        clock = SteppedClock("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(LinkError):
            await clock.sleep(1.0)
        await clock.close()


async def test_a_time_port_that_never_answers_is_given_up() -> None:
    told = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"advance 0.0\n"
        told.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        clock = SteppedClock("127.0.0.1", port, reply_timeout_s=0.05)
        began_s = time.monotonic()
        with pytest.raises(LinkError, match="does not answer in time"):
            await clock.sleep(1.0)
        assert time.monotonic() - began_s < 5.0
        await told.wait()
