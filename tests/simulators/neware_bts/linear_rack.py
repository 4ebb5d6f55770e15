"""A cell that can be worked out by hand, a client that speaks BTS, and a rack to run them on.

The cell is a capacitor of 1 mAh per volt behind 10 ohm, at 3 V when new. Run as a script with a
state directory, a speed and a file to write the port to, it is a rack with one such cell.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self
from xml.etree import ElementTree as ET

import numpy as np

from labctl.clock import Clock
from labctl.drivers.neware_bts.stepfile import (
    FileStep,
    Protection,
    RecordConditions,
    StepFile,
    StepType,
    write_step_file,
)
from labctl.simulators.cells.interface import Control, Recorder, StopReason, Trace, Until
from labctl.simulators.neware_bts.rack import RackConfig, serve_rack

NEW_V = 3.0
AH_PER_V = 1e-3
OHM = 10.0
TAU_S = OHM * AH_PER_V * 3600


class LinearCell:
    """Fulfils the contract of a simulated cell by closed formulas."""

    def __init__(self) -> None:
        self.charge_Ah = 0.0

    def state(self) -> bytes:
        return struct.pack("<d", self.charge_Ah)

    def restore(self, state: bytes) -> None:
        (self.charge_Ah,) = struct.unpack("<d", state)

    def voltage_V(self, current_A: float = 0.0) -> float:
        return NEW_V + self.charge_Ah / AH_PER_V + OHM * current_A

    def advance(
        self,
        control: Control,
        setpoint: float,
        duration_s: float,
        *,
        until: Until,
        recorder: Recorder,
        max_records: int = 100_000,
        max_current_A: float = math.inf,
        ambient_degC: float = 25.0,
    ) -> Trace:
        rows: list[tuple[np.ndarray, ...]] = []
        begin_Ah, elapsed_s, energy_Wh, left = self.charge_Ah, 0.0, 0.0, max_records
        while True:
            course = self._course(control, setpoint, max_current_A)
            end_s, reason = _end(course, duration_s - elapsed_s, until, self.charge_Ah - begin_Ah)
            times = _due(course, end_s, recorder, left)
            if len(times) == left:
                end_s, reason = float(times[-1]), StopReason.RECORDS
            volts, amps, charge, energy = course.at(times)
            rows.append(
                (
                    recorder.now_s + times,
                    volts,
                    amps,
                    charge + self.charge_Ah - begin_Ah,
                    energy + energy_Wh,
                )
            )
            if len(times):
                recorder.last_time_s = recorder.now_s + float(times[-1])
                recorder.last_voltage_V, recorder.last_current_A = float(volts[-1]), float(amps[-1])
            left -= len(times)
            end_V, end_A, end_Ah, end_Wh = (float(x[0]) for x in course.at(np.array([end_s])))
            recorder.now_s += end_s
            elapsed_s += end_s
            self.charge_Ah += end_Ah
            energy_Wh += end_Wh
            if reason is not None:
                break
        columns = [np.concatenate(part) for part in zip(*rows, strict=True)]
        return Trace(
            *columns,
            np.full(len(columns[0]), ambient_degC),
            elapsed_s,
            end_V,
            end_A,
            self.charge_Ah - begin_Ah,
            energy_Wh,
            ambient_degC,
            reason,
        )

    def _course(self, control: Control, setpoint: float, clip_A: float) -> Course:
        open_V = self.voltage_V()
        if control is Control.VOLTAGE:
            current_A = (setpoint - open_V) / OHM
            if abs(current_A) > clip_A * (1 + 1e-9):
                clipped = math.copysign(clip_A, current_A)
                ends_s = (setpoint - open_V - OHM * clipped) * AH_PER_V * 3600 / clipped
                return Straight(open_V + OHM * clipped, clipped, ends_s)
            return Decay(setpoint, current_A)
        current_A = setpoint if control is Control.CURRENT else 0.0
        return Straight(open_V + OHM * current_A, current_A, math.inf)


class Straight:
    """Constant current; ``ends_s`` is when it turns into something else."""

    def __init__(self, volts: float, amps: float, ends_s: float) -> None:
        self.volts, self.amps, self.ends_s = volts, amps, ends_s
        self.slope = amps / 3600 / AH_PER_V

    def at(self, time_s: np.ndarray) -> tuple[np.ndarray, ...]:
        volts = self.volts + self.slope * time_s
        amps = np.full(len(time_s), self.amps)
        charge = self.amps * time_s / 3600
        return volts, amps, charge, charge * (self.volts + volts) / 2

    def when_V(self, volts: float) -> float:
        if volts == self.volts:
            return 0.0
        time_s = (volts - self.volts) / self.slope if self.slope else -1.0
        return time_s if time_s >= 0 else math.inf

    def when_A_below(self, amps: float) -> float:
        return 0.0 if abs(self.amps) <= amps else math.inf

    def when_Ah(self, charge: float) -> float:
        return abs(charge / self.amps) * 3600 if self.amps else math.inf


class Decay:
    """Constant voltage: the current falls exponentially."""

    ends_s = math.inf

    def __init__(self, volts: float, amps: float) -> None:
        self.volts, self.amps = volts, amps

    def at(self, time_s: np.ndarray) -> tuple[np.ndarray, ...]:
        fall = np.exp(-time_s / TAU_S)
        charge = self.amps * TAU_S * (1 - fall) / 3600
        return np.full(len(time_s), self.volts), self.amps * fall, charge, charge * self.volts

    def when_V(self, volts: float) -> float:
        return 0.0 if volts == self.volts else math.inf

    def when_A_below(self, amps: float) -> float:
        if abs(self.amps) <= amps:
            return 0.0
        return TAU_S * math.log(abs(self.amps) / amps) if amps > 0 else math.inf

    def when_Ah(self, charge: float) -> float:
        whole = abs(self.amps) * TAU_S / 3600
        return -TAU_S * math.log(1 - charge / whole) if charge < whole else math.inf


Course = Straight | Decay


def _end(
    course: Course, duration_s: float, until: Until, passed_Ah: float
) -> tuple[float, StopReason | None]:
    high, low = until.voltage_at_least_V, until.voltage_at_most_V
    candidates: list[tuple[float, StopReason | None]] = [(duration_s, StopReason.DURATION)]
    if high < math.inf:
        at_s = 0.0 if course.volts >= high else course.when_V(high)
        candidates.append((at_s, StopReason.VOLTAGE_HIGH))
    if low > -math.inf:
        at_s = 0.0 if course.volts <= low else course.when_V(low)
        candidates.append((at_s, StopReason.VOLTAGE_LOW))
    if until.current_magnitude_at_most_A >= 0:
        at_s = course.when_A_below(until.current_magnitude_at_most_A)
        candidates.append((at_s, StopReason.CURRENT_SMALL))
    if abs(course.amps) >= until.current_magnitude_at_least_A:
        candidates.append((0.0, StopReason.CURRENT_LARGE))
    if until.charge_magnitude_at_least_Ah < math.inf:
        left_Ah = max(0.0, until.charge_magnitude_at_least_Ah - abs(passed_Ah))
        candidates.append((course.when_Ah(left_Ah), StopReason.CHARGE))
    if course.ends_s < math.inf:
        candidates.append((course.ends_s, None))
    return min(candidates, key=lambda item: item[0])


def _due(course: Course, end_s: float, recorder: Recorder, count: int) -> np.ndarray:
    since_s = recorder.last_time_s - recorder.now_s
    if recorder.voltage_change_V == math.inf and recorder.current_change_A == math.inf:
        if recorder.every_s == math.inf:
            return np.empty(0)
        due = min(count, math.floor((end_s - since_s) / recorder.every_s + 1e-9))
        times = since_s + recorder.every_s * np.arange(1, due + 1)
        return times[times > 0]
    times: list[float] = []
    last_V, last_A = recorder.last_voltage_V, recorder.last_current_A
    while len(times) < count:
        next_s = since_s + recorder.every_s
        for sign in (-1, 1):
            at_s = course.when_V(last_V + sign * recorder.voltage_change_V)
            next_s = at_s if max(0, since_s) < at_s < next_s else next_s
        at_s = course.when_A_below(abs(last_A) - recorder.current_change_A)
        next_s = at_s if max(0, since_s) < at_s < next_s else next_s
        if next_s > end_s or next_s <= 0:
            break
        volts, amps, _, _ = course.at(np.array([next_s]))
        times.append(next_s)
        since_s, last_V, last_A = next_s, float(volts[0]), float(amps[0])
    return np.array(times)


def step(number: int, kind: StepType, **fields: object) -> FileStep:
    return FileStep(number, kind, **fields)  # type: ignore[arg-type]


def step_file(
    *steps: FileStep,
    protection: Protection | None = None,
    every_s: float | None = 10.0,
    voltage_change_V: float | None = None,
    current_change_A: float | None = None,
) -> StepFile:
    end = FileStep(len(steps) + 1, StepType.END)
    return StepFile(
        (*steps, end),
        protection or Protection(),
        RecordConditions(every_s, voltage_change_V, current_change_A),
    )


def saved(directory: Path, file: StepFile, name: str = "steps.xml") -> Path:
    path = directory / name
    path.write_bytes(write_step_file(file))
    return path


ENVELOPE = b'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0">%s</bts>\n\n#\r\n'


class Client:
    """Speaks as aurora-neware does; addresses channel 1-1 unless told otherwise."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def ask(self, body: str) -> bytes:
        self.writer.write(ENVELOPE % body.encode())
        return await self.reader.readuntil(b"\n\n#\r\n")

    async def told(self, body: str) -> list[tuple[dict[str, str], str]]:
        """Attributes and text of the elements of the answer's list."""
        answer = await self.ask(body)
        listing = ET.fromstring(answer.removesuffix(b"\n\n#\r\n")).find("list")
        assert listing is not None
        assert int(listing.attrib["count"]) == len(listing)
        return [(dict(item.attrib), item.text or "") for item in listing]

    async def each(self, command: str, tag: str = "", at: str = "1-1", text: str = "true") -> str:
        """What the rack answers to a command about one channel."""
        return (await self.told(f"<cmd>{command}</cmd>" + on(tag or command, at, text)))[0][1]

    async def start(self, path: Path, at: str = "1-1", barcode: str = "cell") -> str:
        return await self.each("start", f'start barcode="{barcode}"', at, str(path))

    async def status(self, at: str = "1-1") -> str:
        return await self.each("getchlstatus", "status", at)

    async def look(self, at: str = "1-1") -> dict[str, str]:
        request = "<cmd>inquire</cmd>" + on('inquire aux="0" barcode="1"', at, "true")
        return (await self.told(request))[0][0]

    async def extent(self, at: str = "1-1") -> tuple[int, int, bool]:
        found, text = (await self.told("<cmd>inquiredf</cmd>" + on('chl testid="0"', at, "")))[0]
        return int(found["testid"]), int(found["count"]), text == "true"

    async def rows(self, first: int, count: int, at: str = "1-1") -> list[dict[str, str]]:
        return [row for row, _ in await self.told(download(first, count, at))]

    async def all_rows(self, at: str = "1-1", size: int = 1000) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        while some := await self.rows(len(found) + 1, size, at):
            found += some
        return found


