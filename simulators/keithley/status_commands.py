"""Status registers, saved setups, and the display.

Source: reference manual 2450-901-01, section 6 and appendices B and C. The number of the error for
a setup that was never saved is not known.
"""

from __future__ import annotations

import copy
from typing import Final

from labctl.simulators.keithley.commands import Command, Table
from labctl.simulators.keithley.errors import ERROR, ScpiError
from labctl.simulators.keithley.instrument import Smu
from labctl.simulators.keithley.scpi import Arguments, Found
from labctl.simulators.keithley.status import BITS, OPERATION_COMPLETE, Register

SETUPS: Final = 5
SCREENS: Final = (
    *("HOME", "HOME_LARG", "HOME_LARGE_READING", "READ", "READING_TABLE", "GRAP", "GRAPH"),
    *("HIST", "HISTOGRAM", "PROC", "PROCESSING", "SWIPE_FUNC", "SWIPE_FUNCTIONS", "SWIPE_GRAP"),
    *("SWIPE_GRAPH", "SWIPE_SEC", "SWIPE_SECONDARY", "SWIPE_SETT", "SWIPE_SETTINGS", "SWIPE_STAT"),
    *("SWIPE_STATISTICS", "SWIPE_USER"),
)
LIGHTS: Final = ("ON100", "ON75", "ON50", "ON25", "OFF", "BLACkout")
LONGEST_TEXTS: Final = {1: 20, 2: 32}


def _clear(smu: Smu, _: Found, __: Arguments) -> None:
    smu.log.clear()
    smu.status.clear()


def _clear_log(smu: Smu, _: Found, __: Arguments) -> None:
    smu.log.clear()


def _clear_events(smu: Smu, _: Found, __: Arguments) -> None:
    smu.status.clear_events()


def _preset(smu: Smu, _: Found, __: Arguments) -> None:
    smu.status.preset()


def _set_standard_enabled(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.status.standard_enabled = arguments.integer(0, 255)


def _get_standard_enabled(smu: Smu, _: Found, __: Arguments) -> str:
    return str(smu.status.standard_enabled)


def _set_service_enabled(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.status.service_enabled = arguments.integer(0, 255) & ~64


def _get_service_enabled(smu: Smu, _: Found, __: Arguments) -> str:
    return str(smu.status.service_enabled)


def _note_completion(smu: Smu) -> None:
    if smu.status.awaits_completion and smu.next_due_s is None:
        smu.status.awaits_completion = False
        smu.status.standard |= OPERATION_COMPLETE


def _get_standard(smu: Smu, _: Found, __: Arguments) -> str:
    _note_completion(smu)
    return str(smu.status.take_standard())


def _get_byte(smu: Smu, _: Found, __: Arguments) -> str:
    _note_completion(smu)
    return str(smu.status.byte(errors=smu.log.count(ERROR) > 0))


def _register(smu: Smu, found: Found) -> Register:
    return smu.status.registers["OPER" if "OPER" in found.pattern else "QUES"]


def _get_condition(smu: Smu, found: Found, _: Arguments) -> str:
    return str(_register(smu, found).condition)


def _get_events(smu: Smu, found: Found, _: Arguments) -> str:
    return str(_register(smu, found).take())


def _set_enabled(smu: Smu, found: Found, arguments: Arguments) -> None:
    _register(smu, found).enabled = arguments.integer(0, 65_535)


def _get_enabled(smu: Smu, found: Found, _: Arguments) -> str:
    return str(_register(smu, found).enabled)


def _set_map(smu: Smu, found: Found, arguments: Arguments) -> None:
    bit = arguments.integer(0, BITS - 1)
    sets = arguments.integer(0, 65_535)
    clears = arguments.integer(0, 65_535) if len(arguments) else 0
    _register(smu, found).mapped[bit] = (sets, clears)


def _get_map(smu: Smu, found: Found, arguments: Arguments) -> str:
    bit = arguments.integer(0, BITS - 1)
    sets, clears = _register(smu, found).mapped.get(bit, (0, 0))
    return f"{sets},{clears}"


_SAVED: Final = (
    *("sense_function", "sense_count", "terminals", "precision", "data_format", "swapped"),
    *("senses",),
)


def _save(smu: Smu, _: Found, arguments: Arguments) -> None:
    place = arguments.integer(0, SETUPS - 1)
    output = smu.output
    smu.setups[place] = copy.deepcopy(
        (
            {name: getattr(smu, name) for name in _SAVED},
            (output.function, output.sources, output.protection_V),
        )
    )


def _recall(smu: Smu, _: Found, arguments: Arguments) -> None:
    place = arguments.integer(0, SETUPS - 1)
    smu.refuse_while_running()
    saved = smu.setups.get(place)
    if saved is None:
        raise ScpiError(-224, f"no setup was saved in {place}")
    settings, (function, sources, protection_V) = copy.deepcopy(saved)
    smu.switch(on=False)
    for name, value in settings.items():
        setattr(smu, name, value)
    smu.output.function, smu.output.sources = function, sources
    smu.output.protection_V = protection_V
    smu.source_changed()


def _clear_display(smu: Smu, _: Found, __: Arguments) -> None:
    smu.display.texts.clear()


def _set_screen(_: Smu, __: Found, arguments: Arguments) -> None:
    arguments.word(*SCREENS)


def _set_light(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.display.light = arguments.word(*LIGHTS)


def _get_light(smu: Smu, _: Found, __: Arguments) -> str:
    return smu.display.light


def _set_reading_format(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.display.reading_format = arguments.word("EXPonent", "PREFix")


def _get_reading_format(smu: Smu, _: Found, __: Arguments) -> str:
    return smu.display.reading_format


def _set_text(smu: Smu, found: Found, arguments: Arguments) -> None:
    longest = LONGEST_TEXTS.get(found.number)
    if longest is None:
        raise ScpiError(-114)
    text = arguments.text()
    if len(text) > longest:
        raise ScpiError(-223, text[:40])
    smu.display.texts[found.number] = text


def _set_digits(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.display.digits[found.function] = arguments.integer(3, 6, default=5)


def _get_digits(smu: Smu, found: Found, _: Arguments) -> str:
    return str(smu.display.digits.get(found.function, 5))


_REGISTERS: Final[Table] = {
    f":STATus:{name}{header}": command
    for name in ("OPERation", "QUEStionable")
    for header, command in {
        ":CONDition": Command(get=_get_condition),
        "[:EVENt]": Command(get=_get_events),
        ":ENABle": Command(_set_enabled, _get_enabled),
        ":MAP": Command(_set_map, _get_map),
    }.items()
}

STATUS: Final[Table] = {
    "*CLS": Command(_clear),
    "*ESE": Command(_set_standard_enabled, _get_standard_enabled),
    "*ESR": Command(get=_get_standard),
    "*SRE": Command(_set_service_enabled, _get_service_enabled),
    "*STB": Command(get=_get_byte),
    "*SAV": Command(_save),
    "*RCL": Command(_recall),
    ":SYSTem:CLEar": Command(_clear_log),
    ":STATus:CLEar": Command(_clear_events),
    ":STATus:PRESet": Command(_preset),
    **_REGISTERS,
    ":DISPlay:CLEar": Command(_clear_display),
    ":DISPlay:SCReen": Command(_set_screen),
    ":DISPlay:LIGHt:STATe": Command(_set_light, _get_light),
    ":DISPlay:READing:FORMat": Command(_set_reading_format, _get_reading_format),
    ":DISPlay:USER<n>:TEXT[:DATA]": Command(_set_text),
    ":DISPlay:<FUNC>:DIGits": Command(_set_digits, _get_digits),
}
