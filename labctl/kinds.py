"""What quantities there are, the units that each is written in, and the one that it is read into.

The texts themselves are read and written by :mod:`labctl.units`.
"""

from __future__ import annotations

import enum


class Kind(enum.StrEnum):
    """What a quantity measures, as it is said to a person."""

    VOLTAGE = "voltage"
    CURRENT = "current"
    C_RATE = "C-rate"
    CURRENT_PER_MASS = "current per gram"
    CURRENT_PER_AREA = "current per cm2"
    CHARGE = "charge"
    CHARGE_PER_MASS = "charge per gram"
    CHARGE_PER_AREA = "charge per cm2"
    ENERGY = "energy"
    ENERGY_PER_MASS = "energy per gram"
    POWER = "power"
    POWER_PER_MASS = "power per gram"
    RESISTANCE = "resistance"
    VOLTAGE_RATE = "voltage rate"
    TEMPERATURE_RATE = "temperature rate"
    FREQUENCY = "frequency"
    DURATION = "duration"
    TEMPERATURE = "temperature"
    TEMPERATURE_DIFFERENCE = "temperature difference"
    FRACTION = "percentage"
    MASS = "mass"
    AREA = "area"


CURRENT_KINDS = (Kind.C_RATE, Kind.CURRENT, Kind.CURRENT_PER_MASS, Kind.CURRENT_PER_AREA)
CHARGE_KINDS = (Kind.CHARGE, Kind.CHARGE_PER_MASS, Kind.CHARGE_PER_AREA)
ENERGY_KINDS = (Kind.ENERGY, Kind.ENERGY_PER_MASS)
POWER_KINDS = (Kind.POWER, Kind.POWER_PER_MASS)

BASE_UNITS: dict[Kind, str] = {
    Kind.VOLTAGE: "V",
    Kind.CURRENT: "A",
    Kind.C_RATE: "C",
    Kind.CURRENT_PER_MASS: "mA/g",
    Kind.CURRENT_PER_AREA: "mA/cm2",
    Kind.CHARGE: "Ah",
    Kind.CHARGE_PER_MASS: "mAh/g",
    Kind.CHARGE_PER_AREA: "mAh/cm2",
    Kind.ENERGY: "Wh",
    Kind.ENERGY_PER_MASS: "mWh/g",
    Kind.POWER: "W",
    Kind.POWER_PER_MASS: "mW/g",
    Kind.RESISTANCE: "ohm",
    Kind.VOLTAGE_RATE: "V/s",
    Kind.TEMPERATURE_RATE: "K/s",
    Kind.FREQUENCY: "Hz",
    Kind.DURATION: "s",
    Kind.TEMPERATURE: "degC",
    Kind.TEMPERATURE_DIFFERENCE: "K",
    Kind.FRACTION: "1",
    Kind.MASS: "g",
    Kind.AREA: "cm2",
}
"""The unit of the number that a quantity of each kind is read into."""

UNITS: dict[Kind, tuple[str, ...]] = {
    Kind.VOLTAGE: ("V", "mV", "uV"),
    Kind.CURRENT: ("mA", "uA", "A", "nA"),
    Kind.C_RATE: ("C",),
    Kind.CURRENT_PER_MASS: ("mA/g", "A/g", "uA/g", "uA/mg", "mA/mg", "A/kg"),
    Kind.CURRENT_PER_AREA: ("mA/cm2", "uA/cm2", "A/cm2", "A/m2"),
    Kind.CHARGE: ("mAh", "uAh", "Ah", "nAh"),
    Kind.CHARGE_PER_MASS: ("mAh/g", "Ah/g", "uAh/g", "uAh/mg", "Ah/kg"),
    Kind.CHARGE_PER_AREA: ("mAh/cm2", "uAh/cm2", "Ah/cm2"),
    Kind.ENERGY: ("mWh", "uWh", "Wh", "kWh"),
    Kind.ENERGY_PER_MASS: ("Wh/kg", "mWh/g", "Wh/g", "uWh/mg"),
    Kind.POWER: ("mW", "uW", "W", "kW"),
    Kind.POWER_PER_MASS: ("mW/g", "W/g", "W/kg", "uW/mg"),
    Kind.RESISTANCE: ("ohm", "kohm", "Mohm", "mohm"),
    Kind.VOLTAGE_RATE: ("mV/s", "V/s", "uV/s", "mV/min", "V/min", "mV/h", "V/h", "uV/h"),
    Kind.TEMPERATURE_RATE: ("K/min", "K/s", "K/h"),
    Kind.FREQUENCY: ("Hz", "kHz", "mHz", "uHz", "MHz"),
    Kind.DURATION: ("s", "ms", "min", "h", "d", "week"),
    Kind.TEMPERATURE: ("degC", "K"),
    Kind.TEMPERATURE_DIFFERENCE: ("K", "mK"),
    Kind.FRACTION: ("%",),
    Kind.MASS: ("mg", "g", "ug", "kg"),
    Kind.AREA: ("cm2", "mm2", "m2"),
}
"""Every unit that is understood. 'MA' is not among them: nobody means a million amperes.

Only 'K' is of two kinds: it is whichever of the two is needed.
"""

EXAMPLES: dict[Kind, str] = {
    Kind.VOLTAGE: "4.1 V",
    Kind.CURRENT: "40 uA",
    Kind.C_RATE: "0.2C",
    Kind.CURRENT_PER_MASS: "25 mA/g",
    Kind.CURRENT_PER_AREA: "0.5 mA/cm2",
    Kind.CHARGE: "0.34 mAh",
    Kind.CHARGE_PER_MASS: "170 mAh/g",
    Kind.CHARGE_PER_AREA: "1 mAh/cm2",
    Kind.ENERGY: "5 mWh",
    Kind.ENERGY_PER_MASS: "400 Wh/kg",
    Kind.POWER: "5 mW",
    Kind.POWER_PER_MASS: "500 mW/g",
    Kind.RESISTANCE: "100 ohm",
    Kind.VOLTAGE_RATE: "0.1 mV/s",
    Kind.TEMPERATURE_RATE: "2 K/min",
    Kind.FREQUENCY: "100 kHz",
    Kind.DURATION: "30 min",
    Kind.TEMPERATURE: "25 degC",
    Kind.TEMPERATURE_DIFFERENCE: "0.5 K",
    Kind.FRACTION: "80 %",
    Kind.MASS: "2.0 mg",
    Kind.AREA: "1.13 cm2",
}
