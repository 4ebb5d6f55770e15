"""Runs a step file on a cell, one block of records after the other.

The blocks of a test follow from its file, the cell's state at the start and nothing else: how a
reader asks for records never changes where one block ends and the next begins. Protections and end
conditions act on the true voltage and current.

Chosen here, since no manual says it: a step without a time ends after 365 days; a voltage hold that
would need current of the wrong direction keeps its output open; ``Delay_Time`` switches a
protection off for that long after it was passed, and then it trips if it is still passed; the
tightest of the file's and the step's protections counts; the capacity protection is per step.
"""

from __future__ import annotations

import enum
import math

import msgspec
import numpy as np

from labctl.drivers.neware_bts.stepfile import FileStep, Protection, StepFile, StepType
from labctl.simulators.cells.interface import (
    Control,
    Recorder,
    SimulatedCell,
    StopReason,
    Until,
)
from labctl.simulators.neware_bts.instrument import CURRENT_RANGES_A
from labctl.simulators.neware_bts.protection import negative, passed, tightest, value_or
from labctl.simulators.neware_bts.rows import Block, FloatColumn
from labctl.simulators.neware_bts.steps import (
    BOTH_PHASES,
    CHARGING,
    CURRENT_ONLY,
    DISCHARGING,
    VOLTAGE_ONLY,
)

BLOCK_RECORDS = 1000
FASTEST_RECORD_S = 0.1
LONGEST_STEP_S = 365 * 86400.0


class Phase(enum.IntEnum):
    """Which part of a step runs."""

    NOT_ENTERED = 0
    CURRENT = 1
    VOLTAGE = 2
    OPEN = 3


class Condition(enum.StrEnum):
    """What a channel does, in BTS's own words."""

    WORKING = "working"
    FINISH = "finish"
    PAUSE = "pause"
    STOP = "stop"
    PROTECT = "protect"


class Position(msgspec.Struct):
    """Where a test stands: everything but the file and the cell. Times in s of test time."""

    condition: Condition = Condition.WORKING
    step: int = 1
    cycle: int = 1
    visit: int = 0
    passes: dict[int, int] = {}
    seq: int = 1
    """Number that the next record gets."""
    phase: Phase = Phase.NOT_ENTERED
    start_s: float = 0.0
    time_s: float = 0.0
    """Since the step began."""
    charge_Ah: float = 0.0
    energy_Wh: float = 0.0
    last_ms: int = -1
    last_time_s: float = 0.0
    last_voltage_V: float = 0.0
    last_current_A: float = 0.0
    grace_s: float = math.inf
    """Step time until which the protections are off; infinity when none has been passed."""

    @property
    def test_time_s(self) -> float:
        return self.start_s + self.time_s

    def copy(self) -> Position:
        copied = msgspec.structs.replace(self)
        copied.passes = dict(self.passes)
        return copied


