"""A BTS host on a real socket that says what a BTS 8.0 was recorded to say, byte for byte.

Source of the recordings: tests/mocks.py of aurora-neware (EmpaEconversion, revision d4234f7b);
of the requests: aurora_neware/neware.py there. No document of the vendor is public.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labctl.clock import VirtualClock
from labctl.drivers.base import ChannelState
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.errors import InstrumentError, LinkError

END = b"\n\n#\r\n"
HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\r\n<bts version="1.0">\r\n'
LINE = b'ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="2"'
SAID = {
    b"connect": HEAD + b"  <cmd>connect_resp</cmd>\r\n  <result>ok</result>\r\n</bts>",
    b"getdevinfo": HEAD + b"  <cmd>getdevinfo_resp</cmd>\r\n"
    b'  <serverip count="1">\r\n    <server ip="127.0.0.1" port="3306" />\r\n  </serverip>\r\n'
    b'  <middle count="1">\r\n'
    b'    <channel ip="127.0.0.1" devtype="27" devid="21" subdevid="1" Channelid="2">true'
    b"</channel>\r\n</middle>\r\n</bts>",
    b"getchlstatus": HEAD + b'  <cmd>getchlstatus_resp</cmd>\r\n  <list count="1">\r\n'
    b"    <status " + LINE + b' reservepause="0">working</status>\r\n  </list>\r\n</bts>',
    b"inquire": HEAD + b'  <cmd>inquire_resp</cmd>\r\n  <list count="1">\r\n'
    b'    <inquire dev="27-21-1-2-0" cycle_id="44" step_id="4" step_type="dc"'
    b' workstatus="working" barcode="251203_kigr_gen17_02" current="-0.0003" voltage="4.6947"'
    b' capacity="0.001" energy="0.0047" totaltime="3189199.3" relativetime="12319"'
    b' open_or_close="0" log_code="102000" />\r\n  </list>\r\n</bts>',
    b"inquiredf": HEAD + b'  <cmd>inquiredf_resp</cmd>\r\n  <list count="1">\r\n'
    b'    <chl devtype="27" devid="21" subdevid="1" chlid="2" testid="144" count="320850">false'
    b"</chl>\r\n  </list>\r\n</bts>",
}


class Host:
    def __init__(self) -> None:
        self.port = 0
        self.heard: list[bytes] = []
        self.said = dict(SAID)
        self.end = END


@contextlib.asynccontextmanager
async def recorded() -> AsyncIterator[Host]:
    host = Host()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                request = await reader.readuntil(b"#\r\n")
                host.heard.append(request)
                found = re.search(rb"<cmd>(\w+)</cmd>", request)
                assert found is not None
                writer.write(host.said[found[1]] + host.end)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        await server.wait_closed()


def driver_at(host: Host, folder: Path) -> NewareBts:
    config = NewareConfig(
        host="127.0.0.1", port=host.port, step_file_dir=str(folder), reply_timeout_s=0.5
    )
    return NewareBts(config, name="rack 1", clock=VirtualClock())


async def test_a_recorded_channel_is_seen_as_it_was(tmp_path: Path) -> None:
    async with recorded() as host:
        driver = driver_at(host, tmp_path)
        assert (await driver.open()).serial == "27-21"
        assert await driver.channels() == ("21-1-2",)
        status = await driver.status("21-1-2")
        await driver.close()
    assert status.state is ChannelState.RUNNING
    assert (status.test, status.tag) == ("144", "251203_kigr_gen17_02")
    assert (status.voltage_V, status.current_A) == (4.6947, -0.0003)
    assert host.heard[0] == (
        b'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>connect</cmd>'
        b"<username>admin</username><password>neware</password><type>bfgs</type></bts>\n\n#\r\n"
    )
    assert all(request.endswith(b"</bts>\n\n#\r\n") for request in host.heard)


@pytest.mark.parametrize(
    ("command", "old", "new", "says"),
    [
        (b"inquire", b'voltage="4.6947"', b'voltage="46947"', "the voltage is 46947 V"),
        (b"inquire", b'voltage="4.6947"', b'voltage="-46.947"', "the voltage is -46.947 V"),
        (b"inquire", b'current="-0.0003"', b'current="-3"', "the current is -3 A"),
        (b"inquire", b'voltage="4.6947"', b'voltage="4.69.47"', "which is no number"),
        (b"inquire", b'dev="27-21-1-2-0"', b'dev="27-21-1-3-0"', "not about channel 21-1-2"),
        (b"getchlstatus", b"working", b"w0rking", "no state of a channel"),
        (b"inquiredf", b'testid="144"', b'testid="14_"', "no whole number"),
    ],
)
async def test_a_recording_that_was_damaged_is_refused_with_what_was_said(
    tmp_path: Path, command: bytes, old: bytes, new: bytes, says: str
) -> None:
    async with recorded() as host:
        assert old in host.said[command]
        host.said[command] = host.said[command].replace(old, new)
        driver = driver_at(host, tmp_path)
        await driver.open()
        with pytest.raises(InstrumentError, match=says) as caught:
            await driver.status("21-1-2")
        await driver.close()
    assert caught.value.instrument == "rack 1"
    assert caught.value.command == command.decode()
    assert new.decode() in caught.value.reply


@pytest.mark.parametrize("end", [b"", b"#\r\n", b"\n\n#", b"\r\n#\r\n"])
async def test_an_answer_without_its_end_is_none(tmp_path: Path, end: bytes) -> None:
    """aurora-neware waits until what has come ends with exactly this, and so does labctl."""
    async with recorded() as host:
        host.end = end
        driver = driver_at(host, tmp_path)
        with pytest.raises(LinkError, match="no answer to greeting"):
            await driver.open()
        await driver.close()
