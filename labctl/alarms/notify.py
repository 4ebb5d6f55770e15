"""Whom to tell of which alarm, and when: pure, without a database and without a wire.

An alarm that wants a person is told of once it has stood for a moment, together with all others
that came in that moment, so that one cause is one message. It is told again while nobody has said
anything, more often the more it matters. What is set aside is not told of. Alarms of one rule of
one run are one matter: a matter that comes and goes is not told of again within minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from labctl.alarms.conditions import Priority
from labctl.alarms.states import WANTS_A_PERSON, AlarmState
from labctl.errors import ConfigError, Problem
from labctl.kinds import Kind
from labctl.units import QuantityError, parse_quantity

RANKS: Final[dict[str, int]] = {"low": 0, "medium": 1, "high": 2}
GROUP_S: Final = 10.0
"""So long alarms are waited for that belong into the same message."""
REPEAT_S: Final[dict[str, float]] = {"high": 3600.0, "medium": 86400.0}
"""How often an alarm of a priority is told of while nobody says anything; others are told once."""
LONGEST_GROUP_S: Final = 300.0
SHORTEST_REPEAT_S: Final = 60.0
QUIET_S: Final = 300.0
"""Not sooner after the last time is a matter told of that came anew."""
MOST_LINES: Final = 20


class NotifyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How people are told of alarms who do not look at a screen.

    urls: addresses of the apprise library, such as ``mailto://…`` or ``ntfy://…``.
    urls_file: a file with more of them, one a line; keep it readable to the service alone, for most
        have a password in them.
    min_priority: what is of less is not told of.
    group_within: so long alarms are waited for that belong into the same message.
    repeat_high, repeat_medium: how often it is said again while nobody acknowledges; '' for never.
    heartbeat_url: asked once a minute while the archive is well, so that another machine notices
        if it no longer is. ``heartbeat_file``: a file whose first line is that address.

    Raises:
        ValueError: the heartbeat is not an address of HTTP, or a time is none.
    """

    urls: tuple[str, ...] = ()
    urls_file: str = ""
    min_priority: Priority = "low"
    group_within: str = "10 s"
    repeat_high: str = "1 h"
    repeat_medium: str = "24 h"
    heartbeat_url: str = ""
    heartbeat_file: str = ""

    def __post_init__(self) -> None:
        if self.heartbeat_url and not _is_http(self.heartbeat_url):
            raise ValueError("heartbeat_url must begin with http:// or https://")
        if self.group_s > LONGEST_GROUP_S:
            raise ValueError(f"group_within is at most {LONGEST_GROUP_S:g} s: people are waiting")
        for name, seconds in self.repeat_s.items():
            if seconds < SHORTEST_REPEAT_S:
                raise ValueError(f"repeat_{name} is at least {SHORTEST_REPEAT_S:g} s")

    @property
    def group_s(self) -> float:
        """``group_within`` in seconds."""
        return duration_s("group_within", self.group_within)

    @property
    def repeat_s(self) -> dict[str, float]:
        """How often an alarm of each priority is said again, in seconds; others never."""
        written = {"high": self.repeat_high, "medium": self.repeat_medium}
        return {name: duration_s(f"repeat_{name}", text) for name, text in written.items() if text}

    def read(self) -> tuple[tuple[str, ...], str]:
        """Every address, and that of the heartbeat ('' for none).

        Raises:
            ConfigError: a file cannot be read, or has no address in it.
        """
        urls = list(self.urls)
        if self.urls_file:
            lines = [line.strip() for line in _text(self.urls_file).splitlines()]
            urls += [line for line in lines if line and not line.startswith("#")]
        heartbeat = self.heartbeat_url
        if self.heartbeat_file:
            heartbeat = _text(self.heartbeat_file).split("\n", 1)[0].strip()
            if not _is_http(heartbeat):
                message = "its first line must begin with http:// or https://"
                raise ConfigError([Problem(message, file=self.heartbeat_file)])
        return tuple(dict.fromkeys(urls)), heartbeat


@dataclass(frozen=True, slots=True)
class Told:
    """An alarm, and what people were told of it.

    about: the run, or the subject of an alarm about no run.
    of: the same for people.
    raised: number of the event that raised it last.
    told: number of the raising event that people were last told of, 0 if never; ``told_unix_s``:
        when.
    """

    alarm_number: int
    about: str
    of: str
    rule: str
    name: str
    priority: str
    state: AlarmState
    message: str
    raised: int
    raised_unix_s: float
    told: int = 0
    told_unix_s: float | None = None

    @property
    def matter(self) -> tuple[str, str]:
        """What is told of as one."""
        return self.rule, self.about

    @property
    def is_new(self) -> bool:
        """Whether it was raised after people were last told of it."""
        return self.raised > self.told


