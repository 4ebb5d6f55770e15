"""The Rodeostat itself: electrodes, ranges, the test that runs, and what it reads of the cell.

Current is positive when it charges the cell, whose positive pole is at the working electrode. The
cell passes current only while all three electrodes are connected; otherwise it rests. (That a real
one loses control of a cell whose reference alone is open is not simulated.) The cell lives on only
when it is told to, by :meth:`Device.live`.

Source: firmware github.com/iorodeo/potentiostat at 86e4708, ``ps_analog_subsystem.{h,cpp}`` and
``ps_system_state.cpp``. Its accuracy: issue 26 of that repository says parts of 0.1 to 0.5 %.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from labctl.simulators.cells.interface import Control, Recorder, SimulatedCell, Until
from labctl.simulators.rodeostat.waves import Wave

VOLTAGE_RANGES_V: Final = {"1V": 1.0, "2V": 2.0, "5V": 5.0, "10V": 10.0}
CURRENT_RANGES_UA: Final = {
    "nanoAmp": {"1uA": 1.0, "10uA": 10.0, "60nA": 0.06, "100nA": 0.1},
    "microAmp": {"1uA": 1.0, "10uA": 10.0, "100uA": 100.0, "1000uA": 1000.0},
    "milliAmp": {"100uA": 100.0, "1000uA": 1000.0, "12000uA": 12024.0, "24000uA": 24048.0},
}
FIRST_CURRENT_RANGE: Final = {"nanoAmp": "10uA", "microAmp": "10uA", "milliAmp": "1000uA"}

PUT_OUT_STEPS: Final = 4095
READ_STEPS: Final = 65_535
TICK_US: Final = 200

GAIN: Final = 2e-3
OFFSET: Final = 2e-3
"""Of full scale; both are standard deviations over instruments, cut at 2.5 of them."""
NOISE: Final = 5e-5
"""Of full scale, after the filter. Assumed."""
SUPPLY_V: Final = 12.0
AMPLIFIER_UA: Final = 30_000.0
"""What the amplifiers put out at the most, as voltage and as current. Assumed."""
_WIDEST: Final = 2.5

Sample = tuple[int, float, float]
"""ms, V and uA."""


class Device:
    """One instrument and the cell at its leads.

    ``seed`` draws its errors; with ``scale`` 0 it has none but its resolution. ``samples`` fill up
    while a test runs; ``ended`` becomes true when no more come.
    """

    def __init__(
        self,
        variant: str,
        cell: SimulatedCell,
        *,
        counter_resistor_ohm: float,
        seed: int,
        scale: float,
    ) -> None:
        self.cell = cell
        self.now_s = 0.0
        self.ranges_uA = CURRENT_RANGES_UA[variant]
        self.current_range = FIRST_CURRENT_RANGE[variant]
        self.voltage_range = "1V"
        self.reference_range = "1V"
        self.period_us = 10_000
        self.by_test = True
        self.working = self.reference = self.counter = False
        self.samples: list[Sample] = []
        self.ended = False
        self.frozen: Callable[[], bool] = lambda: False
        self._wave: Wave | None = None
        self._test_us = 0
        self._code = PUT_OUT_STEPS // 2
        self._ohm = counter_resistor_ohm
        self._seed = seed
        self._scale = scale
        self._noise = random.Random(f"labctl rodeostat noise {seed}")  # noqa: S311
        self._true_V = cell.voltage_V()
        self._true_uA = 0.0
        self._shown = (0.0, 0.0)

    @property
    def connected(self) -> bool:
        return self.working and self.reference and self.counter

    @property
    def running(self) -> bool:
        return self._wave is not None

    @property
    def put_out_V(self) -> float:
        """What the instrument believes to put out, by its range and its steps."""
        full_V = VOLTAGE_RANGES_V[self.voltage_range]
        return full_V * (2 * self._code / PUT_OUT_STEPS - 1)

    @property
    def true_V(self) -> float:
        """The cell's own voltage."""
        return self._true_V

    @property
    def true_uA(self) -> float:
        return self._true_uA

    def put_out(self, voltage_V: float) -> None:
        full_V = VOLTAGE_RANGES_V[self.voltage_range]
        share = (voltage_V / full_V + 1) / 2
        self._code = round(PUT_OUT_STEPS * min(1.0, max(0.0, share)))
        self._settle()

    def connect(
        self,
        *,
        working: bool | None = None,
        reference: bool | None = None,
        counter: bool | None = None,
    ) -> None:
        """Close or open the switches that are not None."""
        self.working = self.working if working is None else working
        self.reference = self.reference if reference is None else reference
        self.counter = self.counter if counter is None else counter
        self._settle()

    def start(self, wave: Wave) -> None:
        """Begin a test; what was put out stays until its first tick."""
        if self.by_test:
            self.connect(working=True, reference=True, counter=True)
        for name, full_V in VOLTAGE_RANGES_V.items():
            if -full_V <= wave.lowest_V and wave.highest_V <= full_V:
                self.voltage_range = self.reference_range = name
                break
        self._wave, self._test_us, self.ended = wave, 0, False
        self.put_out(wave.value_V(0))

    def stop(self) -> None:
        """End whatever runs, and say so even if nothing does."""
        self._wave, self.ended = None, True
        self.put_out(0.0)
        if self.by_test:
            self.connect(working=False, reference=False, counter=False)

    def lose_power(self) -> None:
        self._wave, self.ended, self.by_test = None, False, True
        self.samples.clear()
        self.connect(working=False, reference=False, counter=False)

    def live(self, duration_s: float) -> None:
        """Let the cell live on, and the test with it."""
        left_us = round(duration_s * 1e6)
        while left_us > 0:
            wave = self._wave
            if wave is None:
                self._advance(left_us)
                return
            to_sample_us = self.period_us - self._test_us % self.period_us
            to_end_us = max(TICK_US, -(-(wave.done_us - self._test_us) // TICK_US) * TICK_US)
            step_us = min(left_us, to_sample_us, to_end_us, wave.finest_us)
            self._advance(step_us)
            left_us -= step_us
            self._test_us += step_us
            voltage_V = wave.value_V(self._test_us)
            if self._test_us % self.period_us == 0:
                self.samples.append((self._test_us // 1000, voltage_V, self.read_uA()))
            if self._test_us >= wave.done_us:
                self.stop()
            else:
                self.put_out(voltage_V)

    def read_uA(self) -> float:
        """What it reads as the current, which is never more than its range."""
        full_uA = self.ranges_uA[self.current_range]
        read = self._read(f"current {self.current_range}", self._true_uA, full_uA)
        return self._freeze(0, read)

    def read_reference_V(self) -> float:
        """What it reads as the voltage of the working electrode against the reference; noise about
        0 where either is not connected."""
        full_V = VOLTAGE_RANGES_V[self.reference_range]
        true_V = self._true_V if self.working and self.reference else 0.0
        return self._freeze(1, self._read(f"reference {self.reference_range}", true_V, full_V))

    def _read(self, kind: str, true: float, full: float) -> float:
        gain, offset = self._errors(kind)
        noise = self._scale * NOISE * self._noise.gauss()
        read = true * (1 + GAIN * gain) + (OFFSET * offset + noise) * full
        step = 2 * full / READ_STEPS
        return round((min(full, max(-full, read)) + full) / step) * step - full

    def _freeze(self, place: int, read: float) -> float:
        if self.frozen():
            return self._shown[place]
        self._shown = (read, self._shown[1]) if place == 0 else (self._shown[0], read)
        return read

    def _errors(self, kind: str) -> tuple[float, float]:
        draw = random.Random(f"labctl rodeostat {self._seed} {kind}")  # noqa: S311
        first, second = (max(-_WIDEST, min(_WIDEST, draw.gauss())) for _ in range(2))
        return self._scale * first, self._scale * second

    def _settle(self) -> None:
        """The cell takes what is put out before any time has passed: its voltage at no current."""
        if not self.connected:
            self._true_uA = 0.0
            self._true_V = self.cell.voltage_V()

    def _advance(self, duration_us: int) -> None:
        duration_s = duration_us / 1e6
        self.now_s += duration_s
        if not self.connected:
            trace = self.cell.advance(
                Control.REST, 0.0, duration_s, until=Until(), recorder=Recorder()
            )
        else:
            full_V = VOLTAGE_RANGES_V[self.voltage_range]
            gain, offset = self._errors(f"put out {self.voltage_range}")
            wanted_V = self.put_out_V * (1 + GAIN * gain) + OFFSET * offset * full_V
            most_uA = AMPLIFIER_UA
            if self._ohm:
                most_uA = min(most_uA, 1e6 * max(0.0, SUPPLY_V - abs(wanted_V)) / self._ohm)
            trace = self.cell.advance(
                Control.VOLTAGE,
                wanted_V,
                duration_s,
                until=Until(),
                recorder=Recorder(),
                max_current_A=1e-6 * most_uA,
            )
        self._true_V, self._true_uA = trace.end_voltage_V, 1e6 * trace.end_current_A
