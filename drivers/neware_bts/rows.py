"""The readings that ``download`` brings, as columns.

Step time in ms, wall time as the host's local time to the second, V, A (discharge negative), Ah and
Wh since the step began as magnitudes. Sources: see :mod:`labctl.drivers.neware_bts.messages`.

Rows in the form that BTS 8.0 writes are read column by column; a reply in which anything else
stands is read as XML, attribute by attribute, to the same columns or to an error.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import numpy as np

from labctl.drivers.base import Capabilities
from labctl.drivers.neware_bts import columns
from labctl.drivers.neware_bts.messages import Address, Reply
from labctl.drivers.neware_bts.xmltree import Element
from labctl.errors import InstrumentError
from labctl.model import FloatColumn, IntColumn

MAX_ROWS = 1000
"""The most that one download brings."""

BEYOND = 0.5
"""By what share more than its name plate says a channel may show."""

ANEW_S = 1.0
"""A step that begins anew in the same cycle, after a ``goto``, has a reading before this time."""

_ATTRIBUTES: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("seqid", re.compile(rb"[0-9]{1,18}")),
    ("stepid", re.compile(rb"[0-9]{1,9}")),
    ("cycleid", re.compile(rb"[0-9]{1,18}")),
    ("steptype", re.compile(rb"[a-z]{1,12}")),
    ("testtime", columns.NUMBER),
    ("atime", re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")),
    ("volt", columns.NUMBER),
    ("curr", columns.NUMBER),
    ("cap", columns.NUMBER),
    ("eng", columns.NUMBER),
)
_QUOTES = 2 * len(_ATTRIBUTES)
_FIRST = b'<data seqid="'
_BEFORE = (b'" />\r\n    ' + _FIRST, *(b'" %s="' % name.encode() for name, _ in _ATTRIBUTES[1:]))
_LAST = b'" />'
_WORD = re.compile(rb"[a-z]{1,12}")


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


_NO_ROWS = Rows(
    test=0,
    seqid=np.empty(0, dtype=np.int64),
    stepid=np.empty(0, dtype=np.int64),
    cycleid=np.empty(0, dtype=np.int64),
    steptype=(),
    step_time_s=np.empty(0),
    host_time_s=np.empty(0),
    voltage_V=np.empty(0),
    current_A=np.empty(0),
    capacity_Ah=np.empty(0),
    energy_Wh=np.empty(0),
)


def read_download(
    data: bytes, channel: Address, *, start: int, count: int, instrument: str = ""
) -> Rows:
    """The readings from ``start`` on, at most ``count``.

    Raises:
        InstrumentError: of another channel or place than asked, more than asked, fewer than
            announced, not numbered one after the other from ``start`` on, with a time that goes
            back within a step, or with a value that is not a finite number. See docs/wire.md.
    """
    reply = Reply(data, "download", instrument)
    body, frame = _cut(data)
    try:
        rows = _in_columns(body)
    except ValueError as error:
        raise _no_value(reply, error) from error
    if rows is None:
        root = reply.envelope()
        rows = _one_by_one(reply, reply.listed(root, "data"))
    else:
        root = reply.envelope(frame)
        announced = reply.whole(reply.one(root, "list"), "count")
        if announced != len(rows):
            raise reply.refused(f"announces {announced} <data> and holds {len(rows)}")
    echo = reply.one(root, "download")
    reply.check_channel(echo, channel)
    if reply.whole(echo, "startpos") != start:
        raise reply.refused(f"begins at reading {reply.whole(echo, 'startpos')}, not at {start}")
    rows = dataclasses.replace(rows, test=reply.whole(echo, "testid"))
    _check(reply, rows, start, count)
    return rows


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """What stands between the first row and the end of the list, and all the rest."""
    first = data.find(b"<data ")
    end = data.rfind(b"</list>")
    if first < 0 or end < first:
        return b"", data
    return data[first:end].rstrip(), data[:first] + data[end:]


def _in_columns(body: bytes) -> Rows | None:
    """The rows, or None if anything but rows in the usual form stands in the body.

    Raises:
        ValueError: a cell has the characters of a number or time and means none.
    """
    if not body:
        return _NO_ROWS
    if not body.startswith(_FIRST) or not body.endswith(_LAST):
        return None
    text = columns.PADDING + body
    quotes = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord('"'))
    if len(quotes) % _QUOTES:
        return None
    begin = [quotes[place::_QUOTES] + 1 for place in range(0, _QUOTES, 2)]
    end = [quotes[place::_QUOTES] for place in range(1, _QUOTES, 2)]
    if quotes[-1] != len(text) - len(_LAST):
        return None
    for place, before in enumerate(_BEFORE):
        if not columns.stands_before(text, begin[place][0 if place else 1 :], before):
            return None
    cells = [(text, *cell) for cell in zip(begin, end, strict=True)]
    words = columns.words(*cells[3])
    if words is None or not all(map(_WORD.fullmatch, set(words))):
        return None
    known = {word: word.decode("ascii") for word in set(words)}
    wholes = [columns.whole_numbers(*cells[place]) for place in (0, 1, 2)]
    numbers = [columns.numbers(*cells[place]) for place in (4, 6, 7, 8, 9)]
    match [*wholes, columns.times(*cells[5]), *numbers]:
        case [
            np.ndarray() as seqid,
            np.ndarray() as stepid,
            np.ndarray() as cycleid,
            np.ndarray() as host_time_s,
            np.ndarray() as step_time_ms,
            np.ndarray() as voltage_V,
            np.ndarray() as current_A,
            np.ndarray() as capacity_Ah,
            np.ndarray() as energy_Wh,
        ]:
            return Rows(
                test=0,
                seqid=seqid,
                stepid=stepid,
                cycleid=cycleid,
                steptype=tuple([known[word] for word in words]),
                step_time_s=step_time_ms / 1000.0,
                host_time_s=host_time_s,
                voltage_V=voltage_V,
                current_A=current_A,
                capacity_Ah=capacity_Ah,
                energy_Wh=energy_Wh,
            )
        case _:
            return None


def _one_by_one(reply: Reply, elements: list[Element]) -> Rows:
    cells: dict[str, list[str]] = {name: [] for name, _ in _ATTRIBUTES}
    for element in elements:
        for name, pattern in _ATTRIBUTES:
            text = reply.attribute(element, name)
            if not pattern.fullmatch(text.encode("utf-8")):
                raise reply.refused(f"a row's {name} is {text[:40]!r}")
            cells[name].append(text)
    try:
        return Rows(
            test=0,
            seqid=_wholes(cells["seqid"]),
            stepid=_wholes(cells["stepid"]),
            cycleid=_wholes(cells["cycleid"]),
            steptype=tuple(cells["steptype"]),
            step_time_s=_floats(cells["testtime"]) / 1000.0,
            host_time_s=np.array(cells["atime"], dtype="datetime64[s]").astype(np.float64),
            voltage_V=_floats(cells["volt"]),
            current_A=_floats(cells["curr"]),
            capacity_Ah=_floats(cells["cap"]),
            energy_Wh=_floats(cells["eng"]),
        )
    except ValueError as error:
        raise _no_value(reply, error) from error


def _wholes(cells: list[str]) -> IntColumn:
    return np.array([int(cell) for cell in cells], dtype=np.int64)


def _floats(cells: list[str]) -> FloatColumn:
    return np.array([float(cell) for cell in cells], dtype=np.float64)


def _no_value(reply: Reply, error: ValueError) -> InstrumentError:
    return reply.refused(f"a row has a value that is no number or no time: {error}")


def _check(reply: Reply, rows: Rows, start: int, count: int) -> None:
    if len(rows) > count:
        raise reply.refused(f"brings {len(rows)} readings where {count} were asked for")
    if len(rows) == 0:
        return
    if rows.seqid[0] != start:
        side = "before" if rows.seqid[0] < start else "after"
        raise reply.refused(f"begins with reading {rows.seqid[0]}, {side} {start}")
    steps = np.diff(rows.seqid)
    if np.any(steps != 1):
        place = int(np.argmax(steps != 1))
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
    back = np.diff(rows.step_time_s) < 0
    if back.any():
        back &= (np.diff(rows.stepid) == 0) & (np.diff(rows.cycleid) == 0)
        back &= rows.step_time_s[1:] > ANEW_S
        if back.any():
            place = int(np.argmax(back))
            raise reply.refused(
                f"the step time of reading {rows.seqid[place + 1]} is before that of the reading "
                "before it, in the same step"
            )


def check_ranges(reply: Reply, rows: Rows, capabilities: Capabilities) -> None:
    """See that a channel can have measured the values.

    Raises:
        InstrumentError: one of them is far beyond what its name plate says.
    """
    if len(rows) == 0:
        return
    for name, low, high in (
        ("voltage_V", *measurable_V(capabilities)),
        ("current_A", -measurable_A(capabilities), measurable_A(capabilities)),
    ):
        column: FloatColumn = getattr(rows, name)
        if column.min() < low or column.max() > high:
            place = int(np.argmax((column < low) | (column > high)))
            raise reply.refused(
                f"{name} of reading {rows.seqid[place]} is {column[place]:g}, and the channel "
                f"measures {low:g} to {high:g}"
            )


def measurable_V(capabilities: Capabilities) -> tuple[float, float]:
    """Half a window beyond the window of the name plate: an open lead shows that much."""
    low_V, high_V = capabilities.voltage_min_V, capabilities.voltage_max_V
    beyond_V = BEYOND * (high_V - low_V)
    return low_V - beyond_V, high_V + beyond_V


def measurable_A(capabilities: Capabilities) -> float:
    """Half as much again as the largest full scale."""
    largest_A = max(current.full_scale_A for current in capabilities.current_ranges)
    return (1 + BEYOND) * largest_A
