"""What goes over the wire, line by line: as the vendor's library and its users have it."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from labctl.clock import ManualClock, VirtualClock
from labctl.drivers.base import ChamberAlarmError, Identity
from labctl.drivers.espec.config import EspecConfig
from labctl.drivers.espec.driver import Espec
from labctl.errors import InstrumentError, LinkError
from labctl.wire.link import Exchange
from labctl.wire.transcript import Transcript

HELLO = """
# ChamberConnectLibrary @1d2deb8, p300.py, read_rom, read_type; especp300.py: a P-300's ROM begins
# with P3. An SH-641 tells T,T,S2,160.0 (akaeba/ATWG, espec/espec_sh_def.py).
> ROM?
< P3N20 VER2.05
> TYPE?
< T,T,S2,160.0
"""
QUIET = """
# EHS-411M manual, table 3.3, example response
> MON?
< 24.1,100,STANDBY,0
# espec-pr3j 0.5.0, get_temperature_status: measured, set, upper, lower
> TEMP?
< 24.1,23.0,110.0,-40.0
> MODE?
< STANDBY
"""
SET = """
# espec-pr3j 0.5.0, set_target_temperature and set_mode, and what they expect
> TEMP, S60.0
< OK:TEMP, S60.0
> TEMP?
< 24.1,60.0,110.0,-40.0
> MODE, CONSTANT
< OK:MODE, CONSTANT
> MODE?
< CONSTANT
> TEMP?
< 24.2,60.0,110.0,-40.0
"""


class Talked:
    """A driver and the talk that it has to have; the whole of it, by :meth:`over`."""

    def __init__(self, talk: str, **options: Any) -> None:
        self.transcript = Transcript(talk, greeting=self._greet)
        self.driver = Espec(
            EspecConfig(**{"host": "chamber", **options}),
            name="oven 1",
            clock=VirtualClock(),
            link=self.transcript,
        )

    async def _greet(self, exchange: Exchange) -> None:
        await self.driver.greet(exchange)

    def over(self) -> bool:
        return self.transcript.finished()


async def test_a_chamber_says_who_it_is() -> None:
    talked = Talked(HELLO)
    assert await talked.driver.open() == Identity("ESPEC", "S2", "P3N20 VER2.05", unique=False)
    assert talked.over()


async def test_a_temperature_is_set_read_back_and_switched_on() -> None:
    talked = Talked(HELLO + QUIET + SET)
    await talked.driver.set_temperature(60.04)
    assert talked.over()


async def test_a_chamber_that_is_off_is_given_power_first() -> None:
    off = QUIET.replace("STANDBY", "OFF")
    # ChamberConnectLibrary @1d2deb8, p300.py, write_power: POWER,ON starts constant operation.
    talk = """
