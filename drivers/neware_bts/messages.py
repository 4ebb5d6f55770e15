"""The words of the BTS 8 API: requests as bytes, replies as values. No I/O.

Replies in A, V; a discharging current is negative, as in labctl. The readings of a test are in
:mod:`labctl.drivers.neware_bts.rows`. A reply that cannot be is an InstrumentError, never a value.

No vendor document of the API is public. Sources: aurora-neware (its client, and the replies of a
BTS 8.0 that its tests quote). The list's ``count = "1"`` with spaces is what that client sends. Of
``continue`` and ``goto`` only the names, and the attribute ``step``, are public: their form and
their replies are taken to be those of ``stop``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from labctl.drivers.base import ChannelState
from labctl.drivers.neware_bts.xmltree import Element, XmlError, parse_xml
from labctl.errors import InstrumentError
from labctl.wire.link import Framing

FRAMING = Framing(request_end=b"\n\n#\r\n", reply_end=b"\n\n#\r\n")
DEFAULT_PORT = 502
LATEST_TEST = 0
"""As ``testid`` in a request: the last test on the channel."""

CHANNEL_STATES: dict[str, ChannelState] = {
    "working": ChannelState.RUNNING,
    "stop": ChannelState.STOPPED,
    "finish": ChannelState.FINISHED,
    "protect": ChannelState.TRIPPED,
    "pause": ChannelState.PAUSED,
    "false": ChannelState.UNAVAILABLE,
}

_REPLY_NAMES = {"download": ("donwload_resp", "download_resp")}
_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,20}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Address:
    """One channel, as BTS addresses it; ``str()`` of it is labctl's name of the channel."""

    ip: str
    devtype: int
    devid: int
    subdevid: int
    chlid: int

    def __str__(self) -> str:
        return f"{self.devid}-{self.subdevid}-{self.chlid}"


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What a channel shows now; the numbers are NaN where it is unavailable.

    ``step`` is the number of the step in its file, 0 where none runs.
    """

    state: ChannelState
    barcode: str
    voltage_V: float
    current_A: float
    step: int = 0


@dataclass(frozen=True, slots=True)
class TestSummary:
    """The last test on a channel: its number (0 if none), how many readings, whether complete."""

    __test__ = False

    test: int
    count: int
    complete: bool


class Reply:
    """A reply on its way to a value: knows what was asked, for the error that it may become."""

    def __init__(self, data: bytes, command: str, instrument: str) -> None:
        self.data = data
        self.command = command
        self.instrument = instrument

    def refused(self, message: str) -> InstrumentError:
        who = self.instrument or "BTS"
        return InstrumentError(
            f"{who}: the reply to {self.command}: {message}",
            instrument=self.instrument,
            command=self.command,
            reply=self.data[:2000].decode("utf-8", "backslashreplace"),
        )

    def envelope(self, document: bytes | None = None) -> Element:
        """The ``<bts>`` element of the reply, or of ``document`` in its place."""
        try:
            root = parse_xml(self.data if document is None else document)
            name = root.find("cmd")
        except XmlError as error:
            raise self.refused(str(error)) from error
        expected = _REPLY_NAMES.get(self.command, (f"{self.command}_resp",))
        if root.tag != "bts" or name is None or name.text.strip() not in expected:
            answered = name.text.strip() if name is not None else f"<{root.tag}>"
            raise self.refused(f"is {answered[:60]!r}, not {expected[0]!r}")
        return root

    def one(self, root: Element, tag: str) -> Element:
        found = root.find_all(tag)
        if len(found) != 1:
            raise self.refused(f"has {len(found)} elements <{tag}>, not one")
        return found[0]

    def listed(self, root: Element, tag: str, *, inside: str = "list") -> list[Element]:
        """The elements of the list, whose ``count`` must be right."""
        listing = self.one(root, inside)
        count = self.whole(listing, "count")
        elements = listing.find_all(tag)
        if len(elements) != count or len(listing.children) != count:
            raise self.refused(f"announces {count} <{tag}> and holds {len(listing.children)}")
        return elements

    def attribute(self, element: Element, name: str) -> str:
        try:
            return element.attributes[name].strip()
        except KeyError:
            raise self.refused(f"<{element.tag}> has no {name}") from None

    def whole(self, element: Element, name: str) -> int:
        text = self.attribute(element, name)
        if not _WHOLE.fullmatch(text):
            raise self.refused(f"{name} is {text[:40]!r}, which is no whole number")
        return int(text)

    def number(self, element: Element, name: str) -> float:
        text = self.attribute(element, name)
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            raise self.refused(f"{name} is {text[:40]!r}, which is no number")
        return value

    def check_channel(
        self, element: Element, channel: Address, *, any_subdevice: bool = False
    ) -> None:
        for name, expected in (
            ("devtype", channel.devtype),
            ("devid", channel.devid),
            ("subdevid", channel.subdevid),
            ("chlid", channel.chlid),
        ):
            answered = self.whole(element, name)
            if answered != expected and not (name == "subdevid" and any_subdevice):
                raise self.refused(
                    f"is about another channel than {channel}: its {name} is {answered}"
                )


def connect_request(username: str, password: str) -> bytes:
    return _request(
        "connect",
        f"<username>{escape(username)}</username><password>{escape(password)}</password>"
        "<type>bfgs</type>",
    )


def devinfo_request() -> bytes:
    return _request("getdevinfo", "")


def status_request(channels: Sequence[Address]) -> bytes:
    return _request(
        "getchlstatus",
        _list(f"<status {_with_ip(channel)}>true</status>" for channel in channels),
    )


def inquire_request(channels: Sequence[Address]) -> bytes:
    return _request(
        "inquire",
        _list(
            f'<inquire {_with_ip(channel)} aux="0" barcode="1">true</inquire>'
            for channel in channels
        ),
    )


def inquiredf_request(channels: Sequence[Address]) -> bytes:
    return _request(
        "inquiredf",
        _list(f'<chl {_without_ip(channel)} testid="{LATEST_TEST}" />' for channel in channels),
    )


def download_request(channel: Address, start: int, count: int) -> bytes:
    """Readings ``start`` to ``start + count - 1`` of the last test, at most 1000 of them."""
    return _request(
        "download",
        f'<download {_without_ip(channel)} auxid="0" testid="{LATEST_TEST}"'
        f' startpos="{start}" count="{count}"/>',
    )


def start_request(channel: Address, step_file: str, barcode: str, backup_dir: str) -> bytes:
    """``step_file`` and ``backup_dir`` are paths as the BTS host sees them."""
    head = f'<start {_with_ip(channel)} barcode="{_escaped(barcode)}">'
    return _request(
        "start",
        _list(
            [f"{head}{escape(step_file)}</start>"],
            extra=f'<backup backupdir="{_escaped(backup_dir)}" remotedir="" filenametype="0"'
            ' customfilename="" addtimewhenrepeat="0" createdirbydate="0" filetype="0"'
            ' backupontime="1" backupontimeinterval="720" backupfree="1" />',
        ),
    )


def stop_request(channel: Address) -> bytes:
    return _request("stop", _list([f"<stop {_with_ip(channel)}>true</stop>"]))


def continue_request(channel: Address) -> bytes:
    return _request("continue", _list([f"<continue {_with_ip(channel)}>true</continue>"]))


def goto_request(channel: Address, step: int) -> bytes:
    """``step`` is the number of a step in the channel's file."""
    return _request("goto", _list([f'<goto {_with_ip(channel)} step="{step}">true</goto>']))


