"""Commands that write, read and run programs. Pure but for the chamber.

A program is written between ``EDIT START`` and ``EDIT END``; until then the one before stays.

Source: ChamberConnectLibrary @1d2deb8, p300.py: write_prgm…, read_prgm…, parse_prgm….
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Final

from labctl.simulators.espec.chamber import REFRIGERATION, RELAYS, RUN, Chamber
from labctl.simulators.espec.programs import MOST_STEPS, Counter, Program, ProgramStep, Running
from labctl.simulators.espec.refusals import (
    ANOTHER_IS_EDITED,
    INCOMPLETE,
    IS_EDITED,
    IS_RUNNING,
    NO_DATA,
    NO_PROGRAM,
    NOT_EDITED,
    NOT_IN_ORDER,
    NOT_NOW,
    PARA,
    RANGE,
    UNSUPPORTED,
    WRONG_COUNTER,
    WRONG_STEP,
    refuse,
)

ENDS: Final = {"OFF": "OFF", "STANDBY": "STANDBY", "CONSTANT": "CONSTANT", "CONST": "CONSTANT",
               "HOLD": "HOLD"}  # fmt: skip
DETAILS: Final = ("HTEMP", "LTEMP", "HHUMI", "LHUMI", "PRE TSV", "PRE HSV")

_NUMBER = r"-?\d{1,4}(?:\.\d{1,3})?"
_WRITE = re.compile(r"PGM(\d{1,2}),(.*)")
_STEP = re.compile(r"STEP(\d{1,2}),(.*)")
_PART = re.compile(
    rf"TEMP({_NUMBER})|TRAMP(ON|OFF)|HUMI(OFF|\d{{1,3}})|HRAMP(ON|OFF)|TIME(\d{{1,3}}):(\d{{1,2}})"
    r"|GRANTY (ON|OFF)|PAUSE (ON|OFF)|(REF\d)|RELAY (ON|OFF)([\d.]+)"
)
_COUNT = re.compile(r"([AB])\((\d{1,2})\.(\d{1,2})\.(\d{1,3})\)")
_WHICH = re.compile(r"RAM:(\d{1,2})(?:,STEP(\d{1,2})|,(DETAIL))?")
_REMOTE = re.compile(
    rf"TEMP(?P<start>{_NUMBER}) TIME(?P<hours>\d{{1,3}}):(?P<minutes>\d{{1,2}})"
    rf"(?: GOTEMP(?P<to>{_NUMBER}))?(?: HUMI(?P<humidity>\d{{1,3}}))?"
    r"(?: GOHUMI(?P<to_humidity>\d{1,3}))?(?: RELAYON,(?P<relays>[\d,]+))?(?: RELAYOFF,[\d,]+)?"
)


class Programmer:
    """``questions`` and ``settings`` are the commands by their names; each gets what follows its
    name. ``today`` is the date as the controller writes it."""

    def __init__(self, chamber: Chamber, *, today: Callable[[], str]) -> None:
        self._chamber = chamber
        self._today = today
        self._edited = 0
        self._draft = Program()
        self.questions: dict[str, Callable[[str], str]] = {
            "PRGM MON?": lambda _: self._monitor(remote=False),
            "PRGM SET?": lambda _: self._which_runs(),
            "PRGM USE?": self._used,
            "PRGM DATA?": self._data,
            "RUN PRGM MON?": lambda _: self._monitor(remote=True),
            "RUN PRGM?": lambda _: self._remote(),
        }
        self.settings: dict[str, Callable[[str], None]] = {
            "PRGM": self._control,
            "PRGM DATA WRITE": self._write,
            "PRGM ERASE": self._erase,
            "RUN PRGM": self._run_once,
        }

    def run(self, number: int, step: int) -> None:
        """Run a program that it has."""
        program = self._program(number)
        if not 1 <= step <= len(program.steps):
            refuse(NO_DATA)
        self._start(program, number, step)

    def _start(self, program: Program, number: int, step: int = 1) -> None:
        if self._chamber.alarms:
            refuse(NOT_NOW)
        self._chamber.run(program, number, step)

    def _control(self, rest: str) -> None:
        what, _, more = rest.partition(",")
        if what == "RUN":
            found = _WHICH.fullmatch(more)
            if found is None or found[3]:
                refuse(PARA)
            self.run(int(found[1]), int(found[2] or 1))
            return
        if what not in {"PAUSE", "CONTINUE", "ADVANCE", "END"}:
            refuse(PARA)
        running = self._running()
        if what == "END":
            if more not in ENDS:
                refuse(PARA)
            self._chamber.end_program(ENDS[more])
        elif what == "ADVANCE":
            if running.next_step():
                self._chamber.end_program(running.program.end)
        else:
            running.paused = what == "PAUSE"

    def _write(self, rest: str) -> None:
        found = _WRITE.fullmatch(rest)
        if found is None:
            refuse(PARA)
        number, what = int(found[1]), found[2].strip()
        if not 1 <= number <= self._chamber.config.kind.programs:
            refuse(RANGE)
        if what in {"EDIT START", "OVER WRITE START"}:
            self._begin_edit(number, anew=what == "EDIT START")
        elif not self._edited:
            refuse(NOT_EDITED)
        elif number != self._edited:
            refuse(ANOTHER_IS_EDITED)
        elif what in {"EDIT CANCEL", "OVER WRITE CANCEL"}:
            self._edited = 0
        elif what in {"EDIT END", "OVER WRITE END"}:
            self._end_edit()
        else:
            self._write_part(what)

    def _begin_edit(self, number: int, *, anew: bool) -> None:
        running = self._chamber.running
        if self._edited:
            refuse(IS_EDITED)
        if running is not None and running.number == number:
            refuse(IS_RUNNING)
        self._draft = Program() if anew else copy.deepcopy(self._program(number))
        self._edited = number

    def _end_edit(self) -> None:
        if not self._draft.steps:
            refuse(INCOMPLETE)
        if any(not _fits(counter, self._draft) for counter in (self._draft.a, self._draft.b)):
            refuse(WRONG_COUNTER)
        self._draft.date = self._today()
        self._chamber.programs[self._edited] = self._draft
        self._edited = 0

    def _write_part(self, what: str) -> None:
        name, _, value = what.partition(",")
        if found := _STEP.fullmatch(what):
            self._write_step(int(found[1]), found[2])
        elif name == "NAME" and value:
            self._draft.name = value
        elif name == "END":
            self._write_end(value)
        elif name == "COUNT":
            self._write_counters(value)
        elif name == "PRE MODE" and re.fullmatch(r"(TEMP|HUMI),(OFF|SV|PV)", value):
            which, _, mode = value.partition(",")
            self._draft.details[f"PRE {which}"] = mode
        elif name in DETAILS and re.fullmatch(_NUMBER, value):
            self._draft.details[name] = value
        else:
            refuse(PARA)

    def _write_step(self, number: int, text: str) -> None:
        steps = self._draft.steps
        if not 1 <= number <= min(len(steps) + 1, MOST_STEPS):
            refuse(NOT_IN_ORDER)
        step = self._parsed(text, None if number > len(steps) else steps[number - 1])
        steps[number - 1 : number] = [step]

    def _parsed(self, text: str, before: ProgramStep | None) -> ProgramStep:
        parts = [part.strip() for part in re.split(r",(?=[A-Z])", text)]
        found = [_PART.fullmatch(part) for part in parts]
        step = copy.deepcopy(before)
        for part in found:
            if part is None:
                refuse(PARA)
            temperature, ramp, humidity, humidity_ramp, hours, minutes = part.groups()[:6]
            soaks, pauses, refrigeration, relay, relays = part.groups()[6:]
            if temperature:
                value_degC = round(float(temperature), 1) + 0.0
                low_degC, high_degC = self._chamber.config.kind.range_degC
                if not low_degC <= value_degC <= high_degC:
                    refuse(RANGE)
                step = step or ProgramStep(value_degC)
                step.temperature_degC = value_degC
            if step is None:
                refuse(WRONG_STEP)
            if ramp:
                step.ramp = ramp == "ON"
            if humidity:
                step.humidity = None if humidity == "OFF" else min(100, int(humidity))
            if humidity_ramp:
                step.humidity_ramp = humidity_ramp == "ON"
            if hours:
                step.time_s = _seconds(hours, minutes)
            if soaks:
                step.soaks = soaks == "ON"
            if pauses:
                step.pauses = pauses == "ON"
            if refrigeration:
                if refrigeration not in REFRIGERATION:
                    refuse(PARA)
                step.refrigeration = refrigeration
            if relay:
                numbers = _relays(relays.replace(".", ","))
                step.relays = step.relays | numbers if relay == "ON" else step.relays - numbers
        if step is None:
            refuse(WRONG_STEP)
        return step

    def _write_end(self, value: str) -> None:
        following = re.fullmatch(r"RUN,PTN(\d{1,2})", value)
        if following:
            self._draft.end, self._draft.next = RUN, int(following[1])
        elif value in ENDS:
            self._draft.end, self._draft.next = ENDS[value], 0
        else:
            refuse(PARA)

    def _write_counters(self, value: str) -> None:
        found = _COUNT.findall(value)
        if not found or _COUNT.sub("", value).strip(","):
            refuse(PARA)
        for which, start, end, cycles in found:
            counter = Counter(int(start), int(end), int(cycles))
            if not counter.start <= counter.end:
                refuse(WRONG_COUNTER)
            setattr(self._draft, which.lower(), counter)

    def _erase(self, rest: str) -> None:
        found = _WHICH.fullmatch(rest)
        if found is None or found[2] or found[3]:
            refuse(PARA)
        self._program(int(found[1]))
        running = self._chamber.running
        if running is not None and running.number == int(found[1]):
            refuse(IS_RUNNING)
        del self._chamber.programs[int(found[1])]

    def _run_once(self, rest: str) -> None:
        found = _REMOTE.fullmatch(rest)
        if found is None:
            refuse(PARA)
        if found["humidity"] and not self._chamber.config.kind.humidity:
            refuse(UNSUPPORTED)
        start_degC = float(found["start"])
        end_degC = start_degC if found["to"] is None else float(found["to"])
        low_degC, high_degC = self._chamber.config.kind.range_degC
        if not all(low_degC <= value <= high_degC for value in (start_degC, end_degC)):
            refuse(RANGE)
        humidity = found["to_humidity"] or found["humidity"]
        step = ProgramStep(
            end_degC,
            ramp=True,
            humidity=int(humidity) if humidity else None,
            humidity_ramp=bool(found["to_humidity"]),
            time_s=_seconds(found["hours"], found["minutes"]),
            relays=_relays(found["relays"] or ""),
        )
        self._start(Program(steps=[step], end="STANDBY"), 0)
        if (running := self._chamber.running) is not None:
            running.from_degC = start_degC
            running.from_humidity = float(found["humidity"] or self._chamber.humidity)

    def _monitor(self, *, remote: bool) -> str:
        running = self._running(remote=remote)
        minutes = int(running.left_s // 60)
        parts = [str(running.index + 1), f"{running.temperature_degC:.1f}"]
        if self._chamber.config.kind.humidity:
            humidity = running.humidity
            parts.append("OFF" if humidity is None else str(round(humidity)))
        parts.append(f"{minutes // 60}:{minutes % 60:02d}")
        parts += ["0"] if remote else [str(running.a_left), str(running.b_left)]
        return ",".join(parts)

    def _which_runs(self) -> str:
        running = self._running(remote=False)
        return f"RAM:{running.number},{running.program.name},END({_end(running.program)})"

    def _remote(self) -> str:
        running = self._running(remote=True)
        step = running.step
        parts = [f"TEMP{running.from_degC:.1f} GOTEMP{step.temperature_degC:.1f}"]
        if step.humidity is not None:
            parts.append(f"HUMI{round(running.from_humidity)} GOHUMI{step.humidity}")
        minutes = int(step.time_s // 60)
        parts.append(f"TIME{minutes // 60}:{minutes % 60:02d} {step.refrigeration}")
        if step.relays:
            parts.append("RELAYON," + ",".join(map(str, sorted(step.relays))))
        return " ".join(parts)

    def _used(self, rest: str) -> str:
        if rest == "RAM":
            numbers = sorted(self._chamber.programs)
            return ",".join(map(str, (len(numbers), *numbers)))
        found = _WHICH.fullmatch(rest)
        if found is None:
            refuse(PARA)
        program = self._program(int(found[1]))
        return f"{program.name},{program.date}"

    def _data(self, rest: str) -> str:
        found = _WHICH.fullmatch(rest)
        if found is None:
            refuse(PARA)
        program = self._program(int(found[1]))
        if found[3]:
            return self._details(program)
        if found[2]:
            number = int(found[2])
            if not 1 <= number <= len(program.steps):
                refuse(NO_DATA)
            return self._step(number, program.steps[number - 1])
        counters = ",".join(
            f"{name}({each.start}.{each.end}.{each.cycles})"
            for name, each in (("A", program.a), ("B", program.b))
        )
        return f"{len(program.steps)},<{program.name}>,COUNT,{counters},END({_end(program)})"

    def _step(self, number: int, step: ProgramStep) -> str:
        minutes = int(step.time_s // 60)
        parts = [f"{number}", f"TEMP{step.temperature_degC:.1f}", f"TEMP RAMP {_on(step.ramp)}"]
        if self._chamber.config.kind.humidity and step.humidity is None:
            parts.append("HUMI OFF")
        elif self._chamber.config.kind.humidity:
            parts += [f"HUMI{step.humidity}", f"HUMI RAMP {_on(step.humidity_ramp)}"]
        parts += [f"TIME{minutes // 60}:{minutes % 60:02d}", f"GRANTY {_on(step.soaks)}"]
        parts.append(step.refrigeration)
        if step.relays:
            parts.append("RELAY ON" + ".".join(map(str, sorted(step.relays))))
        return ",".join([*parts, f"PAUSE {_on(step.pauses)}"])

    def _details(self, program: Program) -> str:
        known, found, kind = program.details, self._chamber.settings, self._chamber.config.kind
        parts = [
            f"{float(known.get('HTEMP', found.high_degC)):.1f}",
            f"{float(known.get('LTEMP', found.low_degC)):.1f}",
        ]
        if kind.humidity:
            parts += [known.get("HHUMI", str(found.humidity_high))]
            parts += [known.get("LHUMI", str(found.humidity_low))]
        mode = known.get("PRE TEMP", "OFF")
        parts.append(f"TEMP{mode}")
        if mode == "SV":
            parts.append(f"{float(known.get('PRE TSV', '0')):.1f}")
        if kind.humidity:
            mode = known.get("PRE HUMI", "OFF")
            parts.append(f"HUMI{mode}")
            if mode == "SV":
                parts.append(known.get("PRE HSV", "0"))
        return ",".join(parts)

    def _program(self, number: int) -> Program:
        program = self._chamber.programs.get(number)
        if program is None:
            refuse(NO_DATA)
        return program

    def _running(self, *, remote: bool | None = None) -> Running:
        running = self._chamber.running
        if running is None or (remote is not None and remote == bool(running.number)):
            refuse(NO_PROGRAM)
        return running


def _fits(counter: Counter, program: Program) -> bool:
    return not counter.cycles or 1 <= counter.start <= counter.end <= len(program.steps)


def _end(program: Program) -> str:
    return f"RUN:{program.next}" if program.end == RUN else program.end


def _on(on: bool) -> str:
    return "ON" if on else "OFF"


def _seconds(hours: str, minutes: str) -> float:
    if int(minutes) > 59:
        refuse(RANGE)
    return 3600.0 * int(hours) + 60.0 * int(minutes)


def _relays(text: str) -> set[int]:
    numbers = {int(part) for part in text.split(",") if part}
    if not all(1 <= number <= RELAYS for number in numbers):
        refuse(RANGE)
    return numbers
