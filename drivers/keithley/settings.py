"""The commands that set an instrument up for a visit, and the questions that read it back.

Source: reference manual 2461-901-01, ch. 6. The order matters: a change of the function, of the way
of sensing or of the terminals opens the output; a current limit must be above 0.1 % of the range
that measures it, so the range is let free before the limit is set and fixed after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from labctl.drivers.keithley.config import KeithleyConfig
from labctl.drivers.keithley.plan import Setup
from labctl.wire.scpi import parse_boolean, parse_number, parse_word, write_number

BUFFER: Final = "defbuffer1"
LIMIT_OF: Final = {"VOLT": "ILIM", "CURR": "VLIM"}
FINEST_SOURCE_A: Final = 1e-6
"""The range that 0 A are put out in."""

READ_BACK_SLACK: Final = 1e-5

Value = float | str | bool
Question = tuple[str, Callable[[str], Value], Value]
"""A query, how its answer is read, and what it must be."""


def settings_of(setup: Setup, config: KeithleyConfig) -> tuple[str, ...]:
    """Everything but the trigger model. The output must be open."""
    source, sense = setup.source, setup.sense
    terminals = {"front": (":ROUT:TERM FRON",), "rear": (":ROUT:TERM REAR",)}
    return (
        ":FORM:DATA ASC",
        ":FORM:ASC:PREC 16",
        *terminals.get(config.terminals, ()),
        f":SOUR:FUNC {source}",
        f":OUTP:{source}:SMOD HIMP",
        f":SOUR:VOLT:PROT {protection_word(setup.protection_V)}",
        f":SOUR:{source}:RANG {write_number(setup.source_range)}",
        f":SOUR:{source} {write_number(setup.level)}",
        f":SOUR:{source}:READ:BACK ON",
        f":SOUR:{source}:DEL 0",
        f':SENS:FUNC "{sense}"',
        ":SENS:COUN 1",
        f":SENS:{sense}:RSEN {'ON' if config.four_wire else 'OFF'}",
        f":SENS:{sense}:NPLC {write_number(config.nplc)}",
        f":SENS:{sense}:AVER OFF",
        f":SENS:{sense}:RANG:AUTO ON",
        f":SOUR:{source}:{LIMIT_OF[source]} {write_number(setup.limit)}",
        f":SENS:{sense}:RANG {write_number(setup.sense_range)}",
        f':TRAC:POIN {config.buffer_readings},"{BUFFER}"',
        f':TRAC:FILL:MODE CONT,"{BUFFER}"',
    )


def questions_of(setup: Setup, config: KeithleyConfig) -> tuple[Question, ...]:
    """What the instrument must say of itself before current may flow."""
    source, sense = setup.source, setup.sense
    return (
        (":OUTP?", parse_boolean, False),
        (":SOUR:FUNC?", parse_word, source),
        (f":OUTP:{source}:SMOD?", parse_word, "HIMP"),
        (f":SOUR:{source}?", parse_number, setup.level),
        (f":SOUR:{source}:{LIMIT_OF[source]}?", parse_number, setup.limit),
        (":SOUR:VOLT:PROT?", parse_word, protection_word(setup.protection_V)),
        (":SENS:FUNC?", _function, sense),
        (f":SENS:{sense}:RANG?", parse_number, setup.sense_range),
        (f":SENS:{sense}:RSEN?", parse_boolean, config.four_wire),
    )


def agrees(found: Value, wanted: Value) -> bool:
    """Whether what was read back is what was set, to rounding."""
    if isinstance(found, float) and isinstance(wanted, float):
        return abs(found - wanted) <= READ_BACK_SLACK * abs(wanted) + 1e-12
    return found == wanted


def protection_word(voltage_V: float) -> str:
    return "NONE" if math.isinf(voltage_V) else f"PROT{voltage_V:g}"


def _function(text: str) -> str:
    return parse_word(text).partition(":")[0]
