"""Every topic of the stream and what is said on it, in one place.

| topic | from | QoS, retained | payload |
|---|---|---|---|
| ``labctl/v1/{node}/batch`` | node | 1, no | a batch as the journal keeps it, or several |
| ``labctl/v1/{node}/ack`` | archive | 1, yes | :class:`Ack` |
| ``labctl/v1/{node}/state`` | node (birth, will) | 1, yes | :class:`NodeState` |
| ``labctl/v1/{node}/channel/{channel}/latest`` | node | 0, yes | :class:`ChannelLatest` |
| ``labctl/v1/{node}/marker/{run}/{marker}`` | node | 1, no | :class:`Marker` |
| ``labctl/v1/{node}/signal/{name}`` | anyone, to the node | 1, no | :class:`Signal`, or nothing |
| ``labctl/v1/{node}/run/{run}/cycle`` | archive | 1, yes | :class:`CycleSummary` |
| ``labctl/v1/{node}/alarm/{run}/{rule}`` | archive | 1, yes | :class:`AlarmState` |
| ``labctl/v1/{node}/node-alarm/{rule}`` | archive | 1, yes | :class:`AlarmState` |
| ``labctl/v1/archive/{archive}/state`` | archive (birth, will) | 1, yes | :class:`ArchiveState` |

Everything but the batch is JSON, for people and for other programs. A number that is not known is
``null``. Fields may be added within ``v1``; unknown ones are passed over.

Markers and signals are what another instrument, a diffractometer say, is driven by and answers
with. Neither is retained: what was said before somebody listened would start them at the wrong
time, so a signal that is retained all the same is not to be heeded.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, TypeVar

import msgspec

from labctl.errors import StreamError

ROOT = "labctl/v1"
ARCHIVE = "archive"
LONGEST_NAME_B = 64
LARGEST_JSON_B = 256 * 1024
MOST_ACK_RANGES = 1000

ALL_BATCHES = f"{ROOT}/+/batch"
ALL_NODE_STATES = f"{ROOT}/+/state"
ALL_LATEST = f"{ROOT}/+/channel/+/latest"
ALL_CYCLES = f"{ROOT}/+/run/+/cycle"
ALL_ALARMS = f"{ROOT}/+/alarm/+/+"
ALL_NODE_ALARMS = f"{ROOT}/+/node-alarm/+"
ALL_MARKERS = f"{ROOT}/+/marker/+/+"
ALL_ARCHIVE_STATES = f"{ROOT}/{ARCHIVE}/+/state"


def check_name(name: str, what: str = "name") -> str:
    """``name`` if it can stand in a topic as one level.

    Raises:
        StreamError: empty, longer than 64 bytes of UTF-8, begins or ends with a blank, begins with
            ``$``, or has one of ``+ # /`` or a control character in it.
    """
    if not name:
        raise StreamError(f"a {what} in a topic must not be empty")
    bad = sorted({sign for sign in name if sign in "+#/" or not sign.isprintable()})
    if bad:
        raise StreamError(
            f"{what} {name!r} cannot stand in a topic because of {' '.join(map(repr, bad))}; "
            "use letters, digits, '-', '_' and '.'"
        )
    if name != name.strip() or name.startswith("$"):
        raise StreamError(f"{what} {name!r} must not begin with '$' or begin or end with a blank")
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > LONGEST_NAME_B:
        raise StreamError(f"{what} {name!r} is {size} bytes long, at most {LONGEST_NAME_B} fit")
    return name


def check_node(node: str) -> str:
    """``node`` if it can be the name of a node: a name in a topic other than ``archive``.

    Raises:
        StreamError: it cannot.
    """
    if node == ARCHIVE:
        raise StreamError(
            f"a node cannot be called {ARCHIVE!r}: archives announce themselves there"
        )
    return check_name(node, "node")


def batch_topic(node: str) -> str:
    """Where a node publishes the batches of its journal."""
    return f"{ROOT}/{check_node(node)}/batch"


def ack_topic(node: str) -> str:
    """Where archives say what they have committed of a node's batches."""
    return f"{ROOT}/{check_node(node)}/ack"


