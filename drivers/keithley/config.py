"""What an administrator says about a SourceMeter, and what the three models can do.

Source of the figures: data sheet SPEC-2450 Rev. A; reference manual 2461-901-01. Of the 2460 and
2461 only the ranges from 1 uA to 1 A are used; those of the 2460 are from memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec
from pyvisa.rname import InvalidResourceName, ResourceName

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe

TECHNIQUES: Final = frozenset(
    {
        "rest",
        "constant_current",
        "constant_voltage",
        "constant_current_constant_voltage",
        "voltage_sweep",
    }
)

DIGITAL_OUTPUTS: Final = {f"digital {number}": number for number in range(1, 7)}
"""Names of the lines of the digital port, and their numbers."""

LINE_HZ: Final = 50.0
"""The slower of the two mains frequencies, for how long a reading takes at the most."""

APERTURES: Final = 4.0
"""A reading measures and reads the source back, and corrects its zero at each."""

CONVERSION_S: Final = 5e-4

LONGEST_WATCHDOG_S: Final = 15.0
"""The longest that an output may stay on when nobody is there."""


LOOKS_IN_WATCHDOG: Final = 6
"""The instrument asks twice in a watchdog whether it was heard: so three looks for each time."""


@dataclass(frozen=True, slots=True)
class Model:
    """Full scales, ascending. The smallest current limit that can be set is ``limit_min_A``;
    ``current_max_A`` is the most that the instrument can measure, in ranges that are not used here
    too."""

    voltage_ranges_V: tuple[float, ...]
    current_ranges_A: tuple[float, ...]
    limit_min_A: float
    voltage_max_V: float
    protections_V: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0, 40.0)
    current_max_A: float = 1.05
    reading_steps: float = 1e6
    """How many steps a current range has."""


MODELS: Final = {
    "2450": Model(
        voltage_ranges_V=(0.02, 0.2, 2.0, 20.0, 200.0),
        current_ranges_A=(1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
        limit_min_A=1e-9,
        voltage_max_V=40.0,
    ),
    "2460": Model(
        voltage_ranges_V=(0.2, 2.0, 7.0, 10.0, 20.0, 100.0),
        current_ranges_A=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
        limit_min_A=1e-6,
        voltage_max_V=40.0,
        current_max_A=7.35,
    ),
    "2461": Model(
        voltage_ranges_V=(0.2, 2.0, 7.0, 10.0, 20.0, 100.0),
        current_ranges_A=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
        limit_min_A=1e-6,
        voltage_max_V=40.0,
        current_max_A=10.5,
    ),
}


class KeithleyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One SourceMeter, which is one channel, named ``1``.

    resource: its VISA name, such as ``TCPIP::192.168.1.20::5025::SOCKET`` or
        ``USB0::0x05E6::0x2450::04419969::INSTR``.
    serial: its serial number; another instrument at that address is refused. Left out, the first
        one found is held to.
    model: 2450, 2460 or 2461.
    visa: the VISA library; ``@py`` is pyvisa-py.
    nplc: how long a measurement integrates, in periods of the mains.
    four_wire: sense at the cell by leads of their own.
    terminals: ``front`` or ``rear``; left out, they stay as they are.
    watchdog_s: the instrument itself opens its output when it has heard nothing for this long; 0
        switches that off, and then nothing does.
    voltage_min_V, voltage_max_V: what the instrument is used for; its output is protected not far
        beyond.
    sample_period_s: the longest time between two looks at a running step.
    sweep_step_V: the stairs of a voltage sweep.
    buffer_readings: how many readings the instrument keeps.
    temperature_watched_elsewhere: accept programs with temperature limits, which a SourceMeter
        cannot watch.
    """

    resource: str
    serial: str = ""
    model: str = "2450"
    visa: str = "@py"
    nplc: float = 1.0
    four_wire: bool = True
    terminals: str = ""
    watchdog_s: float = 12.0
    reply_timeout_s: float = 5.0
    connect_timeout_s: float = 5.0
    voltage_min_V: float = -5.0
    voltage_max_V: float = 5.0
    sample_period_s: float = 1.0
    sweep_step_V: float = 1e-3
    buffer_readings: int = 100_000
    temperature_watched_elsewhere: bool = False

    def __post_init__(self) -> None:
        try:
            ResourceName.from_string(self.resource)
        except InvalidResourceName as error:
            raise ValueError(f"resource is not the name of a VISA resource: {error}") from error
        if self.model not in MODELS:
            raise ValueError(f"model is {self.model!r}, it must be one of {', '.join(MODELS)}")
        if self.terminals not in {"", "front", "rear"}:
            raise ValueError(f"terminals is {self.terminals!r}, it must be front or rear")
        for name, low, high in (
            ("nplc", 0.01, 10.0),
            ("reply_timeout_s", 0.1, 60.0),
            ("connect_timeout_s", 0.1, 60.0),
            ("sample_period_s", 0.01, 60.0),
            ("sweep_step_V", 5e-4, 0.1),
            ("buffer_readings", 10, 1_000_000),
            ("voltage_min_V", -self.kind.voltage_max_V, self.kind.voltage_max_V),
            ("voltage_max_V", -self.kind.voltage_max_V, self.kind.voltage_max_V),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value:g}, it must be {low:g} to {high:g}")
        if not self.voltage_min_V < self.voltage_max_V:
            raise ValueError("voltage_min_V must be below voltage_max_V")
        if self.watchdog_s and not 3.0 <= self.watchdog_s <= LONGEST_WATCHDOG_S:
            raise ValueError(
                f"watchdog_s is {self.watchdog_s:g}, it must be 3 to {LONGEST_WATCHDOG_S:g}, or 0 "
                "for none"
            )
        if self.watchdog_s and LOOKS_IN_WATCHDOG * self.sample_period_s > self.watchdog_s:
            raise ValueError(
                f"sample_period_s is {self.sample_period_s:g}: within a watchdog of "
                f"{self.watchdog_s:g} s the host must look {LOOKS_IN_WATCHDOG} times"
            )

    @property
    def kind(self) -> Model:
        return MODELS[self.model]

    @property
    def reading_s(self) -> float:
        """How long one reading takes, at the most."""
        return APERTURES * self.nplc / LINE_HZ + CONVERSION_S

    @property
    def capabilities(self) -> Capabilities:
        kind = self.kind
        return Capabilities(
            techniques=TECHNIQUES,
            voltage_min_V=self.voltage_min_V,
            voltage_max_V=self.voltage_max_V,
            current_ranges=tuple(
                CurrentRange(full_scale_A, full_scale_A / kind.reading_steps)
                for full_scale_A in kind.current_ranges_A
            ),
            fastest_record_s=self.reading_s,
            failsafe=Failsafe.WATCHDOG if self.watchdog_s else Failsafe.NONE,
            outputs=frozenset(DIGITAL_OUTPUTS),
        )

    @property
    def widest_voltage_V(self) -> float:
        return max(abs(self.voltage_min_V), abs(self.voltage_max_V))


def holding(value: float, full_scales: tuple[float, ...]) -> float:
    """The smallest full scale that holds ``value``; infinity if none does."""
    return next((full for full in full_scales if abs(value) <= full * (1 + 1e-9)), math.inf)
