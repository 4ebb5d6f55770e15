"""Runs a step file on a cell, one block of records after the other.

The blocks of a test follow from its file, the cell's state at the start and nothing else: how a
reader asks for records never changes where one block ends and the next begins. Protections and end
conditions act on the true voltage and current.

Chosen here, since no manual says it: a voltage hold that would need current of the wrong direction
keeps its output open; ``Delay_Time`` switches a protection off for that long after it was passed,
and then it trips if it is still passed; the tightest of the file's and the step's protections
counts; the capacity protection is per step; leaving a loop, by a condition or by ``goto``, forgets
how many passes it had.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np

from labctl.drivers.neware_bts.stepfile import FileStep, Jump, StepFile, StepType
from labctl.simulators.cells.interface import (
    Control,
    Recorder,
    SimulatedCell,
    StopReason,
    Trace,
    Until,
)
from labctl.simulators.neware_bts.instrument import COMPLIANCE_V
from labctl.simulators.neware_bts.plan import HOLD, Ends, Kind, Phase, StepPlan, plan_of
from labctl.simulators.neware_bts.position import Condition, Position
from labctl.simulators.neware_bts.protection import passed
from labctl.simulators.neware_bts.rows import Block
from labctl.simulators.neware_bts.steps import BOTH_PHASES

BLOCK_RECORDS = 1000
ENERGY_TOLERANCE = 1e-9
"""Of the energy that ends a step; it is come to by ever smaller charges."""

_KINDS = {
    StopReason.VOLTAGE_HIGH: Kind.VOLTAGE_HIGH,
    StopReason.VOLTAGE_LOW: Kind.VOLTAGE_LOW,
    StopReason.CURRENT_SMALL: Kind.CURRENT_SMALL,
    StopReason.CURRENT_LARGE: Kind.CURRENT_LARGE,
    StopReason.CHARGE: Kind.CHARGE,
    StopReason.DURATION: Kind.TIME,
}
_NEVER = Until()


_OUTCOMES = {
    Jump.FINISH: Condition.FINISH,
    Jump.STOP: Condition.STOP,
    Jump.PROTECT: Condition.PROTECT,
}


@runtime_checkable
class SweepingCell(SimulatedCell, Protocol):
    """A cell whose voltage can be moved at a steady rate."""

    def sweep(
        self,
        from_V: float,
        to_V: float,
        rate_V_per_s: float,
        *,
        recorder: Recorder,
        duration_s: float = math.inf,
        max_records: int = 100_000,
        max_current_A: float = math.inf,
        ambient_degC: float = 25.0,
        until: Until = _NEVER,
    ) -> Trace: ...


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
        self._file = file
        self._plans = [plan_of(step, file) for step in file.steps]
        self._pause_after_visit = pause_after_visit

    def run(self, until_s: float = math.inf) -> Block | None:
        """The next block of records, or None if the test is not working any more.

        ``until_s`` cuts the block off at that test time; what is left then differs from an uncut
        run by rounding, so only a test that ends there is cut.
        """
        at = self.position
        while at.condition is Condition.WORKING:
            plan = self._plans[at.step - 1]
            match plan.step.type:
                case StepType.CYCLE:
                    self._turn(plan.step)
                case StepType.END:
                    at.condition = Condition.FINISH
                case StepType.PAUSE:
                    at.step += 1
                    at.condition = Condition.PAUSE
                case _:
                    block = self._drive(plan, until_s)
                    if len(block) or at.test_time_s >= until_s:
                        return block
        return None

    def instant(self) -> tuple[float, float]:
        """Voltage and current now, under the control of the step that runs."""
        moment = self._moment(self._plans[self.position.step - 1])
        return moment.end_voltage_V, moment.end_current_A

    def _turn(self, step: FileStep) -> None:
        at = self.position
        done = at.passes.pop(step.number, 0) + 1
        at.cycle += 1
        if done < (step.cycle_count or 1):
            at.passes[step.number] = done
            at.step = step.start_step or 1
        else:
            at.step += 1

    def _drive(self, plan: StepPlan, until_s: float) -> Block:
        at = self.position
        first: tuple[float, ...] | None = None
        trace: Trace | None = None
        last: tuple[float, ...] | None = None
        leads_to: int | None = None
        charge_Ah, energy_Wh = at.charge_Ah, at.energy_Wh
        if at.phase is Phase.NOT_ENTERED:
            leads_to = self._enter(plan)
            first = (0.0, at.last_voltage_V, at.last_current_A, 0.0, 0.0)
            charge_Ah = energy_Wh = 0.0
        number, visit, cycle, start_s = plan.step.number, at.visit, at.cycle, at.start_s
        if leads_to is None and at.test_time_s < until_s:
            trace, leads_to = self._advance(plan, until_s)
            if leads_to is not None:
                last = (
                    at.time_s,
                    trace.end_voltage_V,
                    trace.end_current_A,
                    at.charge_Ah,
                    at.energy_Wh,
                )
        table = _table(first, trace, last, charge_Ah, energy_Wh)
        ms = np.rint(table[0] * 1e3).astype(np.int64)
        if len(ms) and (ms[0] <= at.last_ms or (ms[1:] <= ms[:-1]).any()):
            fresh = np.diff(ms, prepend=at.last_ms) > 0
            ms, table = ms[fresh], table[:, fresh]
        if len(ms):
            at.last_ms = int(ms[-1])
        block = Block(
            at.seq, visit, number, cycle, start_s, ms, table[1], table[2], table[3], table[4]
        )
        at.seq += len(block)
        if leads_to is not None:
            self._leave(leads_to)
        return block

    def _leave(self, leads_to: int) -> None:
        at = self.position
        if leads_to in _OUTCOMES:
            at.condition = _OUTCOMES[Jump(leads_to)]
            at.phase = Phase.NOT_ENTERED
            if at.condition is Condition.FINISH:
                at.go_to(len(self._file.steps), self._file)
            elif at.condition is Condition.STOP:
                at.step += 1
            return
        if leads_to == Jump.NEXT:
            at.step, at.phase = at.step + 1, Phase.NOT_ENTERED
        else:
            at.go_to(leads_to, self._file)
        if at.visit == self._pause_after_visit:
            at.condition = Condition.PAUSE

    def _enter(self, plan: StepPlan) -> int | None:
        """Begin a step; where it leads if it is over at once."""
        at = self.position
        at.start_s += at.time_s
        at.visit += 1
        at.time_s = at.charge_Ah = at.energy_Wh = 0.0
        at.grace_s = math.inf
        at.last_ms = -1
        at.phase = plan.begins
        if plan.step.sweep is not None:
            here_V = plan.step.sweep.from_V
            at.sweep_from_V = self._cell.voltage_V() if here_V is None else here_V
        moment = self._moment(plan)
        if plan.step.type in BOTH_PHASES and _beyond(plan, moment.end_voltage_V):
            at.phase = Phase.VOLTAGE
            moment = self._moment(plan)
        if at.phase is Phase.VOLTAGE and moment.end_current_A * plan.direction < 0:
            at.phase = Phase.OPEN
            moment = self._moment(plan)
        voltage_V, current_A = moment.end_voltage_V, moment.end_current_A
        at.last_time_s, at.last_voltage_V, at.last_current_A = 0.0, voltage_V, current_A
        if passed(plan.protection, voltage_V, current_A, 0.0):
            if not plan.protection.delay_s:
                return Jump.PROTECT
            at.grace_s = plan.protection.delay_s
        for end in plan.phases[at.phase].unguarded.all:
            if end.leads_to != HOLD and end.holds(voltage_V, current_A):
                return end.leads_to
        return None

    def _advance(self, plan: StepPlan, until_s: float) -> tuple[Trace, int | None]:
        """Let the cell live until something happens; where that leads if the step is over."""
        at = self.position
        phase = plan.phases[at.phase]
        ends = phase.guarded if at.grace_s == math.inf else phase.unguarded
        stop_s = min(ends.bounds[Kind.TIME], at.grace_s, until_s - at.start_s)
        sweep_s = math.inf
        if plan.step.sweep is not None:
            across_V = abs(plan.step.sweep.to_V - at.sweep_from_V)
            sweep_s = across_V / plan.step.sweep.rate_V_per_s
            stop_s = min(stop_s, sweep_s)
        charge_left_Ah = max(0.0, ends.bounds[Kind.CHARGE] - abs(at.charge_Ah))
        energy_charge_Ah = math.inf
        if ends.bounds[Kind.ENERGY] < math.inf:
            energy_left_Wh = ends.bounds[Kind.ENERGY] - abs(at.energy_Wh)
            if energy_left_Wh <= ENERGY_TOLERANCE * ends.bounds[Kind.ENERGY]:
                return self._moment(plan), ends.at(Kind.ENERGY).leads_to
            energy_charge_Ah = energy_left_Wh / _largest_V(ends, at.last_voltage_V)
        recorder = Recorder(
            every_s=plan.every_s,
            voltage_change_V=plan.voltage_change_V,
            current_change_A=plan.current_change_A,
            now_s=at.time_s,
            last_time_s=at.last_time_s,
            last_voltage_V=at.last_voltage_V,
            last_current_A=at.last_current_A,
        )
        until = Until(
            voltage_at_least_V=ends.bounds[Kind.VOLTAGE_HIGH],
            voltage_at_most_V=ends.bounds[Kind.VOLTAGE_LOW],
            current_magnitude_at_most_A=ends.bounds[Kind.CURRENT_SMALL],
            current_magnitude_at_least_A=ends.bounds[Kind.CURRENT_LARGE],
            charge_magnitude_at_least_Ah=min(charge_left_Ah, energy_charge_Ah),
        )
        trace = self._live(plan, max(0.0, stop_s - at.time_s), until, recorder)
        by_time = trace.reason is StopReason.DURATION
        at.time_s = stop_s if by_time else at.time_s + trace.elapsed_s
        at.charge_Ah += trace.end_charge_Ah
        at.energy_Wh += trace.end_energy_Wh
        at.last_time_s = recorder.last_time_s
        at.last_voltage_V = recorder.last_voltage_V
        at.last_current_A = recorder.last_current_A
        if trace.reason is StopReason.RECORDS:
            return trace, None
        if by_time:
            return trace, self._after_time(plan, ends, trace, stop_s, sweep_s)
        if trace.reason is StopReason.CHARGE and energy_charge_Ah < charge_left_Ah:
            return trace, None
        leads_to = ends.at(_KINDS[trace.reason]).leads_to
        if leads_to == HOLD:
            at.phase = Phase.VOLTAGE
            return trace, None
        if leads_to == Jump.PROTECT and plan.protection.delay_s and ends is phase.guarded:
            at.grace_s = at.time_s + plan.protection.delay_s
            return trace, None
        return trace, leads_to

    def _after_time(
        self, plan: StepPlan, ends: Ends, trace: Trace, stop_s: float, sweep_s: float
    ) -> int | None:
        at = self.position
        if stop_s >= at.grace_s:
            at.grace_s = math.inf
            volts, amps = trace.end_voltage_V, trace.end_current_A
            if passed(plan.protection, volts, amps, abs(at.charge_Ah)):
                return Jump.PROTECT
        if stop_s >= ends.bounds[Kind.TIME]:
            return ends.at(Kind.TIME).leads_to
        return Jump.NEXT if stop_s >= sweep_s else None

    def _live(self, plan: StepPlan, duration_s: float, until: Until, recorder: Recorder) -> Trace:
        leg = plan.step.sweep
        if leg is None:
            phase = plan.phases[self.position.phase]
            return self._cell.advance(
                phase.control,
                phase.setpoint,
                duration_s,
                until=until,
                recorder=recorder,
                max_records=BLOCK_RECORDS,
                max_current_A=plan.max_current_A,
            )
        if not isinstance(self._cell, SweepingCell):
            raise TypeError(f"{type(self._cell).__name__} cannot sweep its voltage")
        return self._cell.sweep(
            self._swept_V(plan),
            leg.to_V,
            leg.rate_V_per_s,
            recorder=recorder,
            duration_s=duration_s,
            max_records=BLOCK_RECORDS,
            max_current_A=plan.max_current_A,
            until=until,
        )

    def _moment(self, plan: StepPlan) -> Trace:
        """What is at this moment, as a trace without records."""
        phase = plan.phases[self.position.phase]
        control, setpoint = phase.control, phase.setpoint
        if self.position.phase is Phase.SWEEP:
            control, setpoint = Control.VOLTAGE, self._swept_V(plan)
        return self._cell.advance(
            control,
            setpoint,
            0.0,
            until=_NEVER,
            recorder=Recorder(),
            max_current_A=plan.max_current_A,
        )

    def _swept_V(self, plan: StepPlan) -> float:
        """Where a sweep stands now."""
        at, leg = self.position, plan.step.sweep
        if leg is None:
            return 0.0
        moved_V = math.copysign(leg.rate_V_per_s * at.time_s, leg.to_V - at.sweep_from_V)
        return at.sweep_from_V + moved_V


def _table(
    first: tuple[float, ...] | None,
    trace: Trace | None,
    last: tuple[float, ...] | None,
    charge_Ah: float,
    energy_Wh: float,
) -> np.ndarray:
    """Rows of time, V, A, |Ah|, |Wh|: the records of a trace between two others.

    ``charge_Ah`` and ``energy_Wh`` are what the step had come to before the trace.
    """
    begin = int(first is not None)
    end = begin + (0 if trace is None else len(trace.time_s))
    table = np.empty((5, end + (last is not None)))
    if first is not None:
        table[:, 0] = first
    if trace is not None:
        table[0, begin:end] = trace.time_s
        table[1, begin:end] = trace.voltage_V
        table[2, begin:end] = trace.current_A
        np.add(trace.charge_Ah, charge_Ah, out=table[3, begin:end])
        np.add(trace.energy_Wh, energy_Wh, out=table[4, begin:end])
    if last is not None:
        table[:, -1] = last
    np.abs(table[3:], out=table[3:])
    return table


def _beyond(plan: StepPlan, voltage_V: float) -> bool:
    return (voltage_V - (plan.step.voltage_V or 0.0)) * plan.direction >= 0


def _largest_V(ends: Ends, now_V: float) -> float:
    """A voltage that will not be exceeded while the ends hold, so that energy follows charge."""
    bounds_V = (ends.bounds[Kind.VOLTAGE_HIGH], ends.bounds[Kind.VOLTAGE_LOW])
    return max(abs(now_V), *(min(abs(bound), COMPLIANCE_V) for bound in bounds_V)) * 1.001