def node_state_topic(node: str) -> str:
    """Where a node announces itself, and its last will says that it is gone."""
    return f"{ROOT}/{check_node(node)}/state"


def latest_topic(node: str, channel: str) -> str:
    """The latest reading of one channel."""
    return f"{ROOT}/{check_node(node)}/channel/{check_name(channel, 'channel')}/latest"


def cycle_topic(node: str, run: str) -> str:
    """The summary of the latest cycle of a run."""
    return f"{ROOT}/{check_node(node)}/run/{check_name(run, 'run')}/cycle"


def alarm_topic(node: str, run: str, rule: str) -> str:
    """The state of one alarm of one run."""
    return f"{ROOT}/{check_node(node)}/alarm/{check_name(run, 'run')}/{check_name(rule, 'rule')}"


def node_alarm_topic(node: str, rule: str) -> str:
    """The state of one alarm about a node itself."""
    return f"{ROOT}/{check_node(node)}/node-alarm/{check_name(rule, 'rule')}"


def marker_topic(node: str, run: str, marker: str) -> str:
    """Where a node tells of one kind of marker of a run."""
    return (
        f"{ROOT}/{check_node(node)}/marker/{check_name(run, 'run')}/{check_name(marker, 'marker')}"
    )


def signal_topic(node: str, name: str) -> str:
    """Where a signal is sent to the runs of a node that wait for it."""
    return f"{ROOT}/{check_node(node)}/signal/{check_name(name, 'signal')}"


def all_signals(node: str) -> str:
    """A subscription to every signal that is sent to a node."""
    return f"{ROOT}/{check_node(node)}/signal/+"


def archive_state_topic(archive: str) -> str:
    """Where an archive announces itself, and its last will says that it is gone."""
    return f"{ROOT}/{ARCHIVE}/{check_name(archive, 'archive')}/state"


def shared_batches(group: str) -> str:
    """A subscription that several archives share: each batch goes to one of them (MQTT 5)."""
    return f"$share/{check_name(group, 'share')}/{ALL_BATCHES}"


def is_archive_state(topic: str) -> bool:
    """Whether an archive announces itself on this topic."""
    return topic.startswith(f"{ROOT}/{ARCHIVE}/") and topic.endswith("/state")


def node_of(topic: str) -> str:
    """The node in a topic of a node.

    Raises:
        StreamError: the topic is not one of a node.
    """
    levels = topic.removeprefix(f"{ROOT}/").split("/")
    if not topic.startswith(f"{ROOT}/") or len(levels) < 2 or levels[0] == ARCHIVE:
        raise StreamError(f"topic {topic!r} is not the topic of a node")
    return check_name(levels[0], "node")


def is_node_state(topic: str) -> bool:
    """Whether a node announces itself on this topic."""
    levels = topic.removeprefix(f"{ROOT}/").split("/")
    return topic.startswith(f"{ROOT}/") and len(levels) == 2 and levels[1] == "state"


def is_signal(node: str, topic: str) -> bool:
    """Whether a signal is sent to ``node`` on this topic."""
    return topic.startswith(f"{ROOT}/{node}/signal/")


