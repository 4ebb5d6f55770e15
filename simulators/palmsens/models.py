"""The models: ranges with their numbers, and how well each measures.

Numbers of ranges: MethodSCRIPT manual v1.8, appendix B. Every figure of accuracy, resolution and
speed is chosen for this simulator to be like a good instrument of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GALVANOSTAT: Final = 6

PICO_LOW: Final = (
    (100e-9, 0),
    (2e-6, 1),
    (4e-6, 2),
    (8e-6, 3),
    (16e-6, 4),
    (32e-6, 5),
    (63e-6, 6),
    (125e-6, 7),
    (250e-6, 8),
    (500e-6, 9),
    (1e-3, 10),
    (5e-3, 11),
)
PICO_HIGH: Final = (
    (100e-9, 128),
    (1e-6, 129),
    (6e-6, 130),
    (13e-6, 131),
    (25e-6, 132),
    (50e-6, 133),
    (100e-6, 134),
    (200e-6, 135),
    (1e-3, 136),
    (5e-3, 137),
)
EMSTAT4: Final = (
    (1e-9, 3),
    (10e-9, 6),
    (100e-9, 9),
    (1e-6, 12),
    (10e-6, 15),
    (100e-6, 18),
    (1e-3, 21),
    (10e-3, 24),
    (100e-3, 27),
)
NEXUS: Final = (
    (100e-12, 16),
    (1e-9, 0),
    (10e-9, 1),
    (100e-9, 2),
    (1e-6, 3),
    (10e-6, 4),
    (100e-6, 5),
    (1e-3, 8),
    (10e-3, 9),
    (100e-3, 10),
    (1.0, 11),
)
NEXUS_HELD: Final = tuple((full_A, number) for number, (full_A, _) in enumerate(NEXUS, start=32))


@dataclass(frozen=True, slots=True)
class Window:
    """What a mode of the potentiostat does: potentials, how far apart, and how fast."""

    low_V: float
    high_V: float
    span_V: float
    fastest_Hz: float


@dataclass(frozen=True, slots=True)
class Model:
    """One model. ``ranges`` and ``held`` are (full scale, number), to measure and to hold a
    current; a range measures up to ``over_range`` times its full scale.

    command_s: how long one command of a script takes.
    """

    name: str
    code: str
    firmware: str
    modes: dict[int, Window]
    ranges: tuple[tuple[float, int], ...]
    ranges_fast: tuple[tuple[float, int], ...]
    held: tuple[tuple[float, int], ...]
    over_range: float
    current_max_A: float
    eis_max_Hz: float
    amplitude_max_V: float
    set_step_V: float
    read_step_V: float
    current_steps: float
    script_bytes: int
    command_s: float
    pins: int

    @property
    def widest_V(self) -> float:
        return max(max(-mode.low_V, mode.high_V) for mode in self.modes.values())


def _emstat4(name: str, code: str, *, high: bool) -> Model:
    volts = 6.0 if high else 3.0
    ranges = tuple(each for each in EMSTAT4 if (each[0] >= 1e-7 if high else each[0] <= 1e-2))
    return Model(
        name=name,
        code=code,
        firmware="1300#Sep 30 2025 12:00:00",
        modes=dict.fromkeys((2, 3, 4, GALVANOSTAT), Window(-volts, volts, 2 * volts, 200e3)),
        ranges=ranges,
        ranges_fast=ranges,
        held=ranges,
        over_range=2.0 if high else 3.0,
        current_max_A=0.2 if high else 0.03,
        eis_max_Hz=200e3,
        amplitude_max_V=0.25,
        set_step_V=1.83e-4 if high else 1e-4,
        read_step_V=1e-4 if high else 5e-5,
        current_steps=11_000.0,
        script_bytes=65_536,
        command_s=2e-6,
        pins=4,
    )


_ALL: Final = (
    _emstat4("EmStat4S LR", "es4_lr", high=False),
    _emstat4("EmStat4S HR", "es4_hr", high=True),
    _emstat4("EmStat4X LR", "es4_lr", high=False),
    _emstat4("EmStat4X HR", "es4_hr", high=True),
    Model(
        name="Nexus",
        code="nexus1",
        firmware="1200#Sep 30 2025 12:00:00",
        modes=dict.fromkeys((2, 3, 4, GALVANOSTAT), Window(-10.0, 10.0, 20.0, 1e6)),
        ranges=NEXUS,
        ranges_fast=NEXUS,
        held=NEXUS_HELD,
        over_range=1.2,
        current_max_A=1.0,
        eis_max_Hz=1e6,
        amplitude_max_V=0.25,
        set_step_V=1e-4,
        read_step_V=1e-5,
        current_steps=100_000.0,
        script_bytes=65_536,
        command_s=2e-6,
        pins=4,
    ),
    Model(
        name="EmStat Pico",
        code="espico",
        firmware="1600#Sep 30 2025 12:00:00",
        modes={
            2: Window(-1.25, 2.0, 2.2, 100.0),
            3: Window(-1.7, 2.0, 1.214, 200e3),
            4: Window(-1.7, 2.0, 2.6, 100.0),
        },
        ranges=PICO_LOW,
        ranges_fast=PICO_HIGH,
        held=(),
        over_range=1.0,
        current_max_A=3e-3,
        eis_max_Hz=200e3,
        amplitude_max_V=0.25,
        set_step_V=5.37e-4,
        read_step_V=1e-4,
        current_steps=16_000.0,
        script_bytes=16_384,
        command_s=2e-5,
        pins=8,
    ),
)

MODELS: Final = {model.name: model for model in _ALL}
