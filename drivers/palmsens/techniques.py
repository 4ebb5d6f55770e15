"""A visit to a step as one MethodSCRIPT, for each technique. No I/O.

Every script declares its limits, sends them back, waits a moment, measures, and ends with the cell
off: by itself, when it is aborted, and when a limit or an end is met. Constant voltage begins as
constant current at the largest current that is allowed, because a potentiostat cannot bound its
current; a model without a galvanostat does not offer it. Impedance is measured in pieces of one
decade at the most, and voltage, current and limits are looked at in between. The voltage of a sweep
is the one that is set, which is what the instrument gives for it.

Source: MethodSCRIPT manual v1.8, chapter 14.11; MethodSCRIPT_Examples, Measurement_Loops.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from labctl.drivers.base import Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.models import GALVANOSTAT
from labctl.drivers.palmsens.pace import NEAR_V, finer_ticks, next_end_V, time_left_s
from labctl.drivers.palmsens.packages import Kind, integer, literal
from labctl.drivers.palmsens.stages import (
    FIRST_LIMIT,
    Script,
    Stage,
    Why,
    bandwidth_Hz,
    declarations,
    galvanostat,
    interval,
    limits_of,
    mark_of,
    open_circuit,
    package,
    potentiostat,
    recorded,
    sampling,
    variables,
    when,
)
from labctl.errors import InstrumentError
from labctl.program import (
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    Impedance,
    Limits,
    Quantity,
    Rest,
    VoltageSweep,
    technique_of,
)

CELL_OFF: Final = ("on_finished:", "cell_off")
SETTLE_S: Final = 0.2
"""How long potential and current are measured beside a technique's own samples."""
AMPLITUDE_OF_RMS: Final = 1.0
"""What a script names as amplitude, for an RMS amplitude of 1; that it is RMS is to be verified."""
HEARD_S: Final = 0.25
"""Between the limits that a script sends back and the cell that it switches on: time for whoever
reads them to end a script that came through damaged."""
QUICK_S: Final = 1.0
"""How long the beginning of a held current that goes to a voltage is."""
PATIENCE_S: Final = 1.0
"""How late a package may be."""
PERIODS: Final = 8.0
"""How long, at the most, one frequency is measured."""


def script_of(task: Task, config: PalmSensConfig) -> Script:
    """The script of a visit.

    Raises:
        InstrumentError: the instrument has no such technique.
    """
    control = task.step.control
    match control:
        case Rest():
            return _rest(task, config)
        case ConstantCurrent(current_A=current_A):
            return _constant_current(task, config, current_A)
        case ConstantCurrentConstantVoltage(current_A=current_A, voltage_V=voltage_V):
            first = _held_current(task, config, current_A, voltage_V)
            return _then_voltage(task, config, first, current_A, voltage_V)
        case ConstantVoltage(voltage_V=voltage_V, max_current_A=most_A, charging=charging):
            return _constant_voltage(task, config, voltage_V, most_A if charging else -most_A)
        case VoltageSweep():
            return _sweep(task, config, control)
        case Impedance():
            return _impedance(task, config, control)
        case _:
            raise InstrumentError(f"{config.model} has no technique {technique_of(control)}")


def open_circuit_script(config: PalmSensConfig) -> tuple[str, ...]:
    """Measures the cell's potential with the cell off, and sends it."""
    measured = ["var p", *open_circuit(config, _slow_mode(config))]
    return (*measured, f"meas {literal(SETTLE_S)} p {Kind.POTENTIAL}", *package(["p"]))


def pulse_script(line: int, duration_s: float) -> tuple[str, ...]:
    """A pulse on a digital output; the others stay as they are."""
    mask = f"0x{1 << line:X}i"
    return (f"set_gpio_cfg {mask} 1i", f"set_gpio {mask}", f"wait {literal(duration_s)}", *_LOW)


_LOW: Final = ("set_gpio 0i",)


