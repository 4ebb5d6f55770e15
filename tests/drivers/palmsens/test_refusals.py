"""What a model cannot do is said when a run is planned."""

from __future__ import annotations

import math

import pytest

from labctl.clock import VirtualClock
from labctl.drivers import build_driver
from labctl.drivers.base import Failsafe
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.driver import PalmSens
from labctl.errors import ConfigError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantVoltage,
    Control,
    EndCondition,
    Impedance,
    Limits,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Signal,
    Step,
    VoltageSweep,
    Wait,
)

LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)
LOW = Limits(-0.1, 2.0, -3e-3, 3e-3, 1e-3, 500_000.0)
AN_HOUR = EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 3600.0)


def driver(model: str = "EmStat4S HR", **options: object) -> PalmSens:
    config = PalmSensConfig(port="/dev/null", model=model, **options)  # type: ignore[arg-type]
    return PalmSens(config, name="ps", clock=VirtualClock())


def refused(
    control: Control,
    *ends: EndCondition,
    model: str = "EmStat4S HR",
    limits: Limits = LIMITS,
    **options: object,
) -> str:
    step = Step(0, "it", control, (*ends, AN_HOUR), RecordRule())
    program = Program(name="p", recipe_sha256="", cell="c", body=(step,), limits=limits)
    return "; ".join(driver(model, **options).refusals(program))


@pytest.mark.parametrize(
    "control",
    [
        Rest(),
        ConstantCurrent(4e-5),
        ConstantCurrent(-1e-2),
        ConstantVoltage(4.1, 1e-3, charging=True),
        ConstantCurrentConstantVoltage(2e-4, 4.1),
        VoltageSweep(None, 4.1, 1e-4, 5e-3),
        Impedance(False, 0.01, 2e5, 1e-2, 10, 1e-2),
        Impedance(True, 1e-4, 2e5, 1e-2, 10, 1e-2),
        Wait(signal="go"),
        Signal(marker="now", output="GPIO0"),
    ],
)
def test_the_studys_steps_are_within_what_an_emstat4s_hr_does(control: Control) -> None:
    assert refused(control) == ""


@pytest.mark.parametrize(
    ("control", "why"),
    [
        (ConstantCurrent(0.25), "needs 0.25 A, and an EmStat4S HR does 9e-12 A to 0.2 A"),
        (ConstantCurrent(0.02), "beyond the limits -0.011 A to 0.011 A"),
        (ConstantCurrent(1e-13), "needs 1e-13 A"),
        (ConstantPower(1e-3, 1e-3), "no such technique"),
        (ConstantCurrentConstantVoltage(1e-4, 4.6), "outside the limits 1 V to 4.4 V"),
        (ConstantVoltage(6.5, 1e-3, charging=True), "the instrument does -6 V to 6 V"),
        (VoltageSweep(2.0, 4.1, 20.0, 5e-3), "2 V/s is the fastest"),
        (Impedance(False, 0.01, 5e5, 1.0, 5, 1e-2), "measures impedance up to 200000 Hz"),
        (Impedance(False, 0.01, 1e5, 1e-6, 5, 1e-2), "down to 1e-06 Hz"),
        (Impedance(False, 0.5, 1e5, 1.0, 5, 1e-2), "amplitude of 0.5 V"),
        (Impedance(False, 0.2, 1e5, 1.0, 5, 1e-2, bias=4.3), "outside the limits"),
        (Impedance(True, 0.01, 1e5, 1.0, 5, 1e-2), "both ways, beyond the limits"),
        (Impedance(False, 0.01, 1.0, 1e5, 5, 1e-2), "a lowest frequency below its highest"),
        (Signal(marker="now", output="relay"), "there is no output 'relay'"),
    ],
)
def test_what_an_emstat4s_hr_cannot_do_is_refused_with_the_reason(
    control: Control, why: str
) -> None:
    assert why in refused(control)


