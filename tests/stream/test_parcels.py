"""A parcel gives back the batches that were put into it, and nothing else passes for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labctl.stream.parcels import LARGEST_PARCEL_B, MAGIC, fits, open_parcel, pack_parcel

batches = st.lists(st.binary(min_size=1, max_size=50).map(lambda b: b"LCB1" + b), min_size=1)


@given(batches)
def test_what_was_packed_comes_out_in_its_order(some: list[bytes]) -> None:
    assert open_parcel(pack_parcel(some)) == some


def test_a_single_batch_is_sent_as_it_is() -> None:
    assert pack_parcel([b"LCB1 and so on"]) == b"LCB1 and so on"


@given(batches.filter(lambda some: len(some) > 1), st.data())
def test_a_parcel_that_was_cut_or_grew_is_no_parcel(some: list[bytes], data: st.DataObject) -> None:
    parcel = pack_parcel(some)
    cut = parcel[: data.draw(st.integers(0, len(parcel) - 1))]
    for spoiled in (cut, parcel + b"\x01"):
        opened = open_parcel(spoiled)
        assert opened == [spoiled] or opened == some[: len(opened)]
        assert opened != some


@given(st.binary(max_size=60))
def test_any_message_is_opened_without_an_error(noise: bytes) -> None:
    for message in (noise, MAGIC + noise):
        opened = open_parcel(message)
        assert opened
        assert sum(map(len, opened)) <= len(message)


def test_a_parcel_has_room_for_a_batch_while_it_stays_below_its_size() -> None:
    assert fits(LARGEST_PARCEL_B - 100, bytes(96))
    assert not fits(LARGEST_PARCEL_B - 100, bytes(97))
