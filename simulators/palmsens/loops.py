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
from labctl.simulators.palmsens.values import Value, single

FASTEST_S: Final = 0.9999e-4
PERIODS: Final = 3.0
"""How long one frequency is measured, and never shorter than the following."""
LEAST_S: Final = 0.05
PIECE_S: Final = 2.0
"""How long the cell lives before somebody may end the script."""
"""How long one frequency is measured: so many periods, and never shorter."""
LEAST_LEG: Final = 1e-3
"""A leg of a cyclic sweep that is shorter than this share of a step is left out: a scan that begins
at one of its vertices has two legs."""
MOST_TURNS: Final = 10_000_000

TECHNIQUES: Final = {
    "meas_loop_lsv": 0x0000,
    "meas_loop_dpv": 0x0001,
    "meas_loop_swv": 0x0002,
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
    """Chronoamperometry, which gives the potential that is set, and chronopotentiometry."""
    level, interval_s, run_s = given
    set_V = 0.0
    if device.holds_current:
        device.set_current(level)
    else:
        set_V = device.set_potential(level)
    for _ in range(_count(interval_s, run_s)):
        turns.interval_s = interval_s
        yield from _live(device, turns.interval_s)
        if device.holds_current:
            device.read_potential(out[0])
        else:
            _show_set(device, out[0], set_V)
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
        if max(abs(first - begin), abs(second - first)) < step * LEAST_LEG:
            raise RunError(Code.NO_STEP)
        already = 0
        for target in legs:
            if abs(target - here) < step * LEAST_LEG:
                continue
            levels = _levels(here, target, step)[already:]
            here, already = target, 1
            for whole in _stairs(device, out, levels, step / _positive(rate), turns):
                yield whole
                if turns.reverse:
                    turns.reverse = False
                    here = float(out[0].number)
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
            _show_set(device, out[0], set_V)
            device.read_current(out[1])
        yield True


def _show_set(device: Potentiostat, into: Value, set_V: float) -> None:
    into.take(set_V)
    into.kind, into.full_scale = "da", device.widest_V


def _dpv(
    device: Potentiostat, out: Sequence[Value], given: Sequence[float], turns: Turns
) -> Iterator[bool]:
    """Differential pulses: the current at the end of each pulse less that just before it."""
    begin, end, step, pulse_V, pulse_s, rate = given
    interval_s = step / _positive(rate)
    if _positive(pulse_s) * 2 > interval_s * (1 + 1e-9):
        raise RunError(Code.TOO_FAST)
    before = Value()
    for level in _levels(begin, end, _step(device, step)):
        turns.interval_s = interval_s
        set_V = device.set_potential(level)
        yield from _live(device, interval_s - pulse_s)
        device.read_current(before)
        device.set_potential(level + math.copysign(_positive(pulse_V), end - begin))
        yield from _live(device, pulse_s)
        device.read_current(out[1])
        out[1].number = single(float(out[1].number) - float(before.number))
        _show_set(device, out[0], set_V)
        device.set_potential(level)
        yield True


def _swv(
    device: Potentiostat, out: Sequence[Value], given: Sequence[float], turns: Turns
) -> Iterator[bool]:
    """Square waves: the currents at the ends of both halves, and their difference."""
    begin, end, step, amplitude_V, frequency_Hz = given
    half_s = 0.5 / _positive(frequency_Hz)
    if 2 * half_s < FASTEST_S:
        raise RunError(Code.TOO_FAST)
    way_V = math.copysign(_positive(amplitude_V), end - begin)
    for level in _levels(begin, end, _step(device, step)):
        turns.interval_s = 2 * half_s
        for half, into in ((way_V, out[2]), (-way_V, out[3])):
            device.set_potential(level + half)
            yield from _live(device, half_s)
            device.read_current(into)
        out[1].kind = out[2].kind
        out[1].status, out[1].range_index = out[2].status | out[3].status, out[2].range_index
        out[1].full_scale = out[2].full_scale
        out[1].number = single(float(out[2].number) - float(out[3].number))
        _show_set(device, out[0], level)
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
    "meas_loop_dpv": (2, _dpv),
    "meas_loop_swv": (4, _swv),
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
