from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from smu_bench import LIMITS, ONE_C_A, after, current_falls_to, falls_to, rises_to, step, task

from labctl.clock import VirtualClock
from labctl.drivers import build_driver
from labctl.drivers.keithley.config import KeithleyConfig
from labctl.drivers.keithley.driver import Keithley
from labctl.drivers.keithley.plan import period_s, setup_of, stair_V
from labctl.errors import ConfigError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Control,
    EndCondition,
    Impedance,
    Limits,
    Program,
    Quantity,
    Rest,
    SetTemperature,
    Signal,
    VoltageSweep,
    Wait,
)

RESOURCE = "TCPIP::192.168.1.20::5025::SOCKET"


def config(**options: Any) -> KeithleyConfig:
    return KeithleyConfig(**{"resource": RESOURCE, **options})


def refused(control: Control, *ends: EndCondition, limits: Limits = LIMITS, **options: Any) -> str:
    one = step(control, *ends, after(3600.0), index=0)
    program = Program(name="p", recipe_sha256="", cell="c", body=(one, one), limits=limits)
    driver = Keithley(config(**options), name="smu 1", clock=VirtualClock())
    reasons = driver.refusals(program)
    assert len(set(reasons)) == len(reasons)
    return "\n".join(reasons)


currents_A = st.floats(1e-6, 0.5)
voltages_V = st.floats(1.2, 4.3)


@given(current_A=currents_A, end_V=voltages_V, charging=st.booleans())
def test_no_constant_current_can_pass_its_end_in_hardware(
    current_A: float, end_V: float, charging: bool
) -> None:
    signed_A = current_A if charging else -current_A
    end = rises_to(end_V) if charging else falls_to(end_V)
    limits = Limits(1.0, 4.4, -1.0, 1.0, 10.0, 1e9)
    setup = setup_of(task(ConstantCurrent(signed_A), end, after(1e5), limits=limits), config())
    assert (setup.source, setup.end, setup.limit_reached) == ("VOLT", end, "")
    beyond_V = setup.level - end_V if charging else end_V - setup.level
    assert 2.9e-3 < beyond_V < 3.1e-3
    assert setup.limit == current_A
    assert current_A <= setup.sense_range * 1.0001 <= 10.001 * current_A
    assert setup.ends is not None
    assert not setup.ends.holds(signed_A)
    assert not setup.ends.holds(signed_A * (1 - 0.3e-2 - 0.05e-2))
    assert setup.ends.holds(0.9 * signed_A)
    assert setup.ends.holds(-signed_A)
    assert setup.source_range >= 4.4
    assert setup.protection_V == 5.0


def test_the_nearest_of_several_ends_is_the_level() -> None:
    work = task(ConstantCurrent(ONE_C_A), rises_to(4.2), rises_to(4.0), falls_to(2.0), after(1e5))
    assert setup_of(work, config()).level == pytest.approx(4.003)
    work = task(ConstantCurrent(-ONE_C_A), falls_to(1.5), falls_to(2.0), rises_to(4.0), after(1e5))
    assert setup_of(work, config()).level == pytest.approx(1.997)


def test_a_limit_before_the_end_is_the_level_and_is_called_a_limit() -> None:
    narrow = Limits(2.0, 4.0, -1e-2, 1e-2, 5e-4, 1e7)
    for current_A, end, level_V in ((ONE_C_A, rises_to(4.1), 4.0), (-ONE_C_A, falls_to(1.5), 2.0)):
        setup = setup_of(task(ConstantCurrent(current_A), end, limits=narrow), config())
        assert (setup.level, setup.end) == (level_V, None)
        assert setup.limit_reached == f"the voltage reached its limit of {level_V:g} V"
    at_limit = setup_of(task(ConstantCurrent(ONE_C_A), rises_to(4.0), limits=narrow), config())
    assert (at_limit.level, at_limit.end, at_limit.limit_reached) == (4.0, rises_to(4.0), "")


