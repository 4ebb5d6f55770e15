"""The driver on a simulated chamber, over TCP and over a serial line, with what can go wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from chamber_lab import ChamberLab, chamber_lab

from labctl.drivers.base import ChamberAlarmError
from labctl.errors import InstrumentError, LinkError
from labctl.simulators.espec.chamber import HIGH_TEMPERATURE
from labctl.simulators.faults import Fault

PLACES = [{}, {"serial": True}]


def id_of(place: dict[str, Any]) -> str:
    return "serial" if place else "tcp"


@pytest.fixture(params=PLACES, ids=id_of)
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


async def warmed(lab: ChamberLab, to_degC: float, within_K: float = 0.3) -> float:
    """How long it took, in the chamber's time."""
    await lab.driver.set_temperature(to_degC)
    began_s = lab.clock.monotonic_s()
    async with asyncio.timeout(10.0):
        while abs(await lab.driver.temperature() - to_degC) > within_K:
            await lab.clock.sleep(10.0)
    return lab.clock.monotonic_s() - began_s


async def test_a_chamber_comes_to_what_it_is_set_to(place: dict[str, Any]) -> None:
    async with chamber_lab(simulator=place) as lab:
        identity = await lab.opened()
        assert (identity.manufacturer, identity.model) == ("ESPEC", "PR3J")
        assert identity.serial == "PR3J VER1.10"
        # From 23 to 60 degC at 3 K/min at the most takes more than 12 min, and then some.
        assert 740.0 < await warmed(lab, 60.0) < 1500.0
        assert lab.air_degC == pytest.approx(60.0, abs=0.35)
        assert lab.simulated.chamber.mode == "CONSTANT"


async def test_a_chamber_that_is_off_is_switched_on() -> None:
    async with chamber_lab() as lab:
        lab.simulated.chamber.switch("OFF")
        await lab.driver.set_temperature(30.0)
        assert lab.simulated.chamber.mode == "CONSTANT"


async def test_the_chambers_own_limits_hold(place: dict[str, Any]) -> None:
    async with chamber_lab(simulator=place) as lab:
        await lab.opened()
        lab.simulated.chamber.settings.high_degC = 45.0
        with pytest.raises(InstrumentError, match="its limits are 0 to 45 degC"):
            await lab.driver.set_temperature(45.1)
        assert lab.simulated.chamber.settings.temperature_degC == 25.0
        assert lab.simulated.chamber.mode == "STANDBY"
        await lab.driver.set_temperature(45.0)
        assert lab.simulated.chamber.settings.temperature_degC == 45.0


async def test_a_locked_panel_is_said() -> None:
    async with chamber_lab(simulator={"protected": True}) as lab:
        with pytest.raises(InstrumentError, match="settings are locked") as caught:
            await lab.driver.set_temperature(30.0)
        assert caught.value.reply == "NA:PROTECT ON"


async def test_a_program_of_its_own_goes_on() -> None:
    async with chamber_lab() as lab:
        controller = lab.simulated.wire.controller
        controller.answer("RUN PRGM, TEMP25.0 TIME1:30 GOTEMP55.0")
        with pytest.raises(InstrumentError, match="runs a program of its own"):
            await lab.driver.set_temperature(30.0)
        assert lab.simulated.chamber.running is not None
        assert await lab.driver.temperature() == 23.0


async def test_a_chamber_that_somebody_stopped_has_a_problem_and_a_temperature() -> None:
    async with chamber_lab() as lab:
        await lab.driver.set_temperature(30.0)
        assert await lab.driver.temperature() == 23.0
        assert lab.driver.problem == ""
        lab.simulated.chamber.switch("STANDBY")
        assert await lab.driver.temperature() == 23.0
        assert "was set to 30 degC and is STANDBY" in lab.driver.problem
        await lab.driver.set_temperature(30.0)
        assert lab.driver.problem == ""
        await lab.driver.standby()
        await lab.driver.temperature()
        assert lab.driver.problem == ""


async def test_a_heater_that_stays_on_ends_in_an_alarm_with_its_temperature() -> None:
    async with chamber_lab() as lab:
        lab.simulated.chamber.settings.high_degC = 45.0
        await warmed(lab, 40.0)
        lab.fault(Fault("over_temperature"))
        await lab.clock.sleep(300.0)
        with pytest.raises(ChamberAlarmError) as caught:
            await lab.driver.temperature()
        assert caught.value.alarms == (HIGH_TEMPERATURE,)
        assert 45.0 < caught.value.temperature_degC == pytest.approx(lab.air_degC, abs=0.06)
        with pytest.raises(ChamberAlarmError):
            await lab.driver.set_temperature(30.0)


async def test_a_chamber_that_does_not_stop_is_said() -> None:
    async with chamber_lab() as lab:
        await lab.driver.set_temperature(40.0)
        lab.fault(Fault("ignores_stop"))
        with pytest.raises(InstrumentError, match="is still CONSTANT"):
            await lab.driver.standby()
        lab.fault()
        await lab.driver.standby()
        assert lab.simulated.chamber.mode == "STANDBY"