> TEMP, S60.0
< OK:TEMP, S60.0
> TEMP?
< 24.1,OFF,110.0,-40.0
> POWER,ON
< OK:POWER,ON
> MODE?
< CONSTANT
> TEMP?
< 24.1,60.0,110.0,-40.0
"""
    talked = Talked(HELLO + off + talk)
    await talked.driver.set_temperature(60.0)
    assert talked.over()


async def test_on_an_rs485_line_commands_have_the_address() -> None:
    # EHS-411M manual, chapter 3.2: "Address, main command [, optional parameter]"; "1,MON?".
    # EHS-211M manual, page 8: a setting is answered "OK : address, setting command".
    talk = (HELLO + QUIET + SET).replace("> ", "> 3,").replace("OK:", "OK : 3,")
    talked = Talked(talk, host="", port="/dev/ttyUSB0", unit=3)
    await talked.driver.set_temperature(60.0)
    assert talked.over()


@pytest.mark.parametrize(
    ("temperature_degC", "options", "limits"),
    [
        (110.1, {}, "-40 to 110"),
        (-40.1, {}, "-40 to 110"),
        (80.1, {"temperature_max_degC": 80.0}, "-40 to 80"),
        (9.9, {"temperature_min_degC": 10.0}, "10 to 110"),
        (float("nan"), {}, "-40 to 110"),
        (float("inf"), {}, "-40 to 110"),
    ],
)
async def test_what_is_outside_the_limits_is_not_sent(
    temperature_degC: float, options: dict[str, float], limits: str
) -> None:
    asked = QUIET.partition("> MODE?")[0]
    talked = Talked(HELLO + asked, **options)
    with pytest.raises(InstrumentError, match=f"its limits are {limits} degC") as caught:
        await talked.driver.set_temperature(temperature_degC)
    assert (caught.value.instrument, caught.value.command) == ("oven 1", "TEMP?")
    assert talked.over()


async def test_nothing_is_set_above_what_the_controller_can() -> None:
    asked = QUIET.partition("> MODE?")[0].replace("110.0", "200.0")
    talked = Talked(HELLO + asked)
    with pytest.raises(InstrumentError, match="its limits are -40 to 160 degC"):
        await talked.driver.set_temperature(160.1)


async def test_a_set_point_that_is_read_back_otherwise_is_said() -> None:
    talked = Talked(HELLO + QUIET + SET.replace("24.1,60.0", "24.1,23.0").partition("> MODE,")[0])
    with pytest.raises(InstrumentError, match="was set to 60 degC and tells 23 degC") as caught:
        await talked.driver.set_temperature(60.0)
    assert caught.value.command == "TEMP, S60.0"
    assert talked.over()


async def test_a_set_point_that_is_off_in_the_end_is_said() -> None:
    talked = Talked(HELLO + QUIET + SET.replace("24.2,60.0", "24.2,OFF"))
    with pytest.raises(InstrumentError, match="was set to 60 degC and tells off"):
        await talked.driver.set_temperature(60.0)


async def test_a_chamber_that_does_not_switch_on_is_said() -> None:
    talked = Talked(HELLO + QUIET + SET.replace("< CONSTANT", "< STANDBY"))
    with pytest.raises(InstrumentError, match="was switched on and is STANDBY"):
        await talked.driver.set_temperature(60.0)


async def test_a_program_of_the_chambers_own_is_not_interrupted() -> None:
    talked = Talked(HELLO + QUIET.replace("STANDBY", "RUN"))
    with pytest.raises(InstrumentError, match="runs a program of its own") as caught:
        await talked.driver.set_temperature(60.0)
    assert caught.value.command == "MODE?"
    assert talked.over()


async def test_a_refusal_names_chamber_command_and_answer() -> None:
    # ChamberConnectLibrary @1d2deb8, especinteract.py: "Controller data protection is enabled".
    refused = SET.replace("OK:TEMP, S60.0", "NA:PROTECT ON").partition("> TEMP?")[0]
    talked = Talked(HELLO + QUIET + refused)
    with pytest.raises(InstrumentError, match="its settings are locked") as caught:
        await talked.driver.set_temperature(60.0)
    error = caught.value
    assert (error.instrument, error.command, error.reply) == (
        "oven 1",
        "TEMP, S60.0",
        "NA:PROTECT ON",
    )


async def test_alarms_are_told_with_the_temperature() -> None:
    # ChamberConnectLibrary @1d2deb8, p300.py, read_alarm: a count, then the numbers.
    talked = Talked(HELLO + "\n> MON?\n< 84.1,12,STANDBY,2\n> ALARM?\n< 2,2,51\n")
    with pytest.raises(ChamberAlarmError, match=r"in alarm: 2, 51 .*at 84.1 degC") as caught:
        await talked.driver.temperature()
    assert (caught.value.alarms, caught.value.temperature_degC) == ((2, 51), 84.1)
    assert (caught.value.instrument, caught.value.command) == ("oven 1", "ALARM?")


async def test_an_alarm_that_cannot_be_asked_for_is_told_all_the_same() -> None:
    talked = Talked(HELLO + "\n> MON?\n< 84.1,12,STANDBY,2\n> ALARM?\n! the cable is out\n")
    with pytest.raises(ChamberAlarmError, match="2 of them, and does not tell which") as caught:
        await talked.driver.temperature()
    assert (caught.value.alarms, caught.value.temperature_degC) == ((), 84.1)


async def test_nothing_is_set_in_a_chamber_in_alarm() -> None:
    talked = Talked(HELLO + "\n> MON?\n< 84.1,12,STANDBY,1\n> ALARM?\n< 1,2\n")
    with pytest.raises(ChamberAlarmError):
        await talked.driver.set_temperature(25.0)
    assert talked.over()


async def test_another_chamber_after_a_lost_connection_is_refused() -> None:
    other = HELLO.replace("P3N20 VER2.05", "P3N20 VER2.06")
    talked = Talked(HELLO + "\n> MON?\n! the cable is out\n" + other)
    await talked.driver.open()
    with pytest.raises(LinkError):
        await talked.driver.temperature()
    with pytest.raises(InstrumentError, match=r"ROM 'P3N20 VER2.06', and 'P3N20 VER2.05'"):
        await talked.driver.temperature()


async def test_a_chamber_of_another_kind_after_a_lost_connection_is_refused() -> None:
    talked = Talked(HELLO + "\n> MON?\n! the cable is out\n" + HELLO.replace("160.0", "150.0"))
    await talked.driver.open()
    with pytest.raises(LinkError):
        await talked.driver.temperature()
    with pytest.raises(InstrumentError, match="hottest_degC=150") as caught:
        await talked.driver.temperature()
    assert caught.value.command == "TYPE?"


async def test_another_chamber_than_the_configuration_names_is_refused() -> None:
    talked = Talked(HELLO, rom="P3N20 VER1.00")
    with pytest.raises(InstrumentError, match=r"and 'P3N20 VER1.00' is expected"):
        await talked.driver.open()


async def test_a_chamber_is_left_alone_after_each_command() -> None:
    # espec-pr3j 0.5.0: MONITOR_COMMAND_DELAY 0.2 s, SETTING_COMMAND_DELAY 0.5 s; here 0.3 s and
    # 0.5 s, as the RS-485 guide has it.
    clock = ManualClock()
    sent: list[tuple[str, float]] = []

    class Watched(Transcript):
        async def _answer(self, request: bytes, command: str) -> bytes:
            sent.append((request.decode(), clock.monotonic_s()))
            return await super()._answer(request, command)

    async def greet(exchange: Exchange) -> None:
        await driver.greet(exchange)

    link = Watched(HELLO + QUIET + SET, greeting=greet)
    driver = Espec(EspecConfig(host="chamber"), name="oven 1", clock=clock, link=link)
    setting = asyncio.create_task(driver.set_temperature(60.0))
    while not setting.done():
        await clock.advance(0.05)
    await setting
    for (command, before_s), (_, after_s) in itertools.pairwise(sent):
        pause_s = 0.3 if command.endswith("?") else 0.5
        assert after_s - before_s == pytest.approx(pause_s, abs=0.051), command


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "where is it"),
        ({"host": "chamber", "port": "/dev/ttyUSB0"}, "beside a host it must be 1 to 65535"),
        ({"host": "chamber", "port": 0}, "beside a host it must be 1 to 65535"),
        ({"port": " "}, "where is it"),
        ({"host": "chamber", "unit": 17}, "unit is 17"),
        ({"host": "chamber", "reply_timeout_s": 0}, "reply_timeout_s is 0"),
        ({"host": "chamber", "setting_pause_s": -1}, "setting_pause_s is -1"),
        (
            {"host": "chamber", "temperature_min_degC": 50.0, "temperature_max_degC": 50.0},
            "must be below",
        ),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EspecConfig(**options)