def sweep_step_V(control: VoltageSweep, config: PalmSensConfig) -> float:
    """The stairs of a sweep: higher where it is too fast to measure at each, and no higher than the
    whole of it."""
    step_V = max(config.sweep_step_V, control.rate_V_per_s * config.kind.fastest_sample_s)
    if control.from_V is None:
        return step_V
    return min(step_V, abs(control.to_V - control.from_V))


def sweep_window(
    control: VoltageSweep, limits: Limits, config: PalmSensConfig
) -> tuple[float, float]:
    """The lowest and the highest potential of a sweep; one that begins where the cell stands can
    begin anywhere within the limits."""
    if control.from_V is not None:
        return min(control.from_V, control.to_V), max(control.from_V, control.to_V)
    low_V = max(limits.voltage_min_V, config.lowest_V)
    high_V = min(limits.voltage_max_V, config.highest_V)
    return min(low_V, control.to_V), max(high_V, control.to_V)


def frequencies(control: Impedance) -> tuple[int, float]:
    """How many frequencies a spectrum has, and the ratio of one to the next (below 1)."""
    decades = math.log10(control.frequency_max_Hz / control.frequency_min_Hz)
    count = 1 + max(1, round(decades * control.points_per_decade))
    return count, 10.0 ** (-decades / (count - 1))


def _rest(task: Task, config: PalmSensConfig) -> Script:
    ticks, every_s = interval(task, config)
    loop = f"meas_loop_ocp p {literal(every_s)} {_run_time(task, every_s)}"
    body = [
        *open_circuit(config, _slow_mode(config)),
        *sampling(_stage(loop, ticks, every_s, with_current=False), task, _tick_s(config)),
    ]
    return _script(task, config, body, _tick_s(config))


def _constant_current(task: Task, config: PalmSensConfig, current_A: float) -> Script:
    body = _held_current(task, config, current_A)
    return _script(task, config, body, _tick_s(config))


def _held_current(
    task: Task, config: PalmSensConfig, current_A: float, voltage_V: float | None = None
) -> list[str]:
    """A constant current, until ``voltage_V`` is reached if one is given.

    The voltage may be near its end from the beginning, so it is sampled as fast as can be for a
    moment; then at the visit's interval until it is near, and then at a finer one. From loop to
    loop the current flows on, and time and charge count on.
    """
    ticks, every_s = interval(task, config)
    tick_s = _tick_s(config)
    on = galvanostat(config, current_A, current_A, GALVANOSTAT)

    def loop(ticks: int, lasts: str) -> Stage:
        stage = _stage(_cp(current_A, ticks * tick_s, lasts), ticks, ticks * tick_s)
        if voltage_V is None:
            return stage
        return replace(stage, reached=(_towards(current_A), literal(voltage_V)))

    end_V, finer = next_end_V(task, current_A, voltage_V), finer_ticks(ticks)
    if end_V is None or finer == ticks:
        return [*on, *sampling(loop(ticks, _run_time(task, every_s)), task, tick_s)]
    near = literal(end_V - math.copysign(NEAR_V, current_A))
    is_near, is_far = (_towards(current_A), near), ("<" if current_A > 0 else ">", near)
    quick = replace(loop(1, literal(QUICK_S)), near=is_near)
    usual = replace(loop(ticks, _run_time(task, every_s)), near=is_near)
    goes_on = f"if k < {integer(FIRST_LIMIT)}"
    return [
        *on,
        *sampling(quick, task, tick_s),
        goes_on,
        f"if p {' '.join(is_far)}",
        *sampling(usual, task, tick_s),
        "endif",
        "endif",
        goes_on,
        *sampling(loop(finer, _run_time(task, every_s)), task, tick_s),
        "endif",
    ]


def _towards(current_A: float) -> str:
    return ">=" if current_A > 0 else "<="


