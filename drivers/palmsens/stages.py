"""Pieces of MethodSCRIPT that every technique is made of. No I/O.

Variables: ``n`` time in ticks, ``p`` potential, ``c`` current, ``a`` and ``b`` charge and energy
since the visit began, ``q`` and ``e`` the same since the last record, ``k`` why a package is sent,
``x`` the visit's mark, ``m`` when the next record is due, ``u`` and ``y`` potential and current of
the last record, ``z`` the last current, ``d`` for calculating. The limits are in variables of their
own, which the first package of a script sends back.

Charge is summed up in two steps, within a record and over the records, because an instrument
calculates in single precision.

Source: MethodSCRIPT manual v1.8, chapters 13 and 14.
"""

from __future__ import annotations

import enum
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from labctl.drivers.base import Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.pace import end_ticks, sample_ticks
from labctl.drivers.palmsens.packages import Kind, integer, literal
from labctl.program import Comparison, Limits, Quantity, RecordRule

SECONDS_PER_HOUR: Final = 3600.0
BANDWIDTH_PER_SAMPLE: Final = 5.85
"""Bandwidth times the interval of samples, as the manufacturer's scripts have it."""

_A_BIT_MORE: Final = 1 + 1e-6
"""A charge must be past its end also when a package has rounded it."""


class Why(enum.IntEnum):
    """Why a package was sent. From ``ENDS`` on, the end condition of that number."""

    NOTHING = 0
    RECORD = 1
    VOLTAGE_HIGH = 2
    VOLTAGE_LOW = 3
    CURRENT_HIGH = 4
    CURRENT_LOW = 5
    CHARGE = 6
    CURRENT_MAX = 7
    LAST = 8
    """The last sample of a measurement that ended by itself."""
    REACHED = 9
    """The voltage at which constant current becomes constant voltage."""
    ENDS = 10


FIRST_LIMIT: Final = Why.VOLTAGE_HIGH
LAST_LIMIT: Final = Why.CURRENT_MAX


@dataclass(frozen=True, slots=True)
class Script:
    """One visit as a script.

    lines: of the script. declared: those that set the limits and send them back, which run by
        themselves as well. mark: what every package of the visit carries. tick_s: the unit of its
        time. silence_s: the longest time, in s of the instrument, without a package.
    """

    lines: tuple[str, ...]
    declared: tuple[str, ...]
    mark: int
    tick_s: float
    silence_s: float

    def text(self) -> bytes:
        return script_bytes(self.lines)


@dataclass(frozen=True, slots=True)
class Stage:
    """A measurement loop: its command, and how its samples are judged.

    loop: the command with its arguments. ticks, interval_s: between two samples.
    with_current: it has a current in ``c``.
    reached: a potential at which it is left with ``Why.REACHED``, and from which side.
    near: one at which it is left without a word, for a loop that goes on from there.
    current_max_A: a magnitude that trips it.
    """

    loop: str
    ticks: int
    interval_s: float
    with_current: bool = True
    reached: tuple[str, str] | None = None
    near: tuple[str, str] | None = None
    current_max_A: float = math.inf


LIMITS: Final = (
    ("vh", Kind.VOLTAGE_HIGH, "voltage_max_V", 1.0),
    ("vl", Kind.VOLTAGE_LOW, "voltage_min_V", 1.0),
    ("ch", Kind.CURRENT_HIGH, "current_max_A", 1.0),
    ("cl", Kind.CURRENT_LOW, "current_min_A", 1.0),
    ("qh", Kind.CHARGE_LIMIT, "step_charge_max_Ah", SECONDS_PER_HOUR),
)
"""Variable, type in the package, field of :class:`Limits`, and SI units in one of the field's."""


def script_bytes(lines: Iterable[str]) -> bytes:
    """A script as it is sent: an empty line ends it."""
    return b"".join(line.encode("ascii") + b"\n" for line in (*lines, ""))


def mark_of(task: Task) -> int:
    """A number that tells this visit from others; fits into a package."""
    said = f"{task.tag} {task.done_s!r} {task.done_Ah!r}".encode()
    return 1 + zlib.crc32(said) % (2**26)


def declarations(limits: Limits, mark: int) -> tuple[str, ...]:
    """The limits in variables, and the package that sends them back."""
    armed = [
        (name, kind, getattr(limits, field) * scale)
        for name, kind, field, scale in LIMITS
        if math.isfinite(getattr(limits, field))
    ]
    lines: list[str] = []
    for name, kind, value in armed:
        lines += [f"var {name}", f"store_var {name} {literal(value)} {kind}"]
    lines += ["var x", f"store_var x {integer(mark)} {Kind.MARK}"]
    return (*lines, *package([*(name for name, _, _ in armed), "x"]))