def key(at: str) -> str:
    unit, channel = at.split("-")
    return f'devtype="27" devid="21" subdevid="{unit}" chlid="{channel}"'


def on(tag: str, at: str, text: str) -> str:
    name, _, more = tag.partition(" ")
    return f'<list count = "1"><{name} ip="127.0.0.1" {key(at)} {more}>{text}</{name}></list>'


def download(first: int, count: int, at: str = "1-1", test: int = 0) -> str:
    return (
        f'<cmd>download</cmd><download {key(at)} auxid="0" testid="{test}" '
        f'startpos="{first}" count="{count}"/>'
    )


def true_values(answer: bytes) -> list[tuple[float, float]]:
    return [(float(v), float(a)) for v, a in re.findall(rb'volt="([^"]+)" curr="([^"]+)"', answer)]


def linear_rack(
    clock: Clock | None = None,
    *,
    at: tuple[str, ...] = ("1-1",),
    cell: Callable[[], LinearCell] = LinearCell,
    **config: object,
) -> object:
    settings = {"port": 0, "speed": "virtual", "epoch_unix_s": 1_800_000_000.0, **config}
    return serve_rack(
        RackConfig(**settings),  # type: ignore[arg-type]
        clock,
        cells=dict.fromkeys(at, cell),
    )


async def _main(state: str, speed: str, ready: str) -> None:
    async with linear_rack(speed=speed, state_dir=state) as rack:  # type: ignore[attr-defined]
        new = Path(ready + ".new")
        new.write_text(str(rack.port))
        new.replace(ready)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