@dataclass(frozen=True, slots=True)
class Text:
    """A message for people."""

    priority: str
    title: str
    body: str


def due(
    alarms: Sequence[Told],
    now_unix_s: float,
    min_priority: str,
    repeat_s: Mapping[str, float] = REPEAT_S,
) -> list[Told]:
    """Those of the alarms that people should be told of now, or again."""
    last: dict[tuple[str, str], float] = {}
    for alarm in alarms:
        if alarm.told_unix_s is not None:
            last[alarm.matter] = max(last.get(alarm.matter, alarm.told_unix_s), alarm.told_unix_s)

    def is_due(alarm: Told) -> bool:
        if alarm.state not in WANTS_A_PERSON or _rank(alarm.priority) < _rank(min_priority):
            return False
        # Either way: a clock that was put back keeps nobody silent.
        ago_s = abs(now_unix_s - last.get(alarm.matter, -1e12))
        if alarm.is_new:
            return ago_s >= QUIET_S
        over = alarm.state is AlarmState.RETURNED_UNACKNOWLEDGED
        return not over and ago_s >= repeat_s.get(alarm.priority, float("inf"))

    return [alarm for alarm in alarms if is_due(alarm)]


@dataclass(slots=True)
class Grouping:
    """Waits until those that belong together are there."""

    within_s: float = GROUP_S
    _since_s: dict[tuple[int, int], float] = field(default_factory=dict)

    def ready(self, wanted: Iterable[Told], monotonic_s: float) -> bool:
        """Whether one of ``wanted`` has waited for so long that all of them go out now."""
        keys = {(alarm.alarm_number, alarm.raised) for alarm in wanted}
        self._since_s = {key: self._since_s.get(key, monotonic_s) for key in keys}
        return any(monotonic_s - since_s >= self.within_s for since_s in self._since_s.values())


def text_of(alarms: Sequence[Told]) -> Text:
    """One message for all of ``alarms``, the most urgent first; a line for each matter."""
    matters: dict[tuple[str, str], list[Told]] = {}
    for alarm in sorted(alarms, key=lambda one: (-_rank(one.priority), one.raised)):
        matters.setdefault(alarm.matter, []).append(alarm)
    firsts = [alarms[0] for alarms in matters.values()]
    lines = [_line(alarm, len(matters[alarm.matter]) - 1) for alarm in firsts[:MOST_LINES]]
    if len(firsts) > MOST_LINES:
        lines.append(f"and {len(firsts) - MOST_LINES} more: labctl alarms list")
    again = "" if any(alarm.is_new for alarm in alarms) else ", still not acknowledged"
    first = firsts[0]
    title = f"{len(firsts)} alarms" if len(firsts) > 1 else f"{first.name}, {first.of}"
    return Text(first.priority, f"labctl: {title}{again}", "\n".join(lines))


def _line(alarm: Told, others: int) -> str:
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(alarm.raised_unix_s))
    run = f" ({alarm.about})" if alarm.about not in alarm.of else ""
    state = {
        AlarmState.RETURNED_UNACKNOWLEDGED: " It is over.",
        AlarmState.LATCHED: f" Say what was done: labctl alarms reset {alarm.alarm_number}.",
    }.get(alarm.state, "")
    more = f" And {others} more of this kind." if others else ""
    return (
        f"[{alarm.alarm_number}] {alarm.priority}: {alarm.name}, {alarm.of}{run}, since {at}: "
        f"{alarm.message}.{state}{more}"
    )


def duration_s(name: str, text: str) -> float:
    """A time as it is written in a file, ``"8 h"``, in seconds.

    Raises:
        ValueError: it is none; says which setting it is of.
    """
    try:
        return parse_quantity(text, Kind.DURATION)
    except QuantityError as error:
        raise ValueError(f"{name}: {error}") from error


def backoff_s(attempts: int) -> float:
    """How long to wait after so many attempts that failed."""
    return float(min(10.0 * 2.0 ** min(attempts - 1, 10), 1800.0))


def _rank(priority: str) -> int:
    return RANKS.get(priority, RANKS["medium"])


def _is_http(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [Problem(f"the addresses for notifications cannot be read: {error}", file=path)]
        ) from error
