"""A script at work: commands become operations that are carried out one after the other.

Running is an iterator, which stops whenever time has passed or something was written. Whoever runs
it writes what waits, lets as much time pass as the instrument's has, and can end the script in
between: as a real one, which looks for commands between two samples.

Source: MethodSCRIPT manual v1.8, chapters 6, 10 and 14.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from typing import Final

from labctl.simulators.palmsens.actions import SIMPLE, Actions
from labctl.simulators.palmsens.device import Potentiostat
from labctl.simulators.palmsens.errors import Code, RunError, ScriptError
from labctl.simulators.palmsens.language import Argument, Command, Parsed, Reference
from labctl.simulators.palmsens.loops import LOOPS, PIECE_S, TECHNIQUES, Turns, begin_loop
from labctl.simulators.palmsens.values import STATUS_TIMING, Value, single
from labctl.simulators.palmsens.vocabulary import ON_FINISHED

LARGEST_ARRAY: Final = 100_000

Operation = Callable[[], int]
Getter = Callable[[], Value]

_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_BRACES = re.compile(r"\{(?P<name>[a-z][a-z0-9_]*)(?:\[(?P<index>[a-z0-9_]+)\])?\}")


class Interpreter:
    """One run of a script on an instrument.

    abort, skip_loop, reverse: what was asked for from outside, done before the next command.
    """

    def __init__(self, parsed: Parsed, device: Potentiostat) -> None:
        self.abort = False
        self.skip_loop = False
        self.reverse = False
        self._parsed = parsed
        self._device = device
        self._variables = {name: Value() for name in parsed.variables}
        self._arrays: dict[str, list[Value]] = {name: [] for name in parsed.arrays}
        self._loops: dict[int, tuple[Iterator[bool], Turns]] = {}
        self._do = Actions(device)
        self._carried_out = 0
        self._finishing = False
        self._inside: set[int] = set()
        self._left_s: dict[int, float] = {}
        self._operations = [
            self._operation(place, command) for place, command in enumerate(parsed.commands)
        ]

    def say(self, line: str) -> None:
        """Put a line among the output, such as the echo of a command."""
        self._do.written.append(line)

    def take_written(self) -> list[str]:
        """The lines that wait to be sent."""
        waiting, self._do.written = self._do.written, []
        return waiting

    @property
    def has_written(self) -> bool:
        return bool(self._do.written)

    def run(self) -> Iterator[None]:
        """Carry the script out; stops at every moment at which something may be seen of it."""
        place, last = 0, len(self._operations)
        while place < last:
            try:
                place = self._operations[place]()
            except RunError as error:
                line = self._parsed.commands[place].line
                self._do.written.append(ScriptError(error.code, line).text)
                return
            self._carried_out += 1
            if self._do.paused or self._do.written:
                self._do.paused = False
                yield
                place = self._told(place)

    def _told(self, place: int) -> int:
        """Where to go on after what was asked for from outside."""
        if self.abort and not self._finishing:
            return self._finish()
        if self.skip_loop:
            self.skip_loop = False
            if self._loops:
                started = max(self._loops)
                return self._leave(started)
        if self.reverse:
            self.reverse = False
            for _, turns in self._loops.values():
                turns.reverse = True
        return place

    def _operation(self, place: int, command: Command) -> Operation:
        after = place + 1
        if command.name in LOOPS:
            return self._measuring(place, command)
        if command.name == "endloop":
            return lambda: command.next_branch
        if command.name in _SPECIAL:
            return _SPECIAL[command.name](self, place, command)
        simple = SIMPLE.get(command.name)
        if simple is None:
            return lambda: after
        do = self._do
        getters = [self._getter(argument) for argument in command.arguments]
        if any(_is_element(argument) for argument in command.arguments):

            def carry_out_anew() -> int:
                simple(do, [getter() for getter in getters])
                return after

            return carry_out_anew

        given = [getter() for getter in getters]

        def carry_out() -> int:
            simple(do, given)
            return after

        return carry_out

    def _getter(self, argument: Argument) -> Getter:
        """How an argument is had when it is needed; a name, a type or a string as it stands."""
        if isinstance(argument, str):
            constant = Value(kind=argument)
            return lambda: constant
        if not isinstance(argument, Reference):
            constant = Value(argument if isinstance(argument, int) else single(argument))
            return lambda: constant
        if argument.index is None:
            variable = self._variables[argument.name]
            return lambda: variable
        array = self._arrays[argument.name]
        if isinstance(argument.index, int):
            index = Value(argument.index)
            return lambda: _element(array, index)
        getter = self._getter(argument.index)
        return lambda: _element(array, getter())

    def _measuring(self, place: int, command: Command) -> Operation:
        """One turn of a measurement loop; the first one begins it."""
        outputs, loop = LOOPS[command.name]
        getters = [self._getter(argument) for argument in command.arguments]
        scans = command.options.get("nscans", 1)
        scans_getter = self._getter(scans)

        def turn() -> int:
            running = self._loops.get(place)
            if running is None:
                begin_loop(command.name, self._device)
                values = [getter() for getter in getters]
                given = [float(value.number) for value in values[outputs:]]
                if any(math.isnan(value) for value in given):
                    raise RunError(Code.NOT_A_NUMBER)
                if command.name == "meas_loop_cv":
                    given.append(float(scans_getter().number))
                turns = Turns()
                running = (loop(self._device, values[:outputs], given, turns), turns)
                self._loops[place] = running
                self._do.write(f"M{TECHNIQUES[command.name]:04X}")
                self._carried_out = 0
            steps, turns = running
            late = self._carried_out * self._device.model.command_s > turns.interval_s > 0
            whole = next(steps, None)
            if turns.scan_over:
                self._do.write("-")
                turns.scan_over = False
            if whole is None:
                return self._leave(place)
            if not whole:
                self._do.paused = True
                return place
            if turns.scan >= 0:
                self._do.write(f"C{turns.scan:04d}")
                turns.scan = -1
            self._carried_out, self._do.paused = 0, True
            if late:
                for getter in getters[:outputs]:
                    getter().status |= STATUS_TIMING
            return place + 1

        return turn

    def _leave(self, place: int) -> int:
        """Out of a loop, to what follows it."""
        if self._loops.pop(place, None) is not None:
            self._do.write("*")
        if place in self._inside:
            self._inside.discard(place)
            self._do.write("+")
        return self._parsed.commands[place].end + 1

    def _finish(self) -> int:
        """To what is done at the end, out of everything."""
        self._finishing = True
        for place in sorted({*self._loops, *self._inside}, reverse=True):
            self._leave(place)
        self._do.package = None
        return self._parsed.finish

    def _condition(self, command: Command) -> Callable[[], bool]:
        left, how, right = command.arguments
        first, second = self._getter(left), self._getter(right)
        compare = _COMPARE[str(how)]

        def holds() -> bool:
            return compare(*_alike(first().number, second().number))

        if _is_element(left) or _is_element(right):
            return holds
        left_value, right_value = first(), second()

        def holds_of_these() -> bool:
            a, b = left_value.number, right_value.number
            if type(a) is not type(b):
                raise RunError(Code.CANNOT_COMPARE)
            return compare(a, b)

        return holds_of_these

    def _if(self, place: int, command: Command) -> Operation:
        chain = [(self._condition(command), place + 1)]
        target = command.next_branch
        while (branch := self._parsed.commands[target]).name == "elseif":
            chain.append((self._condition(branch), target + 1))
            target = branch.next_branch

        first, body_of_first = chain[0]
        if len(chain) == 1:
            return lambda: body_of_first if first() else target + 1

        def choose() -> int:
            for holds, body in chain:
                if holds():
                    return body
            return target + 1

        return choose

    def _branch_over(self, place: int, command: Command) -> Operation:
        """A branch that was carried out meets the next one: on to the end of the block."""
        del place
        return lambda: command.end + 1

    def _loop(self, place: int, command: Command) -> Operation:
        holds = self._condition(command)
        speaks = any(
            each.name == "pck_start" or each.name in LOOPS
            for each in self._parsed.commands[place : command.end]
        )

        def turn() -> int:
            if not holds():
                return self._leave(place)
            if speaks and place not in self._inside:
                self._inside.add(place)
                self._do.write("L")
            self._do.live(self._device.model.command_s)
            return place + 1

        return turn

    def _breakloop(self, place: int, command: Command) -> Operation:
        del place
        start = self._parsed.commands[command.end].next_branch

        return lambda: self._leave(start)

    def _abort(self, place: int, command: Command) -> Operation:
        del place, command
        return self._finish

    def _finished(self, place: int, command: Command) -> Operation:
        del command

        def go_on() -> int:
            self._finishing = True
            return place + 1

        return go_on

    def _wait(self, place: int, command: Command) -> Operation:
        getter = self._getter(command.arguments[0])

        def turn() -> int:
            left_s = self._left_s.pop(place, float(getter().number))
            if left_s < 0:
                raise RunError(Code.NEGATIVE)
            self._do.live(min(left_s, PIECE_S))
            if left_s <= PIECE_S:
                return place + 1
            self._left_s[place] = left_s - PIECE_S
            return place

        return turn

    def _text(self, place: int, command: Command) -> Operation:
        written = str(command.arguments[0])
        formatted = written.startswith("f")
        text = written[2:-1] if formatted else written[1:-1]

        def value_of(match: re.Match[str]) -> str:
            name, index = match["name"], match["index"]
            if index is None:
                return f"{self._named(name).number:g}"
            place = Value(int(index)) if index.isdigit() else self._named(index)
            return f"{_element(self._arrays.get(name, []), place).number:g}"

        def say() -> int:
            self._do.write("T" + (_BRACES.sub(value_of, text) if formatted else text))
            return place + 1

        return say

    def _named(self, name: str) -> Value:
        found = self._variables.get(name)
        if found is None:
            raise RunError(Code.NOT_DECLARED)
        return found

    def _declare_array(self, place: int, command: Command) -> Operation:
        name, size = str(command.arguments[0]), self._getter(command.arguments[1])

        def declare() -> int:
            count = int(size().number)
            if not 0 < count <= LARGEST_ARRAY:
                raise RunError(Code.OUT_OF_BOUNDS)
            self._arrays[name][:] = [Value() for _ in range(count)]
            return place + 1

        return declare

    def _mean(self, place: int, command: Command) -> Operation:
        array = self._arrays[str(command.arguments[0])]
        out = self._getter(command.arguments[1])

        def calculate() -> int:
            if not array:
                raise RunError(Code.BAD_INDEX)
            out().take(single(math.fsum(value.number for value in array) / len(array)))
            return place + 1

        return calculate

    def _cell_on(self, place: int, command: Command) -> Operation:
        ocp = command.options.get("ocp")
        getter = None if ocp is None else self._getter(ocp)

        def switch() -> int:
            if getter is not None and not self._device.holds_current:
                self._device.set_potential(float(getter().number))
            self._device.switch(on=True)
            return place + 1

        return switch


def _is_element(argument: Argument) -> bool:
    return isinstance(argument, Reference) and argument.index is not None


def _alike(a: float, b: float) -> tuple[float, float]:
    if type(a) is not type(b):
        raise RunError(Code.CANNOT_COMPARE)
    return a, b


def _element(array: list[Value], index: Value) -> Value:
    place = index.number
    if not isinstance(place, int):
        raise RunError(Code.WRONG_DATATYPE)
    if not 0 <= place < len(array):
        raise RunError(Code.BAD_INDEX)
    return array[place]


_SPECIAL: Final[dict[str, Callable[[Interpreter, int, Command], Operation]]] = {
    "if": Interpreter._if,
    "elseif": Interpreter._branch_over,
    "else": Interpreter._branch_over,
    "loop": Interpreter._loop,
    "breakloop": Interpreter._breakloop,
    "abort": Interpreter._abort,
    "send_string": Interpreter._text,
    "array": Interpreter._declare_array,
    "mean": Interpreter._mean,
    "cell_on": Interpreter._cell_on,
    "wait": Interpreter._wait,
    ON_FINISHED: Interpreter._finished,
}
