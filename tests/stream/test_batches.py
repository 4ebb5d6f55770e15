"""A batch is what was written, or an error; whatever bytes come."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_cycler import readings_of, three_cycles

from labctl.engine.placement import Place, place_readings
from labctl.engine.walk import Walk
from labctl.errors import StreamError
from labctl.model import RECORD_COLUMNS, Records
from labctl.stream.batches import (
    MAGIC,
    SamplesBatch,
    checksum_of,
    decode_batch,
    encode_events,
    encode_samples,
)
from labctl.stream.events import GapRecorded

PROGRAM = three_cycles()
RECORDS = place_readings(Walk(PROGRAM), Place(run="r"), readings_of(PROGRAM)).records[:30]
EVENT = GapRecorded(run="r", after_seq=1, reason="test", unix_time_s=0.0)
BATCH = encode_samples("lab-1", 7, "r", RECORDS)


def framed(body: bytes) -> bytes:
    return MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def test_a_batch_comes_back_to_the_bit() -> None:
    batch = decode_batch(BATCH)
    assert isinstance(batch, SamplesBatch)
    for name in RECORD_COLUMNS:
        assert getattr(batch.records(), name).tobytes() == getattr(RECORDS, name).tobytes()
    assert checksum_of(BATCH) == zlib.crc32(BATCH[8:])


@given(st.integers(0, len(BATCH) - 1), st.integers(1, 255))
def test_a_byte_that_was_changed_anywhere_is_noticed(place: int, change: int) -> None:
    spoiled = bytearray(BATCH)
    spoiled[place] ^= change
    with pytest.raises(StreamError):
        decode_batch(bytes(spoiled))


@given(st.integers(0, len(BATCH) - 1))
def test_a_batch_that_was_cut_off_is_noticed(length: int) -> None:
    with pytest.raises(StreamError):
        decode_batch(BATCH[:length])


@given(st.binary(max_size=200))
def test_any_bytes_with_a_good_checksum_are_a_batch_or_an_error(body: bytes) -> None:
    with pytest.raises(StreamError):
        decode_batch(framed(body))


@pytest.mark.parametrize(
    "body",
    [
        b"\x82\xa4type\xa7samples\xa1x" + b"\x91" * 100_000 + b"\xc0",
        encode_events("lab-1", 7, "r", (EVENT,))[8:].replace(b"version\x01", b"version\x02"),
        BATCH[8:].replace(b"last_seq\x1e", b"last_seq\x1d"),
        BATCH[8:].replace(b"first_seq\x01", b"first_seq\x00"),
        BATCH[8:].replace(b"\xa3<f8", b"\xa3<f4", 1),
        BATCH[8:].replace(b"voltage_V", b"voltage_X"),
    ],
    ids=["nested", "a newer version", "one more row", "one row less", "type", "no voltage"],
)
def test_a_good_checksum_does_not_make_a_batch_right(body: bytes) -> None:
    assert body != BATCH[8:]
    with pytest.raises(StreamError):
        _records(framed(body))


def _records(payload: bytes) -> Records:
    batch = decode_batch(payload)
    assert isinstance(batch, SamplesBatch)
    return batch.records()
