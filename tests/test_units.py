"""Quantities as people write them."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.units import (
    BASE_UNITS,
    CHARGE_KINDS,
    CURRENT_KINDS,
    ENERGY_KINDS,
    EXAMPLES,
    POWER_KINDS,
    UNITS,
    Amount,
    Kind,
    QuantityError,
    format_quantity,
    nearest,
    parse_amount,
    parse_charge,
    parse_current,
    parse_quantity,
    parse_range,
)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("4.1 V", Kind.VOLTAGE, 4.1),
        ("5 mV", Kind.VOLTAGE, 0.005),
        ("-20 mV", Kind.VOLTAGE, -0.02),
        ("1e-3 V", Kind.VOLTAGE, 0.001),
        (".5 V", Kind.VOLTAGE, 0.5),
        ("40 uA", Kind.CURRENT, 4e-05),
        ("40 µA", Kind.CURRENT, 4e-05),
        ("40 μA", Kind.CURRENT, 4e-05),
        ("40\u00a0uA", Kind.CURRENT, 4e-05),
        ("30 min", Kind.DURATION, 1800.0),
        ("1 h 30 min", Kind.DURATION, 5400.0),
        ("1h 30min 5s", Kind.DURATION, 5405.0),
        ("2 weeks", Kind.DURATION, 1_209_600.0),
        ("500 ms", Kind.DURATION, 0.5),
        ("80 %", Kind.FRACTION, 0.8),
        ("80%", Kind.FRACTION, 0.8),
        ("25 degC", Kind.TEMPERATURE, 25.0),
        ("25 °C", Kind.TEMPERATURE, 25.0),
        ("298.15 K", Kind.TEMPERATURE, 25.0),
        ("2.0 mg", Kind.MASS, 0.002),
        ("100 mm2", Kind.AREA, 1.0),
        ("1.13 cm²", Kind.AREA, 1.13),
        ("0.1 A/g", Kind.CURRENT_PER_MASS, 100.0),
        ("100 uA / mg", Kind.CURRENT_PER_MASS, 100.0),
        ("500 uA/cm^2", Kind.CURRENT_PER_AREA, 0.5),
        ("170 Ah/kg", Kind.CHARGE_PER_MASS, 170.0),
        ("340 uAh", Kind.CHARGE, 3.4e-4),
        ("5 mWh", Kind.ENERGY, 0.005),
        ("486 Wh/kg", Kind.ENERGY_PER_MASS, 486.0),
        ("0.4 Wh/g", Kind.ENERGY_PER_MASS, 400.0),
        ("5 mW", Kind.POWER, 0.005),
        ("2 W/g", Kind.POWER_PER_MASS, 2000.0),
        ("500 W/kg", Kind.POWER_PER_MASS, 500.0),
        ("4.7 kohm", Kind.RESISTANCE, 4700.0),
        ("100 \u03a9", Kind.RESISTANCE, 100.0),
        ("10 k\u2126", Kind.RESISTANCE, 10_000.0),
        ("0.1 mV/s", Kind.VOLTAGE_RATE, 1e-4),
        ("3.6 mV/h", Kind.VOLTAGE_RATE, 1e-6),
        ("3 K/min", Kind.TEMPERATURE_RATE, 0.05),
        ("6 mV / min", Kind.VOLTAGE_RATE, 1e-4),
        ("100 kHz", Kind.FREQUENCY, 1e5),
        ("10 mHz", Kind.FREQUENCY, 0.01),
        ("1 MHz", Kind.FREQUENCY, 1e6),
        ("0.5 K", Kind.TEMPERATURE_DIFFERENCE, 0.5),
        ("500 mK", Kind.TEMPERATURE_DIFFERENCE, 0.5),
    ],
)
def test_a_quantity_is_read_exactly(text: str, kind: Kind, value: float) -> None:
    assert parse_quantity(text, kind) == value


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0.2C", Amount(0.2, Kind.C_RATE)),
        ("0.2 C", Amount(0.2, Kind.C_RATE)),
        ("C/5", Amount(0.2, Kind.C_RATE)),
        ("C / 20", Amount(0.05, Kind.C_RATE)),
        ("25 mA/g", Amount(25.0, Kind.CURRENT_PER_MASS)),
        ("0.5 mA/cm2", Amount(0.5, Kind.CURRENT_PER_AREA)),
        ("40 uA", Amount(4e-05, Kind.CURRENT)),
    ],
)
def test_a_current_keeps_what_it_is_measured_in(text: str, amount: Amount) -> None:
    assert parse_current(text) == amount


def test_a_current_becomes_amperes_with_the_cell() -> None:
    def amperes(text: str) -> float:
        return parse_current(text).amperes(one_C_A=2e-4, active_mass_g=0.002, area_cm2=1.5)

    assert amperes("0.2C") == 4e-05
    assert amperes("50C") == 0.01
    assert amperes("25 mA/g") == 5e-05
    assert amperes("0.5 mA/cm2") == 7.5e-04
    assert amperes("40 uA") == 4e-05


def test_a_charge_becomes_ampere_hours_with_the_cell() -> None:
    charge = parse_charge("170 mAh/g").amperes(one_C_A=2e-4, active_mass_g=0.002)
    assert charge == 3.4e-4


def test_a_power_or_an_energy_per_gram_is_that_of_the_cell() -> None:
    def watts(text: str) -> float:
        return parse_amount(text, (*POWER_KINDS, *ENERGY_KINDS)).watts(active_mass_g=0.002)

    assert watts("5 mW") == 0.005
    assert watts("2 W/g") == 0.004
    assert watts("400 Wh/kg") == 8e-4
    assert watts("1 mWh") == 1e-3
    with pytest.raises(QuantityError, match="neither a power nor an energy"):
        Amount(1.0, Kind.CHARGE).watts(active_mass_g=0.002)


def test_a_current_per_area_needs_an_area() -> None:
    with pytest.raises(QuantityError, match="needs the area"):
        parse_current("1 mA/cm2").amperes(one_C_A=2e-4, active_mass_g=0.002)


def test_a_voltage_is_no_current() -> None:
    with pytest.raises(QuantityError, match="neither"):
        Amount(1.0, Kind.VOLTAGE).amperes(one_C_A=2e-4, active_mass_g=0.002)


@pytest.mark.parametrize(
    ("text", "kind", "message", "suggestion"),
    [
        ("4.1", Kind.VOLTAGE, "'4.1' has no unit", "write '4.1 V'"),
        ("0.8", Kind.FRACTION, "'0.8' has no unit", "write '80 %'"),
        ("80", Kind.FRACTION, "'80' has no unit", "write '80 %'"),
        ("10", Kind.DURATION, "'10' has no unit", "write '10 s' or '10 min' or '10 h'"),
        ("5 mv", Kind.VOLTAGE, "not known: 'mv'", "did you mean '5 mV'?"),
        ("10 m", Kind.DURATION, "not known: 'm'", "did you mean '10 min'?"),
        ("25 C", Kind.TEMPERATURE, "a C-rate; a temperature is needed", "mean '25 degC'?"),
        ("5 V", Kind.DURATION, "a voltage; a duration is needed", "for example '30 min'"),
        ("12:30:00", Kind.DURATION, "is not a duration", "write '12 h 30 min'"),
        ("4,1 V", Kind.VOLTAGE, "has a comma", "write a point: '4.1 V'"),
        (".nan", Kind.VOLTAGE, "not a finite number", "4.1 V"),
        ("-inf V", Kind.VOLTAGE, "not a finite number", "4.1 V"),
        ("1e999 V", Kind.VOLTAGE, "not a finite number", ""),
        ("fast", Kind.DURATION, "'fast' is not a duration", "30 min"),
        ("30 min 1 h", Kind.DURATION, "not known: 'min 1 h'", ""),
        ("5 MA", Kind.CURRENT, "not known: 'MA'", "did you mean '5 mA'?"),
        ("9" * 200 + " V", Kind.VOLTAGE, "too long", ""),
        ("5 mw", Kind.POWER, "not known: 'mw'", "did you mean '5 mW'?"),
        ("5 mA", Kind.POWER, "is a current; a power is needed here", "'5 mW'"),
        ("5 mAh", Kind.ENERGY, "is a charge; an energy is needed here", "'5 mWh'"),
        ("0.1 mV", Kind.VOLTAGE_RATE, "is a voltage; a voltage rate", "did you mean '0.1 mV/s'?"),
        ("10 mhz", Kind.FREQUENCY, "not known: 'mhz'", "did you mean '10 mHz'?"),
        ("10 khz", Kind.FREQUENCY, "not known: 'khz'", "did you mean '10 kHz'?"),
        ("10 k", Kind.RESISTANCE, "not known: 'k'", "did you mean '10 kohm'?"),
        ("100", Kind.RESISTANCE, "'100' has no unit", "write '100 ohm'"),
        ("0.5 degC", Kind.TEMPERATURE_DIFFERENCE, "is a temperature;", "did you mean '0.5 K'?"),
    ],
)
def test_a_wrong_quantity_is_told_what_to_write(
    text: str, kind: Kind, message: str, suggestion: str
) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_quantity(text, kind)
    assert message in str(caught.value)
    assert suggestion in caught.value.suggestion


def test_a_range_has_its_lower_end_first() -> None:
    assert parse_range("1.0 V .. 4.4 V", Kind.VOLTAGE) == (1.0, 4.4)
    assert parse_range("-10 degC..60 degC", Kind.TEMPERATURE) == (-10.0, 60.0)
    for text, suggestion in (
        ("4.4 V .. 1.0 V", "write '1.0 V .. 4.4 V'"),
        ("1.0 .. 4.4 V", "write '1.0 V .. 4.4 V'"),
        ("1.0-4.4 V", "write '1.0 V .. 4.4 V'"),
        ("1 V to 4 V", "write '1 V .. 4 V'"),
        ("4 V", "such as '1.0 V .. 4.4 V'"),
        ("1 V .. 1 V", ""),
        ("1 V .. ", "such as"),
    ):
        with pytest.raises(QuantityError) as caught:
            parse_range(text, Kind.VOLTAGE)
        assert suggestion in caught.value.suggestion


def test_every_unit_and_every_example_is_understood() -> None:
    for kind, units in UNITS.items():
        assert BASE_UNITS[kind] in {*units, "1"}
        assert parse_amount(EXAMPLES[kind], (kind,)).kind is kind
        for unit in units:
            assert parse_amount(f"3 {unit}", (kind,)).value != 0


def test_no_unit_means_two_things_but_the_kelvin() -> None:
    units = [unit for units in UNITS.values() for unit in units]
    assert {unit for unit in units if units.count(unit) > 1} == {"K"}


def test_a_kelvin_is_a_temperature_or_a_difference_as_is_needed() -> None:
    assert parse_quantity("298.15 K", Kind.TEMPERATURE) == 25.0
    assert parse_quantity("0.5 K", Kind.TEMPERATURE_DIFFERENCE) == 0.5
    with pytest.raises(QuantityError, match="is a temperature; a voltage is needed"):
        parse_quantity("5 K", Kind.VOLTAGE)


@given(
    kind=st.sampled_from(list(Kind)),
    value=st.floats(min_value=1e-12, max_value=1e12).flatmap(
        lambda value: st.sampled_from([value, -value])
    ),
)
def test_what_is_written_reads_back(kind: Kind, value: float) -> None:
    text = format_quantity(value, kind, digits=17)
    assert parse_quantity(text, kind) == pytest.approx(value, rel=1e-12)


@given(
    kind=st.sampled_from(
        [
            Kind.VOLTAGE,
            Kind.CURRENT,
            Kind.CHARGE,
            Kind.MASS,
            Kind.POWER,
            Kind.ENERGY,
            Kind.RESISTANCE,
            Kind.FREQUENCY,
            Kind.TEMPERATURE_DIFFERENCE,
            Kind.VOLTAGE_RATE,
        ]
    ),
    thousandths=st.integers(1, 10_000_000),
)
def test_a_readable_number_reads_back_to_the_bit(kind: Kind, thousandths: int) -> None:
    text = f"{thousandths / 1000:.10g} {UNITS[kind][0]}"
    value = parse_quantity(text, kind)
    assert parse_quantity(format_quantity(value, kind, digits=17), kind) == value


def _read_as_everything(text: str) -> None:
    for kinds in (
        CURRENT_KINDS,
        CHARGE_KINDS,
        (Kind.DURATION,),
        (Kind.TEMPERATURE, Kind.FRACTION),
        (*POWER_KINDS, *ENERGY_KINDS),
        (Kind.RESISTANCE, Kind.VOLTAGE_RATE, Kind.FREQUENCY, Kind.TEMPERATURE_DIFFERENCE),
    ):
        with contextlib.suppress(QuantityError):
            parse_amount(text, kinds)
    with contextlib.suppress(QuantityError):
        parse_range(text, Kind.VOLTAGE)


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_text_is_a_quantity_or_a_quantity_error(text: str) -> None:
    _read_as_everything(text)


@given(
    st.from_regex(
        r"[-+]?[0-9.,:e]{1,8} ?(C|V|mA|h|min|%|degC|mAh/g|W|Wh/kg|ohm|mV/s|Hz|K|C/|\.\.|:| )*",
        fullmatch=True,
    )
)
def test_nearly_a_quantity_is_a_quantity_or_a_quantity_error(text: str) -> None:
    _read_as_everything(text)


def test_the_nearest_word_ignores_case_first() -> None:
    assert nearest("UNTIL", ["unit", "until"]) == "until"
    assert nearest("untill", ["at", "until"]) == "until"
    assert nearest("xyz", ["at", "until"]) == ""


def test_the_unit_library_is_loaded_only_when_a_quantity_is_read() -> None:
    code = "import sys, labctl.units; sys.exit('pint' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