def test_a_constant_voltage_ends_by_the_largest_of_its_currents() -> None:
    control = ConstantCurrentConstantVoltage(-ONE_C_A, 2.0)
    setup = setup_of(task(control, current_falls_to(1e-5), current_falls_to(2e-5)), config())
    assert setup.ends is not None
    assert setup.end == current_falls_to(2e-5)
    assert setup.ends.holds(-2e-5)
    assert setup.ends.holds(1.9e-5)
    assert not setup.ends.holds(-2.1e-5)
    assert setup_of(task(control, after(60.0)), config()).ends is None
    held = setup_of(task(ConstantVoltage(2.0, 1e-3, charging=True), after(60.0)), config())
    assert (held.level, held.limit, held.ends) == (2.0, 1e-3, None)


@given(
    from_V=voltages_V,
    to_V=voltages_V,
    rate=st.floats(1e-5, 0.1),
    share=st.floats(0, 2),
    step_V=st.floats(5e-4, 1e-2),
)
def test_a_staircase_stays_one_stair_behind_its_line_at_the_most_and_ends_at_its_end(
    from_V: float, to_V: float, rate: float, share: float, step_V: float
) -> None:
    assume(abs(to_V - from_V) > 2 * step_V)
    control = VoltageSweep(from_V, to_V, rate, 1e-3)
    whole_s = abs(to_V - from_V) / rate
    level_V = stair_V(control, from_V, share * whole_s, step_V)
    line_V = from_V + (to_V - from_V) * min(1.0, share)
    assert abs(level_V - line_V) <= step_V * 1.001
    assert min(from_V, to_V) - 1e-12 <= level_V <= max(from_V, to_V) + 1e-12
    assert stair_V(control, from_V, 0.0, step_V) == from_V
    assert stair_V(control, from_V, whole_s, step_V) == to_V


def test_the_faster_the_cell_the_more_often_it_is_looked_at() -> None:
    fast = period_s(task(ConstantCurrent(50 * ONE_C_A), rises_to(4.1)), config())
    slow = period_s(task(ConstantCurrent(0.2 * ONE_C_A), rises_to(4.1)), config())
    assert fast < 0.2
    assert slow == 1.0
    assert period_s(task(Rest(), after(60.0), every_s=0.5), config()) == 0.5
    assert period_s(task(Rest(), after(60.0), every_s=1e-3), config(nplc=0.1)) < 0.01


def test_a_short_pulse_is_looked_at_often_enough_to_end_in_time() -> None:
    pulse = task(ConstantCurrent(ONE_C_A), rises_to(4.1), after(60.0))
    assert 2 * period_s(pulse, config()) <= 0.003 * 60.0


@pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-3, 5e-3])
def test_a_sweep_has_a_whole_number_of_looks_a_stair(rate: float) -> None:
    work = task(VoltageSweep(3.0, 4.0, rate, 1e-3), rises_to(4.0))
    looks = 1e-3 / rate / period_s(work, config())
    assert looks == pytest.approx(round(looks))
    assert period_s(work, config()) <= 1.0


@given(watchdog_s=st.floats(3.0, 15.0), period=st.floats(0.08, 2.5), slower=st.floats(0.5, 1.5))
def test_two_windows_never_last_longer_than_the_watchdog(
    watchdog_s: float, period: float, slower: float
) -> None:
    assume(6 * period <= watchdog_s)
    options = config(watchdog_s=watchdog_s, sample_period_s=period)
    setup = setup_of(task(Rest(), after(60.0)), options)
    reading_s = slower * 4 / 50
    assert 2 * setup.windows * (reading_s + setup.delay_s) <= watchdog_s + 0.01
    assert setup.windows >= 2


@pytest.mark.parametrize(
    ("control", "says"),
    [
        (Impedance(False, 0.01, 1e5, 0.1, 10, 1e-3), "no analyser of frequency responses"),
        (ConstantPower(1e-3, 1e-3), "is constant power: a SourceMeter keeps a voltage"),
        (ConstantResistance(1e3, 1e-3), "is constant resistance: a SourceMeter keeps"),
        (ConstantCurrent(2.0), "asks for 2 A, and the instrument does 1e-09 A to 1 A"),
        (ConstantCurrent(0.0), "asks for 0 A"),
        (ConstantCurrent(0.02), "beyond the limits -0.012 A to 0.012 A"),
        (ConstantCurrent(-0.02), "beyond the limits -0.012 A to 0.012 A"),
        (ConstantVoltage(4.5, 1e-3, charging=True), "goes to 4.5 V, outside the limits 1 V to 4.4"),
        (ConstantVoltage(5.5, 1e-3, charging=True), "used from -5 V to 5 V"),
        (ConstantCurrentConstantVoltage(1e-3, 0.5), "goes to 0.5 V, outside"),
        (VoltageSweep(0.5, 4.0, 1e-3, 1e-3), "goes to 0.5 V, outside"),
        (VoltageSweep(None, 4.5, 1e-3, 1e-3), "goes to 4.5 V, outside"),
        (
            VoltageSweep(3.0, 4.0, 0.1, 1e-3),
            "stairs of 1 mV, each measured, 6.21 mV/s",
        ),
        (Signal("now", "lamp"), "no output 'lamp'; there are digital 1"),
    ],
)
def test_what_it_cannot_do_is_refused_when_it_is_planned(control: Control, says: str) -> None:
    assert says in refused(control)


