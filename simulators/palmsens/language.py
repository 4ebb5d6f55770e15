"""From the text of a script to commands with arguments, or to the error that the instrument gives.

The whole is refused for one mistake, with its line and column, before anything runs.

Source: MethodSCRIPT manual v1.8, chapters 3, 4 and 14.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from labctl.simulators.palmsens.errors import Code, ScriptError
from labctl.simulators.palmsens.values import parse_literal
from labctl.simulators.palmsens.vocabulary import (
    COMPARISONS,
    ELSEWHERE,
    ON_FINISHED,
    OPTIONS,
    SIGNATURES,
)

LONGEST_LINE: Final = 255
LONGEST_NAME: Final = 32
"""Chosen; the real figure is not known."""
DEEPEST: Final = 16
"""How deeply blocks may be nested; chosen, the real figure is not known."""
OUTSIDE: Final = frozenset({"set_pgstat_mode", "set_pgstat_chan", "cell_on", "cell_off", "meas"})
"""What cannot stand in a measurement loop."""
_TOKEN = re.compile(r'\s*(f?"[^"]*"|[a-z0-9_]+\([^()]*\)|[^\s#"]+)')
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_REFERENCE = re.compile(r"(?P<name>[a-z][a-z0-9_]*)(?:\[(?P<index>[^\[\]]+)\])?")
_TYPE = re.compile(r"[a-z]{2}")
_OPTION = re.compile(r"(?P<name>[a-z0-9_]+)\((?P<value>[^()]*)\)")
_FIRST = re.compile(r"[a-z0-9_:]+")


@dataclass(frozen=True, slots=True)
class Reference:
    """A variable, or with ``index`` (a variable or a number) an element of an array."""

    name: str
    index: Reference | int | None = None


Argument = Reference | float | int | str


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    next_branch: of a condition, where it goes on when it does not hold; of the end of a loop, where
    the loop begins. end: the place of the command that ends the block.
    """

    line: int
    name: str
    arguments: tuple[Argument, ...]
    options: dict[str, Argument] = field(default_factory=dict)
    next_branch: int = -1
    end: int = -1


@dataclass(frozen=True, slots=True)
class Parsed:
    """A script that can run; ``finish`` is the place of the first command after on_finished."""

    commands: tuple[Command, ...]
    finish: int
    variables: frozenset[str]
    arrays: frozenset[str]


def parse(
    lines: Sequence[str], *, largest_bytes: int = 1 << 20, missing: frozenset[str] = frozenset()
) -> Parsed:
    """The script in ``lines``; the model does not have the commands that are ``missing``.

    Raises:
        ScriptError: what the instrument refuses it with.
    """
    if sum(len(line) + 1 for line in lines) > largest_bytes:
        raise ScriptError(Code.SCRIPT_TOO_LARGE, len(lines))
    parser = _Parser(missing)
    for number, line in enumerate(lines, start=1):
        parser.take(number, line)
    return parser.done(len(lines))


@dataclass(slots=True)
class _Open:
    """A block that is not closed yet: the places of its branches, and of what breaks it."""

    kind: str
    branches: list[int]
    breaks: list[int] = field(default_factory=list)
    measures: bool = False