async def test_a_reading_that_stays_as_it_was_is_a_fault_of_the_chamber() -> None:
    async with chamber_lab() as lab:
        before_degC = await lab.driver.temperature()
        lab.fault(Fault("frozen"))
        await lab.driver.set_temperature(60.0)
        await lab.clock.sleep(1000.0)
        assert await lab.driver.temperature() == before_degC
        lab.fault()
        assert await lab.driver.temperature() > 50.0


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", command="MON?", times=1),
        Fault("drop_unheard", command="MON?", times=1),
        Fault("truncate", command="MON?", times=1),
    ],
    ids=lambda fault: fault.name,
)
async def test_after_a_lost_line_the_chamber_is_known_again(
    place: dict[str, Any], fault: Fault
) -> None:
    async with chamber_lab(simulator=place, reply_timeout_s=0.5) as lab:
        await lab.opened()
        lab.fault(fault)
        with pytest.raises(LinkError):
            await lab.driver.temperature()
        await until_answered(lab)
        assert await lab.driver.temperature() == 23.0


async def test_garbage_is_no_temperature(place: dict[str, Any]) -> None:
    async with chamber_lab(simulator=place, reply_timeout_s=0.5) as lab:
        await lab.opened()
        lab.fault(Fault("garbage", command="MON?", times=1))
        with pytest.raises((InstrumentError, LinkError)):
            await lab.driver.temperature()
        assert await until_answered(lab) == 23.0


async def test_a_chamber_that_says_nothing_is_given_up_in_time(place: dict[str, Any]) -> None:
    async with chamber_lab(simulator=place, reply_timeout_s=0.2) as lab:
        await lab.opened()
        lab.fault(Fault("hang", command="MON?", times=1))
        with pytest.raises(LinkError, match=r"within 0\.2 s"):
            await lab.driver.temperature()
        assert await until_answered(lab) == 23.0


async def test_a_late_answer_is_not_taken_for_the_next(place: dict[str, Any]) -> None:
    async with chamber_lab(simulator=place, reply_timeout_s=0.2) as lab:
        await lab.opened()
        lab.fault(Fault("stall", command="MON?", times=1, seconds=0.4))
        with pytest.raises(LinkError):
            await lab.driver.temperature()
        lab.simulated.chamber.temperature_degC = 50.0
        assert await until_answered(lab) == 50.0


async def test_a_chamber_that_is_plugged_in_again_is_known_again(place: dict[str, Any]) -> None:
    async with chamber_lab(simulator=place, reply_timeout_s=0.5) as lab:
        await lab.opened()
        await lab.driver.set_temperature(40.0)
        lab.fault(Fault("unplugged"))
        for _ in range(2):
            with pytest.raises(LinkError):
                await lab.driver.temperature()
        lab.fault()
        await lab.clock.sleep(600.0)
        assert await until_answered(lab) > 35.0
        assert lab.simulated.chamber.mode == "CONSTANT"


async def test_another_chamber_at_its_place_is_refused(place: dict[str, Any]) -> None:
    async with chamber_lab(simulator=place, reply_timeout_s=0.5) as lab:
        await lab.opened()
        lab.fault(Fault("wrong_serial"), Fault("drop_unheard", command="MON?", times=1))
        with pytest.raises(LinkError):
            await lab.driver.temperature()
        async with asyncio.timeout(5.0):
            while True:
                with pytest.raises((LinkError, InstrumentError)) as caught:
                    await lab.driver.temperature()
                if isinstance(caught.value, InstrumentError):
                    break
        assert "'PR3J VER1.10' is expected" in str(caught.value)


async def test_a_chamber_that_loses_hasty_commands_loses_none() -> None:
    # Busy 0.02 s after a question and 0.05 s after a setting, and the driver leaves it 0.05 s and
    # 0.1 s.
    simulator = {"speed": 1.0, "hasty": "lost", "busy": 0.1}
    async with chamber_lab(
        simulator=simulator, monitor_pause_s=0.05, setting_pause_s=0.1, reply_timeout_s=0.5
    ) as lab:
        await asyncio.gather(
            lab.driver.set_temperature(40.0),
            *(lab.driver.temperature() for _ in range(3)),
        )
        assert lab.simulated.wire.lost == 0
        assert lab.simulated.chamber.settings.temperature_degC == 40.0


async def test_a_driver_in_too_much_of_a_hurry_is_not_heard() -> None:
    simulator = {"speed": 1.0, "hasty": "lost"}
    async with chamber_lab(simulator=simulator, reply_timeout_s=0.2) as lab:
        with pytest.raises(LinkError):
            await lab.driver.open()
        assert lab.simulated.wire.lost


async def test_several_chambers_hang_on_one_rs485_line() -> None:
    async with chamber_lab(simulator={"serial": True, "unit": 3}, unit=3) as lab:
        await lab.opened()
        await warmed(lab, 30.0)
    async with chamber_lab(
        simulator={"serial": True, "unit": 4}, unit=3, reply_timeout_s=0.2
    ) as lab:
        with pytest.raises(LinkError):
            await lab.driver.open()


async def test_a_line_without_addresses_refuses_one() -> None:
    async with chamber_lab(unit=3) as lab:
        with pytest.raises(InstrumentError, match="address on its line"):
            await lab.driver.open()


async def until_answered(lab: ChamberLab) -> float:
    """The temperature as soon as the chamber tells it again."""
    async with asyncio.timeout(10.0):
        while True:
            try:
                return await lab.driver.temperature()
            except (LinkError, InstrumentError):
                await asyncio.sleep(0)
