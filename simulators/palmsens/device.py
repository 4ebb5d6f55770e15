"""The potentiostat itself: its modes and ranges, the cell at its leads, and what it reads of it.

Current is positive when it charges the cell. With the cell off, it rests. The cell lives on only
when it is told to, by :meth:`Potentiostat.live`.
"""

from __future__ import annotations

import cmath
import functools
import math
import random
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from labctl.simulators.cells.interface import Control, Recorder, SimulatedCell, Until
from labctl.simulators.palmsens.errors import Code, RunError
from labctl.simulators.palmsens.models import GALVANOSTAT, Model, Window
from labctl.simulators.palmsens.values import STATUS_OVERLOAD, STATUS_UNDERLOAD, Value

VOLTAGE_GAIN: Final = 2e-4
VOLTAGE_OFFSET_V: Final = 2e-4
VOLTAGE_NOISE_V: Final = 2e-5
CURRENT_GAIN: Final = 5e-4
CURRENT_OFFSET: Final = 3e-5
"""Of full scale."""
CURRENT_NOISE: Final = 2e-5
"""Of full scale."""
IMPEDANCE_GAIN: Final = 2e-3
IMPEDANCE_PHASE_RAD: Final = 2e-3
IMPEDANCE_NOISE: Final = 5e-4
UNDERLOAD: Final = 0.01
"""A reading below this share of full scale could be had from a smaller range."""
OVER_LARGEST: Final = 1.05
"""How far over what its largest range measures a range may be asked for: scripts that PSTrace makes
for an EmStat4 HR ask for 210 mA."""
COMPLIANCE_V: Final = 2.0
"""How far beyond its widest potential the counter electrode can be driven."""
_WIDEST: Final = 2.5


