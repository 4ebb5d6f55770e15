"""SOURce, OUTPut and ROUTe: what is put out, and within which limits.

Source: reference manual 2461-901-01, ch. 6. A level that a fixed range does not hold is refused;
the number of that error is not known for certain.
"""

from __future__ import annotations

import math
from typing import Final

from labctl.simulators.keithley.commands import (
    Command,
    Reply,
    Table,
    boolean,
    number,
    query_word,
)
from labctl.simulators.keithley.errors import ScpiError
from labctl.simulators.keithley.instrument import Smu
from labctl.simulators.keithley.models import OVERRANGE, range_for
from labctl.simulators.keithley.output import OFF_STATES, SourceSettings
from labctl.simulators.keithley.scpi import Arguments, Found

LONGEST_DELAY_S: Final = 10_000.0


def _bound(smu: Smu, function: str) -> float:
    return smu.model.voltage_max_V if function == "VOLT" else smu.model.current_max_A


def _source(smu: Smu, found: Found) -> SourceSettings:
    return smu.output.sources[found.function]


def _set_function(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    function = arguments.word("VOLTage", "CURRent")
    if function != smu.output.function:
        smu.switch(on=False)
        smu.output.function = function
        smu.source_changed()


def _get_function(smu: Smu, _: Found, __: Arguments) -> str:
    return smu.output.function


def _set_level(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    bound = _bound(smu, found.function)
    level = arguments.number(-bound, bound, default=0.0)
    source = _source(smu, found)
    if not source.auto_range and abs(level) > source.full_scale * OVERRANGE:
        raise ScpiError(-222, f"{level:g} in the range {source.full_scale:g}")
    source.level = level
    smu.source_changed()


def _get_level(smu: Smu, found: Found, arguments: Arguments) -> str:
    bound = _bound(smu, found.function)
    asked = query_word(arguments, -bound, bound, 0.0)
    return number(smu, _source(smu, found).level if asked is None else asked)


def _set_range(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    ranges = smu.output.ranges(found.function)
    bound = _bound(smu, found.function)
    wanted = arguments.number(-bound, bound, default=ranges[0])
    full_scale = range_for(wanted, ranges) or ranges[-1]
    source = _source(smu, found)
    if abs(source.level) > full_scale * OVERRANGE:
        source.level = 0.0
    source.full_scale, source.auto_range = full_scale, False
    smu.source_changed()


def _get_range(smu: Smu, found: Found, arguments: Arguments) -> str:
    ranges = smu.output.ranges(found.function)
    asked = query_word(arguments, ranges[0], ranges[-1], ranges[0])
    return number(smu, smu.output.full_scale(found.function) if asked is None else asked)


def _set_auto_range(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    source = _source(smu, found)
    auto = arguments.boolean()
    if not auto:
        source.full_scale = smu.output.full_scale(found.function)
    source.auto_range = auto
    smu.source_changed()


def _get_auto_range(smu: Smu, found: Found, _: Arguments) -> str:
    return boolean(_source(smu, found).auto_range)


def _set_current_limit(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    model = smu.model
    limit = arguments.number(
        model.current_limit_min_A, model.current_max_A, default=model.current_limit_default_A
    )
    sense = smu.senses["CURR"]
    if not sense.auto_range:
        smu.refuse_small_limit(limit, sense.full_scale)
    smu.output.sources["VOLT"].limit = limit
    smu.source_changed()


def _get_current_limit(smu: Smu, _: Found, arguments: Arguments) -> str:
    model = smu.model
    asked = query_word(
        arguments, model.current_limit_min_A, model.current_max_A, model.current_limit_default_A
    )
    return number(smu, smu.output.sources["VOLT"].limit if asked is None else asked)


def _set_voltage_limit(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    model = smu.model
    limit = arguments.number(
        model.voltage_limit_min_V, model.voltage_max_V, default=model.voltage_limit_default_V
    )
    sense = smu.senses["VOLT"]
    if not sense.auto_range:
        smu.refuse_small_limit(limit, sense.full_scale)
    smu.output.sources["CURR"].limit = limit
    smu.source_changed()


def _get_voltage_limit(smu: Smu, _: Found, arguments: Arguments) -> str:
    model = smu.model
    asked = query_word(
        arguments, model.voltage_limit_min_V, model.voltage_max_V, model.voltage_limit_default_V
    )
    return number(smu, smu.output.sources["CURR"].limit if asked is None else asked)


def _get_tripped(smu: Smu, found: Found, _: Arguments) -> str:
    function = "VOLT" if "ILIMit" in found.pattern else "CURR"
    return boolean(smu.output.function == function and smu.output.limited)


def _set_protection(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    levels = {f"PROT{value:g}": value for value in smu.model.protections_V} | {"NONE": math.inf}
    smu.output.protection_V = levels[arguments.word(*levels)]
    smu.source_changed()


def _get_protection(smu: Smu, _: Found, __: Arguments) -> str:
    held_V = smu.output.protection_V
    return "NONE" if math.isinf(held_V) else f"PROT{held_V:g}"


def _get_protecting(smu: Smu, _: Found, __: Arguments) -> str:
    return boolean(smu.output.protecting)


def _set_delay(smu: Smu, found: Found, arguments: Arguments) -> None:
    source = _source(smu, found)
    source.delay_s = arguments.number(0.0, LONGEST_DELAY_S, default=0.0)
    source.auto_delay = False


def _get_delay(smu: Smu, found: Found, _: Arguments) -> str:
    return number(smu, _source(smu, found).delay_s)


def _set_auto_delay(smu: Smu, found: Found, arguments: Arguments) -> None:
    _source(smu, found).auto_delay = arguments.boolean()


def _get_auto_delay(smu: Smu, found: Found, _: Arguments) -> str:
    return boolean(_source(smu, found).auto_delay)


def _user_delay(found: Found) -> int:
    if not 1 <= found.number <= 5:
        raise ScpiError(-114)
    return found.number - 1


def _set_user_delay(smu: Smu, found: Found, arguments: Arguments) -> None:
    _source(smu, found).user_delays_s[_user_delay(found)] = arguments.number(
        0.0, LONGEST_DELAY_S, default=0.0
    )


def _get_user_delay(smu: Smu, found: Found, _: Arguments) -> str:
    return number(smu, _source(smu, found).user_delays_s[_user_delay(found)])


def _set_readback(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    _source(smu, found).readback = arguments.boolean()


def _get_readback(smu: Smu, found: Found, _: Arguments) -> str:
    return boolean(_source(smu, found).readback)


def _set_high_capacitance(smu: Smu, found: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    _source(smu, found).high_capacitance = arguments.boolean()


def _get_high_capacitance(smu: Smu, found: Found, _: Arguments) -> str:
    return boolean(_source(smu, found).high_capacitance)


def _set_output(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.switch(on=arguments.boolean())


def _get_output(smu: Smu, _: Found, __: Arguments) -> str:
    return boolean(smu.output.on)


def _set_off_state(smu: Smu, found: Found, arguments: Arguments) -> None:
    state = arguments.word(*OFF_STATES)
    for function in (found.function,) if found.function else ("VOLT", "CURR"):
        smu.output.sources[function].off_state = state
    smu.output.settle()


def _get_off_state(smu: Smu, found: Found, _: Arguments) -> str:
    return smu.output.sources[found.function or smu.output.function].off_state


def _get_interlock(_: Smu, __: Found, ___: Arguments) -> str:
    return "1"


def _set_terminals(smu: Smu, _: Found, arguments: Arguments) -> None:
    smu.refuse_while_running()
    terminals = arguments.word("FRONt", "REAR")
    if terminals != smu.terminals:
        smu.terminals = terminals
        smu.switch(on=False)


def _get_terminals(smu: Smu, _: Found, __: Arguments) -> Reply:
    return smu.terminals


_ROOT = "SOURce[1]:"
_FUNCTION = "SOURce[1]:<SFUNC>"

SOURCE: Final[Table] = {
    f":{header}": command
    for header, command in {
        f"{_ROOT}FUNCtion[:MODE]": Command(_set_function, _get_function),
        f"{_FUNCTION}[:LEVel][:IMMediate][:AMPLitude]": Command(_set_level, _get_level),
        f"{_FUNCTION}:RANGe": Command(_set_range, _get_range),
        f"{_FUNCTION}:RANGe:AUTO": Command(_set_auto_range, _get_auto_range),
        f"{_ROOT}VOLTage:ILIMit[:LEVel]": Command(_set_current_limit, _get_current_limit),
        f"{_ROOT}CURRent:VLIMit[:LEVel]": Command(_set_voltage_limit, _get_voltage_limit),
        f"{_ROOT}VOLTage:ILIMit[:LEVel]:TRIPped": Command(get=_get_tripped),
        f"{_ROOT}CURRent:VLIMit[:LEVel]:TRIPped": Command(get=_get_tripped),
        f"{_FUNCTION}:PROTection[:LEVel]": Command(_set_protection, _get_protection),
        f"{_FUNCTION}:PROTection[:LEVel]:TRIPped": Command(get=_get_protecting),
        f"{_FUNCTION}:DELay": Command(_set_delay, _get_delay),
        f"{_FUNCTION}:DELay:AUTO": Command(_set_auto_delay, _get_auto_delay),
        f"{_FUNCTION}:DELay:USER<n>": Command(_set_user_delay, _get_user_delay),
        f"{_FUNCTION}:READ:BACK": Command(_set_readback, _get_readback),
        f"{_FUNCTION}:HIGH:CAPacitance": Command(_set_high_capacitance, _get_high_capacitance),
        "OUTPut[1][:STATe]": Command(_set_output, _get_output),
        "OUTPut[1]:SMODe": Command(_set_off_state, _get_off_state),
        "OUTPut[1]:<SFUNC>:SMODe": Command(_set_off_state, _get_off_state),
        "OUTPut[1]:INTerlock:TRIPped": Command(get=_get_interlock),
        "ROUTe:TERMinals": Command(_set_terminals, _get_terminals),
    }.items()
}
