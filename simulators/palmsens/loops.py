"""Measurement loops, as iterators: True is a turn of the loop, False a part of one.

Each lets the cell live for as long as the turn takes, in pieces, and puts what was measured into
the loop's variables.

Source: MethodSCRIPT manual v1.8, chapter 14.11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from labctl.simulators.palmsens.device import Potentiostat
from labctl.simulators.palmsens.errors import Code, RunError
from labctl.simulators.palmsens.values import Value

FASTEST_S: Final = 0.9999e-4
PERIODS: Final = 3.0
"""How long one frequency is measured, and never shorter than the following."""
LEAST_S: Final = 0.05
PIECE_S: Final = 2.0
"""How long the cell lives before somebody may end the script."""
"""How long one frequency is measured: so many periods, and never shorter."""
MOST_TURNS: Final = 10_000_000

TECHNIQUES: Final = {
    "meas_loop_lsv": 0x0000,
    "meas_loop_cv": 0x0005,
    "meas_loop_ca": 0x0007,
    "meas_loop_cp": 0x000A,
    "meas_loop_ocp": 0x000B,
    "meas_loop_eis": 0x000D,
    "meas_loop_geis": 0x000E,
    "meas_loop_lsp": 0x000F,
}
"""What ``M`` is followed by."""

NEED_GALVANOSTAT: Final = frozenset({"meas_loop_cp", "meas_loop_lsp", "meas_loop_geis"})


@dataclass(slots=True)
class Turns:
    """What a loop tells while it runs: how long its turn lasted, and which scan it begins."""

    interval_s: float = 0.0
    scan: int = -1
    scan_over: bool = False
    reverse: bool = False


Loop = Callable[[Potentiostat, Sequence[Value], Sequence[float], Turns], Iterator[bool]]


def begin_loop(name: str, device: Potentiostat) -> None:
    """Refuse what cannot be measured in the state that the instrument is in."""
    if name == "meas_loop_ocp":
        if device.on:
            raise RunError(Code.OCP_WITH_CELL_ON)
        return
    if (name in NEED_GALVANOSTAT) != device.holds_current:
        raise RunError(Code.WRONG_MODE)
    if not device.on:
        raise RunError(Code.NEEDS_CELL_ON)


def _ocp(
    device: Potentiostat, out: Sequence[Value], given: Sequence[float], turns: Turns
) -> Iterator[bool]:
    interval_s, run_s = given
    for _ in range(_count(interval_s, run_s)):
        turns.interval_s = interval_s
        yield from _live(device, turns.interval_s)
        device.read_potential(out[0])
        yield True


def _held(
    device: Potentiostat, out: Sequence[Value], given: Sequence[float], turns: Turns
) -> Iterator[bool]:
    """Chronoamperometry and chronopotentiometry."""
    level, interval_s, run_s = given
    if device.holds_current:
        device.set_current(level)
    else:
        device.set_potential(level)
    for _ in range(_count(interval_s, run_s)):
        turns.interval_s = interval_s
        yield from _live(device, turns.interval_s)
        device.read_potential(out[0])
        device.read_current(out[1])
        yield True


def _lsv(
    device: Potentiostat, out: Sequence[Value], given: Sequence[float], turns: Turns
) -> Iterator[bool]:
    """Linear sweeps: of the potential, or in a galvanostat of the current."""
    begin, end, step, rate = given
    levels = _levels(begin, end, _step(device, step))
    yield from _stairs(device, out, levels, step / _positive(rate), turns)


def _cv(
    device: Potentiostat, out: Sequence[Value], given: Sequence[float], turns: Turns
) -> Iterator[bool]:
    begin, first, second, step, rate, scans = given
    step = _step(device, step)
    for scan in range(max(1, int(scans))):
        turns.scan = scan if scans > 1 else -1
        legs = [first, second, begin]
        here = begin
        for place, target in enumerate(legs):
            levels = _levels(here, target, step)[min(place, 1) :]
            for whole in _stairs(device, out, levels, step / _positive(rate), turns):
                yield whole
                here = float(out[0].number)
                if turns.reverse:
                    turns.reverse = False
                    break
        turns.scan_over = scans > 1


def _stairs(
    device: Potentiostat,
    out: Sequence[Value],
    levels: Sequence[float],
    interval_s: float,
    turns: Turns,
) -> Iterator[bool]:
    if interval_s < FASTEST_S:
        raise RunError(Code.TOO_FAST)
    for level in levels:
        turns.interval_s = interval_s
        if device.holds_current:
            device.set_current(level)
            yield from _live(device, interval_s)
            device.read_potential(out[0])
            device.read_current(out[1])
        else:
            set_V = device.set_potential(level)
            yield from _live(device, interval_s)
            out[0].take(set_V)
            out[0].kind, out[0].full_scale = "da", device.widest_V
            device.read_current(out[1])
        yield True


def _spectrum(
    device: Potentiostat, out: Sequence[Value], given: Sequence[float], turns: Turns
) -> Iterator[bool]:
    amplitude, first_Hz, last_Hz, count, bias = given
    if not amplitude > 0:
        raise RunError(Code.NOT_POSITIVE)
    if device.holds_current:
        device.set_current(abs(bias) + math.sqrt(2) * amplitude)
        device.set_current(bias)
    else:
        if amplitude > device.model.amplitude_max_V:
            raise RunError(Code.BAD_AMPLITUDE)
        device.set_potential(bias)
    fastest_Hz = min(device.model.eis_max_Hz, device.model.modes[device.mode].fastest_Hz)
    for frequency_Hz in (first_Hz, last_Hz):
        if not 0 < frequency_Hz <= fastest_Hz * (1 + 1e-6):
            raise RunError(Code.BAD_FREQUENCY)
    points = int(count)
    if points < 1:
        raise RunError(Code.NO_STEP)
    ratio = (last_Hz / first_Hz) ** (1.0 / (points - 1)) if points > 1 else 1.0
    for place in range(points):
        frequency_Hz = first_Hz * ratio**place
        turns.interval_s = max(PERIODS / frequency_Hz, LEAST_S)
        yield from _live(device, turns.interval_s)
        out[0].take(frequency_Hz)
        out[0].kind = "dc"
        device.read_impedance(frequency_Hz, out[1], out[2])
        yield True


LOOPS: Final[dict[str, tuple[int, Loop]]] = {
    "meas_loop_ocp": (1, _ocp),
    "meas_loop_ca": (2, _held),
    "meas_loop_cp": (2, _held),
    "meas_loop_lsv": (2, _lsv),
    "meas_loop_lsp": (2, _lsv),
    "meas_loop_cv": (2, _cv),
    "meas_loop_eis": (3, _spectrum),
    "meas_loop_geis": (3, _spectrum),
}
"""How many of the arguments are variables to be filled, and the loop."""


def _live(device: Potentiostat, duration_s: float) -> Iterator[bool]:
    while duration_s > PIECE_S:
        device.live(PIECE_S)
        duration_s -= PIECE_S
        yield False
    device.live(duration_s)


def _count(interval_s: float, run_s: float) -> int:
    if interval_s < FASTEST_S:
        raise RunError(Code.TOO_FAST)
    count = round(_positive(run_s) / interval_s)
    if count < 1:
        raise RunError(Code.NO_STEP)
    return min(count, MOST_TURNS)


def _step(device: Potentiostat, step: float) -> float:
    if not device.holds_current and _positive(step) < device.model.set_step_V * 0.999:
        raise RunError(Code.STEP_TOO_SMALL)
    return _positive(step)


def _levels(begin: float, end: float, step: float) -> list[float]:
    """From begin to end in steps; the end is the last one."""
    count = math.ceil(abs(end - begin) / step - 1e-3)
    if count < 1:
        raise RunError(Code.NO_STEP)
    if count > MOST_TURNS:
        raise RunError(Code.OUT_OF_BOUNDS)
    way = math.copysign(step, end - begin)
    return [*(begin + place * way for place in range(count)), end]


def _positive(value: float) -> float:
    if not value > 0:
        raise RunError(Code.NOT_POSITIVE)
    return value