class Potentiostat:
    """One instrument and the cell at its leads.

    ``seed`` draws its errors; with ``scale`` 0 it has none but its resolution.
    """

    def __init__(self, model: Model, cell: SimulatedCell, *, seed: int, scale: float) -> None:
        self.model = model
        self.widest_V = model.widest_V
        self.cell = cell
        self.now_s = 0.0
        self.on = False
        self.mode = 0
        self.pins_out = 0
        self.pins = 0
        self.pulses: list[tuple[float, int]] = []
        self.frozen: Callable[[], bool] = lambda: False
        self._scale = scale
        self._noise = random.Random(f"labctl potentiostat noise {seed}")  # noqa: S311
        self._errors = functools.cache(functools.partial(_drawn, seed, scale))
        self._set_V = 0.0
        self._set_A = 0.0
        self._true_V = cell.voltage_V()
        self._true_A = 0.0
        self._shown: dict[str, tuple[float, int, int, float]] = {}
        self._forget_ranges()

    @property
    def holds_current(self) -> bool:
        return self.mode == GALVANOSTAT

    def set_mode(self, mode: int) -> None:
        """Take a mode, which switches the cell off."""
        if mode not in {0, *self.model.modes}:
            raise RunError(Code.NO_SUCH_MODE)
        self.switch(on=False)
        self.mode = mode
        self._forget_ranges()

    def set_range(self, kind: str, value: float) -> None:
        """The fixed range for a potential (``ab``, ``da``) or a current (``ba``, ``db``)."""
        self._check_range(kind, value)
        if kind in {"ba", "db"}:
            table = self._table(kind)
            self._fixed[kind] = _holding(table, value)
            self._auto.pop(kind, None)

    def set_autoranging(self, kind: str, low: float, high: float) -> None:
        """The ranges among which the instrument chooses."""
        self._check_range(kind, low)
        self._check_range(kind, high)
        if abs(low) > abs(high):
            raise RunError(Code.OUT_OF_BOUNDS)
        if kind in {"ba", "db"}:
            table = self._table(kind)
            self._auto[kind] = (_holding(table, low), _holding(table, high))

    def set_range_minmax(self, kind: str, low: float, high: float) -> None:
        """The lowest and highest value that will be needed."""
        for value in (low, high):
            self._check_range(kind, value)
        if high < low:
            raise RunError(Code.OUT_OF_BOUNDS)
        if kind in {"da", "ab"} and self.mode in self.model.modes:
            window = self._window()
            if high - low > window.span_V * (1 + 1e-6):
                raise RunError(Code.BAD_POTENTIAL)
            self._check_potential(low)
            self._check_potential(high)
        if kind in {"ba", "db"}:
            self.set_range(kind, max(abs(low), abs(high)))

    def set_potential(self, potential_V: float) -> float:
        """Hold this potential while the cell is on; what it is rounded to."""
        self._check_potential(potential_V)
        step_V = self.model.set_step_V
        self._set_V = round(potential_V / step_V) * step_V
        return self._set_V

    def set_current(self, current_A: float) -> float:
        """Hold this current while the cell is on; what it is rounded to."""
        if not self.model.held:
            raise RunError(Code.NOT_ON_THIS_DEVICE)
        full_A = self.model.held[self._fixed["db"]][0]
        if abs(current_A) > min(full_A * self.model.over_range, self.model.current_max_A) * (
            1 + 1e-6
        ):
            raise RunError(Code.OUT_OF_BOUNDS)
        step_A = full_A / self.model.current_steps
        self._set_A = round(current_A / step_A) * step_A
        return self._set_A

    def switch(self, *, on: bool) -> None:
        """The cell on or off."""
        if on and self.mode == 0:
            raise RunError(Code.WRONG_MODE)
        self.on = on
        self._true_A = 0.0 if not on else self._true_A
        if not on:
            self._true_V = self.cell.voltage_V()

    def live(self, duration_s: float) -> None:
        """Let the cell live on under what is set."""
        self.now_s += duration_s
        if duration_s <= 0:
            return
        if not self.on:
            self._advance(Control.REST, 0.0, duration_s)
        elif self.holds_current:
            gain, offset = self._errors("held", self._fixed["db"])
            full_A = self.model.held[self._fixed["db"]][0]
            wanted_A = self._set_A * (1 + CURRENT_GAIN * gain) + CURRENT_OFFSET * offset * full_A
            self._advance(Control.CURRENT, wanted_A, duration_s)
        else:
            gain, offset = self._errors("set", 0)
            wanted_V = self._set_V * (1 + VOLTAGE_GAIN * gain) + VOLTAGE_OFFSET_V * offset
            self._advance(Control.VOLTAGE, wanted_V, duration_s)

    def read_potential(self, into: Value) -> None:
        """What it reads as the potential."""
        gain, offset = self._errors("read", 0)
        noise = self._scale * VOLTAGE_NOISE_V * self._noise.gauss()
        read_V = self._true_V * (1 + VOLTAGE_GAIN * gain) + VOLTAGE_OFFSET_V * offset + noise
        most_V = self.widest_V * 1.02
        status = STATUS_OVERLOAD if abs(read_V) > most_V else 0
        step_V = self.model.read_step_V
        read_V = round(max(-most_V, min(most_V, read_V)) / step_V) * step_V
        self._show("ab", into, read_V, status, 6, self.widest_V)

    def read_current(self, into: Value) -> None:
        """What it reads as the current, in the range that it chooses."""
        kind = "db" if self.holds_current else "ba"
        table = self._table(kind)
        place = self._fixed[kind]
        if kind in self._auto:
            low, high = self._auto[kind]
            place = min(high, max(low, _holding(table, self._true_A)))
        full_A, number = table[place]
        gain, offset = self._errors(kind, place)
        noise = self._scale * CURRENT_NOISE * self._noise.gauss()
        read_A = self._true_A * (1 + CURRENT_GAIN * gain)
        read_A += (CURRENT_OFFSET * offset + noise) * full_A if self.on else 0.0
        most_A = full_A * self.model.over_range
        status = 0
        if abs(read_A) > most_A:
            status, read_A = STATUS_OVERLOAD, math.copysign(most_A, read_A)
        elif self.on and abs(read_A) < UNDERLOAD * full_A and place > 0:
            status = STATUS_UNDERLOAD
        step_A = full_A / self.model.current_steps
        self._show("ba", into, round(read_A / step_A) * step_A, status, number, most_A)

    def read_impedance(self, frequency_Hz: float, real: Value, imaginary: Value) -> None:
        """What it reads as the impedance, which is the cell's own where it stands."""
        true = impedance_of(self.cell, frequency_Hz)
        gain, phase = self._errors("impedance", 0)
        noise = complex(self._noise.gauss(), self._noise.gauss()) * IMPEDANCE_NOISE * self._scale
        read = true * (1 + IMPEDANCE_GAIN * gain + noise)
        read *= cmath.exp(1j * IMPEDANCE_PHASE_RAD * phase)
        number = self._table("ba")[self._fixed["ba"]][1]
        self._show("cc", real, read.real, 0, number, abs(read))
        self._show("cd", imaginary, read.imag, 0, 6, abs(read))

    def _show(
        self, kind: str, into: Value, number: float, status: int, range_index: int, full: float
    ) -> None:
        shown = (number, status, range_index, full)
        if self.frozen():
            shown = self._shown.get(kind, shown)
        self._shown[kind] = shown
        into.number, into.status, into.range_index, into.full_scale = shown
        into.kind = kind

    def _advance(self, control: Control, setpoint: float, duration_s: float) -> None:
        most_V = self.widest_V + COMPLIANCE_V
        trace = self.cell.advance(
            control,
            setpoint,
            duration_s,
            until=Until(voltage_at_least_V=most_V, voltage_at_most_V=-most_V),
            recorder=Recorder(),
            max_current_A=self.model.current_max_A,
        )
        left_s = duration_s - trace.elapsed_s
        if left_s > 1e-9:
            bound_V = math.copysign(most_V, trace.end_voltage_V)
            trace = self.cell.advance(
                Control.VOLTAGE,
                bound_V,
                left_s,
                until=Until(),
                recorder=Recorder(),
                max_current_A=self.model.current_max_A,
            )
        self._true_V, self._true_A = trace.end_voltage_V, trace.end_current_A

    def _forget_ranges(self) -> None:
        self._fixed: dict[str, int] = {
            "ba": len(self.model.ranges) - 1,
            "db": max(0, len(self.model.held) - 1),
        }
        self._auto: dict[str, tuple[int, int]] = {}

    def _table(self, kind: str) -> tuple[tuple[float, int], ...]:
        if kind == "db":
            if not self.model.held:
                raise RunError(Code.NOT_ON_THIS_DEVICE)
            return self.model.held
        return self.model.ranges_fast if self.mode == 3 else self.model.ranges

    def _check_range(self, kind: str, value: float) -> None:
        if kind not in {"ab", "da", "ba", "db"}:
            raise RunError(Code.NOT_RANGED)
        if kind in {"ab", "da"}:
            most = self.widest_V
        else:
            largest_A = self._table(kind)[-1][0] * self.model.over_range
            most = max(largest_A * OVER_LARGEST, self.model.current_max_A)
        if abs(value) > most * (1 + 1e-6):
            raise RunError(Code.OUT_OF_BOUNDS)

    def _window(self) -> Window:
        modes: Mapping[int, Window] = self.model.modes
        return modes[self.mode]

    def _check_potential(self, potential_V: float) -> None:
        slack_V = self.model.set_step_V
        low_V, high_V = -self.widest_V, self.widest_V
        if self.mode in self.model.modes:
            low_V, high_V = self._window().low_V, self._window().high_V
        if not low_V - slack_V <= potential_V <= high_V + slack_V:
            raise RunError(Code.BAD_POTENTIAL)


def impedance_of(cell: SimulatedCell, frequency_Hz: float) -> complex:
    """Of a model cell its own; of anything else its resistance."""
    impedance = getattr(cell, "impedance", None)
    if impedance is not None:
        return complex(impedance(np.array([frequency_Hz]))[0])
    return complex(cell.voltage_V(1e-6) - cell.voltage_V(0.0)) / 1e-6


def _holding(table: tuple[tuple[float, int], ...], value: float) -> int:
    """The place of the smallest range that holds a value, or of the largest one."""
    for place, (full, _) in enumerate(table):
        if abs(value) <= full * (1 + 1e-6):
            return place
    return len(table) - 1


def _drawn(seed: int, scale: float, kind: str, place: int) -> tuple[float, float]:
    draw = random.Random(f"labctl potentiostat {seed} {kind} {place}")  # noqa: S311
    first, second = (max(-_WIDEST, min(_WIDEST, draw.gauss())) for _ in range(2))
    return scale * first, scale * second