class Execution:
    """A step file, a cell and a position; both move on with :meth:`run`.

    ``pause_after_visit``: the test pauses when that visit has ended; 0 is off.
    """

    def __init__(
        self,
        file: StepFile,
        cell: SimulatedCell,
        position: Position,
        *,
        pause_after_visit: int = 0,
    ) -> None:
        self.position = position
        self._cell = cell
        self._steps = file.steps
        self._pause_after_visit = pause_after_visit
        self._protections = [tightest(file.protection, step.protection) for step in file.steps]
        self._records = [step.record or file.record for step in file.steps]

    def run(self, until_s: float = math.inf) -> Block | None:
        """The next block of records, or None if the test is not working any more.

        ``until_s`` cuts the block off at that test time; what is left then differs from an uncut
        run by rounding, so only a test that ends there is cut.
        """
        at = self.position
        while at.condition is Condition.WORKING:
            step = self._steps[at.step - 1]
            if step.type is StepType.CYCLE:
                self._turn(step)
            elif step.type is StepType.END:
                at.condition = Condition.FINISH
            elif step.type is StepType.PAUSE:
                at.step += 1
                at.condition = Condition.PAUSE
            else:
                block = self._drive(step, until_s)
                if len(block) or at.test_time_s >= until_s:
                    return block
        return None

    def _turn(self, step: FileStep) -> None:
        at = self.position
        done = at.passes.pop(step.number, 0) + 1
        at.cycle += 1
        if done < (step.cycle_count or 1):
            at.passes[step.number] = done
            at.step = step.start_step or 1
        else:
            at.step += 1

    def _drive(self, step: FileStep, until_s: float) -> Block:
        at = self.position
        made = _Made(at)
        ended = at.phase is Phase.NOT_ENTERED and self._enter(step, made)
        block_of = (at.seq, at.visit, step.number, at.cycle, at.start_s)
        if not ended and at.test_time_s < until_s:
            ended = self._advance(step, made, until_s)
        if ended and at.condition is Condition.WORKING:
            at.step += 1
            if at.visit == self._pause_after_visit:
                at.condition = Condition.PAUSE
        if ended:
            at.phase = Phase.NOT_ENTERED
        columns = made.columns()
        block = Block(*block_of, *columns)
        at.seq += len(block)
        return block

    def _enter(self, step: FileStep, made: _Made) -> bool:
        """Begin a step and record it at its time 0; true if it is over at once."""
        at = self.position
        at.start_s += at.time_s
        at.visit += 1
        at.time_s = at.charge_Ah = at.energy_Wh = 0.0
        at.grace_s = math.inf
        at.last_ms = -1
        at.phase = _first_phase(step)
        voltage_V, current_A = self._instant(step)
        if step.type in BOTH_PHASES and _beyond(step, voltage_V):
            at.phase = Phase.VOLTAGE
            voltage_V, current_A = self._instant(step)
        if at.phase is Phase.VOLTAGE and current_A * _direction(step) < 0:
            at.phase = Phase.OPEN
            voltage_V, current_A = self._instant(step)
        made.at(0.0, voltage_V, current_A)
        at.last_time_s, at.last_voltage_V, at.last_current_A = 0.0, voltage_V, current_A
        protection = self._protections[at.step - 1]
        if passed(protection, voltage_V, current_A, 0.0):
            if not protection.delay_s:
                at.condition = Condition.PROTECT
                return True
            at.grace_s = protection.delay_s
        if step.type in CURRENT_ONLY and step.stop_voltage_V is not None:
            return (voltage_V - step.stop_voltage_V) * _direction(step) >= 0
        if at.phase in {Phase.VOLTAGE, Phase.OPEN} and step.stop_current_A is not None:
            return abs(current_A) <= step.stop_current_A
        return False

    def instant(self) -> tuple[float, float]:
        """Voltage and current now, under the control of the step that runs."""
        return self._instant(self._steps[self.position.step - 1])

    def _instant(self, step: FileStep) -> tuple[float, float]:
        control, setpoint = _control(step, self.position.phase)
        trace = self._cell.advance(
            control,
            setpoint,
            0.0,
            until=Until(),
            recorder=Recorder(),
            max_current_A=_max_current_A(step),
        )
        return trace.end_voltage_V, trace.end_current_A

    def _advance(self, step: FileStep, made: _Made, until_s: float) -> bool:
        """Let the cell live until something happens; true if the step is over."""
        at = self.position
        protection = self._protections[at.step - 1]
        ends, trips = self._ends(step), self._trips(step, protection)
        record = self._records[at.step - 1]
        recorder = Recorder(
            every_s=_or_never(record.time_s, at_least=FASTEST_RECORD_S),
            voltage_change_V=_or_never(record.voltage_change_V, at_least=1e-6),
            current_change_A=_or_never(record.current_change_A, at_least=1e-12),
            now_s=at.time_s,
            last_time_s=at.last_time_s,
            last_voltage_V=at.last_voltage_V,
            last_current_A=at.last_current_A,
        )
        longest_s = LONGEST_STEP_S if step.time_s is None else step.time_s
        stop_s = min(longest_s, at.grace_s, until_s - at.start_s)
        control, setpoint = _control(step, at.phase)
        trace = self._cell.advance(
            control,
            setpoint,
            max(0.0, stop_s - at.time_s),
            until=Until(
                voltage_at_least_V=min(ends.voltage_at_least_V, trips.voltage_at_least_V),
                voltage_at_most_V=max(ends.voltage_at_most_V, trips.voltage_at_most_V),
                current_magnitude_at_most_A=ends.current_magnitude_at_most_A,
                current_magnitude_at_least_A=trips.current_magnitude_at_least_A,
                charge_magnitude_at_least_Ah=min(
                    ends.charge_magnitude_at_least_Ah, trips.charge_magnitude_at_least_Ah
                ),
            ),
            recorder=recorder,
            max_records=BLOCK_RECORDS,
            max_current_A=_max_current_A(step),
        )
        made.add(
            trace.time_s,
            trace.voltage_V,
            trace.current_A,
            trace.charge_Ah + at.charge_Ah,
            trace.energy_Wh + at.energy_Wh,
        )
        by_time = trace.reason is StopReason.DURATION
        at.time_s = stop_s if by_time else at.time_s + trace.elapsed_s
        at.charge_Ah += trace.end_charge_Ah
        at.energy_Wh += trace.end_energy_Wh
        at.last_time_s = recorder.last_time_s
        at.last_voltage_V = recorder.last_voltage_V
        at.last_current_A = recorder.last_current_A
        volts, amps = trace.end_voltage_V, trace.end_current_A
        ended = False
        if trace.reason is StopReason.RECORDS:
            return False
        if by_time:
            ended = stop_s >= longest_s
            if stop_s >= at.grace_s:
                at.grace_s = math.inf
                if passed(protection, volts, amps, abs(at.charge_Ah)):
                    at.condition = Condition.PROTECT
        elif _tripped(trace.reason, ends, trips):
            if protection.delay_s:
                at.grace_s = at.time_s + protection.delay_s
            else:
                at.condition = Condition.PROTECT
        elif step.type in BOTH_PHASES and at.phase is Phase.CURRENT and _is_voltage(trace.reason):
            at.phase = Phase.VOLTAGE
        else:
            ended = True
        ended = ended or at.condition is Condition.PROTECT
        if ended:
            made.at(at.time_s, volts, amps)
        return ended

    def _ends(self, step: FileStep) -> Until:
        at = self.position
        high_V, low_V = math.inf, -math.inf
        if at.phase is Phase.CURRENT:
            goal_V = step.voltage_V if step.type in BOTH_PHASES else step.stop_voltage_V
            if goal_V is not None and step.type in CHARGING:
                high_V = goal_V
            elif goal_V is not None:
                low_V = goal_V
        return Until(
            voltage_at_least_V=high_V,
            voltage_at_most_V=low_V,
            current_magnitude_at_most_A=(
                step.stop_current_A
                if at.phase is Phase.VOLTAGE and step.stop_current_A is not None
                else -1.0
            ),
            charge_magnitude_at_least_Ah=_left(step.stop_capacity_Ah, at.charge_Ah),
        )

    def _trips(self, step: FileStep, protection: Protection) -> Until:
        at = self.position
        if at.grace_s < math.inf:
            return Until()
        bound_A = (
            protection.current_upper_A
            if step.type in CHARGING
            else negative(protection.current_lower_A)
        )
        return Until(
            voltage_at_least_V=value_or(protection.voltage_upper_V, math.inf),
            voltage_at_most_V=value_or(protection.voltage_lower_V, -math.inf),
            current_magnitude_at_least_A=(
                bound_A if at.phase is Phase.VOLTAGE and bound_A is not None else math.inf
            ),
            charge_magnitude_at_least_Ah=_left(protection.capacity_upper_Ah, at.charge_Ah),
        )


