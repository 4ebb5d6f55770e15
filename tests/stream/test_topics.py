"""Topics and what is said on them."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.errors import StreamError
from labctl.stream import topics
from labctl.stream.topics import Ack, ack_of


def test_every_topic_is_where_the_documentation_says():
    assert topics.batch_topic("lab1") == "labctl/v1/lab1/batch"
    assert topics.ack_topic("lab1") == "labctl/v1/lab1/ack"
    assert topics.node_state_topic("lab1") == "labctl/v1/lab1/state"
    assert topics.latest_topic("lab1", "neware-3") == "labctl/v1/lab1/channel/neware-3/latest"
    assert topics.cycle_topic("lab1", "r7") == "labctl/v1/lab1/run/r7/cycle"
    assert topics.alarm_topic("lab1", "r7", "retention") == "labctl/v1/lab1/alarm/r7/retention"
    assert topics.archive_state_topic("main") == "labctl/v1/archive/main/state"
    assert topics.marker_topic("lab1", "r7", "start") == "labctl/v1/lab1/marker/r7/start"
    assert topics.signal_topic("lab1", "ready") == "labctl/v1/lab1/signal/ready"
    assert topics.all_signals("lab1") == "labctl/v1/lab1/signal/+"
    assert topics.shared_batches("archives") == "$share/archives/labctl/v1/+/batch"


@pytest.mark.parametrize(
    "name", ["", "a/b", "a+", "#", "a\x00b", "a\nb", "$SYS", " a", "a ", "x" * 65, "é" * 33]
)
def test_a_name_that_would_change_the_topic_is_refused(name):
    with pytest.raises(StreamError):
        topics.batch_topic(name)
    with pytest.raises(StreamError):
        topics.cycle_topic("lab1", name)
    with pytest.raises(StreamError):
        topics.marker_topic("lab1", "r7", name)
    with pytest.raises(StreamError):
        topics.signal_topic("lab1", name)


def test_a_node_cannot_take_the_place_of_the_archives():
    with pytest.raises(StreamError, match="archives announce themselves"):
        topics.batch_topic("archive")
    with pytest.raises(StreamError):
        topics.node_of("labctl/v1/archive/main/state")


@given(st.text())
def test_the_node_of_its_own_topics_is_found_again(name):
    try:
        topic = topics.batch_topic(name)
    except StreamError:
        return
    assert topics.node_of(topic) == name
    assert topic.count("/") == 3


@pytest.mark.parametrize("topic", ["", "labctl/v1", "labctl/v1/", "labctl/v2/a/batch", "a/b/c/d"])
def test_a_foreign_topic_has_no_node(topic):
    with pytest.raises(StreamError):
        topics.node_of(topic)


@given(st.lists(st.integers(1, 60)), st.integers(0, 40))
def test_an_ack_covers_what_is_committed_and_nothing_else(numbers, watermark):
    ack = ack_of("s", numbers, watermark)
    again = topics.decode(topics.encode(ack), Ack)
    assert again == ack
    for number in range(1, 70):
        assert ack.covers(number) == (number in numbers or number <= watermark)


def test_an_ack_with_too_many_holes_says_less_and_never_more():
    numbers = list(range(2, 2 * topics.MOST_ACK_RANGES + 100, 2))
    ack = ack_of("s", numbers)
    assert len(ack.ranges) == topics.MOST_ACK_RANGES
    assert all(number in numbers for number in range(1, 3000) if ack.covers(number))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"{}",
        b"\xff",
        b'{"source":"s","watermark":-1}',
        b'{"source":"s","watermark":5,"ranges":[[6,7]]}',
        b'{"source":"s","watermark":5,"ranges":[[9,8]]}',
        b'{"source":"s","watermark":5,"ranges":[[10,12],[8,9]]}',
        b'{"source":"s","watermark":1e400}',
        b"[" * 100_000,
        b'{"source":"' + b"s" * 300_000 + b'","watermark":1}',
    ],
)
def test_a_bad_ack_is_refused(payload):
    with pytest.raises(StreamError):
        topics.decode(payload, Ack)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_ack_or_a_stream_error(payload):
    with contextlib.suppress(StreamError):
        topics.decode(payload, Ack)


def test_a_value_that_is_not_known_is_null_and_comes_back_as_none():
    latest = topics.ChannelLatest(
        instrument="neware", channel="3", run="r1", state="running", cell="c", cycle=1, step=2,
        label="charge", unix_time_s=1.8e9, voltage_V=3.43, current_A=math.nan, charge_Ah=0.0,
    )  # fmt: skip
    payload = topics.encode(latest)
    assert b'"current_A":null' in payload
    assert topics.decode(payload, topics.ChannelLatest).current_A is None


def test_a_field_of_a_later_version_is_passed_over():
    ack = topics.decode(b'{"source":"s","watermark":4,"later":true}', Ack)
    assert ack == Ack(source="s", watermark=4)


@given(st.text())
def test_a_signal_is_known_by_its_topic(name):
    try:
        topic = topics.signal_topic("lab1", name)
    except StreamError:
        return
    assert topics.signal_of(topic) == name


@pytest.mark.parametrize(
    "topic",
    [
        "labctl/v1/lab1/signal",
        "labctl/v1/lab1/signal/",
        "labctl/v1/lab1/signal/a/b",
        "labctl/v1/lab1/marker/r/signal",
        "labctl/v1/signal/x",
        "labctl/v1/archive/signal/x",
    ],
)
def test_another_topic_is_no_signal(topic):
    with pytest.raises(StreamError):
        topics.signal_of(topic)


def test_a_signal_is_for_one_run_or_for_every_run_that_waits():
    assert topics.decode_signal(b"") == topics.Signal()
    one = topics.Signal(run="r7", actor="diffractometer")
    assert topics.decode_signal(topics.encode(one)) == one
    with pytest.raises(StreamError, match="not a Signal"):
        topics.decode_signal(b"go")


def test_a_marker_says_where_the_run_was():
    marker = topics.Marker(
        run="r7", marker="pattern", direction="sent", visit=4, seq=17, cycle=1,
        test_time_s=math.nan, unix_time_s=1.8e9,
    )  # fmt: skip
    payload = topics.encode(marker)
    assert b'"test_time_s":null' in payload
    again = topics.decode(payload, topics.Marker)
    assert (again.run, again.visit, again.seq, again.test_time_s) == ("r7", 4, 17, None)
