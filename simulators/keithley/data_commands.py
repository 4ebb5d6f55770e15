"""READ, MEASure, FETCh, TRACe and FORMat: measuring at once, and what the buffers hold.

Source: reference manual 2461-901-01, ch. 6.
"""

from __future__ import annotations

import struct
from typing import Final

from labctl.simulators.keithley.buffers import (
    BINARY_ELEMENTS,
    DEFAULT_BUFFERS,
    ELEMENTS,
    LARGEST_SIZE,
    MOST_ELEMENTS,
    NUMBERS,
    SMALLEST_SIZE,
    TEXTS,
    Buffer,
    Row,
)
from labctl.simulators.keithley.commands import Command, Passing, Table, boolean, number
from labctl.simulators.keithley.errors import ScpiError
from labctl.simulators.keithley.instrument import Smu
from labctl.simulators.keithley.scpi import Arguments, Found

STYLES: Final = ("COMPact", "STANdard", "FULL", "WRITable", "FULLWRITable")
SHORT_ELEMENTS: Final = {name.rstrip("abcdefghijklmnopqrstuvwxyz"): name for name in ELEMENTS}
DEFAULT: Final = DEFAULT_BUFFERS[0]


def _elements(smu: Smu, arguments: Arguments) -> tuple[str, ...]:
    names: list[str] = []
    while len(arguments):
        names.append(SHORT_ELEMENTS[arguments.word(*ELEMENTS)])
    if len(names) > MOST_ELEMENTS:
        raise ScpiError(-108)
    if smu.data_format != "ASC" and not BINARY_ELEMENTS.issuperset(names):
        raise ScpiError(1133)
    return tuple(names) or ("READing",)


def _buffer_and_elements(smu: Smu, arguments: Arguments) -> tuple[Buffer, tuple[str, ...]]:
    buffer = smu.buffer(arguments.text() if len(arguments) else DEFAULT)
    return buffer, _elements(smu, arguments)


def _shown(smu: Smu, buffer: Buffer, rows: list[Row], elements: tuple[str, ...]) -> str | bytes:
    if smu.data_format == "ASC":
        return ",".join(
            number(smu, NUMBERS[name](buffer, row)) if name in NUMBERS else TEXTS[name](row)
            for row in rows
            for name in elements
        )
    kind = "d" if smu.data_format == "REAL" else "f"
    values = [NUMBERS[name](buffer, row) for row in rows for name in elements]
    return b"#0" + struct.pack(f"{'<' if smu.swapped else '>'}{len(values)}{kind}", *values)


def _measure(smu: Smu, buffer: Buffer, times: int) -> Passing:
    if smu.trigger.active:
        raise ScpiError(-213, "the trigger model is running")
    for _ in range(times):
        yield smu.reading_s()
        smu.store(smu.read(), buffer.name)
    return None


def _read(smu: Smu, _: Found, arguments: Arguments) -> Passing:
    buffer, elements = _buffer_and_elements(smu, arguments)
    yield from _measure(smu, buffer, smu.sense_count)
    return _newest(smu, buffer, elements)


def _measure_now(smu: Smu, found: Found, arguments: Arguments) -> Passing:
    buffer, elements = _buffer_and_elements(smu, arguments)
    if found.function:
        smu.refuse_while_running()
        smu.sense_function = found.function
    yield from _measure(smu, buffer, smu.sense_count)
    return _newest(smu, buffer, elements)


def _fetch(smu: Smu, _: Found, arguments: Arguments) -> str | bytes:
    return _newest(smu, *_buffer_and_elements(smu, arguments))


def _newest(smu: Smu, buffer: Buffer, elements: tuple[str, ...]) -> str | bytes:
    row = buffer.newest
    if row is None:
        raise ScpiError(-230)
    return _shown(smu, buffer, [row], elements)


def _make(smu: Smu, _: Found, arguments: Arguments) -> None:
    name = arguments.text()
    size = arguments.integer(SMALLEST_SIZE, LARGEST_SIZE)
    if len(arguments):
        arguments.word(*STYLES)
    if name in smu.buffers:
        raise ScpiError(1115)
    if not name.isidentifier() or len(name) > 31:
        raise ScpiError(-224, name[:40])
    smu.buffers[name] = Buffer(name, size, continuous=False)
    smu.active_buffer = name


def _delete(smu: Smu, _: Found, arguments: Arguments) -> None:
    name = arguments.text()
    smu.buffer(name)
    if name in DEFAULT_BUFFERS:
        raise ScpiError(-224, name)
    del smu.buffers[name]
    smu.active_buffer = DEFAULT


