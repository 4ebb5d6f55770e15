"""Common commands, SYSTem and DIGital.

Source: reference manual 2461-901-01, ch. 6 and app. B.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from labctl.simulators.keithley.commands import Command, Passing, Reply, Table, boolean
from labctl.simulators.keithley.errors import ERROR, INFORMATION, NO_ERROR, WARNING, ScpiError
from labctl.simulators.keithley.instrument import Line, Smu
from labctl.simulators.keithley.scpi import Arguments, Found

ALL_KINDS: Final = ERROR | WARNING | INFORMATION
LOOK_S: Final = 0.05
LONGEST_WAIT_S: Final = 1e7
"""A program that waits for a trigger model that never ends is let go after this long."""


def _identity(smu: Smu, _: Found, __: Arguments) -> str:
    who = smu.identity
    serial = "0000001" if smu.faults.take("wrong_serial", "*IDN?") else who.serial
    return f"KEITHLEY INSTRUMENTS,MODEL {who.model},{serial},{who.firmware}"


def _language(_: Smu, __: Found, ___: Arguments) -> str:
    return "SCPI"


def _set_language(_: Smu, __: Found, arguments: Arguments) -> None:
    arguments.word("SCPI", "TSP", "SCPI2400")


def _reset(smu: Smu, _: Found, __: Arguments) -> None:
    smu.reset()


def _trigger(smu: Smu, _: Found, __: Arguments) -> None:
    smu.trigger.happened("COMM")


def _until_idle(smu: Smu) -> Passing:
    waited_s = 0.0
    while (due_s := smu.next_due_s) is not None and waited_s < LONGEST_WAIT_S:
        step_s = max(LOOK_S, due_s - smu.now_s)
        waited_s += step_s
        yield step_s
    return None


def _wait(smu: Smu, _: Found, __: Arguments) -> Passing:
    return (yield from _until_idle(smu))


def _completion(smu: Smu, _: Found, __: Arguments) -> None:
    smu.status.awaits_completion = True


def _is_complete(smu: Smu, _: Found, __: Arguments) -> Passing:
    yield from _until_idle(smu)
    return "1"


def _zero(_: Smu, __: Found, ___: Arguments) -> str:
    return "0"


def _next_error(smu: Smu, _: Found, __: Arguments) -> str:
    entry = smu.log.take(ERROR)
    return NO_ERROR if entry is None else str(entry)


def _next_code(smu: Smu, _: Found, __: Arguments) -> str:
    entry = smu.log.take(ERROR)
    return "0" if entry is None else str(entry.code)


def _count_errors(smu: Smu, _: Found, __: Arguments) -> str:
    return str(smu.log.count(ERROR))


def _kinds(arguments: Arguments) -> int:
    if not len(arguments):
        return ALL_KINDS
    word = arguments.word("ALL", "ERRor", "WARNing", "INFormational")
    return {"ALL": ALL_KINDS, "ERR": ERROR, "WARN": WARNING, "INF": INFORMATION}[word]


def _next_event(smu: Smu, _: Found, arguments: Arguments) -> str:
    entry = smu.log.take(_kinds(arguments))
    return NO_ERROR if entry is None else str(entry)


def _count_events(smu: Smu, _: Found, arguments: Arguments) -> str:
    return str(smu.log.count(_kinds(arguments)))


def _line_frequency(smu: Smu, _: Found, __: Arguments) -> str:
    return f"{smu.line_Hz:g}"


def _version(_: Smu, __: Found, ___: Arguments) -> str:
    return "1996.0"


def _time(smu: Smu, _: Found, __: Arguments) -> Reply:
    when = dt.datetime.fromtimestamp(smu.unix_time_s, dt.UTC)
    return when.strftime("%a %b %d %H:%M:%S %Y")


def _beep(_: Smu, __: Found, arguments: Arguments) -> None:
    arguments.number(20.0, 8000.0)
    arguments.number(0.001, 100.0)


def _line(smu: Smu, found: Found) -> Line:
    if found.number not in smu.lines:
        raise ScpiError(-114)
    return smu.lines[found.number]


def _set_line_mode(smu: Smu, found: Found, arguments: Arguments) -> None:
    line = _line(smu, found)
    kind = arguments.word("DIGital", "TRIGger", "SYNChronous")
    direction = arguments.word("IN", "OUT", "OPENdrain", "MASTer", "ACCeptor")
    line.kind, line.direction, line.high = kind, direction, False


def _get_line_mode(smu: Smu, found: Found, _: Arguments) -> str:
    line = _line(smu, found)
    return f"{line.kind},{line.direction}"


def _set_line(smu: Smu, found: Found, arguments: Arguments) -> None:
    line = _line(smu, found)
    if line.kind != "DIG" or line.direction not in {"OUT", "OPEN"}:
        raise ScpiError(-221, f"digital line {found.number} is no output")
    line.high = arguments.boolean()
    smu.pulses.append((found.number, line.high))


def _get_line(smu: Smu, found: Found, _: Arguments) -> str:
    return boolean(_line(smu, found).high)


SYSTEM: Final[Table] = {
    "*IDN": Command(get=_identity),
    "*LANG": Command(_set_language, _language),
    "*RST": Command(_reset),
    "*TRG": Command(_trigger),
    "*WAI": Command(_wait),
    "*OPC": Command(_completion, _is_complete),
    "*TST": Command(get=_zero),
    ":SYSTem:ERRor[:NEXT]": Command(get=_next_error),
    ":SYSTem:ERRor:CODE[:NEXT]": Command(get=_next_code),
    ":SYSTem:ERRor:COUNt": Command(get=_count_errors),
    ":SYSTem:EVENtlog:NEXT": Command(get=_next_event),
    ":SYSTem:EVENtlog:COUNt": Command(get=_count_events),
    ":SYSTem:LFRequency": Command(get=_line_frequency),
    ":SYSTem:VERSion": Command(get=_version),
    ":SYSTem:TIME": Command(get=_time),
    ":SYSTem:BEEPer[:IMMediate]": Command(_beep),
    ":DIGital:LINE<n>:MODE": Command(_set_line_mode, _get_line_mode),
    ":DIGital:LINE<n>:STATe": Command(_set_line, _get_line),
}
