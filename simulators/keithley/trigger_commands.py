"""TRIGger, INITiate and ABORt: the blocks of the trigger model, and the ready-made ones.

Source: reference manual 2461-901-01, ch. 6. The list of blocks prints more in a real instrument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from labctl.simulators.keithley.buffers import DEFAULT_BUFFERS, LARGEST_SIZE
from labctl.simulators.keithley.commands import Command, Table
from labctl.simulators.keithley.errors import ScpiError
from labctl.simulators.keithley.instrument import Smu
from labctl.simulators.keithley.scpi import Arguments, Found, Text
from labctl.simulators.keithley.source_lists import recall
from labctl.simulators.keithley.trigger import MOST_BLOCKS, RUNNING, WAITING, Block, Jump

DEFAULT: Final = DEFAULT_BUFFERS[0]
SHORTEST_DELAY_S: Final = 167e-9
LONGEST_DELAY_S: Final = 10_000.0
LARGEST: Final = 1e32
MOST_PASSES: Final = 0x7FFFFFFF
LOOK_S: Final = 0.01

EVENTS: Final = {
    "NONE": 0,
    "DISPlay": 0,
    "COMMand": 0,
    "SLIMit": 0,
    "NOTify": 8,
    "DIGio": 6,
    "TSPLink": 3,
    "LAN": 8,
    "BLENder": 2,
    "TIMer": 4,
}
"""Events, and how many there are of each; 0 for those without a number."""

Running = Iterator[float | Jump]
Maker = Callable[[Smu, int, Arguments], Block]


def _event(arguments: Arguments) -> str:
    value = arguments.any()
    said = (value.value if isinstance(value, Text) else value).strip().upper()
    stem = said.rstrip("0123456789")
    digits = said[len(stem) :]
    for name, count in EVENTS.items():
        short = name.rstrip("abcdefghijklmnopqrstuvwxyz")
        if stem not in {name.upper(), short}:
            continue
        if (digits and 1 <= int(digits[:4]) <= count) or (not digits and not count):
            return short + digits
    raise ScpiError(-224, said[:40])


def _buffer_name(smu: Smu, arguments: Arguments) -> str:
    name = arguments.text() if len(arguments) else DEFAULT
    return smu.buffer(name).name


def _target(arguments: Arguments) -> int:
    return arguments.integer(0, MOST_BLOCKS)


def _clear(smu: Smu, _: int, arguments: Arguments) -> Block:
    name = _buffer_name(smu, arguments)

    def run() -> Running:
        smu.buffer(name).clear()
        yield 0.0

    return Block(f"BUFFER_CLEAR BUFFER: {name}", run)


def _measure(smu: Smu, number: int, arguments: Arguments) -> Block:
    name = _buffer_name(smu, arguments)
    times = arguments.integer(1, LARGEST_SIZE) if len(arguments) else 1

    def run() -> Running:
        for _ in range(times):
            yield smu.reading_s()
            row = smu.read()
            smu.store(row, name)
            smu.trigger.measured(number, row.reading)

    return Block(f"MEASURE BUFFER: {name} COUNT: {times}", run)


def _delay(_: Smu, __: int, arguments: Arguments) -> Block:
    delay_s = arguments.number(SHORTEST_DELAY_S, LONGEST_DELAY_S, words={"0": 0.0})

    def run() -> Running:
        yield delay_s

    return Block(f"DELAY_CONSTANT DELAY: {delay_s:.9f}", run)


def _switch(smu: Smu, _: int, arguments: Arguments) -> Block:
    on = arguments.boolean()

    def run() -> Running:
        smu.switch(on=on)
        yield 0.0

    return Block(f"SOURCE_OUTPUT STATE: {'ON' if on else 'OFF'}", run)


def _always(_: Smu, __: int, arguments: Arguments) -> Block:
    to = _target(arguments)

    def run() -> Running:
        yield Jump(to)

    return Block(f"BRANCH_ALWAYS BRANCH_BLOCK: {to}", run, to)


def _counter(smu: Smu, number: int, arguments: Arguments) -> Block:
    target = arguments.integer(1, MOST_PASSES)
    to = _target(arguments)

    def run() -> Running:
        if smu.trigger.count(number, target):
            yield Jump(to)

    return Block(f"BRANCH_COUNTER VALUE: {target} BRANCH_BLOCK: {to}", run, to)


def _reset_counter(smu: Smu, _: int, arguments: Arguments) -> Block:
    of = _target(arguments)

    def run() -> Running:
        smu.trigger.counters.pop(of, None)
        yield 0.0

    return Block(f"RESET_BRANCH_COUNT COUNTER: {of}", run, of)


def _limit(smu: Smu, _: int, arguments: Arguments) -> Block:
    kind = arguments.word("ABOVe", "BELow", "INside", "OUTside")
    low, high = sorted(arguments.number(-LARGEST, LARGEST) for _ in range(2))
    to = _target(arguments)
    of = _target(arguments) if len(arguments) else 0

    def run() -> Running:
        reading = smu.trigger.reading_of(of)
        if (
            reading is not None
            and {
                "ABOV": reading > high,
                "BEL": reading < low,
                "IN": low <= reading <= high,
                "OUT": not low <= reading <= high,
            }[kind]
        ):
            yield Jump(to)

    return Block(f"BRANCH_ON_LIMIT {kind} {low:g} {high:g} BRANCH_BLOCK: {to}", run, to)


def _delta(smu: Smu, _: int, arguments: Arguments) -> Block:
    difference = arguments.number(-LARGEST, LARGEST)
    to = _target(arguments)
    if len(arguments):
        _target(arguments)

    def run() -> Running:
        drop = smu.trigger.drop()
        if drop is not None and drop < difference:
            yield Jump(to)

    return Block(f"BRANCH_ON_DELTA {difference:g} BRANCH_BLOCK: {to}", run, to)


def _on_event(smu: Smu, _: int, arguments: Arguments) -> Block:
    event = _event(arguments)
    to = _target(arguments)

    def run() -> Running:
        if smu.trigger.take_event(event):
            yield Jump(to)

    return Block(f"BRANCH_ON_EVENT EVENT: {event} BRANCH_BLOCK: {to}", run, to)


def _once(smu: Smu, number: int, arguments: Arguments) -> Block:
    to = _target(arguments)

    def run() -> Running:
        if smu.trigger.first_time(number):
            yield Jump(to)

    return Block(f"BRANCH_ONCE BRANCH_BLOCK: {to}", run, to)


def _all_but_once(smu: Smu, number: int, arguments: Arguments) -> Block:
    to = _target(arguments)

    def run() -> Running:
        if not smu.trigger.first_time(number):
            yield Jump(to)

    return Block(f"BRANCH_ONCE_EXCLUDED BRANCH_BLOCK: {to}", run, to)


def _wait(smu: Smu, _: int, arguments: Arguments) -> Block:
    event = _event(arguments)

    def run() -> Running:
        while not smu.trigger.take_event(event):
            smu.trigger.state = WAITING
            yield LOOK_S
        smu.trigger.state = RUNNING

    return Block(f"WAIT EVENT: {event}", run)


def _notify(smu: Smu, _: int, arguments: Arguments) -> Block:
    number = arguments.integer(1, EVENTS["NOTify"])

    def run() -> Running:
        smu.trigger.happened(f"NOT{number}")
        yield 0.0

    return Block(f"NOTIFY NOTIFY_ID: {number}", run)


def _nothing(_: Smu, __: int, ___: Arguments) -> Block:
    def run() -> Running:
        yield 0.0

    return Block("NO_OPERATION", run)


def _recall(smu: Smu, _: int, arguments: Arguments) -> Block:
    name = arguments.text()
    index = arguments.integer(1, LARGEST_SIZE) if len(arguments) else 1

    def run() -> Running:
        recall(smu, name, index)
        yield 0.0

    return Block(f"CONFIG_RECALL CONFIG_LIST: {name} INDEX: {index}", run)


def _next(smu: Smu, _: int, arguments: Arguments) -> Block:
    return _walk(smu, "CONFIG_NEXT", arguments.text(), 1)


def _previous(smu: Smu, _: int, arguments: Arguments) -> Block:
    return _walk(smu, "CONFIG_PREV", arguments.text(), -1)


def _walk(smu: Smu, what: str, name: str, by: int) -> Block:
    def run() -> Running:
        size = len(smu.lists.get(name, ()))
        at = smu.list_at.get(name, 0) - 1 + by
        recall(smu, name, at % size + 1 if size else 1)
        yield 0.0

    return Block(f"{what} CONFIG_LIST: {name}", run)


MAKERS: Final[dict[str, Maker]] = {
    "BUFFer:CLEar": _clear,
    "MEASure": _measure,
    "MDIGitize": _measure,
    "DELay:CONStant": _delay,
    "SOURce:STATe": _switch,
    "BRANch:ALWays": _always,
    "BRANch:COUNter": _counter,
    "BRANch:COUNter:RESet": _reset_counter,
    "BRANch:LIMit:CONStant": _limit,
    "BRANch:DELTa": _delta,
    "BRANch:EVENt": _on_event,
    "BRANch:ONCE": _once,
    "BRANch:ONCE:EXCLuded": _all_but_once,
    "CONFig:RECall": _recall,
    "CONFig:NEXT": _next,
    "CONFig:PREVious": _previous,
    "WAIT": _wait,
    "NOTify": _notify,
    "NOP": _nothing,
}


def _put(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    number = arguments.integer(1, MOST_BLOCKS)
    maker = MAKERS[found.pattern.removeprefix(":TRIGger:BLOCk:")]
    block = maker(smu, number, arguments)
    arguments.end()
    smu.trigger.put(number, block)


def _count(smu: Smu, _: Found, arguments: Arguments) -> str:
    return str(smu.trigger.counters.get(arguments.integer(1, MOST_BLOCKS), 0))


def _list(smu: Smu, _: Found, __: Arguments) -> str:
    return smu.trigger.listing() or "Empty"


def _load(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    kind = arguments.word("EMPTY", "SIMPLELOOP", "DURATIONLOOP")
    if kind == "EMPTY":
        smu.trigger.load([])
        return
    simple = kind == "SIMPLELOOP"
    many = (
        Arguments([str(arguments.integer(1, MOST_PASSES)), "3"])
        if simple
        else arguments.number(0.5e-6, 100_000.0)
    )
    delay_s = arguments.number(0.0, LONGEST_DELAY_S) if len(arguments) else 0.0
    name = _buffer_name(smu, arguments)
    begun_s = 0.0

    def begin() -> Running:
        nonlocal begun_s
        begun_s = smu.now_s
        smu.buffer(name).clear()
        yield 0.0

    def pause() -> Running:
        yield delay_s

    def again() -> Running:
        if isinstance(many, float) and smu.now_s - begun_s < many:
            yield Jump(3)

    smu.trigger.load(
        [
            Block(f"BUFFER_CLEAR BUFFER: {name}", begin),
            Block("NO_OPERATION", lambda: iter((0.0,))),
            Block(f"DELAY_CONSTANT DELAY: {delay_s:.9f}", pause),
            _measure(smu, 4, Arguments([Text(name)])),
            _counter(smu, 5, many)
            if isinstance(many, Arguments)
            else Block(f"BRANCH_DURATION {many:g} BRANCH_BLOCK: 3", again, 3),
        ]
    )


def _state(smu: Smu, _: Found, __: Arguments) -> str:
    return f"{smu.trigger.state};{smu.trigger.state};{smu.trigger.at}"


def _initiate(smu: Smu, _: Found, __: Arguments) -> None:
    smu.initiate()


def _abort(smu: Smu, _: Found, __: Arguments) -> None:
    smu.abort()


TRIGGER: Final[Table] = {
    **{f":TRIGger:BLOCk:{header}": Command(_put) for header in MAKERS},
    ":TRIGger:BLOCk:BRANch:COUNter:COUNt": Command(get=_count),
    ":TRIGger:BLOCk:LIST": Command(get=_list),
    ":TRIGger:LOAD": Command(_load),
    ":TRIGger:STATe": Command(get=_state),
    ":INITiate[:IMMediate]": Command(_initiate),
    ":ABORt": Command(_abort),
}
