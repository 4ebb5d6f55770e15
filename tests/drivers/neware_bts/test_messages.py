"""Replies are those that a BTS 8.0 gave, quoted in full; requests are what is known to work."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.base import ChannelState
from labctl.drivers.neware_bts import messages
from labctl.drivers.neware_bts.messages import Address, Inquiry, TestSummary
from labctl.errors import InstrumentError

C1 = Address("127.0.0.1", 27, 21, 1, 1)
C2 = Address("127.0.0.1", 27, 21, 1, 2)
C5 = Address("127.0.0.1", 27, 21, 2, 5)

CONNECTED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
    b'<bts version="1.0">\r\n'
    b"  <cmd>connect_resp</cmd>\r\n"
    b"  <result>ok</result>\r\n"
    b"</bts>"
)
DEVINFO = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n<bts version="1.0">\r\n'
    b'  <cmd>getdevinfo_resp</cmd>\r\n  <serverip count="1">\r\n'
    b'    <server ip="127.0.0.1" port="3306" />\r\n  </serverip>\r\n'
    b'  <middle count="3">\r\n'
    b'    <channel ip="127.0.0.1" devtype="27" devid="21" subdevid="1" Channelid="1">true</channel>'
    b"\r\n"
    b'    <channel ip="127.0.0.1" devtype="27" devid="21" subdevid="1" Channelid="2">false'
    b"</channel>\r\n"
    b'    <channel ip="127.0.0.1" devtype="27" devid="21" subdevid="2" Channelid="5">false'
    b"</channel>\r\n"
    b"</middle>\r\n</bts>"
)
NO_DEVICES = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n<bts version="1.0">\r\n'
    b'  <cmd>getdevinfo_resp</cmd>\r\n  <serverip count="1">\r\n'
    b'    <server ip="127.0.0.1" port="3306" />\r\n  </serverip>\r\n'
    b'  <middle count="0">\r\n'
    b"</middle>\r\n</bts>"
)
STATUS = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
    b'<bts version="1.0">\r\n'
    b"  <cmd>getchlstatus_resp</cmd>\r\n"
    b'  <list count="3">\r\n'
    b'    <status ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1" reservepause="1">'
    b"finish</status>\r\n"
    b'    <status ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="2" reservepause="1">'
    b"working</status>\r\n"
    b'    <status ip="127.0.0.1" devtype="27" devid="21" subdevid="2" chlid="5" reservepause="1">'
    b"working</status>\r\n"
    b"  </list>\r\n"
    b"</bts>"
)
INQUIRE = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
    b'<bts version="1.0">\r\n'
    b"  <cmd>inquire_resp</cmd>\r\n"
    b'  <list count="3">\r\n'
    b'    <inquire dev="27-21-1-1-0" cycle_id="1" step_type="--" workstatus="finish"'
    b' barcode="251203_kigr_gen17_01" current="0" voltage="3.8834" capacity="0" energy="0"'
    b' totaltime="0" relativetime="0" open_or_close="0" log_code="0" />\r\n'
    b'    <inquire dev="27-21-1-2-0" cycle_id="44" step_id="4" step_type="dc" workstatus="working"'
    b' barcode="251203_kigr_gen17_02" current="-0.0003" voltage="4.6947" capacity="0.001"'
    b' energy="0.0047" totaltime="3189199.3" relativetime="12319" open_or_close="0"'
    b' log_code="102000" />\r\n'
    b'    <inquire dev="27-21-2-5-0" cycle_id="597" step_id="11" step_type="dc"'
    b' workstatus="working" barcode="251121_kigr_gen15_01" current="-0.0015" voltage="3.5832"'
    b' capacity="0.0006" energy="0.0022" totaltime="4232943" relativetime="1388.2"'
    b' open_or_close="0" log_code="102000" />\r\n'
    b"  </list>\r\n"
    b"</bts>"
)
INQUIREDF = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
    b'<bts version="1.0">\r\n'
    b"  <cmd>inquiredf_resp</cmd>\r\n"
    b'  <list count="3">\r\n'
    b'    <chl devtype="27" devid="21" subdevid="1" chlid="1" testid="143" count="219585">true'
    b"</chl>\r\n"
    b'    <chl devtype="27" devid="21" subdevid="1" chlid="2" testid="144" count="320850">false'
    b"</chl>\r\n"
    b'    <chl devtype="27" devid="21" subdevid="2" chlid="5" testid="106" count="469912">false'
    b"</chl>\r\n"
    b"  </list>\r\n"
    b"</bts>"
)
STARTED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
    b'<bts version="1.0">\r\n'
    b"  <cmd>start_resp</cmd>\r\n"
    b'  <list count="1">\r\n'
    b'    <start ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1">ok</start>\r\n'
    b"  </list>\r\n"
    b"</bts>"
)
NOT_STOPPED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
    b'<bts version="1.0">\r\n'
    b"  <cmd>stop_resp</cmd>\r\n"
    b'  <list count="1">\r\n'
    b'    <stop ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1">false</stop>\r\n'
    b"  </list>\r\n"
    b"</bts>"
)

CHANNELS = [C1, C2, C5]


def test_a_login_is_asked_for_as_bts_wants_it() -> None:
    assert messages.connect_request("admin", "neware") == (
        b'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>connect</cmd>'
        b"<username>admin</username><password>neware</password><type>bfgs</type></bts>"
    )


def test_requests_name_their_channels() -> None:
    head = b'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0">'
    assert messages.devinfo_request() == head + b"<cmd>getdevinfo</cmd></bts>"
    assert messages.status_request([C1, C5]) == (
        head + b'<cmd>getchlstatus</cmd><list count = "2">'
        b'<status ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1">true</status>'
        b'<status ip="127.0.0.1" devtype="27" devid="21" subdevid="2" chlid="5">true</status>'
        b"</list></bts>"
    )
    assert messages.inquire_request([C1]) == (
        head + b'<cmd>inquire</cmd><list count = "1">'
        b'<inquire ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1" aux="0"'
        b' barcode="1">true</inquire></list></bts>'
    )
    assert messages.inquiredf_request([C1]) == (
        head + b'<cmd>inquiredf</cmd><list count = "1">'
        b'<chl devtype="27" devid="21" subdevid="1" chlid="1" testid="0" /></list></bts>'
    )
    assert messages.download_request(C1, 219576, 1000) == (
        head + b'<cmd>download</cmd><download devtype="27" devid="21" subdevid="1" chlid="1"'
        b' auxid="0" testid="0" startpos="219576" count="1000"/></bts>'
    )
    assert messages.continue_request(C1) == (
        b'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>continue</cmd>'
        b'<list count = "1"><continue ip="127.0.0.1" devtype="27" devid="21" subdevid="1"'
        b' chlid="1">true</continue></list></bts>'
    )
    assert messages.goto_request(C1, 7) == (
        b'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>goto</cmd>'
        b'<list count = "1"><goto ip="127.0.0.1" devtype="27" devid="21" subdevid="1"'
        b' chlid="1" step="7">true</goto></list></bts>'
    )
    assert messages.stop_request(C1) == (
        head + b'<cmd>stop</cmd><list count = "1"><stop ip="127.0.0.1" devtype="27" devid="21"'
        b' subdevid="1" chlid="1">true</stop></list></bts>'
    )


def test_a_start_names_the_step_file_and_the_barcode_and_escapes_them() -> None:
    request = messages.start_request(C1, "D:\\a & b\\run.xml", 'run "1"', "D:\\data")
    assert request == (
        b'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>start</cmd>'
        b'<list count = "1"><start ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1"'
        b' barcode="run &quot;1&quot;">D:\\a &amp; b\\run.xml</start>'
        b'<backup backupdir="D:\\data" remotedir="" filenametype="0" customfilename=""'
        b' addtimewhenrepeat="0" createdirbydate="0" filetype="0" backupontime="1"'
        b' backupontimeinterval="720" backupfree="1" /></list></bts>'
    )


def test_the_captured_replies_are_understood() -> None:
    messages.read_connect(CONNECTED)
    assert messages.read_devinfo(DEVINFO) == (C1, C2, C5)
    assert [str(channel) for channel in messages.read_devinfo(DEVINFO)] == [
        "21-1-1",
        "21-1-2",
        "21-2-5",
    ]
    assert messages.read_status(STATUS, CHANNELS) == (
        ChannelState.FINISHED,
        ChannelState.RUNNING,
        ChannelState.RUNNING,
    )
    assert messages.read_inquire(INQUIRE, CHANNELS) == (
        Inquiry(ChannelState.FINISHED, "251203_kigr_gen17_01", 3.8834, 0.0),
        Inquiry(ChannelState.RUNNING, "251203_kigr_gen17_02", 4.6947, -0.0003, 4),
        Inquiry(ChannelState.RUNNING, "251121_kigr_gen15_01", 3.5832, -0.0015, 11),
    )
    assert messages.read_inquiredf(INQUIREDF, CHANNELS) == (
        TestSummary(143, 219585, complete=True),
        TestSummary(144, 320850, complete=False),
        TestSummary(106, 469912, complete=False),
    )
    assert messages.read_start(STARTED, C1) is True
    assert messages.read_stop(NOT_STOPPED, C1) is False


@pytest.mark.parametrize(
    ("word", "state"),
    [
        (b"working", ChannelState.RUNNING),
        (b"stop", ChannelState.STOPPED),
        (b"finish", ChannelState.FINISHED),
        (b"protect", ChannelState.TRIPPED),
        (b"pause", ChannelState.PAUSED),
        (b"false", ChannelState.UNAVAILABLE),
    ],
)
def test_every_state_of_a_channel_has_its_word(word: bytes, state: ChannelState) -> None:
    assert messages.read_status(STATUS.replace(b"finish", word), CHANNELS)[0] is state


def test_a_status_with_the_wrong_subdevice_is_let_pass_because_bts_does_that() -> None:
    reply = STATUS.replace(b'subdevid="2"', b'subdevid="1"')
    assert messages.read_status(reply, CHANNELS)[2] is ChannelState.RUNNING


def test_a_channel_that_is_unavailable_shows_no_numbers() -> None:
    reply = INQUIRE.replace(b'workstatus="finish"', b'workstatus="false"').replace(
        b'voltage="3.8834"', b'voltage="--"'
    )
    inquiry = messages.read_inquire(reply, CHANNELS)[0]
    assert inquiry.state is ChannelState.UNAVAILABLE
    assert math.isnan(inquiry.voltage_V)


@pytest.mark.parametrize(
    ("word", "read"), [(b"continue", messages.read_continue), (b"goto", messages.read_goto)]
)
@pytest.mark.parametrize(("said", "meant"), [(b"ok", True), (b"false", False)])
def test_going_on_and_going_elsewhere_are_answered_as_a_stop_is(
    word: bytes, read: Callable[[bytes, Address], bool], said: bytes, meant: bool
) -> None:
    reply = NOT_STOPPED.replace(b"stop", word).replace(b">false<", b">" + said + b"<")
    assert read(reply, C1) is meant
    with pytest.raises(InstrumentError, match="about another channel"):
        read(reply, C2)


def refused(reply: bytes, old: bytes, new: bytes) -> bytes:
    assert old in reply
    return reply.replace(old, new)


def test_an_error_names_the_instrument_the_command_and_the_reply() -> None:
    with pytest.raises(InstrumentError) as caught:
        messages.read_start(refused(STARTED, b">ok<", b">maybe<"), C1, instrument="rack 1")
    assert caught.value.instrument == "rack 1"
    assert caught.value.command == "start"
    assert ">maybe<" in caught.value.reply
    assert str(caught.value) == ("rack 1: the reply to start: 'maybe' is neither 'ok' nor 'false'")


def test_a_refused_login_is_an_error() -> None:
    with pytest.raises(InstrumentError, match="login was refused"):
        messages.read_connect(CONNECTED.replace(b"ok", b"false"))


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (NO_DEVICES, "lists no channel"),
        (refused(DEVINFO, b'count="3"', b'count="16"'), "announces 16 <channel> and holds 3"),
        (refused(DEVINFO, b'Channelid="2"', b'Channelid="1"'), "same name: 21-1-1"),
        (refused(DEVINFO, b'devid="21"', b'devid="x"'), "which is no whole number"),
        (refused(DEVINFO, b"getdevinfo_resp", b"connect_resp"), "is 'connect_resp'"),
        (DEVINFO[:-10], "not XML"),
        (b"", "not XML"),
        (b"\xff\xfe\xff", "byte 0 is not"),
        (b'<!DOCTYPE bts SYSTEM "file:///etc/passwd"><bts/>', "document type"),
    ],
)
def test_a_list_of_channels_that_cannot_be_is_refused(reply: bytes, says: str) -> None:
    with pytest.raises(InstrumentError, match=says):
        messages.read_devinfo(reply)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b">finish<", b">dancing<", "'dancing' is no state"),
        (b'chlid="1"', b'chlid="3"', "about another channel than 21-1-1: its chlid is 3"),
        (b'devid="21" subdevid="1" chlid="1"', b'devid="22" subdevid="1" chlid="1"', "devid is 22"),
        (b'count="3"', b'count="2"', "announces 2"),
        (b' chlid="1"', b"", "has no chlid"),
    ],
)
def test_a_status_that_cannot_be_is_refused(old: bytes, new: bytes, says: str) -> None:
    with pytest.raises(InstrumentError, match=says):
        messages.read_status(refused(STATUS, old, new), CHANNELS)


def test_a_reply_about_fewer_channels_than_asked_is_refused() -> None:
    with pytest.raises(InstrumentError, match="about 3 channels, not 2"):
        messages.read_status(STATUS, [C1, C2])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'voltage="3.8834"', b'voltage="nan"', "voltage is 'nan', which is no number"),
        (b'voltage="3.8834"', b'voltage="1e999"', "which is no number"),
        (b'voltage="3.8834"', b'voltage="--"', "which is no number"),
        (b' voltage="3.8834"', b"", "has no voltage"),
        (b'current="-0.0003"', b'current=""', "which is no number"),
        (b'dev="27-21-1-1-0"', b'dev="27-21-1-10-0"', "not about channel 21-1-1"),
        (b'workstatus="finish"', b'workstatus="ok"', "is no state"),
        (b'step_id="4"', b'step_id="--"', "step_id is '--', which is no whole number"),
    ],
)
def test_an_inquiry_that_cannot_be_is_refused(old: bytes, new: bytes, says: str) -> None:
    with pytest.raises(InstrumentError, match=says):
        messages.read_inquire(refused(INQUIRE, old, new), CHANNELS)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'testid="143"', b'testid="-1"', "no whole number"),
        (b'count="219585"', b'count="2e5"', "no whole number"),
        (b">true<", b">yes<", "neither 'true' nor 'false'"),
        (b'subdevid="2"', b'subdevid="1"', "about another channel"),
    ],
)
def test_a_summary_that_cannot_be_is_refused(old: bytes, new: bytes, says: str) -> None:
    with pytest.raises(InstrumentError, match=says):
        messages.read_inquiredf(refused(INQUIREDF, old, new), CHANNELS)


@given(
    st.sampled_from([CONNECTED, DEVINFO, STATUS, INQUIRE, INQUIREDF, STARTED, NOT_STOPPED]),
    st.binary(max_size=30) | st.sampled_from([b"<", b"nan", b'"', b"</list>", b"&a;", b"-", b"1"]),
    st.integers(0, 1200),
    st.integers(0, 40),
)
def test_a_damaged_reply_is_understood_or_refused_but_nothing_else(
    reply: bytes, damage: bytes, start: int, length: int
) -> None:
    data = reply[:start] + damage + reply[start + length :]
    with contextlib.suppress(InstrumentError):
        messages.read_connect(data)
    with contextlib.suppress(InstrumentError):
        messages.read_devinfo(data)
    with contextlib.suppress(InstrumentError):
        messages.read_status(data, CHANNELS)
    with contextlib.suppress(InstrumentError):
        for inquiry in messages.read_inquire(data, CHANNELS):
            assert inquiry.state is ChannelState.UNAVAILABLE or math.isfinite(inquiry.voltage_V)
    with contextlib.suppress(InstrumentError):
        messages.read_inquiredf(data, CHANNELS)
    with contextlib.suppress(InstrumentError):
        messages.read_start(data, C1)
    for read in (messages.read_stop, messages.read_continue, messages.read_goto):
        with contextlib.suppress(InstrumentError):
            read(data, C1)
