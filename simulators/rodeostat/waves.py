"""The voltages of the instrument's tests over time, from parameters as they stand in a message.

Times are whole us, as in the firmware; each begins with ``quietValue`` for ``quietTime``.
``squareWave`` and ``differentialPulse``, which sample in ways of their own, are not among them.

Source: firmware github.com/iorodeo/potentiostat at 86e4708, ``ps_*_test.{h,cpp}``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MS: Final = 1000
"""us."""
MOST_STEPS: Final = 50

Params = dict[str, Any]


class ParamError(Exception):
    """A parameter that is refused; the words are the firmware's."""


@dataclass(frozen=True, slots=True)
class Wave:
    """``value_V`` of us since the start; ``finest_us`` is how fast it may change."""

    value_V: Callable[[int], float]
    done_us: int
    lowest_V: float
    highest_V: float
    finest_us: int


@dataclass(frozen=True, slots=True)
class Test:
    """A kind of test: its parameters as delivered, and its wave from them.

    A default tells the kind: whole numbers are times and counts, others are floats.
    """

    defaults: Params
    wave: Callable[[Params], Wave]
    steps: int | None = None
    """How many steps it has: None for no steps at all, 0 for as many as it is given."""


def _quiet(params: Params, value_V: Callable[[int], float]) -> tuple[Callable[[int], float], int]:
    quiet_us, quiet_V = params["quietTime"] * MS, params["quietValue"]
    return (lambda t: quiet_V if t < quiet_us else value_V(t - quiet_us)), quiet_us


def _constant(params: Params) -> Wave:
    level = float(params["value"])
    value_V, quiet_us = _quiet(params, lambda _: level)
    return Wave(
        value_V,
        quiet_us + params["duration"] * MS,
        min(level, params["quietValue"]),
        max(level, params["quietValue"]),
        10**6,
    )


def _linear_sweep(params: Params) -> Wave:
    start, final = float(params["startValue"]), float(params["finalValue"])
    duration_us = int(params["duration"]) * MS

    def ramp(t: int) -> float:
        return (final - start) * t / max(1, duration_us) + start

    value_V, quiet_us = _quiet(params, ramp)
    levels = (start, final, params["quietValue"])
    return Wave(
        value_V,
        quiet_us + duration_us,
        min(levels),
        max(levels),
        _finest(abs(final - start), duration_us),
    )


def _periodic(shape: Callable[[float], float]) -> Callable[[Params], Wave]:
    """``shape`` is of the share of a period, from -1 to 1."""

    def wave(params: Params) -> Wave:
        amplitude, offset = float(params["amplitude"]), float(params["offset"])
        period_us = max(1, params["period"] * MS)
        shift_us = round(params["shift"] * period_us)

        def value(t: int) -> float:
            return offset + amplitude * shape(((t + shift_us) % period_us) / period_us)

        value_V, quiet_us = _quiet(params, value)
        levels = (offset - abs(amplitude), offset + abs(amplitude), params["quietValue"])
        return Wave(
            value_V,
            quiet_us + params["numCycles"] * period_us,
            min(levels),
            max(levels),
            _finest(4 * abs(amplitude), period_us),
        )

    return wave


def _steps(params: Params) -> Wave:
    steps = [(duration * MS, level) for duration, level in params["step"]]
    ends = [sum(duration for duration, _ in steps[: place + 1]) for place in range(len(steps))]

    def value(t: int) -> float:
        for end_us, (_, level) in zip(ends, steps, strict=True):
            if t <= end_us:
                return float(level)
        return 0.0

    value_V, quiet_us = _quiet(params, value)
    levels = [level for _, level in steps] or [0.0]
    done_us = quiet_us + (ends[-1] if ends else 0)
    return Wave(value_V, done_us, min(levels), max(levels), min([10**4, *ends]))


def _finest(way_V: float, time_us: int) -> int:
    """How long it takes to move by 1 mV, within bounds."""
    return round(min(1e6, max(200.0, 1e-3 * time_us / way_V if way_V else 1e6)))


def _triangle(share: float) -> float:
    return 4 * share - 1 if share < 0.5 else 3 - 4 * share


QUIET: Final = {"quietValue": 0.0, "quietTime": 0}
PERIODIC: Final = QUIET | {
    "amplitude": 0.5,
    "offset": 0.0,
    "period": 1000,
    "numCycles": 1,
    "shift": 0.0,
}
DELIVERED_STEPS: Final = [[1000, 0.5], [1000, -0.5]]

TESTS: Final = {
    "cyclic": Test(PERIODIC, _periodic(_triangle)),
    "sinusoid": Test(PERIODIC, _periodic(lambda share: -math.cos(2 * math.pi * share))),
    "constant": Test(QUIET | {"value": 0.0, "duration": 1000}, _constant),
    "linearSweep": Test(
        QUIET | {"startValue": 0.0, "finalValue": 0.5, "duration": 1000}, _linear_sweep
    ),
    "chronoamp": Test(QUIET | {"step": DELIVERED_STEPS}, _steps, steps=2),
    "multiStep": Test(QUIET | {"step": DELIVERED_STEPS}, _steps, steps=0),
}
"""Every test by its name. What the parameters are before anybody sets them is assumed."""


def merged(test: Test, before: Params, given: object) -> tuple[Params, Params]:
    """The parameters after ``given``, and those of them that were given.

    Raises:
        ParamError: one of them is not what it must be.
    """
    if not isinstance(given, dict):
        raise ParamError("param not JsonObject")
    known = {key: given[key] for key in test.defaults if key in given}
    for key, value in known.items():
        if key == "step":
            _check_steps(value, test.steps)
        elif isinstance(test.defaults[key], int):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
                raise ParamError(f"{key} not uint32")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ParamError(f"{key} not a float")
        elif key == "shift" and not 0 <= value <= 1:
            raise ParamError("shift out of range")
    if test.steps is not None and "step" not in known:
        raise ParamError("step key not found")
    return before | known, known


def _check_steps(value: object, count: int | None) -> None:
    if not isinstance(value, list):
        raise ParamError("step not a JsonArray")
    if len(value) > (count or MOST_STEPS):
        raise ParamError("step array too large")
    for item in value:
        if not isinstance(item, list):
            raise ParamError("step item not JsonArary")
        if len(item) != 2:
            raise ParamError("step item size!=2")
        if isinstance(item[0], bool) or not isinstance(item[0], int):
            raise ParamError("step item[0] not uint32")
        if isinstance(item[1], bool) or not isinstance(item[1], float):
            raise ParamError("step item[1] not float")
