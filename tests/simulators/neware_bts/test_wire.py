"""What the rack says, against responses captured from BTS Client 8.0, byte for byte."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_rack import Client, download, key, linear_rack, saved, step, step_file

from labctl.drivers.neware_bts.stepfile import StepType
from labctl.simulators.neware_bts.wire import (
    MAX_REQUEST_BYTES,
    WireError,
    element,
    listed,
    parse_request,
    response,
    short,
)

REST = step_file(step(1, StepType.REST, time_s=25.0))


async def test_connect_is_answered_as_the_real_rack_answers() -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        answer = await client.ask(
            "<cmd>connect</cmd><username>admin</username><password>neware</password>"
            "<type>bfgs</type>"
        )
    assert answer == (
        b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
        b'<bts version="1.0">\r\n'
        b"  <cmd>connect_resp</cmd>\r\n"
        b"  <result>ok</result>\r\n"
        b"</bts>\n\n#\r\n"
    )


async def test_a_wrong_password_is_refused() -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        answer = await client.ask(
            "<cmd>connect</cmd><username>admin</username><password>1234</password>"
        )
    assert b"<result>false</result>" in answer


async def test_the_device_list_has_sixteen_channels_with_a_capital_c() -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        answer = await client.ask("<cmd>getdevinfo</cmd>")
    assert answer.startswith(
        b'<?xml version="1.0" encoding="UTF-8"?>\r\n<bts version="1.0">\r\n'
        b'  <cmd>getdevinfo_resp</cmd>\r\n  <serverip count="1">\r\n'
        b'    <server ip="127.0.0.1" port="3306" />\r\n  </serverip>\r\n'
        b'  <middle count="16">\r\n'
        b'    <channel ip="127.0.0.1" devtype="27" devid="21" subdevid="1" Channelid="1">true'
        b"</channel>\r\n"
    )
    assert answer.count(b'subdevid="2" Channelid=') == 8
    assert answer.endswith(b"</bts>\n\n#\r\n")


async def test_channel_status_is_answered_in_the_order_asked() -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        answer = await client.ask(
            '<cmd>getchlstatus</cmd><list count = "2">'
            '<status ip="127.0.0.1" devtype="27" devid="21" subdevid="2" chlid="1">true</status>'
            '<status ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1">true</status>'
            "</list>"
        )
    assert answer == (
        b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
        b'<bts version="1.0">\r\n'
        b"  <cmd>getchlstatus_resp</cmd>\r\n"
        b'  <list count="2">\r\n'
        b'    <status ip="127.0.0.1" devtype="27" devid="21" subdevid="2" chlid="1" '
        b'reservepause="0">finish</status>\r\n'
        b'    <status ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1" '
        b'reservepause="0">finish</status>\r\n'
        b"  </list>\r\n"
        b"</bts>\n\n#\r\n"
    )


async def test_a_rack_with_the_subdevid_quirk_calls_every_unit_1() -> None:
    async with linear_rack(answers_subdevid_1=True) as rack, await Client.to(rack.port) as client:
        [(named, _)] = await client.told(
            '<cmd>getchlstatus</cmd><list count="1">'
            f'<status ip="127.0.0.1" {key("2-3")}>true</status></list>'
        )
    assert (named["subdevid"], named["chlid"]) == ("1", "3")


async def test_an_idle_channel_is_inquired_without_a_step(tmp_path: Path) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, REST), barcode="251203_kigr_gen17_01")
        await client.all_rows()
        answer = await client.ask(
            '<cmd>inquire</cmd><list count = "1"><inquire ip="127.0.0.1" devtype="27" devid="21" '
            'subdevid="1" chlid="1" aux="0" barcode="1">true</inquire></list>'
        )
    assert re.fullmatch(
        rb'<\?xml version="1\.0" encoding="UTF-8"\?>\r\n'
        rb'<bts version="1\.0">\r\n'
        rb"  <cmd>inquire_resp</cmd>\r\n"
        rb'  <list count="1">\r\n'
        rb'    <inquire dev="27-21-1-1-0" cycle_id="1" step_type="--" workstatus="finish" '
        rb'barcode="251203_kigr_gen17_01" current="0" voltage="[23]\.\d{1,4}" capacity="0" '
        rb'energy="0" totaltime="0" relativetime="0" open_or_close="0" log_code="0" />\r\n'
        rb"  </list>\r\n"
        rb"</bts>\n\n#\r\n",
        answer,
    )


async def test_a_working_channel_is_inquired_with_four_decimals(tmp_path: Path) -> None:
    file = step_file(step(1, StepType.CC_DISCHARGE, current_A=3e-4, stop_voltage_V=2.5))
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, file), barcode="b")
        await client.rows(1, 101)
        answer = await client.ask(
            '<cmd>inquire</cmd><list count = "1"><inquire ip="127.0.0.1" devtype="27" devid="21" '
            'subdevid="1" chlid="1" aux="0" barcode="1">true</inquire></list>'
        )
    found = re.search(rb"    <inquire .*\r\n", answer)
    assert found is not None
    line = re.sub(rb'voltage="2\.\d{1,4}"', b'voltage="V"', found[0])
    assert line == (
        b'    <inquire dev="27-21-1-1-0" cycle_id="1" step_id="1" step_type="dc" '
        b'workstatus="working" barcode="b" current="-0.0003" voltage="V" capacity="0.0001" '
        b'energy="0.0002" totaltime="1000" relativetime="1000" open_or_close="0" '
        b'log_code="102000" />\r\n'
    )


async def test_inquiredf_counts_the_records_of_the_last_test(tmp_path: Path) -> None:
    request = (
        '<cmd>inquiredf</cmd><list count = "1">'
        '<chl devtype="27" devid="21" subdevid="1" chlid="1" testid="0" /></list>'
    )
    head = (
        b'<?xml version="1.0" encoding="UTF-8"?>\r\n<bts version="1.0">\r\n'
        b'  <cmd>inquiredf_resp</cmd>\r\n  <list count="1">\r\n'
    )
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, REST))
        assert await client.ask(request) == head + (
            b'    <chl devtype="27" devid="21" subdevid="1" chlid="1" testid="1" count="1">false'
            b"</chl>\r\n  </list>\r\n</bts>\n\n#\r\n"
        )
        await client.all_rows()
        assert await client.ask(request) == head + (
            b'    <chl devtype="27" devid="21" subdevid="1" chlid="1" testid="1" count="4">true'
            b"</chl>\r\n  </list>\r\n</bts>\n\n#\r\n"
        )


async def test_records_are_downloaded_under_a_misspelt_name(tmp_path: Path) -> None:
    file = step_file(step(1, StepType.CC_CHARGE, current_A=1e-3, time_s=10.0))
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, file))
        answer = await client.ask(
            '<cmd>download</cmd><download devtype="27" devid="21" subdevid="1" chlid="1" '
            'auxid="0" testid="0" startpos="2" count="1000"/>'
        )
    measured = re.sub(rb'(volt|curr)="[\d.e-]+"', rb'\1="M"', answer)
    assert measured == (
        b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
        b'<bts version="1.0">\r\n'
        b"  <cmd>donwload_resp</cmd>\r\n"
        b'  <download devtype="27" devid="21" subdevid="1" chlid="1" testid="1" startpos="2" '
        b'count="1000" auxid="0" />\r\n'
        b'  <list count="1">\r\n'
        b'    <data seqid="2" stepid="1" cycleid="1" steptype="cc" testtime="10000" '
        b'atime="2027-01-15 08:00:10" volt="M" curr="M" cap="2.77777777777778e-06" '
        b'eng="8.36496913580247e-06" />\r\n'
        b"  </list>\r\n"
        b"</bts>\n\n#\r\n"
    )


async def test_a_download_of_nothing_tells_the_test_and_an_empty_list(tmp_path: Path) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, REST))
        answer = await client.ask(download(0, 0))
    assert answer == (
        b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
        b'<bts version="1.0">\r\n'
        b"  <cmd>donwload_resp</cmd>\r\n"
        b'  <download devtype="27" devid="21" subdevid="1" chlid="1" testid="1" startpos="0" '
        b'count="0" auxid="0" />\r\n'
        b'  <list count="0" />\r\n'
        b"</bts>\n\n#\r\n"
    )


async def test_the_log_tells_start_and_finish_under_a_misspelt_name(tmp_path: Path) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, REST))
        await client.all_rows()
        answer = await client.ask(
            '<cmd>downloadlog</cmd><download devtype="27" devid="21" subdevid="1" chlid="1" '
            'testid="0"/>'
        )
    assert answer == (
        b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
        b'<bts version="1.0">\r\n'
        b"  <cmd>donwloadlog_resp</cmd>\r\n"
        b'  <download devtype="27" devid="21" subdevid="1" chlid="1" testid="1" log_lever="0" />'
        b"\r\n"
        b'  <list count="2">\r\n'
        b'    <data seqid="1" log_code="100000" atime="2027-01-15 08:00:00" />\r\n'
        b'    <data seqid="4" log_code="100001" atime="2027-01-15 08:00:25" />\r\n'
        b"  </list>\r\n"
        b"</bts>\n\n#\r\n"
    )


async def test_the_step_layer_has_one_entry_for_each_visit(tmp_path: Path) -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        await client.start(saved(tmp_path, REST))
        await client.all_rows()
        answer = await client.ask(
            '<cmd>downloadStepLayer</cmd><downloadStepLayer devtype="27" devid="21" subdevid="1" '
            'chlid="1" />'
        )
    assert re.sub(rb'volt="[\d.]+"', b'volt="M"', answer) == (
        b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
        b'<bts version="1.0">\r\n'
        b"  <cmd>downloadStepLayer_resp</cmd>\r\n"
        b'  <downloadStepLayer devtype="27" devid="21" subdevid="1" chlid="1" testid="1" />\r\n'
        b'  <list count="1">\r\n'
        b'    <data startseqid="1" endseqid="4" stepindex="1" stepid="1" cycleid="1" '
        b'steptype="rest" steptime="25000" endatime="2027-01-15 08:00:25" startvolt="M" '
        b'endvolt="M" startcurr="0" endcurr="0" cap="0" eng="0" dcir="0" />\r\n'
        b"  </list>\r\n"
        b"</bts>\n\n#\r\n"
    )


async def test_start_and_stop_answer_ok_and_then_false(tmp_path: Path) -> None:
    path = saved(tmp_path, REST)
    start = (
        '<cmd>start</cmd><list count = "1"><start ip="127.0.0.1" devtype="27" devid="21" '
        f'subdevid="1" chlid="1" barcode="X">{path}</start>'
        '<backup backupdir="C:\\" remotedir="" filenametype="0" customfilename="" '
        'addtimewhenrepeat="0" createdirbydate="0" filetype="0" backupontime="1" '
        'backupontimeinterval="720" backupfree="1" /></list>"'
    )
    stop = (
        '<cmd>stop</cmd><list count = "1"><stop ip="127.0.0.1" devtype="27" devid="21" '
        'subdevid="1" chlid="1">true</stop></list>'
    )
    captured = (
        b'<?xml version="1.0" encoding="UTF-8"?>\r\n<bts version="1.0">\r\n'
        b'  <cmd>%s_resp</cmd>\r\n  <list count="1">\r\n'
        b'    <%s ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1">%s</%s>\r\n'
        b"  </list>\r\n</bts>\n\n#\r\n"
    )
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        assert await client.ask(start) == captured % (b"start", b"start", b"ok", b"start")
        assert await client.ask(start) == captured % (b"start", b"start", b"false", b"start")
        assert await client.ask(stop) == captured % (b"stop", b"stop", b"ok", b"stop")
        assert await client.ask(stop) == captured % (b"stop", b"stop", b"false", b"stop")


async def test_light_is_ok_and_a_flag_that_is_not_set_cannot_be_cleared() -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        assert await client.each("light") == "ok"
        assert await client.each("clearflag") == "false"
        assert await client.each("getpause") == "false"
        assert await client.each("getparallel") == "false"
        assert await client.each("chl_ctrl") == "false"


async def test_requests_that_come_in_pieces_or_together_are_answered_in_order() -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        one = b'<?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>%s</cmd></bts>#\r\n'
        text = one % b"getdevinfo" + one % b"connect"
        client.writer.write(text[:40])
        await client.writer.drain()
        await asyncio.sleep(0)
        client.writer.write(text[40:])
        assert b"getdevinfo_resp" in await client.reader.readuntil(b"\n\n#\r\n")
        assert b"connect_resp" in await client.reader.readuntil(b"\n\n#\r\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"<bts><cmd>selfdestruct</cmd></bts>",
        b"<bts><cmd>connect</cmd>",
        b"hello",
        b'<!DOCTYPE bts [<!ENTITY a "b">]><bts><cmd>connect</cmd></bts>',
        b"<bts><cmd>connect</cmd><cmd>stop</cmd></bts>",
        b"<bts></bts>",
        b"\xff\xfe\x00",
        b"",
    ],
)
async def test_what_is_no_request_closes_the_connection_and_nothing_else(
    request_bytes: bytes,
) -> None:
    async with linear_rack() as rack:
        async with await Client.to(rack.port) as other, await Client.to(rack.port) as client:
            client.writer.write(request_bytes + b"\n\n#\r\n")
            assert await client.reader.read() == b""
            assert b"connect_resp" in await other.ask("<cmd>connect</cmd>")


async def test_a_request_without_an_end_is_cut_off_at_a_megabyte() -> None:
    async with linear_rack() as rack, await Client.to(rack.port) as client:
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(64):
                client.writer.write(b"x" * (1 << 16))
                await client.writer.drain()
            if await client.reader.read() == b"":
                raise ConnectionResetError


def test_entities_of_the_sender_are_never_expanded() -> None:
    bomb = b'<!DOCTYPE bts [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><bts><cmd>&b;</cmd></bts>'
    with pytest.raises(WireError, match="document type"):
        parse_request(bomb)


def test_too_deep_too_many_and_too_long_are_refused() -> None:
    with pytest.raises(WireError):
        parse_request(b"<bts>" + b"<a>" * 1000 + b"</a>" * 1000 + b"</bts>")
    with pytest.raises(WireError):
        parse_request(b"<bts><cmd>x</cmd>" + b"<a/>" * 30_000 + b"</bts>")
    with pytest.raises(WireError):
        parse_request(b" " * (MAX_REQUEST_BYTES + 1))


def test_a_barcode_in_chinese_comes_in_as_gb2312_and_goes_out_as_ascii() -> None:
    text = (
        '<?xml version="1.0" encoding="GB2312"?><bts><cmd>start</cmd><start barcode="电池"/></bts>'
    )
    request = parse_request(text.encode("gb2312"))
    barcode = request.elements[0].attributes["barcode"]
    assert barcode == "电池"
    assert b'barcode="&#30005;&#27744;"' in response(
        "inquire", listed([element("inquire", {"barcode": barcode})])
    )


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_wire_error(data: bytes) -> None:
    try:
        request = parse_request(data)
    except WireError:
        return
    assert request.command


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="￾￿")),
)
def test_any_barcode_goes_through_the_wire_and_back(barcode: str) -> None:
    frame = response("start", [element("start", {"barcode": barcode})])
    assert frame.isascii()
    again = parse_request(frame.removesuffix(b"#\r\n"))
    assert again.elements[0].attributes["barcode"] == barcode


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.6947, "4.6947"),
        (0.001, "0.001"),
        (12319.0, "12319"),
        (-0.00001, "0"),
        (-0.0003, "-0.0003"),
    ],
)
def test_trailing_zeros_are_dropped(value: float, text: str) -> None:
    assert short(value, 4) == text