def variables(task: Task) -> tuple[str, ...]:
    """Every variable of a sampling loop, as it is when the visit begins."""
    zeros = (
        ("n", "0i", Kind.COUNT),
        ("p", "0", Kind.POTENTIAL),
        ("c", "0", Kind.CURRENT),
        ("a", literal(task.done_Ah * SECONDS_PER_HOUR), Kind.CHARGE),
        ("b", "0", Kind.ENERGY),
        ("q", "0", Kind.CHARGE),
        ("e", "0", Kind.ENERGY),
        ("k", integer(Why.REACHED), Kind.WHY),
        ("m", "0i", Kind.COUNT),
        ("u", "0", Kind.POTENTIAL),
        ("y", "0", Kind.CURRENT),
        ("z", "0", Kind.CURRENT),
        ("d", "0", Kind.CHARGE),
    )
    return tuple(
        line
        for name, value, kind in zeros
        for line in (f"var {name}", f"store_var {name} {value} {kind}")
    )


def sampling(stage: Stage, task: Task, tick_s: float) -> list[str]:
    """The measurement loop of a stage, with everything that is done at each sample."""
    body = [f"add_var n {integer(stage.ticks)}"]
    if stage.with_current:
        body += [
            f"if n == {integer(stage.ticks)}",
            "copy_var c z",
            "endif",
            "copy_var c d",
            "add_var d z",
            "copy_var c z",
            f"mul_var d {literal(stage.interval_s / 2)}",
            "add_var q d",
            "mul_var d p",
            "add_var e d",
        ]
    body += [f"store_var k {integer(Why.NOTHING)} {Kind.WHY}"]
    body += record_rule(task.step.record, stage.with_current)
    if stage.reached is not None:
        comparison, value = stage.reached
        body += when(f"p {comparison} {value}", Why.REACHED)
    body += ends_of(task, tick_s, stage.with_current)
    body += limits_of(task.limits, stage.with_current, with_charge=stage.with_current)
    if math.isfinite(stage.current_max_A):
        body += [*magnitude("c"), *when(f"d > {literal(stage.current_max_A)}", Why.CURRENT_MAX)]
    every = max(1, math.floor(min(task.step.record.every_s, 1e9) / tick_s * _A_BIT_MORE))
    leave = [f"if k >= {integer(FIRST_LIMIT)}", "breakloop", "endif"]
    body += ["if k > 0i", *recorded(stage.with_current, every), *leave, "endif"]
    if stage.near is not None:
        comparison, value = stage.near
        body += [f"if p {comparison} {value}", "breakloop", "endif"]
    return [stage.loop, *body, "endloop"]


def recorded(with_current: bool, every_ticks: int) -> list[str]:
    """Send a record, and begin to count for the next."""
    lines: list[str] = []
    sent = ["n", "p", "k", "x"]
    if with_current:
        lines += [
            "add_var a q",
            "add_var b e",
            f"store_var q 0 {Kind.CHARGE}",
            f"store_var e 0 {Kind.ENERGY}",
            "copy_var c y",
        ]
        sent = ["n", "p", "c", "a", "b", "k", "x"]
    every = integer(min(every_ticks, 2**26))
    return [*lines, "copy_var p u", "copy_var n m", f"add_var m {every}", *package(sent)]


def record_rule(rule: RecordRule, with_current: bool) -> list[str]:
    """``k`` becomes 1 where a record is due."""
    lines = when("n >= m", Why.RECORD)
    if math.isfinite(rule.voltage_change_V):
        lines += [*change("p", "u"), *when(f"d >= {literal(rule.voltage_change_V)}", Why.RECORD)]
    if with_current and math.isfinite(rule.current_change_A):
        lines += [*change("c", "y"), *when(f"d >= {literal(rule.current_change_A)}", Why.RECORD)]
    if with_current and math.isfinite(rule.charge_change_Ah):
        charge_As = rule.charge_change_Ah * SECONDS_PER_HOUR
        lines += [*magnitude("q"), *when(f"d >= {literal(charge_As)}", Why.RECORD)]
    return lines


def ends_of(task: Task, tick_s: float, with_current: bool) -> list[str]:
    """``k`` becomes the number of the first end condition that holds.

    What the instrument does not know (a slope, a temperature, the charge of the run) is left to the
    host.
    """
    lines: list[str] = []
    for number, end in reversed(list(enumerate(task.step.ends))):
        why = Why.ENDS + number
        holds = f"{end.comparison} {literal(end.value)}"
        match end.quantity:
            case Quantity.STEP_TIME_S if end.comparison is Comparison.AT_LEAST:
                lines += when(f"n >= {integer(end_ticks(end, task, tick_s))}", why)
            case Quantity.VOLTAGE_V:
                lines += when(f"p {holds}", why)
            case Quantity.CURRENT_A if with_current:
                lines += [*magnitude("c"), *when(f"d {holds}", why)]
            case Quantity.STEP_CHARGE_AH if with_current:
                value = literal(end.value * SECONDS_PER_HOUR * _A_BIT_MORE)
                lines += [*total("a", "q"), *when(f"d {end.comparison} {value}", why)]
            case Quantity.STEP_ENERGY_WH if with_current:
                value = literal(end.value * SECONDS_PER_HOUR * _A_BIT_MORE)
                lines += [*total("b", "e"), *when(f"d {end.comparison} {value}", why)]
            case _:
                pass
    return lines


