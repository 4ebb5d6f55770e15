from __future__ import annotations

import datetime as dt
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.neware_bts.messages import Address
from labctl.drivers.neware_bts.rows import Rows, read_download
from labctl.errors import InstrumentError

C1 = Address("127.0.0.1", 27, 21, 1, 1)

# As a BTS 8.0 gave it, with seven of its ten rows taken out.
CAPTURED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
    b'<bts version="1.0">\r\n'
    b"  <cmd>donwload_resp</cmd>\r\n"
    b'  <download devtype="27" devid="21" subdevid="1" chlid="1" testid="143" startpos="219576"'
    b' count="1000" auxid="0" />\r\n'
    b'  <list count="3">\r\n'
    b'    <data seqid="219576" stepid="24" cycleid="29" steptype="dc" testtime="36070000"'
    b' atime="2025-12-28 22:29:05" volt="3.6780698299408" curr="-0.000295051460852847"'
    b' cap="0.00295628436449786" eng="0.0135611368830335" />\r\n'
    b'    <data seqid="219577" stepid="24" cycleid="29" steptype="dc" testtime="36080000"'
    b' atime="2025-12-28 22:29:15" volt="3.65799260139465" curr="-0.000295052188448608"'
    b' cap="0.00295710395391022" eng="0.0135641349350401" />\r\n'
    b'    <data seqid="219578" stepid="24" cycleid="29" steptype="dc" testtime="36080300"'
    b' atime="2025-12-28 22:29:15" volt="3.65737199783325" curr="-0.000295052188448608"'
    b' cap="0.00295712845399976" eng="0.0135642616078258" />\r\n'
    b"  </list>\r\n"
    b"</bts>"
)
NOTHING = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
    b'<bts version="1.0">\r\n'
    b"  <cmd>donwload_resp</cmd>\r\n"
    b'  <download devtype="27" devid="21" subdevid="1" chlid="1" testid="143" startpos="0"'
    b' count="0" auxid="0" />\r\n'
    b'  <list count="0" />\r\n'
    b"</bts>"
)


def read(data: bytes, start: int = 219576, count: int = 1000) -> Rows:
    return read_download(data, C1, start=start, count=count, instrument="rack 1")


def same(one: Rows, other: Rows) -> bool:
    return one.steptype == other.steptype and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in Rows.__slots__
        if name != "steptype"
    )


def test_captured_readings_become_columns() -> None:
    rows = read(CAPTURED)
    assert rows.test == 143
    assert rows.seqid.tolist() == [219576, 219577, 219578]
    assert rows.stepid.tolist() == [24, 24, 24]
    assert rows.cycleid.tolist() == [29, 29, 29]
    assert rows.steptype == ("dc", "dc", "dc")
    assert rows.step_time_s.tolist() == [36070.0, 36080.0, 36080.3]
    assert rows.host_time_s.tolist() == [1766960945.0, 1766960955.0, 1766960955.0]
    assert rows.voltage_V.tolist() == [3.6780698299408, 3.65799260139465, 3.65737199783325]
    assert rows.current_A[0] == -0.000295051460852847
    assert rows.capacity_Ah[0] == 0.00295628436449786
    assert rows.energy_Wh[0] == 0.0135611368830335


def test_a_download_of_nothing_tells_the_number_of_the_test() -> None:
    rows = read(NOTHING, start=0, count=0)
    assert rows.test == 143
    assert len(rows) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'seqid="219576" stepid="24"', b'stepid="24" seqid="219576"'),
        (b"    <data", b"<!-- a remark -->\n<data"),
        (b' cap="0.00295628436449786"', b' aux="7" cap="0.00295628436449786"'),
        (b' eng="0.0135611368830335" />', b' eng="0.0135611368830335"></data>'),
        (b' volt="3.6780698299408"', b" volt='3.6780698299408'"),
        (b"donwload_resp", b"download_resp"),
    ],
)
def test_the_same_rows_in_another_form_of_xml_are_the_same_readings(old: bytes, new: bytes) -> None:
    assert same(read(CAPTURED.replace(old, new)), read(CAPTURED))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'volt="3.65799260139465"', b'volt="nan"', "volt is 'nan'"),
        (b'volt="3.65799260139465"', b'volt="inf"', "volt is 'inf'"),
        (b'volt="3.65799260139465"', b'volt="1e999"', "voltage_V of reading 219577 is not finite"),
        (b'volt="3.65799260139465"', b'volt=""', "volt is ''"),
        (b'volt="3.65799260139465"', b'volt="1-2"', "no number"),
        (b'volt="3.65799260139465"', b'volt="3,65"', "volt is '3,65'"),
        (b' volt="3.65799260139465"', b"", "has no volt"),
        (b' curr="-0.000295051460852847"', b"", "has no curr"),
        (b'seqid="219577"', b'seqid="219575"', "reading 219575 comes after reading 219576"),
        (b'seqid="219577"', b'seqid="219576"', "reading 219576 comes after reading 219576"),
        (b'seqid="219576"', b'seqid="1"', "begins with reading 1, before 219576"),
        (b'startpos="219576"', b'startpos="1"', "begins at reading 1, not at 219576"),
        (b'<list count="3">', b'<list count="2">', "announces 2 <data> and holds 3"),
        (b'<list count="3">', b'<list count="4">', "announces 4 <data> and holds 3"),
        (b'chlid="1"', b'chlid="2"', "about another channel than 21-1-1"),
        (b'subdevid="1"', b'subdevid="2"', "about another channel than 21-1-1"),
        (b'testtime="36080000"', b'testtime="-1"', "step time of reading 219577 is below 0"),
        (b"2025-12-28 22:29:15", b"2025-02-30 22:29:15", "no time"),
        (b"2025-12-28 22:29:15", b"yesterday", "atime is 'yesterday'"),
        (b' testid="143"', b"", "has no testid"),
        (b"donwload_resp", b"inquire_resp", "is 'inquire_resp'"),
        (b"    <data seqid", b"    <date seqid", "announces 3 <data> and holds 0"),
        (b"/>\r\n    <data seqid", b"/>\r\n    oops <!-- <data seqid", "not XML"),
    ],
)
def test_readings_that_cannot_be_are_refused(old: bytes, new: bytes, says: str) -> None:
    assert old in CAPTURED
    with pytest.raises(InstrumentError, match=says) as caught:
        read(CAPTURED.replace(old, new))
    assert caught.value.instrument == "rack 1"
    assert caught.value.command == "download"
    assert caught.value.reply


