"""What a running script writes, line by line, as readings and spectra of a visit. No I/O.

Lines: ``P…`` data; ``M`` and ``*``, ``C`` and ``-``, ``L`` and ``+`` begin and end loops; ``T`` a
text; ``!`` an error, with which the script is over and the cell as it was; a letter alone the echo
of a command; an empty line, with which the script is over.

A value that was overloaded is no reading. A line that makes no sense is thrown away, and so is one
with a value that cannot be (see docs/wire.md): charge and energy come as sums since the visit
began, so that no line is needed for what follows.

Source: communication protocols of EmStat Pico v1.6 and EmStat4 v1.3; MethodSCRIPT manual v1.8.
"""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np

from labctl.drivers.base import Task
from labctl.drivers.palmsens.faultcodes import Refusal, parse_refusal
from labctl.drivers.palmsens.models import Model
from labctl.drivers.palmsens.packages import (
    Kind,
    Package,
    PackageError,
    Variable,
    parse_package,
)
from labctl.drivers.palmsens.stages import (
    FIRST_LIMIT,
    LAST_LIMIT,
    SECONDS_PER_HOUR,
    Script,
    Why,
)
from labctl.drivers.palmsens.techniques import frequencies
from labctl.model import Readings, Spectrum
from labctl.program import EndCondition, Impedance, Rest, VoltageSweep

OVERLOADS: Final = 5
"""So many overloaded values one after another are an overload that stays."""

GARBLED: Final = 5
"""So many lines without sense one after another are no line at all."""

_LIMIT_WORDS: Final = {
    Why.VOLTAGE_HIGH: "the voltage went above its limit",
    Why.VOLTAGE_LOW: "the voltage went below its limit",
    Why.CURRENT_HIGH: "the current went above its limit",
    Why.CURRENT_LOW: "the current went below its limit",
    Why.CHARGE: "more charge was passed in the step than its limit",
    Why.CURRENT_MAX: "the current went beyond what the step allows",
}
_MARKS: Final = re.compile(r"M[0-9A-F]{4}|C[0-9]{4}|T[ -~]*|[-+*LZYhHRer]")
_ENERGY_SLACK: Final = 1.5
_FREQUENCY_SLACK: Final = 1.02


class ForeignScriptError(Exception):
    """The instrument runs another script than this visit's."""


