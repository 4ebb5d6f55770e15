"""What the models can do. Figures marked so are from memory: to be verified on hardware.

Source: MethodSCRIPT manual v1.8, appendix B (modes and ranges); communication protocols of EmStat
Pico v1.6 and EmStat4 v1.3 (codes and line settings); product descriptions (limits).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LOW_SPEED: Final = 2
HIGH_SPEED: Final = 3
MAX_RANGE: Final = 4
GALVANOSTAT: Final = 6

DECADES_LOW_RANGE: Final = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
DECADES_HIGH_RANGE: Final = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
PICO_RANGES: Final = (
    1e-7,
    2e-6,
    4e-6,
    8e-6,
    16e-6,
    32e-6,
    63e-6,
    125e-6,
    250e-6,
    500e-6,
    1e-3,
    5e-3,
)


PICO_NUMBERS: Final = dict(enumerate(PICO_RANGES)) | {
    128: 1e-7,
    129: 1e-6,
    130: 6e-6,
    131: 13e-6,
    132: 25e-6,
    133: 50e-6,
    134: 100e-6,
    135: 200e-6,
    136: 1e-3,
    137: 5e-3,
}
EMSTAT4_NUMBERS: Final = {
    3: 1e-9,
    6: 1e-8,
    9: 1e-7,
    12: 1e-6,
    15: 1e-5,
    18: 1e-4,
    21: 1e-3,
    24: 1e-2,
    27: 1e-1,
}
NEXUS_NUMBERS: Final = {
    16: 1e-10,
    0: 1e-9,
    1: 1e-8,
    2: 1e-7,
    3: 1e-6,
    4: 1e-5,
    5: 1e-4,
    6: 1e-3,
    7: 1e-2,
    8: 1e-3,
    9: 1e-2,
    10: 1e-1,
    11: 1.0,
}
"""Full scale of each range of the current by its number in the metadata of a package."""

SLACK: Final = 1.25
"""By how much more than it should a range may measure before its reading is one of another."""


@dataclass(frozen=True, slots=True)
class PotentialMode:
    """A mode of the potentiostat: ``window_V`` is how far apart the potentials of one script may
    lie, ``bandwidth_max_Hz`` how fast it may be."""

    number: int
    voltage_min_V: float
    voltage_max_V: float
    window_V: float
    bandwidth_max_Hz: float


@dataclass(frozen=True, slots=True)
class Model:
    """One model.

    codes: how it names itself in its answer to ``t``.
    modes: of the potentiostat, the one to be preferred first.
    current_ranges_A: full scales, ascending; each measures up to ``over_range`` times that.
    current_max_A: what it can put out.
    galvanostat: it can hold a current, and measure impedance that way.
    current_resolution: of a reading, as a share of full scale (from memory).
    potential_step_V: the finest step that it can set (from memory).
    amplitude_max_V: the largest RMS amplitude of an impedance measurement (from memory).
    script_bytes: how long a script may be (from memory).
    fastest_sample_s: the fastest loop that these scripts are run in.
    settles_s: what the instrument needs, at the most, for one frequency beside its periods.
    range_numbers: full scale in A of each range by its number.
    """

    name: str
    codes: frozenset[str]
    modes: tuple[PotentialMode, ...]
    current_ranges_A: tuple[float, ...]
    over_range: float
    current_max_A: float
    galvanostat: bool
    frequency_min_Hz: float
    frequency_max_Hz: float
    amplitude_max_V: float
    current_resolution: float
    potential_step_V: float
    script_bytes: int
    fastest_sample_s: float
    baud: int
    xonxoff: bool = False
    digital_lines: int = 4
    settles_s: float = 5.0
    range_numbers: Mapping[int, float] = field(default_factory=dict)

    def can_measure_V(self, voltage_V: float) -> bool:
        """Whether a potential is one that the model can set or measure."""
        return abs(voltage_V) <= SLACK * max(-self.voltage_min_V, self.voltage_max_V)

    def can_measure_A(self, current_A: float, range_number: int | None) -> bool:
        """Whether a current is one that the model can measure, in the range of that number."""
        largest_A = self.current_ranges_A[-1]
        if range_number is not None:
            largest_A = self.range_numbers.get(range_number, largest_A)
        return abs(current_A) <= SLACK * self.over_range * largest_A

    @property
    def voltage_min_V(self) -> float:
        return min(mode.voltage_min_V for mode in self.modes)

    @property
    def voltage_max_V(self) -> float:
        return max(mode.voltage_max_V for mode in self.modes)

    def mode_for(self, low_V: float, high_V: float, bandwidth_Hz: float) -> PotentialMode | None:
        """The mode that does both potentials at that speed; None if there is none."""
        for mode in self.modes:
            fits = mode.voltage_min_V <= low_V and high_V <= mode.voltage_max_V
            if fits and high_V - low_V <= mode.window_V and bandwidth_Hz <= mode.bandwidth_max_Hz:
                return mode
        return None

    def range_for(self, current_A: float) -> float | None:
        """The smallest full scale that holds a current; None if it is more than the model can."""
        magnitude_A = abs(current_A)
        if magnitude_A > self.current_max_A * (1 + 1e-9):
            return None
        for full_A in self.current_ranges_A:
            if magnitude_A <= full_A * (1 + 1e-9):
                return full_A
        return self.current_ranges_A[-1]


def _one_mode(volts: float, frequency_max_Hz: float) -> tuple[PotentialMode, ...]:
    return (PotentialMode(HIGH_SPEED, -volts, volts, 2 * volts, frequency_max_Hz),)


def _emstat4(name: str, code: str, *, high_range: bool) -> Model:
    return Model(
        name=name,
        codes=frozenset({code}),
        modes=_one_mode(6.0 if high_range else 3.0, 200e3),
        current_ranges_A=DECADES_HIGH_RANGE if high_range else DECADES_LOW_RANGE,
        over_range=2.0 if high_range else 3.0,
        current_max_A=0.2 if high_range else 0.03,
        galvanostat=True,
        frequency_min_Hz=1e-5,
        frequency_max_Hz=200e3,
        amplitude_max_V=0.25,
        current_resolution=9e-5,
        potential_step_V=1.83e-4 if high_range else 1e-4,
        script_bytes=65_536,
        fastest_sample_s=0.01,
        baud=921_600,
        range_numbers=EMSTAT4_NUMBERS,
    )


_ALL: Final = (
    _emstat4("EmStat4S LR", "es4_lr", high_range=False),
    _emstat4("EmStat4S HR", "es4_hr", high_range=True),
    _emstat4("EmStat4X LR", "es4_lr", high_range=False),
    _emstat4("EmStat4X HR", "es4_hr", high_range=True),
    Model(
        name="Nexus",
        codes=frozenset({"nexus1"}),
        modes=_one_mode(10.0, 1e6),
        current_ranges_A=(1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        over_range=1.0,
        current_max_A=1.0,
        galvanostat=True,
        frequency_min_Hz=1e-5,
        frequency_max_Hz=1e6,
        amplitude_max_V=0.25,
        current_resolution=1e-5,
        potential_step_V=1e-4,
        script_bytes=65_536,
        fastest_sample_s=0.01,
        baud=921_600,
        range_numbers=NEXUS_NUMBERS,
    ),
    Model(
        name="EmStat Pico",
        codes=frozenset({"espico"}),
        modes=(
            PotentialMode(LOW_SPEED, -1.25, 2.0, 2.2, 100.0),
            PotentialMode(MAX_RANGE, -1.7, 2.0, 2.6, 100.0),
            PotentialMode(HIGH_SPEED, -1.7, 2.0, 1.214, 200e3),
        ),
        current_ranges_A=PICO_RANGES,
        over_range=1.0,
        current_max_A=3e-3,
        galvanostat=False,
        frequency_min_Hz=0.016,
        frequency_max_Hz=200e3,
        amplitude_max_V=0.25,
        current_resolution=6e-5,
        potential_step_V=5.4e-4,
        script_bytes=16_384,
        fastest_sample_s=0.05,
        baud=230_400,
        xonxoff=True,
        range_numbers=PICO_NUMBERS,
    ),
)

MODELS: Final = {model.name: model for model in _ALL}
"""Every model by its name, as a configuration says it."""

MODEL_OF_CODE: Final = {
    "espico": "EmStat Pico",
    "senswb": "Sensit Wearable",
    "es4_hr": "EmStat4 HR",
    "es4_lr": "EmStat4 LR",
    "mes4hr": "MultiEmStat4 HR",
    "mes4lr": "MultiEmStat4 LR",
    "nexus1": "Nexus",
}
"""What an instrument is, by how it names itself."""
