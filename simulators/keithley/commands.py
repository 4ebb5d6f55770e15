"""What every command is made of, and how a line of them is carried out.

A handler carries a command out at once, or, where that takes time, as an iterator of the seconds
that pass; what it returns is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias

from labctl.simulators.keithley.errors import ScpiError
from labctl.simulators.keithley.instrument import Smu
from labctl.simulators.keithley.scpi import Arguments, Found, Grammar, parse_unit, split_units

Reply: TypeAlias = str | bytes | None
Passing: TypeAlias = Generator[float, None, Reply]
Handler: TypeAlias = Callable[[Smu, Found, Arguments], "Reply | Passing"]


@dataclass(frozen=True, slots=True)
class Command:
    """A header; ``set`` without a question mark, ``get`` with one. None: there is no such thing."""

    set: Handler | None = None
    get: Handler | None = None


Table: TypeAlias = dict[str, Command]


class Interpreter:
    """Carries lines out on one instrument."""

    def __init__(self, smu: Smu, table: Table) -> None:
        self._smu = smu
        self._table = table
        self._grammar = Grammar(table)

    def run(self, line: str) -> Generator[float, None, bytes]:
        """Gives the seconds that pass while a line is carried out.

        Returns what is answered, without a terminator, empty for nothing. What is wrong goes into
        the event log.
        """
        replies: list[bytes] = []
        path = ""
        try:
            units = split_units(line)
        except ScpiError as error:
            self._log(error)
            return b""
        for text in units:
            try:
                unit = parse_unit(text)
                found, path = self._grammar.find(unit.header, path)
                command = self._table[found.pattern]
                handler = command.get if unit.is_query else command.set
                if handler is None:
                    raise ScpiError(-113, unit.header[:60])
                reply = handler(self._smu, found, arguments := Arguments(unit.parameters))
                if isinstance(reply, Generator):
                    reply = yield from reply
                arguments.end()
            except ScpiError as error:
                self._log(error)
                continue
            if reply is not None:
                replies.append(reply if isinstance(reply, bytes) else reply.encode())
        return b";".join(replies)

    def _log(self, error: ScpiError) -> None:
        self._smu.log.add(error.code, self._smu.unix_time_s, detail=error.detail)


def command_names(line: str) -> tuple[str, ...]:
    """The headers of a line in capitals, as faults name them, such as ``OUTP`` and ``*IDN?``."""
    try:
        units = split_units(line)
    except ScpiError:
        return ()
    return tuple(unit.split(maxsplit=1)[0].lstrip(":").upper() for unit in units)


def number(smu: Smu, value: float) -> str:
    """A number as the instrument prints it, with the digits that are set."""
    return f"{value:.{(smu.precision or 7) - 1}E}"


def boolean(value: bool) -> str:
    return "1" if value else "0"


def query_word(arguments: Arguments, low: float, high: float, default: float) -> float | None:
    """The value that ``MIN``, ``MAX`` or ``DEF`` after a question mark asks for; None without."""
    if not len(arguments):
        return None
    word = arguments.word("MINimum", "MAXimum", "DEFault")
    return {"MIN": low, "MAX": high, "DEF": default}[word]