class _Parser:
    def __init__(self, missing: frozenset[str]) -> None:
        self._missing = ELSEWHERE | missing
        self._commands: list[Command] = []
        self._next: dict[int, int] = {}
        self._end: dict[int, int] = {}
        self._open: list[_Open] = []
        self._variables: set[str] = set()
        self._arrays: set[str] = set()
        self._finish = -1
        self._package = False

    def take(self, number: int, line: str) -> None:
        if len(line) > LONGEST_LINE:
            raise ScriptError(Code.TOO_LONG, number)
        for column, char in enumerate(line, start=1):
            if not (char.isascii() and (char.isprintable() or char == "\t")):
                raise ScriptError(Code.BAD_CHARACTER, number, column)
        tokens = _tokens(line, number)
        if not tokens:
            return
        column, name = tokens[0]
        name = ON_FINISHED if name == "on_finished" else name
        if not _FIRST.fullmatch(name):
            raise ScriptError(Code.BAD_CHARACTER, number, column)
        if name in self._missing:
            raise ScriptError(Code.NOT_ON_THIS_DEVICE, number, column)
        signature = SIGNATURES.get(name)
        if signature is None:
            raise ScriptError(Code.UNKNOWN_SCRIPT_COMMAND, number, column)
        self._shape(name, number, column)
        arguments, options = self._arguments(name, signature.split(), tokens[1:], number, line)
        self._commands.append(Command(number, name, arguments, options))

    def done(self, lines: int) -> Parsed:
        if self._open:
            raise ScriptError(Code.ENDED_EARLY, lines + 1)
        if self._package:
            raise ScriptError(Code.BAD_PACKAGE, lines + 1)
        commands = tuple(
            Command(
                command.line,
                command.name,
                command.arguments,
                command.options,
                self._next.get(place, -1),
                self._end.get(place, -1),
            )
            for place, command in enumerate(self._commands)
        )
        finish = len(commands) if self._finish < 0 else self._finish
        return Parsed(commands, finish, frozenset(self._variables), frozenset(self._arrays))

    def _shape(self, name: str, line: int, column: int) -> None:
        """Blocks, and what may stand where."""
        here = len(self._commands)
        inside = any(block.measures for block in self._open)
        if name in {"if", "loop"} or name.startswith("meas_loop_"):
            measures = name.startswith("meas_loop_")
            if measures and inside:
                raise ScriptError(Code.NESTED_MEASUREMENT, line, column)
            if len(self._open) >= DEEPEST:
                raise ScriptError(Code.TOO_DEEP, line, column)
            self._open.append(_Open("if" if name == "if" else "loop", [here], measures=measures))
        elif name in {"elseif", "else", "endif", "endloop"}:
            self._go_on(name, here, line, column)
        elif name == "breakloop":
            loop = next((block for block in reversed(self._open) if block.kind == "loop"), None)
            if loop is None:
                raise ScriptError(Code.NOT_THERE, line, column)
            loop.breaks.append(here)
        elif name == ON_FINISHED:
            if self._open or self._finish >= 0:
                raise ScriptError(Code.BAD_SCOPE, line, column)
            self._finish = here + 1
        elif inside and name in OUTSIDE:
            raise ScriptError(Code.NOT_IN_MEASUREMENT, line, column)
        self._packages(name, line, column)

    def _go_on(self, name: str, here: int, line: int, column: int) -> None:
        """A branch, or the end, of the innermost block."""
        kind = "loop" if name == "endloop" else "if"
        if not self._open or self._open[-1].kind != kind:
            raise ScriptError(Code.BAD_SCOPE, line, column)
        block = self._open[-1]
        last = block.branches[-1]
        self._next[last] = here
        if name in {"elseif", "else"}:
            if self._commands[last].name == "else":
                raise ScriptError(Code.BAD_SCOPE, line, column)
            block.branches.append(here)
            return
        for place in (*block.branches, *block.breaks):
            self._end[place] = here
        self._next[here] = block.branches[0]
        self._open.pop()

    def _packages(self, name: str, line: int, column: int) -> None:
        if (name == "pck_start") == self._package and name in {"pck_start", "pck_add", "pck_end"}:
            raise ScriptError(Code.BAD_PACKAGE, line, column)
        if name in {"pck_start", "pck_end"}:
            self._package = name == "pck_start"

    def _arguments(
        self, name: str, wanted: list[str], tokens: list[tuple[int, str]], number: int, line: str
    ) -> tuple[tuple[Argument, ...], dict[str, Argument]]:
        arguments: list[Argument] = []
        options: dict[str, Argument] = {}
        for column, token in tokens:
            option = _OPTION.fullmatch(token)
            if option is not None and not token.startswith(('"', 'f"')):
                if option["name"] not in OPTIONS.get(name, {}):
                    raise ScriptError(Code.BAD_OPTION, number, column)
                options[option["name"]] = self._value(option["value"], number, column)
            elif len(arguments) == len(wanted):
                raise ScriptError(Code.EXTRA_ARGUMENT, number, column)
            else:
                kind = wanted[len(arguments)]
                arguments.append(self._argument(kind, token, number, column))
        if len(arguments) < len(wanted):
            raise ScriptError(Code.ENDED_EARLY, number, len(line) + 1)
        if name == "array":
            self._arrays.add(str(arguments[0]))
        elif name == "var":
            self._variables.add(str(arguments[0]))
        return tuple(arguments), options

    def _argument(self, kind: str, token: str, line: int, column: int) -> Argument:
        if kind == "new":
            if not _NAME.fullmatch(token):
                raise ScriptError(Code.BAD_NAME, line, column)
            if len(token) > LONGEST_NAME:
                raise ScriptError(Code.NAME_TOO_LONG, line, column)
            if token in self._variables or token in self._arrays:
                raise ScriptError(Code.DECLARED_TWICE, line, column)
            return token
        if kind == "type":
            if not _TYPE.fullmatch(token):
                raise ScriptError(Code.BAD_VARIABLE_TYPE, line, column)
            return token
        if kind == "compare":
            if token not in COMPARISONS:
                raise ScriptError(Code.BAD_CHARACTER, line, column)
            return token
        if kind == "string":
            if not token.endswith('"'):
                raise ScriptError(Code.BAD_CHARACTER, line, column)
            return token
        if kind == "array":
            if token not in self._arrays:
                raise ScriptError(Code.NOT_DECLARED, line, column)
            return token
        found = self._value(token, line, column)
        if kind in {"out", "in"} and not isinstance(found, Reference):
            raise ScriptError(Code.NEEDS_A_VARIABLE, line, column)
        return found

    def _value(self, token: str, line: int, column: int) -> Reference | float | int:
        if token[:1] in "+-0123456789":
            number = parse_literal(token)
            if number is None:
                raise ScriptError(Code.BAD_LITERAL, line, column)
            return number
        match = _REFERENCE.fullmatch(token)
        if match is None:
            raise ScriptError(Code.BAD_CHARACTER, line, column)
        name, inner = match["name"], match["index"]
        known = self._variables if inner is None else self._arrays
        if name not in known:
            raise ScriptError(Code.NOT_DECLARED, line, column)
        if inner is None:
            return Reference(name)
        index = self._value(inner, line, column)
        if isinstance(index, float):
            raise ScriptError(Code.WRONG_DATATYPE, line, column)
        return Reference(name, index)


def _tokens(line: str, number: int) -> list[tuple[int, str]]:
    """Words with their columns, without the comment."""
    tokens: list[tuple[int, str]] = []
    place = 0
    while place < len(line):
        rest = line[place:].lstrip(" \t")
        place = len(line) - len(rest)
        if not rest or rest.startswith("#"):
            break
        match = _TOKEN.match(line, place)
        if match is None:
            raise ScriptError(Code.BAD_CHARACTER, number, place + 1)
        tokens.append((match.start(1) + 1, match[1]))
        place = match.end()
    return tokens
