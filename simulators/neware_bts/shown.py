"""What a channel shows: true values, read by its electronics and labelled for the wire."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from labctl.drivers.neware_bts.stepfile import StepFile
from labctl.simulators.neware_bts.instrument import FloatColumn, Instrument, IntColumn
from labctl.simulators.neware_bts.persist import Leg
from labctl.simulators.neware_bts.position import Condition, Position
from labctl.simulators.neware_bts.rows import LayerTable, Rows, join_rows
from labctl.simulators.neware_bts.steps import STEP_NAMES, full_scale_A

BETWEEN_RECORDS = 1 << 40
"""Readings that are no records take their noise from numbers beyond those of all records."""


@dataclass(frozen=True, slots=True)
class Download:
    """Records as they are read; columns of equal length. ``unix_s`` labels them.

    ``name`` is an index into ``names``, of what the records of each step are called.
    """

    test_id: int
    rows: Rows
    name: IntColumn
    names: tuple[str, ...]
    unix_s: FloatColumn
    voltage_V: FloatColumn
    current_A: FloatColumn


@dataclass(frozen=True, slots=True)
class Layers:
    """Visits to steps; columns of the table's length."""

    test_id: int
    table: LayerTable
    step_names: list[str]
    end_unix_s: FloatColumn
    first_V: FloatColumn
    last_V: FloatColumn
    first_A: FloatColumn
    last_A: FloatColumn


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a channel; ``step`` 0 means that no test is running."""

    condition: Condition
    barcode: str
    step: int = 0
    step_name: str = "--"
    cycle: int = 1
    voltage_V: float = 0.0
    current_A: float = 0.0
    capacity_Ah: float = 0.0
    energy_Wh: float = 0.0
    test_time_s: float = 0.0
    step_time_s: float = 0.0

    @classmethod
    def paused(cls, barcode: str, file: StepFile, at: Position, voltage_V: float) -> Look:
        return cls(
            Condition.PAUSE,
            barcode,
            step=at.step,
            step_name=STEP_NAMES[file.steps[at.step - 1].type],
            cycle=at.cycle,
            voltage_V=voltage_V,
            capacity_Ah=abs(at.charge_Ah),
            energy_Wh=abs(at.energy_Wh),
            test_time_s=at.test_time_s,
            step_time_s=at.time_s,
        )


class Meter:
    """The electronics of one channel, and whether their readings are frozen."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._frozen: tuple[float, float] | None = None

    @property
    def is_frozen(self) -> bool:
        return self._frozen is not None

    def freeze(self, look: Look | None) -> None:
        """Keep the readings of ``look`` from now on; None lets them go."""
        self._frozen = None if look is None else (look.voltage_V, look.current_A)

    def frozen_look(self, look: Look) -> Look:
        if self._frozen is None:
            return look
        return replace(look, voltage_V=self._frozen[0], current_A=self._frozen[1])

    def download(self, test: int, parts: Sequence[tuple[StepFile, float, Rows]]) -> Download:
        """Records of one test; each part with its file and its unix time at test time 0."""
        rows = join_rows([part for _, _, part in parts])
        names: list[str] = []
        places: list[IntColumn] = [np.empty(0, dtype=np.int64)]
        scales: list[FloatColumn] = [np.empty(0)]
        unix: list[FloatColumn] = [np.empty(0)]
        for file, offset_s, part in parts:
            places.append(part.step + len(names))
            names += _names(file)
            scales.append(_full_scales(file)[part.step])
            unix.append(part.test_time_s + offset_s)
        voltage_V, current_A = self._read(
            test, rows.seq, rows.voltage_V, rows.current_A, np.concatenate(scales)
        )
        return Download(
            test,
            rows,
            np.concatenate(places),
            tuple(names),
            np.concatenate(unix),
            voltage_V,
            current_A,
        )

    def layers(
        self, test: int, files: Sequence[StepFile], legs: Sequence[Leg], table: LayerTable
    ) -> Layers:
        """The table of one test; ``files`` and ``legs`` go together."""
        if not len(table):
            none = np.empty(0)
            return Layers(test, table, [], none, none, none, none, none)
        begins = [leg.position.seq for leg in legs]
        of_leg = np.searchsorted(begins, table["last_seq"], "right") - 1
        offsets = np.array([leg.unix_offset_s for leg in legs])[of_leg]
        names = [_names(file) for file in files]
        scales = [_full_scales(file) for file in files]
        places = list(zip(of_leg.tolist(), table["step"].tolist(), strict=True))
        full = np.array([scales[leg][step] for leg, step in places])
        ends: list[FloatColumn] = []
        for end in ("first", "last"):
            ends += self._read(
                test, table[f"{end}_seq"], table[f"{end}_V"], table[f"{end}_A"], full
            )
        return Layers(
            test,
            table,
            [names[leg][step] for leg, step in places],
            table["start_s"] + table["ms"] * 1e-3 + offsets,
            first_V=ends[0],
            first_A=ends[1],
            last_V=ends[2],
            last_A=ends[3],
        )

    def idle_V(self, test: int, true_V: float, moment: int) -> float:
        """A reading with the output open."""
        seq = np.array([BETWEEN_RECORDS + moment], dtype=np.int64)
        return float(self._instrument.voltages_V(test, seq, np.array([true_V]))[0])

    def look(
        self, test: int, barcode: str, file: StepFile, around: Rows, test_time_s: float | None
    ) -> Look:
        """The moment ``test_time_s`` between the two records ``around`` it; None is the first.

        What lies between two records of one step is taken to be on the straight line.
        """
        if not len(around):
            return Look(Condition.WORKING, barcode)
        begins_s, ms = float(around.start_s[0]), float(around.ms[0])
        share, seq = 0.0, int(around.first_seq)
        step_time_s = ms * 1e-3
        if test_time_s is not None:
            step_time_s = max(step_time_s, test_time_s - begins_s)
            if len(around) > 1 and around.visit[0] == around.visit[1]:
                gap_s = float(around.ms[1] - around.ms[0]) * 1e-3
                share = min(1.0, max(0.0, (step_time_s - ms * 1e-3) / gap_s))
                seq = BETWEEN_RECORDS + math.floor(test_time_s * 10) if share else seq

        def between(column: FloatColumn) -> float:
            here = float(column[0])
            return here + share * (float(column[1]) - here) if share else here

        step = int(around.step[0])
        voltage_V, current_A = self._read(
            test,
            np.array([seq], dtype=np.int64),
            np.array([between(around.voltage_V)]),
            np.array([between(around.current_A)]),
            _full_scales(file)[[step]],
        )
        return Look(
            Condition.WORKING,
            barcode,
            step=step,
            step_name=_names(file)[step],
            cycle=int(around.cycle[0]),
            voltage_V=float(voltage_V[0]),
            current_A=float(current_A[0]),
            capacity_Ah=between(around.capacity_Ah),
            energy_Wh=between(around.energy_Wh),
            test_time_s=begins_s + step_time_s,
            step_time_s=step_time_s,
        )

    def _read(
        self,
        test: int,
        seq: IntColumn,
        true_V: FloatColumn,
        true_A: FloatColumn,
        full_scale_A: FloatColumn,
    ) -> tuple[FloatColumn, FloatColumn]:
        if self._frozen is not None:
            return np.full(len(seq), self._frozen[0]), np.full(len(seq), self._frozen[1])
        return (
            self._instrument.voltages_V(test, seq, true_V),
            self._instrument.currents_A(test, seq, true_A, full_scale_A),
        )


def _names(file: StepFile) -> list[str]:
    return ["--", *(STEP_NAMES[step.type] for step in file.steps)]


def _full_scales(file: StepFile) -> FloatColumn:
    """By step number, from 1."""
    return np.array([0.0, *(full_scale_A(step, file) for step in file.steps)])
