"""Messages that came from the broker and are not committed yet, a group at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiomqtt

from labctl.clock import Clock, first_of


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """When a group is committed: so long after its first batch, or when it has so many bytes. While
    no other is, a quarter of them will do, or a fifth of the time without another batch.

    messages: taken from the broker and not committed; the broker sends no more (with MQTT 5).
    alarms_every_s: how often alarms are looked for that another program has changed.
    """

    wait_s: float = 0.1
    bytes: int = 6 * 1024 * 1024
    messages: int = 500
    alarms_every_s: float = 2.0


class Inbox:
    """Messages taken and not committed yet."""

    def __init__(self, limits: GroupLimits) -> None:
        self._limits = limits
        self._messages: list[aiomqtt.Message] = []
        self._bytes = 0
        self._some = asyncio.Event()
        self._a_quarter = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, message: aiomqtt.Message) -> None:
        """Add a message, once there is room for it."""
        await self._room.wait()
        self._messages.append(message)
        self._bytes += len(message.payload)
        self._some.set()
        if 4 * self._bytes >= self._limits.bytes:
            self._a_quarter.set()
        if self._bytes >= self._limits.bytes or len(self._messages) >= self._limits.messages:
            self._a_quarter.set()
            self._full.set()
            self._room.clear()

    async def take_group(self, clock: Clock, idle: asyncio.Event) -> list[aiomqtt.Message]:
        """The next group.

        Args:
            idle: whether no other is being committed.
        """
        await self._some.wait()
        await first_of(
            self._full.wait(),
            clock.sleep(self._limits.wait_s),
            _both(self._a_quarter, idle),
            self._calm(clock, idle),
        )
        group, self._messages, self._bytes = self._messages, [], 0
        for event in (self._some, self._a_quarter, self._full):
            event.clear()
        self._room.set()
        return group

    async def _calm(self, clock: Clock, idle: asyncio.Event) -> None:
        while True:
            await idle.wait()
            before = len(self._messages)
            await clock.sleep(self._limits.wait_s / 5)
            if idle.is_set() and len(self._messages) == before:
                return


async def _both(first: asyncio.Event, second: asyncio.Event) -> None:
    await first.wait()
    await second.wait()