@pytest.mark.parametrize(
    "control",
    [
        Rest(),
        ConstantCurrent(1e-2),
        ConstantVoltage(4.4, 1e-2, charging=True),
        ConstantCurrentConstantVoltage(-1e-2, 1.0),
        VoltageSweep(None, 4.0, 1e-3, 1e-3),
        Wait(prompt="change the cell"),
        Signal("now", "digital 6"),
        SetTemperature(25.0, 1.0, 60.0),
    ],
)
def test_what_it_can_do_is_not_refused(control: Control) -> None:
    assert refused(control) == ""


def test_temperatures_are_refused_unless_somebody_else_watches_them() -> None:
    by_temperature = EndCondition(Quantity.TEMPERATURE_DEGC, Comparison.AT_LEAST, 40.0)
    assert "ends by temperature" in refused(ConstantCurrent(1e-3), by_temperature)
    hot = Limits(1.0, 4.4, -0.01, 0.01, 1e-3, 1e6, -20.0, 60.0)
    assert "cannot be watched" in refused(Rest(), limits=hot)
    assert refused(Rest(), limits=hot, temperature_watched_elsewhere=True) == ""


def test_a_voltage_without_any_limit_is_refused() -> None:
    none = Limits(-math.inf, math.inf, -0.01, 0.01, 1e-3, 1e6)
    assert "needs a voltage of inf V" in refused(ConstantCurrent(1e-3), limits=none)
    assert refused(ConstantCurrent(1e-3), rises_to(4.0), limits=none) == ""
    wide = Limits(1.0, 10.0, -0.01, 0.01, 1e-3, 1e6)
    assert "the voltage limit 10 V is outside" in refused(Rest(), limits=wide)
    empty = Limits(4.0, 4.0, -0.01, 0.01, 1e-3, 1e6)
    assert "leave no room" in refused(Rest(), limits=empty)


def test_it_is_built_from_plain_options_and_not_connected() -> None:
    options: dict[str, object] = {"resource": RESOURCE, "serial": "04419969", "nplc": 1}
    driver = build_driver("keithley", options, name="smu 1", clock=VirtualClock())
    assert isinstance(driver, Keithley)
    capabilities = driver.capabilities
    assert capabilities.voltage_max_V == 5.0
    ranges = {entry.full_scale_A: entry.resolution_A for entry in capabilities.current_ranges}
    assert ranges[1e-3] == pytest.approx(1e-9)  # SPEC-2450: 1.000000 mA resolves 1 nA
    assert capabilities.fastest_record_s < 0.1


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("resource", "smu", "resource is not the name of a VISA resource"),
        ("model", "2400", "model is '2400'"),
        ("terminals", "side", "terminals is 'side'"),
        ("nplc", 20, "nplc is 20"),
        ("reply_timeout_s", 0, "reply_timeout_s is 0"),
        ("watchdog_s", 20, "watchdog_s is 20"),
        ("watchdog_s", 1, "watchdog_s is 1"),
        ("sample_period_s", 5, "the host must look 6 times"),
        ("voltage_max_V", 100, "voltage_max_V is 100"),
        ("voltage_max_V", -6, "must be below voltage_max_V"),
        ("sweep_step_V", 1e-4, "sweep_step_V is 0.0001"),
        ("buffer_readings", 5, "buffer_readings is 5"),
        ("colour", "red", "no option 'colour'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(option: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_driver(
            "keithley", {"resource": RESOURCE} | {option: value}, name="smu", clock=VirtualClock()
        )
    assert says in str(caught.value)
