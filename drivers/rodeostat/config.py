"""What an administrator says about a Rodeostat, and what its variants can do.

Source: firmware, ``ps_constants.cpp`` and ``ps_analog_subsystem.h``: 12 bits for the voltage that
is put out, 16 bits for the current that is read.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe

TECHNIQUES: Final = frozenset({"rest", "voltage_sweep", "constant_voltage"})

VOLTAGE_RANGES_V: Final = {"1V": 1.0, "2V": 2.0, "5V": 5.0, "10V": 10.0}
CURRENT_RANGES_A: Final = {
    "nanoAmp": {"60nA": 60e-9, "100nA": 100e-9, "1uA": 1e-6, "10uA": 10e-6},
    "microAmp": {"1uA": 1e-6, "10uA": 10e-6, "100uA": 100e-6, "1000uA": 1e-3},
    "milliAmp": {"100uA": 1e-4, "1000uA": 1e-3, "12000uA": 12.024e-3, "24000uA": 24.048e-3},
}
"""Ranges of each variant by the instrument's own names, full scale, ascending."""

VOLTAGE_STEPS: Final = 2**12 - 1
CURRENT_STEPS: Final = 2**16 - 1

FASTEST_S: Final = 0.001
SLOWEST_S: Final = 1.0

SUPPLY_V: Final = 12.0
"""What its amplifiers can put out at the most, either way. Unverified: 10 V must fit in it."""


class RodeostatConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Rodeostat of hardware 0.2, which is one channel, named ``1``.

    port: its serial port, best by a name that stays (``/dev/serial/by-id/…``), or
        ``socket://host:port``.
    variant: ``nanoAmp``, ``microAmp`` or ``milliAmp``; another one at the port is refused.
    device_id: the number that a person gave it; another one at the port is refused. Left out, the
        first one found is held to.
    counter_resistor_ohm: a resistor in the lead of the counter electrode. The instrument has no
        limit of the current; this is what bounds it. 0 is none, and then no current is passed.
    sample_period_s: the longest time between two samples of a step.
    voltage_min_V, voltage_max_V: what the instrument is used for.
    temperature_watched_elsewhere: accept programs with temperature limits, which a potentiostat
        cannot watch.
    """

    port: str
    variant: str = "microAmp"
    device_id: int | None = None
    counter_resistor_ohm: float = 0.0
    sample_period_s: float = SLOWEST_S
    voltage_min_V: float = -5.0
    voltage_max_V: float = 5.0
    reply_timeout_s: float = 3.0
    temperature_watched_elsewhere: bool = False

    def __post_init__(self) -> None:
        if not self.port.strip():
            raise ValueError("port is empty: it is a serial port such as /dev/ttyACM0")
        if self.variant not in CURRENT_RANGES_A:
            names = ", ".join(CURRENT_RANGES_A)
            raise ValueError(f"variant is {self.variant!r}, it must be one of {names}")
        for name, low, high in (
            ("device_id", 0, 2**32 - 1),
            ("counter_resistor_ohm", 0, 1e9),
            ("sample_period_s", FASTEST_S, SLOWEST_S),
            ("voltage_min_V", -10.0, 10.0),
            ("voltage_max_V", -10.0, 10.0),
            ("reply_timeout_s", 0.1, 60.0),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value:g}, it must be {low:g} to {high:g}")
        if not self.voltage_min_V < self.voltage_max_V:
            raise ValueError("voltage_min_V must be below voltage_max_V")

    @property
    def current_ranges_A(self) -> dict[str, float]:
        """Full scales by the instrument's names."""
        return CURRENT_RANGES_A[self.variant]

    @property
    def largest_A(self) -> float:
        """The largest current that can be read."""
        return max(self.current_ranges_A.values())

    @property
    def current_bound_A(self) -> float:
        """What can flow at the most, whatever the instrument does; infinite without a resistor.

        Both amplifiers, at opposite ends of what they can put out, drive the resistor.
        """
        if not self.counter_resistor_ohm:
            return math.inf
        return 2 * SUPPLY_V / self.counter_resistor_ohm

    @property
    def widest_V(self) -> float:
        return max(abs(self.voltage_min_V), abs(self.voltage_max_V))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            techniques=TECHNIQUES,
            voltage_min_V=self.voltage_min_V,
            voltage_max_V=self.voltage_max_V,
            current_ranges=tuple(
                CurrentRange(full_A, 2 * full_A / CURRENT_STEPS)
                for full_A in self.current_ranges_A.values()
            ),
            fastest_record_s=FASTEST_S,
            failsafe=Failsafe.NONE,
        )


def range_name(ranges: dict[str, float], value: float) -> str:
    """The smallest range that holds ``value``; '' if none does."""
    return next((name for name, full in ranges.items() if abs(value) <= full * (1 + 1e-9)), "")