class Stream:
    """A visit's output so far; give it every line in order with :meth:`take`.

    ended: the script is over. end: the end condition that ended it. tripped: the protection that
    did, '' if none did. early: why it was over before the step was, '' if it was not. refusal: the
    error that ended it. overloads, garbled: how many there were in a row.
    voltage_V, current_A: of the last reading, NaN before the first.
    """

    def __init__(self, script: Script, task: Task, kind: Model, began_unix_s: float) -> None:
        self._kind = kind
        self._unbroken = True
        """No line was lost since the last reading, as far as is known."""
        self.ended = False
        self.end: EndCondition | None = None
        self.tripped = ""
        self.early = ""
        self.refusal: Refusal | None = None
        self.overloads = 0
        self.garbled = 0
        self.voltage_V = math.nan
        self.current_A = math.nan
        self.last_unix_s = began_unix_s
        self._script = script
        self._task = task
        self._began_unix_s = began_unix_s
        self._index = 0
        self._last_s = -1.0
        self._offset_s = 0.0
        self._rows: list[tuple[float, float, float, float, float]] = []
        self._points: list[tuple[float, float, float]] = []
        self._working = (math.nan, math.nan)
        self._why = int(Why.NOTHING)
        self._aborted = False

    def take(self, line: str) -> None:
        """Judge one line.

        Raises:
            ForeignScriptError: a package carries another visit's mark, or none.
        """
        if self.ended:
            return
        if not line:
            self._over()
        elif line.startswith("P"):
            self._package(line)
        elif (refusal := parse_refusal(line)) is not None and not refusal.command:
            self.refusal, self.ended = refusal, True
        elif _MARKS.fullmatch(line):
            self._aborted = self._aborted or line == "Z"
            self.garbled = 0
        else:
            self._garbage()

    def new_readings(self) -> Readings:
        """The readings since the last call."""
        rows, self._rows = self._rows, []
        if not rows:
            return Readings()
        time_s, voltage_V, current_A, charge_Ah, energy_Wh = np.array(rows, dtype=np.float64).T
        count = len(rows)
        self._index += count
        return Readings(
            onboard_index=np.arange(self._index - count + 1, self._index + 1, dtype=np.int64),
            step=np.full(count, self._task.step.index, dtype=np.int64),
            pass_mark=np.zeros(count, dtype=np.int64),
            step_time_s=time_s,
            unix_time_s=self._began_unix_s + time_s,
            voltage_V=voltage_V,
            current_A=current_A,
            step_charge_Ah=charge_Ah,
            step_energy_Wh=energy_Wh,
            temperature_degC=np.full(count, np.nan),
        )

    def go_on(self) -> None:
        """The script begins once more, where it was interrupted: its time counts on."""
        self._offset_s = max(0.0, self._last_s)
        self._unbroken = False

    def missed(self) -> None:
        """Lines may have been lost: the next reading may be of any time."""
        self._unbroken = False

    def _garbage(self) -> None:
        self.garbled += 1
        self._unbroken = False

    def spectrum(self) -> Spectrum | None:
        """What was measured of a spectrum; only the first call gets it."""
        points, self._points = self._points, []
        if not points:
            return None
        frequency_Hz, real_ohm, imaginary_ohm = zip(*points, strict=True)
        return Spectrum(
            frequency_Hz=frequency_Hz,
            impedance_real_ohm=real_ohm,
            impedance_imag_ohm=imaginary_ohm,
            voltage_V=self._working[0],
            current_A=self._working[1],
            unix_time_s=self.last_unix_s,
        )

    def _package(self, line: str) -> None:
        try:
            package = parse_package(line)
        except PackageError:
            self._garbage()
            return
        mark = package.get(Kind.MARK)
        if mark is None or mark.value != self._script.mark:
            raise ForeignScriptError(f"it runs another script: {line[:80]!r}")
        if Kind.Z_REAL in package:
            self._point(package)
        elif Kind.WHY in package:
            self._reading(package)

    def _point(self, package: Package) -> None:
        values = [package.get(kind) for kind in (Kind.FREQUENCY, Kind.Z_REAL, Kind.Z_IMAGINARY)]
        if any(value is None or value.overloaded or math.isnan(value.value) for value in values):
            self.overloads += 1
            self.garbled = 0
            return
        frequency, real, imaginary = (value.value for value in values if value is not None)
        if not self._is_next_frequency(frequency):
            self._garbage()
            return
        self.overloads = self.garbled = 0
        self._points.append((frequency, real, imaginary))

    def _is_next_frequency(self, frequency_Hz: float) -> bool:
        """Whether a frequency is one that was asked for, and below the one before."""
        control = self._control
        if not isinstance(control, Impedance):
            return False
        high_Hz = self._points[-1][0] if self._points else math.inf
        low_Hz = control.frequency_min_Hz / _FREQUENCY_SLACK
        return (
            low_Hz <= frequency_Hz < high_Hz
            and frequency_Hz <= control.frequency_max_Hz * _FREQUENCY_SLACK
        )

    def _reading(self, package: Package) -> None:
        potential = package.get(Kind.POTENTIAL) or package.get(Kind.SET_POTENTIAL)
        # A step at constant current may give the current that was set, as one at constant voltage
        # gives the voltage that was set.
        current = package.get(Kind.CURRENT) or package.get(Kind.SET_CURRENT)
        why = package[Kind.WHY].value
        time_s = self._offset_s + self._time_s(package)
        if (
            potential is None
            or (current is None and not isinstance(self._control, Rest))
            or why not in self._whys
            or not self._is_next_time(time_s)
        ):
            self._garbage()
            return
        measured = [value for value in (potential, current) if value is not None]
        if any(value.overloaded or math.isnan(value.value) for value in measured):
            self._why = int(why)
            self.overloads += 1
            self.garbled = 0
            return
        if not self._can_be(potential, current, package, time_s):
            self._garbage()
            return
        self._why = int(why)
        self.overloads = self.garbled = 0
        self._unbroken = True
        self._last_s = time_s
        self.voltage_V = potential.value
        self.current_A = 0.0 if current is None else current.value
        if math.isnan(self._working[0]):
            self._working = (self.voltage_V, self.current_A)
        self.last_unix_s = self._began_unix_s + time_s
        done_As = self._done_As
        charge_As = self._sum(package, Kind.CHARGE, current is None)
        energy_J = self._sum(package, Kind.ENERGY, current is None)
        self._rows.append(
            (
                time_s,
                self.voltage_V,
                self.current_A,
                (charge_As - (0.0 if current is None else done_As)) / SECONDS_PER_HOUR,
                energy_J / SECONDS_PER_HOUR,
            )
        )

    def _is_next_time(self, time_s: float) -> bool:
        """Whether a time is after the last reading's; and, where no line was lost in between, not
        later than the script has to send the next one."""
        if not (self._last_s < time_s < math.inf and time_s >= 0):
            return False
        if isinstance(self._control, Impedance) or not self._unbroken:
            return True
        return time_s <= max(self._last_s, 0.0) + self._script.silence_s + 2 * self._script.tick_s

    def _can_be(
        self, potential: Variable, current: Variable | None, package: Package, time_s: float
    ) -> bool:
        """Whether the values are some that the instrument can measure, each in its range, and
        charge and energy no more than it can have passed."""
        kind = self._kind
        if not kind.can_measure_V(potential.value):
            return False
        if current is None:
            return True
        if not kind.can_measure_A(current.value, current.range_index):
            return False
        charge_As = self._sum(package, Kind.CHARGE, False)
        energy_J = self._sum(package, Kind.ENERGY, False)
        if isinstance(self._control, Impedance):
            return Kind.CHARGE not in package and Kind.ENERGY not in package
        most_As = kind.over_range * kind.current_ranges_A[-1] * _ENERGY_SLACK * (time_s + 1.0)
        most_V = kind.over_range * max(-kind.voltage_min_V, kind.voltage_max_V)
        return abs(charge_As - self._done_As) <= most_As and abs(energy_J) <= most_As * most_V

    @property
    def _done_As(self) -> float:
        return self._task.done_Ah * SECONDS_PER_HOUR

    def _time_s(self, package: Package) -> float:
        if Kind.TIME in package:
            return package[Kind.TIME].value
        count = package.get(Kind.COUNT)
        return math.nan if count is None else round(count.value * self._script.tick_s, 9)

    @staticmethod
    def _sum(package: Package, kind: str, at_rest: bool) -> float:
        variable = package.get(kind)
        if variable is not None:
            return variable.value
        return 0.0 if at_rest else math.nan

    @property
    def _whys(self) -> range:
        """Every reason that the script has for sending a package."""
        return range(Why.NOTHING, Why.ENDS + len(self._task.step.ends))

    @property
    def _control(self) -> object:
        return self._task.step.control

    def _over(self) -> None:
        self.ended = True
        step = self._task.step
        if FIRST_LIMIT <= self._why <= LAST_LIMIT:
            self.tripped = _LIMIT_WORDS[Why(self._why)]
        elif 0 <= self._why - Why.ENDS < len(step.ends):
            self.end = step.ends[self._why - Why.ENDS]
        elif self._aborted:
            self.early = "its script was ended by somebody else"
        elif isinstance(step.control, Impedance):
            wanted = frequencies(step.control)[0]
            if len(self._points) != wanted:
                self.early = f"its script measured {len(self._points)} of {wanted} frequencies"
        elif not isinstance(step.control, VoltageSweep):
            self.early = "its script ended before the step did"
