"""What is put out and within which limits; 2461-901-01 ch. 6 and SPEC-2450 Rev. A are quoted."""

from __future__ import annotations

import math

import pytest
from source_meter import SourceMeter

from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, Until
from labctl.simulators.faults import Fault


def cell(charged: bool = False) -> ModelCell:
    made = build_cell(CellSpec(name="HEV", material="HE-V", active_mass_g=0.002, scatter=0.0))
    if charged:
        made.advance(
            Control.CURRENT,
            2e-4,
            20_000.0,
            until=Until(voltage_at_least_V=4.0),
            recorder=Recorder(),
        )
        made.advance(Control.REST, 0.0, 3600.0, until=Until(), recorder=Recorder())
    return made


def test_a_reset_source_meter_sources_no_volts_and_measures_amperes() -> None:
    meter = SourceMeter()
    meter.say(":SOUR:FUNC CURR", ":SOUR:CURR 1e-3", ":OUTP ON", "*RST")
    assert meter.good(":SOUR:FUNC?;:SENS:FUNC?;:OUTP?;:SOUR:VOLT?") == (
        'VOLT;"CURR:DC";0;0.000000E+00'
    )
    assert meter.good(":OUTP:SMOD?;:SOUR:VOLT:READ:BACK?;:SENS:CURR:RSEN?") == "NORM;1;0"
    assert meter.number(":SOUR:VOLT:ILIM?") == pytest.approx(105e-6)


def test_volts_over_ohms_are_amperes() -> None:
    meter = SourceMeter(1000.0)
    meter.good(":SOUR:VOLT 2", ":SOUR:VOLT:ILIM 0.1", ':SENS:FUNC "CURR"', ":OUTP ON")
    assert meter.number(":READ?") == pytest.approx(2e-3, abs=1e-8)
    meter.good(":SOUR:FUNC CURR", ":SOUR:CURR -1e-3", ':SENS:FUNC "VOLT"', ":OUTP ON")
    assert meter.number(":READ?") == pytest.approx(-1.0, abs=1e-5)
    assert meter.number(":MEAS:RES?") == pytest.approx(1000.0, rel=1e-5)
    assert meter.good(":SENS:FUNC?") == '"RES"'


def test_the_current_limit_clamps_and_says_so() -> None:
    meter = SourceMeter(1000.0)
    meter.good(":SOUR:VOLT 5", ":SOUR:VOLT:ILIM 1e-3", ":OUTP ON")
    assert meter.good(":SOUR:VOLT:ILIM:TRIP?") == "1"
    put_out, measured = map(float, meter.good(':READ? "defbuffer1",SOUR,READ').split(","))
    assert (put_out, measured) == (pytest.approx(1.0, abs=1e-4), pytest.approx(1e-3, abs=1e-7))
    meter.good(":SOUR:VOLT 0.5")
    assert meter.good(":SOUR:VOLT:ILIM:TRIP?") == "0"


def test_the_voltage_limit_is_the_same_up_and_down() -> None:
    meter = SourceMeter(1000.0)
    meter.good(":SOUR:FUNC CURR", ":SOUR:CURR:VLIM 2", ":SENS:FUNC 'VOLT'", ":OUTP ON")
    for level in ("5e-3", "-5e-3"):
        meter.good(f":SOUR:CURR {level}")
        assert meter.good(":SOUR:CURR:VLIM:TRIP?") == "1"
        assert abs(meter.number(":READ?")) == pytest.approx(2.0, abs=1e-4)


def test_the_overvoltage_protection_holds_the_output_below() -> None:
    meter = SourceMeter(1e6)
    meter.good(":SOUR:VOLT:PROT PROT2", ":SOUR:VOLT 5", ":OUTP ON")
    assert meter.good(":SOUR:VOLT:PROT?;:SOUR:VOLT:PROT:TRIP?") == "PROT2;1"
    assert meter.smu.output.voltage_V == 2.0
    meter.good(":SOUR:VOLT 1.5")
    assert meter.good(":SOUR:VOLT:PROT:TRIP?") == "0"
    meter.say(":SOUR:VOLT:PROT PROT3")
    assert meter.error() == -224


