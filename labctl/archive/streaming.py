"""The samples of a run in the order of ``seq``, a part at a time: a run need not fit into memory.

SQLite gives them by cycle, and within a cycle as they came, which is nearly their order. Two such
streams, the cycles and what lies outside them, are merged: a sample waits until all before it are
there, which the run says by the numbers that it has. What waits is as much as came out of order.
PostgreSQL sorts by itself, and the file of a packed run is in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from sqlalchemy import Connection

from labctl.archive.packing_files import Block
from labctl.archive.packing_notes import note_of
from labctl.archive.reading import ALL_CYCLES, Wanted, chosen, in_order, read_columns
from labctl.archive.spans import Spans
from labctl.archive.timeline import last_cycle
from labctl.model import IntColumn

_BEFORE_ANY = -1


def read_in_order(
    connection: Connection, wanted: Wanted, columns: Sequence[str], *, present: Spans, rows: int
) -> Iterator[Block]:
    """Those samples by ``seq``, in blocks of ``rows``, of which the last may be shorter.

    Args:
        columns: names of :data:`labctl.model.RECORD_COLUMNS`, each once.
        present: the numbers of all samples that the run has.
    """
    names = ["seq", *(name for name in columns if name != "seq")]
    if not connection.in_transaction():
        connection.begin()
    packed = note_of(connection, wanted.run_number) is not None
    if packed or connection.dialect.name == "postgresql":
        found = read_columns(connection, wanted, names, by_seq=True)
    elif wanted.cycles is not None and 0 not in (cycles := set(wanted.cycles)):
        found = _by_cycles(connection, wanted, names, sorted(cycles), rows)
    else:
        found = _merged(connection, wanted, names, present)
    for block in _of_size(found, rows):
        yield {name: block[name] for name in columns}


def _by_cycles(
    connection: Connection, wanted: Wanted, names: Sequence[str], cycles: Sequence[int], rows: int
) -> Iterator[Block]:
    """Some cycles at once, as many as make about as many rows as are asked for."""
    last = last_cycle(connection, wanted.run_number)
    cycles = [cycle for cycle in cycles if cycle <= last]
    done, at_once = 0, 1
    while done < len(cycles):
        some = replace(wanted, cycles=cycles[done : done + at_once])
        block = in_order(read_columns(connection, some, names, in_bulk=True), names)
        yield block
        done += at_once
        at_once = at_once * 2 if len(block["seq"]) < rows // 2 else max(1, at_once // 2)


def _merged(
    connection: Connection, wanted: Wanted, names: Sequence[str], present: Spans
) -> Iterator[Block]:
    # What is left out is left out after the merge, which counts on every number.
    every = Wanted(run_number=wanted.run_number)
    sieved = [*names, *(name for name in wanted.asked() if name not in names)]
    streams = [
        read_columns(connection, replace(every, cycles=[0]), sieved, in_bulk=True),
        read_columns(
            connection, replace(every, cycles=range(1, ALL_CYCLES[0][1])), sieved, in_bulk=True
        ),
    ]
    came_to = [_BEFORE_ANY] * len(streams)
    waiting: list[Block] = []
    given = 0
    while streams:
        behind = int(np.argmin(came_to))
        block = next(streams[behind], None)
        if block is None:
            del streams[behind], came_to[behind]
            continue
        if not len(block["seq"]):
            continue
        came_to[behind] = max(came_to[behind], int(block["seq"].max()))
        waiting.append(block)
        pool = in_order(waiting, sieved)
        ready = _without_a_hole(_ranks(pool["seq"], present), given)
        waiting = [{name: column[ready:] for name, column in pool.items()}]
        if ready:
            given = int(_ranks(pool["seq"][ready - 1 : ready], present)[0])
            yield chosen({name: column[:ready] for name, column in pool.items()}, wanted, names)
    if waiting:
        yield chosen(in_order(waiting, sieved), wanted, names)


def _ranks(seq: IntColumn, present: Spans) -> IntColumn:
    """How many of the numbers that are present are at or below each of these."""
    pieces = list(present)
    if not pieces:
        return seq
    firsts = np.array([first for first, _ in pieces], dtype=np.int64)
    lengths = np.array([last - first + 1 for first, last in pieces], dtype=np.int64)
    before = np.cumsum(lengths) - lengths
    place = np.maximum(np.searchsorted(firsts, seq, side="right") - 1, 0)
    ranks: IntColumn = before[place] + np.clip(seq - firsts[place] + 1, 0, lengths[place])
    return ranks


def _without_a_hole(ranks: IntColumn, given: int) -> int:
    """How many of the ascending ranks go on from ``given`` without one left out."""
    steps = np.diff(ranks, prepend=given)
    holes = np.flatnonzero(steps > 1)
    return int(holes[0]) if len(holes) else len(ranks)


def _of_size(blocks: Iterator[Block], rows: int) -> Iterator[Block]:
    pieces: list[Block] = []
    count = 0
    for block in blocks:
        if not len(block["seq"]):
            continue
        pieces.append(block)
        count += len(block["seq"])
        if count < rows:
            continue
        whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in block}
        cut = count - count % rows
        for first in range(0, cut, rows):
            yield {name: column[first : first + rows] for name, column in whole.items()}
        pieces = [{name: column[cut:] for name, column in whole.items()}] if cut < count else []
        count -= cut
    if pieces:
        yield {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