class _Made:
    """Records of one block, as they come."""

    def __init__(self, at: Position) -> None:
        self._at = at
        self._parts: list[tuple[FloatColumn, ...]] = []

    def at(self, time_s: float, voltage_V: float, current_A: float) -> None:
        values = (time_s, voltage_V, current_A, self._at.charge_Ah, self._at.energy_Wh)
        self._parts.append(tuple(np.array([value]) for value in values))

    def add(self, *columns: FloatColumn) -> None:
        if len(columns[0]):
            self._parts.append(columns)

    def columns(self) -> tuple[np.ndarray, ...]:
        """ms, V, A, Ah, Wh; of two records in one millisecond the first stays."""
        if not self._parts:
            none = np.empty(0)
            return none.astype(np.int64), none, none, none, none
        time_s, voltage, current, charge, energy = (
            np.concatenate(parts) for parts in zip(*self._parts, strict=True)
        )
        ms = np.rint(time_s * 1e3).astype(np.int64)
        kept = np.diff(ms, prepend=self._at.last_ms) > 0
        if kept.any():
            self._at.last_ms = int(ms[-1])
        return ms[kept], voltage[kept], current[kept], np.abs(charge[kept]), np.abs(energy[kept])


def _first_phase(step: FileStep) -> Phase:
    if step.type is StepType.REST:
        return Phase.OPEN
    return Phase.VOLTAGE if step.type in VOLTAGE_ONLY else Phase.CURRENT


def _control(step: FileStep, phase: Phase) -> tuple[Control, float]:
    if phase is Phase.CURRENT:
        return Control.CURRENT, (step.current_A or 0.0) * _direction(step)
    if phase is Phase.VOLTAGE:
        return Control.VOLTAGE, step.voltage_V or 0.0
    return Control.REST, 0.0


def _direction(step: FileStep) -> int:
    return 1 if step.type in CHARGING else -1 if step.type in DISCHARGING else 0


def _max_current_A(step: FileStep) -> float:
    return step.current_A or CURRENT_RANGES_A[-1]


def _beyond(step: FileStep, voltage_V: float) -> bool:
    return (voltage_V - (step.voltage_V or 0.0)) * _direction(step) >= 0


def _tripped(reason: StopReason, ends: Until, trips: Until) -> bool:
    """Whether a protection stopped the cell; where an end lies at the same value, the end did."""
    if reason is StopReason.VOLTAGE_HIGH:
        return trips.voltage_at_least_V < ends.voltage_at_least_V
    if reason is StopReason.VOLTAGE_LOW:
        return trips.voltage_at_most_V > ends.voltage_at_most_V
    if reason is StopReason.CHARGE:
        return trips.charge_magnitude_at_least_Ah < ends.charge_magnitude_at_least_Ah
    return reason is StopReason.CURRENT_LARGE


def _is_voltage(reason: StopReason) -> bool:
    return reason in {StopReason.VOLTAGE_HIGH, StopReason.VOLTAGE_LOW}


def _or_never(value: float | None, *, at_least: float) -> float:
    """A record condition; absent or 0 is off."""
    return math.inf if not value else max(value, at_least)


def _left(bound_Ah: float | None, charge_Ah: float) -> float:
    return math.inf if bound_Ah is None else max(0.0, bound_Ah - abs(charge_Ah))
