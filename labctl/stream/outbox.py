"""What the publisher needs of a journal: what has not been acknowledged, and a place for acks."""

from __future__ import annotations

from typing import Protocol

from labctl.stream.topics import Ack


class Outbox(Protocol):
    """Batches of one source, numbered from 1 without gaps, kept until they are acknowledged."""

    @property
    def source(self) -> str:
        """Names the journal; the same in every batch, for ever."""
        ...

    async def pending(self, after_number: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        """Batches not acknowledged yet with a number above ``after_number``, oldest first.

        At least one if there is one, and no more than fit into ``limit_bytes`` beyond the first.
        """
        ...

    async def acknowledge(self, ack: Ack) -> None:
        """Take note of what the archive has committed. Older and repeated acks do no harm."""
        ...

    async def wait_for_more(self, after_number: int) -> None:
        """Return when a batch with a number above ``after_number`` has been written."""
        ...
