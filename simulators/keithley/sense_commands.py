"""SENSe: what is measured, in which range and how long.

Source: reference manual 2461-901-01, ch. 6. A change of the way of sensing switches the output off.
"""

from __future__ import annotations

from typing import Final

from labctl.simulators.keithley.commands import Command, Table, boolean, number, query_word
from labctl.simulators.keithley.errors import ScpiError
from labctl.simulators.keithley.instrument import SenseSettings, Smu
from labctl.simulators.keithley.models import OVERRANGE, range_for
from labctl.simulators.keithley.scpi import Arguments, Found

FUNCTION_NAMES: Final = {"VOLT": '"VOLT:DC"', "CURR": '"CURR:DC"', "RES": '"RES"'}
MOST_READINGS: Final = 300_000
LONGEST_DELAY_S: Final = 10_000.0


def _sense(smu: Smu, found: Found) -> SenseSettings:
    return smu.senses[found.function]


def _set_function(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    word = arguments.word("VOLTage", "CURRent", "RESistance", "VOLT:DC", "CURR:DC")
    smu.sense_function = word.removesuffix(":DC")


def _get_function(smu: Smu, _: Found, __: Arguments) -> str:
    return FUNCTION_NAMES[smu.sense_function]


def _set_range(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    ranges = smu.ranges(found.function)
    bound = ranges[-1] * OVERRANGE
    wanted = arguments.number(-bound, bound, default=ranges[-1])
    full_scale = range_for(wanted, ranges) or ranges[-1]
    other = {"CURR": "VOLT", "VOLT": "CURR"}.get(found.function)
    if other is not None:
        smu.refuse_small_limit(smu.output.sources[other].limit, full_scale)
    sense = _sense(smu, found)
    sense.full_scale, sense.auto_range = full_scale, False
    smu.source_changed()


def _get_range(smu: Smu, found: Found, arguments: Arguments) -> str:
    ranges = smu.ranges(found.function)
    asked = query_word(arguments, ranges[0], ranges[-1], ranges[-1])
    if asked is not None:
        return number(smu, asked)
    sense = _sense(smu, found)
    if found.function == smu.output.function:
        return number(smu, smu.output.full_scale(found.function))
    if sense.auto_range and found.function == "CURR":
        return number(smu, smu.current_limit_range_A())
    return number(smu, sense.full_scale)


def _set_auto_range(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    _sense(smu, found).auto_range = arguments.boolean()
    smu.source_changed()


def _get_auto_range(smu: Smu, found: Found, _: Arguments) -> str:
    return boolean(_sense(smu, found).auto_range)


def _set_lower_limit(smu: Smu, found: Found, arguments: Arguments) -> None:
    ranges = smu.ranges(found.function)
    _sense(smu, found).lower_limit = arguments.number(0.0, ranges[-1], default=ranges[0])


def _get_lower_limit(smu: Smu, found: Found, _: Arguments) -> str:
    return number(smu, _sense(smu, found).lower_limit)


def _set_nplc(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    _sense(smu, found).nplc = arguments.number(0.01, 10.0, default=1.0)


def _get_nplc(smu: Smu, found: Found, arguments: Arguments) -> str:
    asked = query_word(arguments, 0.01, 10.0, 1.0)
    return number(smu, _sense(smu, found).nplc if asked is None else asked)


def _set_four_wire(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    sense, wanted = _sense(smu, found), arguments.boolean()
    if sense.four_wire != wanted:
        sense.four_wire = wanted
        smu.switch(on=False)


def _get_four_wire(smu: Smu, found: Found, _: Arguments) -> str:
    return boolean(_sense(smu, found).four_wire)


def _set_autozero(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    _sense(smu, found).autozero = arguments.boolean()


def _get_autozero(smu: Smu, found: Found, _: Arguments) -> str:
    return boolean(_sense(smu, found).autozero)


def _zero_once(smu: Smu, _: Found, __: Arguments) -> None:
    smu.refuse_while_running()


def _set_unit(smu: Smu, found: Found, arguments: Arguments) -> None:
    own = {"VOLT": "VOLT", "CURR": "AMP", "RES": "OHM"}[found.function]
    unit = arguments.word("OHM", "WATT", "VOLT", "AMP")
    if unit != own:
        raise ScpiError(-224, f"readings in {unit} are not simulated")
    _sense(smu, found).unit = unit


def _get_unit(smu: Smu, found: Found, _: Arguments) -> str:
    return _sense(smu, found).unit


def _set_averaging(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    _sense(smu, found).averaging = arguments.boolean()


def _get_averaging(smu: Smu, found: Found, _: Arguments) -> str:
    return boolean(_sense(smu, found).averaging)


def _set_average_count(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    _sense(smu, found).average_count = arguments.integer(1, 100, default=10)


def _get_average_count(smu: Smu, found: Found, _: Arguments) -> str:
    return str(_sense(smu, found).average_count)


def _set_average_kind(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    _sense(smu, found).average_kind = arguments.word("REPeat", "MOVing")


def _get_average_kind(smu: Smu, found: Found, _: Arguments) -> str:
    return _sense(smu, found).average_kind


def _set_count(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.sense_count = arguments.integer(1, MOST_READINGS, default=1)


def _get_count(smu: Smu, _: Found, __: Arguments) -> str:
    return str(smu.sense_count)


def _set_user_delay(smu: Smu, found: Found, arguments: Arguments) -> None:
    if not 1 <= found.number <= 5:
        raise ScpiError(-114)
    _sense(smu, found).user_delays_s[found.number - 1] = arguments.number(
        0.0, LONGEST_DELAY_S, default=0.0
    )


def _get_user_delay(smu: Smu, found: Found, _: Arguments) -> str:
    if not 1 <= found.number <= 5:
        raise ScpiError(-114)
    return number(smu, _sense(smu, found).user_delays_s[found.number - 1])


_ROOT = ":[SENSe[1]:]"
_FUNCTION = ":[SENSe[1]:]<FUNC>"

SENSE: Final[Table] = {
    f"{_ROOT}FUNCtion[:ON]": Command(_set_function, _get_function),
    f"{_FUNCTION}:RANGe[:UPPer]": Command(_set_range, _get_range),
    f"{_FUNCTION}:RANGe:AUTO": Command(_set_auto_range, _get_auto_range),
    f"{_FUNCTION}:RANGe:AUTO:LLIMit": Command(_set_lower_limit, _get_lower_limit),
    f"{_FUNCTION}:NPLCycles": Command(_set_nplc, _get_nplc),
    f"{_FUNCTION}:RSENse": Command(_set_four_wire, _get_four_wire),
    f"{_FUNCTION}:AZERo[:STATe]": Command(_set_autozero, _get_autozero),
    f"{_ROOT}AZERo:ONCE": Command(_zero_once),
    f"{_FUNCTION}:UNIT": Command(_set_unit, _get_unit),
    f"{_FUNCTION}:AVERage[:STATe]": Command(_set_averaging, _get_averaging),
    f"{_FUNCTION}:AVERage:COUNt": Command(_set_average_count, _get_average_count),
    f"{_FUNCTION}:AVERage:TCONtrol": Command(_set_average_kind, _get_average_kind),
    f"{_FUNCTION}:DELay:USER<n>": Command(_set_user_delay, _get_user_delay),
    f"{_ROOT}COUNt": Command(_set_count, _get_count),
}