def _constant_voltage(
    task: Task, config: PalmSensConfig, voltage_V: float, current_A: float
) -> Script:
    """Where the cell is not beyond the voltage yet, constant current first."""
    beyond = "<" if current_A > 0 else ">"
    first = [
        *open_circuit(config, _slow_mode(config)),
        f"meas {literal(SETTLE_S)} p {Kind.POTENTIAL}",
        f"if p {beyond} {literal(voltage_V)}",
        *_held_current(task, config, current_A, voltage_V),
        "endif",
    ]
    return _then_voltage(task, config, first, current_A, voltage_V)


def _then_voltage(
    task: Task, config: PalmSensConfig, first: list[str], current_A: float, voltage_V: float
) -> Script:
    ticks, every_s = interval(task, config)
    at = literal(voltage_V)
    loop = f"meas_loop_ca p c {at} {literal(every_s)} {_run_time(task, every_s)}"
    held = [
        *potentiostat(
            config,
            at,
            at,
            mode=_slow_mode(config),
            bandwidth_Hz=bandwidth_Hz(_tick_s(config)),
            current_A=current_A,
            at=at,
        ),
        *sampling(_stage(loop, ticks, every_s), task, _tick_s(config)),
    ]
    body = [*first, f"if k == {integer(Why.REACHED)}", *held, "endif"]
    return _script(task, config, body, _tick_s(config))


def _sweep(task: Task, config: PalmSensConfig, control: VoltageSweep) -> Script:
    step_V = sweep_step_V(control, config)
    every_s = step_V / control.rate_V_per_s
    end = literal(control.to_V)
    begin = [*open_circuit(config, _slow_mode(config))]
    start = "v"
    if control.from_V is None:
        begin += ["var v", f"meas {literal(SETTLE_S)} v {Kind.POTENTIAL}"]
    else:
        start = literal(control.from_V)
    low_V, high_V = sweep_window(control, task.limits, config)
    bandwidth = bandwidth_Hz(max(every_s, _tick_s(config)))
    loop = f"meas_loop_lsv p c {start} {end} {literal(step_V)} {literal(control.rate_V_per_s)}"
    stage = replace(_stage(loop, 1, every_s), current_max_A=control.max_current_A)
    last = [
        f"if k == {integer(Why.NOTHING)}",
        f"store_var k {integer(Why.LAST)} {Kind.WHY}",
        *recorded(True, 1),
        "endif",
    ]
    body = [
        *begin,
        *potentiostat(
            config,
            literal(low_V),
            literal(high_V),
            mode=_mode(config, low_V, high_V, bandwidth),
            bandwidth_Hz=bandwidth,
            current_A=control.max_current_A,
            at=start,
        ),
        *sampling(stage, task, every_s),
        *last,
    ]
    return _script(task, config, body, every_s)


def _impedance(task: Task, config: PalmSensConfig, control: Impedance) -> Script:
    """``v`` is the bias, ``g`` a time for the ends."""
    count, ratio = frequencies(control)
    body = [
        *(line for name in ("v", "f", "r", "j", "t") for line in (f"var {name}",)),
        *_bias(config, control),
        "timer_start",
        *_looked_at(task),
    ]
    amplitude = literal(control.amplitude * AMPLITUDE_OF_RMS)
    kind = "geis" if control.galvanostatic else "eis"
    first = 0
    for size in _pieces(count, control.points_per_decade):
        high = control.frequency_max_Hz * ratio**first
        low = control.frequency_max_Hz * ratio ** (first + size - 1)
        body += [
            f"if k < {integer(FIRST_LIMIT)}",
            f"meas_loop_{kind} f r j {amplitude} {literal(high)} {literal(low)} {integer(size)} v",
            *package(["f", "r", "j", "x"]),
            "endloop",
            *_looked_at(task),
            "endif",
        ]
        first += size
    silence_s = PERIODS / control.frequency_min_Hz + config.kind.settles_s
    lines = _around(task, body)
    return Script(lines, declarations(task.limits, mark_of(task)), mark_of(task), 0.0, silence_s)


