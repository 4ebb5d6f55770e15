"""Several batches in one message: a journal that has waited is sent with less ado.

A message on a node's batch topic is a batch, as it lies in the journal, or a parcel of several:
``LCP1``, and for each batch its length (4 bytes, little endian) and the batch. Nothing else is in
it; what counts stays the batch, with its number and its checksum.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

MAGIC: Final = b"LCP1"
LARGEST_PARCEL_B: Final = 512 * 1024
"""Batches are put together up to this size; one that is larger goes alone."""
_LENGTH = struct.Struct("<I")


def pack_parcel(batches: Sequence[bytes]) -> bytes:
    """One message for these batches, in their order; a single one is its own message."""
    if len(batches) == 1:
        return batches[0]
    pieces = [MAGIC]
    for batch in batches:
        pieces += (_LENGTH.pack(len(batch)), batch)
    return b"".join(pieces)


def open_parcel(message: bytes) -> list[bytes]:
    """The batches in a message. What is no whole parcel is given back as it is: then it is a batch,
    or it is nothing, which shows when it is decoded."""
    if not message.startswith(MAGIC):
        return [message]
    batches: list[bytes] = []
    at = len(MAGIC)
    while at + _LENGTH.size <= len(message):
        (length,) = _LENGTH.unpack_from(message, at)
        at += _LENGTH.size
        batches.append(message[at : at + length])
        at += length
    return batches if at == len(message) and batches else [message]


def fits(size_b: int, batch: bytes) -> bool:
    """Whether a parcel that is ``size_b`` long has room for another batch."""
    return size_b + _LENGTH.size + len(batch) <= LARGEST_PARCEL_B
