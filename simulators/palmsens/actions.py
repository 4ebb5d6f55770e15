"""What single commands do: to variables, to a data package, to the potentiostat.

Source: MethodSCRIPT manual v1.8, chapter 14.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Final

from labctl.simulators.palmsens.device import Potentiostat
from labctl.simulators.palmsens.errors import Code, RunError
from labctl.simulators.palmsens.values import Value, encoded, integer, single

LARGEST_PACKAGE: Final = 33
"""How many variables a package holds; chosen, the real figure is not known."""

_DIVISIONS: Final = frozenset({"div", "mod"})
_INTEGERS: Final[dict[str, Callable[[int, int], int]]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": lambda a, b: int(a / b),
    "mod": lambda a, b: int(math.fmod(a, b)),
    "pow": lambda a, b: int(a**b) if abs(b) < 64 else 2**64,
}
_FLOATS: Final[dict[str, Callable[[float, float], float]]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "mod": math.fmod,
    "pow": math.pow,
}


class Actions:
    """The state that commands act on, beside their variables.

    written: lines that wait to be sent. paused: time has passed since somebody looked.
    """

    def __init__(self, device: Potentiostat) -> None:
        self.written: list[str] = []
        self.paused = False
        self.package: list[Value] | None = None
        self._device = device
        self._output = 1
        self._timer_s = device.now_s
        self._interval_s = 0.0

    def write(self, line: str) -> None:
        """A line of output, where output is not switched off."""
        if self._output & 1:
            self.written.append(line)

    def live(self, duration_s: float) -> None:
        """Let time pass."""
        self._device.live(duration_s)
        self.paused = True

    @staticmethod
    def store(out: Value, value: Value, kind: Value) -> None:
        out.take(value.number)
        out.kind = kind.kind

    @staticmethod
    def copy(source: Value, out: Value) -> None:
        out.number, out.kind = source.number, source.kind
        out.status, out.range_index = source.status, source.range_index
        out.full_scale = source.full_scale

    @staticmethod
    def calculate(name: str, out: Value, value: Value) -> None:
        a, b = out.number, value.number
        if type(a) is float and type(b) is float:
            if b == 0 and name in _DIVISIONS:
                raise RunError(Code.DIVISION_BY_ZERO)
            try:
                out.number = single(_FLOATS[name](a, b))
            except (OverflowError, ValueError, ZeroDivisionError, TypeError):
                raise RunError(Code.NOT_A_NUMBER) from None
        elif isinstance(a, int) and isinstance(b, int):
            if b == 0 and name in _DIVISIONS:
                raise RunError(Code.DIVISION_BY_ZERO)
            out.number = integer(_INTEGERS[name](a, b))
        else:
            raise RunError(Code.WRONG_DATATYPE)
        out.forget_measurement()

    def measure(self, duration: Value, out: Value, kind: Value) -> None:
        if not duration.number > 0:
            raise RunError(Code.NOT_POSITIVE)
        self.live(float(duration.number))
        if kind.kind == "ab":
            self._device.read_potential(out)
        elif kind.kind == "ba":
            self._device.read_current(out)
        else:
            raise RunError(Code.BAD_VARIABLE_TYPE)

    def start_timer(self) -> None:
        self._timer_s = self._device.now_s

    def get_timer(self, out: Value) -> None:
        out.take(single(self._device.now_s - self._timer_s))
        out.kind = "eb"

    def set_interval(self, interval: Value) -> None:
        self._interval_s = float(interval.number)

    def await_interval(self) -> None:
        self.live(self._interval_s)

    def set_output(self, how: Value) -> None:
        self._output = int(how.number)

    def start_package(self) -> None:
        self.package = []

    def add_to_package(self, value: Value) -> None:
        package = self.package if self.package is not None else []
        if len(package) >= LARGEST_PACKAGE:
            raise RunError(Code.PACKAGE_FULL)
        package.append(value)

    def end_package(self) -> None:
        package, self.package = self.package or [], None
        self.write("P" + ";".join(encoded(value) for value in package))

    def set_potential(self, value: Value) -> None:
        self._device.set_potential(float(value.number))

    def set_current(self, value: Value) -> None:
        self._device.set_current(float(value.number))

    def switch_off(self) -> None:
        self._device.switch(on=False)

    def set_mode(self, value: Value) -> None:
        self._device.set_mode(int(value.number))

    def set_range(self, kind: Value, value: Value) -> None:
        self._device.set_range(kind.kind, float(value.number))

    def set_minmax(self, kind: Value, low: Value, high: Value) -> None:
        self._device.set_range_minmax(kind.kind, float(low.number), float(high.number))

    def set_autoranging(self, kind: Value, low: Value, high: Value) -> None:
        self._device.set_autoranging(kind.kind, float(low.number), float(high.number))

    def set_bandwidth(self, value: Value) -> None:
        if not value.number > 0:
            raise RunError(Code.NOT_POSITIVE)

    def set_channel(self, value: Value) -> None:
        if int(value.number) not in {0, 1}:
            raise RunError(Code.OUT_OF_BOUNDS)

    def configure_pins(self, mask: Value, how: Value) -> None:
        pins = self._pins(mask)
        if int(how.number) == 1:
            self._device.pins_out |= pins
        else:
            self._device.pins_out &= ~pins

    def set_pins(self, mask: Value) -> None:
        pins = self._pins(mask)
        if pins & ~self._device.pins_out:
            raise RunError(Code.PIN_IS_NO_OUTPUT)
        self._device.pins = pins
        self._device.pulses.append((self._device.now_s, pins))

    def get_pins(self, out: Value) -> None:
        out.take(self._device.pins)

    def _pins(self, mask: Value) -> int:
        if not isinstance(mask.number, int):
            raise RunError(Code.WRONG_DATATYPE)
        if mask.number >> self._device.model.pins:
            raise RunError(Code.NO_SUCH_PIN)
        return mask.number


def _as_float(out: Value) -> None:
    out.take(single(float(out.number)))


def _as_integer(out: Value) -> None:
    if math.isnan(out.number):
        raise RunError(Code.NOT_A_NUMBER)
    out.take(integer(int(out.number)))


def _retyped(out: Value, kind: Value) -> None:
    out.kind = kind.kind


SIMPLE: Final[dict[str, Callable[[Actions, list[Value]], None]]] = {
    "store_var": lambda self, given: self.store(*given),
    "copy_var": lambda self, given: self.copy(*given),
    "add_var": lambda self, given: self.calculate("add", *given),
    "sub_var": lambda self, given: self.calculate("sub", *given),
    "mul_var": lambda self, given: self.calculate("mul", *given),
    "div_var": lambda self, given: self.calculate("div", *given),
    "mod_var": lambda self, given: self.calculate("mod", *given),
    "pow_var": lambda self, given: self.calculate("pow", *given),
    "alter_vartype": lambda _, given: _retyped(*given),
    "int_to_float": lambda _, given: _as_float(*given),
    "float_to_int": lambda _, given: _as_integer(*given),
    "timer_start": lambda self, _: self.start_timer(),
    "timer_get": lambda self, given: self.get_timer(*given),
    "set_int": lambda self, given: self.set_interval(*given),
    "await_int": lambda self, _: self.await_interval(),
    "set_script_output": lambda self, given: self.set_output(*given),
    "pck_start": lambda self, _: self.start_package(),
    "pck_add": lambda self, given: self.add_to_package(*given),
    "pck_end": lambda self, _: self.end_package(),
    "set_pgstat_chan": lambda self, given: self.set_channel(*given),
    "set_pgstat_mode": lambda self, given: self.set_mode(*given),
    "set_max_bandwidth": lambda self, given: self.set_bandwidth(*given),
    "set_range": lambda self, given: self.set_range(*given),
    "set_range_minmax": lambda self, given: self.set_minmax(*given),
    "set_autoranging": lambda self, given: self.set_autoranging(*given),
    "set_e": lambda self, given: self.set_potential(*given),
    "set_i": lambda self, given: self.set_current(*given),
    "cell_off": lambda self, _: self.switch_off(),
    "meas": lambda self, given: self.measure(*given),
    "set_gpio_cfg": lambda self, given: self.configure_pins(*given),
    "set_gpio": lambda self, given: self.set_pins(*given),
    "get_gpio": lambda self, given: self.get_pins(*given),
}
"""Commands that take their arguments as they are, and go on to the next."""