def _clear(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.buffer(arguments.text() if len(arguments) else DEFAULT).clear()


def _set_points(smu: Smu, _: Found, arguments: Arguments) -> None:
    size = arguments.integer(SMALLEST_SIZE, LARGEST_SIZE)
    buffer = smu.buffer(arguments.text() if len(arguments) else DEFAULT)
    buffer.clear()
    buffer.size = size


def _get_points(smu: Smu, _: Found, arguments: Arguments) -> str:
    return str(smu.buffer(arguments.text() if len(arguments) else DEFAULT).size)


def _set_fill(smu: Smu, _: Found, arguments: Arguments) -> None:
    mode = arguments.word("CONTinuous", "ONCE")
    buffer = smu.buffer(arguments.text() if len(arguments) else DEFAULT)
    buffer.clear()
    buffer.continuous = mode == "CONT"


def _get_fill(smu: Smu, _: Found, arguments: Arguments) -> str:
    buffer = smu.buffer(arguments.text() if len(arguments) else DEFAULT)
    return "CONT" if buffer.continuous else "ONCE"


def _actual(smu: Smu, _: Found, arguments: Arguments) -> str:
    return str(len(smu.buffer(arguments.text() if len(arguments) else DEFAULT)))


def _start(smu: Smu, _: Found, arguments: Arguments) -> str:
    return str(smu.buffer(arguments.text() if len(arguments) else DEFAULT).start)


def _end(smu: Smu, _: Found, arguments: Arguments) -> str:
    return str(smu.buffer(arguments.text() if len(arguments) else DEFAULT).end)


def _data(smu: Smu, _: Found, arguments: Arguments) -> str | bytes:
    first, last = (arguments.integer(1, LARGEST_SIZE) for _ in range(2))
    buffer, elements = _buffer_and_elements(smu, arguments)
    return _shown(smu, buffer, list(buffer.rows(first, last)), elements)


def _trigger(smu: Smu, _: Found, arguments: Arguments) -> Passing:
    buffer = smu.buffer(arguments.text() if len(arguments) else DEFAULT)
    return (yield from _measure(smu, buffer, smu.sense_count))


def _statistic(smu: Smu, found: Found, arguments: Arguments) -> str:
    buffer = smu.buffer(arguments.text() if len(arguments) else DEFAULT)
    word = found.pattern.rpartition(":")[2]
    return number(smu, buffer.statistic(word.rstrip("abcdefghijklmnopqrstuvwxyz").upper()))


def _set_format(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.data_format = arguments.word("ASCii", "REAL", "SREal")


def _get_format(smu: Smu, _: Found, __: Arguments) -> str:
    return smu.data_format


def _set_precision(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.precision = arguments.integer(0, 16, default=0)


def _get_precision(smu: Smu, _: Found, __: Arguments) -> str:
    return str(smu.precision)


def _set_order(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.swapped = arguments.word("NORMal", "SWAPped") == "SWAP"


def _get_order(smu: Smu, _: Found, __: Arguments) -> str:
    return "SWAP" if smu.swapped else "NORM"


def _get_logging(_: Smu, __: Found, ___: Arguments) -> str:
    return boolean(False)


DATA: Final[Table] = {
    ":READ": Command(get=_read),
    ":MEASure": Command(get=_measure_now),
    ":MEASure:<FUNC>": Command(get=_measure_now),
    ":FETCh": Command(get=_fetch),
    ":TRACe:MAKE": Command(_make),
    ":TRACe:DELete": Command(_delete),
    ":TRACe:CLEar": Command(_clear),
    ":TRACe:POINts": Command(_set_points, _get_points),
    ":TRACe:FILL:MODE": Command(_set_fill, _get_fill),
    ":TRACe:ACTual": Command(get=_actual),
    ":TRACe:ACTual:STARt": Command(get=_start),
    ":TRACe:ACTual:END": Command(get=_end),
    ":TRACe:DATA": Command(get=_data),
    ":TRACe:TRIGger": Command(_trigger),
    ":TRACe:LOG:STATe": Command(get=_get_logging),
    ":TRACe:STATistics:AVERage": Command(get=_statistic),
    ":TRACe:STATistics:MAXimum": Command(get=_statistic),
    ":TRACe:STATistics:MINimum": Command(get=_statistic),
    ":TRACe:STATistics:STDDev": Command(get=_statistic),
    ":TRACe:STATistics:PK2PK": Command(get=_statistic),
    ":FORMat[:DATA]": Command(_set_format, _get_format),
    ":FORMat:ASCii:PRECision": Command(_set_precision, _get_precision),
    ":FORMat:BORDer": Command(_set_order, _get_order),
}
