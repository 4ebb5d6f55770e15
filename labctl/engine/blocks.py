"""A block of readings, whose visits are known, becomes records. Pure.

What is the same for every row is worked out for the whole block at once: a visit of a few readings
costs hardly more than its events.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from labctl.engine.ends import SlopePoints, slope_window_s, slopes
from labctl.engine.entering import enter_by_reading
from labctl.engine.integrals import integrate, sums_by_sign, trapezoids
from labctl.engine.place import Place, Placed
from labctl.engine.spectra import SpectraToPlace
from labctl.engine.walk import Walk
from labctl.model import FloatColumn, Readings, Records
from labctl.program import Step
from labctl.stream.events import Event, GapRecorded


@dataclass(frozen=True, slots=True)
class Block:
    """Readings with their integrals.

    edges: the first row of each visit, and the number of rows; ``goes_on`` says that the first
        visit was entered before.
    step_time_s: since the visit of the row began; charge_Ah, energy_Wh: since the run began.
    sums: of each visit, see :func:`labctl.engine.integrals.sums_by_sign`.
    """

    readings: Readings
    edges: list[int]
    goes_on: bool
    step_time_s: FloatColumn
    charge_Ah: FloatColumn
    energy_Wh: FloatColumn
    sums: list[list[float]]


class _Last(NamedTuple):
    """The last reading of a visit in a block."""

    onboard_index: int
    pass_mark: int
    voltage_V: float
    current_A: float
    temperature_degC: float
    step_time_s: float
    charge_Ah: float
    energy_Wh: float


def place_block(
    walk: Walk,
    place: Place,
    block: Block,
    spectra: SpectraToPlace,
    gaps: Iterable[tuple[int, GapRecorded]] = (),
) -> Placed:
    """Put the visits of a block in their place, one after the other.

    Args:
        place: what the block was measured from.
        spectra: that came with the readings.
        gaps: rows before which readings are missing, in order.

    Raises:
        InstrumentError: a visit begins with a reading of a step where the program cannot be.
    """
    readings = block.readings
    missing_before = deque(gaps)
    seq_before = place.seq
    events: list[Event] = []
    visits: list[tuple[int, int, int, float]] = []
    for visit, ((first, end), last) in enumerate(
        zip(itertools.pairwise(block.edges), _lasts(block), strict=True)
    ):
        missing = bool(missing_before) and missing_before[0][0] == first
        if missing:
            events.append(missing_before.popleft()[1])
            place = msgspec.structs.replace(place, cycle_interrupted=True)
        if visit or not block.goes_on:
            place, told = spectra.of_visit_before(place, float(readings.unix_time_s[first]))
            events += told
            place, told = enter_by_reading(walk, place, readings, first)
            events += told
        while missing_before and missing_before[0][0] < end:
            events.append(missing_before.popleft()[1])
            missing = True
        step = walk.step(place.position)
        charge_Ah, discharge_Ah, charge_Wh, discharge_Wh = block.sums[visit]
        points, slope_V_per_s = _slope(step, place.slope_points, block, first, end)
        place = msgspec.structs.replace(
            place,
            seq=seq_before + end,
            onboard_index=last.onboard_index,
            pass_mark=last.pass_mark,
            voltage_V=last.voltage_V,
            current_A=last.current_A,
            known_temperature_degC=_known(last.temperature_degC),
            step_time_s=last.step_time_s,
            test_time_s=place.visit_start_test_time_s + last.step_time_s,
            charge_Ah=last.charge_Ah,
            energy_Wh=last.energy_Wh,
            visit_charge_Ah=charge_Ah,
            visit_discharge_Ah=discharge_Ah,
            visit_charge_Wh=charge_Wh,
            visit_discharge_Wh=discharge_Wh,
            cycle_interrupted=place.cycle_interrupted or missing,
            resuming=False,
            segment_begins=False,
            slope_points=points,
            known_slope_V_per_s=_known(slope_V_per_s),
        )
        visits.append(
            (place.position.cycle, step.index + 1, place.visit, place.visit_start_test_time_s)
        )
    place, told = spectra.rest(place)
    return Placed(_records(seq_before, block, visits), (*events, *told), place)


def _records(seq_before: int, block: Block, visits: list[tuple[int, int, int, float]]) -> Records:
    readings = block.readings
    bounds = np.asarray(block.edges)
    counts = bounds[1:] - bounds[:-1]
    cycle, step, visit, start_time_s = zip(*visits, strict=True)
    return Records(
        seq=np.arange(seq_before + 1, seq_before + 1 + len(readings), dtype=np.int64),
        test_time_s=np.array(start_time_s).repeat(counts) + block.step_time_s,
        unix_time_s=readings.unix_time_s,
        cycle=np.array(cycle, dtype=np.int64).repeat(counts),
        step=np.array(step, dtype=np.int64).repeat(counts),
        visit=np.array(visit, dtype=np.int64).repeat(counts),
        voltage_V=readings.voltage_V,
        current_A=readings.current_A,
        charge_Ah=block.charge_Ah,
        energy_Wh=block.energy_Wh,
        temperature_degC=readings.temperature_degC,
    )


def _lasts(block: Block) -> list[_Last]:
    rows = np.asarray(block.edges[1:]) - 1
    readings = block.readings
    columns = (
        readings.onboard_index,
        readings.pass_mark,
        readings.voltage_V,
        readings.current_A,
        readings.temperature_degC,
        block.step_time_s,
        block.charge_Ah,
        block.energy_Wh,
    )
    return [_Last(*row) for row in zip(*(column[rows].tolist() for column in columns), strict=True)]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _slope(
    step: Step, points: SlopePoints, block: Block, first: int, end: int
) -> tuple[SlopePoints, float]:
    """What dV/dt needs after the rows of a visit, and dV/dt at the last of them."""
    window_s = slope_window_s(step)
    if not window_s:
        return (), math.nan
    times_s = block.step_time_s[first:end].tolist()
    voltages_V = block.readings.voltage_V[first:end].tolist()
    points, found = slopes(points, zip(times_s, voltages_V, strict=True), window_s)
    return points, found[-1]


def measure(place: Place, readings: Readings, begins: list[int]) -> Block:
    """The integrals of readings, of which the rows in ``begins`` begin a visit."""
    goes_on = begins[:1] != [0]
    edges = [*([0] if goes_on else []), *begins, len(readings)]
    step_time_s = readings.step_time_s
    start_Ah, start_Wh = place.charge_Ah, place.energy_Wh
    in_visit = (0.0, 0.0, 0.0, 0.0)
    if goes_on:
        if place.resumed_s:
            step_time_s = step_time_s.copy()
            step_time_s[: edges[1]] += place.resumed_s
        start_Ah = place.visit_start_charge_Ah + place.resumed_Ah
        start_Wh = place.visit_start_energy_Wh + place.resumed_Wh
        in_visit = (
            place.visit_charge_Ah,
            place.visit_discharge_Ah,
            place.visit_charge_Wh,
            place.visit_discharge_Wh,
        )

    def added(rate: FloatColumn, rate_before: float, counter: FloatColumn) -> FloatColumn | None:
        if np.isfinite(counter).all():
            return None
        if not goes_on:
            return trapezoids(step_time_s, rate, begins, None)
        first_since = place.resuming or not place.visit_has_records
        if first_since:
            return trapezoids(step_time_s, rate, begins, (place.resumed_s, float(rate[0])))
        return trapezoids(step_time_s, rate, begins, (place.step_time_s, rate_before))

    power_W = readings.voltage_V * readings.current_A
    charge_Ah = integrate(
        readings.step_charge_Ah,
        added(readings.current_A, place.current_A, readings.step_charge_Ah),
        edges,
        start_Ah,
        place.charge_Ah,
    )
    energy_Wh = integrate(
        readings.step_energy_Wh,
        added(power_W, place.voltage_V * place.current_A, readings.step_energy_Wh),
        edges,
        start_Wh,
        place.energy_Wh,
    )
    sums = sums_by_sign(charge_Ah, energy_Wh, (place.charge_Ah, place.energy_Wh), edges, in_visit)
    return Block(readings, edges, goes_on, step_time_s, charge_Ah, energy_Wh, sums)