def signal_of(topic: str) -> str:
    """The name of the signal in a topic on which one is sent.

    Raises:
        StreamError: the topic is not one of a signal.
    """
    node = node_of(topic)
    before = f"{ROOT}/{node}/signal/"
    if not topic.startswith(before):
        raise StreamError(f"topic {topic!r} is not the topic of a signal")
    return check_name(topic.removeprefix(before), "signal")


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive has committed of the batches of one journal.

    source: names the journal, as in the batches.
    watermark: every batch up to this number is committed; 0 if none.
    ranges: further committed batches, first to last number of each piece, ascending, all above
        the watermark and not touching one another.
    """

    source: str
    watermark: int
    ranges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.watermark < 0:
            raise ValueError(f"watermark must not be below 0, it is {self.watermark}")
        if len(self.ranges) > MOST_ACK_RANGES:
            raise ValueError(f"an ack has at most {MOST_ACK_RANGES} ranges, not {len(self.ranges)}")
        end = self.watermark
        for first, last in self.ranges:
            if first <= end + 1 or last < first:
                raise ValueError(f"range {first} to {last} does not follow {end}")
            end = last

    def covers(self, number: int) -> bool:
        """Whether the batch of this number is committed."""
        return number <= self.watermark or any(
            first <= number <= last for first, last in self.ranges
        )


def ack_of(source: str, numbers: list[int], watermark: int = 0) -> Ack:
    """An Ack of everything up to ``watermark`` and of ``numbers``, in any order.

    Pieces beyond what one Ack holds are left out: they are said in a later one.
    """
    ranges: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if number <= watermark + 1:
            watermark = max(watermark, number)
        elif ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return Ack(source=source, watermark=watermark, ranges=tuple(ranges[:MOST_ACK_RANGES]))


Presence = Literal["online", "offline"]


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """A node came or went. ``source`` names its journal.

    orderly: it was told to end and says so itself; otherwise its last will says that it is gone.
    """

    node: str
    state: Presence
    source: str
    unix_time_s: float
    labctl_version: str
    orderly: bool = False


class ArchiveState(msgspec.Struct, frozen=True, kw_only=True):
    """An archive came or went."""

    archive: str
    state: Presence
    unix_time_s: float
    labctl_version: str


class ChannelLatest(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel does now; ``run`` is '' when it is free."""

    instrument: str
    channel: str
    run: str
    state: str
    cell: str
    cycle: int
    step: int
    label: str
    unix_time_s: float
    voltage_V: float | None
    current_A: float | None
    charge_Ah: float | None
    temperature_degC: float | None = None


class CycleSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One cycle, as the archive reckoned it. Fractions are of one, not per cent."""

    run: str
    cell: str
    cycle: int
    cycle_class: str
    complete: bool
    interrupted: bool
    charge_mAh_g: float | None
    discharge_mAh_g: float | None
    coulombic_efficiency: float | None
    retention: float | None
    mean_charge_V: float | None
    mean_discharge_V: float | None
    unix_time_s: float


class AlarmState(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm; ``state`` and ``priority`` are words from labctl.alarms.

    run: '' where the alarm is about the node.
    active: whether the condition holds now, also of an alarm that is set aside.
    number: of the alarm, as the archive counts; for 'labctl alarms'.
    shelved_until_unix_s: when a shelved alarm comes back by itself.
    aside_actor, aside_reason: who set it aside, and why.
    """

    run: str
    rule: str
    cell: str
    state: str
    priority: str
    message: str
    value: float | None
    limit: float | None
    unit: str
    unix_time_s: float
    active: bool | None = None
    number: int = 0
    node: str = ""
    shelved_until_unix_s: float | None = None
    aside_actor: str = ""
    aside_reason: str = ""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """A run set a marker, or took a signal: see :class:`labctl.stream.events.MarkerSet`.

    After a crash it may be told again; ``run`` and ``visit`` say that it is the same one.
    """

    run: str
    marker: str
    direction: str
    visit: int
    seq: int
    cycle: int
    test_time_s: float | None
    unix_time_s: float
    actor: str = ""


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """A signal for the runs that wait for it: for ``run``, or for every one that waits if that is
    ''. ``actor`` says who sends it."""

    run: str = ""
    actor: str = ""


Message: TypeAlias = (
    Ack | NodeState | ArchiveState | ChannelLatest | CycleSummary | AlarmState | Marker | Signal
)
"""Whatever is said in JSON."""

Said = TypeVar("Said", bound=Message)


def encode(message: Message) -> bytes:
    """The JSON of a message; NaN and infinities become ``null``."""
    return msgspec.json.encode(message)


def decode(payload: bytes, kind: type[Said]) -> Said:
    """The message in a JSON payload.

    Raises:
        StreamError: too large, not JSON, or not a message of this kind.
    """
    if len(payload) > LARGEST_JSON_B:
        raise StreamError(
            f"a {kind.__name__} of {len(payload)} bytes is larger than {LARGEST_JSON_B}"
        )
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise StreamError(f"this is not a {kind.__name__}: {error}") from error


def decode_signal(payload: bytes) -> Signal:
    """The signal in a payload; nothing at all is a signal for every run that waits for it.

    Raises:
        StreamError: too large, or neither empty nor a signal.
    """
    return decode(payload, Signal) if payload else Signal()