def read_connect(data: bytes, *, instrument: str = "") -> None:
    """
    Raises:
        InstrumentError: the login was refused.
    """
    reply = Reply(data, "connect", instrument)
    result = reply.one(reply.envelope(), "result").text.strip()
    if result != "ok":
        raise reply.refused(f"the login was refused ({result[:60]!r}): check name and password")


def read_devinfo(data: bytes, *, instrument: str = "") -> tuple[Address, ...]:
    """Every channel of the host, in its order; at least one, and no two of the same name."""
    reply = Reply(data, "getdevinfo", instrument)
    channels = tuple(
        Address(
            ip=reply.attribute(element, "ip"),
            devtype=reply.whole(element, "devtype"),
            devid=reply.whole(element, "devid"),
            subdevid=reply.whole(element, "subdevid"),
            chlid=reply.whole(element, "Channelid"),
        )
        for element in reply.listed(reply.envelope(), "channel", inside="middle")
    )
    if not channels:
        raise reply.refused("lists no channel: check in BTS Client that the units are connected")
    names = [str(channel) for channel in channels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise reply.refused(f"lists two channels of the same name: {', '.join(twice)}")
    return channels


def read_status(
    data: bytes, channels: Sequence[Address], *, instrument: str = ""
) -> tuple[ChannelState, ...]:
    """The state of each channel, in the order asked.

    BTS answers ``subdevid="1"`` for channels of other subdevices now and then; that is let pass.
    """
    reply = Reply(data, "getchlstatus", instrument)
    elements = _one_each(reply, "status", channels)
    for element, channel in zip(elements, channels, strict=True):
        reply.check_channel(element, channel, any_subdevice=True)
    return tuple(_state(reply, element.text) for element in elements)


def read_inquire(
    data: bytes, channels: Sequence[Address], *, instrument: str = ""
) -> tuple[Inquiry, ...]:
    """What each channel shows, in the order asked."""
    reply = Reply(data, "inquire", instrument)
    inquiries = []
    for element, channel in zip(_one_each(reply, "inquire", channels), channels, strict=True):
        asked = f"{channel.devtype}-{channel.devid}-{channel.subdevid}-{channel.chlid}-"
        answered = reply.attribute(element, "dev")
        if not answered.startswith(asked):
            raise reply.refused(f"is about {answered[:60]!r}, not about channel {channel}")
        state = _state(reply, reply.attribute(element, "workstatus"))
        there = state is not ChannelState.UNAVAILABLE
        has_step = "step_id" in element.attributes
        inquiries.append(
            Inquiry(
                state=state,
                barcode=element.attributes.get("barcode", ""),
                voltage_V=reply.number(element, "voltage") if there else math.nan,
                current_A=reply.number(element, "current") if there else math.nan,
                step=reply.whole(element, "step_id") if there and has_step else 0,
            )
        )
    return tuple(inquiries)


def read_inquiredf(
    data: bytes, channels: Sequence[Address], *, instrument: str = ""
) -> tuple[TestSummary, ...]:
    """The last test of each channel, in the order asked."""
    reply = Reply(data, "inquiredf", instrument)
    summaries = []
    for element, channel in zip(_one_each(reply, "chl", channels), channels, strict=True):
        reply.check_channel(element, channel)
        summaries.append(
            TestSummary(
                test=reply.whole(element, "testid"),
                count=reply.whole(element, "count"),
                complete=_boolean(reply, element.text, true="true"),
            )
        )
    return tuple(summaries)


def read_start(data: bytes, channel: Address, *, instrument: str = "") -> bool:
    """Whether BTS says that the channel was started."""
    return _read_done(Reply(data, "start", instrument), channel)


def read_stop(data: bytes, channel: Address, *, instrument: str = "") -> bool:
    """Whether BTS says that the channel was stopped; not so where there was nothing to stop."""
    return _read_done(Reply(data, "stop", instrument), channel)


def read_continue(data: bytes, channel: Address, *, instrument: str = "") -> bool:
    """Whether BTS says that the channel goes on; not so where there was nothing to go on with."""
    return _read_done(Reply(data, "continue", instrument), channel)


def read_goto(data: bytes, channel: Address, *, instrument: str = "") -> bool:
    """Whether BTS says that the channel has left its step for another one."""
    return _read_done(Reply(data, "goto", instrument), channel)


def _read_done(reply: Reply, channel: Address) -> bool:
    (element,) = _one_each(reply, reply.command, [channel])
    reply.check_channel(element, channel)
    return _boolean(reply, element.text, true="ok")


def _one_each(reply: Reply, tag: str, channels: Sequence[Address]) -> list[Element]:
    elements = reply.listed(reply.envelope(), tag)
    if len(elements) != len(channels):
        raise reply.refused(f"is about {len(elements)} channels, not {len(channels)}")
    return elements


def _state(reply: Reply, word: str) -> ChannelState:
    state = CHANNEL_STATES.get(word.strip())
    if state is None:
        raise reply.refused(f"{word.strip()[:60]!r} is no state of a channel")
    return state


def _boolean(reply: Reply, text: str, *, true: str) -> bool:
    text = text.strip()
    if text not in {true, "false"}:
        raise reply.refused(f"{text[:60]!r} is neither {true!r} nor 'false'")
    return text == true


def _request(command: str, content: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0">'
        f"<cmd>{command}</cmd>{content}</bts>"
    ).encode()


def _list(elements: Iterable[str], *, extra: str = "") -> str:
    items = list(elements)
    return f'<list count = "{len(items)}">{"".join(items)}{extra}</list>'


def _with_ip(channel: Address) -> str:
    return f'ip="{_escaped(channel.ip)}" {_without_ip(channel)}'


def _without_ip(channel: Address) -> str:
    return (
        f'devtype="{channel.devtype}" devid="{channel.devid}"'
        f' subdevid="{channel.subdevid}" chlid="{channel.chlid}"'
    )


def _escaped(text: str) -> str:
    return escape(text, {'"': "&quot;"})
