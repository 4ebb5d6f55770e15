"""A person's question about samples, as the database is asked; and the answer as a frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import pandas as pd
from sqlalchemy import Connection

from labctl.archive.frames import utc
from labctl.archive.packing_files import Block
from labctl.archive.reading import Range, Wanted
from labctl.archive.timeline import cycles_between, last_cycle, last_test_time_s
from labctl.errors import ArchiveError
from labctl.model import RECORD_COLUMNS

Numbers = int | Iterable[int]
Moment = float | datetime
"""Seconds since 1970 UTC, or a time that knows its zone."""
Between = tuple[Moment | None, Moment | None]

UTC = "time_utc"
OPEN: tuple[None, None] = (None, None)


def columns_of(columns: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The columns that a frame will have, and those that are read for it, ``seq`` first.

    Raises:
        ArchiveError: there is no such column.
    """
    asked = list(RECORD_COLUMNS) if columns is None else list(dict.fromkeys(columns))
    if unknown := [name for name in asked if name not in RECORD_COLUMNS and name != UTC]:
        raise ArchiveError(
            f"samples have no column {', '.join(unknown)}; "
            f"they have {', '.join(RECORD_COLUMNS)} and {UTC}"
        )
    asked = [name for name in asked if name != "seq"]
    read = ["unix_time_s" if name == UTC else name for name in asked]
    return asked, list(dict.fromkeys(["seq", *read]))


def wanted_samples(
    connection: Connection,
    run_number: int,
    cycle: Numbers | None,
    step: Numbers | None,
    visit: Numbers | None,
    test_time_s: Range,
    between: Between,
    last_s: float | None,
    every: int,
) -> Wanted:
    """See :meth:`labctl.archive.queries.Archive.samples`.

    Raises:
        ArchiveError: ``every`` is below 1, or a time has no zone.
    """
    if every < 1:
        raise ArchiveError("every must be at least 1")
    if last_s is not None:
        end_s = last_test_time_s(connection, run_number)
        test_time_s = (None if end_s is None else end_s - last_s, test_time_s[1])
    unix_time_s = (_unix_s(between[0]), _unix_s(between[1]))
    cycles = _cycles(connection, run_number, cycle)
    if (test_time_s, unix_time_s) != (OPEN, OPEN):
        near = cycles_between(connection, run_number, test_time_s, unix_time_s)
        if near is not None:
            first, end = near
            cycles = (
                (0, *range(first, end + 1))
                if cycles is None
                else tuple(number for number in cycles if number == 0 or first <= number <= end)
            )
    return Wanted(
        run_number=run_number,
        cycles=cycles,
        steps=_numbers(step),
        visits=_numbers(visit),
        every=every,
        test_time_s=test_time_s,
        unix_time_s=unix_time_s,
    )


def frame_of(block: Block, asked: Sequence[str]) -> pd.DataFrame:
    """The columns that were asked for, by ``seq``."""
    frame = pd.DataFrame(
        {name: block["unix_time_s" if name == UTC else name] for name in asked},
        index=pd.Index(block["seq"], name="seq"),
        copy=False,
    )
    if UTC in asked:
        frame[UTC] = utc(frame[UTC])
    return frame


def _numbers(given: Numbers | None) -> range | tuple[int, ...] | None:
    if given is None or isinstance(given, range):
        return given
    if isinstance(given, Iterable):
        return tuple(int(one) for one in given)
    return (int(given),)


def _cycles(
    connection: Connection, run_number: int, given: Numbers | None
) -> range | tuple[int, ...] | None:
    """Those that there may be, by their numbers; below 0 counts from the last."""
    cycles = _numbers(given)
    if cycles is None:
        return None
    last = last_cycle(connection, run_number)
    if isinstance(cycles, range) and cycles.start >= 0 and cycles.step == 1:
        return range(cycles.start, min(cycles.stop, last + 1))
    there = (number if number >= 0 else last + 1 + number for number in cycles)
    return tuple(number for number in there if 0 <= number <= last)


def _unix_s(moment: Moment | None) -> float | None:
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ArchiveError(f"{moment} has no zone: write datetime(..., tzinfo=UTC)")
        return moment.timestamp()
    return moment