def test_rows_that_stand_in_a_remark_are_no_readings() -> None:
    first = CAPTURED.index(b"    <data")
    end = CAPTURED.index(b"  </list>")
    hidden = CAPTURED[:first] + b"<!--" + CAPTURED[first:end] + b"-->" + CAPTURED[end:]
    with pytest.raises(InstrumentError, match="announces 3 <data> and holds 0"):
        read(hidden)


def test_more_readings_than_asked_for_are_refused() -> None:
    with pytest.raises(InstrumentError, match="brings 3 readings where 2 were asked for"):
        read(CAPTURED, count=2)


def test_a_reply_that_was_cut_off_is_refused_wherever() -> None:
    for length in range(0, len(CAPTURED), 11):
        with pytest.raises(InstrumentError):
            read(CAPTURED[:length])


@given(
    st.binary(max_size=20) | st.sampled_from([b"<", b"nan", b'"', b"</list>", b"-", b"e9", b"1"]),
    st.integers(0, len(CAPTURED)),
    st.integers(0, 30),
)
def test_a_damaged_reply_gives_finite_ordered_readings_or_an_error(
    damage: bytes, start: int, length: int
) -> None:
    try:
        rows = read(CAPTURED[:start] + damage + CAPTURED[start + length :])
    except InstrumentError:
        return
    assert np.all(np.diff(rows.seqid) > 0)
    for name in ("step_time_s", "voltage_V", "current_A", "capacity_Ah", "energy_Wh"):
        assert np.all(np.isfinite(getattr(rows, name)))


cells = st.fixed_dictionaries(
    {
        "stepid": st.integers(1, 254),
        "cycleid": st.integers(1, 10**9),
        "steptype": st.sampled_from(["cc", "dc", "cv", "rest", "cccv", "lsv"]),
        "testtime": st.integers(0, 10**11),
        "atime": st.integers(0, 4 * 10**9).map(
            lambda second: f"{dt.datetime.fromtimestamp(second, dt.UTC):%Y-%m-%d %H:%M:%S}"
        ),
        "volt": st.floats(-6, 6).map(lambda value: f"{value:.15g}"),
        "curr": st.floats(-1, 1).map(lambda value: f"{value:.15g}"),
        "cap": st.floats(0, 10).map(lambda value: f"{value:.15g}"),
        "eng": st.floats(0, 40).map(lambda value: f"{value:.15g}"),
    }
)


@given(st.lists(cells, min_size=1, max_size=12))
def test_rows_read_in_columns_are_those_that_xml_gives(found: list[dict[str, object]]) -> None:
    first = CAPTURED.index(b"    <data")
    end = CAPTURED.index(b"  </list>")
    lines = "".join(
        f'    <data seqid="{219576 + place}" '
        + " ".join(f'{name}="{value}"' for name, value in row.items())
        + " />\r\n"
        for place, row in enumerate(found)
    )
    head = CAPTURED[:first].replace(b'count="3"', b'count="%d"' % len(found))
    usual = read(head + lines.encode() + CAPTURED[end:])
    other = read(head + lines.replace(" />", "/>").encode() + CAPTURED[end:])
    assert same(usual, other)
    assert usual.voltage_V.tolist() == [float(str(row["volt"])) for row in found]
    assert usual.capacity_Ah.tolist() == [float(str(row["cap"])) for row in found]


def many(count: int) -> bytes:
    rows = b"".join(
        b'    <data seqid="%d" stepid="24" cycleid="29" steptype="dc" testtime="%d"'
        b' atime="2025-12-28 22:29:05" volt="3.6780698299408" curr="-0.000295051460852847"'
        b' cap="0.00295628436449786" eng="0.0135611368830335" />\r\n' % (219576 + n, 1000 * n)
        for n in range(count)
    )
    first = CAPTURED.index(b"    <data")
    end = CAPTURED.index(b"  </list>")
    return (CAPTURED[:first] + rows + CAPTURED[end:]).replace(
        b'<list count="3">', b'<list count="%d">' % count
    )


def test_a_full_download_is_read_at_a_hundred_and_fifty_thousand_readings_a_second() -> None:
    data = many(1000)
    assert len(read(data)) == 1000
    best_s = min(_time_of(data) for _ in range(20))
    assert 1000 / best_s > 150_000


def test_a_long_run_of_blanks_does_not_stall_the_reader() -> None:
    data = CAPTURED.replace(b"  </list>", b" " * 500_000 + b"x </list>")
    began_s = time.perf_counter()
    rows = read(data)
    assert len(rows) == 3
    assert time.perf_counter() - began_s < 5.0


def _time_of(data: bytes) -> float:
    began_s = time.perf_counter()
    read(data)
    return time.perf_counter() - began_s
