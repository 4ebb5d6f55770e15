"""Which cycles of a run hold its samples of certain times: the index knows cycles, not times.

A cycle's number never falls as a run goes on, so the cycles are halved, and halved again, by the
time of any one sample of each. Only samples outside any cycle, numbered 0, may lie anywhere. The
file of a packed run knows the times in each of its parts by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, text

from labctl.archive.packing_notes import note_of
from labctl.archive.reading import Range

CLOCK_STEP_S = 3600.0
"""A node's clock may have been set by so much during a run; its test time goes evenly."""


def last_cycle(connection: Connection, run_number: int) -> int:
    """The highest number of a cycle that has samples; 0 if there is none."""
    query = text("SELECT max(cycle) FROM samples WHERE run_number = :run")
    note = note_of(connection, run_number)
    packed = 0 if note is None else note.last_cycle
    return max(packed, int(connection.execute(query, {"run": run_number}).scalar() or 0))


def last_test_time_s(connection: Connection, run_number: int) -> float | None:
    """The time of the last sample; None if there is none."""
    query = text(
        "SELECT max(test_time_s) FROM samples WHERE run_number = :run AND cycle IN (0, :last)"
    )
    given = {"run": run_number, "last": last_cycle(connection, run_number)}
    found = connection.execute(query, given).scalar()
    note = note_of(connection, run_number)
    ends = [] if note is None else [note.last_test_time_s]
    ends += [] if found is None else [float(found)]
    return max(ends, default=None)


def cycles_between(
    connection: Connection, run_number: int, test_time_s: Range, unix_time_s: Range
) -> tuple[int, int] | None:
    """First and last of the cycles that may have samples of these times; None if any may."""
    last = last_cycle(connection, run_number)
    if not last or note_of(connection, run_number) is not None:
        return None
    from_s, to_s = unix_time_s
    slack = (
        None if from_s is None else from_s - CLOCK_STEP_S,
        None if to_s is None else to_s + CLOCK_STEP_S,
    )
    found = (1, last)
    for column, limits in (("test_time_s", test_time_s), ("unix_time_s", slack)):
        if limits != (None, None):
            found = _narrowed(_a_time(connection, run_number, column), found, limits)
    return found


def _narrowed(
    time_of: Callable[[int], tuple[int, float]], cycles: tuple[int, int], limits: Range
) -> tuple[int, int]:
    first, last = cycles
    low, high = limits
    if low is not None:
        # The last cycle that has a sample before `low`: those before it are over by then.
        below, above = first, last + 1
        while above - below > 1:
            middle = (below + above) // 2
            if time_of(middle)[1] <= low:
                below = middle
            else:
                above = middle
        first = below
    if high is not None:
        # The first cycle that has a sample after `high`: those after it have not begun by then.
        below, above = first, last
        while below < above:
            middle = (below + above) // 2
            if time_of(middle)[1] > high:
                above = middle
            else:
                below = middle + 1
        last = below
    return first, last


def _a_time(
    connection: Connection, run_number: int, column: str
) -> Callable[[int], tuple[int, float]]:
    """Of a cycle, or the next that has samples: its number, and the time of one of them."""
    query = text(
        f"SELECT cycle, {column} FROM samples WHERE run_number = :run AND cycle >= :cycle "  # noqa: S608
        "ORDER BY run_number, cycle LIMIT 1"
    )

    def time_of(cycle: int) -> tuple[int, float]:
        row = connection.execute(query, {"run": run_number, "cycle": cycle}).one()
        return int(row[0]), float(row[1])

    return time_of
