"""The readings that ``download`` brings, as columns.

Step time in ms, wall time as the host's local time to the second, V, A (discharge negative), Ah and
Wh since the step began as magnitudes. Sources: see :mod:`labctl.drivers.neware_bts.messages`.

Rows in the form that BTS 8.0 writes go through one regular expression; a reply in which anything
else stands is read as XML, attribute by attribute, to the same columns or to an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from labctl.drivers.neware_bts.messages import Address, Reply
from labctl.drivers.neware_bts.xmltree import Element
from labctl.model import FloatColumn, IntColumn

MAX_ROWS = 1000
"""The most that one download brings."""

_NUMBER = rb"([-+0-9.eE]{1,40})"
_ROW = re.compile(
    rb"(\s{0,64}"
    rb'<data seqid="([0-9]{1,18})" stepid="([0-9]{1,9})" cycleid="([0-9]{1,18})"'
    rb' steptype="([a-z]{1,12})" testtime="' + _NUMBER + rb'"'
    rb' atime="([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2})"'
    rb' volt="' + _NUMBER + rb'" curr="' + _NUMBER + rb'" cap="' + _NUMBER + rb'"'
    rb' eng="' + _NUMBER + rb'" ?/>)'
)
_ATTRIBUTES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("seqid", re.compile(r"[0-9]{1,18}")),
    ("stepid", re.compile(r"[0-9]{1,9}")),
    ("cycleid", re.compile(r"[0-9]{1,18}")),
    ("steptype", re.compile(r"[a-z]{1,12}")),
    ("testtime", re.compile(r"[-+0-9.eE]{1,40}")),
    ("atime", re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")),
    ("volt", re.compile(r"[-+0-9.eE]{1,40}")),
    ("curr", re.compile(r"[-+0-9.eE]{1,40}")),
    ("cap", re.compile(r"[-+0-9.eE]{1,40}")),
    ("eng", re.compile(r"[-+0-9.eE]{1,40}")),
)

_Cells: TypeAlias = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Readings of one test, oldest first; columns of equal length.

    ``host_time_s`` counts seconds since 1970 by the clock on the host's wall, without a time zone.
    """

    test: int
    seqid: IntColumn
    stepid: IntColumn
    cycleid: IntColumn
    steptype: tuple[str, ...]
    step_time_s: FloatColumn
    host_time_s: FloatColumn
    voltage_V: FloatColumn
    current_A: FloatColumn
    capacity_Ah: FloatColumn
    energy_Wh: FloatColumn

    def __len__(self) -> int:
        return len(self.seqid)


def read_download(
    data: bytes, channel: Address, *, start: int, count: int, instrument: str = ""
) -> Rows:
    """The readings from ``start`` on, at most ``count``.

    Raises:
        InstrumentError: of another channel or place than asked, more than asked, fewer than
            announced, out of order, or with a value that is not a finite number.
    """
    reply = Reply(data, "download", instrument)
    body, frame = _cut(data)
    cells = _matched(body)
    if cells is None:
        root = reply.envelope()
        cells = _cells_of(reply, reply.listed(root, "data"))
    else:
        root = reply.envelope(frame)
        announced = reply.whole(reply.one(root, "list"), "count")
        if announced != len(cells):
            raise reply.refused(f"announces {announced} <data> and holds {len(cells)}")
    echo = reply.one(root, "download")
    reply.check_channel(echo, channel)
    if reply.whole(echo, "startpos") != start:
        raise reply.refused(f"begins at reading {reply.whole(echo, 'startpos')}, not at {start}")
    rows = _columns(reply, reply.whole(echo, "testid"), cells)
    _check(reply, rows, start, count)
    return rows


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """What stands between the first row and the end of the list, and all the rest."""
    first = data.find(b"<data ")
    end = data.rfind(b"</list>")
    if first < 0 or end < first:
        return b"", data
    return data[first:end], data[:first] + data[end:]


def _matched(body: bytes) -> list[_Cells] | None:
    """The cells of every row, or None if anything but rows stands in the body."""
    found: list[_Cells] = _ROW.findall(body)
    matched_bytes = sum(len(row[0]) for row in found)
    if matched_bytes != len(body.rstrip()):
        return None
    return [row[1:] for row in found]


def _cells_of(reply: Reply, elements: list[Element]) -> list[_Cells]:
    rows: list[_Cells] = []
    for element in elements:
        cells = []
        for name, pattern in _ATTRIBUTES:
            text = reply.attribute(element, name)
            if not pattern.fullmatch(text):
                raise reply.refused(f"a row's {name} is {text[:40]!r}")
            cells.append(text.encode("ascii"))
        rows.append(tuple(cells))
    return rows


def _columns(reply: Reply, test: int, cells: list[_Cells]) -> Rows:
    columns = list(zip(*cells, strict=True)) if cells else [()] * len(_ATTRIBUTES)
    try:
        return Rows(
            test=test,
            seqid=_whole(columns[0]),
            stepid=_whole(columns[1]),
            cycleid=_whole(columns[2]),
            steptype=tuple(word.decode("ascii") for word in columns[3]),
            step_time_s=_numbers(columns[4]) / 1000.0,
            host_time_s=np.array(columns[5], dtype="S19")
            .astype("datetime64[s]")
            .astype(np.int64)
            .astype(np.float64),
            voltage_V=_numbers(columns[6]),
            current_A=_numbers(columns[7]),
            capacity_Ah=_numbers(columns[8]),
            energy_Wh=_numbers(columns[9]),
        )
    except ValueError as error:
        raise reply.refused(f"a row has a value that is no number or no time: {error}") from error


def _whole(cells: tuple[bytes, ...]) -> IntColumn:
    return np.array([int(cell) for cell in cells], dtype=np.int64)


def _numbers(cells: tuple[bytes, ...]) -> FloatColumn:
    return np.array([float(cell) for cell in cells], dtype=np.float64)


def _check(reply: Reply, rows: Rows, start: int, count: int) -> None:
    if len(rows) > count:
        raise reply.refused(f"brings {len(rows)} readings where {count} were asked for")
    if len(rows) == 0:
        return
    if rows.seqid[0] < start:
        raise reply.refused(f"begins with reading {rows.seqid[0]}, before {start}")
    if np.any(np.diff(rows.seqid) <= 0):
        place = int(np.argmax(np.diff(rows.seqid) <= 0))
        raise reply.refused(
            f"reading {rows.seqid[place + 1]} comes after reading {rows.seqid[place]}"
        )
    for name in ("step_time_s", "voltage_V", "current_A", "capacity_Ah", "energy_Wh"):
        column: FloatColumn = getattr(rows, name)
        if not np.all(np.isfinite(column)):
            place = int(np.argmin(np.isfinite(column)))
            raise reply.refused(f"{name} of reading {rows.seqid[place]} is not finite")
    if np.any(rows.step_time_s < 0):
        place = int(np.argmax(rows.step_time_s < 0))
        raise reply.refused(f"the step time of reading {rows.seqid[place]} is below 0")