def test_a_sodium_cathode_is_beyond_an_emstat4s_lr() -> None:
    said = refused(ConstantCurrentConstantVoltage(1e-4, 4.1), model="EmStat4S LR")
    assert "goes to 4.1 V, and the instrument does -3 V to 3 V" in said
    assert "the voltage limit 4.4 V is outside what the instrument sees" in said


def test_an_emstat_pico_holds_no_current() -> None:
    for control in (
        ConstantCurrent(1e-4),
        ConstantVoltage(1.0, 1e-4, charging=False),
        ConstantCurrentConstantVoltage(1e-4, 1.0),
    ):
        said = refused(control, model="EmStat Pico", limits=LOW)
        assert "has no galvanostat, and so cannot hold or bound a current" in said
    said = refused(Impedance(True, 1e-4, 1e3, 1.0, 5, 1e-3), model="EmStat Pico", limits=LOW)
    assert "is galvanostatic" in said


def test_an_emstat_pico_sweeps_within_its_window_only() -> None:
    wide = Limits(-1.7, 2.0, -3e-3, 3e-3, 1e-3, 500_000.0)
    for control, fits in (
        (VoltageSweep(2.0, 0.01, 1e-4, 1e-3), True),
        (VoltageSweep(-1.6, 0.9, 1e-3, 1e-3), True),
        (VoltageSweep(-1.6, 1.9, 1e-3, 1e-3), False),
    ):
        said = refused(control, model="EmStat Pico", limits=wide)
        assert ("no mode of an EmStat Pico reaches that far" in said) is not fits


def test_a_nexus_measures_impedance_up_to_a_megahertz() -> None:
    assert refused(Impedance(False, 0.01, 1e6, 1.0, 5, 1e-2), model="Nexus") == ""


def test_temperatures_are_somebody_elses_to_watch() -> None:
    warm = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 5e5, temperature_max_degC=60.0)
    assert "cannot be watched by a potentiostat" in refused(Rest(), limits=warm)
    assert refused(Rest(), limits=warm, temperature_watched_elsewhere=True) == ""
    hot = EndCondition(Quantity.TEMPERATURE_DEGC, Comparison.AT_LEAST, 40.0)
    assert "ends by temperature" in refused(Rest(), hot)


def test_a_script_that_is_too_long_is_refused() -> None:
    fine = Impedance(False, 0.01, 2e5, 0.02, 2, 1e-3)
    ends = [EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 3600.0 + n) for n in range(40)]
    said = refused(fine, *ends, model="EmStat Pico", limits=LOW)
    assert "bytes, and an EmStat Pico holds 16384" in said


def test_limits_that_do_not_fit_together_are_refused() -> None:
    crossed = Limits(4.0, 3.0, -1e-3, 1e-3, 1.0, 1e5)
    assert "leave no room" in refused(Rest(), limits=crossed)
    endless = Limits(1.0, 4.0, -1e-3, 1e-3, 1.0, math.inf)
    assert refused(Rest(), limits=endless) == ""


def test_it_runs_onboard_with_the_ranges_of_its_model() -> None:
    capabilities = driver().capabilities
    assert capabilities.failsafe is Failsafe.ONBOARD
    assert capabilities.current_ranges[0].full_scale_A == 2e-7
    assert capabilities.current_ranges[-1].full_scale_A == 0.2
    held = next(r for r in capabilities.current_ranges if r.full_scale_A >= 4e-5)
    assert held.resolution_A < 4e-5 / 1000
    assert "constant_current" not in driver("EmStat Pico").capabilities.techniques


def test_options_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="must be one of EmStat4S LR"):
        build_driver("palmsens", {"port": "x", "model": "?"}, name="ps", clock=VirtualClock())
    for key, value in (
        ("mains_Hz", 55.0),
        ("slowest_sample_s", 1e-3),
        ("voltage_max_V", 7.0),
        ("stop_timeout_s", 100.0),
    ):
        with pytest.raises(ConfigError, match=key):
            build_driver(
                "palmsens",
                {"port": "x", "model": "EmStat4S HR", key: value},
                name="ps",
                clock=VirtualClock(),
            )