@pytest.mark.parametrize(("asked", "given"), [("40e-6", 1e-4), ("1e-4", 1e-4), ("9.9e-3", 1e-2)])
def test_the_lowest_range_that_holds_a_value_is_chosen(asked: str, given: float) -> None:
    meter = SourceMeter()
    meter.good(f":SENS:CURR:RANG {asked}")
    assert meter.number(":SENS:CURR:RANG?") == pytest.approx(given)
    assert meter.good(":SENS:CURR:RANG:AUTO?") == "0"


def test_a_level_beyond_a_fixed_range_is_refused_and_changes_nothing() -> None:
    meter = SourceMeter()
    meter.good(":SOUR:VOLT:RANG 2", ":SOUR:VOLT 1")
    meter.say(":SOUR:VOLT 2.2")
    assert meter.error() == -222
    assert meter.number(":SOUR:VOLT?") == 1.0
    meter.good(":SOUR:VOLT 2.1")


def test_a_limit_must_be_above_a_thousandth_of_a_fixed_range() -> None:
    meter = SourceMeter()
    meter.good(":SENS:CURR:RANG 0.1")
    meter.say(":SOUR:VOLT:ILIM 1e-5")
    assert meter.error() == -222
    meter.good(":SENS:CURR:RANG:AUTO ON", ":SOUR:VOLT:ILIM 1e-5")
    meter.say(":SENS:CURR:RANG 0.1")
    assert meter.error() == -222


def test_a_reading_beyond_its_range_is_an_overflow_and_no_number() -> None:
    meter = SourceMeter(1000.0)
    meter.good(":SOUR:VOLT:ILIM 0.1", ":SENS:CURR:RANG 1e-3", ":SOUR:VOLT 1.04", ":OUTP ON")
    assert meter.number(":READ?") == pytest.approx(1.04e-3)
    assert meter.good(":SOUR:VOLT 1.06", ":READ?") == "9.900000E+37"


@pytest.mark.parametrize(
    ("before", "change"),
    [
        (":SENS:CURR:RSEN OFF", ":SENS:CURR:RSEN ON"),
        (":ROUT:TERM FRON", ":ROUT:TERM REAR"),
        (":SOUR:FUNC VOLT", ":SOUR:FUNC CURR"),
    ],
)
def test_some_changes_switch_the_output_off(before: str, change: str) -> None:
    meter = SourceMeter()
    meter.good(before, ":OUTP ON", before)
    assert meter.good(":OUTP?") == "1"
    meter.good(change)
    assert meter.good(":OUTP?") == "0"


def test_normal_output_off_drains_a_cell_and_high_impedance_does_not() -> None:
    for state, drained in (("NORM", True), ("ZERO", True), ("HIMP", False), ("GUAR", False)):
        full = cell(charged=True)
        before_V = full.voltage_V()
        meter = SourceMeter(full)
        meter.good(f":OUTP:SMOD {state}")
        meter.wait(1800.0)
        assert meter.good(":OUTP?") == "0"
        assert (meter.smu.output.current_A < -1e-6) is drained
        assert (full.voltage_V() < before_V - 0.05) is drained


def test_a_cell_in_current_limit_charges_at_the_limit_and_stops_at_the_level() -> None:
    meter = SourceMeter(cell(), errors=0.0)
    meter.good(":SOUR:VOLT 4.0", ":SOUR:VOLT:ILIM 1e-3", ":SENS:CURR:RSEN ON", ":OUTP ON")
    meter.wait(10.0)
    assert meter.number(":READ?") == pytest.approx(1e-3, rel=1e-5)
    assert meter.good(":SOUR:VOLT:ILIM:TRIP?") == "1"
    meter.wait(7200.0)
    assert meter.good(":SOUR:VOLT:ILIM:TRIP?") == "0"
    assert meter.smu.output.voltage_V == pytest.approx(4.0, abs=1e-6)
    assert meter.number(":READ?") < 1e-4