def _bias(config: PalmSensConfig, control: Impedance) -> list[str]:
    """The cell on at the working point of a spectrum."""
    kind = config.kind
    if control.galvanostatic:
        bias_A = control.bias or 0.0
        largest_A = abs(bias_A) + math.sqrt(2) * control.amplitude
        return [
            f"store_var v {literal(bias_A)} {Kind.CURRENT}",
            *galvanostat(config, bias_A, largest_A, GALVANOSTAT),
        ]
    found = [
        *open_circuit(config, _slow_mode(config)),
        f"meas {literal(SETTLE_S)} v {Kind.POTENTIAL}",
    ]
    if control.bias is not None:
        found = [f"store_var v {literal(control.bias)} {Kind.SET_POTENTIAL}"]
    bias_V = control.bias or 0.0
    return [
        *found,
        *potentiostat(
            config,
            "v",
            "v",
            mode=_mode(config, bias_V, bias_V, kind.frequency_max_Hz),
            bandwidth_Hz=kind.frequency_max_Hz,
            current_A=control.max_current_A,
            at="v",
        ),
    ]


def _looked_at(task: Task) -> list[str]:
    """Time, potential and current as a record, with a look at limits and at ends by time."""
    lines = [
        f"meas {literal(SETTLE_S)} p {Kind.POTENTIAL}",
        f"meas {literal(SETTLE_S)} c {Kind.CURRENT}",
        "timer_get t",
        f"store_var k {integer(Why.RECORD)} {Kind.WHY}",
    ]
    for number, end in reversed(list(enumerate(task.step.ends))):
        if end.quantity is Quantity.STEP_TIME_S:
            left_s = max(0.0, end.value - task.done_s)
            lines += when(f"t >= {literal(left_s)}", Why.ENDS + number)
    lines += limits_of(task.limits, True, with_charge=False)
    return [*lines, *package(["t", "p", "c", "k", "x"])]


def _pieces(count: int, points_per_decade: int) -> tuple[int, ...]:
    """How many frequencies are measured at a stretch; never one alone where there are more."""
    pieces = max(1, math.ceil(count / max(2, points_per_decade)))
    size, over = divmod(count, pieces)
    return tuple(size + (1 if place < over else 0) for place in range(pieces))


def _cp(current_A: float, every_s: float, run_time: str) -> str:
    return f"meas_loop_cp p c {literal(current_A)} {literal(every_s)} {run_time}"


def _stage(loop: str, ticks: int, every_s: float, *, with_current: bool = True) -> Stage:
    return Stage(loop, ticks, every_s, with_current)


def _script(task: Task, config: PalmSensConfig, body: list[str], tick_s: float) -> Script:
    every_s = min(task.step.record.every_s, time_left_s(task))
    silence_s = max(every_s, tick_s, config.slowest_sample_s) + PATIENCE_S
    lines = _around(task, body)
    mark = mark_of(task)
    return Script(lines, declarations(task.limits, mark), mark, tick_s, silence_s)


def _around(task: Task, body: list[str]) -> tuple[str, ...]:
    declared = declarations(task.limits, mark_of(task))
    return (*declared, f"wait {literal(HEARD_S)}", *variables(task), *body, *CELL_OFF)


def _run_time(task: Task, every_s: float) -> str:
    """Longer than the visit by some samples: its own end comes first."""
    return literal(math.ceil(time_left_s(task) + 5 * every_s))


def _tick_s(config: PalmSensConfig) -> float:
    return config.kind.fastest_sample_s


def _slow_mode(config: PalmSensConfig) -> int:
    return config.kind.modes[0].number


def _mode(config: PalmSensConfig, low_V: float, high_V: float, bandwidth: float) -> int:
    """The mode for these potentials; where there is none, the plan was refused before."""
    mode = config.kind.mode_for(low_V, high_V, bandwidth)
    return _slow_mode(config) if mode is None else mode.number
