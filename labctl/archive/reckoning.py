"""What is reckoned of a cycle from its samples: where it is committed, or ahead of that.

The process that hears the broker has the samples in its hands before the one that commits: it
reckons the cycles that end in them, so that the other need not. What comes out is the same.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeAlias

import numpy as np

from labctl.analysis.cycles import CycleSummary, summarise_cycles
from labctl.archive.arrivals import Arrived
from labctl.archive.happenings import known
from labctl.archive.many import Row
from labctl.archive.spans import Spans
from labctl.archive.tails import Tails
from labctl.model import RECORD_COLUMNS, Records, join_records
from labctl.stream.batches import EventsBatch
from labctl.stream.events import CycleEnded

ReadSamples: TypeAlias = Callable[[int, int], Records]
"""``(first_seq, last_seq) -> Records`` of a run, in order of seq."""

_OF_SUMMARY = (
    "charge_Ah",
    "discharge_Ah",
    "charge_Wh",
    "discharge_Wh",
    "coulombic_efficiency",
    "mean_charge_voltage_V",
    "mean_discharge_voltage_V",
    "voltage_min_V",
    "voltage_max_V",
    "current_min_A",
    "current_max_A",
    "duration_s",
)
_of_summary = attrgetter(*_OF_SUMMARY)
_FIGURES = (*_OF_SUMMARY, "end_test_time_s", "end_unix_time_s")
RECKONED = ("interrupted", *_FIGURES)
"""Columns of ``cycles`` that are reckoned from samples."""

Figures: TypeAlias = tuple[float | None, ...]
"""The columns :data:`RECKONED` but the first; None where there is no such number."""


class Reckoned(NamedTuple):
    """The figures of the cycle with these samples."""

    first_seq: int
    last_seq: int
    figures: Figures


ReckonedCycles: TypeAlias = dict[tuple[str, str, int], Reckoned]
"""By source, run and cycle."""


class ReckonsAhead:
    """Reckons the cycles whose samples all passed through here. Not for several threads at once."""

    def __init__(self) -> None:
        self._tails: Tails[tuple[str, str]] = Tails()

    def look(self, arrived: Iterable[Arrived]) -> ReckonedCycles:
        """The cycles that end in these batches, which are to be committed next."""
        ended: defaultdict[tuple[str, str], list[CycleEnded]] = defaultdict(list)
        for one in arrived:
            batch = one.batch
            if one.records is not None:
                self._tails.add((batch.source, batch.run), one.records)
            elif isinstance(batch, EventsBatch):
                for event in batch.events:
                    if isinstance(event, CycleEnded):
                        ended[batch.source, event.run].append(event)
        found: ReckonedCycles = {}
        for (source, run), events in ended.items():
            spans = [(event.first_seq, event.last_seq) for event in events]
            last_seq = max(last for _, last in spans)
            samples = self._tails.take(
                (source, run), max(1, min(first for first, _ in spans) - 1), last_seq
            )
            self._tails.forget_before((source, run), last_seq)
            if samples is not None:
                every = reckon(spans, _all_of(samples))
                for event, figures in zip(events, every, strict=True):
                    key = (source, run, event.cycle)
                    found[key] = Reckoned(event.first_seq, event.last_seq, figures)
        return found


def _all_of(samples: Records) -> ReadSamples:
    return lambda _first_seq, _last_seq: samples


def fill_in(row: Row, figures: Figures, quarantined: Spans) -> None:
    """Put what was reckoned into a row of ``cycles``."""
    row.update(zip(_FIGURES, figures, strict=True))
    if quarantined.touches(row["first_seq"] - 1, row["last_seq"]):
        row["interrupted"] = True


def reckon_cycles(rows: Sequence[Row], read: ReadSamples, quarantined: Spans) -> None:
    """Reckon each row of ``cycles`` of one run, and put it in."""
    found = reckon([(row["first_seq"], row["last_seq"]) for row in rows], read)
    for row, figures in zip(rows, found, strict=True):
        fill_in(row, figures, quarantined)


def reckon(spans: Sequence[tuple[int, int]], read: ReadSamples) -> list[Figures]:
    """The figures of the cycles with the samples ``first_seq`` to ``last_seq``, in their order."""
    found: list[Figures] = []
    for summary, test_time_s, unix_time_s in summaries(spans, read):
        figures = (*_of_summary(summary), test_time_s, unix_time_s)
        if not math.isfinite(sum(figures)):
            figures = (*map(known, figures[:-2]), *figures[-2:])
        found.append(figures)
    return found


def summaries(
    spans: Sequence[tuple[int, int]], read: ReadSamples
) -> list[tuple[CycleSummary, float, float]]:
    """The cycles with the samples ``first_seq`` to ``last_seq``, in the order of the list.

    Each with the test time and the unix time of its last sample. The sample before ``first_seq`` is
    what its first change is taken from; before the first sample of a run, charge and energy are 0.
    Samples that are missing are passed over.

    Args:
        read: gives the samples of the run; asked once.
    """
    if not spans:
        return []
    first_seq = max(1, min(first for first, _ in spans) - 1)
    records = read(first_seq, max(last for _, last in spans))
    if first_seq == 1 or not len(records):
        records = join_records([_origin(records), records])
    before = np.searchsorted(records.seq, [first - 1 for first, _ in spans])
    last = np.searchsorted(records.seq, [end for _, end in spans], side="right") - 1
    before = np.minimum(before, len(records) - 1)
    last = np.maximum(last, before)
    reckoned = summarise_cycles(
        records.test_time_s,
        records.voltage_V,
        records.current_A,
        records.charge_Ah,
        records.energy_Wh,
        before,
        last,
    )
    return [
        (summary, float(records.test_time_s[row]), float(records.unix_time_s[row]))
        for summary, row in zip(reckoned, last.tolist(), strict=True)
    ]


def _origin(records: Records) -> Records:
    """A record before the first one: no charge, no energy, at the time of the first."""
    values = {name: np.zeros(1, dtype=numpy_type) for name, numpy_type in RECORD_COLUMNS.items()}
    if len(records):
        for name in ("test_time_s", "unix_time_s", "voltage_V", "current_A"):
            values[name] = getattr(records, name)[:1]
    return Records(**values)
