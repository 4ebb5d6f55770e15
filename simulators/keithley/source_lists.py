"""Configuration lists of the source, and the sweeps that make one and a trigger model to walk it.

Source: reference manual 2461-901-01, SOURce:CONFiguration:LIST and SOURce:SWEep. The name of a
sweep's list and the blocks of its trigger model are not those of a real instrument.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from labctl.simulators.keithley.buffers import DEFAULT_BUFFERS
from labctl.simulators.keithley.commands import Command, Table, number
from labctl.simulators.keithley.errors import ScpiError
from labctl.simulators.keithley.instrument import Smu
from labctl.simulators.keithley.models import OVERRANGE
from labctl.simulators.keithley.output import SourceSettings
from labctl.simulators.keithley.scpi import Arguments, Found, parse_unit
from labctl.simulators.keithley.trigger import Block, Jump

MOST_POINTS: Final = 1_000_000
LONGEST_DELAY_S: Final = 10_000.0
SWEEP_LIST: Final = "SweepList"
LOWEST_LOG: Final = 1e-12
MOST_LEVELS: Final = 100
"""How many levels one command takes."""
MOST_LISTED: Final = 2500
"""How many levels a list holds."""

Running = Iterator[float | Jump]


def _list(smu: Smu, name: str) -> list[tuple[str, SourceSettings]]:
    found = smu.lists.get(name)
    if found is None:
        raise ScpiError(-224, f"there is no configuration list {name[:40]}")
    return found


def recall(smu: Smu, name: str, index: int) -> None:
    """Put the settings in place ``index`` (from 1) of a list into force."""
    entries = _list(smu, name)
    if not 1 <= index <= len(entries):
        raise ScpiError(2790, f"{name} {index}")
    function, settings = entries[index - 1]
    if function != smu.output.function:
        smu.switch(on=False)
        smu.output.function = function
    smu.output.sources[function] = settings.copy()
    smu.list_at[name] = index
    smu.source_changed()


def _create(smu: Smu, _: Found, arguments: Arguments) -> None:
    name = arguments.text()
    if name in smu.lists:
        raise ScpiError(-224, f"there is a configuration list {name[:40]}")
    smu.lists[name] = []


def _delete(smu: Smu, _: Found, arguments: Arguments) -> None:
    name = arguments.text()
    entries = _list(smu, name)
    if not len(arguments):
        del smu.lists[name]
        return
    index = arguments.integer(1, MOST_POINTS)
    if index > len(entries):
        raise ScpiError(2790, f"{name} {index}")
    del entries[index - 1]


def _store(smu: Smu, _: Found, arguments: Arguments) -> None:
    entries = _list(smu, arguments.text())
    entry = (smu.output.function, smu.output.source.copy())
    if not len(arguments):
        entries.append(entry)
        return
    index = arguments.integer(1, MOST_POINTS)
    if index > len(entries) + 1:
        raise ScpiError(2790, str(index))
    entries[index - 1 : index] = [entry]


def _recall(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    name = arguments.text()
    recall(smu, name, arguments.integer(1, MOST_POINTS) if len(arguments) else 1)


def _size(smu: Smu, _: Found, arguments: Arguments) -> str:
    return str(len(_list(smu, arguments.text())))


def _linear(smu: Smu, found: Found, arguments: Arguments) -> None:
    start, stop = _bounds(smu, found, arguments)
    points = arguments.integer(2, MOST_POINTS)
    step = (stop - start) / (points - 1)
    _sweep(smu, found, [start + step * k for k in range(points)], arguments)


def _linear_step(smu: Smu, found: Found, arguments: Arguments) -> None:
    start, stop = _bounds(smu, found, arguments)
    step = abs(arguments.number(-abs(stop - start), abs(stop - start)))
    points = 0 if step == 0 else math.floor(abs(stop - start) / step + 1e-9) + 1
    if not 2 <= points <= MOST_POINTS:
        raise ScpiError(-222, f"{points} points")
    signed = math.copysign(step, stop - start)
    _sweep(smu, found, [start + signed * k for k in range(points)], arguments)


def _logarithmic(smu: Smu, found: Found, arguments: Arguments) -> None:
    start, stop = _bounds(smu, found, arguments)
    points = arguments.integer(2, MOST_POINTS)
    if start < LOWEST_LOG or stop < LOWEST_LOG:
        raise ScpiError(-222, "a logarithmic sweep does not touch 0")
    ratio = (stop / start) ** (1 / (points - 1))
    _sweep(smu, found, [start * ratio**k for k in range(points)], arguments)


def _levels(smu: Smu, found: Found, arguments: Arguments) -> list[float]:
    bound = smu.output.ranges(found.function)[-1] * OVERRANGE
    levels = [arguments.number(-bound, bound)]
    while len(arguments):
        levels.append(arguments.number(-bound, bound))
    if len(levels) > MOST_LEVELS:
        raise ScpiError(-223, f"{len(levels)} levels")
    return levels


def _set_listed(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    smu.listed[found.function] = _levels(smu, found, arguments)


def _append_listed(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    levels = smu.listed.get(found.function, []) + _levels(smu, found, arguments)
    if len(levels) > MOST_LISTED:
        raise ScpiError(-223, f"{len(levels)} levels")
    smu.listed[found.function] = levels


def _get_listed(smu: Smu, found: Found, _: Arguments) -> str:
    return ",".join(number(smu, level) for level in smu.listed.get(found.function, []))


def _count_listed(smu: Smu, found: Found, _: Arguments) -> str:
    return str(len(smu.listed.get(found.function, [])))


def _listed_sweep(smu: Smu, found: Found, arguments: Arguments) -> None:
    """``<startIndex>[,<delay>[,<count>[,<failAbort>[,"<bufferName>"]]]]``."""
    smu.refuse_while_running()
    levels = smu.listed.get(found.function, [])
    first = arguments.integer(1, MOST_LISTED) if len(arguments) else 1
    if first > len(levels):
        raise ScpiError(2790, f"the list has {len(levels)} levels")
    delay_s = arguments.number(-1.0, LONGEST_DELAY_S) if len(arguments) else -1.0
    count = arguments.integer(1, 268_435_455) if len(arguments) else 1
    fail_abort = arguments.boolean() if len(arguments) else True
    buffer = arguments.text() if len(arguments) else DEFAULT_BUFFERS[0]
    words = f'{delay_s},{count},BEST,{int(fail_abort)},OFF,"{buffer}"'
    _sweep(smu, found, levels[first - 1 :], Arguments(parse_unit(f"LIST {words}").parameters))


def _bounds(smu: Smu, found: Found, arguments: Arguments) -> tuple[float, float]:
    smu.refuse_while_running()
    bound = smu.output.ranges(found.function)[-1] * OVERRANGE
    return arguments.number(-bound, bound), arguments.number(-bound, bound)


def _sweep(smu: Smu, found: Found, levels: list[float], arguments: Arguments) -> None:
    delay_s = arguments.number(-1.0, LONGEST_DELAY_S) if len(arguments) else -1.0
    count = arguments.integer(1, 268_435_455) if len(arguments) else 1
    range_kind = arguments.word("AUTO", "BEST", "FIXed") if len(arguments) else "BEST"
    fail_abort = arguments.boolean() if len(arguments) else True
    dual = arguments.boolean() if len(arguments) else False
    buffer = smu.buffer(arguments.text() if len(arguments) else DEFAULT_BUFFERS[0])
    smu.output.function, before = found.function, smu.output.function
    if before != found.function:
        smu.switch(on=False)
    if dual:
        levels = levels + levels[-2::-1]
    widest = max(levels, key=abs)
    entries: list[tuple[str, SourceSettings]] = []
    for level in levels:
        settings = smu.output.sources[found.function].copy()
        settings.level = widest if range_kind == "BEST" else level
        if range_kind == "BEST":
            settings.auto_range = True
            smu.output.sources[found.function] = settings
            settings.full_scale = smu.output.full_scale(found.function)
            settings.auto_range = False
            settings = settings.copy()
        elif range_kind == "AUTO":
            settings.auto_range = True
        settings.level = level
        entries.append((found.function, settings))
    smu.lists[SWEEP_LIST] = entries
    smu.output.sources[found.function] = entries[0][1].copy()
    _load(smu, buffer.name, len(entries), max(0.0, delay_s), count, fail_abort=fail_abort)


def _load(
    smu: Smu, buffer: str, points: int, delay_s: float, count: int, *, fail_abort: bool
) -> None:
    model = smu.trigger

    def level() -> Running:
        index = smu.list_at.get(SWEEP_LIST, 0)
        recall(smu, SWEEP_LIST, index % points + 1)
        yield 0.0

    def begin() -> Running:
        smu.list_at[SWEEP_LIST] = 0
        smu.buffer(buffer).clear()
        smu.switch(on=True)
        yield 0.0

    def delay() -> Running:
        yield delay_s

    def measure() -> Running:
        yield smu.reading_s()
        smu.store(smu.read(), buffer)
        if fail_abort and smu.output.limited:
            yield Jump(6)

    def again() -> Running:
        if model.count(5, points * count):
            yield Jump(2)

    def end() -> Running:
        smu.switch(on=False)
        yield 0.0

    model.load(
        [
            Block(f"BUFFER_CLEAR BUFFER: {buffer} SOURCE_OUTPUT ON", begin),
            Block(f"CONFIG_NEXT {SWEEP_LIST}", level),
            Block(f"DELAY_CONSTANT {delay_s:g}", delay),
            Block(f"MEASURE BUFFER: {buffer}", measure),
            Block(f"BRANCH_COUNTER {points * count}", again, 2),
            Block("SOURCE_OUTPUT OFF", end),
        ]
    )


LISTS: Final[Table] = {
    ":SOURce[1]:CONFiguration:LIST:CREate": Command(_create),
    ":SOURce[1]:CONFiguration:LIST:DELete": Command(_delete),
    ":SOURce[1]:CONFiguration:LIST:STORe": Command(_store),
    ":SOURce[1]:CONFiguration:LIST:RECall": Command(_recall),
    ":SOURce[1]:CONFiguration:LIST:SIZE": Command(get=_size),
    ":SOURce[1]:LIST:<SFUNC>": Command(_set_listed, _get_listed),
    ":SOURce[1]:LIST:<SFUNC>:APPend": Command(_append_listed),
    ":SOURce[1]:LIST:<SFUNC>:POINts": Command(get=_count_listed),
    ":SOURce[1]:SWEep:<SFUNC>:LIST": Command(_listed_sweep),
    ":SOURce[1]:SWEep:<SFUNC>:LINear": Command(_linear),
    ":SOURce[1]:SWEep:<SFUNC>:LINear:STEP": Command(_linear_step),
    ":SOURce[1]:SWEep:<SFUNC>:LOG": Command(_logarithmic),
}