def limits_of(limits: Limits, with_current: bool, *, with_charge: bool) -> list[str]:
    """``k`` becomes the limit that was passed; the limits are those that were sent back."""
    lines: list[str] = []
    if with_charge and math.isfinite(limits.step_charge_max_Ah):
        lines += [*total("a", "q"), *when("d > qh", Why.CHARGE)]
    if with_current and math.isfinite(limits.current_min_A):
        lines += when("c < cl", Why.CURRENT_LOW)
    if with_current and math.isfinite(limits.current_max_A):
        lines += when("c > ch", Why.CURRENT_HIGH)
    if math.isfinite(limits.voltage_min_V):
        lines += when("p < vl", Why.VOLTAGE_LOW)
    if math.isfinite(limits.voltage_max_V):
        lines += when("p > vh", Why.VOLTAGE_HIGH)
    return lines


def potentiostat(
    config: PalmSensConfig,
    low_V: str,
    high_V: str,
    *,
    mode: int,
    bandwidth_Hz: float,
    current_A: float,
    at: str,
) -> list[str]:
    """The cell on at the potential ``at``; currents up to ``current_A`` are measured."""
    kind = config.kind
    full_A = kind.range_for(current_A) or kind.current_ranges_A[-1]
    return [
        "set_pgstat_chan 0",
        f"set_pgstat_mode {mode}",
        f"set_max_bandwidth {literal(bandwidth_Hz)}",
        f"set_acquisition_frac_autoadjust {config.mains_Hz:.0f}",
        f"set_range_minmax da {low_V} {high_V}",
        f"set_range ba {literal(full_A)}",
        f"set_autoranging ba {literal(kind.current_ranges_A[0])} {literal(full_A)}",
        f"set_e {at}",
        "cell_on",
    ]


def galvanostat(config: PalmSensConfig, current_A: float, full_A: float, mode: int) -> list[str]:
    """The cell on at a current, in the range that ``full_A`` needs."""
    volts, amperes = literal(config.widest_V), literal(abs(full_A))
    return [
        "set_pgstat_chan 0",
        f"set_pgstat_mode {mode}",
        f"set_max_bandwidth {literal(bandwidth_Hz(config.kind.fastest_sample_s))}",
        f"set_acquisition_frac_autoadjust {config.mains_Hz:.0f}",
        f"set_range ab {volts}",
        f"set_autoranging ab {volts} {volts}",
        f"set_range db {amperes}",
        f"set_autoranging db {amperes} {amperes}",
        f"set_i {literal(current_A)}",
        "cell_on",
    ]


def open_circuit(config: PalmSensConfig, mode: int) -> list[str]:
    """The cell off, ready to measure its potential."""
    volts = literal(config.widest_V)
    return [
        "set_pgstat_chan 0",
        f"set_pgstat_mode {mode}",
        f"set_max_bandwidth {literal(bandwidth_Hz(config.kind.fastest_sample_s))}",
        f"set_range ab {volts}",
        f"set_autoranging ab {volts} {volts}",
    ]


def when(condition: str, why: int) -> list[str]:
    return [f"if {condition}", f"store_var k {integer(why)} {Kind.WHY}", "endif"]


def magnitude(of: str) -> list[str]:
    """``d`` becomes |of|."""
    return [f"copy_var {of} d", *_absolute()]


def change(of: str, since: str) -> list[str]:
    """``d`` becomes |of - since|."""
    return [f"copy_var {of} d", f"sub_var d {since}", *_absolute()]


def total(of: str, more: str) -> list[str]:
    """``d`` becomes |of + more|."""
    return [f"copy_var {of} d", f"add_var d {more}", *_absolute()]


def package(names: Sequence[str]) -> list[str]:
    return ["pck_start", *(f"pck_add {name}" for name in names), "pck_end"]


def bandwidth_Hz(interval_s: float) -> float:
    return BANDWIDTH_PER_SAMPLE / interval_s


def interval(task: Task, config: PalmSensConfig) -> tuple[int, float]:
    """Ticks, and seconds, between two samples of a visit."""
    ticks = sample_ticks(task, config)
    return ticks, ticks * config.kind.fastest_sample_s


def _absolute() -> list[str]:
    return ["if d < 0", "mul_var d -1", "endif"]