def test_a_source_of_no_amperes_lets_the_open_circuit_be_read() -> None:
    rested = cell(charged=True)
    open_V = rested.voltage_V()
    meter = SourceMeter(rested)
    meter.good(":SOUR:FUNC CURR", ":SOUR:CURR 0", ":SENS:FUNC 'VOLT'", ":OUTP ON")
    assert meter.number(":READ?") == pytest.approx(open_V, abs=1e-3)
    assert meter.smu.output.current_A == 0.0


def test_readings_err_within_the_data_sheet_and_are_reproducible() -> None:
    def readings(seed_errors: float) -> list[float]:
        meter = SourceMeter(1000.0, errors=seed_errors)
        meter.good(":SOUR:VOLT 1", ":SOUR:VOLT:ILIM 0.01", ":SENS:CURR:RANG 1e-3", ":OUTP ON")
        return [meter.number(":READ?") for _ in range(100)]

    first = readings(1.0)
    assert first == readings(1.0)
    assert len(set(first)) > 1
    # 1 mA range: 0.02 % + 60 nA measured, 2 V range: 0.020 % + 300 uV sourced
    assert max(abs(value - 1e-3) for value in first) < 1e-3 * (2e-4 + 5e-4) + 60e-9
    assert all(abs(value - 1e-3) < 2e-9 for value in readings(0.0))


def test_a_reading_takes_its_apertures() -> None:
    meter = SourceMeter()
    meter.good(":SENS:CURR:NPLC 10", ":SENS:CURR:AZER OFF", ":SOUR:VOLT:READ:BACK OFF")
    before_s = meter.smu.now_s
    meter.good(":READ?")
    assert meter.smu.now_s - before_s == pytest.approx(10 / 50, abs=1e-3)
    meter.good(":SOUR:VOLT:READ:BACK ON", ":SENS:CURR:AZER ON", ":SENS:COUN 3")
    before_s = meter.smu.now_s
    meter.good(":READ?")
    assert meter.smu.now_s - before_s == pytest.approx(3 * 4 * 10 / 50, abs=3e-3)


def test_the_larger_models_have_other_ranges_and_limits() -> None:
    meter = SourceMeter(model="2461")
    assert meter.good("*IDN?").startswith("KEITHLEY INSTRUMENTS,MODEL 2461,")
    assert meter.number(":SOUR:CURR:VLIM?") == pytest.approx(7.35)
    assert meter.number(":SOUR:VOLT:ILIM? MAX") == pytest.approx(7.35)
    assert meter.number(":SOUR:VOLT:ILIM? MIN") == pytest.approx(1e-6)
    meter.good(":SOUR:VOLT:ILIM 3", ":SENS:CURR:RANG 3")
    assert meter.number(":SENS:CURR:RANG?") == 4.0


def test_faults_make_it_lie_and_disobey() -> None:
    meter = SourceMeter(
        1000.0,
        faults=(Fault(name="frozen"), Fault(name="ignores_stop"), Fault(name="wrong_serial")),
    )
    meter.good(":SOUR:VOLT:ILIM 0.1", ":SOUR:VOLT 1", ":OUTP ON")
    first = meter.number(":READ?")
    meter.good(":SOUR:VOLT 2")
    assert meter.number(":READ?") == first
    assert meter.good(":OUTP OFF", ":OUTP?") == "1"
    assert "04419969" not in meter.good("*IDN?")
    assert math.isclose(meter.smu.output.voltage_V, 2.0)


def test_digital_lines_are_set_as_outputs_first() -> None:
    meter = SourceMeter()
    meter.say(":DIG:LINE3:STAT 1")
    assert meter.error() == -221
    meter.good(":DIG:LINE3:MODE DIG,OUT", ":DIG:LINE3:STAT 1")
    assert meter.good(":DIG:LINE3:STAT?;:DIG:LINE3:MODE?") == "1;DIG,OUT"
